//! What every family has.

use super::tape::{Net, Stage, Tape};
use crate::samplers::Twister;

/// What a family recorded to learn with.
pub struct Recorded {
    pub nets: Vec<Net>,
    /// The parts of a step, in order.
    pub stages: Vec<Stage>,
    /// How many of the tape's first values may get gradients.
    pub learnt: usize,
}

/// A model as it is recorded.
pub trait Model {
    fn recorded(&self) -> &Recorded;
    /// Adam's first coefficient.
    fn beta1(&self) -> f32 {
        0.9
    }
    /// How long the gradient may be, all of it together; a longer one is made so short.
    fn most(&self) -> Option<f32> {
        None
    }
    /// Draws what a stage learns from.
    fn batch(&self, stage: usize, values: &mut [f32], draw: &mut Draw);
}

/// A family that learns points in the plane.
pub trait Plane: Model {
    /// Makes samples of normal noise, both x and y in turn.
    fn sample(&self, tape: &mut Tape, noise: &[f32]) -> Vec<f32>;
    /// What this family alone can show.
    fn picture(&self, tape: &mut Tape, ask: &Ask) -> Picture;
}

/// What draws batches: every random number of a training in one order.
pub struct Draw<'a> {
    pub twister: &'a mut Twister,
    pub points: &'a [[f32; 2]],
}

impl Draw<'_> {
    /// Points of the data, each drawn for itself.
    pub fn points(&mut self, out: &mut [f32]) {
        let out = out.as_chunks_mut::<2>().0;
        let mut index = vec![0.0; out.len()];
        self.twister.rand(&mut index);
        let count = self.points.len();
        for (out, u) in out.iter_mut().zip(index) {
            *out = self.points[((u * count as f32) as usize).min(count - 1)];
        }
    }
}

/// A wish for a picture.
pub struct Ask<'a> {
    /// Points a side of its grid.
    pub size: usize,
    /// The noise time of a diffusion model: 0 is data, 1 is noise.
    pub time: f32,
    /// Some of the data.
    pub points: &'a [[f32; 2]],
    /// Standard normal values, x and y in turn.
    pub noise: &'a [f32],
}

/// All are x and y in turn, but for `field`.
#[derive(Clone, Debug, PartialEq)]
pub enum Picture {
    /// From each grid point to where the network guesses the clean point; and samples on their way.
    Arrows { from: Vec<f32>, to: Vec<f32>, points: Vec<f32> },
    /// How real the discriminator finds each grid point, and where the generator puts a straight grid.
    Critic { field: Vec<f32>, grid: Vec<f32> },
    /// Means and standard deviations of data as the encoder sees it (x, y, of x, of y), and where the decoder puts a
    /// straight grid.
    Ellipses { ellipses: Vec<f32>, grid: Vec<f32> },
    /// Where the flow puts a straight grid.
    Bent { grid: Vec<f32> },
}

/// How far pictures reach from 0.
const VIEW: f32 = 2.2;

/// A straight grid, row by row from below.
pub fn grid(size: usize) -> Vec<f32> {
    let at = |i: usize| VIEW * (2.0 * i as f32 / (size.max(2) - 1) as f32 - 1.0);
    (0..size).flat_map(|row| (0..size).flat_map(move |column| [at(column), at(row)])).collect()
}
