//! Every tile that the tuner may choose, for every class of product that it chooses for.

use crate::device;
use crate::part::{Part, median};
use crate::plans::{self, Recorded};
use crate::step;
use browser_diffusion::gpu::{Arithmetic, Gpu, Options};
use browser_diffusion::ops::autotune::{self, EXAMPLES, Example, Timer};
use pollster::block_on;
use serde_json::{Value, json};

/// Of a test.
const SMALL: [Example; 2] = [(true, 8, 64, 64), (false, 8, 64, 128)];

/// As docs/benchmarks.md counts them, two pictures together.
fn flops((conv, side, c, out): Example) -> f64 {
    2.0 * 2.0 * f64::from(side * side) * f64::from(c) * f64::from(out) * if conv { 9.0 } else { 1.0 }
}

fn name((conv, side, c, out): Example) -> String {
    format!("{} {c} to {out} at {side}x{side}", if conv { "conv 3x3" } else { "product" })
}

/// Times every candidate for `example`: its row, and the fastest.
fn one(part: &Part, gpu: &Gpu, options: &Options, example: Example, peak: f64) -> (Vec<Value>, usize) {
    let timer = block_on(Timer::new(gpu, options, example)).unwrap();
    let all: Vec<usize> = (0..timer.candidates()).collect();
    let (counts, _) = block_on(autotune::count(&timer, all.len(), || false)).unwrap().unwrap();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
    while times[0].is_empty() || (times[0].len() < 5 && !part.small && !part.is_over()) {
        for (of, time) in times.iter_mut().zip(block_on(autotune::one_run(&timer, &counts, &all)).unwrap()) {
            of.push(time);
        }
    }
    let rates: Vec<f64> = times.into_iter().map(|of| flops(example) / median(of) / 1e6).collect();
    let fastest = all.iter().copied().max_by(|&a, &b| rates[a].total_cmp(&rates[b])).unwrap_or(timer.usual);
    let tile = |i: usize| timer.plan(i).dispatches().first().map(step::tile);
    let mut row = vec![json!(name(example)), json!(tile(timer.usual)), json!(tile(fastest))];
    row.push(json!(rates[timer.usual] / rates[fastest]));
    row.push(json!(1e11 * rates[fastest] / peak));
    row.extend(rates.iter().map(|rate| json!(rate)));
    (row, fastest)
}

/// Names of the candidates.
fn columns(options: &Options) -> Vec<String> {
    let example = SMALL[0];
    let name = |i: usize| {
        let mut options = *options;
        options.choices.set(autotune::class(example), Some(i));
        plans::product(&options, example).dispatches().first().map_or(String::new(), step::tile)
    };
    (0..autotune::candidates(options)).map(name).collect()
}

/// A step with what was found to be fastest.
fn tuned(part: &mut Part, gpu: &Gpu, options: &Options, arithmetic: Arithmetic, peak: f64) {
    let Recorded { plan, inputs, .. } = step::recorded(part, options);
    let measured = step::measure(gpu, &plan, &inputs, part);
    step::begin_whole(part, &format!("A step with the fastest tiles, {arithmetic:?} arithmetic"));
    step::whole(part, &measured, &plan, arithmetic, "fastest here", peak);
}

/// The part `tiles`.
pub fn run(part: &mut Part) {
    let gpu = device::open();
    let peak = device::peak(&gpu, part);
    let examples: &[Example] = if part.small { &SMALL } else { &EXAMPLES };
    for arithmetic in device::arithmetics(&gpu) {
        let mut options = device::options(&gpu, arithmetic);
        let names = columns(&options);
        let mut columns = vec!["what", "chosen", "fastest", "chosen of fastest", "fastest, % of peak in f32"];
        columns.extend(names.iter().map(String::as_str));
        part.begin_table(&format!("GFLOP/s of every tile, {arithmetic:?} arithmetic"), &columns);
        for &example in examples {
            if part.is_over() {
                return;
            }
            let (row, fastest) = one(part, &gpu, &options, example, peak);
            part.row(Value::Array(row));
            options.choices.set(autotune::class(example), Some(fastest));
        }
        tuned(part, &gpu, &options, arithmetic, peak);
    }
}
