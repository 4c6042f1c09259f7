//! Tokens against transformers: tests/reference/prompt.py writes the expected values.

use browser_diffusion::Code;
use browser_diffusion::prompt::{Tokenizer, TokenizerFiles};
use serde_json::Value;

fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/www/embedded/tokenizer/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn embedded() -> Tokenizer {
    Tokenizer::from_files(TokenizerFiles {
        vocab: Some(&file("vocab.json")),
        merges: Some(&file("merges.txt")),
        tokenizer_config: Some(&file("tokenizer_config.json")),
        special_tokens_map: Some(&file("special_tokens_map.json")),
        ..Default::default()
    })
    .unwrap()
}

fn expected() -> Value {
    serde_json::from_str(include_str!("reference/data/prompts.json")).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    list(value).iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// prompt.py's checksum: 32-bit FNV-1a over the ids.
fn checksum(ids: &[u32]) -> u32 {
    ids.iter().fold(0x811c_9dc5, |h: u32, id| (h ^ id).wrapping_mul(0x0100_0193))
}

#[test]
fn five_thousand_prompts() {
    let file = expected();
    let tokenizer = embedded();
    let prompts = list(&file["prompts"]);
    assert_eq!(prompts.len(), 5000);
    let encode = |prompt: &Value| tokenizer.encode(prompt.as_str().unwrap()).unwrap();
    for (prompt, want) in prompts.iter().zip(list(&file["first"])) {
        assert_eq!(encode(prompt).ids, ids(want), "{prompt}");
    }
    let wrong: Vec<&Value> = prompts
        .iter()
        .zip(list(&file["checksums"]))
        .filter(|(prompt, want)| u64::from(checksum(&encode(prompt).ids)) != want.as_u64().unwrap())
        .map(|(prompt, _)| prompt)
        .collect();
    assert!(wrong.is_empty(), "{} prompts differ: {:?}", wrong.len(), &wrong[..wrong.len().min(20)]);
}

/// `tokenizer.json` with the vocabulary, and the merges as given.
fn tokenizer_json(mut rest: Value, merges: &[Value]) -> String {
    let vocab: Value = serde_json::from_slice(&file("vocab.json")).unwrap();
    rest["model"] = serde_json::json!({"type": "BPE", "vocab": vocab, "merges": merges});
    rest.to_string()
}

fn merges_as_words() -> Vec<Value> {
    String::from_utf8(file("merges.txt")).unwrap().lines().skip(1).map(Value::from).collect()
}

/// Special tokens as Stable Diffusion 1.5, 2 and newer checkpoints declare them, and folders that
/// transformers writes; in 2 the padding is "!".
#[test]
fn folders_of_other_checkpoints() {
    let (vocab, merges) = (file("vocab.json"), file("merges.txt"));
    let file = expected();
    let folders = list(&file["folders"]);
    assert_eq!(folders.len(), 6);
    for (i, folder) in folders.iter().enumerate() {
        let text = |name: &str| folder["files"].get(name).map(|v| v.to_string().into_bytes());
        let whole =
            folder["files"].get("tokenizer.json").map(|v| tokenizer_json(v.clone(), &merges_as_words()));
        let tokenizer = Tokenizer::from_files(TokenizerFiles {
            vocab: Some(&vocab),
            merges: Some(&merges),
            vocab_text: None,
            tokenizer_json: whole.as_deref().map(str::as_bytes),
            tokenizer_config: text("tokenizer_config.json").as_deref(),
            special_tokens_map: text("special_tokens_map.json").as_deref(),
        })
        .unwrap();
        for (prompt, want) in list(&file["few"]).iter().zip(list(&folder["checksums"])) {
            let ids = tokenizer.encode(prompt.as_str().unwrap()).unwrap().ids;
            assert_eq!(u64::from(checksum(&ids)), want.as_u64().unwrap(), "folder {i}: {prompt}: {ids:?}");
        }
    }
}

/// tokenizer.json holds the same vocabulary and merges, these as words or as pairs.
#[test]
fn from_tokenizer_json() {
    let words = merges_as_words();
    let pairs: Vec<Value> =
        words.iter().map(|w| w.as_str().unwrap().split(' ').collect::<Vec<_>>().into()).collect();
    let want = embedded();
    for merges in [words, pairs] {
        let json = tokenizer_json(serde_json::json!({}), &merges);
        let files = TokenizerFiles { tokenizer_json: Some(json.as_bytes()), ..Default::default() };
        let tokenizer = Tokenizer::from_files(files).unwrap();
        assert_eq!(tokenizer.model_max_length(), 77);
        for prompt in ["", "a red apple", "it's 猫 & <|endoftext|>!"] {
            assert_eq!(tokenizer.encode(prompt).unwrap(), want.encode(prompt).unwrap());
        }
    }
}

#[test]
fn counts_and_reports_what_was_cut() {
    let tokenizer = embedded();
    let tokens = tokenizer.encode("a red apple").unwrap();
    assert_eq!((tokens.count, tokens.truncated), (5, None));
    assert_eq!(tokenizer.encode("").unwrap().count, 2);
    let fits = tokenizer.encode(&"cat ".repeat(75)).unwrap();
    assert_eq!((fits.count, fits.truncated), (77, None));
    let long = tokenizer.encode(&format!("{}Ünder the  Moon ", "cat ".repeat(75))).unwrap();
    assert_eq!((long.count, long.truncated.as_deref()), (77, Some("Ünder the  Moon")));
    assert_eq!(long.ids.last(), fits.ids.last());
}

#[test]
fn refuses_broken_files() {
    let (vocab, merges) = (file("vocab.json"), file("merges.txt"));
    let good = TokenizerFiles { vocab: Some(&vocab), merges: Some(&merges), ..Default::default() };
    let code = |files| match Tokenizer::from_files(files) {
        Ok(_) => panic!("took {files:?}"),
        Err(e) => e.code,
    };
    assert_eq!(code(TokenizerFiles::default()), Code::BadCheckpoint);
    assert_eq!(code(TokenizerFiles { merges: None, ..good }), Code::BadCheckpoint);
    let half = &vocab[..vocab.len() / 2];
    for bad in [half, b"[]", b"{}", br#"{"a": -1}"#, br#"{"a": "b"}"#] {
        assert_eq!(code(TokenizerFiles { vocab: Some(bad), ..good }), Code::BadCheckpoint);
    }
    for bad in [&b"a b c"[..], b"a", b"nowhere found", b"\xff"] {
        assert_eq!(code(TokenizerFiles { merges: Some(bad), ..good }), Code::BadCheckpoint);
    }
    for bad in [&b"{}"[..], br#"{"model": 1}"#, br#"{"model": {"vocab": {}, "merges": [1]}}"#] {
        assert_eq!(code(TokenizerFiles { tokenizer_json: Some(bad), ..good }), Code::BadCheckpoint);
    }
    let config = |text: &'static str| TokenizerFiles { tokenizer_config: Some(text.as_bytes()), ..good };
    assert_eq!(code(config(r#"{"tokenizer_class": "T5Tokenizer"}"#)), Code::UnsupportedModel);
    assert_eq!(code(config(r#"{"model_max_length": 1}"#)), Code::BadCheckpoint);
    assert_eq!(code(config(r#"{"pad_token": 3}"#)), Code::BadCheckpoint);
    assert_eq!(code(config(r#"{"pad_token": "<pad>"}"#)), Code::BadCheckpoint);
}

// ---- BERT's -------------------------------------------------------------------------------------------------------

fn taiyi() -> (Value, &'static [u8]) {
    let tokens = include_str!("reference/data/taiyi/tokens.json");
    (serde_json::from_str(tokens).unwrap(), include_bytes!("reference/data/taiyi/vocab.txt"))
}

/// Of Taiyi's configuration, and of others: letters as they are written, accents kept, Chinese characters not apart.
#[test]
fn two_thousand_prompts_in_word_pieces() {
    let (file, vocab) = taiyi();
    let prompts = list(&file["prompts"]);
    assert_eq!(prompts.len(), 2000);
    for of in list(&file["configs"]) {
        let config = of["config"].to_string();
        let tokenizer = Tokenizer::from_files(TokenizerFiles {
            vocab_text: Some(vocab),
            tokenizer_config: Some(config.as_bytes()),
            ..Default::default()
        })
        .unwrap();
        let every = of["every"].as_u64().unwrap() as usize;
        let wrong: Vec<&Value> = prompts
            .iter()
            .step_by(every)
            .zip(list(&of["checksums"]))
            .filter(|(prompt, want)| {
                let ids = tokenizer.encode(prompt.as_str().unwrap()).unwrap().ids;
                u64::from(checksum(&ids)) != want.as_u64().unwrap()
            })
            .map(|(prompt, _)| prompt)
            .collect();
        assert_eq!(list(&of["checksums"]).len(), prompts.len().div_ceil(every));
        assert!(wrong.is_empty(), "{config}: {} differ: {:?}", wrong.len(), &wrong[..wrong.len().min(9)]);
    }
}

/// `vocab.txt` and `tokenizer.json` are one vocabulary; what a prompt does not fit, and what no vocabulary holds, is told.
#[test]
fn word_pieces_of_tokenizer_json() {
    let (file, vocab) = taiyi();
    let text = std::str::from_utf8(vocab).unwrap();
    let words: serde_json::Map<String, Value> =
        text.lines().zip(0..).map(|(w, id)| (w.to_owned(), Value::from(id))).collect();
    let json = serde_json::json!({ "model": { "type": "WordPiece", "vocab": words } }).to_string();
    let config = file["configs"][0]["config"].to_string();
    let of =
        |files| Tokenizer::from_files(TokenizerFiles { tokenizer_config: Some(config.as_bytes()), ..files });
    let one = of(TokenizerFiles { tokenizer_json: Some(json.as_bytes()), ..Default::default() }).unwrap();
    let two = of(TokenizerFiles { vocab_text: Some(vocab), ..Default::default() }).unwrap();
    for prompt in list(&file["prompts"]).iter().step_by(50) {
        let prompt = prompt.as_str().unwrap();
        assert_eq!(one.encode(prompt).unwrap(), two.encode(prompt).unwrap());
    }
    let long = "猫".repeat(512);
    let tokens = two.encode(&long).unwrap();
    assert_eq!((tokens.count, tokens.truncated.as_deref()), (512, Some("猫猫")));
    let ids = two.encode("龘猫").unwrap().ids;
    assert_eq!([two.is_unknown(ids[1]), two.is_unknown(ids[2])], [Some(true), Some(false)]);
    let error =
        of(TokenizerFiles { vocab_text: Some(b"[PAD]\n[UNK]\n"), ..Default::default() }).err().unwrap();
    assert_eq!(error.code, Code::BadCheckpoint);
    assert_eq!(of(TokenizerFiles::default()).err().unwrap().code, Code::BadCheckpoint);
}
