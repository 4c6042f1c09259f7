//! Schedules of more steps than the training had: what A1111 makes of "exactly the steps" and a small strength.

#[path = "support/sampling.rs"]
mod sampling;

use browser_diffusion::Code;
use browser_diffusion::samplers::{SAMPLERS, SCHEDULES, Tuning, scheduler};
use sampling::{config, network, noise, relative_l2, run, waves};

const SD: &str = r#"{"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "timestep_spacing": "leading", "steps_offset": 1}"#;
const STEPS: usize = 2500;

fn finer() -> Tuning {
    Tuning { finer: true, ..Default::default() }
}

/// k-diffusion's levels are between the training's where they are finer: A1111's default spacing, evenly over time steps.
#[test]
fn levels_between_those_of_the_training() {
    let config = config(SD);
    let trained = scheduler(Some("euler_normal"), &config, 1000, &Tuning::default()).unwrap().levels;
    let mut all: Vec<f64> = trained.sigmas()[..1000].iter().map(|&s| f64::from(s)).collect();
    all.reverse();
    for name in ["euler", "dpmpp_2m", "euler_normal"] {
        let levels = scheduler(Some(name), &config, STEPS, &finer()).unwrap().levels;
        assert_eq!(levels.sigmas().len(), STEPS + 1, "{name}");
        let wanted: Vec<f32> = levels
            .timesteps()
            .iter()
            .map(|&t| {
                let (low, high) = (all[t as usize], all[(t as usize + 1).min(999)]);
                (low + (high - low) * f64::from(t.fract())) as f32
            })
            .collect();
        // A straight line between two levels, or between their logarithms: they differ by less than 1e-3.
        assert!(relative_l2(&levels.sigmas()[..STEPS], &wanted) < 1e-3, "{name}");
        let last = f64::from(levels.timesteps()[STEPS - 1]);
        assert!(last < 999.0 / STEPS as f64 + 1e-3, "{name}: {last}");
    }
}

/// Every sampler over noise levels goes through so many, and those of the training's time steps refuse them.
#[test]
fn samplers_of_many_steps() {
    let config = config(SD);
    let by_timesteps = ["ddpm", "ddim", "ddim_cfgpp", "pndm", "lcm", "tcd"];
    for row in SAMPLERS {
        let schedules =
            SCHEDULES.iter().filter(|_| row.schedules).map(|s| format!("{}_{}", row.name, s.name));
        for name in std::iter::once(row.name.to_owned()).chain(schedules) {
            let sampler = match scheduler(Some(&name), &config, STEPS, &finer()) {
                Ok(sampler) => sampler,
                Err(error) => {
                    assert!(by_timesteps.contains(&row.name) && error.code == Code::InvalidOption, "{name}");
                    continue;
                }
            };
            assert!(!by_timesteps.contains(&row.name), "{name}");
            let levels = sampler.levels.clone();
            // DDIM's own has no more levels than the training.
            let fewer = name.ends_with("ddim_uniform");
            assert!(levels.timesteps().len() == STEPS || fewer, "{name}: {}", levels.timesteps().len());
            // DEIS never ends below the training's smallest, where Align Your Steps is already.
            let end = levels.sigmas().len() - usize::from(row.name == "deis");
            let falls = |w: &[f32]| w[0] > w[1] || w[0] == w[1] && fewer;
            assert!(levels.sigmas()[..end].windows(2).all(falls), "{name}");
            let sample: Vec<f32> = waves(0, 0.3).iter().map(|x| x * levels.init_noise_sigma()).collect();
            let (last, _) = run(sampler, sample, network, noise());
            assert!(last.iter().all(|v| v.is_finite() && v.abs() < 1e4), "{name}: {last:?}");
        }
    }
    // Unasked, as before.
    for name in ["euler", "dpmpp_2m", "unipc_karras"] {
        assert!(scheduler(Some(name), &config, 1001, &Tuning::default()).is_err(), "{name}");
    }
}
