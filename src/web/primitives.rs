//! The parts that drawing is made of, as `www/browser-diffusion.d.ts` has them.

use super::Pipeline;
use super::options::{count, floats, generate_options, noise, number, picture, side, text};
use super::results::{array, parts_object, picture_object, set, set_seen};
use super::sources::Watch;
use crate::error::{Error, Result};
use crate::pipeline::GenerateOptions;
use js_sys::{Float32Array, Object};
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

/// An option that there must be.
fn needed<T>(value: Option<T>, key: &str) -> Result<T> {
    value.ok_or_else(|| Error::invalid(format!("{key} is missing.")))
}

/// `width` and `height`.
fn size(options: &JsValue) -> Result<[u32; 2]> {
    Ok([needed(side(options, "width")?, "width")?, needed(side(options, "height")?, "height")?])
}

fn timestep(options: &JsValue) -> Result<f32> {
    Ok(needed(number(options, "timestep")?, "timestep")? as f32)
}

#[wasm_bindgen]
impl Pipeline {
    /// `{ image }`, of the size to encode.
    pub async fn encode(&self, options: JsValue, signal: AbortSignal) -> Result<Float32Array, JsValue> {
        let image = needed(picture(&options, "image")?, "image")?;
        Ok(array(&self.inner.encode(&image, &|| signal.aborted()).await?))
    }

    /// `{ latents, width, height }`.
    pub async fn decode(&self, options: JsValue, signal: AbortSignal) -> Result<Object, JsValue> {
        let latents = needed(floats(&options, "latents")?, "latents")?;
        let decoded = self.inner.decode(&latents, size(&options)?, &|| signal.aborted()).await?;
        Ok(picture_object(&decoded))
    }

    /// `{ seed, width, height }` and what else says how noise is made.
    pub fn noise(&self, options: JsValue) -> Result<Float32Array, JsValue> {
        let seed = needed(count(&options, "seed", super::options::EXACT)?, "seed")?;
        Ok(array(&self.inner.noise(seed as u64, &noise(&options)?, size(&options)?)?))
    }

    /// `{ scheduler, numInferenceSteps }`.
    pub fn schedule(&self, options: JsValue) -> Result<Object, JsValue> {
        let steps = count(&options, "numInferenceSteps", super::options::STEPS)?.map(|n| n as usize);
        let schedule = self.inner.schedule(text(&options, "scheduler")?.as_deref(), steps)?;
        let out = Object::new();
        set(&out, "timesteps", array(schedule.levels.timesteps()));
        set(&out, "sigmas", array(schedule.levels.sigmas()));
        set(&out, "alphasCumprod", array(&schedule.alphas_cumprod));
        Ok(out)
    }

    /// `{ latents, noise, timestep }`.
    #[wasm_bindgen(js_name = addNoise)]
    pub fn add_noise(&self, options: JsValue) -> Result<Float32Array, JsValue> {
        let latents = needed(floats(&options, "latents")?, "latents")?;
        let noise = needed(floats(&options, "noise")?, "noise")?;
        Ok(array(&self.inner.add_noise(&latents, &noise, timestep(&options)?)?))
    }

    /// `timestep`, `inside`, `latents` with its noise, and such options of `generate` as say what the network is given.
    pub async fn predict(&self, options: JsValue, signal: AbortSignal) -> Result<Object, JsValue> {
        let watch = Watch::silent(&signal);
        let request = GenerateOptions {
            loras: self.loras(&options, &watch).await?,
            embeddings: self.embeddings(&options, &watch).await?,
            ..generate_options(&options)?
        };
        let at = timestep(&options)?;
        let prediction = self.inner.predict(&request, at, &|| signal.aborted()).await?;
        let out = parts_object(&prediction.parts);
        set(&out, "x0", array(&prediction.parts.x0));
        set_seen(&out, &prediction.seen);
        Ok(out)
    }
}
