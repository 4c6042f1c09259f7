//! Sampling of latent consistency models (Luo et al. 2023), to the picture and back up with fresh noise, as diffusers'
//! `LCMScheduler`; and of trajectory consistency models (Zheng et al. 2024), as its `TCDScheduler`.

use super::config::Prediction;
use super::config::SchedulerConfig;
use super::levels::{Levels, nearest_timesteps};
use super::numeric::{linspace_open, sigma};
use super::sampler::Sampler;
use super::schedule::{Bound, DEFAULTS, Defaults, Training, pred_epsilon, pred_original_sample};
use super::setup::Setup;
use super::steps::Rule;
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

/// The training, and the timesteps to go through: of those of the distillation every so manieth, from the end.
fn distilled(setup: &Setup) -> Result<(Training, Vec<i64>)> {
    let (config, n) = (setup.config, setup.steps);
    let defaults =
        Defaults { beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear", ..DEFAULTS };
    let training = Training::read(config, n, &defaults)?;
    if let Some(timesteps) = nearest_timesteps(setup, &training)? {
        return Ok((training, timesteps));
    }
    let original = config.usize("original_inference_steps", 50)?;
    if original == 0 || original > training.num_train_timesteps {
        return Err(SchedulerConfig::refuse("original_inference_steps", original));
    }
    if n > original {
        return Err(Error::invalid(format!(
            "`numInferenceSteps` is {n}; the LCM and TCD samplers of this checkpoint take 1 to {original}"
        )));
    }
    let k = training.num_train_timesteps / original;
    let timesteps: Vec<i64> =
        linspace_open(original as f64, n).map(|i| ((original - i.floor() as usize) * k) as i64 - 1).collect();
    training.check_range(&timesteps)?;
    Ok((training, timesteps))
}

/// Noise levels at these timesteps, and after them `end`.
fn levels(alphas: &[f32], timesteps: &[i64], end: f32) -> Levels {
    let sigmas = alphas.iter().map(|&a| sigma(a)).chain([end]).collect();
    Levels::preserving(timesteps.iter().map(|&t| t as f32).collect(), sigmas)
}

pub(super) fn lcm(setup: &Setup) -> Result<Sampler> {
    let (training, timesteps) = distilled(setup)?;
    let alphas: Vec<f32> = timesteps.iter().map(|&t| training.alpha(t, 1.0)).collect::<Result<_>>()?;
    let levels = levels(&alphas, &timesteps, 0.0);
    let rule = Lcm {
        prediction_type: training.prediction_type,
        bound: Bound::read(setup.config, Some(false))?,
        timestep_scaling: setup.config.f64("timestep_scaling", 10.0)? as f32,
        timesteps: levels.timesteps.clone(),
        alphas,
    };
    Ok(Sampler::stepwise(levels, rule))
}

impl Rule for Lcm {
    fn step(
        &mut self,
        model_output: &[f32],
        i: usize,
        sample: &mut [f32],
        noise: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Vec<f32>> {
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

struct Tcd {
    prediction_type: Prediction,
    /// Whether noise is added: `eta` is not 0.
    noisy: bool,
    /// `alphas_cumprod` at each timestep; where the prediction goes, lower by the share `eta`; and where the noise
    /// added there leads back up to, the next timestep.
    alphas: Vec<(f32, f32, f32)>,
}

/// `eta` is 0 unless given, as diffusers' pipelines have it.
pub(super) fn tcd(setup: &Setup) -> Result<Sampler> {
    let (training, timesteps) = distilled(setup)?;
    let eta = setup.knobs.eta;
    let after = timesteps.iter().skip(1).chain(&[0]);
    let alphas: Vec<(f32, f32, f32)> = timesteps
        .iter()
        .zip(after)
        .map(|(&t, &after)| {
            let below = ((1.0 - eta) * after as f32).floor() as i64;
            Ok((training.alpha(t, 1.0)?, training.alpha(below, 1.0)?, training.alpha(after, 1.0)?))
        })
        .collect::<Result<_>>()?;
    let starts: Vec<f32> = alphas.iter().map(|a| a.0).collect();
    let end = sigma(training.alpha(0, 1.0)?);
    let rule = Tcd { prediction_type: training.prediction_type, noisy: eta > 0.0, alphas };
    Ok(Sampler::stepwise(levels(&starts, &timesteps, end), rule))
}

impl Rule for Tcd {
    fn step(
        &mut self,
        output: &[f32],
        i: usize,
        sample: &mut [f32],
        noise: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Vec<f32>> {
        let (alpha, below, after) = self.alphas[i];
        let x0 = pred_original_sample(self.prediction_type, alpha, output, sample);
        let epsilon = pred_epsilon(self.prediction_type, alpha, output, sample);
        let (a, b) = (below.sqrt(), (1.0 - below).sqrt());
        for ((x, x0), e) in sample.iter_mut().zip(&x0).zip(&epsilon) {
            *x = a * x0 + b * e;
        }
        if self.noisy && i + 1 < self.alphas.len() {
            let mut z = vec![0.0; sample.len()];
            noise(&mut z);
            let (keep, up) = ((after / below).sqrt(), (1.0 - after / below).sqrt());
            sample.iter_mut().zip(&z).for_each(|(x, z)| *x = keep * *x + up * z);
        }
        Ok(x0)
    }
}
