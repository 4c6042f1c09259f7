//! DPM-Solver++ in several steps (Lu et al. 2022), of order 1 to 3: "DPM++ 2M", with fresh noise "DPM++ 2M SDE" and
//! "DPM++ 3M SDE".

use super::config::Prediction;
use super::levels::{Levels, Solver, preserving};
use super::numeric::{exp, ln, zip};
use super::schedule::{Bound, DEFAULTS, Defaults, Training};
use super::{Order, Rule, Sampler, SchedulerConfig};
use crate::error::Result;

/// What the solvers over log-SNR share: from the network's output to the picture.
pub(super) struct Model {
    prediction_type: Prediction,
    bound: Bound,
    /// Noise level before each step, and after the last.
    pub sigmas: Vec<f32>,
}

impl Model {
    /// Reads the configuration of a class: its training, noise levels and bounds.
    pub fn read(order: &Order, zero_snr: bool, solver: Solver) -> Result<(Self, Levels)> {
        let config = order.config;
        let defaults = Defaults { timestep_spacing: "linspace", zero_snr, ..DEFAULTS };
        let mut training = Training::read(config, order.steps, &defaults)?;
        training.keep_last_alpha_off_zero();
        if let Some(learned @ ("learned" | "learned_range")) = config.optional_str("variance_type", None)? {
            return Err(SchedulerConfig::refuse("variance_type", learned));
        }
        let levels = preserving(order, &training, solver)?;
        let bound = Bound::read(config, None)?;
        let (prediction_type, sigmas) = (training.prediction_type, levels.sigmas.clone());
        Ok((Self { prediction_type, bound, sigmas }, levels))
    }

    pub fn x0(&self, i: usize, output: &[f32], sample: &[f32]) -> Vec<f32> {
        let (alpha_s, sigma_s, _) = parts(self.sigmas[i]);
        let mut x0 = match self.prediction_type {
            Prediction::Epsilon => zip(output, sample, |m, x| (x - sigma_s * m) / alpha_s),
            Prediction::Sample => output.to_vec(),
            Prediction::Velocity => zip(output, sample, |m, x| alpha_s * x - sigma_s * m),
        };
        self.bound.apply(&mut x0);
        x0
    }
}

/// `alpha_t`, `sigma_t` of a noise level, and half their log-SNR.
pub(super) fn parts(sigma: f32) -> (f32, f32, f32) {
    let alpha_t = 1.0 / (sigma * sigma + 1.0).sqrt();
    let sigma_t = sigma * alpha_t;
    (alpha_t, sigma_t, ln(alpha_t) - ln(sigma_t))
}

/// A key with a number from 1 to 3.
pub(super) fn solver_order(config: &SchedulerConfig) -> Result<usize> {
    let order = config.usize("solver_order", 2)?;
    if (1..=3).contains(&order) { Ok(order) } else { Err(SchedulerConfig::refuse("solver_order", order)) }
}

/// `solver_type` is "heun", else "midpoint".
pub(super) fn is_heun(config: &SchedulerConfig) -> Result<bool> {
    match config.str("solver_type", "midpoint")? {
        "heun" => Ok(true),
        // The other classes' solver types mean this one's default, as in diffusers.
        "midpoint" | "logrho" | "bh1" | "bh2" => Ok(false),
        other => Err(SchedulerConfig::refuse("solver_type", other)),
    }
}

struct Dpmpp {
    model: Model,
    solver_order: usize,
    heun: bool,
    /// How much fresh noise there is: 0 none, 1 that of the diffusion's own equation.
    eta: f32,
    s_noise: f32,
    brownian: bool,
    lower_order_final: bool,
    /// The last step is of first order however many there are.
    euler_at_final: bool,
    /// Predicted pictures of the steps so far, the newest last; at most `solver_order`.
    x0s: Vec<Vec<f32>>,
}

/// As diffusers' `DPMSolverMultistepScheduler` with the checkpoint's configuration; over a schedule that diffusers has
/// not, as k-diffusion's `sample_dpmpp_2m`.
pub(super) fn dpmpp_2m(order: &Order) -> Result<Sampler> {
    let sde = match order.config.str("algorithm_type", "dpmsolver++")? {
        "dpmsolver++" | "deis" => false,
        "sde-dpmsolver++" => true,
        other => return Err(SchedulerConfig::refuse("algorithm_type", other)),
    };
    make(order, sde, false, solver_order(order.config)?, false)
}

/// The same with `algorithm_type` "sde-dpmsolver++"; k-diffusion's `sample_dpmpp_2m_sde`. Who asks for it by name has the
/// noise of k-diffusion and A1111, a Brownian motion's; diffusers draws it in order, as [`dpmpp_2m`] does.
pub(super) fn dpmpp_2m_sde(order: &Order) -> Result<Sampler> {
    make(order, true, true, solver_order(order.config)?, false)
}

/// k-diffusion's `sample_dpmpp_3m_sde`, over the noise levels of diffusers' class. (diffusers 0.42 has the last
/// term of its third order with the wrong sign.)
pub(super) fn dpmpp_3m_sde(order: &Order) -> Result<Sampler> {
    make(order, true, true, 3, true)
}

fn make(order: &Order, sde: bool, brownian: bool, solver_order: usize, third: bool) -> Result<Sampler> {
    let config = order.config;
    let (model, levels) = Model::read(order, true, Solver::Multistep { discard: third })?;
    // k-diffusion's samplers lower the order at the very end only.
    let as_k = third || !order.schedule.is_switch();
    let heun = third || !as_k && is_heun(config)?;
    let rule = Dpmpp {
        solver_order: if as_k && !third { 2 } else { solver_order },
        heun,
        eta: if sde { order.tuning.eta.unwrap_or(1.0) } else { 0.0 },
        s_noise: order.tuning.s_noise,
        brownian,
        lower_order_final: !as_k && config.bool("lower_order_final", true)?,
        // To end at no noise, a higher order would need the logarithm of zero.
        euler_at_final: !as_k && config.bool("euler_at_final", false)? || model.sigmas.last() == Some(&0.0),
        model,
        x0s: Vec::new(),
    };
    Ok(Sampler::stepwise(levels, rule))
}

impl Rule for Dpmpp {
    fn brownian(&self) -> bool {
        self.brownian
    }

    fn step(
        &mut self,
        model_output: &[f32],
        i: usize,
        sample: &mut [f32],
        noise: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Vec<f32>> {
        let sigmas = &self.model.sigmas;
        let steps = sigmas.len() - 1;
        let (_, sigma_s, lambda_s) = parts(sigmas[i]);
        let (alpha_t, sigma_t, lambda_t) = parts(sigmas[i + 1]);
        let x0 = self.model.x0(i, model_output, sample);
        if self.x0s.len() == self.solver_order {
            self.x0s.remove(0);
        }
        self.x0s.push(x0.clone());

        let few = self.lower_order_final && steps < 15;
        let order = match steps - i {
            1 if self.euler_at_final || few => 1,
            2 if few => self.x0s.len().min(2),
            _ => self.x0s.len(),
        };
        let h = lambda_t - lambda_s;
        // With noise, the time that has passed for the picture and for its noise.
        let eta_h = if self.eta > 0.0 { self.eta * h } else { 0.0 };
        let h_eta = h + eta_h;
        let em1 = exp(-h_eta) - 1.0;
        let (c, c0) = (sigma_t / sigma_s * exp(-eta_h), alpha_t * em1);
        // Half log-SNR gone through in the step `back` steps ago, against this one's.
        let ratio = |back: usize| {
            let lambda = |j: usize| parts(sigmas[j]).2;
            (lambda(i + 1 - back) - lambda(i - back)) / h
        };
        match (order, &self.x0s[..]) {
            (2, [.., m1, m0]) => {
                let r0 = ratio(1);
                let c1 = if self.heun { alpha_t * (em1 / h_eta + 1.0) } else { -(0.5 * c0) };
                for ((x, m0), m1) in sample.iter_mut().zip(m0).zip(m1) {
                    let d1 = 1.0 / r0 * (m0 - m1);
                    *x = c * *x - c0 * m0 + c1 * d1;
                }
            }
            (3, [m2, m1, m0]) => {
                let (r0, r1) = (ratio(1), ratio(2));
                let c1 = alpha_t * (em1 / h_eta + 1.0);
                let c2 = alpha_t * ((em1 + h_eta) / (h_eta * h_eta) - 0.5);
                for (((x, m0), m1), m2) in sample.iter_mut().zip(m0).zip(m1).zip(m2) {
                    let (d10, d11) = (1.0 / r0 * (m0 - m1), 1.0 / r1 * (m1 - m2));
                    let d1 = d10 + r0 / (r0 + r1) * (d10 - d11);
                    let d2 = 1.0 / (r0 + r1) * (d10 - d11);
                    *x = c * *x - c0 * m0 + c1 * d1 - c2 * d2;
                }
            }
            _ => {
                for (x, m0) in sample.iter_mut().zip(&x0) {
                    *x = c * *x - c0 * m0;
                }
            }
        }
        if self.eta > 0.0 {
            let mut z = vec![0.0; sample.len()];
            noise(&mut z);
            let up = sigma_t * (1.0 - exp(-2.0 * eta_h)).sqrt() * self.s_noise;
            sample.iter_mut().zip(&z).for_each(|(x, z)| *x += up * z);
        }
        Ok(x0)
    }
}
