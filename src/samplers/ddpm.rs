//! DDPM, ancestral sampling (Ho et al. 2020), as diffusers' `DDPMScheduler`.

use super::config::Prediction;
use super::config::SchedulerConfig;
use super::levels::{Levels, nearest_timesteps};
use super::numeric::{exp, ln, sigma};
use super::sampler::Sampler;
use super::schedule::{Bound, DEFAULTS, Training, pred_original_sample};
use super::setup::Setup;
use super::steps::Rule;
use crate::error::Result;

/// `variance_type`, fixed.
#[derive(Clone, Copy)]
enum VarianceType {
    Small,
    SmallLog,
    Large,
}

struct Ddpm {
    prediction_type: Prediction,
    bound: Bound,
    variance_type: VarianceType,
    timesteps: Vec<f32>,
    /// `alphas_cumprod` at each timestep, and 1 after the last.
    alphas: Vec<f32>,
}

pub(super) fn make(setup: &Setup) -> Result<Sampler> {
    let config = setup.config;
    let training = Training::read(config, setup.steps, &DEFAULTS)?;
    let variance_type = match config.optional_str("variance_type", Some("fixed_small"))? {
        None | Some("fixed_small") => VarianceType::Small,
        Some("fixed_small_log") => VarianceType::SmallLog,
        Some("fixed_large") => VarianceType::Large,
        // "fixed_large_log" too: diffusers takes the root of a logarithm there, which is NaN.
        Some(other) => return Err(SchedulerConfig::refuse("variance_type", other)),
    };
    let timesteps = nearest_timesteps(setup, &training)?.unwrap_or_else(|| training.timesteps(setup.steps));
    training.check_range(&timesteps)?;
    let alphas: Vec<f32> =
        timesteps.iter().chain(&[-1]).map(|&t| training.alpha(t, 1.0)).collect::<Result<_>>()?;
    let timesteps: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
    let levels = Levels::preserving(timesteps.clone(), alphas.iter().map(|&a| sigma(a)).collect());
    let rule = Ddpm {
        prediction_type: training.prediction_type,
        bound: Bound::read(config, Some(true))?,
        variance_type,
        timesteps,
        alphas,
    };
    Ok(Sampler::stepwise(levels, rule))
}

impl Rule for Ddpm {
    fn step(
        &mut self,
        model_output: &[f32],
        i: usize,
        sample: &mut [f32],
        noise: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Vec<f32>> {
        let (t, alpha, alpha_prev) = (self.timesteps[i], self.alphas[i], self.alphas[i + 1]);
        let (beta, beta_prev) = (1.0 - alpha, 1.0 - alpha_prev);
        let current_alpha = alpha / alpha_prev;
        let current_beta = 1.0 - current_alpha;

        let mut x0 = pred_original_sample(self.prediction_type, alpha, model_output, sample);
        self.bound.apply(&mut x0);
        let x0_coeff = alpha_prev.sqrt() * current_beta / beta;
        let sample_coeff = current_alpha.sqrt() * beta_prev / beta;
        for (x, x0) in sample.iter_mut().zip(&x0) {
            *x = x0_coeff * x0 + sample_coeff * *x;
        }
        if t > 0.0 {
            let variance = (beta_prev / beta * current_beta).max(1e-20);
            let deviation = match self.variance_type {
                VarianceType::Small => variance.sqrt(),
                VarianceType::SmallLog => exp(0.5 * ln(variance)),
                VarianceType::Large => current_beta.sqrt(),
            };
            let mut z = vec![0.0; sample.len()];
            noise(&mut z);
            for (x, z) in sample.iter_mut().zip(&z) {
                *x += deviation * z;
            }
        }
        Ok(x0)
    }
}
