//! Arithmetic that the samplers share: over slices, numpy's and torch's functions, and formulas of one noise level.

/// Correctly rounded f32 logarithm, the same on every platform.
pub(super) fn ln(x: f32) -> f32 {
    f64::from(x).ln() as f32
}

/// Correctly rounded f32 exponential.
pub(super) fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

/// `f(a, b)` element by element.
pub(super) fn zip(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    // One loop for all of the many formulas: a call to an element is little beside the network, and the module small.
    #[inline(never)]
    fn each(a: &[f32], b: &[f32], f: &dyn Fn(f32, f32) -> f32) -> Vec<f32> {
        a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
    }
    each(a, b, &f)
}

/// Adds `z` times `scale`, in place.
pub(super) fn add(x: &mut [f32], z: &[f32], scale: f32) {
    x.iter_mut().zip(z).for_each(|(x, z)| *x += z * scale);
}

/// Euler's step over `dt` along the derivative that `x0` gives at `sigma`, in place.
pub(super) fn euler_step(x: &mut [f32], x0: &[f32], sigma: f32, dt: f32) {
    x.iter_mut().zip(x0).for_each(|(x, x0)| *x += (*x - x0) / sigma * dt);
}

/// `numpy.linspace`
pub(super) fn linspace(start: f64, stop: f64, n: usize) -> Vec<f64> {
    if n == 1 {
        return vec![start];
    }
    let step = (stop - start) / (n - 1) as f64;
    (0..n).map(|i| if i + 1 == n { stop } else { i as f64 * step + start }).collect()
}

/// `numpy.linspace(0, stop, n, endpoint=False)`
pub(super) fn linspace_open(stop: f64, n: usize) -> impl Iterator<Item = f64> {
    (0..n).map(move |i| i as f64 * (stop / n as f64))
}

/// `torch.linspace` in f32: counted from the nearer end.
pub(super) fn torch_linspace(start: f32, end: f32, n: usize) -> Vec<f32> {
    if n == 1 {
        return vec![start];
    }
    let step = (end - start) / (n - 1) as f32;
    (0..n)
        .map(|i| if i < n / 2 { start + step * i as f32 } else { end - step * (n - 1 - i) as f32 })
        .collect()
}

/// `numpy.arange(start, 0, -step)`
pub(super) fn arange_down(start: usize, step: f64) -> Vec<f64> {
    let start = start as f64;
    let delta = (start - step) - start;
    let n = (start / step).ceil() as usize;
    (0..n).map(|i| start + i as f64 * delta).collect()
}

/// `numpy.interp(x, arange(len(values)), values)`
pub(super) fn interp(x: f64, values: &[f32]) -> f64 {
    let at = |i: usize| values.get(i).map_or(f64::NAN, |&v| f64::from(v));
    let last = values.len().saturating_sub(1);
    if x >= last as f64 {
        return at(last);
    }
    let low = x.max(0.0).floor() as usize;
    (at(low + 1) - at(low)) * (x.max(0.0) - low as f64) + at(low)
}

/// `torch.quantile`, linear.
pub(super) fn quantile(mut values: Vec<f32>, q: f32) -> f32 {
    values.sort_unstable_by(f32::total_cmp);
    let rank = q * values.len().saturating_sub(1) as f32;
    let at = |r: f32| values.get(r as usize).copied().unwrap_or(f32::NAN);
    let (below, above, w) = (at(rank.floor()), at(rank.ceil()), rank.fract());
    // torch's lerp: from the nearer end.
    if w < 0.5 { below + w * (above - below) } else { above - (above - below) * (1.0 - w) }
}

/// Unlike `f32::clamp` this does not panic on a negative range, and lets NaN through.
pub(super) fn clamp(sample: &mut [f32], range: f32) {
    for x in sample {
        if *x < -range {
            *x = -range;
        }
        if *x > range {
            *x = range;
        }
    }
}

/// `sqrt((1 - alpha) / alpha)`
pub(super) fn sigma(alpha: f32) -> f32 {
    ((1.0 - alpha) / alpha).sqrt()
}

/// Noise levels after Karras et al. 2022, equation 5 with rho 7, falling.
pub(super) fn karras_sigmas(sigma_min: f64, sigma_max: f64, n: usize) -> Vec<f64> {
    power_sigmas(sigma_min, sigma_max, 7.0, n)
}

/// The same with another rho.
pub(super) fn power_sigmas(sigma_min: f64, sigma_max: f64, rho: f64, n: usize) -> Vec<f64> {
    let (min, max) = (sigma_min.powf(1.0 / rho), sigma_max.powf(1.0 / rho));
    linspace(0.0, 1.0, n).iter().map(|ramp| (max + ramp * (min - max)).powf(rho)).collect()
}

/// The fractional training timestep of a noise level, by interpolation between logarithms.
/// `log_sigmas` rise; their difference is taken in f32, as in diffusers.
pub(super) fn sigma_to_t(sigma: f64, log_sigmas: &[f32]) -> f64 {
    let log_sigma = sigma.max(1e-10).ln();
    let last = log_sigmas.iter().rposition(|&l| log_sigma - f64::from(l) >= 0.0).unwrap_or(0);
    let low = last.min(log_sigmas.len().saturating_sub(2));
    let (Some(&l), Some(&h)) = (log_sigmas.get(low), log_sigmas.get(low + 1)) else { return 0.0 };
    let w = ((f64::from(l) - log_sigma) / f64::from(l - h)).clamp(0.0, 1.0);
    (1.0 - w) * low as f64 + w * (low + 1) as f64
}
