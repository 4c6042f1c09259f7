//! Samplers against diffusers: tests/reference/samplers.py writes the expected values.

use browser_diffusion::Code;
use browser_diffusion::pipeline::{SD1_FACTORS, latents_to_rgba};
use browser_diffusion::samplers::{
    Ask, Noise, NoiseOptions, NoiseSource, SAMPLERS, SCHEDULES, SchedulerConfig, Tuning, Walk,
    classifier_free_guidance, get_guidance_scale_embedding, get_timestep_embedding, labels, names,
    rescale_noise_cfg,
};
use serde_json::{Value, json};
use std::collections::HashSet;

#[path = "support/sampling.rs"]
mod sampling;
use sampling::{VALUES, config, network, noise, relative_l2, run, scheduler, stepped, waves};

/// Each within a tolerance that is derived there.
#[test]
fn steps_as_diffusers() {
    let (cases, values) =
        (include_str!("reference/data/samplers.json"), include_bytes!("reference/data/samplers.f32"));
    assert!(stepped(cases, values) > 500);
}

/// What ksamplers.py and er_sde.py wrote: cases, and their final samples.
const FINAL_SAMPLES: [(&str, &[u8]); 2] = [
    (include_str!("reference/data/ksamplers.json"), include_bytes!("reference/data/ksamplers.f32")),
    (include_str!("reference/data/er_sde.json"), include_bytes!("reference/data/er_sde.f32")),
];

/// Every sampler with every schedule, and some with noise turned up or down: diffusers, k-diffusion, ComfyUI computed.
#[test]
fn samplers_and_schedules() {
    let mut tried = HashSet::new();
    for (cases, values) in FINAL_SAMPLES {
        final_samples(cases, values, &mut tried);
    }
    for name in names() {
        assert!(tried.contains(&name), "{name} has no case");
    }
}

fn final_samples(cases: &str, values: &[u8], tried: &mut HashSet<String>) {
    let file: Value = serde_json::from_str(cases).unwrap();
    let values: Vec<f32> =
        values.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(values.len(), cases.len() * VALUES);
    let (mut failures, mut worst) = (Vec::new(), (0.0, String::new()));
    for (case, want) in cases.iter().zip(values.chunks_exact(VALUES)) {
        let (name, steps) = (case[1].as_str().unwrap(), case[2].as_u64().unwrap() as usize);
        let config_json = file["configs"][case[0].as_u64().unwrap() as usize].as_str().unwrap();
        let tuned = |key: &str| case.get(3).and_then(|t| t[key].as_f64()).map(|v| v as f32);
        let tuning = Tuning {
            eta: tuned("eta"),
            s_churn: tuned("s_churn").unwrap_or(0.0),
            s_tmin: tuned("s_tmin").unwrap_or(0.0),
            s_noise: tuned("s_noise").unwrap_or(1.0),
            ..Tuning::default()
        };
        tried.insert(name.to_owned());
        let sampler =
            browser_diffusion::samplers::scheduler(Some(name), &config(config_json), steps, &tuning).unwrap();
        let init = sampler.levels.init_noise_sigma();
        let sample = waves(0, 0.3).iter().map(|x| x * init).collect();
        // With a seed the noise is that of its Brownian tree. The last bit of a logarithm may move a level by the
        // tree's millionth, and the noise by the root of that.
        let (tolerance, noise): (f64, Noise) = match case.get(3).and_then(|t| t["seed"].as_u64()) {
            None => (1e-4, Box::new(noise())),
            Some(seed) => {
                let mut source = NoiseSource::new(seed, &NoiseOptions::default(), 1, [1, 4, 4], 8);
                (1e-3, Box::new(move |z, walk| source.draw(z, walk)))
            }
        };
        let (sample, _) = run(sampler, sample, network, noise);
        let error = relative_l2(&sample, want);
        if error.is_nan() || error / tolerance > worst.0 {
            worst = (error / tolerance, format!("{error:.1e} of {case}"));
        }
        if error.is_nan() || error > tolerance {
            failures.push(format!("{case} {error:.1e}"));
        }
    }
    println!("{} cases, worst relative L2 {}", cases.len(), worst.1);
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// A row's knobs act on its sampler, and no others do; without a word on `eta` it is the usual one.
#[test]
fn knobs_act_as_the_table_says() {
    let sd = config(
        r#"{"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "skip_prk_steps": true}"#,
    );
    let plain = Tuning::default();
    let turned = Tuning { eta: Some(1.0), s_churn: 10.0, ..Tuning::default() };
    for row in SAMPLERS {
        // Restart adds its noise from 20 steps on.
        let last = |tuning: &Tuning| {
            let sampler = browser_diffusion::samplers::scheduler(Some(row.name), &sd, 24, tuning).unwrap();
            run(sampler, waves(0, 0.3), network, noise()).0
        };
        let usual = last(&plain);
        assert_eq!(usual, last(&Tuning { eta: row.eta, ..plain.clone() }), "{}: usual eta", row.name);
        let other = Tuning { eta: Some(0.4), ..plain.clone() };
        assert_eq!(usual != last(&other), row.eta.is_some(), "{}: eta", row.name);
        let other = Tuning { s_churn: 10.0, ..plain.clone() };
        assert_eq!(usual != last(&other), row.s_churn, "{}: s_churn", row.name);
        let other = Tuning { s_noise: 0.5, ..turned.clone() };
        assert_eq!(last(&turned) != last(&other), row.s_noise, "{}: s_noise", row.name);
    }
}

/// What JavaScript and its types know of the table: `BLESS=1 cargo test --test samplers` writes both anew.
#[test]
fn javascript_has_the_same_table() {
    let samplers = SAMPLERS.iter().map(|row| {
        let eta = row.eta.map_or(String::new(), |eta| format!(", eta: {eta}"));
        let (name, label, churn, schedules) = (row.name, row.label, row.s_churn, row.schedules);
        format!("  {{ name: '{name}', label: '{label}'{eta}, churn: {churn}, schedules: {schedules} }},\n")
    });
    let schedules =
        SCHEDULES.iter().map(|row| format!("  {{ name: '{}', label: '{}' }},\n", row.name, row.label));
    let js = format!(
        "\
/** The engine's samplers and schedules. Written by tests/samplers.rs from src/samplers/mod.rs; do not edit. */

/**
 * @typedef {{object}} Sampler
 * @property {{string}} name
 * @property {{string}} label what A1111 calls it
 * @property {{number}} [eta] the usual share of fresh noise; missing where `eta` does not act
 * @property {{boolean}} churn whether `sChurn` acts
 * @property {{boolean}} schedules whether a schedule may follow the name
 */

/** @type {{readonly Readonly<Sampler>[]}} */
export const SAMPLERS = Object.freeze([
{}]);

/** @type {{readonly Readonly<{{ name: string, label: string }}>[]}} */
export const SCHEDULES = Object.freeze([
{}]);
",
        samplers.collect::<String>(),
        schedules.collect::<String>(),
    );
    blessed("www/samplers.js", |_| js);
    blessed("www/browser-diffusion.d.ts", |types| {
        let getter = types.find("  static get schedulers(").unwrap();
        let start = types[..getter].rfind("  /**").unwrap();
        format!("{}{}{}", &types[..start], schedulers_comment(), &types[getter..])
    });
}

/// The comment on the list of schedulers, in lines of 120 columns.
fn schedulers_comment() -> String {
    let spaced = |names: &mut dyn Iterator<Item = &'static str>| names.collect::<Vec<_>>().join(" ");
    let alone: Vec<&str> = SAMPLERS.iter().filter(|row| !row.schedules).map(|row| row.name).collect();
    let (last, others) = alone.split_last().unwrap();
    let text = format!(
        "The names that `scheduler` takes: samplers ({}), and all but {} and {last} with a schedule behind ({}).",
        spaced(&mut SAMPLERS.iter().map(|row| row.name)),
        others.join(", "),
        spaced(&mut SCHEDULES.iter().map(|row| row.name)),
    );
    let mut lines = vec![String::from("   *")];
    for word in text.split(' ') {
        if lines.last().unwrap().len() + 1 + word.len() > 120 {
            lines.push(String::from("   *"));
        }
        let line = lines.last_mut().unwrap();
        line.push(' ');
        line.push_str(word);
    }
    format!("  /**\n{}\n   */\n", lines.join("\n"))
}

/// Holds a file against what it should be, made from what it is; with `BLESS=1` writes that.
fn blessed(path: &str, should_be: impl FnOnce(&str) -> String) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let is = std::fs::read_to_string(&file).unwrap_or_default();
    let should_be = should_be(&is);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, should_be).unwrap();
    } else {
        assert!(
            is == should_be,
            "{path} is not what the table says; BLESS=1 cargo test --test samplers writes it"
        );
    }
}

/// What is asked for by k-diffusion's names walks its Brownian motion; a checkpoint whose configuration says
/// "sde-dpmsolver++" has diffusers' independent draws. With the same values both end at the same sample.
#[test]
fn whose_noise() {
    let json = r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++",
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}"#;
    let ended = |name: Option<&str>, walks: bool| {
        let mut noise = noise();
        let checked = move |z: &mut [f32], walk: Option<Walk>| {
            assert_eq!(walk.is_some(), walks, "{walk:?}");
            noise(z, walk);
        };
        run(scheduler(name, &config(json), 12).unwrap(), waves(0, 0.3), network, checked).0
    };
    let own = ended(None, false);
    assert_eq!(own, ended(Some("DPM++ 2M SDE"), true));
    assert_eq!(own, ended(Some("DPMSolverMultistepScheduler"), false));
    for name in ["dpmpp_3m_sde_karras", "dpmpp_sde", "DPMSolverSDEScheduler"] {
        ended(Some(name), true);
    }
    for name in ["euler_a", "dpm2_a", "dpmpp_2s_a", "ddpm", "lcm"] {
        ended(Some(name), false);
    }
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn functions() -> Value {
    serde_json::from_str(include_str!("reference/data/functions.json")).unwrap()
}

/// Angles reach 1000, and 7500 for the guidance scale; their f32 frequencies are off by a bit, 2^-24
/// of the angle.
#[test]
fn embeddings_as_diffusers() {
    let file = functions();
    for case in file["timestep_embedding"].as_array().unwrap() {
        let f = |i: usize| case[i].as_f64().unwrap() as f32;
        let dim = case[1].as_u64().unwrap() as usize;
        let got = get_timestep_embedding(f(0), dim, case[2].as_bool().unwrap(), f(3), f(4), f(5));
        for (g, w) in got.iter().zip(numbers(&case[6])) {
            assert!((g - w).abs() <= 1000.0 * 2f32.powi(-23), "{case}");
        }
        assert_eq!(got.len(), dim);
    }
    for case in file["guidance_scale_embedding"].as_array().unwrap() {
        let (w, dim) = (case[0].as_f64().unwrap() as f32, case[1].as_u64().unwrap() as usize);
        let got = get_guidance_scale_embedding(w, dim);
        for (g, want) in got.iter().zip(numbers(&case[2])) {
            assert!((g - want).abs() <= 7500.0 * 2f32.powi(-23), "w {w}: {g} is not {want}");
        }
        assert_eq!(got.len(), dim);
    }
}

#[test]
fn guidance_as_diffusers() {
    let file = functions();
    let [uncond, cond, cfg, rescaled] =
        ["uncond", "cond", "cfg", "rescaled"].map(|key| numbers(&file["guidance"][key]));
    let mut out = vec![0.0; uncond.len()];
    classifier_free_guidance(&uncond, &cond, 7.5, &mut out);
    assert!(relative_l2(&out, &cfg) <= 1e-6);
    rescale_noise_cfg(&mut out, &cond, 0.7);
    assert!(relative_l2(&out, &rescaled) <= 1e-6);
    rescale_noise_cfg(&mut out, &cond, 0.0);
    assert!(relative_l2(&out, &rescaled) <= 1e-6);
}

/// diffusers' own scheduler tests state these sums: model(x, t) = x * t / (t + 1) on a fixed sample of
/// 4 x 3 x 8 x 8, ten steps, linear betas.
#[test]
fn diffusers_own_sums() {
    let deter = |i: usize| i as f64 / 768.0;
    let sum = |name: &str, steps: usize, fields: Value| {
        let mut fields = fields;
        fields["_class_name"] = json!("DDIMScheduler");
        let sampler = scheduler(Some(name), &config(&fields.to_string()), steps).unwrap();
        let levels = sampler.levels.clone();
        let spread = |sigma: f32| {
            let mut one = [1.0];
            levels.scale_model_input(&mut one, sigma);
            1.0 / one[0]
        };
        let scaled = |sample: &[f32], by: f32| sample.iter().map(|x| x / by).collect::<Vec<f32>>();
        // The sample is arange(768) reshaped to (3, 8, 8, 4), its last axis put first, over 768.
        let sample: Vec<f32> =
            (0..768).map(|i| (deter(i % 192 * 4 + i / 192) as f32) * levels.init_noise_sigma()).collect();
        // Those tests go on from the scaled sample, and show that to the network.
        let mut now = spread(levels.sigma(0));
        let mut steps = sampler.start(0, scaled(&sample, now), Box::new(|_, _| ()));
        let mut answer = None;
        loop {
            answer = match steps.resume(answer).unwrap() {
                Ask::Predict { timestep: t, input, .. } => {
                    Some(input.iter().map(|x| x * now * t / (t + 1.0)).collect())
                }
                Ask::Step(step) => {
                    now = spread(step.next.unwrap_or(0.0));
                    Some(scaled(&step.sample, now))
                }
                Ask::End(sample) => break sample.iter().map(|x| f64::from(x.abs())).sum::<f64>(),
            };
        }
    };
    let betas = json!({"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"});
    let with = |key: &str, value: Value| {
        let mut fields = betas.clone();
        fields[key] = value;
        fields
    };
    let near = |got: f64, want: f64, digit: f64| assert!((got - want).abs() <= digit, "{got} is not {want}");
    near(sum("ddim", 10, with("clip_sample", json!(true))), 172.0067, 1e-2);
    near(sum("pndm", 10, betas.clone()), 198.1318, 1e-2);
    near(sum("euler", 10, with("num_train_timesteps", json!(1100))), 10.0807, 1e-2);
    near(sum("euler_karras", 10, with("num_train_timesteps", json!(1100))), 124.523, 1e-2);
    near(sum("lms", 10, with("num_train_timesteps", json!(1100))), 1006.388, 1e-2);
    near(sum("lms_karras", 10, with("num_train_timesteps", json!(1100))), 3812.99, 2e-2);
    let dpm = |prediction: &str| {
        let mut fields = with("final_sigmas_type", json!("sigma_min"));
        fields["lower_order_final"] = json!(false);
        fields["prediction_type"] = json!(prediction);
        fields
    };
    near(sum("dpmpp_2m", 10, dpm("epsilon")) / 768.0, 0.3301, 1e-3);
    near(sum("dpmpp_2m_karras", 10, dpm("v_prediction")) / 768.0, 0.2096, 1e-3);
    let with_order = |order: usize| {
        let mut fields = with("final_sigmas_type", json!("sigma_min"));
        fields["solver_order"] = json!(order);
        fields
    };
    near(sum("unipc", 10, with_order(2)) / 768.0, 0.2464, 1e-3);
    near(sum("unipc_karras", 10, with_order(2)) / 768.0, 0.2925, 1e-3);
    near(sum("deis", 10, with_order(2)) / 768.0, 0.2392, 1e-3);
}

#[test]
fn preview_mixes_channels() {
    // Two pixels: only the first channel, then nothing. (0.3512 + 1) * 127.5 = 172.3.
    let latents = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let rgba = latents_to_rgba(&latents, 2, 1, &SD1_FACTORS, [0.0; 3]).unwrap();
    assert_eq!(rgba, [172, 157, 169, 255, 128, 128, 128, 255]);
    let bright = latents_to_rgba(&latents, 2, 1, &SD1_FACTORS, [9.0, -9.0, f32::NAN]).unwrap();
    assert_eq!(bright, [255, 0, 0, 255, 255, 0, 0, 255]);
    assert_eq!(
        latents_to_rgba(&latents, 3, 1, &SD1_FACTORS, [0.0; 3]).unwrap_err().code,
        Code::InvalidOption
    );
}

/// Code and message of what must fail.
fn refusal(name: Option<&str>, fields: Value, steps: usize) -> (Code, String) {
    match scheduler(name, &config(&fields.to_string()), steps) {
        Ok(_) => panic!("{name:?} took {fields}"),
        Err(e) => (e.code, e.message),
    }
}

#[test]
fn refuses_by_name() {
    let class = |class: &str| json!({ "_class_name": class });
    for (name, fields, steps, code, says) in [
        (None, class("FlowMatchHeunDiscreteScheduler"), 5, Code::UnsupportedModel, "FlowMatchHeun"),
        (Some("ddim"), class("FlowMatchEulerDiscreteScheduler"), 5, Code::UnsupportedModel, "FlowMatchEuler"),
        (Some("nonsense"), class("DDIMScheduler"), 5, Code::InvalidOption, "dpmpp_2m_karras"),
        (Some("pndm_karras"), class("DDIMScheduler"), 5, Code::InvalidOption, "pndm_karras"),
        (Some("dpmpp_2m_often"), class("DDIMScheduler"), 5, Code::InvalidOption, "align_your_steps"),
        (None, class("DDIMScheduler"), 0, Code::InvalidOption, "1 to 1000"),
        (None, class("EulerDiscreteScheduler"), 1001, Code::InvalidOption, "1 to 1000"),
        (None, class("LCMScheduler"), 51, Code::InvalidOption, "1 to 50"),
        (None, class("PNDMScheduler"), 3, Code::InvalidOption, "at least 4"),
    ] {
        let (got, message) = refusal(name, fields, steps);
        assert_eq!(got, code, "{message}");
        assert!(message.contains(says), "{message}");
    }
    // The last timestep would be 1000.
    let offset = json!({"_class_name": "DDIMScheduler", "steps_offset": 1});
    assert_eq!(refusal(None, offset, 1000).0, Code::InvalidOption);
}

#[test]
fn refuses_fields_by_name() {
    let dpm = "DPMSolverMultistepScheduler";
    for (class, key, value) in [
        ("DDPMScheduler", "variance_type", json!("learned_range")),
        ("DDPMScheduler", "beta_schedule", json!("sigmoid")),
        ("DDIMScheduler", "prediction_type", json!("flow_prediction")),
        ("DDIMScheduler", "timestep_spacing", json!("middle")),
        ("DDIMScheduler", "num_train_timesteps", json!(0)),
        ("DDIMScheduler", "beta_start", json!("small")),
        ("DDIMScheduler", "clip_sample", json!("yes")),
        ("PNDMScheduler", "prediction_type", json!("sample")),
        ("EulerAncestralDiscreteScheduler", "prediction_type", json!("sample")),
        ("EulerDiscreteScheduler", "interpolation_type", json!("cubic")),
        ("EulerDiscreteScheduler", "timestep_type", json!("other")),
        ("EulerDiscreteScheduler", "final_sigmas_type", json!("other")),
        (dpm, "use_lu_lambdas", json!(true)),
        (dpm, "use_flow_sigmas", json!(true)),
        (dpm, "algorithm_type", json!("dpmsolver")),
        ("DPMSolverSinglestepScheduler", "algorithm_type", json!("sde-dpmsolver++")),
        ("DEISMultistepScheduler", "solver_type", json!("other")),
        ("UniPCMultistepScheduler", "predict_x0", json!(false)),
        ("KDPM2DiscreteScheduler", "prediction_type", json!("sample")),
        (dpm, "solver_type", json!("other")),
        (dpm, "solver_order", json!(4)),
        (dpm, "variance_type", json!("learned")),
        ("LCMScheduler", "original_inference_steps", json!(2000)),
    ] {
        let (code, message) = refusal(None, json!({"_class_name": class, key: value}), 5);
        assert_eq!(code, Code::UnsupportedModel, "{message}");
        assert!(message.contains(key), "{message}");
    }
}

#[test]
fn refuses_broken_json_and_steps() {
    for text in ["", "[]", "{", "{}", r#"{"_class_name": 3}"#] {
        assert_eq!(SchedulerConfig::from_json(text).unwrap_err().code, Code::BadCheckpoint, "{text}");
    }
    let odd = r#"{"_class_name": "DDIMScheduler", "note": "\"Infinity", "x": NaN, "y": -Infinity}"#;
    for name in names() {
        let sampler = scheduler(Some(&name), &config(odd), 5).unwrap();
        assert!(sampler.levels.sigma(sampler.levels.timesteps().len() + 9).is_nan());
    }
}

/// A1111's names, diffusers' classes and ours, with and without a schedule.
#[test]
fn names_of_others() {
    for (name, sampler, schedule) in [
        ("DPM++ 2M Karras", "DPM++ 2M", "Karras"),
        ("dpmpp_2m_karras", "DPM++ 2M", "Karras"),
        ("DPMSolverMultistepScheduler", "DPM++ 2M", ""),
        ("DPMSolverMultistepScheduler karras", "DPM++ 2M", "Karras"),
        ("Euler a", "Euler a", ""),
        ("k_euler", "", ""),
        ("euler_a", "Euler a", ""),
        ("PLMS", "PLMS", ""),
        ("plms_karras", "", ""),
        ("DPM++ 2S a SGM Uniform", "DPM++ 2S a", "SGM Uniform"),
        ("DPM++ 3M SDE Exponential", "DPM++ 3M SDE", "Exponential"),
        ("DDIM CFG++", "DDIM CFG++", ""),
        ("Heun Align Your Steps", "Heun", "Align Your Steps"),
        ("Euler Uniform", "Euler", "Normal"),
        ("LMS DDIM", "LMS", "DDIM"),
        ("DPM fast", "DPM fast", ""),
        ("KDPM2AncestralDiscreteScheduler", "DPM2 a", ""),
    ] {
        assert_eq!(labels(name).unwrap_or_default(), (sampler, schedule), "{name}");
    }
    for name in names() {
        let (sampler, schedule) = labels(&name).unwrap();
        let theirs = format!("{sampler} {schedule}");
        assert_eq!(labels(&theirs), Some((sampler, schedule)), "{name}");
    }
}

/// Stable Diffusion 1.x's largest noise level is 14.6146, whatever the sampler; it falls from there.
#[test]
fn noise_levels_fall() {
    let sd = json!({"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "skip_prk_steps": true,
        "beta_schedule": "scaled_linear", "timestep_spacing": "trailing", "clip_sample": false});
    for name in &names() {
        let levels = scheduler(Some(name), &config(&sd.to_string()), 20).unwrap().levels;
        let sigmas: Vec<f32> = (0..levels.timesteps().len()).map(|i| levels.sigma(i)).collect();
        // PNDM evaluates its second timestep twice.
        let falls = |w: &[f32]| w[1] < w[0] || (*name == "pndm" && w[1] == w[0]);
        assert!(sigmas.windows(2).all(falls), "{name}: {sigmas:?}");
        if labels(name).unwrap().1.is_empty() {
            assert!((sigmas[0] - 14.6146).abs() < 1e-3, "{name}: {}", sigmas[0]);
            assert_eq!(levels.timesteps().len(), if *name == "pndm" { 21 } else { 20 });
        }
    }
}
