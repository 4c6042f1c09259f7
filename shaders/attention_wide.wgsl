// Attention for wide heads (the VAE's single head of 512 channels), whose rows do not fit registers.
//
// As attention.wgsl: out = softmax(q k^T * scale) v for each head, no score matrix. Bindings: q, k, v, output.
// Parameters: as attention.wgsl's.
// Tiling: 16 queries by 16 keys a step, 64 threads: thread (row, lane) computes four of its row's scores and
// owns every fourth vector of its row's output, CHUNKS * 4 of them. Channels pass through workgroup memory in
// chunks of 16 vectors.
@group(0) @binding($binding) var<storage, read> q: array<act4>;
@group(0) @binding($binding) var<storage, read> k: array<act4>;
@group(0) @binding($binding) var<storage, read> v: array<act4>;
@group(0) @binding($binding) var<storage, read_write> out: array<act4>;

const NEGATIVE = -3.0e38;

var<workgroup> tile_q: array<vec4f, 256>;
var<workgroup> tile_kv: array<vec4f, 256>;
var<workgroup> scores: array<vec4f, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let r = thread / 4u;
  let lane = thread % 4u;
  let q0 = p.first_row + group.x * 16u;
  let head_at = group.y * D4;
  let q_at = group.z * p.length_q;
  let k_at = group.z * p.length_k;
  // Vector 4 i + lane of chunk c at [4 c + i].
  var o: array<vec4f, CHUNKS * 4>;
  var top = NEGATIVE;
  var total = 0.0;
  for (var k0 = 0u; k0 < p.length_k; k0 += 16u) {
    var s = vec4f(0.0);
    for (var c = 0u; c < CHUNKS; c++) {
      for (var i = thread; i < 256u; i += 64u) {
        let d = c * 16u + i % 16u;
        let row = q0 + i / 16u;
        let key = k0 + i / 16u;
        var q4 = vec4f(0.0);
        var k4 = vec4f(0.0);
        if d < D4 && row < p.length_q {
          q4 = from_act(q[(q_at + row) * p.q_stride + p.q_from + head_at + d]);
        }
        if d < D4 && key < p.length_k {
          k4 = from_act(k[(k_at + key) * p.k_stride + p.k_from + head_at + d]);
        }
        tile_q[i] = q4;
        tile_kv[i] = k4;
      }
      workgroupBarrier();
      for (var d = 0u; d < 16u; d++) {
        let q4 = tile_q[r * 16u + d];
        s += vec4f(
          dot(q4, tile_kv[lane * 64u + d]), dot(q4, tile_kv[lane * 64u + 16u + d]),
          dot(q4, tile_kv[lane * 64u + 32u + d]), dot(q4, tile_kv[lane * 64u + 48u + d]));
      }
      workgroupBarrier();
    }
    let key = vec4u(k0 + lane * 4u) + vec4u(0u, 1u, 2u, 3u);
    let seen = key < vec4u(select(p.length_k, min(p.length_k, q0 + r + 1u), p.causal != 0u));
    s = select(vec4f(NEGATIVE), s * p.scale, seen);
    scores[thread] = s;
    workgroupBarrier();
    let s0 = scores[r * 4u];
    let s1 = scores[r * 4u + 1u];
    let s2 = scores[r * 4u + 2u];
    let s3 = scores[r * 4u + 3u];
    let high = max(max(s0, s1), max(s2, s3));
    let new_top = max(top, max(max(high.x, high.y), max(high.z, high.w)));
    let keep = exp(top - new_top);
    // A score left out is NEGATIVE, and the first key of a step is always seen or `top` already set: exp gives 0.
    let w0 = exp(s0 - new_top);
    let w1 = exp(s1 - new_top);
    let w2 = exp(s2 - new_top);
    let w3 = exp(s3 - new_top);
    let w = w0 + w1 + w2 + w3;
    total = total * keep + w.x + w.y + w.z + w.w;
    top = new_top;
    for (var c = 0u; c < CHUNKS; c++) {
      for (var i = thread; i < 256u; i += 64u) {
        let d = c * 16u + i % 16u;
        let key = k0 + i / 16u;
        var v4 = vec4f(0.0);
        if d < D4 && key < p.length_k {
          v4 = from_act(v[(k_at + key) * p.v_stride + p.v_from + head_at + d]);
        }
        tile_kv[i] = v4;
      }
      workgroupBarrier();
#for i FOUR
      {
        let d = $iu * 4u + lane;
        o[c * 4u + $iu] = o[c * 4u + $iu] * keep
          + w0.x * tile_kv[d] + w0.y * tile_kv[16u + d] + w0.z * tile_kv[32u + d] + w0.w * tile_kv[48u + d]
          + w1.x * tile_kv[64u + d] + w1.y * tile_kv[80u + d] + w1.z * tile_kv[96u + d] + w1.w * tile_kv[112u + d]
          + w2.x * tile_kv[128u + d] + w2.y * tile_kv[144u + d] + w2.z * tile_kv[160u + d] + w2.w * tile_kv[176u + d]
          + w3.x * tile_kv[192u + d] + w3.y * tile_kv[208u + d] + w3.z * tile_kv[224u + d] + w3.w * tile_kv[240u + d];
      }
#endfor
      workgroupBarrier();
    }
  }
  if q0 + r < p.length_q {
    let at = (q_at + q0 + r) * p.heads * D4 + head_at;
    for (var i = 0u; i < CHUNKS * 4u; i++) {
      if i * 4u + lane < D4 {
        out[at + i * 4u + lane] = to_act(o[i] / total);
      }
    }
  }
}
