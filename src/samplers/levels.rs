//! Noise levels of the steps: diffusers' for its classes, k-diffusion's, A1111's and ComfyUI's by name.

use super::config::{Prediction, Spacing};
use super::numeric::{
    arange_down, exp, interp, karras_sigmas, linspace, ln, sigma_to_t, torch_linspace, zip,
};
use super::schedule::{Bound, Training};
use super::{Order, SchedulerConfig};
use crate::error::{Error, Result};

/// How noise levels lie between the largest and the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    /// The checkpoint's own, as diffusers reads its configuration.
    Own,
    Karras,
    Exponential,
    Polyexponential,
    SgmUniform,
    Simple,
    Normal,
    DdimUniform,
    Beta,
    KlOptimal,
    AlignYourSteps,
}

/// The schedules that may follow a sampler's name, and what A1111 calls them.
pub(super) const SCHEDULES: &[(&str, &str, Schedule)] = &[
    ("karras", "Karras", Schedule::Karras),
    ("exponential", "Exponential", Schedule::Exponential),
    ("polyexponential", "Polyexponential", Schedule::Polyexponential),
    ("sgm_uniform", "SGM Uniform", Schedule::SgmUniform),
    ("simple", "Simple", Schedule::Simple),
    ("normal", "Normal", Schedule::Normal),
    ("ddim_uniform", "DDIM", Schedule::DdimUniform),
    ("beta", "Beta", Schedule::Beta),
    ("kl_optimal", "KL Optimal", Schedule::KlOptimal),
    ("align_your_steps", "Align Your Steps", Schedule::AlignYourSteps),
];

/// The noise levels of a sampler's steps, and in what scale its samples lie.
#[derive(Clone, Debug)]
pub struct Levels {
    /// What the network is told at each step.
    pub(super) timesteps: Vec<f32>,
    /// Before each step, and after the last: standard deviation against a picture of unit spread,
    /// `sqrt((1 - alphas_cumprod) / alphas_cumprod)`; infinite at zero terminal SNR.
    pub(super) sigmas: Vec<f32>,
    pub(super) init_noise_sigma: f32,
    /// Samples are picture + sigma * noise; else that, scaled to keep its spread.
    pub(super) exploding: bool,
    /// What the last sample is multiplied with.
    pub(super) end_scale: f32,
}

impl Levels {
    /// Levels of diffusers' schedulers whose samples keep their spread.
    pub(super) fn preserving(timesteps: Vec<f32>, sigmas: Vec<f32>) -> Self {
        Self { timesteps, sigmas, init_noise_sigma: 1.0, exploding: false, end_scale: 1.0 }
    }

    /// What the network is told at the start of each step; fractional for Euler and its kin. Never empty.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// Noise level before step `i`. NaN beyond the end.
    pub fn sigma(&self, i: usize) -> f32 {
        self.sigmas.get(i).copied().unwrap_or(f32::NAN)
    }

    /// The factor by which unit noise is multiplied to make the first sample.
    pub fn init_noise_sigma(&self) -> f32 {
        self.init_noise_sigma
    }

    /// A sample at `sigma` to what the network is given: of unit spread.
    pub fn scale_model_input(&self, sample: &mut [f32], sigma: f32) {
        if self.exploding {
            let spread = (sigma * sigma + 1.0).sqrt();
            sample.iter_mut().for_each(|x| *x /= spread);
        }
    }

    /// The noised sample at `sigma`, in place: what diffusers' `add_noise` makes of a picture's latents.
    pub fn add_noise(&self, sample: &mut [f32], noise: &[f32], sigma: f32) {
        let (alpha, share) = if self.exploding {
            (1.0, sigma)
        } else {
            // sqrt(alphas_cumprod), and sqrt(1 - alphas_cumprod); sigma is infinite at zero terminal SNR.
            let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
            (alpha, if sigma.is_finite() { sigma * alpha } else { 1.0 })
        };
        sample.iter_mut().zip(noise).for_each(|(x, n)| *x = alpha * *x + share * n);
    }

    /// The smallest level with noise, and the largest.
    pub(super) fn ends(&self) -> (f32, f32) {
        let noisy = self.sigmas.iter().copied().filter(|&s| s > 0.0);
        noisy.fold((f32::INFINITY, 0.0), |(min, max), s| (min.min(s), max.max(s)))
    }

    /// Those from step `begin` on.
    pub(super) fn from(&self, begin: usize) -> Self {
        let cut = |v: &[f32]| v[begin.min(v.len())..].to_vec();
        Self { timesteps: cut(&self.timesteps), sigmas: cut(&self.sigmas), ..*self }
    }
}

/// From the network's output to the picture behind the noise, for samplers over noise levels.
pub(super) struct Denoiser {
    prediction_type: Prediction,
    bound: Bound,
    log_sigmas: Vec<f32>,
}

impl Denoiser {
    pub fn new(training: &Training, bound: Bound) -> Self {
        let log_sigmas = training.sigmas().into_iter().map(ln).collect();
        Self { prediction_type: training.prediction_type, bound, log_sigmas }
    }

    pub fn timestep(&self, sigma: f32) -> f32 {
        sigma_to_t(sigma.into(), &self.log_sigmas) as f32
    }

    pub fn x0(&self, sigma: f32, output: &[f32], sample: &[f32]) -> Vec<f32> {
        let square = sigma * sigma + 1.0;
        let mut x0 = match self.prediction_type {
            Prediction::Epsilon => zip(output, sample, |m, x| x - sigma * m),
            Prediction::Sample => output.to_vec(),
            Prediction::Velocity => {
                let c = -sigma / square.sqrt();
                zip(output, sample, |m, x| m * c + x / square)
            }
        };
        self.bound.apply(&mut x0);
        x0
    }
}

/// What of a configuration a diffusers class over noise levels knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kin {
    Euler,
    /// `use_karras_sigmas`, `use_exponential_sigmas`, `use_beta_sigmas`.
    Flags,
    /// The same, and the timesteps of Karras' levels are rounded.
    RoundedFlags,
    /// None of them, or no class of diffusers at all.
    Plain,
}

impl Schedule {
    /// Whether diffusers' classes have a switch for it.
    pub fn is_switch(self) -> bool {
        matches!(self, Self::Own | Self::Karras | Self::Exponential | Self::Beta)
    }
}

/// The schedule asked for, or where none is the one that the configuration switches on.
fn flagged(order: &Order) -> Result<Schedule> {
    if order.schedule != Schedule::Own {
        return Ok(order.schedule);
    }
    for (key, schedule) in [
        ("use_karras_sigmas", Schedule::Karras),
        ("use_exponential_sigmas", Schedule::Exponential),
        ("use_beta_sigmas", Schedule::Beta),
    ] {
        if order.config.bool(key, false)? {
            return Ok(schedule);
        }
    }
    Ok(Schedule::Own)
}

/// Schedules that are a switch of diffusers' classes, between two levels.
fn between(schedule: Schedule, min: f64, max: f64, n: usize) -> Option<Vec<f64>> {
    match schedule {
        Schedule::Karras => Some(karras_sigmas(min, max, n)),
        // k-diffusion's polyexponential has rho 1 unless told otherwise, as A1111 has it.
        Schedule::Exponential | Schedule::Polyexponential => {
            Some(linspace(max.ln(), min.ln(), n).into_iter().map(f64::exp).collect())
        }
        Schedule::Beta => {
            Some(linspace(0.0, 1.0, n).into_iter().map(|x| min + beta_ppf(1.0 - x) * (max - min)).collect())
        }
        _ => None,
    }
}

/// Noise levels of Euler and its kin.
pub(super) fn exploding(order: &Order, training: &Training, kin: Kin, discard: bool) -> Result<Levels> {
    let config = order.config;
    let all = training.sigmas();
    let (Some(&smallest), Some(&largest)) = (all.first(), all.last()) else {
        return Err(SchedulerConfig::refuse("num_train_timesteps", 0));
    };
    let schedule = if kin == Kin::Plain { order.schedule } else { flagged(order)? };
    if !schedule.is_switch() || (kin == Kin::Plain && schedule != Schedule::Own) {
        let sigmas = named(schedule, &all, order, discard)?;
        let denoiser = Denoiser::new(training, Bound::Free);
        let timesteps = sigmas[..sigmas.len() - 1].iter().map(|&s| denoiser.timestep(s)).collect();
        let init_noise_sigma = sigmas[0];
        return Ok(Levels { timesteps, sigmas, init_noise_sigma, exploding: true, end_scale: 1.0 });
    }

    let n = order.steps;
    let mut timesteps = training.fractional_timesteps(n);
    let of_euler = |key, default| if kin == Kin::Euler { config.str(key, default) } else { Ok(default) };
    let mut sigmas: Vec<f64> = match of_euler("interpolation_type", "linear")? {
        "linear" => timesteps.iter().map(|&t| interp(f64::from(t), &all)).collect(),
        // One more than there are timesteps, so that the last step ends at the smallest, not at zero.
        "log_linear" => {
            torch_linspace(ln(largest), ln(smallest), n + 1).iter().map(|&l| exp(l).into()).collect()
        }
        other => return Err(SchedulerConfig::refuse("interpolation_type", other)),
    };
    let end = |key, sigma: Option<&f64>| {
        Ok::<_, Error>(config.optional_f64(key)?.or(sigma.copied()).unwrap_or(0.0))
    };
    let (min, max) = (end("sigma_min", sigmas.last())?, end("sigma_max", sigmas.first())?);
    if let Some(lie) = between(schedule, min, max, n) {
        sigmas = lie;
        let log_sigmas: Vec<f32> = all.iter().map(|&s| ln(s)).collect();
        let round = kin == Kin::RoundedFlags && schedule == Schedule::Karras;
        let t = sigmas.iter().map(|&s| sigma_to_t(s, &log_sigmas));
        timesteps = t.map(|t| if round { t.round_ties_even() } else { t } as f32).collect();
    }
    let mut sigmas: Vec<f32> = sigmas.iter().map(|&s| s as f32).collect();
    sigmas.push(if kin == Kin::Euler { final_sigma(config, smallest)? } else { 0.0 });
    match of_euler("timestep_type", "discrete")? {
        "continuous" if training.prediction_type == Prediction::Velocity => {
            timesteps = sigmas[..sigmas.len() - 1].iter().map(|&s| 0.25 * ln(s)).collect();
        }
        "discrete" | "continuous" => {}
        other => return Err(SchedulerConfig::refuse("timestep_type", other)),
    }
    let max = sigmas.iter().copied().fold(0.0, f32::max);
    let leading = training.timestep_spacing == Spacing::Leading;
    let init_noise_sigma = if leading { (max * max + 1.0).sqrt() } else { max };
    Ok(Levels { timesteps, sigmas, init_noise_sigma, exploding: true, end_scale: 1.0 })
}

/// Where the last step goes.
pub(super) fn final_sigma(config: &SchedulerConfig, smallest: f32) -> Result<f32> {
    match config.str("final_sigmas_type", "zero")? {
        "zero" => Ok(0.0),
        "sigma_min" => Ok(smallest),
        other => Err(SchedulerConfig::refuse("final_sigmas_type", other)),
    }
}

/// diffusers' solvers over log-SNR, which differ in details of their schedules.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Solver {
    /// DPM-Solver++; for some samplers A1111 leaves out the last level but one.
    Multistep {
        discard: bool,
    },
    /// Always spaced as `linspace`.
    Singlestep,
    UniPc,
    /// Never ends at no noise.
    Deis,
}

/// Noise levels of the solvers over log-SNR: DPM-Solver++, UniPC, DEIS.
pub(super) fn preserving(order: &Order, training: &Training, solver: Solver) -> Result<Levels> {
    let (config, n) = (order.config, order.steps);
    for key in ["use_lu_lambdas", "use_flow_sigmas", "use_dynamic_shifting"] {
        config.must_be_off(key)?;
    }
    let all = training.sigmas();
    let (Some(&smallest), Some(&largest)) = (all.first(), all.last()) else {
        return Err(SchedulerConfig::refuse("num_train_timesteps", 0));
    };
    let schedule = flagged(order)?;
    let end = |key, sigma: f32| Ok::<_, Error>(config.optional_f64(key)?.unwrap_or(sigma.into()));
    let (min, max) = (end("sigma_min", smallest)?, end("sigma_max", largest)?);
    let denoiser = Denoiser::new(training, Bound::Free);
    if !schedule.is_switch() {
        let mut sigmas = named(schedule, &all, order, solver == Solver::Multistep { discard: true })?;
        let timesteps: Vec<f32> = sigmas[..sigmas.len() - 1].iter().map(|&s| denoiser.timestep(s)).collect();
        if solver == Solver::Deis {
            let end = sigmas.len() - 1;
            sigmas[end] = sigmas[end].max(smallest);
        }
        let spread = |s: f32| (s * s + 1.0).sqrt();
        let init_noise_sigma = sigmas[0] / spread(sigmas[0]);
        let end_scale = sigmas.last().map_or(1.0, |&s| spread(s));
        return Ok(Levels { timesteps, sigmas, init_noise_sigma, exploding: false, end_scale });
    }
    let mut timesteps = solver_timesteps(config, training, n, solver)?;
    let mut sigmas: Vec<f32> = match between(schedule, min, max, n) {
        Some(sigmas) => {
            let cosine = config.str("beta_schedule", "linear")? == "squaredcos_cap_v2";
            let rounded =
                schedule == Schedule::Karras && !(cosine && matches!(solver, Solver::Multistep { .. }));
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
    let clips = matches!(solver, Solver::Multistep { .. } | Solver::Singlestep);
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

/// A named schedule's training timesteps, falling, for samplers that know no others: those nearest to its levels, each
/// once. `None` where the schedule is the checkpoint's own.
pub(super) fn nearest_timesteps(order: &Order, training: &Training) -> Result<Option<Vec<i64>>> {
    if order.schedule == Schedule::Own {
        return Ok(None);
    }
    let sigmas = named(order.schedule, &training.sigmas(), order, false)?;
    let denoiser = Denoiser::new(training, Bound::Free);
    // Halfway, where these schedules often lie, it is the lower one.
    let nearest = |&s: &f32| (denoiser.timestep(s) - 1e-3).round() as i64;
    let mut timesteps: Vec<i64> = sigmas[..sigmas.len() - 1].iter().map(nearest).collect();
    timesteps.dedup();
    Ok(Some(timesteps))
}

/// Sigmas of Align Your Steps for ten steps, SD 1.5 and SDXL (NVIDIA's page of Sabour et al. 2024).
const ALIGN_YOUR_STEPS: [[f64; 11]; 2] = [
    [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029],
    [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029],
];

/// Noise levels of a schedule by its name, and the one after the last step: k-diffusion's formulas for karras,
/// exponential and polyexponential, those of A1111's `sd_schedulers.py` for the others, over all of the training's
/// sigmas (which rise). `discard` leaves out the last but one, as A1111 does for some samplers.
fn named(schedule: Schedule, all: &[f32], order: &Order, discard: bool) -> Result<Vec<f32>> {
    let n = order.steps + usize::from(discard);
    let last = all.len() - 1;
    let (min, max) = (f64::from(all[0]), f64::from(all[last]));
    // k-diffusion's `t_to_sigma`.
    let at = |t: f64| {
        let (low, high) = (t.floor() as usize, (t.ceil() as usize).min(last));
        let log = |i: usize| f64::from(all[i]).ln();
        ((1.0 - t.fract()) * log(low) + t.fract() * log(high)).exp()
    };
    let mut sigmas: Vec<f64> = match schedule {
        Schedule::SgmUniform => linspace(last as f64, 0.0, n + 1)[..n].iter().map(|&t| at(t)).collect(),
        Schedule::Normal => linspace(last as f64, 0.0, n).iter().map(|&t| at(t)).collect(),
        Schedule::Simple => {
            let stride = all.len() as f64 / n as f64;
            (0..n).map(|i| all[last - (i as f64 * stride) as usize].into()).collect()
        }
        Schedule::DdimUniform => {
            let stride = (all.len() / n).max(1);
            let mut sigmas: Vec<f64> = (1..all.len()).step_by(stride).map(|i| all[i].into()).collect();
            sigmas.reverse();
            sigmas
        }
        Schedule::KlOptimal => {
            let (from, to) = (max.atan(), min.atan());
            let level = |i: usize| {
                let done = i as f64 / n as f64;
                (done * to + (1.0 - done) * from).tan()
            };
            (0..=n).map(level).collect()
        }
        Schedule::AlignYourSteps => {
            let table = &ALIGN_YOUR_STEPS[usize::from(order.tuning.sdxl)];
            let logs: Vec<f32> = table.iter().map(|s| s.ln() as f32).collect();
            linspace(0.0, 10.0, n).iter().map(|&x| interp(x, &logs).exp()).collect()
        }
        _ => between(schedule, min, max, n).unwrap_or_default(),
    };
    // KL optimal ends where its formula does, the others at no noise.
    if schedule != Schedule::KlOptimal {
        sigmas.push(0.0);
    }
    if discard && sigmas.len() > 2 {
        sigmas.remove(sigmas.len() - 2);
    }
    if sigmas.len() < 2 {
        return Err(Error::invalid("the schedule leaves no step; choose another, or more steps"));
    }
    Ok(sigmas.into_iter().map(|s| s as f32).collect())
}

/// Quantile of the beta distribution with both parameters 0.6, as "Beta Sampling is All You Need" (Lee et al. 2024)
/// and scipy's `beta.ppf` have it.
fn beta_ppf(p: f64) -> f64 {
    const A: f64 = 0.6;
    if p > 0.5 {
        return 1.0 - beta_ppf(1.0 - p);
    }
    // B(x; a, a) = x^a * sum of (1 - a)_k / k! * x^k / (a + k), which converges fast up to 1/2, half of B(a, a).
    let incomplete = |x: f64| {
        let (mut term, mut sum) = (1.0, 0.0);
        for k in 0..60 {
            let k = f64::from(k);
            sum += term / (A + k);
            term *= (k + 1.0 - A) / (k + 1.0) * x;
        }
        x.powf(A) * sum
    };
    let whole = 2.0 * incomplete(0.5);
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if incomplete(middle) < p * whole { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}
