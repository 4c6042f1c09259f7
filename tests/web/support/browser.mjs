// A headless browser with a software GPU, for tests and for the command line: Chromium, or Firefox (firefox.mjs).
//   swiftshader: Chromium's own; no shader-f16. The picture of an adapter with nothing but the default limits.
//   lavapipe:    Mesa's; shader-f16, subgroups, some ten times faster. Needs .tools/lavapipe (build.sh makes it).
import { chromium } from 'playwright-core';
import { existsSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openFirefox } from './firefox.mjs';

export const root = resolve(fileURLToPath(new URL('../../..', import.meta.url)));
const layer = join(root, '.tools/lavapipe');
/** Milliseconds after which a wait is given up. Nothing is judged by it: on a busy machine everything takes long. */
const HANGS = 600_000;

/** What a browser tells of its connection. @typedef {{ type?: string, saveData?: boolean }} Connection */

/** Which adapters this machine can offer, fastest first. */
export const adapters = existsSync(join(layer, 'liblayer.so')) ? ['lavapipe', 'swiftshader'] : ['swiftshader'];

const names = {
  chromium: ['chromium', 'google-chrome', 'chromium-browser'],
  firefox: ['firefox-esr', 'firefox'],
};
/** @typedef {keyof typeof names} Name */

/** @param {Name} browser @returns {string | undefined} the program to drive */
const program = browser =>
  names[browser]
    .flatMap(name => (process.env.PATH ?? '').split(delimiter).map(dir => join(dir, name)))
    .find(path => existsSync(path));

/** Which browsers this machine has for tests of both. @type {Name[]} */
export const browsers =
  program('firefox') && adapters.includes('lavapipe') ? ['chromium', 'firefox'] : ['chromium'];

/** @param {Name} browser */
function executable(browser) {
  const found = program(browser);
  if (!found) throw new Error(`no ${browser} on this machine: ./build.sh test installs it`);
  return found;
}

const common = ['--enable-unsafe-webgpu', '--disable-gpu-watchdog', '--no-sandbox', '--no-first-run', '--disable-quic',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--ignore-gpu-blocklist'];

/** @param {string} adapter @returns {{ args: string[], env: Record<string, string> }} */
function configuration(adapter) {
  if (adapter === 'swiftshader') return { args: ['--use-webgpu-adapter=swiftshader'], env: {} };
  if (adapter !== 'lavapipe') throw new Error(`no adapter "${adapter}"`);
  return {
    args: ['--enable-features=Vulkan', '--use-vulkan=native', '--use-angle=vulkan'],
    env: { ...lavapipe(), VK_LAYER_PATH: layer, VK_INSTANCE_LAYERS: 'VK_LAYER_LAVAPIPE_webgpu' },
  };
}

/** What makes lavapipe the one Vulkan driver. @returns {Record<string, string>} */
function lavapipe() {
  const icd =
    [
      join(layer, 'icd.json'),
      '/usr/share/vulkan/icd.d/lvp_icd.x86_64.json',
      '/usr/share/vulkan/icd.d/lvp_icd.json',
    ].find(p => existsSync(p)) ?? '';
  return {
    VK_ICD_FILENAMES: icd, VK_DRIVER_FILES: icd, NODEVICE_SELECT: '1', XDG_RUNTIME_DIR: layer,
    LD_LIBRARY_PATH: join(layer, 'mesa/usr/lib/x86_64-linux-gnu'),
  };
}

/**
 * @typedef {import('playwright-core').BrowserContext} Context
 * @typedef {{ context: Context, close(): Promise<void>, crash(): Promise<void> }} Opened
 */

/**
 * @param {{ adapter: string, args: string[], profile: string, env: NodeJS.ProcessEnv, connection: Connection,
 *   errors: string[], keepsPages: boolean, touch: boolean }} options
 * @returns {Promise<Opened>}
 */
async function openChromium({ adapter, args, profile, env, connection, errors, keepsPages, touch }) {
  const { args: gpuArgs, env: gpuEnv } = configuration(adapter);
  const launch = {
    executablePath: executable('chromium'), headless: true, args: [...common, ...gpuArgs, ...args],
    env: /** @type {Record<string, string>} */ ({ ...process.env, ...gpuEnv, ...env }), timeout: HANGS,
    ignoreDefaultArgs: keepsPages ? ['--disable-back-forward-cache'] : [],
  };
  const browser = profile ? null : await chromium.launch(launch);
  const phone = touch ? { hasTouch: true, isMobile: true } : {};
  const context = browser
    ? await browser.newContext(phone) : await chromium.launchPersistentContext(profile, { ...launch, ...phone });
  context.setDefaultTimeout(HANGS);
  await context.addInitScript(connection => {
    // Chromium runs this twice in a tab that a link opened.
    for (const [name, value] of Object.entries(connection)) {
      const kind = /** @type {any} */ (globalThis).NetworkInformation;
      Object.defineProperty(kind.prototype, name, { get: () => value, configurable: true });
    }
  }, connection);
  context.on('console', message => {
    // Chromium asks every host for an icon, unbidden.
    if (message.type() === 'error' && !message.location().url.endsWith('/favicon.ico')) errors.push(message.text());
  });
  context.on('weberror', error => errors.push(String(error.error())));
  return {
    context,
    close: () => (browser ?? context).close(),
    crash: async () => {
      const gone = new Promise(done => context.once('close', done));
      const session = await context.newCDPSession(context.pages()[0]);
      session.send('Browser.crash').catch(() => {});
      await gone;
    },
  };
}

/**
 * Starts a browser, does the work, and always closes it. `errors` collects what pages report (console errors,
 * uncaught exceptions); any that are left there when the work is done make the call fail, so a test that expects
 * one takes it out. `crash` ends the browser with no warning.
 * @template T
 * @param {{ browser?: Name, adapter?: string, args?: string[], profile?: string, env?: Record<string, string>,
 *   connection?: Connection, keepsPages?: boolean, touch?: boolean }} options adapter, args, keepsPages (pages that are
 *   left, to be come back to), touch (a phone's screen): of Chromium alone; profile: a folder to keep IndexedDB in; env:
 *   beside the adapter's own; connection: what the browser tells of it; usually that it is not metered, so that the page
 *   loads its model by itself
 * @param {(context: Context, errors: string[], crash: () => Promise<void>) => Promise<T>} work in Firefox the context has
 *   what firefox.mjs gives it
 * @returns {Promise<T>}
 */
export async function withBrowser(options, work) {
  const { browser = 'chromium', adapter = adapters[0], args = [], profile = '', env = {} } = options;
  const { connection = { type: 'wifi' }, keepsPages = false, touch = false } = options;
  const errors = /** @type {string[]} */ ([]);
  const { context, close, crash } = browser === 'firefox'
    ? await openFirefox({
      executablePath: executable(browser), env: { ...lavapipe(), ...env }, profile, connection, errors, timeout: HANGS,
    })
    : await openChromium({ adapter, args, profile, env, connection, errors, keepsPages, touch });
  try {
    const result = await work(context, errors, crash);
    if (errors.length) throw new Error(`the page reported errors:\n${errors.join('\n')}`);
    return result;
  } finally {
    await closed(close());
  }
}

/**
 * Chromium on lavapipe sometimes hangs while it shuts down; ten seconds are enough for an orderly end, and
 * what drives a browser ends its processes with this one.
 * @param {Promise<void>} closing
 */
async function closed(closing) {
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const late = new Promise(done => { timer = setTimeout(done, 10_000); });
  await Promise.race([closing, late]);
  clearTimeout(timer);
}
