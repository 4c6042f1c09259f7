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
// - Tiles keep what is read in workgroup memory or in registers, by one of three ways to divide the work. Each has a
//   file with its `main`. `Tile::of` in src/ops/tile.rs chooses; the tuner may choose better (src/ops/autotune.rs).
//     this file               tiles through workgroup memory, for large outputs on any GPU
//     matmul_subgroup.wgsl    tiles in registers, shared by broadcast, where subgroups are narrow
//     matmul_split.wgsl       threads that share one sum, for outputs too small to fill a GPU with tiles
//
// Tiling: a workgroup of WX x WY threads makes a tile of BM = WY * TM rows by BN = WX * 4 * TN channels, over slices of
// BK4 vectors of k that lie in workgroup memory as f32. A thread holds TM x 4 TN sums in registers and does TM * 16 TN
// products for TM + 4 TN vectors read: 0.06 reads a product with TM 8, TN 2. Thread (x, y) owns rows y, y + WY, ... so
// that one read serves a whole row of threads, and channels 4x .. 4x+3 of each of TN blocks.
const THREADS = WX * WY;
const BM = WY * TM;
const BN4 = WX * TN;
var<workgroup> tile_a: array<factor4, BK4 * BM>;
var<workgroup> tile_w: array<factor4, BK4 * BN4 * 4u>;

@compute @workgroup_size(WX, WY)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let x = thread % WX;
  let y = thread / WX;
  let m0 = p.m_base + group.y * BM;
  let n0 = group.x * BN4 * 4u;
  // Each thread fills the same column of k in the tiles for every slice: rows load_m, load_m + THREADS / BK4, ...
  let load_k = thread % BK4;
  let load_m = thread / BK4;
#for i A_LOADS
  let place_$i = place_of(min(m0 + load_m + $iu * (THREADS / BK4), p.m - 1u));
#endfor
#for i TM
#for j TN
  var sum_$i_$j = vec4f(0.0);
#endfor
#endfor
#if LAYER_NORM
  find_moments(m0, thread);
#endif

  for (var k0 = 0u; k0 < all_k4(); k0 += BK4) {
    let k = k0 + load_k;
#for i A_LOADS
#if LAYER_NORM
    let a_$i = load_normed(place_$i, k, row_moments[load_m + $iu * (THREADS / BK4)]);
#else
    let a_$i = load_a(place_$i, k);
#endif
    tile_a[load_k * BM + load_m + $iu * (THREADS / BK4)] = a_$i;
#endfor
#for i W_LOADS
    let n_$i = load_m + $iu * (THREADS / BK4);
    var w_$i = factor4(0.0);
    if k < all_k4() {
      w_$i = load_w(row_of(min(n0 + n_$i, p.n - 1u)), k);
    }
    // Channel n lies at (n % 4) * BN4 + n / 4, so that neighbouring threads read neighbouring vectors.
    tile_w[load_k * BN4 * 4u + n_$i % 4u * BN4 + n_$i / 4u] = w_$i;
#endfor
    workgroupBarrier();
    for (var kk = 0u; kk < BK4; kk++) {
#for j TN
#for i 4
      let w_$i_$j = tile_w[(kk * 4u + $iu) * BN4 + $ju * WX + x];
#endfor
#endfor
#for i TM
      let b_$i = tile_a[kk * BM + $iu * WY + y];
#for j TN
      sum_$i_$j = products(b_$i, w_0_$j, w_1_$j, w_2_$j, w_3_$j, sum_$i_$j);
#endfor
#endfor
    }
    workgroupBarrier();
  }

  var fits = true;
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
  report(fits);
}
