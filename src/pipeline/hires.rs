//! Hires fix: a picture drawn at the size that the model knows, enlarged, and drawn over at the larger size. As diffusers
//! composes it: text to image, `torch.nn.functional.interpolate` of the latents (or Lanczos of the picture, which the VAE
//! encodes again), image to image; both passes from the same seed, as A1111.

use super::image_to_image::{Start, schedule_steps};
use super::pixels::Bytes;
use super::{DiffusionPipeline, GenerateOptions, Generated, Step};
use crate::error::{Error, Result};

/// What is enlarged, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enlarge {
    /// The latents, bilinear: A1111's "Latent".
    #[default]
    Latent,
    LatentNearest,
    /// A = -0.75, as torch.
    LatentBicubic,
    /// The picture, Lanczos: decoded and encoded again.
    Picture,
}

/// The second pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hires {
    /// Pixels, as [`GenerateOptions::width`].
    pub width: u32,
    pub height: u32,
    pub upscaler: Enlarge,
    /// `None`: as many as the first pass. `strength_steps` says which of them are run.
    pub steps: Option<usize>,
    pub strength: f64,
}

impl DiffusionPipeline {
    /// Both passes.
    ///
    /// # Errors
    /// Those of `draw`; `invalid-option` for a second pass that cannot be, before the first begins.
    pub(super) async fn draw_twice(
        &self,
        options: &GenerateOptions,
        hires: Hires,
        on_step: &mut dyn FnMut(Step) -> Result<()>,
        aborted: &dyn Fn() -> bool,
    ) -> Result<Generated> {
        if options.image.is_some() || options.mask_image.is_some() {
            return Err(Error::invalid(
                "hires enlarges what is drawn from a prompt: leave image out, or hires.",
            ));
        }
        let picture = hires.upscaler == Enlarge::Picture;
        let first = GenerateOptions { hires: None, decode: picture, ..options.clone() };
        let second = GenerateOptions {
            hires: None,
            latents: None,
            width: hires.width,
            height: hires.height,
            num_inference_steps: hires.steps.unwrap_or(options.num_inference_steps),
            strength: Some(hires.strength),
            ..options.clone()
        };
        let (height, width) = self.latent_size(&first)?;
        let (to_height, to_width) = self.latent_size(&second)?;
        let (all, begin) = schedule_steps(&second, true)?;
        let mut done = 0;
        let mut count = |mut step: Step| {
            done = step.total;
            step.total += all - begin;
            on_step(step)
        };
        let first = self.draw(&first, None, &mut count, aborted).await?;
        let start = if picture {
            let enlarged = |p: &super::Picture| {
                Bytes::of(p).resized(hires.width as usize, hires.height as usize).picture()
            };
            Start::Pictures(first.pictures.iter().map(enlarged).collect())
        } else {
            let sizes = [height, width, to_height, to_width].map(|v| v as usize);
            let all = first.latents.iter().flat_map(|l| interpolate(l, sizes, hires.upscaler));
            Start::Latents(all.collect())
        };
        let mut count = |mut step: Step| {
            step.step += done;
            step.total += done;
            on_step(step)
        };
        let mut out = self.draw(&second, Some(start), &mut count, aborted).await?;
        out.parameters = first.parameters;
        out.timings.text_encoder += first.timings.text_encoder;
        out.timings.steps.splice(0..0, first.timings.steps);
        out.timings.vae += first.timings.vae;
        out.timings.total += first.timings.total;
        Ok(out)
    }
}

/// NCHW of one picture, each channel from `h` x `w` to `to_h` x `to_w`: `torch.nn.functional.interpolate` with
/// `align_corners=False` and no antialiasing.
fn interpolate(latents: &[f32], [h, w, to_h, to_w]: [usize; 4], how: Enlarge) -> Vec<f32> {
    let (rows, columns) = (taps(h, to_h, how), taps(w, to_w, how));
    let mut out = Vec::with_capacity(latents.len() / (h * w) * to_h * to_w);
    for channel in latents.chunks_exact(h * w) {
        for row in &rows {
            for column in &columns {
                let along =
                    |y: usize| column.iter().map(|&(x, share)| share * channel[y * w + x]).sum::<f32>();
                out.push(row.iter().map(|&(y, share)| share * along(y)).sum());
            }
        }
    }
    out
}

/// For each of `to` places those of `from` that it is made of, and their shares.
fn taps(from: usize, to: usize, how: Enlarge) -> Vec<Vec<(usize, f32)>> {
    let scale = from as f64 / to as f64;
    let last = from as isize - 1;
    let at = |x: isize| x.clamp(0, last) as usize;
    // Keys' cubic kernel, A = -0.75.
    let cubic = |t: f64| {
        const A: f64 = -0.75;
        let t = t.abs();
        if t <= 1.0 {
            ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0
        } else {
            ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A
        }
    };
    (0..to)
        .map(|i| {
            let centre = (i as f64 + 0.5) * scale - 0.5;
            match how {
                Enlarge::LatentNearest => vec![(at((i as f64 * scale) as isize), 1.0)],
                Enlarge::LatentBicubic => {
                    let first = centre.floor();
                    let tap = |k: isize| (at(first as isize + k), cubic(centre - first - k as f64) as f32);
                    (-1..=2).map(tap).collect()
                }
                _ => {
                    let centre = centre.max(0.0);
                    let share = (centre - centre.floor()) as f32;
                    vec![(at(centre as isize), 1.0 - share), (at(centre as isize + 1), share)]
                }
            }
        })
        .collect()
}
