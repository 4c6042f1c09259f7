// The mean of each square of two by two: x [n, h, w, c] -> out [n, h / 2, w / 2, c], sides rounded up. At an odd edge it is
// that of what is there, as torch's AvgPool2d(2, ceil_mode=True) has it; sums are f32.
//
// Bindings: x, output.
// Parameters: size: vectors of the output; h, w: of x; wide: the output's w.
// Tiling: one vector a thread, 256 threads a workgroup, workgroups in two dimensions.
@group(0) @binding($binding) var<storage, read> x: array<act4>;
@group(0) @binding($binding) var<storage, read_write> out: array<act4>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 256u + id.x;
  if i >= p.size {
    return;
  }
  let place = i / p.c4;
  let column = place % p.wide * 2u;
  let rows = place / p.wide; // of all pictures
  let high = (p.h + 1u) / 2u;
  let row = rows % high * 2u;
  let right = min(column + 1u, p.w - 1u);
  let below = min(row + 1u, p.h - 1u);
  let top = rows / high * p.h;
  var sum = vec4f(0.0);
  var count = 0.0;
  for (var y = row; y <= below; y++) {
    for (var z = column; z <= right; z++) {
      sum += from_act(x[((top + y) * p.w + z) * p.c4 + i % p.c4]);
      count += 1.0;
    }
  }
  out[i] = to_act(sum / count);
}
