//! Inpainting: what the loop keeps of the picture, step by step and at the end. After diffusers'
//! `StableDiffusionInpaintPipeline`, for UNets of four channels (blended after each step) and of nine (told of mask and
//! picture).

use super::image_to_image::{LatentDist, Start, strength, to_field};
use super::pixels::Bytes;
use super::{DiffusionPipeline, GenerateOptions, MaskedContent, Picture};
use crate::error::{Error, Result};
use crate::samplers::Levels;
use crate::samplers::NoiseSource;

/// A picture to start from, encoded; nothing random yet.
pub(super) struct Encoded {
    /// Of one picture, or of each one to draw.
    image: Vec<LatentDist>,
    /// The picture with grey where the mask is.
    masked: Option<LatentDist>,
}

/// A picture to start from, its random parts drawn.
pub(super) struct Canvas {
    /// NCHW, one picture, or all of the batch where each has a start or a generator of its own.
    image_latents: Vec<f32>,
    /// NCHW, all pictures of the batch.
    noise: Vec<f32>,
    /// A UNet of four channels: 1 where a latent is redrawn, 0 elsewhere.
    blend: Option<Vec<f32>>,
    /// A UNet of nine channels: mask and masked picture, NCHW, beside each picture's latents.
    pub beside: Vec<f32>,
}

/// Whether each pixel is to be redrawn: grey of the mask at least one half, as diffusers' `do_binarize` has it.
fn binarize(mask: &Picture) -> Vec<bool> {
    Bytes::grey(mask).data.iter().map(|&grey| grey >= 128).collect()
}

impl DiffusionPipeline {
    /// # Errors
    /// `invalid-option` for a mask without a picture, and for an inpainting model without a mask.
    pub(super) fn check_mask(&self, options: &GenerateOptions) -> Result<()> {
        if options.mask_image.is_some() && options.image.is_none() {
            return Err(Error::invalid("maskImage says where to redraw image: give image too."));
        }
        if self.model.inpainting && options.mask_image.is_none() {
            return Err(Error::invalid(
                "This is an inpainting model: give image and maskImage (white where it is to draw), or load the model's \
                 text-to-image sibling.",
            ));
        }
        Ok(())
    }

    /// The pictures of the request through the VAE's encoder.
    ///
    /// # Errors
    /// Those of `encode`.
    pub(super) async fn encode_inputs(
        &self,
        options: &GenerateOptions,
        start: Option<Start>,
        aborted: &dyn Fn() -> bool,
    ) -> Result<Option<Encoded>> {
        match start {
            Some(Start::Latents(latents)) => {
                let each = latents.chunks_exact(latents.len() / options.num_images);
                let image = each.map(|l| LatentDist::exactly(l.to_vec())).collect();
                return Ok(Some(Encoded { image, masked: None }));
            }
            Some(Start::Pictures(pictures)) => {
                let mut image = Vec::new();
                for picture in &pictures {
                    image.push(self.encode(&to_field(picture), aborted).await?);
                }
                return Ok(Some(Encoded { image, masked: None }));
            }
            None => {}
        }
        let Some(picture) = &options.image else { return Ok(None) };
        let mut field = to_field(picture);
        let image = vec![self.encode(&field, aborted).await?];
        let mut masked = None;
        if let (Some(mask), true) = (&options.mask_image, self.model.inpainting) {
            for (pixel, redrawn) in field.values.chunks_exact_mut(3).zip(binarize(mask)) {
                if redrawn {
                    pixel.fill(0.0);
                }
            }
            masked = Some(self.encode(&field, aborted).await?);
        }
        Ok(Some(Encoded { image, masked }))
    }

    /// Draws the random parts in diffusers' order (the picture's latents, the noise, the masked picture's latents), and
    /// gives the first sample. `given` is noise to take instead of the seed's.
    pub(super) fn canvas(
        &self,
        options: &GenerateOptions,
        encoded: &Encoded,
        levels: &Levels,
        begin: usize,
        given: Option<&[f32]>,
        noises: &mut NoiseSource,
    ) -> (Canvas, Vec<f32>) {
        let one = encoded.image.first().map_or(0, LatentDist::len);
        // A1111, which knows masked content, begins with it at every strength.
        let content = options.masked_content;
        let from_noise = options.mask_image.is_some() && strength(options) >= 1.0 && content.is_none();
        let draws_image = !(self.model.inpainting && (from_noise || given.is_some()));
        let image_latents: Vec<f32> = match (draws_image, &encoded.image[..]) {
            (false, _) => vec![0.0; one],
            (true, [image]) => noises.generators().iter_mut().flat_map(|g| image.sample(g)).collect(),
            (true, images) => {
                let generators = noises.generators();
                let count = generators.len();
                let images = images.iter().enumerate();
                images.flat_map(|(i, image)| image.sample(&mut generators[i % count])).collect()
            }
        };
        let mut noise = vec![0.0; one * options.num_images];
        match given {
            Some(given) => noise.copy_from_slice(given),
            None => noises.first(&mut noise),
        }
        let mut latents;
        if from_noise {
            latents = noise.clone();
            latents.iter_mut().for_each(|v| *v *= levels.init_noise_sigma());
        } else {
            latents = image_latents.repeat(noise.len() / image_latents.len());
            if let (Some(mask), Some(MaskedContent::Noise | MaskedContent::Nothing)) =
                (&options.mask_image, content)
            {
                let mask = self.latent_mask(mask);
                let under = |k: usize| if content == Some(MaskedContent::Noise) { noise[k] } else { 0.0 };
                for (k, v) in latents.iter_mut().enumerate().filter(|(k, _)| mask[k % mask.len()] > 0.5) {
                    *v = under(k);
                }
            }
            levels.add_noise(&mut latents, &noise, levels.sigma(begin));
        }
        let mut canvas = Canvas { image_latents, noise, blend: None, beside: Vec::new() };
        if let Some(mask) = &options.mask_image {
            let mask = self.latent_mask(mask);
            match &encoded.masked {
                Some(masked) => {
                    canvas.beside = mask;
                    canvas.beside.extend(masked.sample(&mut noises.generators()[0]));
                }
                None => {
                    // diffusers encodes the masked picture for these UNets too, and draws for it.
                    let own = noises.generators().len();
                    noises.randn(&mut vec![0.0; one * own]);
                    canvas.blend = Some(mask);
                }
            }
        }
        (canvas, latents)
    }

    /// The mask at the latents' size: the pixel at each one's corner, as `interpolate` with "nearest" takes it.
    fn latent_mask(&self, mask: &Picture) -> Vec<f32> {
        let (scale, width) = (self.vae.scale() as usize, mask.width as usize);
        let pixels = binarize(mask);
        let rows = pixels.chunks_exact(width).step_by(scale);
        rows.flat_map(|row| row.iter().step_by(scale))
            .map(|&redrawn| if redrawn { 1.0 } else { 0.0 })
            .collect()
    }
}

impl Canvas {
    /// After a step: what the mask leaves out is the picture again, with the noise of the next step, if there is one.
    pub fn blend(&self, latents: &mut [f32], levels: &Levels, next: Option<f32>) {
        let Some(mask) = &self.blend else { return };
        let mut proper = self.image_latents.repeat(latents.len() / self.image_latents.len());
        if let Some(next) = next {
            levels.add_noise(&mut proper, &self.noise, next);
        }
        for (k, (x, kept)) in latents.iter_mut().zip(proper).enumerate() {
            let m = mask[k % mask.len()];
            *x = (1.0 - m) * kept + m * *x;
        }
    }
}
