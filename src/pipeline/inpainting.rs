//! What the loop begins with, and keeps of a picture step by step. After diffusers' `StableDiffusionInpaintPipeline`,
//! for UNets of four channels (blended after each step) and of nine (which are given mask and picture), and after
//! `StableDiffusionInstructPix2PixPipeline` for those of eight (which are given the picture).

use super::encode::{Encoder, LatentDist, to_field};
use super::model::Model;
use super::pixels::Bytes;
use super::request::Picture;
use super::residence::Residence;
use super::settle::{FirstNoise, Start, Under};
use crate::error::Result;
use crate::samplers::Levels;
use crate::samplers::NoiseSource;

/// What the loop starts from, encoded; nothing random yet.
pub(super) enum Encoded {
    Noise,
    /// One for all pictures, or one for each.
    Pictures(Vec<LatentDist>),
    Masked {
        image: LatentDist,
        /// At the latents' size: 1 where a latent is redrawn, 0 elsewhere.
        mask: Vec<f32>,
        under: Under,
        /// A UNet of nine channels: the picture with grey where the mask is.
        masked: Option<LatentDist>,
    },
    /// A UNet of eight channels: the picture that it edits, and its latents as they are given it.
    Edited {
        image: LatentDist,
        seen: Vec<f32>,
    },
}

/// Encodes what the loop starts from.
///
/// # Errors
/// Those of [`Encoder::encode`].
pub(super) async fn encode(
    start: Start,
    encoder: &Encoder,
    residence: &Residence,
    model: &Model,
    aborted: &dyn Fn() -> bool,
) -> Result<Encoded> {
    let pictures = match start {
        Start::Noise => return Ok(Encoded::Noise),
        Start::Latents(all) => {
            return Ok(Encoded::Pictures(all.into_iter().map(LatentDist::exactly).collect()));
        }
        Start::Masked { image, mask, under } => {
            let mut field = to_field(&image);
            let image = encoder.encode(residence, &field, aborted).await?;
            let mut masked = None;
            if model.inpainting {
                for (pixel, redrawn) in field.values.chunks_exact_mut(3).zip(binarize(&mask)) {
                    if redrawn {
                        pixel.fill(0.0);
                    }
                }
                masked = Some(encoder.encode(residence, &field, aborted).await?);
            }
            let mask = latent_mask(&mask, model.latent_scale as usize);
            return Ok(Encoded::Masked { image, mask, under, masked });
        }
        Start::Picture(picture) if model.instruct_pix2pix => {
            let image = encoder.encode(residence, &to_field(&picture), aborted).await?;
            let seen = image.mode(encoder.config.as_ref().map_or(1.0, |config| config.scaling_factor));
            return Ok(Encoded::Edited { image, seen });
        }
        Start::Picture(picture) => vec![picture],
        Start::Pictures(pictures) => pictures,
    };
    let mut images = Vec::new();
    for picture in &pictures {
        images.push(encoder.encode(residence, &to_field(picture), aborted).await?);
    }
    Ok(Encoded::Pictures(images))
}

/// Whether each pixel is to be redrawn: grey of the mask at least one half, as diffusers' `do_binarize` has it.
fn binarize(mask: &Picture) -> Vec<bool> {
    Bytes::grey(mask).data.iter().map(|&grey| grey >= 128).collect()
}

/// The mask at the latents' size: the pixel at each one's corner, as `interpolate` with "nearest" takes it.
fn latent_mask(mask: &Picture, scale: usize) -> Vec<f32> {
    let pixels = binarize(mask);
    let rows = pixels.chunks_exact(mask.width as usize).step_by(scale);
    rows.flat_map(|row| row.iter().step_by(scale)).map(|&redrawn| if redrawn { 1.0 } else { 0.0 }).collect()
}

/// What stays of the start, its random parts drawn.
#[derive(Default)]
pub(super) struct Canvas {
    /// A UNet of four channels with a mask: what is put back after each step.
    kept: Option<Kept>,
    /// Beside each picture's latents, NCHW: for a UNet of nine channels mask and masked picture, for one of eight the
    /// picture that it edits.
    pub beside: Vec<f32>,
}

struct Kept {
    /// NCHW, one picture, or all of the batch where each has a start or a generator of its own.
    image: Vec<f32>,
    /// NCHW, all pictures of the batch.
    noise: Vec<f32>,
    /// As [`Encoded::Masked`] has it.
    mask: Vec<f32>,
}

impl Canvas {
    /// Draws the random parts in diffusers' order (the picture's latents, the noise, the masked picture's latents), and
    /// gives the first sample, NCHW, `len` numbers, at the noise level of step `begin`.
    pub fn begin(
        encoded: Encoded,
        len: usize,
        given: FirstNoise,
        noises: &mut NoiseSource,
        levels: &Levels,
        begin: usize,
    ) -> (Canvas, Vec<f32>) {
        let fresh = |noises: &mut NoiseSource| match &given {
            FirstNoise::Given(noise) | FirstNoise::Sample(noise) => noise.clone(),
            FirstNoise::Seed => {
                let mut noise = vec![0.0; len];
                noises.first(&mut noise);
                noise
            }
        };
        let alone = |noise: &[f32]| noise.iter().map(|v| v * levels.init_noise_sigma()).collect::<Vec<f32>>();
        let over = |image: &[f32]| image.repeat(len / image.len().max(1));
        match encoded {
            Encoded::Noise => match given {
                FirstNoise::Sample(sample) => (Canvas::default(), sample),
                _ => (Canvas::default(), alone(&fresh(noises))),
            },
            Encoded::Pictures(images) => {
                let image = sampled(&images, noises);
                let noise = fresh(noises);
                let mut latents = over(&image);
                levels.add_noise(&mut latents, &noise, levels.sigma(begin));
                (Canvas::default(), latents)
            }
            Encoded::Edited { image, seen } => {
                // Drawn anew it takes noise alone, and nothing is drawn for its latents; of a lesser strength it is an
                // image-to-image model too, as in A1111.
                let latents = if begin == 0 {
                    alone(&fresh(noises))
                } else {
                    let image = sampled(&[image], noises);
                    let noise = fresh(noises);
                    let mut latents = over(&image);
                    levels.add_noise(&mut latents, &noise, levels.sigma(begin));
                    latents
                };
                (Canvas { kept: None, beside: seen }, latents)
            }
            Encoded::Masked { image, mask, under, masked } => {
                let one = image.len();
                let known = under == Under::NoiseAlone || matches!(given, FirstNoise::Given(_));
                let image = match &masked {
                    // diffusers does not encode the picture for a UNet that is given it anyway.
                    Some(_) if known => vec![0.0; one],
                    _ => sampled(&[image], noises),
                };
                let noise = fresh(noises);
                let mut latents = over(&image);
                let redrawn = |k: &usize| mask[k % mask.len()] > 0.5;
                match under {
                    Under::NoiseAlone => latents = alone(&noise),
                    Under::Picture => {}
                    Under::Noise => (0..len).filter(redrawn).for_each(|k| latents[k] = noise[k]),
                    Under::Zeros => (0..len).filter(redrawn).for_each(|k| latents[k] = 0.0),
                }
                if under != Under::NoiseAlone {
                    levels.add_noise(&mut latents, &noise, levels.sigma(begin));
                }
                let mut canvas = Canvas::default();
                match &masked {
                    Some(masked) => {
                        canvas.beside = mask;
                        canvas.beside.extend(masked.sample(&mut noises.generators()[0]));
                    }
                    None => {
                        // diffusers encodes the masked picture for these UNets too, and draws for it.
                        let own = noises.generators().len();
                        noises.randn(&mut vec![0.0; one * own]);
                        canvas.kept = Some(Kept { image, noise, mask });
                    }
                }
                (canvas, latents)
            }
        }
    }

    /// After a step: what the mask leaves out is the picture again, with the noise of the next step, if there is one.
    pub fn blend(&self, latents: &mut [f32], levels: &Levels, next: Option<f32>) {
        let Some(Kept { image, noise, mask }) = &self.kept else { return };
        let mut proper = image.repeat(latents.len() / image.len());
        if let Some(next) = next {
            levels.add_noise(&mut proper, noise, next);
        }
        for (k, (x, kept)) in latents.iter_mut().zip(proper).enumerate() {
            let m = mask[k % mask.len()];
            *x = (1.0 - m) * kept + m * *x;
        }
    }
}

/// Latents of one picture by each generator, or of each picture by its own.
fn sampled(images: &[LatentDist], noises: &mut NoiseSource) -> Vec<f32> {
    let generators = noises.generators();
    match images {
        [image] => generators.iter_mut().flat_map(|generator| image.sample(generator)).collect(),
        images => {
            let count = generators.len();
            let images = images.iter().enumerate();
            images.flat_map(|(i, image)| image.sample(&mut generators[i % count])).collect()
        }
    }
}
