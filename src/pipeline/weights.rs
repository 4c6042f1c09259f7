//! Weights from a model's files, streamed to the GPU: through the cache's packed copy where there is one.

use super::part::{LocalFuture, Part, Rename, WeightSource};
use crate::checkpoint::{FileUnpacker, Layout, Target, TensorInfo, packed};
use crate::error::{Error, Result, check_aborted};
use crate::gpu::{Gpu, Weights};
use crate::store::{ModelFiles, PACKED_PIECE, PackedCopy};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A model's files, and which of them hold its weights.
pub(super) struct FilesSource<F> {
    pub files: Rc<F>,
    /// Another model's VAE instead of its own, or a ControlNet.
    pub other: Option<Place<F>>,
    /// diffusers' weight variant.
    pub variant: Option<String>,
}

/// Where a component is: in the folder of its name in a whole model, or at the root ("").
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

    /// # Errors
    /// `unsupported-model` for a whole model that has no such component; `bad-checkpoint`; what the files fail with.
    pub async fn config(&self) -> Result<serde_json::Value> {
        let separator = if self.folder.is_empty() { "" } else { "/" };
        let path = format!("{}{separator}config.json", self.folder);
        if !self.files.exists(&path).await? && self.files.exists("model_index.json").await? {
            return Err(Error::unsupported(format!(
                "{} is a whole model, without a {} in it. Choose a file or a folder of one",
                self.files.name(),
                match self.component {
                    "vae" => "VAE",
                    "image_encoder" => "CLIP image encoder",
                    _ => "ControlNet",
                }
            )));
        }
        self.files.json(&path).await
    }
}

impl<F: ModelFiles + 'static> Place<F> {
    /// Where a ControlNet's or a T2I-Adapter's weights come from: where there is a file of half the size, that one, since
    /// on the GPU they are as small anyhow.
    pub fn into_source(self) -> Box<dyn WeightSource> {
        let files = self.files.clone();
        Box::new(FilesSource { files, other: Some(self), variant: Some("fp16".to_owned()) })
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
            let quantised = part.specs().iter().any(|s| matches!(s.layout, Layout::Blocks { .. }));
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
                part.widen(sink.overflowed);
            };
            sink.check_complete(part, model.name())?;
            Ok(sink.weights)
        })
    }
}

/// Where a component's tensors go.
struct Sink<'a> {
    gpu: &'a Gpu,
    /// `None`: they are checked and let go.
    weights: Option<Weights>,
    /// How each is laid out, and whether as f32.
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
        Sink {
            gpu,
            weights: keep.then(|| part.allocate(gpu)),
            layouts: part.layouts(),
            rename: part.rename,
            seen: HashSet::new(),
            overflowed: Vec::new(),
            packs: None,
        }
    }

    /// # Errors
    /// `bad-checkpoint` where the files lack a weight.
    fn check_complete(&self, part: &Part, model: &str) -> Result<()> {
        let names = part.specs().iter().map(|s| s.name.as_str());
        let missing: Vec<&str> = names.filter(|name| !self.seen.contains(*name)).collect();
        let [first, ..] = missing.as_slice() else { return Ok(()) };
        Err(Error::bad_checkpoint(format!(
            "{} of {model} lacks {} of {} tensors, such as {first}. Its configuration and its weights are \
             not of one model; choose another copy",
            part.component,
            missing.len(),
            part.specs().len()
        )))
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
