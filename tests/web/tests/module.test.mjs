// The public module and the worker between it and the engine: everything that needs no model. The engine is
// fake-engine.js here; pictures from the real one are other tests' business.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/serve.mjs';
import { site, www } from '../support/site.mjs';

/** @typedef {import('playwright-core').Page} Page */

/**
 * A page of one origin that has imported the module from another, as window.module; window.caught(f) gives what f
 * rejects with.
 * @param {(page: Page, url: string, requests: string[], errors: string[]) => Promise<void>} work
 */
async function withModule(work) {
  const [ours, theirs] = [await serve(site), await serve(join(root, 'tests/web/support'))];
  try {
    await withBrowser({}, async (context, errors) => {
      const page = await context.newPage();
      /** @type {string[]} */
      const requests = [];
      page.on('request', request => requests.push(request.url()));
      await page.goto(`${theirs.url}blank.html`);
      await page.evaluate(async url => {
        const module = await import(`${url}browser-diffusion.js`);
        const caught = async (/** @type {() => any} */ work) => {
          try {
            await work();
          } catch (error) {
            const e = /** @type {any} */ (error);
            return {
              typed: e instanceof module.DiffusionError && e instanceof Error,
              code: e.code,
              message: e.message,
            };
          }
        };
        Object.assign(window, { module, caught });
      }, ours.url);
      await work(page, ours.url, requests, errors);
    });
  } finally {
    ours.close();
    theirs.close();
  }
}

/** A test that takes so long hangs; nothing else is judged by the clock. */
const timeout = 1_800_000;

test('without WebGPU: detect says where there is, nothing throws', async () => {
  const { detect, DiffusionPipeline, DiffusionError } = await import(join(www, 'browser-diffusion.js'));
  const found = await detect();
  assert.equal(found.webgpu, false);
  for (const browser of ['Chrome', 'Edge', 'Safari', 'Firefox']) assert.match(found.reason, new RegExp(browser));
  await assert.rejects(
    DiffusionPipeline.fromPretrained('embedded'),
    (/** @type {any} */ error) => error instanceof DiffusionError && error.code === 'webgpu-unavailable',
  );
});

test('detect in a browser', { timeout }, () =>
  withModule(async (page, url, requests) => {
    const before = requests.length;
    const found = await page.evaluate(() => /** @type {any} */ (window).module.detect());
    assert.equal(found.webgpu, true);
    assert.equal(found.reason, undefined);
    for (const key of ['vendor', 'architecture', 'description']) assert.equal(typeof found.adapter[key], 'string');
    assert.equal(typeof found.adapter.fallback, 'boolean');
    assert.equal(typeof found.shaderF16, 'boolean');
    assert.equal(typeof found.subgroups, 'boolean');
    assert.ok(found.maxStorageBufferBindingSize >= 128 * 2 ** 20, 'WebGPU guarantees 128 MiB');
    assert.ok(found.maxBufferSize >= 256 * 2 ** 20, 'WebGPU guarantees 256 MiB');
    assert.equal(requests.length, before, 'it downloads nothing');
  }),
);

test('detect where the browser has no adapter, or fails', { timeout }, () =>
  withModule(async page => {
    for (const answer of ['null', 'throw']) {
      const found = await page.evaluate(async how => {
        const requestAdapter = async () => {
          if (how === 'throw') throw new Error('the GPU process is gone');
          return null;
        };
        Object.defineProperty(navigator, 'gpu', { value: { requestAdapter }, configurable: true });
        return /** @type {any} */ (window).module.detect();
      }, answer);
      assert.equal(found.webgpu, false);
      assert.ok(found.reason.length > 40, found.reason);
    }
  }),
);

test('the embedded sources, Hub ids and URLs reach the engine as what they are', { timeout }, () =>
  withModule(async (page, url) => {
    const base = new URL(page.url()).origin;
    const specs = await page.evaluate(async () => {
      const { DiffusionPipeline } = /** @type {any} */ (window).module;
      const seen = [];
      for (const [source, options] of /** @type {[string, any][]} */ ([
        ['embedded', undefined],
        ['stabilityai/sd-turbo', { variant: 'fp16', hub: '/mirror/', cache: false, precision: 'f32' }],
        ['./models/a', {}],
      ])) {
        const pipeline = await DiffusionPipeline.fromPretrained(source, options);
        seen.push(JSON.parse(pipeline.model.name));
        await pipeline.dispose();
      }
      return seen;
    });
    // The embedded model's vocabulary serves single files, so its address always goes along.
    const embedded = `${url}embedded/`;
    const defaults = { revision: 'main', cache: true, precision: 'auto', hub: 'https://huggingface.co', embedded };
    assert.deepEqual(specs, [
      { ...defaults, source: 'embedded' },
      {
        embedded,
        revision: 'main',
        variant: 'fp16',
        hub: `${base}/mirror`,
        cache: false,
        precision: 'f32',
        source: 'stabilityai/sd-turbo',
      },
      { ...defaults, source: `${base}/models/a` },
    ]);
  }),
);

test('fromPretrained refuses what it cannot do, before anything is fetched', { timeout }, () =>
  withModule(async (page, url, requests) => {
    const before = requests.length;
    /** @type {[any, any, RegExp][]} */
    const cases = [
      ['nowhere', {}, /nowhere.*Hub id/],
      ['', {}, /model source/],
      ['a/b/c', {}, /a\/b\/c/],
      [3, {}, /disk/],
      ['a/b', 'fast', /options/],
      ['a/b', { weights: 'f8' }, /weights.*f16, q8, q4/],
      ['a/b', { memory: 'small' }, /memory/],
      ['a/b', { precision: 'f64' }, /precision.*auto, f16, f32/],
      ['a/b', { revision: 1 }, /revision/],
      ['a/b', { cache: 'yes' }, /cache/],
      ['a/b', { hub: 'http://' }, /hub/],
      ['a/b', { signal: {} }, /signal/],
      ['a/b', { onProgress: 1 }, /onProgress/],
      ['a/b', { dtype: 'fp16' }, /dtype/],
    ];
    for (const [source, options, message] of cases) {
      const error = await page.evaluate(
        ([s, o]) => {
          const { module, caught } = /** @type {any} */ (window);
          return caught(() => module.DiffusionPipeline.fromPretrained(s, o));
        },
        [source, options],
      );
      assert.deepEqual([error?.typed, error?.code], [true, 'invalid-option'], `${source} ${JSON.stringify(options)}`);
      assert.match(error.message, message);
    }
    const constructed = await page.evaluate(() => {
      const { module, caught } = /** @type {any} */ (window);
      return caught(() => new module.DiffusionPipeline());
    });
    assert.equal(constructed.code, 'invalid-option');
    assert.equal(requests.length, before);
  }),
);

test('generate refuses what it cannot do, and stays usable', { timeout }, () =>
  withModule(async page => {
    /** @type {[string, RegExp][]} values as source text, since not all of them travel */
    const cases = [
      ['undefined', /options/],
      ['null', /options/],
      ['{}', /prompt/],
      ['{ prompt: 1 }', /prompt/],
      ['{ prompt: "", negativePrompt: 1 }', /negativePrompt/],
      ['{ prompt: "", width: 65 }', /width.*multiple of 8.*65/],
      ['{ prompt: "", height: 0 }', /height/],
      ['{ prompt: "", height: -64 }', /height/],
      ['{ prompt: "", width: "64" }', /width/],
      ['{ prompt: "", numInferenceSteps: 0 }', /numInferenceSteps/],
      ['{ prompt: "", numInferenceSteps: 1.5 }', /numInferenceSteps/],
      ['{ prompt: "", guidanceScale: NaN }', /guidanceScale/],
      ['{ prompt: "", guidanceScale: -1 }', /guidanceScale/],
      ['{ prompt: "", guidanceRescale: 2 }', /guidanceRescale/],
      ['{ prompt: "", deepCache: { interval: 0 } }', /deepCache/],
      ['{ prompt: "", deepCache: { branch: 65 } }', /deepCache/],
      ['{ prompt: "", deepCache: 3 }', /deepCache/],
      ['{ prompt: "", scheduler: "euler_b" }', /scheduler.*ddim.*euler_b/],
      ['{ prompt: "", seed: -1 }', /seed/],
      ['{ prompt: "", seed: 2 ** 60 }', /seed/],
      ['{ prompt: "", numImages: 0 }', /numImages/],
      ['{ prompt: "", latents: [1, 2] }', /latents.*Float32Array/],
      ['{ prompt: "", latents: new Float32Array(0) }', /latents/],
      ['{ prompt: "", numImages: 2, latents: new Float32Array(3) }', /latents.*3/],
      ['{ prompt: "", promptEmbeds: "a" }', /promptEmbeds/],
      ['{ prompt: "", output: "jpeg" }', /output/],
      ['{ prompt: "", rng: "mt19937" }', /rng.*torch-cpu/],
      ['{ prompt: "", onStep: true }', /onStep/],
      ['{ prompt: "", signal: true }', /signal/],
      ['{ prompt: "", guidance: 7 }', /guidance.*guidanceScale/],
      ['{ prompt: "", width: 16392 }', /width.*16384/],
      ['{ prompt: "", numImages: 65 }', /numImages.*64/],
      ['{ prompt: "", seedResizeFrom: [2 ** 40, 8] }', /seedResizeFrom/],
      ['{ prompt: "", hires: { upscaler: {} } }', /an Upscaler or one of latent/],
      ...['controlnets', 'loras', 'embeddings'].map(
        key => /** @type {[string, RegExp]} */ ([`{ prompt: "", ${key}: 1 }`, new RegExp(`${key}.*list`)]),
      ),
    ];
    const answers = await page.evaluate(
      async sources => {
        const { module, caught } = /** @type {any} */ (window);
        const pipeline = await module.DiffusionPipeline.fromPretrained('embedded');
        const errors = [];
        for (const source of sources) errors.push(await caught(() => pipeline.generate((0, eval)(`(${source})`))));
        const { images, seed } = await pipeline.generate({ prompt: 'x', seed: undefined, loras: undefined });
        return { errors, images: images.length, seed };
      },
      cases.map(([source]) => source),
    );
    for (const [i, [source, message]] of cases.entries()) {
      assert.deepEqual([answers.errors[i]?.typed, answers.errors[i]?.code], [true, 'invalid-option'], source);
      assert.match(answers.errors[i].message, message);
    }
    assert.equal(answers.images, 1, 'undefined is as good as left out');
    assert.ok(Number.isInteger(answers.seed) && answers.seed >= 0, 'a random seed is reported');
  }),
);

test('a page of another origin draws: progress, steps in order, picture, PNG', { timeout }, () =>
  withModule(async page => {
    const seen = await page.evaluate(async () => {
      const { module } = /** @type {any} */ (window);
      /** @type {any[]} */
      const progress = [];
      /** @type {any[]} */
      const steps = [];
      const pipeline = await module.DiffusionPipeline.fromPretrained('embedded', {
        onProgress: (/** @type {any} */ p) => progress.push(p),
      });
      const result = await pipeline.generate({
        prompt: 'Fuß 猫',
        seed: 7,
        width: 64,
        height: 32,
        onStep: async (/** @type {any} */ { preview, latents, x0, ...numbers }) => {
          const step = { ...numbers, preview: [preview.width, preview.height, preview instanceof ImageBitmap] };
          steps.push(step);
          Object.assign(step, {
            latents: (await latents())[0],
            x0: (await x0())[31],
            length: (await latents()).length,
          });
        },
      });
      const [image] = result.images;
      const files = [];
      for (const type of [undefined, 'image/png', 'image/jpeg', 'image/webp']) {
        const blob = await image.toBlob(type);
        files.push({ type: blob.type, bytes: [...new Uint8Array(await blob.arrayBuffer())] });
      }
      const context = /** @type {OffscreenCanvasRenderingContext2D} */ (new OffscreenCanvas(64, 32).getContext('2d'));
      context.drawImage(await createImageBitmap(await image.toBlob()), 0, 0);
      const decoded = context.getImageData(0, 0, 64, 32).data;
      const latin = (await (await pipeline.generate({ prompt: 'Fuß', seed: 7 })).images[0].toBlob()).arrayBuffer();
      const latentOnly = await pipeline.generate({ prompt: '', output: 'latent' });
      return {
        progress,
        steps,
        seed: result.seed,
        parameters: result.parameters,
        timings: result.timings,
        latents: result.latents.map((/** @type {any} */ l) => [l.constructor.name, l.length, l[0]]),
        image: [image.width, image.height, image.data.constructor.name, image.data.length],
        exact: decoded.every((v, i) => v === image.data[i]),
        files,
        latin: [...new Uint8Array(await latin)],
        latentOnly: [latentOnly.images.length, latentOnly.latents.length],
        isolated: crossOriginIsolated,
        bad: await /** @type {any} */ (window).caught(() => image.toBlob('image/tiff')),
      };
    });
    assert.equal(seen.isolated, false, 'no cross-origin isolation is needed');
    assert.deepEqual(
      seen.progress.map(p => p.status),
      ['initiate', 'progress', 'progress', 'progress', 'progress', 'ready'],
    );
    assert.equal(seen.progress[2].progress, 50);
    assert.deepEqual(
      seen.steps,
      [1, 2, 3, 4].map(step => ({
        step,
        total: 4,
        timestep: 999 - step,
        sigma: 4 - step,
        preview: [8, 4, true],
        latents: step,
        x0: -step,
        length: 128,
      })),
    );
    assert.deepEqual([seen.seed, seen.latents], [7, [['Float32Array', 128, 4]]]);
    assert.deepEqual(seen.timings, {
      textEncoder: 1,
      steps: [20, 20, 20, 20],
      vae: 1,
      total: 80,
      step: { dispatches: 1, submits: 1, bytes: 1, created: 0, encodeMs: 1 },
    });
    assert.deepEqual(seen.image, [64, 32, 'Uint8ClampedArray', 64 * 32 * 4]);
    assert.ok(seen.exact, 'the PNG has exactly the pixels');
    assert.deepEqual(
      seen.files.map(f => f.type),
      ['image/png', 'image/png', 'image/jpeg', 'image/webp'],
    );
    // Exif's user comment, in UTF-16 as the file's byte order has it.
    const comment = Buffer.concat([Buffer.from('UNICODE\0'), Buffer.from(seen.parameters, 'utf16le').swap16()]);
    for (const { bytes, type } of seen.files.slice(2)) assert.ok(Buffer.from(bytes).includes(comment), type);
    assert.equal(seen.bad.code, 'invalid-option');
    assert.deepEqual(seen.latentOnly, [0, 1]);
    // Text that is not Latin-1 goes into iTXt as UTF-8, other text into tEXt.
    const international = pngText(Buffer.from(seen.files[0].bytes));
    assert.deepEqual(international, { type: 'iTXt', text: `parameters\0\0\0\0\0${seen.parameters}` });
    const plain = pngText(Buffer.from(seen.latin), 'latin1');
    assert.equal(plain.type, 'tEXt');
    assert.match(
      plain.text,
      /^parameters\0Fuß\nSteps: 4, Sampler: PLMS, CFG scale: 3, Seed: 7, Size: 64x64, Model: "/,
    );
  }),
);

/**
 * The one text chunk of a PNG. Every chunk's CRC is held against zlib's, as gzip writes it after its data.
 * @param {Buffer} png @param {BufferEncoding} encoding
 */
function pngText(png, encoding = 'utf8') {
  const texts = [];
  for (let at = 8; at < png.length;) {
    const length = png.readUInt32BE(at);
    const checked = png.subarray(at + 4, at + 8 + length);
    assert.equal(
      png.readUInt32BE(at + 8 + length),
      gzipSync(checked).readUInt32LE(gzipSync(checked).length - 8),
      'CRC',
    );
    const type = checked.toString('latin1', 0, 4);
    if (type.endsWith('Xt')) texts.push({ type, text: checked.toString(encoding, 4) });
    at += 12 + length;
  }
  assert.equal(texts.length, 1);
  return texts[0];
}

test('hires fix by an upscaler: pictures drawn over, and their texts', { timeout }, () =>
  withModule(async page => {
    const seen = await page.evaluate(async () => {
      const pipeline = await /** @type {any} */ (window).module.DiffusionPipeline.fromPretrained('embedded');
      /** @type {[number, number][]} */
      const steps = [],
        /** @type {number[][]} */ enlarged = [];
      const upscaler = {
        upscale: async (/** @type {any} */ image) => {
          enlarged.push([image.width, image.height]);
          return new ImageData(image.width * 4, image.height * 4);
        },
      };
      const result = await pipeline.generate({
        prompt: 'a cat',
        seed: 7,
        numImages: 2,
        generatorPerImage: true,
        numInferenceSteps: 3,
        width: 64,
        height: 48,
        latents: new Float32Array(2 * 8 * 6 * 4),
        hires: { upscaler, scale: 1.5, steps: 2 },
        onStep: (/** @type {any} */ { step, total }) => steps.push([step, total]),
      });
      const { options, images, latents, timings, seed, parameters } = result;
      const texts = images.map((/** @type {any} */ image) => image.parameters);
      return {
        options,
        steps,
        enlarged,
        texts,
        parameters,
        seed,
        latents: latents.length,
        times: timings.steps.length,
        sizes: images.map((/** @type {any} */ { width, height, data }) => [width, height, data.length]),
      };
    });
    assert.deepEqual(seen.enlarged, [
      [64, 48],
      [64, 48],
    ]);
    assert.deepEqual(seen.sizes, [
      [96, 72, 96 * 72 * 4],
      [96, 72, 96 * 72 * 4],
    ]);
    assert.deepEqual(seen.steps, [
      [1, 3],
      [2, 3],
      [3, 3],
      [4, 5],
      [5, 5],
      [6, 7],
      [7, 7],
    ]);
    assert.deepEqual([seen.seed, seen.latents, seen.times], [7, 2, 7]);
    const text = (/** @type {number} */ seed) =>
      new RegExp(
        `Steps: 3, .*Seed: ${seed}, Size: 64x48, .*` +
          'Denoising strength: 0.7, Hires upscale: 1.5, Hires steps: 2, Hires upscaler: ESRGAN, Version',
      );
    seen.texts.forEach((/** @type {string} */ each, /** @type {number} */ i) => assert.match(each, text(7 + i)));
    assert.equal(seen.parameters, seen.texts[0]);
  }),
);

test('calls wait for each other; signals stop one of them and leave the pipeline usable', { timeout }, () =>
  withModule(async page => {
    const seen = await page.evaluate(async () => {
      const { module, caught } = /** @type {any} */ (window);
      const pipeline = await module.DiffusionPipeline.fromPretrained('embedded');
      /** @type {string[]} */
      const order = [];
      /** @param {string} prompt @param {any} [more] */
      const draw = (prompt, more) =>
        pipeline.generate({ prompt, onStep: (/** @type {any} */ s) => order.push(prompt + s.step), ...more });
      const waiting = new AbortController();
      const first = draw('a', { numInferenceSteps: 2 });
      const second = caught(() => draw('b', { signal: waiting.signal }));
      const third = draw('c', { numInferenceSteps: 2 });
      waiting.abort();
      const stoppedWaiting = await second;
      const orderThen = [...order];
      await Promise.all([first, third]);
      const running = new AbortController();
      const { steps: before } = await pipeline.memory();
      let last = 0;
      const stopped = await caught(() =>
        pipeline.generate({
          prompt: 'd',
          numInferenceSteps: 1000,
          signal: running.signal,
          onStep: (/** @type {any} */ { step }) => {
            last = step;
            if (step === 3) running.abort();
          },
        }),
      );
      const { steps } = await pipeline.memory();
      const after = await pipeline.generate({ prompt: 'e', seed: 5 });
      const already = await caught(() => draw('f', { signal: AbortSignal.abort() }));
      await pipeline.generate({ prompt: 'g' });
      return {
        order,
        orderThen,
        stoppedWaiting,
        stopped,
        last,
        after: after.parameters,
        already,
        before,
        engineSteps: steps - before,
      };
    });
    for (const error of [seen.stoppedWaiting, seen.stopped, seen.already])
      assert.deepEqual([error.typed, error.code], [true, 'aborted']);
    assert.deepEqual(seen.orderThen, [], 'a call that waits is told at once');
    assert.deepEqual(seen.order, ['a1', 'a2', 'c1', 'c2']);
    assert.equal(seen.before, 4, 'the call that was stopped while it waited never reached the engine');
    assert.equal(seen.last, 3, 'no step is reported after the stop');
    assert.ok(seen.engineSteps <= 4, `the engine stops within one step, not after ${seen.engineSteps}`);
    assert.match(seen.after, /^e\n.*Seed: 5/);
  }),
);

test("a load can be stopped, and fails with the engine's own error", { timeout }, () =>
  withModule(async page => {
    const seen = await page.evaluate(async () => {
      const { module, caught } = /** @type {any} */ (window);
      const controller = new AbortController();
      const onProgress = () => controller.abort();
      const load = module.DiffusionPipeline.fromPretrained;
      return {
        stopped: await caught(() =>
          load.call(module.DiffusionPipeline, './endless', { signal: controller.signal, onProgress }),
        ),
        already: await caught(() => load.call(module.DiffusionPipeline, 'embedded', { signal: AbortSignal.abort() })),
        missing: await caught(() => load.call(module.DiffusionPipeline, 'missing/model')),
      };
    });
    assert.deepEqual([seen.stopped.code, seen.already.code, seen.missing.code], ['aborted', 'aborted', 'network']);
    assert.match(seen.missing.message, /missing\/model/);
  }),
);

test('an engine that stops rejects what waits with device-lost; the next call has the model again', { timeout }, () =>
  withModule(async (page, url, requests, errors) => {
    const seen = await page.evaluate(async () => {
      const { module, caught } = /** @type {any} */ (window);
      const pipeline = await module.DiffusionPipeline.fromPretrained('embedded');
      const tooBig = await caught(() => pipeline.generate({ prompt: 'too big' }));
      const fine = (await pipeline.generate({ prompt: 'a' })).images.length;
      const crashed = await Promise.all([
        caught(() => pipeline.generate({ prompt: 'crash' })),
        caught(() => pipeline.generate({ prompt: 'b' })),
      ]);
      // Two at once load it once, by the options of its own load; who stops meanwhile is told so.
      const controller = new AbortController();
      const stopped = caught(() => pipeline.generate({ prompt: 'a', signal: controller.signal }));
      const later = Promise.all([pipeline.memory(), pipeline.generate({ prompt: 'a' })]);
      controller.abort();
      const [memory, { images }] = await later;
      const fresh = await module.DiffusionPipeline.fromPretrained('embedded');
      const again = (await fresh.generate({ prompt: 'a' })).images.length;
      await pipeline.dispose();
      return { tooBig, fine, crashed, stopped: await stopped, memory, later: images.length, again };
    });
    errors.length = 0; // the browser may report the crash itself
    assert.equal(seen.tooBig.code, 'out-of-memory');
    for (const error of seen.crashed)
      assert.deepEqual([error.typed, error.code], [true, 'device-lost']);
    assert.equal(seen.stopped.code, 'aborted');
    assert.deepEqual([seen.fine, seen.memory.steps, seen.later, seen.again], [1, 0, 1, 1]);
  }),
);

test('dispose ends what runs, and the pipeline with it', { timeout }, () =>
  withModule(async page => {
    const seen = await page.evaluate(async () => {
      const { module, caught } = /** @type {any} */ (window);
      const pipeline = await module.DiffusionPipeline.fromPretrained('embedded');
      const running = caught(() => pipeline.generate({ prompt: 'a', numInferenceSteps: 1000 }));
      await Promise.all([pipeline.dispose(), pipeline.dispose()]);
      return [
        await running,
        await caught(() => pipeline.generate({ prompt: 'a' })),
        await caught(() => pipeline.memory()),
      ].map(e => e?.code);
    });
    assert.deepEqual(seen, ['aborted', 'invalid-option', 'invalid-option']);
    for (let i = 0; i < 600 && page.workers().length > 0; i++) await page.waitForTimeout(100);
    assert.equal(page.workers().length, 0, 'no worker is left');
  }),
);

test('the cache is listed and cleared without a pipeline', { timeout }, () =>
  withModule(async page => {
    const seen = await page.evaluate(async () => {
      const {
        module: { cache },
        caught,
      } = /** @type {any} */ (window);
      return {
        list: await cache.list(),
        gone: await cache.delete('embedded'),
        wrong: await caught(() => cache.delete('other')),
        estimate: await cache.estimate(),
        persist: await cache.persist(),
      };
    });
    assert.deepEqual(seen.list, [{ name: 'embedded', bytes: 4000, complete: true }]);
    assert.equal(seen.gone, undefined);
    assert.equal(seen.wrong.code, 'invalid-option');
    assert.ok(seen.estimate.quota > 0 && seen.estimate.usage >= 0);
    assert.equal(typeof seen.persist, 'boolean');
  }),
);

test("the module lists exactly the engine's schedulers", { timeout }, async () => {
  const server = await serve(www, 0, { '/blank.html': '<!doctype html><link rel="icon" href="data:,">' });
  try {
    await withBrowser({}, async context => {
      const page = await context.newPage();
      await page.goto(`${server.url}blank.html`);
      const [listed, has] = await page.evaluate(async () => {
        const engine = await import('/pkg/browser_diffusion.js');
        await engine.default();
        const { DiffusionPipeline } = await import('/browser-diffusion.js');
        return [DiffusionPipeline.schedulers, engine.schedulers()];
      });
      assert.deepEqual([...listed].sort(), [...has].sort());
    });
  } finally {
    server.close();
  }
});
