//! Classifier-free guidance.

/// `uncond + guidance_scale * (cond - uncond)`, element by element, into `out`. All of one length; what
/// is beyond the shortest stays as it is.
pub fn classifier_free_guidance(uncond: &[f32], cond: &[f32], guidance_scale: f32, out: &mut [f32]) {
    for ((o, &u), &c) in out.iter_mut().zip(uncond).zip(cond) {
        *o = u + guidance_scale * (c - u);
    }
}

/// Several prompts (A1111's `AND`): `uncond + sum(weight * guidance_scale * (cond - uncond))`, in the order of the
/// prompts. With one of weight 1 it is [`classifier_free_guidance`]. All of one length.
pub fn composed_guidance(
    uncond: &[f32],
    conds: &[Vec<f32>],
    weights: &[f32],
    guidance_scale: f32,
) -> Vec<f32> {
    let mut out = uncond.to_vec();
    for (cond, weight) in conds.iter().zip(weights) {
        for ((o, &u), &c) in out.iter_mut().zip(uncond).zip(cond) {
            *o += weight * guidance_scale * (c - u);
        }
    }
    out
}

/// Pulls the guided prediction's spread back towards that of the conditioned one, in place
/// (Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", section 3.4).
/// Both slices hold one picture; `guidance_rescale` 0 changes nothing.
pub fn rescale_noise_cfg(noise_cfg: &mut [f32], noise_pred_text: &[f32], guidance_rescale: f32) {
    let factor = std(noise_pred_text) / std(noise_cfg);
    for x in noise_cfg {
        *x = guidance_rescale * (*x * factor) + (1.0 - guidance_rescale) * *x;
    }
}

/// Standard deviation with n - 1, as torch's `std`.
fn std(values: &[f32]) -> f32 {
    let n = values.len() as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let square = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
    (square / (n - 1.0)).sqrt() as f32
}
