// Fingers on a screen, for pages of a browser that has one (`touch` of withBrowser).

/** @typedef {import('playwright-core').Page} Page */
/** @typedef {{ x: number, y: number }} Point */

/**
 * Fingers come down, move and go: one list of where they are for each moment, as many in all of them. The browser makes of
 * it what it makes of real ones: touches, pointers, clicks, scrolling.
 * @param {Page} page
 * @param {...Point[]} moments
 */
export async function fingers(page, ...moments) {
  const session = await page.context().newCDPSession(page);
  // They rest before they go, by the clock that the events bear: else it is a fling, and the next touch only ends that.
  const all = [...moments, moments[moments.length - 1], []];
  const now = Date.now() / 1000;
  for (const [i, points] of all.entries()) {
    const touchPoints = points.map(({ x, y }, id) => ({ x, y, id }));
    const type = i === 0 ? 'touchStart' : points.length > 0 ? 'touchMove' : 'touchEnd';
    const timestamp = now - (all.length - 1 - i) * 0.2;
    await session.send('Input.dispatchTouchEvent', { type, touchPoints, timestamp });
  }
  await session.detach();
}

/** One finger along a line, in some moves. @param {Page} page @param {Point} from @param {Point} to */
export const drag = (page, from, to, moves = 4) =>
  fingers(page, ...Array.from({ length: moves + 1 }, (_, i) => [{
    x: from.x + ((to.x - from.x) * i) / moves, y: from.y + ((to.y - from.y) * i) / moves,
  }]));

/** Two fingers, each along a line. @param {Page} page @param {[Point, Point]} from @param {[Point, Point]} to */
export const pinch = (page, from, to, moves = 4) =>
  fingers(page, ...Array.from({ length: moves + 1 }, (_, i) => from.map(({ x, y }, which) => ({
    x: x + ((to[which].x - x) * i) / moves, y: y + ((to[which].y - y) * i) / moves,
  }))));

/**
 * What is seen and smaller than a finger, in one of its sides. Links within a text are as high as the text; a box has its
 * label to be touched; of the strip of steps the slider above does the same.
 * @param {Page} page
 */
export const tooSmall = page => page.evaluate(() =>
  [...document.querySelectorAll('a, button, input, select, textarea, summary, label.check')]
    .filter(e => e.checkVisibility() && !e.matches('p a, footer a, label input, .visually-hidden'))
    .map(e => ({ e, box: e.getBoundingClientRect() }))
    .filter(({ box }) => box.width > 0 && (box.height < 43.5 || box.width < 43.5))
    .map(({ e, box }) => `${e.outerHTML.slice(0, 90)} ${box.width.toFixed()} × ${box.height.toFixed()}`));
