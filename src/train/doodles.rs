//! A diffusion model of pictures of 16x16 pixels, which learns a handful of drawings: the model of `diffusion.rs`, in 256
//! directions instead of two. It sees each drawing moved by up to a pixel, which is all that keeps it from copying. It
//! guesses the clean picture: noise in 256 directions does not pass through layers narrower than that, and a network that
//! guesses v learns little else for a thousand steps.

use super::diffusion::{SAMPLE_STEPS, mixed};
use super::learner::{Learner, Losses, Plan};
use super::model::{Draw, Model, Recorded};
use super::op::{FREQUENCIES, Op, Tensor};
use super::tape::{Program, Recorder, Stage, Use, features};
use super::trainer::normal;
use crate::error::{Error, Result};
use std::f32::consts::FRAC_PI_2;

pub const SIDE: usize = 16;
/// Of a picture.
pub const PIXELS: usize = SIDE * SIDE;
/// Beside the pixels the network sees the noise time, and its sines and cosines.
const SEEN: usize = PIXELS + features(1);
const WIDTH: usize = 192;
/// Pictures that a step learns from.
const BATCH: usize = 64;
/// Pictures that are drawn at once.
pub const DRAWN: usize = 8;
/// The most drawings.
pub const MOST: usize = 64;
/// The learning rate at its highest.
pub const RATE: f32 = 3e-3;
/// Steps of a whole training.
pub const STEPS: usize = 1000;
/// Paper; ink is 1.
const PAPER: f32 = -1.0;

/// A sample, and the drawing that it is nearest to.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub pixels: Vec<f32>,
    /// Which drawing, moved as it fits best; and the share of pixels where ink and paper differ from it.
    pub nearest: usize,
    pub differs: f32,
}

struct Pixels {
    recorded: Recorded,
    input: Tensor,
    target: Tensor,
    predict: Program,
    drawings: Vec<[f32; PIXELS]>,
}

/// A model that learns drawings.
pub struct Doodles(Learner<Pixels>);

impl Doodles {
    /// `pixels`: drawings one after the other, row by row from above, -1 (paper) to 1 (ink).
    ///
    /// # Errors
    /// `InvalidOption`: no drawing or too many, half of one, a blank one, or a value outside -1..1.
    pub fn new(pixels: &[f32], plan: Plan) -> Result<Self> {
        let (drawings, rest) = pixels.as_chunks::<PIXELS>();
        if !rest.is_empty() || drawings.is_empty() || drawings.len() > MOST {
            return Err(Error::invalid(format!(
                "Drawings are {PIXELS} values each, and there must be 1 to {MOST} of them, not {} values.",
                pixels.len()
            )));
        }
        if let Some(v) = pixels.iter().find(|v| !(-1.0..=1.0).contains(*v)) {
            return Err(Error::invalid(format!("A pixel is -1 (paper) to 1 (ink), not {v}.")));
        }
        if let Some(i) = drawings.iter().position(|d| d.iter().all(|&v| v <= 0.0)) {
            return Err(Error::invalid(format!(
                "Drawing {} is blank: draw something, or leave it out.",
                i + 1
            )));
        }
        let mut r = Recorder::default();
        let net = r.net(&[SEEN, WIDTH, WIDTH, PIXELS]);
        let (input, mut ops) = (r.tensor(BATCH, SEEN), Vec::new());
        let output = r.network(&mut ops, &net, input, Use { learns: true, passes: false });
        let (target, loss) = (r.tensor(BATCH, PIXELS), r.tensor(1, 1));
        ops.push(Op::Mse { x: output, target, loss });
        let learnt = r.used();
        let (from, mut drawing) = (r.tensor(DRAWN, SEEN), Vec::new());
        let output = r.network(&mut drawing, &net, from, Use { learns: false, passes: false });
        let predict = Program { input: from, time: None, ops: drawing, output };
        let inputs = vec![input, target];
        let stage = Stage { inputs, before: Vec::new(), ops, losses: vec![loss], learns: net.range.clone() };
        let recorded = Recorded { nets: vec![net], stages: vec![stage], learnt };
        let model = Pixels { recorded, input, target, predict, drawings: drawings.to_vec() };
        Ok(Self(Learner::new(&r, Box::new(model), plan)))
    }

    /// Begins anew.
    pub fn reset(&mut self, seed: u32) {
        self.0.reset(seed);
    }

    /// Steps done.
    pub fn step(&self) -> usize {
        self.0.step
    }

    /// Every weight and bias.
    pub fn parameters(&self) -> &[f32] {
        self.0.parameters()
    }

    /// Learns for so many steps.
    ///
    /// # Errors
    /// `InvalidOption`: the training diverged. The network is then what it was before.
    pub fn train(&mut self, steps: usize) -> Result<Losses> {
        self.0.train(&[], steps)
    }

    /// Draws a batch and computes its loss and gradients, in `gradient`.
    pub fn gradients(&mut self) -> f32 {
        self.0.gradients(&[], 0)
    }

    /// The gradients of every weight and bias.
    pub fn gradient(&self) -> &[f32] {
        self.0.gradient(0)
    }

    /// `DRAWN` samples by DDIM.
    pub fn samples(&mut self, seed: u32) -> Vec<Sample> {
        let mut pictures = normal(DRAWN * PIXELS, seed);
        let Learner { tape, model, .. } = &mut self.0;
        for i in (1..=SAMPLE_STEPS).rev() {
            let at = |i: usize| i as f32 / SAMPLE_STEPS as f32;
            let clean = tape.run(&model.predict, &seen(&pictures, |_| at(i)), 0.0);
            let (sin, cos) = (at(i) * FRAC_PI_2).sin_cos();
            let step = |(&x, clean): (&f32, f32)| {
                let clean = clean.clamp(-1.0, 1.0); // ink is no blacker than ink
                mixed(clean, (x - cos * clean) / sin, at(i - 1)).0
            };
            pictures = pictures.iter().zip(clean).map(step).collect();
        }
        pictures.as_chunks::<PIXELS>().0.iter().map(|pixels| model.sample(pixels)).collect()
    }
}

impl Pixels {
    fn sample(&self, pixels: &[f32; PIXELS]) -> Sample {
        let mut best = (0, PIXELS + 1);
        for (i, drawing) in self.drawings.iter().enumerate() {
            for (dx, dy) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dx, dy))) {
                let inked = |at: usize| moved(drawing, at, (dx, dy)) > 0.0;
                let apart = (0..PIXELS).filter(|&at| inked(at) != (pixels[at] > 0.0)).count();
                if apart < best.1 {
                    best = (i, apart);
                }
            }
        }
        let differs = best.1 as f32 / PIXELS as f32;
        Sample { pixels: pixels.to_vec(), nearest: best.0, differs }
    }
}

/// A drawing's pixel where it is moved by so many to the right and down; paper comes in at the edges.
fn moved(drawing: &[f32; PIXELS], at: usize, (dx, dy): (isize, isize)) -> f32 {
    let from = |at: usize, by: isize| at.checked_add_signed(-by).filter(|&at| at < SIDE);
    match (from(at % SIDE, dx), from(at / SIDE, dy)) {
        (Some(x), Some(y)) => drawing[y * SIDE + x],
        _ => PAPER,
    }
}

/// What the network sees of pictures with noise: their pixels, and the time of each.
fn seen(pictures: &[f32], time: impl Fn(usize) -> f32) -> Vec<f32> {
    let rows = pictures.as_chunks::<PIXELS>().0.iter().enumerate();
    rows.flat_map(|(row, pixels)| {
        let time = time(row);
        let waves = (0..FREQUENCIES).flat_map(move |k| {
            let (sin, cos) = (time * (1 << k) as f32).sin_cos();
            [sin, cos]
        });
        pixels.iter().copied().chain([time]).chain(waves)
    })
    .collect()
}

impl Model for Pixels {
    fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// For each picture: which drawing, how far it is moved, its time; then the noise of all.
    fn batch(&self, _: usize, values: &mut [f32], draw: &mut Draw) {
        let mut chance = vec![0.0; 4 * BATCH];
        draw.twister.rand(&mut chance);
        let mut noise = vec![0.0; BATCH * PIXELS];
        draw.twister.randn(&mut noise);
        let below = |u: f32, count: usize| ((u * count as f32) as usize).min(count - 1);
        let mut noisy = Vec::with_capacity(noise.len());
        for (row, chance) in chance.as_chunks::<4>().0.iter().enumerate() {
            let drawing = &self.drawings[below(chance[0], self.drawings.len())];
            let by = (below(chance[1], 3) as isize - 1, below(chance[2], 3) as isize - 1);
            for at in 0..PIXELS {
                let i = row * PIXELS + at;
                let clean = moved(drawing, at, by);
                noisy.push(mixed(clean, noise[i], chance[3]).0);
                values[self.target.at + i] = clean;
            }
        }
        values[self.input.range()].copy_from_slice(&seen(&noisy, |row| chance[4 * row + 3]));
    }
}
