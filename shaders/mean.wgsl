// The mean over all positions of a picture: x [n, positions, c] -> out [n, c]; the sum is f32.
//
// Bindings: x, output.
// Tiling: a vector of channels of a picture a workgroup, 64 threads over the positions.
@group(0) @binding($binding) var<storage, read> x: array<act4>;
@group(0) @binding($binding) var<storage, read_write> out: array<act4>;

var<workgroup> sums: array<vec4f, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  var sum = vec4f(0.0);
  for (var i = thread; i < p.positions; i += 64u) {
    sum += from_act(x[(group.y * p.positions + i) * p.c4 + group.x]);
  }
  sums[thread] = sum;
  workgroupBarrier();
  if thread == 0u {
    for (var i = 1u; i < 64u; i++) {
      sum += sums[i];
    }
    out[group.y * p.c4 + group.x] = to_act(sum / f32(p.positions));
  }
}
