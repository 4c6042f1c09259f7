//! DDIM with eta 0, deterministic (Song et al. 2020).

use super::config::Prediction;
use super::schedule::{Bound, DEFAULTS, Training, check_step, pred_original_sample, sigma, zip};
use super::{Noise, Scheduler, SchedulerConfig};
use crate::error::Result;

struct Ddim {
    prediction_type: Prediction,
    bound: Bound,
    timesteps: Vec<f32>,
    /// `alphas_cumprod` at each timestep, and where its step goes: `num_train_timesteps / n` further
    /// down, which need not be the next timestep.
    alphas: Vec<(f32, f32)>,
}

pub(super) fn make(config: &SchedulerConfig, n: usize) -> Result<Box<dyn Scheduler>> {
    let training = Training::read(config, n, &DEFAULTS)?;
    let final_alpha = training.final_alpha(config.bool("set_alpha_to_one", true)?);
    let timesteps = training.timesteps(n);
    training.check_range(&timesteps)?;
    let stride = (training.num_train_timesteps / n) as i64;
    let alphas = timesteps
        .iter()
        .map(|&t| Ok((training.alpha(t, final_alpha)?, training.alpha(t - stride, final_alpha)?)))
        .collect::<Result<_>>()?;
    Ok(Box::new(Ddim {
        prediction_type: training.prediction_type,
        bound: Bound::read(config, Some(true))?,
        timesteps: timesteps.iter().map(|&t| t as f32).collect(),
        alphas,
    }))
}

impl Scheduler for Ddim {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn sigma(&self, i: usize) -> f32 {
        self.alphas.get(i).map_or(f32::NAN, |a| sigma(a.0))
    }

    fn step(&mut self, model_output: &[f32], i: usize, sample: &mut [f32], _: Noise) -> Result<Vec<f32>> {
        check_step(i, self.timesteps.len(), model_output, sample)?;
        let (alpha, alpha_prev) = self.alphas[i];
        let (a, b) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let mut x0 = pred_original_sample(self.prediction_type, alpha, model_output, sample);
        let epsilon = match self.prediction_type {
            Prediction::Epsilon => model_output.to_vec(),
            Prediction::Sample => zip(&x0, sample, |x0, x| (x - a * x0) / b),
            Prediction::Velocity => zip(model_output, sample, |m, x| a * m + b * x),
        };
        self.bound.apply(&mut x0);
        let (a_prev, b_prev) = (alpha_prev.sqrt(), (1.0 - alpha_prev).sqrt());
        for ((x, x0), e) in sample.iter_mut().zip(&x0).zip(&epsilon) {
            *x = a_prev * x0 + b_prev * e;
        }
        Ok(x0)
    }
}
