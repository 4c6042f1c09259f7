// Every fault of a server, one after another, through the public module with the real engine: each load ends right (the
// same picture as an undisturbed one) or with the right typed error, and after each the cache is held byte by byte
// against the files. Then what else the cache promises: gated models, two tabs, an older database, room.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';
import { writeSingle } from '../support/single.mjs';
import { writeTiny } from '../support/tiny.mjs';

/** @typedef {import('../support/hub.mjs').Fault} Fault */
/** @typedef {import('../support/hub.mjs').Logged} Logged */

test('faults', async t => {
  const temp = mkdtempSync(join(tmpdir(), 'browser-diffusion-'));
  const good = join(temp, 'good');
  writeTiny(good, 'sd1');
  writeTiny(join(temp, 'shards'), 'sd1', { shards: 3 });
  writeSingle(join(temp, 'one.safetensors'), 'sd1', { format: 'safetensors' });
  const site = await serve({ roots: { '/': join(root, 'www'), '/test/': join(root, 'tests/web/support') } });
  const hub = await serve({
    models: { 'test/good': good, 'test/shards': join(temp, 'shards') },
    roots: { '/single/': temp },
    sha256: true,
  });
  const cdn = await serve({ roots: { '/': good } });
  let injected = 0;
  /** Makes and counts faults of requests for weights. @param {(r: Logged) => Fault | undefined} fault */
  const faults = fault => hub.fault(r => {
    const made = r.path.endsWith('.safetensors') ? fault(r) : undefined;
    if (made) injected++;
    return made;
  });
  const quiet = () => {
    hub.fault(null);
    return hub.log.splice(0).filter(r => r.method === 'GET');
  };

  try {
    await withBrowser({}, async (context, errors) => {
      const open = async () => {
        const page = await context.newPage();
        await page.goto(`${site.url}/test/blank.html`);
        await page.evaluate(async hub => {
          const { DiffusionPipeline, DiffusionError, cache } = await import(`${location.origin}/browser-diffusion.js`);
          const hash = async (/** @type {any} */ data) =>
            [...new Uint8Array(await crypto.subtle.digest('SHA-256', data))]
              .map(b => b.toString(16).padStart(2, '0'))
              .join('');
          Object.assign(window, {
            cache,
            faultsTools: {
              /** The picture's hash, or the error. */
              load: async (/** @type {any} */ source, /** @type {any} */ options) => {
                try {
                  const pipeline = await DiffusionPipeline.fromPretrained(source, { hub, ...options });
                  const {
                    images: [image],
                  } = await pipeline.generate({
                    prompt: 'a cat',
                    seed: 7,
                    width: 16,
                    height: 16,
                    numInferenceSteps: 1,
                    scheduler: 'ddim',
                    guidanceScale: 1,
                  });
                  await pipeline.dispose();
                  return { picture: await hash(image.data) };
                } catch (error) {
                  const e = /** @type {any} */ (error);
                  return { code: e instanceof DiffusionError ? e.code : `untyped ${e}`, message: e.message };
                }
              },
              database: (
                /** @type {number | undefined} */ version,
                /** @type {(db: IDBDatabase) => void} */ upgrade = () => {},
              ) =>
                new Promise((done, fail) => {
                  const opening = indexedDB.open('browser-diffusion', version);
                  opening.onupgradeneeded = () => upgrade(opening.result);
                  opening.onsuccess = () => done(opening.result);
                  opening.onerror = fail;
                  opening.onblocked = fail;
                }),
              /** All entries of a store. */
              all: async (/** @type {string} */ store) => {
                const db = await window.faultsTools.database();
                const objects = db.transaction(store).objectStore(store);
                const read = (/** @type {IDBRequest} */ request) =>
                  new Promise(done => {
                    request.onsuccess = () => done(request.result);
                  });
                const [keys, values] = await Promise.all([read(objects.getAllKeys()), read(objects.getAll())]);
                db.close();
                return keys.map((/** @type {any} */ key, /** @type {number} */ i) => [key, values[i]]);
              },
              /** What the cache holds: address, first byte, length and SHA-256 of each chunk. */
              held: async () => {
                const files = new Map(
                  (await window.faultsTools.all('files')).map(([url, json]) => [url, JSON.parse(json)]),
                );
                const chunks = await window.faultsTools.all('chunks');
                return Promise.all(
                  chunks.map(async ([[url, index], { data }]) => ({
                    url,
                    at: index * files.get(url).chunk,
                    length: data.byteLength,
                    sha256: await hash(data),
                  })),
                );
              },
            },
          });
        }, hub.url);
        return page;
      };
      let page = await open();
      /** @param {any} source @param {any} [options] @returns {Promise<{ picture?: string, code?: string, message?: string }>} */
      const load = (source, options) => page.evaluate(([s, o]) => window.faultsTools.load(s, o), [source, options]);
      const remove = async () => {
        for (const { name } of await page.evaluate(() => window.cache.list()))
          await page.evaluate(n => window.cache.delete(n), name);
      };
      /** Every byte in the cache is the file's. */
      const verify = async () => {
        const held = await page.evaluate(() => window.faultsTools.held());
        for (const { url, at, length, sha256 } of held) {
          const path = new URL(url).pathname.replace(/^\/test\/(\w+)\/resolve\/main\//, '$1/').replace('/single/', '');
          const due = readFileSync(path.startsWith('/embedded/') ? join(root, 'www', path) : join(temp, path)).subarray(
            at,
            at + length,
          );
          assert.equal(due.length, length, `${path} at ${at}`);
          assert.equal(
            sha256,
            createHash('sha256').update(due).digest('hex'),
            `a wrong byte is kept: ${path} at ${at}`,
          );
        }
        return held.length;
      };
      /** Chromium reports each answer that is not 200 as an error of the page. */
      const forgive = () =>
        errors
          .splice(0)
          .filter(e => !/Failed to load resource|ERR_|CORS|preflight/.test(e))
          .forEach(e => errors.push(e));

      const one = `${hub.url}/single/one.safetensors`;
      /** @type {Record<string, { picture?: string }>} */
      const right = {
        'test/good': await load('test/good'),
        [one]: await load(one),
        'test/shards': await load('test/shards'),
      };
      assert.ok(right['test/good'].picture && right[one].picture, JSON.stringify(right));
      assert.deepEqual(
        right['test/shards'],
        right['test/good'],
        'three files and an index for each part are the same model',
      );
      await remove();

      /** @type {[string, (r: Logged) => Fault | undefined, (string | undefined)?, RegExp?][]} name, fault, code, message */
      const matrix = [
        ...[1, 3].map(
          k =>
            /** @type {[string, (r: Logged) => Fault | undefined]} */ ([
              `cut after each ${k} chunks`,
              () => ({ cutAfter: k << 19 }),
            ]),
        ),
        ['429 with Retry-After', r => (r.count === 1 ? { status: 429, retryAfter: 0 } : undefined)],
        ['503 with Retry-After', r => (r.count < 4 ? { status: 503, retryAfter: 0 } : undefined)],
        [
          '503 with a date',
          r => (r.count === 1 ? { status: 503, retryAfter: new Date(Date.now() + 500).toUTCString() } : undefined),
        ],
        ['503 for ever', () => ({ status: 503, retryAfter: 0 }), 'network', /HTTP 503/],
        ['wrong length once', r => (r.count === 1 ? { lie: 1000 } : undefined)],
        ['too short once', r => (r.count === 1 ? { shorten: 3 } : undefined)],
        ['another range once', r => (r.count === 1 ? { shift: 4 } : undefined)],
        ['wrong bytes', r => (r.count === 1 ? { corrupt: 100_001 } : undefined), 'integrity', /SHA-256/],
        [
          'wrong bytes of ranges that break',
          r => (r.count < 3 ? { corrupt: 100_001, cutAfter: 700_000 } : undefined),
          'integrity',
          /SHA-256/,
        ],
        ['slow', () => ({ rate: 20e6, delay: 20 })],
        ['redirects in a circle', r => ({ redirect: r.path }), 'network', /circle/],
        ['no access', () => ({ status: 403 }), 'network', /gated.*licence.*access token/],
        ['gone', () => ({ status: 404 }), 'network'],
      ];
      /** @type {typeof matrix} */
      const rangeless = [
        ['Range ignored', () => ({ ignoreRange: true })],
        [
          'Range ignored, no length, cut',
          r => ({ ignoreRange: true, noLength: true, ...(r.count < 3 && { cutAfter: 300_000 }) }),
        ],
        [
          'Range ignored, wrong bytes',
          r => ({ ignoreRange: true, ...(r.count < 3 && { corrupt: 100_001 }) }),
          'integrity',
          /SHA-256/,
        ],
      ];
      // A single file takes the same way through its ranges; only its own table tells that a length was a lie.
      /** @type {typeof matrix} */
      const single = [
        ...matrix.filter(([name]) => /cut after each 1|for ever|too short|wrong bytes$|circle/.test(name)),
        ['wrong length once', r => (r.count === 1 ? { lie: 1000 } : undefined), 'bad-checkpoint', /truncated/],
      ];
      // Of shards each is a file like others; what they add is that one of many fails.
      const second = (/** @type {Logged} */ r) => /-00002-of-/.test(r.path);
      /** @type {typeof matrix} */
      const sharded = [
        ...matrix.filter(([name]) => /cut after each 1|for ever|wrong bytes$/.test(name)),
        ['one of them is gone', r => (second(r) ? { status: 404 } : undefined), 'network', /00002-of-00003/],
        [
          'wrong bytes in one of them',
          r => (second(r) && r.path.includes('unet') && r.count === 1 ? { corrupt: 100_001 } : undefined),
          'integrity',
          /00002-of-00003.*SHA-256/,
        ],
        ['one of them redirects in a circle', r => (second(r) ? { redirect: r.path } : undefined), 'network', /circle/],
      ];
      const runs = /** @type {const} */ ([
        ['folder', 'test/good', [...matrix, ...rangeless]],
        ['shards', 'test/shards', sharded],
        ['single file', one, single],
      ]);
      for (const [kind, source, all] of runs) {
        for (const [name, fault, code, message] of all) {
          await t.test(`${kind}: ${name}`, async () => {
            await remove();
            quiet();
            faults(fault);
            const before = injected;
            const seen = await load(source);
            assert.ok(injected > before, 'the fault was made');
            forgive();
            if (code) {
              assert.equal(seen.code, code, JSON.stringify(seen));
              assert.match(seen.message ?? '', message ?? /./);
              await verify();
              quiet();
              assert.deepEqual(await load(source), right[source], 'the next load is right');
            } else {
              assert.deepEqual(seen, right[source]);
            }
            assert.ok(await verify() > 0);
          });
        }
      }
      t.diagnostic(
        `${injected} faults injected over ${runs.reduce((sum, [, , all]) => sum + all.length, 0)} loads; ` +
          'no wrong byte kept',
      );

      await t.test('Retry-After is waited for, as seconds and as a date, and not longer', async () => {
        // Without it a second try comes after some 0.4 s.
        for (const [after, least] of /** @type {[() => string | number, number][]} */ ([
          [() => 2, 2000],
          [() => new Date(Date.now() + 3000).toUTCString(), 2000],
        ])) {
          await remove();
          quiet();
          /** When the first range was refused, and asked for again. @type {number[]} */
          const times = [];
          let range = '';
          hub.fault(r => {
            if (
              !r.path.endsWith('unet/diffusion_pytorch_model.safetensors') ||
              (range ||= `${r.range}`) !== `${r.range}`
            )
              return undefined;
            times.push(performance.now());
            return times.length === 1 ? { status: 429, retryAfter: after() } : undefined;
          });
          assert.deepEqual(await load('test/good'), right['test/good']);
          const waited = times[1] - times[0];
          t.diagnostic(`asked again after ${Math.round(waited)} ms`);
          // A minute is for a busy machine: this is no limit of a wait that works.
          assert.ok(waited >= least - 50 && waited < least + 60_000, `${waited} ms`);
          forgive();
        }
        quiet();
      });

      await t.test('gated: the token goes to the Hub alone, and into no storage', async () => {
        await remove();
        const token = 'hf_secretOfTheVisitor';
        /** Weights lie elsewhere, as the Hub's do. */
        const gate = (/** @type {Logged} */ r) => ({
          token,
          ...(r.path.endsWith('.safetensors') && { redirect: `${cdn.url}/${r.path.split('/resolve/main/')[1]}` }),
        });
        hub.fault(r =>
          r.headers.authorization === `Bearer ${token}`
            ? gate(r)
            : r.method === 'OPTIONS'
              ? undefined
              : { status: 401 },
        );
        const without = await load('test/good');
        assert.equal(without.code, 'network');
        assert.match(without.message ?? '', /accept its licence.*access token/);
        const wrong = await load('test/good', { token: 'hf_wrong' });
        assert.match(wrong.message ?? '', /access token is not valid/);
        assert.equal((await load('test/good', { token: 'two words' })).code, 'invalid-option');
        assert.deepEqual(await load('test/good', { token }), right['test/good']);
        assert.ok(cdn.log.some(r => r.status === 206));
        assert.ok(cdn.log.every(r => r.headers.authorization === undefined), 'the other origin saw no token');
        const stored = await page.evaluate(async () =>
          JSON.stringify([
            await window.faultsTools.all('files'),
            await window.faultsTools.all('models'),
            { ...localStorage },
            { ...sessionStorage },
          ]),
        );
        assert.ok(!stored.includes(token));
        hub.log.length = cdn.log.length = 0;
        assert.deepEqual(await load('test/good'), right['test/good'], 'what is in the cache needs no token');
        assert.deepEqual([hub.log.length, cdn.log.length], [0, 0]);
        forgive();
        await remove();
        quiet();
      });

      await t.test('two tabs that load at once fetch each file once', async () => {
        const other = await open();
        hub.fault(r => (r.path.endsWith('.safetensors') ? { rate: 5e6 } : undefined));
        const both = await Promise.all([load('test/good'), other.evaluate(() => window.faultsTools.load('test/good'))]);
        assert.deepEqual(both, [right['test/good'], right['test/good']]);
        const asked = quiet();
        const counts = new Map();
        for (const { path, range } of asked) counts.set(`${path} ${range}`, (counts.get(`${path} ${range}`) ?? 0) + 1);
        assert.deepEqual([...counts].filter(([, count]) => count > 1), []);
        assert.ok(asked.some(r => r.path.endsWith('.safetensors')));
        await other.close();
      });

      await t.test('an older database: the same stores stay, others are dropped', async () => {
        const version = await page.evaluate(async () => {
          const entries = await Promise.all(
            ['files', 'chunks', 'models'].map(
              async name => /** @type {const} */ ([name, await window.faultsTools.all(name)]),
            ),
          );
          const now = await window.faultsTools.database();
          const { version } = now;
          now.close();
          await new Promise(done => { indexedDB.deleteDatabase('browser-diffusion').onsuccess = done; });
          const old = await window.faultsTools.database(1, db =>
            entries.forEach(([name]) => db.createObjectStore(name)),
          );
          const tx = old.transaction(entries.map(([name]) => name), 'readwrite');
          for (const [name, all] of entries) for (const [key, value] of all) tx.objectStore(name).put(value, key);
          await new Promise(done => { tx.oncomplete = done; });
          old.close();
          return version;
        });
        assert.ok(version > 1);
        quiet();
        assert.deepEqual(await load('test/good'), right['test/good']);
        assert.deepEqual(quiet(), [], 'nothing is fetched again');

        await page.evaluate(async () => {
          await new Promise(done => { indexedDB.deleteDatabase('browser-diffusion').onsuccess = done; });
          const old = await window.faultsTools.database(1, db => {
            db.createObjectStore('files', { keyPath: 'id' }).put({ id: 1 });
            db.createObjectStore('blobs');
          });
          old.close();
        });
        assert.deepEqual(await page.evaluate(() => window.cache.list()), []);
        assert.deepEqual(await load('test/good'), right['test/good']);
        assert.ok(await verify() > 0);
        await remove();
      });
    });
  } finally {
    await Promise.all([site, hub, cdn].map(server => server.close()));
    rmSync(temp, { recursive: true, force: true });
  }
});
