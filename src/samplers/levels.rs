//! Noise levels of the steps: diffusers' for its classes, k-diffusion's, A1111's and ComfyUI's by name.

use super::config::{Prediction, SchedulerConfig, Spacing};
use super::edm::Edm;
use super::numeric::{exp, interp, karras_sigmas, linspace, ln, sigma_to_t, torch_linspace, zip};
use super::schedule::{Bound, Training};
use super::setup::{Schedule, Setup};
use crate::error::{Error, Result};

/// The noise levels of a sampler's steps, and the scale of its samples.
#[derive(Clone, Debug)]
pub struct Levels {
    /// The timestep that the network gets at each step.
    pub(super) timesteps: Vec<f32>,
    /// Before each step, and after the last: standard deviation against a picture of unit spread,
    /// `sqrt((1 - alphas_cumprod) / alphas_cumprod)`; infinite at zero terminal SNR.
    pub(super) sigmas: Vec<f32>,
    pub(super) init_noise_sigma: f32,
    /// Samples are picture + sigma * noise; else that, scaled to keep its spread.
    pub(super) exploding: bool,
    /// The network's input has unit spread where the picture's is this: EDM's; else 1.
    pub(super) sigma_data: f32,
    /// What the last sample is multiplied with.
    pub(super) end_scale: f32,
}

impl Levels {
    /// Levels of diffusers' schedulers whose samples keep their spread.
    pub(super) fn preserving(timesteps: Vec<f32>, sigmas: Vec<f32>) -> Self {
        Self { timesteps, sigmas, init_noise_sigma: 1.0, exploding: false, sigma_data: 1.0, end_scale: 1.0 }
    }

    /// Levels of diffusers' schedulers whose samples are picture + sigma * noise.
    fn exploding(timesteps: Vec<f32>, sigmas: Vec<f32>, init_noise_sigma: f32) -> Self {
        Self { init_noise_sigma, exploding: true, ..Self::preserving(timesteps, sigmas) }
    }

    /// The timestep that the network gets at the start of each step; fractional for samplers over noise levels. Never
    /// empty.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// Noise levels before each step and after the last.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
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
            let spread = (sigma * sigma + self.sigma_data * self.sigma_data).sqrt();
            sample.iter_mut().for_each(|x| *x /= spread);
        }
    }

    /// A sample at `sigma` to what shows it: of the picture's spread, and without noise the picture itself.
    pub fn scale_to_show(&self, sample: &mut [f32], sigma: f32) {
        self.scale_model_input(sample, sigma);
        if self.sigma_data != 1.0 {
            sample.iter_mut().for_each(|x| *x *= self.sigma_data);
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
    pub(super) log_sigmas: Vec<f32>,
    edm: bool,
    /// See [`Levels`].
    sigma_data: f32,
}

impl Denoiser {
    pub fn new(training: &Training, bound: Bound) -> Self {
        let log_sigmas = training.sigmas().into_iter().map(ln).collect();
        let sigma_data = training.edm.as_ref().map_or(1.0, |edm| edm.sigma_data);
        let edm = training.edm.is_some();
        Self { prediction_type: training.prediction_type, bound, log_sigmas, edm, sigma_data }
    }

    pub fn timestep(&self, sigma: f32) -> f32 {
        if self.edm {
            return Edm::timestep(sigma);
        }
        sigma_to_t(sigma.into(), &self.log_sigmas) as f32
    }

    pub fn x0(&self, sigma: f32, output: &[f32], sample: &[f32]) -> Vec<f32> {
        let data = self.sigma_data * self.sigma_data;
        let square = sigma * sigma + data;
        let of_velocity = |c: f32| zip(output, sample, |m, x| m * c + x * data / square);
        let c_out = sigma * self.sigma_data / square.sqrt();
        let mut x0 = match self.prediction_type {
            Prediction::Epsilon => zip(output, sample, |m, x| x - sigma * m),
            Prediction::Sample => output.to_vec(),
            Prediction::Velocity => of_velocity(-c_out),
            Prediction::Preconditioned => of_velocity(c_out),
        };
        self.bound.apply(&mut x0);
        x0
    }
}

/// Which of the configuration's keys for schedules a diffusers class over noise levels reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ScheduleKeys {
    /// None of them, or there is no class of diffusers at all.
    None,
    /// `use_karras_sigmas`, `use_exponential_sigmas`, `use_beta_sigmas`.
    Switches,
    /// The same; the timesteps of Karras' levels are rounded.
    RoundedSwitches,
    /// The same as `Switches`, and `interpolation_type`, `timestep_type`, `final_sigmas_type`.
    Euler,
}

/// What becomes of the last noise level but one of a named schedule; A1111 calls it `discard_next_to_last_sigma`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Penultimate {
    Kept,
    Discarded,
}

/// The schedule asked for, or where none is the one that the configuration switches on.
pub(super) fn switched(setup: &Setup) -> Result<Schedule> {
    if setup.schedule != Schedule::Own {
        return Ok(setup.schedule);
    }
    for (key, schedule) in [
        ("use_karras_sigmas", Schedule::Karras),
        ("use_exponential_sigmas", Schedule::Exponential),
        ("use_beta_sigmas", Schedule::Beta),
    ] {
        if setup.config.bool(key, false)? {
            return Ok(schedule);
        }
    }
    Ok(Schedule::Own)
}

/// Schedules that are a switch of diffusers' classes, between two levels.
pub(super) fn between(schedule: Schedule, min: f64, max: f64, n: usize) -> Option<Vec<f64>> {
    match schedule {
        Schedule::Karras => Some(karras_sigmas(min, max, n)),
        // A1111 leaves k-diffusion's polyexponential at its default rho of 1.
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
pub(super) fn exploding(
    setup: &Setup,
    training: &Training,
    keys: ScheduleKeys,
    penultimate: Penultimate,
) -> Result<Levels> {
    let config = setup.config;
    let all = training.sigmas();
    let (Some(&smallest), Some(&largest)) = (all.first(), all.last()) else {
        return Err(SchedulerConfig::refuse("num_train_timesteps", 0));
    };
    if let Some(edm) = &training.edm {
        return of_edm(edm, setup, &all, penultimate);
    }
    let schedule = if keys == ScheduleKeys::None { setup.schedule } else { switched(setup)? };
    if !schedule.is_switch() || (keys == ScheduleKeys::None && schedule != Schedule::Own) {
        let sigmas = named(schedule, &all, setup, penultimate)?;
        let denoiser = Denoiser::new(training, Bound::Free);
        let timesteps = sigmas[..sigmas.len() - 1].iter().map(|&s| denoiser.timestep(s)).collect();
        let init_noise_sigma = sigmas[0];
        return Ok(Levels::exploding(timesteps, sigmas, init_noise_sigma));
    }

    let n = setup.steps;
    // Finer than the training, only even spacing goes between its timesteps.
    let mut timesteps = match n > training.num_train_timesteps {
        true => linspace(0.0, (all.len() - 1) as f64, n).into_iter().rev().map(|t| t as f32).collect(),
        false => training.fractional_timesteps(n),
    };
    let of_euler =
        |key, default| if keys == ScheduleKeys::Euler { config.str(key, default) } else { Ok(default) };
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
    if let Some(levels) = between(schedule, min, max, n) {
        sigmas = levels;
        let log_sigmas: Vec<f32> = all.iter().map(|&s| ln(s)).collect();
        let round = keys == ScheduleKeys::RoundedSwitches && schedule == Schedule::Karras;
        let t = sigmas.iter().map(|&s| sigma_to_t(s, &log_sigmas));
        timesteps = t.map(|t| if round { t.round_ties_even() } else { t } as f32).collect();
    }
    let mut sigmas: Vec<f32> = sigmas.iter().map(|&s| s as f32).collect();
    sigmas.push(if keys == ScheduleKeys::Euler { final_sigma(config, smallest)? } else { 0.0 });
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
    Ok(Levels::exploding(timesteps, sigmas, init_noise_sigma))
}

/// EDM's levels. `all`: those that stand for the training's.
pub(super) fn of_edm(edm: &Edm, setup: &Setup, all: &[f32], penultimate: Penultimate) -> Result<Levels> {
    let sigmas = match setup.schedule {
        Schedule::Own => edm.own(setup.steps),
        schedule => named(schedule, all, setup, penultimate)?,
    };
    let timesteps = sigmas[..sigmas.len() - 1].iter().map(|&sigma| Edm::timestep(sigma)).collect();
    let init_noise_sigma = (sigmas[0] * sigmas[0] + 1.0).sqrt();
    Ok(Levels { sigma_data: edm.sigma_data, ..Levels::exploding(timesteps, sigmas, init_noise_sigma) })
}

/// Where the last step goes.
pub(super) fn final_sigma(config: &SchedulerConfig, smallest: f32) -> Result<f32> {
    match config.str("final_sigmas_type", "zero")? {
        "zero" => Ok(0.0),
        "sigma_min" => Ok(smallest),
        other => Err(SchedulerConfig::refuse("final_sigmas_type", other)),
    }
}

/// A named schedule's training timesteps, falling, for samplers that know no others: those nearest to its levels, each
/// once. `None` where the schedule is the checkpoint's own.
pub(super) fn nearest_timesteps(setup: &Setup, training: &Training) -> Result<Option<Vec<i64>>> {
    if setup.schedule == Schedule::Own {
        return Ok(None);
    }
    let sigmas = named(setup.schedule, &training.sigmas(), setup, Penultimate::Kept)?;
    let denoiser = Denoiser::new(training, Bound::Free);
    // These schedules often fall halfway between two; there it is the lower one.
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
/// sigmas (which rise).
pub(super) fn named(
    schedule: Schedule,
    all: &[f32],
    setup: &Setup,
    penultimate: Penultimate,
) -> Result<Vec<f32>> {
    let discard = penultimate == Penultimate::Discarded;
    let n = setup.steps + usize::from(discard);
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
            let between = |i: usize| last as f64 * (1.0 - i as f64 / n as f64);
            // Of fewer levels than steps each would come several times.
            match n > all.len() {
                true => (0..n).map(|i| at(between(i))).collect(),
                false => (0..n).map(|i| all[last - (i as f64 * stride) as usize].into()).collect(),
            }
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
            let table = &ALIGN_YOUR_STEPS[usize::from(setup.asked.sdxl)];
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
