//! What the adapter can do at the most: multiply-adds, bytes of memory and of workgroup memory, dispatches.

use crate::device::{self, Filled};
use crate::part::{Part, median};
use browser_diffusion::gpu::{Arithmetic, Binding, Dispatch, Dtype, Gpu, Kernel, Options, Recorder, Scalar};
use pollster::block_on;
use serde_json::json;
use std::time::Instant;

/// Eight independent chains of vec4 a thread, CHAINS * 4 * ROUNDS multiply-adds; the result is stored only where it
/// is what it cannot be. Of three registers, as `www/bench/probes.js` has them, or of two with SQUARE: where registers
/// lie in two banks (NVIDIA's since Volta), three of one bank take two turns.
const MULTIPLY_ADD: &str = "
@group(0) @binding($binding) var<storage, read_write> out: array<vec4f>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  let x = f32(id.x & 63u) * 0.001;
#if HALF
  let scale = vec4<f16>(vec4f(0.5 + x));
  let shift = vec4<f16>(vec4f(0.125, 0.0625, x, -0.5));
#for i CHAINS
  var a_$i = shift + vec4<f16>(f16($i.0) * 0.1h);
#endfor
#else
  let scale = vec4f(0.5 + x);
  let shift = vec4f(0.125, 0.0625, x, -0.5);
#for i CHAINS
  var a_$i = shift + $i.0 * 0.1;
#endfor
#endif
  for (var i = 0u; i < p.rounds; i++) {
#for i CHAINS
#if SQUARE
    a_$i = fma(a_$i, a_$i, shift);
#else
    a_$i = fma(a_$i, scale, shift);
#endif
#endfor
  }
  var sum = vec4f(0.0);
#for i CHAINS
  sum += vec4f(a_$i);
#endfor
  if dot(sum, vec4f(1.0)) == -1.0 { out[id.x & 15u] = sum; }
}";
const CHAINS: u32 = 8;
const ROUNDS: u32 = 1024;
/// Of a test: a hundredth.
const GROUPS: [u32; 2] = [4096, 41];

/// Every thread copies vectors, a grid's width apart.
const COPY: &str = "
@group(0) @binding($binding) var<storage, read> source: array<vec4f>;
@group(0) @binding($binding) var<storage, read_write> to: array<vec4f>;
@compute @workgroup_size(256) fn main(@builtin(global_invocation_id) id: vec3u) {
  for (var i = id.x; i < p.vectors; i += p.threads) { to[i] = source[i]; }
}";

/// Every thread reads vectors of workgroup memory: neighbours beside each other, or all of a row of eight the same.
const WORKGROUP: &str = "
@group(0) @binding($binding) var<storage, read_write> out: array<vec4f>;
var<workgroup> tile: array<vec4f, 1024>;
@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(global_invocation_id) id: vec3u) {
#for i LOADS
  tile[thread + $iu * 256u % 1024u] = vec4f(f32(p.rounds + thread) * 0.001);
#endfor
  workgroupBarrier();
  var sum = vec4f(0.0);
  for (var i = 0u; i < p.rounds; i++) {
#if SHARED
    let at = thread / 8u + i * 32u;
#else
    let at = thread + i * 256u;
#endif
#for i LOADS
    sum += tile[(at + $iu * 37u * LOADS) & 1023u];
#endfor
  }
  if dot(sum, vec4f(1.0)) == -1.0 { out[id.x & 15u] = sum; }
}";
const LOADS: u32 = 4;

/// A dispatch that writes a word.
const NEXT: &str = "
@group(0) @binding($binding) var<storage, read_write> out: array<vec4f>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) { out[id.x & 15u].x = f32(p.n); }";

/// A kernel over one output of sixteen vectors, `times` dispatches of it.
fn probe(
    gpu: &Gpu,
    (name, text): (&'static str, &'static str),
    defines: &[(&'static str, u32)],
    param: (&'static str, u32),
    groups: u32,
    times: u32,
) -> Filled {
    let mut r = Recorder::new(&Options::default());
    let y = r.tensor_of(Dtype::F32, 1, 1, 16, 4);
    for _ in 0..times {
        r.dispatch(Dispatch {
            kernel: Kernel::new(name, &[text], defines),
            bindings: vec![Binding::Write(y)],
            params: vec![(param.0, Scalar::U32(param.1))],
            workgroups: [groups, 1, 1],
            flops: 0,
        });
    }
    r.output(y);
    Filled::new(gpu, &r.finish(), &[])
}

/// Multiply-adds, and how many FLOP a run of them is.
pub fn multiply_add(gpu: &Gpu, arithmetic: Arithmetic, square: bool, small: bool) -> (Filled, f64) {
    let groups = GROUPS[usize::from(small)];
    let half = arithmetic == Arithmetic::F16;
    let defines = [("CHAINS", CHAINS), ("HALF", u32::from(half)), ("SQUARE", u32::from(square))];
    let probe = probe(gpu, ("multiply_add", MULTIPLY_ADD), &defines, ("rounds", ROUNDS), groups, 1);
    (probe, 2.0 * 4.0 * f64::from(groups * 64) * f64::from(CHAINS) * f64::from(ROUNDS))
}

/// Copies, and how many bytes a run reads and writes.
fn copy(gpu: &Gpu, bytes: u64) -> (Filled, f64) {
    const THREADS: u32 = 4096 * 256;
    let most = gpu.limits.max_storage_buffer_binding_size.min(gpu.limits.max_buffer_size);
    let rows = (bytes.min(most) >> 20) as u32;
    let mut r = Recorder::new(&Options::default());
    let x = r.input_of(Dtype::F32, 1, rows, 1 << 16, 4);
    let y = r.tensor_of(Dtype::F32, 1, rows, 1 << 16, 4);
    r.dispatch(Dispatch {
        kernel: Kernel::new("copy", &[COPY], &[]),
        bindings: vec![Binding::Read(x), Binding::Write(y)],
        params: vec![("vectors", Scalar::U32(rows << 16)), ("threads", Scalar::U32(THREADS))],
        workgroups: [4096, 1, 1],
        flops: 0,
    });
    r.output(y);
    (Filled::new(gpu, &r.finish(), &[x]), 2.0 * f64::from(rows) * f64::from(1 << 20))
}

/// Loads of workgroup memory, and how many bytes a run's threads are given.
fn workgroup(gpu: &Gpu, shared: bool, small: bool) -> (Filled, f64) {
    const ROUNDS: u32 = 512;
    let groups = if small { 20 } else { 2048 };
    let defines = [("LOADS", LOADS), ("SHARED", u32::from(shared))];
    let probe = probe(gpu, ("workgroup", WORKGROUP), &defines, ("rounds", ROUNDS), groups, 1);
    (probe, 16.0 * 256.0 * f64::from(groups) * f64::from(LOADS * ROUNDS))
}

/// The part `probes`.
pub fn run(part: &mut Part) {
    let gpu = device::open();
    let peak = device::peak(&gpu, part);
    part.begin_table("What the adapter does at the most", &["what", "best", "median", "unit"]);
    let rate = |part: &mut Part, what: &str, (probe, work): (Filled, f64), unit: &str, scale: f64| {
        let (least, middle) = device::time(&gpu, &probe.executable, part);
        let per_second = |ms: f64| work / ms * 1e3 / scale;
        part.row(json!([what, per_second(least), per_second(middle), unit]));
    };
    part.row(json!(["multiply-adds in F32, the best of all", peak / 1e12, null, "TFLOP/s"]));
    for arithmetic in device::arithmetics(&gpu) {
        for (square, registers) in [(true, "two"), (false, "three")] {
            let what = format!("multiply-adds in {arithmetic:?}, of {registers} registers");
            let probe = multiply_add(&gpu, arithmetic, square, part.small);
            rate(part, &what, probe, "TFLOP/s", 1e12);
        }
    }
    let sizes: &[u64] = if part.small { &[8] } else { &[16, 128, 1024] };
    for &size in sizes {
        let (probe, bytes) = copy(&gpu, size << 20);
        let what = format!("copying {:.0} MiB, read and written", bytes / f64::from(2 << 20));
        rate(part, &what, (probe, bytes), "GB/s", 1e9);
    }
    for (shared, what) in [(false, "beside each other"), (true, "the same for eight threads")] {
        let what = format!("reading workgroup memory, vectors {what}");
        let probe = workgroup(&gpu, shared, part.small);
        rate(part, &what, probe, "GB/s", 1e9);
    }
    // Each waits for the one before it, as most of a network's do.
    const DISPATCHES: u32 = 300;
    let next = probe(&gpu, ("next", NEXT), &[], ("n", 1), 1, DISPATCHES);
    let (least, middle) = device::time(&gpu, &next.executable, part);
    let each = |ms: f64| ms * 1e3 / f64::from(DISPATCHES);
    part.row(json!(["a dispatch of one workgroup behind another", each(least), each(middle), "us"]));
    let one = probe(&gpu, ("next", NEXT), &[], ("n", 1), 1, 1);
    let walls: Vec<f64> = (0..20)
        .map(|_| {
            let start = Instant::now();
            one.executable.run(&gpu);
            block_on(gpu.idle()).unwrap();
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    let least = walls.iter().copied().fold(f64::INFINITY, f64::min);
    part.row(json!(["submit one dispatch and wait for it", least, median(walls), "us"]));
}
