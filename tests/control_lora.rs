//! A Control-LoRA against a ControlNet whose weights are the plain sum, the UNet's plus up times down, made here in f64.

#[path = "support/random_weights.rs"]
mod random_weights;
#[path = "support/tiny_model.rs"]
mod tiny_model;

use browser_diffusion::Result;
use browser_diffusion::pipeline::{Control, DiffusionPipeline, GenerateOptions, LoadOptions, Picture};
use browser_diffusion::store::disk::Folder;
use half::f16;
use pollster::block_on;
use std::collections::HashMap;
use std::rc::Rc;
use tiny_model::{Part, control_lora, controlnets, draw, marked, read_json, single, tensors, tiny, written};

fn values(part: &Part) -> Vec<f64> {
    part.data.chunks_exact(2).map(|two| f16::from_le_bytes([two[0], two[1]]).to_f64()).collect()
}

/// The ControlNet that the factors and the UNet make.
fn summed(factors: &[Part], unet: &[Part]) -> Vec<Part> {
    let by_name = |parts: &[Part]| -> HashMap<String, Part> {
        parts.iter().map(|part| (part.name.clone(), part.clone())).collect()
    };
    let (factors, unet) = (by_name(factors), by_name(unet));
    let whole = |part: &Part| {
        if let Some(own) = factors.get(&part.name) {
            return own.clone();
        }
        let Some(layer) = part.name.strip_suffix(".weight") else { return unet[&part.name].clone() };
        let base = &unet[&part.name];
        let (Some(up), Some(down)) =
            (factors.get(&format!("{layer}.up")), factors.get(&format!("{layer}.down")))
        else {
            return base.clone();
        };
        let (ups, downs) = (values(up), values(down));
        let rank = down.shape[0] as usize;
        let inner = downs.len() / rank;
        let sum = values(base).into_iter().enumerate().map(|(at, v)| {
            let (row, column) = (at / inner, at % inner);
            let change: f64 = (0..rank).map(|i| ups[row * rank + i] * downs[i * inner + column]).sum();
            f16::from_f64(v + change)
        });
        let data = bytemuck::cast_slice(&sum.collect::<Vec<f16>>()).to_vec();
        Part { data, ..base.clone() }
    };
    controlnets()[0].iter().map(whole).collect()
}

#[test]
fn is_a_controlnet_of_the_sums() {
    let folder = std::env::temp_dir().join(format!("browser-diffusion-control-lora-{}", std::process::id()));
    tiny(&folder);
    let kind = &read_json("pipelines/models.json")["sd1"];
    let unet = tensors(&kind["tensors"]["unet"], kind["components"]["unet"]["gain"].as_f64().unwrap());
    let files = Rc::new(Folder::new(&folder));
    let model = block_on(DiffusionPipeline::load(files, None, &LoadOptions::default(), &|| false)).unwrap();
    let drawn = |file: &[u8]| -> Result<Vec<f32>> {
        model.keep_controlnets(&[]);
        block_on(model.load_controlnet("net", single(file)?, &|| false))?;
        let image =
            Picture { width: 32, height: 32, data: (0..4 * 32 * 32).map(|i| (i * i / 7) as u8).collect() };
        let control = Control { key: "net".into(), image, scale: 3.0, ..Default::default() };
        draw(&model, GenerateOptions { controlnets: vec![control], ..Default::default() })
    };
    // Also where some of it is the UNet's alone: a norm, and a matrix that has no factors.
    let mut sparse = control_lora();
    sparse.retain(|part| !part.name.contains("norm2.") && !part.name.contains("to_k."));
    let plain = draw(&model, GenerateOptions::default()).unwrap();
    let apart = |a: &[f32], b: &[f32]| {
        let sum =
            |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v * v)).sum::<f64>().sqrt();
        sum(&mut a.iter().zip(b).map(|(a, b)| a - b)) / sum(&mut b.iter().copied())
    };
    for factors in [control_lora(), sparse] {
        let expected = drawn(&written(&summed(&factors, &unet))).unwrap();
        let found = drawn(&marked(&factors)).unwrap();
        let (error, change) = (apart(&found, &expected), apart(&plain, &expected));
        println!("off by {error:.1e}; without it by {change:.1e}");
        // Sums of a few terms in f32 and in f64 round to one f16, but for a few that lie between two.
        assert!(error <= 1e-4 && change > 1e-2, "{error} {change}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
