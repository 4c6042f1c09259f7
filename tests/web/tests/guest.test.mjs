// In a page that is not ours: the GPU is lost at every moment of a visit, pages are left and come back to, tabs and pipelines
// share one GPU. Always the module's next call draws the picture that an undisturbed one draws, byte for byte.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { adapters, withBrowser } from '../support/browser.mjs';
import { list, picture, stage } from '../support/robust.mjs';

/** @typedef {import('playwright-core').Page} Page */

const staged = await stage();
after(() => staged.close());

/** The next worker of the page loses its device where the page says so. @param {Page} page */
const losable = page => new Promise(done => page.once('worker', worker => worker.evaluate(() => {
  const request = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = async function (...how) {
    const device = await request.apply(this, how);
    new BroadcastChannel('lose').addEventListener('message', () => device.destroy(), { once: true });
    return device;
  };
}).then(done)));

/** A pipeline in `window.pipeline` whose device can be lost. @param {Page} page */
async function load(page) {
  // The worker is reached before it asks for its device.
  staged.hub.fault(r => (r.path.endsWith('model_index.json') ? { delay: 500 } : undefined));
  const ready = losable(page);
  await page.evaluate(async () => { window.pipeline = await window.robustTools.load('test/large'); });
  await ready;
  staged.hub.fault(null);
}

/** Draws, and loses the device at a step. @param {Page} page @param {number} at @param {number} steps @param {number} side */
const lostAt = (page, at, steps, side) => page.evaluate(async ([at, steps, side]) => {
  const { caught, draw } = window.robustTools;
  const onStep = (/** @type {any} */ { step }) => { if (step === at) new BroadcastChannel('lose').postMessage(''); };
  return caught(() => draw(window.pipeline, { numInferenceSteps: steps, width: side, height: side, onStep }));
}, [at, steps, side]);

/** @param {Page} page */
const drawn = page => page.evaluate(() => window.robustTools.draw(window.pipeline));
/** @param {Page} page */
const dispose = page => page.evaluate(() => window.pipeline.dispose());

test('a lost GPU: what runs is told, the next call has the model again, nothing that was kept is lost', async t => {
  await withBrowser({}, async (context, errors) => {
    const page = await staged.open(context);
    const right = await picture(page, 'test/large');
    const kept = await list(page);
    /** @param {string} name @param {() => Promise<void>} work */
    const step = (name, work) => t.test(name, async () => {
      await work();
      assert.deepEqual(await list(page), kept);
      errors.splice(0).filter(e => !/^Failed to load resource|[Dd]evice|GPU/.test(e)).forEach(e => errors.push(e));
    });

    await step('while a model is loaded', async () => {
      staged.hub.fault(r => (r.path.endsWith('model_index.json') ? { delay: 500 } : undefined));
      const ready = losable(page);
      const seen = await page.evaluate(async () => {
        const { caught, load, picture } = window.robustTools;
        const onProgress = (/** @type {any} */ { file, status }) => {
          if (status === 'progress' && file.startsWith('unet')) new BroadcastChannel('lose').postMessage('');
        };
        return { lost: await caught(() => load('test/large', { onProgress })), next: await picture('test/large') };
      });
      await ready;
      assert.deepEqual([seen.lost.code, seen.next], ['device-lost', right], seen.lost.message);
    });
    const moments = /** @type {const} */ ([['in step 3', 2, 400, 16], ['while it is decoded', 2, 2, 256]]);
    for (const [when, at, steps, side] of moments) {
      await step(when, async () => {
        await load(page);
        const { code, message } = await lostAt(page, at, steps, side);
        assert.equal(code, 'device-lost', message);
        assert.match(message, /Try again/);
        assert.equal(await drawn(page), right);
        await dispose(page);
      });
    }
    await step('while nobody uses it: the next call does not even notice', async () => {
      await load(page);
      assert.equal(await drawn(page), right);
      await page.evaluate(() => new BroadcastChannel('lose').postMessage(''));
      assert.equal(await drawn(page), right);
      assert.equal(await drawn(page), right);
      await dispose(page);
    });
    await step('with the process that drives it', async () => {
      await load(page);
      const session = await context.browser()?.newBrowserCDPSession();
      const began = page.waitForEvent('console');
      const running = page.evaluate(() => {
        const { caught, draw } = window.robustTools;
        return caught(() => draw(window.pipeline, { numInferenceSteps: 400, onStep: () => console.log('a step') }));
      });
      await began;
      await session?.send('Browser.crashGpuProcess');
      assert.equal((await running).code, 'device-lost');
      assert.equal(await drawn(page), right);
      await dispose(page);
    });
  });
});

/** The bytes that the driver of the GPU has given and not got back. */
const counts = join(tmpdir(), `browser-diffusion-counts-${process.pid}`);
writeFileSync(counts, new Uint8Array(16));
const held = () => Number(readFileSync(counts).readBigUInt64LE(0));

/** @param {number} most */
async function fallsTo(most) {
  while (held() > most) await new Promise(done => setTimeout(done, 50));
}

test('leaving a page and dispose give the memory of the GPU back; a page that is come back to draws', {
  skip: !adapters.includes('lavapipe') && 'no count of the driver', timeout: 1_800_000,
}, async t => {
  await withBrowser({ env: { LAVAPIPE_MEMORY: counts }, keepsPages: true }, async context => {
    let page = await staged.open(context);
    const right = await picture(page, 'test/large');
    // What a browser keeps for itself is there after the first picture.
    await page.goto('about:blank');
    const floor = await page.evaluate(() => 0).then(held) + (1 << 20);
    await fallsTo(floor);
    const loads = () => page.evaluate(async () => { window.pipeline = await window.robustTools.load('test/large'); });
    for (let i = 0; i < 10; i++) {
      await page.close();
      page = await staged.open(context);
      await loads();
      assert.equal(await drawn(page), right);
      assert.ok(held() > floor + (4 << 20), `${held()} bytes with a model, ${floor} without`);
      await page.goto('about:blank');
      await fallsTo(floor);
    }
    t.diagnostic(`${held()} bytes are held after ten visits, ${floor} was the most allowed`);

    // What drives the browser does not follow a page that comes back: it draws by itself, and another one is told.
    const watcher = await staged.open(context);
    await page.close();
    page = await staged.open(context);
    await page.evaluate(async () => {
      const { draw, load } = window.robustTools;
      window.pipeline = await load('test/large');
      addEventListener('pagehide', ({ persisted }) => localStorage.setItem('kept', String(persisted)));
      addEventListener('pageshow', async ({ persisted }) => {
        if (!persisted) return;
        const again = await draw(window.pipeline);
        await window.pipeline.dispose();
        localStorage.setItem('drawn', again);
      });
    });
    await page.goto('about:blank');
    await fallsTo(floor);
    await page.evaluate(() => { setTimeout(() => history.back()); });
    await watcher.waitForFunction(() => localStorage.getItem('drawn'));
    const seen = await watcher.evaluate(() => ({ ...localStorage }));
    assert.deepEqual([seen.kept, seen.drawn], ['true', right]);
    await fallsTo(floor);
  });
});

test('two pipelines and three tabs at once', async () => {
  await withBrowser({}, async context => {
    const pages = await Promise.all([0, 1, 2].map(() => staged.open(context)));
    const right = await picture(pages[0], 'test/large');
    const two = () => {
      const { draw, load } = window.robustTools;
      return Promise.all([0, 1].map(async () => {
        const pipeline = await load('test/large');
        const first = await draw(pipeline);
        const second = await draw(pipeline);
        await pipeline.dispose();
        return [first, second];
      }));
    };
    const seen = await Promise.all(pages.map(page => page.evaluate(two)));
    assert.deepEqual(new Set(seen.flat(2)), new Set([right]));
  });
});
