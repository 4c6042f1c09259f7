//! What a sampler over noise levels, in the manner of k-diffusion, works with. Its samples are pictures of unit spread
//! with noise of deviation sigma added.

use super::levels::{Denoiser, Levels};
use super::numeric::add;
use super::setup::Knobs;
use super::steps::{Ask, Host, Step};
use std::rc::Rc;

/// One run of a sampler over noise levels.
pub(super) struct Run {
    pub host: Rc<Host>,
    /// From where sampling begins.
    pub levels: Levels,
    pub knobs: Knobs,
    pub denoiser: Denoiser,
    /// Steps done.
    pub step: usize,
    pub total: usize,
}

impl Run {
    /// The picture behind the noise of deviation `sigma`, one of the schedule's levels, as the network sees it in `x`.
    pub async fn denoise(&self, x: &[f32], sigma: f32) -> Vec<f32> {
        self.denoise_at(x, sigma, self.timestep(sigma)).await
    }

    /// The same at a level between those of the schedule.
    pub async fn denoise_between(&self, x: &[f32], sigma: f32) -> Vec<f32> {
        self.denoise_at(x, sigma, self.denoiser.timestep(sigma)).await
    }

    async fn denoise_at(&self, x: &[f32], sigma: f32, timestep: f32) -> Vec<f32> {
        let mut input = x.to_vec();
        self.levels.scale_model_input(&mut input, sigma);
        let step = self.step;
        let output = self.host.ask(Ask::Predict { step, timestep, input, cfg_plus_plus: false }).await;
        self.denoiser.x0(sigma, &output, x)
    }

    /// The timestep of a noise level: the schedule's own, or where churn moved the level off the schedule, one
    /// interpolated between logarithms.
    fn timestep(&self, sigma: f32) -> f32 {
        let own = self.levels.sigmas.iter().position(|&s| s == sigma);
        let own = own.and_then(|i| self.levels.timesteps.get(i).copied());
        own.unwrap_or_else(|| self.denoiser.timestep(sigma))
    }

    /// As many standard normal values, times `s_noise`.
    /// With two noise levels those of the Brownian motion between them.
    pub fn noise(&self, len: usize, stretch: Option<(f32, f32)>) -> Vec<f32> {
        let mut z = vec![0.0; len];
        self.host.draw(&mut z, stretch);
        z.iter_mut().for_each(|z| *z *= self.knobs.s_noise);
        z
    }

    /// Adds fresh noise of this deviation, in place.
    pub fn add_noise(&self, x: &mut [f32], deviation: f32) {
        add(x, &self.noise(x.len(), None), deviation);
    }

    /// Tells of a step from `sigma` to `next` and takes the sample back.
    pub async fn done(&mut self, sample: Vec<f32>, x0: Vec<f32>, sigma: f32, next: f32) -> Vec<f32> {
        let last = self.step + 1 >= self.total || next == 0.0;
        let step = Step {
            step: self.step,
            total: self.total,
            timestep: self.timestep(sigma),
            sigma,
            next: (!last).then_some(next),
            sample,
            x0,
        };
        self.step += 1;
        self.host.ask(Ask::Step(step)).await
    }

    /// Noise levels before and after each step. (diffusers' "log_linear" has one level more than it steps to.)
    pub fn pairs(&self) -> Vec<(f32, f32)> {
        self.levels.sigmas.windows(2).take(self.levels.timesteps.len()).map(|w| (w[0], w[1])).collect()
    }

    /// Karras et al. 2022, algorithm 2: adds noise to `x` before a step from `sigma`, and gives the level that it then
    /// has. Draws only where there is churn.
    pub fn churn(&self, x: &mut [f32], sigma: f32) -> f32 {
        let t = &self.knobs;
        if t.s_churn <= 0.0 || !(t.s_tmin..=t.s_tmax).contains(&sigma) {
            return sigma;
        }
        let gamma = (t.s_churn / self.levels.timesteps.len() as f32).min(2f32.sqrt() - 1.0);
        let hat = sigma * (gamma + 1.0);
        let up = (hat * hat - sigma * sigma).sqrt();
        self.add_noise(x, up);
        hat
    }

    /// k-diffusion's `get_ancestral_step`: the level to step down to, and the deviation of the noise that then leads up
    /// to `to`.
    pub fn ancestral(&self, from: f32, to: f32) -> (f32, f32) {
        let (from2, to2) = (from * from, to * to);
        let up = to.min(self.knobs.eta * (to2 * (from2 - to2) / from2).sqrt());
        ((to2 - up * up).sqrt(), up)
    }
}
