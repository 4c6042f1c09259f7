//! What a step is made of, counted from the recorded plans: figures that hold on any GPU.

#[path = "support/unet_plan.rs"]
mod unet_plan;

use browser_diffusion::gpu::{Dispatch, Options, Plan, Recorder};
use browser_diffusion::models::{unet, vae};
use serde_json::Value;
use std::collections::BTreeMap;

/// The published configurations.
fn published() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/data/models/real.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// With guidance: a batch of two.
fn unet_plan(config: &Value, height: u32, width: u32) -> Plan {
    unet_plan::unet(config, &Options::default(), 2, height, width)
}

/// The VAE's decoder to `height` x `width` pixels, or its encoder from them.
fn vae_plan(config: &Value, encode: bool, height: u32, width: u32) -> Plan {
    let config = vae::Config::from_config(config).unwrap();
    let mut r = Recorder::new(&Options::default());
    let out = if encode {
        let image = r.input(1, height, width, config.in_channels);
        vae::encode(&config, &mut r, image).unwrap()
    } else {
        let latents = r.input(1, height / config.scale(), width / config.scale(), config.latent_channels);
        vae::decode(&config, &mut r, latents).unwrap()
    };
    r.output(out);
    r.finish()
}

/// DeepCache at interval 3 of Stable Diffusion 1.5, batch 2, 64x64 latents: arithmetic of all steps as a share of what
/// whole steps take.
#[test]
fn deep_cache_at_interval_3_does_at_most_60_percent_of_the_work() {
    let config = unet::Config::from_config(&published()["sd15/unet"]["config"]).unwrap();
    let flops = |plan: Plan| plan.dispatches().iter().map(|d| d.flops).sum::<u64>() as f64;
    for branch in [0, 2] {
        let mut r = Recorder::new(&Options::default());
        let inputs = unet::unet_inputs(&config, &mut r, 2, 64, 64, 77);
        let (out, deep) = unet::forward_with_deep(&config, &mut r, &inputs, &[], branch).unwrap();
        r.output(out);
        let whole = flops(r.finish());
        let mut r = Recorder::new(&Options::default());
        let inputs = unet::unet_inputs(&config, &mut r, 2, 64, 64, 77);
        let below = r.input(deep.n, deep.h, deep.w, deep.c);
        let out = unet::shallow(&config, &mut r, &inputs, &[], branch, below).unwrap();
        r.output(out);
        let share = (1.0 + 2.0 * flops(r.finish()) / whole) / 3.0;
        println!("branch {branch}: {share:.3} of the work");
        assert!(share <= 0.6, "{share}");
    }
}

/// Stable Diffusion 1.5's UNet, batch 2, 64x64 latents.
#[test]
fn a_step_of_stable_diffusion_1_5() {
    let plan = unet_plan(&published()["sd15/unet"]["config"], 64, 64);
    let mut kinds: BTreeMap<&str, (usize, u64, u64)> = BTreeMap::new();
    for dispatch in plan.dispatches() {
        let (count, flops, bytes) = kinds.entry(dispatch.kernel.name).or_default();
        *count += 1;
        *flops += dispatch.flops;
        *bytes += plan.bytes(dispatch);
    }
    for (name, (count, flops, bytes)) in &kinds {
        println!("{name:20} {count:4} {:8.1} GFLOP {:8.1} MB", *flops as f64 / 1e9, *bytes as f64 / 1e6);
    }
    let (dispatches, submits, bytes) = (plan.dispatches().len(), plan.submits().len(), plan.bytes_moved());
    let flops: u64 = plan.dispatches().iter().map(|d| d.flops).sum();
    println!(
        "{dispatches} dispatches ({} more when the prompt changes), {submits} submits, {:.0} GFLOP, {:.2} GB moved",
        plan.setup().len(),
        flops as f64 / 1e9,
        bytes as f64 / 1e9
    );
    // 1606 GFLOP in all (field/kernels.md), of which norms and the like are a few.
    assert!((1590..1620).contains(&(flops / 1_000_000_000)), "{flops}");
    assert!(dispatches <= 300, "{dispatches} dispatches");
    // With the one that copies the prediction out.
    assert!(submits < 20, "{submits} submits");
    // Twice 1.7 GB of weights and 2.3 GB of activations, each read or written once.
    assert!(bytes <= 2 * 4_100_000_000, "{bytes} bytes");
    assert_eq!(plan.submits().into_iter().flatten().collect::<Vec<_>>(), (0..dispatches).collect::<Vec<_>>());
}

/// Loads of a vector from workgroup memory for one multiply-add, from the shader's own description of its tiling.
fn workgroup_loads(dispatch: &Dispatch) -> f64 {
    let value = |name: &str| {
        f64::from(dispatch.kernel.defines.iter().find(|(key, _)| *key == name).map_or(0, |(_, value)| *value))
    };
    let (tm, tn) = (value("TM"), value("TN"));
    if value("SUBGROUP") > 0.0 {
        return 0.0;
    }
    if value("BLOCKS") > 0.0 {
        // 8 tiles by 4 channels a block, each a multiply-add of four.
        let blocks = value("BLOCKS");
        return (8.0 + 4.0 * blocks) / (8.0 * 4.0 * blocks * 4.0);
    }
    if value("SPLIT") > 0.0 {
        // Only to add up: two vectors for each sum but the last, in each row.
        let multiply_adds =
            dispatch.flops as f64 / 2.0 / f64::from(dispatch.workgroups.iter().product::<u32>());
        return 2.0 * (value("WX") - 1.0) * tm / multiply_adds;
    }
    (tm + 4.0 * tn) / (tm * 16.0 * tn)
}

/// Every matrix multiply and convolution fills a GPU (128 workgroups, or the inputs shared out among the threads), with
/// subgroups of any size and without, and is not held up by workgroup memory.
#[test]
fn every_product_fills_a_gpu() {
    let config = &published()["sd15/unet"]["config"];
    for subgroup in [0, 4, 8, 16] {
        let plan = unet_plan::unet(config, &Options { subgroup, ..Options::default() }, 2, 64, 64);
        let mut shapes: BTreeMap<(&str, [u32; 3]), (f64, u32)> = BTreeMap::new();
        for dispatch in plan.setup().iter().chain(plan.dispatches()) {
            if ["matmul", "conv"].contains(&dispatch.kernel.name) {
                let workgroups = dispatch.workgroups.iter().product();
                let param = |name| dispatch.params.iter().find(|(key, _)| *key == name).unwrap().1.word();
                // Blocks of Winograd's.
                let outputs = if dispatch.kernel.defines.iter().any(|d| d.0 == "BLOCKS") { 128 } else { 1 };
                let rows = outputs * (param("m") - param("m_base"));
                let shape = (dispatch.kernel.name, [rows, param("n"), 4 * param("k4")]);
                shapes.insert(shape, (workgroup_loads(dispatch), workgroups));
            }
        }
        assert!(shapes.len() > 30);
        for ((name, [m, n, k]), (loads, workgroups)) in shapes {
            println!(
                "{subgroup:2} {name:6} {m:5} x {n:5} x {k:5}: {workgroups:5} workgroups, {loads:.3} loads"
            );
            assert!(workgroups >= 128, "{name} {m}x{n}x{k}: {workgroups} workgroups");
            assert!(loads <= 0.3, "{name} {m}x{n}x{k}: {loads}");
        }
    }
}

/// No dispatch takes more than 150 ms on an integrated GPU of 0.4 TFLOP/s, by what its kernel reaches; Windows resets a
/// GPU after two seconds. All squares from 64 to 1024 pixels, and all rectangles of multiples of 64.
#[test]
fn no_dispatch_is_long_at_any_size() {
    let real = published();
    let squares = (8..=128).map(|side| (side, side));
    let rectangles = (1..=16).flat_map(|h| (1..=16).map(move |w| (8 * h, 8 * w)));
    let sizes: Vec<(u32, u32)> = squares.chain(rectangles).collect();
    for name in ["sd15/unet", "sd21/unet", "sdxl/unet", "sd15/vae", "sdxl/vae"] {
        let config = &real[name]["config"];
        let mut longest: BTreeMap<&str, (f64, u64, (u32, u32))> = BTreeMap::new();
        for &(height, width) in &sizes {
            let plans = match name.ends_with("vae") {
                true => [true, false].map(|encode| vae_plan(config, encode, 8 * height, 8 * width)).to_vec(),
                false => vec![unet_plan(config, height, width)],
            };
            for dispatch in plans.iter().flat_map(|p| p.setup().iter().chain(p.dispatches())) {
                let of_kernel = longest.entry(dispatch.kernel.name).or_default();
                if dispatch.slow_ms() > of_kernel.0 {
                    *of_kernel = (dispatch.slow_ms(), dispatch.flops, (height, width));
                }
            }
        }
        for (kernel, (ms, flops, (height, width))) in longest {
            println!(
                "{name:10} {ms:5.1} ms, {:5.2} GFLOP, {kernel} at {height}x{width} latents",
                flops as f64 / 1e9
            );
            assert!(ms > 0.0 && ms <= 150.0, "{name}: {kernel}, {ms} ms");
        }
    }
}
