// A1111's styles.csv, in and out, against Python's csv module, which it is kept with; and on the page by mouse and by
// keyboard. The engine is fake-engine.js.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { joined, readStyles, writeStyles } from '../../../www/page/styles-csv.js';
import { asked, hasResult, shot, status, withPage } from '../support/site.mjs';

const awkward = [
  { name: 'plain', prompt: 'oil painting', negative: '' },
  { name: 'comma, "quotes"', prompt: 'a "big", bold {prompt}\nin two lines', negative: 'blur, noise' },
  { name: '猫の絵', prompt: ' begins with a space', negative: '""' },
  { name: 'carriage', prompt: 'one\r\ntwo', negative: ',' },
];
/** @param {string} code @param {string} input */
const python = (code, input) => execFileSync('python3', ['-c', `import csv, io, json, sys\n${code}`], {
  input, encoding: 'utf8', maxBuffer: 1e8,
});

test('styles.csv as Python writes it is read, and as it is written here Python reads it', () => {
  // As A1111's modules/styles.py has it: DictReader(skipinitialspace=True) and DictWriter, with a byte order mark.
  const write = `
out = io.StringIO(newline='')
writer = csv.DictWriter(out, fieldnames=['name', 'prompt', 'negative_prompt'], QUOTING)
writer.writeheader()
for s in json.load(sys.stdin):
    writer.writerow({'name': s['name'], 'prompt': s['prompt'], 'negative_prompt': s['negative']})
sys.stdout.buffer.write(('MARK' + out.getvalue()).encode())`;
  const all = 'quoting=csv.QUOTE_ALL';
  for (const quoting of [all, 'quoting=csv.QUOTE_MINIMAL', `${all}, lineterminator='\\n'`])
    for (const mark of ['\\ufeff', '']) {
      const text = python(write.replace('QUOTING', quoting).replace('MARK', mark), JSON.stringify(awkward));
      const wanted = awkward.map(style => ({ ...style }));
      if (quoting.includes('MINIMAL')) wanted[2].prompt = wanted[2].prompt.trim(); // its reader skips that space, too
      assert.deepEqual(readStyles(text), wanted, quoting + mark);
    }
  const read = `
text = sys.stdin.buffer.read().decode('utf-8-sig')
print(json.dumps(list(csv.DictReader(io.StringIO(text, newline=''), skipinitialspace=True))))`;
  const rows = JSON.parse(python(read, writeStyles(awkward)));
  assert.deepEqual(
    rows.map((/** @type {any} */ row) => ({ name: row.name, prompt: row.prompt, negative: row.negative_prompt })),
    awkward,
  );
  assert.deepEqual(readStyles('name,text\na,b\n\n'), [{ name: 'a', prompt: 'b', negative: '' }], 'its first versions');
  assert.equal(readStyles('tag,count\ncat,3'), undefined);
  assert.throws(() => readStyles('name,prompt\na,"open'), { code: 'invalid-option' });
  const words = 'x, "y" '.repeat(28);
  const large = Array.from({ length: 50_000 }, (_, i) => ({ name: `n${i}`, prompt: words, negative: '' }));
  assert.deepEqual(readStyles(writeStyles(large)), large, '10 MB');
  assert.equal(joined('a cat', 'painting of {prompt}, $&'), 'painting of a cat, $&');
  assert.equal(joined(' a cat', 'oil '), 'a cat, oil');
  assert.equal(joined('', 'oil'), 'oil');
});

for (const [hand, width] of /** @type {const} */ ([['mouse', 1280], ['keyboard', 360]])) {
  test(`styles are read, used, kept, deleted and saved, by ${hand} at ${width} px`, () =>
    withPage({ width }, async page => {
      await status(page, /^Ready/);
      const press = async (/** @type {string} */ target) => {
        if (hand === 'mouse') return page.click(target);
        await page.focus(target);
        await page.keyboard.press('Enter');
      };
      const file = (/** @type {string} */ text, name = 'styles.csv') =>
        page.setInputFiles('#styles-file', { name, mimeType: 'text/csv', buffer: Buffer.from(text) });
      await press('#styles summary');
      await file('tag,count\r\ncat,3\r\n', 'tags.csv');
      const says = (/** @type {string} */ text) =>
        page.waitForFunction(text => document.getElementById('error')?.innerText.includes(text), text);
      await says('tags.csv holds no styles');
      await file(writeStyles(awkward));
      await status(page, /^4 styles are read/);
      await page.fill('#prompt', 'cat');
      await press('#styles-list li:nth-child(2) button');
      await press('#styles-list li:nth-child(1) button');
      assert.equal(await page.inputValue('#prompt'), 'a "big", bold cat\nin two lines, oil painting');
      assert.equal(await page.inputValue('#negative-prompt'), 'blur, noise');
      await page.click('#generate');
      await hasResult(page);
      assert.equal((await asked(page)).negativePrompt, 'blur, noise');
      await press('#style-keep');
      await says('name first');
      await page.fill('#style-name', 'mine');
      await press('#style-keep');
      await status(page, /^“mine” is a style now/);
      await press('#styles-list li:nth-child(3) .remove');
      assert.equal(await page.locator('#styles-list li').count(), 4);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
      await shot(page, `styles-${hand}-${width}`);
      await page.reload();
      await status(page, /^Ready/);
      await press('#styles summary');
      const [download] = await Promise.all([page.waitForEvent('download'), press('#styles-save')]);
      assert.equal(download.suggestedFilename(), 'styles.csv');
      const saved = readStyles(readFileSync(await download.path(), 'utf8'));
      assert.deepEqual(saved?.map(({ name }) => name), ['plain', 'comma, "quotes"', 'carriage', 'mine']);
      const prompt = 'x'.repeat(200);
      await file(writeStyles(Array.from({ length: 60_000 }, (_, i) => ({ name: `n${i}`, prompt, negative: '' }))));
      await says('no room to keep so many');
      assert.equal(await page.locator('#styles-list li').count(), 4, 'those from before are as they were');
    }));
}
