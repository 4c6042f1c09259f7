// A visit to the page that needs no model: it fits the screen, is used by keyboard alone, keeps what was made, says
// what went wrong, and comes again without a network. The engine is fake-engine.js.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { drawAgain, goTo, hasResult, sheetFor, site, status, typeModel, withPage } from '../support/site.mjs';

/** A test that takes so long hangs; nothing else is judged by the clock. */
const timeout = 1_800_000;

for (const width of [360, 1280]) {
  test(`the page at ${width} px scrolls in one direction, before and after a picture`, { timeout }, () =>
    withPage({ width, height: 740 }, async page => {
      const widths = () =>
        page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      await status(page, /^Ready/);
      assert.deepEqual(await widths(), [width, width]);
      await page.fill('#prompt', 'a'.repeat(300));
      await sheetFor(page, '#steps');
      await page.fill('#steps', '50');
      assert.deepEqual(await widths(), [width, width]);
      await page.click('#generate');
      await hasResult(page);
      await sheetFor(page, '.places');
      await goTo(page, 'models');
      await page.waitForSelector('#cache-list button');
      assert.deepEqual(await widths(), [width, width]);
    }),
  );
}

test('every field has a name that is spoken', { timeout }, () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    const unnamed = await page.evaluate(() =>
      [...document.querySelectorAll('input, select, textarea, button')]
        .filter(
          e =>
            !(/** @type {HTMLInputElement} */ (e).labels?.length) &&
            !e.textContent?.trim() &&
            !e.getAttribute('aria-label'),
        )
        .map(e => e.outerHTML),
    );
    assert.deepEqual(unnamed, []);
  }),
);

test(
  'by keyboard alone: Enter draws, arrows look at the steps, Escape stops and brings the picture back',
  { timeout },
  () =>
    withPage({}, async page => {
      await status(page, /^Ready/);
      for (let i = 0; i < 8 && (await page.evaluate(() => document.activeElement?.id)) !== 'prompt'; i++)
        await page.keyboard.press('Tab');
      assert.equal(await page.evaluate(() => document.activeElement?.id), 'prompt');
      await page.keyboard.press('Control+A');
      await page.keyboard.type('a cat');
      await page.keyboard.press('Shift+Enter');
      await page.keyboard.type('asleep');
      await page.keyboard.press('Enter');
      await hasResult(page);
      const parameters = () => page.evaluate(() => /** @type {any} */ (window).browserDiffusion.lastResult.parameters);
      assert.match(await parameters(), /^a cat\nasleep\nSteps: 20/);
      const pixels = () =>
        page.evaluate(() => /** @type {HTMLCanvasElement} */ (document.getElementById('canvas')).toDataURL());
      const finished = await pixels();
      assert.equal(await page.locator('#strip li').count(), 21, 'twenty steps and the picture');
      await page.focus('#scrub');
      await page.keyboard.press('ArrowLeft');
      assert.match(await page.innerText('#caption'), /Step 20 of 20\s+timestep 979 · noise level σ 0\.00/);
      assert.notEqual(await pixels(), finished);
      await page.keyboard.press('Home');
      assert.match(await page.innerText('#caption'), /Step 1 of 20/);
      await page.keyboard.press('End');
      assert.equal(await pixels(), finished);
      await page.focus('#steps');
      await page.keyboard.press('Control+A');
      await page.keyboard.type('900');
      await page.keyboard.press('Control+Enter');
      await page.waitForFunction(() => document.getElementById('caption')?.textContent?.startsWith('Step 3'));
      assert.notEqual(await pixels(), finished, 'steps are shown as they happen');
      await page.keyboard.press('Escape');
      await status(page, /^Stopped after step/);
      assert.equal(await pixels(), finished);
      assert.equal(await page.locator('#strip li').count(), 21);
    }),
);

test('stopped before the first picture: the steps that were made can be looked at', { timeout }, () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await page.fill('#steps', '900');
    await page.click('#generate');
    await page.waitForFunction(() => document.getElementById('caption')?.textContent?.startsWith('Step 3'));
    await page.click('#stop');
    await status(page, /^Stopped after step/);
    const made = await page.locator('#strip li').count();
    assert.ok(made >= 3 && made < 900);
    await page.focus('#scrub');
    await page.keyboard.press('Home');
    await page.keyboard.press('ArrowRight');
    assert.match(await page.innerText('#caption'), /Step 2 of 900/);
    assert.equal(await page.getAttribute('#scrub', 'max'), String(made));
  }),
);

test('the canvas holds the picture, Save gives the PNG, the settings are there next time', { timeout }, () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await page.fill('#width', '64');
    await page.fill('#height', '48');
    await page.fill('#prompt', 'A Red, Apple!');
    await page.fill('#seed', '9');
    await page.selectOption('#scheduler', 'euler_a');
    assert.ok(await page.isDisabled('#save'));
    await page.click('#generate');
    await hasResult(page);
    assert.ok(
      await page.evaluate(() => {
        const canvas = /** @type {HTMLCanvasElement} */ (document.getElementById('canvas'));
        const [image] = /** @type {any} */ (window).browserDiffusion.lastResult.images;
        const shown = canvas.getContext('2d')?.getImageData(0, 0, canvas.width, canvas.height).data ?? [];
        return (
          canvas.width === 64 &&
          canvas.height === 48 &&
          image.data.every((/** @type {number} */ v, /** @type {number} */ i) => v === shown[i])
        );
      }),
      'pixel by pixel',
    );
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#save')]);
    assert.equal(download.suggestedFilename(), 'a-red-apple-9.png');
    await page.reload();
    assert.deepEqual(await Promise.all(['prompt', 'width', 'seed', 'scheduler'].map(id => page.inputValue(`#${id}`))), [
      'A Red, Apple!',
      '64',
      '9',
      'euler_a',
    ]);
  }),
);

test('errors stand beside the form; prompt and picture stay', { timeout }, () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await page.click('#generate');
    await hasResult(page);
    const pixels = () =>
      page.evaluate(() => /** @type {HTMLCanvasElement} */ (document.getElementById('canvas')).toDataURL());
    const finished = await pixels();
    /** @param {Record<string, string>} values @param {RegExp} message */
    const refused = async (values, message) => {
      for (const [id, value] of Object.entries(values)) await page.fill(`#${id}`, value);
      await page.click('#generate');
      await page.waitForFunction(
        source => new RegExp(source).test(document.getElementById('error')?.textContent ?? ''),
        message.source,
      );
      assert.ok(await page.isVisible('#error'));
      assert.equal(await pixels(), finished);
      for (const [id, value] of Object.entries(values)) assert.equal(await page.inputValue(`#${id}`), value);
    };
    await refused({ prompt: 'too big' }, /Too big.*smaller width/);
    await refused({ prompt: 'a', width: '65' }, /Width/);
    assert.equal(await page.evaluate(() => document.activeElement?.id), 'width');
    await refused({ width: '64', seed: 'abc' }, /Seed/);
    await typeModel(page, 'missing/model');
    await refused({ seed: '' }, /fetched.*404/);
    assert.equal(await page.inputValue('#source'), 'missing/model');
    await typeModel(page, 'embedded');
    await page.click('#generate');
    await status(page, /^Done/);
    assert.ok(await page.isHidden('#error'));
  }),
);

test('words that the model cannot read any more are named', { timeout }, () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await page.fill('#prompt', `${'a'.repeat(77)} and a dog`);
    await page.click('#reading > summary');
    await page.selectOption('#prompt-syntax', 'plain'); // A1111's reads any length
    await page.click('#generate');
    await status(page, /^Done/);
    assert.match(await page.innerText('#status'), /left out: “ ?and a dog”$/);
    assert.deepEqual(await page.evaluate(() => /** @type {any} */ (window).browserDiffusion.lastResult.truncated), [
      ' and a dog',
    ]);
    await page.fill('#prompt', 'a dog');
    await page.click('#generate');
    await status(page, /^Done.*Seed \d+\.$/);
  }),
);

test('suggestions fill the prompt', { timeout }, () =>
  withPage({}, async page => {
    await page.waitForSelector('#suggestions button');
    await page.click('#suggestions summary');
    const all = page.locator('#suggestions details button');
    assert.deepEqual(await all.allInnerTexts(), ['an apple', 'fire', 'a light bulb']);
    await all.nth(2).click();
    assert.equal(await page.inputValue('#prompt'), 'a light bulb');
  }),
);

test('without WebGPU the page names browsers that have it, and offers no form', { timeout }, () =>
  withPage(
    {
      width: 360,
      before: () => Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined }),
    },
    async (page, requests) => {
      await page.waitForSelector('#no-webgpu:not([hidden])');
      for (const browser of ['Chrome', 'Safari', 'Firefox'])
        assert.match(await page.innerText('#no-webgpu'), new RegExp(browser));
      for (const id of ['prompt', 'generate', 'canvas', 'source']) assert.ok(await page.isHidden(`#${id}`), id);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
      assert.deepEqual(
        requests.filter(url => /\/worker\.js$|\/embedded\//.test(url)),
        [],
        'nothing is loaded',
      );
    },
  ),
);

test(
  'after one visit a new version arrives with the next, and the page opens and draws without a network',
  { timeout },
  () =>
    withPage({}, async (page, requests, server) => {
      await status(page, /^Ready/);
      await page.evaluate(async () => {
        await navigator.serviceWorker.ready;
        if (!navigator.serviceWorker.controller)
          await new Promise(done => {
            navigator.serviceWorker.oncontrollerchange = done;
          });
      });
      const style = readFileSync(join(site, 'style.css'), 'utf8');
      writeFileSync(join(site, 'style.css'), `${style} body { --version: new; }`);
      const version = () => page.evaluate(() => getComputedStyle(document.body).getPropertyValue('--version'));
      await page.reload();
      assert.equal(await version(), 'new');
      writeFileSync(join(site, 'style.css'), style);
      server.close();
      await page.reload();
      await status(page, /^Ready/);
      assert.equal(await version(), 'new', 'the set of the last visit');
      await page.click('#generate');
      await hasResult(page);
    }),
);

test('a first picture says that it prepares the GPU, a second has no need to', () =>
  withPage({}, async page => {
    await page.evaluate(() => {
      const shown = /** @type {HTMLElement} */ (document.getElementById('progress-text'));
      /** @type {string[]} */
      const texts = [];
      new MutationObserver(() => texts.push(shown.textContent ?? '')).observe(shown, { childList: true });
      Object.assign(window, { texts });
    });
    const said = async () => {
      await page.fill('#prompt', 'a cat');
      await drawAgain(page);
      const texts = await page.evaluate(() => /** @type {string[]} */ (/** @type {any} */ (window).texts).splice(0));
      return texts.filter(text => /reading your words/.test(text));
    };
    assert.deepEqual(await said(), ['reading your words, preparing the GPU']);
    assert.deepEqual(await said(), ['reading your words']);
  }));
