// A weight [rows][taps][c4] times a matrix that a LoRA has:
//
//   ROWS (OFT; a stage of BOFT): out[o] = sum_j matrix[block, n, j] base[row j of the block]
//   else (GLoRA):                out[o, t, r] = sum_i base[o, i, t] matrix[i, r]
//
// Blocks are of `size` positions; position (c k + n) 2 + g is row (2 c + g) k + n (LyCORIS' butterfly). k = 1: as they are.
// Bindings: base (lora_base.wgsl), matrix, output (f32).
// Tiling: a row a workgroup of 64 threads, each every 64th vector of it, or every 64th of its sums.
#if ROWS
@group(0) @binding($binding) var<storage, read> matrix: array<f32>;
@group(0) @binding($binding) var<storage, read_write> out: array<vec4f>;

fn row_at(position: u32) -> u32 {
  let c = position / (2u * p.k);
  return (2u * c + position % 2u) * p.k + position / 2u % p.k;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let o = group.x;
  let position = (o / (2u * p.k) * p.k + o % p.k) * 2u + o / p.k % 2u;
  let first = position / p.size * p.size;
  for (var at = thread; at < p.row4; at += 64u) {
    var sum = vec4f(0.0);
    for (var j = 0u; j < p.size; j++) {
      sum += matrix[position * p.size + j] * base_at(row_at(first + j), at);
    }
    out[o * p.row4 + at] = sum;
  }
}
#else
@group(0) @binding($binding) var<storage, read> matrix: array<f32>;
@group(0) @binding($binding) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let o = group.x;
  let c4 = p.row4 / p.taps;
  for (var at = thread; at < p.taps * p.size; at += 64u) {
    let r = at % p.size;
    var sum = 0.0;
    for (var i = 0u; i < p.inner; i++) {
      sum += base_at(o, at / p.size * c4 + i / 4u)[i % 4u] * matrix[i * p.size + r];
    }
    out[o * p.taps * p.size + at] = sum;
  }
}
#endif
