//! From a prompt to CLIP's token ids.
//!
//! - [`Tokenizer`]: text to ids.
//! - [`grammar`]: the language of AUTOMATIC1111's prompts.
//! - [`emphasis`]: what the weights do.
//! - [`chunk`]: weighted text of any length to the windows that the text encoder reads.

pub mod chunk;
pub mod emphasis;
pub mod grammar;
mod split;

pub use chunk::{Chunked, Embedding, FIRST_VECTOR, Piece, Syntax};
pub use grammar::BREAK;

use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{AddedToken, Model, OffsetType};

use crate::error::{Error, Result};

/// Length of an encoded prompt where the checkpoint does not say: what CLIP's text encoder has positions for.
const MODEL_MAX_LENGTH: usize = 77;

/// CLIP's byte-pair tokenizer, as transformers 5's `CLIPTokenizer`.
pub struct Tokenizer {
    bpe: BPE,
    added: split::Added,
    bos: u32,
    eos: u32,
    pad: u32,
    model_max_length: usize,
}

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
    /// `special_tokens_map.json`: special tokens; they count before those of `tokenizer_config.json`, unless
    /// that has `added_tokens_decoder`
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
    pub fn from_files(files: TokenizerFiles) -> Result<Self> {
        let optional = |bytes: Option<&[u8]>, name| bytes.map_or(Ok(Map::new()), |bytes| object(bytes, name));
        let config = optional(files.tokenizer_config, "tokenizer_config.json")?;
        // As transformers: a configuration that lists its tokens makes the map void.
        let listed = config.get("added_tokens_decoder").and_then(Value::as_object);
        let map = files.special_tokens_map.filter(|_| listed.is_none());
        let map = optional(map, "special_tokens_map.json")?;
        let mut whole = optional(files.tokenizer_json, "tokenizer.json")?;
        if let Some(class) = config.get("tokenizer_class").and_then(Value::as_str)
            && !["CLIPTokenizer", "CLIPTokenizerFast"].contains(&class)
        {
            return Err(Error::unsupported(format!(
                "the checkpoint's tokenizer is {class}; only CLIPTokenizer is supported, use a Stable \
                 Diffusion 1.x, 2.x or XL checkpoint"
            )));
        }

        // As transformers: of tokenizer.json the vocabulary and merges, or else the two files.
        let (vocab, merges) = if files.tokenizer_json.is_some() {
            let mut model = match whole.remove("model") {
                Some(Value::Object(model)) => model,
                _ => return Err(broken("tokenizer.json", "it has no `model`")),
            };
            let Some(Value::Object(vocab)) = model.remove("vocab") else {
                return Err(Error::unsupported("tokenizer.json is not of a byte-pair tokenizer; use CLIP's"));
            };
            let merges = model.get("merges").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let merges: Option<Merges> = merges.iter().map(merge_of_json).collect();
            (vocab, merges.ok_or_else(|| broken("tokenizer.json", "a merge is not two words"))?)
        } else {
            let (Some(vocab), Some(merges)) = (files.vocab, files.merges) else {
                return Err(Error::bad_checkpoint(
                    "the checkpoint's tokenizer/ has neither tokenizer.json nor vocab.json and merges.txt; \
                     add them",
                ));
            };
            (object(vocab, "vocab.json")?, merges_of_text(merges)?)
        };
        let vocab: Option<Vocab> =
            vocab.into_iter().map(|(word, id)| Some((word, id.as_u64()?.try_into().ok()?))).collect();
        let vocab =
            vocab.ok_or_else(|| broken("the tokenizer's vocabulary", "an id is not a whole number"))?;

        let default = |key: &str| if key == "bos_token" { "<|startoftext|>" } else { "<|endoftext|>" };
        let named = ["bos_token", "eos_token", "unk_token", "pad_token"].map(|key| {
            let value = map.get(key).or(config.get(key)).filter(|v| !v.is_null());
            value.map_or_else(|| Some(AddedToken::from(default(key), true)), added_token)
        });
        let [Some(bos), Some(eos), Some(unk), Some(pad)] = named else {
            return Err(broken(
                "the tokenizer's configuration",
                "a special token is neither text nor an object",
            ));
        };
        let id = |token: &AddedToken| {
            vocab.get(&token.content).copied().ok_or_else(|| {
                broken(
                    "the tokenizer's vocabulary",
                    &format!("it lacks the special token {:?}", token.content),
                )
            })
        };
        let (bos_id, eos_id, pad_id) = (id(&bos)?, id(&eos)?, id(&pad)?);

        let listed: Vec<&Value> = listed
            .map(|m| m.values().collect())
            .or_else(|| whole.get("added_tokens").and_then(Value::as_array).map(|a| a.iter().collect()))
            .unwrap_or_default();
        let mut added: Vec<AddedToken> = listed.into_iter().filter_map(added_token).collect();
        // A token outside the vocabulary would get an id that the text encoder has no row for.
        added.retain(|token| vocab.contains_key(&token.content));
        // As transformers: a listed token keeps its flags; of named ones with equal text the last counts.
        let listed = added.len();
        for token in [&bos, &eos, &unk, &pad] {
            match added.iter().position(|t| t.content == token.content) {
                Some(i) if i < listed => {}
                Some(i) => added[i] = token.clone(),
                None => added.push(token.clone()),
            }
        }

        let added = added.into_iter().map(|token| id(&token).map(|id| (token, id))).collect::<Result<_>>()?;
        let added = split::Added::new(added).map_err(|e| broken("an added token", &e.to_string()))?;

        let bpe = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .unk_token(unk.content)
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix("</w>".into())
            .build()
            .map_err(|e| broken("the tokenizer's merges", &e.to_string()))?;

        let length = config.get("model_max_length").and_then(Value::as_f64).filter(|&n| n < 1e6);
        let model_max_length = length.map_or(MODEL_MAX_LENGTH, |n| n as usize);
        if model_max_length < 2 {
            return Err(broken("tokenizer_config.json", "`model_max_length` leaves no room for a prompt"));
        }
        Ok(Self { bpe, added, bos: bos_id, eos: eos_id, pad: pad_id, model_max_length })
    }

    /// Length of every encoded prompt, 77 for all known checkpoints.
    pub fn model_max_length(&self) -> usize {
        self.model_max_length
    }

    /// The ids of a text and where in it each begins and ends (bytes), without marks at the ends. Fails with
    /// `invalid-option` if the tokenizer cannot read it.
    pub fn tokens(&self, text: &str) -> Result<Vec<(u32, usize, usize)>> {
        let encoding = self.encoding(text).map_err(|e| {
            Error::invalid(format!("the prompt cannot be split into tokens ({e}); choose other words"))
        })?;
        let offsets = encoding.get_offsets().iter();
        Ok(encoding.get_ids().iter().zip(offsets).map(|(&id, &(start, end))| (id, start, end)).collect())
    }

    fn encoding(&self, text: &str) -> tokenizers::Result<tokenizers::Encoding> {
        let mut text = self.added.extract_and_normalize(text)?;
        split::pre_tokenize(&mut text)?;
        text.tokenize(|word| self.bpe.tokenize(word.get()))?;
        text.into_encoding(None, 0, OffsetType::Byte)
    }

    /// A window of at most `model_max_length - 2` ids between start and end, padded to `model_max_length`.
    pub fn window(&self, ids: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let mut window = vec![self.bos];
        window.extend(ids);
        window.truncate(self.model_max_length - 1);
        window.push(self.eos);
        window.resize(self.model_max_length, self.pad);
        window
    }

    /// A prompt's ids, padded and truncated to `model_max_length`. Fails with `invalid-option` if the
    /// tokenizer cannot read it.
    pub fn encode(&self, prompt: &str) -> Result<Tokens> {
        let tokens = self.tokens(prompt)?;
        let room = self.model_max_length - 2;
        let cut = tokens.get(room).and_then(|&(_, start, _)| prompt.get(start..));
        Ok(Tokens {
            ids: self.window(tokens.iter().map(|t| t.0)),
            count: tokens.len().min(room) + 2,
            truncated: cut.map(|text| text.trim().to_owned()),
        })
    }
}

fn broken(what: &str, why: &str) -> Error {
    Error::bad_checkpoint(format!("{what} cannot be used: {why}; fetch the checkpoint again"))
}

fn object(bytes: &[u8], name: &str) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes).map_err(|e| broken(name, &e.to_string()))
}

/// A special token: its text, or an object with the flags of its matching.
fn added_token(value: &Value) -> Option<AddedToken> {
    if let Some(text) = value.as_str() {
        return Some(AddedToken::from(text, true));
    }
    let flag = |key| value.get(key).and_then(Value::as_bool).unwrap_or(false);
    Some(
        AddedToken::from(value.get("content")?.as_str()?, true)
            .single_word(flag("single_word"))
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"))
            .normalized(flag("normalized")),
    )
}

/// `"a b"` or `["a", "b"]`.
fn merge_of_json(value: &Value) -> Option<(String, String)> {
    match value {
        Value::String(text) => merge_of_text(text),
        Value::Array(pair) => match &pair[..] {
            [a, b] => Some((a.as_str()?.to_owned(), b.as_str()?.to_owned())),
            _ => None,
        },
        _ => None,
    }
}

fn merge_of_text(line: &str) -> Option<(String, String)> {
    let (a, b) = line.split_once(' ')?;
    (!b.contains(' ')).then(|| (a.to_owned(), b.to_owned()))
}

/// One merge a line, after a line `#version`.
fn merges_of_text(bytes: &[u8]) -> Result<Merges> {
    let text = std::str::from_utf8(bytes).map_err(|e| broken("merges.txt", &e.to_string()))?;
    text.lines()
        .filter(|line| !line.starts_with("#version") && !line.is_empty())
        .map(|line| {
            merge_of_text(line).ok_or_else(|| broken("merges.txt", &format!("line {line:?} is no merge")))
        })
        .collect()
}
