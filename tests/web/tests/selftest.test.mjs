// A kernel that the driver gets wrong is found before the first picture, switched off and named, and the picture is right.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { adapters, root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';

/**
 * Runs before the engine, in a page or a worker: convolutions by subgroups, 16 rows each, are compiled to something that
 * leaves one product in four out. `broken` counts them. @returns {void}
 */
function miscompile() {
  const original = GPUDevice.prototype.createShaderModule;
  /** @type {any} */ (self).broken = 0;
  GPUDevice.prototype.createShaderModule = function (/** @type {any} */ descriptor) {
    let { code } = descriptor;
    if (['const CONV = 1u', 'const ROWS = 16u'].every(line => code.includes(line))) {
      const wrong = code.replace('fma(a.x, w.x, sum)', 'sum');
      if (wrong !== code) /** @type {any} */ (self).broken++;
      code = wrong;
    }
    return original.call(this, { ...descriptor, code });
  };
}

const worker = readFileSync(join(root, 'www/worker.js'), 'utf8');

/** Draws with the embedded model. @returns {Promise<number[]>} the picture's bytes */
async function draw() {
  const { DiffusionPipeline } = await import('/browser-diffusion.js');
  const pipeline = await DiffusionPipeline.fromPretrained('embedded');
  const { images } = await pipeline.generate({ prompt: 'a red circle', numInferenceSteps: 2, seed: 1 });
  await pipeline.dispose();
  return [...images[0].data];
}

test('a wrong kernel is switched off and named, and the picture is right', async t => {
  if (adapters[0] !== 'lavapipe') return t.skip('needs subgroups');
  const files = { '/blank.html': '', '/broken.html': '', '/worker.js': worker };
  const server = await serve({ roots: { '/': join(root, 'www') }, files });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    const right = await page.evaluate(draw);

    files['/worker.js'] = `(${miscompile})();\n${worker}\nself.addEventListener('message', ({ data }) => {
      if (data.type === 'generate') new BroadcastChannel('broken').postMessage(self.broken);
    });`;
    await page.goto(`${server.url}/broken.html`);
    await page.evaluate(() => {
      new BroadcastChannel('broken').onmessage = ({ data }) => { /** @type {any} */ (window).broken = data; };
    });
    const found = await page.evaluate(draw);
    await page.waitForFunction(() => /** @type {any} */ (window).broken !== undefined);
    assert.ok((await page.evaluate(() => /** @type {any} */ (window).broken)) > 0, 'a kernel was made wrong');
    const off = Math.max(...right.map((v, i) => Math.abs(v - found[i])));
    t.diagnostic(`largest difference of two pictures: ${off} of 255`);
    // Sums in another order: each layer rounds to f16 as well as before, and a step of 255 is 2^-8.
    assert.ok(off <= 4, `${off}`);

    const bench = await context.newPage();
    await bench.addInitScript(miscompile);
    const narrow = 'filter=conv3x3 320&unet=embedded/unet/config.json&side=16&batch=1';
    await bench.goto(`${server.url}/bench.html?quick&${narrow}`);
    await bench.click('#start');
    await bench.waitForFunction(
      () => /** @type {any} */ (window).benchmark || !document.getElementById('error')?.hidden,
      null,
    );
    assert.equal(await bench.locator('#error').isVisible(), false, await bench.locator('#error').innerText());
    assert.match(await bench.locator('#about').innerText(), /Wrong here, and not used: conv 64x64 by subgroups/);
  });
});
