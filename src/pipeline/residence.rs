//! Which modules' weights lie on the GPU: all of them, or one stage's at a time.

use super::{DiffusionPipeline, Vae, check_aborted};
use crate::checkpoint::{FileUnpacker, Layout, Target, TensorInfo, packed};
use crate::error::{Code, Error, Result};
use crate::gpu::{Gpu, WeightSpec, Weights, is_wide, stacks};
use crate::store::{ModelFiles, PACKED_PIECE, PackedCopy};
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
    /// Those with values that f16 does not hold, found while they were read: they lie as f32.
    wide: RefCell<HashSet<String>>,
    held: RefCell<Option<Rc<Weights>>>,
}

impl Part {
    pub fn new(component: &'static str, rename: Rename, specs: &[WeightSpec]) -> Part {
        Part { component, rename, specs: specs.to_vec(), wide: RefCell::default(), held: RefCell::default() }
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

    /// The files' tensors that lie as f32, since f16 does not hold all their values.
    pub fn wide(&self) -> Vec<String> {
        self.wide.borrow().iter().map(|name| format!("{}/{name}", self.component)).collect()
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
            *self.held.borrow_mut() = source.stream(self, gpu, true, aborted).await?.map(Rc::new);
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
        source.stream(self, gpu, false, aborted).await.map(|_| ())
    }

    /// Frees them; whether they were there.
    pub fn release(&self) -> bool {
        self.held.take().is_some()
    }
}

type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Where weights come from, as often as they are needed.
pub(super) trait WeightSource {
    /// Streams what `part` needs to the GPU; with `keep` false it reads and checks only. Where f16 does not hold a tensor's
    /// values it begins again, with that one as f32.
    ///
    /// # Errors
    /// `bad-checkpoint` for files that break their format or lack tensors; `aborted`; the files' own.
    fn stream<'a>(
        &'a self,
        part: &'a Part,
        gpu: &'a Gpu,
        keep: bool,
        aborted: &'a dyn Fn() -> bool,
    ) -> LocalFuture<'a, Result<Option<Weights>>>;
}

/// A model's files, and which of them hold its weights.
pub(super) struct FilesSource<F> {
    pub files: Rc<F>,
    /// Another model's VAE instead of its own, or a ControlNet.
    pub other: Option<Place<F>>,
    /// diffusers' weight variant.
    pub variant: Option<String>,
}

/// Where a component lies: in the folder of its name in a whole model, or at the root ("").
pub(super) struct Place<F> {
    pub files: Rc<F>,
    pub component: &'static str,
    pub folder: &'static str,
}

impl<F: ModelFiles> Place<F> {
    pub async fn find(files: Rc<F>, component: &'static str) -> Result<Self> {
        let folder = if files.exists(&format!("{component}/config.json")).await? { component } else { "" };
        Ok(Place { files, component, folder })
    }

    pub async fn config(&self) -> Result<serde_json::Value> {
        let separator = if self.folder.is_empty() { "" } else { "/" };
        self.files.json(&format!("{}{separator}config.json", self.folder)).await
    }
}

impl<F: ModelFiles> WeightSource for FilesSource<F> {
    fn stream<'a>(
        &'a self,
        part: &'a Part,
        gpu: &'a Gpu,
        keep: bool,
        aborted: &'a dyn Fn() -> bool,
    ) -> LocalFuture<'a, Result<Option<Weights>>> {
        Box::pin(async move {
            let (model, folder) = match &self.other {
                Some(other) if part.component == other.component => (&other.files, other.folder),
                _ => (&self.files, part.component),
            };
            let quantised = part.specs.iter().any(|s| matches!(s.layout, Layout::Blocks { .. }));
            let sink = loop {
                let files = model.weights(folder, self.variant.as_deref()).await?;
                let mut sink = Sink::new(part, gpu, keep);
                for file in &files {
                    let copy = if quantised { model.packed_copy(file) } else { None };
                    if let Some(copy) = &copy
                        && sink.read_packed(copy, aborted).await?
                    {
                        continue;
                    }
                    sink.read(model.as_ref(), file, copy, aborted).await?;
                }
                if sink.overflowed.is_empty() {
                    break sink;
                }
                part.wide.borrow_mut().extend(sink.overflowed);
            };
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
    /// How each lies, and whether as f32.
    layouts: HashMap<&'a str, (Layout, bool)>,
    rename: Rename,
    seen: HashSet<String>,
    /// Those that f16 does not hold.
    overflowed: Vec<String>,
    /// What is written is kept as well.
    packs: Option<packed::Writer>,
}

impl<'a> Sink<'a> {
    fn new(part: &'a Part, gpu: &'a Gpu, keep: bool) -> Self {
        let wide = part.wide.borrow();
        let mut layouts = HashMap::with_capacity(part.specs.len());
        for stack in stacks(&part.specs) {
            let wide = is_wide(stack, &wide);
            layouts.extend(stack.iter().map(|s| (s.name.as_str(), (s.layout, wide))));
        }
        Sink {
            gpu,
            weights: keep.then(|| Weights::allocate_wide(gpu, &part.specs, &wide)),
            layouts,
            rename: part.rename,
            seen: HashSet::new(),
            overflowed: Vec::new(),
            packs: None,
        }
    }

    /// Reads the packed copy of a file; `false` if there is none.
    async fn read_packed(&mut self, copy: &impl PackedCopy, aborted: &dyn Fn() -> bool) -> Result<bool> {
        let mut reader = packed::Reader::default();
        let kept = async |bytes: &[u8]| {
            check_aborted(aborted)?;
            self.gpu.check()?;
            let mut seen = Vec::new();
            let layout = |name: &str| self.layouts.get(name).copied();
            reader.push(bytes, layout, |name, offset, bytes| {
                if offset == 0 {
                    seen.push(name.to_owned());
                }
                self.put(name, offset, bytes)
            })?;
            self.seen.extend(seen);
            Ok(())
        };
        let whole = copy.read(kept).await;
        if !reader.wider().is_empty() {
            self.overflowed.extend_from_slice(reader.wider());
            return Ok(true);
        }
        Ok(whole? && reader.complete())
    }

    /// Reads a file, and makes `copy` of what comes of it.
    async fn read<F: ModelFiles>(
        &mut self,
        model: &F,
        file: &str,
        copy: Option<F::Packed>,
        aborted: &dyn Fn() -> bool,
    ) -> Result<()> {
        self.packs = copy.is_some().then(packed::Writer::default);
        let mut unpacker = FileUnpacker::new(file);
        let before = self.overflowed.len();
        let mut take = async |bytes: &[u8]| {
            check_aborted(aborted)?;
            self.gpu.check()?;
            unpacker.push(bytes, self)?;
            match &copy {
                Some(copy) => self.write_pieces(copy, false).await,
                None => Ok(()),
            }
        };
        match &copy {
            Some(copy) => copy.original(&mut take).await?,
            None => model.read(file, &mut take).await?,
        }
        unpacker.finish()?;
        match copy {
            Some(copy) if self.overflowed.len() == before => {
                self.write_pieces(&copy, true).await?;
                copy.finish().await
            }
            _ => Ok(()),
        }
    }

    /// Writes the pieces that are there to the copy; with `rest`, the last ones too.
    async fn write_pieces(&mut self, copy: &impl PackedCopy, rest: bool) -> Result<()> {
        while let Some(piece) = self.packs.as_mut().and_then(|writer| writer.take(PACKED_PIECE, rest)) {
            copy.write(&piece).await?;
        }
        Ok(())
    }

    fn put(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        match &self.weights {
            Some(weights) => weights.write(self.gpu, name, offset, bytes),
            None => Ok(()),
        }
    }
}

impl Target for Sink<'_> {
    type Dest = String;

    fn want(&mut self, tensor: &TensorInfo) -> Result<Option<(Layout, String)>> {
        let Some(name) = (self.rename)(&tensor.name) else { return Ok(None) };
        Ok(self.layouts.get(name.as_ref()).map(|&(layout, wide)| {
            let name = name.into_owned();
            self.seen.insert(name.clone());
            if let Some(packs) = &mut self.packs {
                packs.tensor(&name, layout, wide);
            }
            (layout, name)
        }))
    }

    fn write(&mut self, name: &String, offset: u64, bytes: &[u8]) -> Result<()> {
        if let Some(packs) = &mut self.packs {
            packs.write(bytes);
        }
        self.put(name, offset, bytes)
    }

    fn wide(&self, name: &String) -> bool {
        self.layouts.get(name.as_str()).is_some_and(|&(_, wide)| wide)
    }

    fn overflow(&mut self, name: &String, _: Error) -> Result<()> {
        self.overflowed.push(name.clone());
        Ok(())
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
            Stage::Unet => {
                drop(self.unet_plan.take());
                self.controlnets.borrow().iter().for_each(|c| c.release());
            }
            Stage::Vae => drop(self.decode_plan.take()),
        }
        self.parts(stage).into_iter().filter(|part| part.release()).count() > 0
    }
}
