// Settings in PNGs: what the engine writes, read by sd-prompt-reader from PyPI; what that one writes, read here and
// taken by the page. The oracle knows AUTOMATIC1111's layout and nothing of this module.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import { adapters, root, withBrowser } from '../support/browser.mjs';
import { png } from '../support/png.mjs';
import { serve } from '../support/serve.mjs';
import { status, withPage } from '../support/site.mjs';

/** A test that takes so long hangs; nothing else is judged by the clock. */
const timeout = 1_800_000;

/** @param {string} code @param {string[]} args */
const python = (code, ...args) => execFileSync('python3', ['-c', code, ...args], {
  env: { ...process.env, PYTHONPATH: join(root, '.tools/reader') }, encoding: 'utf8',
});
const READ = `
import json, sys
from sd_prompt_reader.image_data_reader import ImageDataReader
r = ImageDataReader(sys.argv[1])
print(json.dumps({"tool": r.tool, "status": r.status.name, "positive": r.positive, "negative": r.negative,
  "parameter": r.parameter, "setting": r.setting}))`;
const WRITE = `
import sys
from sd_prompt_reader.image_data_reader import ImageDataReader
data = ImageDataReader.construct_data(sys.argv[3], sys.argv[4], sys.argv[5])
ImageDataReader.save_image(sys.argv[1], sys.argv[2], "PNG", data)`;

test('a PNG from here is read by an independent reader, and one that it wrote is read here', { timeout }, async t => {
  const folder = mkdtempSync(join(tmpdir(), 'browser-diffusion-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const server = await serve(join(root, 'www'));
  t.after(() => server.close());
  await withBrowser({ adapter: adapters[0] }, async context => {
    const page = await context.newPage();
    await page.goto(server.url);
    const asked = [
      {
        prompt: 'a (red:1.2) apple, on a table', negativePrompt: 'blurry, "text": none', promptSyntax: 'a1111',
        width: 64, height: 72, numInferenceSteps: 2, guidanceScale: 7.5, scheduler: 'euler_a', seed: 42,
      },
      {
        prompt: 'ein Größenvergleich: 猫\nin zwei Zeilen', width: 64, height: 64, numInferenceSteps: 3,
        guidanceScale: 3, scheduler: 'dpmpp_2m_karras', seed: 7, clipSkip: 1,
      },
      {
        prompt: 'plain', width: 64, height: 64, numInferenceSteps: 2, guidanceScale: 1, scheduler: 'ddim',
        seed: 2 ** 40,
      },
      {
        prompt: 'twice', width: 64, height: 64, numInferenceSteps: 2, guidanceScale: 3, guidanceRescale: 0.5,
        scheduler: 'euler', sChurn: 4, seed: 3, variationSeed: 9, variationStrength: 0.25, seedResizeFrom: [72, 64],
        hires: { scale: 1.25, upscaler: 'latent-bicubic', steps: 3, strength: 0.5 },
      },
    ];
    const made = await page.evaluate(async options => {
      const { DiffusionPipeline, readParameters } = await import('/browser-diffusion.js');
      const pipeline = await DiffusionPipeline.fromPretrained('embedded', { cache: false });
      const made = [];
      for (const each of options) {
        const request = /** @type {import('../../../www/browser-diffusion.js').GenerateOptions} */ (each);
        const { images: [image], parameters } = await pipeline.generate(request);
        const blob = await image.toBlob();
        const bytes = [...new Uint8Array(await blob.arrayBuffer())];
        made.push({ parameters, bytes, back: await readParameters(blob) });
      }
      await pipeline.dispose();
      return made;
    }, asked);
    for (const [i, { parameters, bytes, back }] of made.entries()) {
      const file = join(folder, `ours-${i}.png`);
      writeFileSync(file, Buffer.from(bytes));
      const seen = JSON.parse(python(READ, file));
      const request = /** @type {any} */ (asked[i]);
      const { prompt, negativePrompt = '', width, height, numInferenceSteps, guidanceScale, seed, clipSkip } = request;
      assert.equal(seen.tool, 'A1111 webUI');
      assert.equal(seen.status, 'READ_SUCCESS');
      assert.deepEqual([seen.positive, seen.negative], [prompt, negativePrompt]);
      const sampler = ['Euler a', 'DPM++ 2M', 'DDIM', 'Euler'][i];
      assert.deepEqual(seen.parameter, {
        model: 'embedded', sampler, seed: String(seed), cfg: String(guidanceScale), steps: String(numInferenceSteps),
        size: `${width}x${height}`,
      });
      assert.deepEqual([back.parameters, back.model], [parameters, 'embedded']);
      const { promptSyntax = 'plain', ...same } = request;
      const skipped = clipSkip && { clipSkip };
      assert.deepEqual(back.options, { negativePrompt: '', ...same, promptSyntax, rng: 'torch-cpu', ...skipped });
    }
  });

  // The other way: its file, over a picture that had no text.
  const bare = join(folder, 'bare.png'), theirs = join(folder, 'theirs.png');
  writeFileSync(bare, png([]));
  const setting = 'Steps: 28, Sampler: Euler a, Schedule type: Automatic, CFG scale: 6.5, Seed: 1234567890, ' +
    'Size: 512x768, Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, Variation seed: 5, ' +
    'Variation seed strength: 0.3, Seed resize from: 256x320, Denoising strength: 0.55, Clip skip: 2, ' +
    'Hires upscale: 1.5, Hires steps: 9, Hires upscaler: Latent (nearest), Eta: 0.4, Version: v1.10.1';
  const other = 'Steps: 7, Sampler: Heun, Schedule type: Karras, CFG scale: 5, Seed: 3, Size: 64x64, ' +
    'Denoising strength: 0.8, RNG: CPU, Sigma churn: 12, Mask blur: 6, Inpaint area: Only masked, ' +
    'Masked area padding: 20, Masked content: latent nothing, Emphasis: Comfy, Guidance rescale: 0.7, ' +
    'Model: stabilityai/sd-turbo, Version: f2.0.1';
  const masked = join(folder, 'masked.png');
  python(WRITE, bare, theirs, 'a (cat:1.1), sitting\nBREAK outdoors', 'bad hands, worst quality', setting);
  python(WRITE, bare, masked, 'a dog', '', other);
  await withPage({}, async page => {
    await status(page, /^Ready/);
    const drop = (/** @type {string} */ file) => page.evaluate(async bytes => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], 'picture.png', { type: 'image/png' }));
      window.dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true }));
    }, [...readFileSync(file)]);
    await drop(theirs);
    await status(page, new RegExp('settings of picture\\.png are back\\..* It was drawn with v1-5-pruned-emaonly, ' +
      'which this page does not have\\.$'));
    const strength = await page.inputValue('#strength');
    /** @type {Record<string, string>} */
    const want = {
      source: 'embedded',
      prompt: 'a (cat:1.1), sitting\nBREAK outdoors', 'negative-prompt': 'bad hands, worst quality',
      'prompt-syntax': 'a1111', width: '512', height: '768', steps: '28', guidance: '6.5', 'guidance-rescale': '0',
      scheduler: 'euler_a_normal', eta: '0.4', 's-churn': '0', seed: '1234567890', rng: 'torch-cuda',
      'variation-seed': '5', 'variation-strength': '0.3', 'seed-resize-width': '256', 'seed-resize-height': '320',
      'clip-skip': '1', strength,
      'hires-scale': '1.5', 'hires-strength': '0.55', 'hires-steps': '9', 'hires-upscaler': 'latent-nearest',
      'mask-blur': '0', 'masked-content': '', 'inpaint-area': 'whole', 'mask-padding': '32',
    };
    const form = async () =>
      Object.fromEntries(await Promise.all(Object.keys(want).map(async id => [id, await page.inputValue(`#${id}`)])));
    assert.deepEqual(await form(), want);
    await page.screenshot({ path: join(root, '.tools/screenshots/settings-back.png') });
    await drop(bare);
    await status(page, /picture\.png is the picture to start from/);
    assert.ok(await page.isVisible('#paint') && await page.isHidden('#take-settings'));

    // By keyboard: a picture that is chosen to start from offers what it tells.
    await page.setInputFiles('#image', masked);
    await page.waitForSelector('#take-settings:not([hidden])');
    assert.deepEqual(await form(), want, 'not unasked');
    await page.focus('#image');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await status(page, /settings of your picture are back\.$/);
    assert.deepEqual(await form(), {
      ...want, source: 'stabilityai/sd-turbo', prompt: 'a dog', 'negative-prompt': '', 'prompt-syntax': 'comfy',
      width: '64', height: '64', steps: '7', guidance: '5', 'guidance-rescale': '0.7', scheduler: 'heun_karras',
      eta: '', 's-churn': '12', seed: '3', rng: 'torch-cpu', 'variation-seed': '', 'seed-resize-width': '',
      'seed-resize-height': '', 'clip-skip': '0', strength: '0.8', 'hires-scale': '', 'hires-steps': '',
      'mask-blur': '6', 'masked-content': 'nothing', 'inpaint-area': 'masked', 'mask-padding': '20',
    });
    await page.screenshot({ path: join(root, '.tools/screenshots/settings-back-by-keyboard.png'), fullPage: true });
  });
});

test('every way in which a PNG holds text, and none', async () => {
  const { readParameters } = await import(join(root, 'www/browser-diffusion.js'));
  const text = 'a cat\nNegative prompt: dog\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1, ' +
    'Size: 512x512, RNG: CPU';
  const utf8 = 'чёрный кот\nSteps: 5, Sampler: Euler, CFG scale: 7, Seed: 1';
  const files = {
    tEXt: png([['tEXt', Buffer.from(`parameters\0${text}`, 'latin1')]]),
    zTXt: png([['zTXt', Buffer.concat([Buffer.from('parameters\0\0'), deflateSync(Buffer.from(text, 'latin1'))])]]),
    iTXt: png([['tEXt', Buffer.from('Comment\0no')], ['iTXt', Buffer.from(`parameters\0\0\0de\0Werte\0${utf8}`)]]),
    'iTXt, compressed': png([
      ['iTXt', Buffer.concat([Buffer.from('parameters\0\u0001\0\0\0'), deflateSync(Buffer.from(utf8))])],
    ]),
  };
  for (const [name, bytes] of Object.entries(files)) {
    const { parameters, options } = await readParameters(new Blob([bytes]));
    assert.equal(parameters, name.startsWith('iTXt') ? utf8 : text, name);
    assert.equal(options.scheduler, name.startsWith('iTXt') ? 'euler' : 'dpmpp_2m_karras');
    // Without a word of the generator it was the graphics card's.
    assert.equal(options.rng, name.startsWith('iTXt') ? 'torch-cuda' : 'torch-cpu');
  }
  const whole = files.tEXt;
  const cutOff = Array.from({ length: whole.length - 13 }, (_, i) => whole.subarray(0, i));
  for (const bytes of [png([]), Buffer.from('no picture'), Buffer.alloc(0), ...cutOff]) {
    const { parameters, options } = await readParameters(new Blob([bytes]));
    assert.ok(parameters === undefined || parameters === text, 'a PNG that is cut off says nothing, or all');
    assert.equal(typeof options.prompt, 'string');
  }
  const { options } = await readParameters('only words, no settings: at all');
  assert.deepEqual(options, { prompt: 'only words, no settings: at all', negativePrompt: '', promptSyntax: 'a1111' });
});

const { optionsOf, parametersOf, settingsIn } = await import(join(root, 'www/metadata.js'));
/** @param {string} text */
const needsOf = text => settingsIn(text).needs;
/** A request with all that the engine settles. */
const settled = {
  prompt: 'a cat, sitting', width: 512, height: 768, numInferenceSteps: 20, guidanceScale: 7.5, scheduler: 'pndm',
  seed: 42, model: 'm',
};

test('the text is written as A1111 writes it', () => {
  const made = {
    ...settled, negativePrompt: 'blurry', scheduler: 'dpmpp_2m_karras', promptSyntax: 'a1111', clipSkip: 1,
    model: 'http://host/m',
  };
  // Layout and quoting: `create_infotext` of A1111 1.10.
  assert.equal(parametersOf(made), 'a cat, sitting\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M, ' +
    'Schedule type: Karras, CFG scale: 7.5, Seed: 42, Size: 512x768, Model: "http://host/m", Clip skip: 2, RNG: CPU, ' +
    'Version: browser-diffusion 0.1.0');
  const own = parametersOf({ ...made, scheduler: 'pndm', negativePrompt: '' });
  assert.match(own, /^a cat, sitting\nSteps: 20, Sampler: PLMS, CFG scale/);
  const other = parametersOf({ ...made, scheduler: 'EDMEulerScheduler' });
  assert.match(other, /Sampler: EDMEulerScheduler, CFG scale/, 'a class that none here is of');
  assert.match(readFileSync(join(root, 'Cargo.toml'), 'utf8'), /^version = "0\.1\.0"$/m, 'the version of the crate');
});

test('every option that the text has a field for is written, and read again', () => {
  const first = {
    promptSyntax: 'comfy', guidanceScale: Math.fround(7.2), imageGuidanceScale: Math.fround(1.35),
    clipSkip: 2, variationSeed: 9, variationStrength: 0.1,
    seedResizeFrom: [72, 64], etaNoiseSeedDelta: 31337, eta: 0, sChurn: 4, sTmin: 0.05, sTmax: 12.5, sNoise: 1.003,
    rng: 'torch-cuda',
    guidanceRescale: 0.7, guidanceInterval: [0.15, 0.8], deepCache: { interval: 3, branch: 1 },
  };
  const start = 'a cat, sitting\nSteps: 20, Sampler: PLMS, CFG scale: 7.2, Image CFG scale: 1.35, Seed: 42, ' +
    'Size: 512x768, Model: m, ';
  const noise = 'Clip skip: 3, Variation seed: 9, Variation seed strength: 0.1, Seed resize from: 72x64, ' +
    'ENSD: 31337, Eta: 0, ' +
    'Sigma churn: 4, Sigma tmin: 0.05, Sigma tmax: 12.5, Sigma noise: 1.003, RNG: NV, Emphasis: Comfy, ';
  const end = 'Guidance rescale: 0.7, Guidance interval: 0.15 to 0.8, DeepCache: 3 branch 1, ' +
    'Version: browser-diffusion 0.1.0';
  const { model, ...base } = { ...settled, ...first, guidanceScale: 7.2, imageGuidanceScale: 1.35 };
  /** @param {any} more @param {string} before @param {string} after @param {any} [read] */
  const bothWays = (more, before, after, read = more) => {
    const text = parametersOf({ ...settled, ...first, ...more });
    assert.equal(text, start + before + noise + after + end);
    assert.deepEqual(optionsOf(text), { negativePrompt: '', ...base, ...read });
  };
  bothWays({}, '', '');
  bothWays({ hires: { upscaler: 'picture', steps: 3 } }, '',
    'Denoising strength: 0.7, Hires upscale: 2, Hires steps: 3, Hires upscaler: Lanczos, ',
    { hires: { scale: 2, strength: 0.7, upscaler: 'picture', steps: 3 } });
  bothWays({ hires: { width: 640, height: 960, strength: 0.5 } }, '',
    'Denoising strength: 0.5, Hires resize: 640x960, Hires upscaler: Latent, ',
    { hires: { width: 640, height: 960, strength: 0.5, upscaler: 'latent' } });
  bothWays({ hires: { scale: 1.5, upscaler: { upscale() {} } } }, '',
    'Denoising strength: 0.7, Hires upscale: 1.5, Hires upscaler: ESRGAN, ', { hires: { scale: 1.5, strength: 0.7 } });
  const masked = { strength: 0.8, maskBlur: 4, invertMask: true, maskedContent: 'noise', inpaintArea: 'masked' };
  bothWays({ image: {}, maskImage: {}, ...masked }, 'Denoising strength: 0.8, ',
    'Mask blur: 4, Mask mode: Inpaint not masked, Masked content: latent noise, Inpaint area: Only masked, ' +
    'Masked area padding: 32, ', { ...masked, maskPadding: 32 });
  bothWays({ image: {}, ...masked }, 'Denoising strength: 0.8, ', '', { strength: 0.8 });
  const canny = { key: 'c', preprocess: 'canny', high: 150, scale: 0.6, start: 0.1, end: 0.5 };
  bothWays({ controlnets: [{ key: 'a/b' }, canny, { key: 'd', preprocess: 'softedge' }], guessMode: true }, '',
    'ControlNet 0: "Module: none, Model: a/b, Weight: 1, Guidance Start: 0, Guidance End: 1, ' +
    'Control Mode: ControlNet is more important", ControlNet 1: "Module: canny, Threshold A: 100, Threshold B: 150, ' +
    'Model: c, Weight: 0.6, Guidance Start: 0.1, Guidance End: 0.5, Control Mode: ControlNet is more important", ' +
    'ControlNet 2: "Module: softedge, Model: d, Weight: 1, Guidance Start: 0, Guidance End: 1, ' +
    'Control Mode: ControlNet is more important", ',
    { guessMode: true });
  const ipAdapters = [{ source: 'i.bin', imageEncoder: { source: 'https://host/vit' }, scale: Math.fround(0.6) }];
  bothWays({ ipAdapters }, '', 'IP-Adapter 0: "Model: i.bin, Image Encoder: https://host/vit, Weight: 0.6", ', {});
  const loras = [{ source: 'https://host/a.safetensors', name: 'a', scale: Math.fround(0.6) }];
  bothWays({ loras }, '', 'LoRA 0: "Model: https://host/a.safetensors, Weight: 0.6", ', {});
});

test('the files that a picture needs are read as they were written here', () => {
  const made = {
    ...settled, promptSyntax: 'a1111', prompt: 'a cat <lora:style:0.7>',
    loras: [
      { source: 'style.safetensors', name: 'style', scale: 1 }, { source: 'o/other', name: 'other', scale: -0.5 },
      { source: 'o/off', name: 'off', scale: 0 },
    ],
    controlnets: [
      { key: 'e.pth 12 34', source: 'e.pth', preprocess: 'canny', low: 40, mode: 'tile', scale: 0.7, end: 0.8 },
      { key: 'https://host/depth', start: 0.25 },
      { key: 'd', preprocess: 'softedge' },
    ],
    ipAdapters: [{ source: 'i.bin', imageEncoder: { source: 'https://host/vit' }, scale: 0.5 }],
  };
  const text = parametersOf(made);
  assert.deepEqual(needsOf(text), {
    loras: [{ name: 'o/other', scale: -0.5 }, { name: 'style', scale: 0.7 }],
    controlnets: [
      {
        name: 'e.pth', module: 'canny', preprocess: 'canny', low: 40, high: 200, mode: 'tile', scale: 0.7,
        start: 0, end: 0.8,
      },
      { name: 'https://host/depth', module: 'none', preprocess: 'none', scale: 1, start: 0.25, end: 1 },
      { name: 'd', module: 'softedge', preprocess: 'softedge', scale: 1, start: 0, end: 1 },
    ],
    ipAdapters: [{ name: 'i.bin', imageEncoder: 'https://host/vit', scale: 0.5 }],
  });
  const plain = { ...made, promptSyntax: 'plain', loras: [], controlnets: [], ipAdapters: [] };
  assert.deepEqual(needsOf(parametersOf(plain)), { loras: [], controlnets: [] }, 'a tag of a plain prompt is text');
  assert.deepEqual(needsOf(''), { loras: [], controlnets: [] });
});

// Texts as AUTOMATIC1111 and its extension for ControlNets wrote them, of 2024 and of 2023.
test('the files that a picture of AUTOMATIC1111 needs', () => {
  const start = 'a cat <lora:LCM_15:1>, <lora:face_v2:0.65:0.3> <lora:half:>\nSteps: 6, Sampler: LCM, ' +
    'CFG scale: 1.5, Seed: 3748719078, Size: 768x1024, Model: m, ';
  const unit = 'Weight: 0.8, Resize Mode: Crop and Resize, Low Vram: False, Processor Res: 512';
  const now = needsOf(`${start}ControlNet 0: "Module: canny, Model: control_v11p_sd15_canny [d14c016b], ${unit}, ` +
    'Threshold A: 75, Threshold B: 150, Guidance Start: 0.23, Guidance End: 0.5, Pixel Perfect: True, ' +
    `Control Mode: Balanced, Hr Option: Both", ControlNet 1: "Module: scribble_pidinet, ` +
    `Model: scribble [d4ba51ff], ${unit}, ` +
    'Guidance Start: 0, Guidance End: 1, Pixel Perfect: False, Control Mode: ControlNet is more important", ' +
    'ControlNet 2: "Module: reference_only, Model: None, Weight: 1", ' +
    'ControlNet 3: "Module: ip-adapter_clip_sd15, Model: ip-adapter-plus_sd15 [32cd8f7f], Weight: 0.6", ' +
    'Lora hashes: "LCM_15: aaebf6360f7d, face_v2: a95a0f4bdcb9, gone: 0123456789ab", Version: v1.9.4');
  assert.deepEqual(now.loras, [
    { name: 'LCM_15', scale: 1, hash: 'aaebf6360f7d' }, { name: 'face_v2', scale: 0.65, hash: 'a95a0f4bdcb9' },
    { name: 'gone', scale: 1, hash: '0123456789ab' }, { name: 'half', scale: 1 },
  ]);
  assert.deepEqual(now.ipAdapters, [{ name: 'ip-adapter-plus_sd15', scale: 0.6 }]);
  assert.deepEqual(now.controlnets, [
    { name: 'control_v11p_sd15_canny', module: 'canny', preprocess: 'canny', low: 75, high: 150, scale: 0.8,
      start: 0.23, end: 0.5 },
    { name: 'scribble', module: 'scribble_pidinet', scale: 0.8, start: 0, end: 1 },
  ]);
  const before = `${start}ControlNet: "preprocessor: canny, model: control_sd15_canny [fef5e48e], weight: 1, ` +
    'starting/ending: (0.25, 0.5), resize mode: Crop and Resize, pixel perfect: False, ' +
    'control mode: ControlNet is more important, preprocessor params: (512, 100, 200)", Version: v1.5.1';
  assert.deepEqual(needsOf(before).controlnets, [{
    name: 'control_sd15_canny', module: 'canny', preprocess: 'canny', low: 100, high: 200, scale: 1, start: 0.25,
    end: 0.5,
  }]);
  assert.equal(optionsOf(before).guessMode, true);
  const wrong = 'Weight: many, Guidance Start: 0.9, Guidance End: 0.1, Threshold A: -3';
  assert.deepEqual(needsOf(`${start}ControlNet 0: "Module: canny, Model: c, ${wrong}"`).controlnets, [
    { name: 'c', module: 'canny', preprocess: 'canny', scale: 1, start: 0, end: 1 },
  ]);
  const many = Array.from({ length: 5000 }, (_, i) => `ControlNet ${i}: "Module: none, Model: c"`).join(', ');
  const tags = Array.from({ length: 5000 }, (_, i) => `<lora:${i}:1>`).join('');
  const { loras, controlnets } = needsOf(`${tags}\nSteps: 6, Sampler: LCM, ${many}`);
  assert.ok(loras.length < 100 && controlnets.length < 100, 'a picture does not fill the page with rows');
});

test('an interval of guidance that is none is not written, and one that is wrong is not read', () => {
  assert.doesNotMatch(parametersOf({ ...settled, guidanceInterval: [0, 1] }), /Guidance interval/);
  const text = parametersOf({ ...settled, guidanceInterval: [0, 0.5] });
  assert.deepEqual(optionsOf(text).guidanceInterval, [0, 0.5]);
  for (const wrong of ['0.5', '0.5 to 0.2', '-1 to 0.5', '0 to 1.5', 'a to b', '']) {
    assert.equal(optionsOf(text.replace('0 to 0.5', wrong)).guidanceInterval, undefined, wrong);
  }
});

test('every name of a scheduler, a syntax, an upscaler and of what is masked has its word', async () => {
  const { NAMES } = await import(join(root, 'www/names.js'));
  const { DiffusionPipeline } = await import(join(root, 'www/browser-diffusion.js'));
  /** @param {any} more */
  const back = more => optionsOf(parametersOf({ ...settled, ...more }));
  for (const scheduler of DiffusionPipeline.schedulers) assert.equal(back({ scheduler }).scheduler, scheduler);
  for (const promptSyntax of NAMES.promptSyntax) assert.equal(back({ promptSyntax }).promptSyntax, promptSyntax);
  for (const upscaler of NAMES.upscaler) assert.equal(back({ hires: { upscaler } }).hires.upscaler, upscaler);
  for (const maskedContent of NAMES.maskedContent) {
    assert.equal(back({ maskImage: {}, maskedContent }).maskedContent, maskedContent);
  }
});
