// ./build.sh bench [--json FILE] [--adapter lavapipe|swiftshader] [--size N] [--steps N] [--from net,cache,disk]
// Streams Stable Diffusion 1.5 (its shapes, random weights) from a local server into IndexedDB and the GPU of
// headless Chromium, again from IndexedDB, and from a folder on disk; makes a picture (not with --steps 0), and says what
// that took. Fails where loading takes more than 64 MiB of JavaScript's or WebAssembly's memory. Times on a software GPU mean nothing elsewhere;
// the bytes do. The worker is measured from outside the engine: probe.js runs in it first.
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { adapters, root, withBrowser } from '../support/browser.mjs';
import { heapReader, pageWithProbe, residentPeaks } from './measure.mjs';
import { writeReal } from '../support/real.mjs';
import { serve } from '../support/serve.mjs';

const { values: options } = parseArgs({
  options: {
    json: { type: 'string' },
    adapter: { type: 'string', default: adapters[0] },
    size: { type: 'string', default: '256' },
    steps: { type: 'string', default: '1' },
    from: { type: 'string', default: 'net,cache,disk' },
  },
});
const MiB = 1024 * 1024;

/** Loads; runs in the page. @param {string} source its address; '' takes the files that were chosen */
async function load(source) {
  const { DiffusionPipeline } = await import('/browser-diffusion.js');
  const started = performance.now();
  const files = [.../** @type {HTMLInputElement} */ (document.querySelector('input')).files ?? []];
  const pipeline = await DiffusionPipeline.fromPretrained(source || files, {
    onProgress: (/** @type {any} */ p) => {
      if (p.status === 'done') console.log(`${p.file} after ${Math.round(performance.now() - started)} ms`);
    },
  });
  Object.assign(window, { pipeline });
  return { loadMs: performance.now() - started, model: pipeline.model, loaded: await pipeline.memory() };
}

/** Draws; runs in the page. @param {{ size: number, steps: number }} job */
async function draw({ size, steps }) {
  const { pipeline } = /** @type {any} */ (window);
  const started = performance.now();
  const result = await pipeline.generate({
    prompt: 'a red apple',
    seed: 1,
    width: size,
    height: size,
    numInferenceSteps: steps,
    preview: 'none',
  });
  const [image] = result.images;
  return {
    generateMs: performance.now() - started, timings: result.timings, memory: await pipeline.memory(),
    width: image.width, height: image.height, colours: new Set(new Uint32Array(image.data.buffer)).size,
    latentsFinite: result.latents[0].every(Number.isFinite),
  };
}

const folder = writeReal('sd15');
const sources = options.from.split(',');
const steps = Number(options.steps);
const model = await serve(folder);
const page = await pageWithProbe();
const profile = mkdtempSync(join(root, '.tools/bench-profile-')); // on disk: a private window's quota is too small
try {
  const report = await withBrowser({ adapter: options.adapter, profile }, async context => {
    /** @type {Record<string, any>} */
    const seen = { from: {} };
    for (const from of sources) {
      const tab = await context.newPage();
      tab.on('console', message => console.error(`    ${message.text()}`));
      await tab.goto(`${page.url}blank.html`);
      if (from === 'disk') await tab.setInputFiles('input', folder);
      const heap = await heapReader(context, tab);
      const before = await heap();
      let heapPeak = before;
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
        console.error(`==> loading from ${from} on ${options.adapter}`);
        const { loadMs, ...loaded } = await tab.evaluate(load, from === 'disk' ? '' : model.url);
        const [worker] = tab.workers();
        const probed = async () => worker.evaluate(() => /** @type {any} */ (self).probe());
        seen.from[from] = {
          loadMs,
          heapGrowth: heapPeak - before,
          wasm: (await probed()).wasm,
          renderer: (await residentPeaks(context)).renderer,
        };
        Object.assign(seen, loaded);
        if (steps > 0 && from === sources.at(-1))
          Object.assign(seen, await tab.evaluate(draw, { size: Number(options.size), steps }));
        Object.assign(seen, await probed(), { resident: await residentPeaks(context) });
      } finally {
        clearInterval(sampling);
        await tab.close();
      }
    }
    return seen;
  });
  const mib = (/** @type {number} */ bytes) => `${(bytes / MiB).toFixed(1)} MiB`;
  const seconds = (/** @type {number} */ ms) => `${(ms / 1000).toFixed(1)} s`;
  const disk = ['text_encoder/model', 'unet/diffusion_pytorch_model', 'vae/diffusion_pytorch_model']
    .reduce((sum, file) => sum + statSync(join(folder, `${file}.safetensors`)).size, 0);
  console.log(`Stable Diffusion 1.5's shapes (${mib(disk)} of f16 weights), ${options.adapter}
  loaded from   JS heap growth   wasm memory   renderer      time
${sources
  .map(from => {
    const { heapGrowth, wasm, renderer, loadMs } = report.from[from];
    const cells = [mib(heapGrowth).padStart(15), mib(wasm).padStart(13), `${renderer} MiB`.padStart(10)];
    return `  ${from.padEnd(12)} ${cells.join(' ')} ${seconds(loadMs).padStart(9)}`;
  })
  .join('\n')}
  (JS heap: sampled peak, array buffers and garbage included, wasm memory not;
  renderer: all that any has held resident at once)
  largest binding     ${mib(report.binding)}
  largest GPU buffer  ${mib(report.buffer)}
  GPU buffers, peak   ${mib(report.gpuPeak)}
  processes, peak     ${Object.entries(report.resident)
    .map(([type, size]) => `${type} ${size} MiB`)
    .join(', ')}`);
  if (steps > 0) {
    const { textEncoder, steps: each, vae } = report.timings;
    const parts = `text encoder ${seconds(textEncoder)}, steps ${each.map(seconds).join(', ')}, VAE ${seconds(vae)}`;
    const latents = report.latentsFinite ? 'finite' : 'NOT FINITE';
    console.log(`  ${steps} step(s) at ${options.size}x${options.size}: ${seconds(report.generateMs)} (${parts})
  ${report.width}x${report.height}, ${report.colours} colours, latents ${latents}`);
    if (!report.latentsFinite) process.exitCode = 1;
  }
  if (options.json)
    writeFileSync(
      options.json,
      `${JSON.stringify({ adapter: options.adapter, size: options.size, steps: options.steps, ...report }, null, 2)}\n`,
    );
  const limits = Object.fromEntries(
    sources.flatMap(from => [
      [`JS heap growth from ${from}`, report.from[from].heapGrowth / (64 * MiB)],
      [`wasm memory from ${from}`, report.from[from].wasm / (64 * MiB)],
    ]),
  );
  limits['a binding'] = report.binding / (128 * MiB);
  for (const [what, share] of Object.entries(limits))
    if (share > 1) {
      console.error(`${what} is over its limit`);
      process.exitCode = 1;
    }
} finally {
  model.close();
  page.close();
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
}
