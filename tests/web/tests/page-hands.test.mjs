// Every tool of the page by mouse, by the keyboard alone, and by a finger on a phone: the same deeds must ask the engine for
// the same. It is fake-engine.js, whose result tells the options that reached it. A screenshot each,
// .tools/screenshots/NAME-mouse.png, NAME-keyboard.png and NAME-touch.png. (The ESRGAN has its own in page.test.mjs, where it enlarges.)
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { asked, drawAgain, folder, sheetFor, shot, status, withPage } from '../support/site.mjs';
import { drag } from '../support/touch.mjs';

/**
 * @typedef {import('playwright-core').Page} Page
 * @typedef {{ name: string, mimeType: string, buffer: Buffer }} File
 *
 * What a hand can do to what a selector names.
 * @typedef {object} Hand
 * @property {(page: Page, target: string) => Promise<void>} press
 * @property {(page: Page, target: string, text: string) => Promise<void>} type  in place of what stands there
 * @property {(page: Page, target: string, label: string) => Promise<void>} choose
 * @property {(page: Page, target: string, file: File) => Promise<void>} pick  a file from disk
 * @property {(page: Page, target: string) => Promise<void>} paint  a line
 */

/** Tab until the target has the keyboard. @param {Page} page @param {string} target */
async function tabTo(page, target) {
  for (let i = 0; i < 200; i++) {
    if (await page.evaluate(target => document.activeElement?.matches(target), target)) return;
    await page.keyboard.press('Tab');
  }
  assert.fail(`the keyboard does not reach ${target}`);
}

/** Where a picture is painted on: from and to. @param {Page} page @param {string} target */
async function line(page, target) {
  await page.locator(target).scrollIntoViewIfNeeded();
  const { x, y, width, height } = /** @type {{ x: number, y: number, width: number, height: number }} */ (
    await page.locator(target).boundingBox()
  );
  return [0.3, 0.7].map(share => ({ x: x + width * share, y: y + height / 2 }));
}

/** Touches, on the sheet of settings where it is. @param {Page} page @param {string} target */
async function tap(page, target) {
  await sheetFor(page, target);
  await page.tap(target);
}

/** @type {Record<string, Hand>} */
const hands = {
  mouse: {
    press: (page, target) => page.click(target),
    async type(page, target, text) {
      await page.click(target, { clickCount: 3 });
      await page.keyboard.type(text);
    },
    // The list that drops down is the system's own, and out of reach here.
    choose: async (page, target, label) => { await page.selectOption(target, { label }); },
    async pick(page, target, file) {
      const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.click(target)]);
      await chooser.setFiles(file);
    },
    async paint(page, target) {
      const [from, to] = await line(page, target);
      await page.mouse.move(from.x, from.y);
      await page.mouse.down();
      await page.mouse.move(to.x, to.y, { steps: 4 });
      await page.mouse.up();
    },
  },
  keyboard: {
    async press(page, target) {
      await tabTo(page, target);
      const isLink = await page.evaluate(() => document.activeElement?.matches('a'));
      await page.keyboard.press(isLink ? 'Enter' : ' ');
    },
    async type(page, target, text) {
      await tabTo(page, target);
      await page.keyboard.press('Control+A');
      await page.keyboard.type(text);
    },
    async choose(page, target, label) {
      await tabTo(page, target);
      // As far as it can be typed, and on by arrows.
      await page.keyboard.type(label.split(/[^ -~]/)[0].trim());
      for (let i = 0; i < 12 && label !== (await page.locator(`${target} option:checked`).innerText()); i++)
        await page.keyboard.press('ArrowDown');
    },
    async pick(page, target, file) {
      await tabTo(page, target);
      const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.keyboard.press('Enter')]);
      await chooser.setFiles(file);
    },
    async paint(page, target) {
      await tabTo(page, target);
      await page.keyboard.press(' ');
      for (let i = 0; i < 4; i++) await page.keyboard.press('Shift+ArrowRight');
    },
  },
  touch: {
    press: tap,
    // What one types on comes up by the system.
    async type(page, target, text) {
      await tap(page, target);
      await page.fill(target, text);
    },
    async choose(page, target, label) {
      await sheetFor(page, target);
      await page.selectOption(target, { label });
    },
    async pick(page, target, file) {
      const [chooser] = await Promise.all([page.waitForEvent('filechooser'), tap(page, target)]);
      await chooser.setFiles(file);
    },
    async paint(page, target) {
      await sheetFor(page, target);
      const [from, to] = await line(page, target);
      await drag(page, from, to);
    },
  },
};

/** A picture as the page could be given it. @param {Page} page @param {number} width @param {number} height @returns {Promise<File>} */
async function meadow(page, width, height) {
  const bytes = await page.evaluate(async ([width, height]) => {
    const canvas = new OffscreenCanvas(width, height);
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext('2d'));
    context.fillStyle = 'rgb(150 190 235)';
    context.fillRect(0, 0, width, height);
    context.fillStyle = 'rgb(32 101 91)';
    context.fillRect(0, height / 2, width, height / 2);
    return [...new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer())];
  }, [width, height]);
  return { name: 'meadow.png', mimeType: 'image/png', buffer: Buffer.from(bytes) };
}

const LONG = Array.from({ length: 80 }, (_, i) => `word${i}`).join(' ');

/** @param {Page} page @param {RegExp} pattern */
const caption = (page, pattern) =>
  page.waitForFunction(
    source => new RegExp(source).test(document.getElementById('caption')?.textContent ?? ''),
    pattern.source,
  );

/**
 * What is done, and what of the options that reach the engine shows it.
 * @type {Record<string, { deeds: (hand: Hand, page: Page) => Promise<void>, seen: (options: any, page: Page) => unknown, want: unknown, draws?: boolean }>}
 */
const tools = {
  sampler: {
    deeds: (hand, page) => hand.choose(page, '#scheduler', 'DPM++ 2M SDE · Karras'),
    seen: o => o.scheduler,
    want: 'dpmpp_2m_sde_karras',
  },
  prompt: {
    async deeds(hand, page) {
      await hand.type(page, '#prompt', 'a (red:1.3) [apple:pear:0.5] AND a cup BREAK \\(round\\)');
      await hand.press(page, '#reading > summary');
      await hand.choose(page, '#prompt-syntax', 'as in ComfyUI');
      await page.waitForFunction(() => document.querySelectorAll('#tokens .heavy').length === 1);
    },
    seen: o => [o.prompt, o.promptSyntax],
    want: ['a (red:1.3) [apple:pear:0.5] AND a cup BREAK \\(round\\)', 'comfy'],
  },
  'long-prompt': {
    async deeds(hand, page) {
      await hand.type(page, '#prompt', LONG);
      await hand.press(page, '#reading > summary');
      await page.waitForFunction(() =>
        /^80 tokens, read in 2 portions of 75/.test(document.getElementById('tokens-text')?.textContent ?? ''),
      );
    },
    seen: async (o, page) => [o.prompt, await page.locator('#tokens .cut').count()],
    want: [LONG, 0],
  },
  'clip-skip': {
    deeds: (hand, page) => hand.type(page, '#clip-skip', '2'),
    seen: o => o.clipSkip,
    want: 2,
  },
  img2img: {
    async deeds(hand, page) {
      await hand.press(page, '#start > summary');
      await hand.pick(page, '#image', await meadow(page, 96, 64));
      await page.waitForSelector('#editor:not([hidden])');
      await hand.type(page, '#strength', '0.4');
      await hand.choose(page, '#strength-steps', 'that share and one (AUTOMATIC1111)');
    },
    seen: o => [o.image.width, o.strength, o.strengthSteps, o.maskImage],
    want: [64, 0.4, 'a1111', undefined],
  },
  inpainting: {
    async deeds(hand, page) {
      await hand.press(page, '#start > summary');
      await hand.pick(page, '#image', await meadow(page, 64, 64));
      await page.waitForSelector('#editor:not([hidden])');
      await hand.paint(page, '#paint');
      await hand.type(page, '#mask-blur', '3');
      await hand.choose(page, '#masked-content', 'the colours around');
      await hand.choose(page, '#inpaint-area', 'only what is painted, enlarged');
      await hand.type(page, '#mask-padding', '16');
    },
    // A line of at least three brushes of 0.12.
    seen: o => [
      o.maskImage.white > 0.02 && o.maskImage.white < 0.1,
      o.maskBlur,
      o.maskedContent,
      o.inpaintArea,
      o.maskPadding,
    ],
    want: [true, 3, 'fill', 'masked', 16],
  },
  outpainting: {
    async deeds(hand, page) {
      await hand.press(page, '#start > summary');
      await hand.pick(page, '#image', await meadow(page, 64, 64));
      await page.waitForSelector('#editor:not([hidden])');
      await hand.type(page, '#extend-left', '16');
      await hand.type(page, '#extend-bottom', '8');
    },
    seen: o => [o.outpaint, o.maskImage],
    want: [{ left: 16, right: 0, top: 0, bottom: 8 }, undefined],
  },
  controlnets: {
    async deeds(hand, page) {
      await hand.press(page, '#guiding > summary');
      await hand.press(page, '#add-control');
      await hand.type(page, '#ControlNet-source-1', 'owner/canny');
      await hand.pick(page, '#ControlNet-image-1', await meadow(page, 64, 64));
      await hand.choose(page, '#ControlNet-preprocess-1', 'its edges (canny)');
      await hand.type(page, '#ControlNet-low-1', '40');
      await hand.press(page, '#controls > li:first-child .look');
      await page.waitForSelector('#controls .seen:not([hidden])');
      await hand.press(page, '#add-control');
      await hand.type(page, '#ControlNet-source-2', 'owner/scribble');
      await hand.choose(page, '#ControlNet-from-2', 'what I scribble here');
      await hand.paint(page, '#controls > li:nth-child(2) .scribble canvas');
      await hand.type(page, '#ControlNet-scale-2', '0.5');
      await hand.choose(page, '#guess-mode', 'more than the words (guess mode)');
    },
    seen: o => [
      o.controlnets.map((/** @type {any} */ c) => [c.source, c.preprocess, c.low, c.scale, c.image.white > 0.001]),
      o.guessMode,
    ],
    want: [
      [
        ['owner/canny', 'canny', 40, 1, true],
        ['owner/scribble', undefined, undefined, 0.5, true],
      ],
      true,
    ],
  },
  ipAdapters: {
    async deeds(hand, page) {
      await hand.press(page, '#likeness > summary');
      await hand.press(page, '#add-likeness');
      await hand.type(page, '#IPAdapter-source-1', 'https://example.org/ip-adapter-plus_sd15.safetensors');
      await hand.pick(page, '#IPAdapter-images-1', await meadow(page, 64, 64));
      await hand.type(page, '#IPAdapter-scale-1', '0.5');
    },
    seen: o =>
      o.ipAdapters.map((/** @type {any} */ a) => [a.source, a.imageEncoder.source, a.images[0].width, a.scale]),
    want: [
      [
        'https://example.org/ip-adapter-plus_sd15.safetensors',
        'https://huggingface.co/h94/IP-Adapter/resolve/main/models/image_encoder',
        64,
        0.5,
      ],
    ],
  },
  lora: {
    async deeds(hand, page) {
      await hand.press(page, '#additions > summary');
      await hand.press(page, '#add-lora');
      await hand.type(page, '#LoRA-source-1', 'https://example.org/style.safetensors');
      await hand.type(page, '#LoRA-scale-1', '0.5');
      await drawAgain(page, () => hand.press(page, '#generate'));
      assert.equal((await asked(page)).loras[0].scale, 0.5);
      await page.evaluate(() => {
        const w = /** @type {any} */ (window);
        w.before = w.browserDiffusion.pipeline;
      });
      await hand.type(page, '#LoRA-scale-1', '0.8');
    },
    seen: async (o, page) => [
      o.loras.map((/** @type {any} */ l) => [l.source, l.scale]),
      await page.evaluate(() => {
        const w = /** @type {any} */ (window);
        return w.before === w.browserDiffusion.pipeline;
      }),
    ],
    want: [[['https://example.org/style.safetensors', 0.8]], true],
  },
  'textual-inversion': {
    async deeds(hand, page) {
      await hand.press(page, '#additions > summary');
      await hand.press(page, '#add-embedding');
      await hand.type(page, '#word-token-1', 'thing');
      await hand.type(page, '#word-source-1', 'https://example.org/thing.pt');
    },
    seen: o => o.embeddings.map((/** @type {any} */ e) => [e.token, e.source]),
    want: [['thing', 'https://example.org/thing.pt']],
  },
  vae: {
    async deeds(hand, page) {
      await hand.press(page, '#additions > summary');
      await hand.press(page, '#add-vae');
      await hand.type(page, '#decoder-source-1', 'stabilityai/sd-vae-ft-mse');
    },
    seen: (_, page) =>
      page.evaluate(() => JSON.parse(/** @type {any} */ (window).browserDiffusion.pipeline.model.name).vae.source),
    want: 'stabilityai/sd-vae-ft-mse',
  },
  'tiny-vae': {
    async deeds(hand, page) {
      await hand.press(page, '.places a[href="#models"]');
      await hand.type(page, '#source', 'someone/model');
      await hand.press(page, '.places a[href="#draw"]');
      await hand.choose(page, '#preview', 'small decoder');
    },
    seen: o => [o.preview, o.tinyVae?.source],
    want: ['tiny', 'madebyollin/taesd'],
  },
  noise: {
    async deeds(hand, page) {
      await hand.press(page, '#chance > summary');
      await hand.type(page, '#variation-seed', '12');
      await hand.type(page, '#variation-strength', '0.25');
      await hand.press(page, '#own-seeds');
      await hand.type(page, '#seed-resize-width', '48');
      await hand.type(page, '#seed-resize-height', '96');
      await hand.choose(page, '#rng', 'torch on an NVIDIA card (A1111’s usual)');
    },
    seen: o => [o.variationSeed, o.variationStrength, o.generatorPerImage, o.seedResizeFrom, o.rng],
    want: [12, 0.25, false, [48, 96], 'torch-cuda'],
  },
  'hires-fix': {
    async deeds(hand, page) {
      await hand.press(page, '#bigger > summary');
      await hand.choose(page, '#hires-scale', '2 times');
      await hand.type(page, '#hires-strength', '0.5');
      await hand.type(page, '#hires-steps', '7');
      await hand.choose(page, '#hires-upscaler', 'the picture');
    },
    seen: o => o.hires,
    want: { scale: 2, strength: 0.5, steps: 7, upscaler: 'picture' },
  },
  batch: {
    deeds: (hand, page) => hand.type(page, '#count', '3'),
    async seen(o, page) {
      await page.waitForFunction(() => document.querySelectorAll('#gallery button').length === 3);
      return o.generatorPerImage;
    },
    want: true,
  },
  compare: {
    draws: true,
    async deeds(hand, page) {
      await hand.type(page, '#prompt', 'a red apple');
      await hand.press(page, '#grid > summary');
      await hand.choose(page, '#axis-x', 'Steps');
      await hand.type(page, '#values-x', '2, 4');
      await hand.choose(page, '#axis-y', 'Words');
      await hand.type(page, '#values-y', 'red, green');
      await hand.choose(page, '#axis-z', 'Guidance');
      await hand.type(page, '#values-z', '1, 7');
      await hand.press(page, '#draw-grid');
      await caption(page, /a grid of 8 pictures/);
    },
    seen: async (o, page) => [
      o.prompt,
      o.numInferenceSteps,
      o.guidanceScale,
      await page.locator('#gallery button').count(),
    ],
    want: ['a green apple', 4, 7, 9],
  },
  queue: {
    draws: true,
    async deeds(hand, page) {
      await hand.type(page, '#prompt', 'first holds at 1');
      await hand.type(page, '#steps', '900');
      await hand.press(page, '#generate');
      await hand.type(page, '#steps', '3');
      for (const words of ['second', 'third']) {
        await hand.type(page, '#prompt', words);
        await hand.press(page, '#enqueue');
      }
      await hand.press(page, '#queue li:first-child button');
      await hand.press(page, '#stop');
      await status(page, /^Done/);
    },
    seen: async (o, page) => [o.prompt, await page.locator('#gallery button').count(), await page.isHidden('#queue')],
    want: ['third', 1, true],
  },
};

/** Uses a tool, and looks at what came of it. @param {Page} page @param {string} name @param {string} by which hand */
async function use(page, name, by) {
  const { deeds, seen, want, draws } = tools[name];
  const hand = hands[by];
  await status(page, /^Ready/);
  await deeds(hand, page);
  if (!draws) await drawAgain(page, () => hand.press(page, '#generate'));
  await status(page, /^Done/);
  assert.deepEqual(await seen(await asked(page), page), want);
  if (by === 'touch') await page.screenshot({ path: `${folder}/${name}-${by}.png` }); // what the screen shows
  else await shot(page, `${name}-${by}`);
}

for (const name of Object.keys(tools)) {
  for (const by of ['mouse', 'keyboard']) {
    test(`${name}, by ${by}`, () => withPage({ height: 1000 }, async page => {
      page.on('filechooser', () => {}); // caught from now on, not only from a listener's first moment
      await use(page, name, by);
    }));
  }
}

// One browser for all of them, which forgets everything in between: they are many.
test('by touch, at 390 px', t => withPage({ width: 390, height: 740, touch: true }, async (page, _, { url }) => {
  page.on('filechooser', () => {});
  const session = await page.context().newCDPSession(page);
  const everything = { origin: new URL(url).origin, storageTypes: 'local_storage,indexeddb' };
  for (const name of Object.keys(tools)) {
    await t.test(name, () => use(page, name, 'touch'));
    await session.send('Storage.clearDataForOrigin', everything);
    await page.goto(url);
  }
}));
