// Choices of the tuner in the browser: kept over a reload, and dropped when adapter, browser or kernels are others.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/serve.mjs';

/** What the database holds. */
async function kept() {
  const { keptTunings } = await import('/kept-choices.js');
  return keptTunings();
}

/** Loads the embedded model, and tunes it where told to. @param {number} milliseconds */
async function load(milliseconds) {
  const { DiffusionPipeline } = await import('/browser-diffusion.js');
  const pipeline = await DiffusionPipeline.fromPretrained('embedded');
  const tuning = milliseconds ? await pipeline.tune({ milliseconds }) : await pipeline.tuning();
  await pipeline.dispose();
  return tuning;
}

/** @param {string[][]} entries browser, key, text */
async function plant(entries) {
  const opening = indexedDB.open('browser-diffusion-tuning', 1);
  await new Promise(done => { opening.onsuccess = done; });
  const store = opening.result.transaction('choices', 'readwrite').objectStore('choices');
  for (const [browser, key, text] of entries) store.put(text, [browser || navigator.userAgent, key]);
  await new Promise(done => { store.transaction.oncomplete = done; });
  opening.result.close();
}

test('choices survive a reload and are dropped when the kernels change', async t => {
  const server = await serve(join(root, 'www'), 0, {
    '/blank.html': '<!doctype html><title>tuning</title><link rel="icon" href="data:,">',
  });
  t.after(() => server.close());
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}blank.html`);
    assert.equal((await page.evaluate(load, 0)).origin, 'shipped');
    assert.deepEqual(await page.evaluate(kept), []);

    const timed = await page.evaluate(load, 1);
    assert.equal(timed.origin, 'timed');
    assert.match(timed.key, /^\S.*\|.*\|[0-9a-f]{16}$/);
    assert.deepEqual(await page.evaluate(kept), [[timed.key, timed.text]]);

    // Choices of our own in its place, to see that they are what a later visit draws with.
    const words = timed.text.split(' ');
    words[words.findLastIndex(/** @param {string} word */ word => !word.startsWith('@'))] = '0'; // '@': the rate
    const own = words.join(' ');
    await page.evaluate(plant, [['', timed.key, own]]);
    await page.reload();
    assert.deepEqual(await page.evaluate(load, 0), { key: timed.key, text: own, origin: 'kept' });

    // What other kernels or another version of the browser left behind is not used, and goes.
    const stale = `${timed.key.slice(0, timed.key.lastIndexOf('|'))}|0123456789abcdef`;
    await page.evaluate(plant, [
      ['', stale, own],
      ['Mozilla/5.0 of yesterday', timed.key, own],
      ['', 'another adapter|F32 F16 0|00', own],
    ]);
    await page.evaluate(load, 1);
    assert.deepEqual(
      (await page.evaluate(kept)).map((/** @type {string[]} */ [key]) => key).sort(),
      [timed.key, 'another adapter|F32 F16 0|00'].sort(),
    );

    // Damaged choices are no choices.
    await page.evaluate(plant, [['', timed.key, '7 7 7']]);
    assert.equal((await page.evaluate(load, 0)).origin, 'shipped');
  });
});
