// What goes wrong while a visitor draws: Stop, a pipeline that is let go of, options and files that are wrong.
// Always through the public module, as a page of another origin imports it, with the real engine.
// "The same picture" means: the same bytes in every pixel and latent as from an undisturbed load.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { browsers, withBrowser } from '../support/browser.mjs';
import { UNET, changed, failure, list, picture, remove, stage } from '../support/robust.mjs';

for (const browser of browsers) test(`robustness, in ${browser}`, async t => {
  const { hub, models, files, good, profile, open, steps, close } = await stage();
  try {
    await withBrowser({ browser, profile }, async (context, errors) => {
      const page = await open(context);
      /** The picture of an undisturbed load. */
      const right = await picture(page, 'test/large');
      const step = steps(t, errors);

      await step('Stop during step 3: aborted within a step, and the next picture is right', async () => {
        const seen = await page.evaluate(async () => {
          const { load, draw, caught } = window.robustTools;
          // Every step that the engine makes is heard here, those after the stop too.
          const made = { before: 0, after: 0 };
          let stop = false;
          const Original = Worker;
          window.Worker = class extends Original {
            constructor(/** @type {[any, any]} */ ...args) {
              super(...args);
              this.addEventListener('message', ({ data }) => {
                if (data.event?.step) made[stop ? 'after' : 'before']++;
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
              stop = true; // the engine is at step 3 by now
              controller.abort();
            },
          }));
          const meanwhile = made.after;
          // Calls wait for each other: this one is answered when the engine has let go.
          await pipeline.memory();
          const next = await draw(pipeline);
          await pipeline.dispose();
          return { first, stopped, steps, meanwhile, made, next };
        });
        assert.equal(seen.stopped.code, 'aborted');
        assert.ok(seen.meanwhile <= 2, `told ${seen.meanwhile} steps late`);
        assert.deepEqual(seen.steps, [1, 2]);
        // Of 38 steps to go the engine makes the one that had begun; another may have been on its way to the page.
        assert.equal(seen.made.before, 2);
        assert.ok(seen.made.after <= 2, `${seen.made.after} steps after the stop`);
        assert.deepEqual([seen.first, seen.next], [right, right]);
      });
      // What follows is the module's and the worker's business more than a browser's.
      if (browser === 'firefox') return;

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
            await remove(page, id);
          }
        });
      }
      await page.close();
    });
  } finally {
    await close();
  }
});
