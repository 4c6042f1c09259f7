// What sums over everything: losses, which write their gradients too (a loss's own is 1), and the length of a gradient.
// A define of 1 names the one that this kernel is.
//
// Parameters: size: rows or values; where the tensors begin, by the names that op.rs has; by, plus: the sum times the
// one and plus the other is the loss.
// Tiling: one workgroup of 256 threads.
#if MSE
fn each(i: u32) -> f32 {
  let off = v[p.x + i] - v[p.tensor + i];
  g[p.x + i] += 2.0 * p.by * off;
  return off * off;
}
#endif
#if NLL
fn each(i: u32) -> f32 {
  let at = p.x + 3u * i;
  let x = vec3f(v[at], v[at + 1u], v[at + 2u]);
  g[at] += p.by * x.x;
  g[at + 1u] += p.by * x.y;
  g[at + 2u] -= p.by;
  return 0.5 * (x.x * x.x + x.y * x.y) - x.z;
}
#endif
#if ELBO
fn each(i: u32) -> f32 {
  let square = p.sigma * p.sigma;
  var sum = 0.0;
  for (var j = 0u; j < 2u; j++) {
    let x = p.x + 2u * i + j;
    let off = v[x] - v[p.tensor + 2u * i + j];
    g[x] += p.by * off / square;
    let at = p.stats + 4u * i + j;
    let e = exp(v[at + 2u]);
    g[at] += p.by * v[at];
    g[at + 2u] += p.by * 0.5 * (e - 1.0);
    sum += off * off / (2.0 * square) + 0.5 * (v[at] * v[at] + e - 1.0 - v[at + 2u]);
  }
  return sum;
}
#endif
#if BCE
fn each(i: u32) -> f32 {
  let x = v[p.x + i];
  g[p.x + i] += p.by * (sigmoid(x) - p.label);
  return max(x, 0.0) - x * p.label + log(1.0 + exp(-abs(x)));
}
#endif
#if CLIP
fn each(i: u32) -> f32 { return g[p.x + i] * g[p.x + i]; }
#endif

var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32) {
  var sum = 0.0;
  for (var i = thread; i < p.size; i += 256u) {
    sum += each(i);
  }
  sums[thread] = sum;
  for (var half = 128u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if thread < half {
      sums[thread] += sums[thread + half];
    }
  }
  if thread == 0u {
#if CLIP
    v[p.to] = min(1.0, p.most / (sqrt(sums[0]) + 1e-6));
#else
    v[p.loss] = sums[0] * p.by + p.plus;
#endif
  }
}
