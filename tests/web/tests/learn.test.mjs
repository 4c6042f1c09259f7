// The page that explains diffusion, with the real engine and the model that comes with the page: every chapter plays by
// itself when it is seen, works by keyboard, at 360 pixels, and its link reproduces it; without WebGPU what needs none
// works and the rest says why; what is wrong is said, with a way on. Screenshots: .tools/screenshots.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { violations } from '../support/languages.mjs';
import { serve } from '../support/serve.mjs';

/** @typedef {import('playwright-core').Page} Page */

const folder = join(root, '.tools/screenshots');
mkdirSync(folder, { recursive: true });

const DRAWING = ['uses', 'guess', 'steps', 'words', 'practice'];
const CHAPTERS = ['uses', 'spoil', 'guess', 'steps', 'train', 'words', 'practice'];

/**
 * @param {{ width?: number, hash?: string, page?: string, before?: () => void, dark?: boolean, still?: boolean,
 *   connection?: import('../support/browser.mjs').Connection }} how
 * @param {(page: Page, requests: string[], url: string) => Promise<void>} work
 */
async function withLearn(how, work) {
  const { width = 1200, hash = '', page: name = 'learn.html', before, dark, still, connection } = how;
  const server = await serve(join(root, 'www'));
  try {
    await withBrowser({ connection }, async context => {
      const page = await context.newPage();
      /** @type {string[]} */
      const requests = [];
      page.on('request', request => requests.push(request.url()));
      await page.setViewportSize({ width, height: 800 });
      await page.emulateMedia({
        colorScheme: dark ? 'dark' : 'light', reducedMotion: still ? 'reduce' : 'no-preference',
      });
      if (before) await page.addInitScript(before);
      await page.goto(`${server.url}${name}${hash}`);
      await wired(page);
      await work(page, requests, server.url);
    });
  } finally {
    server.close();
  }
}

/** What an address asks for stands there. @param {Page} page */
const wired = page => page.waitForFunction(() => document.body.dataset.ready);

/** @param {Page} page @param {string} id */
const see = (page, id) => page.evaluate(async id => {
  const figure = document.querySelector(`#${id} > figure`);
  scrollTo(0, (figure?.getBoundingClientRect().top ?? 0) + scrollY - 200);
  // That it is seen now, the page hears between two frames.
  for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
}, id);

/** @param {Page} page @param {string} id @param {string} [state] */
const reaches = (page, id, state = 'played') =>
  page.waitForFunction(([id, state]) => document.getElementById(id)?.dataset.state === state, [id, state]);

/** Hash of what a canvas shows. @param {Page} page @param {string} selector */
const pixels = (page, selector) => page.evaluate(selector => {
  const canvas = /** @type {HTMLCanvasElement} */ (document.querySelector(selector));
  const { data } = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'))
    .getImageData(0, 0, canvas.width, canvas.height);
  return data.reduce((hash, value) => (Math.imul(hash, 31) + value) | 0, 7);
}, selector);

/** No canvas of a chapter is of one colour. @param {Page} page @param {string} id */
const drawn = (page, id) => page.evaluate(id => [
  ...document.querySelectorAll(`#${id} .scene canvas:not(#doodle, #sketch, [hidden] *)`),
]
  .map(one => /** @type {HTMLCanvasElement} */ (one)).every(canvas => {
    const { data } = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'))
      .getImageData(0, 0, canvas.width, canvas.height);
    return data.some((value, i) => value !== data[i % 4]);
  }), id);

/** @param {Page} page */
const sideways = page => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);

/** How the sliders are moved: away from where their experiments leave them. */
const KEYS = {
  uses: ['ArrowRight', 'ArrowRight'], spoil: ['ArrowRight', 'ArrowRight'], guess: ['ArrowRight', 'ArrowRight'],
  steps: ['Home', 'ArrowRight'], words: ['Home', 'ArrowRight'], practice: ['ArrowRight', 'ArrowRight'],
};

/** What the page says of each of its questions, in the part that the answer links to. */
const TOLD = [
  /Mix a little chance into every point/, /A quarter: at step 500/, /says what of it is noise/,
  /A blur\. Of all pictures that it could be, the mean/, /One guess from pure noise is a blur/,
  /DDPM throws in fresh noise at each step/, /A GAN: a forger against a judge/,
  /the VAE has to fill the gaps, for its code has no holes/,
  /goes further in that direction than the words alone/, /Make the picture smaller first.*weights in 8 or 4 bits/,
];

/** How far training is. @param {Page} page @param {number} step */
const trained = (page, step) =>
  page.waitForFunction(step => Number(document.getElementById('train')?.dataset.step ?? 0) >= step, step);

test('every chapter plays by itself at 360 pixels, in light and dark; its link reproduces it', () =>
  withLearn({ width: 360, dark: true }, async (page, _, url) => {
    // Not what the page begins with: links have to tell it.
    await page.fill('#prompt', 'a cat');
    await page.press('#prompt', 'Enter');
    for (const id of CHAPTERS) {
      await see(page, id);
      if (id === 'train') await trained(page, 50);
      else await reaches(page, id);
      assert.ok(await drawn(page, id), `${id} is drawn`);
      await page.locator(`#${id}`).screenshot({ path: join(folder, `learn-${id}-360-dark.png`) });
    }
    assert.ok(await sideways(page) <= 0, 'nothing reaches beyond the side');
    assert.deepEqual(await violations(page), []);

    // By keyboard: what is tried, the slider, then the link, and what the link shows elsewhere.
    const first = {
      uses: '[data-use=night]', spoil: '.shown', guess: '[data-tile=cond]', steps: '[data-big=ddpm]',
      words: '[data-words=latents]', practice: 'figure:last-child > canvas',
    };
    for (const [id, selector] of Object.entries(first)) {
      await see(page, id);
      if (id === 'practice') {
        await page.focus('[data-experiment=strength]');
        await page.keyboard.press('Enter');
        await reaches(page, id);
      }
      await page.focus(`#${id} input[type=range]`);
      const before = await pixels(page, `#${id} ${selector}`);
      for (const key of KEYS[/** @type {keyof typeof KEYS} */ (id)]) await page.keyboard.press(key);
      await page.waitForFunction(id => document.getElementById(id)?.dataset.state !== 'playing', id);
      if (id !== 'spoil') await reaches(page, id);
      const after = await pixels(page, `#${id} ${selector}`);
      assert.notEqual(after, before, `${id}: the slider changes the picture`);
      const link = await page.getAttribute(`#${id} .link`, 'href') ?? '';
      const other = await page.context().newPage();
      await other.setViewportSize({ width: 1200, height: 800 });
      await other.goto(`${url}learn.html${link}`);
      await wired(other);
      await see(other, id);
      await reaches(other, id);
      const slider = await page.inputValue(`#${id} input[type=range]`);
      assert.equal(await other.inputValue(`#${id} input[type=range]`), slider, `${id}: ${link}`);
      if (id === 'practice')
        assert.equal(await other.getAttribute('[data-experiment=strength]', 'aria-pressed'), 'true');
      assert.equal(await pixels(other, `#${id} ${selector}`), after, `${id}: the same picture`);
      await other.close();
    }
  }),
);

test('a guess is answered, by keyboard; the chapters are short; the curve is the engine’s', () =>
  withLearn({ still: true }, async page => {
    for (const id of CHAPTERS) {
      assert.ok(await page.isHidden(`#${id} .answer`), `${id} gives nothing away`);
      await page.focus(`#${id} [data-guess=b]`);
      await page.keyboard.press('Enter');
      assert.ok(await page.isVisible(`#${id} .answer`), id);
      const words = (await page.innerText(`#${id} .told > p`)).split(/\s+/).length;
      assert.ok(words <= 80, `${id}: ${words} words`);
      assert.equal(await page.locator(`#${id} input[type=range]`).count(), 1, `${id} has one slider`);
      assert.ok(await page.locator(`#${id} math`).count() > 0, `${id} has a formula`);
    }
    await page.waitForFunction(() => document.getElementById('fetch')?.hidden);
    const off = await page.evaluate(async () => {
      const at = (/** @type {string} */ path) => new URL(path, location.href).href;
      const { DiffusionPipeline } = await import(at('browser-diffusion.js'));
      const { alphasCumprod } = await import(at('learn/chance.js'));
      const pipeline = await DiffusionPipeline.fromPretrained('embedded');
      const theirs = (await pipeline.schedule()).alphasCumprod;
      await pipeline.dispose();
      return Math.max(...alphasCumprod.map((/** @type {number} */ ours, /** @type {number} */ i) =>
        Math.abs(ours - theirs[i])));
    });
    // f32 against f64: a product of a thousand factors, each rounded to 2^-24.
    assert.ok(off < 1000 * 2 ** -24, String(off));
  }),
);

test('without WebGPU two chapters work, and the others say why and what would be seen', () =>
  withLearn({ before: () => Object.defineProperty(Navigator.prototype, 'gpu', { value: undefined }) }, async page => {
    await page.waitForFunction(() => !document.getElementById('error')?.hidden);
    assert.match(await page.innerText('#error'), /WebGPU/);
    for (const id of DRAWING) {
      await see(page, id);
      await page.waitForSelector(`#${id} .without:not([hidden])`);
      assert.match(await page.innerText(`#${id} .waits`), /WebGPU/);
      assert.ok(await page.isHidden(`#${id} .scene`));
    }
    await see(page, 'spoil');
    await reaches(page, 'spoil');
    await see(page, 'train');
    await trained(page, 50);
    assert.ok(await drawn(page, 'train'));
  }),
);

test('the model is fetched when the visitor says so, where a connection may cost something', () =>
  withLearn({ connection: { type: 'cellular' } }, async (page, requests) => {
    await page.waitForSelector('#fetch:not([hidden])');
    await see(page, 'uses');
    await page.waitForSelector('#uses .waits button');
    assert.ok(!requests.some(url => /embedded\/.*safetensors/.test(url)), 'nothing is fetched unasked');
    assert.ok(await page.isVisible('#uses .without'));
    await page.focus('#uses .waits button');
    await page.keyboard.press('Enter');
    await page.waitForSelector('#uses .scene:not([hidden])');
    assert.ok(requests.some(url => /embedded\/.*safetensors/.test(url)));
  }),
);

test('training: by keyboard, a link, a drawing of no points, and one that diverges', () =>
  withLearn({ before: () => Object.defineProperty(Navigator.prototype, 'gpu', { value: undefined }),
    hash: '#train&data=clusters&seed=3' }, async page => {
    assert.equal(await page.inputValue('#train-data'), 'clusters');
    assert.equal(await page.inputValue('#train-seed'), '3');
    await see(page, 'train');
    await trained(page, 10);
    await page.focus('#train-play');
    await page.keyboard.press('Enter');
    await reaches(page, 'train');
    assert.equal(await page.getAttribute('#train', 'data-playing'), 'false');
    const at = Number(await page.getAttribute('#train', 'data-step'));
    await page.focus('#train-step');
    await page.keyboard.press('Enter');
    await trained(page, at + 1);
    await reaches(page, 'train');
    assert.equal(Number(await page.getAttribute('#train', 'data-step')), at + 1, 'one step is one');

    await page.selectOption('#train-data', 'drawn');
    await page.click('#doodle-train');
    await reaches(page, 'train', 'failed');
    assert.match(await page.innerText('#train > figure > .scene + .error'), /two different/);
    // Drawn by keyboard, then learnt.
    await page.focus('#doodle');
    await page.keyboard.press(' ');
    for (let i = 0; i < 6; i++) await page.keyboard.press('Shift+ArrowRight');
    for (let i = 0; i < 6; i++) await page.keyboard.press('Shift+ArrowUp');
    await page.click('#doodle-train');
    await page.waitForFunction(() => Number(document.getElementById('train')?.dataset.step) >= 20);
    assert.ok(await page.isHidden('#train > figure > .scene + .error'));

    await page.selectOption('#train-data', 'spiral');
    await page.selectOption('#train-rate', '1');
    await page.waitForSelector('#train .panel .error:not([hidden])');
    assert.match(await page.innerText('#train .panel .error:not([hidden])'), /diverged/);
    await page.click('#train .panel .error:not([hidden]) button');
    assert.equal(await page.inputValue('#train-rate'), 'usual');
    await trained(page, 20);
    assert.equal(await page.locator('#train .panel .error:not([hidden])').count(), 0);
  }),
);

test('drawings are learnt: by mouse, by keyboard, taken away, none at all', () =>
  withLearn({ before: () => Object.defineProperty(Navigator.prototype, 'gpu', { value: undefined }) }, async page => {
    await see(page, 'train');
    await trained(page, 10);
    await page.click('#train-play'); // it would take half of the time
    const count = () => page.locator('#sketch-drawings li').count();
    const told = (/** @type {RegExp} */ what) => page.waitForFunction(
      source => new RegExp(source).test(document.getElementById('sketch-told')?.textContent ?? ''), what.source);
    assert.equal(await count(), 8);
    await page.click('#sketch-add');
    await told(/blank/);
    // A line by mouse, one by keyboard.
    const at = await page.locator('#sketch').boundingBox();
    assert.ok(at);
    await page.mouse.move(at.x + at.width / 4, at.y + at.height / 2);
    await page.mouse.down();
    await page.mouse.move(at.x + 3 * at.width / 4, at.y + at.height / 2);
    await page.mouse.up();
    await page.focus('#sketch');
    for (const key of [' ', ...Array(5).fill('Shift+ArrowDown')]) await page.keyboard.press(key);
    const ink = await page.evaluate(() => {
      const pad = /** @type {HTMLCanvasElement} */ (document.getElementById('sketch'));
      const { data } = /** @type {CanvasRenderingContext2D} */ (pad.getContext('2d')).getImageData(0, 0, 16, 16);
      return data.filter((value, i) => i % 4 === 0 && value < 100).length;
    });
    assert.ok(ink >= 12 && ink <= 14, `${ink} pixels: nine of the line less the one taken away, five below`);
    await page.click('#sketch-add');
    await told(/^9 drawings/);
    for (let left = 8; left >= 2; left--) await page.locator('#sketch-drawings button').first().click();
    await told(/^2 drawings/);
    await page.focus('#sketch-learn');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => Number(document.getElementById('sketch-samples')?.dataset.step) >= 200);
    await page.click('#sketch-learn');
    assert.ok(await drawn(page, 'train'));
    await page.locator('.sketches').screenshot({ path: join(folder, 'learn-sketches.png') });
    const differ = await page.locator('#sketch-samples figcaption').allInnerTexts();
    assert.equal(differ.length, 8);
    const mean = differ.reduce((sum, text) => sum + Number.parseInt(text, 10), 0) / 8;
    assert.ok(mean <= 6, `two drawings are known by heart after 200 steps: ${differ}`);
    for (let left = 1; left >= 0; left--) await page.locator('#sketch-drawings button').first().click();
    assert.equal(await count(), 0);
    assert.ok(await page.isDisabled('#sketch-learn'));
  }),
);

test('a picture that is none is refused, and the one before stays; ten questions, before and after', () =>
  withLearn({ connection: { type: 'cellular' } }, async page => {
    await page.waitForSelector('#fetch:not([hidden])');
    const before = await pixels(page, '#subject');
    await page.setInputFiles('#picture', { name: 'x.png', mimeType: 'image/png', buffer: Buffer.from('no') });
    await page.waitForSelector('#subject-error:not([hidden])');
    assert.match(await page.innerText('#subject-error'), /no picture/);
    assert.equal(await pixels(page, '#subject'), before);
    await page.setInputFiles('#picture', join(root, 'www/example/steps.webp'));
    await page.waitForSelector('#subject-error', { state: 'hidden' });
    await page.waitForFunction(before => {
      const canvas = /** @type {HTMLCanvasElement} */ (document.getElementById('subject'));
      const { data } = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d')).getImageData(0, 0, 128, 128);
      return data.reduce((hash, value) => (Math.imul(hash, 31) + value) | 0, 7) !== before;
    }, before);

    for (const when of ['before', 'after']) {
      await page.click(`#${when} summary`);
      const questions = page.locator(`#${when} .questions > li`);
      assert.equal(await questions.count(), 10);
      for (let i = 0; i < 10; i++) {
        await questions.nth(i).locator('button').first().focus();
        await page.keyboard.press('Enter');
      }
    }
    assert.match(await page.innerText('#after .score'), /3 of 10 right now; 3 before/);
    // Each answer links to where the page tells it.
    const links = await page.locator('#after .questions a').all();
    assert.equal(links.length, TOLD.length);
    for (const [i, link] of links.entries()) {
      const href = await link.getAttribute('href') ?? '';
      const told = href.startsWith('#')
        ? await page.textContent(href)
        : await page.evaluate(async href => (await (await fetch(href)).text()).replace(/\s+/g, ' '), href);
      assert.match(told ?? '', TOLD[i]);
    }
    await page.click('#words-view summary');
    assert.equal(await page.locator('#glossary tr').count(), 40);
    assert.ok(await sideways(page) <= 0);
  }),
);

test('in Chinese: every text is, and nothing reaches beyond the side of a phone', () =>
  withLearn({ page: 'zh/learn.html', width: 360, connection: { type: 'cellular' } }, async page => {
    await page.waitForSelector('#fetch:not([hidden])');
    await page.click('#before summary');
    await page.click('#words-view summary');
    const left = await page.evaluate(() => {
      const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      const found = [];
      while (walk.nextNode()) {
        const { parentElement, textContent } = walk.currentNode;
        if (parentElement?.closest('[translate=no], [lang=en], math, code, script, noscript')) continue;
        // Three words of letters in a row are a sentence, unless they are names.
        if (/[a-z]+ [a-z]+ [a-z]+/.test(textContent ?? '')) found.push(textContent);
      }
      return found;
    });
    assert.deepEqual(left, []);
    assert.ok(await sideways(page) <= 0);
    for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
      await page.emulateMedia({ colorScheme });
      assert.deepEqual(await violations(page), [], colorScheme);
    }
    await page.screenshot({ path: join(folder, 'learn-zh-360.png') });
  }),
);
