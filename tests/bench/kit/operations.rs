//! Single operations at the sizes that models have: those that docs/benchmarks.md models for GPUs that are not here, and
//! attention of every width of head.

use crate::device::{self, Filled};
use crate::part::Part;
use crate::plans;
use browser_diffusion::gpu::{Arithmetic, Gpu, Options, Plan, Recorder, Tensor};
use browser_diffusion::ops::{self, Activation};
use serde_json::json;

/// An operation: what it reads, and its plan.
type Recorded = (String, Vec<Tensor>, Plan);

fn record(options: &Options, name: String, op: impl Fn(&mut Recorder) -> (Vec<Tensor>, Tensor)) -> Recorded {
    let mut r = Recorder::new(options);
    let (inputs, y) = op(&mut r);
    r.output(y);
    (name, inputs, r.finish())
}

/// FLOP a second of a GPU that is not reset for operations in one dispatch.
const QUICK: f64 = 4e12;

/// Pictures, heads, queries, keys, channels of a head, and whose it is.
type Attention = (u32, u32, u32, u32, u32, &'static str);
const ATTENTION: [Attention; 15] = [
    (2, 8, 4096, 4096, 40, "SD 1.5, 64x64"),
    (2, 8, 1024, 1024, 80, "SD 1.5, 32x32"),
    (2, 8, 256, 256, 160, "SD 1.5, 16x16"),
    (2, 8, 64, 64, 160, "SD 1.5, 8x8"),
    (2, 8, 4096, 77, 40, "SD 1.5, 64x64, words"),
    (2, 8, 1024, 77, 80, "SD 1.5, 32x32, words"),
    (2, 8, 256, 77, 160, "SD 1.5, 16x16, words"),
    (2, 5, 4096, 4096, 64, "SD 2.1, 64x64"),
    (2, 10, 4096, 4096, 64, "SDXL, 64x64"),
    (2, 20, 1024, 1024, 64, "SDXL, 32x32"),
    (2, 10, 4096, 77, 64, "SDXL, 64x64, words"),
    (2, 20, 1024, 77, 64, "SDXL, 32x32, words"),
    (2, 12, 77, 77, 64, "CLIP"),
    (1, 1, 4096, 4096, 512, "VAE, 512x512"),
    (1, 1, 16384, 16384, 512, "VAE, 1024x1024"),
];

fn attention(options: &Options, (n, heads, queries, keys, d, whose): Attention) -> Recorded {
    let name = format!("attention {n} x {heads} heads of {d}, {queries} x {keys} ({whose})");
    record(options, name, |r| {
        let q = r.input(n, 1, queries, heads * d);
        let [k, v] = [(); 2].map(|()| r.input(n, 1, keys, heads * d));
        (vec![q, k, v], ops::attention(r, q, k, v, heads, false).unwrap())
    })
}

/// The eight that `ort.md` and docs/benchmarks.md model beside attention, of a step with guidance.
fn modelled(options: &Options) -> Vec<Recorded> {
    let conv = |side: u32, c: u32| (format!("conv {c}@{side}"), (true, side, c, c));
    let gemm = |side: u32, k: u32, n: u32| (format!("gemm {}x{k}x{n}", side * side), (false, side, k, n));
    let products = [
        conv(64, 320),
        conv(32, 640),
        conv(16, 1280),
        gemm(64, 320, 320),
        gemm(64, 320, 2560),
        gemm(32, 640, 5120),
    ];
    let mut all: Vec<Recorded> = products
        .into_iter()
        .map(|(name, example)| {
            let (plan, x) = plans::product_and_input(options, example);
            (name, vec![x], plan)
        })
        .collect();
    all.push(record(options, "GroupNorm+SiLU".to_owned(), |r| {
        let x = r.input(2, 64, 64, 320);
        (vec![x], ops::group_norm(r, x, "y", 32, 1e-5, Activation::Silu).unwrap())
    }));
    all.push(record(options, "LayerNorm".to_owned(), |r| {
        let x = r.input(2, 1, 4096, 320);
        (vec![x], ops::layer_norm(r, x, "y", 1e-5).unwrap())
    }));
    all
}

fn table(part: &mut Part, gpu: &Gpu, title: &str, peak: f64, all: Vec<Recorded>) {
    part.begin_table(
        title,
        &["what", "dispatches", "best, ms", "median, ms", "TFLOP/s", "% of peak in f32", "GB/s"],
    );
    for (name, inputs, plan) in all {
        if part.is_over() {
            return;
        }
        let filled = Filled::new(gpu, &plan, &inputs);
        let (least, middle) = device::time(gpu, &filled.executable, part);
        let flops = plan.dispatches().iter().map(|d| d.flops as f64).sum::<f64>();
        part.row(json!([
            name,
            plan.dispatches().len(),
            least,
            middle,
            flops / middle / 1e9,
            1e5 * flops / middle / peak,
            plan.bytes_moved() as f64 / middle / 1e6,
        ]));
    }
}

/// The part `operations`.
pub fn run(part: &mut Part) {
    let gpu = device::open();
    let peak = device::peak(&gpu, part);
    let small = part.small;
    // Both arithmetics have the same kernels for attention.
    let wide = device::options(&gpu, Arithmetic::F32);
    let smaller = |a: Attention| if small { (1, 1, a.2.min(64), a.3.min(64), a.4, a.5) } else { a };
    let all = ATTENTION.into_iter().map(|a| attention(&wide, smaller(a))).collect();
    table(part, &gpu, "Attention", peak, all);
    if peak > QUICK {
        let cut = |&a: &Attention| attention(&wide, a).2.dispatches().len() > 1;
        let uncut = device::uncut(&wide);
        let all = ATTENTION.into_iter().filter(cut).map(|a| attention(&uncut, a)).collect();
        table(part, &gpu, "Attention that is cut above, uncut", peak, all);
    }
    // A test has had two such products among its tiles.
    for arithmetic in device::arithmetics(&gpu).into_iter().filter(|_| !small) {
        let all = modelled(&device::options(&gpu, arithmetic));
        table(part, &gpu, &format!("Other operations, {arithmetic:?} arithmetic"), peak, all);
    }
}
