//! Prompts to the windows of tokens that the text encoder reads: of CLIP's, 75 and two marks each.

use super::{BREAK, Tokenizer, grammar};
use crate::error::Result;
use crate::named::Named;

/// How a prompt is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Syntax {
    /// As diffusers: every character is text, and what does not fit into one window is cut.
    #[default]
    Plain,
    /// AUTOMATIC1111's language; weights multiply the encoded tokens, whose mean is restored.
    A1111,
    /// The same language; weights as ComfyUI has them, away from the encoding of an empty prompt.
    Comfy,
}

impl Named for Syntax {
    const NAMES: &'static [(&'static str, Self)] =
        &[("plain", Self::Plain), ("a1111", Self::A1111), ("comfy", Self::Comfy)];
}

/// How far back from a window's end a comma may end it early, in tokens (A1111's `comma_padding_backtrack`).
const COMMA_BACKTRACK: usize = 20;

/// Ids from here on are no tokens of the vocabulary but vectors of textual inversion.
pub const FIRST_VECTOR: u32 = 1 << 24;

/// A word that stands for vectors of textual inversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// What is written in the prompt.
    pub token: String,
    /// Place of its first vector among those of all embeddings.
    pub first: u32,
    pub vectors: u32,
}

/// One token of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    pub id: u32,
    /// What of the prompt it stands for.
    pub text: String,
    pub weight: f32,
    /// A scrap of a word that the vocabulary does not hold, as of most that are not English.
    pub unknown: bool,
}

/// A prompt in windows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chunked {
    /// At least one, of at most `model_max_length - 2` tokens.
    pub chunks: Vec<Vec<Piece>>,
    /// What did not fit, with [`Syntax::Plain`].
    pub cut: Vec<Piece>,
    /// The text of `cut`, as it was written.
    pub truncated: Option<String>,
}

impl Chunked {
    /// Most of the letters are in words that the vocabulary does not hold: the model cannot know what is meant.
    pub fn foreign(&self) -> bool {
        let letters = |unknown: bool| {
            let pieces = self.chunks.iter().flatten().chain(&self.cut).filter(|p| p.unknown == unknown);
            pieces
                .map(|p| p.text.chars().filter(|c| c.is_alphabetic()).count().max(usize::from(unknown)))
                .sum::<usize>()
        };
        letters(true) > letters(false)
    }
}

/// The tokens of a text, without marks.
fn pieces(tokenizer: &Tokenizer, text: &str, weight: f32) -> Result<Vec<Piece>> {
    let tokens = tokenizer.tokens(text)?;
    let mut out: Vec<Piece> = tokens
        .iter()
        .map(|&(id, start, end)| Piece {
            id,
            text: text.get(start..end).unwrap_or_default().to_owned(),
            weight,
            unknown: tokenizer.is_unknown(id).unwrap_or(false),
        })
        .collect();
    if out.first().is_none_or(|p| tokenizer.is_unknown(p.id).is_some()) {
        return Ok(out);
    }
    // Words: runs of letters. One whose letters are not English and that takes more tokens than half its
    // letters is shredded; English words take a fifth.
    let mut i = 0;
    while i < tokens.len() {
        let letter = |&(_, start, end): &(u32, usize, usize)| {
            text.get(start..end).is_some_and(|t| t.chars().any(char::is_alphabetic))
        };
        let mut last = i;
        while last + 1 < tokens.len() && letter(&tokens[last + 1]) && tokens[last + 1].1 <= tokens[last].2 {
            last += 1;
        }
        let word = text.get(tokens[i].1..tokens[last].2).unwrap_or_default();
        if letter(&tokens[i]) && word.chars().any(|c| c.is_alphabetic() && !c.is_ascii()) {
            let letters = word.chars().filter(|c| c.is_alphabetic()).count();
            let unknown = last > i && 2 * (last + 1 - i) > letters;
            out[i..=last].iter_mut().for_each(|p| p.unknown = unknown);
        }
        i = last + 1;
    }
    Ok(out)
}

fn vectors(embedding: &Embedding, weight: f32) -> impl Iterator<Item = Piece> + '_ {
    (0..embedding.vectors).map(move |i| Piece {
        id: FIRST_VECTOR + embedding.first + i,
        text: if i == 0 { embedding.token.clone() } else { String::new() },
        weight,
        unknown: false,
    })
}

/// One window, as diffusers makes it; the words of `embeddings` are found anywhere in the text, in any case, as
/// transformers finds tokens that were added.
///
/// # Errors
/// `invalid-option` for text that the tokenizer cannot read.
pub fn plain(tokenizer: &Tokenizer, text: &str, embeddings: &[Embedding]) -> Result<Chunked> {
    let room = tokenizer.model_max_length() - 2;
    let mut all = Vec::new();
    let mut rest = text;
    let found = |rest: &str| {
        let places = embeddings.iter().filter(|e| !e.token.is_empty()).filter_map(|e| {
            let mut starts = rest.char_indices().map(|(i, _)| i);
            let at = starts.find(|&i| rest[i..].get(..e.token.len()).is_some_and(|t| same(t, &e.token)))?;
            Some((at, std::cmp::Reverse(e.token.len()), e))
        });
        places.min_by_key(|&(at, longest, _)| (at, longest)).map(|(at, _, e)| (at, e))
    };
    while let Some((at, embedding)) = found(rest) {
        all.extend(pieces(tokenizer, &rest[..at], 1.0)?);
        all.extend(vectors(embedding, 1.0));
        rest = &rest[at + embedding.token.len()..];
    }
    // The end of the prompt as it was written, where no embedding stands in it.
    let truncated = match room.checked_sub(all.len()) {
        Some(left) => tokenizer.tokens(rest)?.get(left).and_then(|&(_, start, _)| rest.get(start..)),
        None => Some(rest),
    };
    let truncated = truncated.map(|text| text.trim().to_owned());
    all.extend(pieces(tokenizer, rest, 1.0)?);
    let cut = all.split_off(all.len().min(room));
    Ok(Chunked { chunks: vec![all], cut, truncated })
}

fn same(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}

/// As many windows as the text needs, as A1111's `tokenize_line` fills them: `BREAK` ends one, and so does a
/// comma not far from its end. The words of `embeddings` are found by their tokens.
///
/// # Errors
/// `invalid-option` for text that the tokenizer cannot read.
pub fn weighted(tokenizer: &Tokenizer, text: &str, embeddings: &[Embedding]) -> Result<Chunked> {
    let room = tokenizer.model_max_length() - 2;
    let comma = tokenizer.tokens(",")?.first().map(|t| t.0);
    let mut names = Vec::new();
    for embedding in embeddings {
        let ids: Vec<u32> = tokenizer.tokens(&embedding.token)?.iter().map(|t| t.0).collect();
        names.push((ids, embedding));
    }
    names.retain(|(ids, _)| !ids.is_empty());
    names.sort_by_key(|(ids, _)| std::cmp::Reverse(ids.len()));

    let mut chunks: Vec<Vec<Piece>> = Vec::new();
    let mut chunk: Vec<Piece> = Vec::new();
    let mut last_comma: Option<usize> = None;
    for (text, weight) in grammar::attention(text) {
        if text == "BREAK" && weight == BREAK {
            chunks.push(std::mem::take(&mut chunk));
            last_comma = None;
            continue;
        }
        let tokens = pieces(tokenizer, &text, weight as f32)?;
        let mut at = 0;
        while at < tokens.len() {
            if Some(tokens[at].id) == comma {
                last_comma = Some(chunk.len());
            } else if let Some(place) = last_comma
                && chunk.len() == room
                && chunk.len() - place <= COMMA_BACKTRACK
            {
                let moved = chunk.split_off(place + 1);
                chunks.push(std::mem::replace(&mut chunk, moved));
                last_comma = None;
            }
            if chunk.len() == room {
                chunks.push(std::mem::take(&mut chunk));
                last_comma = None;
            }
            let named = names.iter().find(|(ids, _)| {
                tokens[at..].len() >= ids.len() && ids.iter().zip(&tokens[at..]).all(|(id, t)| *id == t.id)
            });
            match named {
                Some((ids, embedding)) => {
                    if chunk.len() + embedding.vectors as usize > room {
                        chunks.push(std::mem::take(&mut chunk));
                        last_comma = None;
                    }
                    chunk.extend(vectors(embedding, weight as f32));
                    at += ids.len();
                }
                None => {
                    chunk.push(tokens[at].clone());
                    at += 1;
                }
            }
        }
    }
    if !chunk.is_empty() || chunks.is_empty() {
        chunks.push(chunk);
    }
    Ok(Chunked { chunks, cut: Vec::new(), truncated: None })
}

/// The windows of a text that has no schedule any more.
///
/// # Errors
/// `invalid-option` for text that the tokenizer cannot read.
pub fn chunked(
    tokenizer: &Tokenizer,
    text: &str,
    syntax: Syntax,
    embeddings: &[Embedding],
) -> Result<Chunked> {
    match syntax {
        Syntax::Plain => plain(tokenizer, text, embeddings),
        Syntax::A1111 | Syntax::Comfy => weighted(tokenizer, text, embeddings),
    }
}
