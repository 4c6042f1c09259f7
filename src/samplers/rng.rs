//! torch's random generators, so that a seed gives the noise that it gives in PyTorch: on a CPU the Mersenne Twister,
//! on CUDA GPUs Philox 4x32-10 (Salmon et al. 2011).

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

impl Rng {
    pub(super) fn seeded(self, seed: u64) -> Generator {
        match self {
            Self::TorchCpu => Generator::new(seed),
            Self::TorchCuda => Generator(Engine::Cuda(Philox::new(seed))),
        }
    }
}

/// A random generator of torch's, whose state goes on from call to call.
#[derive(Clone)]
pub struct Generator(Engine);

#[derive(Clone)]
enum Engine {
    Cpu(Twister),
    Cuda(Philox),
}

impl Generator {
    /// `torch.Generator("cpu").manual_seed(seed)`. Of the seed torch uses the low 32 bits.
    pub fn new(seed: u64) -> Self {
        Self(Engine::Cpu(Twister::new(seed)))
    }

    /// `torch.randn`: fills `out` with standard normal values, in the order of a contiguous tensor.
    pub fn randn(&mut self, out: &mut [f32]) {
        match &mut self.0 {
            Engine::Cpu(twister) => twister.randn(out),
            Engine::Cuda(philox) => philox.randn(out),
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

/// `torch.Generator("cuda").manual_seed(seed)`. Each call numbers its values through and moves on by one block, as
/// torch does while a tensor has no more values than the GPU has threads to start (some 100,000 and more).
#[derive(Clone)]
pub(super) struct Philox {
    seed: u64,
    /// Calls so far.
    offset: u32,
}

impl Philox {
    pub fn new(seed: u64) -> Self {
        Self { seed, offset: 0 }
    }

    /// Standard normal values: of each block's Box-Muller pair the first.
    pub fn randn(&mut self, out: &mut [f32]) {
        // 2^-32 and 2 pi 2^-32 as f32, as cuRAND has them.
        const UNIT: f64 = 2.328_306_4e-10_f32 as f64;
        const TURN: f64 = (2.328_306_4e-10 * 6.283_185_5) as f32 as f64;
        for (i, x) in (0u32..).zip(out) {
            let [a, b, ..] = block([self.offset, 0, i, 0], [self.seed as u32, (self.seed >> 32) as u32]);
            let (u, v) = (f64::from(a) * UNIT + UNIT / 2.0, f64::from(b) * TURN + TURN / 2.0);
            *x = ((-2.0 * u.ln()).sqrt() * v.sin()) as f32;
        }
        self.offset += 1;
    }
}

/// Ten rounds over a counter with a key.
fn block(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [a, b, c, d] = counter;
        let wide = |x: u32, by: u32| {
            let product = u64::from(x) * u64::from(by);
            ((product >> 32) as u32, product as u32)
        };
        let ((high_a, low_a), (high_c, low_c)) = (wide(a, 0xd251_1f53), wide(c, 0xcd9e_8d57));
        counter = [high_c ^ b ^ key[0], low_c, high_a ^ d ^ key[1], low_a];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::block;

    /// The known answers of Random123's `kat_vectors` for philox4x32, ten rounds.
    #[test]
    fn known_answers() {
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        for (counter, key, answer) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (pi, [0xa409_3822, 0x299f_31d0], [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]),
        ] {
            assert_eq!(block(counter, key), answer);
        }
    }
}
