//! CLIP, UNet, ControlNet and the autoencoders against transformers and diffusers: tiny random models whose outputs
//! `tests/reference/models.py` computed, and the weights that the published checkpoints' configurations ask for.

#[path = "support/model_cases.rs"]
mod model_cases;
#[path = "support/random_weights.rs"]
mod random_weights;

use browser_diffusion::Code;
use browser_diffusion::checkpoint::pack::Layout;
use browser_diffusion::gpu::{Arithmetic, Dtype, Gpu, GpuOptions, Options, Recorder, WeightSpec, Weights};
use browser_diffusion::models::{clip, controlnet, taesd, unet, vae};
use model_cases::{Data, Part, relative_error};
use pollster::block_on;
use random_weights::{drawn, fnv1a};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const CASES: [&str; 12] = [
    "sd1",
    "sd2",
    "sdxl",
    "lcm",
    "inpaint",
    "odd",
    "distilled",
    "taesd",
    "control_sd1",
    "control_sd2",
    "control_sdxl",
    "control_pooled",
];

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference/data/models").join(name)
}

fn json_file(name: &str) -> BTreeMap<String, Value> {
    serde_json::from_slice(&std::fs::read(file(name)).unwrap()).unwrap()
}

// ---- weights, as models.py draws them ---------------------------------------------------------------------

/// `weight` of models.py.
fn weight(spec: &WeightSpec, gain: f64) -> Vec<f32> {
    let name = spec.name.as_str();
    let (count, fan_in) = match spec.layout {
        Layout::Matrix { rows, inner, taps } | Layout::Blocks { rows, inner, taps, .. } => {
            (rows * inner * taps, inner * taps)
        }
        Layout::Vector { len } => (len, 1),
    };
    drawn(name, count, fan_in, gain).iter().map(|v| v.to_f32()).collect()
}

// ---- every case ------------------------------------------------------------------------------------------

/// Every output of every component of every case, its relative L2 error at most `tolerance`.
fn check(gpu: &Gpu, options: Options, tolerance: f64) {
    let mut worst: Vec<(f64, String)> = Vec::new();
    for case in CASES {
        let data = Data::read(&file(&format!("{case}.safetensors")));
        for (name, config) in json_file(&format!("{case}.json")) {
            let part = Part::record(&data, &name, &config, &options);
            let weights = Weights::allocate(gpu, part.plan.weights());
            for spec in part.plan.weights() {
                weights.upload(gpu, &spec.name, &weight(spec, config["gain"].as_f64().unwrap())).unwrap();
            }
            for (output, error) in part.errors(gpu, &weights) {
                println!("{case:10} {name:15} {output:18} {error:.1e}");
                worst.push((error, format!("{case} {name} {output}")));
            }
        }
    }
    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    // Eight UNets, four text encoders with three outputs, four autoencoders with three and one with one, four
    // ControlNets of seven or five residuals in two modes.
    assert_eq!(worst.len(), 8 + 4 * 3 + 4 * 3 + 1 + 2 * (7 + 5 + 7 + 5));
    let above = |e: f64| e.is_nan() || e > tolerance;
    let failed: Vec<_> =
        worst.iter().filter(|w| above(w.0)).map(|(e, what)| format!("{what} {e:.1e}")).collect();
    assert!(failed.is_empty(), "above {tolerance:.0e}: {failed:#?}");
}

/// Everything in f32. f16 storage alone moves these outputs by up to 1.4e-3 (models.py prints it); f32's
/// roundings are 2^-13 of that, 2e-7, and sums of some 600 products, here and in torch, have up to sqrt(600)
/// of them each: 1e-5.
#[test]
fn f32_storage_and_arithmetic() {
    let gpu = block_on(Gpu::new(&GpuOptions::default())).unwrap();
    check(&gpu, Options { activations: Dtype::F32, ..Options::default() }, 1e-5);
}

/// The same by the kernels that broadcast within subgroups, where the adapter has such, and with every operation that
/// can be cut in as many dispatches as can be.
#[test]
fn f32_in_many_dispatches() {
    let gpu = block_on(Gpu::new(&GpuOptions::default())).unwrap();
    let options = Options { activations: Dtype::F32, max_dispatch_flops: 1, ..Options::default() };
    for subgroup in BTreeSet::from([0, gpu.subgroup]) {
        check(&gpu, Options { subgroup, ..options }, 1e-5);
    }
}

/// Activations lie as f16: the product's default.
#[test]
fn f16_storage_f32_arithmetic() {
    let gpu = block_on(Gpu::new(&GpuOptions { without_shader_f16: true, ..Default::default() })).unwrap();
    check(&gpu, Options::default(), 2e-3);
}

/// The decoder's wide level made a few rows at a time is the decoder: of one picture, since bands are for one.
#[test]
fn decoders_in_bands() {
    let gpu = block_on(Gpu::new(&GpuOptions::default())).unwrap();
    for case in ["sd1", "odd"] {
        let config = &json_file(&format!("{case}.json"))["vae"];
        let vae = vae::Config::from_config(config).unwrap();
        let Data(data) = Data::read(&file(&format!("{case}.safetensors")));
        let (shape, latents) = &data["vae.latents"];
        let (latents, wanted) = (&latents[..latents.len() / 2], &data["vae.decoded"].1);
        let mut dispatches = Vec::new();
        // Bands of eight rows, and none.
        for (most, subgroup) in [(1, 0), (u64::MAX, 0), (1, gpu.subgroup)] {
            let mut r = Recorder::new(&Options { activations: Dtype::F32, subgroup, ..Options::default() });
            let input = r.input(1, shape[1], shape[2], shape[3]);
            let decoded = vae::decode_in_bands(&vae, &mut r, input, most).unwrap();
            r.output(decoded);
            let plan = r.finish();
            dispatches.push(plan.dispatches().len());
            let weights = Weights::allocate(&gpu, plan.weights());
            for spec in plan.weights() {
                weights.upload(&gpu, &spec.name, &weight(spec, config["gain"].as_f64().unwrap())).unwrap();
            }
            let executable = plan.instantiate(&gpu, &weights).unwrap();
            executable.write(&gpu, input, latents).unwrap();
            executable.run(&gpu);
            let got = block_on(executable.read(&gpu, decoded)).unwrap();
            let error = relative_error(&got, &wanted[..wanted.len() / 2]);
            println!(
                "{case}, at most {most} bytes, subgroups of {subgroup}: {error:.1e}, {} dispatches",
                plan.dispatches().len()
            );
            // As f32_storage_and_arithmetic.
            assert!(error <= 1e-5, "{case} {most}: {error}");
        }
        assert!(dispatches[0] > dispatches[1] + 10, "{case}: {dispatches:?}");
    }
}

/// Products in f16 as well.
#[test]
fn f16_storage_f16_arithmetic() {
    let gpu = block_on(Gpu::new(&GpuOptions::default())).unwrap();
    assert!(gpu.shader_f16, "this test needs a driver with shader-f16 (lavapipe has it)");
    check(&gpu, Options { arithmetic: Arithmetic::F16, ..Options::default() }, 2e-2);
}

// ---- published checkpoints --------------------------------------------------------------------------------

/// Inputs of eight by eight latents.
fn unet_inputs(config: &unet::Config, r: &mut Recorder) -> unet::Inputs {
    unet::Inputs {
        sample: r.input(1, 8, 8, config.in_channels),
        t_emb: r.input(1, 1, 1, config.time_proj_dim),
        encoder_hidden_states: r.input(1, 1, 77, config.cross_attention_dim),
        added: config.text_time.map(|t| {
            let time = 6 * t.addition_time_embed_dim;
            let text_embeds = r.input(1, 1, 1, t.projection_class_embeddings_input_dim - time);
            unet::AddedCond { text_embeds, time_ids: r.input(1, 1, 1, time) }
        }),
        timestep_cond: config.time_cond_proj_dim.map(|dim| r.input(1, 1, 1, dim)),
        features: Vec::new(),
    }
}

/// All the weights that a configuration's functions ask for.
fn weights(config: &Value) -> Vec<WeightSpec> {
    let r = &mut Recorder::new(&Options::default());
    if config.get("architectures").is_some() {
        let config = clip::Config::from_config(config).unwrap();
        let (ids, index) = (r.input_u32(1, 77), r.input_u32(1, 1));
        let states = clip::hidden_states(&config, r, ids, None, config.num_hidden_layers).unwrap();
        let last = clip::final_layer_norm(&config, r, *states.last().unwrap()).unwrap();
        let pooled = clip::pooler_output(r, last, index).unwrap();
        if config.projection_dim.is_some() {
            clip::text_embeds(&config, r, pooled).unwrap();
        }
    } else if config["_class_name"] == "UNet2DConditionModel" {
        let config = unet::Config::from_config(config).unwrap();
        let inputs = unet_inputs(&config, r);
        unet::forward(&config, r, &inputs, &[]).unwrap();
    } else if config["_class_name"] == "ControlNetModel" {
        let config = controlnet::Config::from_config(config).unwrap();
        let image = r.input(1, 8 * config.scale(), 8 * config.scale(), config.conditioning_channels);
        let cond = controlnet::cond_embedding(&config, r, image).unwrap();
        let inputs = unet_inputs(&config.unet, r);
        controlnet::forward(&config, r, &inputs, &controlnet::Seen { cond: vec![cond], control_type: None })
            .unwrap();
    } else if config["_class_name"] == "AutoencoderKL" {
        let config = vae::Config::from_config(config).unwrap();
        let (latents, image) =
            (r.input(1, 8, 8, config.latent_channels), r.input(1, 64, 64, config.in_channels));
        vae::decode(&config, r, latents).unwrap();
        vae::encode(&config, r, image).unwrap();
    } else {
        let config = taesd::Config::from_config(config).unwrap();
        let latents = r.input(1, 8, 8, config.latent_channels);
        taesd::decode(&config, r, latents).unwrap();
    }
    std::mem::replace(r, Recorder::new(&Options::default())).finish().weights().to_vec()
}

#[test]
fn published_configurations_ask_for_exactly_the_weights_of_their_state_dicts() {
    let real = json_file("real.json");
    assert_eq!(real.len(), 14);
    for (name, expected) in real {
        let weights = weights(&expected["config"]);
        let mut lines: Vec<String> = weights
            .iter()
            .map(|w| match w.layout {
                Layout::Matrix { rows, inner, taps } | Layout::Blocks { rows, inner, taps, .. } => {
                    format!("{}:{rows}x{inner}x{taps}\n", w.name)
                }
                Layout::Vector { len } => format!("{}:{len}\n", w.name),
            })
            .collect();
        lines.sort();
        let parameters: u64 = weights.iter().map(|w| w.layout.elements().unwrap()).sum();
        println!("{name}: {} tensors, {parameters} parameters", lines.len());
        assert_eq!(expected["tensors"], lines.len(), "{name}");
        assert_eq!(expected["parameters"], parameters, "{name}");
        assert_eq!(expected["fnv1a"], format!("{:016x}", fnv1a(lines.concat().as_bytes())), "{name}");
    }
}

// ---- refusals ---------------------------------------------------------------------------------------------

/// The published SD 1.5 configuration of `component` with one field changed.
fn changed(component: &str, field: &str, value: &Value) -> Value {
    let mut config = json_file("real.json")[component]["config"].clone();
    config[field] = value.clone();
    config
}

fn read(component: &str, config: &Value) -> browser_diffusion::Result<()> {
    match component.split_once('/').unwrap() {
        (_, "unet") => unet::Config::from_config(config).map(drop),
        (_, "controlnet") => controlnet::Config::from_config(config).map(drop),
        ("taesd", _) => taesd::Config::from_config(config).map(drop),
        (_, "vae") => vae::Config::from_config(config).map(drop),
        _ => clip::Config::from_config(config).map(drop),
    }
}

const COMPONENTS: [&str; 5] = ["sd15/unet", "sd15/controlnet", "sd15/vae", "sd15/text_encoder", "taesd/vae"];

/// Fields of configurations, each with a value that this engine does not compute.
fn not_computed() -> Vec<(&'static str, &'static str, Value)> {
    let [unet, control, vae, text, taesd] = COMPONENTS;
    vec![
        (unet, "_class_name", json!("UNet3DConditionModel")),
        (unet, "center_input_sample", json!(true)),
        (
            unet,
            "down_block_types",
            json!(["SimpleCrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"]),
        ),
        (unet, "down_block_types", json!(["DownBlock2D"])),
        (unet, "down_block_types", json!("DownBlock2D")),
        (unet, "mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
        (unet, "mid_block_type", json!(3)),
        (unet, "up_block_types", json!(["AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"])),
        (unet, "only_cross_attention", json!([true])),
        (unet, "block_out_channels", json!([])),
        (unet, "block_out_channels", json!([320, -1, 1280, 1280])),
        (unet, "block_out_channels", json!([320, 640, 1280, 4_000_000_000u64])),
        (unet, "layers_per_block", json!(0)),
        (unet, "layers_per_block", json!([2, 2, 2])),
        (unet, "downsample_padding", json!(0)),
        (unet, "mid_block_scale_factor", json!(1.414)),
        (unet, "act_fn", json!("mish")),
        (unet, "norm_num_groups", Value::Null),
        (unet, "norm_num_groups", json!(7)),
        (unet, "norm_eps", json!("small")),
        (unet, "cross_attention_dim", json!([768, 768, 768, 1024])),
        (unet, "transformer_layers_per_block", json!([1, 1, 1, [1, 1]])),
        (unet, "transformer_layers_per_block", json!(-1)),
        (unet, "reverse_transformer_layers_per_block", json!(2)),
        (unet, "reverse_transformer_layers_per_block", json!([1, 1])),
        (unet, "encoder_hid_dim", json!(4096)),
        (unet, "encoder_hid_dim_type", json!("text_image_proj")),
        (unet, "attention_head_dim", Value::Null),
        (unet, "attention_head_dim", json!(7)),
        (unet, "attention_head_dim", json!(160)),
        (unet, "num_attention_heads", json!(8)),
        (unet, "dual_cross_attention", json!(true)),
        (unet, "class_embed_type", json!("timestep")),
        (unet, "num_class_embeds", json!(1000)),
        (unet, "addition_embed_type", json!("text")),
        (unet, "resnet_time_scale_shift", json!("scale_shift")),
        (unet, "time_embedding_type", json!("fourier")),
        (unet, "time_embedding_act_fn", json!("silu")),
        (unet, "timestep_post_act", json!("silu")),
        (unet, "conv_in_kernel", json!(5)),
        (unet, "conv_out_kernel", json!(7)),
        (unet, "attention_type", json!("gated")),
        (unet, "class_embeddings_concat", json!(true)),
        (unet, "sample_size", json!([64])),
        (control, "_class_name", json!("ControlNetUnionModel")),
        (control, "mid_block_type", Value::Null),
        (control, "mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
        (control, "num_attention_heads", json!(7)),
        (control, "attention_head_dim", json!(7)),
        (control, "down_block_types", json!(["DownBlock2D"])),
        (control, "encoder_hid_dim", json!(4096)),
        (control, "class_embed_type", json!("timestep")),
        (control, "addition_embed_type", json!("text")),
        (control, "controlnet_conditioning_channel_order", json!("gbr")),
        (control, "conditioning_embedding_out_channels", Value::Null),
        (control, "conditioning_channels", json!(0)),
        (vae, "_class_name", json!("AutoencoderKLTemporalDecoder")),
        (vae, "down_block_types", json!(vec!["AttnDownEncoderBlock2D"; 4])),
        (vae, "up_block_types", json!(vec!["UpDecoderBlock2D"; 3])),
        (vae, "act_fn", json!("relu")),
        (vae, "latents_mean", json!([0.0, 0.0, 0.0, 0.0])),
        (vae, "latents_std", json!([1.0, 1.0, 1.0, 1.0])),
        (vae, "shift_factor", json!(0.1159)),
        (vae, "norm_num_groups", json!(48)),
        (vae, "block_out_channels", json!([128, 256, 512, 2048])),
        (vae, "use_quant_conv", json!("yes")),
        (taesd, "_class_name", json!("AutoencoderDC")),
        (taesd, "act_fn", json!("gelu")),
        (taesd, "upsample_fn", json!("bilinear")),
        (taesd, "upsampling_scaling_factor", json!(4)),
        (taesd, "shift_factor", json!(0.5)),
        (taesd, "decoder_block_out_channels", json!([64, 64, 64])),
        (taesd, "decoder_block_out_channels", json!([64, 64, 64, 32])),
        (text, "model_type", json!("t5")),
        (text, "architectures", json!(["RobertaSeriesModelWithTransformation"])),
        (text, "hidden_act", json!("gelu_new")),
        (text, "num_attention_heads", json!(7)),
        (text, "hidden_size", json!(1e9)),
        (text, "use_attention_mask", json!(true)),
        (text, "eos_token_id", json!([1, 2])),
    ]
}

#[test]
fn fields_that_are_not_computed_are_refused_by_name_and_value() {
    for (component, field, value) in not_computed() {
        let error = read(component, &changed(component, field, &value))
            .expect_err(&format!("{component}: {field} = {value} was taken"));
        assert_eq!(error.code, Code::UnsupportedModel, "{field}");
        let named = field == "_class_name" || error.message.contains(field);
        let shown = error.message.contains(&value.to_string());
        // Where two fields disagree the message may name the other one, of the same family.
        assert!(
            named || error.message.contains("transformer_layers_per_block"),
            "{field}: {}",
            error.message
        );
        assert!(shown || error.message.contains("null"), "{field} = {value}: {}", error.message);
    }
    for not_an_object in [json!(null), json!([]), json!("unet")] {
        for component in COMPONENTS {
            assert_eq!(read(component, &not_an_object).unwrap_err().code, Code::UnsupportedModel);
        }
    }
}

#[test]
fn fields_that_change_nothing_here_are_taken() {
    for (component, field, value) in [
        ("sd15/unet", "upcast_attention", json!(true)),
        ("sd15/unet", "use_linear_projection", json!(true)),
        ("sd15/unet", "dropout", json!(0.1)),
        ("sd15/unet", "resnet_out_scale_factor", json!(2.0)),
        ("sd15/unet", "cross_attention_norm", json!("layer_norm")),
        ("sd15/unet", "act_fn", json!("SiLU")),
        ("sd15/unet", "dual_cross_attention", Value::Null),
        ("sd15/unet", "mid_block_type", Value::Null),
        ("sd15/unet", "sample_size", json!([96, 64])),
        ("sd15/unet", "a_field_from_the_future", json!({"a": 1})),
        ("sd15/controlnet", "num_attention_heads", json!(8)),
        ("sd15/controlnet", "global_pool_conditions", json!(true)),
        ("sd15/controlnet", "conditioning_embedding_out_channels", json!([16, 32])),
        ("sd15/vae", "shift_factor", Value::Null),
        ("sd15/vae", "shift_factor", json!(0)),
        ("sd15/vae", "sample_size", json!(1024)),
        ("taesd/vae", "latent_magnitude", json!(3)),
        ("sd15/text_encoder", "initializer_factor", json!(1.0)),
        ("sd15/text_encoder", "architectures", Value::Null),
    ] {
        let result = read(component, &changed(component, field, &value));
        assert!(result.is_ok(), "{component}: {field} = {value}: {result:?}");
    }
}

#[test]
fn parts_of_different_models_are_refused() {
    let real = json_file("real.json");
    let config = unet::Config::from_config(&real["sdxl/unet"]["config"]).unwrap();
    let forward = |channels, t, text, added: Option<(u32, u32)>| {
        let r = &mut Recorder::new(&Options::default());
        let inputs = unet::Inputs {
            sample: r.input(1, 8, 8, channels),
            t_emb: r.input(1, 1, 1, t),
            encoder_hidden_states: r.input(1, 1, 77, text),
            added: added.map(|(text_embeds, time_ids)| unet::AddedCond {
                text_embeds: r.input(1, 1, 1, text_embeds),
                time_ids: r.input(1, 1, 1, time_ids),
            }),
            timestep_cond: None,
            features: Vec::new(),
        };
        unet::forward(&config, r, &inputs, &[]).map(drop)
    };
    forward(4, 320, 2048, Some((1280, 1536))).unwrap();
    for (field, result) in [
        ("in_channels", forward(9, 320, 2048, Some((1280, 1536)))),
        ("time_proj_dim", forward(4, 256, 2048, Some((1280, 1536)))),
        ("cross_attention_dim", forward(4, 320, 768, Some((1280, 1536)))),
        ("projection_class_embeddings_input_dim", forward(4, 320, 2048, Some((768, 1536)))),
        ("text_time", forward(4, 320, 2048, None)),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.code, Code::UnsupportedModel);
        assert!(error.message.contains(field), "{field}: {}", error.message);
    }

    let config = clip::Config::from_config(&real["sd15/text_encoder"]["config"]).unwrap();
    let r = &mut Recorder::new(&Options::default());
    let (ids, long) = (r.input_u32(1, 77), r.input_u32(1, 78));
    assert_eq!(clip::hidden_states(&config, r, ids, None, 13).unwrap_err().code, Code::InvalidOption);
    assert_eq!(clip::hidden_states(&config, r, long, None, 12).unwrap_err().code, Code::InvalidOption);
    let states = clip::hidden_states(&config, r, ids, None, 11).unwrap();
    assert_eq!(states.len(), 12);
    assert_eq!(clip::text_embeds(&config, r, states[0]).unwrap_err().code, Code::UnsupportedModel);
}
