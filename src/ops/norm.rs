//! Normalisation; statistics are always f32.

use super::{Activation, Input, spread, wide};
use crate::checkpoint::pack::Layout;
use crate::error::{Error, Result};
use crate::gpu::{Binding, Dispatch, Dtype, Kernel, Recorder, Tensor, Weight};

fn affine(r: &mut Recorder, prefix: &str, c: u32) -> Result<[Weight; 2]> {
    let layout = Layout::Vector { len: c as usize };
    Ok([r.weight(format!("{prefix}.weight"), layout)?, r.weight(format!("{prefix}.bias"), layout)?])
}

/// Group normalisation over [h, w, channels of a group], then `activation`.
///
/// # Errors
/// `unsupported-model` if the channels do not divide into `groups`.
pub fn group_norm(
    r: &mut Recorder,
    x: impl Into<Input>,
    prefix: &str,
    groups: u32,
    epsilon: f32,
    activation: Activation,
) -> Result<Tensor> {
    let x = x.into();
    x.check()?;
    let (c, c4) = (x.channels(), x.c4());
    if groups == 0 || groups > 256 || !c.is_multiple_of(groups) {
        return Err(Error::unsupported(format!("{prefix}: {c} channels do not divide into {groups} groups")));
    }
    let [gamma, beta] = affine(r, prefix, c)?;
    let Tensor { n, h, w, .. } = x.first;
    let positions = h * w;
    // A slice a workgroup: enough of them to fill a GPU, each with enough to do.
    let lanes = (256 / c4.min(256)).max(1);
    let slices = positions.div_ceil(lanes * 16).clamp(1, 64);
    let per_slice = positions.div_ceil(slices);
    let slices = positions.div_ceil(per_slice);
    // Pairs (mean, centred squares), counted as vectors of four f32.
    let stats = r.tensor_of(Dtype::F32, n, 1, (slices * groups).div_ceil(2), 4);
    let y = r.tensor(n, h, w, c);
    let params =
        vec![positions, per_slice, slices, c, c4, x.first.c4(), groups, epsilon.to_bits(), activation as u32];
    let mut bindings = vec![Binding::Read(x.first), Binding::Read(x.second.unwrap_or(x.first))];
    let defines = [("WIDE", wide(r))];
    r.dispatch(Dispatch {
        kernel: Kernel::new(
            "group_norm_stats",
            include_str!("../../shaders/group_norm_stats.wgsl"),
            &defines,
        ),
        bindings: bindings.iter().copied().chain([Binding::Write(stats)]).collect(),
        params: params[..7].to_vec(),
        workgroups: [slices, n, 1],
        flops: 4 * n as u64 * positions as u64 * c as u64,
    });
    const SPAN: u32 = 16;
    let [across, down, _] = spread((positions * c4).div_ceil(256 * SPAN));
    bindings.extend([Binding::Read(stats), Binding::Weight(gamma), Binding::Weight(beta), Binding::Write(y)]);
    r.dispatch(Dispatch {
        kernel: Kernel::new(
            "group_norm_apply",
            include_str!("../../shaders/group_norm_apply.wgsl"),
            &[defines.as_slice(), &[("SPAN", SPAN)]].concat(),
        ),
        bindings,
        params,
        workgroups: [across, n, down],
        flops: 4 * n as u64 * positions as u64 * c as u64,
    });
    Ok(y)
}

/// Layer normalisation over the channels of every row.
///
/// # Errors
/// `unsupported-model` where a weight is used twice with two shapes.
pub fn layer_norm(r: &mut Recorder, x: Tensor, prefix: &str, epsilon: f32) -> Result<Tensor> {
    let [gamma, beta] = affine(r, prefix, x.c)?;
    let y = r.tensor(x.n, x.h, x.w, x.c);
    r.dispatch(Dispatch {
        kernel: Kernel::new(
            "layer_norm",
            include_str!("../../shaders/layer_norm.wgsl"),
            &[("WIDE", wide(r))],
        ),
        bindings: vec![Binding::Read(x), Binding::Weight(gamma), Binding::Weight(beta), Binding::Write(y)],
        params: vec![x.rows(), x.c, epsilon.to_bits()],
        workgroups: spread(x.rows()),
        flops: 8 * x.rows() as u64 * x.c as u64,
    });
    Ok(y)
}
