//! `T2IAdapter` of diffusers (Mou et al. 2023, arXiv 2302.08453): a picture to what is added inside the UNet's way down. It
//! knows neither time nor text.

use super::config::Fields;
use crate::error::Result;
use crate::gpu::{Recorder, Tensor};
use crate::ops::{self, Activation, Conv, Epilogue};
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A level for each block, each half as large as the one before.
    Full,
    /// SDXL's: four levels, of which the third alone is half as large as the one before.
    FullXl,
    /// As `Full`, narrow inside.
    Light,
}

/// An adapter's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Of the picture: 3, or 1 for a grey one.
    pub in_channels: u32,
    /// Pixels to a position of the first level, each way.
    pub downscale_factor: u32,
    channels: Vec<u32>,
    num_res_blocks: u32,
    kind: Kind,
}

/// A block: where it stands in `body`, and whether it begins by halving.
struct Block {
    width: u32,
    halves: bool,
}

impl Config {
    pub const CLASS: &str = "T2IAdapter";

    /// Whether a `config.json` is of one.
    pub fn is_of(config: &Value) -> bool {
        config.get("_class_name").and_then(Value::as_str) == Some(Self::CLASS)
    }

    /// Reads an adapter's `config.json`. Refuses by name every field that changes the computation and is not computed here.
    pub fn from_config(config: &Value) -> Result<Config> {
        let f = Fields::diffusers(config, Self::CLASS)?;
        let kind = match f.one_of("adapter_type", &["full_adapter", "full_adapter_xl", "light_adapter"])? {
            "light_adapter" => Kind::Light,
            "full_adapter_xl" => Kind::FullXl,
            _ => Kind::Full,
        };
        let channels = f.sizes("channels", &[320, 640, 1280, 1280])?;
        if channels.len() > 8 || channels.iter().any(|c| !c.is_multiple_of(16)) {
            return Err(f.refuse("channels", "up to eight multiples of 16"));
        }
        let in_channels = f.size("in_channels", 3)?;
        if ![1, 3].contains(&in_channels) {
            return Err(f.refuse("in_channels", "1 or 3, a grey picture or colours"));
        }
        let downscale_factor = f.size("downscale_factor", if kind == Kind::FullXl { 16 } else { 8 })?;
        if downscale_factor > 64 || !downscale_factor.is_multiple_of(2) {
            return Err(f.refuse("downscale_factor", "an even number up to 64"));
        }
        let num_res_blocks = f.size("num_res_blocks", 2)?;
        Ok(Config { in_channels, downscale_factor, channels, num_res_blocks, kind })
    }

    fn blocks(&self) -> Vec<Block> {
        let widths = self.channels.iter().copied().enumerate();
        let mut blocks: Vec<Block> = widths
            .map(|(i, width)| {
                let halves = match self.kind {
                    Kind::FullXl => i == 2,
                    Kind::Full | Kind::Light => i > 0,
                };
                Block { width, halves }
            })
            .collect();
        if self.kind == Kind::Light {
            blocks.extend(self.channels.last().map(|&width| Block { width, halves: true }));
        }
        blocks
    }

    /// Width and level of each feature, as a UNet's `Config::features` has them, beside a UNet of so many pixels to a latent;
    /// `None` where its first level is no level of that UNet.
    pub fn features(&self, scale: u32) -> Option<Vec<(u32, u32)>> {
        let first = match self.downscale_factor.checked_div(scale)? {
            times if times.is_power_of_two() && times * scale == self.downscale_factor => times.ilog2(),
            _ => return None,
        };
        let level = |level: &mut u32, block: Block| {
            *level += u32::from(block.halves);
            Some((block.width, *level))
        };
        Some(self.blocks().into_iter().scan(first, level).collect())
    }
}

/// Inputs of [`forward`] over a picture of this height and width, which are multiples of `downscale_factor`: pixels in 0..1
/// as `PixelUnshuffle` lays them.
pub fn input(config: &Config, r: &mut Recorder, [height, width]: [u32; 2]) -> Tensor {
    let f = config.downscale_factor;
    r.input(1, height / f, width / f, config.in_channels * f * f)
}

/// `PixelUnshuffle`: pixels, NHWC, to squares of `factor` a side as channels, colour by colour.
pub fn unshuffle(pixels: &[f32], width: usize, channels: usize, factor: usize) -> Vec<f32> {
    let height = pixels.len() / (width * channels).max(1);
    let mut out = Vec::with_capacity(pixels.len());
    for y in (0..height / factor).map(|y| y * factor) {
        for x in (0..width / factor).map(|x| x * factor) {
            for c in 0..channels {
                for dy in 0..factor {
                    let row = ((y + dy) * width + x) * channels + c;
                    out.extend((0..factor).map(|dx| pixels[row + dx * channels]));
                }
            }
        }
    }
    out
}

/// What is added inside the UNet's way down, in its order.
///
/// # Errors
/// None today.
pub fn forward(config: &Config, r: &mut Recorder, image: Tensor) -> Result<Vec<Tensor>> {
    let r = &mut r.scope("adapter");
    let plain = Epilogue::default();
    let mut x = image;
    if config.kind != Kind::Light {
        let first = config.channels.first().copied().unwrap_or_default();
        x = ops::conv2d(r, x, "conv_in", first, Conv::k3(), plain)?;
    }
    let mut features = Vec::new();
    for (i, Block { width, halves }) in config.blocks().into_iter().enumerate() {
        let r = &mut r.scope(format_args!("body.{i}"));
        if halves {
            x = ops::average(r, x)?;
        }
        let light = config.kind == Kind::Light;
        let inner = if light { width / 4 } else { width };
        if light || x.c != width {
            x = ops::conv2d(r, x, "in_conv", inner, Conv::k1(), plain)?;
        }
        for j in 0..config.num_res_blocks {
            x = resnet(&mut r.scope(format_args!("resnets.{j}")), x, light)?;
        }
        if light {
            x = ops::conv2d(r, x, "out_conv", width, Conv::k1(), plain)?;
        }
        features.push(x);
    }
    Ok(features)
}

/// Two convolutions, added to their input; the second sees one pixel, of a light adapter three by three.
fn resnet(r: &mut Recorder, x: Tensor, light: bool) -> Result<Tensor> {
    let relu = Epilogue { activation: Activation::Relu, ..Default::default() };
    let h = ops::conv2d(r, x, "block1", x.c, Conv::k3(), relu)?;
    let plus_x = Epilogue { residual: Some(x), ..Default::default() };
    ops::conv2d(r, h, "block2", x.c, if light { Conv::k3() } else { Conv::k1() }, plus_x)
}

/// Adds features, each times the one number of `scale`, to every picture of `into`, a UNet's `Inputs::features`, in place.
/// One for the middle that is not of its size is left out, as diffusers does, and what is behind it. Gives how many there are.
///
/// # Errors
/// `unsupported-model` where another is not of its place's size: the adapter is not of the UNet's kind.
pub fn add(
    r: &mut Recorder,
    features: &[Tensor],
    scale: Tensor,
    into: &[Tensor],
    blocks: usize,
) -> Result<usize> {
    let mut count = 0;
    for (i, (&x, &into)) in features.iter().zip(into).enumerate() {
        if i == blocks && (x.h, x.w, x.c) != (into.h, into.w, into.c) {
            break;
        }
        (0..into.n).try_for_each(|picture| ops::add_scaled(r, x, scale, 0, into, picture))?;
        count += 1;
    }
    Ok(count)
}
