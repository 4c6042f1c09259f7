// Operations of src/train/op.rs that compute each row, or each value, by itself; backward they add to the gradients of what
// was read. A define of 1 names the one that this kernel is.
//
// Parameters: size: how many there are; where the tensors begin, by the names that op.rs has; cols, width: columns of x
// and of y.
// Tiling: one a thread, 256 threads a workgroup.
#if FEATURES
fn each(i: u32) {
  let row = i / p.count;
  let j = i % p.count;
  let value = v[p.x + row * p.cols + p.first + j];
  let at = p.y + row * p.width;
  v[at + j] = value;
  for (var k = 0u; k < FREQUENCIES; k++) {
    let t = turned(value * f32(1u << k));
    v[at + (1u + 2u * k) * p.count + j] = t.x;
    v[at + (2u + 2u * k) * p.count + j] = t.y;
  }
  if p.timed != 0u && j == 0u {
    v[at + p.width - 1u] = v[p.time + row];
  }
}
#endif
#if FEATURES_BACK
fn each(i: u32) {
  let row = i / p.count;
  let j = i % p.count;
  let at = p.y + row * p.width;
  var sum = g[at + j];
  for (var k = 0u; k < FREQUENCIES; k++) {
    let s = at + (1u + 2u * k) * p.count + j;
    let c = at + (2u + 2u * k) * p.count + j;
    sum += f32(1u << k) * (g[s] * v[c] - g[c] * v[s]);
  }
  g[p.x + row * p.cols + p.first + j] += sum;
}
#endif
#if SWISH
fn each(i: u32) { v[p.y + i] = v[p.x + i] * sigmoid(v[p.x + i]); }
#endif
#if SWISH_BACK
fn each(i: u32) {
  let x = v[p.x + i];
  let s = sigmoid(x);
  g[p.x + i] += g[p.y + i] * s * (1.0 + x * (1.0 - s));
}
#endif
#if COUPLE
fn each(i: u32) {
  let x = p.x + 3u * i;
  let y = p.y + 3u * i;
  let s = bounded(v[p.st + 2u * i]);
  v[y + p.keep] = v[x + p.keep];
  v[y + 1u - p.keep] = v[x + 1u - p.keep] * exp(s) + v[p.st + 2u * i + 1u];
  v[y + 2u] = v[x + 2u] + s;
}
#endif
#if UNCOUPLE
fn each(i: u32) {
  let x = p.x + 3u * i;
  let y = p.y + 3u * i;
  let s = bounded(v[p.st + 2u * i]);
  v[y + p.keep] = v[x + p.keep];
  v[y + 1u - p.keep] = (v[x + 1u - p.keep] - v[p.st + 2u * i + 1u]) * exp(-s);
  v[y + 2u] = v[x + 2u] - s;
}
#endif
#if COUPLE_BACK
fn each(i: u32) {
  let x = p.x + 3u * i;
  let y = p.y + 3u * i;
  let st = p.st + 2u * i;
  let s = bounded(v[st]);
  let by = exp(s);
  let dy = g[y + 1u - p.keep];
  let slope = 1.0 - (s / f32(MOST)) * (s / f32(MOST));
  g[x + p.keep] += g[y + p.keep];
  g[x + 1u - p.keep] += dy * by;
  g[x + 2u] += g[y + 2u];
  g[st] += slope * (g[y + 2u] + dy * v[x + 1u - p.keep] * by);
  g[st + 1u] += dy;
}
#endif
#if REPARAMETRISE
fn each(i: u32) {
  for (var j = 0u; j < 2u; j++) {
    let at = p.stats + 4u * i + j;
    v[p.z + 2u * i + j] = v[at] + exp(0.5 * v[at + 2u]) * v[p.noise + 2u * i + j];
  }
}
#endif
#if REPARAMETRISE_BACK
fn each(i: u32) {
  for (var j = 0u; j < 2u; j++) {
    let at = p.stats + 4u * i + j;
    let dz = g[p.z + 2u * i + j];
    g[at] += dz;
    g[at + 2u] += dz * v[p.noise + 2u * i + j] * 0.5 * exp(0.5 * v[at + 2u]);
  }
}
#endif
#if ADAM
// scalars: the step's size, the root of what the squares are corrected by, and what shortens the gradient.
fn each(i: u32) {
  let at = p.first + i;
  let grad = g[at] * v[p.scalars + 2u];
  let mean = m[2u * at] + (grad - m[2u * at]) * p.rest1;
  let square = m[2u * at + 1u] * p.beta2 + grad * grad * p.rest2;
  m[2u * at] = mean;
  m[2u * at + 1u] = square;
  v[at] -= v[p.scalars] * mean / (sqrt(square) / v[p.scalars + 1u] + p.epsilon);
}
#endif

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if id.x < p.size {
    each(id.x);
  }
}
