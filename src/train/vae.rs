//! A variational autoencoder (Kingma and Welling 2014): an encoder gives each point a mean and a variance, a decoder
//! makes the point of a value drawn there; the loss is the negative evidence lower bound.

use super::model::{Ask, Draw, Model, Picture, Plane, Recorded, grid};
use super::op::{Op, Tensor};
use super::tape::{BATCH, Program, Recorder, Stage, Tape, Use, features};

const WIDTH: usize = 88;
/// Standard deviation of a point about what the decoder makes.
const SIGMA: f32 = 0.1;

pub struct Vae {
    recorded: Recorded,
    input: Tensor,
    noise: Tensor,
    encode: Program,
    decode: Program,
}

impl Vae {
    pub fn record(r: &mut Recorder) -> Self {
        let encoder = r.net(&[features(2), WIDTH, WIDTH, WIDTH, 4]);
        let decoder = r.net(&[features(2), WIDTH, WIDTH, WIDTH, 2]);
        let (input, noise, mut ops) = (r.tensor(BATCH, 2), r.tensor(BATCH, 2), Vec::new());
        let stats = r.plane(&mut ops, &encoder, input, Use { learns: true, passes: false });
        let z = r.tensor(BATCH, 2);
        ops.push(Op::Reparametrise { stats, noise, z });
        let x = r.plane(&mut ops, &decoder, z, Use { learns: true, passes: true });
        let loss = r.tensor(1, 1);
        ops.push(Op::Elbo { x, target: input, stats, sigma: SIGMA, loss });
        let learnt = r.used();
        let learns = 0..decoder.range.end;
        let inputs = vec![input, noise];
        let stage = Stage { inputs, before: Vec::new(), ops, losses: vec![loss], learns };
        let (encode, decode) = (Program::plane(r, &encoder), Program::plane(r, &decoder));
        let recorded = Recorded { nets: vec![encoder, decoder], stages: vec![stage], learnt };
        Self { recorded, input, noise, encode, decode }
    }
}

impl Model for Vae {
    fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    fn batch(&self, _: usize, values: &mut [f32], draw: &mut Draw) {
        draw.points(&mut values[self.input.range()]);
        draw.twister.randn(&mut values[self.noise.range()]);
    }
}

impl Plane for Vae {
    fn sample(&self, tape: &mut Tape, noise: &[f32]) -> Vec<f32> {
        tape.run(&self.decode, noise, 0.0)
    }

    fn picture(&self, tape: &mut Tape, ask: &Ask) -> Picture {
        let stats = tape.run(&self.encode, ask.points.as_flattened(), 0.0);
        let ellipse = |s: &[f32; 4]| [s[0], s[1], (0.5 * s[2]).exp(), (0.5 * s[3]).exp()];
        let ellipses = stats.as_chunks::<4>().0.iter().flat_map(ellipse).collect();
        Picture::Ellipses { ellipses, grid: tape.run(&self.decode, &grid(ask.size), 0.0) }
    }
}
