// Headless Firefox with lavapipe, driven over WebDriver BiDi: another engine's WebGPU (naga and wgpu, where Chromium has
// Tint and Dawn). It is told by preferences to offer it on this system; it has shader-f16, and no subgroups.
import puppeteer from 'puppeteer-core';

const preferences = {
  'dom.webgpu.enabled': true,
  'dom.webgpu.workers.enabled': true,
  'gfx.webgpu.ignore-blocklist': true,
  // Who asks for lasting storage is asked back, and nobody answers here.
  'dom.storageManager.prompt.testing': true,
  'dom.storageManager.prompt.testing.allow': true,
};

/**
 * The page in the words of playwright, as far as tests use them that run in both browsers.
 * @param {import('puppeteer-core').Page} page @param {string[]} errors
 */
function asPlaywright(page, errors) {
  page.on('console', message => { if (message.type() === 'error') errors.push(message.text()); });
  page.on('pageerror', error => errors.push(String(error)));
  /** @type {(selector: string, value: string) => Promise<void>} */
  const fill = (selector, value) => page.locator(selector).fill(value);
  return {
    goto: (/** @type {string} */ url) => page.goto(url),
    reload: () => page.reload(),
    close: () => page.close(),
    evaluate: (/** @type {any} */ run, /** @type {any} */ arg) => page.evaluate(run, arg),
    waitForFunction: (/** @type {any} */ is, /** @type {any} */ arg, /** @type {any} */ { polling = 100 } = {}) =>
      page.waitForFunction(is, { polling, timeout: 0 }, arg),
    addInitScript: (/** @type {any} */ run, /** @type {any} */ arg) => page.evaluateOnNewDocument(run, arg),
    click: (/** @type {string} */ selector) => page.click(selector),
    fill,
    selectOption: (/** @type {string} */ selector, /** @type {string} */ value) => page.select(selector, value),
  };
}

/**
 * As `withBrowser` of browser.mjs has it.
 * @param {{ executablePath: string, env: Record<string, string>, profile: string, connection: object,
 *   errors: string[], timeout: number }} options
 * @returns {Promise<import('./browser.mjs').Opened>}
 */
export async function openFirefox({ executablePath, env, profile, connection, errors, timeout }) {
  const browser = await puppeteer.launch({
    browser: 'firefox', executablePath, headless: true, extraPrefsFirefox: preferences, protocolTimeout: 0, timeout,
    // As wide as Chromium's, where the settings stand beside the picture.
    defaultViewport: { width: 1280, height: 720 },
    env: { ...process.env, ...env }, ...(profile && { userDataDir: profile }),
  });
  const newPage = async () => {
    const page = await browser.newPage();
    page.setDefaultTimeout(timeout);
    // Firefox tells nothing of its connection by itself.
    await page.evaluateOnNewDocument(told => {
      Object.defineProperty(Navigator.prototype, 'connection', { get: () => told });
    }, connection);
    return asPlaywright(page, errors);
  };
  return {
    context: /** @type {any} */ ({ newPage }),
    close: () => browser.close(),
    crash: async () => {
      const gone = new Promise(done => browser.process()?.once('exit', done));
      browser.process()?.kill('SIGKILL');
      await gone;
    },
  };
}
