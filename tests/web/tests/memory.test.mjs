// What `weights` and `memory` of fromPretrained cost the picture, and what they save: tiny random models through the
// public module in Chromium, 20 steps from the same noise.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { relative } from '../support/relative.mjs';
import { serve } from '../support/hub.mjs';
import { writeTiny } from '../support/tiny.mjs';

const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-memory-'));
after(() => rmSync(models, { recursive: true }));

/** Loads, draws twice, reports; runs in the page. @param {{ source: string, load: any, options: any }} job */
async function draw({ source, load, options }) {
  const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
  /** @type {any[]} */
  const late = [];
  let loaded = false;
  const pipeline = await DiffusionPipeline.fromPretrained(source, {
    ...load,
    onProgress: (/** @type {any} */ p) => loaded && late.push(p),
  });
  loaded = true;
  const held = await pipeline.memory();
  const results = [];
  for (let i = 0; i < 2; i++) {
    const { latents, images } = await pipeline.generate(options);
    results.push({ latents: [...latents[0]], pixels: [...images[0].data] });
  }
  const report = await pipeline.memory();
  await pipeline.dispose();
  return { results, held, report, late: late.length };
}

test('weights q8 and q4, memory low', async t => {
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    for (const kind of ['sd1', 'sdxl']) {
      writeTiny(join(models, kind), kind);
      const source = `${server.url}/models/${kind}`;
      const options = {
        prompt: 'a red apple on a table',
        negativePrompt: 'blue',
        width: 64,
        height: 64,
        numInferenceSteps: 20,
        guidanceScale: 2,
        seed: 3,
        scheduler: 'ddim',
      };
      const run = (/** @type {any} */ load) => page.evaluate(draw, { source, load, options });
      const f16 = await run({ memory: 'resident' });
      const [wanted] = f16.results;

      await t.test(`${kind}: low memory draws the same, one stage at a time`, async () => {
        const low = await run({ memory: 'low' });
        for (const result of low.results) assert.deepEqual(result, wanted);
        assert.equal(low.late, 0, 'what is streamed again is no progress of the loading');
        t.diagnostic(
          `${kind}: weights held after loading ${f16.held.weights} resident, ${low.held.weights} low; ` +
            `peak ${f16.report.peak}, ${low.report.peak}`,
        );
        assert.ok(low.held.weights < f16.held.weights && low.report.peak < f16.report.peak);
      });

      for (const [weights, most] of /** @type {const} */ ([['q8', 2e-2], ['q4', 1e-1]])) {
        await t.test(`${kind}: ${weights}, latents after 20 steps within ${most} of f16's`, async () => {
          const got = await run({ weights, memory: 'resident' });
          const error = relative(got.results[0].latents, wanted.latents);
          t.diagnostic(
            `${kind} ${weights}: ${error.toExponential(1)}, weights ${got.held.weights} of ${f16.held.weights} bytes`,
          );
          assert.ok(got.held.weights < f16.held.weights);
          assert.ok(error > 0 && error <= most, `${error}`);
        });
      }
    }
  });
});
