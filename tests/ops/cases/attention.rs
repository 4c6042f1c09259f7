//! Attention.

use super::case::{Case, On, Outcome, U};
use super::reference::wide;
use browser_diffusion::gpu::{Options, Recorder};
use browser_diffusion::ops::{self, Columns};

/// Heads of `d` channels over up to 90 queries.
pub async fn attention(on: &On<'_>, options: &Options, seed: u64, d: u32) -> Outcome {
    attention_of(on, options, seed, d, [1, 90]).await
}

/// The same over more queries than two workgroups of any kernel take.
pub async fn long_attention(on: &On<'_>, options: &Options, seed: u64, d: u32) -> Outcome {
    attention_of(on, options, seed, d, [257, 300]).await
}

async fn attention_of(on: &On<'_>, options: &Options, seed: u64, d: u32, [least, most]: [u32; 2]) -> Outcome {
    let mut case = Case::new(options, seed);
    let n = case.random.range(1, 2);
    let heads = case.random.range(1, 3);
    let causal = case.random.range(0, 2) == 0;
    let lq = case.random.range(least, most);
    let lk = if causal { lq } else { case.random.range(1, 90) };
    let c = heads * d;
    let (q, mut qs) = case.input(n, 1, lq, c);
    let (k, mut ks) = case.input(n, 1, lk, c);
    let (v, mut vs) = case.input(n, 1, lk, c);
    let [mut q, mut k, mut v] = [q, k, v].map(Columns::from);
    if causal {
        // All three among the channels of one tensor.
        let (t, ts) = case.input(n, 1, lq, 3 * c + 4);
        [q, v, k] = [0, 1, 2].map(|i| Columns { tensor: t, from: 4 + i * c, c });
        let of = |x: Columns| {
            let rows = ts.chunks_exact(3 * c as usize + 4);
            rows.flat_map(|row| &row[x.from as usize..][..c as usize]).copied().collect()
        };
        (qs, ks, vs) = (of(q), of(k), of(v));
    }
    let op = |r: &mut Recorder| ops::attention(r, q, k, v, heads, causal).unwrap();
    // In f16, two products, one after the other.
    let products = if case.f16() { 8.0 * U } else { 0.0 };
    let tolerance = case.storage() + (lk + d) as f64 / (1u64 << 24) as f64 + products;
    let (qs, ks, vs) = (wide(&qs), wide(&ks), wide(&vs));
    case.finish(on, format!("attention {n}x{heads}x{lq}x{lk}x{d} causal {causal}"), op, tolerance, |_| {
        let (c, d) = (c as usize, d as usize);
        let mut out = vec![0.0; (n * lq) as usize * c];
        for i in 0..n as usize {
            for head in 0..heads as usize {
                for row in 0..lq as usize {
                    let at = (i * lq as usize + row) * c + head * d;
                    let last = if causal { row + 1 } else { lk as usize };
                    let key = |j: usize| (i * lk as usize + j) * c + head * d;
                    let scores: Vec<f64> = (0..last)
                        .map(|j| {
                            let dot: f64 = (0..d).map(|e| qs[at + e] * ks[key(j) + e]).sum();
                            (dot / (d as f64).sqrt()).exp()
                        })
                        .collect();
                    let total: f64 = scores.iter().sum();
                    for (j, s) in scores.iter().enumerate() {
                        for e in 0..d {
                            out[at + e] += s / total * vs[key(j) + e];
                        }
                    }
                }
            }
        }
        out
    })
    .await
}
