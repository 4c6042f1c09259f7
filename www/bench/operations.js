/**
 * The operations that carry Stable Diffusion 1.5, at its shapes (512x512, one picture): what is measured by bench.html
 * and, beside onnxruntime-web, by `./build.sh bench --vs-ort`.
 *
 * @typedef {{ name: string, kind: 'convolution' | 'GEMM' | 'attention' | 'norm', op: string, h?: number, w?: number,
 *   rows?: number, c: number, out?: number, queries?: number, keys?: number, heads?: number }} Operation
 *   `op` and the rest are what the engine's `Bench.operation` takes
 */

/** @param {number} c @param {number} side @returns {Operation} */
const conv = (c, side) =>
  ({ name: `conv3x3 ${c}@${side}x${side}`, kind: 'convolution', op: 'conv2d', h: side, w: side, c, out: c });
/** @param {number} rows @param {number} c @param {number} out @returns {Operation} */
const gemm = (rows, c, out) => ({ name: `GEMM ${rows}x${c}x${out}`, kind: 'GEMM', op: 'linear', rows, c, out });
/** @param {string} which @param {number} queries @param {number} keys @param {number} d @returns {Operation} */
const attention = (which, queries, keys, d) => ({
  name: `${which}-attention 8x${queries}x${keys}x${d}`,
  kind: 'attention', op: 'attention', queries, keys, heads: 8, c: 8 * d,
});

/** @type {readonly Operation[]} */
export const operations = [
  conv(320, 64), conv(640, 32), conv(1280, 16),
  gemm(4096, 320, 320), gemm(4096, 320, 2560), gemm(1024, 640, 5120),
  attention('self', 4096, 4096, 40), attention('self', 1024, 1024, 80), attention('cross', 4096, 77, 40),
  { name: 'GroupNorm+SiLU 320@64x64', kind: 'norm', op: 'groupNorm', h: 64, w: 64, c: 320 },
  { name: 'LayerNorm 4096x320', kind: 'norm', op: 'layerNorm', rows: 4096, c: 320 },
];

/** Stable Diffusion 1.5's `unet/config.json`; what it leaves out is diffusers' default. */
export const SD15_UNET = {
  _class_name: 'UNet2DConditionModel', attention_head_dim: 8, block_out_channels: [320, 640, 1280, 1280],
  cross_attention_dim: 768,
  down_block_types: ['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D'],
  layers_per_block: 2, sample_size: 64,
};

/**
 * Shapes of an operation's inputs and weights, in the order and with the names that the engine has for them.
 * @param {Operation} o
 * @returns {{ inputs: number[][], weights: Record<string, number[]>, output: number[] }} NHWC; weights as in the
 *   checkpoint
 */
export function shapes({ op, h = 1, w = 1, rows = 0, c, out = c, queries = 0, keys = 0 }) {
  switch (op) {
    case 'conv2d':
      return { inputs: [[1, h, w, c]], weights: affine([out, c, 3, 3]), output: [1, h, w, out] };
    case 'linear':
      return { inputs: [[1, rows, c]], weights: affine([out, c]), output: [1, rows, out] };
    case 'attention':
      return { inputs: [[1, queries, c], [1, keys, c], [1, keys, c]], weights: {}, output: [1, queries, c] };
    case 'groupNorm':
      return { inputs: [[1, h, w, c]], weights: affine([c]), output: [1, h, w, c] };
    case 'layerNorm':
      return { inputs: [[1, rows, c]], weights: affine([c]), output: [1, rows, c] };
    default: throw new TypeError(`no operation "${op}"`);
  }
}

/** A weight, and a bias for each of its outputs. @param {number[]} weight */
const affine = (weight) => ({ 'y.weight': weight, 'y.bias': [weight[0]] });

/** Elements of a shape. @param {number[]} shape */
export const elements = (shape) => shape.reduce((a, b) => a * b, 1);

/**
 * What a kernel of `shaders/matmul.wgsl` asks of a GPU: loads from workgroup memory (of a vector of four) for one multiply-add,
 * and f32 registers for a thread's sums and what it multiplies; and the sizes of what it makes: rows (positions of all
 * pictures) by channels, each of so many products.
 * @param {{ defines: Record<string, number>, params: Record<string, number>, flops: number, workgroups: number }} dispatch
 * @returns {{ loads: number, registers: number, size: string } | undefined} nothing for other kernels
 */
export function figures({ defines: { SUBGROUP, SPLIT, ROWS, SLOTS, WX, TM, TN }, params, flops, workgroups }) {
  if (SUBGROUP === undefined || TM === undefined && ROWS === undefined) return undefined;
  const { m, m_base, n, k4 } = params;
  const size = `${m - m_base}x${n}x${4 * k4}`;
  if (SUBGROUP) return { loads: 0, registers: 4 * ROWS + 4 * (SLOTS + 4), size };
  const registers = 4 * TM * TN + 4 * (1 + 4 * TN);
  // Split inputs pass through workgroup memory only to be added up at the end.
  if (SPLIT) return { loads: 2 * (WX - 1) * TM / (flops / 2 / workgroups), registers: registers + 4 * (TM - 1), size };
  return { loads: (TM + 4 * TN) / (TM * 16 * TN), registers, size };
}

/** @param {number[]} values */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
