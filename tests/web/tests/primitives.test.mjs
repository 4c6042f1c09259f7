// The parts of drawing, one at a time, through the public module in Chromium: on tiny random models against diffusers
// (tests/reference/primitives.py), and with the embedded model against what `generate` does.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { adapters, root, withBrowser } from '../support/browser.mjs';
import { relative } from '../support/relative.mjs';
import { serve } from '../support/hub.mjs';
import { writeTiny } from '../support/tiny.mjs';

// As those of whole pipelines: relative L2, of a network in f16.
const NETWORK = 1e-2;

const reference = join(root, 'tests/reference/data');
const { kinds, drawings } = JSON.parse(readFileSync(join(reference, 'primitives.json'), 'utf8'));
const values = readFileSync(join(reference, 'primitives.bin'));
const { folders } = JSON.parse(readFileSync(join(reference, 'pipelines/cases.json'), 'utf8'));

/** @typedef {{ at: number, shape: number[], half: boolean }} Place */

/** @param {number} bits of f16 */
function fromHalf(bits) {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
}

/** What diffusers computed. @param {Place} place @returns {number[]} */
function read({ at, shape, half }) {
  const count = shape.reduce((a, b) => a * b, 1);
  const one = (/** @type {number} */ i) =>
    half ? fromHalf(values.readUInt16LE(at + 2 * i)) : values.readFloatLE(at + 4 * i);
  return Array.from({ length: count }, (_, i) => one(i));
}

/** @param {ArrayLike<number>} ours @param {ArrayLike<number>} theirs */
function furthest(ours, theirs) {
  assert.equal(ours.length, theirs.length);
  return Array.from(theirs).reduce((most, v, i) => Math.max(most, Math.abs(v - ours[i])), 0);
}

const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-models-'));
after(() => rmSync(models, { recursive: true }));

/**
 * A page whose `pipeline` is a tiny model, or the embedded one.
 * @param {import('node:test').TestContext} t
 * @param {string} folder
 * @param {(page: any) => Promise<void>} work
 */
async function withPipeline(t, folder, work) {
  if (folder !== 'embedded') writeTiny(join(models, folder), folders[folder].kind, folders[folder].options);
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({ adapter: adapters[0] }, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    await page.evaluate(async ([folder, variant]) => {
      const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
      const source = folder === 'embedded' ? folder : `${location.origin}/models/${folder}`;
      const pipeline = await DiffusionPipeline.fromPretrained(source, { variant, cache: false });
      /** The formula's picture. @param {number} width @param {number} height */
      const paint = (width, height) => {
        const image = new ImageData(width, height);
        for (let i = 0; i < width * height; i++) {
          const [x, y] = [i % width, Math.floor(i / width)];
          image.data.set([(x * 4) & 255, (y * 4) & 255, (x * y) & 255, 255], 4 * i);
        }
        return image;
      };
      /** As it passes to Node. @param {any} value @returns {any} */
      const plain = value =>
        ArrayBuffer.isView(value) ? [.../** @type {Float32Array} */ (value)]
          : Array.isArray(value) ? value.map(plain)
            : value && typeof value === 'object'
              ? Object.fromEntries(Object.entries(value).map(([key, v]) => [key, plain(v)])) : value;
      /** The steps of a drawing, with all that they carry. @param {any} options */
      const stepsOf = async options => {
        /** @type {any[]} */
        const steps = [];
        const result = await pipeline.generate({ ...options, onStep: (/** @type {any} */ s) => void steps.push(s) });
        const all = steps.map(async step => {
          const entries = Object.entries(step).filter(([key]) => key !== 'preview');
          const read = entries.map(async ([key, v]) => [key, plain(typeof v === 'function' ? await v() : v)]);
          return Object.fromEntries(await Promise.all(read));
        });
        return { steps: await Promise.all(all), step: result.timings.step };
      };
      Object.assign(window, { pipeline, paint, plain, stepsOf });
    }, [folder, folders[folder]?.options.variant]);
    await work(page);
  });
}

/** The parts, against diffusers. @param {import('node:test').TestContext} t @param {any} page @param {any} kind */
async function parts(t, page, kind) {
  const size = { width: kind.width, height: kind.height };
  const made = await page.evaluate(async (/** @type {any} */ { size, seed, steps }) => {
    const { pipeline, paint, plain } = /** @type {any} */ (window);
    return plain({
      latents: await pipeline.encode(paint(size.width, size.height), size),
      noise: await pipeline.noise(seed, size),
      schedule: await pipeline.schedule(undefined, steps),
      model: pipeline.model,
    });
  }, { size, seed: kind.seed, steps: kind.steps });
  const latents = read(kind.latents);
  const { latentChannels, latentScale } = made.model;
  assert.deepEqual([1, latentChannels, size.height / latentScale, size.width / latentScale], kind.latents.shape);
  const encoded = relative(made.latents, latents);
  assert.ok(encoded <= NETWORK, `encode: ${encoded}`);
  assert.ok(furthest(made.noise, read(kind.noise)) <= 2e-6);
  assert.deepEqual(made.schedule.timesteps, kind.timesteps);
  assert.ok(furthest(made.schedule.alphasCumprod, read(kind.alphas)) <= 1e-6);
  assert.equal(made.schedule.sigmas.length, kind.timesteps.length + 1);
  made.schedule.timesteps.forEach((/** @type {number} */ timestep, /** @type {number} */ i) => {
    const alpha = read(kind.alphas)[timestep];
    const sigma = Math.sqrt((1 - alpha) / alpha);
    assert.ok(Math.abs(made.schedule.sigmas[i] - sigma) <= 1e-4 * sigma, `sigma at ${timestep}`);
  });

  for (const { timestep, noisy, x0, noise, cond, uncond } of kind.predictions) {
    const { prompt, guidanceScale } = kind;
    const theirs = read(noisy);
    const given = { latents, noise: read(kind.noise), timestep, noisy: theirs, size, prompt, guidanceScale };
    const { added, predicted } = await page.evaluate(async (/** @type {any} */ given) => {
      const { pipeline, plain } = /** @type {any} */ (window);
      const [latents, noise, noisy] = [given.latents, given.noise, given.noisy].map(v => new Float32Array(v));
      const { timestep, prompt, guidanceScale, size } = given;
      return plain({
        added: await pipeline.addNoise(latents, noise, timestep),
        predicted: await pipeline.predict({ latents: noisy, timestep, prompt, guidanceScale, ...size }),
      });
    }, given);
    assert.ok(furthest(added, theirs) <= 1e-6, `addNoise at ${timestep}: ${furthest(added, theirs)}`);
    const far = { x0, noise, cond, uncond };
    for (const [name, place] of Object.entries(far)) {
      if (!place) {
        assert.equal(predicted[name], undefined);
        continue;
      }
      const error = relative(predicted[name], read(place));
      t.diagnostic(`${name} at ${timestep}: ${error.toExponential(1)}`);
      assert.ok(error <= NETWORK, `${name} at ${timestep}: ${error}`);
    }
  }
}

/** Word maps and blocks, against torch's attention and hooks. @param {import('node:test').TestContext} t @param {any} page @param {any} kind */
async function looked(t, page, { seen, width, height, prompt, guidanceScale }) {
  const options = { timestep: seen.timestep, prompt, guidanceScale, width, height };
  const given = { noisy: read(seen.noisy), options };
  const { attention, activations } = await page.evaluate(async (/** @type {any} */ { noisy, options }) => {
    const { pipeline, plain } = /** @type {any} */ (window);
    const latents = new Float32Array(noisy);
    return plain(await pipeline.predict({ ...options, latents, attention: true, activations: true }));
  }, given);
  const [, , h, w] = seen.noisy.shape;
  assert.deepEqual([attention.width, attention.height], [w, h]);
  assert.deepEqual(
    attention.tokens.map((/** @type {any} */ { kind, text }) => `${kind} ${text}`.trim()),
    ['start', 'word a', 'word red', 'word apple', 'end', 'padding'],
  );
  const maps = read(seen.maps);
  attention.tokens.forEach((/** @type {any} */ { kind, text, map }, /** @type {number} */ i) => {
    const theirs = maps.slice(i * w * h, (i + 1) * w * h);
    const error = relative(map, theirs);
    t.diagnostic(`${kind} ${text}: ${error.toExponential(1)}, at most ${furthest(map, theirs).toExponential(1)}`);
    assert.ok(error <= NETWORK && furthest(map, theirs) <= 1e-2, `map of ${kind} ${text}: ${error}`);
  });
  for (let at = 0; at < w * h; at++) {
    const sum = attention.tokens.reduce((/** @type {number} */ all, /** @type {any} */ t) => all + t.map[at], 0);
    assert.ok(Math.abs(sum - 1) <= 1e-3, `the maps add up to ${sum} at ${at}`);
  }
  assert.deepEqual(
    activations.map((/** @type {any} */ { name, channels }) => [name, channels]),
    seen.activations.map((/** @type {any} */ { name, channels }) => [name, channels]),
  );
  seen.activations.forEach((/** @type {any} */ { name, values }, /** @type {number} */ i) => {
    const ours = activations[i];
    assert.deepEqual([ours.maps.length, ours.height, ours.width], values.shape);
    const error = relative(ours.maps.flat(), read(values));
    t.diagnostic(`${name}: ${error.toExponential(1)}`);
    assert.ok(error <= NETWORK, `${name}: ${error}`);
  });
}

/** What guidance is made of at every step, against diffusers. @param {import('node:test').TestContext} t @param {any} page @param {string} folder */
async function steps(t, page, folder) {
  for (const { options, steps } of drawings.filter((/** @type {any} */ d) => d.folder === folder)) {
    const name = `${options.scheduler ?? 'own sampler'}, ${options.numInferenceSteps} steps`;
    const ours = await page.evaluate(
      (/** @type {any} */ options) =>
        /** @type {any} */ (window).stepsOf({ ...options, output: 'latent', inside: { guidance: true } }),
      options,
    );
    assert.equal(ours.steps.length, steps.length);
    let worst = 0;
    steps.forEach((/** @type {any} */ theirs, /** @type {number} */ i) => {
      for (const key of ['input', 'cond', 'uncond']) {
        if (!theirs[key]) {
          assert.equal(ours.steps[i][key], undefined, `${key} of step ${i + 1}`);
          continue;
        }
        const error = relative(ours.steps[i][key], read(theirs[key]));
        worst = Math.max(worst, error);
        assert.ok(error <= NETWORK, `${name}: ${key} of step ${i + 1}: ${error}`);
      }
    });
    t.diagnostic(`${name}: ${worst.toExponential(1)}`);
    const plainly = await page.evaluate(
      (/** @type {any} */ options) => /** @type {any} */ (window).stepsOf({ ...options, output: 'latent' }),
      options,
    );
    const [{ dispatches, submits, bytes }, without] = [ours.step, plainly.step];
    assert.deepEqual(
      { dispatches, submits, bytes },
      { dispatches: without.dispatches, submits: without.submits, bytes: without.bytes },
    );
    assert.deepEqual(plainly.steps.at(-1).latents, ours.steps.at(-1).latents);
    assert.ok(!('noise' in plainly.steps[0]) && !('input' in plainly.steps[0]));
  }
}

for (const kind of kinds) {
  test(`${kind.folder} against diffusers`, async t => {
    await withPipeline(t, kind.folder, async page => {
      await t.test('encode, noise, schedule, addNoise and predict', t => parts(t, page, kind));
      await t.test('word maps and blocks', t => looked(t, page, kind));
      await t.test('what guidance is made of at every step', t => steps(t, page, kind.folder));
    });
  });
}

test('the embedded model: the parts make the drawing', async t => {
  await withPipeline(t, 'embedded', async page => {
    const same = await page.evaluate(async () => {
      const { pipeline, stepsOf } = /** @type {any} */ (window);
      const request = { prompt: 'a red apple', seed: 5, numInferenceSteps: 4, scheduler: 'ddim' };
      const drawn = await pipeline.generate(request);
      const noise = await pipeline.noise(5);
      const again = await pipeline.generate({ ...request, seed: 6, latents: noise });
      const decoded = await pipeline.decode(drawn.latents[0]);
      const guided = await stepsOf({ ...request, inside: { guidance: true } });
      const looked = await stepsOf({ ...request, inside: { attention: true, activations: true } });
      const plainly = await stepsOf(request);
      // A step's input, asked about once more, gives what the step was given.
      let far = 0;
      for (const step of guided.steps) {
        const latents = new Float32Array(step.input);
        const asked = { latents, timestep: step.timestep, prompt: request.prompt };
        const { noise, x0, cond, uncond } = await pipeline.predict(asked);
        const pairs = [[noise, step.noise], [x0, step.x0], [cond, step.cond], [uncond, step.uncond]];
        for (const [a, b] of pairs) for (let i = 0; i < a.length; i++) far = Math.max(far, Math.abs(a[i] - b[i]));
      }
      /** @param {number[]} a @param {number[]} b */
      const equal = (a, b) => a.every((v, i) => v === b[i]);
      const named = (/** @type {any} */ token) => token.text;
      const shaped = (/** @type {any} */ b) => `${b.name} ${b.channels}x${b.height}x${b.width}`;
      const last = (/** @type {any} */ { steps }) => steps.at(-1).latents;
      return {
        noise: equal(drawn.latents[0], again.latents[0]),
        decode: equal(drawn.images[0].data, decoded.data),
        parameters: decoded.parameters,
        looked: equal(last(looked), last(plainly)),
        cost: ['dispatches', 'submits', 'bytes'].every(key => guided.step[key] === plainly.step[key]),
        fields: Object.keys(plainly.steps[0]).join(),
        words: looked.steps.map((/** @type {any} */ { attention }) => attention.tokens.map(named).join()),
        blocks: looked.steps[3].activations.map(shaped),
        dispatches: looked.step.dispatches - plainly.step.dispatches,
        far,
        // Without timestamp queries there are no times.
        times: looked.steps[3].activations.map((/** @type {any} */ block) => block.milliseconds ?? 1),
        coloured: guided.steps.flatMap((/** @type {any} */ step) =>
          ['input', 'x0'].map(name => ({ values: step[name], ...step.colours[name] }))),
      };
    });
    const { far, dispatches, blocks, words, times, coloured, ...rest } = same;
    assert.deepEqual(rest, {
      noise: true,
      decode: true,
      parameters: '',
      looked: true,
      cost: true,
      fields: 'step,total,timestep,sigma,latents,x0',
    });
    assert.ok(far <= 1e-5, `${far}`);
    assert.equal(times.length, blocks.length);
    assert.ok(times.every((/** @type {number} */ ms) => ms >= 0 && ms < 1e5), `${times}`);
    // What the checkpoint says of its latents' colours, as training/export.py fitted them.
    const told = JSON.parse(readFileSync(join(root, 'www/embedded/vae/config.json'), 'utf8'));
    for (const { values, width, height, data } of coloured) {
      assert.deepEqual([width, height], [16, 16]);
      for (let i = 0; i < 256; i++) {
        for (const c of [0, 1, 2]) {
          const sum = told.latent_rgb_factors.reduce(
            (/** @type {number} */ all, /** @type {number[]} */ row, /** @type {number} */ k) =>
              all + row[c] * values[256 * k + i], told.latent_rgb_bias[c]);
          const byte = 255 * Math.min(1, Math.max(0, sum));
          assert.ok(Math.abs(data[4 * i + c] - byte) <= 0.6, `${data[4 * i + c]} for ${byte}`);
        }
      }
    }
    assert.deepEqual(words, Array(4).fill(',a,red,apple,,'));
    assert.deepEqual([blocks[0], blocks.at(-1)], ['conv_in 64x16x16', 'conv_out 4x16x16']);
    // One for each attention to the text outside the middle, and one for each block.
    assert.ok(dispatches > blocks.length, `${dispatches}`);
  });
});

test('bad input is refused in words, and the pipeline goes on', async t => {
  await withPipeline(t, 'embedded', async page => {
    const calls = {
      'encode without a picture': ['p.encode()', /image/],
      'encode of a number': ['p.encode(7)', /image/],
      'encode at an odd size': ['p.encode(paint(64, 64), { width: 60 })', /width .*multiple of 8/],
      'encode at no size': ['p.encode(paint(64, 64), { height: 0 })', /height .*multiple of 8/],
      'encode with a word too many': ['p.encode(paint(64, 64), { size: 64 })', /no option "size"/],
      'encode stopped': ['p.encode(paint(64, 64), { signal: AbortSignal.abort() })', /Stopped/],
      'decode of a list': ['p.decode([1, 2])', /latents must be a Float32Array/],
      'decode of too few': ['p.decode(new Float32Array(7))', /latents has 7 values; a picture of 4x16x16 needs 1024/],
      'decode of another size': ['p.decode(new Float32Array(1024), { width: 256 })', /needs 2048/],
      'decode of NaN': ['p.decode(new Float32Array(1024).fill(NaN))', /latents\[0\] is NaN/],
      'decode of infinity': ['p.decode(new Float32Array(1024).fill(1, 0, 9).fill(Infinity, 9))', /latents\[9\] is inf/],
      'noise without a seed': ['p.noise()', /needs seed/],
      'noise of a fraction': ['p.noise(1.5)', /seed must be a whole number/],
      'noise at an odd size': ['p.noise(1, { width: 12 })', /multiple of 8/],
      'schedule of nothing': ["p.schedule('nothing', 4)", /scheduler must be one of/],
      'schedule of no steps': ["p.schedule('ddim', 0)", /numInferenceSteps must be/],
      'schedule of too many': ["p.schedule('ddim', 1001)", /1001; choose 1 to 1000/],
      'addNoise of two lengths': ['p.addNoise(new Float32Array(4), new Float32Array(5), 0)', /noise has 5 values/],
      'addNoise of NaN': ['p.addNoise(new Float32Array(4), new Float32Array(4).fill(NaN), 0)', /noise\[0\] is NaN/],
      'addNoise before the first': ['p.addNoise(new Float32Array(4), new Float32Array(4), -1)', /from 0, .* to 999/],
      'addNoise past the last': ['p.addNoise(new Float32Array(4), new Float32Array(4), 1000)', /from 0, .* to 999/],
      'addNoise at no time': ['p.addNoise(new Float32Array(4), new Float32Array(4), NaN)', /timestep must be a number/],
      'addNoise without one': ['p.addNoise(new Float32Array(4), new Float32Array(4))', /needs timestep/],
      'predict of nothing': ['p.predict()', /takes an object/],
      'predict without words': ['p.predict({ latents: new Float32Array(1024), timestep: 9 })', /needs prompt/],
      'predict of too few': ["p.predict({ prompt: '', latents: new Float32Array(8), timestep: 9 })", /latents has 8/],
      'predict of NaN': ["p.predict({ prompt: '', latents: new Float32Array(1024).fill(NaN), timestep: 9 })", /is NaN/],
      'predict past the last': ["p.predict({ prompt: '', latents: new Float32Array(1024), timestep: 999.5 })", /999/],
      'predict by steps': [
        "p.predict({ prompt: '', latents: new Float32Array(1024), timestep: 9, numInferenceSteps: 4 })", /no option/,
      ],
      'inside of what is not': ["p.generate({ prompt: '', inside: { heart: true } })", /inside has no "heart"/],
      'inside with DeepCache': [
        "p.generate({ prompt: '', deepCache: { interval: 2 }, inside: { attention: true }, onStep() {} })", /deepCache/,
      ],
      'word maps without words': [
        "p.generate({ prompt: '', promptEmbeds: new Float32Array(9856), inside: { attention: true }, onStep() {} })",
        /not promptEmbeds/,
      ],
      'inside of a word': ["p.generate({ prompt: '', inside: 'guidance' })", /inside must be an object/],
    };
    const said = await page.evaluate(async (/** @type {[string, string][]} */ calls) => {
      const { pipeline, paint } = /** @type {any} */ (window);
      const out = [];
      for (const [name, code] of calls) {
        const call = new Function('p', 'paint', `return (async () => ${code})()`);
        out.push([name, await call(pipeline, paint).then(
          () => 'no error',
          (/** @type {any} */ e) => [e.name, e.code, e.message],
        )]);
      }
      // Still of use.
      const { x0 } = await pipeline.predict({ prompt: 'a cat', latents: await pipeline.noise(1), timestep: 999 });
      return [...out, ['after', x0.length]];
    }, Object.entries(calls).map(([name, [code]]) => [name, code]));
    const answers = Object.fromEntries(said);
    assert.equal(answers.after, 1024);
    for (const [name, [, wanted]] of Object.entries(calls)) {
      const [kind, code, message] = answers[name];
      assert.equal(kind, 'DiffusionError', `${name}: ${answers[name]}`);
      assert.equal(code, name === 'encode stopped' ? 'aborted' : 'invalid-option', `${name}: ${message}`);
      assert.match(message, /** @type {RegExp} */ (wanted), name);
    }
  });
});
