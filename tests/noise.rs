//! Noise against torch: tests/reference/noise.py writes the expected values. Equal means bit for bit.

use browser_diffusion::samplers::{Generator, NoiseOptions, NoiseSource, Rng, Twister, Walk};
use serde_json::Value;

fn expected() -> Value {
    serde_json::from_str(include_str!("reference/data/noise.json")).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn seeds(file: &Value) -> Vec<u64> {
    list(&file["seeds"]).iter().map(|s| s.as_str().unwrap().parse().unwrap()).collect()
}

fn lengths(value: &Value) -> Vec<usize> {
    list(value).iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

/// noise.py's checksum: sum of (index + 1) * bits modulo 2^64, and the last value's bits.
fn check(values: &[f32], want: &Value, what: &str) {
    let sum = values
        .iter()
        .zip(1u64..)
        .fold(0u64, |sum, (x, i)| sum.wrapping_add(i.wrapping_mul(x.to_bits().into())));
    let last = values.last().unwrap();
    assert_eq!(last.to_bits(), want[1].as_u64().unwrap() as u32, "{what}: last value {last}");
    assert_eq!(sum.to_string(), want[0].as_str().unwrap(), "{what}: checksum");
}

#[test]
fn randn_equals_torch() {
    let file = expected();
    let seeds = seeds(&file);
    assert!(seeds.len() >= 20 && seeds.contains(&u64::MAX));
    for (seed, row) in seeds.iter().zip(list(&file["randn"])) {
        for (n, want) in lengths(&file["lengths"]).into_iter().zip(list(row)) {
            let mut values = vec![0.0; n];
            Generator::new(*seed).randn(&mut values);
            check(&values, want, &format!("seed {seed}, length {n}"));
        }
    }
}

#[test]
fn calls_on_one_generator_go_on() {
    let file = expected();
    for (seed, row) in seeds(&file).iter().zip(list(&file["randn_sequence"])) {
        let mut generator = Generator::new(*seed);
        for (n, want) in lengths(&file["sequence"]).into_iter().zip(list(row)) {
            let mut values = vec![0.0; n];
            generator.randn(&mut values);
            check(&values, want, &format!("seed {seed}, call of length {n}"));
        }
    }
}

#[test]
fn rand_equals_torch() {
    let file = expected();
    for (seed, want) in seeds(&file).iter().zip(list(&file["rand"])) {
        let mut values = vec![0.0; 1000];
        Twister::new(*seed).rand(&mut values);
        check(&values, want, &format!("seed {seed}"));
    }
}

/// Values that others print for torch: the first of seed 0, short and long.
#[test]
fn well_known_values() {
    let draw = |n: usize| {
        let mut values = vec![0.0; n];
        Generator::new(0).randn(&mut values);
        values.iter().map(|x| format!("{x:.4}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(draw(6), "1.5410 -0.2934 -2.1788 0.5684 -1.0845 -1.3986");
    assert!(draw(16).starts_with("-1.1258 -1.1524 -0.2506 -0.4339 "));
}

/// What A1111 prints for its CUDA noise of seed 0, and NVIDIA's GPUs draw.
#[test]
fn well_known_values_of_cuda() {
    let options = NoiseOptions { rng: Rng::TorchCuda, ..Default::default() };
    let mut values = [0.0; 12];
    NoiseSource::new(0, &options, 1, [1, 3, 4], 8).randn(&mut values);
    let published = "-0.92466259 -0.42534415 -2.6438457 0.14518388 -0.12086647 -0.57972564 \
        -0.62285122 -0.32838709 -1.07454231 -0.36314407 -1.67105067 2.26550497";
    for (got, want) in values.iter().zip(published.split_whitespace()) {
        let want: f32 = want.parse().unwrap();
        // A GPU takes its logarithms and sines in f32.
        assert!((got - want).abs() <= 1e-6 * want.abs(), "{got} is not {want}");
    }
}

/// Pictures of a batch, variation seeds and resized seeds, as a1111_noise.py makes them with torch after A1111's rules.
/// f32 there, f64 between here: 1e-5 leaves room for the arc cosine of nearly parallel columns.
#[test]
fn noise_as_a1111() {
    let file: Value = serde_json::from_str(include_str!("reference/data/a1111_noise.json")).unwrap();
    let cases = list(&file);
    assert!(cases.len() >= 20);
    let mut worst = 0f64;
    for case in cases {
        let number = |key: &str| case[key].as_u64();
        let pair = |key: &str| case[key].as_array().map(|p| (p[0].as_u64().unwrap(), p[1].as_f64().unwrap()));
        let options = NoiseOptions {
            rng: if case["rng"] == "cuda" { Rng::TorchCuda } else { Rng::TorchCpu },
            generator_per_image: true,
            variation: pair("variation").map(|(seed, strength)| (seed, strength as f32)),
            resize_from: pair("resize_from").map(|(h, w)| (8 * w as u32, 8 * h as u32)),
            ..Default::default()
        };
        let shape: Vec<usize> = lengths(&case["shape"]);
        let images = number("images").unwrap() as usize;
        let mut source =
            NoiseSource::new(number("seed").unwrap(), &options, images, [shape[0], shape[1], shape[2]], 8);
        let mut first = vec![0.0; images * shape.iter().product::<usize>()];
        let mut next = first.clone();
        source.first(&mut first);
        source.randn(&mut next);
        for (got, want) in [(first, &case["first"]), (next, &case["next"])] {
            // Every so manieth value.
            let got = got.iter().step_by(number("stride").unwrap() as usize);
            assert_eq!(got.len(), list(want).len());
            let mut sums = [0f64; 2];
            for (got, want) in got.zip(list(want)) {
                let want = want.as_f64().unwrap();
                sums[0] += (f64::from(*got) - want).powi(2);
                sums[1] += want * want;
            }
            let error = (sums[0] / sums[1]).sqrt();
            worst = worst.max(error);
            assert!(error <= 1e-5, "{error}: {:?}", (&case["rng"], options));
        }
    }
    println!("{} cases, worst relative L2 {worst:.1e}", cases.len());
}

/// Noise along a Brownian motion, as k-diffusion's `BrownianTreeNoiseSampler` draws it with torchsde (brownian.py).
/// Both add up at most 33 intervals in f32, theirs of the stretch, ours from the motion's start: values as large as the
/// root of the range, divided by the root of the stretch.
#[test]
fn brownian_as_k_diffusion() {
    let file: Value = serde_json::from_str(include_str!("reference/data/brownian.json")).unwrap();
    let mut worst = 0f64;
    for case in list(&file) {
        let number = |value: &Value| value.as_f64().unwrap() as f32;
        let rng = if case["rng"] == "cuda" { Rng::TorchCuda } else { Rng::TorchCpu };
        let images = case["images"].as_u64().map(|n| n as usize);
        let options = NoiseOptions { rng, generator_per_image: images.is_some(), ..Default::default() };
        let shape = lengths(&case["shape"]);
        let seed = case["seed"].as_str().unwrap().parse().unwrap();
        let mut source = NoiseSource::new(seed, &options, images.unwrap_or(1), [4, 8, 8], 8);
        let mut noise = vec![0.0; images.unwrap_or(1) * shape.iter().product::<usize>()];
        let ends = (number(&case["ends"][0]), number(&case["ends"][1]));
        for draw in list(&case["draws"]) {
            let walk = Walk { from: number(&draw[0]), to: number(&draw[1]), ends };
            source.draw(&mut noise, Some(walk));
            let got: Vec<f32> =
                noise.iter().step_by(case["stride"].as_u64().unwrap() as usize).copied().collect();
            let want: Vec<f32> = list(&draw[2]).iter().map(number).collect();
            assert_eq!(got.len(), want.len());
            let size = want.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>();
            let difference = got.iter().zip(&want).map(|(g, w)| f64::from(g - w).powi(2)).sum::<f64>();
            let error = (difference / size).sqrt();
            worst = worst.max(error);
            let larger = f64::from(((ends.1 - ends.0) / (walk.to - walk.from).abs()).sqrt().max(1.0));
            assert!(error <= 33.0 * 2f64.powi(-24) * larger, "{error}: {walk:?}");
        }
    }
    println!("worst relative L2 {worst:.1e}");
}

/// A1111's "eta noise seed delta" (its `rng.py`): the first noise is the seed's, and what follows is drawn by generators of
/// the seed and the delta, one for each picture as the first ones were.
#[test]
fn later_noise_of_another_seed() {
    let shape = [2, 3, 4];
    for (rng, each, variation) in [
        (Rng::TorchCpu, false, None),
        (Rng::TorchCpu, true, None),
        (Rng::TorchCuda, true, None),
        (Rng::TorchCpu, true, Some((9, 0.5))),
    ] {
        let options = NoiseOptions { rng, generator_per_image: each, variation, ..Default::default() };
        let delayed = NoiseOptions { later_seed_delta: 31337, ..options.clone() };
        let source = |options: &NoiseOptions| NoiseSource::new(5, options, 2, shape, 8);
        let alone =
            |seed: u64| NoiseSource::new(seed, &NoiseOptions { rng, ..Default::default() }, 1, shape, 8);
        let draw = |source: &mut NoiseSource, first: bool| {
            let mut values = vec![0.0; 48];
            if first {
                source.first(&mut values)
            } else {
                source.randn(&mut values)
            }
            values
        };
        let (mut plain, mut moved) = (source(&options), source(&delayed));
        assert_eq!(draw(&mut plain, true), draw(&mut moved, true), "{options:?}");
        // Variations count up beside one seed; else each picture's own seed does.
        let seeds = if each && variation.is_none() { [5, 6] } else { [5, 5] };
        let wanted: Vec<f32> = if each {
            let one = |seed: u64| {
                let mut values = vec![0.0; 24];
                alone(seed + 31337).randn(&mut values);
                values
            };
            seeds.into_iter().flat_map(one).collect()
        } else {
            let mut values = vec![0.0; 48];
            alone(5 + 31337).randn(&mut values);
            values
        };
        let later = draw(&mut moved, false);
        assert_eq!(later, wanted, "{options:?}");
        assert_ne!(later, draw(&mut plain, false));
    }
}
