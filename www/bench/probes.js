/**
 * What the adapter can do at the most, measured: multiply-adds in f32 and in f16, and bytes copied by a shader. Small
 * probes, on a device of their own.
 *
 * @typedef {{ f32: number, f16: number | null, copy: number }} Peaks FLOP/s (a multiply-add counting two), and bytes/s
 *   read and written together; f16 null where the adapter has no shader-f16. Raised where an operation reached more
 */

/** Milliseconds that a probe takes at least. */
const ENOUGH = 40;

/** Eight independent chains of vec4 a thread: enough in flight to hide the latency of any GPU. */
const CHAINS = 8;

/**
 * Every thread multiplies and adds, CHAINS vectors of four, `rounds` times; the result is stored only where it is what
 * it cannot be, so that nothing is left out and nothing is written.
 * @param {'f32' | 'f16'} type
 */
const multiplyAdd = (type) => `${type === 'f16' ? 'enable f16;' : ''}
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<uniform> rounds: vec4u;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  let x = ${type}(id.x & 63u) * ${type}(0.001);
  let scale = vec4<${type}>(${type}(0.5) + x);
  let shift = vec4<${type}>(${type}(0.25), ${type}(0.125), x, ${type}(0.5));
${Array.from({ length: CHAINS }, (_, i) => `  var a${i} = shift + ${type}(${i});`).join('\n')}
  for (var i = 0u; i < rounds.x; i++) {
${Array.from({ length: CHAINS }, (_, i) => `    a${i} = fma(a${i}, scale, shift);`).join('\n')}
  }
  let sum = ${Array.from({ length: CHAINS }, (_, i) => `a${i}`).join(' + ')};
  if (f32(sum.x + sum.y + sum.z + sum.w) == -1.0) { out[id.x & 63u] = 1.0; }
}`;

/** Each thread copies vectors of four words, `rounds` times over the whole buffer, a grid's width apart. */
const copy = `
@group(0) @binding(0) var<storage, read_write> to: array<vec4u>;
@group(0) @binding(1) var<uniform> rounds: vec4u;
@group(0) @binding(2) var<storage, read> from_: array<vec4u>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let size = arrayLength(&from_);
  for (var r = 0u; r < rounds.x; r++) {
    for (var i = id.x; i < size; i += groups.x * 256u) { to[i] = from_[i] + r; }
  }
}`;

/**
 * Work per second: `rounds` grows until one dispatch takes long enough to be timed.
 * @param {GPUDevice} device @param {string} code @param {number} groups @param {GPUBuffer[]} buffers
 * @returns {Promise<number>} rounds per second
 */
async function rate(device, code, groups, buffers) {
  const module = device.createShaderModule({ code });
  const pipeline = await device.createComputePipelineAsync({ layout: 'auto', compute: { module } });
  const uniform = device.createBuffer({ size: 16, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
  const group = device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: [buffers[0], uniform, ...buffers.slice(1)].map((buffer, binding) => ({ binding, resource: { buffer } })),
  });
  const run = async (/** @type {number} */ rounds) => {
    device.queue.writeBuffer(uniform, 0, Uint32Array.of(rounds, 0, 0, 0));
    await device.queue.onSubmittedWorkDone();
    const started = performance.now();
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(groups);
    pass.end();
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
    return performance.now() - started;
  };
  let rounds = 1;
  await run(rounds); // compiles
  for (let ms = await run(rounds); ms < ENOUGH; ms = await run(rounds)) {
    rounds = Math.ceil(rounds * Math.min(8, Math.max(2, 1.2 * ENOUGH / ms)));
  }
  // The least of several: whatever else runs meanwhile only makes it longer.
  let best = Infinity;
  for (let i = 0; i < 5; i++) best = Math.min(best, await run(rounds));
  uniform.destroy();
  return rounds / best * 1000;
}

/** @returns {Promise<Peaks>} */
export async function measurePeaks() {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) throw new Error('This browser gives no WebGPU adapter.');
  const f16 = adapter.features.has('shader-f16');
  const device = await adapter.requestDevice({ requiredFeatures: f16 ? ['shader-f16'] : [] });
  try {
    const groups = 1024, size = 32 << 20;
    const storage = (/** @type {number} */ size) => device.createBuffer({ size, usage: GPUBufferUsage.STORAGE });
    const small = storage(256), to = storage(size), from = storage(size);
    const flops = groups * 64 * CHAINS * 4 * 2;
    return {
      f32: flops * await rate(device, multiplyAdd('f32'), groups, [small]),
      f16: f16 ? flops * await rate(device, multiplyAdd('f16'), groups, [small]) : null,
      copy: 2 * size * await rate(device, copy, 1024, [to, from]),
    };
  } finally {
    device.destroy();
  }
}
