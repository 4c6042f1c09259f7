// The page's side of vs-ort.mjs: one operation at a time, ours and onnxruntime-web's in turn, on the same values.
import init, { Bench } from '/pkg/browser_diffusion.js';
import * as ort from '/ort/ort.webgpu.min.mjs';
import { elements, median, operations, shapes } from '/bench/operations.js';
import { onnxModel } from './onnx.mjs';
import { reference } from './vs-ort-reference.mjs';

/** @typedef {import('../../../www/bench/operations.js').Operation} Operation */
/** @typedef {Record<string, { dims: number[], values: Float32Array }>} Tensors */

/** @type {any} */ (ort.env.wasm).wasmPaths = '/ort/';
ort.env.wasm.numThreads = 1;
ort.env.logLevel = 'error';
await init();
const bench = await (location.search === '?no-subgroups' ? withoutSubgroups(() => Bench.open()) : Bench.open());

/** What `open` opens, of adapters that seem to have no subgroups. @template T @param {() => Promise<T>} open */
async function withoutSubgroups(open) {
  const features = /** @type {any} */ (Object.getOwnPropertyDescriptor(GPUAdapter.prototype, 'features'));
  const get = /** @this {GPUAdapter} */ function () {
    return new Set([...features.get.call(this)].filter(name => name !== 'subgroups'));
  };
  Object.defineProperty(GPUAdapter.prototype, 'features', { configurable: true, get });
  try {
    return await open();
  } finally {
    Object.defineProperty(GPUAdapter.prototype, 'features', features);
  }
}

/** @returns {any} what the engine opened, and what ours and theirs are compared on */
export const adapter = () => bench.adapter();

const F16 = /** @type {any} */ (globalThis).Float16Array;

/** 65,536 standard normal numbers that f16 holds exactly; everything draws from these. */
const normals = (() => {
  const random = generator(0x0b15);
  const uniform = () => (random() + 1) / 4294967297;
  return Float32Array.from(
    { length: 65536 },
    () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
})();

/** xorshift32. @param {number} seed @returns {() => number} 32 random bits */
function generator(seed) {
  let x = seed >>> 0 || 1;
  return () => { x ^= x << 13; x ^= x >>> 17; x ^= x << 5; return x >>> 0; };
}

/** @param {number[]} dims @param {number} seed @param {number} scale @param {number} offset */
function draw(dims, seed, scale, offset) {
  const table = new Float32Array(new F16(normals.map(v => v * scale + offset)));
  const values = new Float32Array(elements(dims));
  const random = generator(seed);
  for (let i = 0; i < values.length; i += 2) {
    const bits = random();
    values[i] = table[bits & 0xffff];
    if (i + 1 < values.length) values[i + 1] = table[bits >>> 16];
  }
  return { dims, values };
}

/** Inputs of unit spread, matrices of 1 / sqrt(fan-in), norms' weights around 1. @param {Operation} operation */
function data(operation) {
  const { inputs, weights } = shapes(operation);
  const norm = operation.kind === 'norm';
  return {
    inputs: inputs.map((dims, i) => draw(dims, 11 + i, 1, 0)),
    weights: /** @type {Tensors} */ (
      Object.fromEntries(
        Object.entries(weights).map(([name, dims], i) => [
          name,
          dims.length > 1
            ? draw(dims, 101 + i, (elements(dims) / dims[0]) ** -0.5, 0)
            : draw(dims, 101 + i, 0.1, norm && name === 'y.weight' ? 1 : 0),
        ]),
      )
    ),
  };
}

/** [n, h, w, c] to [n, c, h, w] (or back, with the sizes swapped). @param {Float32Array} values @param {number} positions @param {number} c */
function transposed(values, positions, c) {
  const out = new Float32Array(values.length);
  for (let p = 0; p < positions; p++) for (let i = 0; i < c; i++) out[i * positions + p] = values[p * c + i];
  return out;
}

/** @param {Float32Array} values @param {'f32' | 'f16'} precision */
const typed = (values, precision) => precision === 'f16' ? new F16(values) : values;

/**
 * The operation as an ONNX model, and its inputs as that takes them. Attention is decomposed, as exporters write it:
 * onnxruntime-web's fused kernel gives wrong values on software adapters.
 * @param {Operation} o @param {ReturnType<typeof data>} values @param {'f32' | 'f16'} precision
 */
function onnx(o, values, precision) {
  const type = /** @type {'float32' | 'float16'} */ (precision === 'f16' ? 'float16' : 'float32');
  const { h = 1, w = 1, rows = 0, c, out = c, queries = 0, keys = 0, heads = 1 } = o;
  /** @param {string} name @param {number[]} dims @param {Float32Array} values */
  const number = (name, dims, values) => ({
    name,
    type,
    dims,
    data: /** @type {ArrayBufferView} */ (typed(values, precision)),
  });
  /** @param {string} name @param {number[]} sizes */
  const shape = (name, sizes) => ({
    name,
    type: /** @type {const} */ ('int64'),
    dims: [sizes.length],
    data: BigInt64Array.from(sizes, BigInt),
  });
  /** @param {string} op @param {string[]} inputs @param {string} output @param {Record<string, number | number[]>} [attributes] */
  const node = (op, inputs, output, attributes) => ({ op, inputs, outputs: [output], attributes });
  const weight = values.weights['y.weight'], bias = values.weights['y.bias'];
  const [x] = values.inputs;
  switch (o.op) {
    case 'conv2d':
      return {
        feeds: { x: { dims: [1, c, h, w], values: transposed(x.values, h * w, c) } },
        output: { name: 'y', dims: [1, out, h, w] },
        nodes: [node('Conv', ['x', 'w', 'b'], 'y', { kernel_shape: [3, 3], pads: [1, 1, 1, 1] })],
        initializers: [number('w', weight.dims, weight.values), number('b', [out], bias.values)],
        type,
      };
    case 'linear':
      return {
        feeds: { x }, output: { name: 'y', dims: [1, rows, out] },
        nodes: [node('MatMul', ['x', 'w'], 'm'), node('Add', ['m', 'b'], 'y')],
        initializers: [number('w', [c, out], transposed(weight.values, out, c)), number('b', [out], bias.values)], type,
      };
    case 'attention': {
      const d = c / heads;
      const [q, k, v] = values.inputs;
      /** @param {string} name @param {number[]} perm */
      const head = (name, perm) => [
        node('Reshape', [name, 'sh'], `${name}r`),
        node('Transpose', [`${name}r`], `${name}t`, { perm }),
      ];
      return {
        feeds: { q, k, v },
        output: { name: 'y', dims: [1, queries, c] },
        nodes: [
          ...head('q', [0, 2, 1, 3]),
          ...head('k', [0, 2, 3, 1]),
          ...head('v', [0, 2, 1, 3]),
          node('Mul', ['qt', 'sc'], 'qs'),
          node('MatMul', ['qs', 'kt'], 's'),
          node('Softmax', ['s'], 'p', { axis: -1 }),
          node('MatMul', ['p', 'vt'], 'o'),
          node('Transpose', ['o'], 'ot', { perm: [0, 2, 1, 3] }),
          node('Reshape', ['ot', 'so'], 'y'),
        ],
        initializers: [
          shape('sh', [1, -1, heads, d]),
          shape('so', [1, -1, c]),
          number('sc', [], Float32Array.of(d ** -0.5)),
        ],
        type,
      };
    }
    case 'groupNorm':
      return {
        feeds: { x: { dims: [1, c, h, w], values: transposed(x.values, h * w, c) } },
        output: { name: 'y', dims: [1, c, h, w] },
        nodes: [
          node('Reshape', ['x', 's1'], 'r'),
          node('InstanceNormalization', ['r', 'one', 'zero'], 'i', { epsilon: 1e-5 }),
          node('Reshape', ['i', 's2'], 'n'),
          node('Mul', ['n', 'w'], 'nw'),
          node('Add', ['nw', 'b'], 'z'),
          node('Sigmoid', ['z'], 'sg'),
          node('Mul', ['z', 'sg'], 'y'),
        ],
        initializers: [
          shape('s1', [0, 32, -1]),
          shape('s2', [1, c, h, w]),
          number('one', [32], new Float32Array(32).fill(1)),
          number('zero', [32], new Float32Array(32)),
          number('w', [c, 1, 1], weight.values),
          number('b', [c, 1, 1], bias.values),
        ],
        type,
      };
    case 'layerNorm':
      return {
        feeds: { x }, output: { name: 'y', dims: [1, rows, c] },
        nodes: [node('LayerNormalization', ['x', 'w', 'b'], 'y', { axis: -1, epsilon: 1e-5 })],
        initializers: [number('w', [c], weight.values), number('b', [c], bias.values)], type,
      };
    default: throw new TypeError(`no operation "${o.op}"`);
  }
}

/** onnxruntime-web on the operation, inputs and output on the GPU. @param {Operation} o @param {ReturnType<typeof data>} values @param {'f32' | 'f16'} precision */
async function theirs(o, values, precision) {
  const { feeds, ...graph } = onnx(o, values, precision);
  const model = onnxModel({ ...graph, inputs: Object.entries(feeds).map(([name, { dims }]) => ({ name, dims })) });
  const session = await ort.InferenceSession.create(model, {
    executionProviders: ['webgpu'],
    graphOptimizationLevel: 'all',
    preferredOutputLocation: 'gpu-buffer',
  });
  const device = await ort.env.webgpu.device;
  const buffers = Object.entries(feeds).map(([name, { dims, values }]) => {
    const bytes = typed(values, precision);
    const buffer = device.createBuffer({
      size: Math.ceil(bytes.byteLength / 16) * 16,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC,
    });
    device.queue.writeBuffer(buffer, 0, bytes);
    return { name, buffer, tensor: ort.Tensor.fromGpuBuffer(buffer, { dataType: graph.type, dims }) };
  });
  const tensors = Object.fromEntries(buffers.map(({ name, tensor }) => [name, tensor]));
  /** @type {ort.Tensor | undefined} */
  let last;
  return {
    async run() {
      last?.dispose();
      ({ y: last } = await session.run(tensors));
      await device.queue.onSubmittedWorkDone();
    },
    /** NHWC */
    async read() {
      const raw = /** @type {any} */ (await last?.getData());
      const values = Float32Array.from(
        raw instanceof Uint16Array ? new F16(raw.buffer, raw.byteOffset, raw.length) : raw,
      );
      return o.h ? transposed(values, o.out ?? o.c, o.h * (o.w ?? 1)) : values;
    },
    async free() {
      last?.dispose();
      await session.release();
      for (const { buffer } of buffers) buffer.destroy();
    },
  };
}

/** @param {Operation} o @param {ReturnType<typeof data>} values @param {'f32' | 'f16'} precision */
async function ours(o, values, precision) {
  const recording = await bench.operation({ ...o, precision });
  values.inputs.forEach(({ values }, i) => recording.write(i, values));
  for (const [name, { values: weight }] of Object.entries(values.weights)) recording.upload(name, weight);
  return {
    async run() { recording.run(); await recording.done(); },
    read: () => recording.read(),
    free: () => recording.free(),
    dispatches: /** @type {any[]} */ (recording.dispatches()),
  };
}

/** The largest difference, as a share of the largest value of the reference. @param {Float32Array} got @param {ReturnType<typeof reference>} wanted */
function error(got, wanted) {
  let off = 0, size = 0;
  for (const { at, values } of wanted) {
    for (let i = 0; i < values.length; i++) {
      const difference = Math.abs(got[at + i] - values[i]);
      if (!(difference <= off)) off = difference; // NaN too
      size = Math.max(size, Math.abs(values[i]));
    }
  }
  return off / size;
}

/**
 * Weights of a safetensors file, one after another, by ranges.
 * @param {string} url
 * @returns {AsyncGenerator<{ name: string, values: Float32Array }>}
 */
async function* safetensors(url) {
  /** @param {number} start @param {number} end exclusive */
  const bytes = async (start, end) =>
    (await fetch(url, { headers: { range: `bytes=${start}-${end - 1}` } })).arrayBuffer();
  const length = Number(new DataView(await bytes(0, 8)).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(await bytes(8, 8 + length)));
  delete header.__metadata__;
  for (const [name, { dtype, data_offsets: [start, end] }] of Object.entries(header)) {
    const raw = await bytes(8 + length + start, 8 + length + end);
    yield { name, values: dtype === 'F16' ? new Float32Array(new F16(raw)) : new Float32Array(raw) };
  }
}

/** Sinusoidal embedding of a time step, as the configurations here ask for it: cosines first, no shift. @param {number} t @param {number} dim */
function timeEmbedding(t, dim) {
  const half = dim / 2;
  return Float32Array.from({ length: dim }, (_, i) => {
    const angle = t * Math.exp(-Math.log(10000) * (i % half) / half);
    return i < half ? Math.cos(angle) : Math.sin(angle);
  });
}

/**
 * A whole UNet: the same weights, inputs from and outputs to the processor. `folder` holds what unet_onnx.py wrote,
 * `model` the diffusers folder that it read.
 * @param {{ name: string, folder: string, model: string, side: number, shards: string[] }} unet
 * @param {'f32' | 'f16'} precision @param {number} runs
 * @returns {Promise<any>} the row
 */
export async function compareUnet({ name, folder, model, side, shards }, precision, runs) {
  const file = async (/** @type {string} */ url) => (await fetch(url)).arrayBuffer();
  const floats = async (/** @type {string} */ which) => new Float32Array(await file(`${folder}/${which}.bin`));
  const [sample, text, timestep, output] = await Promise.all(['sample', 'text', 'timestep', 'output'].map(floats));
  const config = await (await fetch(`${model}/config.json`)).json();
  const size = { batch: 1, height: side, width: side };
  const recording = await bench.unet({ config: JSON.stringify(config), precision, ...size });
  for await (const { name, values } of safetensors(`${model}/diffusion_pytorch_model.safetensors`))
    recording.upload(name, values);
  const externalData = [];
  for (const path of shards) externalData.push({ path, data: new Uint8Array(await file(`${folder}/${path}`)) });
  const session = await ort.InferenceSession.create(new Uint8Array(await file(`${folder}/unet.${precision}.onnx`)), {
    executionProviders: ['webgpu'], graphOptimizationLevel: 'all', externalData,
  });
  externalData.length = 0;
  const type = precision === 'f16' ? 'float16' : 'float32';
  const tensor = (/** @type {Float32Array} */ values, /** @type {number[]} */ dims) =>
    new ort.Tensor(type, /** @type {any} */ (typed(values, precision)), dims);
  const feeds = {
    sample: tensor(sample, [1, 4, side, side]), timestep: new ort.Tensor('float32', timestep, [1]),
    encoder_hidden_states: tensor(text, [1, 77, config.cross_attention_dim]),
  };
  const mine = async () => {
    recording.write(0, transposed(sample, 4, side * side));
    recording.write(1, timeEmbedding(timestep[0], config.block_out_channels[0]));
    recording.write(2, text);
    recording.run();
    return transposed(await recording.read(), side * side, 4);
  };
  const other = async () => {
    const raw = /** @type {any} */ ((await session.run(feeds)).out_sample.data);
    return Float32Array.from(raw instanceof Uint16Array ? new F16(raw.buffer, raw.byteOffset, raw.length) : raw);
  };
  try {
    const wanted = [{ at: 0, values: Float64Array.from(output) }];
    const { times, got } = await alternate(mine, other, runs);
    return {
      ...row(name, precision, times),
      max_err: error(got.mine, wanted),
      ort_max_err: error(got.other, wanted),
      step: recording.counters(),
    };
  } finally {
    recording.free();
    await session.release();
  }
}

/**
 * What a step of this UNet is made of, with guidance at 64x64 latents; what running it creates and how long encoding takes is
 * seen at 8x8, whose dispatches are about as many and whose work a processor gets through.
 * @param {string} config
 */
export async function step(config) {
  const at = async (/** @type {number} */ side, /** @type {number} */ runs) => {
    const recording = await bench.unet({ config, precision: 'f32', batch: 2, height: side, width: side });
    for (let i = 0; i < runs; i++) { recording.run(); await recording.done(); }
    const counters = /** @type {any} */ (recording.counters());
    recording.free();
    return counters;
  };
  const { dispatches, submits, bytes } = await at(64, 0);
  const { created, encodeMs } = await at(8, 3);
  return { dispatches, submits, bytes, created, encode_ms: encodeMs };
}

/**
 * Ours, theirs, ours, theirs ...; what comes first compiles and is not counted.
 * @template T
 * @param {() => Promise<T>} mine @param {() => Promise<T>} other @param {number} runs
 */
async function alternate(mine, other, runs) {
  const got = { mine: await mine(), other: await other() };
  const times = { mine: /** @type {number[]} */ ([]), other: /** @type {number[]} */ ([]) };
  for (let i = 0; i < runs; i++) {
    let started = performance.now();
    got.mine = await mine();
    times.mine.push(performance.now() - started);
    started = performance.now();
    got.other = await other();
    times.other.push(performance.now() - started);
  }
  return { times, got };
}

/** @param {string} name @param {string} precision @param {{ mine: number[], other: number[] }} times */
function row(name, precision, { mine, other }) {
  const [ours_ms, ort_ms] = [median(mine), median(other)];
  return { name, precision, ours_ms, ort_ms, ratio: ort_ms / ours_ms, ours: mine, ort: other };
}

/**
 * @param {string} name of an operation @param {'f32' | 'f16'} precision @param {number} runs
 * @returns {Promise<any>} the row
 */
export async function compare(name, precision, runs) {
  const operation = /** @type {Operation} */ (operations.find(o => o.name === name));
  const values = data(operation);
  const wanted = reference(operation, values);
  const mine = await ours(operation, values, precision);
  const other = await theirs(operation, values, precision);
  try {
    const { times } = await alternate(mine.run, other.run, runs);
    return {
      ...row(name, precision, times),
      max_err: error(await mine.read(), wanted),
      ort_max_err: error(await other.read(), wanted),
      flops: mine.dispatches.reduce((sum, d) => sum + d.flops, 0),
      workgroups: mine.dispatches.map(d => d.workgroups),
    };
  } finally {
    mine.free();
    await other.free();
  }
}
