// What pictures of any program tell, in Node, without a browser: texts of twelve kinds, damaged ones, and long ones.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../support/browser.mjs';
import { KINDS } from '../data/infotexts.mjs';
import { png } from '../support/png.mjs';

const { readParameters } = await import(join(root, 'www/browser-diffusion.js'));
const { checkedRequest } = await import(join(root, 'www/options.js'));

/** What `generate` asks of its options before the engine sees them. @param {any} options */
const taken = options => checkedRequest(options, { inpainting: false, instructPix2Pix: false });

test('texts of twelve kinds are read to their options, and generate takes them all', async () => {
  let count = 0;
  for (const [kind, { keyword = 'parameters', same, cases }] of Object.entries(KINDS)) {
    for (const [text, options, { model, withImage = {} } = {}] of cases) {
      const source = typeof text === 'string' ? text : JSON.stringify(text);
      const file = new Blob([png([['iTXt', Buffer.from(`${keyword}\0\0\0\0\0${source}`)]])]);
      for (const from of [source, file]) {
        const read = await readParameters(from);
        assert.deepEqual(read.options, { ...same, ...options }, `${kind}: ${source}`);
        assert.deepEqual([read.model, read.withImage, read.parameters], [model, withImage, source],
          `${kind}: ${source}`);
        taken(read.options);
        taken({ ...read.options, ...(Object.keys(withImage).length > 0 && { image: 'x.png' }), ...read.withImage });
      }
      count++;
    }
  }
  assert.equal(Object.keys(KINDS).length, 12);
  assert.ok(count >= 60, `${count} texts`);
});

/** @param {Record<string, string>} texts by keyword */
const pictureWith = texts => new Blob([png(Object.entries(texts).map(([keyword, text]) =>
  ['iTXt', Buffer.from(`${keyword}\0\0\0\0\0${text}`)]))]);

test('texts that stand elsewhere, or in several places', async () => {
  const dream = '"a mill, \\"old\\" [x]" -s 25 -S 75 -W512 -H768 -C 7.0 -A k_euler_a -f 0.7';
  const json = JSON.stringify({
    c: 'a "mill" & more', uc: '', model: 'm', sampler: 'UniPC', scale: 7, seed: 76, size: '512x768', steps: 25,
  });
  const xmp = `<x:xmpmeta><exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">${
    json.replaceAll('&', '&amp;').replaceAll('"', '&quot;')}</rdf:li></rdf:Alt></exif:UserComment></x:xmpmeta>`;
  const drawn = {
    numInferenceSteps: 25, guidanceScale: 7, width: 512, height: 768, negativePrompt: '', promptSyntax: 'a1111',
  };
  /** @type {[Record<string, string>, object, object?][]} */
  const cases = [
    [{ Dream: dream }, { ...drawn, prompt: 'a mill, \\"old\\"', negativePrompt: 'x', seed: 75, promptSyntax: 'plain',
      scheduler: 'euler_a' }, { strength: 0.7 }],
    [{ 'XML:com.adobe.xmp': xmp }, { ...drawn, prompt: 'a "mill" & more', seed: 76, scheduler: 'unipc' }],
    // Easy Diffusion gives every setting a chunk of its own.
    [{ prompt: 'a mill', negative_prompt: '', seed: '77', use_stable_diffusion_model: 'm', sampler_name: 'heun',
      width: '512', height: '768', num_inference_steps: '25', guidance_scale: '7' },
    { ...drawn, prompt: 'a mill', seed: 77, scheduler: 'heun' }],
    [{ Software: 'NovelAI', Description: 'a mill', Source: 'm', Comment: '{"uc":"","steps":25,"sampler":"k_heun"}' },
      { prompt: 'a mill', negativePrompt: '', promptSyntax: 'plain', numInferenceSteps: 25, scheduler: 'heun' }],
    // ComfyUI with a node that writes A1111's text too: that one counts, as in sd-prompt-reader.
    [{ prompt: '{"3":{"class_type":"KSampler","inputs":{"seed":1}}}',
      parameters: 'a\nSteps: 1, Seed: 2, CFG scale: 3' },
      { prompt: 'a', negativePrompt: '', numInferenceSteps: 1, seed: 2, guidanceScale: 3, promptSyntax: 'a1111',
        rng: 'torch-cuda' }],
  ];
  for (const [texts, options, withImage = {}] of cases) {
    const read = await readParameters(pictureWith(texts));
    assert.deepEqual([read.options, read.withImage], [options, withImage], Object.keys(texts).join());
    taken(read.options);
  }
  /** @type {Record<string, string>[]} */
  const none = [{ Comment: 'made with a camera' }, { Software: 'x', prompt: 'only words' }, { Dream: 'x' }];
  for (const texts of none) {
    const read = await readParameters(pictureWith(texts));
    assert.equal(read.parameters, undefined);
  }
});

/** @param {string} name */
const picture = name => new Blob([readFileSync(join(root, 'tests/web/data/pictures', `${name}.png`))]);
const cat = {
  prompt: 'a cat', negativePrompt: 'x', numInferenceSteps: 12, scheduler: 'euler_a', guidanceScale: 3, seed: 77,
    width: 64,
  height: 64, rng: 'torch-cuda', promptSyntax: 'a1111',
};

test('pictures that were read wrongly are read rightly', async () => {
  /** @type {Record<string, any>} */
  const right = {
    // k-diffusion's levels, which begin at 14.61: src/samplers/levels.rs has them as "normal".
    'png-a1111-automatic': { ...cat, scheduler: 'euler_a_normal' },
    'png-dynamic-prompts': cat,
    'png-hires-one-side': {
      ...cat, strengthSteps: 'exact', hires: { width: 96, height: 96, upscaler: 'latent', strength: 0.5 },
    },
    'png-swarm': {
      prompt: 'a dog', negativePrompt: '', seed: 5, numInferenceSteps: 20, promptSyntax: 'comfy', rng: 'torch-cpu',
    },
    'png-utf8-in-text': { ...cat, prompt: 'テスト' },
  };
  for (const [name, options] of Object.entries(right)) {
    const read = await readParameters(picture(name));
    assert.deepEqual(read.options, options, name);
    taken(read.options);
  }
  const { options } = await readParameters(picture('png-long-last-line'));
  assert.deepEqual(options, { prompt: 'word '.repeat(12_000).trim(), negativePrompt: '', promptSyntax: 'a1111' });
});

test('levels and steps of a second pass of one side are those of A1111', async () => {
  /** @param {string} resize @param {string} [size] */
  const hires = async (resize, size = '512x768') => {
    const text = `a\nSteps: 9, Sampler: Euler, Size: ${size}, Denoising strength: 0.5, Hires resize: ${resize}`;
    const { options } = await readParameters(text);
    taken(options);
    return [options.hires?.width, options.hires?.height, options.strength];
  };
  // `init` of StableDiffusionProcessingTxt2Img: x * height // width, and sizes of latents.
  assert.deepEqual(await hires('1024x0'), [1024, 1536, undefined]);
  assert.deepEqual(await hires('0x1000'), [664, 1000, undefined]);
  assert.deepEqual(await hires('1000x1000'), [1000, 1000, undefined]);
  assert.deepEqual(await hires('0x0'), [undefined, undefined, undefined]);
  assert.deepEqual(await hires('96x0', '0x0'), [undefined, undefined, undefined]);
});

test('whatever is written, generate takes what is read of it', async () => {
  const values = ['', '0', '-1', '1e999', '1e400', '-0.5', '0.5', '7', '7.5', '99999999999999999999', 'NaN', '0x10',
    '0x0',
    '1x1', '99999x99999', '512x', 'x', '"', '"a', '"\\', '__proto__', 'constructor', 'Latent', 'toString', 'null',
      '{}'];
  const names = ['Steps', 'Sampler', 'Schedule type', 'CFG scale', 'Seed', 'Size', 'Denoising strength', 'Clip skip',
    'Variation seed', 'Variation seed strength', 'Seed resize from', 'Eta', 'Sigma churn', 'Sigma tmin', 'Sigma tmax',
    'Sigma noise', 'RNG', 'Emphasis', 'Hires resize', 'Hires upscale', 'Hires steps', 'Hires upscaler', 'Mask blur',
    'Mask mode', 'Masked content', 'Inpaint area', 'Masked area padding', 'Guidance rescale', 'Strength steps',
      'Version',
    'ControlNet 0', '__proto__', 'constructor', 'hasOwnProperty', 'toString'];
  const whole = names.map(name => `${name}: 1`);
  for (const [i, name] of names.entries()) {
    for (const value of values) {
      const { options, withImage } = await readParameters(`a\n${whole.with(i, `${name}: ${value}`).join(', ')}`);
      taken(options);
      taken({ ...options, ...withImage, ...(Object.keys(withImage).length > 0 && { image: 'x.png' }) });
      assert.equal(Object.getPrototypeOf(options), Object.prototype);
    }
  }
  const keys = ['prompt', 'negative_prompt', 'uc', 'steps', 'seed', 'width', 'height', 'cfg_scale', 'scale', 'sampler',
    'scheduler', 'strength', 'base_model', 'resolution', 'size', 'c', 'image', 'v4_prompt', 'generation_mode',
      'clip_skip',
    'sui_image_params', 'use_stable_diffusion_model', '3', '__proto__'];
  const odd = [null, true, -1, 0.5, 1e300, 'x', '', [], [[]], ['3', 0], {}, { inputs: null },
    { class_type: 'KSampler' },
    { class_type: 'KSampler', inputs: { latent_image: ['3', 0], positive: ['3', 0], model: ['3', 0], seed: ['3',
      0] } }];
  for (const key of keys) {
    for (const value of odd) {
      for (const beside of [{}, { uc: '' }, { base_model: 'm' }, { positive_prompt: 'a' }, { size: '64x64', c: 'a' }]) {
        const json = JSON.stringify({ ...beside, [key]: value });
        for (const text of [json, `{"sui_image_params":${json}}`, `{"image":${json}}`]) {
          taken((await readParameters(text)).options);
        }
      }
    }
  }
  assert.equal(/** @type {any} */ ({}).steps, undefined, 'nothing reached the prototype of all objects');
});

test('a text that is damaged is a typed error, a picture without one is none', async () => {
  const long = Buffer.from('parameters\0\0no zlib at all');
  const damaged = [
    png([['zTXt', long]]), png([['iTXt', Buffer.from('parameters\0\x01\0\0\0no zlib')]]),
    png([['iTXt', Buffer.from('parameters\0')]]), png([['iTXt', Buffer.from('parameters\0\0\0de')]]),
    png([['tEXt', Buffer.from('no keyword')]]),
    png([['eXIf', Buffer.from('MM\0*\0\0\0\x08\0\x01')]]),
  ];
  for (const bytes of damaged) {
    await assert.rejects(readParameters(new Blob([bytes])), { name: 'DiffusionError', code: 'invalid-option' });
  }
  const heads = ['ffd8', 'ffd8ffe10000', 'ffd8ffe1ffff', '524946460000000057454250',
    '52494646000000005745425045584946ffffffff',
    '0000001c66747970617669660000', '89504e470d0a1a0a'];
  for (const head of heads) {
    const { parameters } = await readParameters(new Blob([Buffer.from(head, 'hex'), new Uint8Array(64)]));
    assert.equal(parameters, undefined, head);
  }
});

test('10 MB of anything are read within 200 ms, in a time that grows with the length', async () => {
  const parts = ['word ', 'ab1: c, ', ':', 'ab:"\\', '\r\n', ' ', '\n  Negative prompt:x', '\nTemplate: ',
    ' Steps: 20, ',
    'Steps: 20, ab: c\n', '{"a":', 'й'];
  const starts = ['', 'x\nSteps: 3, '];
  const KEYWORD = Buffer.from('parameters\0');
  for (const part of parts) {
    for (const start of starts) {
      const bytes = Buffer.from((start + part.repeat(Math.ceil(1e7 / Buffer.byteLength(part)))).slice(0, 1e7));
      const text = part === 'word ' || part === 'й' ? new Blob([png([['tEXt', Buffer.concat([KEYWORD, bytes])]])])
        : bytes.toString();
      // The processor's time, and the best of many: the machine does other things too, and shares its core with them.
      let least = Infinity;
      for (let i = 0; i < 100 && least > 200; i++) {
        const before = process.cpuUsage();
        await readParameters(text);
        const { user, system } = process.cpuUsage(before);
        least = Math.min(least, (user + system) / 1000);
      }
      assert.ok(least <= 200, `${JSON.stringify(start + part)}: ${least} ms`);
    }
  }
});
