//! DDIM (Song et al. 2020), as diffusers' `DDIMScheduler`; and with CFG++ (Chung et al. 2024), where the noise that is
//! put back is that of the prediction without guidance.

use super::config::Prediction;
use super::levels::{Levels, nearest_timesteps};
use super::numeric::sigma;
use super::sampler::Sampler;
use super::schedule::{Bound, DEFAULTS, Training, pred_epsilon, pred_original_sample};
use super::setup::Setup;
use super::steps::Rule;
use crate::error::Result;

struct Ddim {
    prediction_type: Prediction,
    bound: Bound,
    cfg_plus_plus: bool,
    /// 0 is deterministic, 1 adds as much noise as DDPM.
    eta: f32,
    /// `alphas_cumprod` at each timestep, and where its step goes: `num_train_timesteps / n` further
    /// down, which need not be the next timestep.
    alphas: Vec<(f32, f32)>,
}

pub(super) fn ddim(setup: &Setup) -> Result<Sampler> {
    make(setup, false)
}

/// As A1111's "DDIM CFG++" over diffusers' timesteps: the guidance scale is divided by 12.5.
pub(super) fn ddim_cfgpp(setup: &Setup) -> Result<Sampler> {
    make(setup, true)
}

fn make(setup: &Setup, cfg_plus_plus: bool) -> Result<Sampler> {
    let (config, n) = (setup.config, setup.steps);
    let training = Training::read(config, n, &DEFAULTS)?;
    let final_alpha = training.final_alpha(config.bool("set_alpha_to_one", true)?);
    let named = nearest_timesteps(setup, &training)?;
    let stride = (training.num_train_timesteps / n) as i64;
    let (timesteps, after): (Vec<i64>, Vec<i64>) = match named {
        Some(timesteps) => {
            let after = timesteps[1..].iter().copied().chain([-1]).collect();
            (timesteps, after)
        }
        None => {
            let timesteps = training.timesteps(n);
            let after = timesteps.iter().map(|t| t - stride).collect();
            (timesteps, after)
        }
    };
    training.check_range(&timesteps)?;
    let alphas = timesteps
        .iter()
        .zip(after)
        .map(|(&t, after)| Ok((training.alpha(t, final_alpha)?, training.alpha(after, final_alpha)?)))
        .collect::<Result<Vec<_>>>()?;
    let end = alphas.last().map(|a| a.1);
    let sigmas = alphas.iter().map(|a| a.0).chain(end).map(sigma).collect();
    let levels = Levels::preserving(timesteps.iter().map(|&t| t as f32).collect(), sigmas);
    let rule = Ddim {
        prediction_type: training.prediction_type,
        bound: Bound::read(config, Some(true))?,
        cfg_plus_plus,
        eta: setup.knobs.eta,
        alphas,
    };
    Ok(Sampler::stepwise(levels, rule))
}

impl Rule for Ddim {
    fn cfg_plus_plus(&self) -> bool {
        self.cfg_plus_plus
    }

    fn step(
        &mut self,
        output: &[f32],
        i: usize,
        sample: &mut [f32],
        noise: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Vec<f32>> {
        let (alpha, alpha_prev) = self.alphas[i];
        let (guided, unguided) = output.split_at(sample.len());
        let renoise = if self.cfg_plus_plus { unguided } else { guided };
        let mut x0 = pred_original_sample(self.prediction_type, alpha, guided, sample);
        let epsilon = pred_epsilon(self.prediction_type, alpha, renoise, sample);
        self.bound.apply(&mut x0);
        let variance = (1.0 - alpha_prev) / (1.0 - alpha) * (1.0 - alpha / alpha_prev);
        let deviation = if self.eta > 0.0 { self.eta * variance.sqrt() } else { 0.0 };
        let (a_prev, b_prev) = (alpha_prev.sqrt(), (1.0 - alpha_prev - deviation * deviation).sqrt());
        for ((x, x0), e) in sample.iter_mut().zip(&x0).zip(&epsilon) {
            *x = a_prev * x0 + b_prev * e;
        }
        if self.eta > 0.0 {
            let mut z = vec![0.0; sample.len()];
            noise(&mut z);
            sample.iter_mut().zip(&z).for_each(|(x, z)| *x += deviation * z);
        }
        Ok(x0)
    }
}
