//! What `www/worker.js` calls. Everything of `www/browser-diffusion.d.ts` that needs the engine crosses here, as plain
//! JavaScript values; failures are `{ code, message }`.

mod bench;
mod options;
mod primitives;
mod results;
mod sources;
mod train;
mod upscaler;

use crate::error::{Code, Error, Result};
use crate::gpu::{Gpu, GpuOptions};
use crate::pipeline::{
    self, Control, DiffusionPipeline, GenerateOptions, ImageEncoderFiles, IpAdapter, LoadOptions, Lora,
    Picture, Step,
};
use crate::samplers;
use crate::store::{ModelFiles, Progress};
use js_sys::{Array, Function, Object};
use options::{
    choice, control, generate_options, get, ip_adapter, list, lora, picture, text, thresholds, tunings,
};
use results::{
    memory_object, model_object, picture_object, prompt_object, result_object, set, step_object,
    tuning_object,
};
use sources::{Watch, as_folder, file, finished, folder, reporter, source, store};
use std::cell::Cell;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

#[wasm_bindgen(start)]
pub fn start() {
    console_error_panic_hook::set_once();
}

/// A model on the GPU.
#[wasm_bindgen]
pub struct Pipeline {
    inner: DiffusionPipeline,
}

#[wasm_bindgen]
impl Pipeline {
    /// Loads a model. `spec`: a source with `variant`, `precision`, `weights`, `memory` and `vae`, the source of another
    /// model's VAE; `on_progress` gets transformers.js's progress payload; `kept` is `[key, text]` of the choices of
    /// earlier visits, undefined for a load that is not to time anything.
    pub async fn load(
        spec: JsValue,
        on_progress: Function,
        signal: AbortSignal,
        kept: JsValue,
    ) -> Result<Pipeline, JsValue> {
        let options = LoadOptions {
            variant: text(&spec, "variant")?,
            precision: choice(&spec, "precision")?.unwrap_or_default(),
            weights: choice(&spec, "weights")?.unwrap_or_default(),
            memory: choice(&spec, "memory")?.unwrap_or_default(),
            prediction: choice(&spec, "predictionType")?,
            zero_snr: get(&spec, "rescaleBetasZeroSnr").and_then(|flag| flag.as_bool()),
            tunings: (!kept.is_undefined()).then(|| tunings(&kept)),
        };
        let report = reporter(on_progress);
        // Weights that are streamed again later are no progress of this call.
        let loading = Rc::new(Cell::new(true));
        let (while_loading, to) = (loading.clone(), report.clone());
        let on_progress: Rc<dyn Fn(Progress)> = Rc::new(move |p| {
            if while_loading.get() {
                to(p);
            }
        });
        let watch = Watch { signal, on_progress: Some(on_progress) };
        let source = source(&spec, &watch).await?;
        let load = async || {
            let files = as_folder(&source, &spec, &watch).await?;
            let (vae, its_source) = match get(&spec, "vae") {
                Some(vae) => Some(folder(&vae, &watch).await?).unzip(),
                None => (None, None),
            };
            let aborted = || watch.signal.aborted();
            let loaded = DiffusionPipeline::load(files, vae, &options, &aborted).await?;
            if let Some(source) = its_source {
                source.finish().await?;
            }
            Ok(loaded)
        };
        let inner = finished(&source, load().await).await?;
        loading.set(false);
        report(Progress {
            status: "ready",
            name: source.name().to_owned(),
            file: String::new(),
            loaded: 0,
            total: 0,
            progress: 100.0,
            from_cache: false,
        });
        Ok(Pipeline { inner })
    }

    /// `model` of the public pipeline.
    pub fn model(&self) -> Object {
        model_object(self.inner.model())
    }

    /// Draws; `on_step` gets each step as an object.
    pub async fn generate(
        &self,
        options: JsValue,
        on_step: Function,
        signal: AbortSignal,
    ) -> Result<Object, JsValue> {
        let watch = Watch::silent(&signal);
        self.tiny_vae(&options, &watch).await?;
        let request = GenerateOptions {
            loras: self.loras(&options, &watch).await?,
            embeddings: self.embeddings(&options, &watch).await?,
            controlnets: self.controlnets(&options, &watch).await?,
            ip_adapters: self.ip_adapters(&options, &watch).await?,
            ..generate_options(&options)?
        };
        let mut step = |s: Step| {
            on_step
                .call1(&JsValue::NULL, &step_object(s))
                .map(|_| ())
                .map_err(|e| Error::new(Code::Aborted, format!("onStep failed: {:?}", e)))
        };
        let generated = self.inner.generate(&request, &mut step, &|| signal.aborted()).await?;
        Ok(result_object(generated))
    }

    /// How the text encoder reads `{ prompt, promptSyntax, embeddings }`: `{ tokens, chunks, room, foreign }`.
    pub async fn tokenize(&self, options: JsValue, signal: AbortSignal) -> Result<Object, JsValue> {
        let embeddings = self.embeddings(&options, &Watch::silent(&signal)).await?;
        let prompt = text(&options, "prompt")?.unwrap_or_default();
        let syntax = choice(&options, "promptSyntax")?.unwrap_or_default();
        Ok(prompt_object(&self.inner.tokenize(&prompt, syntax, &embeddings)?))
    }

    /// The variants of kernels in use: `{ key, text, origin }`, `origin` being "shipped", "kept" or "timed".
    pub fn tuning(&self) -> Object {
        tuning_object(self.inner.tuning())
    }

    /// Chooses them anew, in at most so many milliseconds.
    pub async fn tune(&mut self, budget: f64) -> Result<(), JsValue> {
        Ok(self.inner.tune(budget).await?)
    }

    /// Whether there are kernels to time yet.
    #[wasm_bindgen(js_name = toTune)]
    pub fn to_tune(&self) -> bool {
        self.inner.to_tune()
    }

    /// Times more of them for the next visit, for at most so many milliseconds; gives what `tuning` would there.
    #[wasm_bindgen(js_name = tuneLater)]
    pub async fn tune_later(&self, budget: f64, signal: AbortSignal) -> Result<Object, JsValue> {
        Ok(tuning_object(self.inner.tune_later(budget, &|| signal.aborted()).await?))
    }

    /// Whether the GPU was taken away.
    pub fn lost(&self) -> bool {
        self.inner.gpu().is_lost()
    }

    /// `MemoryReport`.
    pub fn memory(&self) -> Object {
        memory_object(&self.inner.gpu().bytes())
    }
}

impl Pipeline {
    /// Loads the small decoder of `tinyVae`, a source, unless it is loaded or the model's own is one.
    async fn tiny_vae(&self, options: &JsValue, watch: &Watch) -> Result<()> {
        let Some(tiny) = get(options, "tinyVae") else { return Ok(()) };
        if !self.inner.lacks_tiny(&text(&tiny, "source")?.unwrap_or_default()) {
            return Ok(());
        }
        let (files, source) = folder(&tiny, watch).await?;
        self.inner.load_tiny(files, &|| watch.signal.aborted()).await?;
        source.finish().await
    }

    /// Textual inversion: words and keys, those of `embeddings` loaded that are not yet.
    async fn embeddings(&self, options: &JsValue, watch: &Watch) -> Result<Vec<(String, String)>> {
        let mut embeddings = Vec::new();
        for spec in list(options, "embeddings") {
            let (key, token) = (text(&spec, "key")?.unwrap_or_default(), text(&spec, "token")?);
            let token = token.ok_or_else(|| Error::invalid("An embedding must have a token."))?;
            if !self.inner.has_embedding(&key) {
                let (file, source) = file(&spec, &key, watch).await?;
                self.inner.load_embedding(&key, &file).await?;
                source.finish().await?;
            }
            embeddings.push((token, key));
        }
        Ok(embeddings)
    }

    /// Loads the ControlNets of `controlnets` (each a source with `key` and the options of one) that are not loaded yet;
    /// those of earlier pictures then make room.
    async fn controlnets(&self, options: &JsValue, watch: &Watch) -> Result<Vec<Control>> {
        let specs = list(options, "controlnets");
        let controls: Vec<Control> = specs.iter().map(control).collect::<Result<_>>()?;
        let keys: Vec<String> = controls.iter().map(|c| c.key.clone()).collect();
        for (spec, key) in specs.iter().zip(&keys) {
            if self.inner.has_controlnet(key) {
                continue;
            }
            self.inner.keep_controlnets(&keys);
            let (files, source) = folder(spec, watch).await?;
            self.inner.load_controlnet(key, files, &|| watch.signal.aborted()).await?;
            source.finish().await?;
        }
        Ok(controls)
    }

    /// Loads the IP-Adapters of `ipAdapters` (each a source with `key`, `imageEncoder`, a source with a key of its own, and
    /// the options of one) that are not loaded yet; those of earlier pictures then make room.
    async fn ip_adapters(&self, options: &JsValue, watch: &Watch) -> Result<Vec<IpAdapter>> {
        let specs = list(options, "ipAdapters");
        let adapters: Vec<IpAdapter> = specs.iter().map(ip_adapter).collect::<Result<_>>()?;
        let keys: Vec<String> = adapters.iter().map(|a| a.key.clone()).collect();
        for (spec, key) in specs.iter().zip(&keys) {
            if self.inner.has_ip_adapter(key) {
                continue;
            }
            self.inner.keep_ip_adapters(&keys);
            let encoder = get(spec, "imageEncoder")
                .ok_or_else(|| Error::invalid("An IP-Adapter must have an imageEncoder."))?;
            let encoder_key = text(&encoder, "key")?.unwrap_or_default();
            let (file, adapter) = file(spec, key, watch).await?;
            let encoder = source(&encoder, watch).await?;
            let files = ImageEncoderFiles { key: &encoder_key, files: encoder.clone() };
            let file = (adapter.name(), file);
            self.inner.load_ip_adapter(key, file, files, &|| watch.signal.aborted()).await?;
            adapter.finish().await?;
            encoder.finish().await?;
        }
        Ok(adapters)
    }

    /// Loads the LoRAs of `loras` (each a source with `key`, `name` and `scale`) that are not loaded yet.
    async fn loras(&self, options: &JsValue, watch: &Watch) -> Result<Vec<Lora>> {
        let specs = list(options, "loras");
        let loras: Vec<Lora> = specs.iter().map(lora).collect::<Result<_>>()?;
        for (spec, Lora { key, .. }) in specs.iter().zip(&loras) {
            if !self.inner.has_lora(key) {
                let (file, source) = file(spec, key, watch).await?;
                self.inner.load_lora(key, &file).await?;
                source.finish().await?;
            }
        }
        Ok(loras)
    }
}

/// `cache.list()`.
#[wasm_bindgen(js_name = cacheList)]
pub async fn cache_list() -> Result<Array, JsValue> {
    let models = store().await.list().await?;
    Ok(models
        .iter()
        .map(|m| {
            let out = Object::new();
            set(&out, "name", m.name.as_str());
            set(&out, "bytes", m.bytes as f64);
            set(&out, "complete", m.complete);
            out
        })
        .collect())
}

/// `cache.delete(name)`.
#[wasm_bindgen(js_name = cacheDelete)]
pub async fn cache_delete(name: String) -> Result<(), JsValue> {
    Ok(store().await.delete(&name).await?)
}

/// `canny(image, { low, high })`: `options` is `{ image, low, high }`.
#[wasm_bindgen]
pub async fn canny(options: JsValue) -> Result<Object, JsValue> {
    let image = image(&options)?;
    let [low, high] = thresholds(&options)?;
    let gpu = Gpu::new(&GpuOptions::default()).await?;
    Ok(picture_object(&pipeline::canny(&gpu, &image, low, high).await?))
}

/// `softedge(image)`: `options` is `{ image }`.
#[wasm_bindgen]
pub async fn softedge(options: JsValue) -> Result<Object, JsValue> {
    let gpu = Gpu::new(&GpuOptions::default()).await?;
    Ok(picture_object(&pipeline::softedge(&gpu, &image(&options)?).await?))
}

/// # Errors
/// `invalid-option` where there is none.
fn image(options: &JsValue) -> Result<Picture> {
    picture(options, "image")?.ok_or_else(|| Error::invalid("image is missing: give a picture."))
}

/// Names that `scheduler` takes.
#[wasm_bindgen]
pub fn schedulers() -> Vec<String> {
    samplers::names()
}
