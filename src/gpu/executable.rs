//! A plan with its buffers and bind groups, replayed step after step.

use super::context::{Buffer, Gpu, MemoryKind};
use super::plan::{Binding, Dispatch, Dtype, Plan, Tensor, submits};
use super::stopwatch::{between, spans, stamps};
use super::weights::{Held, repeat_random};
use crate::clock::now;
use crate::error::{Error, Result};
use half::f16;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use wgpu::BufferUsages as Usage;

/// Bytes between the uniform blocks of two dispatches: WebGPU's alignment of offsets.
const BLOCK: u64 = 256;

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

/// What a run is made of: figures that hold on any GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    pub dispatches: usize,
    pub submits: usize,
    /// Bytes that the dispatches move (see [`Plan::bytes`]).
    pub bytes: u64,
    /// Buffers, bind groups and pipelines made on the device since the second run of a picture began: 0, or something
    /// makes anew at every step what could be kept.
    pub created: u64,
    /// Milliseconds that the last run took to encode and to submit.
    pub encode_ms: f64,
}

/// An output on its way from the GPU.
pub struct Reading {
    staging: Buffer,
    t: Tensor,
}

/// A tensor's values, kept beside the plan that made them.
pub struct Aside(Buffer);

/// A [`Plan`] that owns its buffers. Nothing is created while it runs.
pub struct Executable {
    slots: Vec<Rc<Buffer>>,
    slot_of: Vec<usize>,
    /// Keeps the uniform blocks alive.
    _params: Buffer,
    /// Launches of each submit of what runs before the others when what it reads was written.
    setup_submits: Vec<Range<usize>>,
    /// Slots that it reads.
    setup_reads: Vec<usize>,
    /// How often they had been written when it last ran.
    set_up: Cell<Option<u64>>,
    /// Those of the setup first.
    launches: Vec<Launch>,
    /// Launches of each submit of the others.
    submits: Vec<Range<usize>>,
    bytes_moved: u64,
    /// Of this picture.
    runs: Cell<u64>,
    /// Things made on the device when the second of them began.
    created: Cell<u64>,
    encode_ms: Cell<f64>,
    overflow: Option<Tensor>,
    staging: RefCell<Option<Buffer>>,
}

impl Plan {
    /// Begins to compile the kernels that are not compiled yet, beside everything else, so that [`Plan::instantiate`]
    /// finds them ready: wait for [`Gpu::compiled`] before that. Does nothing natively, where `instantiate` compiles.
    ///
    /// # Errors
    /// `unsupported-model` for a kernel whose template does not expand.
    pub fn compile_ahead(&self, gpu: &Gpu) -> Result<()> {
        self.dispatches.iter().try_for_each(|d| gpu.begin(&d.kernel, &d.writable()))
    }

    /// Allocates the buffers, compiles what is not compiled yet, and binds.
    ///
    /// # Errors
    /// `out-of-memory` if the plan does not fit the adapter; `bad-checkpoint` if `weights` lacks one.
    pub fn instantiate(&self, gpu: &Gpu, weights: &dyn Held) -> Result<Executable> {
        self.instantiate_over(gpu, weights, &[])
    }

    /// [`Plan::instantiate`], with some inputs in another executable's memory. Each of `shared` is an input of this
    /// plan, the other executable, and that one's input or output of as many bytes.
    ///
    /// # Errors
    /// Those of [`Plan::instantiate`]; `invalid-option` for a tensor that the other never uses.
    pub fn instantiate_over(
        &self,
        gpu: &Gpu,
        weights: &dyn Held,
        shared: &[(Tensor, &Executable, Tensor)],
    ) -> Result<Executable> {
        self.check(&gpu.limits)?;
        let mut given: Vec<Option<Rc<Buffer>>> = vec![None; self.slots.len()];
        for (t, other, theirs) in shared {
            // An input has its slot to itself.
            if let Some(slot) = self.slot_of.get(t.id).and_then(|&slot| given.get_mut(slot)) {
                *slot = Some(other.slot(*theirs)?.clone());
            }
        }
        let allocate = |bytes: u64| {
            gpu.buffer(MemoryKind::Activations, bytes, Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC)
        };
        let slots: Vec<Rc<Buffer>> = self
            .slots
            .iter()
            .zip(given)
            .map(|(&bytes, given)| given.unwrap_or_else(|| Rc::new(allocate(bytes))))
            .collect();
        let params = self.uniform_blocks(gpu)?;
        let dispatches = self.setup.iter().chain(&self.dispatches);
        let launches = dispatches
            .enumerate()
            .map(|(i, d)| self.launch(gpu, weights, &slots, (&params, i as u64 * BLOCK), d))
            .collect::<Result<Vec<Launch>>>()?;
        let read = self.setup.iter().flat_map(Dispatch::reads).map(|t| self.slot_of[t.id]);
        let setup_reads = read.collect::<BTreeSet<usize>>().into_iter().collect();
        Ok(Executable {
            setup_submits: submits(&self.setup, 0),
            setup_reads,
            set_up: Cell::new(None),
            slots,
            slot_of: self.slot_of.clone(),
            _params: params,
            launches,
            submits: submits(&self.dispatches, self.setup.len()),
            bytes_moved: self.bytes_moved(),
            runs: Cell::new(0),
            created: Cell::new(0),
            encode_ms: Cell::new(0.0),
            overflow: self.overflow,
            staging: RefCell::new(None),
        })
    }

    /// The parameters of every dispatch, those of the setup first.
    fn uniform_blocks(&self, gpu: &Gpu) -> Result<Buffer> {
        let block = BLOCK as usize / 4;
        let mut words = vec![0u32; (self.setup.len() + self.dispatches.len()).max(1) * block];
        for (d, words) in self.setup.iter().chain(&self.dispatches).zip(words.chunks_exact_mut(block)) {
            if d.params.len() > block {
                return Err(Error::unsupported(format!("kernel {}: too many parameters", d.kernel.name)));
            }
            for (word, (_, value)) in words.iter_mut().zip(&d.params) {
                *word = value.word();
            }
        }
        let usage = Usage::UNIFORM | Usage::COPY_DST;
        let params = gpu.buffer(MemoryKind::Activations, (words.len() * 4) as u64, usage);
        gpu.queue.write_buffer(&params.raw, 0, bytemuck::cast_slice(&words));
        Ok(params)
    }

    /// Compiles what `d` runs, for the types of its weights, and binds what it reads and writes; its parameters are in
    /// `params` at that byte.
    fn launch(
        &self,
        gpu: &Gpu,
        weights: &dyn Held,
        slots: &[Rc<Buffer>],
        (params, at): (&Buffer, u64),
        d: &Dispatch,
    ) -> Result<Launch> {
        let mut kernel = d.kernel.clone();
        let bound = d.bindings.iter().filter_map(|b| if let Binding::Weight(w) = b { Some(w) } else { None });
        for (k, w) in bound.enumerate() {
            if weights.is_wide(self.specs(*w)) {
                kernel = kernel.with_f32_weight(k);
            }
        }
        let p = gpu.pipeline(&kernel, &d.writable())?;
        let size = (d.params.len().max(1) * 4).next_multiple_of(16) as u64;
        let mut places = vec![(params.raw.clone(), at, size)];
        for binding in &d.bindings {
            let place = match binding {
                Binding::Weight(w) => weights.place(self.specs(*w))?,
                Binding::Read(t) | Binding::Write(t) => {
                    let slot = &slots[self.slot_of[t.id]];
                    (slot.raw.clone(), 0, self.sizes[t.id].next_multiple_of(16))
                }
            };
            gpu.note_binding(place.2);
            places.push(place);
        }
        let entries: Vec<_> =
            places.iter().enumerate().map(|(j, (buffer, at, size))| entry(j, buffer, *at, *size)).collect();
        Ok(Launch {
            group: gpu.bind_group(d.kernel.name, &p.layout, &entries),
            pipeline: p.pipeline,
            workgroups: d.workgroups,
            flops: d.flops,
            name: d.kernel.name,
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

    fn slot(&self, t: Tensor) -> Result<&Rc<Buffer>> {
        self.slot_of
            .get(t.id)
            .and_then(|&s| self.slots.get(s))
            .ok_or_else(|| Error::invalid("a tensor that this plan never uses was asked for"))
    }

    pub(crate) fn buffer(&self, t: Tensor) -> Result<&wgpu::Buffer> {
        Ok(&self.slot(t)?.raw)
    }

    fn write_bytes(&self, gpu: &Gpu, t: Tensor, bytes: &[u8]) -> Result<()> {
        let slot = self.slot(t)?;
        slot.writes.set(slot.writes.get() + 1);
        gpu.queue.write_buffer(&slot.raw, 0, bytes);
        Ok(())
    }

    /// Fills tensors with zeros.
    ///
    /// # Errors
    /// `invalid-option` for a tensor that this plan never uses.
    pub fn clear(&self, gpu: &Gpu, tensors: &[Tensor]) -> Result<()> {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for &t in tensors {
            encoder.clear_buffer(self.buffer(t)?, 0, None);
        }
        gpu.queue.submit([encoder.finish()]);
        Ok(())
    }

    /// Copies an output of one picture to every picture of `to`, an input of another plan, of the same type.
    ///
    /// # Errors
    /// `invalid-option` where the pictures differ in size.
    pub fn copy(&self, gpu: &Gpu, from: Tensor, other: &Executable, to: Tensor) -> Result<()> {
        let bytes = from.bytes();
        if bytes * u64::from(to.n) != to.bytes() {
            return Err(Error::invalid("a tensor was to be copied to one of another size"));
        }
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for n in 0..u64::from(to.n) {
            encoder.copy_buffer_to_buffer(self.buffer(from)?, 0, other.buffer(to)?, n * bytes, bytes);
        }
        gpu.queue.submit([encoder.finish()]);
        Ok(())
    }

    /// Copies a tensor aside, into `kept` where it was before.
    ///
    /// # Errors
    /// `invalid-option` for a tensor that this plan never uses.
    pub fn set_aside(&self, gpu: &Gpu, t: Tensor, kept: Option<Aside>) -> Result<Aside> {
        let (usage, bytes) = (Usage::COPY_SRC | Usage::COPY_DST, t.bytes());
        let aside = kept.unwrap_or_else(|| Aside(gpu.buffer(MemoryKind::Activations, bytes, usage)));
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(self.buffer(t)?, 0, &aside.0.raw, 0, bytes);
        gpu.queue.submit([encoder.finish()]);
        Ok(aside)
    }

    /// Copies back what [`Executable::set_aside`] copied of this tensor.
    ///
    /// # Errors
    /// `invalid-option` for a tensor that this plan never uses.
    pub fn take_back(&self, gpu: &Gpu, t: Tensor, aside: &Aside) -> Result<()> {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&aside.0.raw, 0, self.buffer(t)?, 0, t.bytes());
        gpu.queue.submit([encoder.finish()]);
        Ok(())
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
                self.write_bytes(gpu, t, bytemuck::cast_slice(&halves))
            }
            Dtype::F32 | Dtype::U32 => self.write_bytes(gpu, t, bytemuck::cast_slice(&full)),
        }
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
        self.write_bytes(gpu, t, bytemuck::cast_slice(values))
    }

    /// Encodes and submits every dispatch; first those of [`super::Recorder::setup`], where what they read was written
    /// since they last ran.
    pub fn run(&self, gpu: &Gpu) {
        self.set_up(gpu);
        if self.runs.get() == 1 {
            self.created.set(gpu.created());
        }
        let start = now();
        for submit in &self.submits {
            encode(gpu, &self.launches[submit.clone()]);
        }
        self.encode_ms.set(now() - start);
        self.runs.set(self.runs.get() + 1);
    }

    /// The launches but for those of the setup.
    fn every_run(&self) -> &[Launch] {
        &self.launches[self.setup_submits.last().map_or(0, |submit| submit.end)..]
    }

    fn set_up(&self, gpu: &Gpu) {
        let writes = self.setup_reads.iter().map(|&slot| self.slots[slot].writes.get()).sum();
        if self.set_up.replace(Some(writes)) != Some(writes) {
            for submit in &self.setup_submits {
                encode(gpu, &self.launches[submit.clone()]);
            }
        }
    }

    /// A picture begins: what was made on the device since the last one's runs is not its steps' doing.
    pub fn begin_counting(&self) {
        self.runs.set(0);
    }

    /// What the last run was made of.
    pub fn counters(&self, gpu: &Gpu) -> Counters {
        Counters {
            dispatches: self.every_run().len(),
            submits: self.submits.len(),
            bytes: self.bytes_moved,
            created: if self.runs.get() > 1 { gpu.created() - self.created.get() } else { 0 },
            encode_ms: self.encode_ms.get(),
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
        self.set_up(gpu);
        let every: Vec<_> = self.every_run().iter().map(|launch| vec![launch]).collect();
        let mut timings = Vec::new();
        // A query set holds at most 4096 stamps, and each dispatch takes two.
        for batch in every.chunks(2048) {
            let spans = stamped(gpu, batch).await?;
            timings.extend(batch.iter().flatten().zip(spans).map(|(launch, nanoseconds)| {
                let Launch { name: kernel, flops, .. } = **launch;
                Timing { kernel, flops, nanoseconds }
            }));
        }
        Ok(timings)
    }

    /// Runs once more, and gives the milliseconds from each of these dispatches (counted as [`super::Recorder::recorded`]
    /// does) to the next, the first from the beginning; empty where the adapter has no timestamp queries.
    ///
    /// # Errors
    /// `device-lost`.
    pub async fn run_parts(&self, gpu: &Gpu, ends: &[usize]) -> Result<Vec<f64>> {
        if !gpu.timestamps {
            return Ok(Vec::new());
        }
        self.set_up(gpu);
        let first = self.launches.len() - self.every_run().len();
        let mut times = vec![0.0; ends.len()];
        for submit in &self.submits {
            let (mut at, mut places, mut parts) = (submit.start, Vec::new(), Vec::new());
            for (place, end) in ends.iter().map(|end| first + end).chain([submit.end]).enumerate() {
                let part = at..end.clamp(at, submit.end);
                at = part.end;
                if !part.is_empty() {
                    places.push(place);
                    parts.push(self.launches[part].iter().collect());
                }
            }
            for (place, span) in places.into_iter().zip(stamped(gpu, &parts).await?) {
                // What comes behind the last of them is nobody's.
                times.iter_mut().skip(place).take(1).for_each(|time| *time += span / 1e6);
            }
        }
        Ok(times)
    }

    /// [`time_all`] of this one.
    ///
    /// # Errors
    /// `device-lost`.
    pub async fn time(&self, gpu: &Gpu, times: usize) -> Result<f64> {
        Ok(time_all(gpu, &[(self, times)]).await?.iter().sum())
    }

    /// Fills a tensor of numbers with random ones in -1 .. 1: some are uploaded, the rest copied on the GPU.
    ///
    /// # Errors
    /// `invalid-option` for a tensor that this plan never uses.
    pub fn fill(&self, gpu: &Gpu, t: Tensor) -> Result<()> {
        let slot = self.slot(t)?;
        slot.writes.set(slot.writes.get() + 1);
        repeat_random(gpu, &[slot.as_ref()], 1.0, t.dtype == Dtype::F32);
        Ok(())
    }

    /// Waits for the GPU and reads an output: NHWC without padding.
    ///
    /// # Errors
    /// `device-lost` or `out-of-memory`, whatever the GPU met since the last look.
    pub async fn read(&self, gpu: &Gpu, t: Tensor) -> Result<Vec<f32>> {
        self.finish_read(gpu, self.start_read(gpu, t)?).await.map(|(values, _)| values)
    }

    /// [`Executable::read`], or `None` where a value is not finite, or where since the last look a matrix multiply or
    /// convolution made one that f16 does not hold and that is stored as f16.
    ///
    /// # Errors
    /// As [`Executable::read`].
    pub async fn read_sound(&self, gpu: &Gpu, t: Tensor) -> Result<Option<Vec<f32>>> {
        self.finish_sound(gpu, self.start_read(gpu, t)?).await
    }

    /// Submits the copy of an output as it is now: what is submitted later need not be waited for.
    ///
    /// # Errors
    /// `invalid-option` for a tensor that this plan never uses.
    pub fn start_read(&self, gpu: &Gpu, t: Tensor) -> Result<Reading> {
        let (from, size) = (self.buffer(t)?, t.bytes());
        let staging = match self.staging.borrow_mut().take() {
            Some(b) if b.raw.size() >= size + 4 => b,
            _ => gpu.buffer(MemoryKind::Staging, size + 4, Usage::MAP_READ | Usage::COPY_DST),
        };
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(from, 0, &staging.raw, 0, size);
        if let Some(flag) = self.overflow {
            encoder.copy_buffer_to_buffer(self.buffer(flag)?, 0, &staging.raw, size, 4);
        }
        gpu.queue.submit([encoder.finish()]);
        Ok(Reading { staging, t })
    }

    /// Waits for the copy: the values as [`Executable::read_sound`] gives them.
    ///
    /// # Errors
    /// As [`Executable::read`].
    pub async fn finish_sound(&self, gpu: &Gpu, reading: Reading) -> Result<Option<Vec<f32>>> {
        let (values, overflowed) = self.finish_read(gpu, reading).await?;
        Ok((!overflowed && values.iter().all(|v| v.is_finite())).then_some(values))
    }

    /// Waits for the copy: its values, and whether the word that tells of overflow was set. It is cleared.
    ///
    /// # Errors
    /// As [`Executable::read`].
    pub async fn finish_read(&self, gpu: &Gpu, reading: Reading) -> Result<(Vec<f32>, bool)> {
        let Reading { staging, t } = reading;
        let bytes = gpu.map(&staging, t.bytes() + 4).await?;
        *self.staging.borrow_mut() = Some(staging);
        let (bytes, flag) = bytes.split_at(t.bytes() as usize);
        let overflowed = self.overflow.filter(|_| flag.iter().any(|&b| b != 0));
        if let Some(flag) = overflowed {
            self.write_u32(gpu, flag, &[0])?;
        }
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
        Ok((out, overflowed.is_some()))
    }
}

/// One submit.
fn encode<'a>(gpu: &Gpu, launches: impl IntoIterator<Item = &'a Launch>) {
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        launches.into_iter().for_each(|launch| launch.encode(&mut pass));
    }
    gpu.queue.submit([encoder.finish()]);
}

/// One submit of these launches: how many nanoseconds the GPU was at each of the parts.
async fn stamped(gpu: &Gpu, parts: &[Vec<&Launch>]) -> Result<Vec<f64>> {
    let count = 2 * parts.len() as u32;
    let set = stamps(gpu, count);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    for (i, part) in parts.iter().enumerate() {
        let timestamp_writes = Some(between(&set, i as u32));
        let described = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
        let mut pass = encoder.begin_compute_pass(&described);
        part.iter().for_each(|launch| launch.encode(&mut pass));
    }
    spans(gpu, encoder, &set, count).await
}

/// Milliseconds that so many runs of each take, one after the other in one submit, as the GPU measures them; or, where
/// it has no timestamp queries, of each from the call to the end of the work.
///
/// # Errors
/// `device-lost`.
pub async fn time_all(gpu: &Gpu, runs: &[(&Executable, usize)]) -> Result<Vec<f64>> {
    let launches =
        runs.iter().map(|(run, times)| std::iter::repeat_n(run.every_run(), *times).flatten().collect());
    let runs: Vec<Vec<&Launch>> = launches.collect();
    gpu.idle().await?;
    if gpu.timestamps {
        return Ok(stamped(gpu, &runs).await?.into_iter().map(|ns| ns / 1e6).collect());
    }
    let mut times = Vec::with_capacity(runs.len());
    for run in runs {
        let start = now();
        encode(gpu, run);
        gpu.idle().await?;
        times.push(now() - start);
    }
    Ok(times)
}

impl Launch {
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        let [x, y, z] = self.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }
}
