// How much attention each key gets, whatever its value is: the mean over the heads of
//   softmax over keys of (q[row] . k[key] * scale),
// a row of `out` for each query, a column for each key; added to what is there with `add` 1. Of one picture of a batch.
//
// q [n, length_q, heads * d4], k [n, length_k, heads * d4], each among other channels of its rows; vectors of four
// channels. out [length_q, out_c4], f32, vectors of four keys.
// Bindings: q, k, output.
// Parameters: as those of attention.wgsl; picture: which of the batch; first_row, end_row: of this dispatch.
// Tiling: a thread a query, 64 a workgroup, four keys at a time. Scores are made twice, first for their maximum and sum:
// that takes neither room nor barriers, and is run only where somebody looks.
@group(0) @binding($binding) var<storage, read> q: array<act4>;
@group(0) @binding($binding) var<storage, read> k: array<act4>;
@group(0) @binding($binding) var<storage, read_write> out: array<vec4f>;

const NEGATIVE = -3.0e38;

/// Of four keys from `key` on; those that are not there get nothing.
fn scores(q_at: u32, k_from: u32, key: u32) -> vec4f {
  let keys = vec4u(key) + vec4u(0u, 1u, 2u, 3u);
  let last = vec4u(p.length_k - 1u);
  let at = (vec4u(p.picture * p.length_k) + min(keys, last)) * p.k_stride + k_from;
  var sum = vec4f(0.0);
  for (var d = 0u; d < p.d4; d++) {
    let a = from_act(q[q_at + d]);
    sum += vec4f(
      dot(a, from_act(k[at.x + d])),
      dot(a, from_act(k[at.y + d])),
      dot(a, from_act(k[at.z + d])),
      dot(a, from_act(k[at.w + d])),
    );
  }
  return select(vec4f(NEGATIVE), sum * p.scale, keys <= last);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = p.first_row + id.x;
  if row >= p.end_row {
    return;
  }
  let q_row = (p.picture * p.length_q + row) * p.q_stride + p.q_from;
  for (var head = 0u; head < p.heads; head++) {
    let q_at = q_row + head * p.d4;
    let k_from = p.k_from + head * p.d4;
    var top = NEGATIVE;
    var total = 0.0;
    for (var key = 0u; key < p.length_k; key += 4u) {
      let s = scores(q_at, k_from, key);
      let higher = max(top, max(max(s.x, s.y), max(s.z, s.w)));
      total = total * exp(top - higher) + dot(exp(s - higher), vec4f(1.0));
      top = higher;
    }
    let share = 1.0 / (total * f32(p.heads));
    for (var key = 0u; key < p.length_k; key += 4u) {
      let at = row * p.out_c4 + key / 4u;
      let before = select(out[at], vec4f(0.0), head == 0u && p.add == 0u);
      out[at] = before + exp(scores(q_at, k_from, key) - top) * share;
    }
  }
}
