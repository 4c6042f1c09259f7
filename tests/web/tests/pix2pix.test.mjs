// InstructPix2Pix through the public module in Chromium, against diffusers' StableDiffusionInstructPix2PixPipeline and
// StableDiffusionXLInstructPix2PixPipeline: tests/reference/pix2pix.py. Folders and one file of the original code, with a LoRA
// of four channels, without guidance; and what it says where the picture is missing.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';
import { originalTensors } from '../support/single.mjs';
import { singles, tinyTensor, writeLora, writeSafetensors, writeTiny } from '../support/tiny.mjs';

const LATENTS = 1e-2; // relative L2
const reference = join(root, 'tests/reference/data/pix2pix');
/** @type {{ kind: string, options: Record<string, any>, latents: number[], offset: number }[]} */
const cases = JSON.parse(readFileSync(join(reference, 'cases.json'), 'utf8'));
const expected = readFileSync(join(reference, 'cases.bin'));
const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-pix2pix-'));
after(() => rmSync(models, { recursive: true }));

const pipeline = 'InstructPix2PixPipeline';
for (const [kind, pipelineClass] of [['sd1', `StableDiffusion${pipeline}`], ['sdxl', `StableDiffusionXL${pipeline}`]])
  writeTiny(join(models, kind), kind, { inChannels: 8, pipelineClass });
const conv = 'model.diffusion_model.input_blocks.0.0.weight';
writeSafetensors(
  join(models, 'single.safetensors'),
  originalTensors('sd1', 'f16').map(t => {
    const [out, , ...taps] = t.shape;
    return t.name === conv
      ? tinyTensor(conv, [out, 8, ...taps], singles.sd1.components.unet.gain, 'conv_in.weight')
      : t;
  }),
);
writeLora(join(models, 'snow.safetensors'));

test('InstructPix2Pix', async t => {
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    /** @param {any} options @returns {Promise<{ latents: number[], parameters: string, message?: string, read: any }>} */
    const draw = options =>
      page.evaluate(async ({ lora, bare, ...options }) => {
        const { DiffusionPipeline, readParameters } = await import(`${location.origin}/browser-diffusion.js`);
        const { width: w = 48, height: h = 40 } = options;
        const image = new ImageData(w, h);
        for (let i = 0; i < w * h; i++) {
          const [x, y] = [i % w, Math.floor(i / w)];
          image.data.set([x * 4 & 255, y * 4 & 255, (x * y) & 255, 255], 4 * i);
        }
        const source = `${location.origin}/models/snow.safetensors`;
        try {
          const result = await /** @type {InstanceType<typeof DiffusionPipeline>} */ (
            /** @type {any} */ (window).pipeline
          ).generate({
            ...options,
            ...(!bare && { image }),
            ...(lora && { loras: [{ source, scale: lora }] }),
          });
          const { latents, parameters } = result;
          const read = (await readParameters(parameters)).options;
          return { latents: latents.flatMap((/** @type {Float32Array} */ l) => [...l]), parameters, read };
        } catch (error) {
          const { code, message } = /** @type {any} */ (error);
          return { latents: [], parameters: '', message: `${code}: ${message}`, read: {} };
        }
      }, options);
    for (const kind of new Set(cases.map(c => c.kind))) {
      const model = await page.evaluate(async source => {
        const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
        await /** @type {any} */ (window).pipeline?.dispose();
        const pipeline = await DiffusionPipeline.fromPretrained(source, { cache: false });
        Object.assign(window, { pipeline });
        return pipeline.model;
      }, `${server.url}/models/${kind}${kind === 'single' ? '.safetensors' : ''}`);
      assert.equal(model.instructPix2Pix, true);
      assert.equal(model.numInferenceSteps, 100);
      for (const c of cases.filter(c => c.kind === kind)) {
        await t.test(`${kind} ${JSON.stringify(c.options)}`, async t => {
          const { latents, message, parameters, read } = await draw(c.options);
          assert.equal(message, undefined);
          const count = c.latents.reduce((a, b) => a * b);
          const from = expected.byteOffset + c.offset;
          const theirs = new Float32Array(expected.buffer.slice(from, from + 4 * count));
          assert.equal(latents.length, count);
          let [difference, size] = [0, 0];
          theirs.forEach((v, i) => {
            difference += (latents[i] - v) ** 2;
            size += v ** 2;
          });
          const error = Math.sqrt(difference / size);
          t.diagnostic(`latents ${error.toExponential(1)}`);
          assert.ok(error <= LATENTS, `latents: ${error}`);
          const { guidanceScale, imageGuidanceScale = 1.5 } = c.options;
          assert.ok(parameters.includes(`CFG scale: ${guidanceScale}, Image CFG scale: ${imageGuidanceScale}, Seed`));
          assert.equal(read.imageGuidanceScale, imageGuidanceScale);
        });
      }
      if (kind !== 'sd1') continue;
      await t.test('a part of the picture, by strength; the prompt looked at is the prompt', async () => {
        const some = await draw({ prompt: 'a red apple', width: 48, height: 40, numInferenceSteps: 4, strength: 0.5 });
        assert.equal(some.message, undefined);
        assert.match(some.parameters, /Denoising strength: 0\.5/);
        const looked = await page.evaluate(async () => {
          const image = new ImageData(48, 40);
          image.data.fill(255);
          /** @type {any[]} */
          const seen = [];
          const asked = { prompt: 'red apple', negativePrompt: 'blue', image, seed: 3, width: 48, height: 40 };
          for (const guidanceScale of [1, 5])
            await /** @type {any} */ (window).pipeline.generate({
              ...asked,
              numInferenceSteps: 1,
              guidanceScale,
              inside: { attention: true, guidance: true },
              onStep: (/** @type {any} */ step) => seen.push(step),
            });
          const maps = seen.map(async ({ attention }) =>
            (await attention()).tokens.flatMap((/** @type {any} */ token) => [...token.map]),
          );
          const cond = seen.map(async ({ cond }) => [...(await cond())]);
          return [await Promise.all(maps), await Promise.all(cond)];
        });
        for (const [alone, guided] of looked) {
          assert.equal(alone.length, guided.length);
          alone.forEach((/** @type {number} */ v, /** @type {number} */ i) =>
            assert.ok(Math.abs(v - guided[i]) < 1e-2 * (1 + Math.abs(v)), `${v} and ${guided[i]}`),
          );
        }
      });
      await t.test('without a picture, or with a mask, it says what it wants', async () => {
        const size = { prompt: 'x', width: 48, height: 40 };
        const { message } = await draw({ ...size, bare: true });
        assert.match(message ?? '', /^invalid-option: .*edits a picture.*give image/);
        assert.match((await draw({ ...size, outpaint: { left: 8 } })).message ?? '', /^invalid-option: .*outpaint/);
        assert.match((await draw({ ...size, imageGuidanceScale: -1 })).message ?? '', /imageGuidanceScale must be/);
        const predicted = await page.evaluate(() =>
          /** @type {any} */ (window).pipeline
            .predict({ prompt: '', latents: new Float32Array(4 * 24 * 20), timestep: 5, width: 48, height: 40 })
            .catch((/** @type {any} */ e) => `${e.code}: ${e.message}`),
        );
        assert.match(predicted, /^invalid-option: InstructPix2Pix predicts from a picture/);
      });
    }
  });
});
