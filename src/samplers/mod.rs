//! Noise schedules and step rules, one file per sampler, in the arithmetic of diffusers 0.42's
//! schedulers: f32 where those hold torch tensors, f64 where they hold numpy arrays or Python floats.
//!
//! A [`Scheduler`] steps one picture: `sample`, `model_output` and noise are flat f32 slices of equal
//! length in any one memory order. The number of UNet calls is `timesteps().len()`, which for PNDM is
//! more than `num_inference_steps`.

mod config;
mod ddim;
mod ddpm;
mod dpmpp;
mod embedding;
mod euler;
mod euler_a;
mod guidance;
mod lcm;
pub mod noise;
mod pndm;
mod preview;
mod schedule;

use crate::error::{Error, Result};

pub use config::SchedulerConfig;
pub use embedding::{get_guidance_scale_embedding, get_timestep_embedding};
pub use guidance::{classifier_free_guidance, composed_guidance, rescale_noise_cfg};
pub use preview::{SD1_FACTORS, latents_to_rgba};

/// Where a step that needs noise gets it: fills the slice with standard normal values. Called at most
/// once per step, with the sample's length, in the order in which diffusers calls `randn_tensor`.
pub type Noise<'a> = &'a mut dyn FnMut(&mut [f32]);

/// A sampler with its timesteps set, for one picture.
pub trait Scheduler {
    /// What the UNet is told at each call; fractional for Euler. Never empty.
    fn timesteps(&self) -> &[f32];

    /// Noise level before step `i` as a standard deviation against a unit-scale picture,
    /// `sqrt((1 - alphas_cumprod) / alphas_cumprod)`; infinite at zero terminal SNR. NaN beyond the end.
    fn sigma(&self, i: usize) -> f32;

    /// The factor by which unit noise is multiplied to make the first sample.
    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    /// Makes the sample into what the UNet is given at step `i`, in place (a copy of the sample: `step`
    /// takes the unscaled one).
    fn scale_model_input(&self, _sample: &mut [f32], _i: usize) {}

    /// The noised sample at step `i`, in place: what diffusers' `add_noise` makes of a picture's latents and the
    /// timestep. Samplers over noise levels override this.
    fn add_noise(&self, sample: &mut [f32], noise: &[f32], i: usize) {
        let sigma = self.sigma(i);
        // sqrt(alphas_cumprod), and sqrt(1 - alphas_cumprod); sigma is infinite at zero terminal SNR.
        let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
        let share = if sigma.is_finite() { sigma * alpha } else { 1.0 };
        for (x, n) in sample.iter_mut().zip(noise) {
            *x = alpha * *x + share * n;
        }
    }

    /// From the model's output at step `i` to the next sample, in place. Returns the picture that the
    /// sampler sees behind the noise (diffusers' `pred_original_sample`, for LCM `denoised`).
    /// Steps are to be taken in order; samplers of higher order remember earlier outputs.
    ///
    /// Fails with `invalid-option` if `i` is beyond the end or the lengths differ.
    fn step(&mut self, model_output: &[f32], i: usize, sample: &mut [f32], noise: Noise) -> Result<Vec<f32>>;
}

/// Makes a sampler from a configuration, for a number of steps.
type Make = fn(&SchedulerConfig, usize) -> Result<Box<dyn Scheduler>>;

/// The table of samplers: short name, diffusers' class, constructor. A suffix `_karras` is the class
/// with `use_karras_sigmas`.
const SAMPLERS: &[(&str, &str, Make)] = &[
    ("ddpm", "DDPMScheduler", ddpm::make),
    ("ddim", "DDIMScheduler", ddim::make),
    ("pndm", "PNDMScheduler", pndm::make),
    ("euler", "EulerDiscreteScheduler", euler::make),
    ("euler_a", "EulerAncestralDiscreteScheduler", euler_a::make),
    ("dpmpp_2m", "DPMSolverMultistepScheduler", dpmpp::make),
    ("lcm", "LCMScheduler", lcm::make),
];

const NAMES: &[&str] =
    &["ddpm", "ddim", "pndm", "euler", "euler_karras", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "lcm"];

/// Classes that we do not compute, but whose configuration describes a network that a named sampler of
/// ours can drive: the same betas, the same prediction types.
const KINDRED: &[&str] = &[
    "DEISMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
];

/// The names that [`scheduler`] takes.
pub fn names() -> &'static [&'static str] {
    NAMES
}

/// The sampler `name`, or without a name the checkpoint's own, with its timesteps set.
///
/// A named sampler reads the checkpoint's configuration as diffusers' `from_config` does: keys that its
/// class knows are taken, others ignored, missing ones have the class's own defaults.
///
/// Errors: `invalid-option` for an unknown name or a number of steps that the configuration does not
/// allow; `unsupported-model` for a class or a field's value that we do not compute.
pub fn scheduler(
    name: Option<&str>,
    config: &SchedulerConfig,
    num_inference_steps: usize,
) -> Result<Box<dyn Scheduler>> {
    let class = config.class_name();
    let Some(name) = name else {
        let (_, _, make) = SAMPLERS.iter().find(|s| s.1 == class).ok_or_else(|| {
            let ours: Vec<_> = SAMPLERS.iter().map(|s| s.1).collect();
            Error::unsupported(format!(
                "the checkpoint's scheduler is {class}, which is not supported; name one of {} as \
                 `scheduler`, or use a checkpoint with one of {}",
                NAMES.join(", "),
                ours.join(", "),
            ))
        })?;
        return make(config, num_inference_steps);
    };
    if !SAMPLERS.iter().any(|s| s.1 == class) && !KINDRED.contains(&class) {
        return Err(Error::unsupported(format!(
            "the checkpoint's scheduler is {class}, made for networks that no sampler here can drive; use \
             a Stable Diffusion 1.x, 2.x or XL checkpoint"
        )));
    }
    let unknown =
        || Error::invalid(format!("there is no scheduler {name:?}; choose one of {}", NAMES.join(", ")));
    if !NAMES.contains(&name) {
        return Err(unknown());
    }
    let (base, karras) = match name.strip_suffix("_karras") {
        Some(base) => (base, true),
        None => (name, false),
    };
    let (_, _, make) = SAMPLERS.iter().find(|s| s.0 == base).ok_or_else(unknown)?;
    if karras {
        make(&config.with_karras_sigmas(), num_inference_steps)
    } else {
        make(config, num_inference_steps)
    }
}
