//! The parts that drawing is made of, one at a time: for pages that show how it goes.

use super::diffusion::DiffusionPipeline;
use super::encode::to_field;
use super::inside::{Parts, Seen};
use super::predictor::{Predictor, Question};
use super::request::{GenerateOptions, Output, Picture};
use super::settle::{FirstNoise, Settled, Start, latent_size, settle};
use crate::error::{Error, Result, check_aborted};
use crate::samplers::{Levels, NoiseOptions, NoiseSource, Noising, Tuning, scheduler};

/// Noise levels of a sampler's steps, and of the training.
#[derive(Clone, Debug)]
pub struct Schedule {
    pub levels: Levels,
    /// By the training's time steps.
    pub alphas_cumprod: Vec<f32>,
}

/// What the network guesses of noisy latents.
#[derive(Clone, Debug)]
pub struct Prediction {
    pub parts: Parts,
    pub seen: Seen,
}

impl DiffusionPipeline {
    /// Latents of a picture as the UNet has them, NCHW: the mean that the VAE gives, times its scaling factor.
    ///
    /// # Errors
    /// `invalid-option` for a size that no latents have; those of encoding.
    pub async fn encode(&self, picture: &Picture, aborted: &dyn Fn() -> bool) -> Result<Vec<f32>> {
        picture.check("image")?;
        latent_size(&self.decoder, [picture.width, picture.height])?;
        check_aborted(aborted)?;
        let encoded = self.encoder.encode(&self.residence, &to_field(picture), aborted).await?;
        Ok(encoded.into_mean())
    }

    /// The picture of latents, of this width and height in pixels.
    ///
    /// # Errors
    /// `invalid-option` for latents of another size, or with values that are no numbers; those of decoding.
    pub async fn decode(
        &self,
        latents: &[f32],
        size: [u32; 2],
        aborted: &dyn Fn() -> bool,
    ) -> Result<Picture> {
        let [height, width] = latent_size(&self.decoder, size)?;
        self.check_latents("latents", latents, [height, width])?;
        self.decoder.check(&self.residence, height, width)?;
        check_aborted(aborted)?;
        self.decoder.decode(&self.residence, latents, [height, width]).await
    }

    /// The noise that [`generate`](Self::generate) starts from, of deviation 1, NCHW.
    ///
    /// # Errors
    /// `invalid-option` for a size that no latents have.
    pub fn noise(&self, seed: u64, options: &NoiseOptions, size: [u32; 2]) -> Result<Vec<f32>> {
        let [height, width] = latent_size(&self.decoder, size)?.map(|side| side as usize);
        let shape = [self.model.latent_channels as usize, height, width];
        let mut noise = vec![0.0; shape.iter().product()];
        NoiseSource::new(seed, options, 1, shape, self.decoder.scale()).first(&mut noise);
        Ok(noise)
    }

    /// The schedule of a sampler, or of the checkpoint's own.
    ///
    /// # Errors
    /// Those of [`scheduler`].
    pub fn schedule(&self, name: Option<&str>, steps: Option<usize>) -> Result<Schedule> {
        let steps = steps.unwrap_or(self.model.num_inference_steps);
        let sdxl = self.unet.config.text_time.is_some();
        let tuning = Tuning { sdxl, ..Default::default() };
        let levels = scheduler(name, &self.scheduler, steps, &tuning)?.levels;
        Ok(Schedule { levels, alphas_cumprod: Noising::read(&self.scheduler)?.alphas_cumprod().to_vec() })
    }

    /// diffusers' `add_noise`, for latents and noise of one length.
    ///
    /// # Errors
    /// `invalid-option` for other lengths, values that are no numbers, and time steps that the training did not have.
    pub fn add_noise(&self, latents: &[f32], noise: &[f32], timestep: f32) -> Result<Vec<f32>> {
        check_finite("latents", latents)?;
        check_finite("noise", noise)?;
        if latents.len() != noise.len() {
            return Err(Error::invalid(format!(
                "noise has {} values and latents {}: give as many.",
                noise.len(),
                latents.len()
            )));
        }
        Noising::read(&self.scheduler)?.add_noise(latents, noise, timestep)
    }

    /// What the network guesses of `latents` of the request, which are noisy by `timestep` as [`add_noise`](Self::add_noise)
    /// makes them. Of the request, what says how a picture is drawn step by step is not looked at.
    ///
    /// # Errors
    /// `invalid-option`; those of [`generate`](Self::generate).
    pub async fn predict(
        &self,
        options: &GenerateOptions,
        timestep: f32,
        aborted: &dyn Fn() -> bool,
    ) -> Result<Prediction> {
        Noising::read(&self.scheduler)?.alpha(timestep)?;
        if self.model.inpainting {
            return Err(Error::invalid(
                "An inpainting model predicts from a picture and a mask as well: load a text-to-image model.",
            ));
        }
        if self.model.instruct_pix2pix {
            return Err(Error::invalid(
                "InstructPix2Pix predicts from a picture as well: load a text-to-image model, or call generate.",
            ));
        }
        let mut request = GenerateOptions {
            num_inference_steps: Some(1),
            // Its steps are not taken; the own one of EDM's is always one that is known.
            scheduler: (!self.scheduler.is_edm()).then(|| "ddim".to_owned()),
            output: Output::Latent,
            ..options.clone()
        };
        request.inside.guidance = true;
        let Settled { shared, first: pass, start, .. } = settle(&request, &self.facts())?;
        let (FirstNoise::Given(input), Start::Noise) = (&pass.noise, start) else {
            return Err(Error::invalid("latents is missing: give noisy latents, as addNoise makes them."));
        };
        self.check_latents("latents", input, pass.latent_size())?;
        check_aborted(aborted)?;
        let loras = self.loras.chosen(&shared.loras);
        let guided = shared.guidance.needs_negative();
        let prompts = self.text.prompts(&self.residence, loras, &shared.texts, pass.steps, guided).await?;
        let mut predictor = Predictor::new(self, &shared, &pass, prompts, aborted).await?;
        let question = Question { step: 0, timestep, input: input.clone(), cfg_plus_plus: false };
        let predicted = predictor.predict(question, &[], async || check_aborted(aborted)).await;
        let seen = predictor.take_seen();
        predictor.into_truncated();
        predicted?;
        let mut seen = seen.unwrap_or_default();
        Ok(Prediction { parts: seen.parts.take().unwrap_or_default(), seen })
    }

    /// # Errors
    /// `invalid-option` for latents that are not one picture's of this height and width.
    fn check_latents(&self, name: &str, latents: &[f32], [height, width]: [u32; 2]) -> Result<()> {
        let channels = self.model.latent_channels;
        let needed = channels as usize * height as usize * width as usize;
        if latents.len() != needed {
            return Err(Error::invalid(format!(
                "{name} has {} values; a picture of {channels}x{height}x{width} needs {needed}.",
                latents.len()
            )));
        }
        check_finite(name, latents)
    }
}

fn check_finite(name: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::invalid(format!("{name}[{at}] is {}: give numbers.", values[at]))),
    }
}
