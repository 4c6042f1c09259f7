//! Products: large ones, stacks, GEGLU, with a layer normalisation folded in.

use super::case::U;
use super::case::{Case, On, Outcome};
use super::reference::{activation, wide};
use browser_diffusion::gpu::{Options, Recorder};
use browser_diffusion::ops::{self, Activation, Conv, Epilogue};
use half::f16;

/// A matrix multiply of more rows, columns and depth than the random ones, so that every tile is used.
pub async fn matmul(on: &On<'_>, options: &Options, m: u32, k: u32, n: u32) -> Outcome {
    let mut case = Case::new(options, (m * 31 + k * 7 + n) as u64);
    let (x, xs) = case.input(1, 1, m, k);
    let op = |r: &mut Recorder| ops::linear(r, x, "w", n, Epilogue::default()).unwrap();
    let tolerance = case.product_tolerance(k as usize);
    let xs = wide(&xs);
    case.finish(on, format!("linear {m}x{k}x{n}"), op, tolerance, |weight| {
        let (matrix, b) = (weight("w.weight"), weight("w.bias"));
        xs.chunks(k as usize)
            .flat_map(|row| {
                matrix
                    .chunks(k as usize)
                    .zip(&b)
                    .map(|(w, b)| row.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + b)
                    .collect::<Vec<_>>()
            })
            .collect()
    })
    .await
}

/// Matrices over one input in one product: rows of `outs`, each weight under its own name.
pub async fn stack(on: &On<'_>, options: &Options, m: u32, k: u32, outs: [u32; 3]) -> Outcome {
    let mut case = Case::new(options, (m + k + outs[1]) as u64);
    let (x, xs) = case.input(1, 1, m, k);
    let names = ["a", "b", "c"];
    let parts: Vec<(&str, u32)> = names.into_iter().zip(outs).collect();
    let op = |r: &mut Recorder| ops::linear_stack(r, x, &parts).unwrap()[0].tensor;
    let tolerance = case.product_tolerance(k as usize);
    let xs = wide(&xs);
    case.finish(on, format!("stack {m}x{k}x{outs:?}"), op, tolerance, |weight| {
        let matrix: Vec<f64> = names.iter().flat_map(|n| weight(&format!("{n}.weight"))).collect();
        let b: Vec<f64> = names.iter().flat_map(|n| weight(&format!("{n}.bias"))).collect();
        let rows = xs.chunks(k as usize);
        let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
        rows.flat_map(|x| matrix.chunks(k as usize).zip(&b).map(|(w, b)| dot(x, w) + b).collect::<Vec<_>>())
            .collect()
    })
    .await
}

/// The first half of the channels times gelu of the second.
pub async fn geglu(on: &On<'_>, options: &Options, m: u32, k: u32, half: u32, bias: bool) -> Outcome {
    let mut case = Case::new(options, (m + k + half) as u64);
    let (x, xs) = case.input(1, 1, m, k);
    let e = Epilogue { geglu: true, ..Default::default() };
    let conv = Conv { bias, ..Conv::k1() };
    let op = |r: &mut Recorder| ops::conv2d(r, x, "w", 2 * half, conv, e).unwrap();
    // |gelu'| is at most 1.13, and both factors are off by a product's tolerance.
    let tolerance = 2.13 * case.product_tolerance(k as usize);
    let xs = wide(&xs);
    case.finish(on, format!("geglu {m}x{k}x{half} bias {bias}"), op, tolerance, |weight| {
        let (half, k) = (half as usize, k as usize);
        let matrix = weight("w.weight");
        let b = if bias { weight("w.bias") } else { vec![0.0; 2 * half] };
        let channel =
            |row: &[f64], n: usize| row.iter().zip(&matrix[n * k..]).map(|(x, w)| x * w).sum::<f64>() + b[n];
        let gated =
            |row: &[f64], i: usize| channel(row, i) * activation(channel(row, half + i), Activation::Gelu);
        xs.chunks(k).flat_map(|row| (0..half).map(|i| gated(row, i)).collect::<Vec<_>>()).collect()
    })
    .await
}

/// Layer normalisation in the product that reads it, around a mean far from zero; with GEGLU every other time.
pub async fn normed(on: &On<'_>, options: &Options, seed: u64) -> Outcome {
    let mut case = Case::new(options, seed);
    let (rows, c, out) =
        (case.random.range(1, 200), case.random.range(8, 90) * 4, case.random.range(4, 40) * 8);
    let geglu = seed.is_multiple_of(2);
    let (x, mut xs) = case.input(1, 1, rows, c);
    xs.iter_mut().for_each(|v| *v = f16::from_f32(*v + 4.0).to_f32());
    case.inputs[0].1 = xs.clone();
    let e = Epilogue { geglu, ..Default::default() };
    let op = |r: &mut Recorder| {
        let h = ops::layer_normed(r, x, "norm", 1e-5).unwrap();
        ops::linear(r, h, "w", out, e).unwrap()
    };
    // What is normalised is rounded where products are f16. f32 sums of squares, of values up to 5 with a variance of a
    // third around a first value of theirs: 16 * 2^-23 of the variance.
    let rounded = if case.f16() { U } else { 0.0 };
    let tolerance = case.product_tolerance(c as usize) + rounded + 16.0 / (1u64 << 23) as f64;
    let xs = wide(&xs);
    case.finish(on, format!("layer_normed {rows}x{c} -> {out}, geglu {geglu}"), op, tolerance, |weight| {
        let (gamma, beta) = (weight("norm.weight"), weight("norm.bias"));
        let (matrix, bias) = (weight("w.weight"), weight("w.bias"));
        xs.chunks(c as usize)
            .flat_map(|row| {
                let mean = row.iter().sum::<f64>() / c as f64;
                let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / c as f64;
                let h: Vec<f64> = (0..c as usize)
                    .map(|i| (row[i] - mean) / (var + 1e-5).sqrt() * gamma[i] + beta[i])
                    .collect();
                let ys: Vec<f64> = matrix
                    .chunks(c as usize)
                    .zip(&bias)
                    .map(|(w, b)| w.iter().zip(&h).map(|(w, h)| w * h).sum::<f64>() + b)
                    .collect();
                match geglu {
                    false => ys,
                    true => {
                        let (values, gates) = ys.split_at(out as usize / 2);
                        values.iter().zip(gates).map(|(v, g)| v * activation(*g, Activation::Gelu)).collect()
                    }
                }
            })
            .collect()
    })
    .await
}
