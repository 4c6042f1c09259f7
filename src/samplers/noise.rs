//! How diffusers and A1111 make noise of several pictures, of two seeds, and of a seed known at another size.

use super::brownian::{Motion, Walk};
use super::rng::{Generator, Rng};

/// How noise is made from a seed. The default is diffusers' with one generator.
#[derive(Clone, Debug, Default)]
pub struct NoiseOptions {
    pub rng: Rng,
    /// Each picture of a batch has a generator of its own, of `seed`, `seed + 1` and so on: diffusers with a list of
    /// generators, and A1111. Else all draw from the one.
    pub generator_per_image: bool,
    /// Noise of another seed to go towards, and how far, 0 to 1. As in A1111 the pictures of a batch then share the
    /// seed, and this one counts up.
    pub variation: Option<(u64, f32)>,
    /// Width and height in pixels at which the seed is known: its noise is put in the middle, as A1111 does.
    pub resize_from: Option<(u32, u32)>,
    /// A1111's "eta noise seed delta": after the first noise, generators are those of seeds so much further.
    pub later_seed_delta: u64,
}

impl NoiseOptions {
    /// Whether each picture has its own generator: what follows the first noise must be its own, too.
    fn each(&self) -> bool {
        self.generator_per_image || self.variation.is_some() || self.resize_from.is_some()
    }

    /// Seed and variation that give one picture of a batch alone.
    pub fn of_image(&self, seed: u64, image: usize) -> (u64, Option<(u64, f32)>) {
        let later = if self.each() { image as u64 } else { 0 };
        match self.variation {
            None => (seed.wrapping_add(later), None),
            Some((other, strength)) => (seed, Some((other.wrapping_add(later), strength))),
        }
    }
}

/// Where the noise of all pictures of a request comes from.
pub struct NoiseSource {
    /// One for all, or one for each.
    generators: Vec<Generator>,
    /// The Brownian motion of each generator's seed.
    motions: Vec<Motion>,
    options: NoiseOptions,
    seed: u64,
    /// Channels, height and width of a picture's latents.
    shape: [usize; 3],
    /// Pixels to a latent.
    scale: u32,
}

impl NoiseSource {
    pub fn new(seed: u64, options: &NoiseOptions, images: usize, shape: [usize; 3], scale: u32) -> Self {
        let count = if options.each() { images } else { 1 };
        let seeds = (0..count).map(|i| options.of_image(seed, i).0);
        let generators = seeds.clone().map(|seed| options.rng.seeded(seed)).collect();
        let motions = seeds.map(|seed| Motion::new(options.rng, seed)).collect();
        Self { generators, motions, options: options.clone(), seed, shape, scale }
    }

    /// The generators: one, or one for each picture.
    pub fn generators(&mut self) -> &mut [Generator] {
        &mut self.generators
    }

    /// Standard normal values for all pictures.
    pub fn randn(&mut self, out: &mut [f32]) {
        let len = out.len() / self.generators.len();
        for (generator, picture) in self.generators.iter_mut().zip(out.chunks_exact_mut(len)) {
            generator.randn(picture);
        }
    }

    /// What a sampler draws: the same, or of the Brownian motion that each generator's seed has (A1111's
    /// `create_noise_sampler`).
    pub fn draw(&mut self, out: &mut [f32], walk: Option<Walk>) {
        let Some(walk) = walk else { return self.randn(out) };
        let len = out.len() / self.motions.len();
        for (motion, picture) in self.motions.iter_mut().zip(out.chunks_exact_mut(len)) {
            motion.walk(walk, picture);
        }
    }

    /// The noise that all pictures start from, NCHW: A1111's `ImageRNG.first`.
    pub fn first(&mut self, out: &mut [f32]) {
        self.draw_first(out);
        let NoiseOptions { rng, later_seed_delta, .. } = self.options;
        if later_seed_delta != 0 {
            // Brownian motions keep the seed, as there.
            for (i, generator) in self.generators.iter_mut().enumerate() {
                let (seed, _) = self.options.of_image(self.seed, i);
                *generator = rng.seeded(seed.wrapping_add(later_seed_delta));
            }
        }
    }

    fn draw_first(&mut self, out: &mut [f32]) {
        let NoiseOptions { rng, resize_from, .. } = self.options;
        if self.options.variation.is_none() && resize_from.is_none() {
            return self.randn(out);
        }
        let [channels, height, width] = self.shape;
        let latents = |pixels: u32| (pixels / self.scale).max(1) as usize;
        let (from_h, from_w) = resize_from.map_or((height, width), |(w, h)| (latents(h), latents(w)));
        let resized = (from_h, from_w) != (height, width);
        for (i, picture) in out.chunks_exact_mut(channels * height * width).enumerate() {
            let (seed, variation) = self.options.of_image(self.seed, i);
            self.generators[i].randn(picture);
            let mut noise =
                if resized { drawn(rng, seed, channels * from_h * from_w) } else { picture.to_vec() };
            if let Some((variation_seed, strength)) = variation.filter(|v| v.1 != 0.0) {
                let other = drawn(rng, variation_seed, noise.len());
                noise = slerp(strength, &noise, &other, from_h, from_w);
            }
            if resized {
                paste(&noise, (from_h, from_w), picture, (height, width));
            } else {
                picture.copy_from_slice(&noise);
            }
        }
    }
}

fn drawn(rng: Rng, seed: u64, len: usize) -> Vec<f32> {
    let mut noise = vec![0.0; len];
    rng.seeded(seed).randn(&mut noise);
    noise
}

/// A1111's `slerp` between two noises of one picture, CHW: along great circles, one for each column of a channel. Where
/// the two are nearly the same it goes the straight way, and backwards, as there.
fn slerp(share: f32, low: &[f32], high: &[f32], height: usize, width: usize) -> Vec<f32> {
    let columns = low.len() / height;
    let at = |column: usize| {
        let (channel, x) = (column / width, column % width);
        (0..height).map(move |y| (channel * height + y) * width + x)
    };
    let dot = |a: &[f32], b: &[f32], column: usize| {
        at(column).map(|i| f64::from(a[i]) * f64::from(b[i])).sum::<f64>()
    };
    let cosine = |c: usize| dot(low, high, c) / (dot(low, low, c) * dot(high, high, c)).sqrt();
    let cosines: Vec<f64> = (0..columns).map(cosine).collect();
    if cosines.iter().sum::<f64>() / columns as f64 > 0.9995 {
        return low.iter().zip(high).map(|(l, h)| l * share + h * (1.0 - share)).collect();
    }
    let mut out = low.to_vec();
    for (column, cosine) in cosines.into_iter().enumerate() {
        let omega = cosine.clamp(-1.0, 1.0).acos();
        let part = |share: f64| (share * omega).sin() / omega.sin();
        let (l, h) = (part(1.0 - f64::from(share)), part(share.into()));
        for i in at(column) {
            out[i] = (l * f64::from(low[i]) + h * f64::from(high[i])) as f32;
        }
    }
    out
}

/// Puts noise of one size over the middle of noise of another, channel by channel; what does not fit is cut at both
/// sides alike.
fn paste(from: &[f32], (from_h, from_w): (usize, usize), to: &mut [f32], (to_h, to_w): (usize, usize)) {
    // Where the source begins, where the target, and how much is copied. Halves are rounded down, as Python does.
    let place = |from: usize, to: usize| {
        let d = (to as isize - from as isize).div_euclid(2);
        let len = if d >= 0 { from } else { (from as isize + 2 * d).max(0) as usize };
        ((-d).max(0) as usize, d.max(0) as usize, len)
    };
    let ((from_y, to_y, h), (from_x, to_x, w)) = (place(from_h, to_h), place(from_w, to_w));
    for (from, to) in from.chunks_exact(from_h * from_w).zip(to.chunks_exact_mut(to_h * to_w)) {
        for y in 0..h {
            let (a, b) = ((from_y + y) * from_w + from_x, (to_y + y) * to_w + to_x);
            to[b..b + w].copy_from_slice(&from[a..a + w]);
        }
    }
}
