//! A diffusion model: the network sees a point with noise and the noise time t in 0..1, and predicts
//! v = cos(u) noise - sin(u) point, u = t pi / 2 (Salimans and Ho 2022; the angle is the cosine schedule). Samples are drawn
//! by DDIM (Song et al. 2021).

use super::model::{Ask, Draw, Model, Picture, Plane, Recorded, grid};
use super::op::{Op, Tensor};
use super::tape::{BATCH, Program, Recorder, Stage, Tape, Use, features};
use std::f32::consts::FRAC_PI_2;

const WIDTH: usize = 128;
/// Steps from noise to a sample.
pub const SAMPLE_STEPS: usize = 50;

/// At a noise time, what a clean value and noise mix to, and v.
pub(super) fn mixed(clean: f32, noise: f32, time: f32) -> (f32, f32) {
    let (sin, cos) = (time * FRAC_PI_2).sin_cos();
    (cos * clean + sin * noise, cos * noise - sin * clean)
}

pub struct Diffusion {
    recorded: Recorded,
    input: Tensor,
    time: Tensor,
    target: Tensor,
    /// Points with noise to v.
    predict: Program,
}

impl Diffusion {
    pub fn record(r: &mut Recorder) -> Self {
        let net = r.net(&[features(2) + 1, WIDTH, WIDTH, WIDTH, 2]);
        let mut record = |learns| {
            let (input, time, mut ops) = (r.tensor(BATCH, 2), r.tensor(BATCH, 1), Vec::new());
            let seen = r.features(&mut ops, input, (0, 2), Some(time), false);
            let output = r.network(&mut ops, &net, seen, Use { learns, passes: false });
            let target = r.tensor(BATCH, 2);
            let loss = r.tensor(1, 1);
            (Program { input, time: Some(time), ops, output }, time, target, loss, r.used())
        };
        let (Program { input, mut ops, output, .. }, time, target, loss, learnt) = record(true);
        ops.push(Op::Mse { x: output, target, loss });
        let predict = record(false).0;
        let inputs = vec![input, time, target];
        let stage = Stage { inputs, before: Vec::new(), ops, losses: vec![loss], learns: net.range.clone() };
        let recorded = Recorded { nets: vec![net], stages: vec![stage], learnt };
        Self { recorded, input, time, target, predict }
    }

    /// The noise time from which a step of DDIM goes, and the guesses there: of the clean points, of the noise.
    fn guess(&self, tape: &mut Tape, points: &[f32], time: f32) -> (Vec<f32>, Vec<f32>) {
        let v = tape.run(&self.predict, points, time);
        let (sin, cos) = (time * FRAC_PI_2).sin_cos();
        points.iter().zip(v).map(|(x, v)| (cos * x - sin * v, sin * x + cos * v)).unzip()
    }

    /// Noise on its way to samples, until `time`.
    fn sample_until(&self, tape: &mut Tape, noise: &[f32], time: f32) -> Vec<f32> {
        let mut points = noise.to_vec();
        for i in (1..=SAMPLE_STEPS).rev() {
            let at = |i: usize| i as f32 / SAMPLE_STEPS as f32;
            if at(i) <= time {
                break;
            }
            let (clean, noise) = self.guess(tape, &points, at(i));
            let then = at(i - 1).max(time);
            points = clean.iter().zip(noise).map(|(&x, n)| mixed(x, n, then).0).collect();
        }
        points
    }
}

impl Model for Diffusion {
    fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    fn batch(&self, _: usize, values: &mut [f32], draw: &mut Draw) {
        let mut points = vec![0.0; 2 * BATCH];
        let mut noise = points.clone();
        draw.points(&mut points);
        draw.twister.rand(&mut values[self.time.range()]);
        draw.twister.randn(&mut noise);
        for (i, (&x, n)) in points.iter().zip(noise).enumerate() {
            (values[self.input.at + i], values[self.target.at + i]) =
                mixed(x, n, values[self.time.at + i / 2]);
        }
    }
}

impl Plane for Diffusion {
    fn sample(&self, tape: &mut Tape, noise: &[f32]) -> Vec<f32> {
        self.sample_until(tape, noise, 0.0)
    }

    fn picture(&self, tape: &mut Tape, ask: &Ask) -> Picture {
        let from = grid(ask.size);
        let to = self.guess(tape, &from, ask.time).0;
        Picture::Arrows { from, to, points: self.sample_until(tape, ask.noise, ask.time) }
    }
}
