//! Training on a GPU. What is random, the rate and Adam's corrections stay with `Learner`: it feeds batches for some steps
//! at a time, and these steps are one submit. The processor's memory is what counts: parameters and moments go to the GPU
//! as a call begins and come back as it ends, so that a GPU that is lost costs no more than that call.

use super::adam::{Adam, BETA2, EPSILON};
use super::kernels::{GRADS, Kernels, MOMENTS, VALUES};
use super::model::Model;
use super::op::{Op, Tensor};
use super::tape::Tape;
use crate::error::Result;
use crate::gpu::{Flat, Gpu, Launch};
use std::rc::Rc;

/// The arrays that no kernel binds: batches of some steps, and their losses.
const FEED: usize = 3;
const LOSSES: usize = 4;
/// Steps of a submit.
pub const STEPS: usize = 32;
/// What Adam is fed at each part of a step: `Adam::sizes`, and a factor of the gradient.
const SCALARS: usize = 3;

/// A model's kernels, and their memory.
pub struct Device {
    gpu: Rc<Gpu>,
    flat: Flat,
    parts: Vec<Part>,
    /// Values that a step is fed.
    feed: usize,
    losses: usize,
    parameters: usize,
}

/// A part of a step, as `Stage` has it.
struct Part {
    learn: Vec<Launch>,
    update: Vec<Launch>,
    /// What it is fed: a batch, then what Adam needs.
    inputs: Vec<Tensor>,
    losses: Vec<Tensor>,
}

impl Device {
    /// Compiles what a model recorded.
    ///
    /// # Errors
    /// As [`Gpu::check`], where the GPU refuses the memory.
    pub fn new<M: Model + ?Sized>(gpu: Rc<Gpu>, model: &M) -> Result<Self> {
        let recorded = model.recorded();
        let parameters = recorded.nets.last().map_or(0, |net| net.range.end);
        let count = recorded.stages.len();
        let inputs = |stage: &super::tape::Stage| stage.inputs.iter().map(|t| t.len()).sum::<usize>();
        let feed = recorded.stages.iter().map(|stage| inputs(stage) + SCALARS).sum();
        let losses: usize = recorded.stages.iter().map(|stage| stage.losses.len()).sum();
        let values = recorded.learnt + SCALARS * count;
        let sizes = [values, recorded.learnt, 2 * parameters, STEPS * feed, STEPS * losses];
        let flat = Flat::new(&gpu, &sizes);
        let mut parts = Vec::with_capacity(count);
        for (i, stage) in recorded.stages.iter().enumerate() {
            let mut kernels = Kernels { gpu: &gpu, flat: &flat, launches: Vec::new() };
            stage.before.iter().chain(&stage.ops).try_for_each(|op| kernels.forward(op))?;
            stage.ops.iter().rev().try_for_each(|op| kernels.backward(op))?;
            let learn = std::mem::take(&mut kernels.launches);
            let scalars = recorded.learnt + SCALARS * i;
            if let Some(most) = model.most() {
                kernels.clip(&stage.learns, most, scalars + 2)?;
            }
            let rest1 = 1.0 - model.beta1();
            let numbers = [("rest1", rest1), ("beta2", BETA2), ("rest2", 1.0 - BETA2), ("epsilon", EPSILON)];
            kernels.adam(&stage.learns, scalars, numbers)?;
            let scalars = Tensor { at: scalars, rows: 1, cols: SCALARS };
            let inputs = stage.inputs.iter().copied().chain([scalars]).collect();
            parts.push(Part { learn, update: kernels.launches, inputs, losses: stage.losses.clone() });
        }
        gpu.check()?;
        Ok(Self { gpu, flat, parts, feed, losses, parameters })
    }

    /// What a part of a step is fed: its batch as `tape` has it, and what Adam needs.
    pub fn feed(&self, stage: usize, tape: &Tape, adam: &mut Adam, rate: f32, feed: &mut Vec<f32>) {
        let (size, root) = adam.sizes(rate);
        let inputs = &self.parts[stage].inputs;
        for tensor in &inputs[..inputs.len() - 1] {
            feed.extend_from_slice(&tape.values[tensor.range()]);
        }
        feed.extend([size, root, 1.0]);
    }

    /// Gives the GPU what was learnt so far: parameters, and Adam's means and squares by turns.
    pub fn load(&self, parameters: &[f32], moments: &[f32]) {
        self.flat.write(&self.gpu, (VALUES, 0), parameters);
        self.flat.write(&self.gpu, (MOMENTS, 0), moments);
    }

    /// Does so many steps, at most [`STEPS`], and adds the losses of each stage.
    ///
    /// # Errors
    /// As [`Gpu::check`].
    pub async fn run(&self, feed: &[f32], steps: usize, stages: &mut [Vec<f32>]) -> Result<()> {
        self.flat.write(&self.gpu, (FEED, 0), feed);
        let mut submit = self.flat.submit(&self.gpu);
        for step in 0..steps {
            let (mut from, mut to) = (step * self.feed, step * self.losses);
            for part in &self.parts {
                for tensor in &part.inputs {
                    submit.copy(((FEED, from), (VALUES, tensor.at), tensor.len()));
                    from += tensor.len();
                }
                submit.clear(GRADS);
                submit.run(part.learn.iter().chain(&part.update));
                for loss in &part.losses {
                    submit.copy(((VALUES, loss.at), (LOSSES, to), 1));
                    to += 1;
                }
            }
        }
        submit.end(&self.gpu);
        let losses = self.flat.read(&self.gpu, &[(LOSSES, 0..steps * self.losses)]).await?;
        for step in losses.chunks_exact(self.losses) {
            let mut at = 0;
            for (out, part) in stages.iter_mut().zip(&self.parts) {
                out.push(step[at..at + part.losses.len()].iter().sum());
                at += part.losses.len();
            }
        }
        Ok(())
    }

    /// What was learnt, as [`Device::load`] has it.
    ///
    /// # Errors
    /// As [`Gpu::check`].
    pub async fn unload(&self) -> Result<(Vec<f32>, Vec<f32>)> {
        let parts = [(VALUES, 0..self.parameters), (MOMENTS, 0..2 * self.parameters)];
        let mut parameters = self.flat.read(&self.gpu, &parts).await?;
        let moments = parameters.split_off(self.parameters);
        Ok((parameters, moments))
    }

    /// Computes a stage's loss and its gradients, as [`Tape::learn`] does.
    ///
    /// # Errors
    /// As [`Gpu::check`].
    pub async fn learn(&self, tape: &mut Tape, stage: usize) -> Result<f32> {
        let part = &self.parts[stage];
        self.flat.write(&self.gpu, (VALUES, 0), &tape.values[..tape.grads.len()]);
        let mut submit = self.flat.submit(&self.gpu);
        submit.clear(GRADS);
        submit.run(&part.learn);
        submit.end(&self.gpu);
        tape.grads = self.flat.read(&self.gpu, &[(GRADS, 0..tape.grads.len())]).await?;
        let losses: Vec<_> = part.losses.iter().map(|loss| (VALUES, loss.range())).collect();
        Ok(self.flat.read(&self.gpu, &losses).await?.iter().sum())
    }
}

/// Computes one operation, forward and then backward, over values and gradients.
///
/// # Errors
/// As [`Gpu::check`].
pub async fn compute(gpu: &Gpu, op: &Op, values: &mut Vec<f32>, grads: &mut Vec<f32>) -> Result<()> {
    let count = values.len();
    let flat = Flat::new(gpu, &[count, count, 1]);
    let mut kernels = Kernels { gpu, flat: &flat, launches: Vec::new() };
    kernels.forward(op)?;
    kernels.backward(op)?;
    flat.write(gpu, (VALUES, 0), values);
    flat.write(gpu, (GRADS, 0), grads);
    let mut submit = flat.submit(gpu);
    submit.run(&kernels.launches);
    submit.end(gpu);
    *values = flat.read(gpu, &[(VALUES, 0..count), (GRADS, 0..count)]).await?;
    *grads = values.split_off(count);
    Ok(())
}
