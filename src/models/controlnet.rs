//! `ControlNetModel` of diffusers: a copy of the UNet's way down and middle that also sees a picture, and says what to
//! add to the UNet's skips and middle. And `ControlNetUnionModel` (github.com/xinsir6/ControlNetPlus), which is told what
//! kind of picture it sees, and sees several at once.

use super::config::Fields;
use super::unet::{self, Inputs};
use crate::checkpoint::configs::CONTROL_LORA;
use crate::error::{Error, Result};
use crate::gpu::{Dtype, Recorder, Tensor};
use crate::ops::{self, Activation, Columns, Conv, Epilogue};
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
    pub union: Option<Union>,
}

/// Whether a `config.json` is of a Control-LoRA.
pub fn is_control_lora(config: &Value) -> bool {
    config.get("_class_name").and_then(Value::as_str) == Some(CONTROL_LORA)
}

/// What a ControlNet Union has beside a ControlNet's parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Union {
    /// Kinds of pictures.
    pub num_control_type: u32,
    /// Width of the embedding of each kind's number, which is 0 or 1: whether there is a picture of that kind.
    pub control_type_dim: u32,
    num_trans_head: u32,
    num_trans_layer: u32,
}

impl Union {
    const CLASS: &str = "ControlNetUnionModel";

    /// A file of `ControlNetUnionModel` says so, or, as its author's, has one of the class's own fields.
    fn read(f: &Fields, unet: &unet::Config) -> Result<Option<Union>> {
        let named = f.get("_class_name").and_then(Value::as_str) == Some(Self::CLASS);
        if !named && f.get("num_control_type").is_none() {
            return Ok(None);
        }
        let Some(text_time) = unet.text_time else {
            return Err(f.refuse("addition_embed_type", "text_time, as a ControlNet Union of SDXL has it"));
        };
        for field in ["num_trans_channel", "num_proj_channel"] {
            if f.size(field, 320)? != unet.time_proj_dim {
                return Err(f.refuse(field, "the first of block_out_channels"));
            }
        }
        let heads = f.size("num_trans_head", 8)?;
        if !unet.time_proj_dim.is_multiple_of(4 * heads) {
            return Err(f.refuse("num_trans_head", "a count that cuts the channels into multiples of 4"));
        }
        Ok(Some(Union {
            num_control_type: f.size("num_control_type", 6)?,
            control_type_dim: text_time.addition_time_embed_dim,
            num_trans_head: heads,
            num_trans_layer: f.size("num_trans_layer", 1)?,
        }))
    }
}

/// What a ControlNet is given of the pictures that it sees.
pub struct Seen {
    /// [`cond_embedding`]'s results, of a ControlNet Union [`condition`]'s, for each of the inputs' pictures.
    pub cond: Vec<Tensor>,
    /// Of a ControlNet Union, `[n, 1, 1, num_control_type * control_type_dim]`: sinusoidal embeddings of which kinds there
    /// are.
    pub control_type: Option<Tensor>,
}

impl Seen {
    /// Inputs for so many pictures, beside `inputs`.
    pub fn inputs(config: &Config, r: &mut Recorder, inputs: &Inputs, pictures: u32) -> Seen {
        let Tensor { n, h, w, .. } = inputs.sample;
        let cond = (0..pictures).map(|_| r.input(n, h, w, config.unet.time_proj_dim)).collect();
        let types = config.union.as_ref().map(|union| union.num_control_type * union.control_type_dim);
        Seen { cond, control_type: types.map(|types| r.input(n, 1, 1, types)) }
    }
}

impl Config {
    /// Reads a ControlNet's `config.json`. Refuses by name every field that changes the computation and that is not
    /// computed here; ignores what [`unet::Config::from_config`] ignores.
    pub fn from_config(config: &Value) -> Result<Config> {
        let f = match config.get("_class_name").and_then(Value::as_str) {
            Some(Union::CLASS) => Fields::diffusers(config, Union::CLASS)?,
            _ => Fields::diffusers(config, "ControlNetModel")?,
        };
        // Of this class alone the field with the right name counts.
        let heads = match f.get("num_attention_heads") {
            None | Some(Value::Null) => "attention_head_dim",
            Some(_) => "num_attention_heads",
        };
        if f.get("mid_block_type") == Some(&Value::Null) {
            return Err(f.refuse("mid_block_type", "UNetMidBlock2DCrossAttn or UNetMidBlock2D"));
        }
        let order = f.one_of("controlnet_conditioning_channel_order", &["rgb", "bgr"])?;
        let unet = unet::Config::way_down(&f, heads)?;
        let union = Union::read(&f, &unet)?;
        let widths = if union.is_some() { &[48, 96, 192, 384] } else { &[16, 32, 96, 256] };
        Ok(Config {
            unet,
            conditioning_channels: f.size("conditioning_channels", 3)?,
            conditioning_embedding_out_channels: f.sizes("conditioning_embedding_out_channels", widths)?,
            bgr: order == "bgr",
            global_pool_conditions: f.bool("global_pool_conditions", false)?,
            union,
        })
    }

    /// Of a Control-LoRA beside the UNet that it changes.
    ///
    /// # Errors
    /// `unsupported-model` for a configuration of another class or without sizes, and beside a UNet without a middle.
    pub fn of_control_lora(config: &Value, unet: &unet::Config) -> Result<Config> {
        let f = Fields::diffusers(config, CONTROL_LORA)?;
        let unet = unet.way_down_alone().ok_or_else(|| {
            Error::unsupported("a Control-LoRA beside a UNet without a middle. Choose another model for it")
        })?;
        Ok(Config {
            unet,
            conditioning_channels: f.size("conditioning_channels", 3)?,
            conditioning_embedding_out_channels: f
                .sizes("conditioning_embedding_out_channels", &[16, 32, 96, 256])?,
            bgr: false,
            global_pool_conditions: false,
            union: None,
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

/// What a ControlNet Union adds to the first convolution's output for a picture: `cond`, [`cond_embedding`]'s result of one,
/// plus everywhere what its attention makes of the mean of that and of the picture's kind (u32 `[1, 1]`, below
/// `num_control_type`). `factor`: of all of it, as f32 `[1, 1, 1, 1]` too.
///
/// Its attention takes the batch for the sequence (`MultiheadAttention` without `batch_first`, in its author's code and in
/// diffusers), where all rows of a picture are alike: so every picture sees itself alone, and neither the others nor the
/// latents.
pub fn condition(
    union: &Union,
    r: &mut Recorder,
    cond: Tensor,
    kind: Tensor,
    (factor, factor_too): (f32, Tensor),
) -> Result<Tensor> {
    let mean = ops::mean(r, cond)?;
    let feature = ops::embed_onto(r, mean, kind, "task_embedding", union.num_control_type)?;
    let mut x = ops::affine(r, feature, factor, 0.0)?;
    for i in 0..union.num_trans_layer {
        // The class's own spelling.
        x = residual_attention_block(union, &mut r.scope(format_args!("transformer_layes.{i}")), x)?;
    }
    let alpha = ops::linear(r, x, "spatial_ch_projs", cond.c, Epilogue::default())?;
    let out = ops::affine(r, cond, factor, 0.0)?;
    ops::add_scaled(r, alpha, factor_too, 0, out, 0)?;
    Ok(out)
}

/// `ResidualAttentionBlock`: self-attention and a perceptron, each behind a LayerNorm and added to its input.
fn residual_attention_block(union: &Union, r: &mut Recorder, x: Tensor) -> Result<Tensor> {
    const EPS: f32 = 1e-5;
    let c = x.c;
    let h = ops::layer_norm(r, x, "ln_1", EPS)?;
    let qkv = ops::linear(r, h, "attn.in_proj", 3 * c, Epilogue::default())?;
    let [q, k, v] = [0, 1, 2].map(|i| Columns::nth(qkv, i, c));
    let h = ops::attention(r, q, k, v, union.num_trans_head, false)?;
    let plus_x = Epilogue { residual: Some(x), ..Default::default() };
    let x = ops::linear(r, h, "attn.out_proj", c, plus_x)?;

    let h = ops::layer_norm(r, x, "ln_2", EPS)?;
    let act = Epilogue { activation: Activation::QuickGelu, ..Default::default() };
    let h = ops::linear(r, h, "mlp.c_fc", 4 * c, act)?;
    let plus_x = Epilogue { residual: Some(x), ..Default::default() };
    ops::linear(r, h, "mlp.c_proj", c, plus_x)
}

/// What is to be added to the UNet's skips, in their order, and last to its middle; not yet scaled. With
/// `global_pool_conditions` each is `[n, 1, 1, c]`.
///
/// `UnsupportedModel` where an input's width is not the configuration's, so the parts are not of one model.
pub fn forward(config: &Config, r: &mut Recorder, inputs: &Inputs, seen: &Seen) -> Result<Vec<Tensor>> {
    let [first, others @ ..] = seen.cond.as_slice() else {
        return Err(Error::unsupported("a ControlNet that sees no picture"));
    };
    let mut x = unet::conv_in(&config.unet, r, inputs.sample, Some(*first))?;
    for &other in others {
        x = ops::add(r, x, other)?;
    }
    let control_emb = match seen.control_type {
        None => None,
        Some(types) => {
            let (width, name) = (config.unet.time_embed_dim, "control_add_embedding");
            let silu = Epilogue { activation: Activation::Silu, ..Default::default() };
            let h = ops::linear(r, types, &format!("{name}.linear_1"), width, silu)?;
            Some(ops::linear(r, h, &format!("{name}.linear_2"), width, Epilogue::default())?)
        }
    };
    let down = unet::down(&config.unet, r, inputs, x, control_emb)?;
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
