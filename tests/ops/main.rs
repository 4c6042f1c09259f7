//! Every op against an f64 reference, on the machine's Vulkan driver: with shader-f16, and as on adapters
//! without it.

mod cases;

use browser_diffusion::gpu::{
    Arithmetic, Dtype, Gpu, GpuOptions, MAX_DISPATCH_FLOPS, Options, Recorder, Weights,
};
use browser_diffusion::ops::{self, Columns, Epilogue};
use cases::{On, Outcome};
use pollster::block_on;
use std::collections::{BTreeMap, BTreeSet};

fn check(options: &GpuOptions) {
    let gpu = block_on(Gpu::new(options)).unwrap();
    let on = On { gpu: &gpu, cut: true };
    let mut outcomes = Vec::new();
    for (way, options) in cases::ways(&gpu) {
        outcomes.extend(block_on(cases::of_way(&on, way, options, 1)));
    }
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|o| !o.passed())
        .map(|o| format!("{}: {:.2e} > {:.2e}", o.name, o.error, o.tolerance))
        .collect();
    let worst =
        outcomes.iter().filter(|o| o.tolerance > 0.0).map(|o| o.error / o.tolerance).fold(0.0, f64::max);
    println!("{} comparisons on {}, worst at {worst:.2} of its tolerance", outcomes.len(), gpu.name);
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), outcomes.len(), failed.join("\n"));
    let mut cut = BTreeMap::<&str, usize>::new();
    for (kernel, _) in outcomes.iter().filter_map(|o| o.cut).filter(|(_, dispatches)| *dispatches >= 3) {
        *cut.entry(kernel).or_default() += 1;
    }
    println!("cut into three dispatches or more: {cut:?}");
    let narrow = (gpu.subgroup > 0).then_some("attention_subgroup");
    for kernel in ["conv", "matmul", "attention"].into_iter().chain(narrow) {
        assert!(cut.get(kernel).is_some_and(|&n| n >= 4), "{kernel} was hardly cut: {cut:?}");
    }
    if gpu.subgroup == 0 {
        let few = block_on(cases::every_branch(&On { gpu: &gpu, cut: false }));
        assert!(few.iter().all(Outcome::passed));
        let (all, few) = (branches(&outcomes), branches(&few));
        let lacks = all.difference(&few).map(|(file, name, taken)| format!("#if {name} {taken} in:\n{file}"));
        assert_eq!(lacks.collect::<Vec<_>>().join("\n"), "", "every_branch lacks these");
    }
}

/// The files of which kernels were compiled, and how each `#if` in them was taken.
fn branches(outcomes: &[Outcome]) -> BTreeSet<(&'static str, &'static str, bool)> {
    let mut taken = BTreeSet::new();
    for kernel in outcomes.iter().flat_map(|outcome| &outcome.kernels) {
        for &file in &kernel.files {
            taken.insert((file, "", true));
            let asks = |line: &str, name| {
                line.strip_prefix("#if ").is_some_and(|asked| asked.trim_start_matches('!') == name)
            };
            let asked = kernel.defines.iter().filter(|(name, _)| file.lines().any(|line| asks(line, *name)));
            taken.extend(asked.map(|&(name, value)| (file, name, value > 0)));
        }
    }
    taken
}

#[test]
fn ops_with_shader_f16() {
    check(&GpuOptions::default());
}

#[test]
fn ops_without_shader_f16() {
    check(&GpuOptions { without_shader_f16: true, ..Default::default() });
}

#[test]
fn ops_without_subgroups() {
    check(&GpuOptions { without_subgroups: true, ..Default::default() });
}

#[test]
fn self_test_accepts_this_adapter() {
    for (precision, arithmetic, activations) in [
        (ops::Precision::Auto, Arithmetic::F32, Dtype::F16),
        (ops::Precision::F32, Arithmetic::F32, Dtype::F32),
        (ops::Precision::F16, Arithmetic::F16, Dtype::F16),
    ] {
        let (gpu, options) = block_on(ops::open(precision)).unwrap();
        assert!(gpu.shader_f16, "{} has shader-f16, and it is right", gpu.name);
        assert_eq!((options.arithmetic, options.activations), (arithmetic, activations));
        assert_eq!(options.subgroup, gpu.subgroup, "its subgroups are right, too");
    }
}

#[test]
fn every_dispatch_is_timed() {
    let gpu = block_on(Gpu::new(&GpuOptions::default())).unwrap();
    let mut r = Recorder::new(&Options::default());
    let x = r.input(1, 1, 256, 256);
    let h = ops::linear_no_bias(&mut r, x, "a", 512, Epilogue::default()).unwrap();
    let y = ops::layer_norm(&mut r, h, "b", 1e-5).unwrap();
    r.output(y);
    let plan = r.finish();
    let weights = Weights::allocate(&gpu, plan.weights());
    let executable = plan.instantiate(&gpu, &weights).unwrap();
    let timings = block_on(executable.run_timed(&gpu)).unwrap();
    assert!(gpu.timestamps);
    assert_eq!(timings.iter().map(|t| t.kernel).collect::<Vec<_>>(), ["matmul", "layer_norm"]);
    assert_eq!(timings[0].flops, 2 * 256 * 256 * 512);
    // 67 million operations take longer than a microsecond on anything that runs these tests.
    assert!(timings[0].nanoseconds > 1000.0 && timings[1].nanoseconds > 0.0, "{timings:?}");
}

/// What is recorded as a setup runs again when its input was written, not at every run, and then as it would have.
#[test]
fn a_setup_follows_its_input() {
    let gpu = block_on(Gpu::new(&GpuOptions::default())).unwrap();
    let record = |apart: bool| {
        let mut r = Recorder::new(&Options::default());
        let (x, context) = (r.input(1, 1, 5, 16), r.input(1, 1, 7, 24));
        let keys = |r: &mut Recorder| ops::linear_stack_no_bias(r, context, &[("k", 16), ("v", 16)]);
        let kv = if apart { r.setup(keys) } else { keys(&mut r) }.unwrap();
        let h = ops::attention(&mut r, x, kv[0], kv[1], 2, false).unwrap();
        let y = ops::linear_no_bias(&mut r, h, "out", 16, Epilogue::default()).unwrap();
        r.output(y);
        (r.finish(), x, context, y)
    };
    let (plan, x, context, y) = record(true);
    assert_eq!((plan.setup().len(), plan.dispatches().len()), (1, 2));
    let weights = Weights::allocate(&gpu, plan.weights());
    let wave = |len: usize, seed: f32| (0..len).map(|i| (i as f32 * 0.7 + seed).sin()).collect::<Vec<_>>();
    for (i, (name, len)) in [("k", 16 * 24), ("v", 16 * 24), ("out", 256)].into_iter().enumerate() {
        weights.upload(&gpu, &format!("{name}.weight"), &wave(len, i as f32)).unwrap();
    }
    let ours = plan.instantiate(&gpu, &weights).unwrap();
    let (whole, x_whole, context_whole, y_whole) = record(false);
    let whole = whole.instantiate(&gpu, &weights).unwrap();
    let mut last = Vec::new();
    for (step, (new_x, new_context)) in
        [(1.0, 1.0), (2.0, 1.0), (2.0, 3.0), (4.0, 3.0)].into_iter().enumerate()
    {
        ours.write(&gpu, x, &wave(80, new_x)).unwrap();
        whole.write(&gpu, x_whole, &wave(80, new_x)).unwrap();
        whole.write(&gpu, context_whole, &wave(168, new_context)).unwrap();
        if step % 2 == 0 {
            ours.write(&gpu, context, &wave(168, new_context)).unwrap();
        }
        ours.run(&gpu);
        whole.run(&gpu);
        let got = block_on(ours.read(&gpu, y)).unwrap();
        assert_eq!(got, block_on(whole.read(&gpu, y_whole)).unwrap(), "step {step}");
        assert_ne!(got, last);
        last = got;
    }
    let counters = ours.counters(&gpu);
    assert_eq!((counters.dispatches, counters.submits), (2, 1));
    // x, k and v, h, twice; the matrix, y and the word that tells of overflow.
    assert_eq!(counters.bytes, 2 * (80 + 7 * 32 + 80 + 80 + 256 + 80) + 4);

    let mut r = Recorder::new(&Options::default());
    let x = r.input(1, 1, 5, 16);
    let h = ops::linear_no_bias(&mut r, x, "a", 16, Epilogue::default()).unwrap();
    assert!(r.setup(|r| ops::linear_no_bias(r, h, "b", 16, Epilogue::default())).is_err());
}

/// Attention of more than one dispatch holds: rows on both sides of the cut against the same in f64.
#[test]
fn attention_is_cut_into_dispatches() {
    let gpu = block_on(Gpu::new(&GpuOptions::default())).unwrap();
    for subgroup in BTreeSet::from([0, gpu.subgroup]) {
        cut_attention(&gpu, &Options { subgroup, ..Options::default() });
    }
}

fn cut_attention(gpu: &Gpu, options: &Options) {
    let (length, heads, d) = (4400, 8, 40);
    let c = heads * d;
    let mut r = Recorder::new(options);
    let qkv = r.input(1, 1, length as u32, 3 * c as u32);
    let [q, k, v] = [0, 1, 2].map(|i| Columns::nth(qkv, i, c as u32));
    let y = ops::attention(&mut r, q, k, v, heads as u32, false).unwrap();
    r.output(y);
    let plan = r.finish();
    let [first, _] = plan.dispatches() else { panic!("{} dispatches", plan.dispatches().len()) };
    assert!(plan.dispatches().iter().all(|d| d.flops <= MAX_DISPATCH_FLOPS));
    let cut = (first.flops / (4 * (c * length) as u64)) as usize;
    let executable = plan.instantiate(gpu, &Weights::allocate(gpu, &[])).unwrap();
    // Sixteenths, which f16 holds, without a pattern.
    let values: Vec<f32> = (0..length * 3 * c)
        .map(|i| (((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % 65) as f32 / 16.0 - 2.0)
        .collect();
    executable.write(gpu, qkv, &values).unwrap();
    executable.run(gpu);
    let got = block_on(executable.read(gpu, y)).unwrap();
    let at = |part: usize, row: usize, head: usize| &values[row * 3 * c + part * c + head * d..][..d];
    let (mut off, mut size) = (0.0, 0.0);
    for row in [0, cut - 1, cut, cut + 1, length - 1] {
        for head in 0..heads {
            let dot = |key: usize| {
                at(0, row, head).iter().zip(at(1, key, head)).map(|(q, k)| f64::from(q * k)).sum::<f64>()
            };
            let weights: Vec<f64> = (0..length).map(|key| (dot(key) / (d as f64).sqrt()).exp()).collect();
            let total: f64 = weights.iter().sum();
            for e in 0..d {
                let values = (0..length).map(|key| weights[key] * f64::from(at(2, key, head)[e]));
                let wanted = values.sum::<f64>() / total;
                off += (f64::from(got[row * c + head * d + e]) - wanted).powi(2);
                size += wanted * wanted;
            }
        }
    }
    // As cases::attention: the output is rounded once.
    let (error, most) = ((off / size).sqrt(), 1.0 / 2048.0 + (length + d) as f64 / (1u64 << 24) as f64);
    println!("attention in two dispatches, subgroups of {}: {error:.1e} of {most:.1e}", options.subgroup);
    assert!(error <= most, "{error}");
}
