//! How a sampler and the network meet: the sampler asks, whoever owns the network answers.
//!
//! A sampler is an async function, which reads as its paper does however often it evaluates the network in a step.
//! Nothing in it waits for anything but answers, so [`Steps::resume`] needs no executor: it runs the function up to
//! its next question and hands that out. Whoever drives it may stop between any two questions.

use super::brownian::Walk;
use super::levels::Levels;
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
        /// Goes to the network; fractional for some samplers.
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
    /// The timestep that the network got at the step's start.
    pub timestep: f32,
    /// Noise level before the step.
    pub sigma: f32,
    /// Noise level after it; `None` after the last.
    pub next: Option<f32>,
    pub sample: Vec<f32>,
    /// The picture that the sampler sees behind the noise.
    pub x0: Vec<f32>,
}

/// Whoever runs a sampler, as the sampler sees it: the network by questions and answers, noise by draws.
pub(super) struct Host {
    ask: Cell<Option<Ask>>,
    answer: Cell<Option<Vec<f32>>>,
    noise: RefCell<Noise>,
    /// The schedule's smallest and largest noise level.
    ends: (f32, f32),
}

impl Host {
    pub async fn ask(&self, ask: Ask) -> Vec<f32> {
        self.ask.set(Some(ask));
        poll_fn(|_| self.answer.take().map_or(Poll::Pending, Poll::Ready)).await
    }

    pub fn draw(&self, z: &mut [f32], stretch: Option<(f32, f32)>) {
        let walk = stretch.map(|(from, to)| Walk { from, to, ends: self.ends });
        self.noise.borrow_mut()(z, walk);
    }
}

/// A sampler's way of running over a sample.
pub(super) type Running = Pin<Box<dyn Future<Output = Result<Vec<f32>>>>>;

/// A sampler under way.
pub struct Steps {
    host: Rc<Host>,
    running: Running,
}

impl Steps {
    pub(super) fn new(noise: Noise, ends: (f32, f32), run: impl FnOnce(Rc<Host>) -> Running) -> Self {
        let noise = RefCell::new(noise);
        let host = Rc::new(Host { ask: Cell::default(), answer: Cell::default(), noise, ends });
        Self { running: run(host.clone()), host }
    }

    /// Answers the last question (`None` before the first) and returns the next. Must not be called after [`Ask::End`].
    ///
    /// # Errors
    /// `invalid-option` for a number of steps that takes the sampler past the training's timesteps.
    pub fn resume(&mut self, answer: Option<Vec<f32>>) -> Result<Ask> {
        self.host.answer.set(answer);
        match self.running.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(sample) => sample.map(Ask::End),
            Poll::Pending => Ok(self.host.ask.take().expect("a sampler waits for answers only")),
        }
    }
}

/// A sampler that evaluates the network once a step: from the network's output to the next sample.
pub(super) trait Rule {
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

/// Runs a rule over the steps from `begin` on.
pub(super) async fn stepwise(
    host: Rc<Host>,
    levels: Levels,
    mut rule: Box<dyn Rule>,
    begin: usize,
    mut sample: Vec<f32>,
) -> Result<Vec<f32>> {
    let end = levels.timesteps.len();
    for i in begin..end {
        let timestep = levels.timesteps[i];
        let (step, total, mut input) = (i - begin, end - begin, sample.clone());
        levels.scale_model_input(&mut input, levels.sigma(i));
        let cfg_plus_plus = rule.cfg_plus_plus();
        let output = host.ask(Ask::Predict { step, timestep, input, cfg_plus_plus }).await;
        let stretch = rule.brownian().then(|| (levels.sigma(i), levels.sigma(i + 1)));
        let x0 = rule.step(&output, i, &mut sample, &mut |z| host.draw(z, stretch))?;
        if i + 1 == end {
            sample.iter_mut().for_each(|x| *x *= levels.end_scale);
        }
        let next = (i + 1 < end).then(|| levels.sigma(i + 1));
        let done = Step { step, total, timestep, sigma: levels.sigma(i), next, sample, x0 };
        sample = host.ask(Ask::Step(done)).await;
    }
    Ok(sample)
}
