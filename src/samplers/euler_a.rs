//! Euler ancestral: each step goes below the next noise level and adds fresh noise up to it.

use super::config::Prediction;
use super::euler::{init_noise_sigma, pred_original_sample, scale_model_input};
use super::schedule::{DEFAULTS, Defaults, Training, check_step, interp};
use super::{Noise, Scheduler, SchedulerConfig};
use crate::error::Result;

struct EulerAncestral {
    prediction_type: Prediction,
    timesteps: Vec<f32>,
    /// Noise level before each step, and 0 after the last.
    sigmas: Vec<f32>,
    init_noise_sigma: f32,
}

pub(super) fn make(config: &SchedulerConfig, n: usize) -> Result<Box<dyn Scheduler>> {
    let mut training = Training::read(config, n, &Defaults { timestep_spacing: "linspace", ..DEFAULTS })?;
    training.keep_last_alpha_off_zero();
    if training.prediction_type == Prediction::Sample {
        return Err(SchedulerConfig::refuse("prediction_type", "sample, for Euler ancestral,"));
    }
    let timesteps = training.fractional_timesteps(n);
    let all = training.sigmas();
    let mut sigmas: Vec<f32> = timesteps.iter().map(|&t| interp(f64::from(t), &all) as f32).collect();
    sigmas.push(0.0);
    Ok(Box::new(EulerAncestral {
        prediction_type: training.prediction_type,
        timesteps,
        init_noise_sigma: init_noise_sigma(&sigmas, training.timestep_spacing),
        sigmas,
    }))
}

impl Scheduler for EulerAncestral {
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

    fn step(&mut self, model_output: &[f32], i: usize, sample: &mut [f32], noise: Noise) -> Result<Vec<f32>> {
        check_step(i, self.timesteps.len(), model_output, sample)?;
        let (from, to) = (self.sigmas[i], self.sigmas[i + 1]);
        let (from2, to2) = (from * from, to * to);
        let up = (to2 * (from2 - to2) / from2).sqrt();
        let down = (to2 - up * up).sqrt();
        let x0 = pred_original_sample(self.prediction_type, from, model_output, sample);
        let mut z = vec![0.0; sample.len()];
        noise(&mut z);
        for ((x, x0), z) in sample.iter_mut().zip(&x0).zip(&z) {
            *x = *x + (*x - x0) / from * (down - from) + z * up;
        }
        Ok(x0)
    }
}
