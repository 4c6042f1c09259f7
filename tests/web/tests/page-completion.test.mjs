// Names that go on as a prompt begins: of LoRAs, own words and a list of tags that the visitor brings. By mouse and by
// keyboard. The engine is fake-engine.js.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { offersFor, readTags, tagWords, tagsLike } from '../../../www/page/offers.js';
import { hasResult, sheetFor, shot, status, withPage } from '../support/site.mjs';
import { overflows, violations } from '../support/languages.mjs';

/** As the lists of A1111's tag completion are: name, kind, count, other names. */
const CSV = '\ufeff1girl,0,4114588,"1girls,sole_female"\r\nlong_hair,0,3000000,/lh\r\nlonely,0,10,"孤独,alone"\r\n' +
  'saber_(fate),4,70000,"阿尔托莉雅"\r\nbroken line\r\n"a ""quoted"" tag",0,5,\r\n';
const tags = readTags(CSV);

test('a list of tags is read, with quotes, a byte order mark, CRLF and 10 MB; what is none is empty', () => {
  const named = tags.map(({ name }) => name);
  assert.deepEqual(named, ['1girl', 'long_hair', 'saber_(fate)', 'lonely', 'a "quoted" tag']);
  assert.deepEqual(readTags('name,prompt\na,b'), []);
  assert.throws(() => readTags('a,0,1,"open'), { code: 'invalid-option' });
  const large = Array.from({ length: 250_000 }, (_, i) => `tag_number_${i},0,${i},"other ${i},more"`).join('\n');
  assert.ok(large.length > 1e7);
  const many = readTags(large);
  assert.equal(many.length, 250_000);
  const like = tagsLike(many, 'tag number 2', 2).map(({ name }) => name);
  assert.deepEqual(like, ['tag_number_249999', 'tag_number_249998']);
});

test('what is offered goes on as the words before the caret begin', () => {
  const names = { loras: ['style-v2', 'Stone'], words: ['storm'], tags };
  const offered = (/** @type {string} */ before) => offersFor(before, names).map(({ text }) => text);
  assert.deepEqual(offered('a cat, <lora:st'), ['<lora:style-v2:1>', '<lora:Stone:1>']);
  assert.deepEqual(offered('a cat, <lora:style-v2:0.'), []);
  assert.deepEqual(offered('a st'), ['storm']);
  assert.deepEqual(offered('a cat, lo'), ['long hair, ', 'lonely, ']);
  assert.deepEqual(offered('(long h'), ['long hair, ']);
  assert.deepEqual(offered('a cat，孤'), [], 'one sign says too little');
  assert.deepEqual(offered('a cat，孤独'), ['lonely, '], 'by another name');
  assert.deepEqual(offered('sab'), ['saber \\(fate\\), ']);
  for (const text of ['', ' ', 'l', 'nobody', 'storm', 'long hair']) assert.deepEqual(offered(text), [], text);
  assert.equal(tagWords('a_[b]'), 'a \\[b\\]');
});

for (const hands of /** @type {const} */ (['mouse', 'keyboard'])) {
  test(`a prompt is completed, by ${hands}`, () =>
    withPage({ width: hands === 'mouse' ? 360 : 1280, height: 800 }, async page => {
      await status(page, /^Ready/);
      const file = (/** @type {string} */ text) =>
        page.setInputFiles('#tags-file', { name: 'tags.csv', mimeType: 'text/csv', buffer: Buffer.from(text) });
      await file('name,prompt\na,b');
      await page.waitForFunction(() => /no list of tags/.test(document.getElementById('error')?.textContent ?? ''));
      await file(CSV);
      await status(page, /^5 tags complete/);
      await page.evaluate(() => document.getElementById('additions')?.setAttribute('open', ''));
      await page.click('#add-lora');
      await page.fill('#loras [data-key=source]', 'https://example.org/a/style-v2.safetensors?x');
      await page.fill('#prompt', '');
      const list = page.locator('#prompt-completions');
      const write = async (/** @type {string} */ text) => {
        await page.focus('#prompt');
        await page.keyboard.type(text);
      };
      const take = async (/** @type {number} */ which) => {
        if (hands === 'mouse') return list.locator('li').nth(which).click();
        for (let i = 0; i <= which; i++) await page.keyboard.press('ArrowDown');
        await page.keyboard.press(which ? 'Tab' : 'Enter');
      };
      await write('lo');
      assert.deepEqual(await list.locator('li').allInnerTexts(), ['long_hair', 'lonely']);
      await shot(page, `completion-${hands}`);
      assert.ok(await overflows(page) <= 0);
      // What lies behind the open list is covered in part for as long as that.
      assert.deepEqual((await violations(page)).filter(text => !/partially obscured/.test(text)), []);
      await take(1);
      assert.equal(await page.inputValue('#prompt'), 'lonely, ');
      assert.ok(await list.isHidden());
      await write('<lora:s');
      await take(0);
      assert.equal(await page.inputValue('#prompt'), 'lonely, <lora:style-v2:1>');
      await page.keyboard.press('Control+z');
      assert.equal(await page.inputValue('#prompt'), 'lonely, <lora:s', 'undone as if it had been typed');
      await write('t');
      await page.keyboard.press('Escape');
      assert.ok(await list.isHidden());
      await page.fill('#prompt', '');
      await write('lo');
      await page.keyboard.press('Enter'); // nothing is chosen: it draws
      await hasResult(page);
      assert.equal(await page.inputValue('#prompt'), 'lo');
      await page.reload();
      await status(page, /^Ready/);
      await sheetFor(page, '#negative-prompt');
      await page.fill('#negative-prompt', '');
      await page.focus('#negative-prompt');
      await page.keyboard.type('1g');
      await page.waitForSelector('#negative-prompt-completions li');
      await page.keyboard.press('Escape');
      await page.evaluate(() => document.getElementById('styles')?.setAttribute('open', ''));
      await page.click('#tags-forget');
      await status(page, /^The tags are forgotten/);
      await page.focus('#negative-prompt');
      await page.keyboard.type('i');
      assert.ok(await page.isHidden('#negative-prompt-completions'));
    }));
}
