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
// Bindings: input, second input, weights, bias, channel_add and residual (LAYER_NORM: gamma and beta; SHORTCUT: its
// inputs), output, and with WATCH (f16 output) a word that is set where a value does not fit. What an op lacks is bound
// to something else and never read, so that one pipeline serves every op of a tile: compiling is what a first visit
// waits for.
//
// Parameters:
//   m, m_base               end and beginning of the positions that this dispatch makes; pictures follow one another
//   n, k4                   output channels; taps * c4
//   c4, c4_0, c4_1          vectors of input channels: of both inputs, of the first, of the second
//   c4_2, c4_3              the same of SHORTCUT's inputs
//   in_h, in_w              of the input as stored
//   out_w, out_positions    of the output; out_w times its height
//   stride, pad_top, pad_left
//   bound_h, bound_w        the input's size as the taps see it: as stored, or upsampled
//   kernel                  taps a side: 1 or 3
//   upsample                1 where the taps see every input position twice, each way
//   in_from, out_from       position of the picture that is the first in the input, and in the output
//   has_bias, bias_from     vectors of biases before the first
//   has_channel_add, add_stride, add_from
//                           vectors from picture to picture, and to the first of these channels; a channel_add as large
//                           as the sums, of a product, comes with out_positions 1
//   has_residual, activation, post, epsilon
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

// Vectors of k, a shortcut's included.
fn all_k4() -> u32 {
#if SHORTCUT
  return p.k4 + p.c4_2 + p.c4_3;
#else
  return p.k4;
#endif
}

// ---- W ----

// The row of the weights that makes output channel n.
fn row_of(n: u32) -> u32 {
#if GEGLU
  return n / 2u + n % 2u * (p.n / 2u);
#else
  return n;
#endif
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

// ---- A ----

// A tap's input position, and whether it is inside. Outside, the position is some other that can be read.
struct Tap {
  at: u32,
  inside: bool,
}

#if CONV
// An output position, and where its taps begin.
struct Place {
  row: u32,
  picture: u32,
  y: i32,
  x: i32,
}
fn place_of(row: u32) -> Place {
  let position = row % p.out_positions;
  return Place(
    row,
    row / p.out_positions,
    i32(position / p.out_w * p.stride) - i32(p.pad_top),
    i32(position % p.out_w * p.stride) - i32(p.pad_left));
}
fn taps() -> u32 { return p.kernel * p.kernel; }
fn tap_of(place: Place, tap: u32) -> Tap {
  let y = place.y + i32(tap / p.kernel);
  let x = place.x + i32(tap % p.kernel);
  let inside = y >= 0 && x >= 0 && y < i32(p.bound_h) && x < i32(p.bound_w);
  let safe_y = u32(clamp(y, 0, i32(p.bound_h) - 1)) >> p.upsample;
  let safe_x = u32(clamp(x, 0, i32(p.bound_w) - 1)) >> p.upsample;
  return Tap((place.picture * p.in_h + safe_y) * p.in_w + safe_x - p.in_from, inside);
}
#else
struct Place {
  row: u32,
}
fn place_of(row: u32) -> Place { return Place(row); }
fn taps() -> u32 { return 1u; }
fn tap_of(place: Place, tap: u32) -> Tap { return Tap(place.row - p.in_from, true); }
#endif

// Vector c of the channels of an input position.
fn load_input(at: u32, c: u32) -> factor4 {
#if SECOND
  if c >= p.c4_0 {
    return to_factor(input_1[at * p.c4_1 + c - p.c4_0]);
  }
#endif
  return to_factor(input_0[at * p.c4_0 + c]);
}

#if SHORTCUT
fn shortcut_c4(source: u32) -> u32 { return select(p.c4_2, p.c4_3, source == 1u); }
fn load_shortcut(source: u32, place: Place, c: u32) -> factor4 {
  if source == 1u {
    return to_factor(input_3[place.row * p.c4_3 + c]);
  }
  return to_factor(input_2[place.row * p.c4_2 + c]);
}
#endif

// Vector k of A's row; zero past the last.
fn load_a(place: Place, k: u32) -> factor4 {
  var a = factor4(0.0);
#if CONV
  let within = min(k, p.k4 - 1u);
  let tap = tap_of(place, within / p.c4);
  if k < p.k4 && tap.inside {
    a = load_input(tap.at, within % p.c4);
  }
#else
  if k < p.k4 {
    a = load_input(place.row - p.in_from, k);
  }
#endif
#if SHORTCUT
  if k >= p.k4 && k < all_k4() {
    let second = k - p.k4 >= p.c4_2;
    a = load_shortcut(u32(second), place, select(k - p.k4, k - p.k4 - p.c4_2, second));
  }
#endif
  return a;
}
