//! A picture with noise of one time step, and what a prediction there says: for callers that take no steps.

use super::config::{Prediction, SchedulerConfig};
use super::edm::Edm;
use super::numeric::{exp, ln, zip};
use super::schedule::{DEFAULTS, Training, pred_epsilon, pred_original_sample};
use crate::error::{Error, Result};

/// The training's noise, by its time steps. Samples keep their spread: sqrt(alpha) of the picture, sqrt(1 - alpha) of
/// the noise, `alpha` being `alphas_cumprod` at the time step.
#[derive(Clone)]
pub struct Noising {
    alphas: Vec<f32>,
    prediction: Prediction,
    /// Time steps are then quarters of a level's logarithm, and pictures are divided by the spread of theirs.
    edm: Option<Edm>,
}

impl Noising {
    /// Reads the checkpoint's configuration.
    ///
    /// # Errors
    /// `unsupported-model` and `bad-checkpoint` for one that no sampler here could read.
    pub fn read(config: &SchedulerConfig) -> Result<Self> {
        let training = Training::read(config, 1, &DEFAULTS)?;
        Ok(Self { prediction: training.prediction_type, alphas: training.alphas_cumprod, edm: training.edm })
    }

    /// `alphas_cumprod`, by time step.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas
    }

    /// Of one of the training's time steps, or between two of them, where the noise level's logarithm is interpolated.
    ///
    /// # Errors
    /// `invalid-option` for a time step that the training did not have.
    pub fn alpha(&self, timestep: f32) -> Result<f32> {
        let last = self.alphas.len() - 1;
        let ends = self.ends();
        if !(ends[0]..=ends[1]).contains(&timestep) {
            return Err(Error::invalid(format!(
                "timestep = {timestep}: choose a number from {}, hardly any noise, to {}, hardly anything else.",
                ends[0], ends[1]
            )));
        }
        if let Some(edm) = &self.edm {
            return Ok(edm.alpha(exp(4.0 * timestep)));
        }
        let low = timestep as usize;
        let share = timestep.fract();
        let (a, b) = (self.alphas[low], self.alphas[(low + 1).min(last)]);
        // At zero terminal SNR there is no logarithm.
        if share == 0.0 || b == 0.0 {
            return Ok(a);
        }
        let log = |alpha: f32| ln((1.0 - alpha) / alpha);
        let ratio = exp((1.0 - share) * log(a) + share * log(b));
        Ok(1.0 / (1.0 + ratio))
    }

    /// The same of a sampler's time step, which may lie a little outside.
    pub fn nearest_alpha(&self, timestep: f32) -> f32 {
        let [low, high] = self.ends();
        self.alpha(timestep.clamp(low, high)).unwrap_or(self.alphas[self.alphas.len() - 1])
    }

    /// The first time step and the last.
    fn ends(&self) -> [f32; 2] {
        let last = self.alphas.len() - 1;
        match &self.edm {
            Some(edm) => edm.timesteps(),
            None => [0.0, last as f32],
        }
    }

    /// Spread of the picture's latents, where they are not of unit spread.
    fn spread(&self) -> f32 {
        self.edm.as_ref().map_or(1.0, |edm| edm.sigma_data)
    }

    /// diffusers' `add_noise`. All of one length.
    ///
    /// # Errors
    /// Those of [`Noising::alpha`].
    pub fn add_noise(&self, sample: &[f32], noise: &[f32], timestep: f32) -> Result<Vec<f32>> {
        let alpha = self.alpha(timestep)?;
        let (a, b) = (alpha.sqrt() / self.spread(), (1.0 - alpha).sqrt());
        Ok(zip(sample, noise, |x, n| a * x + b * n))
    }

    /// The picture behind the noise, from the network's output for `sample`.
    pub fn x0(&self, alpha: f32, output: &[f32], sample: &[f32]) -> Vec<f32> {
        let mut x0 = pred_original_sample(self.prediction, alpha, output, sample);
        x0.iter_mut().for_each(|x| *x *= self.spread());
        x0
    }

    /// The noise in `sample` as the network's output has it, whatever it was trained to predict.
    pub fn epsilon(&self, alpha: f32, output: &[f32], sample: &[f32]) -> Vec<f32> {
        pred_epsilon(self.prediction, alpha, output, sample)
    }
}
