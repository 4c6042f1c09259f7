//! What is looked at while a network runs (see [`Probe`]): recorded where it is asked for, and nowhere else.

use super::attention::rows_at_once;
use super::input::{Columns, spread};
use crate::gpu::Scalar::{F32, U32};
use crate::gpu::{Binding, BlockProbe, Dispatch, Dtype, Kernel, MapProbe, Probe, Recorder, Tensor};

/// Channels of a block that are shown.
const SHOWN: u32 = 8;
/// Positions along a map's shorter side, at the least. Coarser layers do not look at a word where the thing is: the
/// embedded model's of 4x4 look beside it (correlation with its place -0.3 on the average, where those of 8x8 have 0.9).
const LEAST_SIDE: u32 = 8;

/// Adds to the maps of this size how much of the queries' attention each key gets, of queries and keys as
/// [`attention`](super::attention) takes them. Not in a UNet's middle (as DAAM, Tang et al. 2022), and of layers with
/// maps of fewer than 8 positions a side only those of the first size, which is a UNet's finest.
pub fn watch_attention(r: &mut Recorder, q: Tensor, k: Columns, heads: u32) {
    let Some(Probe { attention: true, picture, .. }) = r.probe else { return };
    if r.path("").starts_with("mid_block") || heads == 0 {
        return;
    }
    let coarse = q.h.min(q.w) < LEAST_SIDE;
    let first = r.probe.iter().find_map(|probe| probe.maps.first());
    if coarse && first.is_some_and(|map| (map.tensor.h, map.tensor.w) != (q.h, q.w)) {
        return;
    }
    let same = |map: &&mut MapProbe| (map.tensor.h, map.tensor.w) == (q.h, q.w);
    let known = r.probe.iter_mut().flat_map(|probe| &mut probe.maps).find(same);
    let known = known.map(|map| {
        map.layers += 1;
        map.tensor
    });
    let (length_q, length_k) = (q.h * q.w, k.tensor.h * k.tensor.w);
    let out = known.unwrap_or_else(|| r.tensor_of(Dtype::F32, 1, q.h, q.w, length_k));
    let d = q.c / heads;
    let kernel = Kernel::new("map_attention", &[crate::gpu::shader!("attention_map.wgsl")], &[]);
    // Scores are made twice.
    let flops_a_row = 4 * q.c as u64 * length_k as u64;
    let at_once = rows_at_once(r, &kernel, flops_a_row, 64);
    for first in (0..length_q).step_by(at_once as usize) {
        let end = length_q.min(first + at_once);
        r.dispatch(Dispatch {
            kernel: kernel.clone(),
            bindings: vec![Binding::Read(q), Binding::Read(k.tensor), Binding::Write(out)],
            params: vec![
                ("length_q", U32(length_q)),
                ("length_k", U32(length_k)),
                ("heads", U32(heads)),
                ("d4", U32(d / 4)),
                ("scale", F32(1.0 / (d as f32).sqrt())),
                ("q_stride", U32(q.c4())),
                ("q_from", U32(0)),
                ("k_stride", U32(k.stride())),
                ("k_from", U32(k.first())),
                ("out_c4", U32(out.c4())),
                ("picture", U32(picture)),
                ("first_row", U32(first)),
                ("end_row", U32(end)),
                ("add", U32(u32::from(known.is_some()))),
            ],
            workgroups: [(end - first).div_ceil(64), 1, 1],
            flops: flops_a_row * (end - first) as u64,
        });
    }
    if known.is_none() {
        r.output(out);
        r.probe.iter_mut().for_each(|probe| probe.maps.push(MapProbe { tensor: out, layers: 1 }));
    }
}

/// Keeps the first channels of `x`, which a block called `name` made.
pub fn watch_block(r: &mut Recorder, name: &str, x: Tensor) {
    let Some(Probe { activations: true, picture, .. }) = r.probe else { return };
    let end = r.recorded();
    let out = r.tensor_of(Dtype::F32, 1, x.h, x.w, x.c.min(SHOWN));
    let size = out.rows() * out.c4();
    let wide = u32::from(x.dtype == Dtype::F32);
    r.dispatch(Dispatch {
        kernel: Kernel::new("channels", &[crate::gpu::shader!("channels.wgsl")], &[("F32", wide)]),
        bindings: vec![Binding::Read(x), Binding::Write(out)],
        params: vec![
            ("size", U32(size)),
            ("first", U32(picture * x.h * x.w)),
            ("c4", U32(x.c4())),
            ("out_c4", U32(out.c4())),
        ],
        workgroups: spread(size.div_ceil(256)),
        flops: size as u64,
    });
    r.output(out);
    let block = BlockProbe { name: name.to_owned(), tensor: out, channels: x.c, end };
    r.probe.iter_mut().for_each(|probe| probe.blocks.push(block.clone()));
}
