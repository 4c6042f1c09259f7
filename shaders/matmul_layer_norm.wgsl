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
fn moments_of(place: Place) -> vec2f {
  let row = place.row - p.in_from;
  let pivot = pivot_of(row);
  var sum = vec4f(0.0);
  var squares = vec4f(0.0);
  for (var c = 0u; c < p.c4_0; c++) {
    let d = to_f32(input_0[row * p.c4_0 + c]) - pivot;
    sum += d;
    squares = fma(d, d, squares);
  }
  return moments(row, dot(sum, vec4f(1.0)), dot(squares, vec4f(1.0)));
}
#else
var<workgroup> row_sums: array<vec2f, WY * TM * WX>;
var<workgroup> row_moments: array<vec2f, WY * TM>;

// By the workgroup, of its rows from m0 on: into row_moments. WX neighbours share a row, so that they read neighbouring
// vectors, and a thread has TM rows under way at once.
fn find_moments(m0: u32, thread: u32) {
  let x = thread % WX;
  let y = thread / WX;
#for i TM
  let row_$i = min(m0 + $iu * WY + y, p.m - 1u);
  let pivot_$i = pivot_of(row_$i);
  var differences_$i = vec4f(0.0);
  var squares_$i = vec4f(0.0);
#endfor
  for (var c = x; c < p.c4_0; c += WX) {
#for i TM
    let d_$i = to_f32(input_0[row_$i * p.c4_0 + c]) - pivot_$i;
    differences_$i += d_$i;
    squares_$i = fma(d_$i, d_$i, squares_$i);
#endfor
  }
#for i TM
  row_sums[($iu * WY + y) * WX + x] = vec2f(dot(differences_$i, vec4f(1.0)), dot(squares_$i, vec4f(1.0)));
#endfor
  workgroupBarrier();
  for (var i = thread; i < WY * TM; i += WX * WY) {
    var all = vec2f(0.0);
    for (var part = 0u; part < WX; part++) {
      all += row_sums[i * WX + part];
    }
    row_moments[i] = moments(min(m0 + i, p.m - 1u), all.x, all.y);
  }
  workgroupBarrier();
}

// Vector k of A's row, normalised; zero past the last.
fn load_normed(place: Place, k: u32, of_row: vec2f) -> factor4 {
  var a = factor4(0.0);
  if k < p.k4 {
    a = normed(input_0[place.row * p.c4_0 + k], of_row, k);
  }
  return a;
}
#endif
