// The picture to start from, looked at closely, painted on, and extended by a frame: by mouse, by keyboard and by fingers.
// Where paint must lie is reckoned from where the pointer was on the screen. The engine is fake-engine.js.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { violations } from '../support/languages.mjs';
import { asked, drawAgain, shot, status, withPage } from '../support/site.mjs';

/** @typedef {import('playwright-core').Page} Page */
/** @typedef {{ x: number, y: number, width: number, height: number }} Box */

/** Opens the editor on a picture that was just drawn. @param {Page} page */
async function begin(page) {
  await status(page, /^Ready/);
  await page.fill('#width', '128');
  await page.fill('#height', '64');
  await drawAgain(page);
  await page.click('#redraw');
  await page.waitForSelector('#editor:not([hidden])');
}

/** @param {Page} page @param {string} target @returns {Promise<Box>} */
const boxOf = async (page, target) => /** @type {Box} */ (await page.locator(target).boundingBox());

/** The rectangle of the paint, in pixels of the picture. @param {Page} page */
const paint = async page => {
  await drawAgain(page, () => page.keyboard.press('Control+Enter'));
  return page.evaluate(() => {
    const { maskImage: mask } = /** @type {any} */ (window).browserDiffusion.lastResult.options;
    if (!mask) return undefined;
    const all = /** @type {number[][]} */ ([]);
    for (let i = 0; i < mask.width * mask.height; i++)
      if (mask.data[i * 4] > 127) all.push([i % mask.width, Math.floor(i / mask.width)]);
    const [xs, ys] = [0, 1].map(axis => all.map(point => point[axis]));
    return { left: Math.min(...xs), right: Math.max(...xs) + 1, top: Math.min(...ys), bottom: Math.max(...ys) + 1 };
  });
};

/** The dot of a brush of an eighth of the shorter side, about there. @param {any} seen @param {number} x @param {number} y */
function isDot(seen, x, y) {
  const radius = 64 * 0.12 / 2;
  const sides = { left: x - radius, right: x + radius, top: y - radius, bottom: y + radius };
  for (const [side, want] of Object.entries(sides))
    assert.ok(Math.abs(seen[side] - want) <= 1.5, `${side}: ${seen[side]}, not ${want}`);
}

test('closer by wheel and by mouse: the brush paints where it points, as large as ever; undo and redo go on', () =>
  withPage({ height: 1000 }, async page => {
    await begin(page);
    const view = await boxOf(page, '#paint-view');
    const scale = view.width / 128;
    assert.ok(Math.abs((await boxOf(page, '#paint')).width - view.width) < 1, 'all of it at first');
    // The wheel looks closer at what is below the mouse: at a quarter of the picture's width and half its height.
    const [x, y] = [view.x + view.width / 4, view.y + view.height / 2];
    await page.mouse.move(x, y);
    await page.mouse.wheel(0, -500);
    await page.waitForFunction(width => (document.getElementById('paint')?.clientWidth ?? 0) > width * 2, view.width);
    const closer = (await boxOf(page, '#paint')).width / view.width;
    assert.ok(Math.abs(closer - Math.E) < 0.01, String(closer));
    await page.mouse.click(x, y);
    isDot(await paint(page), 32, 32);
    await page.focus('#paint');
    await page.keyboard.press('Control+z');
    assert.equal(await paint(page), undefined);
    // 40 pixels of the screen to the right are fewer of the picture now.
    await page.mouse.click(x + 40, y);
    isDot(await paint(page), 32 + 40 / scale / closer, 32);
    await page.click('#undo-paint');
    await page.click('#redo-paint');
    isDot(await paint(page), 32 + 40 / scale / closer, 32);
    // Held with Space it moves what is seen and paints nothing; so does the middle button.
    await page.focus('#paint');
    await page.keyboard.down(' ');
    await page.mouse.move(x, y);
    await page.mouse.down();
    await page.mouse.move(x - 60, y, { steps: 3 });
    await page.mouse.up();
    await page.keyboard.up(' ');
    await page.mouse.move(x, y);
    await page.mouse.down({ button: 'middle' });
    await page.mouse.move(x - 20, y, { steps: 3 });
    await page.mouse.up({ button: 'middle' });
    isDot(await paint(page), 32 + 40 / scale / closer, 32);
    await page.click('#undo-paint');
    await page.mouse.click(x, y);
    isDot(await paint(page), 32 + 80 / scale / closer, 32);
    await shot(page, 'canvas-closer');
    // The wheel over it scrolls the page, where one does not work on it.
    await page.click('#zoom-whole');
    assert.ok(Math.abs((await boxOf(page, '#paint')).width - view.width) < 1);
    const wide = await boxOf(page, '#paint');
    await page.focus('#brush');
    await page.mouse.move(x, y);
    const scrolled = await page.evaluate(() => scrollY);
    await page.mouse.wheel(0, -200);
    await page.waitForFunction(before => scrollY < before, scrolled);
    assert.equal((await boxOf(page, '#paint')).width, wide.width);
  }));

test('closer by keyboard: plus, minus, nought; the brush stays in sight', () =>
  withPage({ height: 1000 }, async page => {
    await begin(page);
    const view = await boxOf(page, '#paint-view');
    await page.focus('#brush');
    await page.keyboard.press('Shift+Tab');
    for (let i = 0; i < 4; i++) await page.keyboard.press('Shift+Tab');
    assert.equal(await page.evaluate(() => document.activeElement?.id), 'paint');
    for (let i = 0; i < 4; i++) await page.keyboard.press('+');
    const closer = (await boxOf(page, '#paint')).width / view.width;
    assert.ok(Math.abs(closer - 1.5 ** 4) < 0.01, String(closer));
    // From the middle to the right edge, by half a brush a press: what is seen follows.
    for (let i = 0; i < 20; i++) await page.keyboard.press('ArrowRight');
    const right = async () => (await boxOf(page, '#paint')).x + (await boxOf(page, '#paint')).width;
    assert.ok(Math.abs(await right() - view.x - view.width) < 1, 'the edge of the picture at that of the view');
    await page.keyboard.press(' ');
    const seen = /** @type {any} */ (await paint(page));
    assert.deepEqual([seen.right, Math.round((seen.top + seen.bottom) / 2)], [128, 32]);
    await page.focus('#paint');
    await page.keyboard.press('-');
    assert.ok(Math.abs((await boxOf(page, '#paint')).width / view.width - 1.5 ** 3) < 0.01);
    await page.keyboard.press('0');
    assert.ok(Math.abs((await boxOf(page, '#paint')).width - view.width) < 1);
    assert.deepEqual(await violations(page), []);
  }));

/** @param {Page} page */
const margins = page => Promise.all(['left', 'right', 'top', 'bottom'].map(side => page.inputValue(`#extend-${side}`)));

test('the frame of the picture to make is dragged by mouse, moved by keys, and drawn', () =>
  withPage({ height: 1000 }, async page => {
    await begin(page);
    assert.ok(await page.isHidden('#extend-frame'));
    await page.click('#extend-by-hand');
    const frame = await boxOf(page, '#extend-frame');
    const scale = frame.width / 128;
    // By its right edge, 32 pixels of the picture out, and by its left upper corner.
    await page.mouse.move(frame.x + frame.width, frame.y + frame.height / 2);
    await page.mouse.down();
    await page.mouse.move(frame.x + frame.width + 33 * scale, frame.y + frame.height / 2 + 50, { steps: 4 });
    assert.deepEqual(await margins(page), ['0', '32', '0', '0']);
    await page.mouse.up();
    assert.match(await page.innerText('#frame-size'), /160 × 64 pixels/);
    const wider = await boxOf(page, '#extend-frame');
    const now = wider.width / 160;
    await page.mouse.move(wider.x, wider.y);
    await page.mouse.down();
    await page.mouse.move(wider.x - 16 * now, wider.y - 24 * now, { steps: 4 });
    await page.mouse.up();
    assert.deepEqual(await margins(page), ['16', '32', '24', '0']);
    await shot(page, 'frame-mouse');
    // All of it: its size stays, and the picture stays within.
    const whole = await boxOf(page, '#extend-frame');
    const shown = whole.width / 176;
    const [x, y] = [whole.x + whole.width * 0.3, whole.y + whole.height * 0.7];
    await page.mouse.move(x, y);
    await page.mouse.down();
    await page.mouse.move(x + 8 * shown, y + 100 * shown, { steps: 4 });
    await page.mouse.up();
    assert.deepEqual(await margins(page), ['8', '40', '0', '24']);
    await page.keyboard.press('Control+Enter');
    await status(page, /^Done/);
    const options = await asked(page);
    assert.deepEqual(options.outpaint, { left: 8, right: 40, top: 0, bottom: 24 });
    assert.deepEqual([options.image?.width, options.image?.height], [128, 64]);
    // By keys; what a field says is seen too.
    await page.focus('#extend-frame');
    await page.keyboard.press('ArrowUp');
    await page.keyboard.press('ArrowLeft');
    await page.keyboard.press('Shift+ArrowRight');
    assert.deepEqual(await margins(page), ['16', '32', '8', '24']);
    assert.deepEqual(await violations(page), []);
    await page.keyboard.press('Delete');
    assert.deepEqual(await margins(page), ['0', '0', '0', '0']);
    await page.keyboard.press('Shift+ArrowLeft');
    assert.deepEqual(await margins(page), ['0', '0', '0', '0']);
    await page.fill('#extend-top', '64');
    const high = await boxOf(page, '#extend-frame');
    assert.ok(Math.abs(high.width / high.height - 1) < 0.02);
    // Away with it: what was asked for is still seen, and one paints again.
    await page.click('#extend-by-hand');
    assert.ok(await page.isVisible('#extend-area'));
    await page.fill('#extend-top', '0');
    assert.ok(await page.isHidden('#extend-area'));
    await page.click('#paint');
    isDot(await paint(page), 64, 32);
  }));
