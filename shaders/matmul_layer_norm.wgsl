// LAYER_NORM of matmul.wgsl: the rows of A are normalised as they are read. A workgroup finds their moments first.
//
// A row is seen by its differences from its first value, so that a mean far from zero costs no digits of the variance.
fn pivot_of(row: u32) -> f32 {
  return to_f32(input_0[row * p.c4_0]).x;
}

// Mean of the row and the inverse of its standard deviation, of the sums of its differences and of their squares.
fn moments(row: u32, sum: f32, squares: f32) -> vec2f {
  let scale = 1.0 / f32(p.c4_0 * 4u);
  let mean = sum * scale;
  return vec2f(pivot_of(row) + mean, inverseSqrt(max(squares * scale - mean * mean, 0.0) + p.epsilon));
}

fn normed(a: stored4, of_row: vec2f, c: u32) -> factor4 {
  return factor4((to_f32(a) - of_row.x) * of_row.y * from_weight_2(gamma[c]) + from_weight_3(beta[c]));
}

#if SUBGROUP
// By one thread.
fn moments_of(row: u32) -> vec2f {
  let pivot = pivot_of(row);
  var sum = 0.0;
  var squares = 0.0;
  for (var c = 0u; c < p.c4_0; c++) {
    let d = to_f32(input_0[row * p.c4_0 + c]) - pivot;
    sum += dot(d, vec4f(1.0));
    squares += dot(d, d);
  }
  return moments(row, sum, squares);
}
#else
var<workgroup> row_sums: array<vec2f, WY * TM * SHARE>;
var<workgroup> row_moments: array<vec2f, WY * TM>;

// By the workgroup, of its rows from m0 on: into row_moments. SHARE neighbours share a row, so that they read
// neighbouring vectors, and a thread has SHARES rows under way at once. One number each of a row's two sums, where
// vectors of four took twice the registers of all the rest of a product.
fn find_moments(m0: u32, thread: u32) {
#for i SHARES
  let row_$i = min(m0 + thread / SHARE + $iu * (WX * WY / SHARE), p.m - 1u);
  let pivot_$i = pivot_of(row_$i);
  var sum_$i = 0.0;
  var squares_$i = 0.0;
#endfor
  for (var c = thread % SHARE; c < p.c4_0; c += SHARE) {
#for i SHARES
    let d_$i = to_f32(input_0[row_$i * p.c4_0 + c]) - pivot_$i;
#endfor
#for i SHARES
    sum_$i += dot(d_$i, vec4f(1.0));
    squares_$i += dot(d_$i, d_$i);
#endfor
  }
#for i SHARES
  row_sums[thread + $iu * (WX * WY)] = vec2f(sum_$i, squares_$i);
#endfor
  workgroupBarrier();
  for (var i = thread; i < WY * TM; i += WX * WY) {
    var all = vec2f(0.0);
    for (var part = 0u; part < SHARE$one; part++) {
      all += row_sums[i * SHARE + part];
    }
    row_moments[i] = moments(min(m0 + i, p.m - 1u), all.x, all.y);
  }
  workgroupBarrier();
}
#endif
