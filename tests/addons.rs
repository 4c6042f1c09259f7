//! LoRAs and embeddings of every kind that people have: what is read is read as A1111, ComfyUI and diffusers do; what
//! is broken is refused by the tensor's name, and the model draws on as if nothing had been.

#[path = "support/safetensors.rs"]
mod safetensors;

use browser_diffusion::checkpoint::alphas::Alphas;
use browser_diffusion::checkpoint::lora::{Adapter, Change, Factor, Magnitude, Names, Values, check};
use browser_diffusion::checkpoint::{Table, card};
use browser_diffusion::ops::Precision;
use browser_diffusion::pipeline::{
    DiffusionPipeline, GenerateOptions, ImageEncoderFiles, LoadOptions, Lora, Output, Upscaler,
};
use browser_diffusion::prompt::Syntax;
use browser_diffusion::store::disk::{DiskFile, Folder, single_file};
use browser_diffusion::{Code, Error, Result};
use pollster::block_on;
use safetensors::file;
use std::collections::BTreeMap;
use std::rc::Rc;

const LAYER: &str = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight";

fn case(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/reference/data/cases/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// What a file makes of a layer of 64x64, as the pipeline reads it.
fn adapter(file: &[u8]) -> Result<Adapter> {
    let names = Names::new([(0, LAYER)].into_iter());
    let table = block_on(Table::open(&file))?;
    let mut factors: BTreeMap<Factor, Values> = BTreeMap::new();
    for tensor in &table.tensors {
        let values = block_on(table.values(&file, tensor))?;
        check(&tensor.name, &tensor.shape, &values)?;
        let (_, _, factor) = names.find(&tensor.name).unwrap();
        if let Factor::Foreign(method) = factor {
            return Err(Error::unsupported(method));
        }
        factors.insert(factor, (tensor.shape.clone(), values));
    }
    let alphas = block_on(Alphas::read(&file))?;
    if let Some(alpha) = alphas.of(0, LAYER.trim_end_matches(".weight"), 4)? {
        factors.insert(Factor::Alpha, (Vec::new(), vec![alpha]));
    }
    Adapter::new(LAYER, factors, [64, 64, 1])
}

#[test]
fn shared_cases_of_loras() {
    let read = |name: &str| adapter(&case(&format!("lora-{name}.safetensors")));
    for (name, tensor) in [("rank0", "lora_down"), ("nan", "lora_"), ("alpha-nan", ".alpha")] {
        let error = read(name).unwrap_err();
        assert_eq!(error.code, Code::BadCheckpoint, "{name}");
        assert!(error.message.contains("tensor \"lora_unet_down_blocks_1"), "{name}: {}", error.message);
        assert!(error.message.contains(tensor), "{name}: {}", error.message);
    }
    let [metadata, tensor] = ["alpha-in-metadata", "alpha-in-tensor"].map(|name| read(name).unwrap());
    assert_eq!([metadata.scale, tensor.scale], [0.5, 0.5]);
    let (Change::Product(a), Change::Product(b)) = (&metadata.change, &tensor.change) else { panic!() };
    assert_eq!((&a.up, &a.down), (&b.up, &b.down));
    assert!(matches!(read("dora-input-axis-square").unwrap().magnitude, Some(Magnitude::Columns(_))));
    assert!(matches!(read("full-diff").unwrap().change, Change::Full(values) if values.len() == 4096));
    let Change::Turn(turn) = read("oft").unwrap().change else { panic!() };
    assert_eq!((turn.size, turn.stages.len(), turn.rescale), (16, 1, None));
}

#[test]
fn shared_cases_of_embeddings() {
    let card = block_on(card::read(&case("ti-card.png").as_slice())).unwrap().unwrap();
    let [(name, (shape, drawn))] = card.as_slice() else { panic!("{} entries", card.len()) };
    assert_eq!((name.as_str(), shape.as_slice(), drawn.len()), ("string_to_param.*", &[2, 32][..], 64));
    for (file, name) in [("ti-paramdict.pt", "string_to_param.*"), ("ti-otherkey.pt", "string_to_param.sks")]
    {
        let file = case(file);
        let table = block_on(Table::open(&file.as_slice())).unwrap();
        let values = block_on(table.values(&file.as_slice(), table.get(name).expect(name))).unwrap();
        assert_eq!(&values, drawn, "{name}");
    }
}

fn wave(len: u64, scale: f32) -> Vec<f32> {
    (0..len).map(|i| scale * (i as f32 * 1.7).sin()).collect()
}

/// A PNG's chunk; readers of texts look at no checksum.
fn chunk(kind: &str, content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32).to_be_bytes(), kind.as_bytes(), content, &[0; 4]].concat()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let four = |three: &[u8]| {
        let n = (0..3).fold(0, |n, i| n << 8 | u32::from(three.get(i).copied().unwrap_or(0)));
        let digit =
            |i: usize| if i > three.len() { '=' } else { DIGITS[(n >> (18 - 6 * i)) as usize & 63] as char };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(four).collect()
}

struct Embedded(DiffusionPipeline);

impl Embedded {
    fn new() -> Embedded {
        let folder = Rc::new(Folder::new(concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded")));
        Embedded(block_on(DiffusionPipeline::load(folder, None, &LoadOptions::default(), &|| false)).unwrap())
    }

    fn draw(&self, prompt: &str, loras: &[(&str, f32)], words: &[(&str, &str)]) -> Result<Vec<f32>> {
        let lora = |&(key, scale): &(&str, f32)| Lora { key: key.into(), name: key.into(), scale };
        let options = GenerateOptions {
            prompt: prompt.into(),
            prompt_syntax: Syntax::A1111,
            width: Some(64),
            height: Some(64),
            num_inference_steps: Some(1),
            guidance_scale: Some(1.0),
            seed: 7,
            loras: loras.iter().map(lora).collect(),
            embeddings: words.iter().map(|&(word, key)| (word.into(), key.into())).collect(),
            output: Output::Latent,
            ..Default::default()
        };
        let drawn = block_on(self.0.generate(&options, &mut |_| Ok(()), &|| false))?;
        Ok(drawn.latents.concat())
    }
}

const BROKEN: &str = "lora_unet_up_blocks_0_resnets_0_conv1";

/// Rows and input channels of that layer.
fn conv() -> [u64; 2] {
    let unet = concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded/unet/diffusion_pytorch_model.safetensors");
    let unet = std::fs::read(unet).unwrap();
    let table = block_on(Table::open(&unet.as_slice())).unwrap();
    let shape = &table.get("up_blocks.0.resnets.0.conv1.weight").unwrap().shape;
    [shape[0], shape[1]]
}

#[test]
fn broken_files_are_refused_by_name_and_the_model_draws_on() {
    let model = Embedded::new();
    let [rows, inner] = conv();
    let before = model.draw("an apple", &[], &[]).unwrap();
    let [down, up, alpha] =
        ["lora_down.weight", "lora_up.weight", "alpha"].map(|end| format!("{BROKEN}.{end}"));
    let (n, a, b) = (inner * 9, wave(inner * 9, 0.1), wave(rows, 0.1));
    let with = |mut values: Vec<f32>, wrong: f32| {
        values[3] = wrong;
        values
    };
    let product = |a: Vec<f32>, b: Vec<f32>, c: f32| {
        file(&[(&down, &[1, inner, 3, 3], a), (&up, &[rows, 1, 1, 1], b), (&alpha, &[], vec![c])])
    };
    let named = |end: &str| format!("{BROKEN}.{end}");
    let one = |end: &str, shape: &[u64]| file(&[(&named(end), shape, wave(shape.iter().product(), 0.1))]);
    for (what, file, says) in [
        ("nan", product(with(a.clone(), f32::NAN), b.clone(), 1.0), down.as_str()),
        ("infinite", product(a.clone(), with(b.clone(), f32::INFINITY), 1.0), &up),
        ("overflow", product(a.clone(), with(b.clone(), 7e4), 1.0), &up),
        ("alpha", product(a.clone(), b.clone(), f32::NEG_INFINITY), &alpha),
        ("rank 0", file(&[(&down, &[0, inner, 3, 3], vec![]), (&up, &[rows, 0, 1, 1], vec![])]), "lora_"),
        (
            "loha",
            file(&[(&named("hada_w1_a"), &[rows, 0], vec![]), (&named("hada_w1_b"), &[0, n], vec![])]),
            "hada_w1_",
        ),
        (
            "lokr",
            file(&[
                (&named("lokr_w1"), &[0, 0], vec![]),
                (&named("lokr_w2"), &[rows, n], wave(rows * n, 0.1)),
            ]),
            "lokr_w1",
        ),
        ("dora", file(&[(&named("dora_scale"), &[0], vec![])]), "dora_scale"),
        ("diff", one("diff", &[3, 3]), "difference"),
        ("t2i", file(&[("body.0.block1.weight", &[1], vec![0.0])]), "a T2I-Adapter"),
        ("ip", file(&[("ip_adapter.1.to_k_ip.weight", &[1], vec![0.0])]), "an IP-Adapter"),
        ("lllite", file(&[("lllite_unet_x.down.0.weight", &[1], vec![0.0])]), "a ControlNet-LLLite"),
    ] {
        let error = block_on(model.0.load_lora(what, &file.as_slice())).expect_err(what);
        assert!(error.message.contains(says), "{what}: {}", error.message);
    }
    // Sound factors whose product is not.
    let large = product(vec![400.0; n as usize], vec![200.0; rows as usize], 1.0);
    block_on(model.0.load_lora("large", &large.as_slice())).unwrap();
    for scale in [1.0, 1e30] {
        let error = model.draw("an apple", &[("large", scale)], &[]).unwrap_err();
        assert_eq!(error.code, Code::UnsupportedModel);
        assert!(error.message.contains("up_blocks.0.resnets.0.conv1.weight"), "{}", error.message);
    }
    assert_eq!(model.draw("an apple", &[], &[]).unwrap(), before);
}

/// The same of the kinds that turn a weight or multiply it, of norms, and of embeddings in a LoRA's file.
#[test]
fn broken_files_of_rarer_kinds_are_refused_by_name() {
    let model = Embedded::new();
    let [rows, inner] = conv();
    let before = model.draw("an apple", &[], &[]).unwrap();
    let (n, b) = (inner * 9, wave(rows, 0.1));
    let with = |mut values: Vec<f32>, wrong: f32| {
        values[3] = wrong;
        values
    };
    let named = |end: &str| format!("{BROKEN}.{end}");
    let one = |end: &str, shape: &[u64]| file(&[(&named(end), shape, wave(shape.iter().product(), 0.1))]);
    let blocks = |blocks: Vec<f32>, beside: &str, values: Vec<f32>| {
        let shape = [rows / 4, 4, 4];
        file(&[(&named("oft_blocks"), &shape, blocks), (&named(beside), &[rows, 1, 1, 1], values)])
    };
    let turning = wave(rows * 4, 0.1);
    for (what, file, says) in [
        ("oft of another size", one("oft_blocks", &[3, 5, 5]), "oft_blocks"),
        ("oft without blocks", file(&[(&named("oft_blocks"), &[0, 4, 4], vec![])]), "oft_blocks"),
        ("oft nan", blocks(with(turning.clone(), f32::NAN), "rescale", b.clone()), "oft_blocks"),
        ("oft alone", one("rescale", &[rows]), "lokr_w1"),
        ("oft rescale", blocks(turning.clone(), "rescale", with(b.clone(), f32::INFINITY)), "rescale"),
        ("oft with dora", blocks(turning.clone(), "dora_scale", b.clone()), "DoRA"),
        ("boft, odd blocks", one("oft_blocks", &[2, rows / 5, 5, 5]), "oft_blocks"),
        ("boft, too many stages", one("oft_blocks", &[20, rows / 4, 4, 4]), "oft_blocks"),
        ("boft of peft", one("boft_R", &[1, 4, 4]), "BOFT"),
        ("oft of peft", one("oft_R.weight", &[4, 4]), "OFT"),
        ("glora", one("a1.weight", &[4, 4]), "a1, a2, b1 or b2"),
        (
            "glora of rank 0",
            file(&[
                (&named("a1.weight"), &[inner, 0, 1, 1], vec![]),
                (&named("a2.weight"), &[0, inner, 1, 1], vec![]),
            ]),
            "a1",
        ),
        ("glora with a core", one("bm.weight", &[1, 1, 3, 3]), "GLoRA"),
        ("ia3", one("on_input", &[1]), "IA3"),
        (
            "norm",
            file(&[("lora_unet_conv_norm_out.w_norm", &[2], vec![f32::NAN; 2])]),
            "conv_norm_out.w_norm",
        ),
        (
            "norm of another size",
            file(&[("lora_unet_conv_norm_out.b_norm", &[2], vec![0.5; 2])]),
            "difference",
        ),
        (
            "bundled nan",
            file(&[("bundle_emb.sks.string_to_param.*", &[1, 128], with(wave(128, 0.5), f32::NAN))]),
            "bundle_emb.sks.string_to_param.*",
        ),
        (
            "bundled, another model's",
            file(&[("bundle_emb.sks.emb_params", &[1, 96], wave(96, 0.5))]),
            "96 wide",
        ),
        (
            "bundled empty",
            file(&[("bundle_emb.sks.emb_params", &[0, 128], vec![])]),
            "bundle_emb.sks.emb_params",
        ),
    ] {
        let error = block_on(model.0.load_lora(what, &file.as_slice())).expect_err(what);
        assert!(error.message.contains(says), "{what}: {}", error.message);
    }
    // Sound factors whose product is not.
    let stretched = blocks(turning, "rescale", vec![65000.0; rows as usize]);
    block_on(model.0.load_lora("stretched", &stretched.as_slice())).unwrap();
    let through =
        |end: &str, shape: [u64; 2]| (named(end), shape, vec![60000.0; (shape[0] * shape[1]) as usize]);
    let parts = [
        ("a1.weight", [inner, 1]),
        ("a2.weight", [1, inner]),
        ("b1.weight", [rows, 1]),
        ("b2.weight", [1, n]),
    ];
    let parts = parts.map(|(end, shape)| through(end, shape));
    let parts: Vec<(&str, &[u64], Vec<f32>)> =
        parts.iter().map(|(name, shape, values)| (name.as_str(), shape.as_slice(), values.clone())).collect();
    block_on(model.0.load_lora("through", &file(&parts).as_slice())).unwrap();
    for (key, scale) in [("stretched", 1000.0), ("through", 1.0)] {
        let error = model.draw("an apple", &[(key, scale)], &[]).unwrap_err();
        assert!(error.message.contains("up_blocks.0.resnets.0.conv1.weight"), "{key}: {}", error.message);
    }
    assert_eq!(model.draw("an apple", &[], &[]).unwrap(), before);
}

/// A LoRA's own words: without the LoRA they are words as any.
#[test]
fn embeddings_inside_a_lora() {
    let model = Embedded::new();
    let [rows, inner] = conv();
    let (values, down) = (wave(256, 0.5), wave(inner * 9, 0.3));
    let factors = [
        (format!("{BROKEN}.lora_down.weight"), vec![1, inner, 3, 3], down),
        (format!("{BROKEN}.lora_up.weight"), vec![rows, 1, 1, 1], wave(rows, 0.3)),
    ];
    let word = ("bundle_emb.sks.string_to_param.*".to_owned(), vec![2, 128], values.clone());
    let lora = |tensors: &[(String, Vec<u64>, Vec<f32>)]| {
        let tensors: Vec<(&str, &[u64], Vec<f32>)> =
            tensors.iter().map(|(n, s, v)| (n.as_str(), s.as_slice(), v.clone())).collect();
        file(&tensors)
    };
    block_on(model.0.load_lora("plain", &lora(&factors).as_slice())).unwrap();
    block_on(
        model.0.load_lora(
            "bundle",
            &lora(&[factors.as_slice(), std::slice::from_ref(&word)].concat()).as_slice(),
        ),
    )
    .unwrap();
    block_on(model.0.load_lora("words", &lora(&[word]).as_slice())).unwrap();
    let embedding = file(&[("emb_params", &[2, 128], values)]);
    block_on(model.0.load_embedding("sks", &embedding.as_slice())).unwrap();
    let draw =
        |loras: &[(&str, f32)], words: &[(&str, &str)]| model.draw("an apple sks", loras, words).unwrap();
    let without = draw(&[], &[]);
    assert_eq!(draw(&[("bundle", 0.7)], &[]), draw(&[("plain", 0.7)], &[("sks", "sks")]));
    assert_eq!(draw(&[("words", 1.0)], &[]), draw(&[], &[("sks", "sks")]));
    assert_ne!(draw(&[("words", 1.0)], &[]), without);
    assert_eq!(draw(&[], &[]), without);
}

/// Each kind of file where each other is due, its name as people have names.
#[test]
fn files_in_wrong_places_are_called_what_they_are() {
    let model = Embedded::new();
    let temp = std::env::temp_dir().join(format!("browser-diffusion-kinds-{}", std::process::id()));
    std::fs::create_dir_all(&temp).unwrap();
    let vocabulary = || Folder::new(concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded"));
    let kinds = [
        ("body.0.block1.weight", "T2I-Adapter"),
        ("ip_adapter.1.to_k_ip.weight", "IP-Adapter"),
        ("lllite_unet_x.down.0.weight", "LLLite"),
        ("lora_controlnet", "Control-LoRA"),
        ("lora_unet_x.lora_down.weight", "LoRA"),
        ("lora_unet_x.oft_blocks", "OFT"),
        ("lora_unet_x.a1.weight", "GLoRA"),
        ("lora_unet_x.w_norm", "full differences"),
        ("emb_params", "embedding"),
        ("conv_first.weight", "upscaler"),
        ("decoder.conv_in.weight", "VAE"),
        ("decoder.up.0.block.0.conv1.weight", "VAE"),
        ("input_hint_block.0.weight", "ControlNet"),
        ("model.diffusion_model.input_blocks.0.0.weight", "whole"),
        ("vision_model.x", "CLIP vision encoder"),
        ("down_blocks.0.motion_modules.0.x", "motion module"),
    ];
    let names = ["50% off #1?", "a?b=c&d", "красная машина", "红苹果", "تفاحة", "%E4%zz", " spaces  "];
    for (i, (tensor, what)) in kinds.iter().enumerate() {
        let bytes = file(&[(tensor, &[4, 4, 3, 3], wave(144, 0.1))]);
        let name = names[i % names.len()];
        let path = temp.join(format!("{name}.safetensors"));
        std::fs::write(&path, &bytes).unwrap();
        let open = || block_on(single_file(&path, vocabulary())).map(Rc::new);
        let never = || false;
        let load =
            |files, vae| block_on(DiffusionPipeline::load(files, vae, &LoadOptions::default(), &never));
        let encoder = ImageEncoderFiles { key: "", files: Rc::new(Folder::new(&temp)) };
        let adapter = (name, DiskFile::open(&path).unwrap());
        let places: [(&str, Option<Error>); 7] = [
            ("model", open().and_then(|files| load(files, None)).err()),
            ("vae", open().and_then(|vae| load(open()?, Some(vae))).err()),
            ("controlnet", open().and_then(|f| block_on(model.0.load_controlnet(name, f, &never))).err()),
            ("ip-adapter", block_on(model.0.load_ip_adapter(name, adapter, encoder, &never)).err()),
            ("lora", block_on(model.0.load_lora(name, &bytes.as_slice())).err()),
            ("embedding", block_on(model.0.load_embedding(name, &bytes.as_slice())).err()),
            ("upscaler", block_on(Upscaler::load(&bytes.as_slice(), Precision::default(), &never)).err()),
        ];
        let own = match *what {
            "whole" => "model",
            "VAE" => "vae",
            "ControlNet" | "T2I-Adapter" | "LLLite" => "controlnet",
            "IP-Adapter" => "ip-adapter",
            "LoRA" | "OFT" | "GLoRA" | "full differences" => "lora",
            other => other,
        };
        for (place, error) in places {
            let error = error.unwrap_or_else(|| panic!("{what} as {place}: taken"));
            let called = place == own
                || [*what, "AutoencoderKL", "UNet2DConditionModel"]
                    .iter()
                    .any(|name| error.message.contains(name));
            assert!(called, "{what} as {place}: {}", error.message);
        }
    }
    std::fs::remove_dir_all(&temp).unwrap();
}

#[test]
fn tags_act_as_in_a1111() {
    let model = Embedded::new();
    let [rows, inner] = conv();
    let word = "lora_te_text_model_encoder_layers_0_mlp_fc1";
    let text =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded/text_encoder/model.safetensors"));
    let text = text.unwrap();
    let table = block_on(Table::open(&text.as_slice())).unwrap();
    let fc1 = table.tensors.iter().find(|t| t.name.ends_with("encoder.layers.0.mlp.fc1.weight")).unwrap();
    let both = file(&[
        (&format!("{BROKEN}.lora_down.weight"), &[1, inner, 3, 3], wave(inner * 9, 0.3)),
        (&format!("{BROKEN}.lora_up.weight"), &[rows, 1, 1, 1], wave(rows, 0.3)),
        (&format!("{word}.lora_down.weight"), &[1, fc1.shape[1]], wave(fc1.shape[1], 0.3)),
        (&format!("{word}.lora_up.weight"), &[fc1.shape[0], 1], wave(fc1.shape[0], 0.3)),
    ]);
    block_on(model.0.load_lora("x", &both.as_slice())).unwrap();
    let tagged = |tags: &str| model.draw(&format!("an apple{tags}"), &[("x", 1.0)], &[]);
    let plain = |loras: &[(&str, f32)]| model.draw("an apple", loras, &[]).unwrap();
    let base = plain(&[]);
    let (text_only, unet_only) = (tagged("<lora:x:0.5:0>").unwrap(), tagged("<lora:x:0:0.5>").unwrap());
    let half = plain(&[("x", 0.5)]);
    assert!(
        text_only != base
            && unet_only != base
            && text_only != unet_only
            && half != text_only
            && half != unet_only
    );
    for (tags, same) in [
        ("<lora:x:0:0>", &base),
        ("<lora:x:0.5>", &half),
        ("<lyco:x:0.5>", &half),
        ("<lora:x:0.5:0.5>", &half),
        ("<lora:x:te=0.5>", &half),
        ("<lora:x:te=0.5:unet=0>", &text_only),
        ("<lora:x:0:unet=0.5>", &unet_only),
        ("<lora:x:0.9:0.9:te=0:unet=0.5>", &unet_only),
        // Each time as the last says.
        ("<lora:x:0.1><lora:x:0.5>", &plain(&[("x", 0.5), ("x", 0.5)])),
        ("<lora:x:0.5><lyco:x:0.25><lora:x:0.1>", &plain(&[("x", 0.25), ("x", 0.25), ("x", 0.25)])),
    ] {
        assert_eq!(&tagged(tags).unwrap(), same, "{tags}");
    }
    for (tags, says) in [
        ("<lora:x:1:much>", "no number"),
        ("<lora:x:unet=nan>", "no number"),
        ("<lyco:y:1>", "<lyco:y:1>"),
        ("<lora:x:1:1:8>", "dyn"),
        ("<lora:x:1:dyn=8>", "dyn"),
    ] {
        let error = tagged(tags).unwrap_err();
        assert_eq!(error.code, Code::InvalidOption, "{tags}");
        assert!(error.message.contains(says), "{tags}: {}", error.message);
    }
}

#[test]
fn embeddings_of_every_kind() {
    let model = Embedded::new();
    let values = wave(2 * 128, 0.5);
    let rows: Vec<&[f32]> = values.chunks(128).collect();
    let list = serde_json::json!({"string_to_param": {"*": {"TORCHTENSOR": rows}}});
    let card = |text: &str| {
        let text = [b"sd-ti-embedding\0", text.as_bytes()].concat();
        [&b"\x89PNG\r\n\x1a\n"[..], &chunk("IHDR", &[0; 13]), &chunk("tEXt", b"a\0b"), &chunk("tEXt", &text)]
            .concat()
    };
    let own = |name: &str| file(&[(name, &[2, 128], values.clone())]);
    let kinds = [
        ("emb_params", own("emb_params")),
        ("concept", own("<sks>")),
        ("card", card(&base64(list.to_string().as_bytes()))),
        (
            "other key",
            file(&[
                ("string_to_param.sks", &[2, 128], values.clone()),
                ("string_to_token.sks", &[1], vec![265.0]),
            ]),
        ),
    ];
    for (key, file) in &kinds {
        block_on(model.0.load_embedding(key, &file.as_slice())).unwrap();
    }
    let draw = |key: &str| model.draw("an apple sks", &[], &[("sks", key)]).unwrap();
    let first = draw("emb_params");
    assert_ne!(first, model.draw("an apple sks", &[], &[]).unwrap());
    for (key, _) in &kinds[1..] {
        assert_eq!(draw(key), first, "{key}");
    }
    let mut broken = values.clone();
    broken[5] = f32::NAN;
    for (what, file, says) in [
        ("nan", file(&[("emb_params", &[2, 128], broken)]), "emb_params"),
        ("overflow", file(&[("emb_params", &[1, 128], vec![1e5; 128])]), "emb_params"),
        ("empty", file(&[("emb_params", &[0, 128], vec![])]), "emb_params"),
        ("no width", file(&[("emb_params", &[1, 0], vec![])]), "emb_params"),
        (
            "two",
            file(&[
                ("string_to_param.a", &[128], wave(128, 1.0)),
                ("string_to_param.b", &[128], wave(128, 1.0)),
            ]),
            "2 tensors",
        ),
        ("lora", case("lora-full-diff.safetensors"), "LoRA"),
        ("oft", case("lora-oft.safetensors"), "OFT"),
        ("a picture", [&b"\x89PNG\r\n\x1a\n"[..], &chunk("IHDR", &[0; 13])].concat(), "sd-ti-embedding"),
        ("damaged", card("e30"), "damaged"),
        ("no base64", card("%%%"), "damaged"),
        (
            "uneven",
            card(&base64(br#"{"string_to_param": {"*": {"TORCHTENSOR": [[1, 2], [3]]}}}"#)),
            "damaged",
        ),
        ("other model", case("ti-card.png"), "32 wide"),
    ] {
        let error = block_on(model.0.load_embedding(what, &file.as_slice())).expect_err(what);
        assert!(error.message.contains(says), "{what}: {}", error.message);
    }
    assert_eq!(draw("card"), first);
}

#[test]
fn a_model_for_inpainting_takes_a_locon_of_four_channels() {
    let down: Vec<f32> = (0..36).map(|i| i as f32).collect();
    let factors = BTreeMap::from([
        (Factor::Down, (vec![1, 4, 3, 3], down.clone())),
        (Factor::Up, (vec![8, 1, 1, 1], vec![1.0; 8])),
    ]);
    let adapter = Adapter::new("conv_in.weight", factors.clone(), [8, 9, 9]).unwrap();
    let Change::Product(product) = adapter.change else { panic!() };
    assert_eq!(product.down[..36], down);
    assert_eq!(product.down[36..], [0.0; 45]);
    assert!(Adapter::new("mid_block.conv.weight", factors, [8, 9, 9]).is_err());
}
