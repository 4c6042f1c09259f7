//! DPM-Solver++ in single steps of two evaluations, with noise: "DPM++ 2S a" and "DPM++ SDE".

use super::numeric::{add, euler_step, exp, ln, zip};
use super::run::Run;

/// The exponential integrator from `from` to `to` towards `x0`. Its `expm1(ln(to / from))` is `to / from - 1`.
fn towards(x: &[f32], x0: &[f32], from: f32, to: f32) -> Vec<f32> {
    let keep = to / from;
    zip(x, x0, |x, x0| keep * x + (1.0 - keep) * x0)
}

/// The level midway in logarithms.
fn middle(a: f32, b: f32) -> f32 {
    exp(0.5 * (ln(a) + ln(b)))
}

/// As k-diffusion's `sample_dpmpp_2s_ancestral`.
pub(super) async fn dpmpp_2s_a(mut run: Run, mut x: Vec<f32>) -> Vec<f32> {
    for (sigma, next) in run.pairs() {
        let x0 = run.denoise(&x, sigma).await;
        let (down, up) = run.ancestral(sigma, next);
        if down == 0.0 {
            euler_step(&mut x, &x0, sigma, -sigma);
        } else {
            let s = middle(sigma, down);
            let second = run.denoise_between(&towards(&x, &x0, sigma, s), s).await;
            x = towards(&x, &second, sigma, down);
        }
        if next > 0.0 {
            run.add_noise(&mut x, up);
        }
        x = run.done(x, x0, sigma, next).await;
    }
    x
}

/// As diffusers' `DPMSolverSDEScheduler` and k-diffusion's `sample_dpmpp_sde`.
pub(super) async fn dpmpp_sde(mut run: Run, mut x: Vec<f32>) -> Vec<f32> {
    for (sigma, next) in run.pairs() {
        let x0 = run.denoise(&x, sigma).await;
        if next == 0.0 {
            euler_step(&mut x, &x0, sigma, -sigma);
        } else {
            let s = middle(sigma, next);
            let (down, up) = run.ancestral(sigma, s);
            let mut there = towards(&x, &x0, sigma, down);
            add(&mut there, &run.noise(x.len(), Some((sigma, s))), up);
            let second = run.denoise_between(&there, s).await;

            let (down, up) = run.ancestral(sigma, next);
            x = towards(&x, &second, sigma, down);
            let z = run.noise(x.len(), Some((sigma, next)));
            add(&mut x, &z, up);
        }
        x = run.done(x, x0, sigma, next).await;
    }
    x
}
