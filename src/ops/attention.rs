//! Attention that never materialises scores.

use super::wide;
use crate::error::{Error, Result};
use crate::gpu::{Binding, Dispatch, Kernel, Recorder, Tensor};

/// softmax(q k^T / sqrt(d)) v, head by head: q [n, 1, length_q, heads * d], k and v [n, 1, length_k, heads * d].
/// With `causal`, a query sees the keys up to its own place.
///
/// # Errors
/// `unsupported-model` where shapes do not fit, d is not a multiple of 4 or above 512.
pub fn attention(
    r: &mut Recorder,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: u32,
    causal: bool,
) -> Result<Tensor> {
    let (length_q, length_k) = (q.h * q.w, k.h * k.w);
    let fits = (k.n, k.c) == (q.n, q.c) && (v.n, v.h * v.w, v.c) == (k.n, length_k, k.c);
    if heads == 0 || !fits || !q.c.is_multiple_of(heads) {
        return Err(Error::unsupported(format!(
            "attention with {heads} heads over {}, {} and {} channels",
            q.c, k.c, v.c
        )));
    }
    let d = q.c / heads;
    if !d.is_multiple_of(4) || d > 512 {
        return Err(Error::unsupported(format!(
            "attention heads of {d} channels: multiples of 4 up to 512 are supported"
        )));
    }
    let d4 = d / 4;
    let out = r.tensor(q.n, q.h, q.w, q.c);
    let (kernel, rows) = if d4 <= 24 {
        // K and V of `keys` keys fill at most 12 KiB of workgroup memory as f32.
        let keys = (384 / d4).clamp(4, 32) / 4 * 4;
        let rows = 64;
        let defines = [("WIDE", wide(r)), ("D4", d4), ("KEYS", keys), ("ROWS", rows)];
        (Kernel::new("attention", include_str!("../../shaders/attention.wgsl"), &defines), rows)
    } else {
        let defines = [("WIDE", wide(r)), ("D4", d4), ("CHUNKS", d4.div_ceil(16)), ("FOUR", 4)];
        (Kernel::new("attention_wide", include_str!("../../shaders/attention_wide.wgsl"), &defines), 16)
    };
    r.dispatch(Dispatch {
        kernel,
        bindings: vec![Binding::Read(q), Binding::Read(k), Binding::Read(v), Binding::Write(out)],
        params: vec![length_q, length_k, heads, (1.0 / (d as f32).sqrt()).to_bits(), causal as u32],
        workgroups: [length_q.div_ceil(rows), heads, q.n],
        flops: 4 * q.n as u64 * q.c as u64 * length_q as u64 * length_k as u64,
    });
    Ok(out)
}
