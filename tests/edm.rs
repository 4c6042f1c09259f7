//! Samplers over EDM's noise levels (Playground v2.5, CosXL): against diffusers' classes, of which tests/reference/edm.py
//! writes the values, and against the exact solution where the picture's distribution is known.

#[path = "support/sampling.rs"]
mod sampling;

use browser_diffusion::Code;
use browser_diffusion::samplers::{Noising, SAMPLERS, SCHEDULES, SchedulerConfig, Tuning, scheduler};
use sampling::{VALUES, config, relative_l2, run, stepped, waves};

const PLAYGROUND: &str = r#"{"_class_name": "EDMDPMSolverMultistepScheduler"}"#;
const COSXL: &str = r#"{"_class_name": "EDMEulerScheduler", "sigma_max": 120.0, "sigma_data": 1.0,
    "sigma_schedule": "exponential", "prediction_type": "v_prediction"}"#;
/// By how much the network's input is divided, and the sign of its output, of both.
const NETWORKS: [(&str, f64, f64); 2] = [(PLAYGROUND, 0.5, 1.0), (COSXL, 1.0, -1.0)];

#[test]
fn steps_as_diffusers() {
    let (cases, values) = (include_str!("reference/data/edm.json"), include_bytes!("reference/data/edm.f32"));
    assert!(stepped(cases, values) > 50);
}

/// Spread of the pictures of the test's distribution.
const SPREAD: f64 = 0.8;

/// The best network for normally distributed pictures: it answers with what is left of Karras' equation 7 when the mean
/// of the pictures that a noisy one may come from, `x * SPREAD^2 / (SPREAD^2 + sigma^2)`, is put in.
fn network(input: &[f32], timestep: f32, data: f64, sign: f64) -> Vec<f32> {
    let sigma = (4.0 * f64::from(timestep)).exp();
    let square = sigma * sigma + data * data;
    let (c_in, c_skip, c_out) =
        (1.0 / square.sqrt(), data * data / square, sign * sigma * data / square.sqrt());
    let denoised = SPREAD * SPREAD / (SPREAD * SPREAD + sigma * sigma);
    input.iter().map(|&x| ((denoised - c_skip) * f64::from(x) / c_in / c_out) as f32).collect()
}

/// Every sampler that knows no training's timesteps, on every schedule, goes along the exact solution of the flow's
/// equation, `x(sigma)` in proportion to `sqrt(SPREAD^2 + sigma^2)`. Noise counts for nothing: where it is its way, it is
/// turned off, and those that cannot be without are left out. Euler's error, of first order, is 1.4 % after 200 steps.
/// DPM adaptive has a tolerance of 5 % a step, and "beta" leaves few steps for low noise: it spaces levels and not their
/// logarithms, which here go from 120 down to 0.002.
#[test]
fn samplers_follow_the_exact_solution() {
    let mut tried = 0;
    for (text, data, sign) in NETWORKS {
        let config = config(text);
        for row in SAMPLERS.iter().filter(|row| !["restart", "er_sde"].contains(&row.name)) {
            let schedules =
                SCHEDULES.iter().filter(|_| row.schedules).map(|s| format!("{}_{}", row.name, s.name));
            for name in std::iter::once(row.name.to_owned()).chain(schedules) {
                let tuning = Tuning { eta: Some(0.0), ..Tuning::default() };
                let sampler = match scheduler(Some(&name), &config, 200, &tuning) {
                    Ok(sampler) => sampler,
                    Err(error) => {
                        let of_timesteps = ["ddpm", "ddim", "ddim_cfgpp", "pndm", "lcm", "tcd"];
                        assert!(of_timesteps.contains(&row.name), "{name}: {error:?}");
                        assert_eq!(error.code, Code::InvalidOption);
                        assert!(error.message.contains("choose one of euler,"), "{error:?}");
                        continue;
                    }
                };
                let levels = sampler.levels.clone();
                let first: Vec<f32> = waves(0, 0.3).iter().map(|x| x * levels.init_noise_sigma()).collect();
                let spread = |sigma: f32| (SPREAD * SPREAD + f64::from(sigma).powi(2)).sqrt();
                let (from, to) = (levels.sigma(0), levels.sigmas()[levels.sigmas().len() - 1]);
                let exact = first.iter().map(|&x| (f64::from(x) * spread(to) / spread(from)) as f32);
                let exact: Vec<f32> = exact.collect();
                let answer = |x: &[f32], t: f32| network(x, t, data, sign);
                let (last, x0s) = run(sampler, first, answer, |z, _| z.fill(0.7));
                let error = relative_l2(&last, &exact);
                let rough = name.ends_with("beta") || name == "dpm_adaptive";
                assert!(error < if rough { 0.12 } else { 0.02 }, "{name} {text}: {error}");
                assert!(x0s.iter().all(|x0| x0.len() == VALUES));
                tried += 1;
            }
        }
    }
    assert!(tried > 300, "{tried}");
}

/// A picture noised at a time step, and what the network says there, turn back into picture and noise, whatever spread
/// the network's input has.
#[test]
fn noising_and_back() {
    for (text, data, sign) in NETWORKS {
        let noising = Noising::read(&config(text)).unwrap();
        let (picture, noise) = (waves(1, 0.2), waves(2, 0.4));
        for sigma in [0.01f64, 0.7, 3.0, 60.0] {
            let timestep = (0.25 * sigma.ln()) as f32;
            let input = noising.add_noise(&picture, &noise, timestep).unwrap();
            let square = sigma * sigma + data * data;
            let wanted =
                |(&x, &n): (&f32, &f32)| ((f64::from(x) + sigma * f64::from(n)) / square.sqrt()) as f32;
            let wanted: Vec<f32> = picture.iter().zip(&noise).map(wanted).collect();
            assert!(relative_l2(&input, &wanted) < 1e-5, "{text} {sigma}");
            // Karras' equation 8: what the network is trained to answer.
            let answer = |(&x, &n): (&f32, &f32)| {
                let (x, n) = (f64::from(x), f64::from(n));
                let noisy = x + sigma * n;
                (sign * (x - data * data / square * noisy) * square.sqrt() / (sigma * data)) as f32
            };
            let output: Vec<f32> = picture.iter().zip(&noise).map(answer).collect();
            let alpha = noising.alpha(timestep).unwrap();
            // Where there is hardly any noise, or hardly anything else, f32 sees little of the other.
            assert!(relative_l2(&noising.x0(alpha, &output, &input), &picture) < 1e-3, "{text} {sigma}");
            assert!(relative_l2(&noising.epsilon(alpha, &output, &input), &noise) < 1e-3, "{text} {sigma}");
        }
        assert_eq!(noising.add_noise(&picture, &noise, 500.0).unwrap_err().code, Code::InvalidOption);
    }
}

/// What would divide by nothing, or mean something else in silence, is refused by the key's name.
#[test]
fn refused_by_name() {
    for (key, value) in [
        ("sigma_min", "0.0"),
        ("sigma_min", "90.0"),
        ("sigma_max", "Infinity"),
        ("sigma_max", "NaN"),
        ("sigma_data", "0.0"),
        ("rho", "-7.0"),
        ("sigma_schedule", "\"linear\""),
        ("final_sigmas_type", "\"last\""),
        ("prediction_type", "\"sample\""),
    ] {
        let text = format!(r#"{{"_class_name": "EDMEulerScheduler", "{key}": {value}}}"#);
        let config = SchedulerConfig::from_json(&text).unwrap();
        let error = scheduler(None, &config, 5, &Tuning::default()).err().unwrap();
        assert!(error.code == Code::UnsupportedModel && error.message.contains(key), "{text}: {error:?}");
    }
}
