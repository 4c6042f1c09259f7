// Inpainting with UNets of nine channels (latents, mask, masked picture), through the public module in Chromium, against
// diffusers' StableDiffusionInpaintPipeline and StableDiffusionXLInpaintPipeline: tests/reference/inpainting.py.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';
import { writeTiny } from '../support/tiny.mjs';

const LATENTS = 1e-2; // relative L2
/** @type {{ kind: string, options: Record<string, any>, latents: number[] }[]} */
const cases = JSON.parse(readFileSync(join(root, 'tests/reference/data/inpainting.json'), 'utf8'));
const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-inpainting-'));
after(() => rmSync(models, { recursive: true }));

test('inpainting with nine channels', async t => {
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    for (const kind of new Set(cases.map(c => c.kind))) {
      writeTiny(join(models, kind), kind);
      const model = await page.evaluate(async source => {
        const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
        await /** @type {any} */ (window).pipeline?.dispose();
        const pipeline = await DiffusionPipeline.fromPretrained(source, { cache: false });
        Object.assign(window, { pipeline });
        return pipeline.model;
      }, `${server.url}/models/${kind}`);
      assert.equal(model.inpainting, true);
      for (const c of cases.filter(c => c.kind === kind)) {
        await t.test(`${kind} ${JSON.stringify(c.options)}`, async t => {
          const drawn = await page.evaluate(async options => {
            const { width: w, height: h } = options;
            /** @param {(x: number, y: number) => number[]} colour */
            const paint = colour => {
              const data = new ImageData(w, h);
              for (let i = 0; i < w * h; i++) data.data.set([...colour(i % w, Math.floor(i / w)), 255], 4 * i);
              return data;
            };
            const image = paint((x, y) => [x * 4 & 255, y * 4 & 255, (x * y) & 255]);
            const maskImage = paint((x, y) =>
              Array(3).fill(
                x >= Math.floor(w / 3) &&
                  x < Math.floor((w * 4) / 5) &&
                  y >= Math.floor(h / 5) &&
                  y < Math.floor((h * 2) / 3)
                  ? 255
                  : 0,
              ),
            );
            const result = await /** @type {any} */ (window).pipeline.generate({ ...options, image, maskImage });
            let [outside, inside] = [0, 0]; // bytes that differ from the input's
            for (const { data } of result.images) {
              for (let i = 0; i < data.length; i++) {
                if (data[i] === image.data[i]) continue;
                if (maskImage.data[i - i % 4]) inside++; else outside++;
              }
            }
            return {
              latents: result.latents.flatMap((/** @type {Float32Array} */ l) => [...l]),
              images: result.images.length,
              outside,
              inside,
            };
          }, c.options);
          assert.equal(drawn.images, c.options.numImages ?? 1);
          assert.equal(drawn.latents.length, c.latents.length);
          let [difference, size] = [0, 0];
          c.latents.forEach((v, i) => {
            difference += (drawn.latents[i] - v) ** 2;
            size += v ** 2;
          });
          const error = Math.sqrt(difference / size);
          t.diagnostic(
            `latents ${error.toExponential(1)}, bytes changed outside ${drawn.outside}, inside ${drawn.inside}`,
          );
          assert.ok(error <= LATENTS, `latents: ${error}`);
          assert.ok(drawn.inside > 1000, 'the picture is redrawn');
          assert.equal(drawn.outside, 0, 'outside of the mask every byte is the input');
        });
      }
      await t.test(`${kind}: without a mask it says what it wants`, async () => {
        const said = await page.evaluate(() =>
          /** @type {any} */ (window).pipeline
            .generate({ prompt: 'x', width: 64, height: 64 })
            .catch((/** @type {any} */ e) => [e.code, e.message]),
        );
        assert.equal(said[0], 'invalid-option');
        assert.match(said[1], /maskImage/);
      });
    }
  });
});
