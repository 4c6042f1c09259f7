//! The weights of one module: what they are, and where they come from.

use crate::checkpoint::Layout;
use crate::error::{Code, Error, Result};
use crate::gpu::{Gpu, Options, WeightSpec, Weights, is_wide, stacks};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::rc::Rc;

/// A file's tensor name to that of a weight; `None` for a tensor that is not wanted.
pub(super) type Rename = fn(&str) -> Option<Cow<'_, str>>;

/// The weights of one module: which they are, and, while they are there, the weights themselves.
pub(super) struct Part {
    /// The component's folder: `unet`.
    pub component: &'static str,
    /// A file's tensor names to those of `specs`.
    pub rename: Rename,
    specs: Vec<WeightSpec>,
    /// Those with values that f16 does not hold, found while they were read: they are kept as f32.
    wide: RefCell<HashSet<String>>,
    held: RefCell<Option<Rc<Weights>>>,
}

impl Part {
    pub fn new(component: &'static str, rename: Rename, specs: &[WeightSpec]) -> Part {
        Part { component, rename, specs: specs.to_vec(), wide: RefCell::default(), held: RefCell::default() }
    }

    /// The weights, which `Residence::bring` has brought.
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

    /// How each weight is laid out, and whether as f32.
    pub fn layouts(&self) -> HashMap<&str, (Layout, bool)> {
        let wide = self.wide.borrow();
        let mut layouts = HashMap::with_capacity(self.specs.len());
        for stack in stacks(&self.specs) {
            let wide = is_wide(stack, &wide);
            layouts.extend(stack.iter().map(|s| (s.name.as_str(), (s.layout, wide))));
        }
        layouts
    }

    /// Room for them on the GPU.
    pub fn allocate(&self, gpu: &Gpu) -> Weights {
        Weights::allocate_wide(gpu, &self.specs, &self.wide.borrow())
    }

    /// From now on these are kept as f32.
    pub fn widen(&self, overflowed: Vec<String>) {
        self.wide.borrow_mut().extend(overflowed);
    }

    /// Its weights' names and layouts.
    pub fn specs(&self) -> &[WeightSpec] {
        &self.specs
    }

    /// The files' tensors that are kept as f32, since f16 does not hold all their values.
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

/// A module's configuration, its weights and how its plans are recorded.
pub(super) struct Module<C> {
    pub config: C,
    pub part: Rc<Part>,
    pub options: Options,
}

pub(super) type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

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
