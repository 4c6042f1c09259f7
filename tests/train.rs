//! Training, on the CPU and on the GPU: every operation, forward and backward, against the same in f64 and its finite
//! differences; every family against torch (tests/reference/train.py), from the same weights and batches.

use browser_diffusion::gpu::{Gpu, GpuOptions};
use browser_diffusion::named::Named;
use browser_diffusion::samplers::Twister;
use browser_diffusion::train::cpu::{backward, forward};
use browser_diffusion::train::gemm::{Packed, Start, View, gemm};
use browser_diffusion::train::gpu::compute;
use browser_diffusion::train::op::{Op, Tensor};
use browser_diffusion::train::{
    Data, DataSet, Doodles, Family, PIXELS, Picture, Plan, STEPS, Trainer, doodles as rules,
};
use browser_diffusion::{Code, Error};
use pollster::block_on;
use serde_json::Value;
use std::cell::Cell;
use std::rc::Rc;

/// What an operation computes, in f64 and as its doc says it.
fn exact(op: &Op, v: &mut [f64]) {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let at = |t: Tensor, row: usize, column: usize| t.at + row * t.cols + column;
    match *op {
        Op::Features { x, first, count, time, y, .. } => {
            for row in 0..x.rows {
                let mut out = vec![];
                out.extend((0..count).map(|j| v[at(x, row, first + j)]));
                for k in 0..4 {
                    let turned = |j: usize| v[at(x, row, first + j)] * f64::from(1 << k);
                    out.extend((0..count).map(|j| turned(j).sin()));
                    out.extend((0..count).map(|j| turned(j).cos()));
                }
                out.extend(time.map(|t| v[at(t, row, 0)]));
                v[at(y, row, 0)..at(y, row + 1, 0)].copy_from_slice(&out);
            }
        }
        Op::Linear { x, w, b, y, .. } => {
            for (i, j) in (0..y.rows).flat_map(|i| (0..y.cols).map(move |j| (i, j))) {
                let sum: f64 = (0..x.cols).map(|k| v[at(x, i, k)] * v[at(w, k, j)]).sum();
                v[at(y, i, j)] = v[at(b, 0, j)] + sum;
            }
        }
        Op::Silu { x, y } => {
            for i in 0..x.len() {
                v[y.at + i] = v[x.at + i] * sigmoid(v[x.at + i]);
            }
        }
        Op::Couple { x, st, keep, y } | Op::Uncouple { x, st, keep, y } => {
            for row in 0..x.rows {
                let (s, t) = (2.0 * (v[at(st, row, 0)] / 2.0).tanh(), v[at(st, row, 1)]);
                let (there, old) = (matches!(op, Op::Couple { .. }), v[at(x, row, 1 - keep)]);
                v[at(y, row, keep)] = v[at(x, row, keep)];
                v[at(y, row, 1 - keep)] = if there { old * s.exp() + t } else { (old - t) / s.exp() };
                v[at(y, row, 2)] = v[at(x, row, 2)] + if there { s } else { -s };
            }
        }
        Op::Reparametrise { stats, noise, z } => {
            for (row, j) in (0..z.rows).flat_map(|row| [(row, 0), (row, 1)]) {
                let deviation = v[at(stats, row, 2 + j)].exp().sqrt();
                v[at(z, row, j)] = v[at(stats, row, j)] + deviation * v[at(noise, row, j)];
            }
        }
        Op::Mse { x, target, loss } => {
            let sum: f64 = (0..x.len()).map(|i| (v[x.at + i] - v[target.at + i]).powi(2)).sum();
            v[loss.at] = sum / x.len() as f64;
        }
        Op::Nll { x, loss } => {
            let each = |row| {
                let density = |z: f64| (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
                -(density(v[at(x, row, 0)]) * density(v[at(x, row, 1)]) * v[at(x, row, 2)].exp()).ln()
            };
            v[loss.at] = (0..x.rows).map(each).sum::<f64>() / x.rows as f64;
        }
        Op::Elbo { x, target, stats, sigma, loss } => {
            let s = f64::from(sigma);
            let each = |row| {
                let density = |d: f64| (-(d / s).powi(2) / 2.0).exp() / (s * std::f64::consts::TAU.sqrt());
                let likely = |j| density(v[at(x, row, j)] - v[at(target, row, j)]).ln();
                let (mean, log) = (|j| v[at(stats, row, j)], |j| v[at(stats, row, 2 + j)]);
                let apart = |j| 0.5 * (mean(j) * mean(j) + log(j).exp() - 1.0 - log(j));
                apart(0) + apart(1) - likely(0) - likely(1)
            };
            v[loss.at] = (0..x.rows).map(each).sum::<f64>() / x.rows as f64;
        }
        Op::Bce { x, label, weight, loss } => {
            let label = f64::from(label);
            let each = |i| {
                let p = sigmoid(v[x.at + i]);
                -(label * p.ln() + (1.0 - label) * (1.0 - p).ln())
            };
            v[loss.at] = f64::from(weight) * (0..x.len()).map(each).sum::<f64>() / x.len() as f64;
        }
    }
}

/// An operation's name, the operation, what it reads (true where a gradient goes there), and what it writes.
type Case = (&'static str, Op, Vec<(Tensor, bool)>, Tensor);

/// Every operation on so many rows.
fn cases(rows: usize) -> Vec<Case> {
    let next = Cell::new(0);
    let t = |rows, cols| {
        let at = next.replace(next.get() + rows * cols);
        Tensor { at, rows, cols }
    };
    let (a, time) = (t(rows, 3), t(rows, 1));
    let (features, one) = (t(rows, 19), t(rows, 9));
    let (x, w, b, y) = (t(rows, 19), t(19, 13), t(1, 13), t(rows, 13));
    let (silu, state, st, stats, noise) = (t(rows, 13), t(rows, 3), t(rows, 2), t(rows, 4), t(rows, 2));
    let (moved, back, z, loss) = (t(rows, 3), t(rows, 3), t(rows, 2), t(1, 1));
    let (target, logits, end) = (noise, time, t(1, 1));
    let mut all = vec![
        (
            "features of two columns and the time",
            Op::Features { x: a, first: 0, count: 2, time: Some(time), y: features, passes: true },
            vec![(a, true), (time, false)],
            features,
        ),
        (
            "features of the second column",
            Op::Features { x: a, first: 1, count: 1, time: None, y: one, passes: true },
            vec![(a, true)],
            one,
        ),
        ("silu", Op::Silu { x: y, y: silu }, vec![(y, true)], silu),
        ("reparametrise", Op::Reparametrise { stats, noise, z }, vec![(stats, true), (noise, false)], z),
        ("mse", Op::Mse { x: st, target, loss }, vec![(st, true), (target, false)], loss),
        ("nll", Op::Nll { x: state, loss }, vec![(state, true)], loss),
        (
            "elbo",
            Op::Elbo { x: st, target, stats, sigma: 0.5, loss },
            vec![(st, true), (target, false), (stats, true)],
            loss,
        ),
    ];
    for (learns, passes) in [(true, true), (false, true), (true, false)] {
        let reads = vec![(x, passes), (w, learns), (b, learns)];
        all.push(("linear", Op::Linear { x, w, b, y, learns, passes }, reads, y));
    }
    for keep in [0, 1] {
        all.push((
            "couple",
            Op::Couple { x: state, st, keep, y: moved },
            vec![(state, true), (st, true)],
            moved,
        ));
        let reads = vec![(state, false), (st, false)];
        all.push(("uncouple", Op::Uncouple { x: state, st, keep, y: back }, reads, back));
    }
    for label in [0.0, 1.0] {
        all.push(("bce", Op::Bce { x: logits, label, weight: 0.5, loss: end }, vec![(logits, true)], end));
    }
    all
}

fn gpu() -> Rc<Gpu> {
    Rc::new(block_on(Gpu::new(&GpuOptions::default())).unwrap())
}

#[test]
fn operations_equal_f64_forward_and_backward() {
    operations_equal_f64(|op, values, grads| {
        forward(op, values, &mut Packed::default());
        backward(op, values, grads, &mut Packed::default());
    });
}

#[test]
fn operations_on_the_gpu_equal_f64_forward_and_backward() {
    let gpu = gpu();
    operations_equal_f64(|op, values, grads| block_on(compute(&gpu, op, values, grads)).unwrap());
}

/// `compute`: an operation forward and then backward, over values and gradients.
fn operations_equal_f64(compute: impl Fn(&Op, &mut Vec<f32>, &mut Vec<f32>)) {
    for rows in [1, 6, 9] {
        for (name, op, reads, y) in cases(rows) {
            let mut values = vec![0.0; y.at + y.len()];
            Twister::new(rows as u64).randn(&mut values);
            let mut wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            // Gradients of what is behind, some of them at random: a loss's own is 1.
            let loss = matches!(op, Op::Mse { .. } | Op::Nll { .. } | Op::Elbo { .. } | Op::Bce { .. });
            let mut grads = vec![0.0; values.len()];
            Twister::new(99).randn(&mut grads[y.range()]);
            let behind: Vec<f64> = y.range().map(|i| if loss { 1.0 } else { grads[i].into() }).collect();
            compute(&op, &mut values, &mut grads);
            exact(&op, &mut wide);
            for i in y.range() {
                let off = (f64::from(values[i]) - wide[i]).abs();
                assert!(
                    off <= 1e-5 * wide[i].abs().max(1.0),
                    "{name}, {rows} rows: {} for {}",
                    values[i],
                    wide[i]
                );
            }
            if matches!(op, Op::Uncouple { .. }) {
                continue;
            }
            for (tensor, with_gradient) in reads {
                for i in tensor.range() {
                    let h = 1e-5;
                    let value = |by: f64| {
                        let mut v = wide.clone();
                        v[i] += by;
                        exact(&op, &mut v);
                        y.range().zip(&behind).map(|(i, g)| v[i] * g).sum::<f64>()
                    };
                    let want = if with_gradient { (value(h) - value(-h)) / (2.0 * h) } else { 0.0 };
                    let off = (f64::from(grads[i]) - want).abs();
                    assert!(
                        off <= 1e-4 * want.abs().max(1.0),
                        "{name}, {rows} rows, {i}: {} for {want}",
                        grads[i]
                    );
                }
            }
        }
    }
}

/// Every width of a tile's rest, turned and not, onto a bias and onto what is there.
#[test]
fn products_of_every_shape_equal_f64() {
    let mut twister = Twister::new(1);
    for (m, k, n) in [(1, 1, 1), (3, 5, 7), (4, 8, 8), (5, 3, 9), (13, 2, 17)] {
        let mut draw = |count: usize| {
            let mut v = vec![0.0; count];
            twister.randn(&mut v);
            v
        };
        let (a, b, bias, c) = (draw(m * k), draw(k * n), draw(n), draw(m * n));
        for (a_turned, b_turned) in [(false, false), (true, false), (false, true)] {
            let element = |v: &[f32], turned: bool, (i, j): (usize, usize), (rows, cols): (usize, usize)| {
                f64::from(if turned { v[j * rows + i] } else { v[i * cols + j] })
            };
            for onto_bias in [false, true] {
                let a_view = if a_turned { View::new(&a, m).turned() } else { View::new(&a, k) };
                let b_view = if b_turned { View::new(&b, k).turned() } else { View::new(&b, n) };
                let start = if onto_bias { Start::Bias(&bias) } else { Start::Kept };
                let mut out = c.clone();
                gemm(&mut Packed::default(), (m, k, n), a_view, b_view, start, &mut out);
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let product =
                        |l| element(&a, a_turned, (i, l), (m, k)) * element(&b, b_turned, (l, j), (k, n));
                    let from = f64::from(if onto_bias { bias[j] } else { c[i * n + j] });
                    let want = from + (0..k).map(product).sum::<f64>();
                    assert!((f64::from(out[i * n + j]) - want).abs() < 1e-5, "{m} {k} {n}: {i} {j}");
                }
            }
        }
    }
}

/// train.f32, read from the front as train.py wrote it; and train.json.
struct Expected {
    values: Vec<f32>,
    at: usize,
    json: Value,
}

impl Expected {
    fn read() -> Self {
        let bytes = include_bytes!("reference/data/train.f32");
        let values = bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let json = serde_json::from_str(include_str!("reference/data/train.json")).unwrap();
        Self { values, at: 0, json }
    }

    fn next(&mut self, count: usize) -> &[f32] {
        self.at += count;
        &self.values[self.at - count..self.at]
    }
}

fn trainer(family: Family, seed: u32) -> Trainer {
    let plan = Plan { seed, steps: STEPS, rate: family.rate() };
    Trainer::new(family, Data::named(DataSet::Spiral), plan)
}

fn close(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    let off = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{what}: largest difference {off:e}");
    assert!(got.len() == want.len() && off <= tolerance, "{what}: {off:e} over {tolerance:e}");
}

#[test]
fn families_begin_as_torch_does() {
    begin_as_torch_does(None);
}

#[test]
fn families_on_the_gpu_begin_as_torch_does() {
    begin_as_torch_does(Some(gpu()));
}

fn begin_as_torch_does(gpu: Option<Rc<Gpu>>) {
    let mut expected = Expected::read();
    let json = expected.json.clone();
    for &(name, family) in Family::NAMES {
        let mut t = trainer(family, 7);
        assert_eq!(t.parameters().len() as u64, json["families"][name]["parameters"].as_u64().unwrap());
        let some: Vec<f32> = t.parameters().iter().step_by(101).copied().collect();
        assert_eq!(some, expected.next(some.len()), "{name}: weights");
        // Fifty steps, or eight couplings, of values about 1 with a rounding of 6e-8 each.
        close(&t.samples(300, 5), expected.next(600), 2e-5, &format!("{name}: samples"));

        let device = gpu.clone().map(|gpu| block_on(t.device(gpu)).unwrap());
        for (stage, tensors) in json["families"][name]["gradients"].as_array().unwrap().iter().enumerate() {
            match &device {
                Some(device) => block_on(t.gradients_on(device, stage)).unwrap(),
                None => t.gradients(stage),
            };
            let mut at = 0;
            for count in tensors.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize) {
                let got = &t.gradient(stage)[at..at + count];
                at += count;
                let norm = expected.next(1)[0];
                let got_norm = got.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt() as f32;
                assert!((got_norm - norm).abs() <= 1e-5 * norm, "{name}: norm {got_norm} for {norm}");
                let some: Vec<f32> = got.iter().step_by(16).copied().collect();
                // A loss of some hundreds has gradients as large.
                let size = norm.max(1.0);
                let what = format!("{name}: gradients of {count} values");
                close(&some, expected.next(some.len()), 1e-5 * size, &what);
            }
            assert_eq!(at, t.gradient(stage).len());
            t.update(stage);
        }
    }
    for (name, set) in DataSet::NAMES {
        let data = Data::named(*set);
        let some: Vec<f32> = data.points.iter().step_by(97).flatten().copied().collect();
        // Angles of up to 11 are rounded three times by 5e-7, at radii of up to 1.9.
        close(&some, expected.next(some.len()), 3e-6, name);
        let score = data.score(Data::named(DataSet::Moons).points[..1000].as_flattened());
        let want = &json["sets"][name];
        assert!((f64::from(score.on_data) - want[0].as_f64().unwrap()).abs() < 1e-6, "{name}: {score:?}");
        assert_eq!(
            score.modes.map(|(hit, of)| [hit, of].map(Value::from)),
            Some([want[1].clone(), want[2].clone()])
        );
    }
    doodles_begin_as_torch_does(&mut expected);
    assert_eq!(expected.at, expected.values.len(), "all of train.f32 is read");
}

/// Four patterns, the ones of train.py.
fn drawings() -> Vec<f32> {
    let ink = |i: usize, x: usize, y: usize| (x / 4 * (i + 2) + y / 4 * (y / 4) * (i + 1)) % 7 < 3;
    let at = |i| (0..16).flat_map(move |y| (0..16).map(move |x| if ink(i, x, y) { 1.0 } else { -1.0 }));
    (0..4).flat_map(at).collect()
}

fn doodles(pixels: &[f32]) -> browser_diffusion::Result<Doodles> {
    Doodles::new(pixels, Plan { seed: 7, steps: rules::STEPS, rate: rules::RATE })
}

fn doodles_begin_as_torch_does(expected: &mut Expected) {
    let mut d = doodles(&drawings()).unwrap();
    let some: Vec<f32> = d.parameters().iter().step_by(101).copied().collect();
    assert_eq!(some, expected.next(some.len()), "doodles: weights");
    let some: Vec<f32> = d.samples(5).iter().flat_map(|s| s.pixels.iter().step_by(5).copied()).collect();
    close(&some, expected.next(some.len()), 2e-5, "doodles: samples");
    d.gradients();
    let mut at = 0;
    for count in [265 * 192, 192, 192 * 192, 192, 192 * 256, 256] {
        let got = &d.gradient()[at..at + count];
        at += count;
        let norm = expected.next(1)[0];
        let got_norm = got.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt() as f32;
        assert!((got_norm - norm).abs() <= 1e-5 * norm.max(1.0), "doodles: norm {got_norm} for {norm}");
        let some: Vec<f32> = got.iter().step_by(16).copied().collect();
        close(&some, expected.next(some.len()), 1e-5, &format!("doodles: gradients of {count} values"));
    }
    assert_eq!(at, d.gradient().len());
}

/// The losses are torch's; what is drawn in the end is near a drawing, as whoever learns four pictures by heart draws.
#[test]
fn doodles_learn_as_torch_does() {
    let json = Expected::read().json;
    let want = json["doodles"].as_array().unwrap();
    let mut d = doodles(&drawings()).unwrap();
    let differs = |d: &mut Doodles| d.samples(1).iter().map(|s| s.differs).sum::<f32>() / 8.0;
    let before = differs(&mut d);
    let got = d.train(want.len()).unwrap().losses;
    for (step, tolerance) in [(1, 1e-5), (10, 1e-4), (want.len(), 1e-2)] {
        let (got, want) = (f64::from(got[step - 1]), want[step - 1].as_f64().unwrap());
        assert!((got - want).abs() <= tolerance, "doodles step {step}: {got} for {want}");
    }
    d.train(300).unwrap();
    let after = differs(&mut d);
    println!("pixels that differ from the nearest drawing: {before} before, {after} after 400 steps");
    assert!(after < 0.05 && before > 0.2, "{before} and {after}");
    let seen: std::collections::BTreeSet<usize> =
        (1..4).flat_map(|seed| d.samples(seed)).map(|s| s.nearest).collect();
    assert_eq!(seen.len(), 4, "24 samples are near all four drawings");
    d.reset(7);
    assert_eq!(d.train(1).unwrap().losses[0], got[0]);
}

#[test]
fn doodles_that_cannot_be_learnt_are_refused() {
    let pixels = drawings();
    for wrong in [
        &pixels[..0],
        &pixels[..PIXELS - 1],
        &vec![1.0; 65 * PIXELS],
        &vec![-1.0; PIXELS],
        &vec![f32::NAN; PIXELS],
    ] {
        assert_eq!(doodles(wrong).err().unwrap().code, Code::InvalidOption);
    }
    let mut d = Doodles::new(&pixels, Plan { seed: 0, steps: STEPS, rate: 900.0 }).unwrap();
    let before = d.parameters().to_vec();
    assert_eq!(d.train(500).unwrap_err().code, Code::InvalidOption);
    assert_eq!(d.parameters(), before);
}

fn losses_equal_torch(family: Family) {
    losses_are_torchs(family, |t, steps| t.train(steps).unwrap().losses);
}

#[test]
fn families_on_the_gpu_learn_as_in_torch() {
    let gpu = gpu();
    for &(_, family) in Family::NAMES {
        losses_are_torchs(family, |t, steps| {
            let device = block_on(t.device(gpu.clone())).unwrap();
            // In two calls: what was learnt comes back from the GPU, and goes there again.
            let mut learn = |steps| block_on(t.train_on(&device, steps)).unwrap().losses;
            [learn(7), learn(steps - 7)].concat()
        });
    }
}

fn losses_are_torchs(family: Family, train: impl Fn(&mut Trainer, usize) -> Vec<f32>) {
    let json = Expected::read().json;
    let want = json["families"][family.name()]["losses"].as_array().unwrap();
    let got = train(&mut trainer(family, 7), want.len());
    for (step, tolerance) in [(1, 1e-5), (10, 1e-4), (want.len(), 1e-2)] {
        let (got, want) = (f64::from(got[step - 1]), want[step - 1].as_f64().unwrap());
        println!("{} step {step}: {got} for {want}, off {:e}", family.name(), (got - want).abs());
        assert!(
            (got - want).abs() <= tolerance * want.abs().max(1.0),
            "{} step {step}: {got} for {want}",
            family.name()
        );
    }
}

#[test]
fn diffusion_learns_as_in_torch() {
    losses_equal_torch(Family::Diffusion);
}

/// Fifty steps: behind them torch's own loss changes by some 0.03 if its weights are changed by a ten-millionth.
#[test]
fn flow_learns_as_in_torch() {
    losses_equal_torch(Family::Flow);
}

/// Fifty steps: two networks against each other are chaotic.
#[test]
fn gan_learns_as_in_torch() {
    losses_equal_torch(Family::Gan);
}

#[test]
fn vae_learns_as_in_torch() {
    losses_equal_torch(Family::Vae);
}

#[test]
fn a_seed_gives_one_run() {
    for &(name, family) in Family::NAMES {
        let mut t = trainer(family, 3);
        let first = t.train(3).unwrap();
        assert_eq!(t.step(), 3);
        assert_ne!(first, trainer(family, 4).train(3).unwrap(), "{name}: another seed");
        let (samples, picture) = (t.samples(300, 2), t.picture(9, 0.5));
        assert_eq!(samples[..48], t.samples(24, 2)[..], "{name}: fewer samples are the first of more");
        t.reset(3);
        assert_eq!(t.step(), 0);
        assert_eq!(
            (first, samples, picture),
            (t.train(3).unwrap(), t.samples(300, 2), t.picture(9, 0.5)),
            "{name}"
        );
    }
}

#[test]
fn pictures_have_what_they_say() {
    let pairs = 2 * 9 * 9;
    for &(name, family) in Family::NAMES {
        let lengths = match trainer(family, 3).picture(9, 0.5) {
            Picture::Arrows { from, to, points } => [from.len(), to.len(), points.len()],
            Picture::Critic { field, grid } => {
                assert!(field.iter().all(|p| (0.0..=1.0).contains(p)));
                [2 * field.len(), grid.len(), 400]
            }
            Picture::Ellipses { ellipses, grid } => [pairs, grid.len(), ellipses.len() / 2],
            Picture::Bent { grid } => [pairs, grid.len(), 400],
        };
        assert_eq!(lengths, [pairs, pairs, 400], "{name}");
    }
}

#[test]
fn training_that_diverges_is_told_and_undone() {
    diverges(|t| t.train(10).err());
    let gpu = gpu();
    diverges(|t| {
        let device = block_on(t.device(gpu.clone())).unwrap();
        block_on(t.train_on(&device, 10)).err()
    });
}

/// `train`: ten steps.
fn diverges(train: impl Fn(&mut Trainer) -> Option<Error>) {
    for &(name, family) in Family::NAMES {
        let mut t =
            Trainer::new(family, Data::named(DataSet::Moons), Plan { seed: 1, steps: 100, rate: 1e3 });
        let before = t.parameters().to_vec();
        let error = (0..20).find_map(|_| {
            let kept = (t.parameters().to_vec(), t.step());
            let error = train(&mut t)?;
            assert_eq!(kept, (t.parameters().to_vec(), t.step()), "{name}: as before the call");
            Some(error)
        });
        let error = error.unwrap_or_else(|| panic!("{name} did not diverge"));
        assert_eq!(error.code, Code::InvalidOption);
        assert!(error.message.starts_with("Training diverged"), "{error}");
        assert!(t.samples(10, 0).len() == 20);
        t.reset(1);
        assert_eq!(before, t.parameters());
    }
}

#[test]
fn drawings_that_cannot_be_learnt_are_refused() {
    let none = f32::NAN;
    for (pairs, say) in [
        (&[][..], "draw at least two"),
        (&[0.5, 0.5, 0.5, 0.5], "draw at least two"),
        (&[0.5, 0.5, 0.5], "even"),
        (&[0.5, none, 0.1, 0.1], "outside"),
        (&[0.5, f32::INFINITY, 0.1, 0.1], "outside"),
        (&[0.5, -3.5, 0.1, 0.1], "outside"),
    ] {
        let error = Data::drawn(pairs).unwrap_err();
        assert_eq!(error.code, Code::InvalidOption);
        assert!(error.message.contains(say), "{error}");
    }
    let plan = Plan { seed: 0, steps: 10, rate: 2e-3 };
    let mut t = Trainer::new(Family::Vae, Data::drawn(&[0.0, 0.0, 1.0, 1.0]).unwrap(), plan);
    t.train(2).unwrap();
    assert_eq!(t.score().modes, None);
    let Picture::Ellipses { ellipses, .. } = t.picture(2, 0.0) else { panic!("an ellipse each") };
    assert_eq!(ellipses.len(), 8);
}

#[test]
fn the_module_has_the_engines_names() {
    let js = include_str!("../www/train.js");
    let quoted = |names: Vec<&str>| names.iter().map(|n| format!("'{n}'")).collect::<Vec<_>>();
    let families = quoted(Family::NAMES.iter().map(|(name, _)| *name).collect());
    let sets = quoted(DataSet::NAMES.iter().map(|(name, _)| *name).collect());
    for names in [families, sets] {
        assert!(js.contains(&format!("Object.freeze([{}])", names.join(", "))), "{names:?}");
        assert!(js.contains(&format!("{{{}}}", names.join(" | "))), "{names:?}");
    }
}
