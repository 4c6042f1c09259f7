//! What a step is made of, counted from the recorded plans: figures that hold on any GPU.

use browser_diffusion::gpu::{Options, Plan, Recorder};
use browser_diffusion::models::unet;
use serde_json::Value;
use std::collections::BTreeMap;

fn json(path: &str) -> Value {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The UNet at `height` x `width` latents, with guidance: a batch of two.
fn unet_plan(config: &Value, height: u32, width: u32) -> Plan {
    let config = unet::Config::from_config(config).unwrap();
    let mut r = Recorder::new(&Options::default());
    let sample = r.input(2, height, width, config.in_channels);
    let t_emb = r.input(2, 1, 1, config.time_proj_dim);
    let text = r.input(2, 1, 77, config.cross_attention_dim);
    let added = config.text_time.map(|t| {
        let time = 6 * t.addition_time_embed_dim;
        let text_embeds = r.input(2, 1, 1, t.projection_class_embeddings_input_dim - time);
        unet::AddedCond { text_embeds, time_ids: r.input(2, 1, 1, time) }
    });
    let out = unet::forward(&config, &mut r, sample, t_emb, text, added, None).unwrap();
    r.output(out);
    r.finish()
}

/// Stable Diffusion 1.5's UNet, batch 2, 64x64 latents.
#[test]
fn a_step_of_stable_diffusion_1_5() {
    let plan = unet_plan(&json("tests/web/sd15-configs.json")["unet/config.json"], 64, 64);
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
        "{dispatches} dispatches, {submits} submits, {:.0} GFLOP, {:.2} GB moved",
        flops as f64 / 1e9,
        bytes as f64 / 1e9
    );
    // 1606 GFLOP in all (field/kernels.md), of which norms and the like are a few.
    assert!((1590..1620).contains(&(flops / 1_000_000_000)), "{flops}");
    // With the one that copies the prediction out.
    assert!(submits < 20, "{submits} submits");
    // Twice 1.7 GB of weights and 2.3 GB of activations, each read or written once.
    assert!(bytes <= 2 * 4_100_000_000, "{bytes} bytes");
    assert_eq!(plan.submits().into_iter().flatten().collect::<Vec<_>>(), (0..dispatches).collect::<Vec<_>>());
}
