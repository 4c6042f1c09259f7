//! BERT, transformers' `BertModel`, as the text encoder of models that read Chinese (Taiyi-Stable-Diffusion): from token
//! ids to hidden states. As in diffusers' pipelines nothing is masked: padding is read like any token.

use super::config::Fields;
use crate::error::{Error, Result};
use crate::gpu::{Recorder, Tensor};
use crate::ops::{self, Activation, Epilogue};
use serde_json::Value;

/// The encoder's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub vocab_size: u32,
    pub hidden_size: u32,
    pub intermediate_size: u32,
    pub num_hidden_layers: u32,
    pub num_attention_heads: u32,
    /// The longest sequence, in tokens.
    pub max_position_embeddings: u32,
    /// Kinds of segments; a prompt is all of the first.
    pub type_vocab_size: u32,
    pub layer_norm_eps: f32,
}

impl Config {
    /// Reads `text_encoder/config.json`. Refuses by name what is not computed here.
    pub fn from_config(config: &Value) -> Result<Config> {
        let f = Fields::object(config, "BertModel")?;
        f.one_of("model_type", &["bert"])?;
        f.one_of("hidden_act", &["gelu"])?;
        f.one_of("position_embedding_type", &["absolute"])?;
        f.must_be_false("is_decoder")?;
        f.must_be_false("use_attention_mask")?;
        let hidden_size = f.size("hidden_size", 768)?;
        Ok(Config {
            vocab_size: f.size("vocab_size", 30522)?,
            hidden_size,
            intermediate_size: f.size("intermediate_size", 3072)?,
            num_hidden_layers: f.size("num_hidden_layers", 12)?,
            num_attention_heads: f.heads(12, hidden_size)?,
            max_position_embeddings: f.size("max_position_embeddings", 512)?,
            type_vocab_size: f.size("type_vocab_size", 2)?,
            layer_norm_eps: f.f32("layer_norm_eps", 1e-12)?,
        })
    }
}

/// Inputs: ids `[n, tokens]`; the segment of each token, all 0; and vectors of textual inversion
/// `[n, 1, tokens, hidden_size]`, added to the tokens' embeddings.
#[derive(Clone, Copy)]
pub struct Inputs {
    pub input_ids: Tensor,
    pub token_type_ids: Tensor,
    pub vectors: Option<Tensor>,
}

/// `hidden_states[layers]`, `[n, 1, tokens, hidden_size]`: with all layers it is `last_hidden_state`.
///
/// # Errors
/// `invalid-option` for more layers than there are; `unsupported-model` for too long a sequence.
pub fn hidden_state(config: &Config, r: &mut Recorder, inputs: &Inputs, layers: u32) -> Result<Tensor> {
    if layers > config.num_hidden_layers {
        return Err(Error::invalid(format!(
            "the text encoder has {} layers, {layers} were asked for. Use a smaller clipSkip",
            config.num_hidden_layers
        )));
    }
    let eps = config.layer_norm_eps;
    let mut x = ops::embed(
        r,
        inputs.input_ids,
        "embeddings.word_embeddings",
        config.vocab_size,
        "embeddings.position_embeddings",
        config.max_position_embeddings,
        config.hidden_size,
    )?;
    if let Some(vectors) = inputs.vectors {
        x = ops::add(r, x, vectors)?;
    }
    let kinds = config.type_vocab_size;
    x = ops::embed_onto(r, x, inputs.token_type_ids, "embeddings.token_type_embeddings", kinds)?;
    x = ops::layer_norm(r, x, "embeddings.LayerNorm", eps)?;
    for i in 0..layers {
        x = layer(config, &mut r.scope(format_args!("encoder.layer.{i}")), x)?;
    }
    Ok(x)
}

/// One post-norm layer: self-attention over all tokens, then the perceptron.
fn layer(config: &Config, r: &mut Recorder, x: Tensor) -> Result<Tensor> {
    let (width, eps) = (config.hidden_size, config.layer_norm_eps);
    let names = ["attention.self.query", "attention.self.key", "attention.self.value"];
    let qkv = ops::linear_stack(r, x, &names.map(|name| (name, width)))?;
    let h = ops::attention(r, qkv[0], qkv[1], qkv[2], config.num_attention_heads, false)?;
    let plus_x = Epilogue { residual: Some(x), ..Default::default() };
    let h = ops::linear(r, h, "attention.output.dense", width, plus_x)?;
    let x = ops::layer_norm(r, h, "attention.output.LayerNorm", eps)?;

    let gelu = Epilogue { activation: Activation::Gelu, ..Default::default() };
    let h = ops::linear(r, x, "intermediate.dense", config.intermediate_size, gelu)?;
    let plus_x = Epilogue { residual: Some(x), ..Default::default() };
    let h = ops::linear(r, h, "output.dense", width, plus_x)?;
    ops::layer_norm(r, h, "output.LayerNorm", eps)
}
