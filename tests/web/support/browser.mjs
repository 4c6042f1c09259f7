// Headless Chromium with a software GPU, for tests and for the command line.
//   swiftshader: Chromium's own; no shader-f16. The picture of an adapter with nothing but the default limits.
//   lavapipe:    Mesa's; shader-f16, subgroups, some ten times faster. Needs .tools/lavapipe (build.sh makes it).
import { chromium } from 'playwright-core';
import { existsSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = resolve(fileURLToPath(new URL('../../..', import.meta.url)));
const layer = join(root, '.tools/lavapipe');
/** Milliseconds after which a wait is given up. Nothing is judged by it: on a busy machine everything takes long. */
const HANGS = 600_000;

/** What a browser tells of its connection. @typedef {{ type?: string, saveData?: boolean }} Connection */

/** Which adapters this machine can offer, fastest first. */
export const adapters = existsSync(join(layer, 'liblayer.so')) ? ['lavapipe', 'swiftshader'] : ['swiftshader'];

/** @returns {string} the browser to drive */
function executable() {
  const named = ['chromium', 'google-chrome', 'chromium-browser'];
  const found = named
    .flatMap(name => (process.env.PATH ?? '').split(delimiter).map(dir => join(dir, name)))
    .find(p => existsSync(p));
  if (!found) throw new Error('no Chromium on this machine: ./build.sh test installs it');
  return found;
}

const common = ['--enable-unsafe-webgpu', '--disable-gpu-watchdog', '--no-sandbox', '--no-first-run', '--disable-quic',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--ignore-gpu-blocklist'];

/** @param {string} adapter @returns {{ args: string[], env: Record<string, string> }} */
function configuration(adapter) {
  if (adapter === 'swiftshader') return { args: ['--use-webgpu-adapter=swiftshader'], env: {} };
  if (adapter !== 'lavapipe') throw new Error(`no adapter "${adapter}"`);
  const icd =
    [
      join(layer, 'icd.json'),
      '/usr/share/vulkan/icd.d/lvp_icd.x86_64.json',
      '/usr/share/vulkan/icd.d/lvp_icd.json',
    ].find(p => existsSync(p)) ?? '';
  return {
    args: ['--enable-features=Vulkan', '--use-vulkan=native', '--use-angle=vulkan'],
    env: {
      VK_ICD_FILENAMES: icd, VK_DRIVER_FILES: icd, VK_LAYER_PATH: layer, VK_INSTANCE_LAYERS: 'VK_LAYER_LAVAPIPE_webgpu',
      NODEVICE_SELECT: '1', LD_LIBRARY_PATH: join(layer, 'mesa/usr/lib/x86_64-linux-gnu'), XDG_RUNTIME_DIR: layer,
    },
  };
}

/**
 * Starts a browser, does the work, and always closes it. `errors` collects what pages report (console errors,
 * uncaught exceptions); any that are left there when the work is done make the call fail, so a test that expects
 * one takes it out.
 * @template T
 * @param {{ adapter?: string, args?: string[], profile?: string, env?: Record<string, string>, connection?: Connection }}
 *   options profile: a folder to keep IndexedDB in; env: beside the adapter's own; connection: what the browser tells of
 *   it; usually that it is not metered, so that the page loads its model by itself
 * @param {(context: import('playwright-core').BrowserContext, errors: string[]) => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withBrowser(options, work) {
  const { adapter = adapters[0], args = [], profile = '', env = {}, connection = { type: 'wifi' } } = options;
  const { args: gpuArgs, env: gpuEnv } = configuration(adapter);
  const launch = {
    executablePath: executable(), headless: true, args: [...common, ...gpuArgs, ...args],
    env: /** @type {Record<string, string>} */ ({ ...process.env, ...gpuEnv, ...env }), timeout: HANGS,
  };
  const browser = profile ? null : await chromium.launch(launch);
  const context = browser ? await browser.newContext() : await chromium.launchPersistentContext(profile, launch);
  context.setDefaultTimeout(HANGS);
  await context.addInitScript(connection => {
    for (const [name, value] of Object.entries(connection)) {
      Object.defineProperty(/** @type {any} */ (globalThis).NetworkInformation.prototype, name, { get: () => value });
    }
  }, connection);
  const errors = /** @type {string[]} */ ([]);
  context.on('console', message => {
    // Chromium asks every host for an icon, unbidden.
    if (message.type() === 'error' && !message.location().url.endsWith('/favicon.ico')) errors.push(message.text());
  });
  context.on('weberror', error => errors.push(String(error.error())));
  try {
    const result = await work(context, errors);
    if (errors.length) throw new Error(`the page reported errors:\n${errors.join('\n')}`);
    return result;
  } finally {
    await closed(browser ?? context);
  }
}

/**
 * Chromium on lavapipe sometimes hangs while it shuts down; ten seconds are enough for an orderly end, and
 * playwright ends the browser's processes with this one.
 * @param {{ close(): Promise<void> }} browser
 */
async function closed(browser) {
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const late = new Promise(done => { timer = setTimeout(done, 10_000); });
  await Promise.race([browser.close(), late]);
  clearTimeout(timer);
}
