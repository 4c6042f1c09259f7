//! torch's random generators, so that a seed gives the noise that it gives in PyTorch; and how A1111 makes noise of
//! several pictures, of two seeds, and of a seed known at another size.

use super::brownian::{Motion, Walk};
use super::philox::Philox;
use crate::named::Named;

/// Which of torch's generators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rng {
    /// `torch.Generator("cpu")`
    #[default]
    TorchCpu,
    /// `torch.Generator("cuda")`, which A1111 calls "NV".
    TorchCuda,
}

impl Named for Rng {
    const NAMES: &'static [(&'static str, Self)] =
        &[("torch-cpu", Self::TorchCpu), ("torch-cuda", Self::TorchCuda)];
}

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

impl Rng {
    pub(super) fn seeded(self, seed: u64) -> Generator {
        match self {
            Self::TorchCpu => Generator::new(seed),
            Self::TorchCuda => Generator(Kind::Cuda(Philox::new(seed))),
        }
    }
}

/// A random generator of torch's, whose state goes on from call to call.
#[derive(Clone)]
pub struct Generator(Kind);

#[derive(Clone)]
enum Kind {
    Cpu(Twister),
    Cuda(Philox),
}

impl Generator {
    /// `torch.Generator("cpu").manual_seed(seed)`. Of the seed torch uses the low 32 bits.
    pub fn new(seed: u64) -> Self {
        Self(Kind::Cpu(Twister::new(seed)))
    }

    /// `torch.randn`: fills `out` with standard normal values, in the order of a contiguous tensor.
    pub fn randn(&mut self, out: &mut [f32]) {
        match &mut self.0 {
            Kind::Cpu(twister) => twister.randn(out),
            Kind::Cuda(philox) => philox.randn(out),
        }
    }
}

/// torch's CPU generator: a Mersenne Twister (MT19937).
#[derive(Clone)]
pub struct Twister {
    state: Box<[u32; N]>,
    /// Words of `state` used up.
    next: usize,
    /// The second half of a pair of normals drawn one by one.
    next_normal: Option<f64>,
}

const N: usize = 624;
const M: usize = 397;

/// Normals are made in blocks of this many; shorter calls go another way.
const BLOCK: usize = 16;

impl Twister {
    /// A generator as `manual_seed` leaves it. Of the seed torch uses the low 32 bits.
    pub fn new(seed: u64) -> Self {
        let mut state = Box::new([0; N]);
        let mut word = seed as u32;
        for (i, s) in state.iter_mut().enumerate() {
            if i > 0 {
                word = 1812433253u32.wrapping_mul(word ^ (word >> 30)).wrapping_add(i as u32);
            }
            *s = word;
        }
        Self { state, next: N, next_normal: None }
    }

    fn twist(&mut self) {
        let s = &mut self.state;
        for i in 0..N {
            let y = (s[i] & 0x8000_0000) | (s[(i + 1) % N] & 0x7fff_ffff);
            s[i] = s[(i + M) % N] ^ (y >> 1) ^ if y & 1 == 1 { 0x9908_b0df } else { 0 };
        }
        self.next = 0;
    }

    fn random(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// `torch.rand`, one value of 24 bits in [0, 1).
    fn uniform(&mut self) -> f32 {
        (self.random() & 0xff_ffff) as f32 / (1 << 24) as f32
    }

    /// One value of 53 bits in [0, 1), from two words.
    fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.random());
        let word = high << 32 | u64::from(self.random());
        (word & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }

    /// `torch.rand`: fills `out` with uniform values in [0, 1).
    pub fn rand(&mut self, out: &mut [f32]) {
        for x in out {
            *x = self.uniform();
        }
    }

    /// `torch.randn`: fills `out` with standard normal values, in the order of a contiguous tensor.
    pub fn randn(&mut self, out: &mut [f32]) {
        if out.len() < BLOCK {
            for x in out {
                *x = self.normal_f64() as f32;
            }
            return;
        }
        self.rand(out);
        for block in out.chunks_exact_mut(BLOCK) {
            box_muller(block);
        }
        if !out.len().is_multiple_of(BLOCK) {
            // The last block overlaps the one before it and is drawn again.
            let start = out.len() - BLOCK;
            self.rand(&mut out[start..]);
            box_muller(&mut out[start..]);
        }
    }

    fn normal_f64(&mut self) -> f64 {
        if let Some(x) = self.next_normal.take() {
            return x;
        }
        let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let theta = 2.0 * std::f64::consts::PI * u1;
        self.next_normal = Some(radius * theta.sin());
        radius * theta.cos()
    }
}

/// Sixteen uniform values to sixteen normal ones: the first eight give radii, the others angles.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * ln(1.0 - *a)).sqrt();
        let theta = std::f32::consts::TAU * *b;
        let (sin, cos) = sin_cos(theta);
        (*a, *b) = (radius * cos, radius * sin);
    }
}

/// Natural logarithm of a positive normal f32: Cephes' `logf`, with the multiply-adds that torch's build
/// fuses.
#[expect(clippy::excessive_precision, reason = "Cephes' constants as published")]
fn ln(x: f32) -> f32 {
    const P: [f32; 8] = [
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    ];
    let mut e = ((x.to_bits() >> 23) as i32 - 126) as f32;
    let mut x = f32::from_bits((x.to_bits() & 0x007f_ffff) | 0x3f00_0000);
    if x < std::f32::consts::FRAC_1_SQRT_2 {
        e -= 1.0;
        x += x - 1.0;
    } else {
        x -= 1.0;
    }
    let z = x * x;
    let y = P.iter().fold(7.0376836292e-2, |y: f32, &p| y.mul_add(x, p)) * x;
    let y = y.mul_add(z, e * -2.12194440e-4);
    let y = (-z).mul_add(0.5, y);
    e.mul_add(0.693359375, x + y)
}

/// Sine and cosine of a f32 in 0..2 pi: Cephes' `sinf` and `cosf`, likewise.
#[expect(clippy::excessive_precision, reason = "Cephes' constants as published")]
fn sin_cos(x: f32) -> (f32, f32) {
    let octant = ((x * (4.0 / std::f32::consts::PI)) as i32 + 1) & !1;
    let y = octant as f32;
    let x = y.mul_add(-0.78515625, x);
    let x = y.mul_add(-2.4187564849853515625e-4, x);
    let x = y.mul_add(-3.77489497744594108e-8, x);
    let z = x * x;
    let c = 2.443315711809948e-5f32.mul_add(z, -1.388731625493765e-3).mul_add(z, 4.166664568298827e-2) * z;
    let c = c.mul_add(z, -(z * 0.5)) + 1.0;
    let s = (-1.9515295891e-4f32).mul_add(z, 8.3321608736e-3).mul_add(z, -1.6666654611e-1) * z;
    let s = s.mul_add(x, x);
    let (sin, cos) = if octant & 2 == 0 { (s, c) } else { (c, s) };
    (if octant & 4 == 0 { sin } else { -sin }, if (octant + 2) & 4 == 0 { cos } else { -cos })
}
