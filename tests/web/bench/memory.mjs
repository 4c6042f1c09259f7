// ./build.sh bench --memory [--json FILE] [--only TEXT]
// GPU bytes at the peak of loading and drawing, at the real shapes of Stable Diffusion 1.5 and SDXL (random weights), by
// the public module in headless Chromium on lavapipe. Everything that a picture takes is loaded, recorded, allocated and
// bound, through all stages; but while it draws nothing is dispatched, since a software GPU would take hours: the pictures are
// grey. `peak_bytes` are the allocator's own books (`pipeline.memory()`). They must agree with
// - what the worker asked WebGPU for, buffer by buffer (measure.mjs);
// - what vkAllocateMemory gave Chromium's GPU process (lavapipe/layer.c), which is more by what Chromium stages.
// That process's resident memory, compiled kernels and all, is reported beside them.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { adapters, withBrowser } from '../support/browser.mjs';
import { heapReader, pageWithProbe, processMemory } from './measure.mjs';
import { serveReal } from '../support/real.mjs';

const { values: options } = parseArgs({
  options: { memory: { type: 'boolean' }, json: { type: 'string' }, only: { type: 'string', default: '' } },
});

/** The limits are issue 3's, in bytes. */
const rows = /** @type {const} */ ([
  { model: 'sd15', weights: 'f16', memory: 'resident', size: 512, limit: 2.3e9 },
  { model: 'sd15', weights: 'f16', memory: 'low', size: 512, limit: 2.0e9 },
  { model: 'sd15', weights: 'q8', memory: 'low', size: 512, limit: 1.3e9 },
  { model: 'sd15', weights: 'q4', memory: 'low', size: 512, limit: 0.9e9 },
  { model: 'sdxl', weights: 'q4', memory: 'low', size: 1024, limit: 3.2e9 },
]);
/** What Chromium may hold beside the engine's buffers while it uploads. */
const STAGING = 128e6;

/** Runs in the page. @param {import('../../../www/browser-diffusion.js').LoadOptions & { source: string }} job */
async function load({ source, weights, memory }) {
  const { DiffusionPipeline } = await import('/browser-diffusion.js');
  /** @type {any} */ (window).pipeline = await DiffusionPipeline.fromPretrained(source, { weights, memory, cache: false });
}

/** Runs in the page: two pictures, so that every stage follows every other. @param {number} size */
async function draw(size) {
  const { pipeline } = /** @type {any} */ (window);
  for (const prompt of ['a red apple', 'a blue house']) {
    await pipeline.generate({
      prompt,
      negativePrompt: 'blurred',
      seed: 1,
      width: size,
      height: size,
      numInferenceSteps: 2,
      guidanceScale: 7.5,
    });
  }
  return pipeline.memory();
}

/** @param {typeof rows[number]} row @param {string} counts the file that the layer counts in */
async function measure({ model, weights, memory, size, limit }, counts) {
  const [source, page] = await Promise.all([serveReal(model), pageWithProbe()]);
  try {
    return await withBrowser({ adapter: 'lavapipe', env: { LAVAPIPE_MEMORY: counts } }, async context => {
      const tab = await context.newPage();
      await tab.goto(`${page.url}bench.html`);
      // The first device of the process, so that what every page costs is there before.
      await tab.evaluate(async () => (await (await navigator.gpu.requestAdapter())?.requestDevice())?.destroy());
      const gpu = await processMemory(context, 'GPU');
      const driver = () => [0n, 8n].map(at => Number(readFileSync(counts).readBigUInt64LE(Number(at))));
      const before = { rss: gpu().rss, driver: driver()[0], heap: 0 };
      const heap = await heapReader(context, tab);
      let heapPeak = before.heap = await heap();
      const started = performance.now();
      const sampling = setInterval(
        () =>
          heap().then(
            bytes => {
              heapPeak = Math.max(heapPeak, bytes);
            },
            () => {},
          ),
        100,
      );
      try {
        await tab.evaluate(load, { source: source.url, weights, memory });
        const [worker] = tab.workers();
        await worker.evaluate(() => /** @type {any} */ (self).probe({ idle: true }));
        console.error(`    loaded after ${Math.round((performance.now() - started) / 1000)} s`);
        const books = await tab.evaluate(draw, size);
        console.error(`    drawn after ${Math.round((performance.now() - started) / 1000)} s`);
        const probe = await worker.evaluate(() => /** @type {any} */ (self).probe());
        return {
          model,
          weights,
          memory,
          size,
          peak_bytes: books.peak,
          wasm_bytes: probe.wasm,
          js_heap_bytes: heapPeak - before.heap,
          limit_bytes: limit,
          webgpu_bytes: probe.gpuPeak,
          driver_bytes: driver()[1] - before.driver,
          gpu_process_bytes: gpu().peak - before.rss,
        };
      } finally {
        clearInterval(sampling);
      }
    });
  } finally {
    source.close();
    page.close();
  }
}

if (!adapters.includes('lavapipe'))
  throw new Error('this bench needs lavapipe: ./build.sh bench --memory makes its layer');
const folder = mkdtempSync(join(tmpdir(), 'browser-diffusion-memory-'));
const report = [];
try {
  for (const row of rows.filter(({ model, weights, memory }) =>
    `${model} ${weights} ${memory}`.includes(options.only),
  )) {
    const name = `${row.model} ${row.weights} ${row.memory} ${row.size}x${row.size}`;
    console.error(`==> ${name}`);
    const measured = await measure(row, join(folder, name));
    report.push(measured);
    const MB = (/** @type {number} */ bytes) => `${Math.round(bytes / 1e6)} MB`;
    console.log(
      `${name}: ${MB(measured.peak_bytes)} at the peak (at most ${MB(row.limit)}); ` +
        `asked of WebGPU ${MB(measured.webgpu_bytes)}, given by the driver ${MB(measured.driver_bytes)}, ` +
        `GPU process ${MB(measured.gpu_process_bytes)}; wasm ${MB(measured.wasm_bytes)}, ` +
        `JS heap +${MB(measured.js_heap_bytes)}; nothing dispatched`,
    );
    const faults = {
      'over its limit': measured.peak_bytes > row.limit,
      'the books and what was asked of WebGPU differ': measured.peak_bytes !== measured.webgpu_bytes,
      'the driver gave less than the books say': measured.driver_bytes < measured.peak_bytes,
      'the driver gave more than the books and staging explain': measured.driver_bytes > measured.peak_bytes + STAGING,
    };
    for (const [fault, is] of Object.entries(faults))
      if (is) {
        console.error(`${name}: ${fault}`);
        process.exitCode = 1;
      }
  }
  if (options.json) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
} finally {
  rmSync(folder, { recursive: true });
}
process.exit(); // a browser that hangs on its way out must not keep the command
