//! The weights of one module on the GPU: packed into few buffers, filled as their bytes arrive.

use super::context::{Buffer, Gpu, MemoryKind};
use super::plan::{AdaptedLayers, Tensor, WeightSpec, stacks};
use crate::checkpoint::pack::{Layout, Packer};
use crate::checkpoint::{Dtype, TensorInfo};
use crate::error::{Error, Result};
use half::f16;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use wgpu::BufferUsages as Usage;

/// Weights are packed into buffers of about this size: WebGPU's default binding limit.
const BLOCK_BYTES: u64 = 128 << 20;
/// WebGPU's default alignment of a storage binding's offset.
pub(crate) const ALIGN: u64 = 256;

struct Place {
    block: usize,
    offset: u64,
    bytes: u64,
    layout: Layout,
    /// Its elements are f32.
    wide: bool,
}

/// Whether a stack lies as f32, where the weights of `wide` do: all of it or nothing.
pub(crate) fn is_wide(stack: &[WeightSpec], wide: &HashSet<String>) -> bool {
    stack.iter().any(|spec| wide.contains(&spec.name))
}

/// Weights by canonical name.
pub struct Weights {
    blocks: Vec<Buffer>,
    places: HashMap<String, Place>,
    /// What stood where a LoRA has been merged.
    originals: RefCell<HashMap<String, Buffer>>,
    /// The LoRAs that are merged, by key and scale.
    pub(crate) merged: RefCell<Vec<(String, f32)>>,
    /// Of LoRAs over quantised matrices: the layers, and the weights that they need beside these.
    adapted: RefCell<(Rc<AdaptedLayers>, Option<Rc<Weights>>)>,
}

impl Weights {
    /// Allocates room for every weight of `specs`, those of a stack one right behind the other. Their content is zero
    /// until written.
    pub fn allocate(gpu: &Gpu, specs: &[WeightSpec]) -> Self {
        Self::allocate_wide(gpu, specs, &HashSet::new())
    }

    /// As [`Weights::allocate`]; those of `wide`, and what they are stacked with, lie as f32, unquantised.
    pub fn allocate_wide(gpu: &Gpu, specs: &[WeightSpec], wide: &HashSet<String>) -> Self {
        let mut sizes: Vec<u64> = Vec::new();
        let mut places = HashMap::with_capacity(specs.len());
        for stack in stacks(specs) {
            let wide = is_wide(stack, wide);
            let size = |spec: &WeightSpec| if wide { spec.layout.wide_bytes() } else { spec.bytes() };
            let bytes = stack.iter().map(size).sum::<u64>().next_multiple_of(ALIGN);
            if sizes.last().is_none_or(|last| last + bytes > BLOCK_BYTES) {
                sizes.push(0);
            }
            let block = sizes.len() - 1;
            let mut offset = sizes[block];
            for spec in stack {
                let bytes = size(spec);
                places.insert(spec.name.clone(), Place { block, offset, bytes, layout: spec.layout, wide });
                offset += bytes;
            }
            sizes[block] += bytes;
        }
        let blocks = sizes
            .iter()
            .map(|&size| {
                gpu.buffer(MemoryKind::Weights, size, Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC)
            })
            .collect();
        Self {
            blocks,
            places,
            originals: RefCell::default(),
            merged: RefCell::default(),
            adapted: RefCell::default(),
        }
    }

    fn find(&self, name: &str) -> Result<&Place> {
        self.places.get(name).ok_or_else(|| {
            Error::bad_checkpoint(format!(
                "The checkpoint has no tensor {name}. Is it a checkpoint of this model?"
            ))
        })
    }

    /// How `name` must lie, if this module has it.
    pub fn layout(&self, name: &str) -> Option<Layout> {
        self.places.get(name).map(|p| p.layout)
    }

    /// Writes packed bytes of `name` from byte `offset` on; both are multiples of four.
    ///
    /// # Errors
    /// `bad-checkpoint` for an unknown name or bytes past the end.
    pub fn write(&self, gpu: &Gpu, name: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        let place = self.find(name)?;
        if offset + bytes.len() as u64 > place.bytes {
            return Err(Error::bad_checkpoint(format!("{name} has more bytes than its shape says")));
        }
        gpu.note_upload(bytes.len() as u64);
        gpu.queue.write_buffer(&self.blocks[place.block].raw, place.offset + offset, bytes);
        Ok(())
    }

    /// Writes a whole weight from f32 values in the checkpoint's order ([out, in, taps], or a vector).
    ///
    /// # Errors
    /// As [`Weights::write`], and `bad-checkpoint` if the number of values is another.
    pub fn upload(&self, gpu: &Gpu, name: &str, values: &[f32]) -> Result<()> {
        let &Place { layout, wide, .. } = self.find(name)?;
        let shape = match layout {
            Layout::Matrix { rows, inner, taps } | Layout::Blocks { rows, inner, taps, .. } => {
                vec![rows as u64, inner as u64, taps as u64]
            }
            Layout::Vector { len } => vec![len as u64],
        };
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let info =
            TensorInfo { name: name.into(), dtype: Dtype::F32, shape, begin: 0, end: bytes.len() as u64 };
        let mut write = |offset: u64, packed: &[u8]| self.write(gpu, name, offset, packed);
        let packer = Packer::new(&info, layout)?;
        let mut packer = if wide { packer.wide() } else { packer };
        packer.push(bytes, &mut write)?;
        packer.finish(&mut write)
    }

    /// Fills every weight with random values in -0.05 .. 0.05, small enough that a UNet of them stays within f16: one
    /// megabyte is uploaded, the rest copied on the GPU. To measure without a checkpoint.
    pub fn fill(&self, gpu: &Gpu) {
        repeat_random(gpu, &self.blocks.iter().collect::<Vec<_>>(), 0.05, false);
    }

    /// Copies `name` from another module, as its checkpoint has it, whatever LoRAs are merged there.
    ///
    /// # Errors
    /// `bad-checkpoint` for an unknown name, or where it lies in another way there.
    pub(crate) fn copy_from(&self, gpu: &Gpu, from: &Weights, name: &str) -> Result<()> {
        let (place, theirs) = (self.find(name)?, from.find(name)?);
        if (place.layout, place.wide, place.bytes) != (theirs.layout, theirs.wide, theirs.bytes) {
            return Err(Error::bad_checkpoint(format!("{name} has another size")));
        }
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let to = &self.blocks[place.block].raw;
        from.original(name, theirs, |raw, offset| {
            encoder.copy_buffer_to_buffer(raw, offset, to, place.offset, place.bytes);
        });
        gpu.queue.submit([encoder.finish()]);
        Ok(())
    }

    /// Where the checkpoint's own values of `name` lie.
    fn original(&self, name: &str, place: &Place, use_at: impl FnOnce(&wgpu::Buffer, u64)) {
        match self.originals.borrow().get(name) {
            Some(kept) => use_at(&kept.raw, 0),
            None => use_at(&self.blocks[place.block].raw, place.offset),
        }
    }

    /// Copies the checkpoint's own values of `name`, as they lie here, into `to`, the buffer of tensor `t`. That has as
    /// many bytes, or as many vectors where the weight does not fill its last.
    ///
    /// # Errors
    /// `unsupported-model` for a weight that is f32; `bad-checkpoint` for an unknown name, or a tensor of another size.
    pub(crate) fn copy(&self, gpu: &Gpu, name: &str, to: &wgpu::Buffer, t: Tensor) -> Result<()> {
        let place = self.find(name)?;
        if place.wide {
            return Err(Error::unsupported(format!(
                "a LoRA for {name}, which this model keeps in f32 since f16 does not hold its values"
            )));
        }
        if t.bytes().next_multiple_of(16) != place.bytes.next_multiple_of(16) {
            return Err(Error::bad_checkpoint(format!("{name} has another size")));
        }
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        self.original(name, place, |raw, offset| {
            encoder.copy_buffer_to_buffer(raw, offset, to, 0, place.bytes);
        });
        gpu.queue.submit([encoder.finish()]);
        Ok(())
    }

    /// The layers of a quantised module that LoRAs change, as plans over these weights must be recorded.
    pub fn adapted(&self) -> Rc<AdaptedLayers> {
        self.adapted.borrow().0.clone()
    }

    /// The weights that those layers need beside these.
    pub(crate) fn adaptation(&self) -> Option<Rc<Weights>> {
        self.adapted.borrow().1.clone()
    }

    /// Makes room for what `layers` need beside these weights (`specs`); what was there before is freed, so that
    /// plans which are bound to it must be gone.
    pub(crate) fn adapt(&self, gpu: &Gpu, layers: AdaptedLayers, specs: &[WeightSpec]) {
        self.adapted.take();
        let beside = (!specs.is_empty()).then(|| Rc::new(Weights::allocate(gpu, specs)));
        *self.adapted.borrow_mut() = (Rc::new(layers), beside);
    }

    /// Puts tensor `t`, which `from` holds, in the place of `name`.
    ///
    /// # Errors
    /// `bad-checkpoint` for an unknown name, or a tensor of another size.
    pub(crate) fn put(&self, gpu: &Gpu, name: &str, from: &wgpu::Buffer, t: Tensor) -> Result<()> {
        let place = self.find(name)?;
        if t.bytes() != place.bytes {
            return Err(Error::bad_checkpoint(format!("{name} has another size")));
        }
        let block = &self.blocks[place.block].raw;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(from, 0, block, place.offset, place.bytes);
        gpu.queue.submit([encoder.finish()]);
        Ok(())
    }

    /// As [`Weights::put`], and keeps a copy of what stood there for [`Weights::restore`].
    ///
    /// # Errors
    /// Those of [`Weights::put`].
    pub(crate) fn replace(&self, gpu: &Gpu, name: &str, from: &wgpu::Buffer, t: Tensor) -> Result<()> {
        let place = self.find(name)?;
        let block = &self.blocks[place.block].raw;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        self.originals.borrow_mut().entry(name.to_owned()).or_insert_with(|| {
            let kept = gpu.buffer(MemoryKind::Weights, place.bytes, Usage::COPY_DST | Usage::COPY_SRC);
            encoder.copy_buffer_to_buffer(block, place.offset, &kept.raw, 0, place.bytes);
            kept
        });
        gpu.queue.submit([encoder.finish()]);
        self.put(gpu, name, from, t)
    }

    /// Puts everything back that [`Weights::replace`] replaced.
    pub fn restore(&self, gpu: &Gpu) {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let originals = self.originals.take();
        for (name, kept) in &originals {
            if let Some(place) = self.places.get(name) {
                let block = &self.blocks[place.block].raw;
                encoder.copy_buffer_to_buffer(&kept.raw, 0, block, place.offset, place.bytes);
            }
        }
        gpu.queue.submit([encoder.finish()]);
    }
}

/// What the weights of a plan are bound from.
pub trait Held {
    /// Whether a weight, or one of a stack, lies as f32.
    fn is_wide(&self, stack: &[WeightSpec]) -> bool;

    /// Buffer, offset and size of a stack, to bind.
    ///
    /// # Errors
    /// `bad-checkpoint` for an unknown name, or for weights that do not lie in a row.
    fn place(&self, stack: &[WeightSpec]) -> Result<(wgpu::Buffer, u64, u64)>;
}

impl Held for Weights {
    fn is_wide(&self, stack: &[WeightSpec]) -> bool {
        stack.iter().any(|spec| self.places.get(&spec.name).is_some_and(|place| place.wide))
    }

    fn place(&self, stack: &[WeightSpec]) -> Result<(wgpu::Buffer, u64, u64)> {
        let [first, rest @ ..] = stack else { return Err(Error::bad_checkpoint("no weight at all")) };
        if let (None, Some(beside)) = (self.places.get(&first.name), &self.adapted.borrow().1) {
            return beside.place(stack);
        }
        let start = self.find(&first.name)?;
        let mut end = start.offset + start.bytes;
        for spec in rest {
            let place = self.find(&spec.name)?;
            if (place.block, place.offset) != (start.block, end) {
                return Err(Error::bad_checkpoint(format!("{} does not lie in its stack", spec.name)));
            }
            end += place.bytes;
        }
        let size = (end - start.offset).next_multiple_of(16);
        Ok((self.blocks[start.block].raw.clone(), start.offset, size))
    }
}

/// A module's own weights, and others that act inside it: the `i`-th of those are called "lllite.i." and what they are
/// called in their own file.
pub struct Joined<'a> {
    pub own: &'a Weights,
    pub others: &'a [Rc<Weights>],
}

impl Joined<'_> {
    /// The weights that have the first of a stack, and the stack by its names there.
    fn holder(&self, stack: &[WeightSpec]) -> (&Weights, Vec<WeightSpec>) {
        let split = |name: &str| {
            let (i, rest) = name.strip_prefix("lllite.")?.split_once('.')?;
            Some((self.others.get(i.parse::<usize>().ok()?)?.as_ref(), rest.to_owned()))
        };
        match stack.first().and_then(|first| split(&first.name)) {
            None => (self.own, stack.to_vec()),
            Some((other, _)) => {
                let named = |spec: &WeightSpec| {
                    let name = split(&spec.name).map_or_else(|| spec.name.clone(), |(_, name)| name);
                    WeightSpec { name, ..*spec }
                };
                (other, stack.iter().map(named).collect())
            }
        }
    }
}

impl Held for Joined<'_> {
    fn is_wide(&self, stack: &[WeightSpec]) -> bool {
        let (weights, stack) = self.holder(stack);
        weights.is_wide(&stack)
    }

    fn place(&self, stack: &[WeightSpec]) -> Result<(wgpu::Buffer, u64, u64)> {
        let (weights, stack) = self.holder(stack);
        weights.place(&stack)
    }
}

/// Fills buffers with values in -scale .. scale, f32 if `wide`, else f16: one megabyte, over and over.
pub(super) fn repeat_random(gpu: &Gpu, buffers: &[&Buffer], scale: f32, wide: bool) {
    let values = random_values(1 << 18, scale);
    let halves: Vec<f16> = values.iter().chain(&values).map(|&v| f16::from_f32(v)).collect();
    let bytes: &[u8] = if wide { bytemuck::cast_slice(&values) } else { bytemuck::cast_slice(&halves) };
    let size = bytes.len() as u64;
    let source = gpu.buffer(MemoryKind::Staging, size, Usage::COPY_DST | Usage::COPY_SRC);
    gpu.queue.write_buffer(&source.raw, 0, bytes);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    for to in buffers {
        for at in (0..to.raw.size()).step_by(size as usize) {
            encoder.copy_buffer_to_buffer(&source.raw, 0, &to.raw, at, size.min(to.raw.size() - at));
        }
    }
    gpu.queue.submit([encoder.finish()]);
}

/// The same `len` values in -scale .. scale every time.
fn random_values(len: usize, scale: f32) -> Vec<f32> {
    let mut x = 0x5d15_u32;
    let mut next = || {
        // xorshift32 (Marsaglia 2003)
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        (x as f32 / (1u64 << 31) as f32 - 1.0) * scale
    };
    (0..len).map(|_| next()).collect()
}
