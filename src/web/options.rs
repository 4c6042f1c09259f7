//! Options from plain JavaScript values to the types of `pipeline::request`. Values are converted here and no more:
//! `www/options.js` checks spelling and ranges, `settle` what depends on the model. Nothing that is passed panics.

use crate::error::{Error, Result};
use crate::named::Named;
use crate::pipeline::{
    Control, DeepCache, GenerateOptions, Hires, Inside, IpAdapter, Lora, Outpaint, Picture,
};
use crate::samplers::NoiseOptions;
use crate::samplers::Tuning;
use js_sys::{Array, Float32Array, Reflect, Uint8ClampedArray};
use wasm_bindgen::prelude::*;

/// Integers up to here are exact in a JavaScript number.
pub(super) const EXACT: f64 = 9_007_199_254_740_991.0;
/// Pixels of a side.
const SIDE: f64 = 16384.0;
/// Of a schedule.
pub(super) const STEPS: f64 = 10_000.0;

/// An option that is there: neither undefined nor null.
pub(super) fn get(options: &JsValue, key: &str) -> Option<JsValue> {
    Reflect::get(options, &key.into()).ok().filter(|v| !v.is_undefined() && !v.is_null())
}

pub(super) fn text(options: &JsValue, key: &str) -> Result<Option<String>> {
    get(options, key)
        .map(|v| v.as_string().ok_or_else(|| Error::invalid(format!("{key} must be text."))))
        .transpose()
}

pub(super) fn number(options: &JsValue, key: &str) -> Result<Option<f64>> {
    get(options, key)
        .map(|v| v.as_f64().ok_or_else(|| Error::invalid(format!("{key} must be a number."))))
        .transpose()
}

fn float(options: &JsValue, key: &str) -> Result<Option<f32>> {
    Ok(number(options, key)?.map(|v| v as f32))
}

/// A whole number from 0 to `max`.
pub(super) fn count(options: &JsValue, key: &str, max: f64) -> Result<Option<f64>> {
    match number(options, key)? {
        Some(n) if n.fract() != 0.0 || !(0.0..=max).contains(&n) => {
            Err(Error::invalid(format!("{key} = {n}: it must be a whole number from 0 to {max}.")))
        }
        n => Ok(n),
    }
}

/// A number of pixels.
pub(super) fn side(options: &JsValue, key: &str) -> Result<Option<u32>> {
    Ok(count(options, key, SIDE)?.map(|n| n as u32))
}

fn flag(options: &JsValue, key: &str) -> bool {
    get(options, key).is_some_and(|v| v.is_truthy())
}

/// What one of an enum's names stands for.
pub(super) fn choice<T: Named>(options: &JsValue, key: &str) -> Result<Option<T>> {
    let Some(name) = text(options, key)? else { return Ok(None) };
    match T::NAMES.iter().find(|(n, _)| *n == name) {
        Some((_, value)) => Ok(Some(*value)),
        None => {
            let names: Vec<String> = T::NAMES.iter().map(|(n, _)| format!("{n:?}")).collect();
            Err(Error::invalid(format!("{key} = {name:?}: choose {}.", names.join(" or "))))
        }
    }
}

pub(super) fn floats(options: &JsValue, key: &str) -> Result<Option<Vec<f32>>> {
    let wrong = || Error::invalid(format!("{key} must be a Float32Array."));
    get(options, key)
        .map(|v| v.dyn_into::<Float32Array>().map(|a| a.to_vec()).map_err(|_| wrong()))
        .transpose()
}

/// An array of two numbers.
fn pair(options: &JsValue, key: &str, wrong: &str) -> Result<Option<[f64; 2]>> {
    let Some(value) = get(options, key) else { return Ok(None) };
    let numbers: Vec<f64> = Array::from(&value).iter().filter_map(|n| n.as_f64()).collect();
    numbers.try_into().map(Some).map_err(|_| Error::invalid(format!("{key} must be {wrong}.")))
}

/// The entries of a list; none where there is no list.
pub(super) fn list(options: &JsValue, key: &str) -> Vec<JsValue> {
    get(options, key).map(|list| Array::from(&list).to_vec()).unwrap_or_default()
}

/// A picture as the module has drawn it to the size asked for: `{ width, height, data }`, RGBA.
pub(super) fn picture(options: &JsValue, key: &str) -> Result<Option<Picture>> {
    let Some(value) = get(options, key) else { return Ok(None) };
    as_picture(&value).map(Some).map_err(|_| {
        Error::invalid(format!("{key} must be a picture {{ width, height, data }} of RGBA bytes."))
    })
}

fn as_picture(value: &JsValue) -> Result<Picture> {
    let wrong = || Error::invalid("A picture must be { width, height, data } of RGBA bytes.");
    let data = get(value, "data").and_then(|d| d.dyn_into::<Uint8ClampedArray>().ok()).ok_or_else(wrong)?;
    let side = |name: &str| side(value, name)?.ok_or_else(wrong);
    Ok(Picture { width: side("width")?, height: side("height")?, data: data.to_vec() })
}

/// `[key, text]` of each of a list; what is damaged is left out.
pub(super) fn tunings(list: &JsValue) -> Vec<(String, String)> {
    let entry = |entry: JsValue| {
        let entry = Array::from(&entry);
        Some((entry.get(0).as_string()?, entry.get(1).as_string()?))
    };
    Array::from(list).iter().filter_map(entry).collect()
}

/// `low` and `high` of Canny's edges.
pub(super) fn thresholds(options: &JsValue) -> Result<[f64; 2]> {
    let usual = Control::default();
    Ok([number(options, "low")?.unwrap_or(usual.low), number(options, "high")?.unwrap_or(usual.high)])
}

/// One of `controlnets`.
pub(super) fn control(spec: &JsValue) -> Result<Control> {
    let usual = Control::default();
    let [low, high] = thresholds(spec)?;
    Ok(Control {
        key: text(spec, "key")?.ok_or_else(|| Error::invalid("A ControlNet must have a source."))?,
        image: picture(spec, "image")?.ok_or_else(|| Error::invalid("A ControlNet must have an image."))?,
        preprocess: choice(spec, "preprocess")?.unwrap_or_default(),
        low,
        high,
        mode: choice(spec, "mode")?,
        scale: float(spec, "scale")?.unwrap_or(usual.scale),
        start: number(spec, "start")?.unwrap_or(usual.start),
        end: number(spec, "end")?.unwrap_or(usual.end),
    })
}

/// One of `ipAdapters`.
pub(super) fn ip_adapter(spec: &JsValue) -> Result<IpAdapter> {
    Ok(IpAdapter {
        key: text(spec, "key")?.ok_or_else(|| Error::invalid("An IP-Adapter must have a source."))?,
        images: list(spec, "images").iter().map(as_picture).collect::<Result<_>>()?,
        scale: float(spec, "scale")?.unwrap_or(1.0),
    })
}

/// One of `loras`.
pub(super) fn lora(spec: &JsValue) -> Result<Lora> {
    Ok(Lora {
        key: text(spec, "key")?.ok_or_else(|| Error::invalid("A LoRA must have a source."))?,
        name: text(spec, "name")?.unwrap_or_default(),
        scale: float(spec, "scale")?.unwrap_or(1.0),
    })
}

/// `rng`, `generatorPerImage`, `variationSeed`, `variationStrength`, `seedResizeFrom`, `etaNoiseSeedDelta`.
pub(super) fn noise(o: &JsValue) -> Result<NoiseOptions> {
    let strength = float(o, "variationStrength")?.unwrap_or(0.0);
    let seed = count(o, "variationSeed", EXACT)?.unwrap_or(0.0) as u64;
    let resize_from = pair(o, "seedResizeFrom", "[width, height] in pixels")?;
    Ok(NoiseOptions {
        rng: choice(o, "rng")?.unwrap_or_default(),
        generator_per_image: flag(o, "generatorPerImage"),
        variation: (strength != 0.0).then_some((seed, strength)),
        resize_from: resize_from.map(|[w, h]| (w as u32, h as u32)),
        later_seed_delta: count(o, "etaNoiseSeedDelta", EXACT)?.unwrap_or(0.0) as u64,
    })
}

/// `eta`, `sChurn` and the like.
fn tuning(o: &JsValue) -> Result<Tuning> {
    let usual = Tuning::default();
    Ok(Tuning {
        eta: float(o, "eta")?,
        s_churn: float(o, "sChurn")?.unwrap_or(usual.s_churn),
        s_tmin: float(o, "sTmin")?.unwrap_or(usual.s_tmin),
        s_tmax: float(o, "sTmax")?.unwrap_or(usual.s_tmax),
        s_noise: float(o, "sNoise")?.unwrap_or(usual.s_noise),
        ..usual
    })
}

fn outpaint(options: &JsValue) -> Result<Option<Outpaint>> {
    let Some(margins) = get(options, "outpaint") else { return Ok(None) };
    let margin = |name: &str| Ok::<_, Error>(side(&margins, name)?.unwrap_or(0));
    let [left, right, top, bottom] = [margin("left")?, margin("right")?, margin("top")?, margin("bottom")?];
    Ok(Some(Outpaint { left, right, top, bottom }))
}

fn hires(options: &JsValue) -> Result<Option<Hires>> {
    let Some(o) = get(options, "hires") else { return Ok(None) };
    let usual = Hires::default();
    Ok(Some(Hires {
        scale: number(&o, "scale")?.unwrap_or(usual.scale),
        width: side(&o, "width")?,
        height: side(&o, "height")?,
        upscaler: choice(&o, "upscaler")?.unwrap_or_default(),
        steps: count(&o, "steps", STEPS)?.map(|n| n as usize),
        strength: number(&o, "strength")?.unwrap_or(usual.strength),
    }))
}

fn inside(o: &JsValue) -> Inside {
    let Some(o) = get(o, "inside") else { return Inside::default() };
    let [guidance, attention, activations] =
        ["guidance", "attention", "activations"].map(|key| flag(&o, key));
    Inside { guidance, attention, activations }
}

fn deep_cache(o: &JsValue) -> Result<Option<DeepCache>> {
    let Some(o) = get(o, "deepCache") else { return Ok(None) };
    let number = |key, usual| Ok(count(&o, key, STEPS)?.map_or(usual, |n| n as u32));
    Ok(Some(DeepCache { interval: number("interval", 3)?, branch: number("branch", 0)? }))
}

/// The options of `generate`, but for what is loaded from files: `loras`, `embeddings`, `controlnets`
/// and `ipAdapters`.
pub(super) fn generate_options(o: &JsValue) -> Result<GenerateOptions> {
    let seed = count(o, "seed", EXACT)?.ok_or_else(|| Error::invalid("seed is missing: give a number."))?;
    Ok(GenerateOptions {
        prompt: text(o, "prompt")?.unwrap_or_default(),
        prompt_syntax: choice(o, "promptSyntax")?.unwrap_or_default(),
        negative_prompt: text(o, "negativePrompt")?,
        width: side(o, "width")?,
        height: side(o, "height")?,
        num_inference_steps: count(o, "numInferenceSteps", STEPS)?.map(|n| n as usize),
        guidance_scale: float(o, "guidanceScale")?,
        guidance_rescale: float(o, "guidanceRescale")?.unwrap_or(0.0),
        image_guidance_scale: float(o, "imageGuidanceScale")?,
        aesthetic_score: float(o, "aestheticScore")?,
        negative_aesthetic_score: float(o, "negativeAestheticScore")?,
        denoising_start: number(o, "denoisingStart")?,
        denoising_end: number(o, "denoisingEnd")?,
        guidance_interval: pair(o, "guidanceInterval", "[start, end], shares of the steps")?,
        deep_cache: deep_cache(o)?,
        scheduler: text(o, "scheduler")?,
        tuning: tuning(o)?,
        noise: noise(o)?,
        seed: seed as u64,
        num_images: count(o, "numImages", 64.0)?.map(|n| n as usize),
        latents: floats(o, "latents")?,
        image: picture(o, "image")?,
        strength: number(o, "strength")?,
        strength_steps: choice(o, "strengthSteps")?.unwrap_or_default(),
        mask_image: picture(o, "maskImage")?,
        mask_blur: number(o, "maskBlur")?.unwrap_or(0.0),
        invert_mask: flag(o, "invertMask"),
        masked_content: choice(o, "maskedContent")?,
        inpaint_area: choice(o, "inpaintArea")?.unwrap_or_default(),
        mask_padding: side(o, "maskPadding")?,
        outpaint: outpaint(o)?,
        hires: hires(o)?,
        prompt_embeds: floats(o, "promptEmbeds")?,
        negative_prompt_embeds: floats(o, "negativePromptEmbeds")?,
        clip_skip: count(o, "clipSkip", 64.0)?.unwrap_or(0.0) as u32,
        guess_mode: flag(o, "guessMode"),
        inside: inside(o),
        preview: choice(o, "preview")?.unwrap_or_default(),
        output: choice(o, "output")?.unwrap_or_default(),
        ..Default::default()
    })
}
