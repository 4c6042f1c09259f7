//! LoRAs merged into a weight on the GPU.

use crate::checkpoint::lora::{Adapter, Change, Magnitude};
use crate::checkpoint::{Bits, Layout};
use crate::error::{Error, Result};
use crate::gpu::Scalar::{self, F32, U32};
use crate::gpu::{Binding, Dispatch, Dtype, Executable, Gpu, Kernel, Options, Recorder, Tensor, Weights};
use std::cell::RefCell;

/// Which of several merges made a value that f16 does not hold: a word for each, read once when all are done.
pub struct Watch {
    executable: Executable,
    words: Tensor,
    names: RefCell<Vec<String>>,
}

impl Watch {
    /// Room for `merges`.
    ///
    /// # Errors
    /// `out-of-memory`.
    pub fn new(gpu: &Gpu, weights: &Weights, merges: usize) -> Result<Watch> {
        let mut r = Recorder::new(&Options::default());
        let words = r.input_of(Dtype::U32, 1, 1, 1, merges.max(1) as u32);
        let executable = r.finish().instantiate(gpu, weights)?;
        Ok(Watch { executable, words, names: RefCell::default() })
    }

    /// # Errors
    /// `unsupported-model`, which names the weight, where a merge overflowed; `device-lost`.
    pub async fn check(&self, gpu: &Gpu) -> Result<()> {
        let (words, _) =
            self.executable.finish_read(gpu, self.executable.start_read(gpu, self.words)?).await?;
        let names = self.names.take();
        match words.iter().zip(&names).find(|(word, _)| word.to_bits() != 0) {
            None => Ok(()),
            Some((_, name)) => Err(Error::unsupported(format!(
                "with these LoRAs {name} has values that f16 does not hold, at these scales. Use smaller scales, or \
                 leave the LoRA out"
            ))),
        }
    }
}

/// How a change lies for the shader: what it binds as `up` and as `down`, and its parameters.
fn operands(change: &Change, inner: usize) -> (Vec<f32>, Vec<f32>, [u32; 5]) {
    match change {
        Change::Product(p) => (p.up.clone(), p.down.clone(), [0, p.rank as u32, 0, 1, 1]),
        Change::Hadamard(p, q) => (
            [&p.up[..], &q.up].concat(),
            [&p.down[..], &q.down].concat(),
            [1, p.rank as u32, q.rank as u32, 1, 1],
        ),
        Change::Kronecker { w1, w2, o2, i2 } => {
            (w1.clone(), w2.clone(), [2, (inner / *i2) as u32, 0, *o2 as u32, *i2 as u32])
        }
        Change::Full(values) => (values.clone(), vec![0.0], [3, 0, 0, 1, 1]),
    }
}

/// Sizes of the weight that is changed, and how it lies.
struct Sizes {
    rows: u32,
    inner: u32,
    taps: u32,
    bits: Option<Bits>,
}

impl Sizes {
    fn of(layout: Option<Layout>, name: &str) -> Result<Sizes> {
        let (rows, inner, taps, bits) = match layout {
            Some(Layout::Matrix { rows, inner, taps }) => (rows, inner, taps, None),
            Some(Layout::Blocks { rows, inner, taps, bits }) => (rows, inner, taps, Some(bits)),
            Some(Layout::Vector { len }) => (1, len, 1, None),
            None => {
                let message = format!("a LoRA changes {name}, which this model does not have");
                return Err(Error::unsupported(message));
            }
        };
        let [rows, inner, taps] = [rows, inner, taps].map(|n| n as u32);
        Ok(Sizes { rows, inner, taps, bits })
    }

    /// Vectors of a row's inputs.
    fn c4(&self) -> u32 {
        self.inner.div_ceil(4)
    }

    /// Values of a row, with its fill.
    fn row(&self) -> u32 {
        self.taps * self.c4() * 4
    }
}

/// What one adapter's dispatches have in common.
struct Merge<'a> {
    sizes: &'a Sizes,
    /// `mode`, `rank`, `rank_2`, `o2`, `i2`, as [`operands`] gives them.
    change: [u32; 5],
    scale: f32,
    is_first: bool,
    /// 1: lengths of rows, 2: of columns; 0: no DoRA.
    axis: u32,
    /// The word of [`Watch`].
    place: u32,
}

impl Merge<'_> {
    /// `norms`: finds the columns' factors; `last`: writes f16 and watches it.
    fn dispatch(&self, norms: bool, last: bool, bindings: Vec<Binding>) -> Dispatch {
        let Sizes { rows, inner, taps, bits } = *self.sizes;
        let c4 = self.sizes.c4();
        let [mode, rank, rank_2, o2, i2] = self.change;
        let terms = u64::from(rank.max(1) + rank_2) * 2;
        Dispatch {
            kernel: Kernel::new(
                "lora",
                &[crate::gpu::shader!("lora.wgsl")],
                &[
                    ("LAST", last as u32),
                    ("NORMS", norms as u32),
                    ("QUANTISED", bits.is_some() as u32),
                    ("Q4", (bits == Some(Bits::Q4)) as u32),
                ],
            ),
            bindings,
            params: vec![
                ("row4", U32(taps * c4)),
                ("rows", U32(rows)),
                ("c4", U32(c4)),
                ("inner", U32(inner)),
                ("taps", U32(taps)),
                ("mode", U32(mode)),
                ("rank", U32(rank)),
                ("rank_2", U32(rank_2)),
                ("o2", U32(o2)),
                ("i2", U32(i2)),
                ("scale", F32(self.scale)),
                ("is_first", Scalar::flag(self.is_first)),
                ("axis", U32(self.axis)),
                ("place", U32(self.place)),
            ],
            workgroups: [if norms { c4 } else { rows }, 1, 1],
            flops: u64::from(rows) * u64::from(taps * inner) * terms,
        }
    }
}

/// The weight `name` plus every one of `adapters` times its scale, in f16; the sums are f32 and rounded once. An f16
/// weight is replaced, and must be as the checkpoint has it ([`Weights::restore`]); a quantised one stays, and its
/// `.merged.weight` is written beside it. DoRA's lengths are those of the checkpoint's weight and its own change, as in
/// PEFT. `watch` is told where f16 does not hold the result.
///
/// # Errors
/// `unsupported-model` for a weight that lies as f32; `out-of-memory` where a buffer is too large.
pub fn merge(
    gpu: &Gpu,
    weights: &Weights,
    name: &str,
    adapters: &[(&Adapter, f32)],
    watch: &Watch,
) -> Result<()> {
    let layout = weights.layout(name);
    let sizes = Sizes::of(layout, name)?;
    let mut r = Recorder::new(&Options { activations: Dtype::F32, ..Options::default() });
    // A copy: a part of a stack may begin where nothing can be bound.
    let original = match sizes.bits {
        None => r.input_of(Dtype::F16, sizes.rows, 1, 1, sizes.row()),
        Some(_) => {
            let bytes = layout.and_then(Layout::packed_bytes).unwrap_or(u64::MAX);
            let words =
                u32::try_from(bytes / 4).map_err(|_| Error::unsupported(format!("{name} is too large")))?;
            r.input_of(Dtype::U32, 1, 1, 1, words)
        }
    };
    let words = r.input_of(Dtype::U32, 1, 1, 1, watch.words.c);
    let place = watch.names.borrow().len() as u32;
    let base = Binding::Read(original);
    let mut current = base;
    let mut inputs = Vec::new();
    let mut out = None;
    for (i, (adapter, scale)) in adapters.iter().enumerate() {
        let mut input = |values: Vec<f32>| {
            let t = r.input(1, 1, 1, values.len() as u32);
            inputs.push((t, values));
            Binding::Read(t)
        };
        let (up, down, change) = operands(&adapter.change, sizes.inner as usize);
        let (up, down) = (input(up), input(down));
        let (mut magnitude, axis) = match &adapter.magnitude {
            None => (up, 0),
            Some(Magnitude::Rows(lengths)) => (input(lengths.clone()), 1),
            Some(Magnitude::Columns(lengths)) => (input(lengths.clone()), 2),
        };
        let merge = Merge { sizes: &sizes, change, scale: *scale, is_first: i == 0, axis, place };
        if axis == 2 {
            let factors = r.tensor_of(Dtype::F32, 1, 1, 1, sizes.c4() * 4);
            let bindings = vec![base, current, up, down, magnitude, Binding::Write(factors)];
            r.dispatch(merge.dispatch(true, false, bindings));
            magnitude = Binding::Read(factors);
        }
        let last = i + 1 == adapters.len();
        let y = r.tensor_of(if last { Dtype::F16 } else { Dtype::F32 }, sizes.rows, 1, 1, sizes.row());
        let mut bindings = vec![base, current, up, down, magnitude, Binding::Write(y)];
        if last {
            bindings.push(Binding::Write(words));
        }
        r.dispatch(merge.dispatch(false, last, bindings));
        current = Binding::Read(y);
        out = Some(y);
    }
    let Some(out) = out else { return Ok(()) };
    r.output(out);
    let plan = r.finish();
    let executable = plan.instantiate_over(gpu, weights, &[(words, &watch.executable, watch.words)])?;
    weights.copy(gpu, name, executable.buffer(original)?, original)?;
    for (t, values) in inputs {
        executable.write(gpu, t, &values)?;
    }
    executable.run(gpu);
    let made = executable.buffer(out)?;
    match (sizes.bits, weights.adaptation()) {
        (Some(_), Some(beside)) => {
            let prefix = name.trim_end_matches(".weight");
            beside.put(gpu, &format!("{prefix}.merged.weight"), made, out)?;
        }
        _ => weights.replace(gpu, name, made, out)?,
    }
    watch.names.borrow_mut().push(name.to_owned());
    Ok(())
}
