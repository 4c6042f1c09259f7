//! The self-test meets every variant of a kernel that plans of the published models choose, and what it wants of each is
//! what the kernel makes.

#[path = "support/unet_plan.rs"]
mod unet_plan;

use browser_diffusion::gpu::choices::Class;
use browser_diffusion::gpu::{Arithmetic, Dtype, Gpu, GpuOptions, Kernel, Options, Plan, Recorder};
use browser_diffusion::models::vae;
use browser_diffusion::ops::{self, Trial, autotune};
use pollster::block_on;
use serde_json::Value;
use std::collections::BTreeSet;

fn published() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/data/models/real.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn decoder(config: &Value, options: &Options, side: u32) -> Plan {
    let config = vae::Config::from_config(config).unwrap();
    let mut r = Recorder::new(options);
    let latents = r.input(1, side, side, config.latent_channels);
    let out = vae::decode(&config, &mut r, latents).unwrap();
    r.output(out);
    r.finish()
}

/// Kernels of which there are variants.
fn kernels<'a>(plans: impl IntoIterator<Item = &'a Plan>) -> BTreeSet<&'a Kernel> {
    let dispatches = plans.into_iter().flat_map(|p| p.setup().iter().chain(p.dispatches()));
    dispatches
        .map(|d| &d.kernel)
        .filter(|k| ["conv", "matmul", "group_norm"].contains(&k.name) || k.name.starts_with("attention"))
        .collect()
}

/// Every way of recording, with subgroups of so many lanes.
fn ways(subgroup: u32) -> Vec<Options> {
    let plain = Options { subgroup, ..Options::default() };
    let q = |bits| Options { weights: Some(bits), ..plain };
    vec![
        plain,
        Options { activations: Dtype::F32, ..plain },
        Options { arithmetic: Arithmetic::F16, ..plain },
        Options { rolled: true, ..plain },
        q(browser_diffusion::checkpoint::Bits::Q8),
        q(browser_diffusion::checkpoint::Bits::Q4),
    ]
}

#[test]
fn every_variant_that_a_published_model_chooses_can_be_tried() {
    let real = published();
    let mut met = 0;
    for subgroup in [0, 4, 8, 16] {
        for options in ways(subgroup) {
            let mut plans = Vec::new();
            for name in ["sd15/unet", "sd21/unet", "sdxl/unet"] {
                let config = &real[name]["config"];
                plans.extend(
                    [(1, 32), (2, 64)]
                        .map(|(batch, side)| unet_plan::unet(config, &options, batch, side, side)),
                );
            }
            plans.extend(["sd15/vae", "sdxl/vae"].map(|name| decoder(&real[name]["config"], &options, 64)));
            // And every tile that the tuner may choose.
            for i in 0..autotune::candidates(&options) {
                let mut tuned = options;
                tuned.choices.set(Class::winograd(8192), Some(0));
                for (conv, rows, channels) in [(true, 8192, 320), (false, 8192, 320)] {
                    tuned.choices.set(Class::of(conv, rows, channels), Some(i));
                }
                plans.push(unet_plan::unet(&real["sd15/unet"]["config"], &tuned, 2, 64, 64));
            }
            for i in 1..=2 {
                let mut tuned = options;
                for class in Class::all().filter(|class| !matches!(class, Class::Product { .. })) {
                    tuned.choices.set(class, Some(i));
                }
                plans.push(unet_plan::unet(&real["sd15/unet"]["config"], &tuned, 2, 64, 64));
            }
            for kernel in kernels(&plans) {
                assert!(Trial::of(kernel).unwrap().is_some(), "{} {:?}", kernel.name, kernel.defines);
                met += 1;
            }
        }
    }
    println!("{met} variants");
}

/// What the tuner may choose for every product of a UNet: also a tile with whose kernels sums are split.
#[test]
fn what_is_wanted_of_split_sums_is_what_they_are() {
    let real = published();
    let gpu = block_on(Gpu::new(&GpuOptions::default())).unwrap();
    let mut tuned = Options::default();
    let split = autotune::candidates(&tuned) - 1;
    for example in autotune::EXAMPLES {
        tuned.choices.set(autotune::class(example), Some(split));
    }
    let plan = unet_plan::unet(&real["sd15/unet"]["config"], &tuned, 2, 64, 64);
    let has = |k: &Kernel, name| k.defines.iter().any(|&(known, value)| known == name && value > 0);
    let split = kernels([&plan]).into_iter().filter(|k| has(k, "SPLIT"));
    assert!(split.filter(|k| has(k, "GEGLU") || has(k, "LAYER_NORM")).count() >= 2);
    assert!(block_on(ops::check(&gpu, &plan)).unwrap(), "{:?}", gpu.wrong());
}

/// Those of Stable Diffusion 1.5 and its decoder.
#[test]
fn this_driver_computes_every_variant_rightly() {
    let real = published();
    let gpu = block_on(Gpu::new(&GpuOptions::default())).unwrap();
    for subgroup in BTreeSet::from([0, gpu.subgroup]) {
        for options in [ways(subgroup)[0], ways(subgroup)[4]] {
            let unet = unet_plan::unet(&real["sd15/unet"]["config"], &options, 2, 64, 64);
            let vae = decoder(&real["sd15/vae"]["config"], &options, 64);
            for plan in [&unet, &vae] {
                let start = std::time::Instant::now();
                assert!(block_on(ops::check(&gpu, plan)).unwrap(), "{:?}", gpu.wrong());
                println!(
                    "subgroups of {subgroup}: {} variants, {:?}",
                    kernels([plan]).len(),
                    start.elapsed()
                );
                // All of them are known now.
                let start = std::time::Instant::now();
                assert!(block_on(ops::check(&gpu, plan)).unwrap());
                println!("again: {:?}", start.elapsed());
            }
        }
    }
}
