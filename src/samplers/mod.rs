//! Noise schedules and samplers.
//!
//! A sampler is either a rule that takes one evaluation of the network a step, in the arithmetic of diffusers 0.42's
//! schedulers (f32 where those hold torch tensors, f64 where they hold numpy arrays or Python floats), or a function
//! over noise levels in the manner of k-diffusion, with any number of evaluations. Both run as [`Steps`].
//!
//! Samples, outputs and noise are flat f32 slices of equal length in any one memory order.
//!
//! Each sampler follows diffusers with the checkpoint's configuration where diffusers has it, and k-diffusion over
//! diffusers' noise levels where not (dpmpp_2s_a, dpmpp_3m_sde, dpm_fast, dpm_adaptive), A1111 (restart, ddim_cfgpp) or
//! ComfyUI (ipndm). A schedule as a suffix is diffusers' switch where the class has one (karras, exponential, beta),
//! and else the sigmas of k-diffusion or A1111 over all of the training's noise levels; samplers that know training
//! timesteps only (ddpm, ddim, ddim_cfgpp, lcm, tcd) take those nearest.

mod brownian;
mod config;
mod ddim;
mod ddpm;
mod deis;
mod dpm2;
mod dpm_solver;
mod dpmpp;
mod dpmpp_s;
mod edm;
mod embedding;
mod er_sde;
mod euler;
mod guidance;
mod heun;
mod lcm;
mod levels;
mod lms;
mod log_snr;
mod noise;
mod noising;
mod numeric;
mod pndm;
mod rng;
mod run;
mod sampler;
mod schedule;
mod setup;
mod singlestep;
mod steps;
mod unipc;

use crate::error::{Error, Result};
use levels::{Penultimate, ScheduleKeys};
use sampler::{ConfigReading, LevelsFn};
use setup::{Knobs, Schedule, Setup};

pub use brownian::Walk;
pub use config::{Prediction, SchedulerConfig};
pub use embedding::{get_guidance_scale_embedding, get_timestep_embedding};
pub use guidance::{classifier_free_guidance, composed_guidance, rescale_noise_cfg};
pub use levels::Levels;
pub use noise::{NoiseOptions, NoiseSource};
pub use noising::Noising;
pub use rng::{Generator, Rng, Twister};
pub use sampler::Sampler;
pub use setup::Tuning;
pub use steps::{Ask, Noise, Step, Steps};

/// A sampler of the table.
pub struct SamplerRow {
    /// What `scheduler` calls it.
    pub name: &'static str,
    /// What A1111 calls it, or would in its manner.
    pub label: &'static str,
    /// The diffusers class that it is, if any.
    pub class: Option<&'static str>,
    /// Whether a schedule may follow its name.
    pub schedules: bool,
    /// How much fresh noise is usual, where [`Tuning::eta`] acts.
    pub eta: Option<f32>,
    /// Whether [`Tuning::s_churn`] acts, and with it `s_tmin` and `s_tmax`.
    pub s_churn: bool,
    /// Whether [`Tuning::s_noise`] acts.
    pub s_noise: bool,
    /// It steps over a training's timesteps, of which EDM's models have none.
    timesteps: bool,
    make: Make,
}

/// How a sampler is made.
enum Make {
    /// A rule that takes one evaluation of the network a step, and reads the configuration itself.
    Rule(fn(&Setup) -> Result<Sampler>),
    /// A function over noise levels.
    OverLevels(LevelsFn, ConfigReading),
}

/// Boxes an async function, so that the table can hold it.
macro_rules! over_levels {
    ($sampler:path, $reading:expr) => {
        Make::OverLevels(|run, x| Box::pin(async { Ok($sampler(run, x).await) }), $reading)
    };
}

/// A sampler without a class of diffusers.
const PLAIN: ConfigReading = ConfigReading {
    schedule_keys: ScheduleKeys::None,
    sd_betas: false,
    zero_snr: true,
    sample: true,
    clips: false,
    penultimate: Penultimate::Kept,
};
const EULER: ConfigReading = ConfigReading { schedule_keys: ScheduleKeys::Euler, ..PLAIN };
const EULER_A: ConfigReading = ConfigReading { sample: false, ..PLAIN };
const LMS: ConfigReading = ConfigReading { schedule_keys: ScheduleKeys::Switches, zero_snr: false, ..PLAIN };
const HEUN: ConfigReading = ConfigReading { sd_betas: true, clips: true, ..LMS };
const DPM2: ConfigReading = ConfigReading {
    schedule_keys: ScheduleKeys::RoundedSwitches,
    sd_betas: true,
    sample: false,
    penultimate: Penultimate::Discarded,
    ..LMS
};
const DPMPP_SDE: ConfigReading = ConfigReading { sd_betas: true, sample: false, ..LMS };

/// What most rows share; each has its own name, label and `make`.
const ROW: SamplerRow = SamplerRow {
    name: "",
    label: "",
    class: None,
    schedules: true,
    eta: None,
    s_churn: false,
    s_noise: false,
    timesteps: false,
    make: Make::Rule(ddim::ddim),
};

/// All samplers, in the order of every list. To add one: a file with its function, its `mod` line, and a row here;
/// `tests/samplers.rs` then writes `www/samplers.js` (see docs/contributing.md).
pub const SAMPLERS: &[SamplerRow] = &[
    SamplerRow {
        name: "ddpm",
        label: "DDPM",
        class: Some("DDPMScheduler"),
        timesteps: true,
        make: Make::Rule(ddpm::make),
        ..ROW
    },
    SamplerRow {
        name: "ddim",
        label: "DDIM",
        class: Some("DDIMScheduler"),
        timesteps: true,
        eta: Some(0.0),
        make: Make::Rule(ddim::ddim),
        ..ROW
    },
    SamplerRow {
        name: "ddim_cfgpp",
        label: "DDIM CFG++",
        timesteps: true,
        eta: Some(0.0),
        make: Make::Rule(ddim::ddim_cfgpp),
        ..ROW
    },
    SamplerRow {
        name: "pndm",
        label: "PLMS",
        class: Some("PNDMScheduler"),
        schedules: false,
        timesteps: true,
        make: Make::Rule(pndm::make),
        ..ROW
    },
    SamplerRow {
        name: "euler",
        label: "Euler",
        class: Some("EulerDiscreteScheduler"),
        s_churn: true,
        s_noise: true,
        make: over_levels!(euler::euler, EULER),
        ..ROW
    },
    SamplerRow {
        name: "euler_a",
        label: "Euler a",
        class: Some("EulerAncestralDiscreteScheduler"),
        eta: Some(1.0),
        s_noise: true,
        make: over_levels!(euler::euler_a, EULER_A),
        ..ROW
    },
    SamplerRow {
        name: "heun",
        label: "Heun",
        class: Some("HeunDiscreteScheduler"),
        s_churn: true,
        s_noise: true,
        make: over_levels!(heun::heun, HEUN),
        ..ROW
    },
    SamplerRow {
        name: "lms",
        label: "LMS",
        class: Some("LMSDiscreteScheduler"),
        make: over_levels!(lms::lms, LMS),
        ..ROW
    },
    SamplerRow {
        name: "dpm2",
        label: "DPM2",
        class: Some("KDPM2DiscreteScheduler"),
        s_churn: true,
        s_noise: true,
        make: over_levels!(dpm2::dpm2, DPM2),
        ..ROW
    },
    SamplerRow {
        name: "dpm2_a",
        label: "DPM2 a",
        class: Some("KDPM2AncestralDiscreteScheduler"),
        eta: Some(1.0),
        s_noise: true,
        make: over_levels!(dpm2::dpm2_a, DPM2),
        ..ROW
    },
    SamplerRow {
        name: "dpmpp_2s",
        label: "DPM++ 2S",
        class: Some("DPMSolverSinglestepScheduler"),
        make: Make::Rule(singlestep::make),
        ..ROW
    },
    SamplerRow {
        name: "dpmpp_2s_a",
        label: "DPM++ 2S a",
        eta: Some(1.0),
        s_noise: true,
        make: over_levels!(dpmpp_s::dpmpp_2s_a, PLAIN),
        ..ROW
    },
    SamplerRow {
        name: "dpmpp_2m",
        label: "DPM++ 2M",
        class: Some("DPMSolverMultistepScheduler"),
        make: Make::Rule(dpmpp::dpmpp_2m),
        ..ROW
    },
    SamplerRow {
        name: "dpmpp_sde",
        label: "DPM++ SDE",
        class: Some("DPMSolverSDEScheduler"),
        eta: Some(1.0),
        s_noise: true,
        make: over_levels!(dpmpp_s::dpmpp_sde, DPMPP_SDE),
        ..ROW
    },
    SamplerRow {
        name: "dpmpp_2m_sde",
        label: "DPM++ 2M SDE",
        eta: Some(1.0),
        s_noise: true,
        make: Make::Rule(dpmpp::dpmpp_2m_sde),
        ..ROW
    },
    SamplerRow {
        name: "dpmpp_3m_sde",
        label: "DPM++ 3M SDE",
        eta: Some(1.0),
        s_noise: true,
        make: Make::Rule(dpmpp::dpmpp_3m_sde),
        ..ROW
    },
    SamplerRow {
        name: "dpm_fast",
        label: "DPM fast",
        schedules: false,
        eta: Some(0.0),
        s_noise: true,
        make: over_levels!(dpm_solver::dpm_fast, PLAIN),
        ..ROW
    },
    SamplerRow {
        name: "dpm_adaptive",
        label: "DPM adaptive",
        schedules: false,
        eta: Some(0.0),
        s_noise: true,
        make: over_levels!(dpm_solver::dpm_adaptive, PLAIN),
        ..ROW
    },
    SamplerRow {
        name: "restart",
        label: "Restart",
        s_noise: true,
        make: over_levels!(heun::restart, PLAIN),
        ..ROW
    },
    SamplerRow {
        name: "unipc",
        label: "UniPC",
        class: Some("UniPCMultistepScheduler"),
        make: Make::Rule(unipc::make),
        ..ROW
    },
    SamplerRow {
        name: "deis",
        label: "DEIS",
        class: Some("DEISMultistepScheduler"),
        make: Make::Rule(deis::make),
        ..ROW
    },
    SamplerRow {
        name: "ipndm",
        label: "iPNDM",
        class: Some("IPNDMScheduler"),
        make: over_levels!(lms::ipndm, PLAIN),
        ..ROW
    },
    SamplerRow {
        name: "er_sde",
        label: "ER SDE",
        s_noise: true,
        make: over_levels!(er_sde::er_sde, PLAIN),
        ..ROW
    },
    SamplerRow {
        name: "lcm",
        label: "LCM",
        class: Some("LCMScheduler"),
        timesteps: true,
        make: Make::Rule(lcm::lcm),
        ..ROW
    },
    SamplerRow {
        name: "tcd",
        label: "TCD",
        class: Some("TCDScheduler"),
        timesteps: true,
        eta: Some(0.0),
        make: Make::Rule(lcm::tcd),
        ..ROW
    },
];

/// A schedule of the table.
pub struct ScheduleRow {
    /// What follows a sampler's name, with an underscore between.
    pub name: &'static str,
    /// What A1111 calls it.
    pub label: &'static str,
    schedule: Schedule,
}

/// All schedules that may follow a sampler's name, in the order of every list.
pub const SCHEDULES: &[ScheduleRow] = &[
    ScheduleRow { name: "karras", label: "Karras", schedule: Schedule::Karras },
    ScheduleRow { name: "exponential", label: "Exponential", schedule: Schedule::Exponential },
    ScheduleRow { name: "polyexponential", label: "Polyexponential", schedule: Schedule::Polyexponential },
    ScheduleRow { name: "sgm_uniform", label: "SGM Uniform", schedule: Schedule::SgmUniform },
    ScheduleRow { name: "simple", label: "Simple", schedule: Schedule::Simple },
    ScheduleRow { name: "normal", label: "Normal", schedule: Schedule::Normal },
    ScheduleRow { name: "ddim_uniform", label: "DDIM", schedule: Schedule::DdimUniform },
    ScheduleRow { name: "beta", label: "Beta", schedule: Schedule::Beta },
    ScheduleRow { name: "kl_optimal", label: "KL Optimal", schedule: Schedule::KlOptimal },
    ScheduleRow { name: "align_your_steps", label: "Align Your Steps", schedule: Schedule::AlignYourSteps },
];

impl SamplerRow {
    /// What was asked for, where this sampler honours it.
    fn settle(&self, asked: &Tuning) -> Knobs {
        Knobs {
            eta: self.eta.map_or(0.0, |usual| asked.eta.unwrap_or(usual)),
            s_churn: if self.s_churn { asked.s_churn } else { 0.0 },
            s_tmin: asked.s_tmin,
            s_tmax: asked.s_tmax,
            s_noise: if self.s_noise { asked.s_noise } else { 1.0 },
        }
    }
}

/// The names that [`scheduler`] takes: each sampler, and each with each schedule behind it.
pub fn names() -> Vec<String> {
    let mut names = Vec::new();
    for row in SAMPLERS {
        names.push(row.name.to_owned());
        if row.schedules {
            names.extend(SCHEDULES.iter().map(|schedule| format!("{}_{}", row.name, schedule.name)));
        }
    }
    names
}

/// A name as the table spells it: "DPM++ 2M Karras" is "dpmpp_2m_karras".
fn spelled(name: &str) -> String {
    name.trim().to_lowercase().replace("++", "pp").replace([' ', '-'], "_")
}

/// The sampler and the schedule that a name means: a short name or A1111's or a class of diffusers', and behind it,
/// with a space or an underscore between, a schedule.
fn parse(name: &str) -> Option<(&'static SamplerRow, Schedule)> {
    let name = spelled(name);
    for row in SAMPLERS {
        for base in [Some(row.name), Some(row.label), row.class].into_iter().flatten() {
            let Some(rest) = name.strip_prefix(&spelled(base)) else { continue };
            if rest.is_empty() {
                return Some((row, Schedule::Own));
            }
            let Some(wanted) = rest.strip_prefix('_').filter(|_| row.schedules) else { continue };
            let called = |s: &&ScheduleRow| wanted == s.name || wanted == spelled(s.label);
            if let Some(found) = SCHEDULES.iter().find(called) {
                return Some((row, found.schedule));
            } else if wanted == "uniform" {
                // A1111 has this one twice.
                return Some((row, Schedule::Normal));
            }
        }
    }
    None
}

/// The row of the checkpoint's own sampler; `None` where none here is of its class.
fn own(config: &SchedulerConfig) -> Option<&'static SamplerRow> {
    SAMPLERS.iter().find(|row| row.class == Some(config.class_of_steps()))
}

/// The short name of the checkpoint's own sampler; `None` where none here is of its class.
pub fn own_name(config: &SchedulerConfig) -> Option<&'static str> {
    own(config).map(|row| row.name)
}

/// What A1111 calls a sampler, and its schedule (the checkpoint's own is "").
pub fn labels(name: &str) -> Option<(&'static str, &'static str)> {
    let (row, schedule) = parse(name)?;
    Some((row.label, SCHEDULES.iter().find(|s| s.schedule == schedule).map_or("", |s| s.label)))
}

/// The sampler `name`, or without a name the checkpoint's own, with its noise levels set.
///
/// A named sampler reads the checkpoint's configuration as diffusers' `from_config` does: keys that its
/// class knows are taken, others ignored, missing ones have the class's own defaults.
///
/// # Errors
/// `invalid-option` for an unknown name or a number of steps that the configuration does not
/// allow; `unsupported-model` for a class or a field's value that we do not compute.
pub fn scheduler(
    name: Option<&str>,
    config: &SchedulerConfig,
    num_inference_steps: usize,
    tuning: &Tuning,
) -> Result<Sampler> {
    let class = config.class_name();
    let Some(own) = own(config) else {
        return Err(Error::unsupported(format!(
            "the checkpoint's scheduler is {class}, made for networks that no sampler here can drive; use \
             a Stable Diffusion 1.x, 2.x or XL checkpoint"
        )));
    };
    let (row, schedule) = match name {
        None => (own, Schedule::Own),
        Some(name) => parse(name).ok_or_else(|| {
            let list = |names: Vec<&str>| names.join(", ");
            Error::invalid(format!(
                "there is no scheduler {name:?}; choose one of {}, most of them with one of {} behind, such as \
                 dpmpp_2m_karras",
                list(SAMPLERS.iter().map(|s| s.name).collect()),
                list(SCHEDULES.iter().map(|s| s.name).collect()),
            ))
        })?,
    };
    if row.timesteps && config.is_edm() {
        let able = SAMPLERS.iter().filter(|row| !row.timesteps).map(|row| row.name).collect::<Vec<_>>();
        return Err(Error::invalid(format!(
            "scheduler {} steps over timesteps of a training, and this model has EDM's noise levels instead; leave \
             scheduler out, or choose one of {}",
            row.name,
            able.join(", ")
        )));
    }
    let knobs = row.settle(tuning);
    let setup = Setup { config, schedule, steps: num_inference_steps, knobs, asked: tuning };
    match &row.make {
        Make::Rule(make) => make(&setup),
        Make::OverLevels(function, reading) => Sampler::over_levels(&setup, *function, reading),
    }
}
