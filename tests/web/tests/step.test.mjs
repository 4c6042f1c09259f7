// What a step is made of in the browser: nothing is created on the GPU after the first one, and to encode it takes
// milliseconds. Counted by the engine, and from outside by what it asks of WebGPU.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';

/** Runs before the engine, in a page or a worker: `seen` is what is asked of WebGPU, in order. @returns {void} */
function probe() {
  /** @type {string[]} */
  const seen = [];
  /** @param {any} prototype @param {string[]} names */
  const watch = (prototype, names) => {
    for (const name of names) {
      const original = prototype[name];
      prototype[name] = function (/** @type {any[]} */ ...args) {
        seen.push(name);
        return original.apply(this, args);
      };
    }
  };
  watch(GPUDevice.prototype, [
    'createBuffer',
    'createBindGroup',
    'createBindGroupLayout',
    'createPipelineLayout',
    'createComputePipeline',
    'createComputePipelineAsync',
    'createShaderModule',
    'createQuerySet',
    'createTexture',
  ]);
  watch(GPUQueue.prototype, ['submit']);
  watch(GPUBuffer.prototype, ['mapAsync']);
  /** @type {any} */ (self).seen = seen;
}

/** @param {string[]} seen */
const created = seen => seen.filter(name => name.startsWith('create'));
/** @param {string[]} seen */
const submits = seen => seen.filter(name => name === 'submit').length;

test(
  "Stable Diffusion 1.5's UNet: dispatches, submits, nothing created after the first step, time to encode",
  async t => {
    const server = await serve({ roots: { '/': join(root, 'www') }, files: { '/blank.html': '' } });
    t.after(server.close);
    const config = JSON.parse(readFileSync(join(root, 'tests/reference/data/models/real.json'), 'utf8'))['sd15/unet']
      .config;
    await withBrowser({}, async context => {
      const page = await context.newPage();
      await page.addInitScript(probe);
      await page.goto(`${server.url}/blank.html`);
      // At 8x8 latents, so that a software GPU is done soon: the dispatches are those of 64x64 but for what is cut there.
      const steps = await page.evaluate(async json => {
        const { default: init, Bench } = await import('/pkg/browser_diffusion.js');
        await init();
        const unet = await (await Bench.open()).unet({ config: json, batch: 2, height: 8, width: 8 });
        const { seen } = /** @type {any} */ (self);
        const steps = [];
        // Twelve, and more while none was encoded in a time that the machine had for it alone.
        for (let i = 0; i < 12 || (i < 300 && steps.slice(1).every(step => step.encodeMs > 5)); i++) {
          const from = seen.length;
          unet.run();
          await unet.read();
          const counters = /** @type {import('../../../www/browser-diffusion.js').StepCounters} */ (unet.counters());
          steps.push({ ...counters, seen: seen.slice(from) });
        }
        return steps;
      }, JSON.stringify(config));
      const encode = steps.map(s => s.encodeMs);
      t.diagnostic(
        `${steps[1].dispatches} dispatches, ${steps[1].submits} submits, ` +
          `encoded in ${encode.map(ms => ms.toFixed(1)).join(', ')} ms`,
      );
      for (const step of steps.slice(1)) {
        assert.deepEqual(created(step.seen), []);
        assert.equal(step.created, 0);
        // The one more copies the prediction out.
        assert.equal(submits(step.seen), step.submits + 1);
        assert.ok(submits(step.seen) <= 20);
        assert.equal(
          step.seen.filter((/** @type {string} */ name) => name === 'mapAsync').length,
          1,
          'one wait a step',
        );
      }
      // The quickest: the others may have waited for a processor.
      assert.ok(Math.min(...encode.slice(1)) <= 5, `${encode} ms`);
    });
  },
);

test(
  'a picture: nothing is created after its first step, and nothing at all by the second of the kind',
  async t => {
    const worker = `(${probe})();\n${readFileSync(join(root, 'www/worker.js'), 'utf8')}`;
    const server = await serve({
      roots: { '/': join(root, 'www') },
      files: { '/blank.html': '', '/worker.js': worker },
    });
    t.after(server.close);
    await withBrowser({}, async context => {
      const page = await context.newPage();
      await page.goto(`${server.url}/blank.html`);
      const draw = async (/** @type {string} */ prompt, /** @type {string} */ output) => {
        const from = (await page.workers()[0]?.evaluate(() => /** @type {any} */ (self).seen.length)) ?? 0;
        const counters = await page.evaluate(async ([prompt, output]) => {
          const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
          const page = /** @type {any} */ (window);
          page.pipeline ??= await DiffusionPipeline.fromPretrained('embedded');
          const options = {
            prompt,
            seed: 1,
            width: 64,
            height: 64,
            numInferenceSteps: 4,
            guidanceScale: 3,
            preview: 'fast',
            output,
          };
          const { timings } = await page.pipeline.generate(options);
          return timings.step;
        }, [prompt, output]);
        const seen = await page.workers()[0].evaluate(from => /** @type {any} */ (self).seen.slice(from), from);
        return { counters, seen: /** @type {string[]} */ (seen) };
      };
      const first = await draw('a red apple', 'latent');
      const decoded = await draw('a red apple', 'image');
      const second = await draw('fire', 'image');
      // A step ends with the read-back of its prediction: the last four of the picture's.
      const waits = first.seen.flatMap((name, i) => (name === 'mapAsync' ? [i] : []));
      const later = first.seen.slice(waits.at(-4));
      t.diagnostic(
        `embedded model: ${JSON.stringify(first.counters)}, ` +
          `${created(first.seen).length} things created for a first picture`,
      );
      assert.ok(created(first.seen).length > 0, 'the probe sees');
      assert.deepEqual(created(later), []);
      assert.equal(first.counters.created, 0);
      assert.equal(submits(later), 3 * (first.counters.submits + 1));
      assert.ok(first.counters.dispatches > 0 && first.counters.bytes > 0);
      assert.ok(created(decoded.seen).length > 0, 'the first decoding makes what it needs');
      // Made between two pictures' steps, it is neither's.
      assert.equal(decoded.counters.created, 0);
      // Other words and another decoding find all that they need.
      assert.deepEqual(created(second.seen), []);
      assert.equal(second.counters.created, 0);
    });
  },
);
