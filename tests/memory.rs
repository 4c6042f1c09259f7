//! What lies on the GPU, and what the picture loses by saving it: quantised weights, one stage at a time, tiles.

mod plans;

use browser_diffusion::checkpoint::Bits;
use browser_diffusion::gpu::{Options, WeightSpec};
use browser_diffusion::ops::Precision;
use browser_diffusion::pipeline::tiles::{Field, tiled};
use browser_diffusion::pipeline::{DiffusionPipeline, GenerateOptions, Generated, LoadOptions, Memory};
use browser_diffusion::store::disk::Folder;
use pollster::block_on;
use serde_json::Value;
use std::rc::Rc;

// ---- the model that ships with the page -------------------------------------------------------------------

fn load(weights: Option<Bits>, memory: Memory) -> DiffusionPipeline {
    let folder = Rc::new(Folder::new(concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded")));
    let options = LoadOptions { weights, memory, ..Default::default() };
    block_on(DiffusionPipeline::load(folder, None, &options, &|| false)).unwrap()
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
    let options = Options { weights, ..Options::default() };
    let (plan, _) = plans::unet(&real(name), &options, batch, side, side);
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

// ---- tiles ------------------------------------------------------------------------------------------------

/// Cutting and blending as diffusers does, with the same stand-ins for the networks (`tests/reference/tiles.py`).
#[test]
fn tiles_are_cut_and_blended_as_diffusers_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/data/memory/tiles.json");
    let cases: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (name, tile_in, tile_out) in [("decode", 8, 16), ("encode", 16, 8)] {
        let size = |field: &str, i: usize| cases[name][field][i].as_u64().unwrap() as usize;
        let (h, w) = (size("input", 0), size("input", 1));
        let input = Field { h, w, values: (0..h * w).map(|v| v as f32).collect() };
        let mut calls = 0.0;
        let run = async |part: &Field| {
            calls += 100.0;
            let (h, w) = (part.h * tile_out / tile_in, part.w * tile_out / tile_in);
            let at = |y: usize, x: usize| {
                part.values[y * tile_in / tile_out * part.w + x * tile_in / tile_out] + calls
            };
            let values = (0..h).flat_map(|y| (0..w).map(move |x| (y, x))).map(|(y, x)| at(y, x)).collect();
            Ok(Field { h, w, values })
        };
        let out = block_on(tiled(&input, tile_in, tile_out, run)).unwrap();
        assert_eq!((out.h, out.w), (size("output", 0), size("output", 1)), "{name}");
        let wanted = cases[name]["values"].as_array().unwrap();
        for (i, (got, wanted)) in out.values.iter().zip(wanted).enumerate() {
            // Three roundings of f32 at values up to 2,000.
            assert!((*got as f64 - wanted.as_f64().unwrap()).abs() < 1e-3, "{name} {i}: {got} {wanted}");
        }
        assert_eq!(out.values.len(), wanted.len());
    }
}

// ---- overflow ---------------------------------------------------------------------------------------------

/// The embedded model with its decoder's first convolution 60,000 times as large: f16 activations overflow, f32's do
/// not, and the norms behind make much the same picture of it.
#[test]
fn a_decoder_that_overflows_f16_is_run_again_in_f32() {
    let from = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded"));
    let to = std::env::temp_dir().join(format!("browser-diffusion-overflow-{}", std::process::id()));
    for part in ["", "unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        std::fs::create_dir_all(to.join(part)).unwrap();
        for file in std::fs::read_dir(from.join(part)).unwrap().map(|f| f.unwrap()) {
            if file.file_type().unwrap().is_file() {
                std::fs::copy(file.path(), to.join(part).join(file.file_name())).unwrap();
            }
        }
    }
    let path = to.join("vae/diffusion_pytorch_model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let tensor = &header["decoder.conv_in.weight"];
    assert_eq!(tensor["dtype"], "F16");
    let at = |i: usize| 8 + len + tensor["data_offsets"][i].as_u64().unwrap() as usize;
    for b in bytes[at(0)..at(1)].chunks_exact_mut(2) {
        let v = half::f16::from_le_bytes([b[0], b[1]]).to_f32() * 60_000.0;
        b.copy_from_slice(&half::f16::from_f32(v.clamp(-6e4, 6e4)).to_le_bytes());
    }
    std::fs::write(&path, bytes).unwrap();

    let picture = |precision| {
        let options = LoadOptions { precision, ..Default::default() };
        let load = DiffusionPipeline::load(Rc::new(Folder::new(&to)), None, &options, &|| false);
        draw(&block_on(load).unwrap(), "a red apple").pictures.remove(0)
    };
    let (wanted, got) = (picture(Precision::F32), picture(Precision::Auto));
    std::fs::remove_dir_all(&to).unwrap();
    let off: u64 = got.data.iter().zip(&wanted.data).map(|(a, b)| a.abs_diff(*b) as u64).sum();
    let mean = off as f64 / wanted.data.len() as f64;
    println!("overflowing decoder: {mean:.2} grey levels from f32");
    // What the pipelines' test allows between f16 storage and diffusers.
    assert!(mean <= 2.5, "{mean}");
}
