//! What the samplers share: the noise schedule of the training, the timesteps of the inference, and the
//! bounds on a predicted picture. Written after diffusers' schedulers, numpy's and torch's functions.

use super::config::{Prediction, SchedulerConfig, Spacing};
use super::edm::Edm;
use super::numeric::{arange_down, clamp, linspace, quantile, sigma, torch_linspace, zip};
use crate::error::{Error, Result};

/// The defaults in which diffusers' classes differ.
pub(super) struct Defaults {
    pub beta_start: f64,
    pub beta_end: f64,
    pub beta_schedule: &'static str,
    pub timestep_spacing: &'static str,
    /// Whether the class knows `rescale_betas_zero_snr`.
    pub zero_snr: bool,
}

/// The defaults of most classes.
pub(super) const DEFAULTS: Defaults = Defaults {
    beta_start: 0.0001,
    beta_end: 0.02,
    beta_schedule: "linear",
    timestep_spacing: "leading",
    zero_snr: true,
};

/// What every sampler reads from its configuration.
pub(super) struct Training {
    pub num_train_timesteps: usize,
    pub alphas_cumprod: Vec<f32>,
    pub rescale_betas_zero_snr: bool,
    pub prediction_type: Prediction,
    pub timestep_spacing: Spacing,
    pub steps_offset: usize,
    /// Its levels are not of betas.
    pub edm: Option<Edm>,
}

impl Training {
    /// Reads the configuration and checks the number of steps against it.
    pub fn read(config: &SchedulerConfig, num_inference_steps: usize, defaults: &Defaults) -> Result<Self> {
        let num_train_timesteps = config.usize("num_train_timesteps", 1000)?;
        if num_train_timesteps == 0 {
            return Err(SchedulerConfig::refuse("num_train_timesteps", 0));
        }
        if num_inference_steps == 0 || num_inference_steps > num_train_timesteps {
            return Err(Error::invalid(format!(
                "`numInferenceSteps` is {num_inference_steps}; choose 1 to {num_train_timesteps}"
            )));
        }
        if let Some(edm) = Edm::read(config)? {
            let all = edm.all(num_train_timesteps);
            return Ok(Self {
                num_train_timesteps,
                alphas_cumprod: all.into_iter().map(|sigma| edm.alpha(sigma)).collect(),
                rescale_betas_zero_snr: false,
                prediction_type: Edm::prediction(config.prediction_type()?)?,
                timestep_spacing: Spacing::Linspace,
                steps_offset: 0,
                edm: Some(edm),
            });
        }
        let rescale_betas_zero_snr = defaults.zero_snr && config.bool("rescale_betas_zero_snr", false)?;
        let mut betas = betas(config, num_train_timesteps, defaults)?;
        if rescale_betas_zero_snr {
            betas = rescale_zero_terminal_snr(&betas);
        }
        Ok(Self {
            num_train_timesteps,
            alphas_cumprod: alphas_cumprod(&betas),
            rescale_betas_zero_snr,
            prediction_type: config.prediction_type()?,
            timestep_spacing: config.timestep_spacing(defaults.timestep_spacing)?,
            steps_offset: config.usize("steps_offset", 0)?,
            edm: None,
        })
    }

    /// For samplers that divide by `alphas_cumprod`: keeps its last value off zero, at the smallest
    /// positive f16, as diffusers does.
    pub fn keep_last_alpha_off_zero(&mut self) {
        if self.rescale_betas_zero_snr
            && let Some(last) = self.alphas_cumprod.last_mut()
        {
            *last = (2f32).powi(-24);
        }
    }

    /// `sqrt((1 - alphas_cumprod) / alphas_cumprod)` of every training timestep; EDM's levels as they are.
    pub fn sigmas(&self) -> Vec<f32> {
        match &self.edm {
            Some(edm) => edm.all(self.num_train_timesteps),
            None => self.alphas_cumprod.iter().map(|&a| sigma(a)).collect(),
        }
    }

    /// The timesteps, falling, of DDPM, DDIM, PNDM; those of Euler where not `linspace`.
    pub fn timesteps(&self, n: usize) -> Vec<i64> {
        let train = self.num_train_timesteps;
        let mut timesteps: Vec<i64> = match self.timestep_spacing {
            Spacing::Linspace => {
                linspace(0.0, (train - 1) as f64, n).iter().map(|t| t.round_ties_even() as i64).collect()
            }
            Spacing::Leading => (0..n).map(|i| (i * (train / n) + self.steps_offset) as i64).collect(),
            Spacing::Trailing => {
                return arange_down(train, train as f64 / n as f64)
                    .iter()
                    .map(|t| t.round_ties_even() as i64 - 1)
                    .collect();
            }
        };
        timesteps.reverse();
        timesteps
    }

    /// The timesteps of Euler and its kin: `linspace` is not rounded.
    pub fn fractional_timesteps(&self, n: usize) -> Vec<f32> {
        if self.timestep_spacing == Spacing::Linspace {
            let all = linspace(0.0, (self.num_train_timesteps - 1) as f64, n);
            return all.iter().rev().map(|&t| t as f32).collect();
        }
        self.timesteps(n).iter().map(|&t| t as f32).collect()
    }

    /// Refuses timesteps that the network was not trained for; a large `steps_offset` makes such.
    pub fn check_range(&self, timesteps: &[i64]) -> Result<()> {
        match timesteps.iter().find(|&&t| t < 0 || t >= self.num_train_timesteps as i64) {
            None => Ok(()),
            Some(t) => Err(Error::invalid(format!(
                "with this number of steps the checkpoint's timestep spacing asks for timestep {t}, and the \
                 model knows 0 to {}; choose fewer steps",
                self.num_train_timesteps - 1
            ))),
        }
    }

    /// `alphas_cumprod[t]`, or `before` for the time before the first timestep.
    pub fn alpha(&self, t: i64, before: f32) -> Result<f32> {
        if t < 0 {
            return Ok(before);
        }
        self.alphas_cumprod.get(t as usize).copied().ok_or_else(|| {
            Error::invalid(format!(
                "the sampler ran past the training's timesteps at {t}; choose fewer steps"
            ))
        })
    }

    /// `final_alpha_cumprod`, what stands for `alphas_cumprod` after the last step.
    pub fn final_alpha(&self, set_alpha_to_one: bool) -> f32 {
        if set_alpha_to_one { 1.0 } else { self.alphas_cumprod.first().copied().unwrap_or(1.0) }
    }
}

fn betas(config: &SchedulerConfig, n: usize, defaults: &Defaults) -> Result<Vec<f32>> {
    if let Some(trained) = config.optional_list("trained_betas")? {
        if trained.len() != n {
            return Err(Error::bad_checkpoint(format!(
                "scheduler_config.json has {} `trained_betas` and {n} `num_train_timesteps`; correct it",
                trained.len()
            )));
        }
        return Ok(trained);
    }
    let start = config.f64("beta_start", defaults.beta_start)?;
    let end = config.f64("beta_end", defaults.beta_end)?;
    match config.str("beta_schedule", defaults.beta_schedule)? {
        "linear" => Ok(torch_linspace(start as f32, end as f32, n)),
        "scaled_linear" => {
            Ok(torch_linspace(start.sqrt() as f32, end.sqrt() as f32, n).iter().map(|b| b * b).collect())
        }
        "squaredcos_cap_v2" => {
            let alpha_bar =
                |i: usize| ((i as f64 / n as f64 + 0.008) / 1.008 * std::f64::consts::PI / 2.0).cos().powi(2);
            Ok((0..n).map(|i| (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(0.999) as f32).collect())
        }
        other => Err(SchedulerConfig::refuse("beta_schedule", other)),
    }
}

/// `torch.cumprod(1 - betas)`, which accumulates in f64.
fn alphas_cumprod(betas: &[f32]) -> Vec<f32> {
    let mut product = 1f64;
    betas
        .iter()
        .map(|b| {
            product *= f64::from(1.0 - b);
            product as f32
        })
        .collect()
}

/// Betas that end in pure noise (Lin et al. 2023, algorithm 1).
fn rescale_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let mut bar_sqrt: Vec<f32> = alphas_cumprod(betas).iter().map(|a| a.sqrt()).collect();
    let (Some(&first), Some(&last)) = (bar_sqrt.first(), bar_sqrt.last()) else { return Vec::new() };
    let factor = first / (first - last);
    for x in &mut bar_sqrt {
        *x = (*x - last) * factor;
    }
    let mut before = 1.0;
    bar_sqrt
        .iter()
        .map(|x| {
            let bar = x * x;
            let alpha = bar / before;
            before = bar;
            1.0 - alpha
        })
        .collect()
}

/// The picture behind the noise, from a model output at `alpha` = `alphas_cumprod[t]`.
pub(super) fn pred_original_sample(p: Prediction, alpha: f32, output: &[f32], sample: &[f32]) -> Vec<f32> {
    let (a, b) = (alpha.sqrt(), (1.0 - alpha).sqrt());
    match p {
        Prediction::Epsilon => zip(output, sample, |m, x| (x - b * m) / a),
        Prediction::Sample => output.to_vec(),
        Prediction::Velocity => zip(output, sample, |m, x| a * x - b * m),
        Prediction::Preconditioned => zip(output, sample, |m, x| a * x + b * m),
    }
}

/// The noise in `sample`, from a model output at `alpha`.
pub(super) fn pred_epsilon(p: Prediction, alpha: f32, output: &[f32], sample: &[f32]) -> Vec<f32> {
    let (a, b) = (alpha.sqrt(), (1.0 - alpha).sqrt());
    match p {
        Prediction::Epsilon => output.to_vec(),
        Prediction::Sample => zip(output, sample, |x0, x| (x - a * x0) / b),
        Prediction::Velocity => zip(output, sample, |m, x| a * m + b * x),
        Prediction::Preconditioned => zip(output, sample, |m, x| b * x - a * m),
    }
}

/// What happens to a predicted picture that goes beyond the training's range.
pub(super) enum Bound {
    Free,
    /// `clip_sample`
    Clip(f32),
    /// `thresholding`, dynamic (Imagen): ratio and largest value
    Threshold(f32, f32),
}

impl Bound {
    /// `clip_default` is the class's default of `clip_sample`; `None` if the class does not know it.
    pub fn read(config: &SchedulerConfig, clip_default: Option<bool>) -> Result<Self> {
        if config.bool("thresholding", false)? {
            let ratio = config.f64("dynamic_thresholding_ratio", 0.995)?;
            if !(0.0..=1.0).contains(&ratio) {
                return Err(SchedulerConfig::refuse("dynamic_thresholding_ratio", ratio));
            }
            return Ok(Self::Threshold(ratio as f32, config.f64("sample_max_value", 1.0)? as f32));
        }
        clip_default.map_or(Ok(Self::Free), |default| Self::clip(config, default))
    }

    /// `clip_sample` alone, for classes that know no thresholding.
    pub fn clip(config: &SchedulerConfig, default: bool) -> Result<Self> {
        if config.bool("clip_sample", default)? {
            return Ok(Self::Clip(config.f64("clip_sample_range", 1.0)? as f32));
        }
        Ok(Self::Free)
    }

    pub fn apply(&self, sample: &mut [f32]) {
        match *self {
            Self::Free => {}
            Self::Clip(range) => clamp(sample, range),
            Self::Threshold(ratio, max) => {
                let s = quantile(sample.iter().map(|x| x.abs()).collect(), ratio).max(1.0).min(max);
                clamp(sample, s);
                for x in sample {
                    *x /= s;
                }
            }
        }
    }
}
