//! One family that learns one set.

use super::data::{Data, Score};
use super::diffusion::Diffusion;
use super::flow::Flow;
use super::gan::Gan;
use super::gpu::Device;
use super::learner::{Learner, Losses, Plan};
use super::model::{Ask, Picture, Plane};
use super::tape::Recorder;
use super::vae::Vae;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::named::Named;
use crate::samplers::Twister;
use std::rc::Rc;

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
/// Samples that a score is taken of.
const SCORED: usize = 1000;
/// Points that a picture shows on their way, or encoded.
const SHOWN: usize = 200;

/// A family that learns.
pub struct Trainer {
    learner: Learner<dyn Plane>,
    data: Data,
}

impl Trainer {
    pub fn new(family: Family, data: Data, plan: Plan) -> Self {
        let mut r = Recorder::default();
        let model: Box<dyn Plane> = match family {
            Family::Diffusion => Box::new(Diffusion::record(&mut r)),
            Family::Flow => Box::new(Flow::record(&mut r)),
            Family::Gan => Box::new(Gan::record(&mut r)),
            Family::Vae => Box::new(Vae::record(&mut r)),
        };
        Self { learner: Learner::new(&r, model, plan), data }
    }

    /// Begins anew.
    pub fn reset(&mut self, seed: u32) {
        self.learner.reset(seed);
    }

    /// Steps done.
    pub fn step(&self) -> usize {
        self.learner.step
    }

    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Every weight and bias, network after network.
    pub fn parameters(&self) -> &[f32] {
        self.learner.parameters()
    }

    /// Learns for so many steps.
    ///
    /// # Errors
    /// `InvalidOption`: the training diverged. The networks are then what they were before.
    pub fn train(&mut self, steps: usize) -> Result<Losses> {
        self.learner.train(&self.data.points, steps)
    }

    /// What trains this family on a GPU, where a step comes out there as it does here.
    ///
    /// # Errors
    /// As [`Gpu::check`]; `webgpu-unavailable` where the step comes out otherwise.
    pub async fn device(&mut self, gpu: Rc<Gpu>) -> Result<Device> {
        self.learner.device(gpu, &self.data.points).await
    }

    /// `train` on a GPU.
    ///
    /// # Errors
    /// As `train`, and as [`Gpu::check`]: the networks are then what they were before, and `train` goes on from there.
    pub async fn train_on(&mut self, device: &Device, steps: usize) -> Result<Losses> {
        self.learner.train_on(device, &self.data.points, steps).await
    }

    /// `gradients` on a GPU.
    ///
    /// # Errors
    /// As [`Gpu::check`].
    pub async fn gradients_on(&mut self, device: &Device, stage: usize) -> Result<f32> {
        self.learner.gradients_on(device, &self.data.points, stage).await
    }

    /// Draws the batch of a part of a step and computes its loss and gradients, in `gradient`.
    pub fn gradients(&mut self, stage: usize) -> f32 {
        self.learner.gradients(&self.data.points, stage)
    }

    /// The gradients of what a part of a step moves.
    pub fn gradient(&self, stage: usize) -> &[f32] {
        self.learner.gradient(stage)
    }

    /// Moves the parameters of a part of a step against their gradients.
    pub fn update(&mut self, stage: usize) {
        self.learner.update(stage);
    }

    /// So many samples, x and y in turn.
    pub fn samples(&mut self, count: usize, seed: u32) -> Vec<f32> {
        self.learner.model.sample(&mut self.learner.tape, &normal(2 * count, seed))
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
        let noise = normal(2 * SHOWN, 0);
        self.learner
            .model
            .picture(&mut self.learner.tape, &Ask { size, time, points: &points, noise: &noise })
    }
}

/// So many standard normal values.
pub(super) fn normal(count: usize, seed: u32) -> Vec<f32> {
    let mut noise = vec![0.0; count];
    Twister::new(u64::from(seed)).randn(&mut noise);
    noise
}
