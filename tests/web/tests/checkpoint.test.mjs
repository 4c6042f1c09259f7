// The same tiny random models in every shape that checkpoints come in: diffusers' folder (one file, three shards, the
// fp16 variant, from disk by its files or its handle), one .safetensors file of the original layout, .ckpt as a zip archive and as torch wrote it before 1.6. Each
// draws the same picture, and it is diffusers' (tests/reference/single_file.py, f32 on weights rounded to f16).
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';
import { writeSingle } from '../support/single.mjs';
import { writeTiny } from '../support/tiny.mjs';

// As in pipelines.test.mjs.
const LATENTS = 1e-2; // relative L2
const PIXELS = 2.5; // grey levels, mean

const reference = join(root, 'tests/reference/data/single_file');
/** @type {{ folder: string, options: any, latents: number[], pixels: number[], offset: number }[]} */
const cases = JSON.parse(readFileSync(join(reference, 'cases.json'), 'utf8'));
const expected = readFileSync(join(reference, 'cases.bin'));

const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-models-'));
after(() => rmSync(models, { recursive: true }));

/** @param {number[]} shape */
const count = shape => shape.reduce((a, b) => a * b, 1);

/** @param {typeof cases[number]} c */
function wanted(c) {
  const latents = new Float32Array(
    expected.buffer.slice(expected.byteOffset + c.offset, expected.byteOffset + c.offset + 4 * count(c.latents)),
  );
  const at = c.offset + 4 * latents.length;
  return { latents, pixels: expected.subarray(at, at + count(c.pixels)) };
}

/**
 * Loads a model in the page and draws; `files` are fetched and given as files from disk, or as the handle of their folder.
 * @param {import('playwright-core').Page} page
 * @param {{ source?: string, files?: string[], handle?: boolean, options?: any }} model
 * @param {any} options of `generate`
 */
function draw(page, model, options) {
  return page.evaluate(async ([{ source, files, handle, options: load }, options]) => {
    const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
    /** The browser's own disk has such handles without a dialog. */
    const folder = async () => {
      const root = await navigator.storage.getDirectory();
      for (const path of files ?? []) {
        const names = path.split('/');
        let at = root;
        for (const name of names.slice(0, -1)) at = await at.getDirectoryHandle(name, { create: true });
        const file = await at.getFileHandle(names.at(-1) ?? '', { create: true });
        await (await fetch(`/models/${path}`)).body?.pipeTo(await file.createWritable());
      }
      return root.getDirectoryHandle(files?.[0].split('/')[0] ?? '');
    };
    const picked = handle
      ? await folder()
      : files &&
        (await Promise.all(
          files.map(async (/** @type {string} */ path) => {
            const blob = await (await fetch(`/models/${path}`)).blob();
            const file = new File([blob], path.split('/').at(-1) ?? '');
            // As the browser's own folder picker gives it.
            if (files.length > 1) Object.defineProperty(file, 'webkitRelativePath', { value: path });
            return file;
          }),
        ));
    const pipeline = await DiffusionPipeline.fromPretrained(
      picked
        ? picked instanceof Array && picked.length === 1
          ? picked[0]
          : picked
        : `${location.origin}/models/${source}`,
      load,
    );
    try {
      const { latents, images: [image] } = await pipeline.generate(options);
      return { model: pipeline.model, latents: [...latents[0]], pixels: [...image.data] };
    } finally {
      await pipeline.dispose();
    }
  }, /** @type {const} */ ([model, options]));
}

test('the same picture from every kind of file', async t => {
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    for (const c of cases) {
      const kind = c.folder;
      const theirs = wanted(c);
      const folder = (/** @type {string} */ name, /** @type {any} */ options = {}) =>
        writeTiny(join(models, name), `single-${kind}`, options);
      folder(`${kind}-folder`);
      folder(`${kind}-shards`, { shards: 3 });
      folder(`${kind}-fp16`, { variant: 'fp16' });
      writeSingle(join(models, `${kind}.safetensors`), kind, { format: 'safetensors' });
      writeSingle(join(models, `${kind}.ckpt`), kind, { format: 'zip', dtype: 'f32' });
      writeSingle(join(models, `${kind}-old.ckpt`), kind, { format: 'legacy' });
      const parts = {
        text_encoder: 'model',
        text_encoder_2: 'model',
        unet: 'diffusion_pytorch_model',
        vae: 'diffusion_pytorch_model',
      };
      const inFolder = ['model_index.json', 'scheduler/scheduler_config.json']
        .concat(Object.entries(parts).flatMap(([part, stem]) => [`${part}/config.json`, `${part}/${stem}.safetensors`]))
        .concat(
          ['tokenizer', 'tokenizer_2'].flatMap(t =>
            ['vocab.json', 'merges.txt', 'tokenizer_config.json', 'special_tokens_map.json'].map(f => `${t}/${f}`),
          ),
        )
        .filter(path => kind === 'sdxl' || !path.includes('_2/'))
        .map(path => `${kind}-folder/${path}`);
      /** @type {[string, Parameters<typeof draw>[1]][]} */
      const sources = [
        ['folder', { source: `${kind}-folder`, options: { cache: false } }],
        ['three shards', { source: `${kind}-shards`, options: { cache: false } }],
        ['fp16 variant', { source: `${kind}-fp16`, options: { cache: false, variant: 'fp16' } }],
        ['folder on disk', { files: inFolder }],
        ['handle of a folder on disk', { files: inFolder, handle: true }],
        ['.safetensors', { source: `${kind}.safetensors`, options: { cache: false } }],
        ['.safetensors, to the cache', { source: `${kind}.safetensors` }],
        ['.safetensors, from the cache', { source: `${kind}.safetensors` }],
        ['.safetensors on disk', { files: [`${kind}.safetensors`] }],
        ['.ckpt, zip, to the cache', { source: `${kind}.ckpt` }],
        ['.ckpt, zip', { source: `${kind}.ckpt`, options: { cache: false } }],
        ['.ckpt, zip, on disk', { files: [`${kind}.ckpt`] }],
        ['.ckpt, legacy', { source: `${kind}-old.ckpt`, options: { cache: false } }],
        ['.ckpt, legacy, on disk', { files: [`${kind}-old.ckpt`] }],
      ];
      /** @type {number[] | undefined} */
      let first;
      for (const [name, model] of sources) {
        await t.test(`${kind}: ${name}`, async t => {
          const before = server.log.length;
          const ours = await draw(page, model, c.options);
          let [difference, size, grey] = [0, 0, 0];
          theirs.latents.forEach((v, i) => { difference += (ours.latents[i] - v) ** 2; size += v ** 2; });
          for (let i = 0; i < theirs.pixels.length; i++)
            grey += Math.abs(theirs.pixels[i] - ours.pixels[Math.floor(i / 3) * 4 + (i % 3)]);
          const [latents, pixels] = [Math.sqrt(difference / size), grey / theirs.pixels.length];
          t.diagnostic(`latents ${latents.toExponential(1)}, picture ${pixels.toFixed(2)}`);
          assert.ok(latents <= LATENTS, `latents: ${latents}`);
          assert.ok(pixels <= PIXELS, `picture: ${pixels}`);
          first ??= ours.pixels;
          assert.deepEqual(ours.pixels, first, 'the same picture as from the folder');
          const asked = server.log.slice(before).filter(r => r.path.startsWith('/models/'));
          if (name.endsWith('from the cache')) assert.deepEqual(asked, [], 'no request');
          // No byte twice, whatever lies in the file where.
          if (name.endsWith('to the cache')) {
            const sent = asked.reduce((sum, r) => sum + r.sent, 0);
            const { length } = readFileSync(join(models, model.source ?? ''));
            t.diagnostic(`${sent} of ${length} bytes in ${asked.length} requests`);
            assert.ok(sent <= length, `${sent} bytes of ${length}`);
          }
        });
      }
    }
  });
});
