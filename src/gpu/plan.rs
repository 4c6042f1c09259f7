//! Recording: virtual tensors, the list of dispatches over them, and their packing into buffers.

use super::kernel::Kernel;
use crate::checkpoint::{Bits, Layout};
use crate::error::{Code, Error, Result};
use std::collections::BTreeMap;
use std::rc::Rc;

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

/// What products are computed in; sums are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// Four products and their three sums in f16, then f32: needs shader-f16.
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
}

impl Default for Options {
    fn default() -> Self {
        Self { activations: Dtype::F16, arithmetic: Arithmetic::F32, weights: None }
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
}

impl WeightSpec {
    /// Bytes on the GPU.
    pub fn bytes(&self) -> u64 {
        self.layout.packed_bytes().unwrap_or(u64::MAX)
    }
}

/// A weight of this recording: index into [`Plan::weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight(pub(super) usize);

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
    /// The uniform block, word by word (f32 as bits).
    pub params: Vec<u32>,
    pub workgroups: [u32; 3],
    /// Floating-point operations, an FMA counting two.
    pub flops: u64,
}

/// Builds a [`Plan`]. Ops (`crate::ops`) record into it.
#[derive(Debug)]
pub struct Recorder {
    options: Options,
    tensors: Vec<Lifetime>,
    weights: Vec<WeightSpec>,
    by_name: BTreeMap<String, usize>,
    dispatches: Vec<Dispatch>,
    overflow: Option<Tensor>,
    adapted: Rc<AdaptedLayers>,
}

/// Size and first and last dispatch that touch a tensor.
#[derive(Clone, Copy, Debug)]
struct Lifetime {
    bytes: u64,
    first: usize,
    last: usize,
}

impl Recorder {
    pub fn new(options: &Options) -> Self {
        Self {
            options: *options,
            tensors: Vec::new(),
            weights: Vec::new(),
            by_name: BTreeMap::new(),
            dispatches: Vec::new(),
            overflow: None,
            adapted: Rc::default(),
        }
    }

    /// Records these layers with their LoRAs (see [`super::Weights::adapted`]).
    pub fn with_adapted(self, adapted: Rc<AdaptedLayers>) -> Self {
        Self { adapted, ..self }
    }

    /// What LoRAs make of a layer; asked for quantised ones.
    pub fn adapted(&self, prefix: &str) -> Option<Adapted> {
        self.adapted.get(prefix).copied()
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
        let t = self.tensor(n, h, w, c);
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

    /// The weight called `name`, lying as `layout`.
    ///
    /// # Errors
    /// `unsupported-model` if the same name was recorded with another layout.
    pub fn weight(&mut self, name: String, layout: Layout) -> Result<Weight> {
        if let Some(&i) = self.by_name.get(&name) {
            if self.weights[i].layout != layout {
                return Err(Error::unsupported(format!("{name} is used with two shapes")));
            }
            return Ok(Weight(i));
        }
        let i = self.weights.len();
        self.by_name.insert(name.clone(), i);
        self.weights.push(WeightSpec { name, layout });
        Ok(Weight(i))
    }

    pub fn dispatch(&mut self, dispatch: Dispatch) {
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

    /// Packs the tensors: two that are never alive together may share a buffer.
    ///
    /// Greedy by size: the largest tensor first, each into the first buffer whose tenants it never meets.
    pub fn finish(self) -> Plan {
        let mut order: Vec<usize> = (0..self.tensors.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.tensors[i].bytes));
        let mut slots: Vec<(u64, Vec<usize>)> = Vec::new();
        let mut slot_of = vec![usize::MAX; self.tensors.len()];
        for i in order {
            let life = self.tensors[i];
            if life.first == usize::MAX {
                continue;
            }
            let free = slots.iter().position(|(_, tenants)| {
                tenants.iter().all(|&j| {
                    let other = self.tensors[j];
                    life.last < other.first || other.last < life.first
                })
            });
            let slot = free.unwrap_or_else(|| {
                slots.push((life.bytes, Vec::new()));
                slots.len() - 1
            });
            slots[slot].1.push(i);
            slot_of[i] = slot;
        }
        Plan {
            dispatches: self.dispatches,
            weights: self.weights,
            overflow: self.overflow,
            slots: slots.into_iter().map(|(bytes, _)| bytes).collect(),
            slot_of,
            sizes: self.tensors.iter().map(|t| t.bytes).collect(),
        }
    }
}

/// A recorded model: dispatches, the weights they need, and the buffers that their tensors lie in.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) dispatches: Vec<Dispatch>,
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

    pub fn dispatches(&self) -> &[Dispatch] {
        &self.dispatches
    }

    /// Bytes of GPU memory for activations, before anything is allocated.
    pub fn peak_bytes(&self) -> u64 {
        self.slots.iter().sum()
    }

    /// # Errors
    /// `out-of-memory`, with the numbers, where one buffer is larger than the adapter binds.
    pub fn check(&self, limits: &super::Limits) -> Result<()> {
        let largest_slot = self.slots.iter().copied().max().unwrap_or(0);
        let largest_weight = self.weights.iter().map(WeightSpec::bytes).max().unwrap_or(0);
        let limit = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let need = largest_slot.max(largest_weight);
        if need > limit {
            let mib = |b: u64| b.div_ceil(1 << 20);
            return Err(Error::new(
                Code::OutOfMemory,
                format!(
                    "This needs a buffer of {} MiB, and this GPU binds at most {} MiB. Choose a smaller size.",
                    mib(need),
                    mib(limit)
                ),
            ));
        }
        Ok(())
    }
}
