// Four families learn in the tab (www/train.js) with the real engine, on the CPU and on the GPU: the same run as natively;
// what is wrong is refused by name, and a GPU that is lost costs nothing.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { adapters, browsers, root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';

const torch = JSON.parse(readFileSync(join(root, 'tests/reference/data/train.json'), 'utf8')).families;

/** In the page: every family, 50 steps from seed 7 and then some more.
 * @param {{ device: 'gpu' | 'cpu', more: number }} how
 * @returns {Promise<any[]>} */
async function learn({ device, more }) {
  const { Trainer, FAMILIES } = await import('/train.js');
  const start = performance.now();
  const spec = /** @type {const} */ ({ data: 'spiral', seed: 7 });
  const trainers = await Promise.all(FAMILIES.map(family => Trainer.create({ ...spec, family, device })));
  const found = await Promise.all(
    trainers.map(async trainer => {
      const first = await trainer.train(50);
      const { losses, step, critic } = await trainer.train(more);
      const [seconds, score] = [(performance.now() - start) / 1000, await trainer.score()];
      const picture = await trainer.picture({ size: 8, time: 0.3 });
      const samples = [await trainer.samples(100, 1), await trainer.samples(100, 1), await trainer.samples(100, 2)];
      await trainer.reset();
      const again = await trainer.train(1);
      trainer.dispose();
      const gone = await trainer.train(1).catch(error => error.code);
      return {
        family: trainer.family, device: trainer.device, seconds, score, step, gone, kind: picture.kind,
        points: trainer.points.length,
        losses: [...first.losses], again: again.losses[0], critic: critic?.length, last: losses.at(-1),
        arrays: Object.values(picture).filter(v => v instanceof Float32Array).map(v => v.length),
        same: samples[0].every((v, i) => v === samples[1][i]), other: samples[0].some((v, i) => v !== samples[2][i]),
      };
    }),
  );
  return found;
}

/** @type {{ browser: import('../support/browser.mjs').Name, device: 'gpu' | 'cpu', adapter?: string }[]} */
const places = [
  ...browsers.map(browser => /** @type {const} */ ({ browser, device: 'cpu' })),
  // The fastest adapter will do: the same compiler makes what runs on the others.
  { browser: 'chromium', device: 'gpu', adapter: adapters[0] },
];
for (const { browser, device, adapter } of places)
  test(`four families learn in ${browser} on ${adapter ?? 'the processor'} as in torch`, async t => {
    const server = await serve({ roots: { '/': join(root, 'www') }, files: { '/blank.html': '' } });
    t.after(server.close);
    await withBrowser(adapter ? { browser, adapter } : { browser }, async context => {
      const page = await context.newPage();
      await page.goto(`${server.url}/blank.html`);
      // On a GPU that is none each step takes long.
      const more = device === 'gpu' ? 10 : 150;
      const found = await page.evaluate(learn, { device, more });
      const kinds = { diffusion: 'arrows', flow: 'bent', gan: 'critic', vae: 'ellipses' };
      for (const { family, seconds, score, losses, ...rest } of found) {
        const share = `${(100 * score.onData).toFixed(1)} % on the data, ${score.modes.hit} of ${score.modes.of} modes`;
        t.diagnostic(`${family}: ${rest.step} steps in ${seconds.toFixed(1)} s beside the others, ${share}`);
        // As in tests/train.rs, whose tolerances these are.
        for (const [step, tolerance] of [[1, 1e-5], [10, 1e-4], [50, 1e-2]]) {
          const want = torch[family].losses[step - 1];
          const off = Math.abs(losses[step - 1] - want) / Math.max(1, Math.abs(want));
          assert.ok(off <= tolerance, `${family}, step ${step}: ${losses[step - 1]} for ${want}`);
        }
        assert.equal(rest.device, device);
        assert.equal(rest.again, losses[0]);
        assert.deepEqual([rest.step, rest.gone, rest.points], [50 + more, 'aborted', 4000]);
        assert.deepEqual([rest.same, rest.other, rest.critic], [true, true, family === 'gan' ? more : undefined]);
        assert.equal(rest.kind, kinds[/** @type {keyof typeof kinds} */ (family)]);
        assert.ok(rest.arrays.length > 0 && rest.arrays.every((/** @type {number} */ n) => n >= 64), `${rest.arrays}`);
        assert.ok(score.onData > 0.3, share);
      }
    });
  });

test('what cannot be learnt is refused, and training that diverges is told', async t => {
  const server = await serve({ roots: { '/': join(root, 'www') }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    const found = await page.evaluate(async () => {
      const { Trainer } = await import('/train.js');
      /** @param {Promise<any>} promise */
      const error = promise => promise.then(() => 'fine', e => `${e.name} ${e.code}: ${e.message}`);
      const good = /** @type {any} */ ({ family: 'vae', data: new Float32Array([0, 0, 1, 1, -1, 1]) });
      const refused = [];
      for (const wrong of /** @type {any[]} */ ([
        { family: 'transformer' }, { data: 'circle' }, { data: [1, 2, 3, 4] }, { seed: -1 }, { seed: 0.5 },
        { steps: 0 }, { learningRate: NaN }, { learningRate: -1 }, { data: new Float32Array() },
        { data: new Float32Array([1, 1, 1, 1]) }, { data: new Float32Array(3) },
        { data: new Float32Array([0, 0, NaN, 1]) }, { data: new Float32Array([0, 0, 9, 1]) },
        { data: new Float32Array(100_000) }, { device: 'tpu' },
      ])) refused.push(await error(Trainer.create({ ...good, ...wrong })));
      refused.push(await error(/** @type {any} */ (Trainer).create()));

      const trainer = await Trainer.create(good);
      for (const call of [
        trainer.train(0), trainer.train(1e9), trainer.samples(0), trainer.samples(1e6), trainer.samples(1, -1),
        trainer.picture({ size: 1 }), trainer.picture({ time: 2 }), trainer.reset(-1),
      ]) refused.push(await error(call));
      await trainer.train(3);
      const { modes } = await trainer.score();
      const ellipses = /** @type {any} */ (await trainer.picture()).ellipses.length;
      trainer.dispose();

      const wild = await Trainer.create({ family: 'vae', data: 'moons', learningRate: 1000 });
      let told = 'fine', step = 0;
      for (let i = 0; i < 50 && told === 'fine'; i++) {
        step = wild.step;
        told = await error(wild.train(10));
      }
      const after = { step: wild.step - step, samples: (await wild.samples(10)).every(Number.isFinite) };
      await wild.reset();
      wild.dispose();
      return { refused, modes, ellipses, told, after };
    });
    for (const each of found.refused) assert.match(each, /^DiffusionError invalid-option: .{10,}/);
    assert.match(found.refused[8], /draw at least two/);
    assert.deepEqual([found.modes, found.ellipses], [null, 12]);
    assert.match(found.told, /^DiffusionError invalid-option: Training diverged after step \d+/);
    assert.deepEqual(found.after, { step: 0, samples: true });
  });
});

const worker = readFileSync(join(root, 'www/worker.js'), 'utf8');

/** Serves the page with a worker that runs something first. @param {import('node:test').TestContext} t */
async function prepared(t) {
  const files = { '/blank.html': '', '/worker.js': worker };
  const server = await serve({ roots: { '/': join(root, 'www') }, files });
  t.after(server.close);
  return {
    url: `${server.url}/blank.html`,
    /** @param {() => void} first */
    first: first => { files['/worker.js'] = `(${first})();\n${worker}`; },
  };
}

/** In the worker: the device is lost with its ninth submit. */
function lose() {
  const { requestDevice } = GPUAdapter.prototype, { submit } = GPUQueue.prototype;
  /** @type {GPUDevice} */
  let device;
  let submits = 0;
  GPUAdapter.prototype.requestDevice = async function (...how) {
    return (device = await requestDevice.apply(this, how));
  };
  GPUQueue.prototype.submit = function (...what) {
    if (++submits === 9) device.destroy();
    return submit.apply(this, what);
  };
}

test('a GPU that is lost while a family learns: the processor goes on from the same step', async t => {
  const { url, first } = await prepared(t);
  first(lose);
  await withBrowser({}, async (context, errors) => {
    const page = await context.newPage();
    await page.goto(url);
    const found = await page.evaluate(async () => {
      const { Trainer } = await import('/train.js');
      const spec = /** @type {const} */ ({ family: 'vae', data: 'moons', seed: 3 });
      const [trainer, other] = await Promise.all([
        Trainer.create({ ...spec, device: 'gpu' }), Trainer.create({ ...spec, device: 'cpu' }),
      ]);
      const devices = [trainer.device];
      const off = [];
      for (const steps of [20, 50]) {
        const [got, want] = await Promise.all([trainer, other].map(each => each.train(steps)));
        devices.push(trainer.device);
        off.push(...want.losses.map((v, i) => Math.abs(v - got.losses[i])));
      }
      const { step } = trainer;
      trainer.dispose();
      other.dispose();
      return { devices, step, off };
    });
    assert.deepEqual([found.devices, found.step, found.off.length], [['gpu', 'gpu', 'cpu'], 70, 70]);
    // As far as the first 100 losses are to be torch's: 1e-2.
    assert.ok(Math.max(...found.off) <= 1e-2, `${found.off}`);
    errors.splice(0).filter(e => !/[Dd]evice|GPU/.test(e)).forEach(e => errors.push(e));
  });
});

test('the page says where its families learn, and that a GPU was lost', async t => {
  const { url, first } = await prepared(t);
  first(lose);
  await withBrowser({ connection: { saveData: true } }, async (context, errors) => {
    const page = await context.newPage();
    await page.addInitScript(claim, { vendor: 'nvidia', architecture: 'ampere' });
    await page.goto(new URL('learn.html#train', url).href);
    const told = (/** @type {string} */ what) => page.waitForFunction(
      what => document.getElementById('train-told')?.textContent?.includes(what), what);
    await page.locator('#train-panels').scrollIntoViewIfNeeded();
    await told('learn on the graphics card');
    await told('taken away: the processor goes on');
    assert.equal(await page.locator('#train .error:not([hidden])').count(), 0);
    await page.click('#train-reset');
    await told('learn on the graphics card');
    errors.splice(0).filter(e => !/[Dd]evice|GPU/.test(e)).forEach(e => errors.push(e));
  });
});

/** In the page: what the adapter says of itself. @param {object} info */
const claim = info =>
  Object.defineProperty(GPUAdapter.prototype, 'info', { get: () => ({ vendor: '', architecture: '', ...info }) });

/** In the page. @param {'gpu' | 'cpu' | undefined} device @returns {Promise<string>} where it learns, or why not */
async function where(device) {
  const { Trainer } = await import('/train.js');
  try {
    const trainer = await Trainer.create({ family: 'gan', data: 'moons', device });
    trainer.dispose();
    return trainer.device;
  } catch (error) {
    return /** @type {any} */ (error).code;
  }
}

for (const adapter of adapters)
  test(`who names no device gets the faster one: the processor instead of ${adapter}`, async t => {
    const { url } = await prepared(t);
    await withBrowser({ adapter }, async context => {
      const page = await context.newPage();
      await page.goto(url);
      const { vendor, architecture, description, isFallbackAdapter } = await page.evaluate(async () => {
        const { info } = /** @type {GPUAdapter} */ (await navigator.gpu.requestAdapter());
        const { vendor, architecture, description } = info;
        return { vendor, architecture, description, isFallbackAdapter: info.isFallbackAdapter };
      });
      t.diagnostic(JSON.stringify([vendor, architecture, description, isFallbackAdapter]));
      assert.equal(await page.evaluate(where, undefined), 'cpu');
    });
  });

test('who names no device gets a GPU that is one, if it opens and computes rightly', async t => {
  const { url, first } = await prepared(t);
  await withBrowser({}, async context => {
    const found = [];
    const cases = /** @type {const} */ ([[() => {}], [wrong], [wrong, 'gpu'], [shut], [shut, 'gpu']]);
    for (const [before, device] of cases) {
      first(before);
      const page = await context.newPage();
      await page.addInitScript(claim, { vendor: 'nvidia', architecture: 'ampere' });
      await page.goto(url);
      found.push(await page.evaluate(where, device));
      await page.close();
    }
    assert.deepEqual(found, ['gpu', 'cpu', 'webgpu-unavailable', 'cpu', 'webgpu-unavailable']);
  });
});

/** In the worker: the slope of x sigmoid(x) is compiled without one of its terms. */
function wrong() {
  const { createShaderModule } = GPUDevice.prototype;
  GPUDevice.prototype.createShaderModule = function (descriptor) {
    return createShaderModule.call(this, { code: descriptor.code.replace('s * (1.0 + x * (1.0 - s))', 's') });
  };
}

/** In the worker: the GPU gives no device. */
function shut() {
  GPUAdapter.prototype.requestDevice = async () => { throw new DOMException('no more devices', 'OperationError'); };
}
