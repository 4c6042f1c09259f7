//! What is learnt: points in the plane.

use crate::error::{Error, Result};
use crate::named::Named;
use crate::samplers::Twister;
use std::f32::consts::PI;

/// Points of a set that has a name.
const POINTS: usize = 2000;
/// How far a coordinate may be from 0: the slowest feature goes round once in 2 pi.
pub const REACH: f32 = 3.0;
/// How near a sample must be to a point to be "on the data".
const NEAR: f32 = 0.15;

/// A set with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSet {
    Spiral,
    Clusters,
    Moons,
}

impl Named for DataSet {
    const NAMES: &'static [(&'static str, Self)] =
        &[("spiral", Self::Spiral), ("clusters", Self::Clusters), ("moons", Self::Moons)];
}

/// The points, and for a set with a name which of its parts each is of.
#[derive(Debug)]
pub struct Data {
    pub points: Vec<[f32; 2]>,
    parts: Option<(Vec<u8>, usize)>,
}

/// How good samples are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// The share that is within `NEAR` of a point.
    pub on_data: f32,
    /// Parts of the set that have at least a tenth of their fair share, and how many there are.
    pub modes: Option<(usize, usize)>,
}

impl Data {
    /// A named set; always the same points.
    pub fn named(set: DataSet) -> Self {
        let mut twister = Twister::new(0);
        let mut draw = || {
            let mut u = vec![0.0; POINTS];
            twister.rand(&mut u);
            u
        };
        let u = draw();
        let (of, spread) = match set {
            DataSet::Spiral => (8, 0.05),
            DataSet::Clusters => (8, 0.1),
            DataSet::Moons => (2, 0.08),
        };
        let (centres, parts): (Vec<[f32; 2]>, Vec<u8>) = match set {
            DataSet::Spiral => u.iter().map(|u| spiral(u.sqrt())).unzip(),
            DataSet::Clusters => u.iter().map(|u| cluster((u * 8.0) as u8)).unzip(),
            DataSet::Moons => {
                let angles = draw();
                u.iter().zip(angles).map(|(u, angle)| moon((u * 2.0) as u8, angle * PI)).unzip()
            }
        };
        let mut noise = vec![0.0; 2 * POINTS];
        twister.randn(&mut noise);
        let noise = noise.as_chunks::<2>().0;
        let points = centres.iter().zip(noise).map(|(c, n)| [c[0] + spread * n[0], c[1] + spread * n[1]]);
        Self { points: points.collect(), parts: Some((parts, of)) }
    }

    /// Points from outside, x and y in turn.
    ///
    /// # Errors
    /// `InvalidOption`: fewer than two different ones, half a pair, or one outside `REACH`.
    pub fn drawn(pairs: &[f32]) -> Result<Self> {
        let (points, rest) = pairs.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(Error::invalid("Points are pairs of x and y: their number of values must be even."));
        }
        // As a positive condition, so that no number that is none passes.
        if let Some([x, y]) = points.iter().find(|p| !p.iter().all(|v| v.abs() <= REACH)) {
            return Err(Error::invalid(format!(
                "The point ({x}, {y}) is outside -{REACH}..{REACH}: scale the drawing into it."
            )));
        }
        if points.iter().all(|p| p == &points[0]) {
            return Err(Error::invalid(
                "There is nothing to learn: draw at least two different points, then train.",
            ));
        }
        Ok(Self { points: points.to_vec(), parts: None })
    }

    /// Scores samples, x and y in turn.
    pub fn score(&self, samples: &[f32]) -> Score {
        let mut counts = [0usize; 256];
        let mut on = 0;
        let samples = samples.as_chunks::<2>().0;
        for sample in samples {
            let away = |p: &[f32; 2]| (p[0] - sample[0]).powi(2) + (p[1] - sample[1]).powi(2);
            let (mut nearest, mut distance) = (0, f32::INFINITY);
            for (i, point) in self.points.iter().enumerate() {
                let d = away(point);
                if d < distance {
                    (nearest, distance) = (i, d);
                }
            }
            if distance < NEAR * NEAR {
                on += 1;
                if let Some((parts, _)) = &self.parts {
                    counts[parts[nearest] as usize] += 1;
                }
            }
        }
        let modes = self.parts.as_ref().map(|&(_, of)| {
            (counts[..of].iter().filter(|&&count| count * 10 * of >= samples.len()).count(), of)
        });
        Score { on_data: on as f32 / samples.len().max(1) as f32, modes }
    }
}

fn spiral(s: f32) -> ([f32; 2], u8) {
    let (angle, radius) = ((0.5 + 3.0 * s) * PI, 0.3 + 1.6 * s);
    ([radius * angle.cos(), radius * angle.sin()], (s * 8.0).min(7.0) as u8)
}

fn cluster(part: u8) -> ([f32; 2], u8) {
    let angle = f32::from(part) * (PI / 4.0);
    ([1.6 * angle.cos(), 1.6 * angle.sin()], part)
}

fn moon(part: u8, angle: f32) -> ([f32; 2], u8) {
    let side = 1.3 * (1.0 - 2.0 * f32::from(part));
    ([side * (angle.cos() - 0.5), side * (angle.sin() - 0.25)], part)
}
