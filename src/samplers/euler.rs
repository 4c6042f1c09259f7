//! Euler's method on the noise level (Karras et al. 2022, algorithm 2 without churn).

use super::config::{Prediction, Spacing};
use super::schedule::{
    DEFAULTS, Defaults, Training, check_step, exp, interp, karras_sigmas, ln, sigma_to_t, torch_linspace, zip,
};
use super::{Noise, Scheduler, SchedulerConfig};
use crate::error::Result;

struct Euler {
    prediction_type: Prediction,
    timesteps: Vec<f32>,
    /// Noise level before each step, and after the last.
    sigmas: Vec<f32>,
    init_noise_sigma: f32,
}

pub(super) fn make(config: &SchedulerConfig, n: usize) -> Result<Box<dyn Scheduler>> {
    let mut training = Training::read(config, n, &Defaults { timestep_spacing: "linspace", ..DEFAULTS })?;
    training.keep_last_alpha_off_zero();
    config.must_be_off("use_exponential_sigmas")?;
    config.must_be_off("use_beta_sigmas")?;

    let mut timesteps = training.fractional_timesteps(n);
    let all = training.sigmas();
    let (Some(&smallest), Some(&largest)) = (all.first(), all.last()) else {
        return Err(SchedulerConfig::refuse("num_train_timesteps", 0));
    };
    let mut sigmas: Vec<f64> = match config.str("interpolation_type", "linear")? {
        "linear" => timesteps.iter().map(|&t| interp(f64::from(t), &all)).collect(),
        // One more than there are timesteps, so that the last step ends at the smallest, not at zero.
        "log_linear" => {
            torch_linspace(ln(largest), ln(smallest), n + 1).iter().map(|&l| exp(l).into()).collect()
        }
        other => return Err(SchedulerConfig::refuse("interpolation_type", other)),
    };
    if config.bool("use_karras_sigmas", false)? {
        let min = config.optional_f64("sigma_min")?.or(sigmas.last().copied()).unwrap_or(0.0);
        let max = config.optional_f64("sigma_max")?.or(sigmas.first().copied()).unwrap_or(0.0);
        sigmas = karras_sigmas(min, max, n);
        let log_sigmas: Vec<f32> = all.iter().map(|&s| ln(s)).collect();
        timesteps = sigmas.iter().map(|&s| sigma_to_t(s, &log_sigmas) as f32).collect();
    }
    let mut sigmas: Vec<f32> = sigmas.iter().map(|&s| s as f32).collect();
    sigmas.push(final_sigma(config, smallest)?);
    match config.str("timestep_type", "discrete")? {
        "continuous" if training.prediction_type == Prediction::Velocity => {
            timesteps = sigmas[..sigmas.len() - 1].iter().map(|&s| 0.25 * ln(s)).collect();
        }
        "discrete" | "continuous" => {}
        other => return Err(SchedulerConfig::refuse("timestep_type", other)),
    }
    Ok(Box::new(Euler {
        prediction_type: training.prediction_type,
        timesteps,
        init_noise_sigma: init_noise_sigma(&sigmas, training.timestep_spacing),
        sigmas,
    }))
}

/// Where the last step goes, of Euler and DPM++.
pub(super) fn final_sigma(config: &SchedulerConfig, smallest: f32) -> Result<f32> {
    match config.str("final_sigmas_type", "zero")? {
        "zero" => Ok(0.0),
        "sigma_min" => Ok(smallest),
        other => Err(SchedulerConfig::refuse("final_sigmas_type", other)),
    }
}

/// The deviation of the first sample, of Euler and Euler ancestral.
pub(super) fn init_noise_sigma(sigmas: &[f32], spacing: Spacing) -> f32 {
    let max = sigmas.iter().copied().fold(0.0, f32::max);
    if spacing == Spacing::Leading { (max * max + 1.0).sqrt() } else { max }
}

/// The sample as the network knows it, of unit spread.
pub(super) fn scale_model_input(sample: &mut [f32], sigma: f32) {
    let spread = (sigma * sigma + 1.0).sqrt();
    for x in sample {
        *x /= spread;
    }
}

/// The picture behind the noise at level `sigma`.
pub(super) fn pred_original_sample(p: Prediction, sigma: f32, output: &[f32], sample: &[f32]) -> Vec<f32> {
    let square = sigma * sigma + 1.0;
    match p {
        Prediction::Epsilon => zip(output, sample, |m, x| x - sigma * m),
        Prediction::Sample => output.to_vec(),
        Prediction::Velocity => {
            let c = -sigma / square.sqrt();
            zip(output, sample, |m, x| m * c + x / square)
        }
    }
}

impl Scheduler for Euler {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn sigma(&self, i: usize) -> f32 {
        self.sigmas.get(i).copied().unwrap_or(f32::NAN)
    }

    fn init_noise_sigma(&self) -> f32 {
        self.init_noise_sigma
    }

    fn add_noise(&self, sample: &mut [f32], noise: &[f32], i: usize) {
        let sigma = self.sigma(i);
        sample.iter_mut().zip(noise).for_each(|(x, n)| *x += sigma * n);
    }

    fn scale_model_input(&self, sample: &mut [f32], i: usize) {
        scale_model_input(sample, self.sigma(i));
    }

    fn step(&mut self, model_output: &[f32], i: usize, sample: &mut [f32], _: Noise) -> Result<Vec<f32>> {
        check_step(i, self.timesteps.len(), model_output, sample)?;
        let (sigma, next) = (self.sigmas[i], self.sigmas[i + 1]);
        let x0 = pred_original_sample(self.prediction_type, sigma, model_output, sample);
        for (x, x0) in sample.iter_mut().zip(&x0) {
            *x += (*x - x0) / sigma * (next - sigma);
        }
        Ok(x0)
    }
}
