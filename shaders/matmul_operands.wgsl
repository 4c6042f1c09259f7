// What matmul.wgsl multiplies: its bindings, A gathered and W made whole.
//
// m runs over positions of the output, n over its channels, k over (tap, input channel), four at a time. A[m, (tap,
// c)] is the input at the tap's place, zero outside; with `upsample` the input is first doubled by nearest neighbour.
// A second input (SECOND) follows the first on the channel axis. W lies as [n][tap][c], channels padded to four; with
// QUANTISED each row in blocks of 32 weights of 8 or, with Q4, 4 bits (src/checkpoint/quantise.rs). With GEGLU value
// and gate take turns as n, so that one thread has both. With SHORTCUT a 1x1 convolution of one or two more inputs,
// with its own weights and bias behind the others', is added (a residual block's way past its convolutions): k goes
// on over their channels.
//
// The channels of one input at one tap are a *run* of k, and so is each of a shortcut's inputs: where taps lie, and from
// which buffer values come, is asked once a run and not for every vector.
//
// Bindings: inputs (second of SECOND, or first of SHORTCUT), weights, bias, channel_add and residual (LAYER_NORM: gamma
// and beta; SHORTCUT: its second input), output, and with WATCH (f16 output) a word that is set where a value does not
// fit. What an op lacks is bound to something else and never read, so that one pipeline serves every op of a tile:
// compiling is what a first visit waits for.
//
// Parameters:
//   m, m_base               end and beginning of the positions that this dispatch makes; pictures follow one another
//   n, k4                   output channels; taps * c4
//   c4, c4_0, c4_1, c4_2    vectors of channels: of the taps' inputs together, and of every input as it is bound
//   in_h, in_w              of the input as stored
//   out_w, out_positions    of the output; out_w times its height
//   stride, pad_top, pad_left
//   bound_h, bound_w        the input's size as the taps see it: as stored, or upsampled
//   upsample                1 where the taps see every input position twice, each way
//   in_from, out_from       position of the picture that is the first in the input, and in the output
//   has_bias, bias_from     vectors of biases before the first
//   has_channel_add, add_stride, add_from
//                           vectors from picture to picture, and to the first of these channels; a channel_add as large
//                           as the sums, of a product, comes with out_positions 1
//   has_residual, activation, post, epsilon
//   blocks_w, blocks        of a row and of a picture (winograd.wgsl alone)
#if F16_ARITHMETIC
alias factor4 = vec4<f16>;
alias stored4 = vec4<f16>;
fn to_factor(v: stored4) -> factor4 { return v; }
fn to_f32(v: stored4) -> vec4f { return vec4f(v); }
// So many factors make one row of all banks of workgroup memory.
const ROW_OF_BANKS = 16u;
#else
alias factor4 = vec4f;
alias stored4 = act4;
fn to_factor(v: stored4) -> factor4 { return from_act(v); }
fn to_f32(v: stored4) -> vec4f { return from_act(v); }
const ROW_OF_BANKS = 8u;
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

#if !F16_ARITHMETIC
// Four products of each of four channels, w by channel, added to their sums.
fn product(a: vec4f, w: vec4f, sum: f32) -> f32 {
  return fma(a.w, w.w, fma(a.z, w.z, fma(a.y, w.y, fma(a.x, w.x, sum))));
}
fn products(a: vec4f, w_0: vec4f, w_1: vec4f, w_2: vec4f, w_3: vec4f, sum: vec4f) -> vec4f {
  return vec4f(product(a, w_0, sum.x), product(a, w_1, sum.y), product(a, w_2, sum.z), product(a, w_3, sum.w));
}
#endif

// ---- k ----

const TAPS = KERNEL * KERNEL;
#if SECOND
const RUNS = TAPS * 2u;
#else
const RUNS = TAPS + SHORTCUT;
#endif

struct Run {
  // Which input, and its vectors.
  source: u32,
  c4: u32,
  tap: u32,
  // Its first k; where the run begins in the weights of row 0, and how far it is to the next row's.
  k: u32,
  weights: u32,
  stride: u32,
}

fn run_of(run: u32) -> Run {
#if SHORTCUT
  if run >= TAPS {
    let second = run > TAPS;
    let before = select(0u, p.c4_1, second);
    return Run(
      1u + u32(second), select(p.c4_1, p.c4_2, second), 0u, p.k4 + before, p.n * p.k4 + before, p.c4_1 + p.c4_2);
  }
#endif
#if SECOND
  let second = run % 2u == 1u;
  let k = run / 2u * p.c4 + select(0u, p.c4_0, second);
  return Run(u32(second), select(p.c4_0, p.c4_1, second), run / 2u, k, k, p.k4);
#else
  return Run(0u, p.c4_0, run, run * p.c4_0, run * p.c4_0, p.k4);
#endif
}

// The run that k is in.
fn run_at(k: u32) -> u32 {
#if SHORTCUT
  if k >= p.k4 {
    return TAPS + u32(k - p.k4 >= p.c4_1);
  }
#endif
#if SECOND
  return k / p.c4 * 2u + u32(k % p.c4 >= p.c4_0);
#else
  return k / p.c4_0;
#endif
}

// Vectors of k, a shortcut's included.
fn all_k4() -> u32 {
#if SHORTCUT
  return p.k4 + p.c4_1 + p.c4_2;
#else
  return p.k4;
#endif
}

// ---- W ----

// The row of the weights that makes output channel n; past the last channel, the last's.
fn row_of(channel: u32) -> u32 {
  let n = min(channel, p.n - 1u);
#if GEGLU
  return n / 2u + n % 2u * (p.n / 2u);
#else
  return n;
#endif
}

// Four weights as they lie: vector c of a run, in a row. Reading is apart from unpacking, so that all that a thread
// needs can be asked for before any of it is waited for.
#if QUANTISED
struct Packed {
  word: u32,
  ends: u32,
}
#if Q4
fn read_w(row: u32, run: Run, c: u32) -> Packed {
  let k = run.k + c;
  let block = (row * ((p.k4 + 7u) / 8u) + k / 8u) * 5u;
  return Packed(weights[block + k % 8u / 2u] >> (k % 2u * 16u), weights[block + 4u]);
}
fn to_weights(packed: Packed) -> factor4 {
  let q = (vec4u(packed.word) >> vec4u(0u, 4u, 8u, 12u)) & vec4u(15u);
  let ends = unpack2x16float(packed.ends) * vec2f(1.0 / 15.0, 1.0);
  return factor4(fma(vec4f(q), vec4f(ends.x), vec4f(ends.y)));
}
#else
fn read_w(row: u32, run: Run, c: u32) -> Packed {
  let k = run.k + c;
  let block = (row * ((p.k4 + 7u) / 8u) + k / 8u) * 9u;
  return Packed(weights[block + k % 8u], weights[block + 8u]);
}
fn to_weights(packed: Packed) -> factor4 {
  let q = (vec4u(packed.word) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u);
  let ends = unpack2x16float(packed.ends) * vec2f(1.0 / 255.0, 1.0);
  return factor4(fma(vec4f(q), vec4f(ends.x), vec4f(ends.y)));
}
#endif
#else
fn read_w(row: u32, run: Run, c: u32) -> weight { return weights[run.weights + row * run.stride + c]; }
#if F16_ARITHMETIC
fn to_weights(w: weight) -> factor4 { return w; }
#else
fn to_weights(w: weight) -> factor4 { return from_weight_0(w); }
#endif
#endif

// ---- A ----

#if CONV
fn in_picture(at: i32, bound: u32) -> bool { return at >= 0 && at < i32(bound); }

// Where an input's position is that a tap sees, or the nearest in the picture.
fn pixel(picture: u32, y: i32, x: i32) -> u32 {
  let safe_y = u32(clamp(y, 0, i32(p.bound_h) - 1)) >> p.upsample;
  let safe_x = u32(clamp(x, 0, i32(p.bound_w) - 1)) >> p.upsample;
  return (picture * p.in_h + safe_y) * p.in_w + safe_x - p.in_from;
}

// An output position: its row, and where its picture is and its taps begin.
struct Origin {
  row: u32,
  picture: u32,
  y: i32,
  x: i32,
}
fn origin_of(row: u32) -> Origin {
  let position = row % p.out_positions;
  return Origin(
    row,
    row / p.out_positions,
    i32(position / p.out_w * p.stride) - i32(p.pad_top),
    i32(position % p.out_w * p.stride) - i32(p.pad_left));
}
#else
struct Origin {
  row: u32,
}
fn origin_of(row: u32) -> Origin { return Origin(row); }
#endif

// Where a run of A's row begins in its input, and whether that is in the picture. Outside it is some other place that
// can be read, so that the read needs no branch.
struct Place {
  at: u32,
  inside: bool,
}
fn place_of(origin: Origin, run: Run) -> Place {
#if SHORTCUT
  if run.source > 0u {
    return Place(origin.row * run.c4, true);
  }
#endif
#if CONV
  let y = origin.y + i32(run.tap / KERNEL);
  let x = origin.x + i32(run.tap % KERNEL);
  let inside = in_picture(y, p.bound_h) && in_picture(x, p.bound_w);
  return Place(pixel(origin.picture, y, x) * run.c4, inside);
#else
  return Place((origin.row - p.in_from) * run.c4, true);
#endif
}

fn or_zero(a: stored4, inside: bool) -> factor4 { return to_factor(select(stored4(), a, inside)); }
