//! A normalising flow: eight affine couplings (RealNVP: Dinh et al. 2017) from data to a normal distribution, learnt by
//! exact likelihood; their inverse makes samples.

use super::model::{Ask, Draw, Model, Picture, Plane, Recorded, grid};
use super::op::{Op, Tensor};
use super::tape::{BATCH, Net, Program, Recorder, Stage, Tape, Use, features};

const COUPLINGS: usize = 8;
const WIDTH: usize = 60;

pub struct Flow {
    recorded: Recorded,
    /// Points, each with a 0 behind it: the logarithm of its volume.
    input: Tensor,
    inverse: Program,
}

impl Flow {
    pub fn record(r: &mut Recorder) -> Self {
        let sizes = [features(1), WIDTH, WIDTH, 2];
        let nets: Vec<Net> = (0..COUPLINGS).map(|_| r.net(&sizes)).collect();
        let (input, mut ops) = (r.tensor(BATCH, 3), Vec::new());
        let mut x = input;
        for (i, net) in nets.iter().enumerate() {
            let keep = i % 2;
            let seen = r.features(&mut ops, x, (keep, 1), None, i > 0);
            let st = r.network(&mut ops, net, seen, Use { learns: true, passes: i > 0 });
            let y = r.tensor(BATCH, 3);
            ops.push(Op::Couple { x, st, keep, y });
            x = y;
        }
        let loss = r.tensor(1, 1);
        ops.push(Op::Nll { x, loss });
        let learnt = r.used();
        let learns = 0..nets.last().map_or(0, |net| net.range.end);
        let inverse = inverse(r, &nets);
        let stage = Stage { inputs: vec![input], before: Vec::new(), ops, losses: vec![loss], learns };
        Self { recorded: Recorded { nets, stages: vec![stage], learnt }, input, inverse }
    }

    fn invert(&self, tape: &mut Tape, latents: &[f32]) -> Vec<f32> {
        let input: Vec<f32> = latents.as_chunks::<2>().0.iter().flat_map(|&[x, y]| [x, y, 0.0]).collect();
        let out = tape.run(&self.inverse, &input, 0.0);
        out.as_chunks::<3>().0.iter().flat_map(|&[x, y, _]| [x, y]).collect()
    }
}

fn inverse(r: &mut Recorder, nets: &[Net]) -> Program {
    let (input, mut ops) = (r.tensor(BATCH, 3), Vec::new());
    let how = Use { learns: false, passes: false };
    let mut x = input;
    for (i, net) in nets.iter().enumerate().rev() {
        let keep = i % 2;
        let seen = r.features(&mut ops, x, (keep, 1), None, false);
        let st = r.network(&mut ops, net, seen, how);
        let y = r.tensor(BATCH, 3);
        ops.push(Op::Uncouple { x, st, keep, y });
        x = y;
    }
    Program { input, time: None, ops, output: x }
}

impl Model for Flow {
    fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// A batch whose points have left the data makes gradients thousands of times as long, which Adam would remember for
    /// as many steps (Pascanu et al. 2013).
    fn most(&self) -> Option<f32> {
        Some(1.0)
    }

    fn batch(&self, _: usize, values: &mut [f32], draw: &mut Draw) {
        let mut points = vec![0.0; 2 * BATCH];
        draw.points(&mut points);
        for (out, point) in values[self.input.range()].chunks_exact_mut(3).zip(points.chunks_exact(2)) {
            out[..2].copy_from_slice(point);
        }
    }
}

impl Plane for Flow {
    fn sample(&self, tape: &mut Tape, noise: &[f32]) -> Vec<f32> {
        self.invert(tape, noise)
    }

    fn picture(&self, tape: &mut Tape, ask: &Ask) -> Picture {
        Picture::Bent { grid: self.invert(tape, &grid(ask.size)) }
    }
}
