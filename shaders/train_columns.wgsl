// Gradients of a bias: the sums of dy's columns are added to them.
//
// Parameters: y: where dy begins, of so many rows and cols; b: where the sums go.
// Tiling: 16 columns a workgroup of 256 threads; a thread sums every 16th row of one.
var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3u) {
  let column = group.x * 16u + thread % 16u;
  var sum = 0.0;
  if column < p.cols {
    for (var row = thread / 16u; row < p.rows; row += 16u) {
      sum += g[p.y + row * p.cols + column];
    }
  }
  sums[thread] = sum;
  for (var half = 128u; half >= 16u; half /= 2u) {
    workgroupBarrier();
    if thread < half {
      sums[thread] += sums[thread + half];
    }
  }
  if thread < 16u && column < p.cols {
    g[p.b + column] += sums[thread];
  }
}
