//! DPM-Solver (Lu et al. 2022) in single steps of up to three evaluations: k-diffusion's "DPM fast" and "DPM adaptive".
//! Time is minus the logarithm of the noise level.

use super::numeric::zip;
use super::run::Run;

/// What the network says of a sample at a time: the noise in it, of unit spread.
async fn eps(run: &Run, x: &[f32], t: f64) -> (Vec<f32>, Vec<f32>) {
    let sigma = (-t).exp() as f32;
    let x0 = run.denoise(x, sigma).await;
    (zip(x, &x0, |x, x0| (x - x0) / sigma), x0)
}

/// `x - c * eps`
fn less(x: &[f32], c: f64, eps: &[f32]) -> Vec<f32> {
    zip(x, eps, |x, e| x - c as f32 * e)
}

/// `x - c * (a - b)`
fn less_change(x: &[f32], c: f64, a: &[f32], b: &[f32]) -> Vec<f32> {
    less(x, c, &zip(a, b, |a, b| a - b))
}

/// From `t` to `next` in one evaluation, `e`.
fn first_order(x: &[f32], e: &[f32], t: f64, next: f64) -> Vec<f32> {
    less(x, (-next).exp() * (next - t).exp_m1(), e)
}

/// In two: `e1` is taken at the fraction `r` of the way.
fn second_order(x: &[f32], e: &[f32], e1: &[f32], t: f64, next: f64, r: f64) -> Vec<f32> {
    let c = (-next).exp() * (next - t).exp_m1();
    less_change(&first_order(x, e, t, next), c / (2.0 * r), e1, e)
}

/// A step of an order from 1 to 3: the samples of the order below (for 3) and of the order itself.
async fn step(run: &Run, x: &[f32], e: &[f32], t: f64, next: f64, order: usize) -> (Vec<f32>, Vec<f32>) {
    let h = next - t;
    if order == 1 {
        return (x.to_vec(), first_order(x, e, t, next));
    }
    let r1 = if order == 2 { 1.0 / 2.0 } else { 1.0 / 3.0 };
    let s1 = t + r1 * h;
    let (e1, _) = eps(run, &first_order(x, e, t, s1), s1).await;
    let second = second_order(x, e, &e1, t, next, r1);
    if order == 2 {
        return (x.to_vec(), second);
    }
    let r2 = 2.0 / 3.0;
    let s2 = t + r2 * h;
    let c2 = (-s2).exp() * (r2 / r1) * ((r2 * h).exp_m1() / (r2 * h) - 1.0);
    let (e2, _) = eps(run, &less_change(&first_order(x, e, t, s2), c2, &e1, e), s2).await;
    let c3 = (-next).exp() / r2 * (h.exp_m1() / h - 1.0);
    (second, less_change(&first_order(x, e, t, next), c3, &e2, e))
}

/// Where an ancestral step goes that is to end at `next`, and the deviation of the noise to add there.
fn ancestral(run: &Run, t: f64, next: f64, end: f64) -> (f64, f32) {
    if run.knobs.eta == 0.0 {
        return (next, 0.0);
    }
    let sigma = |t: f64| (-t).exp();
    let (down, _) = run.ancestral(sigma(t) as f32, sigma(next) as f32);
    let to = end.min(-f64::from(down).ln());
    (to, (sigma(next).powi(2) - sigma(to).powi(2)).max(0.0).sqrt() as f32)
}

/// Time at the largest and at the smallest noise level. The level after the last step may be none at all; these
/// samplers end before it, and leave that noise in, as k-diffusion's do.
fn ends(run: &Run) -> (f64, f64) {
    let above_zero = |s: &&f32| **s > 0.0;
    let time = |s: Option<&f32>| -f64::from(s.copied().unwrap_or(1.0)).ln();
    (time(run.levels.sigmas.first()), time(run.levels.sigmas.iter().rev().find(above_zero)))
}

/// As k-diffusion's `sample_dpm_fast`: as many evaluations as there are steps, three to a step.
pub(super) async fn dpm_fast(mut run: Run, mut x: Vec<f32>) -> Vec<f32> {
    let (start, end) = ends(&run);
    let evaluations = run.levels.timesteps.len();
    let m = evaluations / 3 + 1;
    let mut orders = vec![3; m - 1];
    match evaluations % 3 {
        0 => {
            orders.pop();
            orders.extend([2, 1]);
        }
        rest => orders.push(rest),
    }
    run.total = orders.len();
    let time = |i: usize| start + (end - start) * i as f64 / m as f64;
    for (i, order) in orders.into_iter().enumerate() {
        let (t, next) = (time(i), time(i + 1));
        let (to, up) = ancestral(&run, t, next, end);
        let (e, x0) = eps(&run, &x, t).await;
        x = step(&run, &x, &e, t, to, order).await.1;
        if up > 0.0 {
            run.add_noise(&mut x, up);
        }
        x = run.done(x, x0, (-t).exp() as f32, (-next).exp() as f32).await;
    }
    x
}

/// As k-diffusion's `sample_dpm_adaptive` of order 3, with its tolerances: how long the steps are is found from how far
/// orders 2 and 3 differ. A step over which they disagree is taken again, shorter.
pub(super) async fn dpm_adaptive(mut run: Run, mut x: Vec<f32>) -> Vec<f32> {
    const RTOL: f32 = 0.05;
    const ATOL: f32 = 0.0078;
    const ACCEPT_SAFETY: f64 = 0.81;
    let (start, end) = ends(&run);
    // The controller's exponent; only its integral part is used.
    let power = 1.0 / if run.knobs.eta == 0.0 { 3.0 } else { 1.5 };
    let (mut t, mut h) = (start, 0.05);
    let mut before = x.clone();
    while t < end - 1e-5 {
        let next = end.min(t + h);
        let (to, up) = ancestral(&run, t, next, end);
        let (e, x0) = eps(&run, &x, t).await;
        let (low, high) = step(&run, &x, &e, t, to, 3).await;
        let mut square = 0f64;
        for ((low, high), before) in low.iter().zip(&high).zip(&before) {
            let delta = ATOL.max(RTOL * low.abs().max(before.abs()));
            square += f64::from((low - high) / delta).powi(2);
        }
        let error = (square / x.len() as f64).sqrt();
        let factor = 1.0 + ((1.0 / (error + 1e-8)).powf(power) - 1.0).atan();
        h *= factor;
        // A network that gives nonsense would keep the steps shrinking for ever.
        let lost = !error.is_finite() || h < 1e-4;
        if factor >= ACCEPT_SAFETY || lost {
            before = low;
            x = high;
            if up > 0.0 {
                run.add_noise(&mut x, up);
            }
            run.total = if next < end - 1e-5 { run.total.max(run.step + 2) } else { run.step + 1 };
            x = run.done(x, x0, (-t).exp() as f32, (-next).exp() as f32).await;
            t = next;
            h = h.max(1e-4);
        }
    }
    x
}
