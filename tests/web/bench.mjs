// ./build.sh bench [--json FILE] [--adapter lavapipe|swiftshader] [--size N] [--steps N]
// Streams Stable Diffusion 1.5 (its shapes, random weights) from a local server into IndexedDB and the GPU of
// headless Chromium, makes a picture, and says what that took. Times on a software GPU mean nothing elsewhere;
// the bytes do. The worker is measured from outside the engine: probe.js runs in it first.
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { adapters, root, withBrowser } from './browser.mjs';
import { heapReader, pageWithProbe, residentPeaks } from './measure.mjs';
import { writeReal } from './real.mjs';
import { serve } from './serve.mjs';

const { values: options } = parseArgs({
  options: {
    json: { type: 'string' }, adapter: { type: 'string', default: adapters[0] },
    size: { type: 'string', default: '256' }, steps: { type: 'string', default: '1' },
  },
});
const MiB = 1024 * 1024;

/** Loads and draws; runs in the page. @param {{ source: string, size: number, steps: number }} job */
async function draw({ source, size, steps }) {
  const { DiffusionPipeline } = await import(/** @type {any} */ ('/browser-diffusion.js'));
  const started = performance.now();
  const pipeline = await DiffusionPipeline.fromPretrained(source, {
    onProgress: (/** @type {any} */ p) => { if (p.status === 'done') console.log(`${p.file} after ${Math.round(performance.now() - started)} ms`); },
  });
  const loaded = performance.now();
  const result = await pipeline.generate({ prompt: 'a red apple', seed: 1, width: size, height: size, numInferenceSteps: steps, preview: 'none' });
  const drawn = performance.now();
  const [image] = result.images;
  return {
    loadMs: loaded - started, generateMs: drawn - loaded, timings: result.timings, memory: await pipeline.memory(),
    model: pipeline.model, width: image.width, height: image.height, colours: new Set(new Uint32Array(image.data.buffer)).size,
    latentsFinite: result.latents[0].every(Number.isFinite),
  };
}

const folder = writeReal('sd15');
const model = await serve(folder);
const page = await pageWithProbe();
const profile = mkdtempSync(join(root, '.tools/bench-profile-')); // on disk: a private window's quota is too small
try {
  const report = await withBrowser({ adapter: options.adapter, profile }, async context => {
    const tab = await context.newPage();
    tab.on('console', message => console.error(`    ${message.text()}`));
    await tab.goto(`${page.url}blank.html`);
    const heap = await heapReader(context, tab);
    const before = await heap();
    let heapPeak = before;
    const sampling = setInterval(() => heap().then(bytes => { heapPeak = Math.max(heapPeak, bytes); }, () => {}), 100);
    try {
      console.error(`==> loading from ${model.url} on ${options.adapter}`);
      const drawn = await tab.evaluate(draw, { source: model.url, size: Number(options.size), steps: Number(options.steps) });
      const [worker] = tab.workers();
      const seen = await worker.evaluate(() => /** @type {any} */ (self).probe());
      return { ...drawn, ...seen, heapGrowth: heapPeak - before, resident: await residentPeaks(context) };
    } finally {
      clearInterval(sampling);
    }
  });
  const mib = (/** @type {number} */ bytes) => `${(bytes / MiB).toFixed(1)} MiB`;
  const seconds = (/** @type {number} */ ms) => `${(ms / 1000).toFixed(1)} s`;
  const disk = ['text_encoder/model', 'unet/diffusion_pytorch_model', 'vae/diffusion_pytorch_model']
    .reduce((sum, file) => sum + statSync(join(folder, `${file}.safetensors`)).size, 0);
  console.log(`Stable Diffusion 1.5's shapes (${mib(disk)} of f16 weights), ${options.steps} step(s) at ${options.size}x${options.size}, ${options.adapter}
  wasm memory         ${mib(report.wasm)}
  JS heap growth      ${mib(report.heapGrowth)} (sampled peak, array buffers and garbage included, wasm memory not)
  largest binding     ${mib(report.binding)}
  largest GPU buffer  ${mib(report.buffer)}
  GPU buffers, peak   ${mib(report.gpuPeak)}
  processes, peak     ${Object.entries(report.resident).map(([type, size]) => `${type} ${size} MiB`).join(', ')}
  load                ${seconds(report.loadMs)} (download, IndexedDB and GPU)
  picture             ${seconds(report.generateMs)} (text encoder ${seconds(report.timings.textEncoder)}, steps ${report.timings.steps.map(seconds).join(', ')}, VAE ${seconds(report.timings.vae)})
  ${report.width}x${report.height}, ${report.colours} colours, latents ${report.latentsFinite ? 'finite' : 'NOT FINITE'}`);
  if (options.json) writeFileSync(options.json, `${JSON.stringify({ adapter: options.adapter, size: options.size, steps: options.steps, ...report }, null, 2)}\n`);
  const limits = { 'wasm memory': report.wasm / (256 * MiB), 'JS heap growth': report.heapGrowth / (256 * MiB), 'a binding': report.binding / (128 * MiB) };
  for (const [what, share] of Object.entries(limits)) if (share > 1) { console.error(`${what} is over its limit`); process.exitCode = 1; }
  if (!report.latentsFinite) process.exitCode = 1;
} finally {
  model.close();
  page.close();
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
}
