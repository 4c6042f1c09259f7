//! A plan with its buffers and bind groups, replayed step after step.

use super::context::{Buffer, Gpu, MemoryKind};
use super::plan::{Binding, Dtype, Plan, Tensor};
use super::weights::Weights;
use crate::error::{Error, Result};
use half::f16;
use std::cell::RefCell;
use wgpu::BufferUsages as Usage;

/// A submit holds at most this many dispatches and about this much work, so that the browser's watchdog and
/// Windows' two-second limit stay far away on slow GPUs.
const DISPATCHES_PER_SUBMIT: usize = 48;
const FLOPS_PER_SUBMIT: u64 = 60_000_000_000;

struct Launch {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    workgroups: [u32; 3],
    flops: u64,
    name: &'static str,
}

/// What one dispatch took, as the GPU measured it.
#[derive(Clone, Debug)]
pub struct Timing {
    pub kernel: &'static str,
    pub flops: u64,
    pub nanoseconds: f64,
}

/// A [`Plan`] that owns its buffers. Nothing is created while it runs.
pub struct Executable {
    slots: Vec<Buffer>,
    slot_of: Vec<usize>,
    /// Keeps the uniform blocks alive.
    _params: Buffer,
    launches: Vec<Launch>,
    overflow: Option<Tensor>,
    staging: RefCell<Option<Buffer>>,
}

impl Plan {
    /// Allocates the buffers, compiles what is not compiled yet, and binds.
    ///
    /// # Errors
    /// `out-of-memory` if the plan does not fit the adapter; `bad-checkpoint` if `weights` lacks one.
    pub fn instantiate(&self, gpu: &Gpu, weights: &Weights) -> Result<Executable> {
        self.check(&gpu.limits)?;
        let slots: Vec<Buffer> = self
            .slots
            .iter()
            .map(|&bytes| {
                gpu.buffer(MemoryKind::Activations, bytes, Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC)
            })
            .collect();
        // One uniform block a dispatch, at WebGPU's offset alignment.
        const BLOCK: usize = 256;
        let mut words = vec![0u32; self.dispatches.len().max(1) * BLOCK / 4];
        for (i, d) in self.dispatches.iter().enumerate() {
            let at = i * BLOCK / 4;
            words
                .get_mut(at..at + d.params.len())
                .filter(|_| d.params.len() <= BLOCK / 4)
                .ok_or_else(|| Error::unsupported(format!("kernel {}: too many parameters", d.kernel.name)))?
                .copy_from_slice(&d.params);
        }
        let params =
            gpu.buffer(MemoryKind::Activations, (words.len() * 4) as u64, Usage::UNIFORM | Usage::COPY_DST);
        gpu.queue.write_buffer(&params.raw, 0, bytemuck::cast_slice(&words));

        let mut launches = Vec::with_capacity(self.dispatches.len());
        for (i, d) in self.dispatches.iter().enumerate() {
            let p = gpu.pipeline(&d.kernel, &d.bindings)?;
            let size = (d.params.len().max(1) * 4).next_multiple_of(16) as u64;
            let mut places = vec![(params.raw.clone(), (i * BLOCK) as u64, size)];
            for binding in &d.bindings {
                let place = match binding {
                    Binding::Weight(w) => weights.place(&self.weights[w.0].name)?,
                    Binding::Read(t) | Binding::Write(t) => {
                        let slot = &slots[self.slot_of[t.id]];
                        (slot.raw.clone(), 0, self.sizes[t.id].next_multiple_of(16))
                    }
                };
                gpu.note_binding(place.2);
                places.push(place);
            }
            let entries: Vec<_> = places
                .iter()
                .enumerate()
                .map(|(j, (buffer, at, size))| entry(j, buffer, *at, *size))
                .collect();
            launches.push(Launch {
                group: gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some(d.kernel.name),
                    layout: &p.layout,
                    entries: &entries,
                }),
                pipeline: p.pipeline,
                workgroups: d.workgroups,
                flops: d.flops,
                name: d.kernel.name,
            });
        }
        Ok(Executable {
            slots,
            slot_of: self.slot_of.clone(),
            _params: params,
            launches,
            overflow: self.overflow,
            staging: RefCell::new(None),
        })
    }
}

fn entry(binding: usize, buffer: &wgpu::Buffer, offset: u64, size: u64) -> wgpu::BindGroupEntry<'_> {
    wgpu::BindGroupEntry {
        binding: binding as u32,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer,
            offset,
            size: std::num::NonZeroU64::new(size),
        }),
    }
}

impl Executable {
    /// Bytes of GPU memory for activations.
    pub fn bytes(&self) -> u64 {
        self.slots.iter().map(|b| b.raw.size()).sum()
    }

    /// Whether, since the last time this was asked, a matrix multiply or convolution made a value that f16 does
    /// not hold (or NaN) where it is stored as f16.
    ///
    /// # Errors
    /// As [`Executable::read`].
    pub async fn overflowed(&self, gpu: &Gpu) -> Result<bool> {
        let Some(flag) = self.overflow else { return Ok(false) };
        let set = self.read_bytes(gpu, self.buffer(flag)?, 4).await?.iter().any(|&b| b != 0);
        if set {
            self.write_u32(gpu, flag, &[0])?;
        }
        Ok(set)
    }

    pub(super) fn buffer(&self, t: Tensor) -> Result<&wgpu::Buffer> {
        self.slot_of
            .get(t.id)
            .and_then(|&s| self.slots.get(s))
            .map(|b| &b.raw)
            .ok_or_else(|| Error::invalid("a tensor that this plan never uses was asked for"))
    }

    /// Writes an input: `values` is NHWC without padding, `t.rows() * t.c` of them.
    ///
    /// # Errors
    /// `invalid-option` if the length is another.
    pub fn write(&self, gpu: &Gpu, t: Tensor, values: &[f32]) -> Result<()> {
        let (rows, c, padded) = (t.rows() as usize, t.c as usize, t.c4() as usize * 4);
        if values.len() != rows * c {
            return Err(Error::invalid(format!(
                "{} values were given where {} are needed",
                values.len(),
                rows * c
            )));
        }
        let mut full = vec![0f32; rows * padded];
        for (to, from) in full.chunks_exact_mut(padded).zip(values.chunks_exact(c)) {
            to[..c].copy_from_slice(from);
        }
        match t.dtype {
            Dtype::F16 => {
                let halves: Vec<f16> = full.iter().map(|&v| f16::from_f32(v)).collect();
                gpu.queue.write_buffer(self.buffer(t)?, 0, bytemuck::cast_slice(&halves));
            }
            Dtype::F32 | Dtype::U32 => {
                gpu.queue.write_buffer(self.buffer(t)?, 0, bytemuck::cast_slice(&full))
            }
        }
        Ok(())
    }

    /// Writes an input of indices (see [`super::Recorder::input_u32`]).
    ///
    /// # Errors
    /// `invalid-option` if the length is not `n * len`.
    pub fn write_u32(&self, gpu: &Gpu, t: Tensor, values: &[u32]) -> Result<()> {
        if values.len() != t.rows() as usize {
            return Err(Error::invalid(format!(
                "{} indices were given where {} are needed",
                values.len(),
                t.rows()
            )));
        }
        gpu.queue.write_buffer(self.buffer(t)?, 0, bytemuck::cast_slice(values));
        Ok(())
    }

    /// Encodes and submits every dispatch.
    pub fn run(&self, gpu: &Gpu) {
        let mut launches = self.launches.iter().peekable();
        while launches.peek().is_some() {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                let (mut count, mut flops) = (0, 0);
                while count < DISPATCHES_PER_SUBMIT && flops < FLOPS_PER_SUBMIT {
                    let Some(launch) = launches.next() else { break };
                    launch.encode(&mut pass);
                    count += 1;
                    flops += launch.flops;
                }
            }
            gpu.queue.submit([encoder.finish()]);
        }
    }

    /// Runs once with a timestamp around every dispatch; empty where the adapter has no timestamp queries.
    ///
    /// # Errors
    /// `device-lost`.
    pub async fn run_timed(&self, gpu: &Gpu) -> Result<Vec<Timing>> {
        if !gpu.timestamps {
            self.run(gpu);
            return Ok(Vec::new());
        }
        // A query set holds at most 4096 stamps, and each dispatch takes two.
        let mut timings = Vec::with_capacity(self.launches.len());
        for batch in self.launches.chunks(2048) {
            let count = batch.len() as u32 * 2;
            let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count,
            });
            let size = count as u64 * 8;
            let resolved = gpu.buffer(MemoryKind::Staging, size, Usage::QUERY_RESOLVE | Usage::COPY_SRC);
            let staging = gpu.buffer(MemoryKind::Staging, size, Usage::MAP_READ | Usage::COPY_DST);
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            for (i, launch) in batch.iter().enumerate() {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: None,
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: &set,
                        beginning_of_pass_write_index: Some(i as u32 * 2),
                        end_of_pass_write_index: Some(i as u32 * 2 + 1),
                    }),
                });
                launch.encode(&mut pass);
            }
            encoder.resolve_query_set(&set, 0..count, &resolved.raw, 0);
            encoder.copy_buffer_to_buffer(&resolved.raw, 0, &staging.raw, 0, size);
            gpu.queue.submit([encoder.finish()]);
            let bytes = gpu.map(&staging, size).await?;
            let period = gpu.queue.get_timestamp_period() as f64;
            timings.extend(batch.iter().zip(bytes.chunks_exact(16)).map(|(launch, pair)| {
                let stamp = |b: &[u8]| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
                Timing {
                    kernel: launch.name,
                    flops: launch.flops,
                    nanoseconds: stamp(&pair[8..]).saturating_sub(stamp(&pair[..8])) as f64 * period,
                }
            }));
        }
        Ok(timings)
    }

    /// Waits for the GPU and reads an output: NHWC without padding.
    ///
    /// # Errors
    /// `device-lost` or `out-of-memory`, whatever the GPU met since the last look.
    pub async fn read(&self, gpu: &Gpu, t: Tensor) -> Result<Vec<f32>> {
        let bytes = self.read_bytes(gpu, self.buffer(t)?, t.bytes()).await?;
        let (c, padded) = (t.c as usize, t.c4() as usize * 4);
        let mut out = Vec::with_capacity(t.rows() as usize * c);
        match t.dtype {
            Dtype::F16 => {
                for row in bytes.chunks_exact(padded * 2) {
                    out.extend(
                        row.chunks_exact(2).take(c).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()),
                    );
                }
            }
            Dtype::F32 | Dtype::U32 => {
                for row in bytes.chunks_exact(padded * 4) {
                    out.extend(
                        row.chunks_exact(4).take(c).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
                    );
                }
            }
        }
        Ok(out)
    }

    async fn read_bytes(&self, gpu: &Gpu, buffer: &wgpu::Buffer, size: u64) -> Result<Vec<u8>> {
        let staging = match self.staging.borrow_mut().take() {
            Some(b) if b.raw.size() >= size => b,
            _ => gpu.buffer(MemoryKind::Staging, size, Usage::MAP_READ | Usage::COPY_DST),
        };
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging.raw, 0, size);
        gpu.queue.submit([encoder.finish()]);
        let bytes = gpu.map(&staging, size).await?;
        *self.staging.borrow_mut() = Some(staging);
        Ok(bytes)
    }
}

impl Launch {
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        let [x, y, z] = self.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }
}
