//! The small decoder that shows steps (`AutoencoderTiny`, TAESD): of the same latents as the model's own VAE.

use super::decode::{to_nhwc, to_rgba};
use super::load::{record, taesd_weights};
use super::residence::{FilesSource, Part, Place};
use super::{DecodePlan, DiffusionPipeline, Module, Picture, Vae};
use crate::checkpoint::names;
use crate::error::{Error, Result};
use crate::gpu::{Dtype, Options, Recorder};
use crate::models::taesd;
use crate::store::ModelFiles;
use std::rc::Rc;

pub(super) struct TinyDecoder {
    /// What it was loaded from.
    name: String,
    module: Module<taesd::Config>,
    plan: Option<DecodePlan>,
}

impl DiffusionPipeline {
    /// Whether `Preview::Tiny` lacks a decoder: the model's own VAE is none, and that of `name` was not loaded.
    pub fn lacks_tiny(&self, name: &str) -> bool {
        matches!(self.vae, Vae::Kl(_)) && self.tiny.borrow().as_ref().is_none_or(|t| t.name != name)
    }

    /// Loads the decoder that `Preview::Tiny` shows steps with, an AutoencoderTiny in diffusers' layout. It stays on
    /// the GPU whatever `memory` is: it takes some MiB.
    ///
    /// # Errors
    /// `unsupported-model` for another kind of VAE or of latents; `bad-checkpoint`; `aborted`; what `files` fails with.
    pub async fn load_tiny<F: ModelFiles>(&self, files: Rc<F>, aborted: &dyn Fn() -> bool) -> Result<()> {
        let vae = Place::find(files.clone(), "vae").await?;
        let config = taesd::Config::from_config(&vae.config().await?)?;
        let channels = self.vae.latent_channels();
        let scale = 1 << config.num_decoder_blocks.len().saturating_sub(1);
        if (config.latent_channels, config.out_channels, scale) != (channels, 3, self.vae.scale()) {
            return Err(Error::unsupported(format!(
                "{} decodes latents of {} channels, {scale} pixels a side, where this model's have {channels} and {}. \
                 Choose the small decoder of this kind of model, or another preview.",
                files.name(),
                config.latent_channels,
                self.vae.scale()
            )));
        }
        let options = Options { activations: Dtype::F16, ..self.options };
        let plan = record(&options, |r| taesd_weights(&config, r))?;
        let part = Part::new("vae", names::vae, plan.weights());
        let name = files.name().to_owned();
        let source = FilesSource { files, other: Some(vae), variant: None };
        part.fill(&self.gpu, &source, aborted).await?;
        *self.tiny.borrow_mut() =
            Some(TinyDecoder { name, module: Module { config, part, options }, plan: None });
        Ok(())
    }

    /// NCHW latents of one picture through the small decoder; through the model's own where that is as small, and as
    /// colours of the latents where f16 overflows.
    ///
    /// # Errors
    /// `invalid-option` where there is none; `out-of-memory`; `device-lost`.
    pub(super) async fn preview_tiny(&self, latents: &[f32], height: u32, width: u32) -> Result<Picture> {
        if matches!(self.vae, Vae::Tiny(_)) {
            return self.decode(latents, height, width).await;
        }
        let Some(mut tiny) = self.tiny.take() else {
            return Err(Error::invalid("preview = \"tiny\" needs a small decoder: load one first."));
        };
        let config = &tiny.module.config;
        let values: Vec<f32> = latents.iter().map(|v| v / config.scaling_factor).collect();
        let values = to_nhwc(&values, config.latent_channels as usize);
        let plan = match tiny.plan.take() {
            Some(plan) if (plan.height, plan.width) == (height, width) => Ok(plan),
            _ => self.plan_tiny(&tiny.module, height, width),
        };
        let pixels = match plan {
            Ok(plan) => {
                let pixels = plan.run(&self.gpu, &values).await;
                tiny.plan = Some(plan);
                pixels
            }
            Err(e) => Err(e),
        };
        let scale = self.vae.scale();
        *self.tiny.borrow_mut() = Some(tiny);
        match pixels? {
            Some(pixels) => {
                Ok(Picture { width: width * scale, height: height * scale, data: to_rgba(&pixels) })
            }
            None => self.preview(latents, height, width),
        }
    }

    fn plan_tiny(&self, tiny: &Module<taesd::Config>, height: u32, width: u32) -> Result<DecodePlan> {
        let mut r = Recorder::new(&tiny.options);
        let latents = r.input(1, height, width, tiny.config.latent_channels);
        let out = taesd::decode(&tiny.config, &mut r, latents)?;
        r.output(out);
        let executable = r.finish().instantiate(&self.gpu, &*tiny.part.weights()?)?;
        Ok(DecodePlan { height, width, wide: false, executable, latents, out })
    }
}
