//! The prompt language on the embedded model: what must draw the same, and what must not.

use browser_diffusion::Code;
use browser_diffusion::checkpoint::Header;
use browser_diffusion::pipeline::{DiffusionPipeline, GenerateOptions, LoadOptions, Lora, Output};
use browser_diffusion::prompt::Syntax;
use browser_diffusion::store::disk::Folder;
use pollster::block_on;
use std::rc::Rc;

fn latents(pipeline: &DiffusionPipeline, prompt: &str, prompt_syntax: Syntax, clip_skip: u32) -> Vec<f32> {
    let options = GenerateOptions {
        prompt: prompt.into(),
        prompt_syntax,
        clip_skip,
        width: Some(64),
        height: Some(64),
        num_inference_steps: Some(3),
        guidance_scale: Some(3.0),
        seed: 7,
        loras: vec![Lora { key: "zeros".into(), name: "x".into(), scale: 0.5 }],
        output: Output::Latent,
        ..Default::default()
    };
    block_on(pipeline.generate(&options, &mut |_| Ok(()), &|| false)).unwrap().latents.remove(0)
}

/// A LoRA of zeros, for one layer of the embedded model.
fn zeros() -> Vec<u8> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded");
    let unet = std::fs::read(format!("{root}/unet/diffusion_pytorch_model.safetensors")).unwrap();
    let len = Header::json_len(unet[..8].try_into().unwrap()).unwrap();
    let header = Header::parse(&unet[8..8 + len]).unwrap();
    let conv = "up_blocks.0.resnets.0.conv1.weight";
    let shape = &header.tensors.iter().find(|t| t.name == conv).unwrap().shape;
    let (down, up) = (36 * shape[1], 4 * shape[0]);
    let name = "lora_unet_up_blocks_0_resnets_0_conv1";
    let header = serde_json::json!({
        format!("{name}.lora_down.weight"):
            { "dtype": "F32", "shape": [1, shape[1], 3, 3], "data_offsets": [0, down] },
        format!("{name}.lora_up.weight"):
            { "dtype": "F32", "shape": [shape[0], 1, 1, 1], "data_offsets": [down, down + up] },
    })
    .to_string();
    let zeros = vec![0; (down + up) as usize];
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &zeros].concat()
}

fn relative(a: &[f32], b: &[f32]) -> f32 {
    let sum = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
    sum(&mut a.iter().zip(b).map(|(a, b)| a - b)) / sum(&mut b.iter().copied())
}

#[test]
fn syntax_draws_what_it_says() {
    let folder = Rc::new(Folder::new(concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded")));
    let pipeline =
        block_on(DiffusionPipeline::load(folder, None, &LoadOptions::default(), &|| false)).unwrap();
    // A LoRA that changes nothing, called x.
    block_on(pipeline.load_lora("zeros", &zeros().as_slice())).unwrap();
    let a1111 = |prompt: &str| latents(&pipeline, prompt, Syntax::A1111, 0);
    let cat = latents(&pipeline, "a cat", Syntax::Plain, 0);
    let dog = latents(&pipeline, "a dog", Syntax::Plain, 0);
    assert!(relative(&cat, &dog) > 0.05);
    // Without syntax, with none that has an effect, from the first step on, and at every step: to the bit.
    for same in ["a cat", "(a cat:1.0)", "a [dog:cat:0]", "[a cat|a cat]", "a cat<lora:x:1>"] {
        assert_eq!(a1111(same), cat, "{same}");
    }
    let changed = a1111("a [dog:cat:1]");
    assert!(relative(&changed, &cat) > 1e-4 && relative(&changed, &dog) > 1e-4);
    // uncond + 0.5 cfg (cond - uncond) twice is once with weight 1, up to rounding in f32 and f16.
    assert!(relative(&a1111("a cat :0.5 AND a cat :0.5"), &cat) < 1e-2);
    assert_eq!(a1111("a cat AND a dog :0"), a1111("a cat AND a castle :0"));
    for other in ["(a cat:1.4)", "a cat AND a dog", "[a cat|a dog]", "a cat BREAK a dog"] {
        assert!(relative(&a1111(other), &cat) > 1e-3, "{other}");
    }
    assert!(relative(&latents(&pipeline, "(a cat:1.4)", Syntax::Comfy, 0), &a1111("(a cat:1.4)")) > 1e-4);
    assert!(relative(&latents(&pipeline, "a cat", Syntax::Plain, 1), &cat) > 1e-3);
    // Literal brackets, as diffusers reads them.
    assert!(relative(&latents(&pipeline, "(a cat:1.0)", Syntax::Plain, 0), &cat) > 1e-3);
    // Two windows; plain cuts at one.
    let long = "a red cat on a green field, ".repeat(12);
    assert!(relative(&a1111(&long), &latents(&pipeline, &long, Syntax::Plain, 0)) > 1e-3);
}

#[test]
fn tags_say_how_strong_a_lora_is() {
    let folder = Rc::new(Folder::new(concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded")));
    let pipeline =
        block_on(DiffusionPipeline::load(folder, None, &LoadOptions::default(), &|| false)).unwrap();
    block_on(pipeline.load_lora("zeros", &zeros().as_slice())).unwrap();
    let draw = |prompt: &str, prompt_syntax: Syntax| {
        let options = GenerateOptions {
            prompt: prompt.into(),
            prompt_syntax,
            width: Some(64),
            height: Some(64),
            num_inference_steps: Some(1),
            loras: vec![Lora { key: "zeros".into(), name: "x".into(), scale: 1.0 }],
            output: Output::Latent,
            ..Default::default()
        };
        block_on(pipeline.generate(&options, &mut |_| Ok(()), &|| false))
    };
    for (prompt, says) in [
        (
            "a cat <lora:y:1>",
            "loras has none for <lora:y:1> in the prompt; give { source } of a file called y",
        ),
        ("a cat <lora:x:much>", "<lora:x:much> in the prompt has no number as its weight"),
        ("a cat <lora:x:inf>", "<lora:x:inf> in the prompt has no number as its weight"),
    ] {
        let refused = draw(prompt, Syntax::A1111).unwrap_err();
        assert_eq!(refused.code, Code::InvalidOption);
        assert!(refused.message.contains(says), "{}", refused.message);
        assert!(draw(prompt, Syntax::Plain).is_ok(), "plain text: {prompt}");
    }
    for prompt in ["a cat <lora:x>", "a cat <lora:x:>", "a cat <lora:x:-0.5>", "a cat <hypernet:y:1>"] {
        assert!(draw(prompt, Syntax::Comfy).is_ok(), "{prompt}");
    }
}

/// Held out of its training (training/train_text_zh.py): each is nearest to what its English draws from the same noise.
#[test]
fn the_embedded_model_reads_chinese() {
    let folder = Rc::new(Folder::new(concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded")));
    let pipeline =
        block_on(DiffusionPipeline::load(folder, None, &LoadOptions::default(), &|| false)).unwrap();
    let draw = |prompt: &str| {
        let options = GenerateOptions {
            prompt: prompt.into(),
            num_inference_steps: Some(5),
            guidance_scale: Some(3.0),
            seed: 7,
            output: Output::Latent,
            ..Default::default()
        };
        block_on(pipeline.generate(&options, &mut |_| Ok(()), &|| false)).unwrap().latents.remove(0)
    };
    let (chinese, english): (Vec<_>, Vec<_>) = [
        ("一只猫", "a cat"),
        ("一只狗", "a dog"),
        ("一枚火箭", "a rocket"),
        ("一把紫色的吉他", "a purple guitar"),
        ("蓝色背景上的一棵树", "a tree on a blue background"),
    ]
    .map(|(chinese, english)| (draw(chinese), draw(english)))
    .into_iter()
    .unzip();
    for (i, picture) in chinese.iter().enumerate() {
        let off: Vec<f32> = english.iter().map(|other| relative(picture, other)).collect();
        println!("{i}: {off:.2?}");
        assert!((0..off.len()).all(|k| k == i || off[i] < off[k]), "{i}: {off:?}");
    }
}
