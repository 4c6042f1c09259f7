// What goes wrong between a server and the cache: broken downloads, damaged bytes, odd servers, no room, no network.
// Always through the public module, as a page of another origin imports it, with the real engine.
// "The same picture" means: the same bytes in every pixel and latent as from an undisturbed load.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { browsers, withBrowser } from '../support/browser.mjs';
import { setLevel } from '../support/level.mjs';
import { CHUNK, CRAWL, UNET, bytesOf, failure, list, picture, remove, stage } from '../support/robust.mjs';

for (const browser of browsers) test(`downloads and the cache, in ${browser}`, async t => {
  const { hub, hashed, shell, narrow, models, good, total, profile, asked, open, steps, close } = await stage();
  try {
    await t.test('the browser is killed at 40 % of the download', () =>
      withBrowser({ browser, profile }, async (context, errors, crash) => {
        const page = await open(context);
        // What lies behind 60 % does not come in time, however late the page is killed.
        hub.fault(r => ({ rate: (r.range?.[0] ?? 0) >= 0.6 * total ? CRAWL : 8e6 }));
        page
          .evaluate(() =>
            window.robustTools.load('test/large', {
              onProgress: p => {
                if (p.file) window.robustTools.loaded[p.file] = p.loaded ?? 0;
              },
            }),
          )
          .catch(() => {});
        await page.waitForFunction(
          least => Object.values(window.robustTools.loaded).reduce((a, b) => a + b, 0) >= least,
          0.4 * total,
          { polling: 20 },
        );
        await crash();
        errors.length = 0;
      }),
    );

    await withBrowser({ browser, profile }, async (context, errors) => {
      let page = await open(context);
      /** The picture of an undisturbed load. */
      let right = '';
      const step = steps(t, errors);

      await step('after that only the missing bytes are asked for, and the picture is the same', async () => {
        const [before] = await list(page);
        assert.deepEqual([before.name, before.complete], ['test/large', false]);
        // Lost may be: of four requests in flight a chunk each that had not come whole, and one each on its way into
        // the database. (What had come of a file's first request counts when it is whole.)
        assert.ok(before.bytes >= 0.4 * total - 8 * CHUNK, `${before.bytes} of ${total} bytes are kept`);
        assert.ok(before.bytes < 0.9 * total, 'the download was broken');
        const resumed = await picture(page, 'test/large');
        assert.equal(asked().bytes, total - before.bytes);
        assert.deepEqual(await list(page), [{ name: 'test/large', bytes: total, complete: true }]);

        right = await picture(page, 'test/large', { cache: false });
        assert.equal(asked().bytes, total, 'without the cache all is fetched');
        assert.equal(resumed, right);
      });

      await step('a second visit asks for nothing', async () => {
        await page.close();
        page = await open(context);
        const again = await page.evaluate(async () => {
          window.fromCache = new Set();
          return window.robustTools.picture('test/large', {
            onProgress: p => p.status === 'done' && window.fromCache.add(p.fromCache),
          });
        });
        assert.equal(again, right);
        assert.deepEqual(asked().log, []);
        assert.deepEqual(await page.evaluate(() => [...window.fromCache]), [true]);
      });

      await step('pictures tell weights and seeds apart', async () => {
        const other = await page.evaluate(async () => {
          const pipeline = await window.robustTools.load('test/large');
          const drawn = [await window.robustTools.draw(pipeline, { seed: 8 }), await window.robustTools.draw(pipeline)];
          await pipeline.dispose();
          return drawn;
        });
        assert.notEqual(other[0], right);
        assert.equal(other[1], right);
      });

      await step('a flipped byte in the cache is found, and its chunk alone fetched again', async () => {
        const index = 3; // the UNet's own weights
        await page.evaluate(index => new Promise((done, fail) => {
          const opening = indexedDB.open('browser-diffusion');
          opening.onerror = fail;
          opening.onsuccess = () => {
            const transaction = opening.result.transaction('chunks', 'readwrite');
            const walk = transaction.objectStore('chunks').openCursor();
            walk.onsuccess = () => {
              const cursor = walk.result;
              if (!cursor) return;
              const [url, at] = /** @type {[string, number]} */ (cursor.key);
              if (url.endsWith('/unet/diffusion_pytorch_model.safetensors') && at === index) {
                new Uint8Array(cursor.value.data)[12345] ^= 0x40;
                cursor.update(cursor.value);
                window.flipped = true;
              }
              cursor.continue();
            };
            transaction.oncomplete = () => (opening.result.close(), done(undefined));
            transaction.onabort = fail;
          };
        }), index);
        assert.ok(await page.evaluate(() => window.flipped));
        assert.equal(await picture(page, 'test/large'), right);
        const { log } = asked();
        assert.deepEqual(log.map(r => r.range), [[index * CHUNK, (index + 1) * CHUNK - 1]]);
        assert.equal(await picture(page, 'test/large'), right);
        assert.deepEqual(asked().log, []);
      });

      await step(
        'Stop while the model loads: aborted at once, nothing more is sent, the next load goes on',
        async () => {
          await remove(page, 'test/large');
          // The rest does not come in time: a load that waited for it would end late, and whole.
          hub.fault(r => (r.path.endsWith(UNET) && (r.range?.[0] ?? 0) >= 8e6 ? { rate: CRAWL } : undefined));
          const stopped = await page.evaluate(async () => {
            const controller = new AbortController();
            const onProgress = (/** @type {any} */ p) => {
              if (p.file.startsWith('unet/diff') && p.loaded >= 6e6) controller.abort();
            };
            return window.robustTools.caught(() =>
              window.robustTools.load('test/large', { signal: controller.signal, onProgress }),
            );
          });
          assert.equal(stopped.code, 'aborted');
          await new Promise(done => setTimeout(done, 300));
          const { sent } = asked();
          assert.ok(sent > 6e6 && sent < 0.9 * total);
          const after = hub.log.length;
          await new Promise(done => setTimeout(done, 700));
          assert.equal(hub.log.length, after, 'no request follows');
          hub.fault(null);
          const [kept] = await list(page);
          assert.ok(kept.bytes >= 6e6 - 8 * CHUNK && !kept.complete);
          assert.equal(await picture(page, 'test/large'), right);
          assert.equal(asked().bytes, total - kept.bytes);
        },
      );

      await step(
        'wrong bytes from the network, where the server shows a SHA-256: integrity, and then right',
        async () => {
          try {
            for (const options of [{ hub: hashed.url }, { hub: hashed.url, cache: false }]) {
              hashed.fault(r => (r.path.endsWith(UNET) ? { corrupt: 1_000_001 } : undefined));
              const error = await failure(page, 'test/good', options);
              assert.equal(error.code, 'integrity', error.message);
              hashed.fault(null);
              assert.equal(await picture(page, 'test/good', options), right);
            }
          } finally {
            await remove(page, 'test/good');
          }
        },
      );

      await step('404, 401 and 500: network, in words; a server that comes back is asked again', async () => {
        const missing = await failure(page, 'nobody/nothing');
        assert.equal(missing.code, 'network');
        assert.match(missing.message, /nobody\/nothing/);
        assert.equal(asked().log.length, 1);
        assert.ok(
          !(await list(page)).some(m => m.name === 'nobody/nothing'),
          'a model that is not there is not listed',
        );
        hub.fault(r => (r.path.endsWith('model_index.json') ? { status: 401 } : undefined));
        const closed = await failure(page, 'test/good');
        assert.equal(closed.code, 'network');
        assert.match(closed.message, /not open to everyone/);
        asked();
        hub.fault(r => (r.path.endsWith(UNET) ? { status: 500 } : undefined));
        const broken = await failure(page, 'test/good');
        assert.equal(broken.code, 'network');
        assert.match(broken.message, /500/);
        assert.equal(asked().log.filter(r => r.status === 500).length, 4, 'tries');
        hub.fault(null);
        assert.equal(await picture(page, 'test/good'), right);
        await remove(page, 'test/good');
      });

      /** @type {[string, (r: import('../support/hub.mjs').Logged) => import('../support/hub.mjs').Fault | undefined][]} */
      const servers = [
        ['knows no ranges', () => ({ ignoreRange: true })],
        ['knows no ranges and names no length', () => ({ ignoreRange: true, noLength: true })],
        ['hides its headers', () => ({ hideHeaders: true })],
        [
          'cuts connections',
          r => (r.count === 1 ? { cutAfter: 600_000 } : r.count === 2 ? { cutAfter: 1000 } : undefined),
        ],
        ['sends another range once', r => (r.count === 1 ? { shift: 4 } : undefined)],
        ['sends too little once', r => (r.count === 1 ? { shorten: 3 } : undefined)],
        ['is too busy at first', r => (r.count === 1 ? { status: 429, retryAfter: 1 } : undefined)],
      ];
      for (const [what, fault] of servers) {
        await step(`a server that ${what}: the same picture, now and from the cache`, async () => {
          // One model each, for its counts. Its small files come undisturbed, to save the waiting.
          const id = `odd/${what.replaceAll(' ', '-')}`;
          models[id] = good;
          hub.fault(r => (r.path.endsWith('.safetensors') ? fault(r) : undefined));
          try {
            assert.equal(await picture(page, id), right);
            asked();
            hub.fault(r => (r.path.includes('/resolve/') ? { status: 500 } : undefined));
            assert.equal(await picture(page, id), right);
            assert.deepEqual(asked().log, []);
            assert.equal((await list(page)).find(m => m.name === id)?.bytes, bytesOf(good));
          } finally {
            hub.fault(null);
            await remove(page, id);
          }
        });
      }

      await step('a server that always sends another range: integrity, after four tries', async () => {
        hub.fault(r => (r.path.endsWith(UNET) ? { shift: 4 } : undefined));
        const error = await failure(page, 'test/good');
        assert.equal(error.code, 'integrity', error.message);
        assert.equal(asked().log.filter(r => r.path.endsWith(UNET)).length, 4);
        hub.fault(null);
        assert.equal(await picture(page, 'test/good'), right);
      });

      await step('a file that changes on the server while it is read is never mixed', async () => {
        await remove(page, 'test/large');
        hub.log.length = 0; // counts begin anew
        hub.fault(r =>
          r.path.endsWith(UNET)
            ? r.count <= 3
              ? { etag: '"old"', corrupt: 1_000_001 }
              : { etag: '"new"' }
            : undefined,
        );
        const error = await failure(page, 'test/large');
        assert.equal(error.code, 'integrity', error.message);
        assert.match(error.message, /changed on the server/);
        assert.equal(await picture(page, 'test/large'), right);
      });

      await step('two tabs that load at once', async () => {
        await remove(page, 'test/large');
        const other = await open(context);
        hub.fault(r => (r.path.endsWith(UNET) ? { rate: 20e6 } : undefined));
        const drawn = await Promise.all([picture(page, 'test/large'), picture(other, 'test/large')]);
        assert.deepEqual(drawn, [right, right]);
        asked();
        assert.equal(await picture(other, 'test/large'), right);
        assert.deepEqual(asked().log, []);
        await other.close();
      });

      const noRoom = async () => {
        const tight = await open(context, narrow.url);
        const session = await context.newCDPSession(tight);
        await session.send('Storage.overrideQuotaForOrigin', { origin: narrow.url, quotaSize: 12 << 20 });
        const error = await failure(tight, 'test/large');
        assert.equal(error.code, 'quota', error.message);
        assert.match(error.message, /Free disk space.*MiB/);
        const [kept] = await list(tight);
        assert.ok(kept.bytes > 0 && kept.bytes < total && !kept.complete, JSON.stringify(kept));
        asked();
        assert.equal(await picture(tight, 'test/large', { cache: false }), right, 'without the cache it needs no room');
        await session.send('Storage.overrideQuotaForOrigin', { origin: narrow.url });
        asked();
        const again = await list(tight);
        assert.deepEqual(again, [kept]);
        assert.equal(await picture(tight, 'test/large'), right);
        assert.equal(asked().bytes, total - kept.bytes);
        await tight.close();
      };
      // Chromium alone can be told how much room there is.
      if (browser === 'chromium')
        await step('no room: quota, what was stored stays, and with room the load goes on', noRoom);

      await step('the cache: what is there, without it, rid of it', async () => {
        const before = await list(page);
        assert.deepEqual(before, [
          { name: 'test/good', bytes: bytesOf(good), complete: true },
          { name: 'test/large', bytes: total, complete: true },
        ]);
        assert.equal(await picture(page, 'test/good', { cache: false }), right);
        assert.equal(asked().bytes, bytesOf(good), 'cache: false reads nothing from it');
        await remove(page, 'test/good');
        assert.equal(await picture(page, 'test/good', { cache: false }), right);
        assert.deepEqual(await list(page), before.slice(1), 'cache: false leaves nothing');
        const usage = () => page.evaluate(() => window.robustTools.cache.estimate());
        const full = await usage();
        assert.deepEqual(Object.keys(full), ['usage', 'quota']);
        assert.ok(full.usage >= total && full.quota > full.usage);
        assert.equal(typeof await page.evaluate(() => window.robustTools.cache.persist()), 'boolean');
        const deleted = await page.evaluate(async () => [
          await window.robustTools.cache.delete('test/large'),
          await window.robustTools.cache.delete('never/there'),
        ]);
        assert.deepEqual(deleted, [undefined, undefined]);
        assert.deepEqual(await list(page), []);
        // The browser clears up when it likes: Chromium soon, Firefox when nobody works with it.
        let { usage: left } = await usage();
        const kept = () => browser === 'chromium' && left > full.usage - 0.9 * total;
        for (const until = Date.now() + 600_000; kept() && Date.now() < until; { usage: left } = await usage())
          await new Promise(done => setTimeout(done, 250));
        assert.ok(!kept(), `${left} of ${full.usage} bytes are still used`);
        asked();
        let most = 0;
        hub.fault(() => {
          most = Math.max(most, hub.log.filter(r => r.status === 0 && r.path.includes('/resolve/')).length);
          // Until as many were seen each waits for the next, however slow the machine.
          return { delay: most < 4 ? 2000 : 50 };
        });
        assert.equal(await picture(page, 'test/large'), right);
        assert.equal(asked().bytes, total);
        assert.equal(most, 4, 'requests at once');
      });

      await step(
        'network off after the first visit: the page opens and draws with the model that it has kept',
        async () => {
          const visit = await context.newPage();
          await visit.addInitScript(setLevel, 'all');
          const status = (/** @type {string} */ start) =>
            visit.waitForFunction(s => document.getElementById('status')?.textContent?.startsWith(s), start);
          const draw = async () => {
            for (const [id, value] of [
              ['prompt', 'a cat'],
              ['width', '16'],
              ['height', '16'],
              ['steps', '2'],
              ['guidance', '1'],
              ['seed', '7'],
            ])
              await visit.fill(`#${id}`, value);
            await visit.selectOption('#scheduler', 'ddim');
            await visit.click('#generate');
            await status('Done');
            return visit.evaluate(async () => {
              const {
                images: [image],
                latents,
              } = /** @type {any} */ (window).browserDiffusion.lastResult;
              const hash = async (/** @type {any} */ data) =>
                [...new Uint8Array(await crypto.subtle.digest('SHA-256', data))].map(b => b.toString(16)).join();
              return `${await hash(image.data)} ${await hash(latents[0])}`;
            });
          };
          await visit.goto(`${shell.url}/`);
          await status('Ready');
          await visit.evaluate(async () => {
            await navigator.serviceWorker.ready;
            if (!navigator.serviceWorker.controller)
              await new Promise(done => {
                navigator.serviceWorker.oncontrollerchange = done;
              });
          });
          await visit.evaluate(() => { location.hash = 'models'; });
          await visit.waitForFunction(() =>
            /^embedded/.test(document.querySelector('#cache-list li')?.textContent ?? ''),
          );
          await visit.evaluate(() => { location.hash = 'draw'; });
          await shell.close();
          await visit.reload();
          await status('Ready');
          assert.equal(await draw(), right);
          await visit.close();
          // Chromium tells of every file that was asked for in vain, Firefox of those that the service worker has not.
          errors
            .splice(0)
            .filter(e => !/^Failed to load resource|A ServiceWorker passed a promise/.test(e))
            .forEach(e => errors.push(e));
        },
      );
      await page.close();
    });
  } finally {
    await close();
  }
});
