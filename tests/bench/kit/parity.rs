//! Stable Diffusion 1.5's UNet (64x64 latents, two pictures) and VAE decoder (512x512) against what
//! `tests/reference/kit.py` computed with torch in f32: weights and inputs drawn from their names, both there and here.

use crate::device;
use crate::part::Part;
use crate::plans::{self, Recorded};
use crate::random_weights::drawn;
use browser_diffusion::checkpoint::Layout;
use browser_diffusion::gpu::{Arithmetic, Dtype, Gpu, Options, Tensor, WeightSpec, Weights};
use browser_diffusion::samplers::get_timestep_embedding;
use half::f16;
use pollster::block_on;
use serde_json::json;
use std::time::Instant;

/// Issue 3's, for f16 and for f32 arithmetic.
const LIMIT: f64 = 1e-2;
/// `GAIN` and `TIMESTEP` of kit.py.
const GAIN: f64 = 0.9;
const TIMESTEP: f32 = 601.0;

/// Every so many-th value of the output, as f16.
struct Expected {
    bytes: &'static [u8],
    step: usize,
}
const SMALL: Expected = Expected { bytes: include_bytes!("../../reference/data/kit/small.f16"), step: 1 };
const UNET: Expected = Expected { bytes: include_bytes!("../../reference/data/kit/unet.f16"), step: 4 };
const DECODER: Expected = Expected { bytes: include_bytes!("../../reference/data/kit/vae.f16"), step: 61 };

impl Expected {
    /// Relative L2 error.
    fn error(&self, got: &[f32]) -> f64 {
        let wanted = self.bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f64());
        let (mut off, mut size) = (0.0, 0.0);
        for (got, wanted) in got.iter().step_by(self.step).zip(wanted) {
            off += (f64::from(*got) - wanted).powi(2);
            size += wanted * wanted;
        }
        (off / size).sqrt()
    }
}

/// Draws weights on all processors, and hands each over as it is drawn.
fn upload(gpu: &Gpu, weights: &Weights, specs: &[WeightSpec]) {
    let values = |spec: &WeightSpec| -> Vec<f32> {
        let (count, fan_in) = match spec.layout {
            Layout::Matrix { rows, inner, taps } | Layout::Blocks { rows, inner, taps, .. } => {
                (rows * inner * taps, inner * taps)
            }
            Layout::Vector { len } => (len, 1),
        };
        drawn(&spec.name, count, fan_in, GAIN).iter().map(|v| v.to_f32()).collect()
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(16);
    for some in specs.chunks(threads) {
        let all = std::thread::scope(|scope| {
            let running: Vec<_> = some.iter().map(|spec| scope.spawn(|| values(spec))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        for (spec, values) in some.iter().zip(all) {
            weights.upload(gpu, &spec.name, &values).unwrap();
        }
    }
}

/// Values of variance 1, as kit.py draws them.
fn input(name: &str, t: Tensor) -> Vec<f32> {
    // A matrix's of that name, each of three inputs, and a gain of one.
    drawn(name, (t.rows() * t.c) as usize, 1, 1.0).iter().map(|v| v.to_f32()).collect()
}

/// The UNet's or the decoder's inputs.
fn inputs(inputs: &[Tensor]) -> Vec<(Tensor, Vec<f32>)> {
    match *inputs {
        [sample, t_emb, text] => {
            let one = get_timestep_embedding(TIMESTEP, t_emb.c as usize, true, 0.0, 1.0, 10000.0);
            let both = [one.as_slice(), one.as_slice()].concat();
            vec![
                (sample, input("kit.sample", sample)),
                (t_emb, both),
                (text, input("kit.encoder_hidden_states", text)),
            ]
        }
        _ => inputs.iter().map(|&t| (t, input("kit.latents", t))).collect(),
    }
}

/// One network, in every way that its weights can be used.
fn compare(part: &mut Part, name: &str, expected: &Expected, record: impl Fn(&Options) -> Recorded) {
    let gpu = device::open();
    let plain = device::options(&gpu, Arithmetic::F32);
    let start = Instant::now();
    let specs = record(&plain).plan.weights().to_vec();
    let weights = Weights::allocate(&gpu, &specs);
    upload(&gpu, &weights, &specs);
    block_on(gpu.idle()).unwrap();
    println!("  weights of {name} drawn and written in {:.1} s", start.elapsed().as_secs_f64());
    let mut ways = Vec::new();
    for arithmetic in device::arithmetics(&gpu) {
        let options = device::options(&gpu, arithmetic);
        ways.push((format!("{arithmetic:?}"), options));
        if gpu.subgroup > 0 {
            ways.push((format!("{arithmetic:?}, without subgroups"), Options { subgroup: 0, ..options }));
        }
    }
    ways.push(("F32, stored as f32".to_owned(), Options { activations: Dtype::F32, ..plain }));
    for (called, options) in ways {
        if part.is_over() {
            return;
        }
        let start = Instant::now();
        let Recorded { plan, inputs: tensors, output } = record(&options);
        let executable = plan.instantiate(&gpu, &weights).unwrap();
        for (t, values) in inputs(&tensors) {
            executable.write(&gpu, t, &values).unwrap();
        }
        executable.run(&gpu);
        let error = expected.error(&block_on(executable.read(&gpu, output)).unwrap());
        if error.is_nan() || error > LIMIT {
            part.fail(&format!("{name}, {called}: {error:.1e}, at most {LIMIT:.0e}"));
        }
        part.row(json!([name, called, plan.dispatches().len(), error, LIMIT, start.elapsed().as_secs_f64()]));
    }
}

/// The part `parity`.
pub fn run(part: &mut Part) {
    part.begin_table(
        "Networks of Stable Diffusion 1.5 against torch in f32",
        &["network", "arithmetic", "dispatches", "relative L2 error", "limit", "seconds"],
    );
    compare(part, "small UNet, 8x8, two pictures", &SMALL, plans::small_unet);
    // A test has no time for the others.
    if !part.small {
        compare(part, "UNet, 64x64, two pictures", &UNET, |options| plans::unet(options, 64));
    }
    if !part.small && !part.is_over() {
        compare(part, "VAE decoder, 512x512", &DECODER, |options| plans::decoder(options, 64));
    }
}
