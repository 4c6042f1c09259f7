//! The kernels: those of the plans that real models have, and of single operations.

use super::report::Workgroup;
use super::work::Work;
use browser_diffusion::checkpoint::Bits;
use browser_diffusion::gpu::{
    Adapted, AdaptedLayers, Arithmetic, Dispatch, Dtype, Kernel, Options, Plan, Recorder,
};
use browser_diffusion::models::{clip, controlnet, taesd, unet, vae};
use browser_diffusion::ops::{self, Activation, Conv, Epilogue, autotune};
use serde_json::Value;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Recorded plans by what they draw.
pub struct Recorded {
    pub name: String,
    pub plan: Plan,
}

/// A kernel that some plan dispatches.
pub struct Variant {
    pub kernel: Kernel,
    pub wgsl: String,
    /// Where threads of a workgroup go different ways: the text of each way alone, and which share of them goes there.
    pub ways: Vec<(String, f64)>,
    /// Storage buffers that it binds.
    pub buffers: usize,
    pub workgroup: Workgroup,
    /// Of the largest dispatch of it.
    pub work: Work,
    /// Names of the plans that have it.
    pub plans: Vec<String>,
}

fn plan(options: &Options, layers: &Rc<AdaptedLayers>, build: impl FnOnce(&mut Recorder)) -> Plan {
    let mut r = Recorder::new(options).with_adapted(layers.clone());
    build(&mut r);
    r.finish()
}

fn unet(config: &Value, options: &Options, side: u32, controlled: bool, layers: AdaptedLayers) -> Plan {
    let config = unet::Config::from_config(config).unwrap();
    plan(options, &Rc::new(layers), |r| {
        let inputs = unet::unet_inputs(&config, r, 2, side, side, 77);
        let residuals = match controlled {
            true => controlnet::residuals(&config, r, 2, [side, side]),
            false => Vec::new(),
        };
        let out = unet::forward(&config, r, &inputs, &residuals).unwrap();
        r.output(out);
    })
}

/// LoRAs on every quantised layer, each other one merged, the rest added at rank 16.
fn adapted(base: &Plan) -> AdaptedLayers {
    let names = base.weights().iter().filter_map(|w| w.name.strip_suffix(".weight"));
    let kind = |i| if i % 2 == 0 { Adapted::LowRank(16) } else { Adapted::Merged };
    names.enumerate().map(|(i, name)| (name.to_owned(), kind(i))).collect()
}

fn text(config: &Value, options: &Options, pooled: bool) -> Plan {
    let config = clip::Config::from_config(config).unwrap();
    plan(options, &Rc::default(), |r| {
        let ids = r.input_u32(2, 77);
        let states = clip::hidden_states(&config, r, ids, None, config.num_hidden_layers).unwrap();
        let last = clip::final_layer_norm(&config, r, *states.last().unwrap()).unwrap();
        if pooled {
            let eos = r.input_u32(2, 1);
            let row = clip::pooler_output(r, last, eos).unwrap();
            clip::text_embeds(&config, r, row).unwrap();
        }
    })
}

fn control(config: &Value, options: &Options, side: u32) -> Plan {
    let config = controlnet::Config::from_config(config).unwrap();
    plan(options, &Rc::default(), |r| {
        let pixels = side * config.scale();
        let image = r.input(2, pixels, pixels, config.conditioning_channels);
        let cond = controlnet::cond_embedding(&config, r, image).unwrap();
        let inputs = unet::unet_inputs(&config.unet, r, 2, side, side, 77);
        let results = controlnet::forward(
            &config,
            r,
            &inputs,
            &controlnet::Seen { cond: vec![cond], control_type: None },
        )
        .unwrap();
        let scales = r.input_of(Dtype::F32, 1, 1, 1, results.len() as u32);
        let into = controlnet::residuals(&config.unet, r, 2, [side, side]);
        controlnet::add(r, &results, scales, &into, 0).unwrap();
    })
}

fn image(config: &Value, options: &Options, side: u32) -> [Plan; 2] {
    let config = vae::Config::from_config(config).unwrap();
    let decoder = plan(options, &Rc::default(), |r| {
        let latents = r.input(1, side, side, config.latent_channels);
        vae::decode(&config, r, latents).unwrap();
    });
    let encoder = plan(options, &Rc::default(), |r| {
        let pixels = side * config.scale();
        let image = r.input(1, pixels, pixels, config.in_channels);
        vae::encode(&config, r, image).unwrap();
    });
    [decoder, encoder]
}

/// Stable Diffusion 1.5 and SDXL at their own sizes, with guidance, as a pipeline records them with `options`.
pub fn plans(published: &Value, options: &Options) -> Vec<Recorded> {
    let mut all = Vec::new();
    let of = |part: &str| &published[part]["config"];
    // A module whose values f16 does not hold has f32 activations, unless the arithmetic is f16.
    let wide = match options.arithmetic {
        Arithmetic::F16 => *options,
        Arithmetic::F32 => Options { activations: Dtype::F32, ..*options },
    };
    for (model, side) in [("sd15", 64), ("sdxl", 128)] {
        let config = of(&format!("{model}/unet"));
        for (bits, called) in [(None, "f16"), (Some(Bits::Q8), "q8"), (Some(Bits::Q4), "q4")] {
            let options = Options { weights: bits, ..*options };
            let base = unet(config, &options, side, false, AdaptedLayers::new());
            if bits.is_some() {
                let plan = unet(config, &options, side, false, adapted(&base));
                all.push(Recorded { name: format!("{model} unet {called} lora"), plan });
            }
            all.push(Recorded { name: format!("{model} unet {called}"), plan: base });
        }
        let plan = unet(config, options, side, true, AdaptedLayers::new());
        all.push(Recorded { name: format!("{model} unet controlled"), plan });
        let plan = control(of(&format!("{model}/controlnet")), options, side);
        all.push(Recorded { name: format!("{model} controlnet"), plan });
        let storage = if model == "sdxl" { &wide } else { options };
        let [decoder, encoder] = image(of(&format!("{model}/vae")), storage, side);
        all.push(Recorded { name: format!("{model} decoder"), plan: decoder });
        all.push(Recorded { name: format!("{model} encoder"), plan: encoder });
    }
    for (part, pooled) in [("sd15/text_encoder", false), ("sdxl/text_encoder_2", true)] {
        for (weights, called) in [(None, "f16"), (Some(Bits::Q8), "q8")] {
            let plan = text(of(part), &Options { weights, ..wide }, pooled);
            all.push(Recorded { name: format!("{} {called}", part.replace('/', " ")), plan });
        }
    }
    let config = taesd::Config::from_config(of("taesd/vae")).unwrap();
    let plan = plan(options, &Rc::default(), |r| {
        let latents = r.input(1, 64, 64, config.latent_channels);
        taesd::decode(&config, r, latents).unwrap();
    });
    all.push(Recorded { name: "taesd decoder".to_owned(), plan });
    all
}

/// The eleven operations that `bench --vs-ort` compares, of a step with guidance, as `ort.md` names them.
pub fn operations(options: &Options) -> Vec<Recorded> {
    let conv = |side: u32, c: u32| {
        plan(options, &Rc::default(), |r| {
            let x = r.input(2, side, side, c);
            ops::conv2d(r, x, "y", c, Conv::k3(), Epilogue::default()).unwrap();
        })
    };
    let gemm = |rows: u32, k: u32, n: u32| {
        plan(options, &Rc::default(), |r| {
            let x = r.input(2, 1, rows, k);
            ops::linear(r, x, "y", n, Epilogue::default()).unwrap();
        })
    };
    let attention = |queries: u32, keys: u32, d: u32| {
        plan(options, &Rc::default(), |r| {
            let q = r.input(2, 1, queries, 8 * d);
            let [k, v] = [(); 2].map(|()| r.input(2, 1, keys, 8 * d));
            ops::attention(r, q, k, v, 8, false).unwrap();
        })
    };
    let group = plan(options, &Rc::default(), |r| {
        let x = r.input(2, 64, 64, 320);
        ops::group_norm(r, x, "y", 32, 1e-5, Activation::Silu).unwrap();
    });
    let layer = plan(options, &Rc::default(), |r| {
        let x = r.input(2, 1, 4096, 320);
        ops::layer_norm(r, x, "y", 1e-5).unwrap();
    });
    [
        ("conv 320@64", conv(64, 320)),
        ("conv 640@32", conv(32, 640)),
        ("conv 1280@16", conv(16, 1280)),
        ("gemm 4096x320x320", gemm(4096, 320, 320)),
        ("gemm 4096x320x2560", gemm(4096, 320, 2560)),
        ("gemm 1024x640x5120", gemm(1024, 640, 5120)),
        ("self-attention d40", attention(4096, 4096, 40)),
        ("self-attention d80", attention(1024, 1024, 80)),
        ("cross-attention", attention(4096, 77, 40)),
        ("GroupNorm+SiLU", group),
        ("LayerNorm", layer),
    ]
    .map(|(name, plan)| Recorded { name: name.to_owned(), plan })
    .into()
}

/// The operation by whose time a GPU's rate is known, and its work.
pub const RATED: &str = "gemm 4096x320x2560";
pub const RATED_FLOPS: f64 = 2.0 * 2.0 * 4096.0 * 320.0 * 2560.0;

/// The plan of a step that times are given of.
pub const STEP: &str = "sd15 unet f16";

/// Every kernel that a tuner would time for Stable Diffusion 1.5.
pub fn candidates(options: &Options) -> Vec<Recorded> {
    let mut all = Vec::new();
    for work in autotune::WORKS {
        for i in 0..work.candidates(options) {
            let (plan, ..) = work.record(options, i).unwrap();
            all.push(Recorded { name: format!("{CANDIDATE}{i}"), plan });
        }
    }
    all
}

const CANDIDATE: &str = "candidate ";

/// Whether a plan of this name is there only since a tuner would time it.
pub fn is_candidate(plan: &str) -> bool {
    plan.starts_with(CANDIDATE)
}

/// All dispatches of a plan.
pub fn dispatches(plan: &Plan) -> impl Iterator<Item = &Dispatch> {
    plan.setup().iter().chain(plan.dispatches())
}

/// Winograd's: of 256 threads 128 make V, 64 a block make U, and what are left wait for them.
fn ways(kernel: &Kernel, wgsl: &str) -> Vec<(String, f64)> {
    let Some((_, blocks)) = kernel.defines.iter().find(|(name, _)| *name == "BLOCKS") else {
        return Vec::new();
    };
    let fork = ["if makes_v {", "} else if thread < MAKERS {"];
    let alone = |[v, u]: [&str; 2]| wgsl.replace(fork[0], v).replace(fork[1], u);
    let with_u = f64::from(*blocks) / 4.0;
    [
        (["if true {", fork[1]], 0.5),
        (["if false {", "} else if true {"], with_u),
        (["if false {", "} else if false {"], 0.5 - with_u),
    ]
    .map(|(texts, share)| (alone(texts), share))
    .into()
}

/// Each kernel of `recorded` once, with its text.
pub fn variants<'a>(recorded: impl IntoIterator<Item = &'a Recorded>) -> Vec<Variant> {
    let mut all = BTreeMap::<Kernel, Variant>::new();
    for Recorded { name, plan } in recorded {
        for dispatch in dispatches(plan) {
            let variant = all.entry(dispatch.kernel.clone()).or_insert_with(|| {
                let wgsl = dispatch.kernel.wgsl(true).unwrap();
                let module = naga::front::wgsl::parse_str(&wgsl).unwrap_or_else(|e| {
                    eprintln!("{} of {name}: {}", dispatch.kernel.name, e.emit_to_string(&wgsl));
                    std::process::exit(2);
                });
                Variant {
                    kernel: dispatch.kernel.clone(),
                    ways: ways(&dispatch.kernel, &wgsl),
                    wgsl,
                    buffers: dispatch.bindings.len(),
                    workgroup: Workgroup::of(&module),
                    work: Work::default(),
                    plans: Vec::new(),
                }
            });
            let work = Work::of(dispatch, variant.workgroup.threads);
            if work.multiply_adds > variant.work.multiply_adds {
                variant.work = work;
            }
            if !variant.plans.contains(name) {
                variant.plans.push(name.clone());
            }
        }
    }
    all.into_values().collect()
}
