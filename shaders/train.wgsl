// What every kernel of training begins with: its memory, and functions as exact as f32 is.
//
// Bindings: values; the gradients of the first of them; for parameter i Adam's mean at 2i and its square at 2i + 1.
@group(0) @binding($binding) var<storage, read_write> v: array<f32>;
@group(0) @binding($binding) var<storage, read_write> g: array<f32>;
@group(0) @binding($binding) var<storage, read_write> m: array<f32>;

fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-clamp(x, -80.0, 80.0))); }

// The scale of a coupling, of whatever size the network gives: MOST tanh(s / MOST).
fn bounded(s: f32) -> f32 {
  let most = f32(MOST);
  let e = exp(clamp(2.0 * s / most, -40.0, 40.0));
  return most * (e - 1.0) / (e + 1.0);
}

// Sine and cosine: WGSL's own may be off by 2^-11. The angle is brought into -pi/4..pi/4 by quarters of a turn, pi/2 being
// three numbers of few bits each so that the products are exact; there the polynomials are those of the Cephes library.
fn turned(x: f32) -> vec2f {
  let quarters = round(x * 0.6366197723675814);
  let r = ((x - quarters * 1.5703125) - quarters * 4.837512969970703e-4) - quarters * 7.549789954891882e-8;
  let z = r * r;
  let s = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * r + r;
  let c = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z - 0.5 * z + 1.0;
  switch i32(quarters) & 3 {
    case 0: { return vec2f(s, c); }
    case 1: { return vec2f(c, -s); }
    case 2: { return vec2f(-s, -c); }
    default: { return vec2f(-c, s); }
  }
}
