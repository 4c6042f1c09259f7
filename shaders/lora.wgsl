// A weight [rows][taps][c4] with one LoRA more:
//
//   plain: current + scale * change
//   DoRA:  current + magnitude / |base + scale * change| * (base + scale * change) - base
//
// where |...| is the length of the row, or of the column: all weights of an input channel.
// change: PRODUCT sum_r up[o, r] down[r, i, t]; HADAMARD two of these, multiplied;
// KRONECKER w1[o / o2, i / i2] w2[o % o2, i % i2, t]; FULL up[o, i, t]; TURNED up - base, where up lies as the weight
// does; THROUGH sum_r up[o, t, r] down[r, i].
// Bindings: base (lora_base.wgsl), current (f32; the first LoRA's is base), up or
// w1, down or w2 (those of the second product behind those of the first), magnitudes (of columns: what NORMS made of
// them), output (f32, or f16 after the last LoRA), and after the last LoRA the words that tell of overflow. What is not
// there is bound to something else.
// Parameters: row4: vectors of a row, taps * c4; mode: 0 to 5 in the order above; rank: with KRONECKER columns of w1;
// axis: 0 without DoRA, 1 rows, 2 columns; place: of the word that is set where f16 does not hold a result.
// Tiling: a row a workgroup of 64 threads, each every 64th vector of it; DoRA goes over the row twice. With NORMS: four
// columns a workgroup, and magnitude / length of each comes out.
@group(0) @binding($binding) var<storage, read> current: array<vec4f>;
@group(0) @binding($binding) var<storage, read> up: array<f32>;
@group(0) @binding($binding) var<storage, read> down: array<f32>;
@group(0) @binding($binding) var<storage, read> magnitude: array<f32>;
#if NORMS
@group(0) @binding($binding) var<storage, read_write> out: array<f32>;
#else
#if LAST
@group(0) @binding($binding) var<storage, read_write> out: array<half4>;
fn to_out(v: vec4f) -> half4 { return to_half(v); }
@group(0) @binding($binding) var<storage, read_write> overflow: array<atomic<u32>>;
#else
@group(0) @binding($binding) var<storage, read_write> out: array<vec4f>;
fn to_out(v: vec4f) -> vec4f { return v; }
#endif
#endif

fn change(o: u32, i: u32, t: u32) -> f32 {
  if p.mode == 2u {
    return up[o / p.o2 * p.rank + i / p.i2] * down[(o % p.o2 * p.i2 + i % p.i2) * p.taps + t];
  }
  if p.mode == 3u {
    return up[(o * p.inner + i) * p.taps + t];
  }
  if p.mode == 4u {
    let k = t * p.c4 + i / 4u;
    return up[(o * p.row4 + k) * 4u + i % 4u] - base_at(o, k)[i % 4u];
  }
  var sum = 0.0;
  if p.mode == 5u {
    for (var r = 0u; r < p.rank; r++) {
      sum += up[(o * p.taps + t) * p.rank + r] * down[r * p.inner + i];
    }
    return sum;
  }
  for (var r = 0u; r < p.rank; r++) {
    sum += up[o * p.rank + r] * down[(r * p.inner + i) * p.taps + t];
  }
  if p.mode == 1u {
    var second = 0.0;
    for (var r = 0u; r < p.rank_2; r++) {
      second += up[p.rows * p.rank + o * p.rank_2 + r] * down[((p.rank + r) * p.inner + i) * p.taps + t];
    }
    sum *= second;
  }
  return sum;
}

// base + scale * change; lanes past the last channel stay 0.
fn changed(o: u32, k: u32) -> vec4f {
  var v = vec4f(0.0);
  for (var lane = 0u; lane < 4u; lane++) {
    let i = k % p.c4 * 4u + lane;
    if i < p.inner {
      v[lane] = p.scale * change(o, i, k / p.c4);
    }
  }
  return base_at(o, k) + v;
}

#if NORMS
var<workgroup> squares: array<vec4f, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  var sum = vec4f(0.0);
  for (var at = thread; at < p.rows * p.taps; at += 64u) {
    let v = changed(at / p.taps, at % p.taps * p.c4 + group.x);
    sum += v * v;
  }
  squares[thread] = sum;
  workgroupBarrier();
  if thread < 4u {
    var square = 0.0;
    for (var i = 0u; i < 64u; i++) {
      square += squares[i][thread];
    }
    let i = group.x * 4u + thread;
    var factor = 0.0;
    if i < p.inner && square > 0.0 {
      factor = magnitude[i] / sqrt(square);
    }
    out[i] = factor;
  }
}
#else
var<workgroup> squares: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let o = group.x;
  var factor = vec4f(1.0);
  if p.axis == 1u {
    var sum = 0.0;
    for (var k = thread; k < p.row4; k += 64u) {
      let v = changed(o, k);
      sum += dot(v, v);
    }
    squares[thread] = sum;
    workgroupBarrier();
    var square = 0.0;
    for (var i = 0u; i < 64u; i++) {
      square += squares[i];
    }
    // Nothing is not stretched.
    factor = vec4f(select(0.0, magnitude[o] / sqrt(square), square > 0.0));
  }
  var fits = true;
  for (var k = thread; k < p.row4; k += 64u) {
    let at = o * p.row4 + k;
    if p.axis == 2u {
      let i = k % p.c4 * 4u;
      factor = vec4f(magnitude[i], magnitude[i + 1u], magnitude[i + 2u], magnitude[i + 3u]);
    }
    var v = factor * changed(o, k);
    if p.is_first == 0u {
      v += current[at] - base_at(o, k);
    }
    out[at] = to_out(v);
    // NaN compares false.
    fits = fits && all(abs(v) <= vec4f(65504.0));
  }
#if LAST
  if !fits {
    atomicStore(&overflow[p.place], 1u);
  }
#endif
}
#endif
