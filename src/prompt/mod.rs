//! From a prompt to the token ids of CLIP, or of BERT.
//!
//! - [`Tokenizer`]: text to ids.
//! - [`grammar`]: the language of AUTOMATIC1111's prompts.
//! - [`emphasis`]: what the weights do.
//! - [`chunk`]: weighted text of any length to the windows that the text encoder reads.

pub mod chunk;
pub mod emphasis;
pub mod grammar;
mod split;
mod word_piece;

pub use chunk::{Chunked, Embedding, FIRST_VECTOR, Piece, Syntax};
pub use grammar::BREAK;

use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{AddedToken, OffsetType};

use crate::error::{Error, Result};
use word_piece::WordPieces;

/// A kind of tokenizer, and what its files need not say.
struct Kind {
    /// Names of its marks in the configuration, and their usual texts: begin, end, unknown, padding.
    marks: [(&'static str, &'static str); 4],
    /// A mark that need not be in the vocabulary.
    mask: Option<(&'static str, &'static str)>,
    /// Length of an encoded prompt: what the text encoder has positions for.
    model_max_length: usize,
}

const CLIP: Kind = Kind {
    marks: [
        ("bos_token", "<|startoftext|>"),
        ("eos_token", "<|endoftext|>"),
        ("unk_token", "<|endoftext|>"),
        ("pad_token", "<|endoftext|>"),
    ],
    mask: None,
    model_max_length: 77,
};

const BERT: Kind = Kind {
    marks: [("cls_token", "[CLS]"), ("sep_token", "[SEP]"), ("unk_token", "[UNK]"), ("pad_token", "[PAD]")],
    mask: Some(("mask_token", "[MASK]")),
    model_max_length: 512,
};

/// CLIP's byte-pair tokenizer, as transformers 5's `CLIPTokenizer`, or the word pieces of its `BertTokenizer`.
pub struct Tokenizer {
    cut: Box<dyn split::Cut>,
    added: split::Added,
    /// BERT's token for what its vocabulary does not hold; CLIP's holds every byte.
    unknown: Option<u32>,
    bos: u32,
    eos: u32,
    pad: u32,
    model_max_length: usize,
}

/// The files of a checkpoint's `tokenizer/` folder, as bytes; those that it lacks are `None`.
/// Either `tokenizer_json` or both of `vocab` and `merges` are needed, of BERT's `vocab_text`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenizerFiles<'a> {
    /// `vocab.json`
    pub vocab: Option<&'a [u8]>,
    /// `merges.txt`
    pub merges: Option<&'a [u8]>,
    /// `vocab.txt`, which BERT's has in their place
    pub vocab_text: Option<&'a [u8]>,
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
        let class = config.get("tokenizer_class").and_then(Value::as_str);
        let bert = match class {
            Some("CLIPTokenizer" | "CLIPTokenizerFast") => false,
            Some("BertTokenizer" | "BertTokenizerFast") => true,
            None => files.vocab_text.is_some(),
            Some(class) => {
                return Err(Error::unsupported(format!(
                    "the checkpoint's tokenizer is {class}; only CLIPTokenizer and BertTokenizer are supported, \
                     use a Stable Diffusion 1.x, 2.x or XL checkpoint"
                )));
            }
        };
        let kind = if bert { BERT } else { CLIP };

        let (vocab, merges) = match whole.remove("model") {
            Some(Value::Object(model)) => vocabulary_of_json(model, bert)?,
            Some(_) => return Err(broken("tokenizer.json", "its `model` is no object")),
            None if files.tokenizer_json.is_some() => {
                return Err(broken("tokenizer.json", "it has no `model`"));
            }
            None => vocabulary(&files, bert)?,
        };

        let mark = |(key, usual): (&str, &str)| {
            let value = map.get(key).or(config.get(key)).filter(|v| !v.is_null());
            value.map_or_else(|| Some(AddedToken::from(usual, true)), added_token)
        };
        let mask = kind.mask.and_then(mark).filter(|token| vocab.contains_key(&token.content));
        let named = kind.marks.map(mark);
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
        let unknown = if bert { Some(id(&unk)?) } else { None };

        let listed: Vec<&Value> = listed
            .map(|m| m.values().collect())
            .or_else(|| whole.get("added_tokens").and_then(Value::as_array).map(|a| a.iter().collect()))
            .unwrap_or_default();
        let mut added: Vec<AddedToken> = listed.into_iter().filter_map(added_token).collect();
        // A token outside the vocabulary would get an id that the text encoder has no row for.
        added.retain(|token| vocab.contains_key(&token.content));
        // As transformers: a listed token keeps its flags; of named ones with equal text the last counts.
        let listed = added.len();
        for token in [&bos, &eos, &unk, &pad].into_iter().chain(&mask) {
            match added.iter().position(|t| t.content == token.content) {
                Some(i) if i < listed => {}
                Some(i) => added[i] = token.clone(),
                None => added.push(token.clone()),
            }
        }

        let added = added.into_iter().map(|token| id(&token).map(|id| (token, id))).collect::<Result<_>>()?;
        let cut: tokenizers::Result<Box<dyn split::Cut>> = match bert {
            true => WordPieces::new(vocab, unk.content, &config).map(|words| Box::new(words) as _),
            false => BPE::builder()
                .vocab_and_merges(vocab, merges)
                .unk_token(unk.content)
                .continuing_subword_prefix(String::new())
                .end_of_word_suffix("</w>".into())
                .build()
                .map(|bpe| Box::new(bpe) as _),
        };
        let cut = cut.map_err(|e| broken("the tokenizer's vocabulary", &e.to_string()))?;
        let added = split::Added::new(added, &*cut).map_err(|e| broken("an added token", &e.to_string()))?;

        let length = config.get("model_max_length").and_then(Value::as_f64).filter(|&n| n < 1e6);
        let model_max_length = length.map_or(kind.model_max_length, |n| n as usize);
        if model_max_length < 2 {
            return Err(broken("tokenizer_config.json", "`model_max_length` leaves no room for a prompt"));
        }
        Ok(Self { cut, added, unknown, bos: bos_id, eos: eos_id, pad: pad_id, model_max_length })
    }

    /// Length of every encoded prompt: 77 for all known checkpoints with CLIP, 512 with BERT.
    pub fn model_max_length(&self) -> usize {
        self.model_max_length
    }

    /// Whether a token stands for what the vocabulary does not hold; `None` where the vocabulary holds every byte.
    pub fn is_unknown(&self, id: u32) -> Option<bool> {
        self.unknown.map(|unknown| unknown == id)
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
        let mut text = self.added.extract_and_normalize(text, &*self.cut)?;
        self.cut.pre_tokenize(&mut text)?;
        text.tokenize(|word| self.cut.tokenize(word.get()))?;
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

/// Words and merges of tokenizer.json's `model`; of BERT's there are no merges.
fn vocabulary_of_json(mut model: Map<String, Value>, bert: bool) -> Result<(Vocab, Merges)> {
    let Some(Value::Object(vocab)) = model.remove("vocab") else {
        return Err(Error::unsupported(
            "tokenizer.json is not of a byte-pair tokenizer or of word pieces; use CLIP's",
        ));
    };
    let merges = model.get("merges").filter(|_| !bert).and_then(Value::as_array);
    let merges: Option<Merges> = merges.into_iter().flatten().map(merge_of_json).collect();
    Ok((ids(vocab)?, merges.ok_or_else(|| broken("tokenizer.json", "a merge is not two words"))?))
}

/// The same of the files that stand in its place.
fn vocabulary(files: &TokenizerFiles, bert: bool) -> Result<(Vocab, Merges)> {
    let missing = |names: &str| {
        Error::bad_checkpoint(format!(
            "the checkpoint's tokenizer/ has neither tokenizer.json nor {names}; add them"
        ))
    };
    if bert {
        let text = files.vocab_text.ok_or_else(|| missing("vocab.txt"))?;
        let text = std::str::from_utf8(text).map_err(|e| broken("vocab.txt", &e.to_string()))?;
        return Ok((word_piece::vocab_of_text(text).collect(), Merges::default()));
    }
    let (Some(vocab), Some(merges)) = (files.vocab, files.merges) else {
        return Err(missing("vocab.json and merges.txt"));
    };
    Ok((ids(object(vocab, "vocab.json")?)?, merges_of_text(merges)?))
}

fn ids(vocab: Map<String, Value>) -> Result<Vocab> {
    let ids: Option<Vocab> =
        vocab.into_iter().map(|(word, id)| Some((word, id.as_u64()?.try_into().ok()?))).collect();
    ids.ok_or_else(|| broken("the tokenizer's vocabulary", "an id is not a whole number"))
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
