//! What lies on the GPU, and what the picture loses by saving it: quantised weights, one stage at a time, tiles.

use browser_diffusion::checkpoint::Bits;
use browser_diffusion::gpu::{Dtype, Options, Recorder, WeightSpec};
use browser_diffusion::models::{unet, vae};
use browser_diffusion::pipeline::{DiffusionPipeline, GenerateOptions, Generated, LoadOptions, Memory};
use browser_diffusion::store::disk::Folder;
use pollster::block_on;
use serde_json::Value;
use std::rc::Rc;

// ---- the model that ships with the page -------------------------------------------------------------------

fn load(weights: Option<Bits>, memory: Memory) -> DiffusionPipeline {
    let folder = Rc::new(Folder::new(concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded")));
    let options = LoadOptions { weights, memory, ..Default::default() };
    block_on(DiffusionPipeline::load(folder, &options, &|| false)).unwrap()
}

fn draw(pipeline: &DiffusionPipeline, prompt: &str) -> Generated {
    let options = GenerateOptions {
        prompt: prompt.into(),
        width: 128,
        height: 128,
        num_inference_steps: 20,
        guidance_scale: 3.0,
        seed: 7,
        num_images: 1,
        decode: true,
        ..Default::default()
    };
    block_on(pipeline.generate(&options, &mut |_| Ok(()), &|| false)).unwrap()
}

/// ||a - b|| / ||b||.
fn relative(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let off: f64 = a.iter().zip(b).map(|(&a, &b)| square(a as f64 - b as f64)).sum();
    (off / b.iter().map(|&b| square(b as f64)).sum::<f64>()).sqrt()
}

#[test]
fn low_memory_draws_the_same_with_one_stage_at_a_time() {
    let resident = load(None, Memory::Resident);
    let whole = resident.gpu().bytes();
    let wanted = draw(&resident, "a red apple");
    let low = load(None, Memory::Low);
    let loaded = low.gpu().bytes();
    assert!(loaded.weights < whole.weights / 2 + whole.weights / 4, "{loaded:?} of {whole:?}");
    // Twice, so that every stage leaves and comes back.
    for _ in 0..2 {
        let got = draw(&low, "a red apple");
        assert_eq!(got.latents, wanted.latents);
        assert_eq!(got.pictures, wanted.pictures);
    }
    let (peak, all) = (low.gpu().bytes().peak, resident.gpu().bytes().peak);
    println!("embedded model, peak: {all} bytes resident, {peak} low");
    assert!(peak < all);
}

#[test]
fn quantised_weights_draw_nearly_the_same() {
    let wanted = draw(&load(None, Memory::Resident), "a red apple");
    for (bits, most) in [(Bits::Q8, 2e-2), (Bits::Q4, 3e-1)] {
        let pipeline = load(Some(bits), Memory::Resident);
        let got = draw(&pipeline, "a red apple");
        let error = relative(&got.latents[0], &wanted.latents[0]);
        println!("{bits:?}: latents {error:.1e}, {} bytes of weights", pipeline.gpu().bytes().weights);
        assert!(error <= most, "{bits:?}: {error}");
    }
}

// ---- published models, by their shapes --------------------------------------------------------------------

fn real(name: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/data/models/real.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all[name]["config"].clone()
}

/// Bytes of the UNet's weights and activations.
fn unet_bytes(name: &str, weights: Option<Bits>, batch: u32, side: u32) -> u64 {
    let config = unet::Config::from_config(&real(name)).unwrap();
    let mut r = Recorder::new(&Options { weights, ..Options::default() });
    let sample = r.input(batch, side, side, config.in_channels);
    let t_emb = r.input(batch, 1, 1, config.time_proj_dim);
    let text = r.input(batch, 1, 77, config.cross_attention_dim);
    let added = config.text_time.map(|t| {
        let time = 6 * t.addition_time_embed_dim;
        let text_embeds = r.input(batch, 1, 1, t.projection_class_embeddings_input_dim - time);
        unet::AddedCond { text_embeds, time_ids: r.input(batch, 1, 1, time) }
    });
    let out = unet::forward(&config, &mut r, sample, t_emb, text, added, None).unwrap();
    r.output(out);
    let plan = r.finish();
    plan.weights().iter().map(WeightSpec::bytes).sum::<u64>() + plan.peak_bytes()
}

/// The UNet's stage is the largest where one is kept at a time; the limits, guidance included.
#[test]
fn real_unets_fit_where_memory_is_low() {
    for (name, weights, side, most) in [
        ("sd15/unet", None, 64, 2_000_000_000),
        ("sd15/unet", Some(Bits::Q8), 64, 1_300_000_000),
        ("sd15/unet", Some(Bits::Q4), 64, 900_000_000),
        ("sdxl/unet", Some(Bits::Q4), 128, 3_200_000_000),
    ] {
        let bytes = unet_bytes(name, weights, 2, side);
        println!("{name} {weights:?}: {:.0} MB", bytes as f64 / 1e6);
        assert!(bytes <= most, "{name} {weights:?}: {bytes}");
    }
}

#[test]
fn peaks() {
    for (name, side, f) in
        [("sd15/vae", 64, 0), ("sd15/vae", 32, 0), ("sdxl/vae", 64, 1), ("sdxl/vae", 128, 1)]
    {
        let config = vae::Config::from_config(&real(name)).unwrap();
        let mut o = Options::default();
        if f == 1 {
            o.activations = Dtype::F32;
        }
        let mut r = Recorder::new(&o);
        let l = r.input(1, side, side, 4);
        let out = vae::decode(&config, &mut r, l).unwrap();
        r.output(out);
        let plan = r.finish();
        println!(
            "{name} decode {side}: {} MB, {} dispatches",
            plan.peak_bytes() as f64 / 1e6,
            plan.dispatches().len()
        );
    }
}
