// The eleven operations in f64 on the processor, plainly: convolution, GEMM and attention at 64 positions (corners and
// edges of the picture among them), all channels of each; the norms whole.

/** @typedef {import('../../../www/bench/operations.js').Operation} Operation */
/** @typedef {{ dims: number[], values: Float32Array }} Values */

/** 64 of `count` positions. @param {number} count @param {number} width of the picture */
function sample(count, width) {
  const corners = [0, width - 1, count - width, count - 1];
  return [...new Set([...corners, ...Array.from({ length: 60 }, (_, i) => Math.floor((i + 0.5) * count / 60))])];
}

/**
 * @param {Operation} o @param {{ inputs: Values[], weights: Record<string, Values> }} data
 * @returns {{ at: number, values: Float64Array }[]} pieces of the output, NHWC, and where they begin
 */
export function reference(o, { inputs, weights }) {
  const [x, k, v] = inputs.map(input => input.values);
  const weight = weights['y.weight']?.values, bias = weights['y.bias']?.values;
  const { h = 1, w = 1, rows = 0, c, out = c, queries = 0, keys = 0, heads = 1 } = o;
  switch (o.op) {
    case 'conv2d':
      return sample(h * w, w).map(p => ({ at: p * out, values: convolution(x, weight, bias, h, w, c, out, p) }));
    case 'linear':
      return sample(rows, 1).map(row => ({
        at: row * out,
        values: product(x.subarray(row * c, (row + 1) * c), weight, bias, out),
      }));
    case 'attention':
      return sample(queries, 1).map(row => ({
        at: row * c,
        values: attention(x.subarray(row * c, (row + 1) * c), k, v, keys, c, heads),
      }));
    case 'groupNorm':
      return [{ at: 0, values: groupNorm(x, weight, bias, c) }];
    case 'layerNorm':
      return [{ at: 0, values: layerNorm(x, weight, bias, c) }];
    default:
      throw new TypeError(`no operation "${o.op}"`);
  }
}

/** @param {Float32Array} x @param {Float32Array} weight @param {Float32Array} bias @param {number} h @param {number} w @param {number} c @param {number} out @param {number} position */
function convolution(x, weight, bias, h, w, c, out, position) {
  const y = Float64Array.from(bias);
  for (let dy = 0; dy < 3; dy++) {
    for (let dx = 0; dx < 3; dx++) {
      const row = Math.floor(position / w) + dy - 1, column = position % w + dx - 1;
      if (row < 0 || row >= h || column < 0 || column >= w) continue;
      const from = (row * w + column) * c, tap = dy * 3 + dx;
      for (let o = 0; o < out; o++) {
        let sum = 0;
        for (let i = 0; i < c; i++) sum += x[from + i] * weight[(o * c + i) * 9 + tap];
        y[o] += sum;
      }
    }
  }
  return y;
}

/** @param {Float32Array} x one row @param {Float32Array} weight @param {Float32Array} bias @param {number} out */
function product(x, weight, bias, out) {
  return Float64Array.from({ length: out }, (_, o) => {
    let sum = bias[o];
    for (let i = 0; i < x.length; i++) sum += x[i] * weight[o * x.length + i];
    return sum;
  });
}

/** @param {Float32Array} q one row @param {Float32Array} k @param {Float32Array} v @param {number} keys @param {number} c @param {number} heads */
function attention(q, k, v, keys, c, heads) {
  const y = new Float64Array(c), d = c / heads, scores = new Float64Array(keys);
  for (let head = 0; head < c; head += d) {
    let largest = -Infinity;
    for (let j = 0; j < keys; j++) {
      let dot = 0;
      for (let i = head; i < head + d; i++) dot += q[i] * k[j * c + i];
      scores[j] = dot / Math.sqrt(d);
      largest = Math.max(largest, scores[j]);
    }
    let total = 0;
    for (let j = 0; j < keys; j++) {
      const share = Math.exp(scores[j] - largest);
      total += share;
      for (let i = head; i < head + d; i++) y[i] += share * v[j * c + i];
    }
    for (let i = head; i < head + d; i++) y[i] /= total;
  }
  return y;
}

/** 32 groups, then SiLU. @param {Float32Array} x @param {Float32Array} weight @param {Float32Array} bias @param {number} c */
function groupNorm(x, weight, bias, c) {
  const size = c / 32;
  const y = new Float64Array(x.length);
  for (let first = 0; first < c; first += size) {
    const visit = (/** @type {(index: number, channel: number) => void} */ f) => {
      for (let at = 0; at < x.length; at += c) for (let i = first; i < first + size; i++) f(at + i, i);
    };
    const count = x.length / 32;
    let mean = 0, variance = 0;
    visit(at => { mean += x[at] / count; });
    visit(at => { variance += (x[at] - mean) ** 2 / count; });
    const scale = 1 / Math.sqrt(variance + 1e-5);
    visit((at, i) => {
      const value = (x[at] - mean) * scale * weight[i] + bias[i];
      y[at] = value / (1 + Math.exp(-value));
    });
  }
  return y;
}

/** @param {Float32Array} x @param {Float32Array} weight @param {Float32Array} bias @param {number} c */
function layerNorm(x, weight, bias, c) {
  const y = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += c) {
    let mean = 0, variance = 0;
    for (let i = 0; i < c; i++) mean += x[at + i] / c;
    for (let i = 0; i < c; i++) variance += (x[at + i] - mean) ** 2 / c;
    const scale = 1 / Math.sqrt(variance + 1e-5);
    for (let i = 0; i < c; i++) y[at + i] = (x[at + i] - mean) * scale * weight[i] + bias[i];
  }
  return y;
}
