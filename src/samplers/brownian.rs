//! Noise along a Brownian motion over the noise level, which depends on the seed alone and not on the steps: what the
//! SDE samplers of k-diffusion, and so of A1111, draw (`BrownianTreeNoiseSampler` over torchsde's `BrownianTree`).

use super::noise::Rng;
use super::steps::add;

/// A stretch of the motion.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// Noise levels of its ends. The noise of falling levels is that of the rising ones, turned round.
    pub from: f32,
    pub to: f32,
    /// The schedule's smallest and largest noise level, between which the motion goes.
    pub ends: (f32, f32),
}

/// What the motion gathers on the stretch, over the root of its length: of unit spread.
pub(super) fn noise(rng: Rng, seed: u64, walk: Walk, out: &mut [f32]) {
    let [start, end, from, to] = [walk.ends.0, walk.ends.1, walk.from, walk.to].map(f64::from);
    let root = Node { start: micro(start), end: micro(end), key: 0, depth: 0 };
    let within = |level: f64| micro(level).max(root.start).min(root.end);
    let tree = Tree { rng, seed, from: within(from.min(to)), to: within(from.max(to)) };
    let mut whole = tree.randn(&[], out.len());
    whole.iter_mut().for_each(|w| *w *= (end - start).sqrt() as f32);
    out.fill(0.0);
    tree.gather(root, whole, out);
    let distance = walk.to - walk.from;
    if distance != 0.0 {
        out.iter_mut().for_each(|x| *x /= distance.abs().sqrt() * distance.signum());
    }
}

/// Rounded to six decimals as Python rounds, which decides by all digits: torchsde's `tol` of 1e-6.
fn micro(level: f64) -> f64 {
    format!("{level:.6}").parse().unwrap_or(level)
}

/// The motion as a tree: each interval is halved at its middle, down to a millionth.
struct Tree {
    rng: Rng,
    seed: u64,
    /// What is asked of it.
    from: f64,
    to: f64,
}

/// The `key`th interval of those `depth` halvings down.
#[derive(Clone, Copy)]
struct Node {
    start: f64,
    end: f64,
    key: u64,
    depth: u64,
}

impl Tree {
    /// Adds what is asked of the motion's increments over a node, `w`.
    fn gather(&self, mut node: Node, mut w: Vec<f32>, out: &mut [f32]) {
        loop {
            let Node { start, end, key, depth } = node;
            if self.from <= start && end <= self.to {
                return add(out, &w, 1.0);
            }
            let middle = micro(0.5 * (start + end));
            if !(start < middle && middle < end) {
                return;
            }
            // The bridge: halfway lies the mean of both ends, and around it noise of the node's own.
            let (left, right, h) = (middle - start, end - middle, 1.0 / (end - start));
            let spread = (left * right * h).sqrt() as f32;
            let mut first = self.randn(&[key, depth], w.len());
            for (z, w) in first.iter_mut().zip(&mut w) {
                *z = left as f32 * *w * h as f32 + spread * *z;
                *w -= *z;
            }
            let before = Node { end: middle, key: 2 * key, depth: depth + 1, ..node };
            let after = Node { start: middle, key: 2 * key + 1, depth: depth + 1, ..node };
            match (self.from < middle, self.to > middle) {
                (true, true) if self.to < end => {
                    self.gather(before, first, out);
                    node = after;
                }
                (true, more) => {
                    if more {
                        add(out, &w, 1.0);
                    }
                    (node, w) = (before, first);
                }
                (false, _) => node = after,
            }
        }
    }

    /// Standard normal values of the node with this key.
    fn randn(&self, key: &[u64], len: usize) -> Vec<f32> {
        let mut z = vec![0.0; len];
        self.rng.seeded(seed_of(self.seed, key).into()).randn(&mut z);
        z
    }
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
