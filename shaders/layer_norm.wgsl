// Layer normalisation over the channels of each row: (x - mean) / sqrt(var + eps) * gamma + beta.
//
// Input and output [rows, C]. Bindings: input, gamma, beta, output.
// Tiling: one workgroup of 64 threads a row, in two passes over it (mean, then centred squares).
@group(0) @binding($binding) var<storage, read> input: array<act4>;
@group(0) @binding($binding) var<storage, read> gamma: array<weight4_0>;
@group(0) @binding($binding) var<storage, read> beta: array<weight4_1>;
@group(0) @binding($binding) var<storage, read_write> out: array<act4>;

var<workgroup> parts: array<f32, 64>;

fn total() -> f32 {
  var sum = 0.0;
  for (var i = 0u; i < 64u; i++) {
    sum += parts[i];
  }
  return sum;
}

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let c4 = (p.c + 3u) / 4u;
  // Rows past the last repeat it, so that every thread meets the barriers.
  let row = id.y * groups.x + id.x;
  let at = min(row, p.rows - 1u) * c4;
  var sum = vec4f(0.0);
  for (var c = thread; c < c4; c += 64u) {
    sum += from_act(input[at + c]);
  }
  parts[thread] = sum.x + sum.y + sum.z + sum.w;
  workgroupBarrier();
  let mean = total() / f32(p.c);
  workgroupBarrier();
  var square = vec4f(0.0);
  for (var c = thread; c < c4; c += 64u) {
    let real = vec4u(c * 4u) + vec4u(0u, 1u, 2u, 3u) < vec4u(p.c);
    let d = select(vec4f(0.0), from_act(input[at + c]) - mean, real);
    square += d * d;
  }
  parts[thread] = square.x + square.y + square.z + square.w;
  workgroupBarrier();
  let scale = inverseSqrt(total() / f32(p.c) + p.epsilon);
  if row < p.rows {
    for (var c = thread; c < c4; c += 64u) {
      out[at + c] = to_act((from_act(input[at + c]) - mean) * scale * from_weight_0(gamma[c]) + from_weight_1(beta[c]));
    }
  }
}
