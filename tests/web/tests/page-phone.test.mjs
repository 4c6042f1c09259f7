// On a phone: the picture first, what draws always at hand, the settings on a sheet, room enough for a finger; the screen
// stays on, and pictures go to the system. The engine is fake-engine.js. Screenshots: .tools/screenshots/phone-*.png.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { overflows, violations } from '../support/languages.mjs';
import { folder, goOn, goTo, hasResult, shot, status, withPage } from '../support/site.mjs';
import { tooSmall } from '../support/touch.mjs';

for (const language of ['', 'zh/']) {
  for (const width of [320, 390]) {
    test(`${language || 'en/'}: at ${width} px the picture is first, what draws at hand, and a finger hits all`, () =>
      withPage({ width, height: 740, hash: language }, async page => {
        await status(page, /^(Ready|准备就绪)/);
        await page.waitForSelector('#suggestions button');
        const top = (/** @type {string} */ id) => page.evaluate(id =>
          document.getElementById(id)?.getBoundingClientRect().top ?? 0, id);
        assert.ok(await top('canvas') < await top('prompt'), 'the picture is first');
        assert.deepEqual(await tooSmall(page), []);
        // By the bar, wherever one has scrolled to.
        await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
        await page.click('#generate');
        await hasResult(page);
        await status(page, /^(Done|完成)/);
        assert.deepEqual(await tooSmall(page), []);
        assert.equal(await overflows(page), 0);
        // The sheet, by keyboard: it opens, takes the focus, and Escape puts it away.
        assert.ok(await page.isHidden('#seed'));
        await page.focus('#sheet');
        await page.keyboard.press('Enter');
        assert.ok(await page.isVisible('#seed'));
        assert.equal(await page.evaluate(() => document.activeElement?.id), 'sheet-close');
        assert.deepEqual(await tooSmall(page), []);
        assert.equal(await overflows(page), 0);
        for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
          await page.emulateMedia({ colorScheme });
          assert.deepEqual(await violations(page), []);
          const name = `phone-sheet-${language ? 'zh' : 'en'}-${width}-${colorScheme}`;
          await page.screenshot({ path: `${folder}/${name}.png` });
        }
        await page.keyboard.press('Escape');
        assert.ok(await page.isHidden('#seed'));
        assert.equal(await page.evaluate(() => document.activeElement?.id), 'sheet');
        // What is wrong on the sheet brings it up.
        await page.evaluate(() => { /** @type {HTMLInputElement} */ (document.getElementById('width')).value = '65'; });
        await page.click('#generate');
        await page.waitForFunction(() => document.activeElement?.id === 'width');
        assert.ok(await page.isVisible('#error'));
        await page.fill('#width', '64');
        await page.click('#sheet-close');
        for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
          await page.emulateMedia({ colorScheme });
          assert.deepEqual(await violations(page), []);
          await shot(page, `phone-${language ? 'zh' : 'en'}-${width}-${colorScheme}`);
        }
        await goTo(page, 'models');
        await page.waitForSelector('#models-list dd');
        assert.deepEqual(await tooSmall(page), []);
        assert.equal(await overflows(page), 0);
        await page.goto(new URL('help.html', page.url()).href);
        assert.deepEqual(await tooSmall(page), []);
        assert.equal(await overflows(page), 0);
      }));
  }
}

test('the screen stays on while it draws, asks again when the tab is seen again, and may go dark after', () =>
  withPage({
    width: 390,
    before: () => {
      const held = /** @type {string[]} */ ([]);
      Object.assign(window, { held });
      Object.defineProperty(navigator, 'wakeLock', { value: {
        async request() {
          held.push('on');
          const lock = { released: false, async release() { held.push('off'); lock.released = true; } };
          Object.assign(window, { lock });
          return lock;
        },
      } });
    },
  }, async page => {
    const held = () => page.evaluate(() => /** @type {any} */ (window).held.join());
    await status(page, /^Ready/);
    assert.equal(await held(), '');
    await page.fill('#prompt', 'holds at 2');
    await page.click('#generate');
    await page.waitForFunction(() => /^step 2/.test(document.getElementById('progress-text')?.textContent ?? ''));
    assert.equal(await held(), 'on');
    await page.evaluate(() => {
      /** @type {any} */ (window).lock.released = true; // as a system does of a tab that is not seen
      document.dispatchEvent(new Event('visibilitychange'));
    });
    assert.equal(await held(), 'on,on');
    await goOn(page);
    await status(page, /^Done/);
    await page.waitForFunction(() => /** @type {any} */ (window).held.join() === 'on,on,off');
  }));

test('a picture is shared as a file, where the system takes one; elsewhere there is no button', async () => {
  const before = () => { Object.defineProperty(navigator, 'canShare', { value: () => false }); };
  await withPage({ before }, async page => {
    await status(page, /^Ready/);
    assert.ok(await page.isHidden('#share'));
  });
  await withPage({
    width: 390,
    before: () => {
      Object.defineProperty(navigator, 'canShare', { value: () => true });
      Object.defineProperty(navigator, 'share', { value: async (/** @type {any} */ what) => {
        Object.assign(window, { shared: [what.files[0].name, what.files[0].type, what.files[0].size > 100] });
      } });
    },
  }, async page => {
    await status(page, /^Ready/);
    await page.fill('#prompt', 'a cat');
    await page.click('#generate');
    await hasResult(page);
    await page.click('#share');
    await page.waitForFunction(() => /** @type {any} */ (window).shared);
    const shared = await page.evaluate(() => /** @type {any} */ (window).shared);
    assert.match(shared[0], /^a-cat-\d+\.png$/);
    assert.deepEqual(shared.slice(1), ['image/png', true]);
  });
});
