// Whole pipelines against diffusers: tiny random models with the same weights, prompts and seeds, through the public
// module in Chromium, and a few of them in Firefox, there with products in f16, too. Expected latents and pictures were
// computed by tests/reference/pipelines.py, in f32 on weights rounded to f16. Its own f16 runs of these cases
// (`pipelines.py --f16`) lie 5e-4 to 6.4e-3 away in the latents; another word in the prompt moves them by 4e-2 to 6e-1.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { adapters, browsers, root, withBrowser } from '../support/browser.mjs';
import { relative } from '../support/relative.mjs';
import { serve } from '../support/hub.mjs';
import { writeTiny } from '../support/tiny.mjs';

/**
 * @typedef {object} Case
 * @property {string} folder
 * @property {Record<string, any>} options  of `generate`
 * @property {number[]} latents  shape, NCHW
 * @property {number[]} pixels   shape, NHWC
 * @property {Buffer} expected    latents as f32, then pixels as bytes
 * @property {number} offset      of the first of them
 */

const LATENTS = 1e-2; // relative L2
const PIXELS = 2.5; // grey levels, mean

const reference = join(root, 'tests/reference/data/pipelines');
/** @param {string} file */
const read = file => JSON.parse(readFileSync(join(reference, `${file}.json`), 'utf8'));
/** @param {string} file @param {object[]} cases @returns {Case[]} */
const withExpected = (file, cases) => {
  const expected = readFileSync(join(reference, `${file}.bin`));
  return cases.map(c => /** @type {Case} */ ({ ...c, expected }));
};
/** @type {{ folders: Record<string, { kind: string, options: any }>, cases: object[] }} */
const { folders, cases: whole } = read('cases');
// Those of DeepCache's authors' package over diffusers (deep_cache.py) move the latents by 6e-2 to 4e-1.
const cases = [...withExpected('cases', whole), ...withExpected('deep_cache', read('deep_cache'))];

const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-models-'));
after(() => rmSync(models, { recursive: true }));

/** @param {Case} c */
const title = ({ folder, options: o }) =>
  [
    `${folder} ${o.scheduler ?? 'own sampler'} ${o.width}x${o.height}, ${o.numInferenceSteps} steps, `,
    `guidance ${o.guidanceScale}`,
    o.guidanceRescale ? ` rescaled ${o.guidanceRescale}` : '',
    o.guidanceInterval ? ` from ${o.guidanceInterval[0]} to ${o.guidanceInterval[1]}` : '',
    o.deepCache ? `, DeepCache of ${o.deepCache.interval}, branch ${o.deepCache.branch}` : '',
    o.negativePrompt === undefined ? '' : ', negative prompt',
    o.numImages ? `, ${o.numImages} pictures` : '',
  ].join('');

/**
 * What a case gave, against what it should.
 * @param {Case} c
 * @param {{ latents: number[][], images: { width: number, height: number, data: number[] }[], seed: number }} result
 */
function compare(c, { latents, images, seed }) {
  const count = (/** @type {number[]} */ shape) => shape.reduce((a, b) => a * b, 1);
  const [batch, height, width] = c.pixels;
  assert.deepEqual([images.length, latents.length, seed], [batch, batch, c.options.seed]);
  const theirs = new Float32Array(
    c.expected.buffer.slice(c.expected.byteOffset + c.offset, c.expected.byteOffset + c.offset + 4 * count(c.latents)),
  );
  const ours = latents.flat();
  assert.equal(ours.length, theirs.length);
  const pixels = c.expected.subarray(c.offset + 4 * theirs.length, c.offset + 4 * theirs.length + count(c.pixels));
  let sum = 0;
  images.forEach((image, n) => {
    assert.deepEqual([image.width, image.height, image.data.length], [width, height, 4 * width * height]);
    for (let i = 0; i < width * height; i++) {
      for (let channel = 0; channel < 3; channel++)
        sum += Math.abs(image.data[4 * i + channel] - pixels[3 * (n * width * height + i) + channel]);
      assert.equal(image.data[4 * i + 3], 255);
    }
  });
  return { latents: relative(ours, theirs), pixels: sum / pixels.length };
}

/**
 * Runs cases, one loading for each folder.
 * @param {import('node:test').TestContext} t @param {{ browser?: 'chromium' | 'firefox', adapter?: string }} where
 * @param {Case[]} cases @param {'auto' | 'f16'} [precision]
 */
async function run(t, where, cases, precision = 'auto') {
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser(where, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    for (const folder of new Set(cases.map(c => c.folder))) {
      const { kind, options } = folders[folder];
      writeTiny(join(models, folder), kind, options);
      await page.evaluate(async ([folder, variant, precision]) => {
        const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
        const before = /** @type {any} */ (window).pipeline;
        await before?.dispose();
        Object.assign(window, {
          pipeline: await DiffusionPipeline.fromPretrained(`${location.origin}/models/${folder}`, {
            variant,
            precision,
            cache: false,
          }),
        });
      }, [folder, options.variant, precision]);
      for (const c of cases.filter(c => c.folder === folder)) {
        await t.test(title(c), async t => {
          const result = await page.evaluate(async options => {
            const { latents, images, seed } = await /** @type {any} */ (window).pipeline.generate(options);
            return {
              latents: latents.map((/** @type {Float32Array} */ l) => [...l]), seed,
              images: images.map((/** @type {any} */ { width, height, data }) => ({ width, height, data: [...data] })),
            };
          }, c.options);
          const error = compare(c, result);
          t.diagnostic(`latents ${error.latents.toExponential(1)}, picture ${error.pixels.toFixed(2)}`);
          assert.ok(error.latents <= LATENTS, `latents: ${error.latents}`);
          assert.ok(error.pixels <= PIXELS, `picture: ${error.pixels}`);
        });
      }
    }
  });
}

test(`pipelines against diffusers, on ${adapters[0]}`, t => run(t, { adapter: adapters[0] }, cases));

// Chromium's own adapter has no shader-f16, and is slow.
if (adapters.length > 1) {
  const few = cases.filter(c => ['sd1-bf16', 'sd2', 'sdxl'].includes(c.folder) && c.options.numInferenceSteps <= 3);
  test(`pipelines against diffusers, on ${adapters[1]}`, t => run(t, { adapter: adapters[1] }, few));
}

if (browsers.includes('firefox')) {
  const folders = ['sd1-f32', 'sd1-bf16', 'sd2', 'sdxl', 'lcm'];
  const six = cases.filter(c => folders.includes(c.folder) && c.options.numInferenceSteps <= 3);
  test('pipelines against diffusers, in Firefox', t => run(t, { browser: 'firefox' }, six));
  // Without subgroups: attention and products as GPUs with shader-f16 have them.
  const few = six.filter(c => ['sd1-f32', 'sdxl'].includes(c.folder));
  test('pipelines against diffusers with products in f16, in Firefox', t => run(t, { browser: 'firefox' }, few, 'f16'));
}

test(
  'where memory is too short for both texts at once, one is predicted after the other',
  async t => {
    const folder = join(models, 'short');
    writeTiny(folder, 'sd1', {});
    const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
    t.after(server.close);
    await withBrowser({}, async context => {
      const page = await context.newPage();
      await page.goto(`${server.url}/blank.html`);
      await page.evaluate(async () => {
        const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
        Object.assign(window, {
          pipeline: await DiffusionPipeline.fromPretrained(`${location.origin}/models/short`, { cache: false }),
        });
      });
      const draw = (/** @type {number} */ width) =>
        page.evaluate(async width => {
          const {
            latents: [latents],
            timings,
          } = await /** @type {any} */ (window).pipeline.generate({
            prompt: 'a red apple',
            width,
            height: 40,
            numInferenceSteps: 4,
            seed: 1,
            output: 'latent',
          });
          return { latents: [...latents], bytes: timings.step.bytes };
        }, width);
      const together = await draw(56);
      await draw(48); // another plan takes its place
      const [worker] = page.workers();
      await worker.evaluate(() => {
        const { createBuffer } = GPUDevice.prototype;
        let refused = false;
        GPUDevice.prototype.createBuffer = function (descriptor) {
          if (!refused && descriptor.usage & GPUBufferUsage.STORAGE) {
            refused = true;
            this.dispatchEvent(
              new GPUUncapturedErrorEvent('uncapturederror', { error: new GPUOutOfMemoryError('nothing is left') }),
            );
          }
          return createBuffer.call(this, descriptor);
        };
      });
      const apart = await draw(56);
      assert.ok(relative(apart.latents, together.latents) <= LATENTS);
      assert.ok(apart.bytes < 0.8 * together.bytes, `${apart.bytes} and ${together.bytes} bytes a run`);
    });
  },
);
