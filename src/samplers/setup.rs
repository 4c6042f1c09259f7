//! What a sampler is made from: the checkpoint's configuration, a schedule, a number of steps, and knobs.

use super::config::SchedulerConfig;

/// What may be asked for. Each sampler honours what its row of the table says, and takes no notice of the rest.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// How much fresh noise there is. `None`: as much as is usual for the sampler.
    pub eta: Option<f32>,
    /// Noise put back before steps of Euler, Heun and DPM2, between the levels `s_tmin` and `s_tmax`.
    pub s_churn: f32,
    pub s_tmin: f32,
    pub s_tmax: f32,
    /// What the noise of these, of ancestral and of SDE samplers is multiplied by.
    pub s_noise: f32,
    /// The network is SDXL's: "align your steps" has a table of its own for it.
    pub sdxl: bool,
    /// There may be more steps than the training had: of a picture drawn over, only the last of them are run.
    pub finer: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            eta: None,
            s_churn: 0.0,
            s_tmin: 0.0,
            s_tmax: f32::INFINITY,
            s_noise: 1.0,
            sdxl: false,
            finer: false,
        }
    }
}

/// The knobs of one sampler, settled: what was asked for where the sampler honours it, and else what changes nothing.
#[derive(Clone, Copy)]
pub(super) struct Knobs {
    /// Share of fresh noise.
    pub eta: f32,
    pub s_churn: f32,
    pub s_tmin: f32,
    pub s_tmax: f32,
    pub s_noise: f32,
}

/// How noise levels are spaced between the largest and the smallest.
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

impl Schedule {
    /// Whether diffusers' classes have a switch for it.
    pub fn is_switch(self) -> bool {
        matches!(self, Self::Own | Self::Karras | Self::Exponential | Self::Beta)
    }
}

/// What a sampler is made from.
pub(super) struct Setup<'a> {
    pub config: &'a SchedulerConfig,
    pub schedule: Schedule,
    /// `num_inference_steps`
    pub steps: usize,
    pub knobs: Knobs,
    /// What was asked for, whether the sampler's row lists it or not.
    pub asked: &'a Tuning,
}

impl Setup<'_> {
    /// The number of steps to check against the training's.
    pub fn steps_of_training(&self) -> usize {
        if self.asked.finer { self.steps.min(1) } else { self.steps }
    }
}
