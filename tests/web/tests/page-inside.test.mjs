// "Look inside" on the drawing page, with the engine that is not one: closed it asks for nothing; open it shows each step's
// guess, words and blocks, by mouse and by keyboard, in both languages, on a phone and in the dark. (What the engine says
// of its inside is held against diffusers and torch in primitives.test.mjs.)
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { violations } from '../support/languages.mjs';
import { asked, drawAgain, hasResult, shot, status, typeModel, withPage } from '../support/site.mjs';

/** @param {import('playwright-core').Page} page */
const shown = page => page.waitForFunction(() => !document.querySelector('#inside .seen')?.hasAttribute('hidden'));

test('closed it costs nothing; open, every step tells, and the cost is said', () =>
  withPage({}, async (page, requests) => {
    await status(page, /^Ready/);
    await drawAgain(page);
    assert.equal((await asked(page)).inside, undefined, 'nothing is asked for');
    assert.ok(!requests.some(url => /inside/.test(url)), 'nothing is fetched');

    await page.focus('#inside summary');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => /Draw again/.test(document.getElementById('inside')?.textContent ?? ''));
    await drawAgain(page);
    assert.deepEqual((await asked(page)).inside, { guidance: true, attention: true, activations: true });
    await shown(page);
    assert.match(await page.innerText('#inside'), /Step 20 of 20/, 'the finished picture has its last step');
    assert.match(await page.innerText('#inside [role=status]'),
      /Looking costs: a step took \d+ ms, one without looking \d+ ms, and [\d.]+ [kM]B are kept/);
    await page.focus('#scrub');
    await page.keyboard.press('Home');
    await page.waitForFunction(() => /Step 1 of 20/.test(document.querySelector('#inside h3')?.textContent ?? ''));

    // Conditional and unconditional differ by 1 in each of 8 x 8 x 4 values.
    assert.match(await page.innerText('#inside .tiles'), /16\.0 long, the guess 16\.0/);
    assert.equal(await page.locator('#inside .tiles canvas:visible').count(), 4);
    const names = await page.locator('#inside .maps span').allInnerTexts();
    assert.deepEqual(names, ['(start)', 'word', '(end)', '(empty)']);
    const pressed = () => page.locator('#inside .maps [aria-pressed=true] span').innerText();
    assert.equal(await pressed(), 'word', 'the longest');
    await page.focus('#inside .maps button:nth-child(4)');
    await page.keyboard.press('Enter');
    assert.equal(await pressed(), '(empty)');
    assert.match(await page.getAttribute('#inside .acting canvas', 'aria-label') ?? '', /“\(empty\)” acts in step 1/);
    assert.deepEqual(await page.locator('#inside .blocks b').allInnerTexts(), ['In', 'Middle', 'Out: its guess']);
    assert.match(await page.innerText('#inside .blocks'), /4 channels of 1 × 1 · 3 ms of the GPU/);
    assert.equal(await page.locator('#inside .blocks canvas').count(), 12);

    await page.click('#inside summary');
    await drawAgain(page);
    assert.equal((await asked(page)).inside, undefined, 'closed again, nothing is asked for');
  }),
);

test('latents of twelve channels; two pictures at once: what is shown is the first one’s', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await typeModel(page, 'someone/twelve');
    await page.fill('#count', '2');
    await page.click('#inside summary');
    await drawAgain(page);
    await shown(page);
    const size = await page.evaluate(() => {
      const { width, height } = /** @type {HTMLCanvasElement} */ (
        document.querySelectorAll('#inside .tiles canvas')[2]);
      return [width, height];
    });
    assert.deepEqual(size, [4 * 8, 3 * 8]);
  }),
);

for (const language of ['', 'zh/']) {
  test(`on a phone and in the dark ${language || 'en/'}`, () =>
    withPage({ width: 320, hash: language }, async page => {
      await page.emulateMedia({ colorScheme: 'dark' });
      await page.click('#inside summary');
      await page.click('#generate');
      await hasResult(page);
      await shown(page);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
      assert.deepEqual(await violations(page), []);
      await shot(page, `inside-320-dark-${language ? 'zh' : 'en'}`);
    }),
  );
}
