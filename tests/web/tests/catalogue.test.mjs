// The page's models: what one costs is said before a byte of it is fetched, a choice brings its settings, what was loaded
// is kept, listed, used again without a network, and deleted; by mouse and by keyboard. The Hub is a stand-in with tiny
// models under the catalogue's names.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';
import { setLevel } from '../support/level.mjs';
import { writeSingle } from '../support/single.mjs';
import { writeTiny } from '../support/tiny.mjs';
import { cost } from '../../../www/page/catalogue.js';

/** @type {import('../../../www/page/catalogue.js').Entry[]} */
const entries = JSON.parse(readFileSync(join(root, 'www/models.json'), 'utf8')).models;
const shots = join(root, '.tools/screenshots');

test('the catalogue has what the issue asks for', () => {
  for (const entry of entries) {
    assert.match(entry.source, /^[\w.-]+\/[\w.-]+$/);
    assert.match(entry.revision, /^[0-9a-f]{40}$/, `${entry.name}: a commit`);
    assert.ok(entry.licence && entry.about);
  }
  const sources = entries.map(({ source }) => source).join(' ');
  for (const wanted of [
    /stable-diffusion-v1-5/,
    /stable-diffusion-2-1/,
    /sd-turbo/,
    /LCM/,
    /bk-sdm/,
    /xl-base/,
    /sdxl-turbo/,
  ])
    assert.match(sources, wanted);
});

test('what a model costs here', () => {
  const [entry] = entries;
  const gpu = {
    webgpu: true,
    maxBufferSize: 2 ** 31,
    adapter: { vendor: '', architecture: '', description: '', fallback: false },
  };
  const here = {
    weights: /** @type {'f16' | 'q8'} */ ('f16'),
    low: false,
    kept: [],
    estimate: { usage: 1e9, quota: 4e9 },
    gpu,
  };
  const name = `${entry.source}@${entry.revision}`;
  const plain = cost(entry, here);
  assert.deepEqual(plain, {
    download: entry.download,
    keeps: entry.kept.f16,
    loading: entry.kept.f16,
    free: 3e9,
    gpu: entry.gpu.f16.resident,
    low: false,
    keepable: true,
    problems: [],
  });
  assert.equal(cost(entry, { ...here, low: true }).gpu, entry.gpu.f16.low);
  // Quantised, it is kept smaller, once the files that it is made from have gone.
  const q8 = cost(entry, { ...here, weights: 'q8' });
  assert.deepEqual(
    [q8.download, q8.keeps, q8.loading],
    [entry.download, entry.kept.q8, entry.kept.q8 + entry.download],
  );
  const kept = (/** @type {string} */ kind) => [{ name: name + kind, bytes: 1, complete: true }];
  assert.deepEqual(
    [cost(entry, { ...here, kept: kept('') }).download, cost(entry, { ...here, kept: kept(' (q8)') }).download],
    [0, entry.download],
  );
  assert.deepEqual(
    [
      cost(entry, { ...here, weights: 'q8', kept: kept('') }).download,
      cost(entry, { ...here, weights: 'q8', kept: kept(' (q8)') }).loading,
    ],
    [0, 0],
  );
  const problems = (/** @type {any} */ other) => cost(entry, { ...here, ...other }).problems;
  assert.deepEqual(problems({ estimate: { usage: 3.5e9, quota: 4e9 } }), ['storage']);
  assert.deepEqual(problems({ gpu: { webgpu: false } }), ['no-webgpu']);
  assert.deepEqual(problems({ gpu: { ...gpu, adapter: { ...gpu.adapter, fallback: true } } }), ['software']);
  assert.deepEqual(problems({ gpu: { ...gpu, maxBufferSize: 2 ** 28 } }), ['gpu']);
});

test('models on the page', async t => {
  mkdirSync(shots, { recursive: true });
  const temp = mkdtempSync(join(tmpdir(), 'browser-diffusion-'));
  const [small] = entries;
  writeTiny(join(temp, 'small'), 'single-sd1', { variant: 'fp16' });
  writeTiny(join(temp, 'embedded'), 'single-sd1');
  writeSingle(join(temp, 'mine.safetensors'), 'sd1', { format: 'safetensors' });
  const hub = await serve({ models: { [small.source]: join(temp, 'small') } });
  const site = await serve({ roots: { '/': join(root, 'www'), '/embedded/': join(temp, 'embedded') } });
  const name = `${small.source}@${small.revision}`;
  try {
    await withBrowser({ profile: join(temp, 'profile') }, async (context, errors) => {
      await context.addInitScript(setLevel, 'all');
      await context.addInitScript(() => {
        const { storage } = navigator;
        if (!storage) return; // a page that says that there is no network
        const estimate = storage.estimate.bind(storage), persist = storage.persist.bind(storage);
        Object.assign(window, { persisted: 0, quota: undefined });
        storage.estimate = async () => ({ ...await estimate(), ...(window.quota && { quota: window.quota }) });
        storage.persist = () => { window.persisted++; return persist(); };
      });
      const page = await context.newPage();
      await page.setViewportSize({ width: 1280, height: 1500 });
      const open = async () => {
        await page.goto(`${site.url}/?hub=${hub.url}`);
        await status(/^(Ready|Loading .* model)/);
      };
      const status = (/** @type {RegExp} */ pattern) =>
        page.waitForFunction(
          source => new RegExp(source).test(document.getElementById('status')?.textContent ?? ''),
          pattern.source,
        );
      const goTo = (/** @type {'models' | 'draw'} */ place) => page.click(`.places a[href="#${place}"]`);
      const shot = (/** @type {string} */ file) =>
        page.locator('main').screenshot({ path: join(shots, `${file}.png`) });
      const costs = async () => (await page.locator('#cost p, #cost dt, #cost dd').allTextContents()).join(' ');
      const draw = async () => {
        for (const [id, value] of [['width', '16'], ['height', '16'], ['steps', '2']]) await page.fill(`#${id}`, value);
        await page.click('#generate');
        await status(/^Done/);
      };
      const step = (/** @type {string} */ what, /** @type {() => Promise<void>} */ work) =>
        t.test(what, work);

      await step('a choice says what it costs, brings its settings, and fetches nothing', async () => {
        await open();
        assert.equal(await page.inputValue('#catalogue'), 'embedded');
        assert.ok(!await page.isVisible('#cost'));
        assert.equal(await page.locator('#catalogue option').count(), entries.length + 2);
        await page.focus('#catalogue');
        await page.keyboard.press('ArrowDown'); // the first of them, by keyboard
        await page.waitForFunction(() => /GPU memory/.test(document.getElementById('cost')?.textContent ?? ''));
        assert.equal(await page.inputValue('#source'), small.source);
        const { defaults } = small;
        const fields = await Promise.all(
          ['steps', 'guidance', 'scheduler', 'width', 'height'].map(id => page.inputValue(`#${id}`)),
        );
        assert.deepEqual(
          fields,
          [defaults.steps, defaults.guidance, defaults.scheduler, defaults.width, defaults.height].map(String),
        );
        const text = await costs();
        assert.match(text, /Download\s+1\.38 GB, once/);
        assert.match(text, /Storage\s+1\.38 GB; [\d.]+ [GM]B are free here/);
        assert.match(text, /Licence\s+CreativeML Open RAIL-M/);
        await shot('catalogue-cost');
        await goTo('models');
        await page.selectOption('#weights', 'q4');
        await page.waitForFunction(() =>
          /714 MB, while it loads/.test(document.getElementById('cost')?.textContent ?? ''),
        );
        await page.evaluate(() => { window.quota = 3e8; });
        await page.selectOption('#weights', 'f16');
        await page.waitForFunction(() => document.querySelector('#cost .cannot'));
        assert.match(await costs(), /not room enough to keep it/);
        await page.waitForFunction(() => document.querySelectorAll('#models-list .cannot').length > 0);
        await shot('catalogue-no-room');
        await page.evaluate(() => { window.quota = undefined; });
        await page.selectOption('#memory', 'low');
        await page.waitForFunction(() =>
          /one part of the model at a time/.test(document.getElementById('cost')?.textContent ?? ''),
        );
        await page.selectOption('#memory', 'auto');
        await goTo('draw');
        assert.deepEqual(hub.log, [], 'no byte was fetched');
      });

      await step('loaded, it is kept under its revision, and the browser is asked not to clear it', async () => {
        const before = await page.evaluate(() => window.persisted);
        const token = 'hf_secretOfTheVisitor';
        assert.ok(await page.isHidden('#token'), 'it is asked for where a model needs it');
        await page.evaluate(() => document.getElementById('ask-token')?.removeAttribute('hidden'));
        await page.fill('#token', token);
        await draw();
        assert.ok(
          hub.log.every(r => r.headers.authorization === undefined),
          'a Hub that a link named sees no token',
        );
        assert.ok(
          (await page.evaluate(() => JSON.stringify({ ...localStorage }))).includes(small.source),
          'settings are kept',
        );
        assert.ok(
          !(
            await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, location.href]))
          ).includes(token),
          'the token is not',
        );
        assert.ok(hub.log.length > 0);
        assert.ok(
          hub.log.every(r => r.path.startsWith(`/${small.source}/resolve/${small.revision}/`)),
          'the revision is the one that is pinned',
        );
        assert.ok(
          hub.log.some(r => r.path.endsWith('unet/diffusion_pytorch_model.fp16.safetensors') && r.status === 206),
        );
        await page.waitForFunction(n => window.persisted > n, before);
        await page.waitForFunction(() =>
          /nothing: it is kept here/.test(document.getElementById('cost')?.textContent ?? ''),
        );
        assert.equal(await page.inputValue('#guidance'), String(small.defaults.guidance), 'the settings stay');
        errors
          .splice(0)
          .filter(e => !/404/.test(e))
          .forEach(e => errors.push(e)); // optional files of a model, asked for once
      });

      await step('a checkpoint from disk is kept on request', async () => {
        await goTo('models');
        await page.setInputFiles('#files', join(temp, 'mine.safetensors'));
        await page.check('#keep-file');
        await goTo('draw');
        await draw();
        assert.equal(await page.inputValue('#source'), 'disk:mine.safetensors');
      });

      await step('the panel lists what is kept, with sizes, and a model is used from there by keyboard', async () => {
        await page.focus('.places a[href="#models"]');
        await page.keyboard.press('Enter');
        // Until the database has answered, the list of the visit before stands there.
        await page.waitForFunction(() => /disk:mine/.test(document.getElementById('cache-list')?.innerText ?? ''));
        const listed = (await page.locator('#cache-list li span').allInnerTexts()).map(text => text.split('\n'));
        assert.deepEqual(listed.map(([model]) => model), ['disk:mine.safetensors', 'embedded', small.name]);
        for (const [, size] of listed) assert.match(size, /^[\d.]+ [kMG]B/);
        assert.match(await page.locator('#cache-usage').innerText(), /used of/);
        await shot('cache-panel');
        const use = page.getByRole('button', { name: `Use ${small.name}` });
        await use.focus();
        await page.keyboard.press('Enter');
        assert.equal(await page.inputValue('#source'), name);
        assert.equal(await page.inputValue('#catalogue'), small.source, 'the catalogue knows it');
      });

      await step('without a network the page opens, and both models draw', async () => {
        await page.evaluate(async () => {
          await navigator.serviceWorker.ready;
          while (!(await caches.match('./models.json'))) await new Promise(done => setTimeout(done, 50));
        });
        await Promise.all([hub.close(), site.close()]);
        await page.reload();
        await status(/^Ready/);
        assert.equal(await page.inputValue('#source'), name);
        await page.waitForFunction(() =>
          /nothing: it is kept here/.test(document.getElementById('cost')?.textContent ?? ''),
        );
        await goTo('draw');
        await draw();
        await goTo('models');
        await page.fill('#source', 'disk:mine.safetensors');
        await goTo('draw');
        await draw();
        errors.splice(0).filter(e => !/ERR_CONNECTION_REFUSED|ERR_FAILED/.test(e)).forEach(e => errors.push(e));
      });

      await step('deleting, by mouse and by keyboard, frees the space', async () => {
        await goTo('models');
        await page.waitForSelector('#cache-list li');
        const usage = () => page.evaluate(async () => (await navigator.storage.estimate()).usage ?? 0);
        const before = await usage();
        const bytes = await page.evaluate(async () => {
          const { cache } = await import('/browser-diffusion.js');
          return Object.fromEntries((await cache.list()).map((/** @type {any} */ m) => [m.name, m.bytes]));
        });
        await page.click(`button[aria-label="Delete ${small.name}"]`);
        await status(/is deleted/);
        await page.waitForFunction(n => !document.getElementById('cache-list')?.innerText.includes(n), small.name);
        const remove = page.getByRole('button', { name: 'Delete disk:mine.safetensors' });
        await remove.focus();
        await page.keyboard.press('Space');
        await page.waitForFunction(() => !document.getElementById('cache-list')?.innerText.includes('disk:'));
        // The browser compacts its files in its own time: what was stored as blobs goes at once.
        await page.waitForFunction(
          async ([least]) => ((await navigator.storage.estimate()).usage ?? 0) <= least,
          [before - 0.9 * (bytes[name] + bytes['disk:mine.safetensors'])],
          { polling: 500 },
        );
        t.diagnostic(
          `${bytes[name] + bytes['disk:mine.safetensors']} bytes deleted, usage ${before} to ${await usage()}`,
        );
        await page.waitForFunction(
          () =>
            /1\.38 GB, once/.test(document.getElementById('cost')?.textContent ?? '') ||
            document.getElementById('cost')?.hidden,
        );
        await shot('cache-panel-deleted');
      });
    });
  } finally {
    await Promise.all([site, hub].map(server => server.close().catch(() => {})));
    rmSync(temp, { recursive: true, force: true, maxRetries: 5 });
  }
});
