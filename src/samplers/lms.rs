//! Linear multistep methods over the noise level: LMS, and iPNDM, which takes the levels for evenly spaced.

use super::numeric::zip;
use super::run::Run;

/// Slopes of the last steps, the newest first.
struct Slopes(Vec<Vec<f32>>);

impl Slopes {
    const ORDER: usize = 4;

    fn push(&mut self, x: &[f32], x0: &[f32], sigma: f32) {
        self.0.insert(0, zip(x, x0, |x, x0| (x - x0) / sigma));
        self.0.truncate(Self::ORDER);
    }

    /// Adds the slopes, each times its weight.
    fn step(&self, x: &mut [f32], weights: &[f64]) {
        for (i, x) in x.iter_mut().enumerate() {
            let all = self.0.iter().zip(weights);
            *x += all.map(|(slope, w)| w * f64::from(slope[i])).sum::<f64>() as f32;
        }
    }
}

/// As diffusers' `LMSDiscreteScheduler` and k-diffusion's `sample_lms`, of order 4. Where sampling begins at a picture,
/// as k-diffusion's: diffusers 0.42 then weighs its first slopes as if steps had gone before.
pub(super) async fn lms(mut run: Run, mut x: Vec<f32>) -> Vec<f32> {
    let mut slopes = Slopes(Vec::new());
    for (i, (sigma, next)) in run.pairs().into_iter().enumerate() {
        let x0 = run.denoise(&x, sigma).await;
        slopes.push(&x, &x0, sigma);
        let past: Vec<f64> =
            run.levels.sigmas[..=i].iter().rev().take(Slopes::ORDER).map(|&s| s.into()).collect();
        let weights: Vec<f64> = (0..past.len()).map(|j| coefficient(&past, j, next.into())).collect();
        slopes.step(&mut x, &weights);
        x = run.done(x, x0, sigma, next).await;
    }
    x
}

/// The integral, from the newest of the levels to `to`, of the Lagrange polynomial that is 1 at level `j` and 0 at the
/// others. Two points of Gauss' are exact up to the third degree.
fn coefficient(levels: &[f64], j: usize, to: f64) -> f64 {
    let (middle, half) = ((levels[0] + to) / 2.0, (to - levels[0]) / 2.0);
    let polynomial = |tau: f64| {
        let others = levels.iter().enumerate().filter(|&(m, _)| m != j);
        others.map(|(_, level)| (tau - level) / (levels[j] - level)).product::<f64>()
    };
    let off = half / 3f64.sqrt();
    half * (polynomial(middle - off) + polynomial(middle + off))
}

/// As ComfyUI's `sample_ipndm` (Zhang and Chen 2022), of order 4: Adams' and Bashforth's coefficients, those of
/// diffusers' `IPNDMScheduler`, which itself is made for networks of another kind.
pub(super) async fn ipndm(mut run: Run, mut x: Vec<f32>) -> Vec<f32> {
    const WEIGHTS: [&[f64]; 4] = [
        &[1.0],
        &[3.0 / 2.0, -1.0 / 2.0],
        &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
        &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
    ];
    let mut slopes = Slopes(Vec::new());
    for (sigma, next) in run.pairs() {
        let x0 = run.denoise(&x, sigma).await;
        slopes.push(&x, &x0, sigma);
        let order = if next == 0.0 { 1 } else { slopes.0.len() };
        let weights: Vec<f64> = WEIGHTS[order - 1].iter().map(|w| w * f64::from(next - sigma)).collect();
        slopes.step(&mut x, &weights);
        x = run.done(x, x0, sigma, next).await;
    }
    x
}
