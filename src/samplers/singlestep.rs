//! DPM-Solver++ in single steps ("DPM++ 2S"), as diffusers' `DPMSolverSinglestepScheduler`: steps go in cycles of
//! orders 1 and 2 (and 3), and each starts again from its cycle's first sample.

use super::config::SchedulerConfig;
use super::log_snr::{DataPredictionModel, Solver, is_heun, solver_order};
use super::numeric::exp;
use super::sampler::Sampler;
use super::setup::Setup;
use super::steps::Rule;
use crate::error::Result;

struct Singlestep {
    model: DataPredictionModel,
    heun: bool,
    /// Of each step.
    orders: Vec<usize>,
    /// Where the cycle under way started.
    start: Vec<f32>,
    /// Predicted pictures of the steps so far, the newest last.
    x0s: Vec<Vec<f32>>,
}

pub(super) fn make(setup: &Setup) -> Result<Sampler> {
    let config = setup.config;
    match config.str("algorithm_type", "dpmsolver++")? {
        "dpmsolver++" | "deis" => {}
        other => return Err(SchedulerConfig::refuse("algorithm_type", other)),
    }
    let (model, levels) = DataPredictionModel::read(setup, false, Solver::Singlestep)?;
    let (steps, cycle) = (levels.timesteps.len(), solver_order(config)?);
    let ends_clean = model.sigmas.last() == Some(&0.0);
    // diffusers switches `lower_order_final` on where the steps are no whole cycles or end at no noise.
    let lower_order_final =
        config.bool("lower_order_final", true)? || ends_clean || !steps.is_multiple_of(cycle);
    let mut orders: Vec<usize> = (0..steps).map(|i| i % cycle + 1).collect();
    if lower_order_final && cycle > 1 && steps.is_multiple_of(cycle) {
        // The last cycle has one order less, and a first-order step after it.
        orders[steps - 1] = 1;
    }
    if ends_clean {
        orders[steps - 1] = 1;
    }
    let rule = Singlestep { model, heun: is_heun(config)?, orders, start: Vec::new(), x0s: Vec::new() };
    Ok(Sampler::stepwise(levels, rule))
}

impl Rule for Singlestep {
    fn step(
        &mut self,
        model_output: &[f32],
        i: usize,
        sample: &mut [f32],
        _: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Vec<f32>> {
        let x0 = self.model.x0(i, model_output, sample);
        if self.x0s.len() == 3 {
            self.x0s.remove(0);
        }
        self.x0s.push(x0.clone());
        let order = self.orders[i].min(self.x0s.len());
        if order == 1 {
            self.start = sample.to_vec();
        }
        let (_, sigma_s, lambda_s) = self.model.parts(i + 1 - order);
        let (alpha_t, sigma_t, lambda_t) = self.model.parts(i + 1);
        let h = lambda_t - lambda_s;
        let em1 = exp(-h) - 1.0;
        let (c, c0) = (sigma_t / sigma_s, alpha_t * em1);
        let c1 = alpha_t * (em1 / h + 1.0);
        // How far into the cycle's half log-SNR earlier steps were.
        let ratio = |j: usize| (self.model.parts(j).2 - lambda_s) / h;
        match (order, &self.x0s[..]) {
            (2, [.., m1, m0]) => {
                let (r0, c1) = (ratio(i), if self.heun { c1 } else { -(0.5 * c0) });
                for (((x, start), m1), m0) in sample.iter_mut().zip(&self.start).zip(m1).zip(m0) {
                    *x = c * start - c0 * m1 + c1 * (1.0 / r0 * (m0 - m1));
                }
            }
            (3, [m2, m1, m0]) => {
                let (r0, r1) = (ratio(i), ratio(i - 1));
                let c2 = alpha_t * ((em1 + h) / (h * h) - 0.5);
                let rows = sample.iter_mut().zip(&self.start).zip(m2).zip(m1).zip(m0);
                for ((((x, start), m2), m1), m0) in rows {
                    let (d10, d11) = (1.0 / r1 * (m1 - m2), 1.0 / r0 * (m0 - m2));
                    *x = c * start - c0 * m2;
                    if self.heun {
                        let (d1, d2) = ((r0 * d10 - r1 * d11) / (r0 - r1), 2.0 * (d11 - d10) / (r0 - r1));
                        *x += c1 * d1 - c2 * d2;
                    } else {
                        *x += c1 * d11;
                    }
                }
            }
            _ => {
                for (x, m0) in sample.iter_mut().zip(&x0) {
                    *x = c * *x - c0 * m0;
                }
            }
        }
        Ok(x0)
    }
}
