//! Quantised layers that LoRAs change.

use super::case::{Case, On, Outcome};
use super::reference::{activation, wide};
use browser_diffusion::gpu::{Adapted, Options, Recorder};
use browser_diffusion::ops::{self, Activation, Epilogue};
use std::rc::Rc;

/// x times the rows of `w`, [n, k].
fn times(x: &[f64], w: &[f64]) -> Vec<f64> {
    w.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

/// Quantised layers that LoRAs change. `part`: the first or the last of a stack, to which a low rank is added and in
/// whose matrix's place another stands; none: a layer of its own with a low rank and GEGLU.
pub async fn adapted(
    on: &On<'_>,
    options: &Options,
    [m, k, out, rank]: [u32; 4],
    part: Option<usize>,
) -> Outcome {
    let mut case = Case::new(options, (m + k + out + rank) as u64);
    let layers = [("a", Adapted::LowRank(rank)), ("c", Adapted::Merged)];
    let layers = layers.into_iter().map(|(name, how)| (name.to_owned(), how)).collect();
    case.adapted = Rc::new(layers);
    let (x, xs) = case.input(1, 1, m, k);
    let op = |r: &mut Recorder| match part {
        Some(part) => {
            let parts = [("a", out), ("b", 36), ("c", out)];
            ops::linear_stack(r, x, &parts).unwrap()[part].tensor
        }
        None => {
            let geglu = Epilogue { geglu: true, ..Default::default() };
            ops::linear(r, x, "a", out, geglu).unwrap()
        }
    };
    // Three products. What two of them make is independent, so that neither is larger than the sum.
    let products = 2.0 * case.product_tolerance(k as usize) + case.product_tolerance(rank as usize);
    let tolerance = if part.is_none() { 2.13 * products } else { products };
    let xs = wide(&xs);
    let name = format!("adapted {m}x{k}x{out} rank {rank}, part {part:?}");
    case.finish(on, name, op, tolerance, |weight| {
        let plus = |a: Vec<f64>, b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<f64>>();
        let row = |x: &[f64]| {
            if part == Some(2) {
                return plus(times(x, &weight("c.merged.weight")), &weight("c.bias"));
            }
            let narrow = times(x, &weight("a.lora_down.weight"));
            let base = plus(times(x, &weight("a.weight")), &weight("a.bias"));
            let sums = plus(base, &times(&narrow, &weight("a.lora_up.weight")));
            let (values, gates) = sums.split_at(out as usize / 2);
            match part {
                Some(_) => sums,
                None => values.iter().zip(gates).map(|(v, g)| v * activation(*g, Activation::Gelu)).collect(),
            }
        };
        xs.chunks(k as usize).flat_map(row).collect()
    })
    .await
}
