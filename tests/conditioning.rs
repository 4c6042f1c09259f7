//! The prompt language on the embedded model: what must draw the same, and what must not.

use browser_diffusion::pipeline::{DiffusionPipeline, GenerateOptions, LoadOptions};
use browser_diffusion::prompt::Syntax;
use browser_diffusion::store::disk::Folder;
use pollster::block_on;
use std::rc::Rc;

fn latents(pipeline: &DiffusionPipeline, prompt: &str, prompt_syntax: Syntax, clip_skip: u32) -> Vec<f32> {
    let options = GenerateOptions {
        prompt: prompt.into(),
        prompt_syntax,
        clip_skip,
        width: 64,
        height: 64,
        num_inference_steps: 3,
        guidance_scale: 3.0,
        seed: 7,
        num_images: 1,
        ..Default::default()
    };
    block_on(pipeline.generate(&options, &mut |_| Ok(()), &|| false)).unwrap().latents.remove(0)
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
