// Group normalisation with affine weights, and SiLU, of pictures that few workgroups can hold:
// y = act((x - mean) / sqrt(var + eps) * gamma + beta).
//
// Input [n, positions, C], possibly of two tensors in a row (SECOND).
// Bindings: input, second input (or the first again), gamma, beta, output.
// Parameters: per_group: channels; vectors: of a bundle; lanes: 256 / vectors.
// Tiling: a workgroup of 256 threads a picture and bundle: as many groups of channels as fill whole vectors,
// p.vectors of them. A thread keeps to one vector of the bundle and goes over every p.lanes-th position: once for the
// moments, which the workgroup then adds up in log2(lanes) steps, and once to normalise. Differences from a group's
// first value are summed, so that a mean far from zero costs no digits of the variance.
@group(0) @binding($binding) var<storage, read> input_0: array<act4>;
@group(0) @binding($binding) var<storage, read> input_1: array<act4>;
@group(0) @binding($binding) var<storage, read> gamma: array<weight4_0>;
@group(0) @binding($binding) var<storage, read> beta: array<weight4_1>;
@group(0) @binding($binding) var<storage, read_write> out: array<act4>;

var<workgroup> sums: array<vec4f, 256>;
var<workgroup> squares: array<vec4f, 256>;
// Of each group of the bundle: its mean, and the inverse of its standard deviation.
var<workgroup> moments: array<vec2f, 4>;

fn load(position: u32, c: u32) -> vec4f {
#if SECOND
  if c >= p.c4_0 {
    return from_act(input_1[position * p.c4_1 + c - p.c4_0]);
  }
#endif
  return from_act(input_0[position * p.c4_0 + c]);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) thread: u32) {
  let start = id.y * p.positions;
  let first_c = id.x * p.vectors;
  let c = first_c + thread % p.vectors;
  let lane = thread / p.vectors;
  let end = select(0u, p.positions, lane < p.lanes);
  // The group of each channel of this thread's vector, counted in the bundle, and that group's first value.
  let group = (vec4u(thread % p.vectors * 4u) + vec4u(0u, 1u, 2u, 3u)) / p.per_group;
  let lead = group * p.per_group;
  let pivot = vec4f(
    load(start, first_c + lead.x / 4u)[lead.x % 4u], load(start, first_c + lead.y / 4u)[lead.y % 4u],
    load(start, first_c + lead.z / 4u)[lead.z % 4u], load(start, first_c + lead.w / 4u)[lead.w % 4u]);

  var sum = vec4f(0.0);
  var square = vec4f(0.0);
  for (var i = lane; i < end; i += p.lanes) {
    let d = load(start + i, c) - pivot;
    sum += d;
    square = fma(d, d, square);
  }
  sums[thread] = sum;
  squares[thread] = square;
  workgroupBarrier();
  for (var n = p.lanes; n > 1u; n = (n + 1u) / 2u) {
    let half_n = (n + 1u) / 2u;
    if lane + half_n < n {
      sums[thread] += sums[thread + half_n * p.vectors];
      squares[thread] += squares[thread + half_n * p.vectors];
    }
    workgroupBarrier();
  }
  if thread < p.vectors * 4u / p.per_group {
    let from_channel = thread * p.per_group;
    var all = 0.0;
    var all_squares = 0.0;
    for (var channel = from_channel; channel < from_channel + p.per_group; channel++) {
      all += sums[channel / 4u][channel % 4u];
      all_squares += squares[channel / 4u][channel % 4u];
    }
    let scale = 1.0 / f32(p.positions * p.per_group);
    let mean = all * scale;
    let variance = max(all_squares * scale - mean * mean, 0.0);
    let value = load(start, first_c + from_channel / 4u)[from_channel % 4u];
    moments[thread] = vec2f(value + mean, inverseSqrt(variance + p.epsilon));
  }
  workgroupBarrier();

  let mean = vec4f(moments[group.x].x, moments[group.y].x, moments[group.z].x, moments[group.w].x);
  let scale = vec4f(moments[group.x].y, moments[group.y].y, moments[group.z].y, moments[group.w].y)
    * from_weight_0(gamma[c]);
  let shift = from_weight_1(beta[c]);
  for (var i = lane; i < end; i += p.lanes) {
    let v = (load(start + i, c) - mean) * scale + shift;
#if WITH_SILU
    out[(start + i) * p.c4 + c] = to_act(v * sigmoid4(v));
#else
    out[(start + i) * p.c4 + c] = to_act(v);
#endif
  }
}
