//! Recording: virtual tensors, the list of dispatches over them, and their packing into buffers.

use super::adapter::Limits;
use super::choices::Choices;
use super::kernel::{Kernel, ONE, Scalar};
use super::packing::{Lifetime, bytes, pack};
use crate::checkpoint::{Bits, Layout};
use crate::error::{Code, Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// A dispatch of a kernel that reaches 40 % of a GPU's peak does at most so much (an FMA counting two), one of a slower
/// kernel less (see `reach.rs`): 150 ms on an integrated GPU of 0.4 TFLOP/s, far below the two seconds after which
/// Windows resets a GPU.
pub const MAX_DISPATCH_FLOPS: u64 = 24_000_000_000;

/// A submit holds at most this many dispatches, and about so many milliseconds of work on an integrated GPU of
/// 0.4 TFLOP/s, so that the browser's watchdog and Windows' two-second limit stay far away.
const DISPATCHES_PER_SUBMIT: usize = 64;
const MS_PER_SUBMIT: f64 = 650.0;

/// How an element lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    F16,
    F32,
    U32,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> u64 {
        match self {
            Dtype::F16 => 2,
            Dtype::F32 | Dtype::U32 => 4,
        }
    }
}

/// What products are computed in; sums are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// Products through workgroup memory and attention add up to forty in f16, then f32: needs shader-f16.
    F16,
    #[default]
    F32,
}

/// How a plan is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How activations lie in memory. F32 for modules that overflow f16.
    pub activations: Dtype,
    pub arithmetic: Arithmetic,
    /// Matrices in quantised blocks; `None`: f16.
    pub weights: Option<Bits>,
    /// Lanes of a subgroup, for kernels that share registers by broadcast; 0: kernels that share workgroup memory.
    pub subgroup: u32,
    /// Such kernels are taken where `choices` name them, and nowhere else.
    pub subgroup_if_tuned: bool,
    /// What this GPU's tuning chose.
    pub choices: Choices,
    /// Operations that can be cut are cut into dispatches that do no more than this (those of slow kernels
    /// correspondingly less), or the least that a workgroup does; on a GPU that was timed, see [`Options::dispatch_flops`].
    pub max_dispatch_flops: u64,
    /// Kernels that this GPU computes wrongly, the bits of [`super::Gpu::off`], or that a module does without.
    pub off: u32,
    /// Kernels have the text for a software adapter ([`super::Gpu::software`]): loops where others have them written out.
    pub rolled: bool,
}

impl Options {
    /// The most work of a usual dispatch: what a slow GPU can bear, or 60 ms of what this one was timed to do. Cut for a
    /// slow one, attention of the VAE at 1024x1024 left 124 of an H200's 132 multiprocessors idle.
    pub fn dispatch_flops(&self) -> u64 {
        self.max_dispatch_flops.max(u64::from(self.choices.gflops()) * 60_000_000)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            activations: Dtype::F16,
            arithmetic: Arithmetic::F32,
            weights: None,
            subgroup: 0,
            subgroup_if_tuned: false,
            choices: Choices::default(),
            max_dispatch_flops: MAX_DISPATCH_FLOPS,
            off: 0,
            rolled: false,
        }
    }
}

/// A virtual tensor, NHWC; tokens [batch, length, channels] have `h` = 1. In memory the channels are padded
/// to a multiple of four with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub(super) id: usize,
    pub n: u32,
    pub h: u32,
    pub w: u32,
    pub c: u32,
    pub dtype: Dtype,
}

impl Tensor {
    /// Positions, all pictures together: n * h * w.
    pub fn rows(&self) -> u32 {
        self.n * self.h * self.w
    }
    /// Vectors of four channels of one position.
    pub fn c4(&self) -> u32 {
        self.c.div_ceil(4)
    }
    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        self.rows() as u64 * self.c4() as u64 * 4 * self.dtype.size()
    }
    /// The same memory as [n, 1, h*w, c].
    pub fn flatten(self) -> Self {
        Self { h: 1, w: self.h * self.w, ..self }
    }
    /// The same memory as positions of `c` channels: both widths are multiples of four, and the one of the other.
    pub fn split(self, c: u32) -> Self {
        Self { h: 1, w: self.h * self.w * self.c / c, c, ..self }
    }
    /// The same memory as [n, h, w, c]; `h * w` must be the number of positions.
    pub fn unflatten(self, h: u32, w: u32) -> Self {
        debug_assert_eq!(self.h * self.w, h * w);
        Self { h, w, ..self }
    }
}

/// A weight that the plan needs, by its canonical name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSpec {
    pub name: String,
    pub layout: Layout,
    /// It lies right behind the one before it: the two are parts of one stack (see [`Recorder::stack`]).
    pub follows: bool,
}

impl WeightSpec {
    /// Bytes on the GPU.
    pub fn bytes(&self) -> u64 {
        self.layout.packed_bytes().unwrap_or(u64::MAX)
    }
}

/// Specs of one stack after the other.
pub(crate) fn stacks(specs: &[WeightSpec]) -> impl Iterator<Item = &[WeightSpec]> {
    specs.chunk_by(|_, next| next.follows)
}

/// A weight of this recording, or several that lie in a row: so many of [`Plan::weights`] from the first on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    first: usize,
    count: usize,
}

impl Weight {
    /// The `i`-th of those that lie in a row.
    pub(crate) fn nth(self, i: usize) -> Self {
        Self { first: self.first + i, count: 1 }
    }
}

/// What LoRAs make of a layer whose matrix is quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapted {
    /// `{prefix}.lora_up` of `{prefix}.lora_down` of the input is added, with so many channels between.
    LowRank(u32),
    /// `{prefix}.merged` in f16 stands in the matrix's place.
    Merged,
}

/// By the layer's prefix.
pub type AdaptedLayers = BTreeMap<String, Adapted>;

/// By the attention's prefix, of each IP-Adapter the keys and the values of pictures: `[n, 1, tokens, 2 * channels]`.
pub type ImageKeys = BTreeMap<String, Vec<Tensor>>;

/// What a ControlNet-LLLite makes of a layer's input and of a picture is added to that input.
#[derive(Clone, Debug)]
pub struct LllitePart {
    /// What the names of its weights begin with, whatever the scope: "lllite.0.lllite_unet_middle_block_1_proj_in".
    pub weights: String,
    /// What it sees of the picture, as large as the input: `[n, h, w, c]`.
    pub seen: Tensor,
    /// Channels of the input, and within.
    pub in_dim: u32,
    pub mlp_dim: u32,
    /// What it adds is multiplied by the f32 at this place of these.
    pub scales: Tensor,
    pub at: u32,
}

/// By the layer's prefix, of each ControlNet-LLLite that changes its input: the next one sees what the one before made.
pub type LlliteParts = BTreeMap<String, Vec<LllitePart>>;

/// What a dispatch binds, in the order of the shader's `$binding`s.
#[derive(Clone, Copy, Debug)]
pub enum Binding {
    Weight(Weight),
    Read(Tensor),
    Write(Tensor),
}

/// One kernel launch.
#[derive(Clone, Debug)]
pub struct Dispatch {
    pub kernel: Kernel,
    pub bindings: Vec<Binding>,
    /// The shader reads them as `p.name`.
    pub params: Vec<(&'static str, Scalar)>,
    pub workgroups: [u32; 3],
    /// Floating-point operations, an FMA counting two.
    pub flops: u64,
}

impl Dispatch {
    /// Which of its storage buffers it writes.
    pub(super) fn writable(&self) -> Vec<bool> {
        self.bindings.iter().map(|b| matches!(b, Binding::Write(_))).collect()
    }

    pub(super) fn reads(&self) -> impl Iterator<Item = &Tensor> {
        self.bindings.iter().filter_map(|b| if let Binding::Read(t) = b { Some(t) } else { None })
    }
}

/// What of a network is looked at while it runs, and where it lies once it is recorded. Without one nothing is recorded for it.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// Which of the batch.
    pub picture: u32,
    /// How much attention each word gets.
    pub attention: bool,
    /// What each block makes.
    pub activations: bool,
    pub maps: Vec<MapProbe>,
    pub blocks: Vec<BlockProbe>,
}

/// Attention to each key, [1, h, w, keys], f32: the sum of so many layers of one size.
#[derive(Clone, Copy, Debug)]
pub struct MapProbe {
    pub tensor: Tensor,
    pub layers: u32,
}

/// The first channels of what a block makes, [1, h, w, 8] or fewer, f32.
#[derive(Clone, Debug)]
pub struct BlockProbe {
    pub name: String,
    pub tensor: Tensor,
    /// How many the block makes.
    pub channels: u32,
    /// Dispatches until it is made, of those of every run.
    pub end: usize,
}

/// Builds a [`Plan`]. Ops (`crate::ops`) record into it.
#[derive(Debug)]
pub struct Recorder {
    options: Options,
    tensors: Vec<Lifetime>,
    weights: Vec<WeightSpec>,
    by_name: BTreeMap<String, usize>,
    /// What names of weights begin with now: empty, or "down_blocks.0.resnets.1.".
    pub(super) scope: String,
    dispatches: Vec<Dispatch>,
    setup: Vec<Dispatch>,
    in_setup: bool,
    overflow: Option<Tensor>,
    adapted: Rc<AdaptedLayers>,
    /// What is to be looked at.
    pub probe: Option<Probe>,
    /// What attentions to the text look at too.
    pub images: Rc<ImageKeys>,
    /// What is added to layers' inputs.
    pub lllites: Rc<LlliteParts>,
}

impl Recorder {
    pub fn new(options: &Options) -> Self {
        Self {
            options: *options,
            tensors: Vec::new(),
            weights: Vec::new(),
            by_name: BTreeMap::new(),
            scope: String::new(),
            dispatches: Vec::new(),
            setup: Vec::new(),
            in_setup: false,
            overflow: None,
            adapted: Rc::default(),
            probe: None,
            images: Rc::default(),
            lllites: Rc::default(),
        }
    }

    /// Records these layers with their LoRAs (see [`super::Weights::adapted`]).
    pub fn with_adapted(self, adapted: Rc<AdaptedLayers>) -> Self {
        Self { adapted, ..self }
    }

    /// What LoRAs make of the layer called `name` in this scope; asked for quantised ones.
    pub fn adapted(&self, name: &str) -> Option<Adapted> {
        self.adapted.get(&self.path(name)).copied()
    }

    /// Dispatches of every run, so far.
    pub fn recorded(&self) -> usize {
        self.dispatches.len()
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A tensor that some dispatch is about to write, in the activations' type.
    pub fn tensor(&mut self, n: u32, h: u32, w: u32, c: u32) -> Tensor {
        self.tensor_of(self.options.activations, n, h, w, c)
    }

    /// A tensor of a type of its own (statistics are f32 whatever the activations are).
    pub fn tensor_of(&mut self, dtype: Dtype, n: u32, h: u32, w: u32, c: u32) -> Tensor {
        let t = Tensor { id: self.tensors.len(), n, h, w, c, dtype };
        self.tensors.push(Lifetime { bytes: t.bytes(), first: usize::MAX, last: 0 });
        t
    }

    /// A tensor written from outside before each run, and kept from run to run.
    pub fn input(&mut self, n: u32, h: u32, w: u32, c: u32) -> Tensor {
        self.input_of(self.options.activations, n, h, w, c)
    }

    /// An input of a type of its own.
    pub fn input_of(&mut self, dtype: Dtype, n: u32, h: u32, w: u32, c: u32) -> Tensor {
        let t = self.tensor_of(dtype, n, h, w, c);
        self.keep(t, 0);
        t
    }

    /// `len` indices (token ids, positions) for each of `n`, kept from run to run.
    pub fn input_u32(&mut self, n: u32, len: u32) -> Tensor {
        let t = self.tensor_of(Dtype::U32, n, 1, len, 1);
        // One word each, not a vector of four.
        self.tensors[t.id].bytes = n as u64 * len as u64 * 4;
        self.keep(t, 0);
        t
    }

    /// One word that a kernel sets where a value does not fit f16, since the stored value, saturated, does not tell
    /// (see [`super::Executable::overflowed`]).
    pub fn overflow(&mut self) -> Tensor {
        let flag = self.overflow.unwrap_or_else(|| self.input_u32(1, 1));
        self.overflow = Some(flag);
        flag
    }

    /// Keeps `t` until the end, so that it can be read after a run.
    pub fn output(&mut self, t: Tensor) {
        self.tensors[t.id].last = usize::MAX;
    }

    fn keep(&mut self, t: Tensor, first: usize) {
        self.tensors[t.id].first = first;
        self.tensors[t.id].last = usize::MAX;
    }

    /// The weight called `name` in this scope, lying as `layout`.
    ///
    /// # Errors
    /// `unsupported-model` if the same name was recorded with another layout.
    pub fn weight(&mut self, name: &str, layout: Layout) -> Result<Weight> {
        self.stack(vec![(name.to_owned(), layout)])
    }

    /// The weights called so in this scope, one right behind the other in memory: bound as one. Each is still
    /// written, and changed by LoRAs, under its own name.
    ///
    /// # Errors
    /// `unsupported-model` if one of the names was recorded with another layout, or not in this stack.
    pub fn stack(&mut self, parts: Vec<(String, Layout)>) -> Result<Weight> {
        let count = parts.len();
        let next = self.weights.len();
        let known = parts.first().and_then(|(name, _)| self.by_name.get(&self.path(name)));
        let first = known.copied().unwrap_or(next);
        for (i, (name, layout)) in parts.into_iter().enumerate() {
            let spec = WeightSpec { name: self.path(&name), layout, follows: i > 0 };
            let known = self.by_name.get(&spec.name).copied();
            if known.is_none() && first == next {
                self.by_name.insert(spec.name.clone(), next + i);
                self.weights.push(spec);
            } else if known != Some(first + i) || self.weights[first + i] != spec {
                return Err(Error::unsupported(format!("{} is used with two shapes", spec.name)));
            }
        }
        Ok(Weight { first, count })
    }

    /// Records what depends on some of the inputs alone and need not be made anew at every run: it runs when one of
    /// these was written, before the rest (see [`super::Executable::run`]). What it makes is kept. That a weight was
    /// changed is not noticed: write the inputs again.
    ///
    /// # Errors
    /// Those of `record`; `unsupported-model` if it reads what the rest makes: a fault of this engine.
    pub fn setup<T>(&mut self, record: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let start = self.setup.len();
        let outer = std::mem::replace(&mut self.in_setup, true);
        let made = record(self);
        self.in_setup = outer;
        let mut reads = self.setup[start..].iter().flat_map(Dispatch::reads);
        if reads.any(|t| !self.tensors[t.id].kept()) {
            return Err(Error::unsupported("a setup that reads what every run makes anew"));
        }
        made
    }

    /// Records a launch, and gives its kernel the names of its parameters, as WIDE, whether activations are f32, and
    /// whether its text is for a software adapter.
    pub fn dispatch(&mut self, mut dispatch: Dispatch) {
        dispatch.kernel.defines.push(("WIDE", u32::from(self.options.activations == Dtype::F32)));
        if self.options.rolled {
            dispatch.kernel.rolled = true;
            dispatch.params.push((ONE, Scalar::U32(1)));
        }
        dispatch.kernel.params = dispatch.params.iter().map(|(name, v)| (*name, v.wgsl_type())).collect();
        if self.in_setup {
            for b in &dispatch.bindings {
                if let Binding::Write(t) = b {
                    self.keep(*t, 0);
                }
            }
            self.setup.push(dispatch);
            return;
        }
        let at = self.dispatches.len();
        for b in &dispatch.bindings {
            if let Binding::Read(t) | Binding::Write(t) = b {
                let life = &mut self.tensors[t.id];
                life.first = life.first.min(at);
                life.last = life.last.max(at);
            }
        }
        self.dispatches.push(dispatch);
    }

    /// Packs the tensors into buffers.
    pub fn finish(self) -> Plan {
        let slots = pack(&self.tensors);
        let mut slot_of = vec![usize::MAX; self.tensors.len()];
        for (slot, tenants) in slots.iter().enumerate() {
            for &i in tenants {
                slot_of[i] = slot;
            }
        }
        let slots = slots.iter().map(|tenants| bytes(&self.tensors, tenants)).collect();
        Plan {
            dispatches: self.dispatches,
            setup: self.setup,
            weights: self.weights,
            overflow: self.overflow,
            slots,
            slot_of,
            sizes: self.tensors.iter().map(|t| t.bytes).collect(),
        }
    }
}

/// A recorded model: dispatches, the weights they need, and the buffers that their tensors lie in.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) dispatches: Vec<Dispatch>,
    pub(super) setup: Vec<Dispatch>,
    pub(super) weights: Vec<WeightSpec>,
    pub(super) overflow: Option<Tensor>,
    /// Bytes of each buffer.
    pub(super) slots: Vec<u64>,
    /// The buffer of each tensor (`usize::MAX`: never used).
    pub(super) slot_of: Vec<usize>,
    pub(super) sizes: Vec<u64>,
}

impl Plan {
    /// Everything the plan needs, in the order it was asked for.
    pub fn weights(&self) -> &[WeightSpec] {
        &self.weights
    }

    pub(super) fn specs(&self, weight: Weight) -> &[WeightSpec] {
        &self.weights[weight.first..weight.first + weight.count]
    }

    /// Those of every run.
    pub fn dispatches(&self) -> &[Dispatch] {
        &self.dispatches
    }

    /// Those that run before the others when what they read was written (see [`Recorder::setup`]).
    pub fn setup(&self) -> &[Dispatch] {
        &self.setup
    }

    /// Bytes that a dispatch moves where every one is read or written once: those of each tensor and weight bound.
    /// What a kernel does not read, and so is bound to something else, is not counted.
    pub fn bytes(&self, dispatch: &Dispatch) -> u64 {
        let mut seen: Vec<(bool, usize)> = Vec::with_capacity(dispatch.bindings.len());
        let mut bytes = 0;
        for binding in &dispatch.bindings {
            let (key, size) = match binding {
                Binding::Weight(w) => ((true, w.first), self.specs(*w).iter().map(WeightSpec::bytes).sum()),
                Binding::Read(t) | Binding::Write(t) => ((false, t.id), self.sizes[t.id]),
            };
            if !seen.contains(&key) {
                seen.push(key);
                bytes += size;
            }
        }
        bytes
    }

    /// [`Plan::bytes`] of all dispatches.
    pub fn bytes_moved(&self) -> u64 {
        self.dispatches.iter().map(|d| self.bytes(d)).sum()
    }

    /// The dispatches of each submit of a run.
    pub fn submits(&self) -> Vec<Range<usize>> {
        submits(&self.dispatches, 0)
    }

    /// Bytes of GPU memory for activations, before anything is allocated.
    pub fn peak_bytes(&self) -> u64 {
        self.slots.iter().sum()
    }

    /// # Errors
    /// `out-of-memory`, with the numbers, where one buffer is larger than the adapter binds.
    pub fn check(&self, limits: &Limits) -> Result<()> {
        let largest_slot = self.slots.iter().copied().max().unwrap_or(0);
        let bytes = |stack: &[WeightSpec]| stack.iter().map(WeightSpec::bytes).sum();
        let largest_weight = stacks(&self.weights).map(bytes).max().unwrap_or(0);
        let limit = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let need = largest_slot.max(largest_weight);
        if need > limit {
            let mib = |b: u64| b.div_ceil(1 << 20);
            return Err(Error::new(
                Code::OutOfMemory,
                format!(
                    "This needs a buffer of {} MiB, and this GPU binds at most {} MiB. Choose a smaller size, \
                     or a smaller model.",
                    mib(need),
                    mib(limit)
                ),
            ));
        }
        Ok(())
    }
}

/// The dispatches of each submit, the first one being number `from`: as few submits as the limits allow, of about the
/// same work each.
pub(super) fn submits(dispatches: &[Dispatch], from: usize) -> Vec<Range<usize>> {
    let total: f64 = dispatches.iter().map(Dispatch::slow_ms).sum();
    let share = total / (total / MS_PER_SUBMIT).ceil().max(1.0);
    let mut submits = Vec::new();
    let (mut start, mut done, mut due) = (from, 0.0, share);
    for (end, dispatch) in (from + 1..).zip(dispatches) {
        done += dispatch.slow_ms();
        if done >= due || end - start == DISPATCHES_PER_SUBMIT || end == from + dispatches.len() {
            submits.push(start..end);
            start = end;
            while due <= done && share > 0.0 {
                due += share;
            }
        }
    }
    submits
}
