// Four families learn in the tab (www/train.js) with the real engine, on the CPU and on the GPU: the same run as natively;
// what is wrong is refused by name, and a GPU that is lost costs nothing.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { adapters, browsers, root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';

const torch = JSON.parse(readFileSync(join(root, 'tests/reference/data/train.json'), 'utf8')).families;

/** In the page: every family, 50 steps from seed 7, 200 steps in all.
 * @param {'gpu' | 'cpu'} device
 * @returns {Promise<any[]>} */
async function learn(device) {
  const { Trainer, FAMILIES } = await import('/train.js');
  const start = performance.now();
  const spec = /** @type {const} */ ({ data: 'spiral', seed: 7 });
  const trainers = await Promise.all(FAMILIES.map(family => Trainer.create({ ...spec, family, device })));
  const found = await Promise.all(
    trainers.map(async trainer => {
      const first = await trainer.train(50);
      const { losses, step, critic } = await trainer.train(150);
      const [seconds, score] = [(performance.now() - start) / 1000, await trainer.score()];
      const picture = await trainer.picture({ size: 8, time: 0.3 });
      const samples = [await trainer.samples(100, 1), await trainer.samples(100, 1), await trainer.samples(100, 2)];
      await trainer.reset();
      const again = await trainer.train(1);
      trainer.dispose();
      const gone = await trainer.train(1).catch(error => error.code);
      return {
        family: trainer.family, device: trainer.device, seconds, score, step, gone, kind: picture.kind,
        points: trainer.points.length,
        losses: [...first.losses], again: again.losses[0], critic: critic?.length, last: losses[149],
        arrays: Object.values(picture).filter(v => v instanceof Float32Array).map(v => v.length),
        same: samples[0].every((v, i) => v === samples[1][i]), other: samples[0].some((v, i) => v !== samples[2][i]),
      };
    }),
  );
  return found;
}

/** @type {{ browser: import('../support/browser.mjs').Name, device: 'gpu' | 'cpu', adapter?: string }[]} */
const places = [
  ...browsers.map(browser => /** @type {const} */ ({ browser, device: 'cpu' })),
  ...adapters.map(adapter => /** @type {const} */ ({ browser: 'chromium', device: 'gpu', adapter })),
];
for (const { browser, device, adapter } of places)
  test(`four families learn in ${browser} on ${adapter ?? 'the processor'} as in torch`, async t => {
    const server = await serve({ roots: { '/': join(root, 'www') }, files: { '/blank.html': '' } });
    t.after(server.close);
    await withBrowser(adapter ? { browser, adapter } : { browser }, async context => {
      const page = await context.newPage();
      await page.goto(`${server.url}/blank.html`);
      const found = await page.evaluate(learn, device);
      const kinds = { diffusion: 'arrows', flow: 'bent', gan: 'critic', vae: 'ellipses' };
      for (const { family, seconds, score, losses, ...rest } of found) {
        const share = `${(100 * score.onData).toFixed(1)} % on the data, ${score.modes.hit} of ${score.modes.of} modes`;
        t.diagnostic(`${family}: 200 steps in ${seconds.toFixed(1)} s beside the others, ${share}`);
        // As in tests/train.rs, whose tolerances these are.
        for (const [step, tolerance] of [[1, 1e-5], [10, 1e-4], [50, 1e-2]]) {
          const want = torch[family].losses[step - 1];
          const off = Math.abs(losses[step - 1] - want) / Math.max(1, Math.abs(want));
          assert.ok(off <= tolerance, `${family}, step ${step}: ${losses[step - 1]} for ${want}`);
        }
        assert.equal(rest.device, device);
        assert.equal(rest.again, losses[0]);
        assert.deepEqual([rest.step, rest.gone, rest.points], [200, 'aborted', 4000]);
        assert.deepEqual([rest.same, rest.other, rest.critic], [true, true, family === 'gan' ? 150 : undefined]);
        assert.equal(rest.kind, kinds[/** @type {keyof typeof kinds} */ (family)]);
        assert.ok(rest.arrays.length > 0 && rest.arrays.every((/** @type {number} */ n) => n >= 64), `${rest.arrays}`);
        assert.ok(score.onData > 0.3, share);
      }
    });
  });

test('what cannot be learnt is refused, and training that diverges is told', async t => {
  const server = await serve({ roots: { '/': join(root, 'www') }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    const found = await page.evaluate(async () => {
      const { Trainer } = await import('/train.js');
      /** @param {Promise<any>} promise */
      const error = promise => promise.then(() => 'fine', e => `${e.name} ${e.code}: ${e.message}`);
      const good = /** @type {any} */ ({ family: 'vae', data: new Float32Array([0, 0, 1, 1, -1, 1]) });
      const refused = [];
      for (const wrong of /** @type {any[]} */ ([
        { family: 'transformer' }, { data: 'circle' }, { data: [1, 2, 3, 4] }, { seed: -1 }, { seed: 0.5 },
        { steps: 0 }, { learningRate: NaN }, { learningRate: -1 }, { data: new Float32Array() },
        { data: new Float32Array([1, 1, 1, 1]) }, { data: new Float32Array(3) },
        { data: new Float32Array([0, 0, NaN, 1]) }, { data: new Float32Array([0, 0, 9, 1]) },
        { data: new Float32Array(100_000) }, { device: 'tpu' },
      ])) refused.push(await error(Trainer.create({ ...good, ...wrong })));
      refused.push(await error(/** @type {any} */ (Trainer).create()));

      const trainer = await Trainer.create(good);
      for (const call of [
        trainer.train(0), trainer.train(1e9), trainer.samples(0), trainer.samples(1e6), trainer.samples(1, -1),
        trainer.picture({ size: 1 }), trainer.picture({ time: 2 }), trainer.reset(-1),
      ]) refused.push(await error(call));
      await trainer.train(3);
      const { modes } = await trainer.score();
      const ellipses = /** @type {any} */ (await trainer.picture()).ellipses.length;
      trainer.dispose();

      const wild = await Trainer.create({ family: 'vae', data: 'moons', learningRate: 1000 });
      let told = 'fine', step = 0;
      for (let i = 0; i < 50 && told === 'fine'; i++) {
        step = wild.step;
        told = await error(wild.train(10));
      }
      const after = { step: wild.step - step, samples: (await wild.samples(10)).every(Number.isFinite) };
      await wild.reset();
      wild.dispose();
      return { refused, modes, ellipses, told, after };
    });
    for (const each of found.refused) assert.match(each, /^DiffusionError invalid-option: .{10,}/);
    assert.match(found.refused[8], /draw at least two/);
    assert.deepEqual([found.modes, found.ellipses], [null, 12]);
    assert.match(found.told, /^DiffusionError invalid-option: Training diverged after step \d+/);
    assert.deepEqual(found.after, { step: 0, samples: true });
  });
});

test('a GPU that is lost while a family learns: the processor goes on from the same step', async t => {
  const server = await serve({ roots: { '/': join(root, 'www') }, files: { '/blank.html': '' } });
  t.after(server.close);
  // The worker is reached before it asks for its device.
  server.fault(r => (r.path.endsWith('.wasm') ? { delay: 1000 } : undefined));
  await withBrowser({}, async (context, errors) => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    const ready = new Promise(done => page.once('worker', worker => worker.evaluate(() => {
      const request = GPUAdapter.prototype.requestDevice;
      GPUAdapter.prototype.requestDevice = async function (...how) {
        const device = await request.apply(this, how);
        new BroadcastChannel('lose').addEventListener('message', () => device.destroy(), { once: true });
        return device;
      };
    }).then(done)));
    const found = await page.evaluate(async () => {
      const { Trainer } = await import('/train.js');
      const spec = /** @type {const} */ ({ family: 'vae', data: 'moons', seed: 3 });
      const trainer = await Trainer.create({ ...spec, device: 'gpu' });
      const first = await trainer.train(20);
      const devices = [trainer.device];
      const running = trainer.train(2000);
      setTimeout(() => new BroadcastChannel('lose').postMessage(''), 300);
      const { step, losses } = await running;
      devices.push(trainer.device);
      const other = await Trainer.create({ ...spec, device: 'cpu' });
      await other.train(20);
      const want = await other.train(50);
      trainer.dispose();
      other.dispose();
      return { devices, step, first: first.losses.length, off: want.losses.map((v, i) => Math.abs(v - losses[i])) };
    });
    await ready;
    assert.deepEqual([found.devices, found.step, found.first], [['gpu', 'cpu'], 2020, 20]);
    // As far as the first 100 losses are the same on both: 1e-2.
    for (const off of Object.values(found.off)) assert.ok(off <= 1e-2, `${off}`);
    errors.splice(0).filter(e => !/[Dd]evice|GPU/.test(e)).forEach(e => errors.push(e));
  });
});
