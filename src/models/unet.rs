//! `UNet2DConditionModel` of diffusers: noisy latents, a time step and the text to the model's prediction.
//! The block types are those of SD 1.x, SD 2.x, SDXL and their distillations.

use super::config::{Fields, SIZE, as_size};
use super::resnet::{Norm, TimeProjections, resnet};
use super::transformer::{Attention, transformer_2d};
use crate::error::{Error, Result};
use crate::gpu::{Recorder, Tensor};
use crate::ops::{self, Activation, Conv, Epilogue};
use serde_json::Value;

/// A UNet's configuration, with what diffusers derives from it block by block.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Height and width of the latents that the model was trained on.
    pub sample_size: Option<[u32; 2]>,
    /// 4; 9 for an inpainting model (latents, mask, latents of the masked picture).
    pub in_channels: u32,
    pub out_channels: u32,
    /// How the sinusoidal embedding of time steps is made, `time_proj_dim` wide.
    pub flip_sin_to_cos: bool,
    pub freq_shift: f32,
    pub time_proj_dim: u32,
    pub time_embed_dim: u32,
    /// Width of the guidance embedding that a latent consistency model takes.
    pub time_cond_proj_dim: Option<u32>,
    /// `addition_embed_type` "text_time": SDXL's pooled text embedding and sizes.
    pub text_time: Option<TextTime>,
    pub cross_attention_dim: u32,
    norm: Norm,
    conv_in_kernel: u32,
    conv_out_kernel: u32,
    down: Vec<Block>,
    mid: Mid,
    up: Vec<Block>,
}

/// SDXL's additional conditioning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextTime {
    /// Width of the sinusoidal embedding of each of the time ids.
    pub addition_time_embed_dim: u32,
    /// Width of the pooled text embedding and all the embedded time ids together.
    pub projection_class_embeddings_input_dim: u32,
}

/// A down or up block: resnets, each followed by a transformer where the block has cross-attention.
#[derive(Clone, Debug, PartialEq)]
struct Block {
    channels: u32,
    layers: u32,
    attention: Option<Attention>,
}

#[derive(Clone, Debug, PartialEq)]
enum Mid {
    /// `mid_block_type` null.
    Nothing,
    /// `UNetMidBlock2D`, which in this class is one resnet.
    Resnet,
    /// `UNetMidBlock2DCrossAttn`: resnet, transformer, resnet.
    CrossAttention(Attention),
}

impl Config {
    /// Reads `unet/config.json`. Refuses by name every field that changes the computation and that is not
    /// computed here. Ignored on purpose: `upcast_attention` (sums are f32 anyhow),
    /// `use_linear_projection` (see [`transformer`](super::transformer)), `dropout`, and what only
    /// block types that are refused would read (`resnet_skip_time_act`, `resnet_out_scale_factor`,
    /// `cross_attention_norm`, `mid_block_only_cross_attention`, `addition_embed_type_num_heads`).
    pub fn from_config(config: &Value) -> Result<Config> {
        let f = Fields::diffusers(config, "UNet2DConditionModel")?;
        f.must_be_null("num_attention_heads")?; // diffusers itself refuses it
        let mut config = Self::way_down(&f, "attention_head_dim")?;
        let n = config.down.len();
        let default = ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"];
        let types = block_types(&f, "up_block_types", &default, "UpBlock2D", n)?;
        let attention = Attentions::read(&f, "attention_head_dim", n, config.norm.groups)?;
        let depth = transformer_layers(&f, n)?.1;
        for (i, block) in config.down.iter().enumerate().rev() {
            let (place, layers) = (n - 1 - i, block.layers + 1);
            let attention = match types[place] {
                true => Some(attention.of(&f, i, block.channels, depth[place].layers(layers))?),
                false => None,
            };
            config.up.push(Block { channels: block.channels, layers, attention });
        }
        Ok(config)
    }

    /// Everything but the way up, which is left empty: what a ControlNet's configuration has too. `heads` is the field
    /// that holds the counts of heads.
    pub(super) fn way_down(f: &Fields, heads: &str) -> Result<Config> {
        for field in [
            "encoder_hid_dim",
            "encoder_hid_dim_type",
            "class_embed_type",
            "num_class_embeds",
            "time_embedding_act_fn",
            "timestep_post_act",
        ] {
            f.must_be_null(field)?;
        }
        for field in ["center_input_sample", "dual_cross_attention", "class_embeddings_concat"] {
            f.must_be_false(field)?;
        }
        f.one_of("resnet_time_scale_shift", &["default"])?;
        f.one_of("time_embedding_type", &["positional"])?;
        f.one_of("attention_type", &["default"])?;
        f.act_fn_is_silu()?;
        f.must_be_number("downsample_padding", 1.0)?;
        f.must_be_number("mid_block_scale_factor", 1.0)?;

        let block_out_channels = f.sizes("block_out_channels", &[320, 640, 1280, 1280])?;
        let n = block_out_channels.len();
        let first = block_out_channels[0];
        let groups = f.size("norm_num_groups", 32)?;
        if groups > 256 || block_out_channels.iter().any(|c| !c.is_multiple_of(groups)) {
            return Err(
                f.refuse("norm_num_groups", "a divisor of every one of block_out_channels, up to 256")
            );
        }
        if block_out_channels.iter().any(|c| !c.is_multiple_of(4)) {
            return Err(f.refuse("block_out_channels", "multiples of 4"));
        }
        let layers = f.per_block("layers_per_block", 2, n, SIZE, as_size)?;
        let attention = Attentions::read(f, heads, n, groups)?;
        let depth = transformer_layers(f, n)?.0;
        let default = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"];
        let types = block_types(f, "down_block_types", &default, "DownBlock2D", n)?;

        let mut down = Vec::new();
        for (i, &channels) in block_out_channels.iter().enumerate() {
            let attention = match types[i] {
                true => Some(attention.of(f, i, channels, depth[i].layers(layers[i]))?),
                false => None,
            };
            down.push(Block { channels, layers: layers[i], attention });
        }
        let kernel = |field| match f.size(field, 3)? {
            size @ (1 | 3) => Ok(size),
            _ => Err(f.refuse(field, "1 or 3")),
        };
        Ok(Config {
            sample_size: sample_size(f)?,
            in_channels: f.size("in_channels", 4)?,
            out_channels: f.size("out_channels", 4)?,
            flip_sin_to_cos: f.bool("flip_sin_to_cos", true)?,
            freq_shift: f.f32("freq_shift", 0.0)?,
            time_proj_dim: first,
            time_embed_dim: f.optional_size("time_embedding_dim")?.unwrap_or(4 * first),
            time_cond_proj_dim: f.optional_size("time_cond_proj_dim")?,
            text_time: TextTime::read(f)?,
            cross_attention_dim: attention.cross_attention_dim,
            norm: Norm { groups, eps: f.f32("norm_eps", 1e-5)? },
            conv_in_kernel: kernel("conv_in_kernel")?,
            conv_out_kernel: kernel("conv_out_kernel")?,
            down,
            mid: Mid::read(f, &attention, &block_out_channels, &depth)?,
            up: Vec::new(),
        })
    }

    /// Width and level (each half as large as the one before) of what the way down leaves for the way up, in its order;
    /// the middle's is the last.
    pub fn skips(&self) -> Vec<(u32, u32)> {
        let mut skips = vec![(self.time_proj_dim, 0)];
        for (level, block) in (0..).zip(&self.down) {
            skips.extend((0..block.layers).map(|_| (block.channels, level)));
            if level as usize + 1 < self.down.len() {
                skips.push((block.channels, level + 1));
            }
        }
        skips.extend(skips.last().copied());
        skips
    }
}

impl Config {
    /// Scope and width of every residual block.
    fn resnets(&self) -> Vec<(String, u32)> {
        let of = |way: &str, blocks: &[Block]| -> Vec<(String, u32)> {
            let layers =
                blocks.iter().enumerate().flat_map(|(i, b)| (0..b.layers).map(move |j| (i, j, b.channels)));
            layers.map(|(i, j, c)| (format!("{way}_blocks.{i}.resnets.{j}"), c)).collect()
        };
        let widest = self.down.last().map_or(0, |b| b.channels);
        let mid = match self.mid {
            Mid::Nothing => 0,
            Mid::Resnet => 1,
            Mid::CrossAttention(_) => 2,
        };
        let mid = (0..mid).map(|j| (format!("mid_block.resnets.{j}"), widest)).collect();
        [of("down", &self.down), mid, of("up", &self.up)].concat()
    }
}

impl Mid {
    fn read(f: &Fields, attention: &Attentions, block_out_channels: &[u32], depth: &[Depth]) -> Result<Mid> {
        let last = block_out_channels.len() - 1;
        match f.get("mid_block_type").map(|v| v.as_str()) {
            None | Some(Some("UNetMidBlock2DCrossAttn")) => {
                let mut a = attention.of(f, last, block_out_channels[last], depth[last].layers(1))?;
                a.only_cross_attention = false; // diffusers does not pass it on
                Ok(Mid::CrossAttention(a))
            }
            Some(Some("UNetMidBlock2D")) => Ok(Mid::Resnet),
            Some(None) if f.get("mid_block_type") == Some(&Value::Null) => Ok(Mid::Nothing),
            _ => Err(f.refuse("mid_block_type", "UNetMidBlock2DCrossAttn, UNetMidBlock2D or null")),
        }
    }
}

impl TextTime {
    fn read(f: &Fields) -> Result<Option<TextTime>> {
        match f.get("addition_embed_type").map(|v| v.as_str()) {
            None | Some(None) => Ok(None),
            Some(Some("text_time")) => {
                let size =
                    |field| f.optional_size(field)?.ok_or_else(|| f.refuse(field, "a size, with text_time"));
                Ok(Some(TextTime {
                    addition_time_embed_dim: size("addition_time_embed_dim")?,
                    projection_class_embeddings_input_dim: size("projection_class_embeddings_input_dim")?,
                }))
            }
            Some(_) => Err(f.refuse("addition_embed_type", "null or text_time")),
        }
    }
}

fn sample_size(f: &Fields) -> Result<Option<[u32; 2]>> {
    match f.get("sample_size") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(_)) => match *f.sizes("sample_size", &[])? {
            [h, w] => Ok(Some([h, w])),
            _ => Err(f.refuse("sample_size", "a size or [height, width]")),
        },
        Some(_) => Ok(f.optional_size("sample_size")?.map(|s| [s, s])),
    }
}

/// Which blocks have cross-attention. `plain` is the type without; "UNetRes" before a name is an old spelling.
fn block_types(f: &Fields, field: &str, default: &[&str], plain: &str, n: usize) -> Result<Vec<bool>> {
    let types = match f.get(field) {
        None => default.to_vec(),
        Some(_) => f.texts(field, &[])?,
    };
    if types.len() != n {
        return Err(f.refuse(field, &format!("as many blocks as block_out_channels, {n}")));
    }
    let cross = format!("CrossAttn{plain}");
    let attends = |name: &&str| match name.strip_prefix("UNetRes").unwrap_or(name) {
        name if name == plain => Some(false),
        name if name == cross => Some(true),
        _ => None,
    };
    let attends: Option<Vec<bool>> = types.iter().map(attends).collect();
    attends.ok_or_else(|| f.refuse(field, &format!("{plain} and {cross}")))
}

/// Transformer blocks in each layer of a block: one count for all layers, or one for each.
#[derive(Clone)]
enum Depth {
    All(u32),
    Each(Vec<u32>),
}

impl Depth {
    /// Counts for `layers` layers; `None` if the list is shorter than that.
    fn layers(&self, layers: u32) -> Option<Vec<u32>> {
        match self {
            Depth::All(depth) => Some(vec![*depth; layers as usize]),
            Depth::Each(depths) => depths.get(..layers as usize).map(<[u32]>::to_vec),
        }
    }
}

/// `transformer_layers_per_block` for the down blocks, and for the up blocks in their order.
fn transformer_layers(f: &Fields, n: usize) -> Result<(Vec<Depth>, Vec<Depth>)> {
    let count = |v: &Value| if v.as_u64() == Some(0) { Some(0) } else { as_size(v) };
    let read = |v: &Value| match v {
        Value::Array(list) => list.iter().map(count).collect::<Option<_>>().map(Depth::Each),
        one => count(one).map(Depth::All),
    };
    let wanted = "a count (or a list of counts, one a layer)";
    let field = "transformer_layers_per_block";
    let down = f.per_block(field, Depth::All(1), n, wanted, read)?;
    let reverse = "reverse_transformer_layers_per_block";
    let up = match f.get(reverse) {
        None | Some(Value::Null) => {
            if down.iter().any(|d| matches!(d, Depth::Each(_))) {
                return Err(f.refuse(reverse, "a list, where transformer_layers_per_block holds lists"));
            }
            down.iter().rev().cloned().collect()
        }
        Some(Value::Array(_)) => f.per_block(reverse, Depth::All(1), n, wanted, read)?,
        Some(_) => return Err(f.refuse(reverse, "null or a list")),
    };
    Ok((down, up))
}

/// The attention fields of all blocks, indexed from the outermost.
struct Attentions<'a> {
    /// The field that `heads` come from.
    field: &'a str,
    heads: Vec<u32>,
    only_cross: Vec<bool>,
    cross_attention_dim: u32,
    groups: u32,
}

impl<'a> Attentions<'a> {
    fn read(f: &Fields, field: &'a str, n: usize, groups: u32) -> Result<Attentions<'a>> {
        let widths = f.per_block("cross_attention_dim", 1280, n, SIZE, as_size)?;
        let cross_attention_dim = widths[0];
        if widths.iter().any(|&w| w != cross_attention_dim) {
            return Err(f.refuse("cross_attention_dim", "one width for all blocks"));
        }
        Ok(Attentions {
            field,
            // The usual field's name is a mistake that diffusers keeps: these are counts of heads.
            heads: f.per_block(field, 8, n, SIZE, as_size)?,
            only_cross: f.per_block("only_cross_attention", false, n, "true or false", Value::as_bool)?,
            cross_attention_dim,
            groups,
        })
    }

    /// Those of block `i`, `channels` wide.
    fn of(&self, f: &Fields, i: usize, channels: u32, depth: Option<Vec<u32>>) -> Result<Attention> {
        let heads = self.heads[i];
        if !channels.is_multiple_of(heads) || !(channels / heads).is_multiple_of(4) {
            let wanted =
                format!("counts of heads that cut the block's {channels} channels into multiples of 4");
            return Err(f.refuse(self.field, &wanted));
        }
        let depth = depth
            .ok_or_else(|| f.refuse("transformer_layers_per_block", "lists with a count for every layer"))?;
        Ok(Attention {
            heads,
            cross_attention_dim: self.cross_attention_dim,
            depth,
            only_cross_attention: self.only_cross[i],
            norm_num_groups: self.groups,
        })
    }
}

/// `added_cond_kwargs` of SDXL.
#[derive(Clone, Copy, Debug)]
pub struct AddedCond {
    /// `[n, 1, 1, width]`, the pooled output of the second text encoder.
    pub text_embeds: Tensor,
    /// `[n, 1, 1, 6 * addition_time_embed_dim]`: sizes and crop, each as a sinusoidal embedding.
    pub time_ids: Tensor,
}

/// What a UNet or a ControlNet is given.
#[derive(Clone, Copy, Debug)]
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
}

impl Inputs {
    /// All of them that there are, always in the same order.
    pub fn tensors(&self) -> Vec<Tensor> {
        let added = self.added.map(|added| [added.text_embeds, added.time_ids]);
        [self.sample, self.t_emb, self.encoder_hidden_states]
            .into_iter()
            .chain(added.into_iter().flatten())
            .chain(self.timestep_cond)
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
            let time_ids = 6 * t.addition_time_embed_dim;
            let pooled = t.projection_class_embeddings_input_dim.saturating_sub(time_ids);
            AddedCond { text_embeds: r.input(batch, 1, 1, pooled), time_ids: r.input(batch, 1, 1, time_ids) }
        }),
        timestep_cond: config.time_cond_proj_dim.map(|c| r.input(batch, 1, 1, c)),
    }
}

/// What the way down and the middle leave.
pub(super) struct Down {
    /// Of conv_in, of each layer and of each downsampler.
    pub skips: Vec<Tensor>,
    pub mid: Tensor,
    temb: TimeProjections,
}

/// The way down and the middle, which a ControlNet has too; there `controlnet_cond` `[n, h, w, time_proj_dim]` is added
/// to conv_in's output.
///
/// `UnsupportedModel` where an input's width is not the configuration's, so the parts are not of one model.
pub(super) fn down(
    config: &Config,
    r: &mut Recorder,
    inputs: &Inputs,
    controlnet_cond: Option<Tensor>,
) -> Result<Down> {
    down_to(config, r, inputs, controlnet_cond, usize::MAX)
}

/// [`down`] as far as its first `skips` skips; where that is not all of it, `mid` is the last one.
fn down_to(
    config: &Config,
    r: &mut Recorder,
    inputs: &Inputs,
    controlnet_cond: Option<Tensor>,
    most: usize,
) -> Result<Down> {
    expect("in_channels", config.in_channels, inputs.sample.c)?;
    expect("cross_attention_dim", config.cross_attention_dim, inputs.encoder_hidden_states.c)?;
    let temb = time_embedding(config, r, inputs.t_emb, inputs.added, inputs.timestep_cond)?;
    let temb = TimeProjections::record(r, temb, &config.resnets())?;
    let text = inputs.encoder_hidden_states;
    let norm = config.norm;

    let (width, conv) = (config.time_proj_dim, same_size(config.conv_in_kernel));
    let plus_cond = Epilogue { residual: controlnet_cond, ..Default::default() };
    let mut x = ops::conv2d(r, inputs.sample, "conv_in", width, conv, plus_cond)?;
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
            skips.push(x);
        }
        if i + 1 < config.down.len() && skips.len() < most {
            let e = Epilogue::default();
            x = ops::conv2d(r, x, "downsamplers.0.conv", block.channels, Conv::down(), e)?;
            skips.push(x);
        }
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
    Ok(Down { skips, mid: x, temb })
}

/// The model's prediction, `[n, h, w, out_channels]`. `residuals`: what ControlNets add to each skip, and last to the
/// middle (`down_block_additional_residuals` and `mid_block_additional_residual` of diffusers), of the shapes that
/// [`Config::skips`] has; empty without any.
///
/// `UnsupportedModel` where an input's width is not the configuration's, so the parts are not of one model.
pub fn forward(config: &Config, r: &mut Recorder, inputs: &Inputs, residuals: &[Tensor]) -> Result<Tensor> {
    let Down { skips, mid, temb } = down(config, r, inputs, None)?;
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
    let Down { skips, mid, temb } = down(config, r, inputs, None)?;
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
    let Down { skips, temb, .. } = down_to(config, r, inputs, None, 1 + branch as usize)?;
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
    }

    let x = ops::group_norm(r, x, "conv_norm_out", norm.groups, norm.eps, Activation::Silu)?;
    let conv = same_size(config.conv_out_kernel);
    let e = Epilogue { f32_output: true, ..Default::default() };
    Ok((ops::conv2d(r, x, "conv_out", config.out_channels, conv, e)?, deep))
}

/// The convolution that keeps height and width.
fn same_size(kernel: u32) -> Conv {
    if kernel == 1 { Conv::k1() } else { Conv::k3() }
}

/// silu of the time embedding, `[n, 1, 1, time_embed_dim]`: every resnet takes the silu of it, so it is made
/// once. `TimestepEmbedding` of the time step, plus that of SDXL's conditioning.
fn time_embedding(
    config: &Config,
    r: &mut Recorder,
    t_emb: Tensor,
    added: Option<AddedCond>,
    timestep_cond: Option<Tensor>,
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
    let aug_emb = ops::linear(r, a, "add_embedding.linear_2", width, Epilogue::default())?;
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
