//! Sampling of latent consistency models (Luo et al. 2023): to the picture and back up with fresh noise.

use super::config::Prediction;
use super::schedule::{
    Bound, DEFAULTS, Defaults, Training, check_step, linspace_open, pred_original_sample, sigma,
};
use super::{Noise, Scheduler, SchedulerConfig};
use crate::error::{Error, Result};

/// Deviation of the data, fixed in diffusers.
const SIGMA_DATA: f32 = 0.5;

struct Lcm {
    prediction_type: Prediction,
    bound: Bound,
    timestep_scaling: f32,
    timesteps: Vec<f32>,
    /// `alphas_cumprod` at each timestep.
    alphas: Vec<f32>,
}

pub(super) fn make(config: &SchedulerConfig, n: usize) -> Result<Box<dyn Scheduler>> {
    let defaults =
        Defaults { beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear", ..DEFAULTS };
    let training = Training::read(config, n, &defaults)?;
    let original = config.usize("original_inference_steps", 50)?;
    if original == 0 || original > training.num_train_timesteps {
        return Err(SchedulerConfig::refuse("original_inference_steps", original));
    }
    if n > original {
        return Err(Error::invalid(format!(
            "`numInferenceSteps` is {n}; the LCM sampler of this checkpoint takes 1 to {original}"
        )));
    }
    // The timesteps of the distillation, rising, of which every so manieth is used from the end.
    let k = training.num_train_timesteps / original;
    let timesteps: Vec<i64> =
        linspace_open(original as f64, n).map(|i| ((original - i.floor() as usize) * k) as i64 - 1).collect();
    training.check_range(&timesteps)?;
    Ok(Box::new(Lcm {
        prediction_type: training.prediction_type,
        bound: Bound::read(config, Some(false))?,
        timestep_scaling: config.f64("timestep_scaling", 10.0)? as f32,
        timesteps: timesteps.iter().map(|&t| t as f32).collect(),
        alphas: timesteps.iter().map(|&t| training.alpha(t, 1.0)).collect::<Result<_>>()?,
    }))
}

impl Scheduler for Lcm {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn sigma(&self, i: usize) -> f32 {
        self.alphas.get(i).map_or(f32::NAN, |&a| sigma(a))
    }

    fn step(&mut self, model_output: &[f32], i: usize, sample: &mut [f32], noise: Noise) -> Result<Vec<f32>> {
        check_step(i, self.timesteps.len(), model_output, sample)?;
        let mut denoised = pred_original_sample(self.prediction_type, self.alphas[i], model_output, sample);
        self.bound.apply(&mut denoised);
        // The boundary condition: at timestep 0 the picture is the sample.
        let scaled = self.timestep_scaling * self.timesteps[i];
        let square = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        let (c_skip, c_out) = (SIGMA_DATA * SIGMA_DATA / square, scaled / square.sqrt());
        for (d, x) in denoised.iter_mut().zip(sample.iter()) {
            *d = c_out * *d + c_skip * x;
        }
        sample.copy_from_slice(&denoised);
        if let Some(alpha_prev) = self.alphas.get(i + 1) {
            let mut z = vec![0.0; sample.len()];
            noise(&mut z);
            let (a, b) = (alpha_prev.sqrt(), (1.0 - alpha_prev).sqrt());
            for (x, z) in sample.iter_mut().zip(&z) {
                *x = a * *x + b * z;
            }
        }
        Ok(denoised)
    }
}
