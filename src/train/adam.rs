//! Adam (Kingma and Ba 2015) as torch computes it, and the learning rate's way.

use std::ops::Range;

/// Steps over which the rate rises.
const WARM_UP: f32 = 50.0;
/// What the cosine leaves of the rate in the end.
const LEAST: f64 = 0.02;
/// What the squares keep of themselves at a step.
pub const BETA2: f32 = 0.999;
/// Keeps a quotient of two zeros from being none.
pub const EPSILON: f32 = 1e-8;

/// The rate of a step, counted from 0: linear warm-up, and a cosine that has fallen by the last of `steps`.
pub fn rate(base: f32, step: usize, steps: usize) -> f32 {
    let way = (step as f64 / steps as f64).min(1.0);
    let decay = LEAST + (1.0 - LEAST) * (1.0 + (std::f64::consts::PI * way).cos()) / 2.0;
    base * ((step + 1) as f32 / WARM_UP).min(1.0) * decay as f32
}

/// Makes a gradient at most so long (`clip_grad_norm_` of torch).
pub fn clip(grads: &mut [f32], most: f32) {
    let length = grads.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
    let by = (f64::from(most) / (length + 1e-6)).min(1.0) as f32;
    grads.iter_mut().for_each(|grad| *grad *= by);
}

/// The state for one range of parameters.
#[derive(Clone)]
pub struct Adam {
    range: Range<usize>,
    beta1: f32,
    mean: Vec<f32>,
    square: Vec<f32>,
    step: i32,
}

impl Adam {
    pub fn new(range: Range<usize>, beta1: f32) -> Self {
        let zeros = vec![0.0; range.len()];
        Self { range, beta1, mean: zeros.clone(), square: zeros, step: 0 }
    }

    /// Counts a step: its size, and the root of what the squares are corrected by.
    pub fn sizes(&mut self, rate: f32) -> (f32, f32) {
        self.step += 1;
        let corrected = |beta: f32| 1.0 - f64::from(beta).powi(self.step);
        let size = (f64::from(rate) / corrected(self.beta1)) as f32;
        (size, corrected(BETA2).sqrt() as f32)
    }

    /// Writes the means and squares by turns to where the parameters' are.
    pub fn save(&self, moments: &mut [f32]) {
        let out = moments.as_chunks_mut::<2>().0[self.range.clone()].iter_mut();
        for ((out, &mean), &square) in out.zip(&self.mean).zip(&self.square) {
            *out = [mean, square];
        }
    }

    /// Takes them from there.
    pub fn restore(&mut self, moments: &[f32]) {
        let from = &moments.as_chunks::<2>().0[self.range.clone()];
        (self.mean, self.square) = from.iter().map(|&[mean, square]| (mean, square)).unzip();
    }

    /// Moves the parameters against their gradients.
    pub fn step(&mut self, values: &mut [f32], grads: &[f32], rate: f32) {
        let (size, root) = self.sizes(rate);
        let state = self.mean.iter_mut().zip(&mut self.square);
        let parameters = values[self.range.clone()].iter_mut().zip(&grads[self.range.clone()]);
        for ((mean, square), (value, &grad)) in state.zip(parameters) {
            *mean += (grad - *mean) * (1.0 - self.beta1);
            *square = *square * BETA2 + grad * grad * (1.0 - BETA2);
            *value -= size * *mean / (square.sqrt() / root + EPSILON);
        }
    }
}
