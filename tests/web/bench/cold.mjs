// ./build.sh bench --trace --cold [--json FILE] [--way NAME] [--all]
// The first picture of the embedded model where neither browser nor driver has compiled anything: what each pipeline
// costs. A driver may compile at the first dispatch, as lavapipe does, so each pipeline is dispatched once, alone, with
// nothing to do, before the engine gets it: its time is from there, or from the end of the one before, to its end.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { started, withoutSubgroups } from '../support/bench.mjs';
import { adapters, browsers, root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';

/** @typedef {{ label: string, defines: string, text: number, ms: number }} Compiled */

const { values: options } = parseArgs({
  options: {
    trace: { type: 'boolean' },
    cold: { type: 'boolean' },
    json: { type: 'string' },
    way: { type: 'string' },
    all: { type: 'boolean' },
  },
});

/** @typedef {{ name: string, browser: 'chromium' | 'firefox', adapter: string, subgroups: boolean }} Way */
/** @type {Way[]} */
const ways = adapters.flatMap(adapter => [
  { name: adapter, browser: 'chromium', adapter, subgroups: true },
  { name: `${adapter}-shared`, browser: 'chromium', adapter, subgroups: false },
]);
if (browsers.includes('firefox'))
  ways.push({ name: 'firefox', browser: 'firefox', adapter: 'lavapipe', subgroups: false });

/** Runs in the worker before the engine. @returns {void} */
function probe() {
  /** By text: the engine asks for a pipeline ahead, and again when it needs it. @type {Map<string, Compiled>} */
  const compiled = new Map();
  const channel = new BroadcastChannel('cold');
  channel.onmessage = () => channel.postMessage([...compiled.values()]);
  const device = GPUDevice.prototype;
  const {
    createShaderModule, createBindGroupLayout, createPipelineLayout, createComputePipeline, createComputePipelineAsync,
  } = device;
  /** What was given to make a thing. @type {WeakMap<object, any>} */
  const given = new WeakMap();
  device.createShaderModule = function (d) {
    const made = createShaderModule.call(this, d);
    given.set(made, d.code);
    return made;
  };
  device.createBindGroupLayout = function (d) {
    const made = createBindGroupLayout.call(this, d);
    given.set(made, [...d.entries]);
    return made;
  };
  device.createPipelineLayout = function (d) {
    const made = createPipelineLayout.call(this, d);
    given.set(made, [...d.bindGroupLayouts][0]);
    return made;
  };

  /** The end of the last pipeline's dispatch. @type {Promise<number>} */
  let last = Promise.resolve(0);
  /** @param {GPUDevice} device @param {GPUComputePipelineDescriptor} d @param {GPUComputePipeline} pipeline @param {number} from */
  const once = (device, d, pipeline, from) => last = last.then(async before => {
    const began = Math.max(before, from);
    const layout = given.get(/** @type {GPUPipelineLayout} */ (d.layout));
    const entries = given.get(layout).map((/** @type {any} */ { binding, buffer }) => ({ binding, resource: {
      buffer: device.createBuffer({
        size: 1024,
        usage: buffer.type === 'uniform' ? GPUBufferUsage.UNIFORM : GPUBufferUsage.STORAGE,
      }),
    } }));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout, entries }));
    pass.dispatchWorkgroups(1);
    pass.end();
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
    const code = given.get(d.compute.module);
    const defines = [...code.matchAll(/^const ([A-Z]\w*) = (\d+)u;$/gm)].map(([, name, value]) => `${name} ${value}`);
    const known = compiled.get(code) ?? { label: '', defines: defines.join(', '), text: code.length, ms: 0 };
    const ended = performance.now();
    compiled.set(code, { ...known, label: d.label || known.label, ms: known.ms + ended - began });
    return ended;
  });
  device.createComputePipeline = function (d) {
    const from = performance.now();
    const pipeline = createComputePipeline.call(this, d);
    once(this, d, pipeline, from);
    return pipeline;
  };
  device.createComputePipelineAsync = async function (d) {
    const from = performance.now();
    const pipeline = await createComputePipelineAsync.call(this, d);
    await once(this, d, pipeline, from);
    return pipeline;
  };
}

/** In the page: loads, draws, and asks the worker what it saw. */
async function draw() {
  const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
  const pipeline = await DiffusionPipeline.fromPretrained('embedded');
  const loaded = performance.now();
  const { timings } = await pipeline.generate({ prompt: 'a red apple', seed: 1, preview: 'none' });
  const drawn = performance.now();
  const channel = new BroadcastChannel('cold');
  /** @type {Promise<Compiled[]>} */
  const answer = new Promise(done => { channel.onmessage = ({ data }) => done(data); });
  channel.postMessage('tell');
  return { loaded, drawn, timings, compiled: await answer };
}

/**
 * Of the browser's processes the most memory that one has had, in MiB, and the most time that one had a processor, in
 * seconds: other work on the machine makes everything last longer, but adds little to this.
 */
function most() {
  const browser = started();
  const largest = (/** @type {'memory' | 'processor'} */ key) => Math.max(0, ...browser.map(one => one[key]));
  return { memory: largest('memory'), processor: largest('processor') };
}

/** @param {Way} way */
async function run({ name, browser, adapter, subgroups }) {
  const first = `${subgroups ? '' : `(${withoutSubgroups})();`}(${probe})();`;
  const server = await serve({ roots: { '/': join(root, 'www') }, files: {
    '/blank.html': '<!doctype html><title>cold</title><link rel="icon" href="data:,">',
    '/worker.js': `${first}\n${readFileSync(join(root, 'www/worker.js'), 'utf8')}`,
  } });
  try {
    return await withBrowser({ browser, adapter, env: { MESA_SHADER_CACHE_DISABLE: '1' } }, async context => {
      const page = await context.newPage();
      await page.goto(`${server.url}/blank.html`);
      const seen = await page.evaluate(draw);
      return { name, ...seen, ...most() };
    });
  } finally {
    await server.close();
  }
}

const seconds = (/** @type {number} */ ms) => (ms / 1000).toFixed(1);
const results = [];
for (const way of ways.filter(way => !options.way || way.name === options.way)) {
  const { compiled, ...result } = await run(way);
  const sum = (/** @type {(c: Compiled) => number} */ of) => compiled.reduce((total, c) => total + of(c), 0);
  const slowest = compiled.toSorted((a, b) => b.ms - a.ms);
  results.push({ ...result, compiled });
  console.log(
    `${way.name}: first picture after ${seconds(result.drawn)} s; ${compiled.length} pipelines of ` +
      `${sum(c => c.text)} bytes compile for ${seconds(sum(c => c.ms))} s; at most ${result.memory} MiB and ` +
      `${result.processor.toFixed(1)} s of a processor in one process`,
  );
  for (const { label, defines, text, ms } of options.all ? slowest : slowest.slice(0, 5))
    console.log(`  ${seconds(ms).padStart(6)} s  ${String(text).padStart(6)} bytes  ${label} ${defines}`);
}
if (options.json) writeFileSync(options.json, `${JSON.stringify(results, null, 2)}\n`);
process.exit(); // a browser that hangs on its way out must not keep the command
