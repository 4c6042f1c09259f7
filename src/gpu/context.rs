//! The device in use: what was compiled for it, how many bytes we hold on it, what went wrong on it.

use super::adapter::{GpuOptions, Limits};
use super::choices::{OFF_WINOGRAD, is_software, spilling};
use super::device::{self, Opened};
use super::kernel::Kernel;
#[cfg(target_arch = "wasm32")]
use super::web_features;
use crate::error::{Code, Error, Result};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    Weights,
    Activations,
    Staging,
}

/// Bytes held on the GPU, by [`MemoryKind`]: now and at the peak.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    now: [AtomicU64; 3],
    peak_total: AtomicU64,
    largest_binding: AtomicU64,
    uploaded: AtomicU64,
    created: AtomicU64,
}

/// One reading of the allocator's books, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    pub weights: u64,
    pub activations: u64,
    pub staging: u64,
    /// The most held at once, all kinds together.
    pub peak: u64,
    /// The largest storage-buffer binding made so far.
    pub largest_binding: u64,
    /// Of weights, written to the GPU since it was opened.
    pub uploaded: u64,
}

/// A GPU buffer that is counted while it lives.
#[derive(Debug)]
pub(super) struct Buffer {
    pub raw: wgpu::Buffer,
    /// How often it was written from outside.
    pub writes: Cell<u64>,
    kind: MemoryKind,
    ledger: Arc<Ledger>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.ledger.now[self.kind as usize].fetch_sub(self.raw.size(), Ordering::Relaxed);
        self.raw.destroy();
    }
}

type Layouts = (wgpu::BindGroupLayout, wgpu::PipelineLayout);

/// A pipeline and the layout of its bind group.
#[derive(Clone)]
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// The device, its queue and the compiled kernels.
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    /// Adapter's name as the driver gives it (empty in most browsers).
    pub name: String,
    /// Maker and family as `GPUAdapterInfo` has them ("nvidia", "ampere"); a native adapter gives its vendor's PCI
    /// number.
    pub vendor: String,
    pub architecture: String,
    pub limits: Limits,
    /// The adapter has shader-f16 and our kernels use it.
    pub shader_f16: bool,
    /// Lanes of every subgroup, where the adapter has subgroups that are all of one size, 4, 8 or 16; else 0.
    pub subgroup: u32,
    /// A processor stands in for a GPU: kernels have the text for that ([`super::Options::rolled`]).
    pub software: bool,
    /// Timestamp queries work here.
    pub timestamps: bool,
    ledger: Arc<Ledger>,
    lost: Arc<Mutex<Option<String>>>,
    failed: Arc<Mutex<Option<String>>>,
    pipelines: RefCell<HashMap<Kernel, Pipeline>>,
    /// Promises of pipelines that are wanted soon; the browser keeps what they hold.
    #[cfg(target_arch = "wasm32")]
    ahead: RefCell<HashMap<Kernel, js_sys::Promise>>,
    layouts: RefCell<HashMap<Vec<bool>, Rc<Layouts>>>,
    /// Kernels that were tried here (see `crate::ops::sound`).
    tried: RefCell<HashSet<Kernel>>,
    /// Those that are wrong, and what they are called.
    off: Cell<u32>,
    wrong: RefCell<Vec<String>>,
}

impl Gpu {
    /// Opens the adapter that the platform prefers and asks for the limits it has. Whether it computes rightly
    /// is another question: see `crate::ops::open`.
    ///
    /// # Errors
    /// `webgpu-unavailable` where there is no adapter or no device.
    pub async fn new(options: &GpuOptions) -> Result<Self> {
        let Opened { device, queue, info, features, limits, workgroup_memory } =
            device::open(options).await?;
        // Broadcasting registers pays where a subgroup is narrow (Mali's, software's); wide ones read workgroup memory
        // that all lanes share as fast.
        let (least, most) = info.subgroup_sizes;
        let narrow = least == most && [4, 8, 16].contains(&least) && !options.without_subgroups;
        let narrow_memory =
            if workgroup_memory < device::WORKGROUP_MEMORY { OFF_WINOGRAD[0] | OFF_WINOGRAD[1] } else { 0 };
        let gpu = Self {
            device,
            queue,
            name: info.name,
            off: Cell::new(spilling(&info.vendor) | narrow_memory),
            software: info.fallback || is_software(&info.vendor),
            vendor: info.vendor,
            architecture: info.architecture,
            limits,
            shader_f16: features.contains(wgpu::Features::SHADER_F16),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            subgroup: if narrow { least } else { 0 },
            ledger: Arc::default(),
            lost: Arc::default(),
            failed: Arc::default(),
            pipelines: RefCell::default(),
            #[cfg(target_arch = "wasm32")]
            ahead: RefCell::default(),
            layouts: RefCell::default(),
            tried: RefCell::default(),
            wrong: RefCell::default(),
        };
        gpu.listen();
        Ok(gpu)
    }

    /// Keeps what the device reports on the side for [`Gpu::check`].
    fn listen(&self) {
        let lost = self.lost.clone();
        self.device.set_device_lost_callback(move |_, message| *lock(&lost) = Some(message));
        let failed = self.failed.clone();
        self.device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lock(&failed).get_or_insert(error.to_string());
        }));
    }

    /// Whether the device was lost: nothing can be done on it any more.
    #[cfg(target_arch = "wasm32")]
    pub fn is_lost(&self) -> bool {
        lock(&self.lost).is_some()
    }

    /// What went wrong on the device since the last call, if anything: a lost device, or an allocation or
    /// validation error that WebGPU reported on the side.
    ///
    /// # Errors
    /// `device-lost` or `out-of-memory`.
    pub fn check(&self) -> Result<()> {
        if let Some(message) = lock(&self.lost).as_ref() {
            return Err(Error::new(Code::DeviceLost, format!("The GPU was taken away ({message}). {AGAIN}")));
        }
        if let Some(message) = lock(&self.failed).take() {
            return Err(Error::new(
                Code::OutOfMemory,
                format!(
                    "The GPU refused the work ({message}). Close other tabs that use it, or choose a smaller size."
                ),
            ));
        }
        Ok(())
    }

    /// Whether this is asked of the kernel for the first time.
    pub(crate) fn is_new(&self, kernel: &Kernel) -> bool {
        self.tried.borrow_mut().insert(kernel.clone())
    }

    /// From now on plans do without these, kernels of that name.
    pub(crate) fn switch_off(&self, bits: u32, name: String) {
        self.off.set(self.off.get() | bits);
        self.wrong.borrow_mut().push(name);
    }

    /// What plans for this GPU do without ([`super::Options::off`]).
    pub fn off(&self) -> u32 {
        self.off.get()
    }

    /// The kernels that came out wrong here.
    pub fn wrong(&self) -> Vec<String> {
        self.wrong.borrow().clone()
    }

    /// Bytes held now and at the peak.
    pub fn bytes(&self) -> Bytes {
        let now = |k: MemoryKind| self.ledger.now[k as usize].load(Ordering::Relaxed);
        Bytes {
            weights: now(MemoryKind::Weights),
            activations: now(MemoryKind::Activations),
            staging: now(MemoryKind::Staging),
            peak: self.ledger.peak_total.load(Ordering::Relaxed),
            largest_binding: self.ledger.largest_binding.load(Ordering::Relaxed),
            uploaded: self.ledger.uploaded.load(Ordering::Relaxed),
        }
    }

    /// A buffer of `size` bytes (rounded up to 16), counted under `kind`.
    pub(super) fn buffer(&self, kind: MemoryKind, size: u64, usage: wgpu::BufferUsages) -> Buffer {
        let size = size.next_multiple_of(16).max(16);
        let raw = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        });
        self.note_created();
        self.ledger.now[kind as usize].fetch_add(size, Ordering::Relaxed);
        let total: u64 = self.ledger.now.iter().map(|n| n.load(Ordering::Relaxed)).sum();
        self.ledger.peak_total.fetch_max(total, Ordering::Relaxed);
        Buffer { raw, writes: Cell::new(0), kind, ledger: self.ledger.clone() }
    }

    /// Counts bytes written to weights, and hands them over now and then: until then a copy of each is held.
    pub(super) fn note_upload(&self, bytes: u64) {
        const HELD: u64 = 64 << 20;
        let before = self.ledger.uploaded.fetch_add(bytes, Ordering::Relaxed);
        if before / HELD != (before + bytes) / HELD {
            self.queue.submit([]);
            // Frees what is done with; a browser does so by itself. `check` reports what failed.
            #[cfg(not(target_arch = "wasm32"))]
            let _ = self.device.poll(wgpu::PollType::Poll);
        }
    }

    /// Buffers, bind groups and pipelines made since the device was opened.
    pub(super) fn created(&self) -> u64 {
        self.ledger.created.load(Ordering::Relaxed)
    }

    fn note_created(&self) {
        self.ledger.created.fetch_add(1, Ordering::Relaxed);
    }

    /// Binds `entries`.
    pub(super) fn bind_group(
        &self,
        label: &str,
        layout: &wgpu::BindGroupLayout,
        entries: &[wgpu::BindGroupEntry<'_>],
    ) -> wgpu::BindGroup {
        self.note_created();
        self.device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(label), layout, entries })
    }

    pub(super) fn note_binding(&self, size: u64) {
        self.ledger.largest_binding.fetch_max(size, Ordering::Relaxed);
    }

    /// The compiled pipeline of `kernel`, compiled at the first call. `writable`: see [`Gpu::layout`].
    pub(super) fn pipeline(&self, kernel: &Kernel, writable: &[bool]) -> Result<Pipeline> {
        if let Some(p) = self.pipelines.borrow().get(kernel) {
            return Ok(p.clone());
        }
        let text = kernel.wgsl(self.shader_f16)?;
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(kernel.name),
            source: wgpu::ShaderSource::Wgsl(text.into()),
        });
        let layouts = self.layout(writable);
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.name),
            layout: Some(&layouts.1),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every kernel writes what it reads from workgroup memory.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        self.note_created();
        let entry = Pipeline { pipeline, layout: layouts.0.clone() };
        self.pipelines.borrow_mut().insert(kernel.clone(), entry.clone());
        #[cfg(target_arch = "wasm32")]
        self.ahead.borrow_mut().remove(kernel);
        Ok(entry)
    }

    /// Begins to compile `kernel` beside everything else, unless it is compiled or begun already. Does nothing
    /// natively, where [`Gpu::pipeline`] compiles.
    ///
    /// # Errors
    /// `unsupported-model` if its template does not expand.
    #[cfg_attr(not(target_arch = "wasm32"), expect(unused_variables))]
    pub(super) fn begin(&self, kernel: &Kernel, writable: &[bool]) -> Result<()> {
        #[cfg(target_arch = "wasm32")]
        if !self.pipelines.borrow().contains_key(kernel) && !self.ahead.borrow().contains_key(kernel) {
            let text = kernel.wgsl(self.shader_f16)?;
            if let Some(promise) = web_features::compile(&self.device, &text, writable) {
                self.ahead.borrow_mut().insert(kernel.clone(), promise);
            }
        }
        Ok(())
    }

    /// Waits for what [`super::Plan::compile_ahead`] has begun.
    pub async fn compiled(&self) {
        #[cfg(target_arch = "wasm32")]
        {
            let begun: Vec<js_sys::Promise> = self.ahead.borrow().values().cloned().collect();
            for promise in begun {
                // A kernel that does not compile is reported when it is asked for.
                let _ = wasm_bindgen_futures::JsFuture::from(promise).await;
            }
        }
    }

    /// The bind group layout with a uniform block at 0 and a storage buffer for each of `writable` from 1 on.
    fn layout(&self, writable: &[bool]) -> Rc<Layouts> {
        self.layouts
            .borrow_mut()
            .entry(writable.to_vec())
            .or_insert_with(|| {
                let entry = |binding: usize, ty| wgpu::BindGroupLayoutEntry {
                    binding: binding as u32,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
                    count: None,
                };
                let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform)];
                entries.extend(
                    writable
                        .iter()
                        .enumerate()
                        .map(|(i, w)| entry(i + 1, wgpu::BufferBindingType::Storage { read_only: !w })),
                );
                let group = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                    label: None,
                    entries: &entries,
                });
                let pipeline = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                    label: None,
                    bind_group_layouts: &[Some(&group)],
                    immediate_size: 0,
                });
                Rc::new((group, pipeline))
            })
            .clone()
    }

    /// Waits until all that was submitted is done: only then does a driver let go of the buffers that were freed.
    ///
    /// # Errors
    /// As [`Gpu::check`].
    pub async fn idle(&self) -> Result<()> {
        let (sender, receiver) = futures_channel::oneshot::channel();
        self.queue.submit([]);
        self.queue.on_submitted_work_done(move || {
            // The receiver is gone only where the caller gave up waiting.
            let _ = sender.send(());
        });
        self.answer(receiver).await?;
        self.check()
    }

    /// What the device sends when all that was submitted is done.
    async fn answer<T>(&self, receiver: futures_channel::oneshot::Receiver<T>) -> Result<T> {
        #[cfg(not(target_arch = "wasm32"))]
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| self.lost_error(&e.to_string()))?;
        // Firefox, which alone names no maker, looks every 100 ms whether something is done (its bug 1870699), and whenever
        // something is submitted: a step that waits for its prediction would take up to so much longer.
        #[cfg(target_arch = "wasm32")]
        let _looking = self.vendor.is_empty().then(|| {
            let queue = self.queue.clone();
            gloo::timers::callback::Interval::new(LOOK_MS, move || {
                queue.submit([]);
            })
        });
        receiver.await.map_err(|e| self.lost_error(&e.to_string()))
    }

    /// Maps `buffer` and returns its first `size` bytes; it is unmapped again.
    pub(super) async fn map(&self, buffer: &Buffer, size: u64) -> Result<Vec<u8>> {
        let (sender, receiver) = futures_channel::oneshot::channel();
        buffer.raw.map_async(wgpu::MapMode::Read, 0..size, move |result| {
            // The receiver is gone only where the caller gave up waiting.
            let _ = sender.send(result);
        });
        self.answer(receiver).await?.map_err(|e| self.lost_error(&e.to_string()))?;
        let view = buffer.raw.get_mapped_range(0..size).map_err(|e| self.lost_error(&e.to_string()))?;
        let bytes = view.to_vec();
        drop(view);
        buffer.raw.unmap();
        self.check()?;
        Ok(bytes)
    }

    fn lost_error(&self, why: &str) -> Error {
        match self.check() {
            Err(e) => e,
            Ok(()) => Error::new(Code::DeviceLost, format!("The GPU did not answer ({why}). {AGAIN}")),
        }
    }
}

/// Milliseconds after which it is looked again whether the device has answered.
#[cfg(target_arch = "wasm32")]
const LOOK_MS: u32 = 10;

/// What to do about a lost device, in the browser: the module loads the model again with the next call.
const AGAIN: &str = "Try again: the model comes back by itself, and nothing that was kept is lost.";

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while holding one of these locks leaves a plain Option behind: its content is still good.
    m.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
