// ./build.sh bench --browsers
// A step of the embedded model on lavapipe, in Chromium with its subgroups off and in Firefox, which has none: browsers in
// turn, each opened twice; medians of the steps of two pictures, after a first that compiles.
import { readFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { browsers, root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';

/** Runs in the worker before the engine. @returns {void} */
function withoutSubgroups() {
  const features = /** @type {any} */ (Object.getOwnPropertyDescriptor(GPUAdapter.prototype, 'features'));
  Object.defineProperty(GPUAdapter.prototype, 'features', { get() {
    return new Set([...features.get.call(this)].filter(name => name !== 'subgroups'));
  } });
}

/** In the page: milliseconds of every step. */
async function draw() {
  const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
  const pipeline = await DiffusionPipeline.fromPretrained('embedded');
  const steps = [];
  for (let picture = 0; picture < 3; picture++) {
    const { timings } = await pipeline.generate({ prompt: 'a red apple', seed: picture, preview: 'none' });
    if (picture > 0) steps.push(...timings.steps);
  }
  return steps;
}

/** @param {import('../support/browser.mjs').Name} browser @returns {Promise<number[]>} */
async function steps(browser) {
  const server = await serve({ roots: { '/': join(root, 'www') }, files: {
    '/blank.html': '<!doctype html><title>steps</title><link rel="icon" href="data:,">',
    '/worker.js': `(${withoutSubgroups})();\n${readFileSync(join(root, 'www/worker.js'), 'utf8')}`,
  } });
  try {
    return await withBrowser({ browser, adapter: 'lavapipe' }, async context => {
      const page = await context.newPage();
      await page.goto(`${server.url}/blank.html`);
      return page.evaluate(draw);
    });
  } finally {
    await server.close();
  }
}

const median = (/** @type {number[]} */ of) => of.toSorted((a, b) => a - b)[of.length >> 1];
const load = () => loadavg()[0].toFixed(1);
/** @type {Record<string, number[]>} */
const medians = {};
for (const browser of [...browsers, ...browsers]) {
  const before = load();
  const ms = await steps(browser);
  (medians[browser] ??= []).push(median(ms));
  console.log(
    `${browser}: ${median(ms).toFixed(0)} ms a step (${Math.min(...ms).toFixed(0)} to ${Math.max(...ms).toFixed(0)}, ` +
      `${ms.length} of them); load ${before} before, ${load()} after`,
  );
}
if (medians.firefox) {
  const [firefox, chromium] = [medians.firefox, medians.chromium].map(of => Math.min(...of));
  console.log(`Firefox ${(firefox / chromium).toFixed(2)} times Chromium's`);
}
process.exit(); // a browser that hangs on its way out must not keep the command
