// Mean and centred sum of squares of every group of channels, over one slice of the positions of one picture.
//
// Input [n, positions, C], the channels possibly of two tensors in a row, or with n = 1 some positions of a picture
// that is never whole; output f32 [n, slices, groups] of (mean, sum (x - mean)^2). Bindings: input, second input (or
// the first again), output.
// Parameters: first_slice: of this dispatch.
// Tiling: one workgroup of 256 threads a slice. A thread walks down the slice at one vector of channels, and
// keeps sum and sum of squares (few enough terms for f32); then one thread a group merges the columns by
// Chan's formula, which does not cancel.
@group(0) @binding($binding) var<storage, read> first: array<act4>;
@group(0) @binding($binding) var<storage, read> second: array<act4>;
@group(0) @binding($binding) var<storage, read_write> stats: array<vec2f>;

var<workgroup> sums: array<vec4f, 256>;
var<workgroup> squares: array<vec4f, 256>;
var<workgroup> counts: array<f32, 256>;

fn load(at: u32, c: u32) -> vec4f {
  if c >= p.c4_first {
    return from_act(second[at * (p.c4 - p.c4_first) + c - p.c4_first]);
  }
  return from_act(first[at * p.c4_first + c]);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) thread: u32) {
  let start = id.x * p.per_slice;
  let end = min(start + p.per_slice, p.positions);
  let picture_at = id.y * p.positions;
  // Columns of threads: as many vectors of channels as fit, and as many lanes down the slice as remain.
  let columns = min(p.c4, 256u);
  let lanes = 256u / columns;
  let column = thread % columns;
  let lane = thread / columns;
  let channels_a_group = p.c / p.groups;
  var count = 0.0;
  var mean = 0.0;
  var m2 = 0.0;
  for (var block = 0u; block < p.c4; block += columns) {
    var s = vec4f(0.0);
    var s2 = vec4f(0.0);
    var n = 0.0;
    if lane < lanes && block + column < p.c4 {
      for (var at = start + lane; at < end; at += lanes) {
        let v = load(picture_at + at, block + column);
        s += v;
        s2 += v * v;
        n += 1.0;
      }
    }
    sums[thread] = s;
    squares[thread] = s2;
    counts[thread] = n;
    workgroupBarrier();
    if thread < p.groups {
      // Channels of this thread's group that lie in this block.
      let c_start = max(thread * channels_a_group, block * 4u);
      let c_end = min((thread + 1u) * channels_a_group, min((block + columns) * 4u, p.c));
      for (var c = c_start; c < c_end; c++) {
        for (var l = 0u; l < lanes; l++) {
          let at = l * columns + c / 4u - block;
          let n_new = counts[at];
          if n_new > 0.0 {
            let sum = sums[at][c % 4u];
            let mean_new = sum / n_new;
            let m2_new = max(squares[at][c % 4u] - sum * mean_new, 0.0);
            let delta = mean_new - mean;
            let n_all = count + n_new;
            mean += delta * n_new / n_all;
            m2 += m2_new + delta * delta * count * n_new / n_all;
            count = n_all;
          }
        }
      }
    }
    workgroupBarrier();
  }
  if thread < p.groups {
    stats[(id.y * p.slices + p.first_slice + id.x) * p.groups + thread] = vec2f(mean, m2);
  }
}
