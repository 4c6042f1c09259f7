//! `UNet2DConditionModel` of diffusers: noisy latents, a time step and the text to the model's prediction.
//! The block types are those of SD 1.x, SD 2.x, SDXL and their distillations.

use super::resnet::{TimeProjections, resnet};
use super::transformer::transformer_2d;
use super::unet_config::Mid;
pub use super::unet_config::{Config, TextTime};
use crate::error::{Error, Result};
use crate::gpu::{Recorder, Tensor};
use crate::ops::{self, Activation, Conv, Epilogue};

/// `added_cond_kwargs` of SDXL.
#[derive(Clone, Copy, Debug)]
pub struct AddedCond {
    /// `[n, 1, 1, width]`, the pooled output of the second text encoder.
    pub text_embeds: Tensor,
    /// `[n, 1, 1, time_ids * addition_time_embed_dim]`: sizes and crop, each as a sinusoidal embedding.
    pub time_ids: Tensor,
}

/// What a UNet or a ControlNet is given.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// `[n, h, w, in_channels]`: latents, scaled as the sampler says. Any height and width: where a level's size is
    /// odd, the way up is cropped to the skip's size, as in diffusers.
    pub sample: Tensor,
    /// `[n, 1, 1, time_proj_dim]`: sinusoidal embedding of the time step.
    pub t_emb: Tensor,
    /// `[n, 1, tokens, cross_attention_dim]`.
    pub encoder_hidden_states: Tensor,
    /// For SDXL.
    pub added: Option<AddedCond>,
    /// `[n, 1, 1, time_cond_proj_dim]`: for LCM; left out, nothing is added.
    pub timestep_cond: Option<Tensor>,
    /// What T2I-Adapters add inside the way down, of the shapes that [`Config::features`] has
    /// (`down_intrablock_additional_residuals` of diffusers); empty without any.
    pub features: Vec<Tensor>,
}

impl Inputs {
    /// All of them that there are, always in the same order.
    pub fn tensors(&self) -> Vec<Tensor> {
        let added = self.added.map(|added| [added.text_embeds, added.time_ids]);
        [self.sample, self.t_emb, self.encoder_hidden_states]
            .into_iter()
            .chain(added.into_iter().flatten())
            .chain(self.timestep_cond)
            .chain(self.features.iter().copied())
            .collect()
    }
}

/// [`Inputs`] over `batch` pictures of `height` x `width` latents and texts of so many tokens.
pub fn unet_inputs(
    config: &Config,
    r: &mut Recorder,
    batch: u32,
    height: u32,
    width: u32,
    tokens: u32,
) -> Inputs {
    Inputs {
        sample: r.input(batch, height, width, config.in_channels),
        t_emb: r.input(batch, 1, 1, config.time_proj_dim),
        encoder_hidden_states: r.input(batch, 1, tokens, config.cross_attention_dim),
        added: config.text_time.map(|t| {
            let time_ids = t.time_ids * t.addition_time_embed_dim;
            let pooled = t.projection_class_embeddings_input_dim.saturating_sub(time_ids);
            AddedCond { text_embeds: r.input(batch, 1, 1, pooled), time_ids: r.input(batch, 1, 1, time_ids) }
        }),
        timestep_cond: config.time_cond_proj_dim.map(|c| r.input(batch, 1, 1, c)),
        features: Vec::new(),
    }
}

/// [`Inputs::features`] over `n` pictures' latents of `h` x `w`.
pub fn features(config: &Config, r: &mut Recorder, n: u32, [h, w]: [u32; 2]) -> Vec<Tensor> {
    let side = |len: u32, level: u32| (0..level).fold(len, |len, _| len.div_ceil(2));
    config.features().iter().map(|&(c, level)| r.input(n, side(h, level), side(w, level), c)).collect()
}

/// What the way down and the middle leave.
pub(super) struct Down {
    /// Of conv_in, of each layer and of each downsampler.
    pub skips: Vec<Tensor>,
    pub mid: Tensor,
    temb: TimeProjections,
}

/// The first convolution, `[n, h, w, time_proj_dim]`, and what a ControlNet adds to it.
///
/// `UnsupportedModel` for latents of another width than the configuration's.
pub(super) fn conv_in(
    config: &Config,
    r: &mut Recorder,
    sample: Tensor,
    controlnet_cond: Option<Tensor>,
) -> Result<Tensor> {
    expect("in_channels", config.in_channels, sample.c)?;
    let (width, conv) = (config.time_proj_dim, same_size(config.conv_in_kernel));
    let plus_cond = Epilogue { residual: controlnet_cond, ..Default::default() };
    ops::conv2d(r, sample, "conv_in", width, conv, plus_cond)
}

/// The way down from [`conv_in`]'s output `x`, and the middle, which a ControlNet has too. `control_emb` `[n, 1, 1,
/// time_embed_dim]` is added to SDXL's time embedding.
///
/// `UnsupportedModel` where an input's width is not the configuration's, so the parts are not of one model.
pub(super) fn down(
    config: &Config,
    r: &mut Recorder,
    inputs: &Inputs,
    x: Tensor,
    control_emb: Option<Tensor>,
) -> Result<Down> {
    down_to(config, r, inputs, x, control_emb, usize::MAX)
}

/// [`down`] as far as its first `skips` skips; where that is not all of it, `mid` is the last one.
fn down_to(
    config: &Config,
    r: &mut Recorder,
    inputs: &Inputs,
    mut x: Tensor,
    control_emb: Option<Tensor>,
    most: usize,
) -> Result<Down> {
    expect("cross_attention_dim", config.cross_attention_dim, inputs.encoder_hidden_states.c)?;
    let temb = time_embedding(config, r, inputs, control_emb)?;
    let temb = TimeProjections::record(r, temb, &config.resnets())?;
    let text = inputs.encoder_hidden_states;
    let norm = config.norm;

    ops::watch_block(r, "conv_in", x);
    let mut skips = vec![x];
    for (i, block) in config.down.iter().enumerate() {
        let r = &mut r.scope(format_args!("down_blocks.{i}"));
        for j in 0..block.layers as usize {
            if skips.len() == most {
                return Ok(Down { skips, mid: x, temb });
            }
            x = resnet(&mut r.scope(format_args!("resnets.{j}")), x, Some(&temb), block.channels, norm)?;
            if let Some(a) = &block.attention {
                x = transformer_2d(a, &mut r.scope(format_args!("attentions.{j}")), x, text, j)?;
            }
            let last = block.attention.is_some() && j + 1 == block.layers as usize;
            if let Some(&feature) = inputs.features.get(i).filter(|_| last) {
                x = ops::add(r, x, feature)?;
            }
            skips.push(x);
        }
        let downsamples = i + 1 < config.down.len();
        if downsamples && skips.len() < most {
            let e = Epilogue::default();
            x = ops::conv2d(r, x, "downsamplers.0.conv", block.channels, Conv::down(), e)?;
            skips.push(x);
        } else if downsamples {
            break;
        }
        // To the block's result, which is its last skip too.
        if let (Some(&feature), None, Some(skip)) =
            (inputs.features.get(i), &block.attention, skips.last_mut())
        {
            x = ops::add(r, x, feature)?;
            *skip = x;
        }
        ops::watch_block(r, &format!("down_blocks.{i}"), x);
    }
    if skips.len() == most {
        return Ok(Down { skips, mid: x, temb });
    }

    if !matches!(config.mid, Mid::Nothing) {
        x = resnet(&mut r.scope("mid_block.resnets.0"), x, Some(&temb), x.c, norm)?;
    }
    if let Mid::CrossAttention(a) = &config.mid {
        x = transformer_2d(a, &mut r.scope("mid_block.attentions.0"), x, text, 0)?;
        x = resnet(&mut r.scope("mid_block.resnets.1"), x, Some(&temb), x.c, norm)?;
    }
    if let Some(&feature) = inputs.features.get(config.down.len()) {
        x = ops::add(r, x, feature)?;
    }
    ops::watch_block(r, "mid_block", x);
    Ok(Down { skips, mid: x, temb })
}

/// The model's prediction, `[n, h, w, out_channels]`. `residuals`: what ControlNets add to each skip, and last to the
/// middle (`down_block_additional_residuals` and `mid_block_additional_residual` of diffusers), of the shapes that
/// [`Config::skips`] has; empty without any.
///
/// `UnsupportedModel` where an input's width is not the configuration's, so the parts are not of one model.
pub fn forward(config: &Config, r: &mut Recorder, inputs: &Inputs, residuals: &[Tensor]) -> Result<Tensor> {
    let x = conv_in(config, r, inputs.sample, None)?;
    let Down { skips, mid, temb } = down(config, r, inputs, x, None)?;
    let x = plus_mid(r, mid, residuals, skips.len())?;
    up(config, r, (&temb, inputs.encoder_hidden_states), skips, residuals, x, None).map(|(out, _)| out)
}

/// [`forward`], and the features from below that [`shallow`] of this `branch` is given at later steps.
///
/// `UnsupportedModel` as [`forward`].
pub fn forward_with_deep(
    config: &Config,
    r: &mut Recorder,
    inputs: &Inputs,
    residuals: &[Tensor],
    branch: u32,
) -> Result<(Tensor, Tensor)> {
    let x = conv_in(config, r, inputs.sample, None)?;
    let Down { skips, mid, temb } = down(config, r, inputs, x, None)?;
    let x = plus_mid(r, mid, residuals, skips.len())?;
    let first = skips.len().saturating_sub(1 + branch as usize);
    up(config, r, (&temb, inputs.encoder_hidden_states), skips, residuals, x, Some(first))
}

/// What [`forward`] gives, but for that all below the first `branch + 1` skips is taken from an earlier step: `deep` of
/// [`forward_with_deep`]. DeepCache (Ma et al. 2023, arXiv 2312.00858), whose code calls it `cache_branch_id`.
///
/// `UnsupportedModel` as [`forward`].
pub fn shallow(
    config: &Config,
    r: &mut Recorder,
    inputs: &Inputs,
    residuals: &[Tensor],
    branch: u32,
    deep: Tensor,
) -> Result<Tensor> {
    let x = conv_in(config, r, inputs.sample, None)?;
    let Down { skips, temb, .. } = down_to(config, r, inputs, x, None, 1 + branch as usize)?;
    up(config, r, (&temb, inputs.encoder_hidden_states), skips, residuals, deep, None).map(|(out, _)| out)
}

/// The middle with what ControlNets add to it, which stands behind what they add to each of so many skips.
fn plus_mid(r: &mut Recorder, mid: Tensor, residuals: &[Tensor], skips: usize) -> Result<Tensor> {
    residuals.get(skips).map_or(Ok(mid), |&residual| ops::add(r, mid, residual))
}

/// The way up from `x`, by as many layers as there are skips, the last ones; each takes a skip, the deepest first. Also
/// what layer `watched`, counted from the first on the way up, is given from below; `x` where that is none.
fn up(
    config: &Config,
    r: &mut Recorder,
    (temb, text): (&TimeProjections, Tensor),
    mut skips: Vec<Tensor>,
    residuals: &[Tensor],
    mut x: Tensor,
    watched: Option<usize>,
) -> Result<(Tensor, Tensor)> {
    let norm = config.norm;
    let layers: usize = config.up.iter().map(|block| block.layers as usize).sum();
    // There are as many skips as layers on the way up: `layers_per_block` + 1 of each block.
    let first = layers
        .checked_sub(skips.len())
        .ok_or_else(|| Error::unsupported("layers_per_block leaves no skip"))?;
    let (mut at, mut deep) = (0, x);
    for (i, block) in config.up.iter().enumerate() {
        let r = &mut r.scope(format_args!("up_blocks.{i}"));
        for j in 0..block.layers as usize {
            at += 1;
            if at <= first {
                continue;
            }
            if Some(at - 1) == watched {
                deep = x;
            }
            let mut skip =
                skips.pop().ok_or_else(|| Error::unsupported("layers_per_block leaves no skip"))?;
            if let Some(&residual) = residuals.get(skips.len()) {
                skip = ops::add(r, skip, residual)?;
            }
            let both = (x, skip);
            x = resnet(&mut r.scope(format_args!("resnets.{j}")), both, Some(temb), block.channels, norm)?;
            if let Some(a) = &block.attention {
                x = transformer_2d(a, &mut r.scope(format_args!("attentions.{j}")), x, text, j)?;
            }
        }
        if let Some(skip) = skips.last().filter(|_| at > first && i + 1 < config.up.len()) {
            let conv = Conv::up_to(skip.h, skip.w);
            x = ops::conv2d(r, x, "upsamplers.0.conv", block.channels, conv, Epilogue::default())?;
        }
        ops::watch_block(r, &format!("up_blocks.{i}"), x);
    }

    let x = ops::group_norm(r, x, "conv_norm_out", norm.groups, norm.eps, Activation::Silu)?;
    let conv = same_size(config.conv_out_kernel);
    let e = Epilogue { f32_output: true, ..Default::default() };
    let out = ops::conv2d(r, x, "conv_out", config.out_channels, conv, e)?;
    ops::watch_block(r, "conv_out", out);
    Ok((out, deep))
}

/// The convolution that keeps height and width.
fn same_size(kernel: u32) -> Conv {
    if kernel == 1 { Conv::k1() } else { Conv::k3() }
}

/// silu of the time embedding, `[n, 1, 1, time_embed_dim]`: every resnet takes the silu of it, so it is made
/// once. `TimestepEmbedding` of the time step, plus, in SDXL, that of its
/// conditioning and `control_emb`.
fn time_embedding(
    config: &Config,
    r: &mut Recorder,
    &Inputs { t_emb, added, timestep_cond, .. }: &Inputs,
    control_emb: Option<Tensor>,
) -> Result<Tensor> {
    expect("time_proj_dim", config.time_proj_dim, t_emb.c)?;
    let width = config.time_embed_dim;
    let silu = Epilogue { activation: Activation::Silu, ..Default::default() };
    let t_emb = match (config.time_cond_proj_dim, timestep_cond) {
        (Some(dim), Some(cond)) => {
            expect("time_cond_proj_dim", dim, cond.c)?;
            let plus_t = Epilogue { residual: Some(t_emb), ..Default::default() };
            ops::linear_no_bias(r, cond, "time_embedding.cond_proj", t_emb.c, plus_t)?
        }
        _ => t_emb,
    };
    let h = ops::linear(r, t_emb, "time_embedding.linear_1", width, silu)?;
    let Some(text_time) = config.text_time else {
        return ops::linear(r, h, "time_embedding.linear_2", width, silu);
    };
    let Some(AddedCond { text_embeds, time_ids }) = added else {
        return Err(Error::unsupported(
            "a UNet with addition_embed_type = text_time needs text_embeds and time_ids, so SDXL's pipeline. \
             Choose a checkpoint whose model_index.json says StableDiffusionXLPipeline",
        ));
    };
    let wanted = text_time.projection_class_embeddings_input_dim;
    expect("projection_class_embeddings_input_dim", wanted, text_embeds.c + time_ids.c)?;
    let a = ops::linear(r, (text_embeds, time_ids), "add_embedding.linear_1", width, silu)?;
    let plus_control = Epilogue { residual: control_emb, ..Default::default() };
    let aug_emb = ops::linear(r, a, "add_embedding.linear_2", width, plus_control)?;
    let plus_aug = Epilogue { residual: Some(aug_emb), post: Activation::Silu, ..Default::default() };
    ops::linear(r, h, "time_embedding.linear_2", width, plus_aug)
}

/// Refuses an input whose width is not what the configuration says.
fn expect(field: &str, wanted: u32, given: u32) -> Result<()> {
    if wanted == given {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "UNet2DConditionModel has {field} = {wanted}, but is given {given}: its parts are not of one model. \
         Choose another checkpoint"
    )))
}
