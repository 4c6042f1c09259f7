//! BERT's tokenizer (transformers' `BertTokenizer`), which Chinese models read with: words of any script, each Chinese
//! character a word, and of the vocabulary the longest pieces from a word's start.

use super::split::Cut;
use serde_json::{Map, Value};
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{Model, NormalizedString, Normalizer, PreTokenizedString, PreTokenizer, Result, Token};

pub(super) struct WordPieces {
    normalizer: BertNormalizer,
    model: WordPiece,
}

impl WordPieces {
    /// `vocab` must hold `unknown`. `config`: `tokenizer_config.json`.
    pub(super) fn new(vocab: Vocab, unknown: String, config: &Map<String, Value>) -> Result<Self> {
        let flag = |name: &str| config.get(name).and_then(Value::as_bool);
        let chinese = flag("tokenize_chinese_chars").unwrap_or(true);
        let lower = flag("do_lower_case").unwrap_or(true);
        let normalizer = BertNormalizer::new(true, chinese, flag("strip_accents"), lower);
        Ok(Self { normalizer, model: WordPiece::builder().vocab(vocab).unk_token(unknown).build()? })
    }
}

impl Cut for WordPieces {
    fn normalize(&self, text: &mut NormalizedString) -> Result<()> {
        self.normalizer.normalize(text)
    }

    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> Result<()> {
        BertPreTokenizer.pre_tokenize(text)
    }

    fn tokenize(&self, word: &str) -> Result<Vec<Token>> {
        self.model.tokenize(word)
    }
}

/// The words of `vocab.txt`, one a line; a word's id is its line, from 0, and of equal words the last counts.
pub(super) fn vocab_of_text(text: &str) -> impl Iterator<Item = (String, u32)> + '_ {
    text.lines().map(str::to_owned).zip(0..)
}
