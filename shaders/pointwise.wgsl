// Operations on one vector at a time, out [rows, c]:
//
//   ADD:        a + b                              bindings: a, b, output
//   AFFINE:     a * scale + shift                  bindings: a, output
//   ACTIVATION: activation of a                    bindings: a, output
// Parameters: size: vectors written.
// Tiling: one vector a thread, 256 threads a workgroup, workgroups in two dimensions.
@group(0) @binding($binding) var<storage, read> a: array<act4>;
#if ADD
@group(0) @binding($binding) var<storage, read> b: array<act4>;
#endif
@group(0) @binding($binding) var<storage, read_write> out: array<act4>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 256u + id.x;
  if i >= p.size {
    return;
  }
#if ADD
  out[i] = to_act(from_act(a[i]) + from_act(b[i]));
#endif
#if AFFINE
  // Lanes past the last channel stay 0.
  let real = vec4u(i % p.c4 * 4u) + vec4u(0u, 1u, 2u, 3u) < vec4u(p.c);
  out[i] = to_act(select(vec4f(0.0), from_act(a[i]) * p.scale + p.shift, real));
#endif
#if ACTIVATION
  out[i] = to_act(activate(from_act(a[i]), ACTIVATION));
#endif
}
