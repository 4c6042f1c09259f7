//! `ControlNetModel` of diffusers: a copy of the UNet's way down and middle that also sees a picture, and says what to
//! add to the UNet's skips and middle.

use super::config::Fields;
use super::unet::{self, Inputs};
use crate::error::{Error, Result};
use crate::gpu::{Dtype, Recorder, Tensor};
use crate::ops::{self, Activation, Conv, Epilogue};
use serde_json::Value;

/// A ControlNet's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What it shares with the UNet; there is no way up.
    pub unet: unet::Config,
    /// Of the picture: 3.
    pub conditioning_channels: u32,
    /// Widths of the levels from pixels to latents, each half as large as the one before.
    pub conditioning_embedding_out_channels: Vec<u32>,
    /// `controlnet_conditioning_channel_order` "bgr".
    pub bgr: bool,
    /// Of what is added, only the mean over the picture counts.
    pub global_pool_conditions: bool,
}

impl Config {
    /// Reads a ControlNet's `config.json`. Refuses by name every field that changes the computation and that is not
    /// computed here; ignores what [`unet::Config::from_config`] ignores.
    pub fn from_config(config: &Value) -> Result<Config> {
        let f = Fields::diffusers(config, "ControlNetModel")?;
        // Of this class alone the field with the right name counts.
        let heads = match f.get("num_attention_heads") {
            None | Some(Value::Null) => "attention_head_dim",
            Some(_) => "num_attention_heads",
        };
        if f.get("mid_block_type") == Some(&Value::Null) {
            return Err(f.refuse("mid_block_type", "UNetMidBlock2DCrossAttn or UNetMidBlock2D"));
        }
        let order = f.one_of("controlnet_conditioning_channel_order", &["rgb", "bgr"])?;
        Ok(Config {
            unet: unet::Config::way_down(&f, heads)?,
            conditioning_channels: f.size("conditioning_channels", 3)?,
            conditioning_embedding_out_channels: f
                .sizes("conditioning_embedding_out_channels", &[16, 32, 96, 256])?,
            bgr: order == "bgr",
            global_pool_conditions: f.bool("global_pool_conditions", false)?,
        })
    }

    /// Pixels to a latent, each way.
    pub fn scale(&self) -> u32 {
        1 << (self.conditioning_embedding_out_channels.len() - 1)
    }

    /// What [`add`] multiplies each of [`forward`]'s results with: `conditioning_scale`, or in guess mode a tenth of it
    /// for the first skip up to all of it for the middle.
    pub fn scales(&self, conditioning_scale: f32, guess_mode: bool) -> Vec<f32> {
        let count = self.unet.skips().len();
        let last = (count - 1) as f32;
        let scale = |i: usize| match guess_mode && !self.global_pool_conditions {
            true => 10f32.powf(i as f32 / last - 1.0) * conditioning_scale,
            false => conditioning_scale,
        };
        (0..count).map(scale).collect()
    }
}

/// `controlnet_cond_embedding`: a picture `[n, h * scale, w * scale, conditioning_channels]` in 0..1 to what is added
/// to conv_in's output, `[n, h, w, time_proj_dim]`. It knows neither time nor text.
pub fn cond_embedding(config: &Config, r: &mut Recorder, image: Tensor) -> Result<Tensor> {
    let silu = Epilogue { activation: Activation::Silu, ..Default::default() };
    let r = &mut r.scope("controlnet_cond_embedding");
    let widths = &config.conditioning_embedding_out_channels;
    let mut x = ops::conv2d(r, image, "conv_in", widths[0], Conv::k3(), silu)?;
    for (i, &width) in widths.iter().skip(1).enumerate() {
        let name = |place: usize| format!("blocks.{}", 2 * i + place);
        x = ops::conv2d(r, x, &name(0), x.c, Conv::k3(), silu)?;
        x = ops::conv2d(r, x, &name(1), width, Conv::down(), silu)?;
    }
    ops::conv2d(r, x, "conv_out", config.unet.time_proj_dim, Conv::k3(), Epilogue::default())
}

/// What is to be added to the UNet's skips, in their order, and last to its middle; not yet scaled. `cond` is
/// [`cond_embedding`]'s result, for each of the inputs' pictures. With `global_pool_conditions` each is `[n, 1, 1, c]`.
///
/// `UnsupportedModel` where an input's width is not the configuration's, so the parts are not of one model.
pub fn forward(config: &Config, r: &mut Recorder, inputs: &Inputs, cond: Tensor) -> Result<Vec<Tensor>> {
    let down = unet::down(&config.unet, r, inputs, Some(cond))?;
    let skips = down.skips.into_iter().enumerate();
    let skips = skips.map(|(i, x)| (format!("controlnet_down_blocks.{i}"), x));
    skips
        .chain([("controlnet_mid_block".to_owned(), down.mid)])
        .map(|(name, x)| {
            // The mean of what a linear layer makes is what it makes of the mean.
            let x = if config.global_pool_conditions { ops::mean(r, x)? } else { x };
            ops::linear(r, x, &name, x.c, Epilogue::default())
        })
        .collect()
}

/// Inputs of the shapes that [`forward`]'s results have over `n` pictures' latents of `h` x `w`, for the UNet to add.
pub fn residuals(config: &unet::Config, r: &mut Recorder, n: u32, [h, w]: [u32; 2]) -> Vec<Tensor> {
    let side = |len: u32, level: u32| (0..level).fold(len, |len, _| len.div_ceil(2));
    let skips = config.skips();
    skips.iter().map(|&(c, level)| r.input(n, side(h, level), side(w, level), c)).collect()
}

/// Adds [`forward`]'s results, each times its number of `scales` (f32, `[1, 1, 1, results]`), to the pictures of `into`
/// from `first` on, in place.
///
/// `UnsupportedModel` where their shapes differ: the ControlNet is not of the UNet's kind.
pub fn add(r: &mut Recorder, results: &[Tensor], scales: Tensor, into: &[Tensor], first: u32) -> Result<()> {
    if results.len() != into.len() || scales.dtype != Dtype::F32 {
        return Err(Error::unsupported("a ControlNet with another number of layers than the UNet"));
    }
    for (i, (&x, &into)) in (0..).zip(results.iter().zip(into)) {
        ops::add_scaled(r, x, scales, i, into, first)?;
    }
    Ok(())
}
