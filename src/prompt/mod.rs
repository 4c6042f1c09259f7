//! From a prompt to CLIP's token ids.

use crate::error::Result;

/// CLIP's byte-pair tokenizer, as transformers 5's `CLIPTokenizer`.
pub struct Tokenizer {}

/// The files of a checkpoint's `tokenizer/` folder, as bytes; those that it lacks are `None`.
/// Either `tokenizer_json` or both of `vocab` and `merges` are needed.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenizerFiles<'a> {
    /// `vocab.json`
    pub vocab: Option<&'a [u8]>,
    /// `merges.txt`
    pub merges: Option<&'a [u8]>,
    /// `tokenizer.json`
    pub tokenizer_json: Option<&'a [u8]>,
    /// `tokenizer_config.json`: special tokens, `model_max_length`
    pub tokenizer_config: Option<&'a [u8]>,
    /// `special_tokens_map.json`: special tokens
    pub special_tokens_map: Option<&'a [u8]>,
}

/// A prompt as the text encoder takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// `model_max_length` (77) ids: start, prompt, end, padding.
    pub ids: Vec<u32>,
    /// How many of them are not padding, start and end included.
    pub count: usize,
    /// The end of the prompt that did not fit, as text; `None` if all did.
    pub truncated: Option<String>,
}

impl Tokenizer {
    /// Errors: `bad-checkpoint` if a file is missing or broken, `unsupported-model` for a tokenizer that
    /// is not CLIP's.
    pub fn from_files(_files: TokenizerFiles) -> Result<Self> {
        todo!("not written yet")
    }

    /// Length of every encoded prompt, 77 for all known checkpoints.
    pub fn model_max_length(&self) -> usize {
        todo!("not written yet")
    }

    /// A prompt's ids, padded and truncated to `model_max_length`.
    pub fn encode(&self, _prompt: &str) -> Result<Tokens> {
        todo!("not written yet")
    }
}
