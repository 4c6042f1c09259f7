// What matmul.wgsl does to a finished sum, before it is stored:
//
//   out = post(activation(sum + bias + channel_add) + residual)
//
// or, with GEGLU, half as many channels: those of the first half of W's rows times gelu of the second's.

// Vectors of output channels.
fn n4() -> u32 { return (p.n + 3u) / 4u; }

#if GEGLU
// Of the values and the gates where column's channels are, the four that column has.
fn in_turn(value: vec4f, gate: vec4f, column: u32) -> vec4f {
  return select(vec4f(value.x, gate.x, value.y, gate.y), vec4f(value.z, gate.z, value.w, gate.w), column % 2u == 1u);
}
#endif

// The biases of four channels.
fn biases(column: u32) -> vec4f {
  if p.has_bias == 0u {
    return vec4f(0.0);
  }
#if GEGLU
  let value = from_weight_1(bias[column / 2u]);
  let gate = from_weight_1(bias[p.n / 8u + column / 2u]);
  return in_turn(value, gate, column);
#else
  let b = from_weight_1(bias[p.bias_from + column]);
#if SHORTCUT
  return b + from_weight_1(bias[p.n / 4u + column]);
#else
  return b;
#endif
#endif
}

// What is stored for a sum with its bias.
fn finish(row: u32, column: u32, sum: vec4f) -> vec4f {
  var v = sum;
#if ADDED
  if p.has_channel_add != 0u {
    let at = row / p.out_positions * p.add_stride + p.add_from;
#if GEGLU
    v += in_turn(from_act(channel_add[at + column / 2u]), from_act(channel_add[at + p.n / 8u + column / 2u]), column);
#else
    v += from_act(channel_add[at + column]);
#endif
  }
#endif
#if ACTIVATION
  v = activate(v, p.activation);
#endif
#if ADDED
  if p.has_residual != 0u {
    v += from_act(residual[row * n4() + column]);
  }
#endif
#if ACTIVATION
  v = activate(v, p.post);
#endif
#if GEGLU
  v = vec4f(v.xz * gelu4(v).yw, 0.0, 0.0);
#endif
  return v;
}

// Whether f16 holds what is stored. NaN compares false, so it does not.
fn store(row: u32, column: u32, sum: vec4f) -> bool {
  let v = finish(row, column, sum);
  out[(row - p.out_from) * n4() + column] = to_out(v);
  return all(abs(v) < vec4f(65504.0));
}

// Once for all that a thread stores.
fn report(fits: bool) {
#if WATCH
  if !fits {
    atomicStore(&overflow[0], 1u);
  }
#endif
}
