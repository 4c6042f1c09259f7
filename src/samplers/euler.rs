//! Euler's method on the noise level (Karras et al. 2022, algorithm 2), and its ancestral form, where each step goes
//! below the next noise level and adds fresh noise up to it.

use super::numeric::euler_step;
use super::run::Run;

/// As diffusers' `EulerDiscreteScheduler` and k-diffusion's `sample_euler`, which are one but for the schedule.
pub(super) async fn euler(mut run: Run, mut x: Vec<f32>) -> Vec<f32> {
    for (sigma, next) in run.pairs() {
        let hat = run.churn(&mut x, sigma);
        let x0 = run.denoise(&x, hat).await;
        euler_step(&mut x, &x0, hat, next - hat);
        x = run.done(x, x0, sigma, next).await;
    }
    x
}

/// As diffusers' `EulerAncestralDiscreteScheduler` and k-diffusion's `sample_euler_ancestral`.
pub(super) async fn euler_a(mut run: Run, mut x: Vec<f32>) -> Vec<f32> {
    for (sigma, next) in run.pairs() {
        let x0 = run.denoise(&x, sigma).await;
        let (down, up) = run.ancestral(sigma, next);
        euler_step(&mut x, &x0, sigma, down - sigma);
        if next > 0.0 {
            run.add_noise(&mut x, up);
        }
        x = run.done(x, x0, sigma, next).await;
    }
    x
}
