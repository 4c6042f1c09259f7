// A matrix multiply out = A W^T, or a convolution as one, by the plain rule
//
//   for m in positions (picture, y, x) of the output, for n in its channels:
//     sum = 0
//     for tap in the kernel's places, for c in the input's channels:        // k: all of these, four at a time
//       sum += input[the tap's place at m, c] * W[n, tap, c]                // A[m, k]: zero outside the picture
//     out[m, n] = post(activation(sum + bias[n] + channel_add[m, n]) + residual[m, n])
//
// and what is done to make it fast:
// - A is gathered as it is read (matmul_operands.wgsl): a convolution's input is never unfolded, which would write and
//   read it nine times, and neither upsampling nor the joining of two inputs writes a copy.
// - The sum is finished where it is (matmul_epilogue.wgsl): bias, time embedding, activation, residual and GEGLU cost
//   no pass over the output, and with GEGLU half as much is written.
// - SHORTCUT and LAYER_NORM (matmul_layer_norm.wgsl) do the work of dispatches of their own. With group norms in one
//   dispatch a step of Stable Diffusion 1.5 fell from 442 to 292, an estimated 4 to 10 ms of a GPU's; a software GPU
//   takes 4 % longer, since a product looks at its rows once more for their moments.
// - Tiles keep what is read in workgroup memory or in registers, by one of four ways to divide the work. Each has a
//   file with its `main`. `Tile::of` in src/ops/tile.rs chooses; the tuner may choose better (src/ops/autotune.rs).
//     this file               tiles through workgroup memory, for large outputs on any GPU
//     matmul_subgroup.wgsl    tiles in registers, shared by broadcast, where subgroups are narrow
//     matmul_split.wgsl       threads that share one sum, for outputs too small to fill a GPU with tiles
//     winograd.wgsl           through workgroup memory, and with fewer multiplies, for 3x3 convolutions of stride 1
//
// Tiling: a workgroup of WX x WY threads makes a tile of BM = WY * TM rows by BN = WX * 4 * TN channels, over slices of
// BK4 vectors of k that lie in workgroup memory as f32. A thread holds TM x 4 TN sums in registers and does TM * 16 TN
// products for TM + 4 TN vectors read: 0.06 reads a product with TM 8, TN 2. Thread (x, y) owns rows y, y + WY, ... so
// that one read serves a whole row of threads, and channels 4x .. 4x+3 of each of TN blocks.
//
// What GPUs' compilers made of it, and what was done about it. Figures are those of Mesa's compilers, of
// the loop over the slices of a 3x3 convolution, tile 64 x 64 where none is named (docs/benchmarks.md).
// - Reads without a branch, from a place that is always there, and zero selected afterwards; all of a slice before the
//   first store. As `if inside { a = read }` the eight reads of a slice waited for each other: 20 waits a slice on an M1
//   are 3 now.
// - The loops over a slice written out, and over taps outside of the one over channels: a division and a remainder a
//   read are one each a tap. M1 2092 instructions a slice, now 1320; RTX 3060 1.56 a multiply-add, now 1.29; no spill
//   on an M1, where there were 6.
// - A slice of W lies by k, four channels to a vector, as a thread's four reads bring them: four stores, and f16 sums of
//   four channels are two packed instructions.
// - Slices in structs with a pad: threads that store neighbouring k hit different banks, where 4 to 8 met in one, and
//   a browser's clamp of an index is of x or y alone, once for all reads.
// - F16_ARITHMETIC: a slice's sums in f16, four channels packed, and into f32 after each slice, which is 32 products
//   here. Instructions a multiply-add, tile 32 x 64: RDNA2 0.65 for 1.14, RDNA3 0.62 for 0.77, RTX 3060 1.00 for 1.30;
//   with slices of 16 products an RDNA3 had 0.66.
// - A software adapter's compiler takes seconds for what is written out. A loop over slices of 8 costs it no time when it
//   runs; over those of 4 lavapipe's products of 64 x 64 took 10 % longer, so these stay written out there, too.
const THREADS = WX * WY;
const BM = WY * TM;
const BN4 = WX * TN;
// Threads that fill the same column of a slice.
const FILL = THREADS / BK4;
struct SliceA {
  rows: array<array<factor4, WY>, TM>,
  pad: array<factor4, ROW_OF_BANKS / BK4>,
}
struct SliceW {
  k: array<array<array<factor4, WX>, TN>, 4>,
  pad: array<factor4, ROW_OF_BANKS / BK4>,
}
var<workgroup> tile_a: array<SliceA, BK4>;
var<workgroup> tile_w: array<SliceW, BK4>;

@compute @workgroup_size(WX, WY)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let x = thread % WX;
  let y = thread / WX;
  let m0 = p.m_base + group.y * BM;
  let load_k = thread % BK4;
  let load_m = thread / BK4;
#if LAYER_NORM
  find_moments(m0, thread);
#endif
#for i TM
#for j TN
  var sum_$i_$j = vec4f(0.0);
#endfor
#endfor

  for (var r = 0u; r < RUNS$one; r++) {
    let run = run_of(r);
#for i A_LOADS
    let place_$i = place_of(origin_of(min(m0 + load_m + $iu * FILL, p.m - 1u)), run);
#endfor
    for (var c0 = 0u; c0 < run.c4; c0 += BK4) {
      let within = c0 + load_k < run.c4;
      let c = min(c0 + load_k, run.c4 - 1u);
#for i A_LOADS
      var a_$i: stored4;
#endfor
#for s INPUTS
      if run.source == $su {
#for i A_LOADS
        a_$i = input_$s[place_$i.at + c];
#endfor
      }
#endfor
#for v W_LOADS
#for j 4
      let w_$v_$j = read_w(row_of((group.x * BN4 + load_m + $vu * FILL) * 4u + $ju), run, c);
#endfor
#endfor
      workgroupBarrier();
#for i A_LOADS
      {
        let row = load_m + $iu * FILL;
#if LAYER_NORM
        let a = select(factor4(0.0), normed(a_$i, row_moments[row], c), within);
#else
        let a = or_zero(a_$i, within && place_$i.inside);
#endif
        tile_a[load_k].rows[row / WY][row % WY] = a;
      }
#endfor
#for v W_LOADS
      {
#for j 4
        let w_$j = to_weights(w_$v_$j);
#endfor
        let block = (load_m + $vu * FILL) / WX;
        let lane = (load_m + $vu * FILL) % WX;
        tile_w[load_k].k[0][block][lane] = factor4(w_0.x, w_1.x, w_2.x, w_3.x);
        tile_w[load_k].k[1][block][lane] = factor4(w_0.y, w_1.y, w_2.y, w_3.y);
        tile_w[load_k].k[2][block][lane] = factor4(w_0.z, w_1.z, w_2.z, w_3.z);
        tile_w[load_k].k[3][block][lane] = factor4(w_0.w, w_1.w, w_2.w, w_3.w);
      }
#endfor
      workgroupBarrier();
#if F16_ARITHMETIC
#for i TM
#for j TN
      var part_$i_$j = vec4h(0.0);
#endfor
#endfor
#endif
#for k BK4 5
      {
#for j TN
#for i 4
        let w_$i_$j = tile_w[$k].k[$i][$j][x];
#endfor
#endfor
#for i TM
        let a_$i = tile_a[$k].rows[$i][y];
#for j TN
#if F16_ARITHMETIC
        part_$i_$j = fma(vec4h(a_$i.x), w_0_$j, part_$i_$j);
        part_$i_$j = fma(vec4h(a_$i.y), w_1_$j, part_$i_$j);
        part_$i_$j = fma(vec4h(a_$i.z), w_2_$j, part_$i_$j);
        part_$i_$j = fma(vec4h(a_$i.w), w_3_$j, part_$i_$j);
#else
        sum_$i_$j = fma(vec4f(a_$i.x), w_0_$j, sum_$i_$j);
        sum_$i_$j = fma(vec4f(a_$i.y), w_1_$j, sum_$i_$j);
        sum_$i_$j = fma(vec4f(a_$i.z), w_2_$j, sum_$i_$j);
        sum_$i_$j = fma(vec4f(a_$i.w), w_3_$j, sum_$i_$j);
#endif
#endfor
#endfor
      }
#endfor
#if F16_ARITHMETIC
#for i TM
#for j TN
      sum_$i_$j += vec4f(part_$i_$j);
#endfor
#endfor
#endif
    }
  }

  var fits = true;
#if ROLLED
  // What a store is made of stands once, as in matmul_subgroup.wgsl.
  for (var turn = TM * TN$one; turn > 0u; turn--) {
    let row = m0 + (turn - 1u) % TM * WY + y;
    let column = group.x * BN4 + (turn - 1u) / TM * WX + x;
    var last = vec4f(0.0);
#for j TN
#for i TM
    {
      let next = sum_$i_$j;
      sum_$i_$j = last;
      last = next;
    }
#endfor
#endfor
    if column < n4() && row < p.m {
      fits = store(row, column, last + biases(column)) && fits;
    }
  }
#else
#for j TN
  let column_$j = group.x * BN4 + $ju * WX + x;
  if column_$j < n4() {
    let b = biases(column_$j);
#for i TM
    if m0 + $iu * WY + y < p.m {
      fits = store(m0 + $iu * WY + y, column_$j, sum_$i_$j + b) && fits;
    }
#endfor
  }
#endfor
#endif
  report(fits);
}
