//! `Upscaler` of the module: pictures enlarged by an ESRGAN.

use super::{picture, picture_object, precision, reporter, source};
use crate::error::{Code, Error, Result};
use crate::pipeline;
use crate::store::{FileAt, ModelFiles, ReadOptions};
use js_sys::{Function, Object};
use std::rc::Rc;
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
        let options = ReadOptions {
            no_cache: super::get(&spec, "cache").is_some_and(|v| v.is_falsy()),
            signal: Some(signal.clone()),
            on_progress: Some(reporter(on_progress)),
        };
        let source = Rc::new(source(&spec, options).await?);
        let path = source.single_file().map(str::to_owned).ok_or_else(|| {
            Error::invalid(format!(
                "{} is no upscaler's file: give the address of a .pth or .safetensors file, or the file itself.",
                source.name()
            ))
        })?;
        let file = FileAt::new(source.clone(), path);
        match pipeline::Upscaler::load(&file, precision(&spec)?, &|| signal.aborted()).await {
            Ok(inner) => {
                source.finish().await?;
                Ok(Upscaler { inner })
            }
            Err(e) => {
                if matches!(e.code, Code::BadCheckpoint | Code::UnsupportedModel) {
                    // What the cache fails with then matters less than why the file was refused.
                    let _ = source.doubt().await;
                }
                Err(e.into())
            }
        }
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
