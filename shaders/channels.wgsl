// The first channels of one picture of a batch, as f32: x [n, positions, c4] -> out [positions, out_c4].
//
// Bindings: x, output. Parameters: size: vectors written; first: position of the picture's first in x.
// Tiling: one vector a thread, 256 threads a workgroup, workgroups in two dimensions.
#if F32
@group(0) @binding($binding) var<storage, read> x: array<vec4f>;
#else
@group(0) @binding($binding) var<storage, read> x: array<act4>;
#endif
@group(0) @binding($binding) var<storage, read_write> out: array<vec4f>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 256u + id.x;
  if i >= p.size {
    return;
  }
  let at = (p.first + i / p.out_c4) * p.c4 + i % p.out_c4;
#if F32
  out[i] = x[at];
#else
  out[i] = from_act(x[at]);
#endif
}
