// Files of LoRAs and embeddings that are called as people call them: signs that mean something in addresses and in
// patterns, other scripts, emoji (not "=", which is an argument in A1111's tags too). From disk and by address, and found
// by the prompt's tags. Each does what the same bytes under a plain name do, on the tiny random model of
// pipelines.test.mjs.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';
import { writeTiny } from '../support/tiny.mjs';

const reference = join(root, 'tests/reference/data/extras');
const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-names-'));
after(() => rmSync(models, { recursive: true }));

const NAMES = ['plain', '100% red', '%E7%BA%A2', '50%', 'style #2', 'why? (this)', '红苹果 猫', '🍎🧑‍🎨', 'a+b&c',
  'v1.5 [x]'];

test('LoRAs and embeddings are found by names of any script and sign', async t => {
  writeTiny(join(models, 'sd1'), 'sd1');
  const files = join(models, 'files');
  mkdirSync(files);
  for (const name of NAMES) {
    copyFileSync(join(reference, 'kohya.safetensors'), join(files, `${name}.safetensors`));
    copyFileSync(join(reference, 'thing.safetensors'), join(files, `${name} word.safetensors`));
  }
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    await page.evaluate(async () => {
      const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
      const pipeline = await DiffusionPipeline.fromPretrained(`${location.origin}/models/sd1`, { cache: false });
      const at = (/** @type {string} */ name) =>
        `${location.origin}/models/files/${encodeURIComponent(`${name}.safetensors`)}`;
      const source = async (/** @type {string} */ name, /** @type {boolean} */ disk) =>
        disk ? new File([await (await fetch(at(name))).blob()], `${name}.safetensors`) : at(name);
      const draw = async (/** @type {string} */ name, /** @type {boolean} */ disk, /** @type {string} */ prompt) => {
        const { latents, unmatched, parameters } = await pipeline.generate({
          prompt, promptSyntax: 'a1111', width: 40, height: 40, numInferenceSteps: 2, guidanceScale: 3, seed: 1,
          output: 'latent', loras: [{ source: await source(name, disk), scale: 0 }],
          embeddings: [{ token: name, source: await source(`${name} word`, disk) }],
        });
        return { latents: [...latents[0]], unmatched, parameters };
      };
      Object.assign(window, { draw });
    });
    const draw = (/** @type {string} */ name, /** @type {boolean} */ disk, /** @type {string} */ prompt) =>
      page.evaluate(async ([name, disk, prompt]) => /** @type {any} */ (window).draw(name, disk, prompt),
        /** @type {const} */ ([name, disk, prompt]));
    const lora = (await draw('plain', false, 'a red apple <lora:plain:0.8>')).latents;
    const without = (await draw('plain', false, 'a red apple')).latents;
    assert.notDeepEqual(lora, without);
    for (const disk of [false, true]) {
      for (const name of NAMES) {
        await t.test(`${name}, ${disk ? 'from disk' : 'by address'}`, async () => {
          const { latents, unmatched, parameters } = await draw(name, disk, `a red apple <lora:${name}:0.8>`);
          assert.deepEqual(latents, lora);
          assert.deepEqual(unmatched, []);
          assert.ok(parameters.includes(`<lora:${name}:0.8>`), parameters);
        });
      }
      // A word is found as it stands in the prompt; brackets there are weights, and words end at spaces.
      const [plain, ...others] = ['plain', '50%', '%E7%BA%A2', '🍎🧑‍🎨', 'a+b&c'];
      const word = (await draw(plain, disk, `a ${plain} apple`)).latents;
      assert.notDeepEqual(word, (await draw('50%', disk, `a ${plain} apple`)).latents);
      for (const name of others) {
        await t.test(`the word ${name}, ${disk ? 'from disk' : 'by address'}`, async () => {
          assert.deepEqual((await draw(name, disk, `a ${name} apple`)).latents, word);
        });
      }
    }
  });
});
