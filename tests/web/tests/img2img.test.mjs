// Image to image and inpainting with the embedded model, through the public module in Chromium, against diffusers:
// latents that tests/reference/img2img.py computed from the same picture, mask and seed.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { adapters, root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';

const LATENTS = 1e-2; // relative L2
/** @type {{ mask: boolean, options: Record<string, any>, latents: number[] }[]} */
const cases = JSON.parse(readFileSync(join(root, 'tests/reference/data/img2img.json'), 'utf8'));

test(`image to image and inpainting, on ${adapters[0]}`, async t => {
  const server = await serve({ roots: { '/': join(root, 'www') }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({ adapter: adapters[0] }, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    await page.evaluate(async () => {
      const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
      const size = 64;
      /** @param {(x: number, y: number) => number[]} colour */
      const paint = colour => {
        const data = new ImageData(size, size);
        for (let i = 0; i < size * size; i++) data.data.set([...colour(i % size, Math.floor(i / size)), 255], 4 * i);
        return data;
      };
      const image = paint((x, y) => [x * 4, y * 4, (x * y) & 255]);
      const maskImage = paint((x, y) => Array(3).fill(x >= 20 && x < 52 && y >= 12 && y < 44 ? 255 : 0));
      Object.assign(window, {
        image,
        maskImage,
        pipeline: await DiffusionPipeline.fromPretrained('embedded', { cache: false }),
      });
    });

    for (const c of cases) {
      await t.test(`${c.mask ? 'inpainting' : 'image to image'} ${JSON.stringify(c.options)}`, async t => {
        const { latents, outside, inside, images } = await page.evaluate(async ({ mask, options }) => {
          const { pipeline, image, maskImage } = /** @type {any} */ (window);
          const result = await pipeline.generate({ ...options, image, ...(mask ? { maskImage } : {}) });
          let [outside, inside] = [0, 0]; // bytes that differ from the input's
          for (const { data } of result.images) {
            for (let i = 0; i < data.length; i++) {
              if (data[i] === image.data[i]) continue;
              if (maskImage.data[i - i % 4]) inside++; else outside++;
            }
          }
          return {
            latents: result.latents.flatMap((/** @type {Float32Array} */ l) => [...l]),
            outside,
            inside,
            images: result.images.length,
          };
        }, c);
        assert.equal(latents.length, c.latents.length);
        assert.equal(images, c.options.numImages ?? 1);
        let [difference, size] = [0, 0];
        c.latents.forEach((v, i) => {
          difference += (latents[i] - v) ** 2;
          size += v ** 2;
        });
        const error = Math.sqrt(difference / size);
        t.diagnostic(`latents ${error.toExponential(1)}, bytes changed outside ${outside}, inside ${inside}`);
        assert.ok(error <= LATENTS, `latents: ${error}`);
        assert.ok(inside > 1000, 'the picture is redrawn');
        if (c.mask) assert.equal(outside, 0, 'outside of the mask every byte is the input');
        else assert.ok(outside > 1000);
      });
    }

    await t.test('what cannot be is refused by name', async () => {
      const refusals = await page.evaluate(async () => {
        const { pipeline, image, maskImage } = /** @type {any} */ (window);
        const attempts = [
          { maskImage },
          { strength: 0.5 },
          { image, strength: 0 },
          { image: 5 },
          { image: new Blob(['no picture']) },
          { image, strength: 2 },
        ];
        const said = [];
        for (const options of attempts) {
          said.push(
            await pipeline.generate({ prompt: '', width: 64, height: 64, ...options }).then(
              () => 'drawn',
              (/** @type {any} */ e) => `${e.code}: ${e.message}`,
            ),
          );
        }
        return said;
      });
      [/image too/, /image too/, /more steps/, /must be a picture/, /not a picture/, /strength/].forEach(
        (expected, i) => {
          assert.match(refusals[i], /^invalid-option: /);
          assert.match(refusals[i], expected);
        },
      );
    });
  });
});
