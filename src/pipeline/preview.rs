//! What shows steps: colours of the latents, the model's decoder, or a small one (`AutoencoderTiny`, TAESD) of the same
//! latents.

use super::decode::{to_nhwc, to_rgba};
use super::load::{record, taesd_weights};
use super::residence::{FilesSource, Part, Place};
use super::{DecodePlan, DiffusionPipeline, Module, Picture, Preview, Vae};
use crate::checkpoint::names;
use crate::error::{Error, Result};
use crate::gpu::{Dtype, Options, Reading, Recorder};
use crate::models::taesd;
use crate::store::ModelFiles;
use std::rc::Rc;

pub(super) struct TinyDecoder {
    /// What it was loaded from.
    name: String,
    module: Module<taesd::Config>,
    plan: Option<DecodePlan>,
}

/// What shows a step, as far as it is.
pub(super) enum Shown {
    Done(Option<Picture>),
    /// Latents to be mapped to colours.
    Colours(Vec<f32>),
    /// Latents, and their pixels on the way from the small decoder.
    Tiny(Vec<f32>, Reading),
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

    /// Begins what shows a step, of NCHW latents of one picture. The small decoder's run is submitted and not waited for.
    ///
    /// # Errors
    /// `invalid-option` for `Preview::Tiny` without a small decoder; `out-of-memory`; `device-lost`.
    pub(super) async fn start_preview(
        &self,
        preview: Preview,
        latents: Vec<f32>,
        height: u32,
        width: u32,
    ) -> Result<Shown> {
        Ok(match preview {
            Preview::None => Shown::Done(None),
            Preview::Fast => Shown::Colours(latents),
            // The model's own decoder is as small.
            Preview::Tiny if matches!(self.vae, Vae::Kl(_)) => {
                let reading = self.start_tiny(&latents, height, width)?;
                Shown::Tiny(latents, reading)
            }
            Preview::Tiny | Preview::Full => Shown::Done(Some(self.decode(&latents, height, width).await?)),
        })
    }

    /// The picture; colours of the latents where the small decoder overflows f16.
    ///
    /// # Errors
    /// `device-lost`; `invalid-option` if the latents have another number of channels than their map to colours.
    pub(super) async fn finish_preview(
        &self,
        shown: Shown,
        height: u32,
        width: u32,
    ) -> Result<Option<Picture>> {
        let (latents, pixels) = match shown {
            Shown::Done(picture) => return Ok(picture),
            Shown::Colours(latents) => (latents, None),
            Shown::Tiny(latents, reading) => {
                let pixels = match self.tiny.take() {
                    Some(TinyDecoder { plan: Some(plan), name, module }) => {
                        let pixels = plan.executable.finish_sound(&self.gpu, reading).await;
                        *self.tiny.borrow_mut() = Some(TinyDecoder { plan: Some(plan), name, module });
                        pixels?
                    }
                    other => {
                        *self.tiny.borrow_mut() = other;
                        None
                    }
                };
                (latents, pixels)
            }
        };
        let scale = self.vae.scale();
        Ok(Some(match pixels {
            Some(pixels) => Picture { width: width * scale, height: height * scale, data: to_rgba(&pixels) },
            None => self.preview(&latents, height, width)?,
        }))
    }

    fn start_tiny(&self, latents: &[f32], height: u32, width: u32) -> Result<Reading> {
        let mut tiny = self.tiny.borrow_mut();
        let Some(TinyDecoder { module, plan, .. }) = tiny.as_mut() else {
            return Err(Error::invalid("preview = \"tiny\" needs a small decoder: load one first."));
        };
        let values: Vec<f32> = latents.iter().map(|v| v / module.config.scaling_factor).collect();
        let values = to_nhwc(&values, module.config.latent_channels as usize);
        let plan = match plan {
            Some(kept) if (kept.height, kept.width) == (height, width) => kept,
            other => other.insert(self.plan_tiny(module, height, width)?),
        };
        plan.start(&self.gpu, &values)
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
