// The one matrix product of training, C (m x n) = start + A (m x k) B (k x n) in f32, with A and B as they lie or turned.
// FORWARD: A and B are values, C = bias + A B. WEIGHTS: A are values and B gradients; INPUTS: the other way round; both
// add to C, which are gradients.
//
// Parameters: a, b, c, bias: where they begin; the element of row i and column j stands at i * row + j * column of A and
// of B; m, n, k.
// Tiling: 32 x 32 values a workgroup of 8 x 8 threads, which take 16 of k at a time into workgroup memory; a thread has
// 4 x 4 values, 8 apart from each other.
#if WEIGHTS
fn left(i: u32) -> f32 { return v[i]; }
fn right(i: u32) -> f32 { return g[i]; }
#else
#if INPUTS
fn left(i: u32) -> f32 { return g[i]; }
fn right(i: u32) -> f32 { return v[i]; }
#else
fn left(i: u32) -> f32 { return v[i]; }
fn right(i: u32) -> f32 { return v[i]; }
#endif
#endif

// A's panel, k by k; B's beside it.
var<workgroup> tile_a: array<f32, 512>;
var<workgroup> tile_b: array<f32, 512>;

@compute @workgroup_size(8, 8)
fn main(
  @builtin(local_invocation_id) local: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(workgroup_id) group: vec3u,
) {
  let top = group.y * 32u;
  let first = group.x * 32u;
#for i FOUR
  var sum_$i = vec4f(0.0);
#endfor
  for (var at = 0u; at < p.k; at += 16u) {
    for (var e = thread; e < 512u; e += 64u) {
      let l = at + e / 32u;
      let row = top + e % 32u;
      let column = first + e % 32u;
      var x = 0.0;
      var y = 0.0;
      if l < p.k && row < p.m {
        x = left(p.a + row * p.a_row + l * p.a_column);
      }
      if l < p.k && column < p.n {
        y = right(p.b + l * p.b_row + column * p.b_column);
      }
      tile_a[e] = x;
      tile_b[e] = y;
    }
    workgroupBarrier();
    for (var l = 0u; l < 512u; l += 32u) {
      let y = l + local.x;
      let b = vec4f(tile_b[y], tile_b[y + 8u], tile_b[y + 16u], tile_b[y + 24u]);
#for i FOUR
      sum_$i += tile_a[l + local.y + $iu * 8u] * b;
#endfor
    }
    workgroupBarrier();
  }
#for i FOUR
  put(top + local.y + $iu * 8u, first + local.x, sum_$i);
#endfor
}

fn put(row: u32, first: u32, sum: vec4f) {
  if row >= p.m {
    return;
  }
#for i FOUR
  if first + $iu * 8u < p.n {
    let column = first + $iu * 8u;
#if FORWARD
    v[p.c + row * p.n + column] = v[p.bias + column] + sum[$i];
#else
    g[p.c + row * p.n + column] += sum[$i];
#endif
  }
#endfor
}
