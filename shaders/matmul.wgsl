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
// With SHORTCUT a 1x1 convolution of one or two more inputs, with its own weights and bias behind the others', is added
// (a residual block's way past its convolutions): k goes on over their channels.
//
// With LAYER_NORM the rows of A are normalised as they are read; a workgroup finds their moments first.
//
// A channel_add as large as the sums, of a product without taps, is added with out_positions 1.
//
// Bindings: input, second input, weights, bias, channel_add and residual (LAYER_NORM: gamma and beta; SHORTCUT: its
// inputs), output, and with WATCH (f16 output) a word that is set where a value does not fit; what an op lacks is bound
// to something else and never read, so that one pipeline serves every op of a tile: compiling is what a first visit
// waits for.
//
// Tiling, with subgroups of a known size (SUBGROUP): no workgroup memory and no barrier. A subgroup makes ROWS rows by
// 4 * SUBGROUP channels. A lane owns four neighbouring channels, so that it stores whole vectors, and all ROWS rows of
// them: ROWS * 4 sums in registers. For four k it reads one vector of A in each of SLOTS rows and four of W, and gives
// its A to the other lanes by broadcast: ROWS * 16 products for SLOTS + 4 vectors read, none of them from workgroup
// memory. A workgroup is SX x SY subgroups, which share their reads through the cache.
//
// Tiling without: a workgroup of WX x WY threads makes a tile of BM = WY * TM rows by BN = WX * 4 * TN channels, over
// slices of BK4 vectors of k that lie in workgroup memory as f32; a thread holds TM x 4 TN sums in registers and does
// TM * 16 TN products for TM + 4 TN vectors read: 0.06 reads a product with TM 8, TN 2. Thread (x, y) owns rows y,
// y + WY, ... so that one read serves a whole row of threads, and channels 4x .. 4x+3 of each of TN blocks.
//
// Tiling of outputs too small to fill a GPU with such tiles (SPLIT): a workgroup makes TM rows by four channels. Its WX
// threads take turns at k, so that neighbours read neighbouring vectors of A and of W, and add their sums at the end:
// until then nothing passes through workgroup memory.
#if F16_ARITHMETIC
alias factor4 = vec4<f16>;
alias stored4 = vec4<f16>;
fn to_factor(v: stored4) -> factor4 { return v; }
fn to_f32(v: stored4) -> vec4f { return vec4f(v); }
fn product(a: factor4, w: factor4, sum: f32) -> f32 { return sum + f32(dot(a, w)); }
#else
alias factor4 = vec4f;
alias stored4 = act4;
fn to_factor(v: stored4) -> factor4 { return from_act(v); }
fn to_f32(v: stored4) -> vec4f { return from_act(v); }
fn product(a: factor4, w: factor4, sum: f32) -> f32 {
  return fma(a.w, w.w, fma(a.z, w.z, fma(a.y, w.y, fma(a.x, w.x, sum))));
}
#endif
#if QUANTISED
alias weight = u32;
#else
#if F16_ARITHMETIC
alias weight = vec4<f16>;
#else
alias weight = weight4_0;
#endif
#endif
@group(0) @binding($binding) var<storage, read> input_0: array<stored4>;
@group(0) @binding($binding) var<storage, read> input_1: array<stored4>;
@group(0) @binding($binding) var<storage, read> weights: array<weight>;
@group(0) @binding($binding) var<storage, read> bias: array<weight4_1>;
#if LAYER_NORM
@group(0) @binding($binding) var<storage, read> gamma: array<weight4_2>;
@group(0) @binding($binding) var<storage, read> beta: array<weight4_3>;
#endif
#if SHORTCUT
@group(0) @binding($binding) var<storage, read> input_2: array<stored4>;
@group(0) @binding($binding) var<storage, read> input_3: array<stored4>;
#endif
#if ADDED
@group(0) @binding($binding) var<storage, read> channel_add: array<act4>;
@group(0) @binding($binding) var<storage, read> residual: array<act4>;
#endif
#if GEGLU
alias out4 = act2;
fn to_out(v: vec4f) -> out4 { return to_act2(v.xy); }
#else
#if F32_OUTPUT
alias out4 = vec4f;
fn to_out(v: vec4f) -> out4 { return v; }
#else
alias out4 = act4;
fn to_out(v: vec4f) -> out4 { return to_act(v); }
#endif
#endif
@group(0) @binding($binding) var<storage, read_write> out: array<out4>;
#if WATCH
@group(0) @binding($binding) var<storage, read_write> overflow: array<atomic<u32>>;
#endif

// Four products of each of four channels, added to their sums.
fn products(a: factor4, w_0: factor4, w_1: factor4, w_2: factor4, w_3: factor4, sum: vec4f) -> vec4f {
  return vec4f(product(a, w_0, sum.x), product(a, w_1, sum.y), product(a, w_2, sum.z), product(a, w_3, sum.w));
}

// Four weights of row n from vector k on.
#if QUANTISED
fn load_w(n: u32, k: u32) -> factor4 {
#if Q4
  let block = (n * ((p.k4 + 7u) / 8u) + k / 8u) * 5u;
  let q = (vec4u(weights[block + k % 8u / 2u]) >> (vec4u(0u, 4u, 8u, 12u) + k % 2u * 16u)) & vec4u(15u);
  let ends = unpack2x16float(weights[block + 4u]);
  return factor4(ends.y + ends.x / 15.0 * vec4f(q));
#else
  let block = (n * ((p.k4 + 7u) / 8u) + k / 8u) * 9u;
  let q = (vec4u(weights[block + k % 8u]) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u);
  let ends = unpack2x16float(weights[block + 8u]);
  return factor4(ends.y + ends.x / 255.0 * vec4f(q));
#endif
}
#else
fn load_w(n: u32, k: u32) -> factor4 {
#if SHORTCUT
  let shortcut = p.n * p.k4 + n * (p.c4_2 + p.c4_3) + k - p.k4;
  let at = select(n * p.k4 + k, shortcut, k >= p.k4);
#else
  let at = n * p.k4 + k;
#endif
#if F16_ARITHMETIC
  return weights[at];
#else
  return from_weight_0(weights[at]);
#endif
}
#endif

// The row of the weights that makes output channel n.
fn row_of(n: u32) -> u32 {
#if GEGLU
  return n / 2u + n % 2u * (p.n / 2u);
#else
  return n;
#endif
}

#if GEGLU
// Of the values and the gates where column's channels are, the four that column has.
fn in_turn(value: vec4f, gate: vec4f, column: u32) -> vec4f {
  return select(vec4f(value.x, gate.x, value.y, gate.y), vec4f(value.z, gate.z, value.w, gate.w), column % 2u == 1u);
}
#endif

// The biases of four channels.
fn biases(column: u32) -> vec4f {
  if p.has_bias == 0u {
    return vec4f(0.0);
  }
#if GEGLU
  let value = from_weight_1(bias[column / 2u]);
  let gate = from_weight_1(bias[p.n / 8u + column / 2u]);
  return in_turn(value, gate, column);
#else
  let b = from_weight_1(bias[p.bias_from + column]);
#if SHORTCUT
  return b + from_weight_1(bias[p.n / 4u + column]);
#else
  return b;
#endif
#endif
}

#if SHORTCUT
fn shortcut_c4(source: u32) -> u32 { return select(p.c4_2, p.c4_3, source == 1u); }
fn load_shortcut(source: u32, row: u32, c: u32) -> factor4 {
  if source == 1u {
    return to_factor(input_3[row * p.c4_3 + c]);
  }
  return to_factor(input_2[row * p.c4_2 + c]);
}
#endif

// What is stored for a finished sum.
fn finish(row: u32, column: u32, n4: u32, sum: vec4f) -> vec4f {
  var v = sum;
#if ADDED
  if p.has_channel_add != 0u {
    let at = row / p.out_positions * p.add_stride + p.add_from;
#if GEGLU
    v += in_turn(from_act(channel_add[at + column / 2u]), from_act(channel_add[at + p.n / 8u + column / 2u]), column);
#else
    v += from_act(channel_add[at + column]);
#endif
  }
#endif
#if ACTIVATION
  v = activate(v, p.activation);
#endif
#if ADDED
  if p.has_residual != 0u {
    v += from_act(residual[row * n4 + column]);
  }
#endif
#if ACTIVATION
  v = activate(v, p.post);
#endif
#if GEGLU
  v = vec4f(v.xz * gelu4(v).yw, 0.0, 0.0);
#endif
  return v;
}

#if LAYER_NORM
// A row of A is seen by its differences from its first value, so that a mean far from zero costs no digits of the variance.
fn pivot_of(row: u32) -> f32 {
  return to_f32(input_0[row * p.c4_0]).x;
}
// Mean of the row and the inverse of its standard deviation, of the sums of its differences and of their squares.
fn moments(row: u32, sum: f32, squares: f32) -> vec2f {
  let scale = 1.0 / f32(p.c4_0 * 4u);
  let mean = sum * scale;
  return vec2f(pivot_of(row) + mean, inverseSqrt(max(squares * scale - mean * mean, 0.0) + p.epsilon));
}
// The same by one thread.
fn moments_of(row: u32) -> vec2f {
  let pivot = pivot_of(row);
  var sum = vec4f(0.0);
  var squares = vec4f(0.0);
  for (var c = 0u; c < p.c4_0; c++) {
    let d = to_f32(input_0[row * p.c4_0 + c]) - pivot;
    sum += d;
    squares = fma(d, d, squares);
  }
  return moments(row, dot(sum, vec4f(1.0)), dot(squares, vec4f(1.0)));
}
fn normed(a: stored4, of_row: vec2f, c: u32) -> factor4 {
  return factor4((to_f32(a) - of_row.x) * of_row.y * from_weight_2(gamma[c]) + from_weight_3(beta[c]));
}
#endif

#if CONV
// Where the taps of an output position begin.
struct Place {
  picture: u32,
  y: i32,
  x: i32,
}
fn place(row: u32) -> Place {
  let position = row % p.out_positions;
  return Place(
    row / p.out_positions,
    i32(position / p.out_w * p.stride) - i32(p.pad_top),
    i32(position % p.out_w * p.stride) - i32(p.pad_left));
}
// A tap's input position, and whether it is inside. Outside, the position is some other that can be read.
struct Tap {
  at: u32,
  inside: bool,
}
fn tap_of(start: Place, tap: u32) -> Tap {
  let y = start.y + i32(tap / p.kernel);
  let x = start.x + i32(tap % p.kernel);
  let inside = y >= 0 && x >= 0 && y < i32(p.bound_h) && x < i32(p.bound_w);
  let safe_y = u32(clamp(y, 0, i32(p.bound_h) - 1)) >> p.upsample;
  let safe_x = u32(clamp(x, 0, i32(p.bound_w) - 1)) >> p.upsample;
  return Tap((start.picture * p.in_h + safe_y) * p.in_w + safe_x - p.in_from, inside);
}
#endif

#if SUBGROUP
#if DIRECTIVES
enable subgroups;
#endif

@compute @workgroup_size(SUBGROUP * SX * SY)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let subgroup = thread / SUBGROUP;
  let m_first = p.m_base + (group.y * SY + subgroup / SX) * ROWS;
  let column = (group.x * SX + subgroup % SX) * SUBGROUP + lane;
#for i 4
  let n_$i = row_of(min(column * 4u + $iu, p.n - 1u));
#endfor
#for i SLOTS
  let row_$i = min(m_first + $iu * LANES + lane % LANES, p.m - 1u);
#if CONV
  let place_$i = place(row_$i);
#else
  let at_$i = row_$i - p.in_from;
#endif
#if LAYER_NORM
  let moments_$i = moments_of(at_$i);
#endif
#for j LANES
  var sum_$i_$j = vec4f(0.0);
#endfor
#endfor

  var k = 0u;
#if CONV
  for (var tap = 0u; tap < p.kernel * p.kernel; tap++) {
#for i SLOTS
    let tap_$i = tap_of(place_$i, tap);
    let at_$i = tap_$i.at;
#endfor
#endif
#for s SOURCES
    for (var c = 0u; c < p.c4_$s; c++) {
#for i SLOTS
#if LAYER_NORM
      var a_$i = normed(input_$s[at_$i * p.c4_$s + c], moments_$i, c);
#else
      var a_$i = to_factor(input_$s[at_$i * p.c4_$s + c]);
#endif
#if CONV
      a_$i = select(factor4(0.0), a_$i, tap_$i.inside);
#endif
#endfor
#for i 4
      let w_$i = load_w(n_$i, k);
#endfor
#for i SLOTS
#for j LANES
      sum_$i_$j = products(subgroupBroadcast(a_$i, $ju), w_0, w_1, w_2, w_3, sum_$i_$j);
#endfor
#endfor
      k++;
    }
#endfor
#if CONV
  }
#endif
#if SHORTCUT
#for s SHORTCUT
  for (var c = 0u; c < shortcut_c4($su); c++) {
#for i SLOTS
    let a_$i = load_shortcut($su, row_$i, c);
#endfor
#for i 4
    let w_$i = load_w(n_$i, k);
#endfor
#for i SLOTS
#for j LANES
    sum_$i_$j = products(subgroupBroadcast(a_$i, $ju), w_0, w_1, w_2, w_3, sum_$i_$j);
#endfor
#endfor
    k++;
  }
#endfor
#endif

  let n4 = (p.n + 3u) / 4u;
  if column >= n4 {
    return;
  }
  let b = biases(column);
  var fits = true;
#for i SLOTS
#for j LANES
  if m_first + $iu * LANES + $ju < p.m {
    let row = m_first + $iu * LANES + $ju;
    let v = finish(row, column, n4, sum_$i_$j + b);
    fits = fits && all(abs(v) < vec4f(65504.0));
    out[(row - p.out_from) * n4 + column] = to_out(v);
  }
#endfor
#endfor
#if WATCH
  // NaN compares false, so it is told as well.
  if !fits {
    atomicStore(&overflow[0], 1u);
  }
#endif
}

#else

const THREADS = WX * WY;
const BM = WY * TM;
#if SPLIT
const BN4 = 1u;
var<workgroup> sums: array<vec4f, TM * WX>;
#else
const BN4 = WX * TN;
var<workgroup> tile_a: array<factor4, BK4 * BM>;
var<workgroup> tile_w: array<factor4, BK4 * BN4 * 4u>;
#endif
#if LAYER_NORM
var<workgroup> row_sums: array<vec2f, BM * WX>;
var<workgroup> row_moments: array<vec2f, BM>;
#endif

fn load_a(at: u32, c: u32) -> factor4 {
#if SECOND
  if c >= p.c4_0 {
    return to_factor(input_1[at * p.c4_1 + c - p.c4_0]);
  }
#endif
  return to_factor(input_0[at * p.c4_0 + c]);
}

@compute @workgroup_size(WX, WY)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let x = thread % WX;
  let y = thread / WX;
  let m0 = p.m_base + group.y * BM;
  let n0 = group.x * BN4 * 4u;

  // Each thread fills the same column of k in the tiles for every slice: rows load_m, load_m + THREADS / BK4, ...
  let load_k = thread % BK4;
  let load_m = thread / BK4;
#for i A_LOADS
  let row_$i = min(m0 + load_m + $iu * (THREADS / BK4), p.m - 1u);
#if CONV
  let place_$i = place(row_$i);
#endif
#endfor
#for i TM
#for j TN
  var sum_$i_$j = vec4f(0.0);
#endfor
#endfor
#if LAYER_NORM
  // WX neighbours share a row, so that they read neighbouring vectors, and a thread has TM rows under way at once.
#for i TM
  let normed_$i = min(m0 + $iu * WY + y, p.m - 1u);
  let pivot_$i = pivot_of(normed_$i);
  var differences_$i = vec4f(0.0);
  var squares_$i = vec4f(0.0);
#endfor
  for (var c = x; c < p.c4_0; c += WX) {
#for i TM
    let d_$i = to_f32(input_0[normed_$i * p.c4_0 + c]) - pivot_$i;
    differences_$i += d_$i;
    squares_$i = fma(d_$i, d_$i, squares_$i);
#endfor
  }
#for i TM
  row_sums[($iu * WY + y) * WX + x] = vec2f(dot(differences_$i, vec4f(1.0)), dot(squares_$i, vec4f(1.0)));
#endfor
  workgroupBarrier();
  for (var i = thread; i < BM; i += THREADS) {
    var all = vec2f(0.0);
    for (var part = 0u; part < WX; part++) {
      all += row_sums[i * WX + part];
    }
    row_moments[i] = moments(min(m0 + i, p.m - 1u), all.x, all.y);
  }
  workgroupBarrier();
#endif

#if SHORTCUT
  let all_k4 = p.k4 + p.c4_2 + p.c4_3;
#else
  let all_k4 = p.k4;
#endif
  for (var k0 = 0u; k0 < all_k4; k0 += BK4) {
    let k = k0 + load_k;
    let in_range = k < p.k4;
#if CONV
    let tap = min(k, p.k4 - 1u) / p.c4;
    let c = min(k, p.k4 - 1u) % p.c4;
#endif
#for i A_LOADS
    var a_$i = factor4(0.0);
#if CONV
    let tap_$i = tap_of(place_$i, tap);
    if in_range && tap_$i.inside {
      a_$i = load_a(tap_$i.at, c);
    }
#if SHORTCUT
    if k >= p.k4 && k < all_k4 {
      let second = k - p.k4 >= p.c4_2;
      a_$i = load_shortcut(u32(second), row_$i, select(k - p.k4, k - p.k4 - p.c4_2, second));
    }
#endif
#else
    if in_range {
#if LAYER_NORM
      a_$i = normed(input_0[row_$i * p.c4_0 + k], row_moments[load_m + $iu * (THREADS / BK4)], k);
#else
      a_$i = load_a(row_$i - p.in_from, k);
#endif
    }
#endif
#if !SPLIT
    tile_a[load_k * BM + load_m + $iu * (THREADS / BK4)] = a_$i;
#endif
#endfor
#for i W_LOADS
    let n_$i = load_m + $iu * (THREADS / BK4);
    var w_$i = factor4(0.0);
    if k < all_k4 {
      w_$i = load_w(row_of(min(n0 + n_$i, p.n - 1u)), k);
    }
#if !SPLIT
    // Channel n lies at (n % 4) * BN4 + n / 4, so that neighbouring threads read neighbouring vectors.
    tile_w[load_k * BN4 * 4u + n_$i % 4u * BN4 + n_$i / 4u] = w_$i;
#endif
#endfor
#if SPLIT
#for i TM
    sum_$i_0 = products(a_$i, w_0, w_1, w_2, w_3, sum_$i_0);
#endfor
  }

#for i TM
  sums[$iu * WX + thread] = sum_$i_0;
#endfor
  for (var others = WX / 2u; others > 0u; others /= 2u) {
    workgroupBarrier();
    if thread < others {
#for i TM
      sums[$iu * WX + thread] += sums[$iu * WX + thread + others];
#endfor
    }
  }
  workgroupBarrier();
  let row = m0 + thread;
  if thread >= TM || row >= p.m {
    return;
  }
  let n4 = (p.n + 3u) / 4u;
  let v = finish(row, group.x, n4, sums[thread * WX] + biases(group.x));
  let fits = all(abs(v) < vec4f(65504.0));
  out[(row - p.out_from) * n4 + group.x] = to_out(v);
#else
    workgroupBarrier();
    for (var kk = 0u; kk < BK4; kk++) {
#for j TN
#for i 4
      let w_$i_$j = tile_w[(kk * 4u + $iu) * BN4 + $ju * WX + x];
#endfor
#endfor
#for i TM
      let b_$i = tile_a[kk * BM + $iu * WY + y];
#for j TN
      sum_$i_$j = products(b_$i, w_0_$j, w_1_$j, w_2_$j, w_3_$j, sum_$i_$j);
#endfor
#endfor
    }
    workgroupBarrier();
  }

  let n4 = (p.n + 3u) / 4u;
  var fits = true;
#for j TN
  let column_$j = group.x * BN4 + $ju * WX + x;
  if column_$j < n4 {
    let b = biases(column_$j);
#for i TM
    if m0 + $iu * WY + y < p.m {
      let row = m0 + $iu * WY + y;
      let v = finish(row, column_$j, n4, sum_$i_$j + b);
      fits = fits && all(abs(v) < vec4f(65504.0));
      out[(row - p.out_from) * n4 + column_$j] = to_out(v);
    }
#endfor
  }
#endfor
#endif
#if WATCH
  // NaN compares false, so it is told as well.
  if !fits {
    atomicStore(&overflow[0], 1u);
  }
#endif
}
#endif
