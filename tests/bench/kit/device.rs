//! The GPU under test, opened as the engine opens it.

use crate::part::Part;
use crate::probes;
use browser_diffusion::gpu::choices::{broadcasts, shipped};
use browser_diffusion::gpu::{
    Arithmetic, Executable, Gpu, GpuOptions, MAX_DISPATCH_FLOPS, Options, Plan, Tensor, Weights,
};
use pollster::block_on;
use serde_json::json;
use std::time::{Duration, Instant};

pub fn open() -> Gpu {
    block_on(Gpu::new(&GpuOptions::default())).unwrap_or_else(|e| {
        eprintln!("{e}");
        std::process::exit(3);
    })
}

/// A maker's name as browsers give it, of the PCI number that a native adapter gives.
pub fn maker(vendor: &str) -> &str {
    match vendor {
        "0x10de" => "nvidia",
        "0x1002" => "amd",
        "0x8086" => "intel",
        "0x106b" => "apple",
        "0x5143" => "qualcomm",
        "0x13b5" => "arm",
        other => other,
    }
}

/// How a page would record plans here before anything was timed.
pub fn options(gpu: &Gpu, arithmetic: Arithmetic) -> Options {
    Options {
        arithmetic,
        subgroup: gpu.subgroup,
        subgroup_if_tuned: !broadcasts(&gpu.vendor),
        choices: shipped(maker(&gpu.vendor), &gpu.architecture),
        off: gpu.off(),
        rolled: gpu.software,
        ..Options::default()
    }
}

/// The same with every operation in one dispatch, which slow GPUs would be reset for.
pub fn uncut(options: &Options) -> Options {
    Options { max_dispatch_flops: 1000 * MAX_DISPATCH_FLOPS, ..*options }
}

/// Those that this adapter has.
pub fn arithmetics(gpu: &Gpu) -> Vec<Arithmetic> {
    let half = gpu.shader_f16.then_some(Arithmetic::F16);
    std::iter::once(Arithmetic::F32).chain(half).collect()
}

/// A plan over random weights and inputs, compiled.
pub struct Filled {
    pub executable: Executable,
    /// Held as long as it runs.
    _weights: Weights,
}

impl Filled {
    pub fn new(gpu: &Gpu, plan: &Plan, inputs: &[Tensor]) -> Self {
        let weights = Weights::allocate(gpu, plan.weights());
        weights.fill(gpu);
        let executable = plan.instantiate(gpu, &weights).unwrap();
        for t in inputs {
            executable.fill(gpu, *t).unwrap();
        }
        block_on(gpu.idle()).unwrap();
        Self { executable, _weights: weights }
    }
}

/// The most FLOP a second in f32, a multiply-add counting two, of a GPU that was kept at work until its clocks were up.
pub fn peak(gpu: &Gpu, part: &Part) -> f64 {
    let end = Instant::now() + Duration::from_millis(if part.small { 20 } else { 500 });
    let probes = [true, false].map(|square| probes::multiply_add(gpu, Arithmetic::F32, square, part.small));
    while Instant::now() < end {
        block_on(probes[0].0.executable.time(gpu, 1)).unwrap();
    }
    let rates = probes.iter().map(|(probe, flops)| 1e3 * flops / time(gpu, &probe.executable, part).0);
    rates.fold(0.0, f64::max)
}

/// Least and median milliseconds of one run, each over as many runs in a row as take 10 ms.
pub fn time(gpu: &Gpu, executable: &Executable, part: &Part) -> (f64, f64) {
    let (enough, turns) = if part.small { (1.0, 2) } else { (10.0, 7) };
    let time = |runs: usize| block_on(executable.time(gpu, runs)).unwrap() / runs as f64;
    time(1);
    let once = time(1).max(1e-3);
    let runs = (enough / once).ceil().clamp(1.0, 500.0) as usize;
    let mut times = vec![time(runs)];
    while times.len() < turns && !part.is_over() {
        times.push(time(runs));
    }
    (times.iter().copied().fold(f64::INFINITY, f64::min), crate::part::median(times))
}

/// The part `adapter`.
pub fn run(part: &mut Part) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    // As src/gpu/device.rs asks.
    let wanted = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = match block_on(instance.request_adapter(&wanted)) {
        Ok(adapter) => adapter,
        Err(e) => return part.fail(&format!("no Vulkan adapter: {e}")),
    };
    let (info, limits) = (adapter.get_info(), adapter.limits());
    let gpu = open();
    part.begin_table("The adapter", &["what", "as it says"]);
    for (what, value) in [
        ("name", json!(info.name)),
        ("kind", json!(format!("{:?}", info.device_type))),
        ("driver", json!(format!("{} {}", info.driver, info.driver_info))),
        ("maker", json!(maker(&gpu.vendor))),
        (
            "subgroups, least and most lanes",
            json!(format!("{} {}", info.subgroup_min_size, info.subgroup_max_size)),
        ),
        ("subgroups that kernels broadcast in", json!(gpu.subgroup)),
        ("shader-f16", json!(gpu.shader_f16)),
        ("timestamps", json!(gpu.timestamps)),
        ("workgroup memory, bytes", json!(limits.max_compute_workgroup_storage_size)),
        ("largest binding, bytes", json!(limits.max_storage_buffer_binding_size)),
        ("tiles that are off", json!(format!("{:b}", gpu.off()))),
    ] {
        part.row(json!([what, value]));
    }
}
