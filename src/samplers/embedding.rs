//! Sinusoidal embeddings of scalars, computed on the CPU: a few hundred values once per step.

use super::numeric::exp;

/// Embedding of a timestep, of length `dim` (diffusers `models/embeddings.py`): sines of
/// `timestep * scale * max_period^(-k / (dim/2 - downscale_freq_shift))`, then cosines;
/// `flip_sin_to_cos` puts the cosines first; an odd `dim` is padded with a zero.
pub fn get_timestep_embedding(
    timestep: f32,
    dim: usize,
    flip_sin_to_cos: bool,
    downscale_freq_shift: f32,
    scale: f32,
    max_period: f32,
) -> Vec<f32> {
    let half = dim / 2;
    let log = -f64::from(max_period).ln() as f32;
    let angles: Vec<f32> = (0..half)
        .map(|k| {
            let exponent = log * k as f32 / (half as f32 - downscale_freq_shift);
            scale * (timestep * exp(exponent))
        })
        .collect();
    sines_and_cosines(&angles, dim, flip_sin_to_cos)
}

/// LCM's embedding of the guidance scale (`timestep_cond`), of length `dim`, for `w = guidance_scale - 1`
/// (diffusers `StableDiffusionPipeline.get_guidance_scale_embedding`).
pub fn get_guidance_scale_embedding(w: f32, dim: usize) -> Vec<f32> {
    let half = dim / 2;
    let log = 10000f64.ln() as f32 / (half as f32 - 1.0);
    let angles: Vec<f32> = (0..half).map(|k| w * 1000.0 * exp(k as f32 * -log)).collect();
    sines_and_cosines(&angles, dim, false)
}

fn sines_and_cosines(angles: &[f32], dim: usize, cosines_first: bool) -> Vec<f32> {
    let sin = angles.iter().map(|&a| f64::from(a).sin() as f32);
    let cos = angles.iter().map(|&a| f64::from(a).cos() as f32);
    let mut out: Vec<f32> = if cosines_first { cos.chain(sin).collect() } else { sin.chain(cos).collect() };
    out.resize(dim, 0.0);
    out
}
