// Adds a tensor times one number: out[i] = x[i] + scales[at] * more[i].
//
// Bindings: x, more, scales (f32), output.
// Parameters: size: vectors; at.
// Tiling: one vector a thread, 256 threads a workgroup, workgroups in two dimensions.
@group(0) @binding($binding) var<storage, read> x: array<act4>;
@group(0) @binding($binding) var<storage, read> more: array<act4>;
@group(0) @binding($binding) var<storage, read> scales: array<f32>;
@group(0) @binding($binding) var<storage, read_write> out: array<act4>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 256u + id.x;
  if i >= p.size {
    return;
  }
  out[i] = to_act(from_act(x[i]) + scales[p.at] * from_act(more[i]));
}
