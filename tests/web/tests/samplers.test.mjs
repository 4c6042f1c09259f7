// Samplers and noise options through the public module in Chromium: latents of the embedded model against diffusers
// (tests/reference/sampler_pictures.py), and samplers and schedules that the module lists draw.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { adapters, root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';

const LATENTS = 1e-2; // relative L2
/** @type {{ options: Record<string, any>, latents: number[] }[]} */
const cases = JSON.parse(readFileSync(join(root, 'tests/reference/data/sampler_pictures.json'), 'utf8'));

test(`samplers, on ${adapters[0]}`, async t => {
  const server = await serve({ roots: { '/': join(root, 'www') }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({ adapter: adapters[0] }, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    await page.evaluate(async () => {
      const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
      Object.assign(window, {
        DiffusionPipeline,
        pipeline: await DiffusionPipeline.fromPretrained('embedded', { cache: false }),
      });
    });
    /**
     * The latents of all pictures of a request, one after another.
     * @param {Record<string, any>} options
     * @returns {Promise<number[]>}
     */
    const latentsOf = options => page.evaluate(async options => {
      const { latents } = await /** @type {any} */ (window).pipeline.generate({ ...options, output: 'latent' });
      return latents.flatMap((/** @type {Float32Array} */ l) => [...l]);
    }, options);
    const base = {
      prompt: 'a red apple',
      width: 64,
      height: 64,
      numInferenceSteps: 2,
      guidanceScale: 1,
      seed: 7,
      scheduler: 'euler_a',
    };

    for (const { options, latents: expected } of cases) {
      await t.test(`${options.scheduler}, ${options.numInferenceSteps} steps, as diffusers`, async t => {
        const latents = await latentsOf(options);
        assert.equal(latents.length, expected.length);
        let [difference, size] = [0, 0];
        expected.forEach((v, i) => {
          difference += (latents[i] - v) ** 2;
          size += v ** 2;
        });
        const error = Math.sqrt(difference / size);
        t.diagnostic(`latents ${error.toExponential(1)}`);
        assert.ok(error <= LATENTS, `latents: ${error}`);
      });
    }

    // The native test runs every name; here every sampler, and every schedule with some.
    await t.test('every sampler and every schedule draws', async t => {
      const drawn = await page.evaluate(async base => {
        const { pipeline, DiffusionPipeline } = /** @type {any} */ (window);
        const bad = [];
        /** @type {string[]} */
        const all = DiffusionPipeline.schedulers;
        const schedules = 'karras exponential polyexponential sgm_uniform simple normal ddim_uniform beta';
        const scheduled = new RegExp(`_(${schedules.replaceAll(' ', '|')}|kl_optimal|align_your_steps)$`);
        const names = all.filter((name, i) => i % 7 === 0 || !scheduled.test(name));
        for (const scheduler of names) {
          let steps = 0;
          // PNDM with Runge-Kutta steps takes four at least.
          const options = {
            ...base,
            scheduler,
            numInferenceSteps: scheduler === 'pndm' ? 4 : 2,
            width: 32,
            height: 32,
            output: 'latent',
            preview: 'none',
            onStep: () => steps++,
          };
          const { latents: [latents] } = await pipeline.generate(options);
          if (
            steps === 0 ||
            !latents.every(Number.isFinite) ||
            latents.every((/** @type {number} */ v) => v === latents[0])
          )
            bad.push(scheduler);
        }
        return { bad, names, count: all.length };
      }, base);
      assert.deepEqual(drawn.bad, []);
      assert.ok(drawn.count >= 200 && drawn.names.length >= 50);
      t.diagnostic(`${drawn.names.length} of ${drawn.count} names`);
    });

    await t.test('seeds: a generator for each picture, variations, sizes, CUDA', async () => {
      const two = await latentsOf({ ...base, numImages: 2, generatorPerImage: true });
      const [first, second] = [await latentsOf(base), await latentsOf({ ...base, seed: 8 })];
      assert.deepEqual(two, [...first, ...second], 'the second picture is that of the next seed');
      const written = await page.evaluate(async base => {
        const { pipeline } = /** @type {any} */ (window);
        const { readParameters } = await import(`${location.origin}/browser-diffusion.js`);
        const { images } = await pipeline.generate({
          ...base,
          numImages: 2,
          generatorPerImage: true,
          variationSeed: 3,
          variationStrength: 0.5,
        });
        const read = [];
        for (const image of images) read.push((await readParameters(await image.toBlob())).options);
        return read.map(({ seed, variationSeed, variationStrength, rng }) => [
          seed,
          variationSeed,
          variationStrength,
          rng,
        ]);
      }, base);
      assert.deepEqual(written, [[7, 3, 0.5, 'torch-cpu'], [7, 4, 0.5, 'torch-cpu']], 'each PNG has its own seeds');
      const shared = await latentsOf({ ...base, numImages: 2 });
      assert.notDeepEqual(shared, two);
      assert.deepEqual(await latentsOf({ ...base, variationSeed: 9, variationStrength: 0 }), first);
      const others = [
        { variationSeed: 9, variationStrength: 0.3 },
        { seedResizeFrom: [32, 48] },
        { rng: 'torch-cuda' },
      ];
      for (const more of others) {
        const latents = await latentsOf({ ...base, ...more });
        assert.ok(latents.every(Number.isFinite));
        assert.notDeepEqual(latents, first, JSON.stringify(more));
        assert.deepEqual(await latentsOf({ ...base, ...more }), latents, 'and again the same');
      }
    });

    await t.test('churn changes a picture, and what cannot be is refused by name', async () => {
      const calm = await latentsOf({ ...base, scheduler: 'heun' });
      assert.notDeepEqual(await latentsOf({ ...base, scheduler: 'heun', sChurn: 1 }), calm);
      const refusals = await page.evaluate(async base => {
        const said = [];
        for (const options of [
          { scheduler: 'heun_often' },
          { scheduler: 'NoSuchScheduler' },
          { eta: 2 },
          { variationStrength: 2 },
          { seedResizeFrom: [64] },
          { rng: 'mt' },
        ]) {
          said.push(
            await /** @type {any} */ (window).pipeline.generate({ ...base, ...options }).then(
              () => 'drawn',
              (/** @type {any} */ e) => `${e.code}: ${e.message}`,
            ),
          );
        }
        return said;
      }, base);
      [/dpmpp_2m/, /dpmpp_2m/, /eta/, /variationStrength/, /seedResizeFrom/, /rng/].forEach((expected, i) => {
        assert.match(refusals[i], /^invalid-option: /);
        assert.match(refusals[i], expected);
      });
    });
  });
});
