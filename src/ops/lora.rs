//! LoRAs merged into a weight on the GPU.

use crate::checkpoint::lora::{Adapter, Change};
use crate::checkpoint::{Bits, Layout};
use crate::error::{Error, Result};
use crate::gpu::Scalar::{self, F32, U32};
use crate::gpu::{Binding, Dispatch, Dtype, Gpu, Kernel, Options, Recorder, Weights};

/// `{prefix}.weight` plus every one of `adapters` times its scale, in f16; the sums are f32 and rounded once. An f16
/// weight is replaced, and must be as the checkpoint has it ([`Weights::restore`]); a quantised one stays, and
/// `{prefix}.merged.weight` is written beside it. DoRA's lengths are those of the checkpoint's weight and its own
/// change, as in PEFT.
///
/// # Errors
/// `unsupported-model` for a weight that is not a matrix, or lies as f32; `out-of-memory` where a buffer is too large.
pub fn merge(gpu: &Gpu, weights: &Weights, prefix: &str, adapters: &[(&Adapter, f32)]) -> Result<()> {
    let name = format!("{prefix}.weight");
    let layout = weights.layout(&name);
    let (rows, inner, taps, bits) = match layout {
        Some(Layout::Matrix { rows, inner, taps }) => (rows, inner, taps, None),
        Some(Layout::Blocks { rows, inner, taps, bits }) => (rows, inner, taps, Some(bits)),
        _ => return Err(Error::unsupported(format!("a LoRA changes {name}, which is no matrix"))),
    };
    let [rows, inner, taps] = [rows, inner, taps].map(|n| n as u32);
    let c4 = inner.div_ceil(4);
    let mut r = Recorder::new(&Options { activations: Dtype::F32, ..Options::default() });
    // A copy: a part of a stack may begin where nothing can be bound.
    let original = match bits {
        None => r.input_of(Dtype::F16, rows, 1, 1, taps * c4 * 4),
        Some(_) => {
            let bytes = layout.and_then(Layout::packed_bytes).unwrap_or(u64::MAX);
            let words =
                u32::try_from(bytes / 4).map_err(|_| Error::unsupported(format!("{name} is too large")))?;
            r.input_of(Dtype::U32, 1, 1, 1, words)
        }
    };
    let base = Binding::Read(original);
    let mut current = base;
    let mut inputs = Vec::new();
    let mut out = None;
    for (i, (adapter, scale)) in adapters.iter().enumerate() {
        let mut input = |values: &[f32]| {
            let t = r.input(1, 1, 1, values.len() as u32);
            inputs.push((t, values.to_vec()));
            Binding::Read(t)
        };
        let (up, down, second, numbers) = match &adapter.change {
            Change::Product(p) => (input(&p.up), input(&p.down), None, [0, p.rank as u32, 0, 1, 1]),
            Change::Hadamard(p, q) => {
                let second = Some((input(&q.up), input(&q.down)));
                (input(&p.up), input(&p.down), second, [1, p.rank as u32, q.rank as u32, 1, 1])
            }
            Change::Kronecker { w1, w2, o2, i2 } => {
                (input(w1), input(w2), None, [2, inner / *i2 as u32, 0, *o2 as u32, *i2 as u32])
            }
        };
        let (up_2, down_2) = second.unwrap_or((up, down));
        let magnitude = adapter.magnitude.as_ref().map(|m| input(m));
        let last = i + 1 == adapters.len();
        let dtype = if last { Dtype::F16 } else { Dtype::F32 };
        let y = r.tensor_of(dtype, rows, 1, 1, taps * c4 * 4);
        let [mode, rank, rank_2, o2, i2] = numbers;
        let terms = u64::from(rank.max(1) + rank_2) * 2;
        r.dispatch(Dispatch {
            kernel: Kernel::new(
                "lora",
                &[crate::gpu::shader!("lora.wgsl")],
                &[
                    ("LAST", last as u32),
                    ("QUANTISED", bits.is_some() as u32),
                    ("Q4", (bits == Some(Bits::Q4)) as u32),
                ],
            ),
            bindings: vec![base, current, up, down, up_2, down_2, magnitude.unwrap_or(up), Binding::Write(y)],
            params: vec![
                ("row4", U32(taps * c4)),
                ("c4", U32(c4)),
                ("inner", U32(inner)),
                ("taps", U32(taps)),
                ("mode", U32(mode)),
                ("rank", U32(rank)),
                ("rank_2", U32(rank_2)),
                ("o2", U32(o2)),
                ("i2", U32(i2)),
                ("scale", F32(*scale)),
                ("is_first", Scalar::flag(i == 0)),
                ("has_magnitude", Scalar::flag(magnitude.is_some())),
            ],
            workgroups: [rows, 1, 1],
            flops: u64::from(rows) * u64::from(taps * inner) * terms,
        });
        current = Binding::Read(y);
        out = Some(y);
    }
    let Some(out) = out else { return Ok(()) };
    r.output(out);
    let executable = r.finish().instantiate(gpu, weights)?;
    weights.copy(gpu, &name, executable.buffer(original)?, original)?;
    for (t, values) in inputs {
        executable.write(gpu, t, &values)?;
    }
    executable.run(gpu);
    let made = executable.buffer(out)?;
    match (bits, weights.adaptation()) {
        (Some(_), Some(beside)) => beside.put(gpu, &format!("{prefix}.merged.weight"), made, out),
        _ => weights.replace(gpu, &name, made, out),
    }
}
