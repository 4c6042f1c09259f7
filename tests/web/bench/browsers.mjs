// ./build.sh bench --browsers
// A step of the embedded model on lavapipe, in Chromium with its subgroups off and in Firefox, which has none, with the
// page's previews and without: browsers in turn, each opened three times; medians of a picture's 20 steps, after a first
// picture that compiles, and the processor time of all the browser's threads for it. Of each the least run is compared:
// what else this machine does makes a run slower, never faster.
import { readFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { started, withoutSubgroups } from '../support/bench.mjs';
import { browsers, root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';

/** @typedef {import('../support/browser.mjs').Name} Name */
/** @typedef {{ preview: 'none' | 'fast', seed: number }} Task */
/** Milliseconds: a step, by the clock; a picture, of the processors. @typedef {{ step: number, picture: number }} Run */

/** @type {Task} */
const FIRST = { preview: 'fast', seed: 0 };
/** @type {Task[]} */
const TASKS = [{ preview: 'none', seed: 1 }, { preview: 'fast', seed: 1 }];

/** In the page: milliseconds of every step. @param {Task} task @returns {Promise<number[]>} */
async function draw({ preview, seed }) {
  const page = /** @type {any} */ (globalThis);
  if (!page.pipeline) {
    const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
    page.pipeline = await DiffusionPipeline.fromPretrained('embedded');
  }
  const onStep = (/** @type {any} */ told) => told.preview?.close();
  return (await page.pipeline.generate({ prompt: 'a red apple', seed, preview, onStep })).timings.steps;
}

/** Milliseconds of the processors that the browsers have had so far. */
const used = () => started().reduce((sum, { processor }) => sum + 1000 * processor, 0);

const median = (/** @type {number[]} */ of) => of.toSorted((a, b) => a - b)[of.length >> 1];
const load = () => loadavg()[0].toFixed(1);

/** By preview, all runs so far. @type {Record<string, Record<Name, Run[]>>} */
const runs = { none: { chromium: [], firefox: [] }, fast: { chromium: [], firefox: [] } };

/** @param {Name} browser */
async function open(browser) {
  const server = await serve({ roots: { '/': join(root, 'www') }, files: {
    '/blank.html': '<!doctype html><title>steps</title><link rel="icon" href="data:,">',
    '/worker.js': `(${withoutSubgroups})();\n${readFileSync(join(root, 'www/worker.js'), 'utf8')}`,
  } });
  await withBrowser({ browser, adapter: 'lavapipe' }, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    await page.evaluate(draw, FIRST);
    for (const task of TASKS) {
      const { preview } = task;
      const before = used();
      const steps = await page.evaluate(draw, task);
      const run = { step: median(steps), picture: used() - before };
      runs[preview][browser].push(run);
      console.log(
        `${browser}, preview ${preview}: ${run.step.toFixed(0)} ms a step (${Math.min(...steps).toFixed(0)} to ` +
          `${Math.max(...steps).toFixed(0)}), ${(run.picture / 1000).toFixed(1)} s of processors a picture; ` +
          `load ${load()}`,
      );
    }
  });
  await server.close();
}

for (const browser of [...browsers, ...browsers, ...browsers]) await open(browser);
if (browsers.includes('firefox'))
  for (const [preview, of] of Object.entries(runs)) {
    const [step, picture] = /** @type {const} */ (['step', 'picture']).map(what => {
      const [firefox, chromium] = [of.firefox, of.chromium].map(all => Math.min(...all.map(run => run[what])));
      return `${firefox.toFixed(0)} ms, ${(firefox / chromium).toFixed(2)} times Chromium's`;
    });
    console.log(`preview ${preview}: Firefox's step ${step}; processors a picture ${picture}`);
  }
process.exit(); // a browser that hangs on its way out must not keep the command
