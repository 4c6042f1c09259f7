//! Where models are found: addresses of sources, and which files of a folder hold the weights.

use browser_diffusion::Code;
use browser_diffusion::store::{ModelFiles, Source, SourceOptions, disk::Folder};
use std::fs;

/// The visitor's token goes to the origin of the Hub that was named, and nowhere else.
#[test]
fn only_the_hub_sees_the_token() {
    for (source, hub, sees) in [
        ("a/b", None, true),
        ("a/b", Some("http://localhost:8"), true),
        ("https://huggingface.co/a/b/resolve/main/v1.safetensors", None, true),
        ("https://huggingface.co/a/b/resolve/main/v1.safetensors", Some("http://localhost:8"), false),
        ("https://huggingface.co.evil.org/a/b", None, false),
        ("http://huggingface.co/a/b", None, false),
        ("https://x.org/m/", None, false),
        ("https://x.org/huggingface.co/v1.ckpt", None, false),
        ("embedded", None, false),
    ] {
        let options = SourceOptions {
            hub: hub.map(Into::into),
            embedded: Some("https://huggingface.co/embedded/".into()),
            token: Some("hf_x".into()),
            ..Default::default()
        };
        let source = Source::resolve(source, &options).expect("a good source");
        assert_eq!(source.token().is_some(), sees, "{source:?}");
    }
}

#[test]
fn resolves_sources() {
    let resolve = |source: &str, revision: Option<&str>, hub: Option<&str>| {
        let options = SourceOptions {
            revision: revision.map(Into::into),
            hub: hub.map(Into::into),
            embedded: Some("https://here/embedded/".into()),
            token: None,
        };
        Source::resolve(source, &options).map_err(|e| e.code)
    };
    let at = |source, revision, hub, name: &str, url: &str| {
        let source = resolve(source, revision, hub).expect("a good source");
        assert_eq!((source.name(), &*source.url("unet/config.json")), (name, url));
    };
    let hub = "https://huggingface.co";
    at("a/b-1.5", None, None, "a/b-1.5", &format!("{hub}/a/b-1.5/resolve/main/unet/config.json"));
    at(" a/b ", Some("fp16"), None, "a/b@fp16", &format!("{hub}/a/b/resolve/fp16/unet/config.json"));
    at(
        "a/b",
        Some("refs/pr/1"),
        None,
        "a/b@refs/pr/1",
        &format!("{hub}/a/b/resolve/refs%2Fpr%2F1/unet/config.json"),
    );
    at(
        "a/b",
        None,
        Some("http://localhost:8/"),
        "a/b",
        "http://localhost:8/a/b/resolve/main/unet/config.json",
    );
    at("https://x.org/m/", None, None, "https://x.org/m", "https://x.org/m/unet/config.json");
    at("embedded", None, None, "embedded", "https://here/embedded/unet/config.json");
    // One file is its own address, whatever path is asked of it; a Hub's page of a file is the file.
    for (file, name, url) in [
        (
            "https://x.org/m/sd15.safetensors",
            "https://x.org/m/sd15.safetensors",
            "https://x.org/m/sd15.safetensors",
        ),
        ("http://x.org/sd15.CKPT?token=1", "http://x.org/sd15.CKPT", "http://x.org/sd15.CKPT?token=1"),
        (
            "https://hub/a/b/blob/main/v1.safetensors",
            "https://hub/a/b/resolve/main/v1.safetensors",
            "https://hub/a/b/resolve/main/v1.safetensors",
        ),
    ] {
        at(file, None, None, name, url);
    }
    assert_eq!(resolve("a/b.safetensors", None, None), Err(Code::InvalidOption));
    assert_eq!(resolve("https://x.org/m.gguf", None, None), Err(Code::UnsupportedModel));
    for bad in [
        "",
        "sd-turbo",
        "a/b/c",
        "/b",
        "a/",
        "../b",
        "a/..",
        "a b/c",
        "ftp://x/y",
        "file:///m",
        "a/b?x",
        "ü/b",
    ] {
        assert_eq!(resolve(bad, None, None), Err(Code::InvalidOption), "{bad}");
    }
    assert_eq!(resolve("https://x.org/m?token=1", None, None), Err(Code::InvalidOption));
    for revision in ["", "../x", "a/../b", "a b", "a?b"] {
        assert_eq!(resolve("a/b", Some(revision), None), Err(Code::InvalidOption), "{revision}");
    }
    assert_eq!(resolve("a/b", None, Some("hub.local")), Err(Code::InvalidOption));
    let none = SourceOptions::default();
    assert_eq!(Source::resolve("embedded", &none).map_err(|e| e.code), Err(Code::InvalidOption));
}

#[test]
fn kinds_of_weights_and_files_from_disk_do_not_meet_in_the_cache() {
    let source = |name: &str| Source::resolve(name, &SourceOptions::default()).expect("a model");
    let file = source("disk:v1.safetensors");
    assert_eq!((file.name(), file.kept_name().as_str()), ("v1.safetensors", "disk:v1.safetensors"));
    assert_eq!(file.file(), Some("v1.safetensors"));
    assert!(file.on_disk() && !source("a/b").on_disk());
    let folder = Source::disk("sd15", None);
    assert_eq!(folder, source("disk:sd15"));
    assert_eq!(folder.url("unet/config.json"), "disk:sd15/unet/config.json");

    let hub = source("a/b");
    let mut keys = std::collections::BTreeSet::new();
    let mut count = 0;
    for source in [&hub, &folder, &file] {
        for kept in [source.clone(), source.clone().kept_as("q8"), source.clone().kept_as("q4")] {
            assert_eq!(kept.url("unet/w"), source.url("unet/w"), "asked for at the same address");
            assert_eq!(kept.name(), source.name());
            assert_eq!(kept.unpacked(), *source);
            for key in [kept.key(), kept.packed_key("unet/w"), kept.packed_key("vae/w"), kept.kept_name()] {
                keys.insert(key);
                count += 1;
            }
            if source.file().is_none() {
                keys.insert(kept.file_key("unet/w"));
                count += 1;
            }
        }
    }
    // Where no weights are packed, those keys are addresses of files of a folder, and of none of a single file; what is
    // kept of files from disk is called as its key.
    count -= 2 + 2;
    assert_eq!(keys.len(), count, "{keys:?}");
    assert_eq!(hub.clone().kept_as("q8").kept_name(), "a/b (q8)");
}

/// The file names are those that `save_pretrained(variant=..., max_shard_size=...)` of diffusers and
/// transformers write.
#[test]
fn finds_weights_in_a_folder() {
    let root = std::env::temp_dir().join(format!("browser-diffusion-store-{}", std::process::id()));
    let put = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    let index = |files: &[&str]| {
        let map: Vec<_> = files.iter().enumerate().map(|(i, f)| format!(r#""t{i}":"{f}""#)).collect();
        format!(r#"{{"metadata":{{}},"weight_map":{{{}}}}}"#, map.join(","))
    };
    put("unet/diffusion_pytorch_model.safetensors", "plain");
    put("unet/diffusion_pytorch_model.fp16.safetensors", "half");
    put("vae/diffusion_pytorch_model.fp16.safetensors", "half");
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    put("text_encoder/model.safetensors.index.json", &index(&shards));
    let halves = ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"];
    put("text_encoder_2/model.safetensors.index.json", &index(&shards));
    put("text_encoder_2/model.safetensors.index.fp16.json", &index(&halves));
    put("broken/diffusion_pytorch_model.safetensors.index.json", "{}");
    put("only_bin/diffusion_pytorch_model.bin", "");

    let folder = Folder::new(&root);
    let weights =
        |component: &str, variant| pollster::block_on(folder.weights(component, variant)).map_err(|e| e.code);
    let of = |component: &str, files: &[&str]| {
        Ok(files.iter().map(|f| format!("{component}/{f}")).collect::<Vec<_>>())
    };
    assert_eq!(weights("unet", None), of("unet", &["diffusion_pytorch_model.safetensors"]));
    assert_eq!(weights("unet", Some("fp16")), of("unet", &["diffusion_pytorch_model.fp16.safetensors"]));
    // A variant that a component does not have, and the only variant that it has.
    assert_eq!(weights("unet", Some("bf16")), of("unet", &["diffusion_pytorch_model.safetensors"]));
    assert_eq!(weights("vae", None), of("vae", &["diffusion_pytorch_model.fp16.safetensors"]));
    assert_eq!(weights("text_encoder", None), of("text_encoder", &shards));
    assert_eq!(weights("text_encoder", Some("fp16")), of("text_encoder", &shards));
    assert_eq!(weights("text_encoder_2", None), of("text_encoder_2", &shards));
    assert_eq!(weights("text_encoder_2", Some("fp16")), of("text_encoder_2", &halves));
    assert_eq!(weights("broken", None), Err(Code::BadCheckpoint));
    assert_eq!(weights("only_bin", None), Err(Code::Network));
    assert_eq!(weights("absent", None), Err(Code::Network));

    let mut text = Vec::new();
    let path = "vae/diffusion_pytorch_model.fp16.safetensors";
    pollster::block_on(folder.read(path, async |bytes: &[u8]| {
        text.extend_from_slice(bytes);
        Ok(())
    }))
    .expect("a file");
    assert_eq!(text, b"half");
    assert_eq!(pollster::block_on(folder.bytes("vae/absent.json")), Ok(None));
    let json = pollster::block_on(folder.json::<serde_json::Value>("vae/absent.json"));
    assert_eq!(json.map_err(|e| e.code), Err(Code::Network));
    let json = pollster::block_on(folder.json::<serde_json::Value>("only_bin/diffusion_pytorch_model.bin"));
    assert_eq!(json.map_err(|e| e.code), Err(Code::BadCheckpoint));
    fs::remove_dir_all(&root).expect("the folder goes");
}
