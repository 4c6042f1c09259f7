//! Which weights are on the GPU: all of them, or one stage's at a time; and the plans that are bound to them.

use super::part::{Part, WeightSource};
use super::plans::{DecodePlan, UnetPlan};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::named::Named;
use std::cell::RefCell;
use std::rc::{Rc, Weak};

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

impl Named for Memory {
    const NAMES: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("resident", Self::Resident), ("low", Self::Low)];
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

/// A decoder's plan larger than this is not kept beside the UNet's: making one again takes milliseconds.
const KEEP_BOTH: u64 = 64 << 20;

/// The GPU, the weights of every module, and where they come from.
pub(super) struct Residence {
    pub gpu: Gpu,
    source: Box<dyn WeightSource>,
    /// One stage's weights are on the GPU at a time.
    pub low: bool,
    pub text: Vec<Rc<Part>>,
    pub unet: Rc<Part>,
    /// Without weights for an AutoencoderTiny.
    pub encoder: Rc<Part>,
    pub decoder: Rc<Part>,
    /// Weights of ControlNets and T2I-Adapters, which leave with the UNet's.
    beside_unet: RefCell<Vec<Weak<Part>>>,
    unet_plan: RefCell<Option<UnetPlan>>,
    decode_plan: RefCell<Option<DecodePlan>>,
}

impl Residence {
    pub fn new(
        gpu: Gpu,
        source: Box<dyn WeightSource>,
        low: bool,
        text: Vec<Rc<Part>>,
        [unet, encoder, decoder]: [Rc<Part>; 3],
    ) -> Self {
        Self {
            gpu,
            source,
            low,
            text,
            unet,
            encoder,
            decoder,
            beside_unet: RefCell::default(),
            unet_plan: RefCell::default(),
            decode_plan: RefCell::default(),
        }
    }

    fn parts(&self, stage: Stage) -> &[Rc<Part>] {
        match stage {
            Stage::Text => &self.text,
            Stage::Unet => std::slice::from_ref(&self.unet),
            Stage::Encoder => std::slice::from_ref(&self.encoder),
            Stage::Vae => std::slice::from_ref(&self.decoder),
        }
    }

    /// All that a picture needs, in the order of loading: what it begins with is read last, and stays.
    ///
    /// # Errors
    /// `aborted`, and whatever the model's files fail with.
    pub async fn fill(&self, aborted: &dyn Fn() -> bool) -> Result<()> {
        for part in [&self.decoder, &self.unet] {
            if self.low {
                // Each is streamed again when its turn comes.
                part.verify(&self.gpu, self.source.as_ref(), aborted).await?;
            } else {
                part.fill(&self.gpu, self.source.as_ref(), aborted).await?;
            }
        }
        for part in &self.text {
            part.fill(&self.gpu, self.source.as_ref(), aborted).await?;
        }
        Ok(())
    }

    /// Brings the weights of `stage` to the GPU; where memory is low, those of the other stages leave first, and with
    /// them the plans that are bound to them.
    ///
    /// # Errors
    /// `aborted`, and whatever the model's files fail with: the stage is then left unloaded.
    pub async fn bring(&self, stage: Stage, aborted: &dyn Fn() -> bool) -> Result<()> {
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
        self.gpu.check()
    }

    /// Where memory is low, frees the weights of every stage, for what is used before the next one's.
    ///
    /// # Errors
    /// `device-lost`.
    pub async fn make_room(&self) -> Result<()> {
        if self.low {
            for stage in [Stage::Text, Stage::Unet, Stage::Encoder, Stage::Vae] {
                self.release(stage);
            }
            self.gpu.idle().await?;
        }
        self.gpu.check()
    }

    /// Whether there was something to free.
    fn release(&self, stage: Stage) -> bool {
        match stage {
            Stage::Text | Stage::Encoder => {}
            Stage::Unet => {
                self.drop_unet_plan();
                self.beside_unet.borrow().iter().filter_map(Weak::upgrade).for_each(|part| {
                    part.release();
                });
            }
            Stage::Vae => drop(self.take_decode_plan()),
        }
        self.parts(stage).iter().filter(|part| part.release()).count() > 0
    }

    /// Streams the weights of what is beside the model to the GPU, or, where memory is low, once through, so that the
    /// cache has them.
    ///
    /// # Errors
    /// As [`Part::fill`].
    pub async fn admit(
        &self,
        part: &Part,
        source: &dyn WeightSource,
        aborted: &dyn Fn() -> bool,
    ) -> Result<()> {
        match self.low {
            true => part.verify(&self.gpu, source, aborted).await,
            false => part.fill(&self.gpu, source, aborted).await,
        }
    }

    /// Weights that leave with the UNet's from now on.
    pub fn add_beside_unet(&self, part: &Rc<Part>) {
        let mut beside = self.beside_unet.borrow_mut();
        beside.retain(|part| part.strong_count() > 0);
        beside.push(Rc::downgrade(part));
    }

    /// The plan of the last picture, which is its taker's until it is put back.
    pub fn take_unet_plan(&self) -> Option<UnetPlan> {
        self.unet_plan.take()
    }

    pub fn keep_unet_plan(&self, plan: UnetPlan) {
        *self.unet_plan.borrow_mut() = Some(plan);
    }

    /// To be called before weights go that the plan is bound to.
    pub fn drop_unet_plan(&self) {
        drop(self.unet_plan.take());
    }

    pub fn take_decode_plan(&self) -> Option<DecodePlan> {
        self.decode_plan.take()
    }

    pub fn keep_decode_plan(&self, plan: DecodePlan) {
        *self.decode_plan.borrow_mut() = Some(plan);
    }

    /// Drops the decoder's plan, where it is large, to make room for the UNet's.
    pub fn make_room_for_unet(&self) {
        if self.decode_plan.borrow().as_ref().is_some_and(|p| p.executable.bytes() > KEEP_BOTH) {
            drop(self.decode_plan.take());
        }
    }

    /// Drops the UNet's plan to make room for one of the decoder that takes `bytes`, where that is large.
    pub fn make_room_for_decoder(&self, bytes: u64) {
        if bytes > KEEP_BOTH {
            self.drop_unet_plan();
        }
    }

    /// Bytes that a plan of either half of the VAE may take. WebGPU does not say how much memory there is: where one
    /// stage at a time is kept, as much as the UNet; elsewhere, as much as the largest buffer that the adapter gives.
    pub fn vae_budget(&self) -> u64 {
        if self.low { self.unet.bytes().max(64 << 20) } else { self.gpu.limits.max_buffer_size }
    }
}
