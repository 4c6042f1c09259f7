//! ControlNet-LLLites: kohya's layers of the published UNets find their places, and broken files are refused by name. What they
//! draw is compared in `tests/web/tests/lllite.test.mjs`.

#[path = "support/random_weights.rs"]
mod random_weights;
#[path = "support/tiny_model.rs"]
mod tiny_model;
#[path = "support/unet_plan.rs"]
mod unet_plan;

use browser_diffusion::Code;
use browser_diffusion::checkpoint::Bits;
use browser_diffusion::checkpoint::lora::Names;
use browser_diffusion::gpu::{Dtype, LlliteParts, Options, Plan, Recorder};
use browser_diffusion::models::lllite::Config;
use browser_diffusion::models::unet;
use browser_diffusion::pipeline::{Control, DiffusionPipeline, GenerateOptions, LoadOptions, Picture};
use browser_diffusion::store::disk::Folder;
use pollster::block_on;
use serde_json::{Map, Value, json};
use std::rc::Rc;
use tiny_model::{Part, draw, lllite, read_json, single, tiny, written};

/// kohya's default: queries, keys and values of the first attention, queries of the second, on the way down and in the middle,
/// 32 channels of the picture, 64 within. By the original code's names, with the width of each block's transformers, how many
/// there are and the convolutions' sides.
fn of_kohya(blocks: &[(&str, u32, u32, &[u32])]) -> Value {
    let mut modules = Map::new();
    for (block, width, depth, sides) in blocks {
        for (i, layer) in (0..*depth)
            .flat_map(|i| ["attn1_to_q", "attn1_to_k", "attn1_to_v", "attn2_to_q"].map(|layer| (i, layer)))
        {
            let mut shapes = Map::new();
            let mut channels = 3;
            for (j, &side) in sides.iter().enumerate() {
                let out = if j + 1 == sides.len() { 32 } else { 16 };
                shapes.insert(format!("conditioning1.{}", 2 * j), json!([out, channels, side, side]));
                channels = out;
            }
            shapes.insert("down.0".into(), json!([64, width]));
            shapes.insert("mid.0".into(), json!([64, 96]));
            shapes.insert("up.0".into(), json!([width, 64]));
            modules.insert(format!("lllite_unet_{block}_1_transformer_blocks_{i}_{layer}"), shapes.into());
        }
    }
    json!({ "_class_name": "ControlNetLLLite", "modules": modules })
}

/// A batch of two over 64x64 latents, with a ControlNet-LLLite or without.
fn plan(unet: &Value, lllite: Option<&Value>) -> Plan {
    let plain = unet_plan::unet(unet, &Options::default(), 2, 64, 64);
    let Some(lllite) = lllite else { return plain };
    let names = Names::new(plain.weights().iter().map(|spec| (0, spec.name.as_str())));
    let lllite = Config::from_config(lllite, &names, 8).unwrap();
    assert_eq!(lllite.unit(), 32);
    let config = unet::Config::from_config(unet).unwrap();
    let mut r = Recorder::new(&Options::default());
    let inputs = unet::unet_inputs(&config, &mut r, 2, 64, 64, 77);
    let scales = r.input_of(Dtype::F32, 1, 1, 1, 1);
    let seen = lllite.inputs(&mut r, 2, [64, 64]);
    let mut parts = LlliteParts::new();
    lllite.act(0, &seen, scales, &mut parts);
    r.lllites = Rc::new(parts);
    let out = unet::forward(&config, &mut r, &inputs, &[]).unwrap();
    r.output(out);
    let plan = r.finish();
    lllite.check_asked(plan.weights()).unwrap();
    plan
}

#[test]
fn layers_of_published_unets_find_their_places() {
    let real = read_json("models/real.json");
    let [one, two, three]: [&[u32]; 3] = [&[4, 2], &[4, 4], &[4, 4, 2]];
    let sd1 = [
        ("input_blocks_1", 320, 1, one),
        ("input_blocks_2", 320, 1, one),
        ("input_blocks_4", 640, 1, two),
        ("input_blocks_5", 640, 1, two),
        ("input_blocks_7", 1280, 1, three),
        ("input_blocks_8", 1280, 1, three),
    ];
    let sdxl = [
        ("input_blocks_4", 640, 2, two),
        ("input_blocks_5", 640, 2, two),
        ("input_blocks_7", 1280, 10, three),
        ("input_blocks_8", 1280, 10, three),
        ("middle_block", 1280, 10, three),
    ];
    for (name, blocks, count) in [("sd15/unet", &sd1[..], 24), ("sdxl/unet", &sdxl[..], 136)] {
        let unet = &real[name]["config"];
        let file = of_kohya(blocks);
        assert_eq!(file["modules"].as_object().unwrap().len(), count);
        let (without, with) = (plan(unet, None), plan(unet, Some(&file)));
        let flops = |plan: &Plan| plan.dispatches().iter().map(|d| d.flops).sum::<u64>() as f64;
        let more = with.dispatches().len() - without.dispatches().len();
        println!(
            "{name}: {count} modules, {more} dispatches more, {:.1} % more arithmetic, activations {:.0} and {:.0} MB",
            100.0 * (flops(&with) / flops(&without) - 1.0),
            without.peak_bytes() as f64 / 1e6,
            with.peak_bytes() as f64 / 1e6
        );
        // Of each: two products that narrow, one that widens, and a sum; three layers in the place of one, and a norm by
        // itself before either attention.
        let attentions = count / 4;
        assert_eq!(more, 4 * count + attentions * (2 + 2));
        assert!(flops(&with) < 1.1 * flops(&without));
    }
}

#[test]
fn broken_files_are_refused_by_name_and_the_model_draws_on() {
    let folder = std::env::temp_dir().join(format!("browser-diffusion-lllite-{}", std::process::id()));
    tiny(&folder);
    let never = || false;
    let whole = lllite();
    let module = whole[0].name.split_once('.').unwrap().0.to_owned();
    let named = |layer: &str| format!("{module}.{layer}");
    let with = |name: &str, change: &dyn Fn(&mut Part)| {
        let mut parts = whole.clone();
        parts.iter_mut().filter(|part| part.name == name).for_each(change);
        parts
    };
    let without = |name: &str| whole.iter().filter(|part| part.name != name).cloned().collect::<Vec<_>>();
    let renamed = |to: &str| {
        let mut parts = whole.clone();
        parts.iter_mut().for_each(|part| part.name = part.name.replace(&module, to));
        parts
    };
    let nan = |part: &mut Part| part.data[6..8].copy_from_slice(&[0, 0x7e]);
    let infinite = |part: &mut Part| part.data[6..8].copy_from_slice(&[0, 0x7c]);
    let turned = |part: &mut Part| part.shape.reverse();
    let mut twice = whole.clone();
    let diffusers = "lllite_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q";
    twice.extend(renamed(diffusers).into_iter().filter(|part| part.name.starts_with(diffusers)));
    let broken = [
        (with(&named("up.0.weight"), &nan), Code::BadCheckpoint, named("up.0.weight")),
        (with(&named("mid.0.bias"), &infinite), Code::BadCheckpoint, named("mid.0.bias")),
        (with(&named("down.0.weight"), &turned), Code::BadCheckpoint, named("mid.0.weight")),
        (without(&named("conditioning1.0.weight")), Code::BadCheckpoint, named("conditioning1.0.weight")),
        (without(&named("conditioning1.0.bias")), Code::BadCheckpoint, named("conditioning1.0.bias")),
        (without(&named("down.0.weight")), Code::BadCheckpoint, named("down.0.weight")),
        (without(&named("up.0.bias")), Code::BadCheckpoint, named("up.0.bias")),
        (twice, Code::BadCheckpoint, "attn1.to_q twice".to_owned()),
        (
            renamed("lllite_unet_input_blocks_11_1_proj_in"),
            Code::UnsupportedModel,
            "lllite_unet_input_blocks_11_1_proj_in.down.0.weight".to_owned(),
        ),
        (
            renamed("lllite_unet_input_blocks_1_0_emb_layers_1"),
            Code::UnsupportedModel,
            "lllite_unet_input_blocks_1_0_emb_layers_1.down.0.weight".to_owned(),
        ),
        (
            renamed(&module.replace("attn1_to_q", "attn2_to_k")),
            Code::UnsupportedModel,
            format!("{}.down.0.weight", module.replace("attn1_to_q", "attn2_to_k")),
        ),
    ];
    for weights in [None, Some(Bits::Q8), Some(Bits::Q4)] {
        let options = LoadOptions { weights, ..Default::default() };
        let files = Rc::new(Folder::new(&folder));
        let model = block_on(DiffusionPipeline::load(files, None, &options, &never)).unwrap();
        let drawn = |parts: &[Part], scale: f32| {
            block_on(model.load_controlnet("net", single(&written(parts))?, &never))?;
            let image = Picture { width: 32, height: 32, data: vec![99; 4 * 32 * 32] };
            let control = Control { key: "net".into(), image, scale, ..Default::default() };
            let drawn = draw(&model, GenerateOptions { controlnets: vec![control], ..Default::default() });
            model.keep_controlnets(&[]);
            drawn
        };
        let before = draw(&model, GenerateOptions::default()).unwrap();
        for (parts, code, says) in &broken {
            let Err(error) = drawn(parts, 1.0) else { panic!("{says} was taken") };
            assert_eq!(error.code, *code, "{says}: {}", error.message);
            assert!(error.message.contains(says), "{says}: {}", error.message);
        }
        assert_ne!(drawn(&whole, 1.0).unwrap(), before);
        assert_eq!(draw(&model, GenerateOptions::default()).unwrap(), before);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
