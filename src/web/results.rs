//! What the engine gives back, as plain JavaScript objects.

use crate::error::Error;
use crate::gpu::{Bytes, Counters};
use crate::named::Named;
use crate::pipeline::{Chosen, Generated, Model, Parts, Picture, PromptView, Seen, Settings, Step};
use js_sys::{Array, Float32Array, Object, Reflect, Uint8ClampedArray};
use wasm_bindgen::prelude::*;

impl From<Error> for JsValue {
    fn from(e: Error) -> Self {
        let error = js_sys::Error::new(&e.message);
        set(&error, "code", e.code.as_str());
        error.into()
    }
}

pub(super) fn set(target: &Object, key: &str, value: impl Into<JsValue>) {
    // Fails for frozen objects and proxies only; these are our own.
    let _ = Reflect::set(target, &key.into(), &value.into());
}

fn texts(list: &[String]) -> Array {
    list.iter().map(|t| JsValue::from(t.as_str())).collect()
}

/// The f64 that is written as the f32 is: 0.1 stays 0.1.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

pub(super) fn array(values: &[f32]) -> Float32Array {
    Float32Array::from(values)
}

pub(super) fn picture_object(p: &Picture) -> Object {
    let out = Object::new();
    set(&out, "width", p.width);
    set(&out, "height", p.height);
    set(&out, "data", Uint8ClampedArray::from(p.data.as_slice()));
    out
}

pub(super) fn step_object(s: Step) -> Object {
    let out = Object::new();
    set(&out, "step", s.step as f64);
    set(&out, "total", s.total as f64);
    set(&out, "timestep", s.timestep);
    set(&out, "sigma", s.sigma);
    set(&out, "latents", array(&s.latents));
    set(&out, "x0", array(&s.x0));
    if let Some(p) = &s.preview {
        set(&out, "preview", picture_object(p));
    }
    if let Some(seen) = &s.seen {
        let inside = seen.parts.as_ref().map(parts_object).unwrap_or_default();
        if let Some(parts) = &seen.parts {
            set(&inside, "input", array(&parts.input));
        }
        if let Some([input, x0]) = &s.colours {
            let colours = Object::new();
            set(&colours, "input", picture_object(input));
            set(&colours, "x0", picture_object(x0));
            set(&inside, "colours", colours);
        }
        set_seen(&inside, seen);
        set(&out, "inside", inside);
    }
    out
}

/// `attention` and `activations`, where they were asked for.
pub(super) fn set_seen(out: &Object, seen: &Seen) {
    if let Some(maps) = &seen.attention {
        let tokens = maps.tokens.iter().map(|token| {
            let out = Object::new();
            set(&out, "kind", token.kind.name());
            set(&out, "text", token.text.as_str());
            set(&out, "map", array(&token.map));
            out
        });
        let attention = Object::new();
        set(&attention, "width", maps.width);
        set(&attention, "height", maps.height);
        set(&attention, "tokens", tokens.collect::<Array>());
        set(out, "attention", attention);
    }
    if !seen.activations.is_empty() {
        let blocks = seen.activations.iter().map(|block| {
            let out = Object::new();
            set(&out, "name", block.name.as_str());
            set(&out, "channels", block.channels);
            set(&out, "width", block.width);
            set(&out, "height", block.height);
            if let Some(milliseconds) = block.milliseconds {
                set(&out, "milliseconds", milliseconds);
            }
            set(&out, "maps", block.maps.iter().map(|map| array(map)).collect::<Array>());
            out
        });
        set(out, "activations", blocks.collect::<Array>());
    }
}

/// `{ noise, cond, uncond }`; `uncond` where there is guidance.
pub(super) fn parts_object(parts: &Parts) -> Object {
    let out = Object::new();
    set(&out, "noise", array(&parts.noise));
    set(&out, "cond", array(&parts.cond));
    if !parts.uncond.is_empty() {
        set(&out, "uncond", array(&parts.uncond));
    }
    out
}

/// What `generate` gives; the module makes the texts for PNGs of `settled` and of each picture's seeds.
pub(super) fn result_object(g: Generated) -> Object {
    let out = Object::new();
    let images = g.pictures.iter().zip(&g.seeds).map(|(picture, seeds)| {
        let image = picture_object(picture);
        set(&image, "seed", seeds.seed as f64);
        if let Some(variation) = seeds.variation {
            set(&image, "variationSeed", variation as f64);
        }
        image
    });
    set(&out, "images", images.collect::<Array>());
    set(&out, "latents", g.latents.iter().map(|l| array(l)).collect::<Array>());
    set(&out, "seed", g.seed as f64);
    set(&out, "settled", settled_object(&g.settled));
    set(&out, "truncated", texts(&g.truncated));
    let unmatched = g.unmatched.iter().map(|(key, names)| {
        let one = Object::new();
        set(&one, "source", key.as_str());
        set(&one, "keys", texts(names));
        one
    });
    set(&out, "unmatched", unmatched.collect::<Array>());
    let timings = Object::new();
    set(&timings, "textEncoder", g.timings.text_encoder);
    set(&timings, "steps", g.timings.steps.iter().map(|t| JsValue::from(*t)).collect::<Array>());
    set(&timings, "vae", g.timings.vae);
    set(&timings, "total", g.timings.total);
    set(&timings, "step", step_counters(&g.timings.step));
    set(&out, "timings", timings);
    out
}

fn settled_object(s: &Settings) -> Object {
    let out = Object::new();
    set(&out, "width", s.width);
    set(&out, "height", s.height);
    set(&out, "numInferenceSteps", s.num_inference_steps as f64);
    set(&out, "guidanceScale", decimal(s.guidance_scale));
    // Of other models none is told, whatever was asked for.
    set(&out, "imageGuidanceScale", s.image_guidance_scale.map(decimal));
    set(&out, "scheduler", s.scheduler.as_str());
    if let Some(strength) = s.strength {
        set(&out, "strength", strength);
    }
    out
}

/// `timings.step`.
pub(super) fn step_counters(step: &Counters) -> Object {
    let out = Object::new();
    set(&out, "dispatches", step.dispatches as f64);
    set(&out, "submits", step.submits as f64);
    set(&out, "bytes", step.bytes as f64);
    set(&out, "created", step.created as f64);
    set(&out, "encodeMs", step.encode_ms);
    out
}

pub(super) fn model_object(model: &Model) -> Object {
    let out = Object::new();
    set(&out, "name", model.name.as_str());
    set(&out, "kind", model.kind.as_str());
    set(&out, "inpainting", model.inpainting);
    set(&out, "instructPix2Pix", model.instruct_pix2pix);
    set(&out, "refiner", model.refiner);
    set(&out, "defaultSize", model.default_size);
    set(&out, "latentChannels", model.latent_channels);
    set(&out, "latentScale", model.latent_scale);
    set(&out, "parameters", model.parameters as f64);
    set(&out, "numInferenceSteps", model.num_inference_steps as f64);
    set(&out, "guidanceScale", model.guidance_scale);
    if let Some(scheduler) = model.scheduler {
        set(&out, "scheduler", scheduler);
    }
    set(&out, "f32Tensors", texts(&model.f32_tensors));
    out
}

/// `{ tokens, chunks, room, foreign }`.
pub(super) fn prompt_object(view: &PromptView) -> Object {
    let tokens = view.tokens.iter().map(|t| {
        let out = Object::new();
        set(&out, "text", t.text.as_str());
        set(&out, "id", t.id);
        set(&out, "weight", t.weight);
        set(&out, "chunk", t.chunk as u32);
        set(&out, "cut", t.cut);
        set(&out, "unknown", t.unknown);
        out
    });
    let out = Object::new();
    set(&out, "tokens", tokens.collect::<Array>());
    set(&out, "chunks", view.chunks as u32);
    set(&out, "room", view.room as u32);
    set(&out, "foreign", view.foreign);
    out
}

/// `{ key, text, origin }`.
pub(super) fn tuning_object(chosen: Chosen) -> Object {
    let out = Object::new();
    set(&out, "key", chosen.key);
    set(&out, "text", chosen.text);
    set(&out, "origin", chosen.origin.name());
    out
}

/// `MemoryReport`: GPU bytes by kind, now and at the peak, and bytes of the wasm heap.
pub(super) fn memory_object(bytes: &Bytes) -> Object {
    let out = Object::new();
    set(&out, "weights", bytes.weights as f64);
    set(&out, "activations", bytes.activations as f64);
    set(&out, "staging", bytes.staging as f64);
    set(&out, "peak", bytes.peak as f64);
    set(&out, "largestBinding", bytes.largest_binding as f64);
    set(&out, "uploaded", bytes.uploaded as f64);
    let memory: js_sys::WebAssembly::Memory = wasm_bindgen::memory().unchecked_into();
    let buffer: js_sys::ArrayBuffer = memory.buffer().unchecked_into();
    set(&out, "wasm", buffer.byte_length());
    out
}
