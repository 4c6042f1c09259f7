// Soft lines of a picture: a difference of two Gaussians behind a threshold that is a tanh (XDoG; Winnemöller, Kyprianidis and
// Olsen 2012), of the colour that darkens most beside its surroundings. The border is repeated.
//
//   ROWS:    the picture blurred along its rows, as narrow and as wide; two vectors a pixel.     bindings: picture, output
//   COLUMNS: that blurred along its columns, and the line; a word a pixel, 0 to 255.             bindings: blurred, output
// The picture is RGBA, a word a pixel, red in the lowest byte. A weight is exp(-distance^2 * narrow), or wide.
// Tiling: a pixel a thread, 16x16 a workgroup.
#if ROWS
@group(0) @binding($binding) var<storage, read> picture: array<u32>;
@group(0) @binding($binding) var<storage, read_write> out: array<vec4f>;
#else
@group(0) @binding($binding) var<storage, read> blurred: array<vec4f>;
@group(0) @binding($binding) var<storage, read_write> out: array<u32>;
#endif

@compute @workgroup_size(16, 16)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if id.x >= p.w || id.y >= p.h {
    return;
  }
  let radius = i32(p.radius);
  let place = id.y * p.w + id.x;
  var narrow = vec3f(0.0);
  var wide = vec3f(0.0);
  var weights = vec2f(0.0);
  for (var d = -radius; d <= radius; d++) {
    let weight = exp(-f32(d * d) * vec2f(p.narrow, p.wide));
#if ROWS
    let x = u32(clamp(i32(id.x) + d, 0, i32(p.w) - 1));
    let word = picture[id.y * p.w + x];
    let colour = vec3f(vec3u(word, word >> 8u, word >> 16u) & vec3u(255u)) / 255.0;
    narrow += weight.x * colour;
    wide += weight.y * colour;
#else
    let at = 2u * (u32(clamp(i32(id.y) + d, 0, i32(p.h) - 1)) * p.w + id.x);
    narrow += weight.x * blurred[at].xyz;
    wide += weight.y * blurred[at + 1u].xyz;
#endif
    weights += weight;
  }
  narrow /= weights.x;
  wide /= weights.y;
#if ROWS
  out[2u * place] = vec4f(narrow, 0.0);
  out[2u * place + 1u] = vec4f(wide, 0.0);
#else
  let difference = narrow - wide;
  let darkest = min(difference.x, min(difference.y, difference.z));
  let line = tanh(p.sharpness * max(p.threshold - darkest, 0.0));
  out[place] = u32(round(255.0 * line));
#endif
}
