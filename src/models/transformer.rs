//! `Transformer2DModel` of diffusers, in the one form that Stable Diffusion's UNets use: GroupNorm, projection
//! in, `BasicTransformerBlock`s, projection out, residual. Pictures stay pictures: a row of a matrix is a pixel
//! in either shape. So is it all one whether the projections are 1x1 convolutions or linear layers
//! (`use_linear_projection`): the file holds the same numbers.

use crate::error::Result;
use crate::gpu::{Recorder, Tensor};
use crate::ops::{self, Activation, Columns, Epilogue, Input};

/// What the transformers of one UNet block have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Heads; each is `channels / heads` wide.
    pub heads: u32,
    /// Width of `encoder_hidden_states`.
    pub cross_attention_dim: u32,
    /// `BasicTransformerBlock`s of each layer's transformer (`transformer_layers_per_block`).
    pub depth: Vec<u32>,
    /// The first attention too looks at the text.
    pub only_cross_attention: bool,
    pub norm_num_groups: u32,
}

/// Epsilons that diffusers does not configure.
const GROUP_NORM_EPS: f32 = 1e-6;
const LAYER_NORM_EPS: f32 = 1e-5;

/// The transformer of a block's `layer`, in whose scope `r` is: a picture `[n, h, w, c]` and the text `[n, 1, tokens,
/// width]` to a picture of the same size.
pub fn transformer_2d(
    a: &Attention,
    r: &mut Recorder,
    x: Tensor,
    encoder_hidden_states: Tensor,
    layer: usize,
) -> Result<Tensor> {
    let h = ops::group_norm(r, x, "norm", a.norm_num_groups, GROUP_NORM_EPS, Activation::None)?;
    let mut h = ops::linear(r, h, "proj_in", x.c, Epilogue::default())?;
    for i in 0..a.depth.get(layer).copied().unwrap_or(0) {
        let r = &mut r.scope(format_args!("transformer_blocks.{i}"));
        h = basic_transformer_block(a, r, h, encoder_hidden_states)?;
    }
    let plus_x = Epilogue { residual: Some(x), ..Default::default() };
    ops::linear(r, h, "proj_out", x.c, plus_x)
}

/// Self-attention, attention to the text, and a GEGLU perceptron of four times the width; each after a
/// LayerNorm and added to its input.
fn basic_transformer_block(
    a: &Attention,
    r: &mut Recorder,
    x: Tensor,
    encoder_hidden_states: Tensor,
) -> Result<Tensor> {
    let h = ops::layer_normed(r, x, "norm1", LAYER_NORM_EPS)?;
    let context = a.only_cross_attention.then_some(encoder_hidden_states);
    let x = attention(a.heads, &mut r.scope("attn1"), h, context, &[], x)?;

    let h = ops::layer_normed(r, x, "norm2", LAYER_NORM_EPS)?;
    let images = r.images.get(&r.path("attn2")).cloned().unwrap_or_default();
    let x = attention(a.heads, &mut r.scope("attn2"), h, Some(encoder_hidden_states), &images, x)?;

    let h = ops::layer_normed(r, x, "norm3", LAYER_NORM_EPS)?;
    let geglu = Epilogue { geglu: true, ..Default::default() };
    let h = ops::linear(r, h, "ff.net.0.proj", 8 * x.c, geglu)?;
    let plus_x = Epilogue { residual: Some(x), ..Default::default() };
    ops::linear(r, h, "ff.net.2", x.c, plus_x)
}

/// Queries of `h` against keys and values of the text `context`, or without one of `h` itself, added to `residual`.
/// Only the last projection has a bias. The text's keys and values are made once for all steps with the same text. What
/// the queries see of pictures, whose keys and values are given (an IP-Adapter's), is added to what they see of the text.
fn attention(
    heads: u32,
    r: &mut Recorder,
    h: Input,
    context: Option<Tensor>,
    images: &[Tensor],
    residual: Tensor,
) -> Result<Tensor> {
    let c = residual.c;
    let (q, k, v) = match context {
        None => {
            let qkv = ops::linear_stack_no_bias(r, h, &[("to_q", c), ("to_k", c), ("to_v", c)])?;
            (qkv[0], qkv[1], qkv[2])
        }
        Some(text) => {
            let kv = r.setup(|r| ops::linear_stack_no_bias(r, text, &[("to_k", c), ("to_v", c)]))?;
            let q = ops::linear_no_bias(r, h, "to_q", c, Epilogue::default())?;
            ops::watch_attention(r, q, kv[0], heads);
            (q.into(), kv[0], kv[1])
        }
    };
    let mut h = ops::attention(r, q, k, v, heads, false)?;
    for &image in images {
        let [k, v] = [0, 1].map(|i| Columns::nth(image, i, c));
        let seen = ops::attention(r, q, k, v, heads, false)?;
        h = ops::add(r, h, seen)?;
    }
    let plus_residual = Epilogue { residual: Some(residual), ..Default::default() };
    ops::linear(r, h, "to_out.0", c, plus_residual)
}
