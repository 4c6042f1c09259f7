//! A generative adversarial network (Goodfellow et al. 2014): a discriminator learns to tell data from samples, then a
//! generator to be taken for data by it. Both losses are binary cross-entropies.

use super::model::{Ask, Draw, Model, Picture, Plane, Recorded, grid};
use super::op::{Op, Tensor};
use super::tape::{BATCH, Program, Recorder, Stage, Tape, Use, features};

const WIDTH: usize = 88;

pub struct Gan {
    recorded: Recorded,
    real: Tensor,
    /// What each stage makes samples of.
    latents: [Tensor; 2],
    generate: Program,
    judge: Program,
}

const LEARNS: Use = Use { learns: true, passes: false };
const FIXED: Use = Use { learns: false, passes: false };

impl Gan {
    pub fn record(r: &mut Recorder) -> Self {
        let generator = r.net(&[features(2), WIDTH, WIDTH, WIDTH, 2]);
        let critic = r.net(&[features(2), WIDTH, WIDTH, WIDTH, 1]);
        let (real, latents) = (r.tensor(BATCH, 2), [r.tensor(BATCH, 2), r.tensor(BATCH, 2)]);

        let (mut before, mut ops) = (Vec::new(), Vec::new());
        let fake = r.plane(&mut before, &generator, latents[0], FIXED);
        let losses = [(real, 1.0), (fake, 0.0)].map(|(x, label)| {
            let x = r.plane(&mut ops, &critic, x, LEARNS);
            let loss = r.tensor(1, 1);
            ops.push(Op::Bce { x, label, weight: 0.5, loss });
            loss
        });
        let inputs = vec![real, latents[0]];
        let telling = Stage { inputs, before, ops, losses: losses.into(), learns: critic.range.clone() };

        let mut ops = Vec::new();
        let fake = r.plane(&mut ops, &generator, latents[1], LEARNS);
        let x = r.plane(&mut ops, &critic, fake, Use { learns: false, passes: true });
        let loss = r.tensor(1, 1);
        ops.push(Op::Bce { x, label: 1.0, weight: 1.0, loss });
        let learns = generator.range.clone();
        let inputs = vec![latents[1]];
        let deceiving = Stage { inputs, before: Vec::new(), ops, losses: vec![loss], learns };

        let learnt = r.used();
        let (generate, judge) = (Program::plane(r, &generator), Program::plane(r, &critic));
        let recorded = Recorded { nets: vec![generator, critic], stages: vec![telling, deceiving], learnt };
        Self { recorded, real, latents, generate, judge }
    }
}

impl Model for Gan {
    fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// Less than the usual 0.9: what a step learns is soon out of date (Radford et al. 2016).
    fn beta1(&self) -> f32 {
        0.5
    }

    fn batch(&self, stage: usize, values: &mut [f32], draw: &mut Draw) {
        if stage == 0 {
            draw.points(&mut values[self.real.range()]);
        }
        draw.twister.randn(&mut values[self.latents[stage].range()]);
    }
}

impl Plane for Gan {
    fn sample(&self, tape: &mut Tape, noise: &[f32]) -> Vec<f32> {
        tape.run(&self.generate, noise, 0.0)
    }

    fn picture(&self, tape: &mut Tape, ask: &Ask) -> Picture {
        let straight = grid(ask.size);
        let logits = tape.run(&self.judge, &straight, 0.0);
        let field = logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
        Picture::Critic { field, grid: tape.run(&self.generate, &straight, 0.0) }
    }
}
