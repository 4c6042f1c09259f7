// What the browser keeps of a model: files from disk, on request, which then load by name without the files; quantised
// weights as they lie on the GPU, beside or without the f16 ones. Every picture is the one of a load without the cache.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';
import { writeSingle } from '../support/single.mjs';
import { writeTiny } from '../support/tiny.mjs';

/** Bytes of all files in a folder. @param {string} folder @returns {number} */
const sizeOf = folder => readdirSync(folder, { withFileTypes: true, recursive: true })
  .reduce((sum, file) => sum + (file.isFile() ? statSync(join(file.parentPath, file.name)).size : 0), 0);

test('what the browser keeps', async t => {
  const temp = mkdtempSync(join(tmpdir(), 'browser-diffusion-'));
  const good = join(temp, 'good');
  writeTiny(good, 'single-sd1');
  writeTiny(join(temp, 'shards'), 'single-sd1', { shards: 2 });
  writeSingle(join(temp, 'one.safetensors'), 'sd1', { format: 'safetensors' });
  writeSingle(join(temp, 'old.ckpt'), 'sd1', { format: 'zip', dtype: 'f32' });
  const site = await serve({
    roots: { '/': join(root, 'www') },
    files: { '/blank.html': '<input type="file" id="file"><input type="file" id="folder" webkitdirectory>' },
  });
  const hub = await serve({
    models: { 'test/good': good, 'test/shards': join(temp, 'shards') },
    roots: { '/single/': temp },
    sha256: true,
  });
  const asked = () => hub.log.splice(0).filter(r => r.method === 'GET');

  try {
    await withBrowser({}, async (context, errors) => {
      const page = await context.newPage();
      await page.goto(`${site.url}/blank.html`);
      await page.evaluate(async hub => {
        const { DiffusionPipeline, DiffusionError, cache } = await import('/browser-diffusion.js');
        const picked = (/** @type {string} */ id) => {
          const { files } = /** @type {HTMLInputElement} */ (document.getElementById(id));
          return [...(files ?? [])];
        };
        Object.assign(window, { cache, keptTools: {
          /** The picture's hash, or the error. "#file" and "#folder" are what was chosen there. */
          load: async (/** @type {string} */ source, /** @type {any} */ options) => {
            try {
              const files = source[0] === '#' ? picked(source.slice(1)) : source;
              const pipeline = await DiffusionPipeline.fromPretrained(source === '#file' ? files[0] : files, {
                hub,
                ...options,
              });
              const draw = () =>
                pipeline.generate({
                  prompt: 'a cat',
                  seed: 7,
                  width: 16,
                  height: 16,
                  numInferenceSteps: 2,
                  scheduler: 'ddim',
                  guidanceScale: 2,
                });
              const { images: [image], latents } = await draw();
              await pipeline.dispose();
              const hash = async (/** @type {any} */ data) =>
                [...new Uint8Array(await crypto.subtle.digest('SHA-256', data))].map(b => b.toString(16)).join('');
              return { picture: `${await hash(image.data)} ${await hash(latents[0])}`, name: pipeline.model.name };
            } catch (error) {
              const e = /** @type {any} */ (error);
              return { code: e instanceof DiffusionError ? e.code : `untyped ${e}`, message: e.message };
            }
          },
          /** Keys of the chunks, or those chunks changed by `edit`. */
          chunks: (/** @type {((key: any, value: any) => any) | undefined} */ edit) => new Promise((done, fail) => {
            const opening = indexedDB.open('browser-diffusion');
            opening.onerror = fail;
            opening.onsuccess = () => {
              /** @type {[string, number, number][]} */
              const found = [];
              const tx = opening.result.transaction('chunks', 'readwrite');
              const walk = tx.objectStore('chunks').openCursor();
              walk.onsuccess = () => {
                const cursor = walk.result;
                if (!cursor) return;
                const [url, index] = /** @type {[string, number]} */ (cursor.key);
                found.push([url, index, cursor.value.data.byteLength]);
                const now = edit?.(url, cursor.value);
                if (now) cursor.update(now);
                cursor.continue();
              };
              tx.oncomplete = () => { opening.result.close(); done(found); };
            };
          }),
        } });
      }, hub.url);
      /** @param {string} source @param {any} [options] @returns {Promise<{ picture?: string, name?: string, code?: string, message?: string }>} */
      const load = (source, options) =>
        page.evaluate(([s, o]) => window.keptTools.load(s, o), /** @type {[string, any]} */ ([source, options]));
      /** @returns {Promise<{ name: string, bytes: number, complete: boolean }[]>} but for the embedded model's vocabulary */
      const list = async () =>
        (await page.evaluate(() => window.cache.list())).filter((/** @type {any} */ m) => m.name !== 'embedded');
      const names = async () => (await list()).map(m => `${m.name}${m.complete ? '' : ' incomplete'}`);
      /** @param {string} name */
      const remove = name => page.evaluate(n => window.cache.delete(n), name);
      /** @returns {Promise<[string, number, number][]>} */
      const chunks = () => page.evaluate(() => window.keptTools.chunks());
      /** @param {string} name @param {() => Promise<void>} work */
      const step = (name, work) => t.test(name, async () => {
        for (const { name } of await list()) await remove(name);
        asked();
        await work();
      });
      /** Without the models' server. @param {() => Promise<void>} work */
      const offline = async work => {
        hub.fault(() => ({ status: 403 }));
        try { await work(); } finally { hub.fault(null); }
      };

      const right = (await load('test/good', { cache: false })).picture;
      assert.ok(right);
      asked();

      for (const [what, input, path, name] of [
        ['a .safetensors file', '#file', join(temp, 'one.safetensors'), 'disk:one.safetensors'],
        ['a .ckpt file', '#file', join(temp, 'old.ckpt'), 'disk:old.ckpt'],
        ['a folder', '#folder', good, 'disk:good'],
        ['a folder of shards', '#folder', join(temp, 'shards'), 'disk:shards'],
      ]) {
        await step(
          `disk: ${what} is used at once, kept on request, and loads by its name without a network`,
          async () => {
            await page.setInputFiles(input, path);
            const plain = await load(input);
            assert.equal(plain.picture, right, JSON.stringify(plain));
            assert.deepEqual(await list(), [], 'nothing is kept unasked');
            const missing = await load(name);
            assert.equal(missing.code, 'network');
            assert.match(missing.message ?? '', /disk again/);

            const kept = await load(input, { cache: true });
            assert.equal(kept.picture, right, JSON.stringify(kept));
            assert.deepEqual(await names(), [name]);
            const [{ bytes }] = await list();
            assert.equal(bytes, input === '#file' ? statSync(path).size : sizeOf(path));
            await page.evaluate(() => {
              for (const input of document.querySelectorAll('input')) input.value = '';
            });
            await offline(async () => {
              const again = await load(name);
              assert.equal(again.picture, right, JSON.stringify(again));
              assert.equal(again.name, name.replace('disk:', ''));
            });
            assert.deepEqual(asked(), []);
            await remove(name);
            assert.deepEqual(await list(), []);
          },
        );
      }

      await step('disk: another file of the same name takes the place of the first', async () => {
        /** @param {string} folder @param {Buffer} bytes */
        const choose = async (folder, bytes) => {
          mkdirSync(join(temp, folder));
          writeFileSync(join(temp, folder, 'model.safetensors'), bytes);
          await page.setInputFiles('#file', join(temp, folder, 'model.safetensors'));
        };
        const other = readFileSync(join(temp, 'one.safetensors'));
        await choose('first', other);
        assert.equal((await load('#file', { cache: true })).picture, right);
        const data = 8 + other.readUInt32LE(0);
        const [begin, end] = JSON.parse(other.toString('utf8', 8, data))['model.diffusion_model.out.2.weight']
          .data_offsets;
        new Uint16Array(Uint8Array.prototype.slice.call(other, data + begin, data + end).buffer)
          .reverse()
          .forEach((v, i) => other.writeUInt16LE(v, data + begin + 2 * i));
        await choose('second', other);
        const due = (await load('#file')).picture;
        assert.notEqual(due, right);
        const changed = (await load('#file', { cache: true })).picture;
        assert.equal(changed, due);
        assert.equal((await load('disk:model.safetensors')).picture, changed);
        await remove('disk:model.safetensors');
      });

      /** @type {Record<string, string | undefined>} */
      const quantised = {};
      for (const [source, weights] of [
        ['test/good', 'q8'],
        ['test/good', 'q4'],
        [`${hub.url}/single/one.safetensors`, 'q8'],
        ['#file', 'q4'],
      ]) {
        await step(
          `${weights} of ${source.replace(hub.url, '')}: what is kept is quantised, and loads so`,
          async () => {
            await page.setInputFiles('#file', join(temp, 'one.safetensors'));
            const whole = source === 'test/good' ? sizeOf(good) : statSync(join(temp, 'one.safetensors')).size;
            const due = (await load(source, { weights, cache: false })).picture;
            assert.ok(due);
            assert.notEqual(due, right);
            quantised[`${source} ${weights}`] = due;
            asked();
            assert.equal((await load(source, { weights, cache: true })).picture, due, 'while it is kept');
            const before = asked();
            const [kept] = await list();
            const name = source === '#file' ? 'disk:one.safetensors' : source;
            assert.deepEqual(await names(), [`${name} (${weights})`]);
            // Nothing in the cache is the f16 weights of what is quantised.
            const held = await chunks();
            const packed = held
              .filter(([url]) => url.includes(`#${weights}/`))
              .reduce((sum, [, , bytes]) => sum + bytes, 0);
            assert.ok(packed > 0);
            for (const part of ['unet/diffusion_pytorch_model', 'text_encoder/model']) {
              assert.ok(
                held.some(([url]) => url.includes(`#${weights}/${part}.safetensors`)),
                `${part} is kept packed`,
              );
              assert.ok(
                !held.some(([url]) => url.endsWith(`${part}.safetensors#${weights}`)),
                `${part} is not kept as it came`,
              );
            }
            t.diagnostic(
              `${source.replace(hub.url, '')} ${weights}: ${kept.bytes} bytes kept, ` +
                `${packed} of them packed, of ${whole}; ${before.length} requests`,
            );
            // What is not packed: VAE, configurations and vocabulary, and of a single file its table, in whole chunks.
            if (source === 'test/good') assert.ok(kept.bytes < whole, `${kept.bytes} of ${whole}`);
            assert.ok(
              kept.bytes - packed < whole / 2,
              `${kept.bytes - packed} of ${whole} bytes are kept as they came`,
            );
            await page.evaluate(() => {
              for (const input of document.querySelectorAll('input')) input.value = '';
            });
            await offline(async () => {
              const again = await load(name, { weights });
              assert.equal(again.picture, due, JSON.stringify(again));
              assert.equal((await load(name, { weights, memory: 'low' })).picture, due);
            });
            assert.deepEqual(asked(), []);
            await remove(`${name} (${weights})`);
            assert.deepEqual(await list(), []);
          },
        );
      }

      await step('kinds of weights do not meet: each loads its own, and goes alone', async () => {
        for (const weights of ['q8', 'f16', 'q4']) await load('test/good', { weights });
        assert.deepEqual(await names(), ['test/good', 'test/good (q4)', 'test/good (q8)']);
        asked();
        const all = async () => {
          assert.equal((await load('test/good', { weights: 'q4' })).picture, quantised['test/good q4']);
          assert.equal((await load('test/good')).picture, right);
          assert.equal((await load('test/good', { weights: 'q8' })).picture, quantised['test/good q8']);
        };
        await offline(all);
        await remove('test/good (q8)');
        assert.deepEqual(await names(), ['test/good', 'test/good (q4)']);
        // The f16 weights are there to quantise from; afterwards they may go.
        await offline(all);
        assert.deepEqual(asked(), [], 'no request');
        await remove('test/good');
        await offline(async () => {
          assert.equal((await load('test/good', { weights: 'q8' })).picture, quantised['test/good q8']);
          assert.equal((await load('test/good', { weights: 'q4' })).picture, quantised['test/good q4']);
        });
        assert.deepEqual(asked(), [], 'no request');
        await remove('test/good (q4)');
      });

      await step('a flipped byte of what is kept quantised is found, and that file alone fetched again', async () => {
        const flip = () =>
          page.evaluate(() =>
            window.keptTools.chunks((/** @type {string} */ url, /** @type {any} */ value) => {
              if (!url.includes('#q8/unet/')) return undefined;
              new Uint8Array(value.data)[value.data.byteLength >> 1] ^= 1;
              return value;
            }),
          );
        await load('test/good', { weights: 'q8' });
        await flip();
        await offline(async () => assert.equal((await load('test/good', { weights: 'q8' })).code, 'network'));
        errors.splice(0).filter(e => !/status of 403/.test(e)).forEach(e => errors.push(e)); // Chromium tells the page
        await flip();
        await load('test/good', { weights: 'q8' });
        asked();
        await flip();
        assert.equal((await load('test/good', { weights: 'q8' })).picture, quantised['test/good q8']);
        assert.deepEqual(
          [...new Set(asked().map(r => r.path.split('/main/')[1]))],
          ['unet/diffusion_pytorch_model.safetensors'],
        );
        await offline(async () =>
          assert.equal((await load('test/good', { weights: 'q8' })).picture, quantised['test/good q8']),
        );
        await remove('test/good (q8)');
        assert.deepEqual(
          await chunks().then(all => all.filter(([url]) => !url.includes('/embedded/'))),
          [],
          'nothing is left',
        );
      });
    });
  } finally {
    await Promise.all([site, hub].map(server => server.close()));
    rmSync(temp, { recursive: true, force: true });
  }
});
