//! What learns: networks, what moves them, and every random number in one order.

use super::adam::{Adam, clip, rate};
use super::gpu::{self, Device};
use super::model::{Draw, Model};
use super::tape::{Recorder, Tape};
use crate::error::{Code, Error, Result};
use crate::gpu::Gpu;
use crate::samplers::Twister;
use std::rc::Rc;

/// A loss beyond this is no learning any more. What is learnt well has a loss of at most some hundreds from the beginning.
const DIVERGED: f32 = 1e6;

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

/// What a training goes back to: parameters, Adam's state, random numbers, steps done.
type Kept = (Vec<f32>, Vec<Adam>, Twister, usize);

/// A model and its memory.
pub(super) struct Learner<M: ?Sized> {
    pub tape: Tape,
    /// Steps done.
    pub step: usize,
    plan: Plan,
    parameters: usize,
    adams: Vec<Adam>,
    twister: Twister,
    pub model: Box<M>,
}

impl<M: Model + ?Sized> Learner<M> {
    /// Of a model that was recorded with `r`.
    pub fn new(r: &Recorder, model: Box<M>, plan: Plan) -> Self {
        let tape = Tape::new(r, model.recorded().learnt);
        let parameters = model.recorded().nets.last().map_or(0, |net| net.range.end);
        let twister = Twister::new(u64::from(plan.seed));
        let mut learner = Self { tape, step: 0, plan, parameters, adams: Vec::new(), twister, model };
        learner.reset(plan.seed);
        learner
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

    /// Every weight and bias, network after network.
    pub fn parameters(&self) -> &[f32] {
        &self.tape.values[..self.parameters]
    }

    /// Learns for so many steps. `points`: what batches are drawn from, where they are points.
    ///
    /// # Errors
    /// `InvalidOption`: the training diverged. The networks are then what they were before.
    pub fn train(&mut self, points: &[[f32; 2]], steps: usize) -> Result<Losses> {
        let before = self.kept();
        let mut stages: Vec<Vec<f32>> = vec![Vec::with_capacity(steps); self.adams.len()];
        for _ in 0..steps {
            for (i, losses) in stages.iter_mut().enumerate() {
                losses.push(self.gradients(points, i));
                self.update(i);
            }
            self.step += 1;
        }
        self.judged(before, stages)
    }

    /// What trains this model on a GPU, where a step comes out there as it does here.
    ///
    /// # Errors
    /// As [`Gpu::check`]; `webgpu-unavailable` where the step comes out otherwise.
    pub async fn device(&mut self, gpu: Rc<Gpu>, points: &[[f32; 2]]) -> Result<Device> {
        let device = Device::new(gpu, &*self.model)?;
        let (before, plan) = (self.kept(), self.plan);
        // Whatever was asked for, this one does not diverge.
        self.plan.rate = 1e-3;
        let here = self.train(points, 1).map(|_| self.parameters().to_vec());
        self.undo(before.clone());
        let there = self.train_on(&device, points, 1).await.map(|_| self.parameters().to_vec());
        self.undo(before.clone());
        self.plan = plan;
        let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>();
        let (here, there) = (here?, there?);
        // Adam's first step is as long for the smallest gradient, whose sign may be rounding.
        if apart(&here, &there) < 1e-2 * apart(&here, &before.0) {
            return Ok(device);
        }
        Err(Error::new(
            Code::WebGpuUnavailable,
            "This GPU computes a step of training wrongly. Leave `device` out, or set it to \"cpu\".",
        ))
    }

    /// `train` on a GPU.
    ///
    /// # Errors
    /// As `train`, and as [`Gpu::check`]: the networks are then what they were before, and `train` goes on.
    pub async fn train_on(&mut self, device: &Device, points: &[[f32; 2]], steps: usize) -> Result<Losses> {
        let before = self.kept();
        match self.steps_on(device, points, steps).await {
            Ok(stages) => self.judged(before, stages),
            Err(error) => {
                self.undo(before);
                Err(error)
            }
        }
    }

    async fn steps_on(
        &mut self,
        device: &Device,
        points: &[[f32; 2]],
        steps: usize,
    ) -> Result<Vec<Vec<f32>>> {
        let mut stages: Vec<Vec<f32>> = vec![Vec::with_capacity(steps); self.adams.len()];
        let mut moments = vec![0.0; 2 * self.parameters];
        self.adams.iter().for_each(|adam| adam.save(&mut moments));
        device.load(self.parameters(), &moments);
        let end = self.step + steps;
        while self.step < end {
            let count = gpu::STEPS.min(end - self.step);
            let mut feed = Vec::new();
            for _ in 0..count {
                for stage in 0..self.adams.len() {
                    let mut draw = Draw { twister: &mut self.twister, points };
                    self.model.batch(stage, &mut self.tape.values, &mut draw);
                    let rate = rate(self.plan.rate, self.step, self.plan.steps);
                    device.feed(stage, &self.tape, &mut self.adams[stage], rate, &mut feed);
                }
                self.step += 1;
            }
            device.run(&feed, count, &mut stages).await?;
        }
        let (parameters, moments) = device.unload().await?;
        self.tape.values[..self.parameters].copy_from_slice(&parameters);
        self.adams.iter_mut().for_each(|adam| adam.restore(&moments));
        Ok(stages)
    }

    fn kept(&self) -> Kept {
        (self.parameters().to_vec(), self.adams.clone(), self.twister.clone(), self.step)
    }

    fn undo(&mut self, before: Kept) {
        self.tape.values[..self.parameters].copy_from_slice(&before.0);
        (self.adams, self.twister, self.step) = (before.1, before.2, before.3);
    }

    /// What steps came to, unless they diverged.
    fn judged(&mut self, before: Kept, mut stages: Vec<Vec<f32>>) -> Result<Losses> {
        let whole = |v: &f32| v.is_finite();
        let small = |loss: &f32| loss.abs() < DIVERGED;
        if stages.iter().flatten().all(small) && self.parameters().iter().all(whole) {
            let losses = stages.pop().unwrap_or_default();
            return Ok(Losses { losses, critic: stages.pop() });
        }
        let at = before.3;
        self.undo(before);
        Err(Error::invalid(format!(
            "Training diverged after step {at}: its loss grew beyond every bound. The network is again what it was \
             then. Begin anew with a smaller learning rate (it was {}).",
            self.plan.rate
        )))
    }

    /// Draws the batch of a part of a step and computes its loss and gradients, in `gradient`.
    pub fn gradients(&mut self, points: &[[f32; 2]], stage: usize) -> f32 {
        let mut draw = Draw { twister: &mut self.twister, points };
        self.model.batch(stage, &mut self.tape.values, &mut draw);
        self.tape.learn(&self.model.recorded().stages[stage])
    }

    /// `gradients` on a GPU.
    ///
    /// # Errors
    /// As [`Gpu::check`].
    pub async fn gradients_on(&mut self, device: &Device, points: &[[f32; 2]], stage: usize) -> Result<f32> {
        let mut draw = Draw { twister: &mut self.twister, points };
        self.model.batch(stage, &mut self.tape.values, &mut draw);
        device.learn(&mut self.tape, stage).await
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
}
