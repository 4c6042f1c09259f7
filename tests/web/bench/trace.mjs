// ./build.sh bench --trace [--json FILE] [--adapter lavapipe|swiftshader] [--rate MBIT]
// From the opening of the page to the first picture of the embedded model, nothing cached: what began and ended when.
// Files come at RATE megabits per second each. The worker is watched from outside the engine.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { adapters, root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';

const { values: options } = parseArgs({
  options: {
    trace: { type: 'boolean' },
    json: { type: 'string' },
    adapter: { type: 'string', default: adapters[0] },
    rate: { type: 'string', default: '50' },
  },
});

/** Runs in the worker before the engine: when kernels compile, and when the tuner takes a time. @returns {void} */
function probe() {
  /** @type {{ started: number, ended: number, ahead: boolean }[]} */
  const compiles = [];
  /** @type {any} */ (self).compiles = compiles;
  /** @type {number[]} */
  const timed = [];
  /** @type {any} */ (self).timed = timed;
  const { createComputePipeline, createComputePipelineAsync, createQuerySet } = GPUDevice.prototype;
  const now = () => performance.timeOrigin + performance.now();
  // Each time that the tuner takes has a query set of its own; nothing else here asks for one.
  GPUDevice.prototype.createQuerySet = function (descriptor) {
    timed.push(now());
    return createQuerySet.call(this, descriptor);
  };
  GPUDevice.prototype.createComputePipelineAsync = function (descriptor) {
    const entry = { started: now(), ended: NaN, ahead: true };
    compiles.push(entry);
    const promise = createComputePipelineAsync.call(this, descriptor);
    promise.finally(() => { entry.ended = now(); });
    return promise;
  };
  GPUDevice.prototype.createComputePipeline = function (descriptor) {
    // The call returns at once; the GPU process answers in order, so an error scope's end is the pipeline's.
    const entry = { started: now(), ended: NaN, ahead: false };
    compiles.push(entry);
    this.pushErrorScope('internal');
    const pipeline = createComputePipeline.call(this, descriptor);
    this.popErrorScope().finally(() => { entry.ended = now(); });
    return pipeline;
  };
}

/** In the page. */
async function draw() {
  const opened = performance.timeOrigin;
  const now = () => performance.timeOrigin + performance.now();
  /** @type {Record<string, [number, number]>} */
  const files = {};
  const { DiffusionPipeline } = await import('/browser-diffusion.js');
  const asked = now();
  const pipeline = await DiffusionPipeline.fromPretrained('embedded', { onProgress: (/** @type {any} */ p) => {
    if (p.status === 'initiate') files[p.file] = [now(), NaN];
    if (p.status === 'done') files[p.file][1] = now();
  } });
  const loaded = now();
  const { timings } = await pipeline.generate({ prompt: 'a red apple', seed: 1, preview: 'none' });
  return { opened, asked, files, loaded, drawn: now(), timings };
}

const server = await serve({ roots: { '/': join(root, 'www') }, files: {
  '/blank.html': '<!doctype html><title>trace</title><link rel="icon" href="data:,">',
  '/worker.js': `(${probe})();\n${readFileSync(join(root, 'www/worker.js'), 'utf8')}`,
} });
try {
  server.fault(() => ({ rate: Number(options.rate) * 125_000 }));
  const seen = await withBrowser({ adapter: options.adapter }, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    const drawn = await page.evaluate(draw);
    const [worker] = page.workers();
    const { compiles, timed } = await worker.evaluate(() => {
      const { compiles, timed } = /** @type {{ compiles: any[], timed: number[] }} */ (/** @type {unknown} */ (self));
      return { compiles, timed };
    });
    return { ...drawn, compiles, timed };
  });
  const since = (/** @type {number} */ time) => Math.round(time - seen.opened);
  const span = (/** @type {[number, number][]} */ spans) => [
    since(Math.min(...spans.map(s => s[0]))),
    since(Math.max(...spans.map(s => s[1]))),
  ];
  const compiles = seen.compiles.map(c => /** @type {[number, number]} */ ([c.started, c.ended]));
  const ahead = seen.compiles.filter(c => c.ahead).length;
  const late = seen.compiles.filter(c => !c.ahead && c.started > seen.loaded).length;
  const { textEncoder, steps, vae } = seen.timings;
  const encoded =
    since(seen.drawn) - vae - steps.reduce((/** @type {number} */ a, /** @type {number} */ b) => a + b, 0);
  const rows = [
    ['engine (module, wasm, device, self-test)', since(seen.asked), span(Object.values(seen.files))[0]],
    ['download', ...span(Object.values(seen.files))],
    ...(compiles.length
      ? [[`compile (${ahead} ahead, ${late} of ${seen.compiles.length - ahead} when drawing)`, ...span(compiles)]]
      : []),
    seen.timed.length
      ? [`tune (${seen.timed.length} times taken)`, since(Math.min(...seen.timed)), since(Math.max(...seen.timed))]
      : ['tune: not for a UNet this small, drawn before it pays', '-', '-'],
    ['encode the prompt', since(seen.loaded), since(seen.loaded + textEncoder)],
    [`${steps.length} steps`, Math.round(encoded), Math.round(since(seen.drawn) - vae)],
    ['decode', Math.round(since(seen.drawn) - vae), since(seen.drawn)],
  ];
  console.log(
    `First picture of the embedded model, ${options.adapter}, files at ${options.rate} Mbit/s; ` +
      'ms since the page was opened',
  );
  for (const [what, from, to] of rows)
    console.log(`  ${String(what).padEnd(48)} ${String(from).padStart(7)} to ${String(to).padStart(7)}`);
  if (options.json)
    writeFileSync(
      options.json,
      `${JSON.stringify({ adapter: options.adapter, rate: Number(options.rate), rows }, null, 2)}\n`,
    );
} finally {
  await server.close();
}
