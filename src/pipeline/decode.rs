//! Latents to pixels.

use super::residence::Stage;
use super::tiles::{Field, tiled};
use super::{DecodePlan, DiffusionPipeline, Module, Vae};
use crate::error::{Error, Result};
use crate::gpu::{Dtype, Gpu, Options, Plan, Reading, Recorder, Tensor};
use crate::models::{taesd, vae};
use crate::samplers::latents_to_rgba;

/// RGBA, eight bits a channel, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    pub data: Vec<u8>,
}

impl Picture {
    /// # Errors
    /// `invalid-option`, naming the option `name`, for a picture without pixels or with another number of bytes.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let (w, h) = (self.width as usize, self.height as usize);
        if w == 0 || h == 0 || self.data.len() != 4 * w * h {
            return Err(Error::invalid(format!(
                "{name} has {} bytes; one of {w}x{h} has {}.",
                self.data.len(),
                4 * w * h
            )));
        }
        Ok(())
    }
}

/// A decoder's plan larger than this is not kept beside the UNet's: making one again takes milliseconds.
pub(super) const KEEP_BOTH: u64 = 64 << 20;

/// Sides of tiles, in latents, from the best to the smallest that still sees something.
pub(super) const TILES: [u32; 7] = [128, 96, 64, 48, 32, 24, 16];

impl DiffusionPipeline {
    /// NCHW latents of one picture, as the UNet has them, through the image decoder: whole, or in tiles where
    /// that takes more than there is; and once more in f32 activations where f16 overflows.
    ///
    /// # Errors
    /// `out-of-memory` for sizes that the adapter cannot hold even in tiles; `device-lost`; `unsupported-model` if
    /// the decoder overflows f32.
    pub(super) async fn decode(&self, latents: &[f32], height: u32, width: u32) -> Result<Picture> {
        self.bring(Stage::Vae, &|| false).await?;
        let factor = match &self.vae {
            Vae::Kl(m) => m.config.scaling_factor,
            Vae::Tiny(m) => m.config.scaling_factor,
        };
        let scaled: Vec<f32> = latents.iter().map(|v| v / factor).collect();
        let values = to_nhwc(&scaled, self.vae.latent_channels() as usize);
        let latents = Field { h: height as usize, w: width as usize, values };
        let pixels = match self.decode_field(&latents).await? {
            Some(pixels) => pixels,
            None => {
                // Of this decoder: the next picture need not overflow first.
                self.decode_wide.set(true);
                let overflowed = || Error::unsupported("The image decoder overflowed. Load another VAE.");
                self.decode_field(&latents).await?.ok_or_else(overflowed)?
            }
        };
        Ok(Picture { width: pixels.w as u32, height: pixels.h as u32, data: to_rgba(&pixels.values) })
    }

    /// Whether pictures of this size can be decoded here; asked before the first step, not after the last.
    ///
    /// # Errors
    /// `out-of-memory` with the numbers.
    pub(super) fn check_decode(&self, height: u32, width: u32) -> Result<()> {
        self.tile(height, width).map(|_| ())
    }

    /// Pixels of latents that are divided by the scaling factor, or `None` if one is not finite or an activation
    /// reached the end of f16.
    async fn decode_field(&self, latents: &Field) -> Result<Option<Field>> {
        let mut overflowed = false;
        let mut run = async |part: &Field| {
            let pixels = self.decode_part(part).await?;
            overflowed |= pixels.is_none();
            let scale = self.vae.scale() as usize;
            let (h, w) = (part.h * scale, part.w * scale);
            Ok(Field { h, w, values: pixels.unwrap_or_else(|| vec![0.0; 3 * h * w]) })
        };
        let pixels = match self.tile(latents.h as u32, latents.w as u32)? {
            None => run(latents).await?,
            Some(tile) => tiled(latents, tile as usize, (tile * self.vae.scale()) as usize, run).await?,
        };
        Ok((!overflowed).then_some(pixels))
    }

    /// One run of the decoder.
    async fn decode_part(&self, latents: &Field) -> Result<Option<Vec<f32>>> {
        let (height, width, wide) = (latents.h as u32, latents.w as u32, self.decode_wide.get());
        let plan = match self.decode_plan.take() {
            Some(plan) if (plan.height, plan.width, plan.wide) == (height, width, wide) => plan,
            other => {
                // Free the old plan's memory before the new one's is asked for.
                drop(other);
                self.plan_decode(height, width)?
            }
        };
        let pixels = plan.run(&self.gpu, &latents.values).await;
        *self.decode_plan.borrow_mut() = Some(plan);
        pixels
    }

    /// The side of the tiles, in latents, that a picture is decoded in; `None`: whole.
    ///
    /// WebGPU does not say how much memory there is. Where one stage at a time is kept, decoding may take what the
    /// UNet took; elsewhere, as much as the largest buffer that the adapter gives.
    fn tile(&self, height: u32, width: u32) -> Result<Option<u32>> {
        let limits = &self.gpu.limits;
        let budget = self.vae_budget();
        let fits = |side: u32| {
            let plan = self.record_decode(height.min(side), width.min(side))?.0;
            plan.check(limits)?;
            Ok(plan.peak_bytes() <= budget)
        };
        if fits(u32::MAX).unwrap_or(false) {
            return Ok(None);
        }
        for side in TILES {
            if side < height.max(width) && fits(side).unwrap_or(false) {
                return Ok(Some(side));
            }
        }
        // As little as there is: better late than refused, if only its buffers can be bound.
        let smallest = TILES[TILES.len() - 1];
        fits(smallest).map(|_| (smallest < height.max(width)).then_some(smallest))
    }

    /// Bytes that a plan of either half of the VAE may take.
    pub(super) fn vae_budget(&self) -> u64 {
        if self.low { self.unet.part.bytes().max(64 << 20) } else { self.gpu.limits.max_buffer_size }
    }

    /// The decoder's plan, its input and its output.
    fn record_decode(&self, height: u32, width: u32) -> Result<(Plan, Tensor, Tensor)> {
        let channels = self.vae.latent_channels();
        let (Vae::Kl(Module { options, .. }) | Vae::Tiny(Module { options, .. })) = &self.vae;
        let wide = Options { activations: Dtype::F32, ..*options };
        let mut r = Recorder::new(if self.decode_wide.get() { &wide } else { options });
        let latents = r.input(1, height, width, channels);
        let out = match &self.vae {
            Vae::Kl(m) => vae::decode(&m.config, &mut r, latents)?,
            Vae::Tiny(m) => taesd::decode(&m.config, &mut r, latents)?,
        };
        r.output(out);
        Ok((r.finish(), latents, out))
    }

    fn plan_decode(&self, height: u32, width: u32) -> Result<DecodePlan> {
        let (Vae::Kl(Module { part, .. }) | Vae::Tiny(Module { part, .. })) = &self.vae;
        let (plan, latents, out) = self.record_decode(height, width)?;
        if plan.peak_bytes() > KEEP_BOTH {
            drop(self.unet_plan.take());
        }
        let executable = plan.instantiate(&self.gpu, &*part.weights()?)?;
        Ok(DecodePlan { height, width, wide: self.decode_wide.get(), executable, latents, out })
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

impl DecodePlan {
    /// Pixels in -1..1 of latents, both NHWC; `None` if one is not finite or an activation reached the end of f16.
    pub(super) async fn run(&self, gpu: &Gpu, latents: &[f32]) -> Result<Option<Vec<f32>>> {
        self.executable.finish_sound(gpu, self.start(gpu, latents)?).await
    }

    /// Submits a run and the copy of its pixels.
    pub(super) fn start(&self, gpu: &Gpu, latents: &[f32]) -> Result<Reading> {
        self.executable.write(gpu, self.latents, latents)?;
        self.executable.run(gpu);
        self.executable.start_read(gpu, self.out)
    }
}

/// As diffusers' `VaeImageProcessor`: -1..1 to 0..255, rounded to even.
pub(super) fn to_rgba(pixels: &[f32]) -> Vec<u8> {
    let mut data = Vec::with_capacity(pixels.len() / 3 * 4);
    for rgb in pixels.chunks_exact(3) {
        for &v in rgb {
            data.push(((v / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8);
        }
        data.push(255);
    }
    data
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
