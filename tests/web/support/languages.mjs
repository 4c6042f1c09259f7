// What a page says, for tests of the languages it is in and of what assistive technology makes of it.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

/** @typedef {import('playwright-core').Page} Page */

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** WCAG 2.2 at level AA, as axe-core checks it: one line for each violation. @param {Page} page @returns {Promise<string[]>} */
export async function violations(page) {
  if (!(await page.evaluate(() => 'axe' in window))) await page.addScriptTag({ content: axe });
  return page.evaluate(async () => {
    const values = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];
    const found = await /** @type {any} */ (window).axe.run(document, { runOnly: { type: 'tag', values } });
    // It must have looked at something: a page that is not shown has no violations either.
    if (found.passes.length < 10) return [`axe-core passed ${found.passes.length} rules only`];
    return found.violations.flatMap((/** @type {any} */ { id, nodes }) =>
      nodes.map((/** @type {any} */ { html, any }) => `${id}: ${html.slice(0, 150)} ${any[0]?.message ?? ''}`));
  });
}

/** Opens every drawer, and the lists in them have a row each. @param {Page} page */
export async function openAll(page) {
  await page.evaluate(() => {
    for (const drawer of document.querySelectorAll('details')) drawer.open = true;
    for (const id of ['add-lora', 'add-embedding', 'add-vae', 'add-control']) document.getElementById(id)?.click();
  });
}

/**
 * All that a reader or a screen reader is told: texts, choices and the attributes that are read. Without what says that it
 * is English, and what the visitor wrote.
 * @param {Page} page
 * @returns {Promise<string[]>}
 */
export const texts = page => page.evaluate(() => {
  const all = /** @type {string[]} */ ([document.title]);
  const walk = (/** @type {Element} */ element) => {
    if (element.matches('script, style, noscript, [translate=no], [lang=en], textarea, .tokens')) return;
    for (const name of ['title', 'placeholder', 'aria-label', 'aria-valuetext', 'alt', 'label'])
      all.push(element.getAttribute(name) ?? '');
    for (const node of element.childNodes) {
      if (node instanceof Element) walk(node);
      else if (node.nodeType === Node.TEXT_NODE) all.push(node.textContent ?? '');
    }
  };
  walk(document.body);
  return [...new Set(all.map(text => text.replace(/\s+/g, ' ').trim()).filter(Boolean))];
});

/** Whether a page can be scrolled sideways. @param {Page} page */
export const overflows = page =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
