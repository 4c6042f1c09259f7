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
// - A software adapter's compiler takes seconds for what is written out, so that loops within a slice are loops there.
//   It may write out those over slices: otherwise lavapipe took 1.4 times as long for heads of 40.
// - F16_ARITHMETIC: what passes through workgroup memory stays f16, in PAIRs, so that a read brings two vectors of
//   channels, or of keys: half the bytes and half the reads a product. Two products are one instruction: up to 40 of
//   them are summed in f16 (two sums a score; one of up to 32 values), and these in f32, as scores and softmax are.
//   Queries come in eighths, which f16 holds as exactly, so that sums of large ones stay finite. Of heads of up to 80
//   (WHOLE) all of the queries lie there from the beginning, and are not read anew for each block of keys.
//   Heads of 40: RTX 3060 1.02 instructions a multiply-add for 1.51, RDNA2 0.66 for 1.22, RDNA3 0.66 for 0.95. An M1,
//   which multiplies no faster in f16, gains nothing, and spills (`choices::spilling`).
#if F16_ARITHMETIC
alias factor4 = vec4<f16>;
alias stored4 = vec4<f16>;
fn to_factor(v: stored4) -> factor4 { return v; }
fn query(v: stored4) -> factor4 { return v * 0.125h; }
const UNSCALED = 8.0;
#else
alias factor4 = vec4f;
alias stored4 = act4;
fn to_factor(v: stored4) -> factor4 { return from_act(v); }
fn query(v: stored4) -> factor4 { return from_act(v); }
const UNSCALED = 1.0;
#endif
@group(0) @binding($binding) var<storage, read> q: array<stored4>;
@group(0) @binding($binding) var<storage, read> k: array<stored4>;
@group(0) @binding($binding) var<storage, read> v: array<stored4>;
@group(0) @binding($binding) var<storage, read_write> out: array<act4>;

const NEGATIVE = -3.0e38;
const Q_STEP = ROWS + PAD;
const K_STEP = KEYS + PAD;
// Where the keys, the weights and the values begin in `tile`.
const TILE_K = SLICE / PAIR * Q_STEP;
#if WHOLE
const TILE_W = TILE_K;
#else
const TILE_W = 0u;
#endif
const TILE_V = TILE_W + KEYS / 4u / PAIR * ROWS;
const COLUMNS = COLUMN_THREADS * O_COLUMNS;
const LOAD_ROWS = THREADS / LOAD;
const S_GROUPS = ROWS / S_ROWS;
const K_GROUPS = KEYS / 4u;
const O_GROUPS = ROWS / O_ROWS;

var<workgroup> tile: array<array<factor4, PAIR>, TILE>;
#if F16_ARITHMETIC
var<workgroup> scores: array<vec4f, K_GROUPS * ROWS>;
#endif
var<workgroup> row_keep: array<f32, ROWS>;
var<workgroup> row_part: array<f32, THREADS>;

#if F16_ARITHMETIC
fn product(a: factor4, b: factor4, sum: vec2<f16>) -> vec2<f16> {
  return fma(a.zw, b.zw, fma(a.xy, b.xy, sum));
}
#else
fn product(a: vec4f, b: vec4f, sum: f32) -> f32 {
  return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}
#endif

fn q_place(d: u32, row: u32) -> u32 { return d / PAIR * Q_STEP + row; }
fn k_place(d: u32, key: u32) -> u32 { return TILE_K + d / PAIR * K_STEP + key % 4u * K_GROUPS + key / 4u; }
fn w_place(keys: u32, row: u32) -> u32 { return TILE_W + keys / PAIR * ROWS + row; }
fn v_place(key: u32, column: u32) -> u32 { return TILE_V + key / PAIR * COLUMNS + column; }

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let first = p.first_row + group.x * ROWS;
  let head = group.y * D4;
  let q_at = group.z * p.length_q;
  let k_at = group.z * p.length_k;
  let load_d = thread % LOAD;
  let load_row = thread / LOAD;
  let s_row = thread % S_GROUPS;
  let s_key = thread / S_GROUPS;
  let row = thread % ROWS;
  let part = thread / ROWS;
  let o_column = thread % COLUMN_THREADS;
  let o_row = thread / COLUMN_THREADS;
  // exp(x) = exp2(x log2(e)): the factor costs nothing here.
  let scale = p.scale * (UNSCALED * 1.4426950408889634);
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

#if WHOLE
#for i Q_LOADS
  let q_row_$i = q_at + min(first + load_row + $iu * LOAD_ROWS, p.length_q - 1u);
#for c CHUNKS
  let q_$i_$c = q[q_row_$i * p.q_stride + p.q_from + head + min($cu * LOAD + load_d, D4 - 1u)];
#endfor
#endfor
#for i Q_LOADS
#for c CHUNKS
  tile[q_place($cu * LOAD + load_d, load_row + $iu * LOAD_ROWS)][load_d % PAIR] = query(q_$i_$c);
#endfor
#endfor

#endif
  for (var k0 = 0u; k0 < end; k0 += KEYS) {
#for i S_ROWS
    var s_$i = vec4f(0.0);
#endfor
    for (var d0 = 0u; d0 < D4; d0 += SLICE) {
#for c CHUNKS
      let d_$c = min(d0 + $cu * LOAD + load_d, D4 - 1u);
#endfor
#if !WHOLE
#for i Q_LOADS
      let q_row_$i = q_at + min(first + load_row + $iu * LOAD_ROWS, p.length_q - 1u);
#for c CHUNKS
      let q_$i_$c = q[q_row_$i * p.q_stride + p.q_from + head + d_$c];
#endfor
#endfor
#endif
#for i K_LOADS
      let k_row_$i = k_at + min(k0 + load_row + $iu * LOAD_ROWS, p.length_k - 1u);
#for c CHUNKS
      let k_$i_$c = k[k_row_$i * p.k_stride + p.k_from + head + d_$c];
#endfor
#endfor
#if !WHOLE
#for i Q_LOADS
#for c CHUNKS
      tile[q_place($cu * LOAD + load_d, load_row + $iu * LOAD_ROWS)][load_d % PAIR] = query(q_$i_$c);
#endfor
#endfor
#endif
#for i K_LOADS
#for c CHUNKS
      tile[k_place($cu * LOAD + load_d, load_row + $iu * LOAD_ROWS)][load_d % PAIR] = to_factor(k_$i_$c);
#endfor
#endfor
      workgroupBarrier();
#if F16_ARITHMETIC
#for i S_ROWS
#for j 4
      var part_$i_$j = vec2<f16>(0.0h);
#endfor
#endfor
#endif
#for d PAIRS 1
#if PADDED
      if d0 + $du * PAIR < D4 {
#else
      {
#endif
#for j 4
        let k_$j = tile[TILE_K + $du * K_STEP + $ju * K_GROUPS + s_key];
#endfor
#for i S_ROWS
        {
          let q4 = tile[$du * Q_STEP + $iu * S_GROUPS + s_row];
#for c PAIR
          if D4 % PAIR == 0u || d0 + $du * PAIR + $cu < D4 {
#if F16_ARITHMETIC
#for j 4
            part_$i_$j = product(q4[$c], k_$j[$c], part_$i_$j);
#endfor
#else
            s_$i = vec4f(
              product(q4[$c], k_0[$c], s_$i.x), product(q4[$c], k_1[$c], s_$i.y),
              product(q4[$c], k_2[$c], s_$i.z), product(q4[$c], k_3[$c], s_$i.w));
#endif
          }
#endfor
        }
#endfor
      }
#endfor
#if F16_ARITHMETIC
#for i S_ROWS
      s_$i += vec4f(
        f32(part_$i_0.x) + f32(part_$i_0.y), f32(part_$i_1.x) + f32(part_$i_1.y),
        f32(part_$i_2.x) + f32(part_$i_2.y), f32(part_$i_3.x) + f32(part_$i_3.y));
#endfor
#endif
#if !WHOLE
      workgroupBarrier();
#endif
    }

#for i S_ROWS
#if F16_ARITHMETIC
    scores[s_key * ROWS + $iu * S_GROUPS + s_row] = s_$i;
#else
    tile[s_key * ROWS + $iu * S_GROUPS + s_row][0] = s_$i;
#endif
#endfor
    workgroupBarrier();
#for i W_VECTORS
#if F16_ARITHMETIC
    var w_$i = scores[($iu * PARTS + part) * ROWS + row];
#else
    var w_$i = tile[($iu * PARTS + part) * ROWS + row][0];
#endif
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
    tile[w_place($iu * PARTS + part, row)][($iu * PARTS + part) % PAIR] = factor4(w_$i);
    total += w_$i.x + w_$i.y + w_$i.z + w_$i.w;
#endfor

    for (var v0 = 0u; v0 < KEYS; v0 += V_SLICE) {
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
        tile[v_place(o_row + $iu * O_GROUPS, $ju * COLUMN_THREADS + o_column)][o_row % PAIR] = to_factor(v_$i_$j);
#endfor
#endfor
      }
      workgroupBarrier();
#for i O_ROWS
      let keep_$i = select(1.0, row_keep[$iu * O_GROUPS + o_row], v0 == 0u);
#for j O_COLUMNS
#if F16_ARITHMETIC
      var sum_$i_$j = factor4(0.0h);
#else
      o_$i_$j *= keep_$i;
#endif
#endfor
#endfor
      for (var g = 0u; g < V_SLICE / PAIR / 4u$one; g++) {
#for i O_ROWS
        let w_$i = tile[TILE_W + (v0 / PAIR / 4u + g) * ROWS + $iu * O_GROUPS + o_row];
#endfor
#for h PAIR
#for x V_TURNS
#for j O_COLUMNS
        {
          let v4 = tile[TILE_V + (g * 4u + $hu * V_TURNS + $xu) * COLUMNS + $ju * COLUMN_THREADS + o_column];
#for i O_ROWS
#for c PAIR
#if F16_ARITHMETIC
          sum_$i_$j = fma(factor4(w_$i[$h][$xu * PAIR + $cu]), v4[$c], sum_$i_$j);
#else
          o_$i_$j = fma(vec4f(w_$i[$h][$xu * PAIR + $cu]), v4[$c], o_$i_$j);
#endif
#endfor
#endfor
        }
#endfor
#endfor
#endfor
      }
#if F16_ARITHMETIC
#for i O_ROWS
#for j O_COLUMNS
      o_$i_$j = fma(o_$i_$j, vec4f(keep_$i), vec4f(sum_$i_$j));
#endfor
#endfor
#endif
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
