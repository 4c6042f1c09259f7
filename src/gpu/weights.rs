//! The weights of one module on the GPU: packed into few buffers, filled as their bytes arrive.

use super::context::{Buffer, Gpu, MemoryKind};
use super::executable::Executable;
use super::plan::{AdaptedLayers, Tensor, WeightSpec};
use crate::checkpoint::pack::{Layout, Packer};
use crate::checkpoint::{Dtype, TensorInfo};
use crate::error::{Error, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use wgpu::BufferUsages as Usage;

/// Weights are packed into buffers of about this size: WebGPU's default binding limit.
const BLOCK_BYTES: u64 = 128 << 20;
/// WebGPU's default alignment of a storage binding's offset.
const ALIGN: u64 = 256;

struct Place {
    block: usize,
    offset: u64,
    bytes: u64,
    layout: Layout,
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
    /// Allocates room for every weight of `specs`. Their content is zero until written.
    pub fn allocate(gpu: &Gpu, specs: &[WeightSpec]) -> Self {
        let mut sizes: Vec<u64> = Vec::new();
        let mut places = HashMap::with_capacity(specs.len());
        for spec in specs {
            let size = spec.bytes();
            let bytes = size.next_multiple_of(ALIGN);
            if sizes.last().is_none_or(|last| last + bytes > BLOCK_BYTES) {
                sizes.push(0);
            }
            let block = sizes.len() - 1;
            places.insert(
                spec.name.clone(),
                Place { block, offset: sizes[block], bytes: size, layout: spec.layout },
            );
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
        let layout = self.find(name)?.layout;
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
        let mut packer = Packer::new(&info, layout)?;
        packer.push(bytes, &mut write)?;
        packer.finish(&mut write)
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

    /// Puts a computed tensor in the place of `name`.
    ///
    /// # Errors
    /// `bad-checkpoint` for an unknown name, or a tensor of another size.
    pub fn put(&self, gpu: &Gpu, name: &str, from: &Executable, t: Tensor) -> Result<()> {
        let place = self.find(name)?;
        if t.bytes() != place.bytes {
            return Err(Error::bad_checkpoint(format!("{name} has another size")));
        }
        let block = &self.blocks[place.block].raw;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(from.buffer(t)?, 0, block, place.offset, place.bytes);
        gpu.queue.submit([encoder.finish()]);
        Ok(())
    }

    /// As [`Weights::put`], and keeps a copy of what stood there for [`Weights::restore`].
    ///
    /// # Errors
    /// Those of [`Weights::put`].
    pub fn replace(&self, gpu: &Gpu, name: &str, from: &Executable, t: Tensor) -> Result<()> {
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

    /// Buffer, offset and size of `name`, to bind.
    pub(super) fn place(&self, name: &str) -> Result<(wgpu::Buffer, u64, u64)> {
        if let (None, Some(beside)) = (self.places.get(name), &self.adapted.borrow().1) {
            return beside.place(name);
        }
        let place = self.find(name)?;
        Ok((self.blocks[place.block].raw.clone(), place.offset, place.bytes.next_multiple_of(16)))
    }
}
