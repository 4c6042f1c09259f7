//! LoRAs: every format against PEFT's merge (`tests/reference/lora.py`), or its rule in f64
//! (`lora_kinds.py`), and in and out of the embedded model.

#[path = "support/safetensors.rs"]
mod safetensors;

use browser_diffusion::Code;
use browser_diffusion::checkpoint::alphas::Alphas;
use browser_diffusion::checkpoint::lora::{Adapter, Factor, Names, Values};
use browser_diffusion::checkpoint::{Header, Layout, Table};
use browser_diffusion::gpu::{Dtype, Gpu, GpuOptions, Options, Recorder, WeightSpec, Weights};
use browser_diffusion::ops::{self, Conv, Epilogue};
use browser_diffusion::pipeline::{DiffusionPipeline, GenerateOptions, Generated, LoadOptions, Lora, Output};
use browser_diffusion::store::disk::Folder;
use pollster::block_on;
use safetensors::file;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Four rows of 0.5 before those of LINEAR in its stack, so that these begin where nothing can be bound.
const NEIGHBOUR: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k";
const LINEAR: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
const CONV: &str = "down_blocks.0.resnets.0.conv1";

fn bytes(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/reference/data/lora/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

fn read(name: &str) -> Vec<(String, Values)> {
    let bytes = bytes(name);
    let file = bytes.as_slice();
    let table = block_on(Table::open(&file)).unwrap();
    let values = |t| block_on(table.values(&file, t)).unwrap();
    table.tensors.iter().map(|t| (t.name.clone(), (t.shape.clone(), values(t)))).collect()
}

fn get<'a>(file: &'a [(String, Values)], name: &str) -> &'a [f32] {
    &file.iter().find(|(n, _)| n == name).unwrap().1.1
}

/// The weights as they lie on the GPU: what a linear layer makes of unit vectors, a convolution of unit pixels.
fn on_gpu(gpu: &Gpu, weights: &Weights) -> [Vec<f32>; 2] {
    let mut r = Recorder::new(&Options { activations: Dtype::F32, ..Options::default() });
    let x = r.input(1, 1, 20, 20);
    let y = ops::linear_stack_no_bias(&mut r, x, &[(NEIGHBOUR, 4), (LINEAR, 24)]).unwrap()[0].tensor;
    r.output(y);
    let pictures = r.input(12, 3, 3, 12);
    let z = ops::conv2d(&mut r, pictures, CONV, 16, Conv { bias: false, ..Conv::k3() }, Epilogue::default())
        .unwrap();
    r.output(z);
    let run = r.finish().instantiate(gpu, weights).unwrap();
    let unit: Vec<f32> = (0..400).map(|i| if i % 21 == 0 { 1.0 } else { 0.0 }).collect();
    run.write(gpu, x, &unit).unwrap();
    // [picture][3][3][channel]: picture i has a one in the middle of channel i.
    let middle = |i: usize| i / 12 % 9 == 4 && i % 12 == i / 108;
    let pixels: Vec<f32> = (0..12 * 9 * 12).map(|i| if middle(i) { 1.0 } else { 0.0 }).collect();
    run.write(gpu, pictures, &pixels).unwrap();
    run.run(gpu);
    let (y, z) = (block_on(run.read(gpu, y)).unwrap(), block_on(run.read(gpu, z)).unwrap());
    assert!(y.chunks(28).all(|row| row[..4] == [0.5; 4]), "the neighbour was changed");
    let linear = (0..24 * 20).map(|i| y[i % 20 * 28 + 4 + i / 20]).collect();
    // Tap t answers at position 8 - t.
    let conv = (0..16 * 12 * 9).map(|i| z[(i / 9 % 12 * 9 + 8 - i % 9) * 16 + i / 108]).collect();
    [linear, conv]
}

#[test]
fn every_format_merges_as_peft_does() {
    let gpu = block_on(Gpu::new(&GpuOptions::default())).unwrap();
    let shapes = [(LINEAR, [24, 20, 1]), (CONV, [16, 12, 9])];
    let names = shapes.map(|(module, _)| format!("{module}.weight"));
    let spec = |name: &str, [rows, inner, taps]: [usize; 3]| WeightSpec {
        name: name.to_owned(),
        layout: Layout::Matrix { rows, inner, taps },
        follows: name == names[0],
    };
    let neighbour = format!("{NEIGHBOUR}.weight");
    let mut specs = vec![spec(&neighbour, [4, 20, 1])];
    specs.extend(shapes.iter().zip(&names).map(|((_, shape), name)| spec(name, *shape)));
    let weights = Weights::allocate(&gpu, &specs);
    weights.upload(&gpu, &neighbour, &[0.5; 80]).unwrap();
    let base = read("base");
    for ((module, _), name) in shapes.iter().zip(&names) {
        weights.upload(&gpu, name, get(&base, module)).unwrap();
    }
    let before = on_gpu(&gpu, &weights);
    assert_eq!([&before[0][..], &before[1][..]], [get(&base, LINEAR), get(&base, CONV)]);
    let known = Names::new(names.iter().map(|n| (0, n.as_str())));
    // Those that are not linear in the scale at another one, too.
    let scaled = [
        ("oft", 0.7, "oft_scaled"),
        ("oft_constraint", 0.7, "oft_constraint_scaled"),
        ("boft", 0.7, "boft_scaled"),
    ];
    let formats = [
        "kohya",
        "original",
        "peft",
        "locon",
        "loha",
        "loha_core",
        "lokr",
        "lokr_parts",
        "dora",
        "dora_columns",
        "diff",
        "comfy",
        "comfy_diff",
        "alpha_metadata",
        "alpha_pattern",
        "alpha_rslora",
        "oft",
        "oft_constraint",
        "boft",
        "glora",
        "glora_old",
    ];
    for (format, scale, wanted) in formats.map(|format| (format, 1.0, format)).into_iter().chain(scaled) {
        let alphas = block_on(Alphas::read(&bytes(format).as_slice())).unwrap();
        let mut found: BTreeMap<String, BTreeMap<Factor, Values>> = BTreeMap::new();
        for (key, values) in read(format) {
            let (component, name, factor) = known.find(&key).unwrap_or_else(|| panic!("{format}: {key}"));
            assert_eq!(component, 0);
            found.entry(name.to_owned()).or_default().insert(factor, values);
        }
        for (name, mut factors) in found {
            let (module, shape) =
                shapes.iter().find(|(module, _)| name == format!("{module}.weight")).unwrap();
            if let Some(alpha) = alphas.of(0, module, 4).unwrap() {
                factors.insert(Factor::Alpha, (Vec::new(), vec![alpha]));
            }
            let adapter = Adapter::new(&name, factors, *shape).unwrap();
            let watch = ops::Watch::new(&gpu, &weights, 1).unwrap();
            ops::merge(&gpu, &weights, &name, &[(&adapter, adapter.scale * scale)], &watch).unwrap();
            block_on(watch.check(&gpu)).unwrap();
        }
        let merged = read(&format!("{wanted}.merged"));
        let ours = on_gpu(&gpu, &weights);
        let mut worst = 0f32;
        for (ours, theirs) in ours.iter().zip([get(&merged, LINEAR), get(&merged, CONV)]) {
            for (a, b) in ours.iter().zip(theirs) {
                // Half of f16's last place, and sums of some dozen f32 products.
                let allowed = b.abs() / 2048.0 + 1e-5;
                worst = worst.max((a - b).abs() / allowed);
            }
        }
        println!("{wanted}: {worst:.2} of what rounding allows");
        assert!(worst <= 1.0, "{wanted}: {worst}");
        weights.restore(&gpu);
        assert_eq!(on_gpu(&gpu, &weights), before, "{format}: not the base again");
    }
}

#[test]
fn names_of_text_encoders_and_of_older_files() {
    let q = "encoder.layers.0.self_attn.q_proj.weight";
    let out = "encoder.layers.0.self_attn.out_proj.weight";
    let to_out = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.weight";
    let names = Names::new([(0, to_out), (1, q), (1, out), (2, q)].into_iter());
    for (key, wanted) in [
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", (1, q, Factor::Down)),
        ("lora_te2_text_model_encoder_layers_0_self_attn_q_proj.alpha", (2, q, Factor::Alpha)),
        ("text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight", (2, q, Factor::Down)),
        ("text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora.up.weight", (1, out, Factor::Up)),
        (
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora.down.weight",
            (0, to_out, Factor::Down),
        ),
        (
            "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_out_0.hada_w1_a",
            (0, to_out, Factor::HadaA(1)),
        ),
    ] {
        assert_eq!(names.find(key), Some(wanted), "{key}");
    }
    assert_eq!(names.find("lora_unet_nothing.lora_down.weight"), None);
    assert_eq!(names.find(q), None);
}

fn wave(len: usize, seed: f32) -> Vec<f32> {
    (0..len).map(|i| 0.1 * (i as f32 * 1.7 + seed).sin()).collect()
}

#[test]
fn in_and_out_of_the_embedded_model() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded");
    let folder = Rc::new(Folder::new(root));
    let pipeline =
        block_on(DiffusionPipeline::load(folder, None, &LoadOptions::default(), &|| false)).unwrap();
    let unet = std::fs::read(format!("{root}/unet/diffusion_pytorch_model.safetensors")).unwrap();
    let len = Header::json_len(unet[..8].try_into().unwrap()).unwrap();
    let header = Header::parse(&unet[8..8 + len]).unwrap();
    let shape = |name: &str| header.tensors.iter().find(|t| t.name == name).unwrap().shape.clone();
    let conv = shape("up_blocks.0.resnets.0.conv1.weight");
    let (rows, inner) = (conv[0], conv[1]);
    let down = "lora_unet_up_blocks_0_resnets_0_conv1.lora_down.weight";
    let up = "lora_unet_up_blocks_0_resnets_0_conv1.lora_up.weight";
    let lora = |seed: f32| {
        file(&[
            (down, &[2, inner, 3, 3], wave((2 * inner * 9) as usize, seed)),
            (up, &[rows, 2, 1, 1], wave((rows * 2) as usize, seed + 1.0)),
            ("lora_unet_elsewhere.lora_up.weight", &[1, 1], vec![0.0]),
        ])
    };
    block_on(pipeline.load_lora("a", &lora(1.0).as_slice())).unwrap();
    block_on(pipeline.load_lora("b", &lora(2.0).as_slice())).unwrap();
    let foreign = file(&[("transformer.blocks.0.lora_A.weight", &[1, 1], vec![0.0])]);
    let error = block_on(pipeline.load_lora("c", &foreign.as_slice())).unwrap_err();
    assert_eq!(error.code, Code::UnsupportedModel);

    let draw = |loras: &[(&str, f32)]| -> Generated {
        let options = GenerateOptions {
            prompt: "a red apple".into(),
            width: Some(64),
            height: Some(64),
            num_inference_steps: Some(2),
            guidance_scale: Some(3.0),
            seed: 7,
            loras: loras
                .iter()
                .map(|(key, scale)| Lora { key: (*key).to_owned(), scale: *scale, ..Default::default() })
                .collect(),
            output: Output::Latent,
            ..Default::default()
        };
        block_on(pipeline.generate(&options, &mut |_| Ok(()), &|| false)).unwrap()
    };
    let base = draw(&[]);
    assert!(base.unmatched.is_empty());
    let uploaded = pipeline.gpu().bytes().uploaded;
    assert!(uploaded > 0);
    let strong = draw(&[("a", 0.8)]);
    let half = draw(&[("a", 0.5)]);
    assert_ne!(strong.latents, base.latents);
    assert_ne!(strong.latents, half.latents);
    let elsewhere = vec!["lora_unet_elsewhere.lora_up.weight".to_owned()];
    assert_eq!(half.unmatched, [("a".to_owned(), elsewhere)]);
    assert_eq!(draw(&[("a", 0.8)]).latents, strong.latents, "after 0.5");
    let two = draw(&[("a", 0.8), ("b", 0.5)]);
    assert_ne!(two.latents, strong.latents);
    assert_eq!(draw(&[]).latents, base.latents, "the base again");
    // Nothing of the base was written anew.
    assert_eq!(pipeline.gpu().bytes().uploaded, uploaded);
}
