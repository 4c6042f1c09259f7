// Adds x times one number to pictures, in place: out[offset + i] += scales[at] * x[i].
//
// Bindings: x, scales (f32), output.
// Parameters: size: vectors changed; picture: vectors of a picture of out; offset: of the first vector changed;
// everywhere: 1 where x has one vector of channels a picture.
// Tiling: one vector a thread, 256 threads a workgroup, workgroups in two dimensions.
@group(0) @binding($binding) var<storage, read> x: array<act4>;
@group(0) @binding($binding) var<storage, read> scales: array<f32>;
@group(0) @binding($binding) var<storage, read_write> out: array<act4>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 256u + id.x;
  if i >= p.size {
    return;
  }
  let source = select(i, i / p.picture * p.c4 + i % p.c4, p.everywhere != 0u);
  let at = p.offset + i;
  out[at] = to_act(from_act(out[at]) + scales[p.at] * from_act(x[source]));
}
