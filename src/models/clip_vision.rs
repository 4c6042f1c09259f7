//! CLIP's image encoder: transformers' `CLIPVisionModelWithProjection`, from a picture's patches to hidden states and to
//! the picture's embedding.

use super::clip::EncoderLayer;
use super::config::Fields;
use crate::error::Result;
use crate::gpu::{Recorder, Tensor};
use crate::ops::{self, Activation, Epilogue};
use serde_json::{Value, json};

/// An image encoder's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub hidden_size: u32,
    pub intermediate_size: u32,
    pub num_hidden_layers: u32,
    pub num_attention_heads: u32,
    /// Pixels of a side of the pictures that it sees, and of a patch.
    pub image_size: u32,
    pub patch_size: u32,
    pub hidden_act: Activation,
    pub layer_norm_eps: f32,
    /// Width of `image_embeds`.
    pub projection_dim: u32,
}

impl Config {
    /// Reads `image_encoder/config.json`. Refuses by name what is not CLIP's image encoder.
    pub fn from_config(config: &Value) -> Result<Config> {
        let f = Fields::object(config, "CLIPVisionModelWithProjection")?;
        f.one_of("model_type", &["clip_vision_model"])?;
        f.must_be_number("num_channels", 3.0)?;
        let hidden_act = match f.one_of("hidden_act", &["quick_gelu", "gelu"])? {
            "gelu" => Activation::Gelu,
            _ => Activation::QuickGelu,
        };
        let hidden_size = f.size("hidden_size", 768)?;
        let num_attention_heads = f.heads(12, hidden_size)?;
        let image_size = f.size("image_size", 224)?;
        let patch_size = f.size("patch_size", 32)?;
        if image_size > 1024 {
            return Err(f.refuse("image_size", "a side of at most 1024"));
        }
        if patch_size > image_size || image_size / patch_size > 64 {
            return Err(
                f.refuse("patch_size", "a side that image_size has at least once, and at most 64 times")
            );
        }
        Ok(Config {
            hidden_size,
            intermediate_size: f.size("intermediate_size", 3072)?,
            num_hidden_layers: f.size("num_hidden_layers", 12)?,
            num_attention_heads,
            image_size,
            patch_size,
            hidden_act,
            layer_norm_eps: f.f32("layer_norm_eps", 1e-5)?,
            projection_dim: f.size("projection_dim", 512)?,
        })
    }

    /// `config.json` of weights that come without: what their shapes tell, and beside it what published encoders have.
    /// `dim` gives one side of a tensor by its canonical name, `layers` are the encoder's. OpenAI's own (ViT-B and ViT-L)
    /// have 64 channels a head and `quick_gelu`, OpenCLIP's (ViT-H, ViT-bigG) 16 heads and `gelu`.
    pub fn of_shapes(dim: impl Fn(&str, usize) -> u64, layers: u64) -> Value {
        let hidden = dim("embeddings.patch_embedding.weight", 0);
        let patch = dim("embeddings.patch_embedding.weight", 2);
        let side = dim("embeddings.position_embedding.weight", 0).saturating_sub(1).isqrt();
        let open_clip = hidden > 1024;
        json!({
            "model_type": "clip_vision_model",
            "hidden_size": hidden,
            "intermediate_size": dim("encoder.layers.0.mlp.fc1.weight", 0),
            "num_hidden_layers": layers,
            "num_attention_heads": if open_clip { 16 } else { (hidden / 64).max(1) },
            "hidden_act": if open_clip { "gelu" } else { "quick_gelu" },
            "image_size": side.saturating_mul(patch),
            "patch_size": patch,
            "projection_dim": dim("visual_projection.weight", 0),
        })
    }

    /// Tokens that a picture becomes: one for each patch, and one for all of it, the first.
    pub fn tokens(&self) -> u32 {
        let side = self.image_size / self.patch_size;
        1 + side * side
    }

    /// Values of a patch.
    fn patch(&self) -> u32 {
        3 * self.patch_size * self.patch_size
    }

    /// A picture, `[3][image_size][image_size]`, as [`Inputs::patches`].
    pub fn patches(&self, picture: &[f32]) -> Vec<f32> {
        let (size, patch) = (self.image_size as usize, self.patch_size as usize);
        let side = size / patch;
        // The first row is the class token's, which sees no pixels.
        let mut rows = vec![0.0; self.patch() as usize];
        for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
            for channel in picture.chunks_exact(size * size) {
                for row in channel.chunks_exact(size).skip(y * patch).take(patch) {
                    rows.extend_from_slice(&row[x * patch..(x + 1) * patch]);
                }
            }
        }
        rows
    }
}

/// What the encoder is given of one picture.
#[derive(Clone, Copy, Debug)]
pub struct Inputs {
    /// `[1, 1, tokens, 3 * patch_size * patch_size]`, of which the first is zeros.
    pub patches: Tensor,
    /// u32 `[1, tokens]`: 0, 1, 2 ...
    pub places: Tensor,
}

impl Inputs {
    pub fn new(config: &Config, r: &mut Recorder) -> Inputs {
        let tokens = config.tokens();
        Inputs { patches: r.input(1, 1, tokens, config.patch()), places: r.input_u32(1, tokens) }
    }
}

/// `hidden_states[layers]` as transformers counts them, `[1, 1, tokens, hidden_size]`: what is before the first layer
/// (behind `pre_layrnorm`), then what each gives.
pub fn hidden_state(config: &Config, r: &mut Recorder, inputs: &Inputs, layers: u32) -> Result<Tensor> {
    let Inputs { patches, places } = *inputs;
    let tokens = config.tokens();
    let x = ops::linear_no_bias(
        r,
        patches,
        "embeddings.patch_embedding",
        config.hidden_size,
        Epilogue::default(),
    )?;
    let x = ops::embed_onto(r, x, places, "embeddings.position_embedding", tokens)?;
    // A table of one row: only the first token's place is in it.
    let x = ops::embed_onto(r, x, places, "embeddings.class_embedding", 1)?;
    // The class's own spelling.
    let mut x = ops::layer_norm(r, x, "pre_layrnorm", config.layer_norm_eps)?;
    let layer = EncoderLayer {
        intermediate_size: config.intermediate_size,
        heads: config.num_attention_heads,
        hidden_act: config.hidden_act,
        eps: config.layer_norm_eps,
        causal: false,
    };
    for i in 0..layers {
        x = layer.forward(&mut r.scope(format_args!("encoder.layers.{i}")), x)?;
    }
    Ok(x)
}

/// `image_embeds`, `[1, 1, 1, projection_dim]`, of the last hidden state; `first`: u32 `[1, 1]`, which is 0.
pub fn image_embeds(config: &Config, r: &mut Recorder, last: Tensor, first: Tensor) -> Result<Tensor> {
    let class = ops::gather(r, last, first)?;
    let pooled = ops::layer_norm(r, class, "post_layernorm", config.layer_norm_eps)?;
    ops::linear_no_bias(r, pooled, "visual_projection", config.projection_dim, Epilogue::default())
}
