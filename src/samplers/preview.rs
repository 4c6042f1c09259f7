//! A picture from latents by one linear map, an eighth of the size in each direction: cheap enough for
//! every step.

use crate::error::{Error, Result};

/// Red, green and blue per latent channel, for the latents (scaled as the UNet sees them) of
/// Stable Diffusion 1.x and 2.x.
pub const SD1_FACTORS: [[f32; 3]; 4] = [
    [0.3512, 0.2297, 0.3227],
    [0.3250, 0.4974, 0.2350],
    [-0.2829, 0.1762, 0.2721],
    [-0.2120, -0.2616, -0.7177],
];

/// NCHW latents of one picture, `factors.len()` planes of `width * height`, to RGBA8 of
/// `width * height`. `bias` and the sum are in -1..1, the range of the image decoder.
///
/// Errors: `invalid-option` if the length of `latents` is not planes * width * height.
pub fn latents_to_rgba(
    latents: &[f32],
    width: usize,
    height: usize,
    factors: &[[f32; 3]],
    bias: [f32; 3],
) -> Result<Vec<u8>> {
    let plane = width * height;
    if latents.len() != factors.len() * plane {
        return Err(Error::invalid(format!(
            "a preview of {width}x{height} needs {} planes of latents, not {} values in all",
            factors.len(),
            latents.len()
        )));
    }
    let mut rgba = vec![255; plane * 4];
    for (i, pixel) in rgba.chunks_exact_mut(4).enumerate() {
        let mut rgb = bias;
        for (channel, factor) in latents.chunks_exact(plane).zip(factors) {
            for (sum, f) in rgb.iter_mut().zip(factor) {
                *sum += f * channel[i];
            }
        }
        for (byte, value) in pixel.iter_mut().zip(rgb) {
            // The cast saturates, and makes NaN black.
            *byte = ((value + 1.0) * 127.5).round_ties_even() as u8;
        }
    }
    Ok(rgba)
}
