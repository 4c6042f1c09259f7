//! DPM-Solver++ in several steps (Lu et al. 2022), of order 1 to 3; order 2 is "DPM++ 2M".

use super::config::{Prediction, Spacing};
use super::euler::final_sigma;
use super::schedule::{
    Bound, DEFAULTS, Defaults, Training, arange_down, check_step, exp, interp, karras_sigmas, linspace, ln,
    sigma_to_t, zip,
};
use super::{Noise, Scheduler, SchedulerConfig};
use crate::error::{Error, Result};

struct Dpmpp {
    prediction_type: Prediction,
    bound: Bound,
    solver_order: usize,
    /// `solver_type` is "heun" (else "midpoint").
    heun: bool,
    lower_order_final: bool,
    /// The last step is of first order however many there are.
    euler_at_final: bool,
    timesteps: Vec<f32>,
    /// Noise level before each step, and after the last.
    sigmas: Vec<f32>,
    /// Predicted pictures of the steps so far, the newest last; at most `solver_order`.
    x0s: Vec<Vec<f32>>,
}

pub(super) fn make(config: &SchedulerConfig, n: usize) -> Result<Box<dyn Scheduler>> {
    let mut training = Training::read(config, n, &Defaults { timestep_spacing: "linspace", ..DEFAULTS })?;
    training.keep_last_alpha_off_zero();
    for key in [
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "use_lu_lambdas",
        "use_flow_sigmas",
        "use_dynamic_shifting",
    ] {
        config.must_be_off(key)?;
    }
    match config.str("algorithm_type", "dpmsolver++")? {
        "dpmsolver++" | "deis" => {}
        other => return Err(SchedulerConfig::refuse("algorithm_type", other)),
    }
    let heun = match config.str("solver_type", "midpoint")? {
        "heun" => true,
        // The other classes' solver types mean this one's default, as in diffusers.
        "midpoint" | "logrho" | "bh1" | "bh2" => false,
        other => return Err(SchedulerConfig::refuse("solver_type", other)),
    };
    if let Some(learned @ ("learned" | "learned_range")) = config.optional_str("variance_type", None)? {
        return Err(SchedulerConfig::refuse("variance_type", learned));
    }
    let solver_order = config.usize("solver_order", 2)?;
    if !(1..=3).contains(&solver_order) {
        return Err(SchedulerConfig::refuse("solver_order", solver_order));
    }

    let all = training.sigmas();
    let Some(&smallest) = all.first() else {
        return Err(SchedulerConfig::refuse("num_train_timesteps", 0));
    };
    let mut timesteps = timesteps(config, &training, n)?;
    let sigmas: Vec<f64> = if config.bool("use_karras_sigmas", false)? {
        let end = |key, sigma: Option<&f32>| {
            Ok(config.optional_f64(key)?.or(sigma.map(|&s| s.into())).unwrap_or(0.0))
        };
        let sigmas = karras_sigmas(end("sigma_min", all.first())?, end("sigma_max", all.last())?, n);
        let log_sigmas: Vec<f32> = all.iter().map(|&s| ln(s)).collect();
        let rounded = config.str("beta_schedule", DEFAULTS.beta_schedule)? != "squaredcos_cap_v2";
        let t = sigmas.iter().map(|&s| sigma_to_t(s, &log_sigmas));
        timesteps = t.map(|t| if rounded { t.round_ties_even() } else { t.trunc() } as i64).collect();
        sigmas
    } else {
        timesteps.iter().map(|&t| interp(t as f64, &all)).collect()
    };
    let mut sigmas: Vec<f32> = sigmas.iter().map(|&s| s as f32).collect();
    let last = final_sigma(config, smallest)?;
    sigmas.push(last);
    Ok(Box::new(Dpmpp {
        prediction_type: training.prediction_type,
        bound: Bound::read(config, None)?,
        solver_order,
        heun,
        lower_order_final: config.bool("lower_order_final", true)?,
        // To end at no noise, a higher order would need the logarithm of zero.
        euler_at_final: config.bool("euler_at_final", false)? || last == 0.0,
        timesteps: timesteps.iter().map(|&t| t as f32).collect(),
        sigmas,
        x0s: Vec::new(),
    }))
}

fn timesteps(config: &SchedulerConfig, training: &Training, n: usize) -> Result<Vec<i64>> {
    // Timesteps whose half log-SNR is below the bound are left out.
    let bound = config.f64("lambda_min_clipped", f64::NEG_INFINITY)? as f32;
    let lambda = |&a: &f32| ln(a.sqrt()) - ln((1.0 - a).sqrt());
    let last = training.alphas_cumprod.iter().filter(|a| lambda(a) >= bound).count();
    let round = |t: &f64| t.round_ties_even() as i64;
    let timesteps: Vec<i64> = match training.timestep_spacing {
        _ if last == 0 => return Err(SchedulerConfig::refuse("lambda_min_clipped", bound)),
        Spacing::Linspace => linspace(0.0, (last - 1) as f64, n + 1)[1..].iter().rev().map(round).collect(),
        Spacing::Leading => {
            (1..=n).rev().map(|i| (i * (last / (n + 1)) + training.steps_offset) as i64).collect()
        }
        Spacing::Trailing => {
            let step = training.num_train_timesteps as f64 / n as f64;
            arange_down(last, step).iter().map(|t| round(t) - 1).collect()
        }
    };
    if timesteps.is_empty() {
        return Err(Error::invalid("the checkpoint's schedule leaves no timestep; choose more steps"));
    }
    Ok(timesteps)
}

/// `alpha_t`, `sigma_t` of a noise level, and half their log-SNR.
fn parts(sigma: f32) -> (f32, f32, f32) {
    let alpha_t = 1.0 / (sigma * sigma + 1.0).sqrt();
    let sigma_t = sigma * alpha_t;
    (alpha_t, sigma_t, ln(alpha_t) - ln(sigma_t))
}

impl Scheduler for Dpmpp {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn sigma(&self, i: usize) -> f32 {
        self.sigmas.get(i).copied().unwrap_or(f32::NAN)
    }

    fn step(&mut self, model_output: &[f32], i: usize, sample: &mut [f32], _: Noise) -> Result<Vec<f32>> {
        let steps = self.timesteps.len();
        check_step(i, steps, model_output, sample)?;
        let (alpha_s, sigma_s, lambda_s) = parts(self.sigmas[i]);
        let (alpha_t, sigma_t, lambda_t) = parts(self.sigmas[i + 1]);

        let mut x0 = match self.prediction_type {
            Prediction::Epsilon => zip(model_output, sample, |m, x| (x - sigma_s * m) / alpha_s),
            Prediction::Sample => model_output.to_vec(),
            Prediction::Velocity => zip(model_output, sample, |m, x| alpha_s * x - sigma_s * m),
        };
        self.bound.apply(&mut x0);
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
        let em1 = exp(-h) - 1.0;
        let (c, c0) = (sigma_t / sigma_s, alpha_t * em1);
        // Half log-SNR gone through in the step `back` steps ago, against this one's.
        let ratio = |back: usize| {
            let lambda = |j: usize| parts(self.sigmas[j]).2;
            (lambda(i + 1 - back) - lambda(i - back)) / h
        };
        match (order, &self.x0s[..]) {
            (2, [.., m1, m0]) => {
                let r0 = ratio(1);
                let c1 = if self.heun { alpha_t * (em1 / h + 1.0) } else { -(0.5 * c0) };
                for ((x, m0), m1) in sample.iter_mut().zip(m0).zip(m1) {
                    let d1 = 1.0 / r0 * (m0 - m1);
                    *x = c * *x - c0 * m0 + c1 * d1;
                }
            }
            (3, [m2, m1, m0]) => {
                let (r0, r1) = (ratio(1), ratio(2));
                let c1 = alpha_t * (em1 / h + 1.0);
                let c2 = alpha_t * ((em1 + h) / (h * h) - 0.5);
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
        Ok(x0)
    }
}
