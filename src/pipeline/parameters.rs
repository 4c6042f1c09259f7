//! The `parameters` text that AUTOMATIC1111 writes into its PNGs, so that other tools read ours.

use super::controlnet::{Control, Preprocess};
use super::image_to_image::strength;
use super::text_to_image::GenerateOptions;
use crate::prompt::Syntax;
use crate::samplers::{Rng, labels};

/// The text of one picture of the batch; `own` is the class of the checkpoint's sampler.
pub(super) fn text(options: &GenerateOptions, image: usize, model: &str, own: &str) -> String {
    let (seed, variation) = options.noise.of_image(options.seed, image);
    let name = options.scheduler.as_deref().unwrap_or(own);
    let (sampler, schedule) = labels(name).unwrap_or((name, ""));
    let mut out = options.prompt.clone();
    if let Some(negative) = options.negative_prompt.as_deref().filter(|n| !n.is_empty()) {
        out.push_str("\nNegative prompt: ");
        out.push_str(negative);
    }
    let mut fields =
        vec![("Steps", options.num_inference_steps.to_string()), ("Sampler", sampler.to_owned())];
    if !schedule.is_empty() {
        fields.push(("Schedule type", schedule.to_owned()));
    }
    fields.extend([
        ("CFG scale", options.guidance_scale.to_string()),
        ("Seed", seed.to_string()),
        ("Size", format!("{}x{}", options.width, options.height)),
        ("Model", model.to_owned()),
    ]);
    if options.image.is_some() {
        fields.push(("Denoising strength", strength(options).to_string()));
    }
    if options.clip_skip > 0 {
        // A1111 counts the layer that it stops at, diffusers the layers left out.
        fields.push(("Clip skip", (options.clip_skip + 1).to_string()));
    }
    if let Some((seed, strength)) = variation {
        fields.push(("Variation seed", seed.to_string()));
        fields.push(("Variation seed strength", strength.to_string()));
    }
    if let Some((width, height)) = options.noise.resize_from {
        fields.push(("Seed resize from", format!("{width}x{height}")));
    }
    let numbers = |key, value: Option<f32>| value.map(|v| (key, v.to_string()));
    let tuning = &options.tuning;
    fields.extend(numbers("Eta", tuning.eta));
    fields.extend(numbers("Sigma churn", Some(tuning.s_churn).filter(|&v| v != 0.0)));
    fields.extend(numbers("Sigma tmin", Some(tuning.s_tmin).filter(|&v| v != 0.0)));
    fields.extend(numbers("Sigma tmax", Some(tuning.s_tmax).filter(|v| v.is_finite())));
    fields.extend(numbers("Sigma noise", Some(tuning.s_noise).filter(|&v| v != 1.0)));
    fields.push(("RNG", if options.noise.rng == Rng::TorchCuda { "NV" } else { "CPU" }.to_owned()));
    match options.prompt_syntax {
        Syntax::A1111 => {}
        // A1111's word for reading brackets and colons as they stand.
        Syntax::Plain => fields.push(("Emphasis", "None".to_owned())),
        Syntax::Comfy => fields.push(("Emphasis", "Comfy".to_owned())),
    }
    let mut fields: Vec<String> = fields.iter().map(|(k, v)| format!("{k}: {}", quoted(v))).collect();
    let controls = options.controlnets.iter().map(|c| quoted(&control_text(c, options.guess_mode)));
    fields.extend(controls.enumerate().map(|(i, text)| format!("ControlNet {i}: {text}")));
    fields.push(concat!("Version: browser-diffusion ", env!("CARGO_PKG_VERSION")).to_owned());
    out.push('\n');
    out.push_str(&fields.join(", "));
    out
}

/// A ControlNet as A1111's extension for them writes it.
fn control_text(control: &Control, guess_mode: bool) -> String {
    let module = match control.preprocess {
        Preprocess::None => "none".to_owned(),
        Preprocess::Canny { low, high } => format!("canny, Threshold A: {low}, Threshold B: {high}"),
    };
    format!(
        "Module: {module}, Model: {}, Weight: {}, Guidance Start: {}, Guidance End: {}, Control Mode: {}",
        control.key,
        control.scale,
        control.start,
        control.end,
        if guess_mode { "ControlNet is more important" } else { "Balanced" }
    )
}

/// A value with a comma, a colon or a line break is written as a JSON string.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_a1111_writes_it() {
        let options = GenerateOptions {
            prompt: "a cat, sitting".into(),
            negative_prompt: Some("blurry".into()),
            width: 512,
            height: 768,
            num_inference_steps: 20,
            guidance_scale: 7.5,
            scheduler: Some("dpmpp_2m_karras".into()),
            seed: 42,
            prompt_syntax: Syntax::A1111,
            clip_skip: 1,
            ..Default::default()
        };
        // Layout and quoting: `create_infotext` of A1111 1.10.
        let expected = concat!(
            "a cat, sitting\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, ",
            "CFG scale: 7.5, Seed: 42, Size: 512x768, Model: \"http://host/m\", Clip skip: 2, RNG: CPU, ",
            "Version: browser-diffusion 0.1.0"
        );
        assert_eq!(text(&options, 0, "http://host/m", "PNDMScheduler"), expected);
        let own = GenerateOptions { scheduler: None, negative_prompt: None, ..options };
        assert!(
            text(&own, 0, "m", "PNDMScheduler")
                .starts_with("a cat, sitting\nSteps: 20, Sampler: PLMS, CFG scale")
        );
    }
}
