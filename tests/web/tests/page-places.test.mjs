// The page's places, and how many settings are shown; presets, words cleared, two pictures compared, and what is asked for
// only when it is needed. By mouse and by keyboard; the engine is fake-engine.js. Screenshots: .tools/screenshots.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { violations } from '../support/languages.mjs';
import { asked, drawAgain, goOn, goTo, hasResult, shot, status, typeModel, withPage, www } from '../support/site.mjs';

/** @typedef {import('playwright-core').Page} Page */

/** @param {Page} page */
const focused = page => page.evaluate(() => document.activeElement?.id);
/** @param {Page} page @param {string[]} ids */
const values = (page, ...ids) => Promise.all(ids.map(id => page.inputValue(`#${id}`)));
const PRESET = ['width', 'height', 'steps', 'guidance', 'scheduler', 'negative-prompt'];

test('the models have an address; going there and back stops no drawing, and the way back is one key', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await page.fill('#prompt', 'a cat holds at 2');
    await page.click('#generate');
    await page.waitForFunction(() => /^step 2/.test(document.getElementById('progress-text')?.textContent ?? ''));
    await page.focus('.places a[href="#models"]');
    await page.keyboard.press('Enter');
    await page.waitForSelector('#models-list dd');
    assert.match(page.url(), /#models$/);
    assert.match(await page.title(), /^Models · /);
    assert.equal(await page.getAttribute('.places [aria-current]', 'href'), '#models');
    assert.equal(await focused(page), 'models-title');
    assert.ok(await page.isHidden('#prompt'));
    assert.ok(await page.isVisible('#status'), 'what is drawn is told of here too');
    await page.keyboard.press('Control+Enter');
    await goOn(page);
    await status(page, /^Done/);
    await page.goBack();
    assert.ok(await page.isVisible('#prompt'));
    assert.equal((await asked(page)).prompt, 'a cat holds at 2');
    assert.equal(await page.locator('#gallery button').count(), 1, 'no key has drawn out of sight');
    // One opened by its address, and one that does not shut the other.
    await page.goto(page.url().replace(/#.*|$/, '#models'));
    await page.reload();
    await page.waitForSelector('#models-list dd');
    await page.click('#models-list li:nth-child(3) button');
    assert.ok(await page.isVisible('#prompt'), 'to choose one leads back');
    const { models } = JSON.parse(readFileSync(join(www, 'models.json'), 'utf8'));
    assert.equal(await page.inputValue('#catalogue'), models[1].source);
    const { width, steps } = models[1].defaults;
    assert.deepEqual(await values(page, 'width', 'steps'), [width, steps].map(String));
    await goTo(page, 'models');
    await page.waitForSelector('#models-list li:nth-child(3) [aria-pressed=true]');
  }));

test('a link opened before does not set the form again on the way back from the models', () =>
  withPage({ hash: '#p=a+cat&seed=7' }, async page => {
    await status(page, /^Ready/);
    await page.fill('#prompt', 'a dog');
    await goTo(page, 'models');
    await page.goBack();
    assert.deepEqual(await values(page, 'prompt', 'seed'), ['a dog', '7']);
  }));

test('an access token is asked for when a model answers 401, and is out of sight before', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    assert.ok(await page.isHidden('#token'));
    await typeModel(page, 'someone/gated');
    assert.equal(await page.locator('#catalogue option:checked').innerText(), 'someone/gated');
    await page.click('#generate');
    await page.waitForSelector('#token:not([hidden])');
    assert.match(await page.innerText('#error'), /HTTP 401/);
    assert.deepEqual(await violations(page), []);
    await page.fill('#token', 'hf_mine');
    await page.click('#generate');
    await hasResult(page);
    assert.ok(!(await page.evaluate(() => JSON.stringify({ ...localStorage }))).includes('hf_mine'));
  }));

test('settings: few at first, the choice is remembered, and nothing that is set is out of sight unsaid', () =>
  withPage({ level: '' }, async page => {
    await status(page, /^Ready/);
    for (const id of ['catalogue', 'width', 'negative-prompt', 'seed', 'count'])
      assert.ok(await page.isVisible(`#${id}`), id);
    for (const id of ['steps', 'scheduler', 'clip-skip', 'bigger', 'grid'])
      assert.ok(await page.isHidden(`#${id}`), id);
    assert.equal(await page.locator('.also a:visible').count(), 0);
    await shot(page, 'level-simple');
    await page.focus('#levels button');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    assert.ok(await page.isVisible('#steps'));
    assert.ok(await page.isHidden('#clip-skip'));
    await page.fill('#steps', '7');
    await page.click('#levels button:first-child');
    await page.waitForFunction(() => /Steps\.$/.test(document.getElementById('levels-note')?.textContent ?? ''));
    // What is wrong comes into sight; what was chosen is remembered still.
    await page.evaluate(() => { /** @type {HTMLInputElement} */ (document.getElementById('steps')).value = '0'; });
    await page.click('#generate');
    await page.waitForFunction(() => document.activeElement?.id === 'steps');
    assert.match(await page.innerText('#error'), /Steps: at least 1/);
    await page.fill('#steps', '20');
    await page.click('#levels button:last-child');
    assert.ok(await page.isVisible('#clip-skip'));
    assert.equal(await page.innerText('#levels-note'), '');
    await page.reload();
    assert.ok(await page.isVisible('#clip-skip'));
  }));

test('the word of other programs stands beside ours, and leads to it in the glossary', () =>
  withPage({}, async (page, _, server) => {
    const links = await page.evaluate(() => [...document.querySelectorAll('.also a')].map(link =>
      ({ href: link.getAttribute('href') ?? '', words: (link.textContent ?? '').split(' · ') })));
    assert.ok(links.length >= 20);
    await page.goto(`${server.url}${links[0].href}`);
    await page.waitForFunction(() => document.body.dataset.ready);
    assert.ok(await page.isVisible(links[0].href.replace('learn.html', '')), 'its row is seen');
    for (const { href, words } of links) {
      const row = await page.textContent(`${href.replace('learn.html', '')}`) ?? '';
      for (const word of words) assert.ok(row.includes(word), `${href}: ${word}`);
    }
  }));

test('a preset sets six settings; what was there comes back; own presets are kept', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await page.fill('#negative-prompt', 'mine');
    const before = await values(page, ...PRESET);
    await page.focus('#preset');
    await page.keyboard.type('SDXL');
    assert.deepEqual((await values(page, ...PRESET)).slice(0, 5), ['1024', '1024', '30', '6', 'dpmpp_2m_karras']);
    assert.notEqual(await page.inputValue('#negative-prompt'), 'mine');
    await page.click('#preset-undo');
    assert.deepEqual(await values(page, ...PRESET), before);
    assert.equal(await focused(page), 'preset');
    await page.click('#preset-keep');
    assert.match(await page.innerText('#error'), /name first/);
    await page.fill('#preset-name', 'My cats');
    await page.click('#preset-keep');
    await page.selectOption('#preset', 'usual');
    assert.deepEqual((await values(page, ...PRESET)).slice(2), ['20', '3', '', '']);
    await page.reload();
    await page.selectOption('#preset', { label: 'My cats' });
    assert.deepEqual(await values(page, ...PRESET), before);
    await page.click('#preset-delete');
    assert.equal(await page.locator('#presets-own option').count(), 0);
    // Every sampler that a preset names there is.
    const named = await page.evaluate(() => [...document.querySelectorAll('#presets-kinds option')].map(option =>
      JSON.parse(/** @type {HTMLOptionElement} */ (option).value).scheduler));
    for (const name of named) assert.equal(await page.locator(`#scheduler option[value="${name}"]`).count(), 1, name);
  }));

test('words are cleared with one press, and come back with the next', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await page.fill('#prompt', 'a cat');
    await page.fill('#negative-prompt', 'a dog');
    await page.focus('#clear-words');
    await page.keyboard.press('Enter');
    assert.deepEqual(await values(page, 'prompt', 'negative-prompt'), ['', '']);
    await page.keyboard.press('Enter');
    assert.deepEqual(await values(page, 'prompt', 'negative-prompt'), ['a cat', 'a dog']);
    assert.equal(await page.innerText('#clear-words'), 'Clear the words');
  }));

test('two pictures are compared: a slider between them, and the settings in which they differ', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    for (const [prompt, seed, steps] of [['a cat', '1', '2'], ['a cat', '2', '4']]) {
      for (const [id, value] of Object.entries({ prompt, seed, steps })) await page.fill(`#${id}`, value);
      await drawAgain(page);
      await status(page, /^Done/);
    }
    await page.click('#use-compare');
    await status(page, /is the first\. Choose another/);
    await page.click('#gallery li:nth-child(2) button');
    await page.waitForSelector('#compare-settings tr');
    const rows = await page.locator('#compare-settings tr').allInnerTexts();
    assert.deepEqual(rows.map(row => row.split('\t')), [['Steps', '4', '2'], ['Seed', '2', '1']]);
    await page.focus('#compare-slider');
    await page.keyboard.press('Home');
    const at = () => page.evaluate(() => document.getElementById('compare-stage')?.style.getPropertyValue('--at'));
    assert.equal(await at(), '0%');
    const stage = page.locator('#compare-stage');
    await stage.scrollIntoViewIfNeeded();
    const { x, y, width } = /** @type {any} */ (await stage.boundingBox());
    await page.mouse.move(x + width * 0.1, y + 20);
    await page.mouse.down();
    await page.mouse.move(x + width * 0.75, y + 20);
    await page.mouse.up();
    assert.ok(Math.abs(parseFloat(await at() ?? '') - 75) < 1, await at());
    for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
      await page.emulateMedia({ colorScheme });
      assert.deepEqual(await violations(page), []);
      await shot(page, `compare-${colorScheme}`);
    }
    await page.click('#compare-close');
    assert.ok(await page.isHidden('#compare'));
    assert.equal(await focused(page), 'use-compare');
  }));

test('strokes are taken back and painted again, by button and by keys', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await drawAgain(page);
    await page.click('#redraw');
    await page.waitForSelector('#editor:not([hidden])');
    const white = async () => {
      await drawAgain(page, () => page.keyboard.press('Control+Enter'));
      return (await asked(page)).maskImage?.white ?? 0;
    };
    assert.ok(await page.isDisabled('#undo-paint'));
    await page.focus('#paint');
    await page.keyboard.press(' ');
    const one = await white();
    assert.ok(one > 0);
    await page.focus('#paint');
    for (let i = 0; i < 3; i++) await page.keyboard.press('Shift+ArrowRight');
    assert.ok(await white() > one);
    await page.focus('#paint');
    for (let i = 0; i < 3; i++) await page.keyboard.press('Control+z');
    assert.equal(await white(), one);
    await page.click('#undo-paint');
    assert.equal(await white(), 0);
    await page.click('#redo-paint');
    assert.equal(await white(), one);
    await page.focus('#paint');
    await page.keyboard.press('Control+Shift+z');
    assert.ok(await white() > one);
    await page.click('#clear-paint');
    await page.click('#undo-paint');
    assert.ok(await white() > one, 'what was cleared comes back');
  }));

test('a text that is too long to be a prompt is refused in words, and nothing is lost; one of settings is read', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await page.fill('#prompt', 'a cat');
    const paste = (/** @type {string} */ head, /** @type {number} */ length) => page.evaluate(([head, length]) => {
      const clipboardData = new DataTransfer();
      clipboardData.setData('text/plain', head + 'x'.repeat(Number(length)));
      const event = new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true });
      document.getElementById('prompt')?.dispatchEvent(event);
    }, /** @type {const} */ ([head, length]));
    for (const head of ['', 'a dog\nSteps: 5, Sampler: Euler, Seed: 3\n']) {
      await page.evaluate(() => document.getElementById('error')?.toggleAttribute('hidden', true));
      await paste(head, 10_000_000);
      await page.waitForSelector('#error:not([hidden])');
      assert.match(await page.innerText('#error'), /letters, and a prompt at most 10,000: nothing of it is taken/);
      assert.deepEqual(await values(page, 'prompt', 'seed'), ['a cat', '']);
    }
    await paste('a dog\nSteps: 5, Sampler: Euler, CFG scale: 7, Seed: 3, Size: 64x64', 0);
    await page.waitForFunction(() => /** @type {HTMLInputElement} */ (document.getElementById('seed')).value === '3');
    assert.equal(await page.inputValue('#prompt'), 'a dog');
  }));

test('a model that predicts another thing than it is taken for: the page says so, and the model place changes it', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await typeModel(page, 'someone/old.safetensors');
    await page.fill('#prompt', 'a cat');
    await page.click('#generate');
    await status(page, /^Done/);
    assert.doesNotMatch(await page.innerText('#status'), /predicts/, 'latents of a picture say nothing');
    await page.fill('#prompt', 'glaring');
    await page.click('#generate');
    await status(page, /predicts another thing .* under Models, change “What it predicts”/);
    const loadedAs = () => page.evaluate(() =>
      JSON.parse(/** @type {any} */ (window).browserDiffusion.pipeline.model.name).predictionType);
    assert.equal(await loadedAs(), undefined, 'as its files say');

    // By mouse; the next picture loads the model so.
    await goTo(page, 'models');
    await page.selectOption('#prediction', { label: 'velocity (v_prediction)' });
    await goTo(page, 'draw');
    await page.fill('#prompt', 'a dog');
    await page.click('#generate');
    await page.waitForFunction(() =>
      /** @type {any} */ (window).browserDiffusion.lastResult.options.prompt === 'a dog');
    assert.equal(await loadedAs(), 'v_prediction');
    // It was said of that model, and not of the next.
    await typeModel(page, 'someone/else.safetensors');
    assert.equal(await page.inputValue('#prediction'), '');
  }));
