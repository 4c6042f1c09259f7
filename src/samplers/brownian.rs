//! Noise along a Brownian motion over the noise level, which depends on the seed alone and not on the steps: what the
//! SDE samplers of k-diffusion, and so of A1111, draw (`BrownianTreeNoiseSampler` over torchsde's `BrownianTree`).

use super::numeric::add;
use super::rng::Rng;

/// A stretch of the motion.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// Noise levels of its ends.
    pub from: f32,
    pub to: f32,
    /// The schedule's smallest and largest noise level, between which the motion goes.
    pub ends: (f32, f32),
}

/// The motion of one seed, from 0 at the smallest noise level.
pub(super) struct Motion {
    rng: Rng,
    seed: u64,
    /// Where it is at the ends of the last stretch: the next one begins at one of them.
    known: Vec<(f32, Vec<f32>)>,
}

impl Motion {
    pub fn new(rng: Rng, seed: u64) -> Self {
        Self { rng, seed, known: Vec::new() }
    }

    /// What it gathers on a stretch, over the root of its length: of unit spread.
    pub fn walk(&mut self, walk: Walk, out: &mut [f32]) {
        let ends = [walk.from, walk.to].map(|level| {
            let known = self.known.iter().find(|known| known.0 == level);
            known.cloned().unwrap_or_else(|| (level, self.at(level, walk.ends, out.len())))
        });
        let root = (walk.to - walk.from).abs().sqrt();
        for ((x, from), to) in out.iter_mut().zip(&ends[0].1).zip(&ends[1].1) {
            *x = (to - from) / root;
        }
        self.known = ends.into();
    }

    /// Where it is at a level. A tree of intervals leads there, each halved at its middle, down to a millionth.
    fn at(&self, level: f32, ends: (f32, f32), len: usize) -> Vec<f32> {
        let [level, start, end] = [level, ends.0, ends.1].map(f64::from);
        let mut w = self.randn(&[], len);
        w.iter_mut().for_each(|w| *w *= (end - start).sqrt() as f32);
        let [level, mut start, mut end] = [level, start, end].map(micro);
        // The interval is the `key`th of those so many halvings down; `w` is what the motion gathers on it.
        let (mut key, mut at) = (0, vec![0.0; len]);
        for depth in 0.. {
            let middle = micro(0.5 * (start + end));
            if level <= start || level >= end || !(start < middle && middle < end) {
                break;
            }
            // A Brownian bridge: halfway between the ends it is at their mean, plus the interval's own noise.
            let (left, right, h) = (middle - start, end - middle, 1.0 / (end - start));
            let spread = (left * right * h).sqrt() as f32;
            let mut first = self.randn(&[key, depth], len);
            first.iter_mut().zip(&w).for_each(|(z, w)| *z = left as f32 * w * h as f32 + spread * *z);
            key *= 2;
            if level <= middle {
                (end, w) = (middle, first);
            } else {
                add(&mut at, &first, 1.0);
                add(&mut w, &first, -1.0);
                (start, key) = (middle, key + 1);
            }
        }
        if level >= end {
            add(&mut at, &w, 1.0);
        }
        at
    }

    /// Standard normal values of the interval with this key.
    fn randn(&self, key: &[u64], len: usize) -> Vec<f32> {
        let mut z = vec![0.0; len];
        self.rng.seeded(seed_of(self.seed, key).into()).randn(&mut z);
        z
    }
}

/// Rounded to six decimals as Python rounds, which decides by all digits: torchsde's `tol` of 1e-6.
fn micro(level: f64) -> f64 {
    format!("{level:.6}").parse().unwrap_or(level)
}

/// The first word that numpy's `SeedSequence(entropy, spawn_key, pool_size=24)` generates.
fn seed_of(entropy: u64, spawn_key: &[u64]) -> u32 {
    const POOL: usize = 24;
    let mut hash = 0x43b0_d7e5u32;
    let mut hashed = |value: u32| {
        let value = value ^ hash;
        hash = hash.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(hash);
        value ^ value >> 16
    };
    let mix = |a: u32, b: u32| {
        let mixed = a.wrapping_mul(0xca01_f9dd).wrapping_sub(b.wrapping_mul(0x4973_f715));
        mixed ^ mixed >> 16
    };
    let mut pool = [0; POOL];
    (pool[0], pool[1]) = (entropy as u32, (entropy >> 32) as u32);
    pool = pool.map(&mut hashed);
    for from in 0..POOL {
        for to in 0..POOL {
            if from != to {
                pool[to] = mix(pool[to], hashed(pool[from]));
            }
        }
    }
    for &word in spawn_key {
        // As many words of 32 bits as it has, at least one.
        for word in [Some(word as u32), Some((word >> 32) as u32).filter(|&w| w > 0)].into_iter().flatten() {
            pool.iter_mut().for_each(|to| *to = mix(*to, hashed(word)));
        }
    }
    let word = (pool[0] ^ 0x8b51_f9dd).wrapping_mul(0x8b51_f9ddu32.wrapping_mul(0x58f3_8ded));
    word ^ word >> 16
}
