// A stage for what goes wrong between a server, a cache and a visitor: models on servers that misbehave, and pages of
// another origin that import the module and draw with the real engine.
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root } from './browser.mjs';
import { serve } from './hub.mjs';
import { writeTiny } from './tiny.mjs';

/** @typedef {import('playwright-core').Page} Page */
/** @typedef {import('playwright-core').BrowserContext} Context */

export const UNET = 'unet/diffusion_pytorch_model.safetensors';
/**
 * Bytes per second of a download that does not end while a test waits for something else. It goes on, for a load tells
 * of its bytes every tenth of a second while some come: where nothing follows, the last ones are never told of.
 */
export const CRAWL = 50e3;
/** Bytes of a chunk in the cache, for files up to 64 MiB: src/store/web/mod.rs. */
export const CHUNK = 512 << 10;

/**
 * A safetensors file with its header or its data changed.
 * @param {string} file
 * @param {(header: Record<string, any>, data: Buffer) => Buffer | void} change returns other data, if any
 */
export function changed(file, change) {
  const bytes = readFileSync(file);
  const start = 8 + Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString('utf8', 8, start));
  const data = Buffer.from(bytes.subarray(start));
  const after = change(header, data) ?? data;
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, after]);
}

/** Bytes of all files of a folder. @param {string} folder @returns {number} */
export const bytesOf = folder => readdirSync(folder, { recursive: true, withFileTypes: true })
  .reduce((sum, entry) => sum + (entry.isFile() ? statSync(join(entry.parentPath, entry.name)).size : 0), 0);

/**
 * The model again, with so many bytes that nobody asks for that a download can break.
 * @param {string} from @param {string} to
 */
function enlarge(from, to) {
  cpSync(from, to, { recursive: true });
  writeFileSync(join(to, UNET), changed(join(from, UNET), (header, data) => {
    const noise = new Uint32Array(6 << 20); // what can be compressed takes no room in the browser's database
    noise.forEach((_, i) => { noise[i] = Math.imul(i, 0x9e3779b1) ^ Math.imul(i >>> 7, 0x85ebca77); });
    const padding = Buffer.from(noise.buffer);
    header.padding = {
      dtype: 'F16',
      shape: [padding.length / 2],
      data_offsets: [data.length, data.length + padding.length],
    };
    return Buffer.concat([data, padding]);
  }));
}

/** Runs in the page: what the tests call there, as `window.robustTools`. @param {string} url where the module is */
async function tools(url) {
  const { DiffusionPipeline, DiffusionError, cache, detect } = await import(`${url}/browser-diffusion.js`);
  const hash = async (/** @type {any} */ data) =>
    [...new Uint8Array(await crypto.subtle.digest('SHA-256', data))].map(b => b.toString(16)).join();
  const tools = {
    DiffusionPipeline,
    cache,
    detect,
    loaded: /** @type {Record<string, number>} */ ({}),
    load: (/** @type {string} */ name, /** @type {any} */ options) =>
      DiffusionPipeline.fromPretrained(name, { hub: url, ...options }),
    draw: async (/** @type {any} */ pipeline, /** @type {any} */ options = {}) => {
      const {
        images: [image],
        latents,
      } = await pipeline.generate({
        prompt: 'a cat',
        seed: 7,
        width: 16,
        height: 16,
        numInferenceSteps: 2,
        scheduler: 'ddim',
        guidanceScale: 1,
        ...options,
      });
      return `${await hash(image.data)} ${await hash(latents[0])}`;
    },
    /** Loads, draws, and lets go of the model. */
    picture: async (/** @type {string} */ name, /** @type {any} */ options) => {
      const pipeline = await tools.load(name, options);
      const drawn = await tools.draw(pipeline);
      await pipeline.dispose();
      return drawn;
    },
    caught: async (/** @type {() => any} */ work) => {
      try {
        await work();
      } catch (error) {
        const e = /** @type {any} */ (error);
        return { code: e instanceof DiffusionError ? e.code : `untyped ${e}`, message: e.message };
      }
      return { code: 'none', message: 'it did not fail' };
    },
  };
  Object.assign(window, { robustTools: tools });
}

/** Loads and draws in the page. @param {Page} page @param {string} name @param {any} [options] */
export const picture = (page, name, options) =>
  page.evaluate(([n, o]) => window.robustTools.picture(n, o), [name, options]);
/** The error of a load. @param {Page} page @param {string} name @param {any} [options] */
export const failure = (page, name, options) =>
  page.evaluate(
    ([n, o]) => window.robustTools.caught(async () => (await window.robustTools.load(n, o)).dispose()),
    [name, options],
  );
/** @param {Page} page @returns {Promise<{ name: string, bytes: number, complete: boolean }[]>} */
export const list = page => page.evaluate(() => window.robustTools.cache.list());
/** @param {Page} page @param {string} name */
export const remove = (page, name) => page.evaluate(n => window.robustTools.cache.delete(n), name);

/** Opens the stage; `close` clears it away. */
export async function stage() {
  const temp = mkdtempSync(join(tmpdir(), 'browser-diffusion-'));
  const [good, large] = [join(temp, 'good'), join(temp, 'large')];
  writeTiny(good, 'sd1');
  enlarge(good, large);

  /** @type {Record<string, string>} */
  const models = { 'test/good': good, 'test/large': large };
  /** @type {Record<string, Buffer | string>} */
  const files = {};
  const www = join(root, 'www');
  const hub = await serve({ roots: { '/': www }, models, files });
  const hashed = await serve({ models: { 'test/good': good }, sha256: true });
  const shell = await serve({ roots: { '/': www, '/embedded/': good } });
  const blank = { '/': join(root, 'tests/web/support') };
  const [site, narrow] = [await serve({ roots: blank }), await serve({ roots: blank })];

  /** What has been asked of models since the last call, as bytes that exist. @param {typeof hub} [server] */
  function asked(server = hub) {
    const log = server.log.splice(0).filter(r => r.path.includes('/resolve/'));
    const bytes = log.filter(r => r.status === 206 || r.status === 0).reduce((sum, r) => {
      const [, id, path] = /^\/([^/]+\/[^/]+)\/resolve\/main\/(.*)$/.exec(r.path) ?? [];
      const [first, last] = r.range ?? [0, Infinity];
      return sum + Math.min(last + 1, statSync(join(models[id], path)).size) - first;
    }, 0);
    return { bytes, log, sent: log.reduce((sum, r) => sum + r.sent, 0) };
  }

  /** A page of another origin that has imported the module. @param {Context} context @param {string} [origin] */
  async function open(context, origin = site.url) {
    const page = await context.newPage();
    await page.goto(`${origin}/blank.html`);
    await page.evaluate(tools, hub.url);
    return page;
  }

  /**
   * Runs steps of a test, each with servers that behave and a fresh count of requests.
   * @param {import('node:test').TestContext} t @param {string[]} errors of the browser
   * @returns {(name: string, work: () => Promise<void>) => Promise<void>}
   */
  const steps = (t, errors) => (name, work) => t.test(name, async () => {
    hub.fault(null);
    asked();
    await work();
    // Chromium reports each answer that is not 200 as an error of the page.
    errors.splice(0).filter(e => !/^Failed to load resource/.test(e)).forEach(e => errors.push(e));
  });

  const close = async () => {
    await Promise.all([hub, hashed, shell, site, narrow].map(server => server.close()));
    rmSync(temp, { recursive: true, force: true });
  };
  const [total, profile] = [bytesOf(large), join(temp, 'profile')];
  return { hub, hashed, shell, narrow, models, files, good, total, profile, asked, open, steps, close };
}
