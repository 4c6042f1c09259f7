// SDXL's refiner through the public module in Chromium against diffusers: as the second stage of two (denoisingEnd of the base,
// denoisingStart of the refiner), and as an image-to-image model; a folder and one file of the original code. Expected latents: tests/reference/refiner.py.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { relative } from '../support/relative.mjs';
import { serve } from '../support/hub.mjs';
import { originalTensors } from '../support/single.mjs';
import { models as kinds, singles, tinyTensor, writeSafetensors, writeTiny } from '../support/tiny.mjs';

const LATENTS = 1e-2; // relative L2
const reference = join(root, 'tests/reference/data/refiner');
/** @type {{ kind: string, base: any, options: any, latents: number[], offset: number }[]} */
const cases = JSON.parse(readFileSync(join(reference, 'cases.json'), 'utf8'));
const expected = readFileSync(join(reference, 'cases.bin'));
const refiner = JSON.parse(readFileSync(join(reference, 'refiner.json'), 'utf8'));
kinds.refiner = { ...refiner, tensors: { ...kinds.sdxl.tensors, ...refiner.tensors } };

const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-refiner-'));
after(() => rmSync(models, { recursive: true }));
for (const kind of ['sdxl', 'refiner']) writeTiny(join(models, kind), kind);

// The tiny SDXL of one file as its refiner: the second text encoder alone, and what sees it is narrower.
const { components, original } = singles.sdxl;
const { hidden_size: width, projection_dim: pooled } = components.text_encoder_2;
/** @type {Map<string, any[]>} */
const rows = new Map(original.map((/** @type {any[]} */ row) => [row[0], row]));
writeSafetensors(
  join(models, 'single.safetensors'),
  originalTensors('sdxl', 'f16').flatMap(t => {
    const [, component, , from = ''] = rows.get(t.name) ?? [];
    if (component === 'text_encoder') return [];
    const name = t.name.replace('conditioner.embedders.1.', 'conditioner.embedders.0.');
    const of = (/** @type {number} */ inner) => [tinyTensor(name, [t.shape[0], inner], components.unet.gain, from)];
    if (/attn2\.to_[kv]\.weight$/.test(from)) return of(width);
    if (from === 'add_embedding.linear_1.weight') return of(pooled + 5 * 256);
    return [{ ...t, name }];
  }),
);

test('SDXL\'s refiner', async t => {
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    const open = (/** @type {string} */ name, /** @type {string} */ source) =>
      page.evaluate(async ({ name, source }) => {
        const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
        const pipeline = await DiffusionPipeline.fromPretrained(source, { cache: false });
        Object.assign(window, { [name]: pipeline });
        return pipeline.model;
      }, { name, source: `${server.url}/models/${source}` });
    /**
     * Draws with a pipeline; `from`: with what the last one left.
     * @param {string} name @param {any} options
     * @returns {Promise<{ latents: number[], message?: string, parameters: string, steps: number[] }>}
     */
    const draw = (name, { from, bare, width: w, height: h, ...options }) =>
      page.evaluate(
        async ({ name, from, bare, w, h, options }) => {
          const own = /** @type {any} */ (window);
          const image = new ImageData(w, h);
          for (let i = 0; i < w * h; i++) {
            const [x, y] = [i % w, Math.floor(i / w)];
            image.data.set([x * 4 & 255, y * 4 & 255, (x * y) & 255, 255], 4 * i);
          }
          /** @type {number[]} */
          const steps = [];
          const start = from ? { latents: own.left } : name === 'base' || bare ? {} : { image };
          try {
            const { latents, parameters } = await own[name].generate({
              ...options,
              ...start,
              width: w,
              height: h,
              output: 'latent',
              onStep: (/** @type {any} */ { step, total }) => steps.push(step / total),
            });
            own.left = new Float32Array(latents.flatMap((/** @type {Float32Array} */ l) => [...l]));
            return { latents: [...own.left], parameters, steps };
          } catch (error) {
            const { code, message } = /** @type {any} */ (error);
            return { latents: [], message: `${code}: ${message}`, parameters: '', steps };
          }
        },
        { name, from, bare, w, h, options },
      );
    /** @param {typeof cases[0]} c @param {number} place */
    const theirs = (c, place) => {
      const bytes = 4 * c.latents.reduce((a, b) => a * b);
      const from = expected.byteOffset + c.offset + place * bytes;
      return new Float32Array(expected.buffer.slice(from, from + bytes));
    };
    await open('base', 'sdxl');
    const model = await open('refiner', 'refiner');
    assert.deepEqual([model.kind, model.refiner], ['sdxl', true]);
    for (const c of cases) {
      const name = c.kind;
      await t.test(`${name} ${JSON.stringify(c.options)}`, async t => {
        if (name === 'single') assert.equal((await open('single', 'single.safetensors')).refiner, true);
        const errors = [];
        if (c.base) {
          const first = await draw('base', c.base);
          assert.equal(first.message, undefined);
          assert.equal(first.steps.at(-1), 1, 'as many steps as are said');
          errors.push(relative(first.latents, theirs(c, 0)));
        }
        const last = await draw(name, { ...c.options, from: Boolean(c.base) });
        assert.equal(last.message, undefined);
        assert.equal(last.steps.at(-1), 1);
        errors.push(relative(last.latents, theirs(c, c.base ? 1 : 0)));
        t.diagnostic(`latents ${errors.map(error => error.toExponential(1))}`);
        assert.ok(Math.max(...errors) <= LATENTS, `latents: ${errors}`);
      });
    }

    await t.test('what cannot be says what to do', async () => {
      const options = { prompt: 'x', width: 48, height: 40, numInferenceSteps: 4 };
      /** @param {string} name @param {any} more @param {RegExp} why */
      const refused = async (name, more, why) =>
        assert.match((await draw(name, { ...options, ...more })).message ?? '', why);
      await refused('refiner', { bare: true }, /^invalid-option: .*refiner, which ends.*give image, or latents/);
      await refused('base', { denoisingStart: 0.5 }, /^invalid-option: denoisingStart goes on with latents/);
      await refused('base', { denoisingEnd: 1.5 }, /^invalid-option: denoisingEnd must be a number between 0 and 1/);
      await refused('base', { denoisingEnd: 0.01 }, /^invalid-option: .*leave no step: choose more/);
    });
  });
});
