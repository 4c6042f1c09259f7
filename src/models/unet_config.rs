//! A UNet's `config.json`: what is read of it, and what is refused.

use super::config::{Fields, SIZE, as_size};
use super::resnet::Norm;
use super::transformer::Attention;
use crate::error::Result;
use serde_json::Value;

/// A UNet's configuration, with what diffusers derives from it block by block.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Height and width of the latents that the model was trained on.
    pub sample_size: Option<[u32; 2]>,
    /// 4; 8 for InstructPix2Pix (latents, those of the picture that it edits), 9 for an inpainting model (latents, mask,
    /// latents of the masked picture).
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
    /// Attention overflows f16 or loses too much in it: in f16 arithmetic it is computed in f32 all the same.
    pub upcast_attention: bool,
    pub(super) norm: Norm,
    pub(super) conv_in_kernel: u32,
    pub(super) conv_out_kernel: u32,
    pub(super) down: Vec<Block>,
    pub(super) mid: Mid,
    pub(super) up: Vec<Block>,
}

/// SDXL's additional conditioning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextTime {
    /// Width of the sinusoidal embedding of each of the time ids.
    pub addition_time_embed_dim: u32,
    /// Width of the pooled text embedding and all the embedded time ids together.
    pub projection_class_embeddings_input_dim: u32,
    /// How many time ids there are: sizes and crop, 6; 5 in SDXL's refiner, which has a score in place of the second size. A
    /// UNet's configuration does not tell.
    pub time_ids: u32,
}

/// A down or up block: resnets, each followed by a transformer where the block has cross-attention.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Block {
    pub(super) channels: u32,
    pub(super) layers: u32,
    pub(super) attention: Option<Attention>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mid {
    /// `mid_block_type` null.
    Nothing,
    /// `UNetMidBlock2D`, which in this class is one resnet.
    Resnet,
    /// `UNetMidBlock2DCrossAttn`: resnet, transformer, resnet.
    CrossAttention(Attention),
}

impl Config {
    /// What a copy of its way down and its middle has, of which nothing depends on guidance; `None` without a middle.
    pub(super) fn way_down_alone(&self) -> Option<Config> {
        let own = || Config { up: Vec::new(), time_cond_proj_dim: None, ..self.clone() };
        (self.mid != Mid::Nothing).then(own)
    }

    /// Reads `unet/config.json`. Refuses by name every field that changes the computation and that is not
    /// computed here. Ignored on purpose: `use_linear_projection` (see [`transformer`](super::transformer)), `dropout`,
    /// and what only block types that are refused would read (`resnet_skip_time_act`, `resnet_out_scale_factor`,
    /// `cross_attention_norm`, `mid_block_only_cross_attention`, `addition_embed_type_num_heads`).
    pub fn from_config(config: &Value) -> Result<Config> {
        let f = Fields::diffusers(config, "UNet2DConditionModel")?;
        f.must_be_null("num_attention_heads")?; // diffusers itself refuses it
        let mut config = Self::way_down(&f, "attention_head_dim")?;
        config.upcast_attention = f.bool("upcast_attention", false)?;
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
            upcast_attention: false,
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

    /// Width and level of what T2I-Adapters add inside the way down, in its order; the middle's, where there is one, is the
    /// last.
    pub fn features(&self) -> Vec<(u32, u32)> {
        let last = self.down.len().saturating_sub(1) as u32;
        // Inside of what has no attention it is added behind the downsampler.
        let level = |i: u32, block: &Block| if block.attention.is_some() { i } else { last.min(i + 1) };
        let mut features: Vec<_> = (0..).zip(&self.down).map(|(i, b)| (b.channels, level(i, b))).collect();
        if let (Some(block), true) = (self.down.last(), !matches!(self.mid, Mid::Nothing)) {
            features.push((block.channels, last));
        }
        features
    }

    /// Blocks of the way down.
    pub fn blocks(&self) -> usize {
        self.down.len()
    }
}

impl Config {
    /// Scope and width of every attention to the text, in the order of diffusers' `attn_processors`: the middle is last.
    pub fn cross_attentions(&self) -> Vec<(String, u32)> {
        let mut all = Vec::new();
        let mut add = |block: &str, attention: &Attention, channels: u32| {
            for (j, &depth) in attention.depth.iter().enumerate() {
                let own = |k| (format!("{block}.attentions.{j}.transformer_blocks.{k}.attn2"), channels);
                all.extend((0..depth).map(own));
            }
        };
        for (way, blocks) in [("down", &self.down), ("up", &self.up)] {
            for (i, block) in blocks.iter().enumerate() {
                if let Some(attention) = &block.attention {
                    add(&format!("{way}_blocks.{i}"), attention, block.channels);
                }
            }
        }
        if let Mid::CrossAttention(attention) = &self.mid {
            add("mid_block", attention, self.down.last().map_or(0, |b| b.channels));
        }
        all
    }

    /// Scope and width of every residual block.
    pub(super) fn resnets(&self) -> Vec<(String, u32)> {
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
                    time_ids: 6,
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
