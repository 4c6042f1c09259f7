//! The kinds of text encoder.

use super::{bert, clip};
use crate::checkpoint::names;
use crate::error::Result;
use serde_json::Value;
use std::borrow::Cow;

/// A text encoder's configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum Config {
    Clip(clip::Config),
    Bert(bert::Config),
}

impl Config {
    /// Reads `text_encoder/config.json`.
    ///
    /// # Errors
    /// `unsupported-model` naming the field.
    pub fn from_config(config: &Value) -> Result<Config> {
        match config.get("model_type").and_then(Value::as_str) {
            Some("bert") => bert::Config::from_config(config).map(Config::Bert),
            _ => clip::Config::from_config(config).map(Config::Clip),
        }
    }

    pub fn vocab_size(&self) -> u32 {
        match self {
            Config::Clip(config) => config.vocab_size,
            Config::Bert(config) => config.vocab_size,
        }
    }

    pub fn hidden_size(&self) -> u32 {
        match self {
            Config::Clip(config) => config.hidden_size,
            Config::Bert(config) => config.hidden_size,
        }
    }

    pub fn num_hidden_layers(&self) -> u32 {
        match self {
            Config::Clip(config) => config.num_hidden_layers,
            Config::Bert(config) => config.num_hidden_layers,
        }
    }

    pub fn max_position_embeddings(&self) -> u32 {
        match self {
            Config::Clip(config) => config.max_position_embeddings,
            Config::Bert(config) => config.max_position_embeddings,
        }
    }

    /// Width of the pooled embedding, where there is one.
    pub fn projection_dim(&self) -> Option<u32> {
        match self {
            Config::Clip(config) => config.projection_dim,
            Config::Bert(_) => None,
        }
    }

    /// What stands in files to the names of its weights.
    pub fn names(&self) -> fn(&str) -> Option<Cow<'_, str>> {
        match self {
            Config::Clip(_) => names::clip,
            Config::Bert(_) => names::bert,
        }
    }
}
