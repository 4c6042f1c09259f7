// Models of EDM's noise levels against diffusers: Playground v2.5's scheduler and CosXL's, whose latents may have a mean
// and spread of their own, as folders and as single files with the keys that tell them. Tiny random SDXL models; expected
// latents and pictures are those of tests/reference/edm_pipelines.py.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { relative } from '../support/relative.mjs';
import { serve } from '../support/hub.mjs';
import { originalTensors } from '../support/single.mjs';
import { writeSafetensors, writeTiny } from '../support/tiny.mjs';

// As in pipelines.test.mjs.
const LATENTS = 1e-2; // relative L2
const PIXELS = 2.5; // grey levels, mean

const reference = join(root, 'tests/reference/data/pipelines');
/**
 * @type {{
 *   models: Record<string, { kind: string, scheduler: any, vae: any, tensors?: Record<string, [number[], number[]]> }>,
 *   cases: { model: string, options: any, latents: number[], pixels: number[], offset: number }[],
 *   encoding: { width: number, height: number, latents: number[], offset: number },
 * }}
 */
const { models, cases, encoding } = JSON.parse(readFileSync(join(reference, 'edm.json'), 'utf8'));
const expected = readFileSync(join(reference, 'edm.bin'));

const folder = mkdtempSync(join(tmpdir(), 'browser-diffusion-edm-'));
after(() => rmSync(folder, { recursive: true }));

const count = (/** @type {number[]} */ shape) => shape.reduce((a, b) => a * b, 1);
const bytesAt = (/** @type {number} */ at, /** @type {number} */ length) =>
  expected.buffer.slice(expected.byteOffset + at, expected.byteOffset + at + length);

/** Writes a model as its kind of file. @param {string} name */
function write(name) {
  const { kind, scheduler, vae, tensors } = models[name];
  const at = join(folder, name);
  if (tensors) {
    const told = Object.entries(tensors).map(([name, [values, shape]]) =>
      ({ name, dtype: 'F32', shape, data: new Uint8Array(Float32Array.from(values).buffer) }));
    return writeSafetensors(at, [...originalTensors(kind, 'f16'), ...told]);
  }
  writeTiny(at, kind);
  writeFileSync(join(at, 'scheduler/scheduler_config.json'), JSON.stringify(scheduler));
  const config = join(at, 'vae/config.json');
  writeFileSync(config, JSON.stringify({ ...JSON.parse(readFileSync(config, 'utf8')), ...vae }));
}

test("models of EDM's noise levels against diffusers", async t => {
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': folder }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    for (const name of Object.keys(models)) {
      write(name);
      const { scheduler, sigmas } = await page.evaluate(async name => {
        const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
        await /** @type {any} */ (window).pipeline?.dispose();
        const pipeline = await DiffusionPipeline.fromPretrained(`${location.origin}/models/${name}`, { cache: false });
        Object.assign(window, { pipeline });
        const { sigmas } = await pipeline.schedule(undefined, 4);
        return { scheduler: pipeline.model.scheduler, sigmas: [...sigmas] };
      }, name);
      const { scheduler: own } = models[name];
      assert.equal(scheduler, own._class_name === 'EDMEulerScheduler' ? 'euler' : 'dpmpp_2m');
      assert.deepEqual([sigmas.length, sigmas[4]], [5, 0]);
      // diffusers' logarithm is of f32 too.
      assert.ok(Math.abs(sigmas[0] / own.sigma_max - 1) < 1e-6, `${sigmas[0]}`);
      for (const c of cases.filter(c => c.model === name)) {
        const title = `${name} ${c.options.scheduler ?? 'own sampler'} ${c.options.numInferenceSteps} steps`;
        await t.test(title, async t => {
          const { latents, pixels } = await page.evaluate(async options => {
            const { latents, images: [{ data }] } = await /** @type {any} */ (window).pipeline.generate(options);
            return { latents: [...latents[0]], pixels: [...data] };
          }, c.options);
          const error = relative(latents, new Float32Array(bytesAt(c.offset, 4 * count(c.latents))));
          const theirs = new Uint8Array(bytesAt(c.offset + 4 * count(c.latents), count(c.pixels)));
          let grey = 0;
          theirs.forEach((v, i) => { grey += Math.abs(v - pixels[Math.floor(i / 3) * 4 + (i % 3)]) / theirs.length; });
          t.diagnostic(`latents ${error.toExponential(1)}, picture ${grey.toFixed(2)}`);
          assert.ok(error <= LATENTS, `latents: ${error}`);
          assert.ok(grey <= PIXELS, `picture: ${grey}`);
        });
      }
      if (name === 'playground') await encodes(t, page);
    }
    await refusals(t, page);
  });
});

/** A picture's latents have the mean and spread that the model's have. @param {any} t @param {any} page */
async function encodes(t, page) {
  await t.test('playground: a picture to latents', async () => {
    const { width, height, latents, offset } = encoding;
    const theirs = new Float32Array(bytesAt(offset, 4 * count(latents)));
    const rgb = [...new Uint8Array(bytesAt(offset + 4 * theirs.length, 3 * width * height))];
    const rgba = Array.from({ length: 4 * width * height }, (_, i) => i % 4 === 3 ? 255 : rgb[(i >> 2) * 3 + i % 4]);
    const ours = await page.evaluate(async (/** @type {any} */ { rgba, width, height }) => {
      const image = new ImageData(Uint8ClampedArray.from(rgba), width, height);
      return [...await /** @type {any} */ (window).pipeline.encode(image, { width, height })];
    }, { rgba, width, height });
    const error = relative(ours, theirs);
    assert.ok(error <= LATENTS, `${error}`);
  });
}

/** What EDM's levels have not is refused, with what to choose. @param {any} t @param {any} page */
async function refusals(t, page) {
  await t.test('refused with what to do', async () => {
    const refused = await page.evaluate(async () => {
      const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
      const failure = async (/** @type {() => Promise<any>} */ run) =>
        run().then(() => '', e => `${e.code}: ${e.message}`);
      const load = (/** @type {any} */ options) => () =>
        DiffusionPipeline.fromPretrained(`${location.origin}/models/cosxl.safetensors`, { cache: false, ...options });
      const { pipeline } = /** @type {any} */ (window);
      const options = { prompt: 'a', width: 56, height: 40, numInferenceSteps: 2, seed: 1 };
      return {
        sampler: await failure(() => pipeline.generate({ ...options, scheduler: 'ddim' })),
        sample: await failure(load({ predictionType: 'sample' })),
        zero: await failure(load({ rescaleBetasZeroSnr: true })),
      };
    });
    assert.match(refused.sampler, /^invalid-option: scheduler ddim .* choose one of euler, euler_a/);
    assert.match(refused.sample, /^unsupported-model: .*"epsilon" or "v_prediction"/);
    assert.match(refused.zero, /^invalid-option: rescaleBetasZeroSnr .* leave it out/);
  });
}
