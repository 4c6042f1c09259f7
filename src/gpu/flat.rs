//! Memory of plain f32 and kernels over it, for what is no plan of tensors: training (`crate::train`).

use super::context::{Buffer, Gpu, MemoryKind};
use super::kernel::{Kernel, Scalar};
use crate::error::Result;
use std::ops::Range;
use wgpu::BufferUsages as Usage;

/// Some arrays of f32. Kernels bind the first `BOUND` of them, all of these writable; the others are only copied from
/// and to.
pub struct Flat {
    arrays: Vec<Buffer>,
}

/// Arrays that kernels bind.
const BOUND: usize = 3;

/// A kernel with its parameters, bound.
pub struct Launch {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    workgroups: [u32; 2],
    _params: Buffer,
}

/// So many values of one array to another: array and place of both, then the count.
pub type Copy = ((usize, usize), (usize, usize), usize);

/// What is submitted at once.
pub struct Submit<'a> {
    flat: &'a Flat,
    encoder: wgpu::CommandEncoder,
}

fn bytes(count: usize) -> u64 {
    4 * count as u64
}

impl Flat {
    /// Arrays of so many values each, zeros.
    pub fn new(gpu: &Gpu, sizes: &[usize]) -> Self {
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let array = |&count| gpu.buffer(MemoryKind::Activations, bytes(count), usage);
        Self { arrays: sizes.iter().map(array).collect() }
    }

    /// Writes values into an array from a place on.
    pub fn write(&self, gpu: &Gpu, (array, at): (usize, usize), values: &[f32]) {
        gpu.queue.write_buffer(&self.arrays[array].raw, bytes(at), bytemuck::cast_slice(values));
    }

    /// Reads parts of arrays, one behind the other.
    ///
    /// # Errors
    /// As [`Gpu::check`].
    pub async fn read(&self, gpu: &Gpu, parts: &[(usize, Range<usize>)]) -> Result<Vec<f32>> {
        let size = bytes(parts.iter().map(|(_, range)| range.len()).sum());
        let staging = gpu.buffer(MemoryKind::Staging, size, Usage::MAP_READ | Usage::COPY_DST);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut to = 0;
        for (array, range) in parts {
            let from = &self.arrays[*array].raw;
            encoder.copy_buffer_to_buffer(from, bytes(range.start), &staging.raw, to, bytes(range.len()));
            to += bytes(range.len());
        }
        gpu.queue.submit([encoder.finish()]);
        Ok(bytemuck::pod_collect_to_vec(&gpu.map(&staging, size).await?))
    }

    /// Compiles a kernel, if it was not, and binds it.
    ///
    /// # Errors
    /// `unsupported-model` if its template does not expand.
    pub fn launch(
        &self,
        gpu: &Gpu,
        mut kernel: Kernel,
        params: &[(&'static str, Scalar)],
        workgroups: [u32; 2],
    ) -> Result<Launch> {
        kernel.params = params.iter().map(|(name, value)| (*name, value.wgsl_type())).collect();
        let compiled = gpu.pipeline(&kernel, &[true; BOUND])?;
        let words: Vec<u32> = params.iter().map(|(_, value)| value.word()).collect();
        let uniform =
            gpu.buffer(MemoryKind::Activations, bytes(words.len()), Usage::UNIFORM | Usage::COPY_DST);
        gpu.queue.write_buffer(&uniform.raw, 0, bytemuck::cast_slice(&words));
        let buffers = std::iter::once(&uniform).chain(&self.arrays[..BOUND]);
        let entries: Vec<_> = buffers
            .enumerate()
            .map(|(i, buffer)| wgpu::BindGroupEntry {
                binding: i as u32,
                resource: buffer.raw.as_entire_binding(),
            })
            .collect();
        let group = gpu.bind_group(kernel.name, &compiled.layout, &entries);
        Ok(Launch { pipeline: compiled.pipeline, group, workgroups, _params: uniform })
    }

    /// Begins what is submitted at once.
    pub fn submit(&self, gpu: &Gpu) -> Submit<'_> {
        Submit { flat: self, encoder: gpu.device.create_command_encoder(&Default::default()) }
    }
}

impl Submit<'_> {
    pub fn copy(&mut self, ((from, at), (to, there), count): Copy) {
        let [from, to] = [from, to].map(|array| &self.flat.arrays[array].raw);
        self.encoder.copy_buffer_to_buffer(from, bytes(at), to, bytes(there), bytes(count));
    }

    /// Fills an array with zeros.
    pub fn clear(&mut self, array: usize) {
        self.encoder.clear_buffer(&self.flat.arrays[array].raw, 0, None);
    }

    pub fn run<'a>(&mut self, launches: impl IntoIterator<Item = &'a Launch>) {
        let mut pass = self.encoder.begin_compute_pass(&Default::default());
        for launch in launches {
            pass.set_pipeline(&launch.pipeline);
            pass.set_bind_group(0, &launch.group, &[]);
            pass.dispatch_workgroups(launch.workgroups[0], launch.workgroups[1], 1);
        }
    }

    pub fn end(self, gpu: &Gpu) {
        gpu.queue.submit([self.encoder.finish()]);
    }
}
