//! Latents to pixels.

use super::{DecodePlan, DiffusionPipeline, Module, Vae};
use crate::error::{Error, Result};
use crate::gpu::{Plan, Recorder, Tensor};
use crate::models::{taesd, vae};
use crate::samplers::latents_to_rgba;

/// RGBA, eight bits a channel, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    pub data: Vec<u8>,
}

impl DiffusionPipeline {
    /// NCHW latents of one picture, as the UNet has them, through the image decoder.
    ///
    /// # Errors
    /// `out-of-memory` for sizes whose plan the adapter cannot hold; `device-lost`; `unsupported-model` if the
    /// decoder overflows.
    pub(super) async fn decode(&self, latents: &[f32], height: u32, width: u32) -> Result<Picture> {
        let mut plan = match self.decode_plan.take() {
            Some(plan) if (plan.height, plan.width) == (height, width) => plan,
            other => {
                // Free the old plan's memory before the new one's is asked for.
                drop(other);
                self.plan_decode(height, width)?
            }
        };
        let pixels = self.run_decode(&mut plan, latents).await;
        *self.decode_plan.borrow_mut() = Some(plan);
        let pixels = pixels?;
        let scale = self.vae.scale();
        Ok(Picture { width: width * scale, height: height * scale, data: to_rgba(&pixels)? })
    }

    /// Whether pictures of this size can be decoded here; asked before the first step, not after the last.
    ///
    /// # Errors
    /// `out-of-memory` with the numbers.
    pub(super) fn check_decode(&self, height: u32, width: u32) -> Result<()> {
        if self.decode_plan.borrow().as_ref().is_some_and(|p| (p.height, p.width) == (height, width)) {
            return Ok(());
        }
        self.record_decode(height, width)?.0.check(&self.gpu.limits)
    }

    /// The decoder's plan, its input and its output.
    fn record_decode(&self, height: u32, width: u32) -> Result<(Plan, Tensor, Tensor)> {
        let channels = self.vae.latent_channels();
        let (Vae::Kl(Module { options, .. }) | Vae::Tiny(Module { options, .. })) = &self.vae;
        let mut r = Recorder::new(options);
        let latents = r.input(1, height, width, channels);
        let out = match &self.vae {
            Vae::Kl(m) => vae::decode(&m.config, &mut r, latents)?,
            Vae::Tiny(m) => taesd::decode(&m.config, &mut r, latents)?,
        };
        r.output(out);
        Ok((r.finish(), latents, out))
    }

    fn plan_decode(&self, height: u32, width: u32) -> Result<DecodePlan> {
        let (Vae::Kl(Module { weights, .. }) | Vae::Tiny(Module { weights, .. })) = &self.vae;
        let (plan, latents, out) = self.record_decode(height, width)?;
        let executable = plan.instantiate(&self.gpu, weights)?;
        Ok(DecodePlan { height, width, executable, latents, out })
    }

    async fn run_decode(&self, plan: &mut DecodePlan, latents: &[f32]) -> Result<Vec<f32>> {
        let factor = match &self.vae {
            Vae::Kl(m) => m.config.scaling_factor,
            Vae::Tiny(m) => m.config.scaling_factor,
        };
        let scaled: Vec<f32> = latents.iter().map(|v| v / factor).collect();
        let nhwc = to_nhwc(&scaled, self.vae.latent_channels() as usize);
        plan.executable.write(&self.gpu, plan.latents, &nhwc)?;
        plan.executable.run(&self.gpu);
        plan.executable.read(&self.gpu, plan.out).await
    }

    /// A picture of the latents' own size by a linear map of their channels: cheap enough for every step.
    ///
    /// # Errors
    /// `invalid-option` if the latents have another number of channels than the map.
    pub(super) fn preview(&self, latents: &[f32], height: u32, width: u32) -> Result<Picture> {
        let map = &self.latent_rgb;
        let data = latents_to_rgba(latents, width as usize, height as usize, &map.factors, map.bias)?;
        Ok(Picture { width, height, data })
    }
}

/// As diffusers' `VaeImageProcessor`: -1..1 to 0..255, rounded to even.
fn to_rgba(pixels: &[f32]) -> Result<Vec<u8>> {
    let mut data = Vec::with_capacity(pixels.len() / 3 * 4);
    for rgb in pixels.chunks_exact(3) {
        for &v in rgb {
            if !v.is_finite() {
                return Err(Error::unsupported(
                    "The image decoder overflowed. Load the model with precision \"f32\", or with another VAE.",
                ));
            }
            data.push(((v / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8);
        }
        data.push(255);
    }
    Ok(data)
}

/// [c, h*w] to [h*w, c].
pub(super) fn to_nhwc(nchw: &[f32], c: usize) -> Vec<f32> {
    let positions = nchw.len() / c;
    (0..nchw.len()).map(|i| nchw[i % c * positions + i / c]).collect()
}

/// [h*w, c] to [c, h*w].
pub(super) fn to_nchw(nhwc: &[f32], c: usize) -> Vec<f32> {
    let positions = nhwc.len() / c;
    (0..nhwc.len()).map(|i| nhwc[i % positions * c + i / positions]).collect()
}
