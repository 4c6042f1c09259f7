//! `./build.sh bench --step [--side N] [--json FILE]`: one step of Stable Diffusion 1.5's UNet with guidance, random
//! weights, on the machine's own Vulkan driver: what each class of kernels does of the multiply-adds that this driver
//! was measured to do at the most.

#[path = "../support/unet_plan.rs"]
mod unet_plan;

use browser_diffusion::gpu::{
    Arithmetic, Binding, Dispatch, Executable, Gpu, GpuOptions, Kernel, Options, Recorder, Scalar, Weights,
};
use pollster::block_on;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Eight independent chains of vec4 a thread, CHAINS * 4 * ROUNDS multiply-adds; the result is stored only where it
/// is what it cannot be. As `www/bench/probes.js` does it.
const PROBE: &str = "
@group(0) @binding($binding) var<storage, read_write> out: array<vec4f>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  let x = f32(id.x & 63u) * 0.001;
  let scale = vec4f(0.5 + x);
  let shift = vec4f(0.25, 0.125, x, 0.5);
#for i CHAINS
  var a_$i = shift + $i.0;
#endfor
  for (var i = 0u; i < p.rounds; i++) {
#for i CHAINS
    a_$i = fma(a_$i, scale, shift);
#endfor
  }
  var sum = vec4f(0.0);
#for i CHAINS
  sum += a_$i;
#endfor
  if dot(sum, vec4f(1.0)) == -1.0 { out[id.x & 15u] = sum; }
}";
const CHAINS: u32 = 8;
const ROUNDS: u32 = 4096;
const GROUPS: u32 = 512;

/// The most multiply-adds a second in f32, two FLOP each: the best of some runs, which other work disturbs least.
fn peak(gpu: &Gpu) -> f64 {
    let mut r = Recorder::new(&Options::default());
    let y = r.tensor(1, 1, 64, 4);
    let flops = 2 * u64::from(GROUPS * 64) * u64::from(CHAINS * 4) * u64::from(ROUNDS);
    r.dispatch(Dispatch {
        kernel: Kernel::new("probe", &[PROBE], &[("CHAINS", CHAINS)]),
        bindings: vec![Binding::Write(y)],
        params: vec![("rounds", Scalar::U32(ROUNDS))],
        workgroups: [GROUPS, 1, 1],
        flops,
    });
    r.output(y);
    let plan = r.finish();
    let weights = Weights::allocate(gpu, plan.weights());
    let executable = plan.instantiate(gpu, &weights).unwrap();
    let time = || block_on(executable.time(gpu, 1)).unwrap();
    time(); // compiles
    flops as f64 / (0..7).map(|_| time()).fold(f64::INFINITY, f64::min) * 1000.0
}

/// Milliseconds and FLOP of every class of kernels in one step.
fn classes(gpu: &Gpu, executable: &Executable) -> BTreeMap<String, (f64, f64, usize)> {
    let mut classes = BTreeMap::<String, (f64, f64, usize)>::new();
    for timing in block_on(executable.run_timed(gpu)).unwrap() {
        let (ms, flops, count) = classes.entry(timing.kernel.to_owned()).or_default();
        *ms += timing.nanoseconds / 1e6;
        *flops += timing.flops as f64;
        *count += 1;
    }
    classes
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let after = |name: &str| args.iter().position(|arg| arg == name).and_then(|i| args.get(i + 1));
    let side = after("--side").map_or(64, |side| side.parse().expect("--side takes a number"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/data/models/real.json");
    let published: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let gpu = block_on(Gpu::new(&GpuOptions::default())).unwrap();
    let mut out = Vec::new();
    for arithmetic in [Arithmetic::F32, Arithmetic::F16] {
        if arithmetic == Arithmetic::F16 && !gpu.shader_f16 {
            continue;
        }
        let options = Options { arithmetic, subgroup: gpu.subgroup, ..Options::default() };
        let mut peak = peak(&gpu);
        let plan = unet_plan::unet(&published["sd15/unet"]["config"], &options, 2, side, side);
        let weights = Weights::allocate(&gpu, plan.weights());
        weights.fill(&gpu);
        let executable = plan.instantiate(&gpu, &weights).unwrap();
        executable.run(&gpu); // compiles
        block_on(gpu.idle()).unwrap();
        let classes = classes(&gpu, &executable);
        peak = peak.max(self::peak(&gpu));
        println!(
            "{}, {arithmetic:?} arithmetic, {side}x{side} latents; peak in f32 {:.1} GFLOP/s",
            gpu.name,
            peak / 1e9
        );
        let total = classes.values().fold((0.0, 0.0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
        for (name, (ms, flops, count)) in classes.iter().chain([(&"step".to_owned(), &total)]) {
            let rate = flops / ms / 1e6;
            println!(
                "  {name:20} {count:4} {ms:10.1} ms {:9.1} GFLOP {rate:7.1} GFLOP/s {:5.1} % of the peak",
                flops / 1e9,
                1e11 * rate / peak
            );
            out.push(json!({
                "arithmetic": format!("{arithmetic:?}"), "kernel": name, "dispatches": count,
                "ms": ms, "flops": flops, "of_peak": 1e9 * rate / peak,
            }));
        }
    }
    if let Some(file) = after("--json") {
        std::fs::write(file, serde_json::to_vec_pretty(&out).unwrap()).unwrap();
    }
}
