//! `ResnetBlock2D` of diffusers, with and without a time embedding.

use crate::error::Result;
use crate::gpu::{Recorder, Tensor};
use crate::ops::{self, Activation, Conv, Epilogue, Input};

/// What all residual blocks of a network have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    pub groups: u32,
    pub eps: f32,
}

/// One block, `out` channels wide. `x` may be two pictures whose channels are joined (the UNet's skips).
/// `temb` `[n, 1, 1, time_embed_dim]` has been through silu: every block would do so anew.
pub fn resnet(
    r: &mut Recorder,
    x: impl Into<Input>,
    temb: Option<Tensor>,
    prefix: &str,
    out: u32,
    norm: Norm,
) -> Result<Tensor> {
    let x = x.into();
    let h = ops::group_norm(r, x, &format!("{prefix}.norm1"), norm.groups, norm.eps, Activation::Silu)?;
    let channel_add = match temb {
        Some(t) => Some(ops::linear(r, t, &format!("{prefix}.time_emb_proj"), out, true, Epilogue::default())?),
        None => None,
    };
    let plus_time = Epilogue { channel_add, ..Default::default() };
    let h = ops::conv2d(r, h, &format!("{prefix}.conv1"), out, true, Conv::k3(), plus_time)?;
    let h = ops::group_norm(r, h, &format!("{prefix}.norm2"), norm.groups, norm.eps, Activation::Silu)?;
    let shortcut = if x.second.is_none() && x.first.c == out {
        x.first
    } else {
        ops::conv2d(r, x, &format!("{prefix}.conv_shortcut"), out, true, Conv::k1(), Epilogue::default())?
    };
    let plus_shortcut = Epilogue { residual: Some(shortcut), ..Default::default() };
    ops::conv2d(r, h, &format!("{prefix}.conv2"), out, true, Conv::k3(), plus_shortcut)
}
