// Writing a prompt: weights by the arrows, earlier prompts, how many tokens, width and height swapped. By mouse and by
// keyboard. The engine is fake-engine.js, where a word is a token.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { variantsOf } from '../../../www/page/variants.js';
import { filler, hasWildcards, readLines } from '../../../www/page/wildcards.js';
import { weigh } from '../../../www/page/weigh.js';
import { asked, drawAgain, hasResult, sheetFor, shot, status, withPage } from '../support/site.mjs';

/**
 * What AUTOMATIC1111's page makes of Ctrl+Up and Ctrl+Down (javascript/edit-attention.js at commit 01a40c62, run in
 * Node): the text and the selection before, then after each.
 * @type {[[string, number, number], [string, number, number], [string, number, number]][]}
 */
const weighed = [
  [['a red apple', 3, 3], ['a (red:1.1) apple', 3, 6], ['a (red:0.9) apple', 3, 6]],
  [['a red apple', 2, 11], ['a (red apple:1.1)', 3, 12], ['a (red apple:0.9)', 3, 12]],
  [['a red  apple', 2, 6], ['a (red:1.1)  apple', 3, 6], ['a (red:0.9)  apple', 3, 6]],
  [['a (red:1.1) apple', 4, 4], ['a (red:1.2) apple', 3, 6], ['a red apple', 2, 5]],
  [['a (red:1.1) apple', 3, 6], ['a (red:1.2) apple', 3, 6], ['a red apple', 2, 5]],
  [['a (red:0.9) apple', 5, 5], ['a red apple', 2, 5], ['a (red:0.8) apple', 3, 6]],
  [['a (red:1.9) apple', 5, 5], ['a (red:2.0) apple', 3, 6], ['a (red:1.8) apple', 3, 6]],
  [['a red', 5, 5], ['a (red:1.1)', 3, 6], ['a (red:0.9)', 3, 6]],
  [['', 0, 0], ['', 0, 0], ['', 0, 0]],
  [['a , b', 2, 2], ['a , b', 2, 2], ['a , b', 2, 2]],
  [['<lora:style:0.8> a cat', 9, 9], ['<lora:style:0.85> a cat', 1, 11], ['<lora:style:0.75> a cat', 1, 11]],
  [['a cat, <lora:style:1>', 12, 12], ['a cat, <lora:style:1.05>', 8, 18], ['a cat, <lora:style:0.95>', 8, 18]],
  [['((a:1.2) b:1.1)', 10, 10], ['((a:1.2) b:1.2)', 1, 10], ['(a:1.2) b', 0, 9]],
  [['(a, b:1.25) c', 2, 2], ['(a, b:1.35) c', 1, 5], ['(a, b:1.15) c', 1, 5]],
  [['猫, a dog', 0, 0], ['(猫:1.1), a dog', 1, 2], ['(猫:0.9), a dog', 1, 2]],
  [['two\nlines', 5, 5], ['two\n(lines:1.1)', 5, 10], ['two\n(lines:0.9)', 5, 10]],
  [['a (b:x) c', 3, 4], ['a (b:x) c', 3, 4], ['a (b:x) c', 3, 4]],
  [['a (b:0.1) c', 3, 4], ['a (b:0.2) c', 3, 4], ['a (b:0.0) c', 3, 4]],
];

test('words are weighed as A1111 weighs them; its plain brackets become a number', () => {
  for (const [[text, start, end], ...after] of weighed) {
    const results = [true, false].map(more => weigh({ text, start, end }, more) ?? { text, start, end });
    assert.deepEqual(results.map(now => [now.text, now.start, now.end]), after, text);
  }
  // A bracket counts 1.1 (its wiki, "Attention/emphasis"); that page's script leaves these as they are, or cuts them.
  const plain = (/** @type {string} */ text, /** @type {number} */ at) =>
    weigh({ text, start: at, end: at }, true)?.text;
  assert.equal(plain('a (red) apple', 4), 'a (red:1.2) apple');
  assert.equal(plain('a ((red)) apple', 5), 'a (red:1.3) apple');
  assert.equal(plain('a [red] apple', 4), 'a red apple');
});

for (const width of [1280, 360]) {
  test(`a prompt is written, weighed, counted and taken up again, at ${width} px`, () =>
    withPage({ width }, async page => {
      const fill = async (/** @type {string} */ target, /** @type {string} */ text) => {
        await sheetFor(page, target);
        await page.fill(target, text);
      };
      await status(page, /^Ready/);
      assert.ok(await page.isHidden('#past'));
      await fill('#prompt', 'a red apple');
      await page.focus('#prompt');
      for (let i = 0; i < 'apple'.length + 1; i++) await page.keyboard.press('ArrowLeft');
      await page.keyboard.press('Control+ArrowUp');
      await page.keyboard.press('Control+ArrowUp');
      assert.equal(await page.inputValue('#prompt'), 'a (red:1.2) apple');
      await page.waitForSelector('#reading > summary[data-count="3/75"]');
      await page.keyboard.press('Control+Z');
      assert.equal(await page.inputValue('#prompt'), 'a (red:1.1) apple', 'the browser\'s own undo knows it');
      await fill('#negative-prompt', 'blue');
      await page.focus('#negative-prompt');
      await page.keyboard.press('Control+ArrowDown');
      assert.equal(await page.inputValue('#negative-prompt'), '(blue:0.9)');

      await fill('#width', '64');
      await fill('#height', '48');
      await page.click('#swap-size');
      assert.deepEqual([await page.inputValue('#width'), await page.inputValue('#height')], ['48', '64']);
      await page.keyboard.press('Enter');
      assert.deepEqual([await page.inputValue('#width'), await page.inputValue('#height')], ['64', '48']);

      await fill('#steps', '1');
      await page.click('#generate');
      await hasResult(page);
      for (const prompt of ['second', 'third', 'second']) {
        await fill('#prompt', prompt);
        await fill('#negative-prompt', '');
        await drawAgain(page);
        await status(page, /^Done/);
      }
      await page.reload();
      await status(page, /^Ready/);
      await page.focus('#past summary');
      await page.keyboard.press('Enter');
      const listed = page.locator('#past-list button');
      await listed.first().waitFor();
      assert.deepEqual(await listed.allInnerTexts(), ['second', 'third', 'a (red:1.1) apple — not: (blue:0.9)']);
      await shot(page, `past-${width}`);
      await listed.nth(2).focus();
      await page.keyboard.press('Enter');
      assert.equal(await page.inputValue('#prompt'), 'a (red:1.1) apple');
      assert.equal(await page.inputValue('#negative-prompt'), '(blue:0.9)');
      await listed.nth(1).click();
      assert.equal(await page.inputValue('#prompt'), 'third');
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
      await page.click('#past-forget');
      assert.ok(await page.isHidden('#past'));
      await page.reload();
      assert.ok(await page.isHidden('#past'));
    }));
}

test('choices in braces are every combination of them, once; other braces are text', () => {
  assert.deepEqual(variantsOf('a {red|blue} {cat|dog}'), ['a red cat', 'a red dog', 'a blue cat', 'a blue dog']);
  assert.deepEqual(variantsOf('{a {red|blue} cat|a dog}'), ['a red cat', 'a dog', 'a blue cat']);
  assert.deepEqual(variantsOf('a {very |}good {one|one}'), ['a verygood one', 'a good one']);
  for (const text of ['', 'a {b} c', '{|', 'a | b', '\\{a|b}', '{}', '[a|b]'])
    assert.deepEqual(variantsOf(text), [text]);
  assert.equal(variantsOf('{1|2|3|4|5|6|7|8}{1|2|3|4|5|6|7|8}').length, 64);
  for (const many of ['{1|2|3|4|5|6|7|8}{1|2|3|4|5|6|7|8}{1|2}', '{a|b}'.repeat(2000), `{${'a|'.repeat(5000)}}`])
    assert.throws(() => variantsOf(many), { code: 'invalid-option' });
});

test('a wildcard is a line of its list, each once before one comes again; lines may hold choices and wildcards', () => {
  assert.deepEqual(readLines('\uFEFFcat\r\n# not this\r\n\r\n  red fox \rowl\n'), ['cat', 'red fox', 'owl']);
  const lists = new Map([
    ['animal', ['cat', 'dog', 'owl']], ['size_of/it', ['{big|big}']], ['both', ['__size_of/it__ __animal__']],
    ['round', ['__and__']], ['and', ['a __round__']], ['颜色', ['红色']],
  ]);
  const fill = filler(lists);
  const drawn = Array.from({ length: 6 }, () => fill('a __animal__'));
  for (const turn of [drawn.slice(0, 3), drawn.slice(3)])
    assert.deepEqual(turn.sort(), ['a cat', 'a dog', 'a owl']);
  assert.match(fill('one __both__, __颜色__'), /^one big (cat|dog|owl), 红色$/);
  assert.match(fill('__animal____animal__'), /^(cat|dog|owl){2}$/);
  for (const text of ['', '__', '____', '^__^', 'a__b', '__ cat__', '_cat_']) {
    assert.ok(!hasWildcards(text), text);
    assert.equal(fill(text), text);
  }
  for (const wrong of ['__nothing__', 'a __round__', '__constructor__', '__animal __'])
    assert.throws(() => fill(wrong), { code: 'invalid-option' }, wrong);
  assert.equal(fill('__animal__'.repeat(100000)).length, 300000);
});

test('wildcards from files: kept, another line for each picture, told where one lacks, forgotten', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    const bring = (/** @type {Record<string, string>} */ files) =>
      page.setInputFiles('#wildcards-files', Object.entries(files).map(([name, text]) =>
        ({ name, mimeType: 'text/plain', buffer: Buffer.from(text) })));
    const open = async () => {
      await page.evaluate(() => document.getElementById('styles')?.setAttribute('open', ''));
      await page.waitForSelector('#wildcards-files:enabled');
    };
    const refused = (/** @type {string} */ words) => page.waitForFunction(
      words => document.getElementById('error')?.textContent?.includes(words), words);
    await open();
    await bring({ 'empty.txt': '\n# nothing\n' });
    await refused('empty is no list of wildcards');
    await bring({ 'animal.txt': 'cat\nowl\n', 'colour.txt': 'red' });
    await status(page, /^3 lines are kept/);
    await page.reload();
    await status(page, /^Ready/);
    await page.fill('#prompt', 'a __colour__ __animal__');
    await page.fill('#count', '2');
    await page.fill('#seed', '5');
    await page.click('#generate');
    await status(page, /^Done/);
    assert.deepEqual(
      (await page.locator('#gallery button').evaluateAll(all => all.map(one => one.getAttribute('title')))).sort(),
      ['a red cat', 'a red owl'],
    );
    const { seed, numImages } = await asked(page);
    assert.deepEqual([seed, numImages], [6, 1], 'the second of seed 5');
    assert.equal(await page.inputValue('#prompt'), 'a __colour__ __animal__');
    await page.fill('#prompt', 'a __plant__');
    await page.click('#generate');
    await refused('No list is called plant');
    await open();
    await page.click('#wildcards-forget');
    await status(page, /^The wildcards are forgotten/);
    await page.fill('#prompt', 'a __animal__');
    await page.click('#generate');
    await refused('No list is called animal');
  }));

test('a choice in the prompt draws a picture of each', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await page.fill('#prompt', 'a {red|blue} cat');
    await page.fill('#seed', '5');
    await page.click('#generate');
    await status(page, /^Done.*Seed 5\.$/);
    assert.deepEqual(
      await page.locator('#gallery button').evaluateAll(all => all.map(one => one.getAttribute('title'))),
      ['a blue cat', 'a red cat'],
    );
    assert.equal(await page.inputValue('#prompt'), 'a {red|blue} cat');
    await page.fill('#prompt', '{a|b}'.repeat(7));
    await page.click('#generate');
    await page.waitForFunction(() => /more than 64 pictures/.test(document.getElementById('error')?.textContent ?? ''));
  }));

test('a whole text of A1111 that is pasted sets the form; any other text is pasted', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    const paste = (/** @type {string} */ text) => page.evaluate(text => {
      const field = /** @type {HTMLTextAreaElement} */ (document.getElementById('prompt'));
      field.focus();
      field.select();
      const clipboardData = new DataTransfer();
      clipboardData.setData('text/plain', text);
      return field.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
    }, text);
    const text = 'a "quoted", cat\r\non two lines\r\nNegative prompt: dog\r\n' +
      'Steps: 7, Sampler: Euler a, CFG scale: 4.5, Seed: 99, Size: 64x48, Model: nobody';
    assert.equal(await paste(text), false, 'taken');
    await status(page, /^The settings of that text are here\..*nobody/);
    const values = ['prompt', 'negative-prompt', 'steps', 'scheduler', 'guidance', 'seed', 'width', 'height'];
    assert.deepEqual(await Promise.all(values.map(id => page.inputValue(`#${id}`))),
      ['a "quoted", cat\non two lines', 'dog', '7', 'euler_a', '4.5', '99', '64', '48']);
    assert.equal(await paste('Steps: a cat'), true, 'left to the browser');
  }));
