//! DPM-Solver++ in several steps (Lu et al. 2022), of order 1 to 3: "DPM++ 2M", with fresh noise "DPM++ 2M SDE" and
//! "DPM++ 3M SDE".

use super::config::SchedulerConfig;
use super::levels::Penultimate;
use super::log_snr::{DataPredictionModel, Solver, is_heun, solver_order};
use super::numeric::exp;
use super::sampler::Sampler;
use super::setup::{Knobs, Setup};
use super::steps::Rule;
use crate::error::Result;

struct Dpmpp {
    model: DataPredictionModel,
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

/// What sets the samplers of this file apart.
struct Variant {
    eta: f32,
    s_noise: f32,
    /// Noise comes from a Brownian motion, as in k-diffusion and A1111; else in order, as in diffusers.
    brownian: bool,
    /// k-diffusion's 3M, whatever solver the configuration names.
    third_order: bool,
}

/// As diffusers' `DPMSolverMultistepScheduler` with the checkpoint's configuration; over a schedule that diffusers has
/// not, as k-diffusion's `sample_dpmpp_2m`. The configuration may make an SDE solver of it, with the knobs of one.
pub(super) fn dpmpp_2m(setup: &Setup) -> Result<Sampler> {
    let ode = Variant { eta: 0.0, s_noise: 1.0, brownian: false, third_order: false };
    match setup.config.str("algorithm_type", "dpmsolver++")? {
        "dpmsolver++" | "deis" => make(setup, ode),
        "sde-dpmsolver++" => {
            let asked = setup.asked;
            make(setup, Variant { eta: asked.eta.unwrap_or(1.0), s_noise: asked.s_noise, ..ode })
        }
        other => Err(SchedulerConfig::refuse("algorithm_type", other)),
    }
}

/// The same with `algorithm_type` "sde-dpmsolver++"; k-diffusion's `sample_dpmpp_2m_sde`.
pub(super) fn dpmpp_2m_sde(setup: &Setup) -> Result<Sampler> {
    let Knobs { eta, s_noise, .. } = setup.knobs;
    make(setup, Variant { eta, s_noise, brownian: true, third_order: false })
}

/// k-diffusion's `sample_dpmpp_3m_sde`, over the noise levels of diffusers' class. (diffusers 0.42 has the last
/// term of its third order with the wrong sign.)
pub(super) fn dpmpp_3m_sde(setup: &Setup) -> Result<Sampler> {
    let Knobs { eta, s_noise, .. } = setup.knobs;
    make(setup, Variant { eta, s_noise, brownian: true, third_order: true })
}

fn make(setup: &Setup, variant: Variant) -> Result<Sampler> {
    let Variant { eta, s_noise, brownian, third_order } = variant;
    let config = setup.config;
    let configured_order = if third_order { 3 } else { solver_order(config)? };
    let penultimate = if third_order { Penultimate::Discarded } else { Penultimate::Kept };
    let (model, levels) = DataPredictionModel::read(setup, true, Solver::Multistep(penultimate))?;
    // k-diffusion's samplers lower the order at the very end only.
    let as_k_diffusion = third_order || !setup.schedule.is_switch();
    let rule = Dpmpp {
        solver_order: if as_k_diffusion && !third_order { 2 } else { configured_order },
        heun: third_order || !as_k_diffusion && is_heun(config)?,
        eta,
        s_noise,
        brownian,
        lower_order_final: !as_k_diffusion && config.bool("lower_order_final", true)?,
        // To end at no noise, a higher order would need the logarithm of zero.
        euler_at_final: !as_k_diffusion && config.bool("euler_at_final", false)?
            || model.sigmas.last() == Some(&0.0),
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
        let (_, sigma_s, lambda_s) = self.model.parts(i);
        let (alpha_t, sigma_t, lambda_t) = self.model.parts(i + 1);
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
            let lambda = |j: usize| self.model.parts(j).2;
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
