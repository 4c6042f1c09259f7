//! Normalisations.

use super::case::{Case, On, Outcome};
use super::reference::{activation, join, wide};
use browser_diffusion::gpu::{Options, Recorder};
use browser_diffusion::ops::{self, Activation, Input};
use half::f16;

pub async fn group_norm(on: &On<'_>, options: &Options, seed: u64, large: bool) -> Outcome {
    let mut case = Case::new(options, seed);
    let random = &mut case.random;
    let n = random.range(1, 2);
    let (h, w) = if large { (53, 67) } else { (random.range(1, 12), random.range(2, 12)) };
    let second = random.range(0, 1) == 1;
    let groups = random.pick(&[1, 2, 4, 8, 32]);
    let per = random.range(1, if large { 40 } else { 9 });
    let c = groups * per;
    let c2 = if second && c > 4 { c - c / 8 * 4 } else { 0 };
    let act = random.pick(&[Activation::None, Activation::Silu]);
    let (x, mut xs) = case.input(n, h, w, c - c2);
    // A mean far from zero: sums of squares must not cancel.
    let shift = if large { 8.0 } else { 0.0 };
    xs.iter_mut().for_each(|v| *v = f16::from_f32(*v + shift).to_f32());
    case.inputs[0].1 = xs.clone();
    let mut input = Input::from(x);
    let mut joined = wide(&xs);
    if c2 > 0 {
        let (x2, xs2) = case.input(n, h, w, c2);
        input = Input::from((x, x2));
        joined = join(&joined, (c - c2) as usize, &wide(&xs2), c2 as usize);
    }
    let epsilon = 1e-5;
    let op = |r: &mut Recorder| ops::group_norm(r, input, "norm", groups, epsilon, act).unwrap();
    // One rounding of the output; f32 statistics of values up to 9 with unit spread: 81 * 2^-22 of the variance.
    let tolerance = case.storage() + 81.0 / (1u64 << 22) as f64;
    case.finish(
        on,
        format!("group_norm {n}x{h}x{w}x({}+{c2}) by {groups} {act:?}", c - c2),
        op,
        tolerance,
        |weight| {
            let (gamma, beta) = (weight("norm.weight"), weight("norm.bias"));
            let (c, per, positions) = (c as usize, per as usize, (h * w) as usize);
            let mut out = vec![0.0; joined.len()];
            for i in 0..n as usize {
                for g in 0..groups as usize {
                    let at: Vec<usize> = (0..positions)
                        .flat_map(|p| (0..per).map(move |ch| (i * positions + p) * c + g * per + ch))
                        .collect();
                    let mean = at.iter().map(|&j| joined[j]).sum::<f64>() / at.len() as f64;
                    let var = at.iter().map(|&j| (joined[j] - mean).powi(2)).sum::<f64>() / at.len() as f64;
                    for j in at {
                        let v = (joined[j] - mean) / (var + epsilon as f64).sqrt();
                        out[j] = activation(v * gamma[j % c] + beta[j % c], act);
                    }
                }
            }
            out
        },
    )
    .await
}

pub async fn layer_norm(on: &On<'_>, options: &Options, seed: u64) -> Outcome {
    let mut case = Case::new(options, seed);
    let (rows, c) = (case.random.range(1, 200), case.random.range(2, 700));
    let (x, xs) = case.input(1, 1, rows, c);
    let op = |r: &mut Recorder| ops::layer_norm(r, x, "norm", 1e-5).unwrap();
    let tolerance = case.storage() + c as f64 / (1u64 << 24) as f64;
    let xs = wide(&xs);
    case.finish(on, format!("layer_norm {rows}x{c}"), op, tolerance, |weight| {
        let (gamma, beta) = (weight("norm.weight"), weight("norm.bias"));
        xs.chunks(c as usize)
            .flat_map(|row| {
                let mean = row.iter().sum::<f64>() / c as f64;
                let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / c as f64;
                row.iter()
                    .enumerate()
                    .map(|(i, v)| (v - mean) / (var + 1e-5).sqrt() * gamma[i] + beta[i])
                    .collect::<Vec<_>>()
            })
            .collect()
    })
    .await
}
