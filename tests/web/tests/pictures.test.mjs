// A1111's options of inpainting, outpainting and hires fix with the embedded model, through the public module in
// Chromium, against diffusers (tests/reference/pictures.py); and pictures enlarged by an ESRGAN.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { adapters, root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';

const LATENTS = 1e-2; // relative L2
/** @type {{ cases: { picture: [number, number] | null, mask: boolean, options: Record<string, any>, latents: number[] }[] }} */
const { cases } = JSON.parse(readFileSync(join(root, 'tests/reference/data/pictures/cases.json'), 'utf8'));
const UPSCALER = 'tests/reference/data/upscaler';
/** @type {{ picture: [number, number], files: { file: string, scale: number, width: number, height: number, offset: number }[] }} */
const upscalers = JSON.parse(readFileSync(join(root, UPSCALER, 'index.json'), 'utf8'));
const enlarged = readFileSync(join(root, UPSCALER, 'pictures.bin'));

test(`inpainting's options, outpainting, hires fix, upscaler, on ${adapters[0]}`, async t => {
  const server = await serve({
    roots: { '/': join(root, 'www'), '/upscaler': join(root, UPSCALER) },
    files: { '/blank.html': '' },
  });
  t.after(server.close);
  await withBrowser({ adapter: adapters[0] }, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    await page.evaluate(async () => {
      const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
      /** @param {number} w @param {number} h @param {(x: number, y: number) => number[]} colour */
      const paint = (w, h, colour) => {
        const data = new ImageData(w, h);
        for (let i = 0; i < w * h; i++) data.data.set([...colour(i % w, Math.floor(i / w)), 255], 4 * i);
        return data;
      };
      Object.assign(window, {
        /** @param {number} w @param {number} h */
        picture: (w, h) => paint(w, h, (x, y) => [(x * 4) & 255, (y * 4) & 255, (x * y) & 255]),
        /** @param {number} w @param {number} h */
        mask: (w, h) =>
          paint(w, h, (x, y) =>
            Array(3).fill(
              x >= Math.floor(w / 3) &&
                x < Math.floor((w * 4) / 5) &&
                y >= Math.floor(h / 5) &&
                y < Math.floor((h * 2) / 3)
                ? 255
                : 0,
            ),
          ),
        pipeline: await DiffusionPipeline.fromPretrained('embedded', { cache: false }),
      });
    });

    for (const c of cases) {
      const { prompt, width, height, ...shown } = c.options;
      await t.test(`${width}x${height} ${JSON.stringify(shown)}`, async t => {
        const drawn = await page.evaluate(async ({ picture: size, mask: masked, options }) => {
          const { pipeline, picture, mask } = /** @type {any} */ (window);
          const image = size && picture(...size);
          const maskImage = masked && size && mask(...size);
          const { width, height, ...rest } = options;
          const steps = new Set();
          const result = await pipeline.generate({
            ...rest,
            // outpaint counts from the picture, whose own size is left to the module
            ...(rest.outpaint ? {} : { width, height }),
            ...(image ? { image } : {}),
            ...(masked ? { maskImage } : {}),
            onStep: (/** @type {any} */ s) => steps.add(`${s.step} of ${s.total}`),
          });
          // Of pixels further from the mask than its blur reaches (or of the picture that was extended): changed ones.
          const reach = Math.floor(2.5 * (options.maskBlur ?? 0) + 0.5);
          const { left = 0, top = 0 } = options.outpaint ?? {};
          let [outside, kept] = [0, 0];
          for (const { data, width: wide } of image ? result.images : []) {
            for (let y = 0; y < image.height; y++) {
              for (let x = 0; x < image.width; x++) {
                if (maskImage) {
                  let near = false;
                  for (let dy = -reach; dy <= reach; dy++) {
                    for (let dx = -reach; dx <= reach; dx++) {
                      const [px, py] = [x + dx, y + dy];
                      if (px < 0 || py < 0 || px >= image.width || py >= image.height) continue;
                      near ||= (maskImage.data[4 * (py * image.width + px)] > 0) !== Boolean(options.invertMask);
                    }
                  }
                  if (near) continue;
                }
                kept++;
                for (let k = 0; k < 4; k++) {
                  if (data[4 * ((y + top) * wide + x + left) + k] !== image.data[4 * (y * image.width + x) + k])
                    outside++;
                }
              }
            }
          }
          return {
            latents: result.latents.flatMap((/** @type {Float32Array} */ l) => [...l]),
            sizes: result.images.map((/** @type {any} */ i) => [i.width, i.height]),
            steps: [...steps], timed: result.timings.steps.length, outside, kept,
          };
        }, c);
        const hires = c.options.hires;
        const scaled = (/** @type {'width' | 'height'} */ side) => hires[side] ?? c.options[side] * hires.scale;
        const size = hires
          ? [scaled('width'), scaled('height')]
          : c.options.inpaintArea === 'masked'
            ? c.picture
            : [width, height];
        assert.deepEqual(drawn.sizes, Array(c.options.numImages ?? 1).fill(size));
        assert.equal(drawn.steps.at(-1), `${drawn.timed} of ${drawn.timed}`);
        assert.equal(drawn.steps.length, drawn.timed, 'one total for all steps');
        assert.equal(drawn.latents.length, c.latents.length);
        let [difference, norm] = [0, 0];
        c.latents.forEach((v, i) => {
          difference += (drawn.latents[i] - v) ** 2;
          norm += v ** 2;
        });
        const error = Math.sqrt(difference / norm);
        t.diagnostic(`latents ${error.toExponential(1)}, ${drawn.timed} steps, ${drawn.kept} pixels kept`);
        assert.ok(error <= LATENTS, `latents: ${error}`);
        if (c.mask || c.options.outpaint) {
          assert.ok(drawn.kept > 100);
          assert.equal(drawn.outside, 0, 'where the mask is 0 every byte is the input');
        }
      });
    }

    await t.test('ESRGANs of every spelling enlarge as spandrel does', async t => {
      for (const { file, scale, width, height, offset } of upscalers.files) {
        const drawn = await page.evaluate(async ({ file, size }) => {
          const { Upscaler } = await import(`${location.origin}/browser-diffusion.js`);
          const address = new URL(`/upscaler/${file}`, location.href).href;
          // .safetensors by address, .pth from the visitor's disk
          const source = file.endsWith('.pth') ? new File([await (await fetch(address)).blob()], file) : address;
          const upscaler = await Upscaler.fromPretrained(source, { cache: false });
          /** @type {any[]} */
          const tiles = [];
          const image = await upscaler.upscale(/** @type {any} */ (window).picture(...size), {
            onProgress: (/** @type {any} */ p) => tiles.push(p),
          });
          const { scale } = upscaler;
          await upscaler.dispose();
          return { scale, width: image.width, height: image.height, data: [...image.data], tiles };
        }, { file, size: upscalers.picture });
        assert.deepEqual(
          [drawn.scale, drawn.width, drawn.height, drawn.tiles],
          [scale, width, height, [{ done: 1, total: 1 }]],
        );
        let [difference, norm] = [0, 0];
        for (let i = 0; i < width * height * 3; i++) {
          const theirs = enlarged[offset + i];
          difference += (drawn.data[4 * Math.floor(i / 3) + (i % 3)] - theirs) ** 2;
          norm += theirs ** 2;
        }
        const error = Math.sqrt(difference / norm);
        t.diagnostic(`${file}: ${error.toExponential(1)}`);
        assert.ok(error <= 1e-2, `${file}: ${error}`);
      }
    });

    await t.test('hires fix with an upscaler is what its parts are', async () => {
      const { same, size, steps, parameters, refusals } = await page.evaluate(async () => {
        const { Upscaler } = await import(`${location.origin}/browser-diffusion.js`);
        const { pipeline } = /** @type {any} */ (window);
        const upscaler = await Upscaler.fromPretrained(`${location.origin}/upscaler/esrgan-old.safetensors`, {
          cache: false,
        });
        const options = { prompt: 'a red apple', width: 64, height: 64, numInferenceSteps: 3, seed: 5 };
        const once = await pipeline.generate({
          ...options,
          hires: { width: 96, height: 80, strength: 0.7, steps: 3, upscaler },
        });
        const first = await pipeline.generate(options);
        const image = await upscaler.upscale(first.images[0]);
        const second = await pipeline.generate({ ...options, width: 96, height: 80, image, strength: 0.7 });
        /** @type {string[]} */
        const refusals = [];
        const refused = (/** @type {Promise<any>} */ p) =>
          p
            .then(
              () => 'done',
              (/** @type {any} */ e) => e.code,
            )
            .then((/** @type {string} */ said) => refusals.push(said));
        await refused(upscaler.upscale(7));
        await refused(Upscaler.fromPretrained('stabilityai/sd-turbo', { hub: 'x' }));
        await refused(Upscaler.fromPretrained(new File(['nothing'], 'nothing.pth')));
        await refused(
          Upscaler.fromPretrained(`${location.origin}/embedded/vae/diffusion_pytorch_model.safetensors`, {
            cache: false,
          }),
        );
        await upscaler.dispose();
        return {
          same: once.latents[0].every((/** @type {number} */ v, /** @type {number} */ i) => v === second.latents[0][i]),
          size: [once.images[0].width, once.images[0].height], steps: once.timings.steps.length,
          parameters: image.parameters === first.parameters && first.parameters.includes('a red apple'), refusals,
        };
      });
      assert.ok(same);
      assert.ok(parameters, 'an enlarged picture says how it was made');
      assert.deepEqual([size, steps], [[96, 80], 5]);
      assert.deepEqual(refusals, ['invalid-option', 'invalid-option', 'bad-checkpoint', 'unsupported-model']);
    });

    await t.test('what cannot be is refused by name', async () => {
      const refusals = await page.evaluate(async () => {
        const { pipeline, picture, mask } = /** @type {any} */ (window);
        const image = picture(64, 64);
        const attempts = [
          { maskBlur: 4 },
          { image, maskedContent: 'noise' },
          { image, maskImage: mask(64, 64), maskedContent: 'sky' },
          { outpaint: { left: 8 } },
          { image, maskImage: mask(64, 64), outpaint: { left: 8 } },
          { image, outpaint: { left: 9 } },
          { image, outpaint: { up: 8 } },
          { image, hires: {} },
          { hires: { scale: 0.5 } },
          { hires: 2 },
          { hires: { scale: 2, strength: 0 } },
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
      [
        /maskBlur .* give image and maskImage/,
        /maskedContent .* give image and maskImage/,
        /maskedContent must be one of/,
        /give image/,
        /no maskImage/,
        /left.* multiple of 8/,
        /no "up"/,
        /leave image out/,
        /scale/,
        /must be an object/,
        /more steps/,
      ].forEach((expected, i) => {
        assert.match(refusals[i], /^invalid-option: /);
        assert.match(refusals[i], expected);
      });
    });
  });
});
