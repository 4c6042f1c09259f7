//! DEIS (Zhang and Chen 2022) over the logarithm of the noise level, as diffusers' `DEISMultistepScheduler`: the noise
//! predictions of the last steps, extrapolated. It never ends at no noise, but at the training's smallest level.

use super::config::SchedulerConfig;
use super::log_snr::{DataPredictionModel, Solver, solver_order};
use super::numeric::zip;
use super::sampler::Sampler;
use super::setup::Setup;
use super::steps::Rule;
use crate::error::Result;

struct Deis {
    model: DataPredictionModel,
    solver_order: usize,
    lower_order_final: bool,
    /// Predicted noise of the steps so far, the newest first.
    noises: Vec<Vec<f32>>,
}

pub(super) fn make(setup: &Setup) -> Result<Sampler> {
    let config = setup.config;
    match config.str("algorithm_type", "deis")? {
        "deis" | "dpmsolver" | "dpmsolver++" => {}
        other => return Err(SchedulerConfig::refuse("algorithm_type", other)),
    }
    match config.str("solver_type", "logrho")? {
        "logrho" | "midpoint" | "heun" | "bh1" | "bh2" => {}
        other => return Err(SchedulerConfig::refuse("solver_type", other)),
    }
    let (model, levels) = DataPredictionModel::read(setup, false, Solver::Deis)?;
    let rule = Deis {
        model,
        solver_order: solver_order(config)?,
        lower_order_final: config.bool("lower_order_final", true)?,
        noises: Vec::new(),
    };
    Ok(Sampler::stepwise(levels, rule))
}

/// The integral over rho, from `rhos[0]` to `to`, of the Lagrange polynomial in log rho that is 1 at `rhos[j]` and 0 at
/// the others.
fn coefficient(rhos: &[f64], j: usize, to: f64) -> f64 {
    let others: Vec<f64> =
        rhos.iter().enumerate().filter(|&(m, _)| m != j).map(|(_, rho)| rho.ln()).collect();
    let (sum, product) = (others.iter().sum::<f64>(), others.iter().product::<f64>());
    let integral = |t: f64| {
        let l = t.ln();
        match others.len() {
            0 => t,
            1 => t * (l - 1.0 - sum),
            _ => t * (l * l - 2.0 * l + 2.0 - sum * (l - 1.0) + product),
        }
    };
    let scale: f64 = others.iter().map(|other| rhos[j].ln() - other).product();
    (integral(to) - integral(rhos[0])) / scale
}

impl Rule for Deis {
    fn step(
        &mut self,
        model_output: &[f32],
        i: usize,
        sample: &mut [f32],
        _: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Vec<f32>> {
        let sigmas = &self.model.sigmas;
        let steps = sigmas.len() - 1;
        let x0 = self.model.x0(i, model_output, sample);
        let (alpha_s, sigma_s, _) = self.model.parts(i);
        let (alpha_t, _, _) = self.model.parts(i + 1);
        self.noises.insert(0, zip(sample, &x0, |x, x0| (x - alpha_s * x0) / sigma_s));
        self.noises.truncate(self.solver_order);
        let few = self.lower_order_final && steps < 15;
        let order = if few { self.noises.len().min(steps - i) } else { self.noises.len() };
        let rhos: Vec<f64> = (0..order).map(|back| sigmas[i - back].into()).collect();
        let weights: Vec<f64> = (0..order).map(|j| coefficient(&rhos, j, sigmas[i + 1].into())).collect();
        for (k, x) in sample.iter_mut().enumerate() {
            let change: f64 = self.noises.iter().zip(&weights).map(|(e, w)| w * f64::from(e[k])).sum();
            *x = alpha_t * (*x / alpha_s + change as f32);
        }
        Ok(x0)
    }
}
