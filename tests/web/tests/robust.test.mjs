// What goes wrong between a server, a cache and a visitor: broken downloads, damaged bytes, no network, Stop, bad
// files, no room. Always through the public module, as a page of another origin imports it, with the real engine.
// "The same picture" means: the same bytes in every pixel and latent as from an undisturbed load.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';
import { writeTiny } from '../support/tiny.mjs';

/** @typedef {import('playwright-core').Page} Page */
/** @typedef {import('playwright-core').BrowserContext} Context */

const UNET = 'unet/diffusion_pytorch_model.safetensors';
/** Bytes of a chunk in the cache, for files up to 64 MiB, and most that one request asks for: src/store/web/mod.rs. */
const CHUNK = 512 << 10, REQUEST = 4 << 20;

/**
 * A safetensors file with its header or its data changed.
 * @param {string} file
 * @param {(header: Record<string, any>, data: Buffer) => Buffer | void} change returns other data, if any
 */
function changed(file, change) {
  const bytes = readFileSync(file);
  const start = 8 + Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString('utf8', 8, start));
  const data = Buffer.from(bytes.subarray(start));
  const after = change(header, data) ?? data;
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, after]);
}

/** Bytes of all files of a folder. @param {string} folder @returns {number} */
const bytesOf = folder => readdirSync(folder, { recursive: true, withFileTypes: true })
  .reduce((sum, entry) => sum + (entry.isFile() ? statSync(join(entry.parentPath, entry.name)).size : 0), 0);

test('robustness', { timeout: 1_200_000 }, async t => {
  const temp = mkdtempSync(join(tmpdir(), 'browser-diffusion-'));
  // The same weights twice; "large" has so many bytes beside them that nobody asks for that a download can break.
  const [good, large] = [join(temp, 'good'), join(temp, 'large')];
  writeTiny(good, 'sd1');
  cpSync(good, large, { recursive: true });
  writeFileSync(join(large, UNET), changed(join(good, UNET), (header, data) => {
    const noise = new Uint32Array(6 << 20); // what can be compressed takes no room in the browser's database
    noise.forEach((_, i) => { noise[i] = Math.imul(i, 0x9e3779b1) ^ Math.imul(i >>> 7, 0x85ebca77); });
    const padding = Buffer.from(noise.buffer);
    header.padding = {
      dtype: 'F16',
      shape: [padding.length / 2],
      data_offsets: [data.length, data.length + padding.length],
    };
    return Buffer.concat([data, padding]);
  }));
  const total = bytesOf(large);

  /** @type {Record<string, string>} */
  const models = { 'test/good': good, 'test/large': large };
  /** @type {Record<string, Buffer | string>} */
  const files = {};
  const www = join(root, 'www');
  const hub = await serve({ roots: { '/': www }, models, files });
  const hashed = await serve({ models: { 'test/good': good }, sha256: true });
  const shell = await serve({ roots: { '/': www, '/embedded/': good } });
  const blank = { '/': join(root, 'tests/web/support') };
  const [site, narrow] = [await serve({ roots: blank }), await serve({ roots: blank })];

  /** What has been asked of models since the last call, as bytes that exist. @param {typeof hub} [server] */
  function asked(server = hub) {
    const log = server.log.splice(0).filter(r => r.path.includes('/resolve/'));
    const bytes = log.filter(r => r.status === 206 || r.status === 0).reduce((sum, r) => {
      const [, id, path] = /^\/([^/]+\/[^/]+)\/resolve\/main\/(.*)$/.exec(r.path) ?? [];
      const [first, last] = r.range ?? [0, Infinity];
      return sum + Math.min(last + 1, statSync(join(models[id], path)).size) - first;
    }, 0);
    return { bytes, log, sent: log.reduce((sum, r) => sum + r.sent, 0) };
  }

  /**
   * A page of another origin that has imported the module.
   * @param {Context} context
   * @param {string} [origin]
   */
  async function open(context, origin = site.url) {
    const page = await context.newPage();
    await page.goto(`${origin}/blank.html`);
    await page.evaluate(async url => {
      const { DiffusionPipeline, DiffusionError, cache, detect } = await import(`${url}/browser-diffusion.js`);
      const hash = async (/** @type {any} */ data) =>
        [...new Uint8Array(await crypto.subtle.digest('SHA-256', data))].map(b => b.toString(16)).join();
      const tools = {
        DiffusionPipeline,
        cache,
        detect,
        loaded: /** @type {Record<string, number>} */ ({}),
        load: (/** @type {string} */ name, /** @type {any} */ options) =>
          DiffusionPipeline.fromPretrained(name, { hub: url, ...options }),
        draw: async (/** @type {any} */ pipeline, /** @type {any} */ options = {}) => {
          const {
            images: [image],
            latents,
          } = await pipeline.generate({
            prompt: 'a cat',
            seed: 7,
            width: 16,
            height: 16,
            numInferenceSteps: 2,
            scheduler: 'ddim',
            guidanceScale: 1,
            ...options,
          });
          return `${await hash(image.data)} ${await hash(latents[0])}`;
        },
        /** Loads, draws, and lets go of the model. */
        picture: async (/** @type {string} */ name, /** @type {any} */ options) => {
          const pipeline = await tools.load(name, options);
          const drawn = await tools.draw(pipeline);
          await pipeline.dispose();
          return drawn;
        },
        caught: async (/** @type {() => any} */ work) => {
          try {
            await work();
          } catch (error) {
            const e = /** @type {any} */ (error);
            return { code: e instanceof DiffusionError ? e.code : `untyped ${e}`, message: e.message };
          }
          return { code: 'none', message: 'it did not fail' };
        },
      };
      Object.assign(window, { robustTools: tools });
    }, hub.url);
    return page;
  }
  /** Loads and draws in the page. @param {Page} page @param {string} name @param {any} [options] */
  const picture = (page, name, options) => page.evaluate(([n, o]) => window.robustTools.picture(n, o), [name, options]);
  /** The error of a load. @param {Page} page @param {string} name @param {any} [options] */
  const failure = (page, name, options) =>
    page.evaluate(
      ([n, o]) => window.robustTools.caught(async () => (await window.robustTools.load(n, o)).dispose()),
      [name, options],
    );
  /** @param {Page} page @returns {Promise<{ name: string, bytes: number, complete: boolean }[]>} */
  const list = page => page.evaluate(() => window.robustTools.cache.list());

  try {
    const profile = join(temp, 'profile');

    await t.test('the browser is killed at 40 % of the download', () =>
      withBrowser({ profile }, async (context, errors) => {
        const page = await open(context);
        hub.fault(() => ({ rate: 8e6 }));
        page
          .evaluate(() =>
            window.robustTools.load('test/large', {
              onProgress: p => {
                if (p.file) window.robustTools.loaded[p.file] = p.loaded ?? 0;
              },
            }),
          )
          .catch(() => {});
        await page.waitForFunction(
          least => Object.values(window.robustTools.loaded).reduce((a, b) => a + b, 0) >= least,
          0.4 * total,
          { polling: 20 },
        );
        const gone = new Promise(done => context.once('close', done));
        const session = await context.newCDPSession(page);
        session.send('Browser.crash').catch(() => {});
        await gone;
        errors.length = 0;
      }),
    );

    await withBrowser({ profile }, async (context, errors) => {
      let page = await open(context);
      /** @param {string} name */
      const remove = name => page.evaluate(n => window.robustTools.cache.delete(n), name);
      /** The picture of an undisturbed load. */
      let right = '';
      /** @param {string} name @param {() => Promise<void>} work */
      const step = (name, work) => t.test(name, { timeout: 120_000 }, async () => {
        hub.fault(null);
        asked();
        await work();
        // Chromium reports each answer that is not 200 as an error of the page.
        errors.splice(0).filter(e => !/^Failed to load resource/.test(e)).forEach(e => errors.push(e));
      });

      await step('after that only the missing bytes are asked for, and the picture is the same', async () => {
        const [before] = await list(page);
        assert.deepEqual([before.name, before.complete], ['test/large', false]);
        // Lost may be: of four requests in flight a chunk each that had not come whole, and one each on its way into
        // the database. (What had come of a file's first request counts when it is whole.)
        assert.ok(before.bytes >= 0.4 * total - 8 * CHUNK, `${before.bytes} of ${total} bytes are kept`);
        assert.ok(before.bytes < 0.9 * total, 'the download was broken');
        const resumed = await picture(page, 'test/large');
        assert.equal(asked().bytes, total - before.bytes);
        assert.deepEqual(await list(page), [{ name: 'test/large', bytes: total, complete: true }]);

        right = await picture(page, 'test/large', { cache: false });
        assert.equal(asked().bytes, total, 'without the cache all is fetched');
        assert.equal(resumed, right);
      });

      await step('a second visit asks for nothing', async () => {
        await page.close();
        page = await open(context);
        const again = await page.evaluate(async () => {
          window.fromCache = new Set();
          return window.robustTools.picture('test/large', {
            onProgress: p => p.status === 'done' && window.fromCache.add(p.fromCache),
          });
        });
        assert.equal(again, right);
        assert.deepEqual(asked().log, []);
        assert.deepEqual(await page.evaluate(() => [...window.fromCache]), [true]);
      });

      await step('pictures tell weights and seeds apart', async () => {
        const other = await page.evaluate(async () => {
          const pipeline = await window.robustTools.load('test/large');
          const drawn = [await window.robustTools.draw(pipeline, { seed: 8 }), await window.robustTools.draw(pipeline)];
          await pipeline.dispose();
          return drawn;
        });
        assert.notEqual(other[0], right);
        assert.equal(other[1], right);
      });

      await step('a flipped byte in the cache is found, and its chunk alone fetched again', async () => {
        const index = 3; // the UNet's own weights
        await page.evaluate(index => new Promise((done, fail) => {
          const opening = indexedDB.open('browser-diffusion');
          opening.onerror = fail;
          opening.onsuccess = () => {
            const transaction = opening.result.transaction('chunks', 'readwrite');
            const walk = transaction.objectStore('chunks').openCursor();
            walk.onsuccess = () => {
              const cursor = walk.result;
              if (!cursor) return;
              const [url, at] = /** @type {[string, number]} */ (cursor.key);
              if (url.endsWith('/unet/diffusion_pytorch_model.safetensors') && at === index) {
                new Uint8Array(cursor.value.data)[12345] ^= 0x40;
                cursor.update(cursor.value);
                window.flipped = true;
              }
              cursor.continue();
            };
            transaction.oncomplete = () => (opening.result.close(), done(undefined));
            transaction.onabort = fail;
          };
        }), index);
        assert.ok(await page.evaluate(() => window.flipped));
        assert.equal(await picture(page, 'test/large'), right);
        const { log } = asked();
        assert.deepEqual(log.map(r => r.range), [[index * CHUNK, (index + 1) * CHUNK - 1]]);
        assert.equal(await picture(page, 'test/large'), right);
        assert.deepEqual(asked().log, []);
      });

      await step(
        'Stop while the model loads: aborted at once, nothing more is sent, the next load goes on',
        async () => {
          await remove('test/large');
          hub.fault(r => (r.path.endsWith('.safetensors') ? { rate: 4e6 } : undefined));
          const stopped = await page.evaluate(async () => {
            const controller = new AbortController();
            let at = 0;
            const onProgress = (/** @type {any} */ p) => {
              if (at || !p.file.startsWith('unet/diff') || p.loaded < 6e6) return;
              at = performance.now();
              controller.abort();
            };
            const error = await window.robustTools.caught(() =>
              window.robustTools.load('test/large', { signal: controller.signal, onProgress }),
            );
            return { ...error, late: performance.now() - at };
          });
          assert.equal(stopped.code, 'aborted');
          assert.ok(stopped.late < 1000, `${stopped.late} ms late`);
          await new Promise(done => setTimeout(done, 300));
          const { sent } = asked();
          assert.ok(sent > 6e6 && sent < 0.9 * total);
          const after = hub.log.length;
          await new Promise(done => setTimeout(done, 700));
          assert.equal(hub.log.length, after, 'no request follows');
          hub.fault(null);
          const [kept] = await list(page);
          assert.ok(kept.bytes >= 6e6 - 8 * CHUNK && !kept.complete);
          assert.equal(await picture(page, 'test/large'), right);
          assert.equal(asked().bytes, total - kept.bytes);
        },
      );

      await step('Stop during step 3: aborted within a step, and the next picture is right', async () => {
        const seen = await page.evaluate(async () => {
          const { load, draw, caught } = window.robustTools;
          // Every step that the engine makes is heard here, those after the stop too.
          const made = { before: 0, after: 0 };
          let at = 0;
          const Original = Worker;
          window.Worker = class extends Original {
            constructor(/** @type {[any, any]} */ ...args) {
              super(...args);
              this.addEventListener('message', ({ data }) => {
                if (data.event?.step) made[at ? 'after' : 'before']++;
              });
            }
          };
          const pipeline = await load('test/large');
          window.Worker = Original;
          const first = await draw(pipeline);
          const controller = new AbortController();
          /** @type {number[]} */
          const steps = [];
          const stopped = await caught(() => draw(pipeline, {
            numInferenceSteps: 40,
            signal: controller.signal,
            onStep: (/** @type {any} */ s) => {
              steps.push(s.step);
              if (s.step < 2) return;
              at = performance.now(); // the engine is at step 3 by now
              controller.abort();
            },
          }));
          const late = performance.now() - at;
          // Calls wait for each other: this one is answered when the engine has let go.
          await pipeline.memory();
          const next = await draw(pipeline);
          await pipeline.dispose();
          return { first, stopped, steps, late, made, next };
        });
        assert.equal(seen.stopped.code, 'aborted');
        assert.ok(seen.late < 500, `told ${seen.late} ms late`);
        assert.deepEqual(seen.steps, [1, 2]);
        // Of 38 steps to go the engine makes the one that had begun; another may have been on its way to the page.
        assert.equal(seen.made.before, 2);
        assert.ok(seen.made.after <= 2, `${seen.made.after} steps after the stop`);
        assert.deepEqual([seen.first, seen.next], [right, right]);
      });

      await step(
        'a page of another origin draws; dispose ends the worker with all that it holds on the GPU',
        async () => {
          const found = await page.evaluate(
            async url => ({
              own: location.origin,
              module: new URL(url).origin,
              detected: await window.robustTools.detect(),
              isolated: crossOriginIsolated,
              schedulers: window.robustTools.DiffusionPipeline.schedulers,
              engine: await import(`${url}/pkg/browser_diffusion.js`).then(
                async engine => (await engine.default(), engine.schedulers()),
              ),
            }),
            hub.url,
          );
          assert.notEqual(found.own, found.module);
          assert.equal(found.isolated, false);
          assert.equal(found.detected.webgpu, true);
          assert.ok((found.detected.maxStorageBufferBindingSize ?? 0) >= 2 ** 27);
          assert.deepEqual(found.schedulers, found.engine);

          // Counts the worker's buffers from before its first one.
          const counting = new Promise(done =>
            page.once('worker', worker =>
              worker
                .evaluate(() => {
                  const live = (self.live = { bytes: 0, most: 0 });
                  const create = GPUDevice.prototype.createBuffer;
                  const destroy = GPUBuffer.prototype.destroy;
                  GPUDevice.prototype.createBuffer = function (descriptor) {
                    live.bytes += descriptor.size;
                    live.most = Math.max(live.most, live.bytes);
                    return create.call(this, descriptor);
                  };
                  GPUBuffer.prototype.destroy = function () {
                    if (!this.gone) live.bytes -= this.size;
                    this.gone = true;
                    destroy.call(this);
                  };
                })
                .then(() => done(worker)),
            ),
          );
          hub.fault(r => (r.path.endsWith('model_index.json') ? { delay: 500 } : undefined));
          await page.evaluate(async () => {
            window.pipeline = await window.robustTools.load('test/large', { cache: false });
          });
          assert.equal(await page.evaluate(() => window.robustTools.draw(window.pipeline)), right);
          const worker = await counting;
          const report = await page.evaluate(() => window.pipeline.memory());
          const live = await worker.evaluate(() => self.live);
          const held = report.weights + report.activations + report.staging;
          assert.ok(report.weights > 5e6 && report.activations > 0 && report.peak >= held && report.wasm > 1e6);
          assert.ok(Math.abs(live.bytes - held) < 0.01 * held, `${held} bytes reported, ${live.bytes} live`);
          const ended = new Promise(done => worker.once('close', done));
          const after = await page.evaluate(async () => {
            const { caught, draw } = window.robustTools;
            const waiting = caught(() => draw(window.pipeline, { numInferenceSteps: 40 }));
            await window.pipeline.dispose();
            await window.pipeline.dispose();
            return {
              waiting: await waiting,
              draw: await caught(() => draw(window.pipeline)),
              memory: await caught(() => window.pipeline.memory()),
            };
          });
          await ended;
          assert.deepEqual(
            [after.waiting.code, after.draw.code, after.memory.code],
            ['aborted', 'invalid-option', 'invalid-option'],
          );
          assert.match(after.draw.message, /load the model again/);
        },
      );

      await step(
        'options that cannot be honoured: invalid-option naming the option, and the pipeline draws on',
        async () => {
          const seen = await page.evaluate(async () => {
            const { load, draw, caught } = window.robustTools;
            const pipeline = await load('test/large');
            const wrong = [
              { width: 65 },
              { width: 0 },
              { height: -8 },
              { height: 12 },
              { numInferenceSteps: 0 },
              { numInferenceSteps: 1.5 },
              { numInferenceSteps: 2000 },
              { guidanceScale: NaN },
              { guidanceScale: -1 },
              { scheduler: 'unknown' },
              { seed: -1 },
              { numImages: 0 },
              { latents: new Float32Array(5) },
              { promptEmbeds: new Float32Array(7) },
              { image: 'a picture' },
              { strength: 2, image: new ImageData(8, 8) },
              { maskImage: new ImageData(8, 8) },
            ];
            const errors = [];
            for (const options of wrong)
              errors.push({ option: Object.keys(options)[0], ...(await caught(() => draw(pipeline, options))) });
            const tooBig = await caught(() => draw(pipeline, { width: 4096, height: 4096 }));
            const long = await pipeline.generate({
              prompt: `${'cat '.repeat(80)}zebra`,
              width: 16,
              height: 16,
              numInferenceSteps: 1,
              output: 'latent',
            });
            const drawn = await draw(pipeline);
            await pipeline.dispose();
            return { errors, tooBig, truncated: long.truncated, drawn };
          });
          for (const { option, code, message } of seen.errors) {
            assert.equal(code, 'invalid-option', `${option}: ${message}`);
            assert.match(message, new RegExp(option === 'numInferenceSteps' ? 'numInferenceSteps|steps' : option));
          }
          assert.equal(seen.tooBig.code, 'out-of-memory', seen.tooBig.message);
          assert.equal(seen.truncated.length, 1);
          assert.match(seen.truncated[0], /zebra$/);
          assert.equal(seen.drawn, right);
        },
      );

      // ------------------------------------------------------------------------------- bad files

      const json = (/** @type {string} */ path, /** @type {any} */ change) =>
        Buffer.from(JSON.stringify({ ...JSON.parse(readFileSync(join(good, path), 'utf8')), ...change }));
      const weights = (/** @type {(header: any, data: Buffer) => Buffer | void} */ change) =>
        changed(join(good, UNET), change);
      const raw = readFileSync(join(good, UNET));
      const first = (/** @type {any} */ header) => header['conv_in.weight'];
      /** @type {[string, string, Buffer, string, RegExp][]} what, the file, its bytes, code, message */
      const bad = [
        ['truncated', UNET, raw.subarray(0, raw.length * 0.6), 'bad-checkpoint', /unet.*truncated/],
        ['cut within the header', UNET, raw.subarray(0, 300), 'bad-checkpoint', /unet.*truncated/],
        [
          'a hole between tensors',
          UNET,
          weights(h => {
            first(h).data_offsets[0] -= 2;
          }),
          'bad-checkpoint',
          /tensor/,
        ],
        [
          'more promised than there is',
          UNET,
          weights((h, data) => {
            h.more = { dtype: 'F16', shape: [1 << 20], data_offsets: [data.length, data.length + (2 << 20)] };
          }),
          'bad-checkpoint',
          /truncated/,
        ],
        [
          'offsets beyond 2^53',
          UNET,
          weights(h => {
            first(h).data_offsets[1] = 1e300;
          }),
          'bad-checkpoint',
          /header/,
        ],
        [
          'a header of 2^60 bytes',
          UNET,
          Buffer.concat([Buffer.from([0, 0, 0, 0, 0, 0, 0, 16]), raw.subarray(8)]),
          'bad-checkpoint',
          /header/,
        ],
        [
          'NaN among the weights',
          UNET,
          weights((h, data) => {
            data.writeUInt16LE(0x7e00, first(h).data_offsets[0] + 10);
          }),
          'bad-checkpoint',
          /conv_in\.weight/,
        ],
        [
          'a missing tensor',
          UNET,
          weights(h => {
            h.unknown = first(h);
            delete h['conv_in.weight'];
          }),
          'bad-checkpoint',
          /conv_in\.weight/,
        ],
        [
          'another shape',
          UNET,
          weights(h => {
            first(h).shape.reverse();
          }),
          'bad-checkpoint',
          /conv_in\.weight/,
        ],
        [
          'a web page',
          UNET,
          Buffer.from('<!doctype html><title>Sign in</title>'.padEnd(2000)),
          'bad-checkpoint',
          /web page/,
        ],
        [
          'a pipeline of another kind',
          'model_index.json',
          json('model_index.json', { _class_name: 'FluxPipeline' }),
          'unsupported-model',
          /FluxPipeline/,
        ],
        [
          'a UNet of another class',
          'unet/config.json',
          json('unet/config.json', { _class_name: 'UNet3DConditionModel' }),
          'unsupported-model',
          /UNet3DConditionModel/,
        ],
        [
          'a field that is not computed',
          'unet/config.json',
          json('unet/config.json', { class_embed_type: 'timestep' }),
          'unsupported-model',
          /class_embed_type/,
        ],
        [
          'a scheduler of another kind',
          'scheduler/scheduler_config.json',
          json('scheduler/scheduler_config.json', { _class_name: 'FlowMatchEulerDiscreteScheduler' }),
          'unsupported-model',
          /FlowMatchEulerDiscreteScheduler/,
        ],
        [
          'a configuration that is no JSON',
          'unet/config.json',
          Buffer.from('{"in_channels": 4,'),
          'bad-checkpoint',
          /unet\/config\.json/,
        ],
        [
          'merges that are no text',
          'tokenizer/merges.txt',
          Buffer.from([0xff, 0xfe, 0, 1, 2]),
          'bad-checkpoint',
          /tokenizer|merges/,
        ],
      ];
      for (const [what, path, bytes, code, message] of bad) {
        await step(`${what}: ${code}; once the server has it right, it loads`, async () => {
          const id = `bad/${what.replaceAll(/\W/g, '-')}`;
          models[id] = good;
          const overlay = `/${id}/resolve/main/${path}`;
          files[overlay] = bytes;
          try {
            const before = await list(page);
            const error = await failure(page, id);
            assert.equal(error.code, code, error.message);
            assert.match(error.message, message);
            if (code === 'unsupported-model')
              assert.deepEqual(
                hub.log.filter(r => r.path.endsWith('.safetensors')),
                [],
                'refused before weights',
              );
            const after = await list(page);
            assert.deepEqual(after.filter(m => m.name !== id), before, 'other models are as they were');
            assert.ok(!after.find(m => m.name === id)?.complete);
            delete files[overlay];
            assert.deepEqual(await failure(page, id), { code: 'none', message: 'it did not fail' });
          } finally {
            await remove(id);
          }
        });
      }

      await step(
        'wrong bytes from the network, where the server shows a SHA-256: integrity, and then right',
        async () => {
          try {
            for (const options of [{ hub: hashed.url }, { hub: hashed.url, cache: false }]) {
              hashed.fault(r => (r.path.endsWith(UNET) ? { corrupt: 1_000_001 } : undefined));
              const error = await failure(page, 'test/good', options);
              assert.equal(error.code, 'integrity', error.message);
              hashed.fault(null);
              assert.equal(await picture(page, 'test/good', options), right);
            }
          } finally {
            await remove('test/good');
          }
        },
      );

      await step('404, 401 and 500: network, in words; a server that comes back is asked again', async () => {
        const missing = await failure(page, 'nobody/nothing');
        assert.equal(missing.code, 'network');
        assert.match(missing.message, /nobody\/nothing/);
        assert.equal(asked().log.length, 1);
        assert.ok(
          !(await list(page)).some(m => m.name === 'nobody/nothing'),
          'a model that is not there is not listed',
        );
        hub.fault(r => (r.path.endsWith('model_index.json') ? { status: 401 } : undefined));
        const closed = await failure(page, 'test/good');
        assert.equal(closed.code, 'network');
        assert.match(closed.message, /not open to everyone/);
        asked();
        hub.fault(r => (r.path.endsWith(UNET) ? { status: 500 } : undefined));
        const broken = await failure(page, 'test/good');
        assert.equal(broken.code, 'network');
        assert.match(broken.message, /500/);
        assert.equal(asked().log.filter(r => r.status === 500).length, 4, 'tries');
        hub.fault(null);
        assert.equal(await picture(page, 'test/good'), right);
        await remove('test/good');
      });

      /** @type {[string, (r: import('../support/hub.mjs').Logged) => import('../support/hub.mjs').Fault | undefined][]} */
      const servers = [
        ['knows no ranges', () => ({ ignoreRange: true })],
        ['knows no ranges and names no length', () => ({ ignoreRange: true, noLength: true })],
        ['hides its headers', () => ({ hideHeaders: true })],
        [
          'cuts connections',
          r => (r.count === 1 ? { cutAfter: 600_000 } : r.count === 2 ? { cutAfter: 1000 } : undefined),
        ],
        ['sends another range once', r => (r.count === 1 ? { shift: 4 } : undefined)],
        ['sends too little once', r => (r.count === 1 ? { shorten: 3 } : undefined)],
        ['is too busy at first', r => (r.count === 1 ? { status: 429, retryAfter: 1 } : undefined)],
      ];
      for (const [what, fault] of servers) {
        await step(`a server that ${what}: the same picture, now and from the cache`, async () => {
          // One model each, for its counts. Its small files come undisturbed, to save the waiting.
          const id = `odd/${what.replaceAll(' ', '-')}`;
          models[id] = good;
          hub.fault(r => (r.path.endsWith('.safetensors') ? fault(r) : undefined));
          try {
            assert.equal(await picture(page, id), right);
            asked();
            hub.fault(r => (r.path.includes('/resolve/') ? { status: 500 } : undefined));
            assert.equal(await picture(page, id), right);
            assert.deepEqual(asked().log, []);
            assert.equal((await list(page)).find(m => m.name === id)?.bytes, bytesOf(good));
          } finally {
            hub.fault(null);
            await remove(id);
          }
        });
      }

      await step('a server that always sends another range: integrity, after four tries', async () => {
        hub.fault(r => (r.path.endsWith(UNET) ? { shift: 4 } : undefined));
        const error = await failure(page, 'test/good');
        assert.equal(error.code, 'integrity', error.message);
        assert.equal(asked().log.filter(r => r.path.endsWith(UNET)).length, 4);
        hub.fault(null);
        assert.equal(await picture(page, 'test/good'), right);
      });

      await step('a file that changes on the server while it is read is never mixed', async () => {
        await remove('test/large');
        hub.log.length = 0; // counts begin anew
        hub.fault(r =>
          r.path.endsWith(UNET)
            ? r.count <= 3
              ? { etag: '"old"', corrupt: 1_000_001 }
              : { etag: '"new"' }
            : undefined,
        );
        const error = await failure(page, 'test/large');
        assert.equal(error.code, 'integrity', error.message);
        assert.match(error.message, /changed on the server/);
        assert.equal(await picture(page, 'test/large'), right);
      });

      await step('two tabs that load at once', async () => {
        await remove('test/large');
        const other = await open(context);
        hub.fault(r => (r.path.endsWith(UNET) ? { rate: 20e6 } : undefined));
        const drawn = await Promise.all([picture(page, 'test/large'), picture(other, 'test/large')]);
        assert.deepEqual(drawn, [right, right]);
        asked();
        assert.equal(await picture(other, 'test/large'), right);
        assert.deepEqual(asked().log, []);
        await other.close();
      });

      await step('no room: quota, what was stored stays, and with room the load goes on', async () => {
        const tight = await open(context, narrow.url);
        const session = await context.newCDPSession(tight);
        await session.send('Storage.overrideQuotaForOrigin', { origin: narrow.url, quotaSize: 12 << 20 });
        const error = await failure(tight, 'test/large');
        assert.equal(error.code, 'quota', error.message);
        assert.match(error.message, /Free disk space.*MiB/);
        const [kept] = await list(tight);
        assert.ok(kept.bytes > 0 && kept.bytes < total && !kept.complete, JSON.stringify(kept));
        asked();
        assert.equal(await picture(tight, 'test/large', { cache: false }), right, 'without the cache it needs no room');
        await session.send('Storage.overrideQuotaForOrigin', { origin: narrow.url });
        asked();
        const again = await list(tight);
        assert.deepEqual(again, [kept]);
        assert.equal(await picture(tight, 'test/large'), right);
        assert.equal(asked().bytes, total - kept.bytes);
        await tight.close();
      });

      await step('the cache: what is there, without it, rid of it', async () => {
        const before = await list(page);
        assert.deepEqual(before, [
          { name: 'test/good', bytes: bytesOf(good), complete: true },
          { name: 'test/large', bytes: total, complete: true },
        ]);
        assert.equal(await picture(page, 'test/good', { cache: false }), right);
        assert.equal(asked().bytes, bytesOf(good), 'cache: false reads nothing from it');
        await remove('test/good');
        assert.equal(await picture(page, 'test/good', { cache: false }), right);
        assert.deepEqual(await list(page), before.slice(1), 'cache: false leaves nothing');
        const usage = () => page.evaluate(() => window.robustTools.cache.estimate());
        const full = await usage();
        assert.deepEqual(Object.keys(full), ['usage', 'quota']);
        assert.ok(full.usage >= total && full.quota > full.usage);
        assert.equal(typeof await page.evaluate(() => window.robustTools.cache.persist()), 'boolean');
        const deleted = await page.evaluate(async () => [
          await window.robustTools.cache.delete('test/large'),
          await window.robustTools.cache.delete('never/there'),
        ]);
        assert.deepEqual(deleted, [undefined, undefined]);
        assert.deepEqual(await list(page), []);
        // The browser clears up when it likes.
        let { usage: left } = await usage();
        for (
          const until = Date.now() + 20_000;
          left > full.usage - 0.9 * total && Date.now() < until;
          { usage: left } = await usage()
        ) {
          await new Promise(done => setTimeout(done, 250));
        }
        assert.ok(left <= full.usage - 0.9 * total, `${left} of ${full.usage} bytes are still used`);
        asked();
        let most = 0;
        hub.fault(() => {
          most = Math.max(most, hub.log.filter(r => r.status === 0 && r.path.includes('/resolve/')).length);
          return { delay: 50 };
        });
        assert.equal(await picture(page, 'test/large'), right);
        assert.equal(asked().bytes, total);
        assert.equal(most, 4, 'requests at once');
      });

      await step(
        'network off after the first visit: the page opens and draws with the model that it has kept',
        async () => {
          const visit = await context.newPage();
          const status = (/** @type {string} */ start) =>
            visit.waitForFunction(s => document.getElementById('status')?.textContent?.startsWith(s), start, {
              timeout: 60_000,
            });
          const draw = async () => {
            for (const [id, value] of [
              ['prompt', 'a cat'],
              ['width', '16'],
              ['height', '16'],
              ['steps', '2'],
              ['guidance', '1'],
              ['seed', '7'],
            ])
              await visit.fill(`#${id}`, value);
            await visit.selectOption('#scheduler', 'ddim');
            await visit.click('#generate');
            await status('Done');
            return visit.evaluate(async () => {
              const {
                images: [image],
                latents,
              } = /** @type {any} */ (window).browserDiffusion.lastResult;
              const hash = async (/** @type {any} */ data) =>
                [...new Uint8Array(await crypto.subtle.digest('SHA-256', data))].map(b => b.toString(16)).join();
              return `${await hash(image.data)} ${await hash(latents[0])}`;
            });
          };
          await visit.goto(`${shell.url}/`);
          await status('Ready');
          await visit.evaluate(async () => {
            await navigator.serviceWorker.ready;
            if (!navigator.serviceWorker.controller)
              await new Promise(done => {
                navigator.serviceWorker.oncontrollerchange = done;
              });
          });
          await visit.evaluate(() => document.querySelector('#cache summary')?.dispatchEvent(new MouseEvent('click')));
          await visit.waitForFunction(() =>
            /^embedded/.test(document.querySelector('#cache-list li')?.textContent ?? ''),
          );
          await shell.close();
          await visit.reload();
          await status('Ready');
          assert.equal(await draw(), right);
          await visit.close();
          errors
            .splice(0)
            .filter(e => !/^Failed to load resource/.test(e))
            .forEach(e => errors.push(e));
        },
      );
      await page.close();
    });
  } finally {
    await Promise.all([hub, hashed, shell, site, narrow].map(server => server.close()));
    rmSync(temp, { recursive: true, force: true });
  }
});
