// ./build.sh generate "PROMPT" -o FILE.png [--steps N] [--seed N] [--guidance G] [--source URL] ...
// Draws with the page itself, in headless Chromium: for a machine without a screen, and to test what visitors get.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { adapters, root, withBrowser } from './browser.mjs';
import { serve } from './serve.mjs';

/** Options that are fields of the page's form, by the field's id. */
const fields = ['negative-prompt', 'steps', 'guidance', 'width', 'height', 'scheduler', 'seed', 'source', 'weights'];

/**
 * Fills the page's form, presses Generate and waits for the picture.
 * @param {import('playwright-core').Page} page showing index.html
 * @param {Record<string, string>} values by field id
 * @param {(status: string) => void} [onStatus]
 * @returns {Promise<Buffer>} the PNG
 */
export async function generate(page, values, onStatus = () => {}) {
  for (const [id, value] of Object.entries(values)) {
    // Some fields are out of sight: in a place of their own, or for whom wants to see more settings.
    await page.locator(`#${id}`).evaluate((field, value) => {
      Object.assign(field, { value });
      for (const type of ['input', 'change']) field.dispatchEvent(new Event(type, { bubbles: true }));
    }, value);
  }
  const before = await page.evaluateHandle(() => /** @type {any} */ (window).browserDiffusion?.lastResult);
  await page.click('#generate');
  for (let last = ''; ;) {
    const { status, done, failure } = await page.evaluate(previous => {
      const shown = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
      const text = (/** @type {string} */ id) => shown(id)?.hidden ? '' : shown(id)?.innerText.trim() ?? '';
      const result = /** @type {any} */ (window).browserDiffusion?.lastResult;
      return {
        status: [text('status'), text('progress-text')].filter(Boolean).join(' | '),
        done: Boolean(result) && result !== previous,
        failure: text('error') || text('no-webgpu'),
      };
    }, before);
    if (status !== last) onStatus(last = status);
    if (failure) throw new Error(failure);
    if (done) break;
    await new Promise(next => setTimeout(next, 200));
  }
  const url = await page.evaluate(async () => {
    const blob = await /** @type {any} */ (window).browserDiffusion.lastResult.images[0].toBlob('image/png');
    const reader = new FileReader();
    return new Promise(done => { reader.onload = () => done(String(reader.result)); reader.readAsDataURL(blob); });
  });
  return Buffer.from(String(url).split(',')[1], 'base64');
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      output: { type: 'string', short: 'o' }, adapter: { type: 'string', default: adapters[0] },
      ...Object.fromEntries(fields.map(id => [id, /** @type {const} */ ({ type: 'string' })])),
    },
  });
  const given = /** @type {Record<string, string | undefined>} */ (values);
  const output = given.output;
  if (positionals.length !== 1 || !output) {
    throw new Error(
      'usage: ./build.sh generate "PROMPT" -o FILE.png ' +
        `${fields.map(id => `[--${id} ...]`).join(' ')} [--adapter ${adapters.join('|')}]`,
    );
  }
  const server = await serve(join(root, 'www'));
  try {
    await withBrowser({ adapter: given.adapter }, async context => {
      const page = await context.newPage();
      await page.goto(server.url);
      const form = {
        prompt: positionals[0],
        ...Object.fromEntries(fields.flatMap(id => (given[id] === undefined ? [] : [[id, String(given[id])]]))),
      };
      writeFileSync(output, await generate(page, form, status => console.error(`    ${status}`)));
    });
    console.log(output);
  } finally {
    server.close();
  }
}

if (fileURLToPath(import.meta.url) === process.argv[1]) {
  await main().catch(error => { console.error(error.message); process.exitCode = 1; });
  process.exit(); // a browser that hangs on its way out must not keep the command
}
