// A model that reads Chinese with BERT, as Taiyi-Stable-Diffusion does: a tiny random one against diffusers, which
// tests/reference/taiyi.py ran in f32. Another text moves the latents by 0.3.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { relative } from '../support/relative.mjs';
import { serve } from '../support/hub.mjs';
import { drawn, encode, writeSafetensors } from '../support/tiny.mjs';

const reference = join(root, 'tests/reference/data/taiyi');
/** @param {string} file */
const read = file => JSON.parse(readFileSync(join(reference, `${file}.json`), 'utf8'));
const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-taiyi-'));
after(() => rmSync(models, { recursive: true }));

/** Writes the model as its published folder is laid out. @param {string} folder */
function write(folder) {
  const { model_index, scheduler, components, tokenizer_config, tensors } = read('model');
  /** @param {string} path @param {unknown} value */
  const json = (path, value) => writeFileSync(join(folder, path), JSON.stringify(value));
  for (const part of ['scheduler', 'tokenizer', ...Object.keys(components)])
    mkdirSync(join(folder, part), { recursive: true });
  json('model_index.json', model_index);
  json('scheduler/scheduler_config.json', scheduler);
  json('tokenizer/tokenizer_config.json', tokenizer_config);
  copyFileSync(join(reference, 'vocab.txt'), join(folder, 'tokenizer/vocab.txt'));
  for (const [name, { gain, ...config }] of Object.entries(components)) {
    json(`${name}/config.json`, config);
    const list = tensors[name].map((/** @type {string} */ line) => {
      const [tensor, ...shape] = line.split(' ');
      const sides = shape.map(Number);
      return { name: tensor, dtype: 'F16', shape: sides, data: encode(drawn(tensor, sides, gain), 'F16') };
    });
    const stem = name === 'text_encoder' ? 'model' : 'diffusion_pytorch_model';
    writeSafetensors(join(folder, name, `${stem}.safetensors`), list);
  }
}

test('a model that reads Chinese with BERT, against diffusers', async t => {
  write(join(models, 'taiyi'));
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    await page.evaluate(async () => {
      const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
      const source = `${location.origin}/models/taiyi`;
      Object.assign(window, { pipeline: await DiffusionPipeline.fromPretrained(source, { cache: false }) });
    });
    for (const { options, latents: theirs } of read('cases')) {
      await t.test(`${options.prompt.slice(0, 9)}, ${options.scheduler ?? 'its own sampler'}`, async t => {
        const ours = await page.evaluate(async options => {
          const { latents } = await /** @type {any} */ (window).pipeline.generate({ ...options, output: 'latent' });
          return latents.flatMap((/** @type {Float32Array} */ l) => [...l]);
        }, options);
        const error = relative(ours, theirs);
        t.diagnostic(`latents ${error.toExponential(1)}`);
        assert.ok(error <= 1e-2, `latents: ${error}`);
      });
    }
    await t.test('its tokens: every character one, nothing foreign, 510 to a window', async () => {
      const view = await page.evaluate(() => /** @type {any} */ (window).pipeline.tokenize('一只老鼠在弹吉他', {}));
      assert.deepEqual([view.tokens.length, view.room, view.chunks, view.foreign], [8, 510, 1, false]);
    });
    await t.test('weights of words, several windows, and layers left out', async () => {
      const draw = (/** @type {any} */ more) =>
        page.evaluate(async more => {
          const options = { width: 32, height: 32, numInferenceSteps: 2, seed: 1, output: 'latent', ...more };
          const { latents: [latents], truncated } = await /** @type {any} */ (window).pipeline.generate(options);
          return { latents: [...latents], truncated };
        }, more);
      const long = `${'猫'.repeat(505)} (红色的苹果:1.3)`;
      const plain = await draw({ prompt: long });
      assert.equal(plain.truncated.length, 1);
      const whole = await draw({ prompt: long, promptSyntax: 'a1111' });
      assert.deepEqual(whole.truncated, []);
      assert.notDeepEqual(whole.latents, plain.latents);
      const skipped = await draw({ prompt: long, promptSyntax: 'a1111', clipSkip: 1 });
      assert.notDeepEqual(skipped.latents, whole.latents);
      assert.ok(skipped.latents.every(Number.isFinite));
    });
  });
});
