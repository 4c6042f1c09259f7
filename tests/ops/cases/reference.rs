//! What several references need, in f64.

use browser_diffusion::ops::Activation;

pub fn wide(v: &[f32]) -> Vec<f64> {
    v.iter().map(|&x| x as f64).collect()
}

/// erf by its Taylor series (|x| < 3) and complementary continued fraction: f64 accuracy, nothing shared with
/// the shader's approximation.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 3.0 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term.abs() > 1e-17 * sum.abs() {
            n += 1.0;
            term *= -a * a / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let tail = (1..=60).rev().fold(a, |t, k| a + k as f64 / 2.0 / t);
        1.0 - (-a * a).exp() / (tail * std::f64::consts::PI.sqrt())
    };
    value * x.signum()
}

pub fn activation(x: f64, a: Activation) -> f64 {
    match a {
        Activation::None => x,
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::Relu => x.max(0.0),
        Activation::TanhClamp => 3.0 * (x / 3.0).tanh(),
        Activation::LeakyRelu => x.max(0.2 * x),
    }
}

pub const ACTIVATIONS: [Activation; 7] = [
    Activation::None,
    Activation::Silu,
    Activation::Gelu,
    Activation::QuickGelu,
    Activation::Relu,
    Activation::TanhClamp,
    Activation::LeakyRelu,
];

/// Two tensors [rows, a] and [rows, b] joined to [rows, a + b].
pub fn join(first: &[f64], a: usize, second: &[f64], b: usize) -> Vec<f64> {
    if b == 0 {
        return first.to_vec();
    }
    first
        .chunks(a)
        .zip(second.chunks(b))
        .flat_map(|(x, y)| x.iter().chain(y).copied().collect::<Vec<_>>())
        .collect()
}
