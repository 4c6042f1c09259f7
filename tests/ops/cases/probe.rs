//! What is looked at while a network runs.

use super::case::{Case, On, Outcome};
use super::reference::wide;
use browser_diffusion::gpu::{Options, Probe, Recorder};
use browser_diffusion::ops::{self, Columns};

/// Attention to each key: the mean over heads of `d` channels, of two layers, for one picture of a batch.
pub async fn word_map(on: &On<'_>, options: &Options, seed: u64, d: u32) -> Outcome {
    let mut case = Case::new(options, seed);
    let n = case.random.range(1, 2);
    let (h, w, keys) = (case.random.range(1, 12), case.random.range(1, 12), case.random.range(1, 90));
    let picture = case.random.range(0, n - 1);
    let layers: Vec<_> = (0..2)
        .map(|_| {
            let heads = case.random.range(1, 3);
            let c = heads * d;
            let (q, qs) = case.input_up_to(2.0, [n, h, w, c]);
            // Keys among other channels.
            let (k, ks) = case.input_up_to(2.0, [n, 1, keys, 2 * c]);
            (heads, q, Columns { tensor: k, from: c, c }, wide(&qs), wide(&ks))
        })
        .collect();
    let op = |r: &mut Recorder| {
        r.probe = Some(Probe { picture, attention: true, ..Default::default() });
        for (heads, q, k, ..) in &layers {
            ops::watch_attention(r, *q, *k, *heads);
        }
        let probe = r.probe.take().unwrap();
        assert_eq!((probe.maps.len(), probe.maps[0].layers, probe.blocks.len()), (1, 2, 0));
        probe.maps[0].tensor
    };
    // Sums of d products and of keys in f32, as attention; exp of a GPU is good for 3 + 2 |x| ulp, and scores stay
    // below 4 sqrt(d), of which the highest is taken away.
    let tolerance = (f64::from(d + keys) + 8.0 * f64::from(d).sqrt() + 6.0) / (1u64 << 23) as f64;
    case.finish(on, format!("attention map {n}x{h}x{w}x{keys}x{d}"), op, tolerance, |_| {
        let (rows, keys, d) = ((h * w) as usize, keys as usize, d as usize);
        let mut out = vec![0.0; rows * keys];
        for (heads, .., qs, ks) in &layers {
            let (heads, c) = (*heads as usize, *heads as usize * d);
            for row in 0..rows {
                let q = &qs[(picture as usize * rows + row) * c..][..c];
                for head in 0..heads {
                    let score = |key: usize| {
                        let k = &ks[(picture as usize * keys + key) * 2 * c + c..][..c];
                        let dot: f64 = (head * d..(head + 1) * d).map(|e| q[e] * k[e]).sum();
                        (dot / (d as f64).sqrt()).exp()
                    };
                    let scores: Vec<f64> = (0..keys).map(score).collect();
                    let total: f64 = scores.iter().sum();
                    for (key, score) in scores.iter().enumerate() {
                        out[row * keys + key] += score / total / heads as f64;
                    }
                }
            }
        }
        out
    })
    .await
}

/// The first channels of one picture of a batch, which are only copied.
pub async fn channels(on: &On<'_>, options: &Options, seed: u64) -> Outcome {
    let mut case = Case::new(options, seed);
    let [n, h, w, c] = [2, case.random.range(1, 40), case.random.range(1, 40), case.random.range(1, 20)];
    let picture = case.random.range(0, 1);
    let (x, xs) = case.input(n, h, w, c);
    let op = |r: &mut Recorder| {
        r.probe = Some(Probe { picture, activations: true, ..Default::default() });
        ops::watch_block(r, "block", x);
        let block = r.probe.take().unwrap().blocks.swap_remove(0);
        assert_eq!((block.name.as_str(), block.channels), ("block", c));
        block.tensor
    };
    case.finish(on, format!("channels {h}x{w}x{c}"), op, 0.0, |_| {
        let rows = (h * w) as usize;
        let of_picture =
            xs[picture as usize * rows * c as usize..][..rows * c as usize].chunks_exact(c as usize);
        of_picture.flat_map(|row| wide(&row[..c.min(8) as usize])).collect()
    })
    .await
}
