//! DPM-Solver-2 in the noise level (k-diffusion's `sample_dpm_2`), and its ancestral form.

use super::numeric::{euler_step, exp, ln};
use super::run::Run;

/// One step over the level midway in logarithms: the new sample, and the picture seen at its start.
async fn midpoint_step(run: &Run, mut x: Vec<f32>, hat: f32, to: f32) -> (Vec<f32>, Vec<f32>) {
    let x0 = run.denoise(&x, hat).await;
    if to == 0.0 {
        euler_step(&mut x, &x0, hat, -hat);
        return (x, x0);
    }
    let middle = exp(ln(hat) + 0.5 * (ln(to) - ln(hat)));
    let mut there = x.clone();
    euler_step(&mut there, &x0, hat, middle - hat);
    let second = run.denoise_between(&there, middle).await;
    for ((x, there), x0) in x.iter_mut().zip(&there).zip(&second) {
        *x += (there - x0) / middle * (to - hat);
    }
    (x, x0)
}

/// As diffusers' `KDPM2DiscreteScheduler` and k-diffusion's `sample_dpm_2`.
pub(super) async fn dpm2(mut run: Run, mut x: Vec<f32>) -> Vec<f32> {
    for (sigma, next) in run.pairs() {
        let hat = run.churn(&mut x, sigma);
        let (stepped, x0) = midpoint_step(&run, x, hat, next).await;
        x = run.done(stepped, x0, sigma, next).await;
    }
    x
}

/// As diffusers' `KDPM2AncestralDiscreteScheduler` and k-diffusion's `sample_dpm_2_ancestral`.
pub(super) async fn dpm2_a(mut run: Run, mut x: Vec<f32>) -> Vec<f32> {
    for (sigma, next) in run.pairs() {
        let (down, up) = run.ancestral(sigma, next);
        let (mut stepped, x0) = midpoint_step(&run, x, sigma, down).await;
        if down > 0.0 {
            run.add_noise(&mut stepped, up);
        }
        x = run.done(stepped, x0, sigma, next).await;
    }
    x
}
