// Group normalisation with affine weights, and SiLU: y = act((x - mean) / sqrt(var + eps) * gamma + beta).
//
// Input [n, positions, C], possibly of two tensors in a row; stats as group_norm_stats.wgsl leaves them.
// Bindings: input, second input (or the first again), stats, gamma, beta, output.
// Parameters: all_positions: of the picture, of which the input may be some.
// Tiling: 256 threads, SPAN vectors each; the workgroup first merges the slices' statistics of its picture,
// one group a thread. Pictures along y; more workgroups than x takes go on along z.
@group(0) @binding($binding) var<storage, read> first: array<act4>;
@group(0) @binding($binding) var<storage, read> second: array<act4>;
@group(0) @binding($binding) var<storage, read> stats: array<vec2f>;
@group(0) @binding($binding) var<storage, read> gamma: array<weight4_0>;
@group(0) @binding($binding) var<storage, read> beta: array<weight4_1>;
@group(0) @binding($binding) var<storage, read_write> out: array<act4>;

var<workgroup> means: array<f32, 256>;
var<workgroup> scales: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let channels_a_group = p.c / p.groups;
  for (var g = thread; g < p.groups; g += 256u) {
    var count = 0.0;
    var mean = 0.0;
    var m2 = 0.0;
    for (var s = 0u; s < p.slices; s++) {
      let part = stats[(id.y * p.slices + s) * p.groups + g];
      let n = f32((min((s + 1u) * p.per_slice, p.all_positions) - s * p.per_slice) * channels_a_group);
      let delta = part.x - mean;
      let all = count + n;
      mean += delta * n / all;
      m2 += part.y + delta * delta * count * n / all;
      count = all;
    }
    means[g] = mean;
    scales[g] = inverseSqrt(m2 / count + p.epsilon);
  }
  workgroupBarrier();
  let size = p.positions * p.c4;
  for (var i = 0u; i < SPAN; i++) {
    let at = ((id.z * groups.x + id.x) * SPAN + i) * 256u + thread;
    if at < size {
      let position = id.y * p.positions + at / p.c4;
      let c = at % p.c4;
      var v: vec4f;
      if c >= p.c4_first {
        v = from_act(second[position * (p.c4 - p.c4_first) + c - p.c4_first]);
      } else {
        v = from_act(first[position * p.c4_first + c]);
      }
      // Lanes past the last channel are padding: gamma and beta are 0 there, whatever group is read.
      let g = min((vec4u(c * 4u) + vec4u(0u, 1u, 2u, 3u)) / channels_a_group, vec4u(p.groups - 1u));
      let mean = vec4f(means[g.x], means[g.y], means[g.z], means[g.w]);
      let scale = vec4f(scales[g.x], scales[g.y], scales[g.z], scales[g.w]);
      let y = (v - mean) * scale * from_weight_0(gamma[c]) + from_weight_1(beta[c]);
      out[position * p.c4 + c] = to_act(activate(y, p.activation));
    }
  }
}
