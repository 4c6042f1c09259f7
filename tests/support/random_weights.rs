//! Weights of tiny models, drawn from their names as `weight` of tests/reference/models.py draws them.

use half::f16;

/// FNV-1a, 64 bits.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// `count` values of the tensor called `name`, each output of which is a sum over `fan_in` inputs.
pub fn drawn(name: &str, count: usize, fan_in: usize, mut gain: f64) -> Vec<f16> {
    let mut state = fnv1a(name.as_bytes());
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f64 / 8_388_608.0 - 1.0
    };
    let (scale, shift) = if name.ends_with(".bias") {
        (0.1, 0.0)
    } else if name.contains("norm") {
        (0.1, 1.0)
    } else if name.contains("token_embedding") || name.contains("position_embedding") {
        (0.5, 0.0)
    } else {
        if [".to_q.", ".to_k.", ".q_proj.", ".k_proj."].iter().any(|p| name.contains(p)) {
            gain *= 1.4;
        } else if name == "conv_out.weight" {
            gain *= 1.8;
        }
        (gain * (3.0 / fan_in as f64).sqrt(), 0.0)
    };
    (0..count).map(|_| f16::from_f32((uniform() * scale + shift) as f32)).collect()
}
