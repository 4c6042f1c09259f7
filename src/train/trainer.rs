//! One family that learns one set.

use super::adam::{Adam, clip, rate};
use super::data::{Data, Score};
use super::diffusion::Diffusion;
use super::flow::Flow;
use super::gan::Gan;
use super::model::{Ask, Draw, Model, Picture};
use super::tape::{Recorder, Tape};
use super::vae::Vae;
use crate::error::{Error, Result};
use crate::named::Named;
use crate::samplers::Twister;

/// A kind of generative model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Diffusion,
    Flow,
    Gan,
    Vae,
}

impl Named for Family {
    const NAMES: &'static [(&'static str, Self)] =
        &[("diffusion", Self::Diffusion), ("flow", Self::Flow), ("gan", Self::Gan), ("vae", Self::Vae)];
}

impl Family {
    /// The learning rate at its highest.
    pub fn rate(self) -> f32 {
        match self {
            Self::Diffusion | Self::Vae => 2e-3,
            // Less steady ones: a rounding grows slower at half the rate (docs/training.md).
            Self::Flow | Self::Gan => 1e-3,
        }
    }
}

/// Steps of a whole training.
pub const STEPS: usize = 2000;
/// A loss beyond this is no learning any more. What is learnt well has a loss of at most some hundreds from the beginning.
const DIVERGED: f32 = 1e6;
/// Samples that a score is taken of.
const SCORED: usize = 1000;
/// Points that a picture shows on their way, or encoded.
const SHOWN: usize = 200;

/// How to train.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Of weights, batches and noise.
    pub seed: u32,
    /// Steps until the learning rate has fallen.
    pub steps: usize,
    pub rate: f32,
}

/// What steps came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// One a step; of a GAN the generator's.
    pub losses: Vec<f32>,
    /// A GAN's discriminator's.
    pub critic: Option<Vec<f32>>,
}

/// A family that learns.
pub struct Trainer {
    model: Box<dyn Model>,
    data: Data,
    plan: Plan,
    tape: Tape,
    parameters: usize,
    adams: Vec<Adam>,
    twister: Twister,
    step: usize,
}

impl Trainer {
    pub fn new(family: Family, data: Data, plan: Plan) -> Self {
        let mut r = Recorder::default();
        let model: Box<dyn Model> = match family {
            Family::Diffusion => Box::new(Diffusion::record(&mut r)),
            Family::Flow => Box::new(Flow::record(&mut r)),
            Family::Gan => Box::new(Gan::record(&mut r)),
            Family::Vae => Box::new(Vae::record(&mut r)),
        };
        let tape = Tape::new(&r, model.recorded().learnt);
        let parameters = model.recorded().nets.last().map_or(0, |net| net.range.end);
        let twister = Twister::new(u64::from(plan.seed));
        let mut trainer = Self { model, data, plan, tape, parameters, adams: Vec::new(), twister, step: 0 };
        trainer.reset(plan.seed);
        trainer
    }

    /// Begins anew.
    pub fn reset(&mut self, seed: u32) {
        self.plan.seed = seed;
        self.twister = Twister::new(u64::from(seed));
        let recorded = self.model.recorded();
        self.tape.init(&recorded.nets, &mut self.twister);
        let beta1 = self.model.beta1();
        self.adams = recorded.stages.iter().map(|s| Adam::new(s.learns.clone(), beta1)).collect();
        self.step = 0;
    }

    /// Steps done.
    pub fn step(&self) -> usize {
        self.step
    }

    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Every weight and bias, network after network.
    pub fn parameters(&self) -> &[f32] {
        &self.tape.values[..self.parameters]
    }

    /// Learns for so many steps.
    ///
    /// # Errors
    /// `InvalidOption`: the training diverged. The networks are then what they were before.
    pub fn train(&mut self, steps: usize) -> Result<Losses> {
        let before = (self.parameters().to_vec(), self.adams.clone(), self.twister.clone(), self.step);
        let mut stages: Vec<Vec<f32>> = vec![Vec::with_capacity(steps); self.adams.len()];
        for _ in 0..steps {
            for (i, losses) in stages.iter_mut().enumerate() {
                losses.push(self.gradients(i));
                self.update(i);
            }
            self.step += 1;
        }
        let whole = |v: &f32| v.is_finite();
        let small = |loss: &f32| loss.abs() < DIVERGED;
        if stages.iter().flatten().all(small) && self.parameters().iter().all(whole) {
            let losses = stages.pop().unwrap_or_default();
            return Ok(Losses { losses, critic: stages.pop() });
        }
        let at = self.step - steps;
        self.tape.values[..self.parameters].copy_from_slice(&before.0);
        (self.adams, self.twister, self.step) = (before.1, before.2, before.3);
        Err(Error::invalid(format!(
            "Training diverged after step {at}: its loss grew beyond every bound. The network is again what it was \
             then. Begin anew with a smaller learning rate (it was {}).",
            self.plan.rate
        )))
    }

    /// Draws the batch of a part of a step and computes its loss and gradients, in `gradient`.
    pub fn gradients(&mut self, stage: usize) -> f32 {
        let mut draw = Draw { twister: &mut self.twister, points: &self.data.points };
        self.model.batch(stage, &mut self.tape.values, &mut draw);
        self.tape.learn(&self.model.recorded().stages[stage])
    }

    /// The gradients of what a part of a step moves.
    pub fn gradient(&self, stage: usize) -> &[f32] {
        &self.tape.grads[self.model.recorded().stages[stage].learns.clone()]
    }

    /// Moves the parameters of a part of a step against their gradients.
    pub fn update(&mut self, stage: usize) {
        let rate = rate(self.plan.rate, self.step, self.plan.steps);
        if let Some(most) = self.model.most() {
            let learns = self.model.recorded().stages[stage].learns.clone();
            clip(&mut self.tape.grads[learns], most);
        }
        self.adams[stage].step(&mut self.tape.values, &self.tape.grads, rate);
    }

    /// So many samples, x and y in turn.
    pub fn samples(&mut self, count: usize, seed: u32) -> Vec<f32> {
        self.model.sample(&mut self.tape, &normal(count, seed))
    }

    /// Scores what the family makes now.
    pub fn score(&mut self) -> Score {
        let samples = self.samples(SCORED, 1);
        self.data.score(&samples)
    }

    /// What this family alone can show, on a grid of so many points a side.
    pub fn picture(&mut self, size: usize, time: f32) -> Picture {
        let count = self.data.points.len();
        let shown = SHOWN.min(count);
        // Spread over a drawing, whose first points are its first stroke.
        let points: Vec<[f32; 2]> = (0..shown).map(|i| self.data.points[i * count / shown]).collect();
        let noise = normal(SHOWN, 0);
        self.model.picture(&mut self.tape, &Ask { size, time, points: &points, noise: &noise })
    }
}

fn normal(count: usize, seed: u32) -> Vec<f32> {
    let mut noise = vec![0.0; 2 * count];
    Twister::new(u64::from(seed)).randn(&mut noise);
    noise
}
