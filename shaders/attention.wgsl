// Attention without the score matrix (Dao et al. 2022), for every width of head: for each head and each query
//   s[key] = sum over d of q[d] * k[key][d] * scale,   out = sum over keys of softmax(s)[key] * v[key].
// With `causal`, keys after the query are left out (CLIP).
//
// q [n, length_q, heads * D4], k and v [n, length_k, heads * D4], each among other channels of its rows;
// out [n, length_q, heads * D4]; vectors of four channels.
// Bindings: q, k, v, output.
// Parameters: q_stride, q_from (and so for k and v): vectors from row to row, and from a row's start to the first
// head, since they may lie in one tensor; first_row: of this dispatch; causal: 0 or 1.
//
// Tiling: a workgroup takes ROWS queries of a head, and goes over the keys KEYS at a time, in three parts.
// 1. Scores, as a product of matrices: SLICE vectors of the queries and of the keys pass through workgroup memory;
//    a thread sums S_ROWS queries by 4 keys, so that a vector read serves up to 10 multiply-adds, not 4.
// 2. Softmax: PARTS threads a query renew its maximum and turn its scores into weights, in workgroup memory.
// 3. Output, as a product of matrices: V_SLICE values pass through workgroup memory; a thread sums O_ROWS queries by
//    O_COLUMNS vectors. It owns no query whole, so that its sums fit into registers at any width of head.
//
// Tricks, as the open compilers of GPUs show them (docs/benchmarks.md has the table):
// - Products are chains of fma: dot() and a sum are five instructions for four products.
// - A slice is a power of two wide, and a thread reads the same vector of each row: with five vectors a slice it kept
//    an address a row in registers, which an M1 spilled.
// - Where slices do not fill a head (PADDED), what the last one has too much is left out: a sixth of the scores'
//   multiply-adds for heads of 40. A compiler that unrolls the loop knows which.
// - Out of range, a thread reads the last row, unconditionally: an `if` around a read would wait for it. Scores of
//    keys that are not there are masked, and only in a block that has some.
// - Rows of q and k in workgroup memory are one vector longer than needed, against bank conflicts, and key 4 i + j
//    lies at j * K_GROUPS + i, so that neighbours read neighbours.
// - What is dead is overwritten: `tile` holds a slice of q and k, then weights and values.
@group(0) @binding($binding) var<storage, read> q: array<act4>;
@group(0) @binding($binding) var<storage, read> k: array<act4>;
@group(0) @binding($binding) var<storage, read> v: array<act4>;
@group(0) @binding($binding) var<storage, read_write> out: array<act4>;

const NEGATIVE = -3.0e38;
const Q_STEP = ROWS + 1u;
const K_STEP = KEYS + 1u;
// Where the keys and the values begin in `tile`.
const TILE_K = SLICE * Q_STEP;
const TILE_V = KEYS / 4u * ROWS;
const COLUMNS = COLUMN_THREADS * O_COLUMNS;
const LOAD_ROWS = THREADS / SLICE;
const S_GROUPS = ROWS / S_ROWS;
const K_GROUPS = KEYS / 4u;
const O_GROUPS = ROWS / O_ROWS;

var<workgroup> tile: array<vec4f, TILE>;
var<workgroup> row_keep: array<f32, ROWS>;
var<workgroup> row_part: array<f32, THREADS>;

fn product(a: vec4f, b: vec4f, sum: f32) -> f32 {
  return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let first = p.first_row + group.x * ROWS;
  let head = group.y * D4;
  let q_at = group.z * p.length_q;
  let k_at = group.z * p.length_k;
  let load_d = thread % SLICE;
  let load_row = thread / SLICE;
  let s_row = thread % S_GROUPS;
  let s_key = thread / S_GROUPS;
  let row = thread % ROWS;
  let part = thread / ROWS;
  let o_column = thread % COLUMN_THREADS;
  let o_row = thread / COLUMN_THREADS;
  // exp(x) = exp2(x log2(e)): the factor costs nothing here.
  let scale = p.scale * 1.4426950408889634;
  // Keys seen by any of the queries, by all of them, and by that of `row`.
  let end = select(p.length_k, min(p.length_k, first + ROWS), p.causal != 0u);
  let by_all = select(p.length_k, min(p.length_k, first + 1u), p.causal != 0u);
  let last = select(p.length_k, min(p.length_k, first + row + 1u), p.causal != 0u);
  var top = NEGATIVE;
  var total = 0.0;
#for i O_ROWS
#for j O_COLUMNS
  var o_$i_$j = vec4f(0.0);
#endfor
#endfor

  for (var k0 = 0u; k0 < end; k0 += KEYS) {
#for i S_ROWS
    var s_$i = vec4f(0.0);
#endfor
    for (var d0 = 0u; d0 < D4$one; d0 += SLICE) {
      let d = min(d0 + load_d, D4 - 1u);
#for i Q_LOADS
      let q_row_$i = q_at + min(first + load_row + $iu * LOAD_ROWS, p.length_q - 1u);
      let q_$i = q[q_row_$i * p.q_stride + p.q_from + head + d];
#endfor
#for i K_LOADS
      let k_row_$i = k_at + min(k0 + load_row + $iu * LOAD_ROWS, p.length_k - 1u);
      let k_$i = k[k_row_$i * p.k_stride + p.k_from + head + d];
#endfor
#for i Q_LOADS
      tile[load_d * Q_STEP + load_row + $iu * LOAD_ROWS] = from_act(q_$i);
#endfor
#for i K_LOADS
      {
        let key = load_row + $iu * LOAD_ROWS;
        tile[TILE_K + load_d * K_STEP + key % 4u * K_GROUPS + key / 4u] = from_act(k_$i);
      }
#endfor
      workgroupBarrier();
#for d SLICE 1
#if PADDED
      if d0 + $du < D4 {
#else
      {
#endif
#for j 4
        let k_$j = tile[TILE_K + $du * K_STEP + $ju * K_GROUPS + s_key];
#endfor
#for i S_ROWS
        {
          let q4 = tile[$du * Q_STEP + $iu * S_GROUPS + s_row];
          s_$i = vec4f(
            product(q4, k_0, s_$i.x), product(q4, k_1, s_$i.y), product(q4, k_2, s_$i.z), product(q4, k_3, s_$i.w));
        }
#endfor
      }
#endfor
      workgroupBarrier();
    }

#for i S_ROWS
    tile[s_key * ROWS + $iu * S_GROUPS + s_row] = s_$i;
#endfor
    workgroupBarrier();
#for i W_VECTORS
    var w_$i = tile[($iu * PARTS + part) * ROWS + row];
#endfor
    if k0 + KEYS > by_all {
#for i W_VECTORS
      w_$i = select(
        vec4f(NEGATIVE), w_$i, vec4u(k0 + ($iu * PARTS + part) * 4u) + vec4u(0u, 1u, 2u, 3u) < vec4u(last));
#endfor
    }
    var high = w_0;
#for i W_VECTORS
    high = max(high, w_$i);
#endfor
    var new_top = max(top, max(max(high.x, high.y), max(high.z, high.w)));
#if SPLIT
    row_part[thread] = new_top;
    workgroupBarrier();
#for i PARTS
    new_top = max(new_top, row_part[$iu * ROWS + row]);
#endfor
#endif
    // The first block has a key that is seen: from then on exp2 of a key that is not is 0.
    let keep = exp2((top - new_top) * scale);
    top = new_top;
    total *= keep;
    if part == 0u {
      row_keep[row] = keep;
    }
#for i W_VECTORS
    w_$i = exp2(fma(w_$i, vec4f(scale), vec4f(-top * scale)));
    tile[($iu * PARTS + part) * ROWS + row] = w_$i;
    total += w_$i.x + w_$i.y + w_$i.z + w_$i.w;
#endfor

    for (var v0 = 0u; v0 < KEYS$one; v0 += V_SLICE) {
      if O_GROUPS <= V_SLICE || o_row < V_SLICE {
#for i V_LOADS
        let v_row_$i = k_at + min(k0 + v0 + o_row + $iu * O_GROUPS, p.length_k - 1u);
        let v_at_$i = v_row_$i * p.v_stride + p.v_from + head;
#for j O_COLUMNS
        let v_$i_$j = v[v_at_$i + min(o_column + $ju * COLUMN_THREADS, D4 - 1u)];
#endfor
#endfor
#for i V_LOADS
#for j O_COLUMNS
        tile[TILE_V + (o_row + $iu * O_GROUPS) * COLUMNS + $ju * COLUMN_THREADS + o_column] = from_act(v_$i_$j);
#endfor
#endfor
      }
      workgroupBarrier();
      if v0 == 0u {
#for i O_ROWS
        {
          let keep = row_keep[$iu * O_GROUPS + o_row];
#for j O_COLUMNS
          o_$i_$j *= keep;
#endfor
        }
#endfor
      }
      for (var g = 0u; g < V_SLICE / 4u$one; g++) {
#for i O_ROWS
        let w_$i = tile[(v0 / 4u + g) * ROWS + $iu * O_GROUPS + o_row];
#endfor
#for x 4
#for j O_COLUMNS
        {
          let v4 = tile[TILE_V + (g * 4u + $xu) * COLUMNS + $ju * COLUMN_THREADS + o_column];
#for i O_ROWS
          o_$i_$j = fma(vec4f(w_$i[$x]), v4, o_$i_$j);
#endfor
        }
#endfor
#endfor
      }
      workgroupBarrier();
    }
  }

  row_part[thread] = total;
  workgroupBarrier();
#for i O_ROWS
  {
    let r = $iu * O_GROUPS + o_row;
    if first + r < p.length_q {
      var sum = 0.0;
#for x PARTS
      sum += row_part[$xu * ROWS + r];
#endfor
      let at = (q_at + first + r) * p.heads * D4 + head;
#for j O_COLUMNS
      if o_column + $ju * COLUMN_THREADS < D4 {
        out[at + o_column + $ju * COLUMN_THREADS] = to_act(o_$i_$j / sum);
      }
#endfor
    }
  }
#endfor
}
