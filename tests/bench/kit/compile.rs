//! How long a cold machine compiles before it has a first picture of Stable Diffusion 1.5: every pipeline of its three
//! networks, one after the other and by all processors. `run.sh` switches the driver's caches off.

use crate::device;
use crate::part::Part;
use crate::plans;
use browser_diffusion::gpu::{Arithmetic, Binding, Dispatch, Dtype, Gpu, Kernel, Options, Plan};
use pollster::block_on;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

/// A pipeline to be made: its text, and which of its storage buffers it writes.
struct Source {
    name: String,
    text: String,
    writes: Vec<bool>,
}

fn sources(plans: &[Plan], shader_f16: bool) -> Vec<Source> {
    let mut all = BTreeMap::<Kernel, Source>::new();
    for dispatch in plans.iter().flat_map(|plan| plan.setup().iter().chain(plan.dispatches())) {
        all.entry(dispatch.kernel.clone()).or_insert_with(|| source(dispatch, shader_f16));
    }
    all.into_values().collect()
}

fn source(dispatch: &Dispatch, shader_f16: bool) -> Source {
    let defines = dispatch.kernel.defines.iter().filter(|(_, value)| *value > 0);
    let defines: Vec<String> = defines.map(|(name, value)| format!("{name}={value}")).collect();
    Source {
        name: format!("{} {}", dispatch.kernel.name, defines.join(" ")),
        text: dispatch.kernel.wgsl(shader_f16).unwrap(),
        writes: dispatch.bindings.iter().map(|b| matches!(b, Binding::Write(_))).collect(),
    }
}

/// Milliseconds until the pipeline is there. As src/gpu/context.rs makes it.
fn compile(device: &wgpu::Device, source: &Source) -> f64 {
    let start = Instant::now();
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(source.text.as_str().into()),
    });
    let uniform = std::iter::once(wgpu::BufferBindingType::Uniform);
    let storage = source.writes.iter().map(|write| wgpu::BufferBindingType::Storage { read_only: !write });
    let entries: Vec<_> = uniform
        .chain(storage)
        .enumerate()
        .map(|(i, ty)| wgpu::BindGroupLayoutEntry {
            binding: i as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        })
        .collect();
    let group =
        device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&group)],
        immediate_size: 0,
    });
    let _made = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: Some(&layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    });
    start.elapsed().as_secs_f64() * 1e3
}

/// A device as src/gpu/device.rs opens it.
fn open() -> wgpu::Device {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let wanted = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = block_on(instance.request_adapter(&wanted)).unwrap();
    let features = wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
    let descriptor =
        wgpu::DeviceDescriptor { required_features: adapter.features() & features, ..Default::default() };
    block_on(adapter.request_device(&descriptor)).unwrap().0
}

/// Of Stable Diffusion 1.5's text encoder, UNet and decoder; a test has the first alone.
fn of_a_picture(gpu: &Gpu, arithmetic: Arithmetic, small: bool) -> Vec<Source> {
    let options = device::options(gpu, arithmetic);
    // As in a pipeline: a text encoder's values lie as f32 where the arithmetic is f32.
    let activations = if arithmetic == Arithmetic::F16 { Dtype::F16 } else { Dtype::F32 };
    let mut all = vec![plans::text_encoder(&Options { activations, ..options })];
    if !small {
        all.extend([plans::unet(&options, 64).plan, plans::decoder(&options, 64).plan]);
    }
    sources(&all, gpu.shader_f16)
}

const COLUMNS: [&str; 6] = ["arithmetic", "pipelines", "KB of text", "threads", "seconds", "slowest, s"];

fn row(arithmetic: Arithmetic, sources: &[Source], threads: usize, seconds: f64, slowest: f64) -> Value {
    let bytes: usize = sources.iter().map(|s| s.text.len()).sum();
    json!([format!("{arithmetic:?}"), sources.len(), bytes as f64 / 1024.0, threads, seconds, slowest / 1e3])
}

/// The part `compile`: one pipeline after the other.
pub fn run(part: &mut Part) {
    let gpu = device::open();
    part.begin_table("Pipelines of a first picture, one after the other, the driver's caches off", &COLUMNS);
    let mut all = Vec::new();
    for arithmetic in device::arithmetics(&gpu) {
        let mut sources = of_a_picture(&gpu, arithmetic, part.small);
        let device = open();
        let mut times = Vec::new();
        while times.len() < sources.len() && !part.is_over() {
            times.push(compile(&device, &sources[times.len()]));
        }
        // Where time was short, those that were made.
        sources.truncate(times.len());
        let slowest = times.iter().copied().fold(0.0, f64::max);
        part.row(row(arithmetic, &sources, 1, times.iter().sum::<f64>() / 1e3, slowest));
        all.extend(times.into_iter().zip(sources).map(|(ms, source)| (ms, arithmetic, source)));
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    part.begin_details("Each pipeline", &["arithmetic", "ms", "KB of text", "kernel"]);
    for (ms, arithmetic, source) in all {
        let text = source.text.len() as f64 / 1024.0;
        part.row(json!([format!("{arithmetic:?}"), ms, text, source.name]));
    }
}

/// The part `compile-threads`: by all processors, in another process, since a driver may keep what it has made.
pub fn run_with_threads(part: &mut Part) {
    let gpu = device::open();
    part.begin_table("Pipelines of a first picture, by threads, the driver's caches off", &COLUMNS);
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    for arithmetic in device::arithmetics(&gpu) {
        let sources = of_a_picture(&gpu, arithmetic, part.small);
        let device = open();
        let start = Instant::now();
        let left = Mutex::new(sources.iter());
        let slowest = std::thread::scope(|scope| {
            let one = || {
                let mut slowest = 0f64;
                while let Some(source) = left.lock().ok().and_then(|mut left| left.next()) {
                    slowest = slowest.max(compile(&device, source));
                }
                slowest
            };
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
            all.into_iter().filter_map(|thread| thread.join().ok()).fold(0.0, f64::max)
        });
        part.row(row(arithmetic, &sources, threads, start.elapsed().as_secs_f64(), slowest));
    }
}
