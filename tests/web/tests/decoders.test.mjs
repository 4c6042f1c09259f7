// Other decoders than the model's own: another VAE, and the small one of previews. (That each decodes as diffusers does
// is shown in tests/models.rs; here, that the right one is asked, by the module and on the page.) And the VAE in tiles.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';
import { setLevel } from '../support/level.mjs';
import { drawAgain, shot, status } from '../support/site.mjs';
import { drawn, encode, writeSafetensors, writeTiny } from '../support/tiny.mjs';

/** Writes an AutoencoderTiny's decoder of 16 channels that enlarges as the model's VAE does. @param {string} folder @param {number} levels */
function writeTinyDecoder(folder, levels) {
  /** @type {import('../support/tiny.mjs').Tensor[]} */
  const tensors = [];
  const conv = (/** @type {string} */ name, /** @type {number} */ to, /** @type {number} */ from, bias = true) => {
    for (const [part, shape] of /** @type {[string, number[]][]} */ ([['weight', [to, from, 3, 3]], ['bias', [to]]])) {
      if (part === 'weight' || bias)
        tensors.push({
          name: `${name}.${part}`,
          dtype: 'F16',
          shape,
          data: encode(drawn(`${name}.${part}`, shape, 0.9), 'F16'),
        });
    }
  };
  conv('decoder.layers.0', 16, 4);
  let place = 2;
  for (let level = 0; level < levels; level++) {
    for (const i of [0, 2, 4]) conv(`decoder.layers.${place}.conv.${i}`, 16, 16);
    place += 1;
    if (level + 1 < levels) {
      conv(`decoder.layers.${place + 1}`, 16, 16, false);
      place += 2;
    }
  }
  conv(`decoder.layers.${place}`, 3, 16);
  mkdirSync(folder, { recursive: true });
  const blocks = Array(levels).fill(1), widths = Array(levels).fill(16);
  writeFileSync(
    join(folder, 'config.json'),
    JSON.stringify({
      _class_name: 'AutoencoderTiny',
      num_decoder_blocks: blocks,
      decoder_block_out_channels: widths,
      latent_channels: 4,
    }),
  );
  writeSafetensors(join(folder, 'diffusion_pytorch_model.safetensors'), tensors);
}

/** @param {number[]} a @param {number[]} b */
const same = (a, b) => a.length > 0 && a.length === b.length && a.every((value, i) => value === b[i]);

test('another VAE instead of the model\'s own, and the small decoder of previews', async t => {
  const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-vae-'));
  t.after(() => rmSync(models, { recursive: true }));
  writeTiny(join(models, 'own'), 'sd1');
  const config = JSON.parse(readFileSync(join(models, 'own/vae/config.json'), 'utf8'));
  writeTinyDecoder(join(models, 'tiny'), config.block_out_channels.length);
  writeTinyDecoder(join(models, 'wrong'), config.block_out_channels.length + 1);
  // The same model with that decoder in its folder: what the overridden one must equal.
  cpSync(join(models, 'own'), join(models, 'composed'), { recursive: true });
  rmSync(join(models, 'composed/vae'), { recursive: true });
  cpSync(join(models, 'tiny'), join(models, 'composed/vae'), { recursive: true });
  const index = JSON.parse(readFileSync(join(models, 'own/model_index.json'), 'utf8'));
  writeFileSync(
    join(models, 'composed/model_index.json'),
    JSON.stringify({ ...index, vae: ['diffusers', 'AutoencoderTiny'] }),
  );

  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    const of = (/** @type {string} */ name) => `${server.url}/models/${name}`;
    /** @param {string} source @param {any} load @param {any} [options] */
    const draw = (source, load, options = {}) => page.evaluate(async ({ source, load, options }) => {
      const { DiffusionPipeline } = await import('/browser-diffusion.js');
      const pipeline = await DiffusionPipeline.fromPretrained(source, load);
      /** @type {number[]} */
      let preview = [];
      const onStep = (/** @type {any} */ step) => {
        const canvas = new OffscreenCanvas(step.preview.width, step.preview.height);
        const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext('2d'));
        context.drawImage(step.preview, 0, 0);
        preview = [...context.getImageData(0, 0, canvas.width, canvas.height).data];
      };
      try {
        const {
          images: [image],
          latents,
        } = await pipeline.generate({
          prompt: 'a red apple',
          width: 64,
          height: 48,
          numInferenceSteps: 3,
          seed: 1,
          ...options,
          ...(options.preview && { onStep }),
        });
        return { pixels: [...image.data], latents: [...latents[0]], preview, code: '' };
      } catch (error) {
        return { pixels: [], latents: [], preview, code: /** @type {any} */ (error).code };
      } finally {
        await pipeline.dispose();
      }
    }, { source, load, options });

    const own = await draw(of('own'), {});
    const composed = await draw(of('composed'), {});
    assert.ok(same(composed.latents, own.latents) && !same(composed.pixels, own.pixels));

    await t.test('`vae`: alone or in a whole model, the picture is that decoder\'s', async () => {
      for (const vae of ['tiny', 'composed']) {
        for (const memory of ['resident', 'low']) {
          const got = await draw(of('own'), { vae: of(vae), memory });
          assert.ok(same(got.pixels, composed.pixels) && same(got.latents, composed.latents), `${vae}, ${memory}`);
        }
      }
    });

    await t.test(
      'preview "tiny": the last step is what that decoder makes of the latents; the picture stays the VAE\'s',
      async () => {
        const got = await draw(of('own'), { tinyVae: of('tiny') }, { preview: 'tiny' });
        assert.ok(same(got.preview, composed.pixels), 'the preview');
        assert.ok(same(got.pixels, own.pixels), 'the picture');
        // A model whose own VAE is the small one needs no other.
        const itself = await draw(of('composed'), { tinyVae: of('missing') }, { preview: 'tiny' });
        assert.ok(same(itself.preview, composed.pixels), 'its own');
      },
    );

    await t.test('a decoder of other latents, or none: said by name, and nothing is drawn', async () => {
      assert.equal((await draw(of('own'), { tinyVae: of('wrong') }, { preview: 'tiny' })).code, 'unsupported-model');
      assert.equal((await draw(of('own'), { tinyVae: of('missing') }, { preview: 'tiny' })).code, 'network');
    });
  }).catch(error => {
    // The browser itself reports the 404s that were asked for.
    if (!/^the page reported errors:\n(.*404.*\n?)+$/.test(error.message)) throw error;
  });
});

test(
  'the small decoder on the page: previews by keyboard, instead of the VAE by mouse',
  async t => {
    const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-vae-'));
    t.after(() => rmSync(models, { recursive: true }));
    writeTiny(join(models, 'own'), 'sd1');
    writeTinyDecoder(
      join(models, 'tiny'),
      JSON.parse(readFileSync(join(models, 'own/vae/config.json'), 'utf8')).block_out_channels.length,
    );
    const server = await serve({
      roots: { '/': join(root, 'www') },
      models: { 'someone/small': join(models, 'own'), 'madebyollin/taesd': join(models, 'tiny') },
    });
    t.after(server.close);
    await withBrowser({}, async context => {
      const page = await context.newPage();
      await page.setViewportSize({ width: 1200, height: 1200 });
      await page.addInitScript(setLevel, 'all');
      await page.addInitScript(() =>
        localStorage.setItem(
          'browser-diffusion settings',
          JSON.stringify({ source: 'someone/small', width: '64', height: '48', steps: '3', guidance: '3', seed: '1' }),
        ),
      );
      await page.goto(`${server.url}/?hub=${encodeURIComponent(server.url)}`);
      await status(page, /^Ready/);
      const canvas = () =>
        page.evaluate(() => {
          const canvas = /** @type {HTMLCanvasElement} */ (document.getElementById('canvas'));
          return [...(canvas.getContext('2d')?.getImageData(0, 0, canvas.width, canvas.height).data ?? [])];
        });
      const fetched = () => server.log.some(({ path }) => path.includes('taesd'));

      await page.focus('#preview');
      await page.keyboard.type('quick');
      await drawAgain(page, () => page.keyboard.press('Control+Enter'));
      const own = await canvas();
      assert.ok(own.length === 4 * 64 * 48 && !fetched());
      await page.focus('#preview');
      await page.keyboard.type('small');
      await drawAgain(page, () => page.keyboard.press('Control+Enter'));
      assert.ok(fetched(), "taesd is Stable Diffusion's");
      assert.ok(same(await canvas(), own), "the picture is the VAE's");
      await page.focus('#scrub');
      await page.keyboard.press('ArrowLeft');
      assert.match(await page.innerText('#caption'), /^Step (\d) of \1/);
      const preview = await canvas();
      await shot(page, 'small-decoder-preview');

      await page.click('#additions summary');
      await page.click('#add-vae');
      await page.keyboard.type('madebyollin/taesd');
      await drawAgain(page);
      const picture = await canvas();
      assert.ok(same(picture, preview) && !same(picture, own), "the picture is the small decoder's");
      await shot(page, 'small-decoder');
    });
  },
);

test('a VAE that does not fit encodes and decodes in tiles, as diffusers\' does', async t => {
  // Image to image with the embedded model: tests/reference/tiles.py.
  const expected = JSON.parse(readFileSync(join(root, 'tests/reference/data/memory/tiled.json'), 'utf8'));
  const [latents, pixels] = [expected.latents, Buffer.from(expected.pixels, 'base64')];
  // An adapter with little memory: whole, the encoder would take 14.8 million bytes and the decoder 23.6 million; in tiles
  // of 32 latents a side 13.1, of 24 11.8.
  const little = "Object.defineProperty(GPUSupportedLimits.prototype, 'maxBufferSize', { get: () => 14_000_000 });\n";
  const worker = readFileSync(join(root, 'www/worker.js'), 'utf8') + little;
  const server = await serve({ roots: { '/': join(root, 'www') }, files: { '/blank.html': '', '/worker.js': worker } });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    const drawn = await page.evaluate(async options => {
      const { DiffusionPipeline } = await import('/browser-diffusion.js');
      const { width, height } = options;
      const image = new ImageData(width, height);
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++)
          image.data.set([x, Math.floor((y * 7) / 8), ((x * y) >> 8) & 255, 255], 4 * (y * width + x));
      }
      const pipeline = await DiffusionPipeline.fromPretrained('embedded', { cache: false, memory: 'resident' });
      const { latents: [latents], images: [{ data }] } = await pipeline.generate({ ...options, image });
      // Every fourth pixel of every fourth row.
      const pixels = [];
      for (let y = 0; y < height; y += 4)
        for (let x = 0; x < width; x += 4) pixels.push(...data.slice(4 * (y * width + x), 4 * (y * width + x) + 3));
      await pipeline.dispose();
      return { latents: [...latents], pixels };
    }, expected.options);
    for (const [i, [what, ours, theirs]] of /** @type {[string, number[], ArrayLike<number>][]} */ ([
      ['latents', drawn.latents, latents],
      ['pixels', drawn.pixels, pixels],
    ]).entries()) {
      assert.equal(ours.length, theirs.length);
      const norm = (/** @type {(v: number, i: number) => number} */ of) => Math.hypot(...ours.map(of));
      const error = norm((v, i) => v - theirs[i]) / norm((_, i) => theirs[i]);
      t.diagnostic(`${what} ${error.toExponential(1)}; without tiles they would lie ${expected.apart.untiled[i]} away`);
      // Three times what diffusers' own f16 run is away: an eighth, at most, of what tiles change.
      assert.ok(error <= 3 * expected.apart.f16[i], `${what}: ${error}`);
    }
  });
});
