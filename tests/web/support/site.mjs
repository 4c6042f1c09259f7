// The page as it is published, but with the fake engine (fake-engine.js) and without the model, for tests of everything around pictures.
import { after } from 'node:test';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from './browser.mjs';
import { setLevel } from './level.mjs';
import { serve } from './serve.mjs';
import { render } from '../../../tools/languages.mjs';
import { minify } from '../../../tools/publish.mjs';

/** @typedef {import('playwright-core').Page} Page */
/** @typedef {import('./browser.mjs').Connection} Connection */

export const www = join(root, 'www');
export const site = mkdtempSync(join(tmpdir(), 'browser-diffusion-'));
after(() => rmSync(site, { recursive: true }));
cpSync(www, site, { recursive: true, filter: path => ![join(www, 'embedded'), join(www, 'pkg')].includes(path) });
mkdirSync(join(site, 'pkg'));
cpSync(join(root, 'tests/web/support/fake-engine.js'), join(site, 'pkg/browser_diffusion.js'));
writeFileSync(join(site, 'pkg/browser_diffusion_bg.wasm'), '');
render(site);
minify(site);
mkdirSync(join(site, 'embedded'));
writeFileSync(join(site, 'embedded/concepts.json'), JSON.stringify(['apple', 'fire', 'light bulb']));

export const folder = join(root, '.tools/screenshots');
mkdirSync(folder, { recursive: true });

/**
 * The page itself.
 * @param {{ width?: number, height?: number, hash?: string, before?: () => void, connection?: Connection,
 *   level?: string, keepsPages?: boolean, touch?: boolean }} how
 *   hash: behind the address; before: runs in the page first; connection: as withBrowser has it; level: of settings that
 *   the visitor chose before, all of them where nothing is said; '': none was chosen; keepsPages, touch: as withBrowser has
 *   them
 * @param {(page: Page, requests: string[], server: { url: string, close(): void }) => Promise<void>} work
 */
export async function withPage(how, work) {
  const { width = 1280, height = 900, hash = '', before, connection, level = 'all', keepsPages, touch } = how;
  const server = await serve(site);
  try {
    // No engine draws here. A page that lavapipe paints takes a third more of the processor.
    await withBrowser({ adapter: 'swiftshader', connection, keepsPages, touch }, async context => {
      const page = await context.newPage();
      /** @type {string[]} */
      const requests = [];
      page.on('request', request => requests.push(request.url()));
      await page.setViewportSize({ width, height });
      await page.addInitScript(setLevel, level);
      if (before) await page.addInitScript(before);
      await page.goto(`${server.url}${hash}`);
      await work(page, requests, server);
    });
  } finally {
    server.close();
  }
}

/** Goes to the models, or back to drawing, as a visitor does. @param {Page} page @param {'models' | 'draw'} place */
export const goTo = (page, place) => page.click(`.places a[href="#${place}"]`);

/**
 * On a phone: brings the sheet of settings up where an element is on it, and puts it away where it lies over the element.
 * @param {Page} page
 * @param {string} target
 */
export async function sheetFor(page, target) {
  const press = await page.evaluate(target => {
    const [open, close] = ['sheet', 'sheet-close'].map(id => /** @type {HTMLElement} */ (document.getElementById(id)));
    const seen = document.querySelector(target);
    if (!seen || !open.checkVisibility()) return '';
    if (seen.closest('.settings')) return close.checkVisibility() ? '' : '#sheet';
    return close.checkVisibility() && !seen.closest('.bar') ? '#sheet-close' : '';
  }, target);
  if (press) await page.click(press);
}

/** Types a model's name, among the models. @param {Page} page @param {string} source */
export async function typeModel(page, source) {
  await goTo(page, 'models');
  await page.fill('#source', source);
  await goTo(page, 'draw');
}

/** @param {Page} page @param {RegExp} pattern */
export const status = (page, pattern) =>
  page.waitForFunction(
    source => new RegExp(source).test(document.getElementById('status')?.textContent ?? ''),
    pattern.source,
  );
/** @param {Page} page */
export const hasResult = page => page.waitForFunction(() => (/** @type {any} */ (window)).browserDiffusion?.lastResult);

/** @param {Page} page @param {string} name */
export const shot = (page, name) => page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });

/** Draws once more: by the button, or as `how` does. @param {Page} page @param {() => Promise<void>} [how] */
export const drawAgain = async (page, how = () => page.click('#generate')) => {
  await page.evaluate(() => { delete (/** @type {any} */ (window)).browserDiffusion; });
  await how();
  await hasResult(page);
};

/** Lets a drawing that "holds at" a step go on. @param {Page} page */
export const goOn = page => page.evaluate(() => new BroadcastChannel('fake engine').postMessage('go on'));

/** What the engine was asked, pictures as their sizes and how much of them is white. @param {Page} page */
export const asked = page => page.evaluate(() => {
  const { options } = /** @type {any} */ (window).browserDiffusion.lastResult;
  const seen = (/** @type {any} */ p) =>
    p && {
      width: p.width,
      height: p.height,
      white:
        p.data.filter((/** @type {number} */ v, /** @type {number} */ i) => i % 4 === 0 && v > 127).length /
        (p.width * p.height),
    };
  const controlnets = options.controlnets?.map((/** @type {any} */ c) => ({ ...c, image: seen(c.image) }));
  const ipAdapters = options.ipAdapters?.map((/** @type {any} */ a) => ({ ...a, images: a.images.map(seen) }));
  return { ...options, image: seen(options.image), maskImage: seen(options.maskImage), controlnets, ipAdapters };
});
