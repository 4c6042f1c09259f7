//! torch's CUDA generator: Philox 4x32-10 (Salmon et al. 2011), as `torch.randn` draws from it on a GPU.

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
