// Canny's edges (1986) as OpenCV finds them, with its 3x3 Sobel and |dx| + |dy|; all in whole numbers.
//
//   GRADIENT: of each colour, the border repeated; the colour that changes most counts, the first of equals. A word a
//             pixel: |dx| + |dy|, and from bit 16 on the way across the edge (0 along the row, 1 along the column, 2 to
//             the lower right, 3 to the lower left).                                       bindings: picture, output
//   THIN:     EDGE where the gradient is above `high` and the largest across the edge, MAYBE where it is above `low`
//             only, 0 elsewhere; beyond the border it is 0.                                bindings: gradient, output
//   SPREAD:   MAYBE beside EDGE becomes EDGE, in place; `changed` is set where any did. To be repeated until none does:
//             a launch gets SWEEPS pixels far.                                             bindings: edges, changed
// The picture is RGBA, a word a pixel, red in the lowest byte.
// Tiling: a pixel a thread, 16x16 a workgroup; SPREAD with a rim of one pixel around.
#if GRADIENT
@group(0) @binding($binding) var<storage, read> picture: array<u32>;
@group(0) @binding($binding) var<storage, read_write> out: array<u32>;
#endif
#if THIN
@group(0) @binding($binding) var<storage, read> gradient: array<u32>;
@group(0) @binding($binding) var<storage, read_write> out: array<u32>;
#endif
#if SPREAD
@group(0) @binding($binding) var<storage, read_write> edges: array<atomic<u32>>;
@group(0) @binding($binding) var<storage, read_write> changed: atomic<u32>;
#endif

const MAYBE = 1u;
const EDGE = 2u;

#if GRADIENT
// tan(22.5 degrees) in 15 bits behind the point.
const TAN = 13573;

fn colour(x: i32, y: i32) -> vec3i {
  let at = clamp(vec2i(x, y), vec2i(0), vec2i(i32(p.w), i32(p.h)) - 1);
  let word = picture[u32(at.y) * p.w + u32(at.x)];
  return vec3i(vec3u(word, word >> 8u, word >> 16u) & vec3u(255u));
}

@compute @workgroup_size(16, 16)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if id.x >= p.w || id.y >= p.h {
    return;
  }
  let x = i32(id.x);
  let y = i32(id.y);
  let top_left = colour(x - 1, y - 1);
  let top_right = colour(x + 1, y - 1);
  let bottom_left = colour(x - 1, y + 1);
  let bottom_right = colour(x + 1, y + 1);
  let dx = top_right + 2 * colour(x + 1, y) + bottom_right - top_left - 2 * colour(x - 1, y) - bottom_left;
  let dy = bottom_left + 2 * colour(x, y + 1) + bottom_right - top_left - 2 * colour(x, y - 1) - top_right;
  let sums = abs(dx) + abs(dy);
  var most = 0u;
  for (var c = 1u; c < 3u; c++) {
    most = select(most, c, sums[c] > sums[most]);
  }
  let across = abs(dx[most]);
  let along = abs(dy[most]) << 15u;
  let flat = across * TAN;
  var way = select(2u, 3u, (dx[most] ^ dy[most]) < 0);
  if along < flat {
    way = 0u;
  } else if along > flat + (across << 16u) {
    way = 1u;
  }
  out[id.y * p.w + id.x] = u32(sums[most]) | (way << 16u);
}
#endif

#if THIN
fn size(x: i32, y: i32) -> i32 {
  if x < 0 || y < 0 || x >= i32(p.w) || y >= i32(p.h) {
    return 0;
  }
  return i32(gradient[u32(y) * p.w + u32(x)] & 0xffffu);
}

@compute @workgroup_size(16, 16)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if id.x >= p.w || id.y >= p.h {
    return;
  }
  let x = i32(id.x);
  let y = i32(id.y);
  let here = size(x, y);
  let way = gradient[id.y * p.w + id.x] >> 16u;
  var largest = false;
  switch way {
    // Of two equals along a row or a column the first is the edge; on a diagonal neither is.
    case 0u: { largest = here > size(x - 1, y) && here >= size(x + 1, y); }
    case 1u: { largest = here > size(x, y - 1) && here >= size(x, y + 1); }
    case 2u: { largest = here > size(x - 1, y - 1) && here > size(x + 1, y + 1); }
    default: { largest = here > size(x + 1, y - 1) && here > size(x - 1, y + 1); }
  }
  var edge = 0u;
  if largest && here > p.low {
    edge = select(MAYBE, EDGE, here > p.high);
  }
  out[id.y * p.w + id.x] = edge;
}
#endif

#if SPREAD
const RIM = 18u;
var<workgroup> tile: array<atomic<u32>, 324>;

@compute @workgroup_size(16, 16)
fn main(
  @builtin(global_invocation_id) id: vec3u,
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_id) local: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  for (var i = thread; i < RIM * RIM; i += 256u) {
    let x = i32(group.x * 16u + i % RIM) - 1;
    let y = i32(group.y * 16u + i / RIM) - 1;
    var edge = 0u;
    if x >= 0 && y >= 0 && x < i32(p.w) && y < i32(p.h) {
      edge = atomicLoad(&edges[u32(y) * p.w + u32(x)]);
    }
    atomicStore(&tile[i], edge);
  }
  workgroupBarrier();
  let me = (local.y + 1u) * RIM + local.x + 1u;
  let maybe = atomicLoad(&tile[me]) == MAYBE;
  for (var sweep = 0u; sweep < SWEEPS; sweep++) {
    if maybe && atomicLoad(&tile[me]) == MAYBE {
      var beside = 0u;
      for (var i = 0u; i < 9u; i++) {
        beside = max(beside, atomicLoad(&tile[me + i / 3u * RIM + i % 3u - RIM - 1u]));
      }
      if beside == EDGE {
        atomicStore(&tile[me], EDGE);
      }
    }
    workgroupBarrier();
  }
  if maybe && atomicLoad(&tile[me]) == EDGE {
    atomicStore(&edges[id.y * p.w + id.x], EDGE);
    atomicStore(&changed, 1u);
  }
}
#endif
