// A phone of 390 px, by fingers alone, as the browser makes touches, pointers and clicks of them: what is drawn on, looked
// at closely, compared and kept. (Each tool of the form: page-hands.test.mjs.) The engine is fake-engine.js. Screenshots:
// .tools/screenshots/touch-*.png.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { overflows, violations } from '../support/languages.mjs';
import { asked, drawAgain, folder, sheetFor, status, withPage } from '../support/site.mjs';
import { drag, pinch, tooSmall } from '../support/touch.mjs';

/** @typedef {import('playwright-core').Page} Page */

const phone = { width: 390, height: 740, touch: true };

/** Where a part of something is. @param {Page} page @param {string} target */
async function places(page, target) {
  const { x, y, width, height } = /** @type {any} */ (await page.locator(target).boundingBox());
  return (/** @type {number} */ right, /** @type {number} */ down) => ({ x: x + width * right, y: y + height * down });
}

/** A look at the screen: nothing too small for a finger, nothing beside it. @param {Page} page @param {string} name */
async function look(page, name) {
  assert.deepEqual(await tooSmall(page), []);
  assert.equal(await overflows(page), 0);
  await page.screenshot({ path: `${folder}/touch-${name}.png` });
}

/** Draws by a touch. @param {Page} page */
async function draw(page) {
  await drawAgain(page, () => page.tap('#generate'));
  await status(page, /^Done/);
}

/** How much of the mask is painted. @param {Page} page */
async function painted(page) {
  await draw(page);
  return (await asked(page)).maskImage?.white ?? 0;
}

test('a finger paints; two look closer and move, and paint nothing; the frame is dragged', () =>
  withPage(phone, async page => {
    await status(page, /^Ready/);
    await draw(page);
    await page.tap('#redraw');
    await page.waitForSelector('#editor:not([hidden])');
    await page.locator('#paint-view').scrollIntoViewIfNeeded();
    let at = await places(page, '#paint-view');
    await drag(page, at(0.3, 0.5), at(0.7, 0.5));
    const line = await painted(page);
    assert.ok(line > 0.03 && line < 0.1, String(line));
    await look(page, 'brush');
    // Two fingers, twice as far apart: what is below them stays below them.
    const wide = async () => /** @type {any} */ (await page.locator('#paint').boundingBox());
    at = await places(page, '#paint-view');
    const before = await wide();
    await pinch(page, [at(0.4, 0.5), at(0.6, 0.5)], [at(0.3, 0.5), at(0.7, 0.5)]);
    const closer = await wide();
    assert.ok(Math.abs(closer.width / before.width - 2) < 0.02, String(closer.width / before.width));
    assert.ok(Math.abs(closer.x + closer.width / 2 - before.x - before.width / 2) < 2);
    await pinch(page, [at(0.4, 0.4), at(0.6, 0.6)], [at(0.5, 0.3), at(0.7, 0.5)]);
    const moved = await wide();
    assert.ok(Math.abs(moved.width - closer.width) < 1);
    const by = [moved.x - closer.x, moved.y - closer.y].map(pixels => pixels / before.width);
    assert.ok(Math.hypot(by[0] - 0.1, by[1] + 0.1) < 0.01, by.join());
    assert.equal(await painted(page), line, 'nothing was painted');
    await look(page, 'closer');
    await page.tap('#undo-paint');
    assert.equal(await painted(page), 0);
    await page.tap('#redo-paint');
    assert.equal(await painted(page), line);
    // A dot is as large as ever, of the picture.
    await page.tap('#clear-paint');
    await page.locator('#paint-view').scrollIntoViewIfNeeded();
    at = await places(page, '#paint-view');
    await drag(page, at(0.5, 0.5), at(0.5, 0.5), 1);
    assert.ok(Math.abs(await painted(page) - Math.PI * 0.06 ** 2) < 0.002);
    await page.tap('#zoom-whole');
    await page.tap('#extend-by-hand');
    await page.locator('#paint-view').scrollIntoViewIfNeeded();
    at = await places(page, '#extend-frame');
    const { width } = /** @type {any} */ (await page.locator('#extend-frame').boundingBox());
    await drag(page, at(1, 1), { x: at(1, 1).x + width / 4, y: at(1, 1).y + width / 8 });
    assert.deepEqual([await page.inputValue('#extend-right'), await page.inputValue('#extend-bottom')], ['16', '8']);
    // A second finger takes back what the first one has done to the frame.
    at = await places(page, '#extend-frame');
    await pinch(page, [at(0.4, 0.4), at(0.6, 0.6)], [at(0.3, 0.3), at(0.7, 0.7)]);
    assert.deepEqual([await page.inputValue('#extend-right'), await page.inputValue('#extend-left')], ['16', '0']);
    await page.tap('#zoom-whole');
    await page.locator('#paint-view').scrollIntoViewIfNeeded();
    await look(page, 'frame');
    assert.deepEqual(await violations(page), []);
    await draw(page);
    assert.deepEqual((await asked(page)).outpaint, { left: 0, right: 16, top: 0, bottom: 8 });
  }));

test('the sheet, the steps, the slider between two pictures, and what is kept', () =>
  withPage(phone, async page => {
    await status(page, /^Ready/);
    await page.tap('#sheet');
    assert.ok(await page.isVisible('#seed'));
    await look(page, 'sheet');
    // The sheet is scrolled by a finger, and the page below it is not.
    const scrolled = () => page.evaluate(() => [document.getElementById('settings')?.scrollTop ?? 0, scrollY]);
    assert.deepEqual(await scrolled(), [0, 0]);
    await drag(page, { x: 200, y: 500 }, { x: 200, y: 250 }, 10);
    await page.waitForFunction(() => (document.getElementById('settings')?.scrollTop ?? 0) > 100);
    assert.equal((await scrolled())[1], 0);
    await sheetFor(page, '#steps');
    await page.fill('#steps', '4');
    await page.tap('#sheet-close');
    assert.ok(await page.isHidden('#seed'));
    for (const prompt of ['a cat', 'a dog']) {
      await page.fill('#prompt', prompt);
      await draw(page);
    }
    // The steps: by a touch of the slider, and of the strip.
    await page.locator('#scrub').scrollIntoViewIfNeeded();
    await page.tap('#scrub', { position: { x: 5, y: 10 } });
    assert.match(await page.innerText('#caption'), /Step 1 of 4/);
    await page.tap('#strip li:nth-child(3)');
    assert.match(await page.innerText('#caption'), /Step 3 of 4/);
    await page.tap('#strip li:last-child');
    await look(page, 'steps');
    await page.tap('#use-compare');
    await page.tap('#gallery li:nth-child(2) button');
    await page.waitForSelector('#compare-settings tr');
    await page.locator('#compare-stage').scrollIntoViewIfNeeded();
    const at = await places(page, '#compare-stage');
    await drag(page, at(0.2, 0.5), at(0.8, 0.5));
    const slid = await page.evaluate(() => document.getElementById('compare-stage')?.style.getPropertyValue('--at'));
    assert.ok(Math.abs(parseFloat(slid ?? '') - 80) < 2, slid);
    await look(page, 'compare');
    await page.tap('#compare-close');
    await page.tap('#star');
    await page.waitForSelector('#gallery .starred');
    await page.tap('#history-starred');
    await page.waitForFunction(() => document.querySelectorAll('#gallery li').length === 1);
    await page.tap('#history-starred');
    await page.waitForFunction(() => document.querySelectorAll('#gallery li').length === 2);
    await page.tap('#delete-picture');
    await page.waitForFunction(() => document.querySelectorAll('#gallery li').length === 1);
    await look(page, 'history');
    await page.tap('#history-undo');
    await page.waitForFunction(() => document.querySelectorAll('#gallery li').length === 2);
    await page.tap('#gallery li:first-child button');
    const [download] = await Promise.all([page.waitForEvent('download'), page.tap('#history-export')]);
    assert.match(download.suggestedFilename(), /\.zip$/);
    await page.tap('#use-seed');
    await page.waitForFunction(() => /** @type {HTMLInputElement} */ (document.getElementById('seed')).value !== '');
    assert.deepEqual(await violations(page), []);
  }));
