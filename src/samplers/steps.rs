//! How a sampler and the network meet: the sampler asks, whoever owns the network answers.
//!
//! A sampler is an async function, which reads as its paper does however often it evaluates the network in a step.
//! Nothing in it waits for anything but answers, so [`Steps::resume`] needs no executor: it runs the function up to
//! its next question and hands that out. Whoever drives it may stop between any two questions.

use super::brownian::Walk;
use super::levels::Levels;
use super::numeric::add;
use super::{Rule, Tuning};
use crate::error::Result;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Where standard normal values come from: fills the slice, which is as long as the sample; with a walk from a Brownian
/// motion.
pub type Noise = Box<dyn FnMut(&mut [f32], Option<Walk>)>;

/// What a sampler asks.
#[derive(Debug)]
pub enum Ask {
    /// The network's output for `input`, as long as it.
    Predict {
        /// From 0, counted from where sampling began. Does not fall.
        step: usize,
        /// What the network is told; fractional for some samplers.
        timestep: f32,
        input: Vec<f32>,
        /// CFG++: guide at a 12.5th of the scale, and append the output without guidance.
        cfg_plus_plus: bool,
    },
    /// A step is over. The answer is the sample to go on from: this one, unless it is to be changed.
    Step(Step),
    /// The finished sample. There is nothing more to ask.
    End(Vec<f32>),
}

/// A step of denoising, done.
#[derive(Debug)]
pub struct Step {
    /// From 0.
    pub step: usize,
    /// How many there will be; DPM adaptive finds that out on the way, and may go beyond.
    pub total: usize,
    /// What the network was told at the step's start.
    pub timestep: f32,
    /// Noise level before the step.
    pub sigma: f32,
    /// Noise level after it; `None` after the last.
    pub next: Option<f32>,
    pub sample: Vec<f32>,
    /// The picture that the sampler sees behind the noise.
    pub x0: Vec<f32>,
}

/// What question and answer are passed across.
pub(super) struct Desk {
    ask: Cell<Option<Ask>>,
    answer: Cell<Option<Vec<f32>>>,
    noise: RefCell<Noise>,
    /// The schedule's smallest and largest noise level.
    ends: (f32, f32),
}

impl Desk {
    async fn ask(&self, ask: Ask) -> Vec<f32> {
        self.ask.set(Some(ask));
        poll_fn(|_| self.answer.take().map_or(Poll::Pending, Poll::Ready)).await
    }

    fn draw(&self, z: &mut [f32], stretch: Option<(f32, f32)>) {
        let walk = stretch.map(|(from, to)| Walk { from, to, ends: self.ends });
        self.noise.borrow_mut()(z, walk);
    }
}

/// A sampler's way of running over a sample.
pub(super) type Running = Pin<Box<dyn Future<Output = Result<Vec<f32>>>>>;

/// A sampler under way.
pub struct Steps {
    desk: Rc<Desk>,
    running: Running,
}

impl Steps {
    pub(super) fn new(noise: Noise, ends: (f32, f32), run: impl FnOnce(Rc<Desk>) -> Running) -> Self {
        let noise = RefCell::new(noise);
        let desk = Rc::new(Desk { ask: Cell::default(), answer: Cell::default(), noise, ends });
        Self { running: run(desk.clone()), desk }
    }

    /// Answers the question before, `None` at first, and gives the next. Not to be called after [`Ask::End`].
    ///
    /// # Errors
    /// `invalid-option` for a number of steps that takes the sampler past the training's timesteps.
    pub fn resume(&mut self, answer: Option<Vec<f32>>) -> Result<Ask> {
        self.desk.answer.set(answer);
        match self.running.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(sample) => sample.map(Ask::End),
            Poll::Pending => Ok(self.desk.ask.take().expect("a sampler waits for answers only")),
        }
    }
}

/// Samplers that evaluate the network once a step: diffusers' schedulers.
pub(super) async fn stepwise(
    desk: Rc<Desk>,
    levels: Levels,
    mut rule: Box<dyn Rule>,
    begin: usize,
    mut sample: Vec<f32>,
) -> Result<Vec<f32>> {
    let end = levels.timesteps.len();
    for i in begin..end {
        let timestep = levels.timesteps[i];
        let (step, total, input) = (i - begin, end - begin, sample.clone());
        let cfg_plus_plus = rule.cfg_plus_plus();
        let output = desk.ask(Ask::Predict { step, timestep, input, cfg_plus_plus }).await;
        let stretch = rule.brownian().then(|| (levels.sigma(i), levels.sigma(i + 1)));
        let x0 = rule.step(&output, i, &mut sample, &mut |z| desk.draw(z, stretch))?;
        if i + 1 == end {
            sample.iter_mut().for_each(|x| *x *= levels.end_scale);
        }
        let next = (i + 1 < end).then(|| levels.sigma(i + 1));
        let done = Step { step, total, timestep, sigma: levels.sigma(i), next, sample, x0 };
        sample = desk.ask(Ask::Step(done)).await;
    }
    Ok(sample)
}

/// What a sampler over noise levels (k-diffusion's kind) works with. Its samples are pictures of unit spread with
/// noise of deviation sigma added.
pub(super) struct K {
    pub desk: Rc<Desk>,
    /// From where sampling begins.
    pub levels: Levels,
    pub tuning: Tuning,
    pub denoiser: Rc<super::levels::Denoiser>,
    /// Steps done.
    pub step: usize,
    pub total: usize,
}

impl K {
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
        let output = self.desk.ask(Ask::Predict { step, timestep, input, cfg_plus_plus: false }).await;
        self.denoiser.x0(sigma, &output, x)
    }

    /// What the network is told of a noise level: what the schedule says of it, or where churn moved it off the
    /// schedule, what lies there by logarithms.
    fn timestep(&self, sigma: f32) -> f32 {
        let own = self.levels.sigmas.iter().position(|&s| s == sigma);
        let own = own.and_then(|i| self.levels.timesteps.get(i).copied());
        own.unwrap_or_else(|| self.denoiser.timestep(sigma))
    }

    /// As many standard normal values, times `s_noise`.
    /// With two noise levels those of the Brownian motion between them.
    pub fn noise(&self, len: usize, stretch: Option<(f32, f32)>) -> Vec<f32> {
        let mut z = vec![0.0; len];
        self.desk.draw(&mut z, stretch);
        z.iter_mut().for_each(|z| *z *= self.tuning.s_noise);
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
        self.desk.ask(Ask::Step(step)).await
    }

    /// Noise levels before and after each step. (diffusers' "log_linear" has one level more than it steps to.)
    pub fn pairs(&self) -> Vec<(f32, f32)> {
        self.levels.sigmas.windows(2).take(self.levels.timesteps.len()).map(|w| (w[0], w[1])).collect()
    }

    /// Karras et al. 2022, algorithm 2: adds noise to `x` before a step from `sigma`, and gives the level that it then
    /// has. Draws only where there is churn.
    pub fn churn(&self, x: &mut [f32], sigma: f32) -> f32 {
        let t = &self.tuning;
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
    pub fn ancestral(&self, from: f32, to: f32, eta_default: f32) -> (f32, f32) {
        let eta = self.tuning.eta.unwrap_or(eta_default);
        let (from2, to2) = (from * from, to * to);
        let up = to.min(eta * (to2 * (from2 - to2) / from2).sqrt());
        ((to2 - up * up).sqrt(), up)
    }
}
