// Chinese words for a model that learnt from English captions, where the browser translates by itself: asked first, shown,
// changed, drawn. Chromium has no translator on Linux without a window: a stand-in of the shape that
// https://www.w3.org/TR/translation/ gives it. The engine is fake-engine.js.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { translated } from '../../../www/page/chinese.js';
import { violations } from '../support/languages.mjs';
import { asked, drawAgain, shot, status, typeModel, withPage } from '../support/site.mjs';

/** @typedef {import('playwright-core').Page} Page */

test('what is no sentence in a prompt is left as it is', async () => {
  const seen = /** @type {string[]} */ ([]);
  const translate = async (/** @type {string} */ text) => {
    seen.push(text);
    return `[${text.length}]`.replace(/[[\]]/g, '"') + '.';
  };
  const cases = [
    ['一只猫在草地上，夜晚', '"10"'],
    ['<lora:水墨:0.8> 一只(红色:1.3)的猫, masterpiece', '<lora:水墨:0.8> "2" ("2":1.3) "15"'],
    ['[苹果:梨:0.5] AND 杯子\n第二行', '["2":"1":0.5] AND "2"\n"3"'],
    ['{红|蓝}色', '{"1"|"1"} "1"'],
    ['a red apple', 'a red apple'],
    ['', ''],
  ];
  for (const [prompt, english] of cases) assert.equal(await translated(prompt, translate), english, prompt);
  assert.ok(seen.includes('一只猫在草地上，夜晚'), 'a sentence as a whole');
});

/** In the page, before all else: a translator that has to be fetched, and waits to be told. */
const stub = () => {
  const w = /** @type {any} */ (window);
  const english = /** @type {Record<string, string>} */ ({ 一只红色的猫在草地上: 'A red cat on the grass.', 狗: 'dog' });
  w.told = [];
  w.Translator = {
    async availability(/** @type {any} */ languages) {
      w.told.push(['availability', languages]);
      return w.availability ?? 'downloadable';
    },
    async create(/** @type {any} */ { monitor, ...languages }) {
      w.told.push(['create', languages, navigator.userActivation.isActive]);
      if (w.fails) throw new DOMException('no room', 'QuotaExceededError');
      const target = new EventTarget();
      monitor(target);
      target.dispatchEvent(new ProgressEvent('downloadprogress', { loaded: 0.4, total: 1 }));
      await new Promise(done => { w.goOn = done; });
      return {
        async translate(/** @type {string} */ text) { return english[text] ?? 'unheard of'; },
        destroy() { w.told.push(['destroy']); },
      };
    },
  };
};

/** @param {Page} page @param {RegExp} pattern */
const says = (page, pattern) => page.waitForFunction(source => {
  const text = document.getElementById('translate-text');
  return text?.checkVisibility() && new RegExp(source).test(text.textContent ?? '');
}, pattern.source);

test('it is offered, asked for by a click, read and changed, and then drawn; mine come back', () =>
  withPage({ before: stub }, async page => {
    await status(page, /^Ready/);
    // The model of this page has a reader of its own.
    await page.fill('#prompt', '一只红色的猫在草地上');
    await page.waitForSelector('#read-as:not([hidden])');
    assert.ok(await page.isHidden('#translate'));
    await typeModel(page, 'IDEA-CCNL/Taiyi-Stable-Diffusion-1B-Chinese-v0.1');
    assert.ok(await page.isHidden('#translate'), 'it reads Chinese');
    assert.deepEqual(await page.evaluate(() => /** @type {any} */ (window).told), [], 'nobody was asked anything');
    await typeModel(page, 'someone/sd15');
    await says(page, /it has to fetch/);
    await page.fill('#negative-prompt', '狗');
    assert.deepEqual(await violations(page), []);
    await shot(page, 'translate-offer');
    await page.focus('#translate-go');
    await page.keyboard.press('Enter');
    await says(page, /fetches its translator … 40 %/);
    await page.evaluate(() => /** @type {any} */ (window).goOn());
    await says(page, /This was “一只红色的猫在草地上”/);
    const values = () => Promise.all(['prompt', 'negative-prompt'].map(id => page.inputValue(`#${id}`)));
    assert.deepEqual(await values(), ['A red cat on the grass', 'dog']);
    assert.deepEqual(await page.evaluate(() => /** @type {any} */ (window).told), [
      ['availability', { sourceLanguage: 'zh', targetLanguage: 'en' }],
      ['create', { sourceLanguage: 'zh', targetLanguage: 'en' }, true],
      ['destroy'],
    ]);
    assert.equal(await page.evaluate(() => document.activeElement?.id), 'prompt');
    assert.deepEqual(await violations(page), []);
    await shot(page, 'translate-done');
    await page.keyboard.press('End');
    await page.keyboard.type(', asleep');
    await drawAgain(page);
    const { prompt, negativePrompt } = await asked(page);
    assert.deepEqual([prompt, negativePrompt], ['A red cat on the grass, asleep', 'dog']);
    await page.click('#translate-back');
    assert.deepEqual(await values(), ['一只红色的猫在草地上', '狗']);
    await says(page, /on this machine\.$/);
    // Whoever types on while it works keeps what is typed, and is asked again.
    await page.click('#translate-go');
    await says(page, /40 %/);
    await page.focus('#prompt');
    await page.keyboard.press('End');
    await page.keyboard.insertText('狗');
    await page.evaluate(() => /** @type {any} */ (window).goOn());
    await says(page, /on this machine\.$/);
    assert.deepEqual(await values(), ['一只红色的猫在草地上狗', '狗']);
    // Where it cannot, the words stay.
    await page.evaluate(() => { /** @type {any} */ (window).fails = true; });
    await page.click('#translate-go');
    await says(page, /could not translate/);
    assert.deepEqual(await values(), ['一只红色的猫在草地上狗', '狗']);
    // A model that knows all of the words needs none.
    await typeModel(page, 'someone/bilingual');
    await says(page, /on this machine\.$/);
    await drawAgain(page);
    await page.waitForSelector('#translate', { state: 'hidden' });
    await typeModel(page, 'someone/sd15');
    await says(page, /on this machine\.$/);
    // Another prompt is no translation of this one.
    await page.fill('#negative-prompt', '');
    await page.fill('#prompt', 'a cat');
    await page.waitForSelector('#translate', { state: 'hidden' });
  }));

test('zh/: it is offered in Chinese; without a translator, or where it knows no Chinese, nothing is', () =>
  withPage({ hash: 'zh/', before: stub, width: 390 }, async page => {
    await status(page, /^准备就绪/);
    await typeModel(page, 'someone/sd15');
    await page.fill('#prompt', '一只红色的猫在草地上');
    await says(page, /需要先下载/);
    assert.deepEqual(await violations(page), []);
    await page.screenshot({ path: '.tools/screenshots/translate-zh.png' });
    for (const broken of ['availability = "unavailable"', 'Translator = undefined']) {
      await page.addInitScript(broken);
      await page.reload();
      await status(page, /^准备就绪/);
      await page.fill('#prompt', '一只红色的猫在草地');
      await drawAgain(page);
      assert.ok(await page.isHidden('#translate'));
    }
  }));
