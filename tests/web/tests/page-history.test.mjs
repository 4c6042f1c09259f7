// The pictures that were drawn, kept: what is finished is not lost, whatever becomes of the tab, the browser's room or the
// database, and nothing of that holds a drawing up. By mouse, by keyboard. The engine is fake-engine.js.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { withBrowser } from '../support/browser.mjs';
import { setLevel } from '../support/level.mjs';
import { serve } from '../support/serve.mjs';
import { goOn, shot, site, status, withPage } from '../support/site.mjs';

/** @typedef {import('playwright-core').Page} Page */

/** Fields of the form. @param {Page} page @param {Record<string, string | number>} values */
const fill = async (page, values) => {
  for (const [id, value] of Object.entries(values)) await page.fill(`#${id}`, String(value));
};
/** Small pictures of one step, so that many are made soon. @param {Page} page @param {object} values */
const draw = async (page, values) => {
  await fill(page, { width: 16, height: 16, steps: 1, ...values });
  await page.evaluate(() => { /** @type {HTMLElement} */ (document.getElementById('status')).textContent = ''; });
  await page.click('#generate');
  await status(page, /^Done/);
};
/** @param {Page} page @param {string} id @param {RegExp} pattern */
const says = (page, id, pattern) =>
  page.waitForFunction(
    ([id, source]) => new RegExp(source).test(document.getElementById(id)?.textContent ?? ''),
    [id, pattern.source],
  );
/** Waits until so many are shown. @param {Page} page @param {number} count */
const counts = (page, count) => says(page, 'history-usage', new RegExp(`^${count} pictures?, `));
/** Waits until so many are kept. @param {Page} page @param {number} count */
const keeps = async (page, count) => {
  while ((await held(page)).pictures.length !== count) await new Promise(done => setTimeout(done, 100));
};
/** In a page: whether a picture of this seed is kept. Reads no file. @param {number} seed @returns {Promise<boolean>} */
const isKept = seed => new Promise(resolve => {
  const opening = indexedDB.open('browser-diffusion-pictures');
  opening.onsuccess = () => {
    const pictures = opening.result.transaction('pictures').objectStore('pictures').getAll();
    pictures.onsuccess = () => {
      opening.result.close();
      resolve(pictures.result.some(({ parameters }) => parameters.includes(`Seed: ${seed},`)));
    };
  };
});
/** @param {Page} page @param {RegExp} pattern */
const notes = (page, pattern) => says(page, 'history-note', pattern);

/** In a page: what the database holds, each picture's file read to its end and decoded. @param {Page} page */
const held = page => page.evaluate(async () => {
  /** @param {IDBRequest} request @returns {Promise<any>} */
  const done = request => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  const database = await done(indexedDB.open('browser-diffusion-pictures'));
  const stores = ['pictures', 'thumbnails', 'files'];
  const all = await Promise.all(stores.map(async name => {
    const store = database.transaction(stores).objectStore(name);
    const [keys, values] = await Promise.all([done(store.getAllKeys()), done(store.getAll())]);
    return { keys, values };
  }));
  database.close();
  const [pictures, thumbnails, files] = all;
  for (const file of files.values) (await createImageBitmap(file)).close();
  const one = JSON.stringify(pictures.keys);
  return {
    whole: [thumbnails, files].every(({ keys }) => JSON.stringify(keys) === one),
    pictures: pictures.values.sort((/** @type {any} */ a, /** @type {any} */ b) => b.time - a.time),
  };
});

test('two tabs draw 200 pictures at once: after a reload all are there, found by their words, and packed', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    const other = await page.context().newPage();
    await other.goto(page.url());
    await status(other, /^Ready/);
    const half = (/** @type {Page} */ tab, /** @type {string} */ prompt, /** @type {number} */ seed) =>
      draw(tab, { prompt, seed, count: 50 });
    for (const seed of [100, 200])
      await Promise.all([half(page, 'a black cat', seed), half(other, 'a white dog', seed)]);
    await Promise.all([counts(page, 200), counts(other, 200), keeps(page, 200)]);
    await other.close();
    await page.reload();
    await counts(page, 200);
    const { whole, pictures } = await held(page);
    assert.ok(whole);
    assert.equal(new Set(pictures.map((/** @type {any} */ { parameters }) => parameters)).size, 200, 'each is another');
    assert.equal(await page.locator('#gallery img').count(), 24);
    await page.click('#history-more');
    assert.equal(await page.locator('#gallery img').count(), 48);
    await page.waitForFunction(() =>
      [.../** @type {NodeListOf<HTMLImageElement>} */ (document.querySelectorAll('#gallery img'))].every(
        image => image.naturalWidth > 0,
      ),
    );

    await page.fill('#history-search', 'CAT seed: 14');
    await counts(page, 12); // 114, 140 to 149, 214
    await page.fill('#history-search', 'cat dog');
    await says(page, 'gallery', /No picture here has all these words/);
    assert.ok(await page.isDisabled('#history-export'));
    await page.fill('#history-search', 'white dog');
    await counts(page, 100);
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#history-export')]);
    await notes(page, /^100 pictures are packed/);
    const code = `import sys, zipfile, zlib
with zipfile.ZipFile(sys.argv[1]) as z:
    assert z.testzip() is None
    names = z.namelist()
    assert len(set(names)) == 100, names
    assert all(z.read(n).startswith(b'\\x89PNG') and b'a white dog' in z.read(n) for n in names)
    print(sorted(names)[0], max(i.date_time for i in z.infolist())[0])`;
    const read = execFileSync('python3', ['-c', code, await download.path()], { encoding: 'utf8' });
    assert.equal(read.trim(), `a-white-dog-100.png ${new Date().getFullYear()}`);
    await page.fill('#history-search', '');
    await shot(page, 'history-200');
  }));

test('one tab sees at once what the other stars, deletes and brings back', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await draw(page, { prompt: 'first', seed: 1 });
    const other = await page.context().newPage();
    await other.goto(page.url());
    await counts(other, 1);
    await draw(other, { prompt: 'second', seed: 2 });
    await counts(page, 2);
    await page.click('#star'); // of the first, which is shown here
    await other.waitForSelector('#gallery li:nth-child(2).starred');
    await page.click('#delete-picture');
    await counts(other, 1);
    await page.click('#history-undo');
    await other.waitForSelector('#gallery li:nth-child(2).starred');
    assert.ok((await held(page)).whole);
    // Deleted there while it is opened here.
    await other.click('#gallery button >> nth=1');
    await says(other, 'caption', /^first/);
    await page.evaluate(() => { BroadcastChannel.prototype.postMessage = () => {}; });
    await page.click('#delete-picture');
    await notes(page, /^“first” is deleted/);
    await other.click('#gallery button >> nth=1');
    await notes(other, /not there any more/);
    await counts(other, 1);
  }));

test('where room is short the oldest without a star go, and that is said; where there is none, too', async t => {
  const server = await serve(site);
  t.after(() => server.close());
  // What the page keeps of itself, which grows with it.
  const kept = await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(server.url);
    await status(page, /^Ready/);
    return page.evaluate(async () => {
      await navigator.serviceWorker.ready;
      return (await navigator.storage.estimate()).usage ?? 0;
    });
  });
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.addInitScript(setLevel, 'all');
    // Before the first byte, for the browser reckons with what it knew for a while.
    const session = await context.newCDPSession(page);
    const { origin } = new URL(server.url);
    await session.send('Storage.overrideQuotaForOrigin', { origin, quotaSize: kept + 600_000 });
    t.diagnostic(`${kept} bytes of the page`);
    await page.goto(server.url);
    await status(page, /^Ready/);
    const size = { width: 128, height: 128 }; // 57 kB each, and 18 around it: some eight have room
    const LAST = 30; // more than Chromium lets in by what it knew before the page was kept
    await draw(page, { ...size, prompt: 'the noisy best', seed: 1 });
    await page.click('#star');
    await page.waitForSelector('#gallery .starred');
    await draw(page, { ...size, prompt: 'noisy', seed: 1, count: LAST });
    await notes(page, /^Room is short: the \d+ oldest pictures without a star were deleted|the oldest picture without/);
    await page.waitForFunction(
      seed => document.querySelector('#gallery button')?.ariaLabel?.includes(`seed ${seed} `), LAST,
    );
    const seeds = async () => {
      const { whole, pictures } = await held(page);
      assert.ok(whole);
      return pictures.map((/** @type {any} */ p) => [p.title, Number(/Seed: (\d+)/.exec(p.parameters)?.[1])]);
    };
    while (!await page.evaluate(isKept, LAST)) await new Promise(done => setTimeout(done, 100));
    const there = await seeds();
    assert.deepEqual(there.at(-1), ['the noisy best', 1], 'it has a star');
    const rest = there.slice(0, -1);
    assert.deepEqual(rest, Array.from(rest, (_, i) => ['noisy', LAST - i]), 'the oldest went first');
    assert.ok(rest.length > 3 && rest.length < LAST, `${rest.length} of them are left`);
    await counts(page, there.length);
    await page.evaluate(() => scrollTo(0, 0));
    await shot(page, 'history-room-short');

    // All that is left has a star.
    for (let i = 0; i < rest.length; i++) {
      const [open, star] = [page.locator('#gallery button').nth(i), `#gallery li:nth-child(${i + 1})`];
      await open.click();
      await page.waitForSelector(`${star}[aria-current]`);
      await page.click('#star');
      await page.waitForSelector(`${star}.starred`);
    }
    const full = async () => /^There is no room to keep/.test(await page.innerText('#history-note'));
    let seed = LAST + 1;
    for (; seed < LAST + 11; seed++) {
      await draw(page, { ...size, prompt: 'noisy, homeless', seed, count: 1 });
      let kept;
      while (!(kept = await page.evaluate(isKept, seed)) && !await full());
      if (!kept) break;
      await page.click('#star');
      await page.waitForSelector('#gallery li:nth-child(1).starred');
    }
    assert.ok(await full());
    await page.click('#gallery button >> nth=-1');
    await says(page, 'caption', /^the noisy best/);
    await page.click('#gallery button >> nth=0');
    await says(page, 'caption', /^noisy, homeless/);
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#save')]);
    assert.equal(download.suggestedFilename(), `noisy-homeless-${seed}.png`);
    assert.deepEqual((await seeds()).slice(-there.length), there, 'none with a star went');
  });
});

test('the database is deleted under it: what is drawn next is kept in a new one', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await draw(page, { prompt: 'before', seed: 1, count: 3 });
    await counts(page, 3);
    await fill(page, { prompt: 'holds at 1', seed: 4, steps: 2, count: 1 });
    await page.click('#generate');
    await says(page, 'caption', /^Step 1 of 2/);
    await page.evaluate(() => new Promise((resolve, reject) => {
      const deleting = indexedDB.deleteDatabase('browser-diffusion-pictures');
      deleting.onsuccess = resolve;
      deleting.onerror = reject;
    }));
    await goOn(page);
    await status(page, /^Done/);
    await counts(page, 4);
    await page.click('#gallery button >> nth=2');
    await notes(page, /not there any more/);
    await page.reload();
    await counts(page, 1);
    assert.ok((await held(page)).whole);
    await says(page, 'caption', /^holds at 1/);
  }));

const broken = {
  hangs: () => { indexedDB.open = () => /** @type {any} */ ({}); },
  refuses: () => { indexedDB.open = () => { throw new DOMException('not here', 'SecurityError'); }; },
};
for (const [what, before] of Object.entries(broken)) {
  test(`a database that ${what} holds no drawing up, and loses none of this visit`, () =>
    withPage({ before }, async page => {
      await status(page, /^Ready/);
      await says(page, 'caption', /An example, drawn before/);
      await draw(page, { prompt: 'a cat', seed: 1, count: 3 });
      assert.equal(await page.locator('#gallery button').count(), 3);
      if (what === 'refuses') await notes(page, /^This browser keeps no pictures here/);
      await page.click('#gallery button >> nth=2');
      await says(page, 'caption', /seed 1 /);
      const [download] = await Promise.all([page.waitForEvent('download'), page.click('#save')]);
      assert.equal(download.suggestedFilename(), 'a-cat-1.png');
    }));
}

test('the browser is killed while pictures are written: each is there whole, or not at all', async t => {
  const profile = mkdtempSync(join(tmpdir(), 'browser-diffusion-'));
  const server = await serve(site);
  t.after(() => {
    server.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  });
  let kept = 0;
  await withBrowser({ profile }, async (context, _, crash) => {
    const page = await context.newPage();
    await page.addInitScript(setLevel, 'all');
    const enough = new Promise(done => page.exposeFunction('oneKept', () => { if (++kept === 20) done(undefined); }));
    await page.goto(server.url);
    await status(page, /^Ready/);
    await page.evaluate(() => {
      const channel = new BroadcastChannel('browser-diffusion pictures');
      channel.onmessage = () => /** @type {any} */ (window).oneKept();
      Object.assign(window, { channel });
    });
    await fill(page, { width: 256, height: 256, steps: 1, seed: 1, count: 64 });
    await page.click('#generate');
    await enough;
    await crash();
  });
  await withBrowser({ profile }, async context => {
    const page = await context.newPage();
    await page.addInitScript(setLevel, 'all');
    await page.goto(server.url);
    await page.waitForSelector('#gallery button');
    const { whole, pictures } = await held(page);
    t.diagnostic(`${kept} were said to be kept, ${pictures.length} are`);
    assert.ok(whole);
    assert.ok(pictures.length >= kept && pictures.length < 64, `${pictures.length} of ${kept}`);
    await says(page, 'caption', /seed \d+ /);
  });
});
