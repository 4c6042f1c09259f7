// The weight that a LoRA changes, [rows][row4] vectors: f16, with QUANTISED in blocks as in matmul.wgsl, with F32_BASE f32.
#if QUANTISED
@group(0) @binding($binding) var<storage, read> base: array<u32>;
#else
#if F32_BASE
@group(0) @binding($binding) var<storage, read> base: array<vec4f>;
#else
@group(0) @binding($binding) var<storage, read> base: array<half4>;
#endif
#endif

// Four weights of row o from vector k on.
fn base_at(o: u32, k: u32) -> vec4f {
#if QUANTISED
#if Q4
  let block = (o * ((p.row4 + 7u) / 8u) + k / 8u) * 5u;
  let q = (vec4u(base[block + k % 8u / 2u]) >> (vec4u(0u, 4u, 8u, 12u) + k % 2u * 16u)) & vec4u(15u);
  let ends = unpack2x16float(base[block + 4u]);
  return ends.y + ends.x / 15.0 * vec4f(q);
#else
  let block = (o * ((p.row4 + 7u) / 8u) + k / 8u) * 9u;
  let q = (vec4u(base[block + k % 8u]) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u);
  let ends = unpack2x16float(base[block + 8u]);
  return ends.y + ends.x / 255.0 * vec4f(q);
#endif
#else
#if F32_BASE
  return base[o * p.row4 + k];
#else
  return from_half(base[o * p.row4 + k]);
#endif
#endif
}
