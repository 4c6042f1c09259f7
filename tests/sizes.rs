//! Every size from 64 to 2048 pixels in steps of 8, for the shapes of Stable Diffusion 1.5 and SDXL: plans, not runs.

use browser_diffusion::Code;
use browser_diffusion::gpu::{Binding, Limits, Options, Plan, Recorder, WeightSpec};
use browser_diffusion::models::{unet, vae};
use serde_json::Value;
use std::collections::BTreeSet;

/// WebGPU's defaults, which every adapter has.
const LEAST: Limits = Limits { max_buffer_size: 256 << 20, max_storage_buffer_binding_size: 128 << 20 };
/// What desktop GPUs have at least.
const DESKTOP: Limits = Limits { max_buffer_size: 2 << 30, max_storage_buffer_binding_size: (2 << 30) - 4 };

fn real(name: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/data/models/real.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all[name]["config"].clone()
}

/// The UNet with guidance, over latents of an eighth of the picture's size.
fn unet_plan(config: &unet::Config, width: u32, height: u32) -> Plan {
    let mut r = Recorder::new(&Options::default());
    let batch = 2;
    let inputs = unet::Inputs {
        sample: r.input(batch, height / 8, width / 8, config.in_channels),
        t_emb: r.input(batch, 1, 1, config.time_proj_dim),
        encoder_hidden_states: r.input(batch, 1, 77, config.cross_attention_dim),
        added: config.text_time.map(|t| {
            let time = 6 * t.addition_time_embed_dim;
            let text_embeds = r.input(batch, 1, 1, t.projection_class_embeddings_input_dim - time);
            unet::AddedCond { text_embeds, time_ids: r.input(batch, 1, 1, time) }
        }),
        timestep_cond: None,
        features: Vec::new(),
    };
    let out = unet::forward(config, &mut r, &inputs, &[]).unwrap();
    assert_eq!((out.h, out.w), (height / 8, width / 8));
    r.output(out);
    r.finish()
}

fn vae_plan(config: &vae::Config, width: u32, height: u32) -> Plan {
    let mut r = Recorder::new(&Options::default());
    let latents = r.input(1, height / 8, width / 8, config.latent_channels);
    let out = vae::decode(config, &mut r, latents).unwrap();
    assert_eq!((out.h, out.w), (height, width));
    r.output(out);
    r.finish()
}

/// All squares, all of one diagonal, and some others: each side comes in every remainder that halving leaves.
fn sizes() -> BTreeSet<(u32, u32)> {
    let sides = || (64..=2048).step_by(8);
    let scattered = |w: u32| 64 + 8 * (w / 8 * 97 % 249);
    sides().flat_map(|w| [(w, w), (w, 2112 - w), (w, scattered(w))]).collect()
}

/// What a plan must hold to whatever its size is; the largest binding.
fn check(plan: &Plan, what: &str) -> u64 {
    // What is stacked is bound as one.
    let stacks = plan.weights().chunk_by(|_, next| next.follows);
    let mut largest = stacks.map(|stack| stack.iter().map(WeightSpec::bytes).sum()).max().unwrap_or(0);
    for d in plan.setup().iter().chain(plan.dispatches()) {
        assert!(
            d.workgroups.iter().all(|&n| (1..=65535).contains(&n)),
            "{what}: {} {:?}",
            d.kernel.name,
            d.workgroups
        );
        // A product splits itself, down to the rows of one tile.
        if ["conv", "matmul"].contains(&d.kernel.name) {
            assert!(
                d.slow_ms() <= 150.0 || d.workgroups[1] == 1,
                "{what}: {} {} ms",
                d.kernel.name,
                d.slow_ms()
            );
        }
        for binding in &d.bindings {
            if let Binding::Read(t) | Binding::Write(t) = binding {
                largest = largest.max(t.bytes());
            }
        }
    }
    // All tensors of a slot are bound at their own size, so the largest binding decides.
    for limits in [LEAST, DESKTOP] {
        let limit = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        match plan.check(&limits) {
            Ok(()) => assert!(largest <= limit, "{what}: {largest} bytes pass"),
            Err(e) => {
                assert!(largest > limit, "{what}: {largest} bytes are refused");
                assert_eq!(e.code, Code::OutOfMemory);
                let mib = |b: u64| b.div_ceil(1 << 20).to_string();
                assert!(
                    e.message.contains(&mib(largest)) && e.message.contains(&mib(limit)),
                    "{}",
                    e.message
                );
            }
        }
    }
    largest
}

/// Every size is recorded; on a desktop's GPU every one is drawn, on the least one what is refused is refused in numbers.
#[test]
fn unets_of_every_size() {
    for (name, drawn) in [("sd15/unet", 896), ("sdxl/unet", 1024)] {
        let config = unet::Config::from_config(&real(name)).unwrap();
        let mut widest = 0;
        for (w, h) in sizes() {
            let what = format!("{name} {w}x{h}");
            let plan = unet_plan(&config, w, h);
            let largest = check(&plan, &what);
            assert!(plan.check(&DESKTOP).is_ok(), "{what}: {largest}");
            if w == h && plan.check(&LEAST).is_ok() {
                assert!(widest == 0 || widest + 8 == w, "{what}: a smaller one was refused");
                widest = w;
            }
            if w == h && [512, 1024, 2048].contains(&w) {
                let mb = |bytes: u64| bytes / 1_000_000;
                println!(
                    "{what}: {} MB of activations, largest binding {} MB",
                    mb(plan.peak_bytes()),
                    mb(largest)
                );
            }
        }
        println!("{name}: up to {widest}x{widest} within WebGPU's default limits");
        assert!(widest >= drawn, "{name}: {widest}");
    }
}

/// On the least GPU every picture can be decoded: whole, or in the tiles of `pipeline/decode.rs`.
#[test]
fn decoders_of_every_size() {
    for name in ["sd15/vae", "sdxl/vae"] {
        let config = vae::Config::from_config(&real(name)).unwrap();
        for (w, h) in sizes() {
            let plan = vae_plan(&config, w, h);
            check(&plan, &format!("{name} {w}x{h}"));
            if plan.check(&LEAST).is_err() {
                // The smallest tile, and what the edges leave of one.
                for (w, h) in [(128, 128), (w.min(128), h % 96 + 8)] {
                    assert!(vae_plan(&config, w, h).check(&LEAST).is_ok(), "{name} {w}x{h}");
                }
            }
        }
    }
}
