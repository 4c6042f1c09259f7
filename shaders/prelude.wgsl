// What every kernel begins with.
//
// Memory holds vectors of four channels. `half4` is how four f16 lie: two words, unpacked by a core function that
// every GPU has as an instruction, so that kernels with f32 arithmetic are one text with shader-f16 and without.
// `act4` is how activations lie: half4, or vec4<f32> in modules that overflow f16. The first and the second weight
// that a kernel binds are half4 too, or vec4<f32> where f16 does not hold one of the values.
alias half4 = vec2u;
fn from_half(v: half4) -> vec4f { return vec4f(unpack2x16float(v.x), unpack2x16float(v.y)); }
#if SHADER_F16
enable f16;
// The type's own conversion rounds to nearest even everywhere; packing alone may cut off on Direct3D.
fn round_to_half(v: vec4f) -> vec4f { return vec4f(vec4<f16>(v)); }
#else
fn round_to_half(v: vec4f) -> vec4f { return v; }
#endif
// Conversions past 65504 are not the same everywhere: saturate, so that an overflow stays finite and visible.
fn to_half(v: vec4f) -> half4 {
  let w = round_to_half(clamp(v, vec4f(-65504.0), vec4f(65504.0)));
  return half4(pack2x16float(w.xy), pack2x16float(w.zw));
}
#if WIDE
alias act4 = vec4f;
fn from_act(v: act4) -> vec4f { return v; }
fn to_act(v: vec4f) -> act4 { return v; }
// Two channels, where a kernel writes no more at a time.
alias act2 = vec2f;
fn to_act2(v: vec2f) -> act2 { return v; }
#else
alias act4 = half4;
fn from_act(v: act4) -> vec4f { return from_half(v); }
fn to_act(v: vec4f) -> act4 { return to_half(v); }
alias act2 = u32;
fn to_act2(v: vec2f) -> act2 { return to_half(vec4f(v, 0.0, 0.0)).x; }
#endif

#for i 4
#if F32_WEIGHT_$i
alias weight4_$i = vec4f;
fn from_weight_$i(v: weight4_$i) -> vec4f { return v; }
#else
alias weight4_$i = half4;
fn from_weight_$i(v: weight4_$i) -> vec4f { return from_half(v); }
#endif
#endfor

// Activations by number, as `ops::Activation` numbers them.
const SILU = 1u;
const GELU = 2u;
const QUICK_GELU = 3u;
const RELU = 4u;
const TANH_CLAMP = 5u;
const LEAKY_RELU = 6u;

// Abramowitz & Stegun 7.1.26: absolute error below 1.5e-7.
fn erf4(x: vec4f) -> vec4f {
  let a = abs(x);
  let t = 1.0 / (1.0 + 0.3275911 * a);
  let p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return sign(x) * (1.0 - p * exp(-a * a));
}
// 1 / (1 + exp(-x)); exp overflows to infinity for x < -88, where the quotient must be 0: clamp instead.
fn sigmoid4(x: vec4f) -> vec4f { return 1.0 / (1.0 + exp(-clamp(x, vec4f(-80.0), vec4f(80.0)))); }
fn gelu4(x: vec4f) -> vec4f { return 0.5 * x * (1.0 + erf4(x * 0.7071067811865476)); }
fn activate(x: vec4f, kind: u32) -> vec4f {
  switch kind {
    case SILU: { return x * sigmoid4(x); }
    case GELU: { return gelu4(x); }
    case QUICK_GELU: { return x * sigmoid4(1.702 * x); }
    case RELU: { return max(x, vec4f(0.0)); }
    case TANH_CLAMP: { return 3.0 * tanh(clamp(x / 3.0, vec4f(-20.0), vec4f(20.0))); }
    case LEAKY_RELU: { return max(x, 0.2 * x); }
    default: { return x; }
  }
}
