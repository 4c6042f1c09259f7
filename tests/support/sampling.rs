//! A sampler over a made-up network with made-up noise, as tests/reference/samplers.py runs diffusers'.
#![allow(dead_code)]

use browser_diffusion::samplers::{Ask, Sampler, SchedulerConfig, Tuning, Walk};
use serde_json::Value;

pub const VALUES: usize = 16;

/// The made-up values, network and noise of samplers.py.
pub fn waves(k: usize, phase: f64) -> Vec<f32> {
    (0..VALUES)
        .map(|j| {
            let j = j as f64;
            (2f64.sqrt() * (phase + 12.9898 * k as f64 + j * (1.7 + 0.31 * j)).sin()) as f32
        })
        .collect()
}

pub fn network(x: &[f32], t: f32) -> Vec<f32> {
    let t = f64::from(t);
    x.iter()
        .map(|&x| f64::from(x))
        .map(|x| (0.5 * x * t / (t + 1.0) + 0.5 * (1.5 * x + 0.01 * t).sin()) as f32)
        .collect()
}

pub fn relative_l2(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let error = square(&mut got.iter().zip(want).map(|(&g, &w)| f64::from(g) - f64::from(w)));
    let size = square(&mut want.iter().map(|&w| f64::from(w)));
    (error / size).sqrt()
}

pub fn config(text: &str) -> SchedulerConfig {
    SchedulerConfig::from_json(text).unwrap()
}

pub fn scheduler(
    name: Option<&str>,
    config: &SchedulerConfig,
    steps: usize,
) -> browser_diffusion::Result<Sampler> {
    browser_diffusion::samplers::scheduler(name, config, steps, &Tuning::default())
}

/// Runs a sampler from a sample: the last sample, and the pictures seen behind the noise at each step.
pub fn run(
    sampler: Sampler,
    sample: Vec<f32>,
    network: impl Fn(&[f32], f32) -> Vec<f32>,
    noise: impl FnMut(&mut [f32], Option<Walk>) + 'static,
) -> (Vec<f32>, Vec<Vec<f32>>) {
    let mut steps = sampler.start(0, sample, Box::new(noise));
    let (mut answer, mut x0s) = (None, Vec::new());
    loop {
        answer = match steps.resume(answer).unwrap() {
            Ask::Predict { timestep, input, cfg_plus_plus, .. } => {
                let mut output = network(&input, timestep);
                if cfg_plus_plus {
                    // Made-up too: what the network says without guidance.
                    output.extend_from_within(..);
                    output[input.len()..].iter_mut().for_each(|x| *x *= 0.8);
                }
                Some(output)
            }
            Ask::Step(step) => {
                assert_eq!(step.step, x0s.len());
                assert!(step.step < step.total);
                x0s.push(step.x0);
                Some(step.sample)
            }
            Ask::End(sample) => return (sample, x0s),
        };
    }
}

/// Made-up noise of samplers.py, a new one at each draw. A walk that begins where the last one did goes on from its
/// end, as in ksamplers.py.
pub fn noise() -> impl FnMut(&mut [f32], Option<Walk>) {
    let mut draws = 0;
    let mut last: Option<(Walk, Vec<f32>)> = None;
    move |z: &mut [f32], walk| {
        draws += 1;
        z.copy_from_slice(&waves(draws, 0.5));
        let Some(walk) = walk else { return };
        if let Some((before, first)) = last.take().filter(|(before, _)| before.from == walk.from) {
            let share = |a: f32, b: f32| ((a - b) / (walk.from - walk.to)).sqrt();
            let (a, b) = (share(walk.from, before.to), share(before.to, walk.to));
            z.iter_mut().zip(first).for_each(|(z, first)| *z = a * first + b * *z);
        } else {
            last = Some((walk, z.to_vec()));
        }
    }
}

/// Every case of samplers.py or edm.py: the timesteps, the first deviation, the last sample and two predicted pictures.
/// Gives how many there were.
///
/// The arithmetic is diffusers' in f32, so that what differs are last bits of square roots and other
/// functions (torch's are not correctly rounded): 1e-5 leaves room for 25 steps to amplify them. Where
/// the first sample is `init_noise_sigma` times larger than the picture in it (4096 at zero terminal SNR),
/// one such bit of it, 2^-23, is that many times larger in the picture.
pub fn stepped(cases: &str, values: &[u8]) -> usize {
    let file: Value = serde_json::from_str(cases).unwrap();
    let mut values = values.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    let mut next = |n: usize| values.by_ref().take(n).collect::<Vec<f32>>();
    let cases = file["cases"].as_array().unwrap();
    let mut failures = Vec::new();
    let mut worst = 0f64;
    for case in cases {
        let config_json = file["configs"][case[0].as_u64().unwrap() as usize].as_str().unwrap();
        let (name, steps) = (case[1].as_str(), case[2].as_u64().unwrap() as usize);
        let timesteps = next(case[3].as_u64().unwrap() as usize);
        let (init, last, x0_middle, x0_last) = (next(1), next(VALUES), next(VALUES), next(VALUES));

        let sampler = scheduler(name, &config(config_json), steps).unwrap();
        let levels = sampler.levels.clone();
        let sample: Vec<f32> = waves(0, 0.3).iter().map(|x| x * levels.init_noise_sigma()).collect();
        let (sample, x0s) = run(sampler, sample, network, noise());
        let errors = [
            relative_l2(levels.timesteps(), &timesteps),
            relative_l2(&[levels.init_noise_sigma()], &init),
            relative_l2(&sample, &last),
            relative_l2(&x0s[x0s.len() / 2], &x0_middle),
            relative_l2(x0s.last().unwrap(), &x0_last),
        ];
        // The only timestep of a case may be 0.
        let errors = errors.map(|e| if e.is_nan() && timesteps == [0.0] { 0.0 } else { e });
        worst = errors.iter().copied().fold(worst, f64::max);
        let tolerance = 1e-5 + f64::from(init[0]) * 2f64.powi(-23);
        if errors.iter().any(|&e| e.is_nan() || e > tolerance) {
            failures.push(format!(
                "{name:?} {steps} {config_json} {}",
                errors.map(|e| format!("{e:.1e}")).join(" ")
            ));
        }
    }
    println!("worst relative error {worst:.1e}");
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert_eq!(values.next(), None);
    cases.len()
}
