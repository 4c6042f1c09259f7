//! Attention that never materialises scores.

use super::input::Columns;
use crate::error::{Error, Result};
use crate::gpu::Scalar::{self, F32, U32};
use crate::gpu::choices::OFF_SUBGROUP_ATTENTION;
use crate::gpu::{Binding, Dispatch, Kernel, Options, Recorder, Tensor, most_flops};

/// softmax(q k^T / sqrt(d)) v, head by head: q [n, 1, length_q, heads * d], k and v [n, 1, length_k, heads * d].
/// They may be columns of one tensor. With `causal`, a query sees the keys up to its own place.
///
/// # Errors
/// `unsupported-model` where shapes do not fit, d is not a multiple of 4 or above 512.
pub fn attention(
    r: &mut Recorder,
    q: impl Into<Columns>,
    k: impl Into<Columns>,
    v: impl Into<Columns>,
    heads: u32,
    causal: bool,
) -> Result<Tensor> {
    let (q, k, v) = (q.into(), k.into(), v.into());
    let [length_q, length_k, length_v] = [q, k, v].map(|x| x.tensor.h * x.tensor.w);
    let n = q.tensor.n;
    let fits = (k.tensor.n, k.c) == (n, q.c) && (v.tensor.n, length_v, v.c) == (n, length_k, k.c);
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
    let out = r.tensor(n, q.tensor.h, q.tensor.w, q.c);
    let Options { mut subgroup, subgroup_if_tuned, off, .. } = *r.options();
    if subgroup_if_tuned || off & OFF_SUBGROUP_ATTENTION > 0 {
        subgroup = 0;
    }
    let (kernel, rows) = if subgroup > 0 && d4 <= 24 {
        // More rows a lane would not fit into registers.
        let (threads, q_rows) = (64, if d4 <= 12 { 2 } else { 1 });
        let defines = [("D4", d4), ("SUBGROUP", subgroup), ("THREADS", threads), ("QROWS", q_rows)];
        let source = crate::gpu::shader!("attention_subgroup.wgsl");
        (Kernel::new("attention_subgroup", &[source], &defines), threads * q_rows)
    } else if d4 <= 24 {
        // K and V of `keys` keys fill at most 12 KiB of workgroup memory as f32.
        let keys = (384 / d4).clamp(4, 32) / 4 * 4;
        let rows = 64;
        let defines = [("D4", d4), ("KEYS", keys), ("ROWS", rows)];
        (Kernel::new("attention", &[crate::gpu::shader!("attention.wgsl")], &defines), rows)
    } else {
        let defines = [("D4", d4), ("CHUNKS", d4.div_ceil(16)), ("FOUR", 4)];
        (Kernel::new("attention_wide", &[crate::gpu::shader!("attention_wide.wgsl")], &defines), 16)
    };
    let flops_a_row = 4 * n as u64 * q.c as u64 * length_k as u64;
    let most_flops = most_flops(r.options().max_dispatch_flops, &kernel);
    let most = u32::try_from(most_flops / flops_a_row.max(1)).unwrap_or(u32::MAX);
    let rows_at_once = most.max(rows) / rows * rows;
    for first in (0..length_q).step_by(rows_at_once as usize) {
        let count = rows_at_once.min(length_q - first);
        r.dispatch(Dispatch {
            kernel: kernel.clone(),
            bindings: [q, k, v]
                .iter()
                .map(|x| Binding::Read(x.tensor))
                .chain([Binding::Write(out)])
                .collect(),
            params: vec![
                ("length_q", U32(length_q)),
                ("length_k", U32(length_k)),
                ("heads", U32(heads)),
                ("scale", F32(1.0 / (d as f32).sqrt())),
                ("causal", Scalar::flag(causal)),
                ("q_stride", U32(q.stride())),
                ("q_from", U32(q.first())),
                ("k_stride", U32(k.stride())),
                ("k_from", U32(k.first())),
                ("v_stride", U32(v.stride())),
                ("v_from", U32(v.first())),
                ("first_row", U32(first)),
            ],
            workgroups: [count.div_ceil(rows), heads, n],
            flops: flops_a_row * count as u64,
        });
    }
    Ok(out)
}
