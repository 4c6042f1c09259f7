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
    of: BTreeMap<String, Columns>,
}

impl TimeProjections {
    /// `temb` `[n, 1, 1, time_embed_dim]` has been through silu, which every block would do anew. `blocks`: prefix and
    /// width of each.
    pub fn record(r: &mut Recorder, temb: Tensor, blocks: &[(String, u32)]) -> Result<Self> {
        let names: Vec<String> = blocks.iter().map(|(prefix, _)| format!("{prefix}.time_emb_proj")).collect();
        let parts: Vec<(&str, u32)> = names.iter().zip(blocks).map(|(name, (_, c))| (&**name, *c)).collect();
        let made = ops::linear_stack(r, temb, &parts, true)?;
        Ok(Self { of: blocks.iter().map(|(prefix, _)| prefix.clone()).zip(made).collect() })
    }

    fn get(&self, prefix: &str) -> Result<Columns> {
        let own = self.of.get(prefix).copied();
        own.ok_or_else(|| Error::unsupported(format!("{prefix} has no time embedding")))
    }
}

/// One block, `out` channels wide. `x` may be two pictures whose channels are joined (the UNet's skips).
pub fn resnet(
    r: &mut Recorder,
    x: impl Into<Input>,
    temb: Option<&TimeProjections>,
    prefix: &str,
    out: u32,
    norm: Norm,
) -> Result<Tensor> {
    let x = x.into();
    let h = ops::group_norm(r, x, &format!("{prefix}.norm1"), norm.groups, norm.eps, Activation::Silu)?;
    let channel_add = temb.map(|t| t.get(prefix)).transpose()?;
    let plus_time = Epilogue { channel_add, ..Default::default() };
    let h = ops::conv2d(r, h, &format!("{prefix}.conv1"), out, true, Conv::k3(), plus_time)?;
    let h = ops::group_norm(r, h, &format!("{prefix}.norm2"), norm.groups, norm.eps, Activation::Silu)?;
    let (conv2, conv_shortcut) = (format!("{prefix}.conv2"), format!("{prefix}.conv_shortcut"));
    let shortcut = if x.second.is_none() && x.first.c == out {
        x.first
    } else if temb.is_some() {
        return ops::conv2d_with_shortcut(r, h, &conv2, x, &conv_shortcut, out);
    } else {
        // An autoencoder's weights must lie apart: at large sizes its shortcuts are made in bands.
        ops::conv2d(r, x, &conv_shortcut, out, true, Conv::k1(), Epilogue::default())?
    };
    let plus_shortcut = Epilogue { residual: Some(shortcut), ..Default::default() };
    ops::conv2d(r, h, &conv2, out, true, Conv::k3(), plus_shortcut)
}
