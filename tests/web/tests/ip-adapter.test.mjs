// IP-Adapters through the public module in Chromium against diffusers: plain, Plus and full-face, one and several pictures,
// several adapters, SD 1 and SDXL kinds, with image to image, inpainting and a ControlNet. Expected latents:
// tests/reference/ip_adapter.py.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { relative } from '../support/relative.mjs';
import { serve } from '../support/hub.mjs';
import { drawn, encode, writeSafetensors, writeTiny } from '../support/tiny.mjs';

const LATENTS = 1e-2; // relative L2, as in pipelines.test.mjs

const data = join(root, 'tests/reference/data');
const reference = join(data, 'ip_adapter');
/**
 * @typedef {{ name: string, file?: string, encoder?: string, sizes: [number, number][], [option: string]: any }} Adapter
 * @typedef {{ name: string, kind: string, adapters: Adapter[], options: any, latents: number[], offset: number }} Case
 */
/** @type {Case[]} */
const cases = JSON.parse(readFileSync(join(reference, 'cases.json'), 'utf8'));
const expected = readFileSync(join(reference, 'cases.bin'));
/** @type {{ encoders: Record<string, any>, adapters: Record<string, any> }} */
const nets = JSON.parse(readFileSync(join(reference, 'nets.json'), 'utf8'));

const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-ip-adapter-'));
after(() => rmSync(models, { recursive: true }));
const folder = join(models, 'nets');
mkdirSync(folder);

/**
 * Tensors by lines of name and shape.
 * @param {string[]} lines @param {string} prefix of the names that values are drawn from @param {number} gain
 */
const tensorsOf = (lines, prefix, gain) =>
  lines.map(line => {
    const [name, ...sides] = line.split(' ');
    const shape = sides.map(Number);
    return { name, dtype: 'F16', shape, data: encode(drawn(prefix + name, shape, gain), 'F16') };
  });

for (const [name, { config, tensors }] of Object.entries(nets.encoders)) {
  mkdirSync(join(folder, name));
  writeFileSync(join(folder, name, 'config.json'), JSON.stringify(config));
  const written = tensorsOf(tensors, `${name}.`, 1);
  const named = written.map(t => ({ ...t, name: t.name.startsWith('visual') ? t.name : `vision_model.${t.name}` }));
  writeSafetensors(join(folder, name, 'model.safetensors'), named);
}
for (const [name, { gain, tensors }] of Object.entries(nets.adapters))
  writeSafetensors(join(folder, `${name}.safetensors`), tensorsOf(tensors, `${name}.`, gain));
copyFileSync(join(reference, 'plain.bin'), join(folder, 'plain.bin'));
{
  const { one } = JSON.parse(readFileSync(join(data, 'controlnet/nets.json'), 'utf8'));
  const { gain, ...config } = one.config;
  mkdirSync(join(folder, 'one'));
  writeFileSync(join(folder, 'one/config.json'), JSON.stringify(config));
  writeSafetensors(join(folder, 'one/diffusion_pytorch_model.safetensors'), tensorsOf(one.tensors, one.prefix, gain));
}

/** @param {Case} c */
const theirs = c => {
  const from = expected.byteOffset + c.offset;
  return [...new Float32Array(expected.buffer.slice(from, from + 4 * c.latents.reduce((a, b) => a * b)))];
};
const named = (/** @type {string} */ name) => /** @type {Case} */ (cases.find(c => c.name === name));

/** @typedef {import('playwright-core').Page} Page */

/** Loads a model. @param {Page} page @param {string} source @param {any} [load] */
const open = (page, source, load = {}) => page.evaluate(async ({ source, load }) => {
  const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
  await /** @type {any} */ (window).pipeline?.dispose();
  /** @param {number} w @param {number} h @param {(x: number, y: number) => number[]} colour */
  const paint = (w, h, colour) => {
    const image = new ImageData(w, h);
    for (let i = 0; i < w * h; i++) image.data.set([...colour(i % w, Math.floor(i / w)), 255], 4 * i);
    return image;
  };
  // As in controlnet.py.
  const picture = (/** @type {number} */ w, /** @type {number} */ h) =>
    paint(w, h, (x, y) => [(x * 4) & 255, (y * 6) & 255, (x * y) & 255]);
  const mask = (/** @type {number} */ w, /** @type {number} */ h) =>
    paint(w, h, (x, y) => Array(3).fill(x >= w >> 2 && x < (w * 3) >> 2 && y >= h >> 2 && y < h >> 1 ? 255 : 0));
  Object.assign(window, { picture, mask, pipeline: await DiffusionPipeline.fromPretrained(source, load) });
}, { source, load });

/**
 * @param {Page} page @param {string} at where the adapters are @param {{ options: any, adapters: Adapter[] }} given
 * @returns {Promise<{ latents: number[], code?: string, message?: string }>}
 */
const draw = (page, at, { options: { mask, controlnet, ...options }, adapters }) =>
  page.evaluate(
    async ({ options, adapters, masked, controlnet, at }) => {
      const { pipeline, picture, mask } = /** @type {any} */ (window);
      const { width, height } = options;
      try {
        const { latents } = await pipeline.generate({
          ...options,
          output: 'latent',
          ...(adapters.length > 0 && {
            ipAdapters: adapters.map(({ name, file = `${name}.safetensors`, encoder, sizes, ...rest }) => ({
              source: `${at}/${file}`,
              imageEncoder: `${at}/${encoder}`,
              ...(sizes.length === 1 ? { image: picture(...sizes[0]) } : { images: sizes.map(s => picture(...s)) }),
              ...rest,
            })),
          }),
          ...(options.strength !== undefined && { image: picture(width, height) }),
          ...(controlnet && { controlnets: [{ source: `${at}/${controlnet}`, image: picture(width, height) }] }),
          ...(masked && { maskImage: mask(width, height) }),
        });
        return { latents: latents.flatMap((/** @type {Float32Array} */ l) => [...l]) };
      } catch (error) {
        const { code, message } = /** @type {any} */ (error);
        return { latents: [], code, message };
      }
    },
    {
      options,
      adapters: adapters.map(a => ({ encoder: nets.adapters[a.name]?.encoder ?? 'vit', ...a })),
      masked: Boolean(mask),
      controlnet,
      at,
    },
  );

test('IP-Adapters', async t => {
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  const at = `${server.url}/models/nets`;
  await withBrowser({}, async (context, errors) => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    const memory = () => page.evaluate(() => /** @type {any} */ (window).pipeline.memory());
    /** @param {string} name @param {Partial<Adapter>} [instead] of what each adapter says */
    const error = async (name, instead = {}) => {
      const { options, adapters } = named(name);
      const given = { options, adapters: adapters.map(a => ({ ...a, ...instead })) };
      const { latents, message } = await draw(page, at, given);
      assert.equal(message, undefined);
      return relative(latents, theirs(named(name)));
    };

    for (const kind of ['sd1', 'sdxl']) {
      writeTiny(join(models, kind), kind);
      const [without] = cases.filter(c => c.kind === kind);
      await open(page, `${server.url}/models/${kind}`);
      for (const c of cases.filter(c => c.kind === kind)) {
        await t.test(c.name, async t => {
          const found = await error(c.name);
          const same = c.adapters.length > 0 && c.latents.join() === without.latents.join();
          const moved = same ? relative(theirs(c), theirs(without)) : 1;
          t.diagnostic(`latents ${found.toExponential(1)}${same ? `, moved by ${moved.toExponential(1)}` : ''}`);
          assert.ok(found <= LATENTS && found < moved / 10, `latents: ${found}`);
        });
      }
    }

    await open(page, `${server.url}/models/sd1`);
    await t.test('a .bin of torch.save; an image encoder as a file alone; scale 0 is none', async t => {
      const found = [
        await error('plain, two pictures', { file: 'plain.bin' }),
        await error('plus, two pictures', { encoder: 'vit/model.safetensors' }),
      ];
      t.diagnostic(`latents ${found.map(e => e.toExponential(1))}`);
      assert.ok(Math.max(...found) <= LATENTS);
      const { options, adapters } = named('plus');
      const none = await draw(page, at, { options, adapters: adapters.map(a => ({ ...a, scale: 0 })) });
      assert.ok(relative(none.latents, theirs(named('none'))) <= LATENTS);
    });

    await t.test('the same picture again: nothing is fetched or sent to the GPU', async t => {
      await error('plain and plus');
      const before = await memory();
      /** @type {string[]} */
      const requests = [];
      page.on('request', request => requests.push(request.url()));
      assert.ok((await error('plain and plus')) <= LATENTS);
      assert.ok((await error('plus, two pictures')) <= LATENTS);
      const again = await memory();
      t.diagnostic(`${requests.length} requests, weights ${before.weights} bytes`);
      assert.deepEqual(requests, []);
      assert.equal(again.uploaded, before.uploaded);
      await error('full');
      assert.ok((await memory()).weights < before.weights);
    });

    await t.test('memory "low": adapter and encoder leave before the UNet comes', async t => {
      const resident = (await memory()).weights;
      await open(page, `${server.url}/models/sd1`, { memory: 'low' });
      for (const name of ['plus, two pictures', 'none', 'plain and plus', 'with a ControlNet'])
        assert.ok((await error(name)) <= LATENTS, name);
      t.diagnostic(`weights ${(await memory()).weights} of ${resident} bytes`);
      assert.ok((await memory()).weights < resident);
    });

    await t.test('over quantised weights', async t => {
      for (const weights of ['q8', 'q4']) {
        await open(page, `${server.url}/models/sd1`, { weights });
        const bare = await error('none');
        const found = await error('plain and plus');
        t.diagnostic(`${weights}: latents ${found.toExponential(1)}, without an IP-Adapter ${bare.toExponential(1)}`);
        // Of eight bits as LoRAs in adapters.test.mjs; of four as much as the UNet loses, and as much again.
        assert.ok(found <= (weights === 'q8' ? 2e-2 : 2 * bare), `${weights}: ${found}`);
      }
      await open(page, `${server.url}/models/sd1`);
    });

    await t.test('two passes of different sizes', async () => {
      const { options, adapters } = named('plain and plus');
      const twice = await draw(page, at, { options: { ...options, hires: { scale: 2, steps: 2 } }, adapters });
      assert.equal(twice.message, undefined);
      assert.equal(twice.latents.length, 4 * theirs(named('none')).length);
    });

    await t.test('what does not fit is refused before its weights are fetched; nothing is lost', async () => {
      const refused = async (/** @type {Partial<Adapter>} */ adapter, /** @type {string} */ code,
        /** @type {RegExp} */ message) => {
        const asked = { name: 'plain', sizes: /** @type {[number, number][]} */ ([[56, 40]]), ...adapter };
        const result = await draw(page, at, { options: named('none').options, adapters: [asked] });
        assert.equal(result.code, code, result.message);
        assert.match(result.message ?? '', message);
      };
      await refused({ name: 'sdxl-plain' }, 'unsupported-model', /another kind of model: 12 layers.*this model has 6/);
      await refused({ encoder: 'big' }, 'unsupported-model', /as 24 numbers, and this image encoder gives 40.*ViT-H/);
      await refused({ file: 'vit/model.safetensors' }, 'unsupported-model', /a CLIP vision encoder.*`imageEncoder`/);
      await refused({ encoder: 'plain.safetensors' }, 'unsupported-model', /an IP-Adapter.*as imageEncoder/);
      await refused({ encoder: 'one' }, 'unsupported-model', /has no model\.safetensors.*CLIP image encoder/);
      await refused({ encoder: '../sd1/text_encoder' }, 'unsupported-model', /CLIPVision.*"clip_text_model"/);
      await refused({ encoder: '../sd1' }, 'unsupported-model', /whole model, without a CLIP image encoder/);
      await refused({ file: 'vit' }, 'invalid-option', /is no file/);
      await refused({ file: 'missing.safetensors' }, 'network', /missing/);
      await refused({ scale: NaN }, 'invalid-option', /scale/);
      await refused({ weight: 1 }, 'invalid-option', /no "weight"/);
      await refused({ images: [] }, 'invalid-option', /at least one/);
      const picture = { dtype: 'F16', shape: [8, 4], data: new Uint8Array(64) };
      for (const [file, names, says] of /** @type {[string, string[], RegExp][]} */ ([
        ['faceid', ['image_proj.proj.0.weight', 'image_proj.norm.weight'], /FaceID.*InsightFace/],
        ['faceid-plus', ['image_proj.perceiver_resampler.proj_in.weight', 'image_proj.norm.weight'], /FaceID/],
        ['other', ['image_proj.net.0.weight', 'ip_adapter.0.to_k_ip.weight'], /of a kind that is not computed here/],
        ['lora', ['lora_unet_x.lora_down.weight'], /a LoRA, which is given as `loras`, not an IP-Adapter/],
        ['nothing', ['weight'], /no IP-Adapter/],
      ])) {
        writeSafetensors(join(folder, `${file}.safetensors`), names.map(name => ({ ...picture, name })));
        await refused({ file: `${file}.safetensors` }, 'unsupported-model', says);
      }
      const wrong = await page.evaluate(() =>
        /** @type {any} */ (window).pipeline
          .generate({ prompt: '', ipAdapters: [{ source: 'a/b', imageEncoder: 'a/b' }] })
          .catch((/** @type {any} */ e) => `${e.code} ${e.message}`),
      );
      assert.match(wrong, /invalid-option.*needs image, a picture, or images/);
      assert.ok((await error('plain and plus')) <= LATENTS);
      errors.splice(0); // of files that are not there
    });
  });
});
