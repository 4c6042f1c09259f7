//! LoRAs merged into a weight on the GPU.

use crate::checkpoint::lora::{Adapter, Change, Magnitude, Product, Turn};
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
        match self.overflowed(gpu).await? {
            None => Ok(()),
            Some(name) => Err(Error::unsupported(format!(
                "with these LoRAs {name} has values that f16 does not hold, at these scales. Use smaller scales, or \
                 leave the LoRA out"
            ))),
        }
    }

    /// The first weight with values that f16 does not hold.
    ///
    /// # Errors
    /// `device-lost`.
    pub async fn overflowed(&self, gpu: &Gpu) -> Result<Option<String>> {
        let (words, _) =
            self.executable.finish_read(gpu, self.executable.start_read(gpu, self.words)?).await?;
        let names = self.names.take();
        Ok(words.iter().zip(names).find(|(word, _)| word.to_bits() != 0).map(|(_, name)| name))
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

    /// How the weight lies for `lora_base.wgsl`; `wide`: it is f32 by now.
    fn defines(&self, wide: bool) -> [(&'static str, u32); 3] {
        let bits = self.bits.filter(|_| !wide);
        [
            ("F32_BASE", wide as u32),
            ("QUANTISED", bits.is_some() as u32),
            ("Q4", (bits == Some(Bits::Q4)) as u32),
        ]
    }

    /// The weight times a matrix: its rows in blocks of `size`, so far `apart`, or its inputs to `size` sums.
    fn turn(&self, rows: bool, wide: bool, [size, apart]: [u32; 2], bindings: Vec<Binding>) -> Dispatch {
        let sums = u64::from(self.rows * self.taps) * u64::from(size) * u64::from(self.inner);
        Dispatch {
            kernel: Kernel::new(
                "lora_turn",
                &[crate::gpu::shader!("lora_base.wgsl"), crate::gpu::shader!("lora_turn.wgsl")],
                &[&self.defines(wide)[..], &[("ROWS", rows as u32)]].concat(),
            ),
            bindings,
            params: vec![
                ("row4", U32(self.taps * self.c4())),
                ("taps", U32(self.taps)),
                ("inner", U32(self.inner)),
                ("size", U32(size)),
                ("k", U32(apart)),
            ],
            workgroups: [self.rows, 1, 1],
            flops: sums * 2,
        }
    }
}

/// What is added to a weight: most adapters are one term.
struct Term<'a> {
    /// What the shader binds as `up` and as `down`.
    up: Binding,
    down: Binding,
    /// `mode`, `rank`, `rank_2`, `o2`, `i2`.
    change: [u32; 5],
    scale: f32,
    magnitude: Option<&'a Magnitude>,
}

/// What one term's dispatches have in common.
struct Merge<'a> {
    sizes: &'a Sizes,
    /// As in [`Term`].
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
        let Sizes { rows, inner, taps, .. } = *self.sizes;
        let c4 = self.sizes.c4();
        let [mode, rank, rank_2, o2, i2] = self.change;
        let terms = u64::from(rank.max(1) + rank_2) * 2;
        Dispatch {
            kernel: Kernel::new(
                "lora",
                &[crate::gpu::shader!("lora_base.wgsl"), crate::gpu::shader!("lora.wgsl")],
                &[&self.sizes.defines(false)[..], &[("LAST", last as u32), ("NORMS", norms as u32)]].concat(),
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

/// The recording of a merge.
struct Making<'a> {
    r: Recorder,
    sizes: &'a Sizes,
    /// The checkpoint's weight.
    base: Binding,
    /// What is written before it runs.
    inputs: Vec<(Tensor, Vec<f32>)>,
}

impl Making<'_> {
    fn input(&mut self, values: Vec<f32>) -> Binding {
        let t = self.r.input(1, 1, 1, values.len() as u32);
        self.inputs.push((t, values));
        Binding::Read(t)
    }

    /// What an adapter adds.
    fn terms<'m>(
        &mut self,
        change: &Change,
        magnitude: Option<&'m Magnitude>,
        scale: f32,
        terms: &mut Vec<Term<'m>>,
    ) {
        let product = |p: &Product| (p.up.clone(), p.down.clone(), [0, p.rank as u32, 0, 1, 1]);
        let (up, down, change) = match change {
            Change::Product(p) => product(p),
            Change::Hadamard(p, q) => (
                [&p.up[..], &q.up].concat(),
                [&p.down[..], &q.down].concat(),
                [1, p.rank as u32, q.rank as u32, 1, 1],
            ),
            Change::Kronecker { w1, w2, o2, i2 } => {
                (w1.clone(), w2.clone(), [2, self.sizes.inner / *i2 as u32, 0, *o2 as u32, *i2 as u32])
            }
            Change::Full(values) => (values.clone(), vec![0.0], [3, 0, 0, 1, 1]),
            Change::Turn(turn) => {
                let up = self.turned(turn, scale);
                terms.push(Term { up, down: up, change: [4, 0, 0, 1, 1], scale: 1.0, magnitude: None });
                return;
            }
            Change::Through { rank, left, right, product: p } => {
                let (up, down) = (self.through(left.clone(), *rank), self.input(right.clone()));
                terms.push(Term { up, down, change: [5, *rank as u32, 0, 1, 1], scale, magnitude: None });
                product(p)
            }
        };
        let (up, down) = (self.input(up), self.input(down));
        terms.push(Term { up, down, change, scale, magnitude });
    }

    /// The weight with its rows turned; with a scale each stage goes so far from not turning at all, as in LyCORIS.
    fn turned(&mut self, turn: &Turn, scale: f32) -> Binding {
        let Sizes { rows, .. } = *self.sizes;
        let (size, row) = (turn.size, self.sizes.row());
        let mut from = self.base;
        for (i, (apart, blocks)) in turn.stages.iter().enumerate() {
            let rescale = turn.rescale.as_ref().filter(|_| i + 1 == turn.stages.len());
            let matrix = blocks.iter().enumerate().map(|(at, v)| {
                let (place, column) = (at / size, at % size);
                let still = if place % size == column { 1.0 - scale } else { 0.0 };
                let o = (place / (2 * apart) * 2 + place % 2) * apart + place / 2 % apart;
                (scale * v + still) * rescale.and_then(|of| of.get(o)).copied().unwrap_or(1.0)
            });
            let matrix = self.input(matrix.collect());
            let to = self.r.tensor_of(Dtype::F32, rows, 1, 1, row);
            let bindings = vec![from, matrix, Binding::Write(to)];
            self.r.dispatch(self.sizes.turn(true, i > 0, [size as u32, *apart as u32], bindings));
            from = Binding::Read(to);
        }
        from
    }

    /// The weight `[rows][taps]` times `[inner][rank]`.
    fn through(&mut self, left: Vec<f32>, rank: usize) -> Binding {
        let matrix = self.input(left);
        let to = self.r.tensor_of(Dtype::F32, 1, 1, 1, self.sizes.rows * self.sizes.taps * rank as u32);
        let bindings = vec![self.base, matrix, Binding::Write(to)];
        self.r.dispatch(self.sizes.turn(false, false, [rank as u32, 1], bindings));
        Binding::Read(to)
    }

    /// The weight and all terms, in f16; `None` without any.
    fn sum(&mut self, terms: &[Term<'_>], words: Tensor, place: u32) -> Option<Tensor> {
        let (sizes, base) = (self.sizes, self.base);
        let mut current = base;
        let mut out = None;
        for (i, term) in terms.iter().enumerate() {
            let Term { up, down, change, scale, magnitude } = *term;
            let (mut magnitude, axis) = match magnitude {
                None => (up, 0),
                Some(Magnitude::Rows(lengths)) => (self.input(lengths.clone()), 1),
                Some(Magnitude::Columns(lengths)) => (self.input(lengths.clone()), 2),
            };
            let merge = Merge { sizes, change, scale, is_first: i == 0, axis, place };
            if axis == 2 {
                let factors = self.r.tensor_of(Dtype::F32, 1, 1, 1, sizes.c4() * 4);
                let bindings = vec![base, current, up, down, magnitude, Binding::Write(factors)];
                self.r.dispatch(merge.dispatch(true, false, bindings));
                magnitude = Binding::Read(factors);
            }
            let last = i + 1 == terms.len();
            let y =
                self.r.tensor_of(if last { Dtype::F16 } else { Dtype::F32 }, sizes.rows, 1, 1, sizes.row());
            let mut bindings = vec![base, current, up, down, magnitude, Binding::Write(y)];
            if last {
                bindings.push(Binding::Write(words));
            }
            self.r.dispatch(merge.dispatch(false, last, bindings));
            current = Binding::Read(y);
            out = Some(y);
        }
        out
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
    let Some((executable, out)) = made(gpu, weights, name, adapters, watch)? else { return Ok(()) };
    let buffer = executable.buffer(out)?;
    match (weights.layout(name), weights.adaptation()) {
        (Some(Layout::Blocks { .. }), Some(beside)) => {
            let prefix = name.trim_end_matches(".weight");
            beside.put(gpu, &format!("{prefix}.merged.weight"), buffer, out)?;
        }
        _ => weights.replace(gpu, name, buffer, out)?,
    }
    watch.names.borrow_mut().push(name.to_owned());
    Ok(())
}

/// As [`merge`], but of `from`, which stays as it is, whatever LoRAs are merged there; the sum is the weight of that name in
/// `to`, which is f16.
///
/// # Errors
/// Those of [`merge`]; `bad-checkpoint` where the two are not of one size.
pub fn merge_into(
    gpu: &Gpu,
    from: &Weights,
    to: &Weights,
    name: &str,
    adapter: &Adapter,
    watch: &Watch,
) -> Result<()> {
    if let Some((executable, out)) = made(gpu, from, name, &[(adapter, 1.0)], watch)? {
        to.put(gpu, name, executable.buffer(out)?, out)?;
        watch.names.borrow_mut().push(name.to_owned());
    }
    Ok(())
}

/// What [`merge`] computes; `None` without adapters.
fn made(
    gpu: &Gpu,
    weights: &Weights,
    name: &str,
    adapters: &[(&Adapter, f32)],
    watch: &Watch,
) -> Result<Option<(Executable, Tensor)>> {
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
    let mut making = Making { r, sizes: &sizes, base: Binding::Read(original), inputs: Vec::new() };
    let mut terms = Vec::new();
    for (adapter, scale) in adapters {
        making.terms(&adapter.change, adapter.magnitude.as_ref(), *scale, &mut terms);
    }
    let Some(out) = making.sum(&terms, words, place) else { return Ok(None) };
    let Making { mut r, inputs, .. } = making;
    r.output(out);
    let plan = r.finish();
    let executable = plan.instantiate_over(gpu, weights, &[(words, &watch.executable, watch.words)])?;
    weights.copy(gpu, name, executable.buffer(original)?, original)?;
    for (t, values) in inputs {
        executable.write(gpu, t, &values)?;
    }
    executable.run(gpu);
    Ok(Some((executable, out)))
}
