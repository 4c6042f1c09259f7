//! One step of Stable Diffusion 1.5's UNet with guidance, random weights: what each class of kernels does of the
//! multiply-adds that this driver was measured to do at the most.

use crate::device::{self, Filled};
use crate::part::{Part, median};
use crate::plans::{self, Recorded};
use browser_diffusion::gpu::{Arithmetic, Dispatch, Gpu, Options, Plan, Timing};
use pollster::block_on;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Instant;

/// What a dispatch computes: kernel and sizes.
pub fn shape(dispatch: &Dispatch) -> String {
    let param =
        |name: &str| dispatch.params.iter().find(|(key, _)| *key == name).map_or(0, |(_, v)| v.word());
    let define = |name: &str| dispatch.kernel.defines.iter().find(|(key, _)| *key == name).map_or(0, |d| d.1);
    let name = dispatch.kernel.name;
    match name {
        "conv" | "matmul" => {
            let rows = param("m") - param("m_base");
            let mut what = format!("{name} {rows} x {} x {}", param("n"), 4 * param("k4"));
            for (key, called) in [("LAYER_NORM", "norm"), ("GEGLU", "GEGLU"), ("SHORTCUT", "shortcut")] {
                if define(key) > 0 {
                    what = format!("{what}, {called}");
                }
            }
            what
        }
        _ if name.starts_with("attention") => {
            let (queries, keys) = (param("length_q"), param("length_k"));
            format!("{name} {} heads of {}, {queries} x {keys}", param("heads"), 4 * define("D4"))
        }
        _ => name.to_owned(),
    }
}

/// Rows and channels of a product's workgroup.
pub fn tile(dispatch: &Dispatch) -> String {
    let define = |name: &str| dispatch.kernel.defines.iter().find(|(key, _)| *key == name).map_or(0, |d| d.1);
    if define("SUBGROUP") > 0 {
        let (rows, columns) = (define("ROWS") * define("SY"), 4 * define("SUBGROUP") * define("SX"));
        format!("{rows}x{columns} by subgroups, {} rows", define("ROWS"))
    } else if define("BLOCKS") > 0 {
        format!("128x{} by Winograd's way", 16 * define("BLOCKS"))
    } else if define("SPLIT") > 0 {
        format!("{}x4 split", define("TM"))
    } else {
        format!("{}x{}", define("TM") * define("WY"), 4 * define("WX") * define("TN"))
    }
}

/// What was measured of a step: for each dispatch the median over some runs.
pub struct Measured {
    pub timings: Vec<Timing>,
    /// From the first submit to the end of the last of some steps in a row, for one, ms: median.
    pub wall: f64,
    pub encode: f64,
    /// Of the first step, everything compiled.
    pub instantiate: f64,
}

impl Measured {
    /// Milliseconds of all dispatches.
    pub fn sum(&self) -> f64 {
        self.timings.iter().map(|t| t.nanoseconds / 1e6).sum()
    }
}

/// Times a step that is recorded as `plan`.
pub fn measure(gpu: &Gpu, plan: &Plan, inputs: &[browser_diffusion::gpu::Tensor], part: &Part) -> Measured {
    let start = Instant::now();
    let step = Filled::new(gpu, plan, inputs);
    let instantiate = start.elapsed().as_secs_f64() * 1e3;
    let one = || {
        let start = Instant::now();
        step.executable.run(gpu);
        block_on(gpu.idle()).unwrap();
        start.elapsed().as_secs_f64() * 1e3
    };
    let first = one();
    // A second of work, then: clocks are up.
    let turns = if part.small { 0 } else { (1000.0 / first).ceil().clamp(0.0, 10.0) as usize };
    for _ in 0..turns {
        one();
    }
    let mut walls = vec![one()];
    let mut all: Vec<Vec<Timing>> = vec![block_on(step.executable.run_timed(gpu)).unwrap()];
    // Some seconds at the most.
    let begun = Instant::now();
    while walls.len() < 7 && begun.elapsed().as_secs() < 5 && !part.small && !part.is_over() {
        // As a pipeline does, without a wait between two.
        let start = Instant::now();
        (0..3).for_each(|_| step.executable.run(gpu));
        block_on(gpu.idle()).unwrap();
        walls.push(start.elapsed().as_secs_f64() * 1e3 / 3.0);
        all.push(block_on(step.executable.run_timed(gpu)).unwrap());
    }
    let middle = |i: usize, one: &Timing| {
        let nanoseconds = median(all.iter().map(|run| run[i].nanoseconds).collect());
        Timing { nanoseconds, ..one.clone() }
    };
    let timings = all[0].iter().enumerate().map(|(i, one)| middle(i, one)).collect();
    let encode = step.executable.counters(gpu).encode_ms;
    Measured { timings, wall: median(walls), encode, instantiate }
}

const WHOLE: [&str; 9] = [
    "arithmetic",
    "tiles",
    "dispatches",
    "sum of dispatches, ms",
    "wall, ms",
    "encode, ms",
    "TFLOP",
    "TFLOP/s",
    "% of peak in f32",
];

pub fn begin_whole(part: &mut Part, title: &str) {
    part.begin_table(title, &WHOLE);
}

/// A row for the whole step.
pub fn whole(
    part: &mut Part,
    measured: &Measured,
    plan: &Plan,
    arithmetic: Arithmetic,
    tiles: &str,
    peak: f64,
) {
    let flops = plan.dispatches().iter().map(|d| d.flops as f64).sum::<f64>();
    let sum = measured.sum();
    // Where there are no timestamps, only the wall clock tells.
    let ms = if measured.timings.is_empty() { measured.wall } else { sum };
    part.row(json!([
        format!("{arithmetic:?}"),
        tiles,
        plan.dispatches().len(),
        sum,
        measured.wall,
        measured.encode,
        flops / 1e12,
        flops / ms / 1e9,
        1e5 * flops / ms / peak,
    ]));
}

/// What is added up for a row.
#[derive(Default)]
struct Sum {
    count: usize,
    ms: f64,
    flops: f64,
    bytes: f64,
    workgroups: u32,
    tile: String,
}

impl Sum {
    fn add(&mut self, plan: &Plan, dispatch: &Dispatch, timing: &Timing) {
        self.count += 1;
        self.ms += timing.nanoseconds / 1e6;
        self.flops += dispatch.flops as f64;
        self.bytes += plan.bytes(dispatch) as f64;
        self.workgroups = dispatch.workgroups.iter().product();
        if ["conv", "matmul"].contains(&dispatch.kernel.name) {
            self.tile = tile(dispatch);
        }
    }

    /// TFLOP/s, how many percent of the peak they are, and GB/s.
    fn rates(&self, peak: f64) -> [f64; 3] {
        let rate = self.flops / self.ms;
        [rate / 1e9, 1e5 * rate / peak, self.bytes / self.ms / 1e6]
    }
}

/// What is timed: at 64x64 latents, if no other side was asked for.
pub fn recorded(part: &Part, options: &Options) -> Recorded {
    if part.small { plans::small_unet(options) } else { plans::unet(options, part.side.unwrap_or(64)) }
}

fn one(part: &mut Part, gpu: &Gpu, options: &Options, peak: f64) {
    let Recorded { plan, inputs, .. } = recorded(part, options);
    let side = inputs[0].h;
    let measured = measure(gpu, &plan, &inputs, part);
    let arithmetic = options.arithmetic;
    begin_whole(part, &format!("A step at {side}x{side} latents, {arithmetic:?} arithmetic"));
    whole(part, &measured, &plan, arithmetic, "shipped", peak);
    // A slow GPU might be reset for it.
    if measured.wall < 500.0 {
        let uncut = recorded(part, &device::uncut(options));
        let in_one = measure(gpu, &uncut.plan, &uncut.inputs, part);
        whole(part, &in_one, &uncut.plan, arithmetic, "shipped, nothing cut", peak);
    }
    println!("  compiled, and its weights made, in {:.0} ms", measured.instantiate);
    let (mut classes, mut shapes) = (BTreeMap::<&str, Sum>::new(), BTreeMap::<String, Sum>::new());
    for (dispatch, timing) in plan.dispatches().iter().zip(&measured.timings) {
        classes.entry(timing.kernel).or_default().add(&plan, dispatch, timing);
        shapes.entry(shape(dispatch)).or_default().add(&plan, dispatch, timing);
    }
    let sum = measured.sum();
    part.begin_table(
        &format!("By kernel, {arithmetic:?} arithmetic"),
        &["kernel", "dispatches", "ms", "% of the step", "GFLOP", "TFLOP/s", "% of peak in f32", "GB/s"],
    );
    for (name, s) in &classes {
        let [rate, of_peak, moved] = s.rates(peak);
        part.row(json!([name, s.count, s.ms, 100.0 * s.ms / sum, s.flops / 1e9, rate, of_peak, moved]));
    }
    part.begin_table(
        &format!("By shape (rows x channels x inputs), {arithmetic:?} arithmetic"),
        &["what", "tile", "workgroups", "dispatches", "ms each", "TFLOP/s", "% of peak in f32", "GB/s"],
    );
    for (name, s) in &shapes {
        let [rate, of_peak, moved] = s.rates(peak);
        let each = s.ms / s.count as f64;
        part.row(json!([name, s.tile, s.workgroups, s.count, each, rate, of_peak, moved]));
    }
    part.begin_details(
        &format!("Each dispatch, {arithmetic:?} arithmetic"),
        &["what", "tile", "workgroups", "ms", "FLOP", "bytes"],
    );
    for (dispatch, timing) in plan.dispatches().iter().zip(&measured.timings) {
        let product = ["conv", "matmul"].contains(&dispatch.kernel.name);
        let (tile, ms) = (product.then(|| tile(dispatch)), timing.nanoseconds / 1e6);
        part.row(json!([
            shape(dispatch),
            tile,
            dispatch.workgroups,
            ms,
            dispatch.flops,
            plan.bytes(dispatch)
        ]));
    }
}

/// The part `step`.
pub fn run(part: &mut Part) {
    let gpu = device::open();
    let peak = device::peak(&gpu, part);
    println!("{}: {:.2} TFLOP/s in f32 at the most", gpu.name, peak / 1e12);
    for arithmetic in device::arithmetics(&gpu) {
        if !part.is_over() {
            one(part, &gpu, &device::options(&gpu, arithmetic), peak);
        }
    }
}
