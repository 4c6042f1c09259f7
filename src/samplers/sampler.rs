//! A sampler with its noise levels set, ready to start.

use super::config::{Prediction, SchedulerConfig};
use super::levels::{Denoiser, Levels, Penultimate, ScheduleKeys, exploding};
use super::run::Run;
use super::schedule::{Bound, DEFAULTS, Defaults, Training};
use super::setup::{Knobs, Setup};
use super::steps::{Noise, Rule, Running, Steps, stepwise};
use crate::error::Result;

/// A function over noise levels, from a run and its first sample.
pub(super) type LevelsFn = fn(Run, Vec<f32>) -> Running;

enum Algorithm {
    Rule(Box<dyn Rule>),
    OverLevels { function: LevelsFn, denoiser: Denoiser, knobs: Knobs },
}

/// A sampler with its noise levels set.
pub struct Sampler {
    pub levels: Levels,
    algorithm: Algorithm,
}

/// What a sampler over noise levels reads from the configuration.
pub(super) struct ConfigReading {
    pub schedule_keys: ScheduleKeys,
    /// `beta_start` and `beta_end` are 0.00085 and 0.012 where the configuration has none.
    pub sd_betas: bool,
    /// Knows `rescale_betas_zero_snr`.
    pub zero_snr: bool,
    /// Knows `prediction_type` "sample".
    pub sample: bool,
    /// Knows `clip_sample`.
    pub clips: bool,
    pub penultimate: Penultimate,
}

impl Sampler {
    /// A rule that takes one evaluation of the network a step.
    pub(super) fn stepwise(levels: Levels, rule: impl Rule + 'static) -> Self {
        Self { levels, algorithm: Algorithm::Rule(Box::new(rule)) }
    }

    /// A function over noise levels.
    pub(super) fn over_levels(setup: &Setup, function: LevelsFn, reading: &ConfigReading) -> Result<Self> {
        let config = setup.config;
        let (beta_start, beta_end) = if reading.sd_betas { (0.00085, 0.012) } else { (0.0001, 0.02) };
        let defaults = Defaults {
            beta_start,
            beta_end,
            timestep_spacing: "linspace",
            zero_snr: reading.zero_snr,
            ..DEFAULTS
        };
        let mut training = Training::read(config, setup.steps_of_training(), &defaults)?;
        training.keep_last_alpha_off_zero();
        if training.prediction_type == Prediction::Sample && !reading.sample {
            return Err(SchedulerConfig::refuse("prediction_type", "sample, for this sampler,"));
        }
        let levels = exploding(setup, &training, reading.schedule_keys, reading.penultimate)?;
        let bound = if reading.clips { Bound::clip(config, false)? } else { Bound::Free };
        let denoiser = Denoiser::new(&training, bound);
        Ok(Self { levels, algorithm: Algorithm::OverLevels { function, denoiser, knobs: setup.knobs } })
    }

    /// Starts from a sample at the noise level of step `begin`. `noise` is drawn from when the sampler adds noise.
    pub fn start(self, begin: usize, sample: Vec<f32>, noise: Noise) -> Steps {
        let levels = self.levels;
        let ends = levels.ends();
        match self.algorithm {
            Algorithm::Rule(rule) => {
                Steps::new(noise, ends, |host| Box::pin(stepwise(host, levels, rule, begin, sample)))
            }
            Algorithm::OverLevels { function, denoiser, knobs } => {
                let levels = levels.from(begin);
                let total = levels.timesteps().len();
                Steps::new(noise, ends, |host| {
                    function(Run { host, levels, knobs, denoiser, step: 0, total }, sample)
                })
            }
        }
    }
}
