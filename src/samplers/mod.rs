//! Noise schedules and samplers.
//!
//! A sampler is either a rule that takes one evaluation of the network a step, in the arithmetic of diffusers 0.42's
//! schedulers (f32 where those hold torch tensors, f64 where they hold numpy arrays or Python floats), or a function
//! over noise levels in the manner of k-diffusion, with as many evaluations as it likes. Both run as [`Steps`].
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
mod embedding;
mod euler;
mod guidance;
mod heun;
mod lcm;
mod levels;
mod lms;
pub mod noise;
mod philox;
mod pndm;
mod schedule;
mod singlestep;
mod steps;
mod unipc;

use crate::error::{Error, Result};
use config::Prediction;
use levels::{Denoiser, Kin, SCHEDULES, Schedule};
use schedule::{Bound, DEFAULTS, Defaults, Training};
use std::rc::Rc;
use steps::{K, Running, stepwise};

pub use brownian::Walk;
pub use config::SchedulerConfig;
pub use embedding::{get_guidance_scale_embedding, get_timestep_embedding};
pub use guidance::{classifier_free_guidance, composed_guidance, rescale_noise_cfg};
pub use levels::Levels;
pub use steps::{Ask, Noise, Step, Steps};

/// What may be turned on samplers that have it; others take no notice.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// How much fresh noise there is. `None`: 1 for ancestral and SDE samplers, 0 for DDIM, TCD and DPM-Solver.
    pub eta: Option<f32>,
    /// Noise added before steps of Euler, Heun and DPM2, between the levels `s_tmin` and `s_tmax`.
    pub s_churn: f32,
    pub s_tmin: f32,
    pub s_tmax: f32,
    /// What the noise of these, of ancestral and of SDE samplers is multiplied with.
    pub s_noise: f32,
    /// The network is SDXL's: "align your steps" has a table of its own for it.
    pub sdxl: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { eta: None, s_churn: 0.0, s_tmin: 0.0, s_tmax: f32::INFINITY, s_noise: 1.0, sdxl: false }
    }
}

/// What a sampler is made from.
struct Order<'a> {
    config: &'a SchedulerConfig,
    schedule: Schedule,
    /// `num_inference_steps`
    steps: usize,
    tuning: &'a Tuning,
}

/// A rule from the network's output at a step to the next sample.
trait Rule {
    /// Whether `output` is of CFG++: see [`Ask::Predict`].
    fn cfg_plus_plus(&self) -> bool {
        false
    }

    /// Whether noise is drawn along a Brownian motion over the noise level.
    fn brownian(&self) -> bool {
        false
    }

    /// Makes the sample at step `i` into the next, in place. Returns the picture that the sampler sees behind the noise
    /// (diffusers' `pred_original_sample`, for LCM `denoised`). Steps are taken in order. `noise` is called at most
    /// once, with the sample's length, where diffusers calls `randn_tensor`.
    fn step(
        &mut self,
        output: &[f32],
        i: usize,
        sample: &mut [f32],
        noise: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Vec<f32>>;
}

/// How a function over noise levels is run.
type Run = fn(K, Vec<f32>) -> Running;

enum Way {
    Rule(Box<dyn Rule>),
    Function { run: Run, denoiser: Denoiser, tuning: Tuning },
}

/// A sampler with its noise levels set.
pub struct Sampler {
    pub levels: Levels,
    way: Way,
}

impl Sampler {
    fn stepwise(levels: Levels, rule: impl Rule + 'static) -> Self {
        Self { levels, way: Way::Rule(Box::new(rule)) }
    }

    /// Starts from a sample at the noise level of step `begin`. `noise` is drawn from when the sampler adds noise.
    pub fn start(self, begin: usize, sample: Vec<f32>, noise: Noise) -> Steps {
        let levels = self.levels;
        let ends = levels.ends();
        match self.way {
            Way::Rule(rule) => {
                Steps::new(noise, ends, |desk| Box::pin(stepwise(desk, levels, rule, begin, sample)))
            }
            Way::Function { run, denoiser, tuning } => {
                let levels = levels.from(begin);
                let total = levels.timesteps().len();
                Steps::new(noise, ends, |desk| {
                    let denoiser = Rc::new(denoiser);
                    run(K { desk, levels, tuning, denoiser, step: 0, total }, sample)
                })
            }
        }
    }
}

/// How a sampler is made.
enum Make {
    Rule(fn(&Order) -> Result<Sampler>),
    Function(Run, Class),
}

/// What a function over noise levels reads from the configuration.
struct Class {
    kin: Kin,
    /// `beta_start` and `beta_end` are 0.00085 and 0.012 where the configuration has none.
    sd_betas: bool,
    zero_snr: bool,
    /// Knows `prediction_type` "sample".
    sample: bool,
    /// Knows `clip_sample`.
    clips: bool,
    /// A1111 leaves out the last level but one of a named schedule.
    discard: bool,
}

const PLAIN: Class =
    Class { kin: Kin::Plain, sd_betas: false, zero_snr: true, sample: true, clips: false, discard: false };
const FLAGS: Class = Class { kin: Kin::Flags, zero_snr: false, ..PLAIN };
const DPM2: Class = Class { kin: Kin::RoundedFlags, sd_betas: true, sample: false, discard: true, ..FLAGS };

/// Boxes an async function, so that the table can hold it.
macro_rules! run {
    ($sampler:path) => {
        |k, x| Box::pin(async { Ok($sampler(k, x).await) })
    };
}

/// A sampler's short name, A1111's name (or one in its manner), the diffusers class that it is, if any, whether it takes
/// a schedule, and how it is made.
struct Entry(&'static str, &'static str, &'static str, bool, Make);

/// The table of samplers.
const SAMPLERS: &[Entry] = &[
    Entry("ddpm", "DDPM", "DDPMScheduler", true, Make::Rule(ddpm::make)),
    Entry("ddim", "DDIM", "DDIMScheduler", true, Make::Rule(ddim::ddim)),
    Entry("ddim_cfgpp", "DDIM CFG++", "", true, Make::Rule(ddim::ddim_cfgpp)),
    Entry("pndm", "PLMS", "PNDMScheduler", false, Make::Rule(pndm::make)),
    Entry(
        "euler",
        "Euler",
        "EulerDiscreteScheduler",
        true,
        Make::Function(run!(euler::euler), Class { kin: Kin::Euler, ..PLAIN }),
    ),
    Entry(
        "euler_a",
        "Euler a",
        "EulerAncestralDiscreteScheduler",
        true,
        Make::Function(run!(euler::euler_a), Class { sample: false, ..PLAIN }),
    ),
    Entry(
        "heun",
        "Heun",
        "HeunDiscreteScheduler",
        true,
        Make::Function(run!(heun::heun), Class { sd_betas: true, clips: true, ..FLAGS }),
    ),
    Entry("lms", "LMS", "LMSDiscreteScheduler", true, Make::Function(run!(lms::lms), FLAGS)),
    Entry("dpm2", "DPM2", "KDPM2DiscreteScheduler", true, Make::Function(run!(dpm2::dpm2), DPM2)),
    Entry(
        "dpm2_a",
        "DPM2 a",
        "KDPM2AncestralDiscreteScheduler",
        true,
        Make::Function(run!(dpm2::dpm2_a), DPM2),
    ),
    Entry("dpmpp_2s", "DPM++ 2S", "DPMSolverSinglestepScheduler", true, Make::Rule(singlestep::make)),
    Entry("dpmpp_2s_a", "DPM++ 2S a", "", true, Make::Function(run!(dpmpp_s::dpmpp_2s_a), PLAIN)),
    Entry("dpmpp_2m", "DPM++ 2M", "DPMSolverMultistepScheduler", true, Make::Rule(dpmpp::dpmpp_2m)),
    Entry(
        "dpmpp_sde",
        "DPM++ SDE",
        "DPMSolverSDEScheduler",
        true,
        Make::Function(run!(dpmpp_s::dpmpp_sde), Class { sd_betas: true, sample: false, ..FLAGS }),
    ),
    Entry("dpmpp_2m_sde", "DPM++ 2M SDE", "", true, Make::Rule(dpmpp::dpmpp_2m_sde)),
    Entry("dpmpp_3m_sde", "DPM++ 3M SDE", "", true, Make::Rule(dpmpp::dpmpp_3m_sde)),
    Entry("dpm_fast", "DPM fast", "", false, Make::Function(run!(dpm_solver::dpm_fast), PLAIN)),
    Entry("dpm_adaptive", "DPM adaptive", "", false, Make::Function(run!(dpm_solver::dpm_adaptive), PLAIN)),
    Entry("restart", "Restart", "", true, Make::Function(run!(heun::restart), PLAIN)),
    Entry("unipc", "UniPC", "UniPCMultistepScheduler", true, Make::Rule(unipc::make)),
    Entry("deis", "DEIS", "DEISMultistepScheduler", true, Make::Rule(deis::make)),
    Entry("ipndm", "iPNDM", "IPNDMScheduler", true, Make::Function(run!(lms::ipndm), PLAIN)),
    Entry("lcm", "LCM", "LCMScheduler", true, Make::Rule(lcm::lcm)),
    Entry("tcd", "TCD", "TCDScheduler", true, Make::Rule(lcm::tcd)),
];

/// The names that [`scheduler`] takes: each sampler, and each with each schedule behind it.
pub fn names() -> Vec<String> {
    let mut names = Vec::new();
    for Entry(name, _, _, takes_schedule, _) in SAMPLERS {
        names.push((*name).to_owned());
        if *takes_schedule {
            names.extend(SCHEDULES.iter().map(|(schedule, ..)| format!("{name}_{schedule}")));
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
fn parse(name: &str) -> Option<(&'static Entry, Schedule)> {
    let name = spelled(name);
    for entry @ Entry(short, label, class, takes_schedule, _) in SAMPLERS {
        for base in [(*short).to_owned(), spelled(label), spelled(class)] {
            let Some(rest) = name.strip_prefix(&base).filter(|_| !base.is_empty()) else { continue };
            let wanted = rest.strip_prefix('_').filter(|_| *takes_schedule);
            let named = |s: &&(&str, &str, Schedule)| wanted.is_some_and(|w| w == s.0 || w == spelled(s.1));
            if rest.is_empty() {
                return Some((entry, Schedule::Own));
            } else if let Some((.., schedule)) = SCHEDULES.iter().find(named) {
                return Some((entry, *schedule));
            } else if wanted == Some("uniform") {
                // A1111 has this one twice.
                return Some((entry, Schedule::Normal));
            }
        }
    }
    None
}

/// The short name of the checkpoint's own sampler; `None` where none here is of its class.
pub fn own_name(config: &SchedulerConfig) -> Option<&'static str> {
    SAMPLERS.iter().find(|Entry(_, _, class, ..)| *class == config.class_name()).map(|entry| entry.0)
}

/// What A1111 calls a sampler, and its schedule (the checkpoint's own is "").
pub fn labels(name: &str) -> Option<(&'static str, &'static str)> {
    let (Entry(_, label, ..), schedule) = parse(name)?;
    Some((label, SCHEDULES.iter().find(|s| s.2 == schedule).map_or("", |s| s.1)))
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
    let own = SAMPLERS.iter().find(|Entry(_, _, c, ..)| *c == class);
    let Some(own) = own else {
        return Err(Error::unsupported(format!(
            "the checkpoint's scheduler is {class}, made for networks that no sampler here can drive; use \
             a Stable Diffusion 1.x, 2.x or XL checkpoint"
        )));
    };
    let (Entry(.., make), schedule) = match name {
        None => (own, Schedule::Own),
        Some(name) => parse(name).ok_or_else(|| {
            let list = |names: Vec<&str>| names.join(", ");
            Error::invalid(format!(
                "there is no scheduler {name:?}; choose one of {}, most of them with one of {} behind, such as \
                 dpmpp_2m_karras",
                list(SAMPLERS.iter().map(|s| s.0).collect()),
                list(SCHEDULES.iter().map(|s| s.0).collect()),
            ))
        })?,
    };
    let order = Order { config, schedule, steps: num_inference_steps, tuning };
    match make {
        Make::Rule(make) => make(&order),
        Make::Function(run, class) => function(&order, *run, class),
    }
}

/// A function over noise levels.
fn function(order: &Order, run: Run, class: &Class) -> Result<Sampler> {
    let config = order.config;
    let (beta_start, beta_end) = if class.sd_betas { (0.00085, 0.012) } else { (0.0001, 0.02) };
    let defaults =
        Defaults { beta_start, beta_end, timestep_spacing: "linspace", zero_snr: class.zero_snr, ..DEFAULTS };
    let mut training = Training::read(config, order.steps, &defaults)?;
    training.keep_last_alpha_off_zero();
    if training.prediction_type == Prediction::Sample && !class.sample {
        return Err(SchedulerConfig::refuse("prediction_type", "sample, for this sampler,"));
    }
    let levels = levels::exploding(order, &training, class.kin, class.discard)?;
    let bound = if class.clips { Bound::clip(config, false)? } else { Bound::Free };
    let denoiser = Denoiser::new(&training, bound);
    Ok(Sampler { levels, way: Way::Function { run, denoiser, tuning: order.tuning.clone() } })
}
