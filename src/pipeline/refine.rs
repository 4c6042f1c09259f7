//! A drawing in two stages, as diffusers' ensemble of experts: one model ends where the next goes on, SDXL's refiner mostly.

use super::request::GenerateOptions;
use crate::error::{Error, Result};
use crate::samplers::{Noising, SchedulerConfig};

/// Of diffusers' pipeline.
const AESTHETIC_SCORES: [f32; 2] = [6.0, 2.5];

/// # Errors
/// `invalid-option` for shares of the denoising that cannot be, for `denoising_start` without latents to go on from, and for a
/// refiner without anything to refine.
pub(super) fn check(options: &GenerateOptions, begins: bool, refiner: bool) -> Result<()> {
    let [from, to] = [options.denoising_start, options.denoising_end];
    for (name, share) in [("denoisingStart", from), ("denoisingEnd", to)] {
        if share.is_some_and(|share| !(share > 0.0 && share < 1.0)) {
            return Err(Error::invalid(format!("{name} must be a share of the denoising between 0 and 1.")));
        }
    }
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err(Error::invalid("denoisingStart must be less than denoisingEnd."));
    }
    if from.is_some() && !(begins && options.latents.is_some() && options.hires.is_none()) {
        return Err(Error::invalid(
            "denoisingStart goes on with latents that denoisingEnd of another drawing left: give those as latents, \
             and neither image nor hires.",
        ));
    }
    if to.is_some() && options.hires.is_some() {
        return Err(Error::invalid("hires draws over what is finished: leave denoisingEnd out, or hires."));
    }
    if refiner && begins && options.latents.is_none() {
        return Err(Error::invalid(
            "This is SDXL's refiner, which ends what another model began: give image, or latents and \
             denoisingStart.",
        ));
    }
    Ok(())
}

/// The scores of the prompt and of the negative one.
///
/// # Errors
/// `invalid-option` for what is no number.
pub(super) fn aesthetic(options: &GenerateOptions) -> Result<[f32; 2]> {
    let [score, negative] = AESTHETIC_SCORES;
    let scores =
        [options.aesthetic_score.unwrap_or(score), options.negative_aesthetic_score.unwrap_or(negative)];
    if scores.iter().any(|score| !score.is_finite()) {
        return Err(Error::invalid("aestheticScore and negativeAestheticScore must be finite numbers."));
    }
    Ok(scores)
}

/// The first step that is run, and the one behind the last, where the training's time steps say so: `get_timesteps` of
/// `StableDiffusionXLImg2ImgPipeline`, and its `denoising_end`.
pub(super) fn steps(
    options: &GenerateOptions,
    config: &SchedulerConfig,
    timesteps: &[f32],
    [mut begin, mut end]: [usize; 2],
) -> Result<[usize; 2]> {
    let GenerateOptions { denoising_start, denoising_end, .. } = options;
    if denoising_start.is_none() && denoising_end.is_none() {
        return Ok([begin, end]);
    }
    let trained = Noising::read(config)?.alphas_cumprod().len() as f64;
    let cutoff = |share: f64| (trained - share * trained).round_ties_even() as f32;
    if let Some(share) = denoising_start {
        let cutoff = cutoff(*share);
        begin = timesteps.len() - timesteps.iter().filter(|&&t| t < cutoff).count();
    }
    if let Some(share) = denoising_end {
        let cutoff = cutoff(*share);
        end = begin + timesteps[begin..].iter().filter(|&&t| t >= cutoff).count();
    }
    if begin >= end {
        return Err(Error::invalid(
            "denoisingStart and denoisingEnd leave no step: choose more steps, or other shares.",
        ));
    }
    Ok([begin, end])
}
