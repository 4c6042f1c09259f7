// Matrix multiply and convolution as implicit matrix multiply:
//
//   out[m, n] = post(activation(sum_k A[m, k] * W[n, k] + bias[n] + channel_add[picture(m), n]) + residual[m, n])
//
// or, with GEGLU, half as many channels: those of the first half of W's rows times gelu of the second's. There value
// and gate take turns as n, so that one thread has both.
//
// m runs over positions (picture, y, x) of the output, n over its channels, k over (tap, input channel), four
// at a time. A is gathered: for a convolution A[m, (tap, c)] is the input at the tap's place, zero outside;
// with `upsample` the input is first doubled by nearest neighbour, without being written. A second input may
// follow the first on the channel axis (skip connections). W lies as [n][tap][c], channels padded to four; with Q8 or
// Q4 each row in blocks of 32 weights of 8 or 4 bits (src/checkpoint/quantise.rs), which load_w makes whole again.
//
// Bindings: input, second input, weights, bias, channel_add, residual, output, and with WATCH (f16 output) a word
// that is set where a value does not fit; what an op lacks is bound to something else and never read, so that one pipeline serves every op of a tile: compiling is what a first
// visit waits for.
// Tiling: a workgroup of WX x WY threads makes a tile of BM = WY * TM rows by BN = WX * 4 channels, over
// slices of BK4 vectors of k that lie in workgroup memory; a thread holds TM x 4 sums in registers and does
// TM * 4 four-wide dot products for TM + 4 vectors read. Thread (x, y) owns rows y, y + WY, ... so that one
// read serves a whole row of threads, and channels 4x .. 4x+3, so that it stores whole vectors.
struct Params {
  m: u32,            // output positions, all pictures
  m_base: u32,       // first position of this dispatch
  n: u32,            // output channels
  k4: u32,           // taps * c4
  c4: u32,           // vectors of input channels, both inputs
  c4_first: u32,     // of the first input
  in_h: u32,         // as stored
  in_w: u32,
  out_w: u32,
  out_positions: u32,  // out_h * out_w
  stride: u32,
  pad_top: u32,
  pad_left: u32,
  bound_h: u32,      // input size as the taps see it: in_h, or the upsampled height
  bound_w: u32,
  kernel: u32,       // taps a side: 1 or 3
  upsample: u32,     // 1: the taps see every input position twice, each way
  has_bias: u32,
  has_channel_add: u32,
  has_residual: u32,
  activation: u32,
  post: u32,
  add_stride: u32,   // channel_add: vectors from picture to picture,
  add_from: u32,     // and to the first of these channels
}
#if QUANTISED
alias weight = u32;
#else
alias weight = half4;
#endif
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding($binding) var<storage, read> first: array<act4>;
@group(0) @binding($binding) var<storage, read> second: array<act4>;
@group(0) @binding($binding) var<storage, read> weights: array<weight>;
@group(0) @binding($binding) var<storage, read> bias: array<half4>;
@group(0) @binding($binding) var<storage, read> channel_add: array<act4>;
@group(0) @binding($binding) var<storage, read> residual: array<act4>;
#if GEGLU
@group(0) @binding($binding) var<storage, read_write> out: array<act2>;
#else
#if F32_OUTPUT
alias out4 = vec4f;
fn to_out(v: vec4f) -> out4 { return v; }
#else
alias out4 = act4;
fn to_out(v: vec4f) -> out4 { return to_act(v); }
#endif
@group(0) @binding($binding) var<storage, read_write> out: array<out4>;
#endif
#if WATCH
@group(0) @binding($binding) var<storage, read_write> overflow: array<atomic<u32>>;
#endif

#if F16_ARITHMETIC
alias tile4 = vec4<f16>;
fn to_tile_a(v: act4) -> tile4 { return tile4(v); }
fn to_tile_w(v: half4) -> tile4 { return v; }
#else
alias tile4 = vec4f;
fn to_tile_a(v: act4) -> tile4 { return from_act(v); }
fn to_tile_w(v: half4) -> tile4 { return from_half(v); }
#endif

// Four weights of row n from vector k on.
#if QUANTISED
fn load_w(n: u32, k: u32) -> tile4 {
#if Q4
  let block = (n * ((p.k4 + 7u) / 8u) + k / 8u) * 5u;
  let q = (vec4u(weights[block + k % 8u / 2u]) >> (vec4u(0u, 4u, 8u, 12u) + k % 2u * 16u)) & vec4u(15u);
  let ends = unpack2x16float(weights[block + 4u]);
  return tile4(ends.y + ends.x / 15.0 * vec4f(q));
#else
  let block = (n * ((p.k4 + 7u) / 8u) + k / 8u) * 9u;
  let q = (vec4u(weights[block + k % 8u]) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u);
  let ends = unpack2x16float(weights[block + 8u]);
  return tile4(ends.y + ends.x / 255.0 * vec4f(q));
#endif
}
#else
fn load_w(n: u32, k: u32) -> tile4 { return to_tile_w(weights[n * p.k4 + k]); }
#endif

const BM = WY * TM;
const BN = WX * 4u;
const THREADS = WX * WY;

var<workgroup> tile_a: array<tile4, BK4 * BM>;
var<workgroup> tile_w: array<tile4, BK4 * BN>;

fn load_a(at: u32, c: u32) -> tile4 {
  if c >= p.c4_first {
    return to_tile_a(second[at * (p.c4 - p.c4_first) + c - p.c4_first]);
  }
  return to_tile_a(first[at * p.c4_first + c]);
}

// The row of the weights that makes channel n.
fn weight_row(n: u32) -> u32 {
#if GEGLU
  return n / 2u + n % 2u * (p.n / 2u);
#else
  return n;
#endif
}

// The biases of four channels.
fn biases(column: u32) -> vec4f {
  if p.has_bias == 0u {
    return vec4f(0.0);
  }
#if GEGLU
  let value = from_half(bias[column / 2u]);
  let gate = from_half(bias[p.n / 8u + column / 2u]);
  return select(vec4f(value.x, gate.x, value.y, gate.y), vec4f(value.z, gate.z, value.w, gate.w), column % 2u == 1u);
#else
  return from_half(bias[column]);
#endif
}

fn store(row: u32, column: u32, n4: u32, sum: vec4f) {
  if row >= p.m {
    return;
  }
  var v = sum;
  if p.has_channel_add != 0u {
    v += from_act(channel_add[row / p.out_positions * p.add_stride + p.add_from + column]);
  }
  v = activate(v, p.activation);
  if p.has_residual != 0u {
    v += from_act(residual[row * n4 + column]);
  }
  v = activate(v, p.post);
#if GEGLU
  v = vec4f(v.xz * gelu4(v).yw, 0.0, 0.0);
#endif
#if WATCH
  // Not ">=", so that NaN is told as well.
  if !all(abs(v) < vec4f(65504.0)) {
    atomicStore(&overflow[0], 1u);
  }
#endif
#if GEGLU
  out[row * n4 + column] = to_act2(v.xy);
#else
  out[row * n4 + column] = to_out(v);
#endif
}

@compute @workgroup_size(WX, WY)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let x = thread % WX;
  let y = thread / WX;
  let m0 = p.m_base + group.y * BM;
  let n0 = group.x * BN;

  // Each thread fills the same column of k in tile A for every slice: rows load_m, load_m + LOAD_STEP, ...
  let load_k = thread % BK4;
  let load_m = thread / BK4;
#for i A_LOADS
  let m_$i = m0 + load_m + $iu * (THREADS / BK4);
  let in_range_$i = m_$i < p.m;
#if CONV
  let picture_$i = m_$i / p.out_positions;
  let position_$i = m_$i % p.out_positions;
  let base_y_$i = i32(position_$i / p.out_w * p.stride) - i32(p.pad_top);
  let base_x_$i = i32(position_$i % p.out_w * p.stride) - i32(p.pad_left);
#endif
#endfor

#for i TM
  var sum_$i = vec4f(0.0);
#endfor

  for (var k0 = 0u; k0 < p.k4; k0 += BK4) {
    let k = k0 + load_k;
    let k_in_range = k < p.k4;
#if CONV
    let tap = k / p.c4;
    let c = k % p.c4;
    let tap_y = i32(tap / p.kernel);
    let tap_x = i32(tap % p.kernel);
#endif
#for i A_LOADS
    var a_$i = tile4();
#if CONV
    let y_$i = base_y_$i + tap_y;
    let x_$i = base_x_$i + tap_x;
    if k_in_range && in_range_$i && y_$i >= 0 && x_$i >= 0 && y_$i < i32(p.bound_h) && x_$i < i32(p.bound_w) {
      a_$i = load_a((picture_$i * p.in_h + (u32(y_$i) >> p.upsample)) * p.in_w + (u32(x_$i) >> p.upsample), c);
    }
#else
    if k_in_range && in_range_$i {
      a_$i = load_a(m_$i, k);
    }
#endif
    tile_a[load_k * BM + load_m + $iu * (THREADS / BK4)] = a_$i;
#endfor
#for i W_LOADS
    // Channel n lies at (n % 4) * WX + n / 4, so that neighbouring threads read neighbouring vectors.
    let row_$i = load_m + $iu * (THREADS / BK4);
    var w_$i = tile4();
    if k_in_range && n0 + row_$i < p.n {
      w_$i = load_w(weight_row(n0 + row_$i), k);
    }
    tile_w[load_k * BN + row_$i % 4u * WX + row_$i / 4u] = w_$i;
#endfor
    workgroupBarrier();
    for (var kk = 0u; kk < BK4; kk++) {
      let w0 = tile_w[kk * BN + x];
      let w1 = tile_w[kk * BN + WX + x];
      let w2 = tile_w[kk * BN + 2u * WX + x];
      let w3 = tile_w[kk * BN + 3u * WX + x];
#for i TM
      let b_$i = tile_a[kk * BM + $iu * WY + y];
      sum_$i += vec4f(f32(dot(b_$i, w0)), f32(dot(b_$i, w1)), f32(dot(b_$i, w2)), f32(dot(b_$i, w3)));
#endfor
    }
    workgroupBarrier();
  }

  let n4 = (p.n + 3u) / 4u;
  let column = group.x * WX + x;
  if column < n4 {
    let b = biases(column);
#for i TM
    store(m0 + $iu * WY + y, column, n4, sum_$i + b);
#endfor
  }
}
