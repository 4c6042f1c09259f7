//! CLIP's text encoder: transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`, from token ids to
//! hidden states and to the pooled embedding.

use super::config::Fields;
use crate::error::{Error, Result};
use crate::gpu::{Recorder, Tensor};
use crate::ops::{self, Activation, Epilogue};
use serde_json::Value;

/// A text encoder's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub vocab_size: u32,
    pub hidden_size: u32,
    pub intermediate_size: u32,
    pub num_hidden_layers: u32,
    pub num_attention_heads: u32,
    /// The longest sequence, in tokens.
    pub max_position_embeddings: u32,
    pub hidden_act: Activation,
    pub layer_norm_eps: f32,
    pub eos_token_id: u32,
    /// Width of `text_embeds`; `None` for `CLIPTextModel`, which has no projection.
    pub projection_dim: Option<u32>,
}

impl Config {
    /// Reads `text_encoder/config.json`. Refuses by name what is not CLIP's text encoder.
    pub fn from_config(config: &Value) -> Result<Config> {
        let f = Fields::object(config, "CLIPTextModel")?;
        f.one_of("model_type", &["clip_text_model"])?;
        let projection = match f.get("architectures") {
            None | Some(Value::Null) => false,
            Some(Value::Array(names)) => match names.first().and_then(Value::as_str) {
                Some("CLIPTextModel") => false,
                Some("CLIPTextModelWithProjection") => true,
                _ => return Err(f.refuse("architectures", "CLIPTextModel or CLIPTextModelWithProjection")),
            },
            Some(_) => return Err(f.refuse("architectures", "a list with one class name")),
        };
        // Read by diffusers' pipelines: with it, padding is masked.
        f.must_be_false("use_attention_mask")?;
        let hidden_act = match f.one_of("hidden_act", &["quick_gelu", "gelu"])? {
            "gelu" => Activation::Gelu,
            _ => Activation::QuickGelu,
        };
        let hidden_size = f.size("hidden_size", 512)?;
        let num_attention_heads = f.heads(8, hidden_size)?;
        let eos_token_id = match f.get("eos_token_id") {
            None => 49407,
            Some(v) => v
                .as_u64()
                .and_then(|v| u32::try_from(v).ok())
                .ok_or_else(|| f.refuse("eos_token_id", "one token id"))?,
        };
        Ok(Config {
            vocab_size: f.size("vocab_size", 49408)?,
            hidden_size,
            intermediate_size: f.size("intermediate_size", 2048)?,
            num_hidden_layers: f.size("num_hidden_layers", 12)?,
            num_attention_heads,
            max_position_embeddings: f.size("max_position_embeddings", 77)?,
            hidden_act,
            layer_norm_eps: f.f32("layer_norm_eps", 1e-5)?,
            eos_token_id,
            projection_dim: if projection { Some(f.size("projection_dim", 512)?) } else { None },
        })
    }

    /// The place in a sequence whose hidden state is the pooled embedding: the first `eos_token_id`.
    /// Configurations older than transformers 4.31 say 2 there, which is wrong; for them it is the place of
    /// the highest id, which in CLIP's own vocabulary is the end of text.
    pub fn eos_index(&self, ids: &[u32]) -> u32 {
        let found = if self.eos_token_id == 2 {
            let highest = ids.iter().max();
            ids.iter().position(|id| Some(id) == highest)
        } else {
            ids.iter().position(|&id| id == self.eos_token_id)
        };
        found.unwrap_or(0) as u32
    }
}

/// `hidden_states` as transformers counts them: the embeddings, then the outputs of the first `layers` layers;
/// each `[n, 1, tokens, hidden_size]`. `input_ids` is u32 `[n, tokens]`. SDXL, which conditions on
/// `hidden_states[-2]`, asks for one layer less than there are unless it needs the pooled embedding as well.
/// `vectors` `[n, 1, tokens, hidden_size]` are added to the tokens' embeddings; an id past the vocabulary has none of
/// its own (textual inversion).
///
/// `InvalidOption` for more layers than there are (a `clip_skip` too large), or too long a sequence.
pub fn hidden_states(
    config: &Config,
    r: &mut Recorder,
    input_ids: Tensor,
    vectors: Option<Tensor>,
    layers: u32,
) -> Result<Vec<Tensor>> {
    if layers > config.num_hidden_layers {
        return Err(Error::invalid(format!(
            "the text encoder has {} layers, {layers} were asked for. Use a smaller clipSkip",
            config.num_hidden_layers
        )));
    }
    if input_ids.w > config.max_position_embeddings {
        return Err(Error::invalid(format!(
            "the text encoder reads {} tokens at a time, not {}",
            config.max_position_embeddings, input_ids.w
        )));
    }
    let mut x = ops::embed(
        r,
        input_ids,
        "embeddings.token_embedding",
        config.vocab_size,
        "embeddings.position_embedding",
        config.max_position_embeddings,
        config.hidden_size,
    )?;
    if let Some(vectors) = vectors {
        x = ops::add(r, x, vectors)?;
    }
    let mut states = vec![x];
    let layer = EncoderLayer {
        intermediate_size: config.intermediate_size,
        heads: config.num_attention_heads,
        hidden_act: config.hidden_act,
        eps: config.layer_norm_eps,
        causal: true,
    };
    for i in 0..layers {
        x = layer.forward(&mut r.scope(format_args!("encoder.layers.{i}")), x)?;
        states.push(x);
    }
    Ok(states)
}

/// `CLIPEncoderLayer`, of either encoder.
pub(super) struct EncoderLayer {
    pub intermediate_size: u32,
    pub heads: u32,
    pub hidden_act: Activation,
    pub eps: f32,
    /// A token sees those before it.
    pub causal: bool,
}

impl EncoderLayer {
    /// Self-attention, then the perceptron, each behind a norm.
    pub fn forward(&self, r: &mut Recorder, x: Tensor) -> Result<Tensor> {
        let width = x.c;
        let h = ops::layer_norm(r, x, "layer_norm1", self.eps)?;
        let names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
        let qkv = ops::linear_stack(r, h, &names.map(|name| (name, width)))?;
        let h = ops::attention(r, qkv[0], qkv[1], qkv[2], self.heads, self.causal)?;
        let plus_x = Epilogue { residual: Some(x), ..Default::default() };
        let x = ops::linear(r, h, "self_attn.out_proj", width, plus_x)?;

        let h = ops::layer_norm(r, x, "layer_norm2", self.eps)?;
        let act = Epilogue { activation: self.hidden_act, ..Default::default() };
        let h = ops::linear(r, h, "mlp.fc1", self.intermediate_size, act)?;
        let plus_x = Epilogue { residual: Some(x), ..Default::default() };
        ops::linear(r, h, "mlp.fc2", width, plus_x)
    }
}

/// The norm after the last layer: of `hidden_states[-1]`, it is `last_hidden_state`.
pub fn final_layer_norm(config: &Config, r: &mut Recorder, hidden_state: Tensor) -> Result<Tensor> {
    ops::layer_norm(r, hidden_state, "final_layer_norm", config.layer_norm_eps)
}

/// `pooler_output` `[n, 1, 1, hidden_size]`: the rows of `last_hidden_state` at `eos_index` (u32 `[n]`, see
/// [`Config::eos_index`]).
pub fn pooler_output(r: &mut Recorder, last_hidden_state: Tensor, eos_index: Tensor) -> Result<Tensor> {
    ops::gather(r, last_hidden_state, eos_index)
}

/// `text_embeds` `[n, 1, 1, projection_dim]` of `CLIPTextModelWithProjection`, from `pooler_output`.
/// `UnsupportedModel` for a text encoder without projection.
pub fn text_embeds(config: &Config, r: &mut Recorder, pooler_output: Tensor) -> Result<Tensor> {
    let width = config.projection_dim.ok_or_else(|| {
        Error::unsupported(
            "CLIPTextModel has no text_projection: this pipeline needs a CLIPTextModelWithProjection. Choose \
             another checkpoint",
        )
    })?;
    ops::linear_no_bias(r, pooler_output, "text_projection", width, Epilogue::default())
}
