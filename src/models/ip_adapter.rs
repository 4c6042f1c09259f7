//! IP-Adapter (Ye et al. 2023, arXiv 2308.06721): pictures as tokens beside the text's, with keys and values of their own
//! in every attention to the text. diffusers' `ImageProjection`, `IPAdapterPlusImageProjection` (a Perceiver resampler),
//! `IPAdapterFullImageProjection`, and the second half of `IPAdapterAttnProcessor`. Names are those of the files of
//! h94/IP-Adapter.

use super::{clip_vision, unet};
use crate::error::{Error, Result};
use crate::gpu::{Recorder, Tensor};
use crate::ops::{self, Activation, Columns, Conv, Epilogue, Rows};
use std::collections::BTreeMap;

/// Of every `LayerNorm` here.
const EPS: f32 = 1e-5;
/// Channels of a head of the resampler.
const HEAD: u32 = 64;

/// What an adapter makes tokens of, and how.
#[derive(Clone, Debug, PartialEq)]
pub enum Projection {
    /// The picture's embedding, by one layer.
    Plain { tokens: u32 },
    /// The last hidden state but one, by a resampler.
    Plus(Resampler),
    /// The last hidden state but one, token by token ("full-face").
    Full,
}

/// Some tokens, learnt, that look at the picture's, layer by layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Resampler {
    pub queries: u32,
    pub hidden: u32,
    heads: u32,
    depth: u32,
    feed_forward: u32,
}

/// An IP-Adapter, as its tensors' shapes tell it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub projection: Projection,
    /// Width of what it is given of a picture.
    pub image_dim: u32,
    pub cross_attention_dim: u32,
    /// Number, scope and width of every attention that looks at pictures.
    layers: Vec<(u32, String, u32)>,
}

/// Tensors' shapes by their names in the file.
pub type Shapes<'a> = BTreeMap<&'a str, &'a [u64]>;

/// A side of a tensor that is there.
fn side(shapes: &Shapes, name: &str, axis: usize) -> Result<u32> {
    let side = shapes.get(name).and_then(|shape| shape.get(axis)).copied();
    side.and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=1 << 20).contains(n)).ok_or_else(|| {
        Error::bad_checkpoint(format!(
            "The IP-Adapter has no tensor {name:?}, or one of a shape that cannot be. Choose another copy."
        ))
    })
}

impl Projection {
    /// `UnsupportedModel` naming what else the file is.
    fn of(shapes: &Shapes) -> Result<(Projection, u32, u32)> {
        let has = |name: &str| shapes.contains_key(name);
        let face = "an IP-Adapter FaceID, which is given a face's features by a program that is not part of it \
                    (InsightFace)";
        if has("image_proj.perceiver_resampler.proj_in.weight")
            || has("image_proj.norm.weight") && !has(PLAIN)
        {
            return Err(refused(face));
        }
        if has(PLAIN) {
            let cross = side(shapes, "image_proj.norm.weight", 0)?;
            let rows = side(shapes, PLAIN, 0)?;
            if !rows.is_multiple_of(cross) {
                return Err(refused("an IP-Adapter whose projection makes no whole tokens"));
            }
            return Ok((Projection::Plain { tokens: rows / cross }, side(shapes, PLAIN, 1)?, cross));
        }
        if has("image_proj.proj.3.weight") {
            let dim = side(shapes, "image_proj.proj.0.weight", 1)?;
            return Ok((Projection::Full, dim, side(shapes, "image_proj.proj.3.weight", 0)?));
        }
        if !has("image_proj.latents") || !has("image_proj.layers.0.0.to_q.weight") {
            return Err(refused("an IP-Adapter of a kind that is not computed here"));
        }
        // The last that anything is there of.
        let layers =
            shapes.keys().filter_map(|name| name.strip_prefix("image_proj.layers.")?.split_once('.'));
        let depth =
            layers.filter_map(|(layer, _)| layer.parse::<u32>().ok()).max().map_or(0, |n| n.min(63) + 1);
        let inner = side(shapes, "image_proj.layers.0.0.to_q.weight", 0)?;
        if !inner.is_multiple_of(HEAD) {
            return Err(refused("an IP-Adapter Plus whose heads are not 64 channels wide"));
        }
        let resampler = Resampler {
            queries: side(shapes, "image_proj.latents", 1)?,
            hidden: side(shapes, "image_proj.latents", 2)?,
            heads: inner / HEAD,
            depth,
            feed_forward: side(shapes, "image_proj.layers.0.1.1.weight", 0)?,
        };
        let dims = ["image_proj.proj_in.weight", "image_proj.proj_out.weight"];
        Ok((Projection::Plus(resampler), side(shapes, dims[0], 1)?, side(shapes, dims[1], 0)?))
    }
}

const PLAIN: &str = "image_proj.proj.weight";

fn refused(what: &str) -> Error {
    Error::unsupported(format!(
        "This is {what}. Choose an IP-Adapter or an IP-Adapter Plus, such as h94/IP-Adapter's ip-adapter_sd15 or \
         ip-adapter-plus_sd15"
    ))
}

impl Config {
    /// What the file with tensors of these shapes is, beside this UNet.
    ///
    /// `UnsupportedModel` for an adapter of another kind or of another kind of model; `BadCheckpoint` for a damaged one.
    pub fn of(shapes: &Shapes, unet: &unet::Config) -> Result<Config> {
        let (projection, image_dim, cross_attention_dim) = Projection::of(shapes)?;
        let layers = (0..).map(|i| 2 * i + 1).zip(unet.cross_attentions());
        let layers: Vec<_> = layers.map(|(number, (scope, c))| (number, scope, c)).collect();
        let fits = |(number, _, c): &(u32, String, u32)| {
            let wanted = [u64::from(*c), u64::from(cross_attention_dim)];
            let own = |key| shapes.get(format!("ip_adapter.{number}.to_{key}_ip.weight").as_str());
            ["k", "v"].iter().all(|key| own(key).is_some_and(|shape| **shape == wanted))
        };
        let all = shapes.keys().filter(|name| name.ends_with(".to_k_ip.weight")).count();
        let dim = unet.cross_attention_dim;
        if cross_attention_dim != dim || all != layers.len() || !layers.iter().all(fits) {
            return Err(Error::unsupported(format!(
                "It is an IP-Adapter for another kind of model: {all} layers with text of {cross_attention_dim} \
                 channels, where this model has {} with {dim}. Choose an IP-Adapter made for it",
                layers.len()
            )));
        }
        if !dim.is_multiple_of(4) {
            return Err(refused("an IP-Adapter with channels that are no multiple of 4"));
        }
        Ok(Config { projection, image_dim, cross_attention_dim, layers })
    }

    /// Whether it is given hidden states, and not the picture's embedding.
    pub fn sees_hidden_states(&self) -> bool {
        !matches!(self.projection, Projection::Plain { .. })
    }

    /// Tokens of what it is given of a picture of this encoder's, and how wide that is.
    pub fn given(&self, encoder: &clip_vision::Config) -> (u32, u32) {
        match self.sees_hidden_states() {
            true => (encoder.tokens(), encoder.hidden_size),
            false => (1, encoder.projection_dim),
        }
    }

    /// Tokens that it makes of a picture.
    pub fn tokens(&self, encoder: &clip_vision::Config) -> u32 {
        match &self.projection {
            Projection::Plain { tokens } => *tokens,
            Projection::Plus(resampler) => resampler.queries,
            Projection::Full => encoder.tokens(),
        }
    }
}

/// What is recorded of an adapter.
pub struct Recorded {
    /// What it is given of a picture.
    pub image: Tensor,
    /// Of a resampler, `image_proj.latents`.
    pub latents: Option<Tensor>,
    /// By the attention's scope, keys and values, `[1, 1, tokens, 2 * channels]`.
    pub keys: Vec<(String, Tensor)>,
}

/// Keys and values of one picture, for every attention to the text.
pub fn record(config: &Config, encoder: &clip_vision::Config, r: &mut Recorder) -> Result<Recorded> {
    let (given, width) = config.given(encoder);
    let image = r.input(1, 1, given, width);
    let mut latents = None;
    let (dim, gelu) =
        (config.cross_attention_dim, Epilogue { activation: Activation::Gelu, ..Default::default() });
    let tokens = {
        let r = &mut r.scope("image_proj");
        match &config.projection {
            Projection::Plain { tokens } => {
                let x = ops::linear(r, image, "proj", tokens * dim, Epilogue::default())?;
                ops::layer_norm(r, x.split(dim), "norm", EPS)?
            }
            Projection::Plus(resampler) => {
                let queries = r.input(1, 1, resampler.queries, resampler.hidden);
                latents = Some(queries);
                let x = resampler.forward(r, image, queries)?;
                let x = ops::linear(r, x, "proj_out", dim, Epilogue::default())?;
                ops::layer_norm(r, x, "norm_out", EPS)?
            }
            Projection::Full => {
                let x = ops::linear(r, image, "proj.0", width, gelu)?;
                let x = ops::linear(r, x, "proj.2", dim, Epilogue::default())?;
                ops::layer_norm(r, x, "proj.3", EPS)?
            }
        }
    };
    let mut keys = Vec::with_capacity(config.layers.len());
    for (number, scope, c) in &config.layers {
        let r = &mut r.scope(format_args!("ip_adapter.{number}"));
        let both = ops::linear_stack_no_bias(r, tokens, &[("to_k_ip", *c), ("to_v_ip", *c)])?;
        let tensor = both.first().map_or(tokens, |columns| columns.tensor);
        r.output(tensor);
        keys.push((scope.clone(), tensor));
    }
    Ok(Recorded { image, latents, keys })
}

impl Resampler {
    /// The queries, `[1, 1, queries, hidden]`, after they have looked at the picture's tokens `[1, 1, tokens, width]`.
    fn forward(&self, r: &mut Recorder, image: Tensor, mut queries: Tensor) -> Result<Tensor> {
        let x = ops::linear(r, image, "proj_in", self.hidden, Epilogue::default())?;
        for i in 0..self.depth {
            queries = self.block(&mut r.scope(format_args!("layers.{i}")), x, queries)?;
        }
        Ok(queries)
    }

    /// Attention to the picture's tokens and to the queries themselves, and a perceptron; each behind a norm and added to
    /// its input.
    fn block(&self, r: &mut Recorder, x: Tensor, queries: Tensor) -> Result<Tensor> {
        let inner = self.heads * HEAD;
        let none = Epilogue::default();
        let h = ops::layer_norm(r, x, "0.norm1", EPS)?;
        let own = ops::layer_norm(r, queries, "0.norm2", EPS)?;
        let q = ops::linear_no_bias(r, own, "0.to_q", inner, none)?;
        // Tokens as rows of a picture one pixel wide, so that both products write into one tensor.
        let height = h.w + own.w;
        let both = r.tensor(1, height, 1, 2 * inner);
        let conv = Conv { bias: false, ..Conv::k1() };
        for (part, from) in [(h, 0), (own, h.w)] {
            let rows = Rows { tensor: part.unflatten(part.w, 1), from, height };
            ops::conv2d_rows(r, rows, "0.to_kv", 2 * inner, conv, from..from + part.w, Some(both))?;
        }
        let [k, v] = [0, 1].map(|i| Columns::nth(both, i, inner));
        let h = ops::attention(r, q, k, v, self.heads, false)?;
        let plus = |residual| Epilogue { residual: Some(residual), ..none };
        let x = ops::linear_no_bias(r, h, "0.to_out", self.hidden, plus(queries))?;

        let h = ops::layer_norm(r, x, "1.0", EPS)?;
        let gelu = Epilogue { activation: Activation::Gelu, ..none };
        let h = ops::linear_no_bias(r, h, "1.1", self.feed_forward, gelu)?;
        ops::linear_no_bias(r, h, "1.3", self.hidden, plus(x))
    }
}
