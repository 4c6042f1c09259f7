// The first ten seconds: a picture's steps to look at before anything is fetched, what Generate will fetch, said before
// it does, and links that open with everything set. The engine is fake-engine.js; the bytes are the published page's.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';
import { hasResult, shot, site, status, withPage } from '../support/site.mjs';

/** @typedef {import('playwright-core').Page} Page */

/** What a first view may cost, in bytes as a server sends them that compresses nothing. */
const FIRST_VIEW = 300_000;

/** @param {Page} page */
const exampleIsThere = page => page.waitForFunction(() => document.querySelectorAll('#strip li').length === 21);
/** @param {Page} page */
const caption = page => page.innerText('#caption');
/** In the page, before all else: what the caption says, one after another. */
const watched = () => {
  const said = /** @type {string[]} */ ([]);
  Object.assign(window, { said });
  addEventListener('DOMContentLoaded', () => {
    const caption = /** @type {HTMLElement} */ (document.getElementById('caption'));
    new MutationObserver(() => said.push(caption.innerText)).observe(caption, { childList: true });
  });
};
/** @param {Page} page */
const pixels = page =>
  page.evaluate(() => /** @type {HTMLCanvasElement} */ (document.getElementById('canvas')).toDataURL());
/** @param {Page} page @param {string[]} ids */
const values = (page, ...ids) => Promise.all(ids.map(id => page.inputValue(`#${id}`)));

const visitors = [
  { who: 'of whose connection nothing is known', connection: {} },
  { who: 'who asked to save data', connection: { type: 'wifi', saveData: true } },
  { who: 'on mobile data', connection: { type: 'cellular' } },
];

for (const { who, connection } of visitors) {
  test(`a visitor ${who} is sent at most 300 kB before Generate, which says what it costs`, async t => {
    const server = await serve({ roots: { '/': site } });
    t.after(() => server.close());
    await withBrowser({ connection }, async context => {
      const page = await context.newPage();
      await page.goto(server.url);
      await status(page, /^Ready/);
      await exampleIsThere(page);
      await page.waitForSelector('#suggestions button');
      await page.waitForLoadState('networkidle');
      const sent = server.log.reduce((sum, request) => sum + request.sent, 0);
      t.diagnostic(`${sent} bytes in ${server.log.length} files`);
      assert.ok(sent <= FIRST_VIEW, `${sent} bytes`);
      const heavy = /^\/(pkg|worker\.js|embedded\/(?!concepts\.json))/;
      assert.deepEqual(server.log.filter(({ path }) => heavy.test(path)).map(({ path }) => path), []);
      assert.equal(await page.innerText('#generate-cost'), 'fetches 46 MB first, once');

      await page.click('#generate');
      await hasResult(page);
      assert.ok(server.log.some(({ path }) => heavy.test(path)), 'now it is fetched');
      assert.ok(await page.isHidden('#generate-cost'));
      // From now on it is kept, and costs nothing to load.
      await page.evaluate(async () => {
        await navigator.serviceWorker.ready;
        while (!navigator.serviceWorker.controller) await new Promise(done => setTimeout(done, 20));
      });
      await page.reload();
      await status(page, /^Ready/);
      assert.ok(await page.isHidden('#generate-cost'));
      assert.match((await page.textContent('#progress-text')) ?? '', /ready/, 'loaded by itself');
    });
  });
}

test('where the connection is not metered the model comes by itself', () =>
  withPage({}, async (page, requests) => {
    await status(page, /^Ready/);
    assert.ok(requests.some(url => url.endsWith('/pkg/browser_diffusion.js')));
    assert.ok(await page.isHidden('#generate-cost'));
  }));

test('what Generate is said to fetch is what lies there', () => {
  const folder = join(root, 'www/embedded');
  // What there is to practise with is fetched by those who use it.
  const model = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && !/embedded.(lora|controlnet)/.test(entry.parentPath))
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
  const engine = 2 ** 20; // gzipped, at most: size.test.mjs
  const { embedded } = JSON.parse(readFileSync(join(root, 'www/models.json'), 'utf8'));
  assert.ok(Math.abs(embedded.download - model - engine) < 1e6, `models.json: ${model + engine} is right`);
});

for (const [width, scheme] of /** @type {const} */ ([[1280, 'light'], [360, 'dark']])) {
  test(`the example is looked at step by step, by mouse and by keyboard, at ${width} px`, () =>
    withPage({ width, connection: {}, before: watched }, async page => {
      await page.emulateMedia({ colorScheme: scheme });
      await exampleIsThere(page);
      // It plays by itself.
      await page.waitForFunction(() =>
        /** @type {any} */ (window).said.some((/** @type {string} */ text) => text.startsWith('Step 2 of 20')),
      );
      await page.focus('#scrub');
      await page.keyboard.press('Home');
      assert.match(await caption(page), /^Step 1 of 20\s+timestep 999 · noise level σ ∞/);
      const noise = await pixels(page);
      await page.keyboard.press('ArrowRight');
      assert.match(await caption(page), /^Step 2 of 20\s+timestep 949 · noise level σ 40/);
      await page.keyboard.press('End');
      assert.match(await caption(page), /^a red apple\s+An example, drawn before from seed 1/);
      const picture = await pixels(page);
      assert.notEqual(picture, noise);
      await page.click('#strip li >> nth=0');
      assert.equal(await pixels(page), noise);
      const box = /** @type {{ x: number, y: number, width: number, height: number }} */ (
        await page.locator('#scrub').boundingBox()
      );
      await page.mouse.click(box.x + box.width - 4, box.y + box.height / 2);
      assert.equal(await pixels(page), picture);
      assert.equal(await page.getAttribute('#canvas', 'aria-label'), 'An example: a red apple');
      assert.ok(await page.isDisabled('#save'), 'it is nobody\'s picture');
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
      await shot(page, `first-view-${width}-${scheme}`);
      await page.click('#generate');
      await hasResult(page);
      assert.equal(await page.locator('#strip li').count(), 21, 'the visitor\'s own steps are in its place');
      assert.ok(await page.isEnabled('#save'));
    }));
}

/** In the page, before all else: less motion is asked for, and a step that is played is seen. */
function calm() {
  const real = matchMedia;
  window.matchMedia = query => (query.includes('motion') ? real('all') : real(query));
}

test('motion is not for everyone: the example stands still where less of it is asked for', () =>
  withPage({ connection: {}, before: calm }, async page => {
    await exampleIsThere(page);
    assert.match(await caption(page), /^a red apple/);
  }));

test('a link opens with everything set, keeps to what the fields take, and draws what it names', () => {
  const hash = '#p=a+cat,+(blue:1.2)%0Aasleep&seed=7&steps=9&guidance=4.5&width=64&height=48&scheduler=euler_a' +
    '&negative-prompt=dog&clip-skip=1&hires-scale=9&rng=dice&count=x&nonsense=1';
  return withPage({ connection: {}, hash }, async page => {
    await status(page, /^Ready/);
    const set = () => values(page, 'prompt', 'seed', 'steps', 'guidance', 'width', 'height', 'scheduler', 'clip-skip');
    const wanted = ['a cat, (blue:1.2)\nasleep', '7', '9', '4.5', '64', '48', 'euler_a', '1'];
    assert.deepEqual(await set(), wanted);
    const others = await values(page, 'negative-prompt', 'hires-scale', 'rng', 'count');
    assert.deepEqual(others, ['dog', '', 'torch-cpu', '1']);
    await page.click('#generate');
    await hasResult(page);
    const { parameters } = await page.evaluate(() => /** @type {any} */ (window).browserDiffusion.lastResult);
    assert.match(parameters, /^a cat, \(blue:1\.2\)\nasleep\nNegative prompt: dog\nSteps: 9, .*Seed: 7, Size: 64x48/);
    assert.deepEqual(await set(), wanted, 'the model that was loaded left them alone');
    await page.evaluate(() => { location.hash = '#p=a+dog'; });
    await page.waitForFunction(() => /** @type {any} */ (document.getElementById('prompt')).value === 'a dog');
    assert.deepEqual(await values(page, 'seed', 'steps', 'negative-prompt'), ['', '20', ''], 'as on a first visit');
  });
});
