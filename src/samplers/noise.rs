//! torch's CPU random generator, so that a seed gives the noise that it gives in PyTorch.

/// `torch.Generator("cpu").manual_seed(seed)`: a Mersenne Twister (MT19937) whose state goes on from
/// call to call.
#[derive(Clone)]
pub struct Generator {
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

impl Generator {
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
