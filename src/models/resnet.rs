//! `ResnetBlock2D` of diffusers, with and without a time embedding.

use crate::error::{Error, Result};
use crate::gpu::{Recorder, Tensor};
use crate::ops::{self, Activation, Columns, Conv, Epilogue, Input};
use std::collections::BTreeMap;

/// What all residual blocks of a network have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    pub groups: u32,
    pub eps: f32,
}

/// `time_emb_proj` of all of a network's blocks: they read the same embedding, so that one product makes them all.
pub struct TimeProjections {
    /// By the layer's whole name.
    of: BTreeMap<String, Columns>,
}

impl TimeProjections {
    /// `temb` `[n, 1, 1, time_embed_dim]` has been through silu, which every block would do anew. `blocks`: scope and
    /// width of each.
    pub fn record(r: &mut Recorder, temb: Tensor, blocks: &[(String, u32)]) -> Result<Self> {
        let names: Vec<String> = blocks.iter().map(|(block, _)| format!("{block}.time_emb_proj")).collect();
        let parts: Vec<(&str, u32)> = names.iter().zip(blocks).map(|(name, (_, c))| (&**name, *c)).collect();
        let made = ops::linear_stack(r, temb, &parts)?;
        Ok(Self { of: names.iter().map(|name| r.path(name)).zip(made).collect() })
    }

    /// That of the block in whose scope `r` is.
    fn get(&self, r: &Recorder) -> Result<Columns> {
        let name = r.path("time_emb_proj");
        let own = self.of.get(&name).copied();
        own.ok_or_else(|| Error::unsupported(format!("{name} has no time embedding")))
    }
}

/// The block in whose scope `r` is, `out` channels wide. `x` may be two pictures whose channels are joined (the
/// UNet's skips).
pub fn resnet(
    r: &mut Recorder,
    x: impl Into<Input>,
    temb: Option<&TimeProjections>,
    out: u32,
    norm: Norm,
) -> Result<Tensor> {
    let x = x.into();
    let h = ops::group_norm(r, x, "norm1", norm.groups, norm.eps, Activation::Silu)?;
    let channel_add = temb.map(|t| t.get(r)).transpose()?;
    let plus_time = Epilogue { channel_add, ..Default::default() };
    let h = ops::conv2d(r, h, "conv1", out, Conv::k3(), plus_time)?;
    let h = ops::group_norm(r, h, "norm2", norm.groups, norm.eps, Activation::Silu)?;
    let shortcut = if x.second.is_none() && x.first.c == out {
        x.first
    } else if temb.is_some() {
        return ops::conv2d_with_shortcut(r, h, "conv2", x, "conv_shortcut", out);
    } else {
        // An autoencoder's weights must lie apart: at large sizes its shortcuts are made in bands.
        ops::conv2d(r, x, "conv_shortcut", out, Conv::k1(), Epilogue::default())?
    };
    let plus_shortcut = Epilogue { residual: Some(shortcut), ..Default::default() };
    ops::conv2d(r, h, "conv2", out, Conv::k3(), plus_shortcut)
}
