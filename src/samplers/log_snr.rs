//! What the solvers over log-SNR share (DPM-Solver++, UniPC, DEIS): their noise levels, and how the network's output
//! becomes the picture.

use super::config::{Prediction, SchedulerConfig, Spacing};
use super::levels::{Denoiser, Levels, Penultimate, between, final_sigma, named, of_edm, switched};
use super::numeric::{arange_down, interp, linspace, ln, sigma_to_t, zip};
use super::schedule::{Bound, DEFAULTS, Defaults, Training};
use super::setup::{Schedule, Setup};
use crate::error::{Error, Result};

/// From the network's output to the picture: the "data prediction model" of the DPM-Solver++ paper.
pub(super) struct DataPredictionModel {
    prediction_type: Prediction,
    bound: Bound,
    /// Noise level before each step, and after the last.
    pub sigmas: Vec<f32>,
    /// Samples of EDM's levels keep the picture's share instead of their spread.
    edm: Option<Denoiser>,
}

impl DataPredictionModel {
    /// Reads the configuration of a class: its training, noise levels and bounds.
    pub fn read(setup: &Setup, zero_snr: bool, solver: Solver) -> Result<(Self, Levels)> {
        let config = setup.config;
        let defaults = Defaults { timestep_spacing: "linspace", zero_snr, ..DEFAULTS };
        let mut training = Training::read(config, setup.steps_of_training(), &defaults)?;
        training.keep_last_alpha_off_zero();
        if let Some(learned @ ("learned" | "learned_range")) = config.optional_str("variance_type", None)? {
            return Err(SchedulerConfig::refuse("variance_type", learned));
        }
        let levels = preserving(setup, &training, solver)?;
        let bound = Bound::read(config, None)?;
        let (prediction_type, sigmas) = (training.prediction_type, levels.sigmas.clone());
        if training.edm.is_some() {
            let edm = Some(Denoiser::new(&training, bound));
            return Ok((Self { prediction_type, bound: Bound::Free, sigmas, edm }, levels));
        }
        Ok((Self { prediction_type, bound, sigmas, edm: None }, levels))
    }

    pub fn x0(&self, i: usize, output: &[f32], sample: &[f32]) -> Vec<f32> {
        if let Some(denoiser) = &self.edm {
            return denoiser.x0(self.sigmas[i], output, sample);
        }
        let (alpha_s, sigma_s, _) = self.parts(i);
        let mut x0 = match self.prediction_type {
            Prediction::Epsilon => zip(output, sample, |m, x| (x - sigma_s * m) / alpha_s),
            Prediction::Sample => output.to_vec(),
            Prediction::Velocity => zip(output, sample, |m, x| alpha_s * x - sigma_s * m),
            Prediction::Preconditioned => zip(output, sample, |m, x| alpha_s * x + sigma_s * m),
        };
        self.bound.apply(&mut x0);
        x0
    }

    /// `alpha_t`, `sigma_t` of the noise level before step `i`, and half their log-SNR.
    pub fn parts(&self, i: usize) -> (f32, f32, f32) {
        let sigma = self.sigmas[i];
        if self.edm.is_some() {
            return (1.0, sigma, -ln(sigma));
        }
        let alpha_t = 1.0 / (sigma * sigma + 1.0).sqrt();
        let sigma_t = sigma * alpha_t;
        (alpha_t, sigma_t, ln(alpha_t) - ln(sigma_t))
    }
}

/// `solver_order`, from 1 to 3.
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

/// diffusers' solvers over log-SNR, which differ in details of their schedules.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Solver {
    /// DPM-Solver++
    Multistep(Penultimate),
    /// Always spaced as `linspace`.
    Singlestep,
    UniPc,
    /// Never ends at no noise.
    Deis,
}

/// Noise levels of the solvers over log-SNR: DPM-Solver++, UniPC, DEIS.
pub(super) fn preserving(setup: &Setup, training: &Training, solver: Solver) -> Result<Levels> {
    let (config, n) = (setup.config, setup.steps);
    for key in ["use_lu_lambdas", "use_flow_sigmas", "use_dynamic_shifting"] {
        config.must_be_off(key)?;
    }
    let all = training.sigmas();
    let (Some(&smallest), Some(&largest)) = (all.first(), all.last()) else {
        return Err(SchedulerConfig::refuse("num_train_timesteps", 0));
    };
    let penultimate = if let Solver::Multistep(p) = solver { p } else { Penultimate::Kept };
    if let Some(edm) = &training.edm {
        let mut levels = of_edm(edm, setup, &all, penultimate)?;
        if let (Solver::Deis, Some(end)) = (solver, levels.sigmas.last_mut()) {
            *end = end.max(smallest);
        }
        return Ok(levels);
    }
    let schedule = switched(setup)?;
    let end = |key, sigma: f32| Ok::<_, Error>(config.optional_f64(key)?.unwrap_or(sigma.into()));
    let (min, max) = (end("sigma_min", smallest)?, end("sigma_max", largest)?);
    let denoiser = Denoiser::new(training, Bound::Free);
    if !schedule.is_switch() {
        let mut sigmas = named(schedule, &all, setup, penultimate)?;
        let timesteps: Vec<f32> = sigmas[..sigmas.len() - 1].iter().map(|&s| denoiser.timestep(s)).collect();
        if solver == Solver::Deis {
            let end = sigmas.len() - 1;
            sigmas[end] = sigmas[end].max(smallest);
        }
        let spread = |s: f32| (s * s + 1.0).sqrt();
        let init_noise_sigma = sigmas[0] / spread(sigmas[0]);
        let end_scale = sigmas.last().map_or(1.0, |&s| spread(s));
        return Ok(Levels { init_noise_sigma, end_scale, ..Levels::preserving(timesteps, sigmas) });
    }
    if n > training.num_train_timesteps && schedule == Schedule::Own {
        // Finer than the training: between its timesteps.
        let fine: Vec<f64> = linspace(0.0, (all.len() - 1) as f64, n + 1).into_iter().skip(1).rev().collect();
        let mut sigmas: Vec<f32> = fine.iter().map(|&t| interp(t, &all) as f32).collect();
        sigmas.push(if solver == Solver::Deis { smallest } else { final_sigma(config, smallest)? });
        return Ok(Levels::preserving(fine.iter().map(|&t| t as f32).collect(), sigmas));
    }
    let mut timesteps = solver_timesteps(config, training, n.min(training.num_train_timesteps), solver)?;
    let mut sigmas: Vec<f32> = match between(schedule, min, max, n) {
        Some(sigmas) => {
            let cosine = config.str("beta_schedule", "linear")? == "squaredcos_cap_v2";
            let rounded = schedule == Schedule::Karras && !(cosine && matches!(solver, Solver::Multistep(_)));
            let t = sigmas.iter().map(|&s| sigma_to_t(s, &denoiser.log_sigmas));
            // Their ends are levels of the training, whatever the last bit of a logarithm says; Karras' powers end a
            // little below, in diffusers too.
            let nudge = if schedule == Schedule::Karras { 0.0 } else { 1e-4 };
            let whole = |t: f64| if rounded { t.round_ties_even() } else { (t + nudge).trunc() } as i64;
            timesteps = t.map(whole).collect();
            sigmas.into_iter().map(|s| s as f32).collect()
        }
        None => timesteps.iter().map(|&t| interp(t as f64, &all) as f32).collect(),
    };
    // Where these end above no noise, it is at their own schedule's last level.
    let smallest = match (solver, sigmas.last()) {
        (Solver::UniPc | Solver::Deis, Some(&last)) if schedule != Schedule::Own => last,
        _ => smallest,
    };
    sigmas.push(if solver == Solver::Deis { smallest } else { final_sigma(config, smallest)? });
    Ok(Levels::preserving(timesteps.iter().map(|&t| t as f32).collect(), sigmas))
}

fn solver_timesteps(
    config: &SchedulerConfig,
    training: &Training,
    n: usize,
    solver: Solver,
) -> Result<Vec<i64>> {
    // Timesteps whose half log-SNR is below the bound are left out.
    let no_bound = f64::NEG_INFINITY;
    let clips = matches!(solver, Solver::Multistep(_) | Solver::Singlestep);
    let bound = if clips { config.f64("lambda_min_clipped", no_bound)? } else { no_bound };
    let lambda = |&a: &f32| ln(a.sqrt()) - ln((1.0 - a).sqrt());
    let last = training.alphas_cumprod.iter().filter(|a| lambda(a) >= bound as f32).count();
    let round = |t: &f64| t.round_ties_even() as i64;
    let spacing = if solver == Solver::Singlestep { Spacing::Linspace } else { training.timestep_spacing };
    let timesteps: Vec<i64> = match spacing {
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
