// Attention without the score matrix (Dao et al. 2022): out = softmax(q k^T * scale) v, for each head.
//
// q [n, length_q, heads * D4], k and v [n, length_k, heads * D4], each among other channels of its rows;
// out [n, length_q, heads * D4]; vectors of four channels.
// Bindings: q, k, v, output.
// Parameters: q_stride, q_from (and so for k and v): vectors from row to row, and from a row's start to the first
// head, since they may lie in one tensor; first_row: of this dispatch; causal: 0 or 1.
// Tiling: one query row a thread, its q and its output in registers; KEYS keys and values at a time in
// workgroup memory, read by all threads alike. The running maximum is renewed every four keys. With `causal`,
// keys after the query are left out (CLIP).
@group(0) @binding($binding) var<storage, read> q: array<act4>;
@group(0) @binding($binding) var<storage, read> k: array<act4>;
@group(0) @binding($binding) var<storage, read> v: array<act4>;
@group(0) @binding($binding) var<storage, read_write> out: array<act4>;

const NEGATIVE = -3.0e38;

var<workgroup> tile_k: array<vec4f, KEYS * D4>;
var<workgroup> tile_v: array<vec4f, KEYS * D4>;

@compute @workgroup_size(ROWS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = p.first_row + group.x * ROWS + thread;
  let head = group.y;
  let picture = group.z;
  let q_row = picture * p.length_q + min(row, p.length_q - 1u);
  let q_at = q_row * p.q_stride + p.q_from + head * D4;
  let k_at = picture * p.length_k * p.k_stride + p.k_from + head * D4;
  let v_at = picture * p.length_k * p.v_stride + p.v_from + head * D4;
#for d D4
  let q_$d = from_act(q[q_at + $du]) * p.scale;
  var o_$d = vec4f(0.0);
#endfor
  var top = NEGATIVE;
  var total = 0.0;
  let last = select(p.length_k, min(p.length_k, row + 1u), p.causal != 0u);
  for (var k0 = 0u; k0 < p.length_k; k0 += KEYS) {
    for (var i = thread; i < KEYS * D4; i += ROWS) {
      let key = k0 + i / D4;
      var key4 = vec4f(0.0);
      var value4 = vec4f(0.0);
      if key < p.length_k {
        key4 = from_act(k[k_at + key * p.k_stride + i % D4]);
        value4 = from_act(v[v_at + key * p.v_stride + i % D4]);
      }
      tile_k[i] = key4;
      tile_v[i] = value4;
    }
    workgroupBarrier();
    if k0 < last {
      for (var j = 0u; j < KEYS; j += 4u) {
        var s = vec4f(0.0);
#for d D4
        s += vec4f(
          dot(q_$d, tile_k[j * D4 + $du]), dot(q_$d, tile_k[(j + 1u) * D4 + $du]),
          dot(q_$d, tile_k[(j + 2u) * D4 + $du]), dot(q_$d, tile_k[(j + 3u) * D4 + $du]));
#endfor
        let key = vec4u(k0 + j) + vec4u(0u, 1u, 2u, 3u);
        let seen = key < vec4u(last);
        s = select(vec4f(NEGATIVE), s, seen);
        let new_top = max(top, max(max(s.x, s.y), max(s.z, s.w)));
        let keep = exp(top - new_top);
        let w = select(vec4f(0.0), exp(s - new_top), seen);
        total = total * keep + w.x + w.y + w.z + w.w;
        top = new_top;
#for d D4
        o_$d = o_$d * keep + w.x * tile_v[j * D4 + $du] + w.y * tile_v[(j + 1u) * D4 + $du]
             + w.z * tile_v[(j + 2u) * D4 + $du] + w.w * tile_v[(j + 3u) * D4 + $du];
#endfor
      }
    }
    workgroupBarrier();
  }
  if row < p.length_q {
    let at = (q_row * p.heads + head) * D4;
#for d D4
    out[at + $du] = to_act(o_$d / total);
#endfor
  }
}
