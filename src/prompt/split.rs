//! How CLIP's tokenizer cuts a text before the byte-pair merges (transformers' `CLIPTokenizer`, which writes it with
//! regular expressions). Written out here, since an engine for expressions takes a sixth of the wasm module, and the
//! crate's own byte-level and added-token parts need one.

use tokenizers::models::bpe::BPE;
use tokenizers::normalizer::Range;
use tokenizers::pattern::Pattern;
use tokenizers::{
    AddedToken, Model, NormalizedString, Offsets, PreTokenizedString, Result, SplitDelimiterBehavior, Token,
};
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// A kind of tokenizer: what it makes of a text between the added tokens.
pub(super) trait Cut {
    /// Clean text, of which words are made.
    fn normalize(&self, text: &mut NormalizedString) -> Result<()>;
    /// Text to words.
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> Result<()>;
    /// A word to tokens.
    fn tokenize(&self, word: &str) -> Result<Vec<Token>>;
}

/// CLIP's.
impl Cut for BPE {
    fn normalize(&self, text: &mut NormalizedString) -> Result<()> {
        normalize(text)
    }

    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> Result<()> {
        pre_tokenize(text)
    }

    fn tokenize(&self, word: &str) -> Result<Vec<Token>> {
        Model::tokenize(self, word)
    }
}

/// A pattern by the length in bytes of its match at the start of a text, 0 if it does not match there.
struct Starts<F>(F);

impl<F: Fn(&str) -> usize> Pattern for Starts<F> {
    fn find_matches(&self, inside: &str) -> Result<Vec<(Offsets, bool)>> {
        let (mut found, mut between, mut at) = (Vec::new(), 0, 0);
        while let Some(c) = inside[at..].chars().next() {
            let length = (self.0)(&inside[at..]);
            if length == 0 {
                at += c.len_utf8();
                continue;
            }
            if between < at {
                found.push(((between, at), false));
            }
            found.push(((at, at + length), true));
            at += length;
            between = at;
        }
        if between < at || found.is_empty() {
            found.push(((between, at), false));
        }
        Ok(found)
    }
}

/// Bytes of a text's first characters of which `is` holds.
fn run(text: &str, is: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is(c)).unwrap_or(text.len())
}

fn is_letter(c: char) -> bool {
    if c.is_ascii() {
        c.is_ascii_alphabetic()
    } else {
        c.general_category_group() == GeneralCategoryGroup::Letter
    }
}

fn is_number(c: char) -> bool {
    c.general_category_group() == GeneralCategoryGroup::Number
}

fn is_other(c: char) -> bool {
    !c.is_whitespace() && !is_number(c) && !is_letter(c)
}

/// `\w`; the standard library knows letters of later years than the table.
fn is_word(c: char) -> bool {
    use GeneralCategory::{ConnectorPunctuation, DecimalNumber, Unassigned};
    let category = c.general_category();
    matches!(category, DecimalNumber | ConnectorPunctuation)
        || (c.is_alphabetic() && category != Unassigned)
        || c.general_category_group() == GeneralCategoryGroup::Mark
        || matches!(c, '\u{200c}' | '\u{200d}')
}

/// NFC, each run of white space as one space, lower case.
fn normalize(text: &mut NormalizedString) -> Result<()> {
    text.nfc();
    text.replace(Starts(|rest: &str| run(rest, char::is_whitespace)), " ")?;
    text.lowercase();
    Ok(())
}

/// `'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`
fn word(rest: &str) -> usize {
    let contraction =
        ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].into_iter().find(|end| rest.starts_with(end));
    contraction.map(str::len).unwrap_or_else(|| match rest.chars().next() {
        Some(c) if is_letter(c) => run(rest, is_letter),
        Some(c) if is_number(c) => c.len_utf8(),
        _ => run(rest, is_other),
    })
}

/// The same, with the marks of a text's ends before it.
fn mark_or_word(rest: &str) -> usize {
    let mark = ["<|startoftext|>", "<|endoftext|>"].into_iter().find(|mark| rest.starts_with(mark));
    mark.map_or_else(|| word(rest), str::len)
}

/// GPT-2's letter for a byte: itself where it can be seen, else one from U+0100 on.
fn letter(byte: u8) -> char {
    let seen = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..);
    if seen(byte) {
        return char::from(byte);
    }
    let hidden_before = (0..byte).filter(|&b| !seen(b)).count() as u32;
    char::from_u32(0x100 + hidden_before).unwrap_or_default()
}

/// English contractions, words, single digits, runs of everything else; as byte letters. A mark of an end that was no
/// added token is cut as any text, but apart from what stands around it: the byte-level part cuts a second time.
fn pre_tokenize(text: &mut PreTokenizedString) -> Result<()> {
    text.split(|_, part| part.split(Starts(mark_or_word), SplitDelimiterBehavior::Isolated))?;
    text.split(|_, part| {
        // White space lies between the matches.
        let words = part.split(Starts(word), SplitDelimiterBehavior::Isolated)?;
        Ok(words.into_iter().filter(|word| !word.get().starts_with(char::is_whitespace)))
    })?;
    text.normalize(|word| {
        let letters = word.get().chars().flat_map(|c| {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).bytes();
            bytes.enumerate().map(|(i, byte)| (letter(byte), isize::from(i > 0))).collect::<Vec<_>>()
        });
        let letters: Vec<_> = letters.collect();
        word.transform(letters, 0);
        Ok(())
    })
}

/// Tokens that are found in the text before it is cut, as the crate's `AddedVocabulary` finds them: first those that
/// are sought in the text as it is written, then, in what is left, those that are sought in clean text.
pub(super) struct Added {
    written: Vec<(AddedToken, u32)>,
    clean: Vec<(AddedToken, u32)>,
}

impl Added {
    /// Tokens and their ids. `cut` cleans text.
    pub(super) fn new(tokens: Vec<(AddedToken, u32)>, cut: &dyn Cut) -> Result<Self> {
        let tokens = tokens.into_iter().filter(|(token, _)| !token.content.is_empty());
        let (mut clean, written): (Vec<_>, Vec<_>) = tokens.partition(|(token, _)| token.normalized);
        for (token, _) in &mut clean {
            let mut content = NormalizedString::from(token.content.as_str());
            cut.normalize(&mut content)?;
            token.content = content.get().to_owned();
        }
        Ok(Self { written, clean })
    }

    /// The text with its added tokens found and the rest of it clean.
    pub(super) fn extract_and_normalize(&self, text: &str, cut: &dyn Cut) -> Result<PreTokenizedString> {
        let mut text = PreTokenizedString::from(text);
        text.split(|_, part| parts(&self.written, &part))?;
        text.split(|_, mut part| {
            cut.normalize(&mut part)?;
            parts(&self.clean, &part)
        })?;
        Ok(text)
    }
}

type Part = (NormalizedString, Option<Vec<Token>>);

/// A text cut at the tokens: of those that begin at one place the longest counts.
fn parts(tokens: &[(AddedToken, u32)], text: &NormalizedString) -> Result<Vec<Part>> {
    let whole = text.get();
    let mut parts = Vec::new();
    let mut push = |from: usize, to: usize, token: Option<Token>| {
        let part =
            text.slice(Range::Normalized(from..to)).ok_or("a token begins or ends inside a character")?;
        parts.push((part, token.map(|token| vec![token])));
        Result::Ok(())
    };
    let (mut done, mut at) = (0, 0);
    while let Some(c) = whole[at..].chars().next() {
        let here = tokens.iter().filter(|(token, _)| whole[at..].starts_with(token.content.as_str()));
        let Some((token, id)) = here.max_by_key(|(token, _)| token.content.len()) else {
            at += c.len_utf8();
            continue;
        };
        let (start, end) = (at, at + token.content.len());
        at = end;
        if token.single_word && (whole[..start].ends_with(is_word) || whole[end..].starts_with(is_word)) {
            continue;
        }
        // White space beside it goes with it.
        let from = if token.lstrip { whole[..start].trim_end().len().max(done) } else { start };
        let to = if token.rstrip { end + run(&whole[end..], char::is_whitespace) } else { end };
        if done < from {
            push(done, from, None)?;
        }
        push(from, to, Some(Token::new(*id, token.content.clone(), (0, to - from))))?;
        (done, at) = (to, to);
    }
    if done < whole.len() {
        push(done, whole.len(), None)?;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};
    use tokenizers::decoders::byte_level::ByteLevel;
    use tokenizers::models::bpe::{BPE, Vocab};
    use tokenizers::normalizers::replace::{Replace, ReplacePattern};
    use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
    use tokenizers::{Model, Normalizer, OffsetType, PreTokenizer, TokenizerImpl};

    use super::*;

    #[test]
    fn classes_are_those_of_the_regex_crate() {
        type Class = fn(char) -> bool;
        let classes: [(&str, Class); 4] = [
            (r"^\p{L}$", is_letter),
            (r"^\p{N}$", is_number),
            (r"^[^\s\p{L}\p{N}]$", is_other),
            (r"^\w$", is_word),
        ];
        for (pattern, is) in classes {
            let pattern = regex::Regex::new(pattern).unwrap();
            let wrong =
                (char::MIN..=char::MAX).find(|&c| is(c) != pattern.is_match(c.encode_utf8(&mut [0; 4])));
            assert_eq!(wrong, None, "{pattern}");
        }
    }

    /// CLIP's tokenizer out of the crate's own parts, as tokenizer.json puts them together.
    struct Clean(Replace);

    impl Normalizer for Clean {
        fn normalize(&self, text: &mut NormalizedString) -> Result<()> {
            text.nfc();
            self.0.normalize(text)?;
            text.lowercase();
            Ok(())
        }
    }

    struct Words(Split, ByteLevel);

    impl PreTokenizer for Words {
        fn pre_tokenize(&self, text: &mut PreTokenizedString) -> Result<()> {
            self.0.pre_tokenize(text)?;
            self.1.pre_tokenize(text)
        }
    }

    fn bpe() -> BPE {
        let letters = (0..=255).map(letter).flat_map(|c| [c.to_string(), format!("{c}</w>")]);
        let added = ["<|startoftext|>", "<|endoftext|>", "<A>", "cat", "<A>b"].map(String::from);
        let vocab: Vocab = letters.chain(added).zip(0..).collect();
        BPE::builder().vocab_and_merges(vocab, vec![]).end_of_word_suffix("</w>".into()).build().unwrap()
    }

    #[test]
    fn texts_are_cut_as_the_tokenizers_crate_cuts_them() {
        const PATTERN: &str =
            r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
        const PIECES: &[&str] = &[
            "<|startoftext|>",
            "<|endoftext|>",
            "<A>",
            "<A>b",
            "cat",
            "CAT",
            "Cat",
            "s",
            "'s",
            "'S",
            "'re",
            "'",
            "''",
            "!",
            "?!",
            "<|",
            " ",
            "  ",
            "\t\n",
            "\u{a0}",
            "\u{3000}",
            "1",
            "23",
            "\u{2155}",
            "\u{663}",
            "a",
            "bc",
            "É",
            "e\u{301}",
            "ß",
            "İ",
            "猫",
            "がか\u{3099}",
            "한",
            "🐱",
            "\u{200d}",
            "_",
            "-",
            "ⓐ",
            "\u{93f}",
            "",
        ];
        let mut random = SmallRng::seed_from_u64(1);
        for flags in 0..32 {
            let flag = |i: u32| flags >> i & 1 == 1;
            let mark =
                |content: &str, i: u32| AddedToken::from(content, true).lstrip(flag(i)).rstrip(flag(i + 1));
            let added = vec![
                mark("<|startoftext|>", 0),
                mark("<|endoftext|>", 1),
                mark("<A>", 2).normalized(flag(0)).single_word(flag(1)),
                mark("<A>b", 3).normalized(flag(2)),
                mark("cat", 1).normalized(flag(3)).single_word(flag(4)),
            ];
            let space = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ").unwrap();
            let words =
                Split::new(SplitPattern::Regex(PATTERN.into()), SplitDelimiterBehavior::Removed, true)
                    .unwrap();
            let mut theirs = TokenizerImpl::<_, Clean, Words, ByteLevel, ByteLevel>::new(bpe());
            theirs.with_normalizer(Some(Clean(space)));
            theirs.with_pre_tokenizer(Some(Words(words, ByteLevel::new(false, true, true))));
            theirs.add_tokens(&added);

            let bpe = bpe();
            let ids = added.into_iter().map(|t| (t.clone(), bpe.token_to_id(&t.content).unwrap())).collect();
            let ours = Added::new(ids, &bpe).unwrap();
            for _ in 0..300 {
                let pieces = 0..random.random_range(0..12);
                let text: String = pieces.map(|_| PIECES[random.random_range(0..PIECES.len())]).collect();
                let mut cut = ours.extract_and_normalize(&text, &bpe).unwrap();
                pre_tokenize(&mut cut).unwrap();
                cut.tokenize(|word| Cut::tokenize(&bpe, word.get())).unwrap();
                let ours = cut.into_encoding(None, 0, OffsetType::Byte).unwrap();
                let theirs = theirs.encode(text.as_str(), false).unwrap();
                assert_eq!(ours.get_ids(), theirs.get_ids(), "{text:?}, flags {flags:05b}");
                assert_eq!(ours.get_offsets(), theirs.get_offsets(), "{text:?}, flags {flags:05b}");
            }
        }
    }
}
