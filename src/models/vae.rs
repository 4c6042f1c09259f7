//! `AutoencoderKL` of diffusers: pictures to latents and back.

use super::config::Fields;
use super::resnet::{Norm, resnet};
use crate::error::{Error, Result};
use crate::gpu::{Recorder, Tensor};
use crate::ops::{self, Activation, Conv, Epilogue, GroupStats, Rows};
use serde_json::Value;
use std::ops::Range;

/// Epsilon of every norm; diffusers does not configure it here.
const EPS: f32 = 1e-6;

/// Of a level of the decoder.
const UPSAMPLER: &str = "upsamplers.0.conv";

/// An autoencoder's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub in_channels: u32,
    pub out_channels: u32,
    pub latent_channels: u32,
    pub block_out_channels: Vec<u32>,
    pub layers_per_block: u32,
    /// The UNet's latents are the encoder's times this.
    pub scaling_factor: f32,
    /// Mean and deviation of each channel of the encoder's latents, of which those of Playground v2.5 are freed first.
    pub latents: Option<Vec<[f32; 2]>>,
    /// The activations overflow f16 (SDXL's VAE).
    pub force_upcast: bool,
    use_quant_conv: bool,
    use_post_quant_conv: bool,
    mid_block_add_attention: bool,
    norm_num_groups: u32,
}

impl Config {
    /// Reads `vae/config.json`. Refuses by name every field that changes the computation and that is not
    /// computed here.
    pub fn from_config(config: &Value) -> Result<Config> {
        let f = Fields::diffusers(config, "AutoencoderKL")?;
        f.act_fn_is_silu()?;
        if f.get("shift_factor") != Some(&Value::Null) {
            f.must_be_number("shift_factor", 0.0)?;
        }
        let block_out_channels = f.sizes("block_out_channels", &[64])?;
        for (field, only) in
            [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")]
        {
            let types = f.texts(field, &[only])?;
            if types.len() != block_out_channels.len() || types.iter().any(|t| *t != only) {
                return Err(f.refuse(field, &format!("{only} for each of block_out_channels")));
            }
        }
        let norm_num_groups = f.size("norm_num_groups", 32)?;
        if norm_num_groups > 256 || block_out_channels.iter().any(|c| !c.is_multiple_of(norm_num_groups)) {
            return Err(
                f.refuse("norm_num_groups", "a divisor of every one of block_out_channels, up to 256")
            );
        }
        let mid_block_add_attention = f.bool("mid_block_add_attention", true)?;
        // The middle attention has one head, as wide as the last block.
        if mid_block_add_attention
            && block_out_channels.last().is_some_and(|c| !c.is_multiple_of(4) || *c > 1024)
        {
            return Err(f.refuse("block_out_channels", "a last width of at most 1024, a multiple of 4"));
        }
        let latent_channels = f.size("latent_channels", 4)?;
        Ok(Config {
            in_channels: f.size("in_channels", 3)?,
            out_channels: f.size("out_channels", 3)?,
            latent_channels,
            latents: normalisation(&f, latent_channels)?,
            block_out_channels,
            layers_per_block: f.size("layers_per_block", 1)?,
            scaling_factor: f.f32("scaling_factor", 0.18215)?,
            force_upcast: f.bool("force_upcast", true)?,
            use_quant_conv: f.bool("use_quant_conv", true)?,
            use_post_quant_conv: f.bool("use_post_quant_conv", true)?,
            mid_block_add_attention,
            norm_num_groups,
        })
    }

    /// Pixels to a latent, each way: a level less than there are blocks halves both.
    pub fn scale(&self) -> u32 {
        1 << (self.block_out_channels.len() - 1)
    }

    fn norm(&self) -> Norm {
        Norm { groups: self.norm_num_groups, eps: EPS }
    }

    /// Width of the middle.
    fn widest(&self) -> u32 {
        self.block_out_channels.last().copied().unwrap_or_default()
    }
}

/// `latents_mean` and `latents_std`, which diffusers reads where both are there.
fn normalisation(f: &Fields, channels: u32) -> Result<Option<Vec<[f32; 2]>>> {
    let list = |field: &str, usable: fn(f32) -> bool| {
        let value = f.get(field).filter(|value| !value.is_null());
        let Some(value) = value else { return Ok(None) };
        let numbers = value.as_array().map(|list| list.iter().map(|v| v.as_f64().map(|v| v as f32)));
        let numbers = numbers.and_then(|numbers| numbers.collect::<Option<Vec<f32>>>());
        let numbers = numbers.filter(|n| n.len() == channels as usize && n.iter().all(|&v| usable(v)));
        let wanted = || format!("a list of {channels} numbers, of deviations above 0");
        numbers.map(Some).ok_or_else(|| f.refuse(field, &wanted()))
    };
    let means = list("latents_mean", f32::is_finite)?;
    let deviations = list("latents_std", |v| v.is_normal() && v > 0.0)?;
    Ok(means.zip(deviations).map(|(m, d)| m.into_iter().zip(d).map(|(m, d)| [m, d]).collect()))
}

/// Latents `[n, h, w, latent_channels]`, already divided by `scaling_factor`, to pictures
/// `[n, h * scale, w * scale, out_channels]`, nominally in -1..1.
pub fn decode(config: &Config, r: &mut Recorder, latents: Tensor) -> Result<Tensor> {
    decode_in_bands(config, r, latents, 64 << 20)
}

/// [`decode`], with no tensor larger than `most` bytes where a level begins that is narrower than the one before:
/// what is upsampled there is twice as wide as all that follows, and made a few rows at a time, twice.
pub fn decode_in_bands(config: &Config, r: &mut Recorder, latents: Tensor, most: u64) -> Result<Tensor> {
    let mut x = latents;
    if config.use_post_quant_conv {
        x = ops::conv2d(r, x, "post_quant_conv", latents.c, Conv::k1(), Epilogue::default())?;
    }
    let r = &mut r.scope("decoder");
    x = ops::conv2d(r, x, "conv_in", config.widest(), Conv::k3(), Epilogue::default())?;
    x = mid_block(config, &mut r.scope("mid_block"), x)?;
    let widths: Vec<u32> = config.block_out_channels.iter().rev().copied().collect();
    // Level and block that the upsampling before it has made already.
    let mut begun = (usize::MAX, 0);
    for (i, &channels) in widths.iter().enumerate() {
        for j in 0..=config.layers_per_block {
            if (i, j) == begun {
                continue;
            }
            let r = &mut r.scope(format_args!("up_blocks.{i}.resnets.{j}"));
            x = resnet(r, x, None, channels, config.norm())?;
        }
        if i + 1 < config.block_out_channels.len() {
            let next = widths[i + 1];
            if x.n == 1 && next < channels && 4 * x.bytes() > most {
                x = upsample_and_resnet(config, r, x, i, next, most)?;
                begun = (i + 1, 0);
            } else {
                let (conv, e) = (Conv::up_to(2 * x.h, 2 * x.w), Epilogue::default());
                let r = &mut r.scope(format_args!("up_blocks.{i}"));
                x = ops::conv2d(r, x, UPSAMPLER, channels, conv, e)?;
            }
        }
    }
    norm_and_conv_out(config, r, x, config.out_channels)
}

/// The upsampling after the decoder's level `i`, then the next one's first block, `out` channels wide. What lies
/// between them is made in bands, once for its norm's statistics and once, a row more on each side, for what reads
/// it.
fn upsample_and_resnet(
    config: &Config,
    r: &mut Recorder,
    x: Tensor,
    i: usize,
    out: u32,
    most: u64,
) -> Result<Tensor> {
    let (h, w, c) = (2 * x.h, 2 * x.w, x.c);
    // Whole slices of the statistics, and an eighth of what a tensor may take.
    let row = r.options().activations.size() * w as u64 * c as u64;
    let band = u32::try_from(most / 8 / row).unwrap_or(h).clamp(8, h.max(8)) / 8 * 8;
    let per_slice = [8, 4, 2, 1].into_iter().find(|rows| h.is_multiple_of(*rows)).unwrap_or(1);
    let bands = || (0..h).step_by(band as usize).map(|from| from..(from + band).min(h));
    let upsampled = |r: &mut Recorder, rows: Range<u32>| {
        let (from, whole) = (rows.start, Rows { tensor: x, from: 0, height: x.h });
        let r = &mut r.scope(format_args!("up_blocks.{i}"));
        let tensor = ops::conv2d_rows(r, whole, UPSAMPLER, c, Conv::up_to(h, w), rows, None)?;
        Ok::<_, Error>(Rows { tensor, from, height: h })
    };
    let stats = GroupStats::new(r, 1, h * w, per_slice * w, c, config.norm_num_groups)?;
    for rows in bands() {
        let part = upsampled(r, rows)?;
        stats.gather(r, part.tensor, part.from / per_slice);
    }
    let (hidden, shortcut) = (r.tensor(1, h, w, out), r.tensor(1, h, w, out));
    for rows in bands() {
        let part = upsampled(r, rows.start.saturating_sub(1)..(rows.end + 1).min(h))?;
        let r = &mut r.scope(format_args!("up_blocks.{}.resnets.0", i + 1));
        ops::conv2d_rows(r, part, "conv_shortcut", out, Conv::k1(), rows.clone(), Some(shortcut))?;
        let tensor = stats.apply(r, part.tensor, "norm1", EPS, Activation::Silu)?;
        ops::conv2d_rows(r, Rows { tensor, ..part }, "conv1", out, Conv::k3(), rows, Some(hidden))?;
    }
    let r = &mut r.scope(format_args!("up_blocks.{}.resnets.0", i + 1));
    let h = ops::group_norm(r, hidden, "norm2", config.norm_num_groups, EPS, Activation::Silu)?;
    let plus_shortcut = Epilogue { residual: Some(shortcut), ..Default::default() };
    ops::conv2d(r, h, "conv2", out, Conv::k3(), plus_shortcut)
}

/// Pictures `[n, h * scale, w * scale, in_channels]` in -1..1 to the moments of their latents,
/// `[n, h, w, 2 * latent_channels]`; [`posterior`] reads them.
pub fn encode(config: &Config, r: &mut Recorder, image: Tensor) -> Result<Tensor> {
    let x = encoder(config, &mut r.scope("encoder"), image)?;
    if config.use_quant_conv {
        return ops::conv2d(r, x, "quant_conv", x.c, Conv::k1(), Epilogue::default());
    }
    Ok(x)
}

fn encoder(config: &Config, r: &mut Recorder, image: Tensor) -> Result<Tensor> {
    let first = config.block_out_channels.first().copied().unwrap_or_default();
    let mut x = ops::conv2d(r, image, "conv_in", first, Conv::k3(), Epilogue::default())?;
    for (i, &channels) in config.block_out_channels.iter().enumerate() {
        let r = &mut r.scope(format_args!("down_blocks.{i}"));
        for j in 0..config.layers_per_block {
            x = resnet(&mut r.scope(format_args!("resnets.{j}")), x, None, channels, config.norm())?;
        }
        if i + 1 < config.block_out_channels.len() {
            let (conv, e) = (Conv::down_asymmetric(), Epilogue::default());
            x = ops::conv2d(r, x, "downsamplers.0.conv", channels, conv, e)?;
        }
    }
    x = mid_block(config, &mut r.scope("mid_block"), x)?;
    norm_and_conv_out(config, r, x, 2 * config.latent_channels)
}

/// Mean and standard deviation of the latents, each `[n, h, w, latent_channels]`, from the moments that
/// [`encode`] gives (diffusers' `DiagonalGaussianDistribution`). Not yet times `scaling_factor`.
pub fn posterior(config: &Config, moments: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let c = config.latent_channels as usize;
    let pixels = moments.chunks_exact(2 * c);
    let mean = pixels.clone().flat_map(|p| &p[..c]).copied().collect();
    let std = pixels.flat_map(|p| &p[c..]).map(|logvar| (0.5 * logvar.clamp(-30.0, 20.0)).exp()).collect();
    (mean, std)
}

/// `UNetMidBlock2D`: resnet, attention over all pixels with one head, resnet.
fn mid_block(config: &Config, r: &mut Recorder, x: Tensor) -> Result<Tensor> {
    let mut x = resnet(&mut r.scope("resnets.0"), x, None, x.c, config.norm())?;
    if config.mid_block_add_attention {
        let r = &mut r.scope("attentions.0");
        let h = ops::group_norm(r, x, "group_norm", config.norm_num_groups, EPS, Activation::None)?;
        let qkv = ops::linear_stack(r, h, &[("to_q", x.c), ("to_k", x.c), ("to_v", x.c)])?;
        let h = ops::attention(r, qkv[0], qkv[1], qkv[2], 1, false)?;
        let plus_x = Epilogue { residual: Some(x), ..Default::default() };
        x = ops::linear(r, h, "to_out.0", x.c, plus_x)?;
    }
    resnet(&mut r.scope("resnets.1"), x, None, x.c, config.norm())
}

/// The end of either half.
fn norm_and_conv_out(config: &Config, r: &mut Recorder, x: Tensor, out: u32) -> Result<Tensor> {
    let x = ops::group_norm(r, x, "conv_norm_out", config.norm_num_groups, EPS, Activation::Silu)?;
    ops::conv2d(r, x, "conv_out", out, Conv::k3(), Epilogue::default())
}
