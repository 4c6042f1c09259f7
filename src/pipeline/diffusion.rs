//! What a pipeline owns, and what may be added to it.

use super::autotune::{self, Chosen, Origin};
use super::controlnet::{Beside, ControlNets};
use super::decode::Decoder;
use super::encode::Encoder;
use super::ip_adapter::{ImageEncoderFiles, IpAdapters};
use super::lllite::Lllites;
use super::lora::Loras;
use super::model::Model;
use super::part::Module;
use super::preview::Previews;
use super::residence::Residence;
use super::t2i_adapter::T2iAdapters;
use super::text::{PromptView, TextEncoder, TextEncoders};
use super::weights::Place;
use crate::checkpoint::{ReadAt, Table};
use crate::error::Result;
use crate::gpu::choices::{Choices, shipped};
use crate::gpu::{Arithmetic, Gpu, Options};
use crate::models::{lllite, t2i_adapter, unet};
use crate::ops;
use crate::prompt::Syntax;
use crate::samplers::SchedulerConfig;
use crate::store::ModelFiles;
use std::cell::Cell;
use std::rc::Rc;

/// A model on the GPU, ready to draw: [`load`](Self::load) makes one, [`generate`](Self::generate) draws.
pub struct DiffusionPipeline {
    pub(super) model: Model,
    pub(super) residence: Residence,
    pub(super) text: TextEncoders,
    pub(super) unet: Module<unet::Config>,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) scheduler: SchedulerConfig,
    pub(super) previews: Previews,
    pub(super) loras: Loras,
    pub(super) controlnets: ControlNets,
    pub(super) ip_adapters: IpAdapters,
    pub(super) adapters: T2iAdapters,
    pub(super) lllites: Lllites,
    /// SDXL: a negative prompt left out is all zeros.
    pub(super) force_zeros_for_empty_prompt: bool,
    /// How plans are recorded that need nothing of their own.
    pub(super) options: Options,
    /// Of `options.choices`.
    pub(super) origin: Origin,
    /// What was timed since, for the next load.
    pub(super) later: Cell<Option<Choices>>,
}

impl DiffusionPipeline {
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The device, for its books (`Gpu::bytes`) and its name.
    pub fn gpu(&self) -> &Gpu {
        &self.residence.gpu
    }

    /// What products are computed in here.
    pub fn arithmetic(&self) -> Arithmetic {
        self.options.arithmetic
    }

    /// The tokens of a prompt as the text encoder (of SDXL's, the first) reads them at the first step.
    ///
    /// # Errors
    /// `invalid-option` for text that the tokenizer cannot read.
    pub fn tokenize(
        &self,
        prompt: &str,
        syntax: Syntax,
        embeddings: &[(String, String)],
    ) -> Result<PromptView> {
        self.text.tokenize(prompt, syntax, embeddings)
    }

    /// Whether [`load_embedding`](Self::load_embedding) was given this key.
    pub fn has_embedding(&self, key: &str) -> bool {
        self.text.embeddings.has(key)
    }

    /// Reads a textual inversion embedding and keeps it under `key` (its source's name), for
    /// `GenerateOptions::embeddings`. A1111's .pt (`string_to_param["*"]`), a .safetensors or .bin that holds one
    /// tensor under any name, or SDXL's with `clip_l` and `clip_g`; of one vector or several.
    ///
    /// # Errors
    /// `bad-checkpoint` for a file that is no embedding; `unsupported-model` for one of another kind of model; and
    /// whatever reading the file fails with.
    pub async fn load_embedding<R: ReadAt>(&self, key: &str, file: &R) -> Result<()> {
        self.text.load_embedding(key, file).await
    }

    /// Whether [`load_lora`](Self::load_lora) was given this key.
    pub fn has_lora(&self, key: &str) -> bool {
        self.loras.has(key)
    }

    /// Reads a LoRA (LoCon, LoHa, LoKr, DoRA, GLoRA, OFT, BOFT, full differences) and keeps it under `key` (its source's
    /// name), for `GenerateOptions::loras`; embeddings inside its file are words of its pictures' prompts. Each picture names its tensors that belong to no weight of this model.
    ///
    /// # Errors
    /// `unsupported-model` if nothing at all fits this model; `bad-checkpoint` for factors of the wrong shape; and
    /// whatever reading the file fails with.
    pub async fn load_lora<R: ReadAt>(&self, key: &str, file: &R) -> Result<()> {
        if self.loras.has(key) {
            return Ok(());
        }
        let table = Table::open(file).await?;
        let words = self.text.load_bundled(key, file, &table).await?;
        self.loras.load(&self.residence, key, (file, &table), words).await
    }

    /// Whether [`load_controlnet`](Self::load_controlnet) was given this key.
    pub fn has_controlnet(&self, key: &str) -> bool {
        self.controlnets.has(key) || self.adapters.has(key) || self.lllites.has(key)
    }

    /// Lets every ControlNet, T2I-Adapter and ControlNet-LLLite go but those of `keys`.
    pub fn keep_controlnets(&self, keys: &[String]) {
        self.controlnets.keep(&self.residence, keys);
        self.adapters.keep(&self.residence, keys);
        self.lllites.keep(&self.residence, keys);
    }

    /// Loads a ControlNet, a T2I-Adapter or a ControlNet-LLLite, a diffusers folder or (as `store::SingleFile` shows it) one file,
    /// and keeps it under `key`, for `GenerateOptions::controlnets`.
    ///
    /// # Errors
    /// `unsupported-model` for one of another kind of model, before its weights are fetched; `bad-checkpoint`;
    /// `out-of-memory`; `aborted`; what `files` fails with.
    pub async fn load_controlnet<F: ModelFiles + 'static>(
        &self,
        key: &str,
        files: Rc<F>,
        aborted: &dyn Fn() -> bool,
    ) -> Result<()> {
        if self.has_controlnet(key) {
            return Ok(());
        }
        let place = Place::find(files, "controlnet").await?;
        let config = place.config().await?;
        let beside = Beside {
            unet: &self.unet.config,
            options: self.unet.options,
            vae: &self.decoder.vae,
            kind: self.model.kind.as_str(),
        };
        let found = (place, &config);
        if t2i_adapter::Config::is_of(&config) {
            return self.adapters.load(&self.residence, key, found, beside, aborted).await;
        }
        if lllite::Config::is_of(&config) {
            return self.lllites.load(&self.residence, key, found, beside, aborted).await;
        }
        self.controlnets.load(&self.residence, key, found, beside, aborted).await
    }

    /// Whether [`load_ip_adapter`](Self::load_ip_adapter) was given this key.
    pub fn has_ip_adapter(&self, key: &str) -> bool {
        self.ip_adapters.has(key)
    }

    /// Lets every IP-Adapter go but those of `keys`.
    pub fn keep_ip_adapters(&self, keys: &[String]) {
        self.ip_adapters.keep(keys);
    }

    /// Loads an IP-Adapter, one file (and what it is called), and the image encoder that it was made with, and keeps it under `key`, for
    /// `GenerateOptions::ip_adapters`.
    ///
    /// # Errors
    /// `unsupported-model` for one of another kind or of another kind of model, or with another image encoder, before
    /// its weights are fetched; `bad-checkpoint`; `out-of-memory`; `aborted`; what the files fail with.
    pub async fn load_ip_adapter<R: ReadAt + 'static, F: ModelFiles + 'static>(
        &self,
        key: &str,
        file: (&str, R),
        encoder: ImageEncoderFiles<'_, F>,
        aborted: &dyn Fn() -> bool,
    ) -> Result<()> {
        self.ip_adapters.load(&self.residence, key, file, encoder, &self.unet, aborted).await
    }

    /// Whether `Preview::Tiny` lacks a decoder: the model's own is not small, and that of `name` was not loaded.
    pub fn lacks_tiny(&self, name: &str) -> bool {
        !self.decoder.is_small() && !self.previews.has_tiny(name)
    }

    /// Loads the decoder that `Preview::Tiny` shows steps with, an AutoencoderTiny in diffusers' layout.
    ///
    /// # Errors
    /// `unsupported-model` for another kind of VAE or of latents; `bad-checkpoint`; `aborted`; what `files` fails with.
    pub async fn load_tiny<F: ModelFiles>(&self, files: Rc<F>, aborted: &dyn Fn() -> bool) -> Result<()> {
        self.previews.load_tiny(&self.residence, files, &self.decoder.vae, &self.options, aborted).await
    }

    /// The choices of kernels in use.
    pub fn tuning(&self) -> Chosen {
        let key = ops::autotune::key(self.gpu(), &self.options);
        Chosen { key, text: self.options.choices.to_text(), origin: self.origin }
    }

    /// Whether this model is large enough for kernels to be timed, and some were not.
    pub fn to_tune(&self) -> bool {
        self.unet.part.bytes() >= autotune::WORTH && autotune::unfinished(&self.later())
    }

    fn later(&self) -> Choices {
        self.later.get().unwrap_or(self.options.choices)
    }

    /// Goes on timing, for at most `budget` milliseconds or until `stop`: for the next load, since what is drawn here has
    /// its kernels. Gives what to keep.
    ///
    /// # Errors
    /// `device-lost`.
    pub async fn tune_later(&self, budget: f64, stop: &dyn Fn() -> bool) -> Result<Chosen> {
        let options = Options { choices: self.later(), ..self.options };
        let choices = autotune::tune(self.gpu(), &options, budget, stop).await?;
        self.later.set(Some(choices));
        Ok(Chosen { text: choices.to_text(), origin: Origin::Timed, ..self.tuning() })
    }

    /// Chooses anew, beginning with what was shipped, in at most `budget` milliseconds.
    ///
    /// # Errors
    /// `device-lost`.
    pub async fn tune(&mut self, budget: f64) -> Result<()> {
        let gpu = self.gpu();
        let options = Options { choices: shipped(&gpu.vendor, &gpu.architecture), ..self.options };
        let choices = autotune::tune(gpu, &options, budget, &|| false).await?;
        self.choose(choices, Origin::Timed);
        Ok(())
    }

    /// Draws with these from now on.
    pub(super) fn choose(&mut self, choices: Choices, origin: Origin) {
        self.origin = origin;
        self.later.set(None);
        let own =
            [&mut self.options, &mut self.unet.options, &mut self.decoder.options, &mut self.encoder.options];
        let text = self.text.encoders.iter_mut().map(|e| &mut e.module.options);
        own.into_iter().chain(text).for_each(|options| options.choices = choices);
        self.residence.drop_unet_plan();
        drop(self.residence.take_decode_plan());
        self.text.encoders.iter().for_each(TextEncoder::forget_plan);
    }
}
