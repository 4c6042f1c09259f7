//! Noise against torch: tests/reference/noise.py writes the expected values. Equal means bit for bit.

use browser_diffusion::samplers::noise::Generator;
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
        Generator::new(*seed).rand(&mut values);
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
