//! Heun's method (Karras et al. 2022, algorithm 2), and Restart sampling, which is made of its steps.

use super::numeric::{euler_step, karras_sigmas, zip};
use super::run::Run;

/// One step of Heun's, from `hat` to `next`: the new sample, and the picture seen at its start.
async fn heun_step(run: &Run, x: &[f32], hat: f32, next: f32) -> (Vec<f32>, Vec<f32>) {
    let dt = next - hat;
    let x0 = run.denoise(x, hat).await;
    let mut there = x.to_vec();
    euler_step(&mut there, &x0, hat, dt);
    if next == 0.0 {
        return (there, x0);
    }
    let second = run.denoise(&there, next).await;
    let d = zip(x, &x0, |x, x0| (x - x0) / hat);
    let d2 = zip(&there, &second, |x, x0| (x - x0) / next);
    let slope = zip(&d, &d2, |a, b| (a + b) / 2.0);
    (zip(x, &slope, |x, d| x + d * dt), x0)
}

/// As diffusers' `HeunDiscreteScheduler` and k-diffusion's `sample_heun`.
pub(super) async fn heun(mut run: Run, mut x: Vec<f32>) -> Vec<f32> {
    for (sigma, next) in run.pairs() {
        let hat = run.churn(&mut x, sigma);
        let (stepped, x0) = heun_step(&run, &x, hat, next).await;
        x = run.done(stepped, x0, sigma, next).await;
    }
    x
}

/// Restart sampling (Xu et al. 2023) as A1111's `restart_sampler`: from 20 steps on, some of them go again over the
/// levels below 2 after noise was added. The other steps are spaced as Karras has them, whatever the schedule was.
pub(super) async fn restart(mut run: Run, mut x: Vec<f32>) -> Vec<f32> {
    let steps = restart_steps(&run.levels.sigmas);
    run.total = steps.len();
    let mut reached = f32::INFINITY;
    for (sigma, next) in steps {
        if reached < sigma {
            run.add_noise(&mut x, (sigma * sigma - reached * reached).sqrt());
        }
        let (stepped, x0) = heun_step(&run, &x, sigma, next).await;
        x = run.done(stepped, x0, sigma, next).await;
        reached = next;
    }
    x
}

fn restart_steps(sigmas: &[f32]) -> Vec<(f32, f32)> {
    /// Where the restarts happen, and how far up they go.
    const LEVELS: (f32, f32) = (0.1, 2.0);
    let pairs = |s: &[f32]| s.windows(2).map(|w| (w[0], w[1])).collect::<Vec<_>>();
    let karras = |min: f32, max: f32, n: usize| {
        karras_sigmas(min.into(), max.into(), n).into_iter().map(|s| s as f32).collect::<Vec<_>>()
    };
    let steps = sigmas.len() - 1;
    if steps < 20 {
        return pairs(sigmas);
    }
    let (length, times) = if steps >= 36 { (steps / 4, 2) } else { (9, 1) };
    let mut sigmas = karras(sigmas[steps - 1], sigmas[0], steps - length * times);
    sigmas.push(0.0);
    let nearest = |level: f32| {
        let distance = |i: &usize| (sigmas[*i] - level).abs();
        (0..sigmas.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0)
    };
    let (low, high) = (nearest(LEVELS.0), nearest(LEVELS.1));
    let mut list = pairs(&sigmas);
    if high < low {
        let again = pairs(&karras(sigmas[low], sigmas[high], length + 1));
        for _ in 0..times {
            list.splice(low..low, again.iter().copied());
        }
    }
    list
}
