//! Which modules' weights lie on the GPU: all of them, or one stage's at a time.

use super::{DiffusionPipeline, Vae, check_aborted};
use crate::checkpoint::{FileUnpacker, Layout, Target, TensorInfo};
use crate::error::{Code, Error, Result};
use crate::gpu::{Gpu, WeightSpec, Weights};
use crate::store::ModelFiles;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::rc::Rc;

/// What is kept on the GPU (`memory` of `fromPretrained`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// `Low` where the weights together are more than twice the largest buffer that the adapter gives: WebGPU
    /// tells nothing else of its memory. `Resident` otherwise.
    #[default]
    Auto,
    /// Every module, from loading to disposal.
    Resident,
    /// One of text encoder, UNet and VAE at a time, streamed again from the cache or the disk when its turn comes.
    Low,
}

impl Memory {
    /// Whether one stage at a time is kept, for a model whose weights take `bytes`.
    pub(super) fn is_low(self, bytes: u64, gpu: &Gpu) -> bool {
        match self {
            Memory::Auto => bytes > 2 * gpu.limits.max_buffer_size,
            Memory::Resident => false,
            Memory::Low => true,
        }
    }
}

/// What takes turns on the GPU when memory is low.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Text,
    Unet,
    /// The VAE's encoder.
    Encoder,
    Vae,
}

pub(super) type Rename = fn(&str) -> Option<Cow<'_, str>>;

/// The weights of one module: which they are, and, while they are there, the weights themselves.
pub(super) struct Part {
    /// The component's folder: `unet`.
    component: &'static str,
    /// A file's tensor names to those of `specs`.
    rename: Rename,
    specs: Vec<WeightSpec>,
    held: RefCell<Option<Rc<Weights>>>,
}

impl Part {
    pub fn new(component: &'static str, rename: Rename, specs: &[WeightSpec]) -> Part {
        Part { component, rename, specs: specs.to_vec(), held: RefCell::default() }
    }

    /// The weights, which [`DiffusionPipeline::bring`] has brought.
    ///
    /// # Errors
    /// `device-lost` if it has not: a fault of this engine.
    pub fn weights(&self) -> Result<Rc<Weights>> {
        self.held.borrow().clone().ok_or_else(|| {
            Error::new(
                Code::DeviceLost,
                format!("The weights of {} are not on the GPU. Load the model again.", self.component),
            )
        })
    }

    /// Its weights' names and layouts.
    pub fn specs(&self) -> &[WeightSpec] {
        &self.specs
    }

    /// Bytes on the GPU when they are there.
    pub fn bytes(&self) -> u64 {
        self.specs.iter().map(WeightSpec::bytes).sum()
    }

    /// Streams them to the GPU, unless they are there.
    ///
    /// # Errors
    /// `bad-checkpoint`, `aborted`, and whatever the files fail with.
    pub async fn fill(&self, gpu: &Gpu, source: &dyn WeightSource, aborted: &dyn Fn() -> bool) -> Result<()> {
        if self.held.borrow().is_none() {
            let weights =
                source.stream(self, gpu, Some(Weights::allocate(gpu, &self.specs)), aborted).await?;
            *self.held.borrow_mut() = weights.map(Rc::new);
        }
        Ok(())
    }

    /// Reads all that [`Part::fill`] would, so that the cache has it and a damaged file is found now, and keeps
    /// nothing.
    ///
    /// # Errors
    /// As [`Part::fill`].
    pub async fn verify(
        &self,
        gpu: &Gpu,
        source: &dyn WeightSource,
        aborted: &dyn Fn() -> bool,
    ) -> Result<()> {
        source.stream(self, gpu, None, aborted).await.map(|_| ())
    }

    /// Frees them; whether they were there.
    fn release(&self) -> bool {
        self.held.take().is_some()
    }
}

type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Where weights come from, as often as they are needed.
pub(super) trait WeightSource {
    /// Streams what `part` needs into `weights` (`None`: reads and checks only), and hands them back.
    ///
    /// # Errors
    /// `bad-checkpoint` for files that break their format or lack tensors; `aborted`; the files' own.
    fn stream<'a>(
        &'a self,
        part: &'a Part,
        gpu: &'a Gpu,
        weights: Option<Weights>,
        aborted: &'a dyn Fn() -> bool,
    ) -> LocalFuture<'a, Result<Option<Weights>>>;
}

/// A model's files, and which of them hold its weights.
pub(super) struct FilesSource<F> {
    pub files: Rc<F>,
    /// Another model's VAE instead of its own.
    pub vae: Option<VaeFiles<F>>,
    /// diffusers' weight variant.
    pub variant: Option<String>,
}

/// Where a VAE lies: in the folder "vae" of a whole model, or at the root ("").
pub(super) struct VaeFiles<F> {
    pub files: Rc<F>,
    pub folder: &'static str,
}

impl<F: ModelFiles> VaeFiles<F> {
    pub async fn find(files: Rc<F>) -> Result<Self> {
        let folder = if files.exists("vae/config.json").await? { "vae" } else { "" };
        Ok(VaeFiles { files, folder })
    }

    pub async fn config(&self) -> Result<serde_json::Value> {
        let path = if self.folder.is_empty() { "config.json" } else { "vae/config.json" };
        self.files.json(path).await
    }
}

impl<F: ModelFiles> WeightSource for FilesSource<F> {
    fn stream<'a>(
        &'a self,
        part: &'a Part,
        gpu: &'a Gpu,
        weights: Option<Weights>,
        aborted: &'a dyn Fn() -> bool,
    ) -> LocalFuture<'a, Result<Option<Weights>>> {
        Box::pin(async move {
            let (model, folder) = match &self.vae {
                Some(vae) if part.component == "vae" => (&vae.files, vae.folder),
                _ => (&self.files, part.component),
            };
            let files = model.weights(folder, self.variant.as_deref()).await?;
            let layouts = part.specs.iter().map(|s| (s.name.as_str(), s.layout)).collect();
            let mut sink = Sink { gpu, weights, layouts, rename: part.rename, seen: HashSet::new() };
            for file in &files {
                let mut unpacker = FileUnpacker::new(file.as_str());
                model
                    .read(file, async |bytes| {
                        check_aborted(aborted)?;
                        gpu.check()?;
                        unpacker.push(bytes, &mut sink)
                    })
                    .await?;
                unpacker.finish()?;
            }
            let missing: Vec<&str> = part
                .specs
                .iter()
                .map(|s| s.name.as_str())
                .filter(|name| !sink.seen.contains(*name))
                .collect();
            if let [first, ..] = missing.as_slice() {
                return Err(Error::bad_checkpoint(format!(
                    "{} of {} lacks {} of {} tensors, such as {first}. Its configuration and its weights are \
                     not of one model; choose another copy",
                    part.component,
                    model.name(),
                    missing.len(),
                    part.specs.len()
                )));
            }
            Ok(sink.weights)
        })
    }
}

/// Where a component's tensors go.
struct Sink<'a> {
    gpu: &'a Gpu,
    /// `None`: they are checked and let go.
    weights: Option<Weights>,
    layouts: HashMap<&'a str, Layout>,
    rename: Rename,
    seen: HashSet<String>,
}

impl Target for Sink<'_> {
    type Dest = String;

    fn want(&mut self, tensor: &TensorInfo) -> Result<Option<(Layout, String)>> {
        let Some(name) = (self.rename)(&tensor.name) else { return Ok(None) };
        Ok(self.layouts.get(name.as_ref()).map(|&layout| {
            let name = name.into_owned();
            self.seen.insert(name.clone());
            (layout, name)
        }))
    }

    fn write(&mut self, name: &String, offset: u64, bytes: &[u8]) -> Result<()> {
        match &self.weights {
            Some(weights) => weights.write(self.gpu, name, offset, bytes),
            None => Ok(()),
        }
    }
}

impl DiffusionPipeline {
    /// Sees to it that the weights of `stage` are on the GPU; where memory is low, those of the other stages
    /// leave first, and with them the plans that are bound to them.
    ///
    /// # Errors
    /// `aborted`, and whatever the model's files fail with: the stage is then as good as never asked for.
    pub(super) async fn bring(&self, stage: Stage, aborted: &dyn Fn() -> bool) -> Result<()> {
        if self.low {
            let mut left = false;
            for other in [Stage::Text, Stage::Unet, Stage::Encoder, Stage::Vae] {
                left |= other != stage && self.release(other);
            }
            if left {
                // Or this stage's memory is asked for before theirs is given back.
                self.gpu.idle().await?;
            }
        }
        for part in self.parts(stage) {
            part.fill(&self.gpu, self.source.as_ref(), aborted).await?;
        }
        self.merge_loras(stage)?;
        self.gpu.check()
    }

    fn parts(&self, stage: Stage) -> Vec<&Part> {
        match stage {
            Stage::Text => self.text_encoders.iter().map(|e| &e.module.part).collect(),
            Stage::Unet => vec![&self.unet.part],
            Stage::Encoder => vec![&self.encoder],
            Stage::Vae => match &self.vae {
                Vae::Kl(m) => vec![&m.part],
                Vae::Tiny(m) => vec![&m.part],
            },
        }
    }

    /// Whether there was something to free.
    fn release(&self, stage: Stage) -> bool {
        match stage {
            Stage::Text | Stage::Encoder => {}
            Stage::Unet => drop(self.unet_plan.take()),
            Stage::Vae => drop(self.decode_plan.take()),
        }
        self.parts(stage).into_iter().filter(|part| part.release()).count() > 0
    }
}
