//! `Upscaler` of the module: pictures enlarged by an ESRGAN.

use super::options::{choice, picture};
use super::results::picture_object;
use super::sources::{Watch, finished, reporter, source};
use crate::error::{Error, Result};
use crate::pipeline;
use crate::store::{FileAt, ModelFiles};
use js_sys::{Function, Object};
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

/// An ESRGAN on the GPU.
#[wasm_bindgen]
pub struct Upscaler {
    inner: pipeline::Upscaler,
}

#[wasm_bindgen]
impl Upscaler {
    /// Loads one. `spec`: `{ source, files, embedded, hub, cache, precision }`, one file.
    pub async fn load(
        spec: JsValue,
        on_progress: Function,
        signal: AbortSignal,
    ) -> Result<Upscaler, JsValue> {
        let watch = Watch { signal, on_progress: Some(reporter(on_progress)) };
        let source = source(&spec, &watch).await?;
        let path = source.single_file().map(str::to_owned).ok_or_else(|| {
            Error::invalid(format!(
                "{} is no upscaler's file: give the address of a .pth or .safetensors file, or the file \
                 itself.",
                source.name()
            ))
        })?;
        let file = FileAt::new(source.clone(), path);
        let precision = choice(&spec, "precision")?.unwrap_or_default();
        let loaded = pipeline::Upscaler::load(&file, precision, &|| watch.signal.aborted()).await;
        Ok(Upscaler { inner: finished(&source, loaded).await? })
    }

    /// Whether the GPU was taken away.
    pub fn lost(&self) -> bool {
        self.inner.gpu().is_lost()
    }

    /// How many times as large pictures become.
    pub fn scale(&self) -> u32 {
        self.inner.scale()
    }

    /// Enlarges `image` of `options`; `on_tile` gets how many tiles are done, and of how many.
    pub async fn upscale(
        &self,
        options: JsValue,
        on_tile: Function,
        signal: AbortSignal,
    ) -> Result<Object, JsValue> {
        let image =
            picture(&options, "image")?.ok_or_else(|| Error::invalid("image is missing: give a picture."))?;
        let mut tile = |done: usize, total: usize| -> Result<()> {
            // A listener that throws does not stop the work.
            let _ = on_tile.call2(&JsValue::NULL, &(done as f64).into(), &(total as f64).into());
            Ok(())
        };
        let enlarged = self.inner.upscale(&image, &mut tile, &|| signal.aborted()).await?;
        Ok(picture_object(&enlarged))
    }
}
