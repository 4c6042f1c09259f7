//! EDM (Karras et al. 2022, section 5): noise levels that no training's betas make, and a network whose input and output
//! are scaled by them. As diffusers' `EDMEulerScheduler` and `EDMDPMSolverMultistepScheduler` have it for Playground v2.5,
//! and ComfyUI's `ModelSamplingContinuousEDM` for CosXL.

use super::config::{Prediction, SchedulerConfig};
use super::numeric::{exp, ln, power_sigmas, torch_linspace};
use crate::error::{Error, Result};

/// The noise levels of an EDM checkpoint.
#[derive(Clone)]
pub(super) struct Edm {
    sigma_min: f64,
    sigma_max: f64,
    /// Spread of the pictures' latents, by which the network's input and output are scaled.
    pub sigma_data: f32,
    /// Karras' levels; else their logarithms are evenly spaced.
    karras: bool,
    rho: f64,
    /// The last step ends at the smallest level; else at none.
    ends_at_min: bool,
}

impl Edm {
    /// Reads the configuration; `None` for a class that is not EDM's.
    pub fn read(config: &SchedulerConfig) -> Result<Option<Self>> {
        if !config.is_edm() {
            return Ok(None);
        }
        let positive = |key, default| {
            let value = config.f64(key, default)?;
            let usable = value.is_finite() && (value as f32).is_normal() && value > 0.0;
            if usable { Ok(value) } else { Err(SchedulerConfig::refuse(key, value)) }
        };
        let (sigma_min, sigma_max) = (positive("sigma_min", 0.002)?, positive("sigma_max", 80.0)?);
        if sigma_min >= sigma_max {
            return Err(SchedulerConfig::refuse("sigma_min", sigma_min));
        }
        let karras = match config.str("sigma_schedule", "karras")? {
            "karras" => true,
            "exponential" => false,
            other => return Err(SchedulerConfig::refuse("sigma_schedule", other)),
        };
        let ends_at_min = match config.str("final_sigmas_type", "zero")? {
            "zero" => false,
            "sigma_min" => true,
            other => return Err(SchedulerConfig::refuse("final_sigmas_type", other)),
        };
        let (sigma_data, rho) = (positive("sigma_data", 0.5)? as f32, positive("rho", 7.0)?);
        Ok(Some(Self { sigma_min, sigma_max, sigma_data, karras, rho, ends_at_min }))
    }

    /// What the network's output means: what diffusers' EDM classes call "epsilon" is none of noise, but Karras' F.
    pub fn prediction(own: Prediction) -> Result<Prediction> {
        match own {
            Prediction::Epsilon => Ok(Prediction::Preconditioned),
            Prediction::Velocity => Ok(own),
            _ => Err(Error::unsupported(
                "a model of EDM's noise levels has prediction_type \"epsilon\" or \"v_prediction\"; leave \
                 predictionType out, or give one of these",
            )),
        }
    }

    /// `n` levels that rise, with even logarithms: what named schedules take for the training's, as in ComfyUI.
    pub fn all(&self, n: usize) -> Vec<f32> {
        let [min, max] = [self.sigma_min, self.sigma_max].map(|sigma| sigma.ln() as f32);
        torch_linspace(min, max, n).into_iter().map(exp).collect()
    }

    /// What the network is told of a level.
    pub fn timestep(sigma: f32) -> f32 {
        0.25 * ln(sigma)
    }

    /// That of the smallest level, and of the largest.
    pub fn timesteps(&self) -> [f32; 2] {
        [self.sigma_min, self.sigma_max].map(|sigma| Self::timestep(sigma as f32))
    }

    /// Share of the picture in the square of the network's input, where samples of the picture over `sigma_data` keep
    /// their spread: what stands for `alphas_cumprod`.
    pub fn alpha(&self, sigma: f32) -> f32 {
        let square = self.sigma_data * self.sigma_data;
        square / (sigma * sigma + square)
    }

    /// The checkpoint's own levels for so many steps, and the one after the last.
    pub fn own(&self, steps: usize) -> Vec<f32> {
        let mut sigmas: Vec<f32> = if self.karras {
            let levels = power_sigmas(self.sigma_min, self.sigma_max, self.rho, steps);
            levels.into_iter().map(|sigma| sigma as f32).collect()
        } else {
            let [min, max] = [self.sigma_min, self.sigma_max].map(|sigma| sigma.ln() as f32);
            torch_linspace(max, min, steps).into_iter().map(exp).collect()
        };
        sigmas.push(if self.ends_at_min { self.sigma_min as f32 } else { 0.0 });
        sigmas
    }
}
