//! Operations on one element at a time, and rows by index.

use super::case::{Case, On, Outcome};
use super::reference::{ACTIVATIONS, activation, wide};
use browser_diffusion::gpu::{Options, Recorder};
use browser_diffusion::ops;

pub async fn pointwise(on: &On<'_>, options: &Options, seed: u64) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for act in ACTIVATIONS {
        let mut case = Case::new(options, seed + act as u64);
        let (h, c) = (case.random.range(1, 40), case.random.range(1, 30));
        // As far as activations reach, both tails.
        let (x, xs) = case.input_up_to(20.0, [2, h, 3, c]);
        let op = |r: &mut Recorder| {
            // A recorded no-op has no output of its own: add x to what comes out.
            let activated = ops::activate(r, x, act).unwrap();
            ops::add(r, activated, x).unwrap()
        };
        let tolerance = 2.0 * case.storage();
        let name = format!("activate and add {act:?} 2x{h}x3x{c}");
        outcomes.push(
            case.finish(on, name, op, tolerance, |_| {
                xs.iter().map(|&v| activation(v as f64, act) + v as f64).collect()
            })
            .await,
        );
    }
    let mut case = Case::new(options, seed);
    let (x, xs) = case.input(1, 3, 5, 3);
    let op = |r: &mut Recorder| ops::affine(r, x, 2.0, -1.0).unwrap();
    let tolerance = case.storage();
    outcomes.push(
        case.finish(on, "affine".into(), op, tolerance, |_| {
            xs.iter().map(|&v| 2.0 * v as f64 - 1.0).collect()
        })
        .await,
    );
    let mut case = Case::new(options, seed);
    let [h, c] = [9, 30].map(|most| case.random.range(1, most));
    let (x, xs) = case.input(2, h, 3, c);
    let (more, mores) = case.input(2, h, 3, c);
    let (scales, by) = case.numbers(3);
    let op = |r: &mut Recorder| ops::plus_scaled(r, x, more, scales, 1).unwrap();
    let tolerance = case.storage();
    outcomes.push(
        case.finish(on, format!("plus scaled 2x{h}x3x{c}"), op, tolerance, |_| {
            xs.iter()
                .zip(&mores)
                .map(|(&x, &more)| f64::from(x) + f64::from(by[1]) * f64::from(more))
                .collect()
        })
        .await,
    );
    let mut case = Case::new(options, seed);
    let [h, w, c] = [9, 9, 30].map(|most| case.random.range(1, most));
    let (x, xs) = case.input(2, h, w, c);
    let op = |r: &mut Recorder| ops::average(r, x).unwrap();
    let tolerance = case.storage();
    outcomes.push(
        case.finish(on, format!("average 2x{h}x{w}x{c}"), op, tolerance, |_| {
            let [h, w, c] = [h, w, c].map(|side| side as usize);
            let mut out = Vec::new();
            for (n, y, x, k) in (0..2 * h.div_ceil(2) * w.div_ceil(2) * c).map(|i| {
                let at = i / c / w.div_ceil(2);
                (at / h.div_ceil(2), at % h.div_ceil(2) * 2, i / c % w.div_ceil(2) * 2, i % c)
            }) {
                let square = (y..h.min(y + 2)).flat_map(|y| (x..w.min(x + 2)).map(move |x| (y, x)));
                let values: Vec<f64> =
                    square.map(|(y, x)| f64::from(xs[((n * h + y) * w + x) * c + k])).collect();
                out.push(values.iter().sum::<f64>() / values.len() as f64);
            }
            out
        })
        .await,
    );
    outcomes
}

pub async fn rows(on: &On<'_>, options: &Options, seed: u64) -> Vec<Outcome> {
    let mut case = Case::new(options, seed);
    let (n, length, width, vocabulary) =
        (case.random.range(1, 3), case.random.range(1, 77), case.random.range(1, 50), 100);
    let values: Vec<u32> = (0..n * length).map(|_| case.random.range(0, vocabulary - 1)).collect();
    let ids = case.indices(n, length, &values);
    let op = |r: &mut Recorder| ops::embed(r, ids, "t", vocabulary, "p", 77, width).unwrap();
    let tolerance = case.storage();
    let embed = case
        .finish(on, format!("embed {n}x{length}x{width}"), op, tolerance, |weight| {
            let (table, places) = (weight("t.weight"), weight("p.weight"));
            let width = width as usize;
            let mut out = Vec::new();
            for (i, id) in values.iter().enumerate() {
                let at = i % length as usize * width;
                out.extend((0..width).map(|c| table[*id as usize * width + c] + places[at + c]));
            }
            out
        })
        .await;

    let mut case = Case::new(options, seed + 1);
    let places: Vec<u32> = (0..n).map(|_| case.random.range(0, length - 1)).collect();
    let index = case.indices(n, 1, &places);
    let (x, xs) = case.input(n, 1, length, width);
    let op = |r: &mut Recorder| ops::gather(r, x, index).unwrap();
    let gather = case
        .finish(on, format!("gather {n}x{length}x{width}"), op, 0.0, |_| {
            let width = width as usize;
            let row = |i: usize| &xs[(i * length as usize + places[i] as usize) * width..][..width];
            (0..n as usize).flat_map(|i| wide(row(i))).collect()
        })
        .await;
    vec![embed, gather]
}
