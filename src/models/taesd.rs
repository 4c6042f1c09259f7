//! `AutoencoderTiny` of diffusers (TAESD): a decoder of plain convolutions, small enough for a picture of
//! every step.

use super::config::Fields;
use crate::error::Result;
use crate::gpu::{Recorder, Tensor};
use crate::ops::{self, Activation, Conv, Epilogue};
use serde_json::Value;

/// What the decoder needs of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub latent_channels: u32,
    pub out_channels: u32,
    /// Width of each level, from the latents outwards.
    pub decoder_block_out_channels: Vec<u32>,
    /// Blocks of each level.
    pub num_decoder_blocks: Vec<u32>,
    /// The UNet's latents are the decoder's times this.
    pub scaling_factor: f32,
}

impl Config {
    /// Reads the decoder's part of `config.json`. Refuses by name every field that changes its computation
    /// and that is not computed here.
    pub fn from_config(config: &Value) -> Result<Config> {
        let f = Fields::diffusers(config, "AutoencoderTiny")?;
        f.one_of("act_fn", &["relu"])?;
        f.one_of("upsample_fn", &["nearest"])?;
        f.must_be_number("upsampling_scaling_factor", 2.0)?;
        f.must_be_number("shift_factor", 0.0)?;
        let num_decoder_blocks = f.sizes("num_decoder_blocks", &[3, 3, 3, 1])?;
        let decoder_block_out_channels = f.sizes("decoder_block_out_channels", &[64, 64, 64, 64])?;
        // A level's convolution does not change its width, so neighbours must agree.
        let one_width = decoder_block_out_channels.windows(2).all(|w| w[0] == w[1]);
        if decoder_block_out_channels.len() != num_decoder_blocks.len() || !one_width {
            return Err(f.refuse("decoder_block_out_channels", "one width for each of num_decoder_blocks"));
        }
        Ok(Config {
            latent_channels: f.size("latent_channels", 4)?,
            out_channels: f.size("out_channels", 3)?,
            decoder_block_out_channels,
            num_decoder_blocks,
            scaling_factor: f.f32("scaling_factor", 1.0)?,
        })
    }
}

/// Latents `[n, h, w, latent_channels]`, divided by `scaling_factor`, to pictures
/// `[n, h * 2^(levels - 1), .., out_channels]`, nominally in -1..1. Weight names count diffusers' `Sequential`,
/// in which activations and upsamplers have places too.
pub fn decode(config: &Config, r: &mut Recorder, latents: Tensor) -> Result<Tensor> {
    let relu = Epilogue { activation: Activation::Relu, ..Default::default() };
    let first = config.decoder_block_out_channels.first().copied().unwrap_or_default();
    let r = &mut r.scope("decoder.layers");
    let x = ops::activate(r, latents, Activation::TanhClamp)?;
    let mut x = ops::conv2d(r, x, "0", first, Conv::k3(), relu)?;
    let mut place = 2; // 0: convolution, 1: relu
    let levels = config.num_decoder_blocks.len();
    for (i, &blocks) in config.num_decoder_blocks.iter().enumerate() {
        for _ in 0..blocks {
            x = block(&mut r.scope(format_args!("{place}.conv")), x)?;
            place += 1;
        }
        if i + 1 < levels {
            let conv = Conv { bias: false, ..Conv::up_to(2 * x.h, 2 * x.w) };
            x = ops::conv2d(r, x, &(place + 1).to_string(), x.c, conv, Epilogue::default())?;
            place += 2;
        }
    }
    let x = ops::conv2d(r, x, &place.to_string(), config.out_channels, Conv::k3(), Epilogue::default())?;
    // 0..1 to -1..1
    ops::affine(r, x, 2.0, -1.0)
}

/// `AutoencoderTinyBlock`: three convolutions with relu between them, and relu of their sum with the input.
fn block(r: &mut Recorder, x: Tensor) -> Result<Tensor> {
    let relu = Epilogue { activation: Activation::Relu, ..Default::default() };
    let h = ops::conv2d(r, x, "0", x.c, Conv::k3(), relu)?;
    let h = ops::conv2d(r, h, "2", x.c, Conv::k3(), relu)?;
    let plus_x = Epilogue { residual: Some(x), post: Activation::Relu, ..Default::default() };
    ops::conv2d(r, h, "4", x.c, Conv::k3(), plus_x)
}
