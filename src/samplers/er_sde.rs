//! ER-SDE-Solver-3 (Cui et al. 2023, "Elucidating the Solution Space of Extended Reverse-Time SDE for Diffusion
//! Models"): a Taylor polynomial in the noise level carries the predicted picture on, and the authors' noise scale
//! function decides how much of the old noise a step keeps.

use super::run::Run;

/// The authors' noise scale function, the fifth of their appendix.
fn noise_scale(sigma: f64) -> f64 {
    sigma * (sigma.powf(0.3).exp() + 10.0)
}

/// What a step's result is the sum of.
struct Weights {
    sample: f32,
    /// Of the picture, and of its first two derivatives by the noise level.
    taylor: [f32; 3],
    noise: f32,
}

impl Weights {
    fn new(from: f32, to: f32) -> Self {
        /// Points of the integrals, as in ComfyUI.
        const POINTS: u32 = 200;
        let (from, to) = (f64::from(from), f64::from(to));
        let sample = noise_scale(to) / noise_scale(from);
        let width = (from - to) / f64::from(POINTS);
        let (mut area, mut moment) = (0.0, 0.0);
        for level in (0..POINTS).map(|i| to + f64::from(i) * width) {
            area += width / noise_scale(level);
            moment += width / noise_scale(level) * (level - from);
        }
        let step = to - from;
        let first = step + noise_scale(to) * area;
        let second = step * step / 2.0 + noise_scale(to) * moment;
        let noise = (to * to - (from * sample).powi(2)).max(0.0).sqrt();
        let taylor = [1.0 - sample, first, second].map(|weight| weight as f32);
        Self { sample: sample as f32, taylor, noise: noise as f32 }
    }
}

/// As ComfyUI's `sample_er_sde` over noise levels, in its three stages.
pub(super) async fn er_sde(mut run: Run, mut x: Vec<f32>) -> Vec<f32> {
    // Noise levels and the pictures seen there, the newest first.
    let mut seen: Vec<(f32, Vec<f32>)> = Vec::new();
    for (sigma, next) in run.pairs() {
        let x0 = run.denoise(&x, sigma).await;
        seen.insert(0, (sigma, x0.clone()));
        seen.truncate(3);
        if next > 0.0 {
            let Weights { sample, taylor: [picture, first, second], noise } = Weights::new(sigma, next);
            for (i, x) in x.iter_mut().enumerate() {
                let slope = |j: usize| (seen[j].1[i] - seen[j + 1].1[i]) / (seen[j].0 - seen[j + 1].0);
                *x = sample * *x + picture * x0[i];
                if seen.len() > 1 {
                    *x += first * slope(0);
                }
                if seen.len() > 2 {
                    *x += second * 2.0 * (slope(0) - slope(1)) / (seen[0].0 - seen[2].0);
                }
            }
            run.add_noise(&mut x, noise);
        } else {
            x.copy_from_slice(&x0);
        }
        x = run.done(x, x0, sigma, next).await;
    }
    x
}
