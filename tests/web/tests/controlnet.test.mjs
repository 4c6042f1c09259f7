// ControlNets through the public module in Chromium against diffusers: one and two, start and end, guess mode, with image to
// image and inpainting, SD 1, SD 2 and SDXL kinds; and Canny's edges. Expected latents: tests/reference/controlnet.py.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { original } from '../support/ldm.mjs';
import { relative } from '../support/relative.mjs';
import { serve } from '../support/hub.mjs';
import { drawn, encode, writeSafetensors, writeTiny } from '../support/tiny.mjs';

const LATENTS = 1e-2; // relative L2, as in pipelines.test.mjs

const reference = join(root, 'tests/reference/data/controlnet');
/** @typedef {{ name: string, size: [number, number], [option: string]: any }} Net */
/** @type {{ name: string, kind: string, controlnets: Net[], options: any, latents: number[], offset: number }[]} */
const cases = JSON.parse(readFileSync(join(reference, 'cases.json'), 'utf8'));
const expected = readFileSync(join(reference, 'cases.bin'));
/** @type {Record<string, { prefix: string, config: any, tensors: string[] }>} */
const nets = JSON.parse(readFileSync(join(reference, 'nets.json'), 'utf8'));
/** @type {{ kind: string, width: number, height: number, low: number, high: number, edges: string }[]} */
const edges = JSON.parse(readFileSync(join(root, 'tests/reference/data/canny.json'), 'utf8'));

const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-controlnet-'));
after(() => rmSync(models, { recursive: true }));

for (const [name, { prefix, config: { gain, ...config }, tensors }] of Object.entries(nets)) {
  const folder = join(models, 'nets', name);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  const written = tensors.map(line => {
    const [tensor, ...shape] = line.split(' ');
    return {
      name: tensor,
      dtype: 'F16',
      shape: shape.map(Number),
      data: encode(drawn(prefix + tensor, shape.map(Number), gain), 'F16'),
    };
  });
  writeSafetensors(join(folder, `diffusion_pytorch_model${name === 'two' ? '.fp16' : ''}.safetensors`), written);
  if (name === 'one')
    writeSafetensors(
      join(models, 'nets', 'original.safetensors'),
      written.map(t => ({ ...t, name: `control_model.${original(t.name)}` })),
    );
}

test('ControlNets', async t => {
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async (context, errors) => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    /** @param {string} kind @param {any} [load] */
    const open = (kind, load = {}) => page.evaluate(async ({ source, load }) => {
      const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
      await /** @type {any} */ (window).pipeline?.dispose();
      /** @param {number} w @param {number} h @param {(x: number, y: number) => number[]} colour */
      const paint = (w, h, colour) => {
        const image = new ImageData(w, h);
        for (let i = 0; i < w * h; i++) image.data.set([...colour(i % w, Math.floor(i / w)), 255], 4 * i);
        return image;
      };
      // `picture` and `mask` of controlnet.py.
      const picture = (/** @type {number} */ w, /** @type {number} */ h) =>
        paint(w, h, (x, y) => [(x * 4) & 255, (y * 6) & 255, (x * y) & 255]);
      const mask = (/** @type {number} */ w, /** @type {number} */ h) =>
        paint(w, h, (x, y) => Array(3).fill(x >= w >> 2 && x < (w * 3) >> 2 && y >= h >> 2 && y < h >> 1 ? 255 : 0));
      Object.assign(window, { paint, picture, mask, pipeline: await DiffusionPipeline.fromPretrained(source, load) });
    }, { source: `${server.url}/models/${kind}`, load });
    /**
     * @param {{ options: any, controlnets: Net[] }} given as in cases.json
     * @returns {Promise<{ latents: number[], parameters: string, code?: string, message?: string }>}
     */
    const draw = ({ options: { mask, ...options }, controlnets }) =>
      page.evaluate(
        async ({ options, controlnets, masked, nets }) => {
          const { pipeline, picture, mask } = /** @type {any} */ (window);
          const { width, height } = options;
          try {
            const { latents, parameters } = await pipeline.generate({
              ...options,
              output: 'latent',
              ...(controlnets.length > 0 && {
                controlnets: controlnets.map(({ name, size: [w, h], ...rest }) => ({
                  source: `${nets}/${name}`,
                  image: picture(w, h),
                  ...rest,
                })),
              }),
              ...(options.strength !== undefined && { image: picture(width, height) }),
              ...(masked && { maskImage: mask(width, height) }),
            });
            return { latents: latents.flatMap((/** @type {Float32Array} */ l) => [...l]), parameters };
          } catch (error) {
            const { code, message } = /** @type {any} */ (error);
            return { latents: [], parameters: '', code, message };
          }
        },
        { options, controlnets, masked: Boolean(mask), nets: `${server.url}/models/nets` },
      );
    const theirs = (/** @type {typeof cases[0]} */ c) => [
      ...new Float32Array(
        expected.buffer.slice(
          expected.byteOffset + c.offset,
          expected.byteOffset + c.offset + 4 * c.latents.reduce((a, b) => a * b),
        ),
      ),
    ];
    const named = (/** @type {string} */ name) => /** @type {typeof cases[0]} */ (cases.find(c => c.name === name));
    const memory = () => page.evaluate(() => /** @type {any} */ (window).pipeline.memory());
    const plain = theirs(named('none'));

    for (const kind of ['sd1', 'sd2', 'sdxl']) {
      writeTiny(join(models, kind), kind);
      await open(kind);
      for (const c of cases.filter(c => c.kind === kind)) {
        await t.test(c.name, async t => {
          const { latents, message } = await draw(c);
          assert.equal(message, undefined);
          const error = relative(latents, theirs(c));
          const moved =
            kind === 'sd1' && c.name !== 'none' && c.latents.join() === named('none').latents.join()
              ? relative(theirs(c), plain)
              : 1;
          t.diagnostic(`latents ${error.toExponential(1)}${moved < 1 ? `, moved by ${moved.toExponential(1)}` : ''}`);
          assert.ok(error <= LATENTS && error < moved / 3, `latents: ${error}`);
        });
      }
      if (kind === 'sdxl') {
        await t.test('a ControlNet Union must be told what it sees, of what it knows', async () => {
          for (const mode of [undefined, 'tile']) {
            const net = { name: 'union', size: /** @type {[number, number]} */ ([56, 40]), mode };
            const { code, message } = await draw({ options: named('sdxl').options, controlnets: [net] });
            assert.equal(code, 'invalid-option');
            assert.match(message ?? '', /be told what it sees.*openpose, depth, scribble, canny, normal, segment\./);
          }
        });
      }
      if (kind !== 'sd1') continue;

      await t.test('a file of the original code, by its own names', async t => {
        const c = named('one');
        const { latents, message } = await draw({
          ...c,
          controlnets: [{ ...c.controlnets[0], name: 'original.safetensors' }],
        });
        assert.equal(message, undefined);
        const error = relative(latents, theirs(c));
        t.diagnostic(`latents ${error.toExponential(1)}`);
        assert.ok(error <= LATENTS);
      });

      await t.test(
        'the same again, and another scale: nothing is fetched, no weights go to the GPU; without, it is gone',
        async t => {
          await draw(named('two'));
          const before = await memory();
          /** @type {string[]} */
          const requests = [];
          page.on('request', request => requests.push(request.url()));
          const again = await draw(named('guess mode, two'));
          assert.ok(relative(again.latents, theirs(named('guess mode, two'))) <= LATENTS);
          assert.ok(relative((await draw(named('none'))).latents, plain) <= LATENTS);
          assert.ok(relative((await draw(named('two'))).latents, theirs(named('two'))) <= LATENTS);
          const after = await memory();
          t.diagnostic(
            `${requests.length} requests, uploaded ${before.uploaded} and ${after.uploaded}, ` +
              `weights ${before.weights} and ${after.weights}`,
          );
          assert.deepEqual(requests, []);
          assert.equal(after.uploaded, before.uploaded);
          // Another one takes their place: one instead of two.
          await draw(named('global_pool_conditions'));
          const now = await memory();
          assert.ok(now.weights < before.weights, `${now.weights} after ${before.weights}`);
          const unit = [
            'Module: none, Model: .*one, Weight: 0\\.6, Guidance Start: 0, Guidance End: 1',
            'Control Mode: ControlNet is more important',
          ].join(', ');
          assert.match(again.parameters, new RegExp(`ControlNet 0: "${unit}", ControlNet 1: `));
        },
      );

      await t.test('memory "low": it comes and goes with the UNet', async t => {
        const resident = (await memory()).weights;
        await open(kind, { memory: 'low' });
        for (const name of ['one', 'none', 'two', 'image to image'])
          assert.ok(relative((await draw(named(name))).latents, theirs(named(name))) <= LATENTS, name);
        const low = (await memory()).weights;
        t.diagnostic(`weights ${low} of ${resident} bytes`);
        assert.ok(low < resident);
      });

      await t.test('over quantised weights', async t => {
        for (const weights of ['q8', 'q4']) {
          await open(kind, { weights });
          const without = relative((await draw(named('none'))).latents, plain);
          const error = relative((await draw(named('one'))).latents, theirs(named('one')));
          t.diagnostic(
            `${weights}: latents ${error.toExponential(1)}, without a ControlNet ${without.toExponential(1)}`,
          );
          // As much as the UNet loses, and as much again.
          assert.ok(error <= 2 * without, `${weights}: ${error}`);
        }
        await open(kind);
      });

      await t.test('what does not fit is refused before its weights are fetched; nothing is lost', async () => {
        /** @type {string[]} */
        const requests = [];
        page.on('request', request => requests.push(request.url()));
        const refused = async (/** @type {Net} */ net, /** @type {string} */ code, /** @type {RegExp} */ message) => {
          const result = await draw({ options: named('none').options, controlnets: [net] });
          assert.equal(result.code, code, result.message);
          assert.match(result.message ?? '', message);
        };
        await refused({ name: 'sdxl-one', size: [56, 40] }, 'unsupported-model', /another kind of model.*sd1/);
        await refused({ name: 'sd2', size: [56, 40] }, 'unsupported-model', /another kind of model/);
        assert.deepEqual(requests.filter(url => /safetensors/.test(url)), []);
        await refused(
          { name: '../sd1/unet', size: [56, 40] },
          'unsupported-model',
          /UNet2DConditionModel.*ControlNetModel/,
        );
        await refused({ name: 'missing', size: [56, 40] }, 'network', /config\.json/);
        await refused({ name: 'one', size: [56, 40], start: 0.5, end: 0.5 }, 'invalid-option', /start = 0\.5/);
        await refused({ name: 'one', size: [56, 40], preprocess: 'depth' }, 'invalid-option', /none, canny, softedge/);
        await refused({ name: 'one', size: [56, 40], scale: NaN }, 'invalid-option', /scale/);
        await refused({ name: 'one', size: [56, 40], mode: 'canny' }, 'invalid-option', /is for a ControlNet Union/);
        await refused({ name: 'one', size: [56, 40], weight: 1 }, 'invalid-option', /no "weight"/);
        const tensor = { dtype: 'F16', shape: [4], data: new Uint8Array(8) };
        writeSafetensors(join(models, 'nets', 'difference.safetensors'), [
          { ...tensor, name: 'difference' },
          { ...tensor, name: 'input_hint_block.0.weight' },
        ]);
        /** @type {Net} */
        const difference = { name: 'difference.safetensors', size: [56, 40] };
        await refused(difference, 'unsupported-model', /differences to its model/);
        const wrong = await page.evaluate(() =>
          /** @type {any} */ (window).pipeline
            .generate({ prompt: '', controlnets: [{ source: 'a/b' }] })
            .catch((/** @type {any} */ e) => `${e.code} ${e.message}`),
        );
        assert.match(wrong, /invalid-option.*without image/);
        assert.ok(relative((await draw(named('two'))).latents, theirs(named('two'))) <= LATENTS);
        errors.splice(0); // of files that are not there
      });

      await t.test('canny(image) gives OpenCV\'s edges', async t => {
        const snake = /** @type {typeof edges[0]} */ (edges.find(({ kind, low }) => kind === 'snake' && low === 60));
        const drawnEdges = await page.evaluate(async ({ width: w, height: h, low, high }) => {
          const { canny } = await import(`${location.origin}/browser-diffusion.js`);
          // `picture` of canny.py.
          const grey = (/** @type {number} */ x, /** @type {number} */ y) => {
            const turn = Math.floor(y / 8) % 2 === 0 ? x >= w - 5 && x < w - 2 : x >= 2 && x < 5;
            const line = y % 8 < 3 ? x >= 2 && x < w - 2 : turn;
            return 100 + 30 * Number(line) + 120 * Number(y < 3 && x >= 2 && x < 6);
          };
          const image = /** @type {any} */ (window).paint(w, h, (/** @type {number} */ x, /** @type {number} */ y) =>
            Array(3).fill(grey(x, y)),
          );
          const { width, height, data } = await canny(image, { low, high });
          const refused = await canny(image, { low: -1 }).catch((/** @type {any} */ e) => e.message);
          return { size: [width, height], edges: [...data].filter((_, i) => i % 4 === 0), refused };
        }, snake);
        assert.deepEqual(drawnEdges.size, [snake.width, snake.height]);
        const bits = [...Buffer.from(snake.edges, 'hex')].flatMap(byte => [...byte.toString(2).padStart(8, '0')]);
        const wrong = drawnEdges.edges.filter((v, i) => v !== (bits[i] === '1' ? 255 : 0)).length;
        t.diagnostic(`${wrong} of ${drawnEdges.edges.length} pixels differ`);
        assert.equal(wrong, 0);
        assert.match(drawnEdges.refused, /low must be a number of at least 0/);
      });
    }
  });
});
