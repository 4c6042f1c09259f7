//! Latents to pixels.

use super::pixels::{to_nhwc, to_rgba};
use super::plans::{DecodePlan, Vae, record_decoder};
use super::request::Picture;
use super::residence::{Residence, Stage};
use super::tiles::{Field, tiled};
use crate::error::{Error, Result};
use crate::gpu::{Dtype, Options};
use crate::ops::sound;
use std::cell::Cell;

/// Sides of tiles, in latents, from the best to the smallest that still sees something.
pub(super) const TILES: [u32; 7] = [128, 96, 64, 48, 32, 24, 16];

/// The image decoder of a model, of either class.
pub(super) struct Decoder {
    pub vae: Vae,
    pub options: Options,
    /// It overflowed f16 once: it runs in f32 activations from then on.
    wide: Cell<bool>,
}

impl Decoder {
    pub fn new(vae: Vae, options: Options) -> Self {
        Self { vae, options, wide: Cell::new(false) }
    }

    /// Pixels to a latent, each way.
    pub fn scale(&self) -> u32 {
        self.vae.scale()
    }

    /// Whether it is as small as a decoder for previews.
    pub fn is_small(&self) -> bool {
        matches!(self.vae, Vae::Tiny(_))
    }

    /// NCHW latents of one picture, as the UNet has them, through the image decoder: whole, or in tiles where
    /// that takes more than there is; and once more in f32 activations where f16 overflows.
    ///
    /// # Errors
    /// `out-of-memory` for sizes that the adapter cannot hold even in tiles; `device-lost`; `unsupported-model` if
    /// the decoder overflows f32.
    pub async fn decode(
        &self,
        residence: &Residence,
        latents: &[f32],
        [height, width]: [u32; 2],
    ) -> Result<Picture> {
        residence.bring(Stage::Vae, &|| false).await?;
        let values = to_nhwc(&self.vae.unscaled(latents), self.vae.latent_channels() as usize);
        let latents = Field { h: height as usize, w: width as usize, values };
        let pixels = match self.decode_field(residence, &latents).await? {
            Some(pixels) => pixels,
            None => {
                // The next picture need not overflow first.
                self.wide.set(true);
                let overflowed = || Error::unsupported("The image decoder overflowed. Load another VAE.");
                self.decode_field(residence, &latents).await?.ok_or_else(overflowed)?
            }
        };
        Ok(Picture { width: pixels.w as u32, height: pixels.h as u32, data: to_rgba(&pixels.values) })
    }

    /// Whether pictures of this size can be decoded here; asked before the first step, not after the last.
    ///
    /// # Errors
    /// `out-of-memory` with the numbers.
    pub fn check(&self, residence: &Residence, height: u32, width: u32) -> Result<()> {
        self.tile(residence, height, width).map(|_| ())
    }

    /// Pixels of latents that are divided by the scaling factor, or `None` if one is not finite or an activation
    /// reached the end of f16.
    async fn decode_field(&self, residence: &Residence, latents: &Field) -> Result<Option<Field>> {
        let mut overflowed = false;
        let mut run = async |part: &Field| {
            let pixels = self.decode_part(residence, part).await?;
            overflowed |= pixels.is_none();
            let scale = self.scale() as usize;
            let (h, w) = (part.h * scale, part.w * scale);
            Ok(Field { h, w, values: pixels.unwrap_or_else(|| vec![0.0; 3 * h * w]) })
        };
        let pixels = match self.tile(residence, latents.h as u32, latents.w as u32)? {
            None => run(latents).await?,
            Some(tile) => tiled(latents, tile as usize, (tile * self.scale()) as usize, run).await?,
        };
        Ok((!overflowed).then_some(pixels))
    }

    /// One run of the decoder.
    async fn decode_part(&self, residence: &Residence, latents: &Field) -> Result<Option<Vec<f32>>> {
        let (height, width, wide) = (latents.h as u32, latents.w as u32, self.wide.get());
        let plan = match residence.take_decode_plan() {
            Some(plan) if (plan.height, plan.width, plan.wide) == (height, width, wide) => plan,
            other => {
                // Free the old plan's memory before the new one's is asked for.
                drop(other);
                let record = |options: &Options| record_decoder(&self.vae, options, height, width);
                let recorded = sound(&residence.gpu, &self.now(), record).await?;
                residence.make_room_for_decoder(recorded.0.peak_bytes());
                let weights = residence.decoder.weights()?;
                DecodePlan::new(&residence.gpu, &weights, recorded, wide)?
            }
        };
        let pixels = plan.run(&residence.gpu, &latents.values).await;
        residence.keep_decode_plan(plan);
        pixels
    }

    /// The side of the tiles, in latents, that a picture is decoded in; `None`: whole.
    fn tile(&self, residence: &Residence, height: u32, width: u32) -> Result<Option<u32>> {
        let (limits, budget) = (&residence.gpu.limits, residence.vae_budget());
        let fits = |side: u32| {
            let plan = record_decoder(&self.vae, &self.now(), height.min(side), width.min(side))?.0;
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

    /// How its plans are recorded now.
    fn now(&self) -> Options {
        let activations = if self.wide.get() { Dtype::F32 } else { self.options.activations };
        Options { activations, ..self.options }
    }
}
