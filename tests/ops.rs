//! Every op against an f64 reference, on the machine's Vulkan driver: with shader-f16, and as on adapters
//! without it.

mod cases;

use browser_diffusion::gpu::{Arithmetic, Dtype, Gpu, GpuOptions, Options, Recorder, Weights};
use browser_diffusion::ops::{self, Epilogue};
use pollster::block_on;

fn check(options: &GpuOptions) {
    let gpu = block_on(Gpu::new(options)).unwrap();
    let outcomes = block_on(cases::all(&gpu, 1));
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|o| !o.passed())
        .map(|o| format!("{}: {:.2e} > {:.2e}", o.name, o.error, o.tolerance))
        .collect();
    let worst =
        outcomes.iter().filter(|o| o.tolerance > 0.0).map(|o| o.error / o.tolerance).fold(0.0, f64::max);
    println!("{} comparisons on {}, worst at {worst:.2} of its tolerance", outcomes.len(), gpu.name);
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), outcomes.len(), failed.join("\n"));
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
    let h = ops::linear(&mut r, x, "a", 512, false, Epilogue::default()).unwrap();
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
