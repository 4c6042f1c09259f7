//! What `www/worker.js` calls. Everything of `api.md` that needs the engine crosses here, as plain JavaScript
//! values; failures are `{ code, message }`.

mod bench;
mod upscaler;

use crate::checkpoint::Bits;
use crate::error::{Code, Error, Result};
use crate::gpu::{Counters, Gpu, GpuOptions};
use crate::ops::Precision;
use crate::pipeline::{
    self, Control, DiffusionPipeline, Enlarge, GenerateOptions, Generated, Hires, InpaintArea, LoadOptions,
    MaskedContent, Memory, Origin, Outpaint, Picture, Preprocess, Preview, Step, StrengthSteps,
};
use crate::prompt::Syntax;
use crate::samplers;
use crate::samplers::{NoiseOptions, Rng};
use crate::store::{
    FileAt, ModelFiles, ModelStore, PageFiles, Progress, ReadOptions, Source, SourceOptions, WebFiles,
};
use js_sys::{Array, Float32Array, Function, Object, Reflect, Uint8ClampedArray};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use web_sys::{AbortSignal, Blob};

#[wasm_bindgen(start)]
pub fn start() {
    console_error_panic_hook::set_once();
}

impl From<Error> for JsValue {
    fn from(e: Error) -> Self {
        let error = js_sys::Error::new(&e.message);
        set(&error, "code", e.code.as_str());
        error.into()
    }
}

fn set(target: &Object, key: &str, value: impl Into<JsValue>) {
    // Fails for frozen objects and proxies only; these are our own.
    let _ = Reflect::set(target, &key.into(), &value.into());
}

/// An option that is there: neither undefined nor null.
fn get(options: &JsValue, key: &str) -> Option<JsValue> {
    Reflect::get(options, &key.into()).ok().filter(|v| !v.is_undefined() && !v.is_null())
}

fn text(options: &JsValue, key: &str) -> Result<Option<String>> {
    get(options, key)
        .map(|v| v.as_string().ok_or_else(|| Error::invalid(format!("{key} must be text."))))
        .transpose()
}

fn number(options: &JsValue, key: &str) -> Result<Option<f64>> {
    get(options, key)
        .map(|v| v.as_f64().ok_or_else(|| Error::invalid(format!("{key} must be a number."))))
        .transpose()
}

/// What one of several names stands for.
fn choice<T: Copy>(options: &JsValue, key: &str, names: &[(&str, T)]) -> Result<Option<T>> {
    let Some(name) = text(options, key)? else { return Ok(None) };
    match names.iter().find(|(n, _)| *n == name) {
        Some((_, value)) => Ok(Some(*value)),
        None => {
            let names: Vec<String> = names.iter().map(|(n, _)| format!("{n:?}")).collect();
            Err(Error::invalid(format!("{key} = {name:?}: choose {}.", names.join(" or "))))
        }
    }
}

/// A whole number from 0 to `max`.
fn count(options: &JsValue, key: &str, max: f64) -> Result<Option<f64>> {
    match number(options, key)? {
        Some(n) if n.fract() != 0.0 || !(0.0..=max).contains(&n) => {
            Err(Error::invalid(format!("{key} = {n}: it must be a whole number from 0 to {max}.")))
        }
        n => Ok(n),
    }
}

fn floats(options: &JsValue, key: &str) -> Result<Option<Vec<f32>>> {
    let wrong = || Error::invalid(format!("{key} must be a Float32Array."));
    get(options, key)
        .map(|v| v.dyn_into::<Float32Array>().map(|a| a.to_vec()).map_err(|_| wrong()))
        .transpose()
}

/// The numbers of an array.
fn numbers(options: &JsValue, key: &str) -> Option<Vec<f64>> {
    get(options, key).map(|v| Array::from(&v).iter().filter_map(|n| n.as_f64()).collect())
}

/// Integers up to here are exact in a JavaScript number.
const EXACT: f64 = 9_007_199_254_740_991.0;

/// The files of the model that ships with the page.
fn embedded(spec: &JsValue) -> Result<Source> {
    Source::resolve("embedded", &SourceOptions { embedded: text(spec, "embedded")?, ..Default::default() })
}

/// What a `ModelSource` of `api.md` names. `spec`: `{ source, revision, hub, embedded }`, and `files` where the
/// visitor picked them: `[path, File]` of each, `source` being what they are called. `cache`: whether it is kept.
async fn source(spec: &JsValue, mut options: ReadOptions) -> Result<WebFiles> {
    let name = text(spec, "source")?.ok_or_else(|| Error::invalid("source must name a model."))?;
    // Quantised models are kept quantised.
    let bits = choice(spec, "weights", &[("f16", None), ("q8", Some("q8")), ("q4", Some("q4"))])?.flatten();
    let kept = |source: Source| match bits {
        Some(bits) => source.kept_as(bits),
        None => source,
    };
    if let Some(files) = get(spec, "files") {
        let file = |entry: JsValue| {
            let entry = Array::from(&entry);
            Some((entry.get(0).as_string()?, entry.get(1).dyn_into::<Blob>().ok()?))
        };
        let files = Array::from(&files).iter().map(file).collect::<Option<_>>();
        let files: HashMap<String, Blob> =
            files.ok_or_else(|| Error::invalid("files must be a list of [path, File]."))?;
        // What lies on disk is kept a second time only where that is asked for.
        options.no_cache |= !get(spec, "cache").is_some_and(|v| v.is_truthy());
        let single = if files.len() == 1 { files.keys().next().cloned() } else { None };
        return Ok(store().await.picked(kept(Source::disk(&name, single)), files, options));
    }
    let places = SourceOptions {
        revision: text(spec, "revision")?,
        hub: text(spec, "hub")?,
        embedded: text(spec, "embedded")?,
        token: text(spec, "token")?,
    };
    Ok(store().await.model(kept(Source::resolve(&name, &places)?), options))
}

/// What a `ModelSource` names, as a folder, and the source itself, to be finished when all is read.
async fn folder(spec: &JsValue, options: ReadOptions) -> Result<(Rc<PageFiles>, Rc<WebFiles>)> {
    let vocabulary = Rc::new(store().await.model(embedded(spec)?, options.clone()));
    let source = Rc::new(source(spec, options).await?);
    Ok((Rc::new(PageFiles::open(source.clone(), vocabulary).await?), source))
}

/// The one file that a `ModelSource` names, and the source itself, to be finished when all is read.
async fn file(spec: &JsValue, key: &str, signal: &AbortSignal) -> Result<(FileAt<WebFiles>, Rc<WebFiles>)> {
    let reading = ReadOptions {
        no_cache: get(spec, "cache").is_some_and(|v| v.is_falsy()),
        signal: Some(signal.clone()),
        on_progress: None,
    };
    let source = Rc::new(source(spec, reading).await?);
    let path = source.single_file().ok_or_else(|| {
        Error::invalid(format!("{key} is no file: name the address of a .safetensors or .pt file."))
    })?;
    Ok((FileAt::new(source.clone(), path), source))
}

/// `promptSyntax` of `api.md`'s options.
fn syntax(options: &JsValue) -> Result<Syntax> {
    match text(options, "promptSyntax")?.as_deref() {
        None | Some("plain") => Ok(Syntax::Plain),
        Some("a1111") => Ok(Syntax::A1111),
        Some("comfy") => Ok(Syntax::Comfy),
        Some(other) => Err(Error::invalid(format!(
            "promptSyntax = {other:?}: choose \"plain\", \"a1111\" or \"comfy\"."
        ))),
    }
}

/// `rng`, `generatorPerImage`, `variationSeed`, `variationStrength`, `seedResizeFrom`.
fn noise(o: &JsValue) -> Result<NoiseOptions> {
    let rng = match text(o, "rng")?.as_deref() {
        None | Some("torch-cpu") => Rng::TorchCpu,
        Some("torch-cuda") => Rng::TorchCuda,
        Some(other) => {
            return Err(Error::invalid(format!("rng = {other:?}: choose \"torch-cpu\" or \"torch-cuda\".")));
        }
    };
    let strength = number(o, "variationStrength")?.unwrap_or(0.0) as f32;
    let seed = count(o, "variationSeed", EXACT)?.unwrap_or(0.0) as u64;
    let resize_from = match numbers(o, "seedResizeFrom").as_deref() {
        None => None,
        Some(&[w, h]) if w >= 8.0 && h >= 8.0 => Some((w as u32, h as u32)),
        Some(_) => return Err(Error::invalid("seedResizeFrom must be [width, height] in pixels.")),
    };
    Ok(NoiseOptions {
        rng,
        generator_per_image: get(o, "generatorPerImage").is_some_and(|v| v.is_truthy()),
        variation: (strength != 0.0).then_some((seed, strength)),
        resize_from,
    })
}

/// `eta`, `sChurn` and the like.
fn tuning(o: &JsValue) -> Result<samplers::Tuning> {
    let default = samplers::Tuning::default();
    let or = |key, default: f32| Ok::<_, Error>(number(o, key)?.map_or(default, |v| v as f32));
    Ok(samplers::Tuning {
        eta: number(o, "eta")?.map(|v| v as f32),
        s_churn: or("sChurn", default.s_churn)?,
        s_tmin: or("sTmin", default.s_tmin)?,
        s_tmax: or("sTmax", default.s_tmax)?,
        s_noise: or("sNoise", default.s_noise)?,
        ..default
    })
}

/// `strengthSteps`.
fn strength_steps(options: &JsValue) -> Result<StrengthSteps> {
    choice(
        options,
        "strengthSteps",
        &[
            ("diffusers", StrengthSteps::Diffusers),
            ("a1111", StrengthSteps::A1111),
            ("exact", StrengthSteps::Exact),
        ],
    )
    .map(Option::unwrap_or_default)
}

/// `maskedContent`.
fn masked_content(options: &JsValue) -> Result<Option<MaskedContent>> {
    choice(
        options,
        "maskedContent",
        &[
            ("fill", MaskedContent::Fill),
            ("original", MaskedContent::Original),
            ("noise", MaskedContent::Noise),
            ("nothing", MaskedContent::Nothing),
        ],
    )
}

/// `inpaintArea` and `maskPadding`.
fn inpaint_area(options: &JsValue) -> Result<InpaintArea> {
    let padding = count(options, "maskPadding", 16384.0)?.unwrap_or(32.0) as u32;
    let areas = [("whole", InpaintArea::Whole), ("masked", InpaintArea::Masked { padding })];
    choice(options, "inpaintArea", &areas).map(Option::unwrap_or_default)
}

/// `outpaint`.
fn outpaint(options: &JsValue) -> Result<Option<Outpaint>> {
    let Some(margins) = get(options, "outpaint") else { return Ok(None) };
    let side = |name: &str| Ok::<_, Error>(count(&margins, name, 16384.0)?.unwrap_or(0.0) as u32);
    let [left, right, top, bottom] = [side("left")?, side("right")?, side("top")?, side("bottom")?];
    Ok(Some(Outpaint { left, right, top, bottom }))
}

/// `hires`, of a first pass of this width and height.
fn hires(options: &JsValue, first: [u32; 2]) -> Result<Option<Hires>> {
    let Some(o) = get(options, "hires") else { return Ok(None) };
    let scale = number(&o, "scale")?.unwrap_or(2.0);
    let side = |key: &str, first: u32| {
        let scaled = (first as f64 * scale / 8.0).floor() * 8.0;
        Ok::<_, Error>(count(&o, key, 16384.0)?.unwrap_or(scaled) as u32)
    };
    let upscalers = [
        ("latent", Enlarge::Latent),
        ("latent-nearest", Enlarge::LatentNearest),
        ("latent-bicubic", Enlarge::LatentBicubic),
        ("picture", Enlarge::Picture),
    ];
    Ok(Some(Hires {
        width: side("width", first[0])?,
        height: side("height", first[1])?,
        upscaler: choice(&o, "upscaler", &upscalers)?.unwrap_or_default(),
        steps: count(&o, "steps", 10000.0)?.map(|n| n as usize),
        strength: number(&o, "strength")?.unwrap_or(0.7),
    }))
}

/// A picture as the module has drawn it to the size asked for: `{ width, height, data }`, RGBA.
fn picture(options: &JsValue, key: &str) -> Result<Option<Picture>> {
    let Some(value) = get(options, key) else { return Ok(None) };
    let wrong =
        || Error::invalid(format!("{key} must be a picture {{ width, height, data }} of RGBA bytes."));
    let data = get(&value, "data").and_then(|d| d.dyn_into::<Uint8ClampedArray>().ok()).ok_or_else(wrong)?;
    let side = |name: &str| count(&value, name, 16384.0)?.ok_or_else(wrong);
    Ok(Some(Picture { width: side("width")? as u32, height: side("height")? as u32, data: data.to_vec() }))
}

/// `precision`.
fn precision(spec: &JsValue) -> Result<Precision> {
    let names = [("auto", Precision::Auto), ("f16", Precision::F16), ("f32", Precision::F32)];
    Ok(choice(spec, "precision", &names)?.unwrap_or(Precision::Auto))
}

/// `[key, text]` of each; what is damaged is left out.
fn tunings(list: &JsValue) -> Vec<(String, String)> {
    let entry = |entry: JsValue| {
        let entry = Array::from(&entry);
        Some((entry.get(0).as_string()?, entry.get(1).as_string()?))
    };
    Array::from(list).iter().filter_map(entry).collect()
}

/// Hands on transformers.js's progress payload.
fn reporter(on_progress: Function) -> Rc<dyn Fn(Progress)> {
    Rc::new(move |p: Progress| {
        let event = Object::new();
        set(&event, "status", p.status);
        set(&event, "name", p.name);
        set(&event, "file", p.file);
        set(&event, "loaded", p.loaded as f64);
        set(&event, "total", p.total as f64);
        set(&event, "progress", p.progress);
        set(&event, "fromCache", p.from_cache);
        // A listener that throws does not stop the download.
        let _ = on_progress.call1(&JsValue::NULL, &event);
    })
}

/// A model on the GPU.
#[wasm_bindgen]
pub struct Pipeline {
    inner: DiffusionPipeline,
}

#[wasm_bindgen]
impl Pipeline {
    /// Loads a model. `spec`: `{ source, files, embedded, revision, variant, hub, cache, precision, weights, memory, vae }`, `vae`
    /// being the `{ source, files, embedded, hub }` of another model's VAE; `on_progress` gets transformers.js's progress payload;
    /// `kept` is `[key, text]` of the choices of earlier visits, undefined for a load that is not to time anything.
    pub async fn load(
        spec: JsValue,
        on_progress: Function,
        signal: AbortSignal,
        kept: JsValue,
    ) -> Result<Pipeline, JsValue> {
        let precision = precision(&spec)?;
        let weights = match text(&spec, "weights")?.as_deref() {
            None | Some("f16") => None,
            Some("q8") => Some(Bits::Q8),
            Some("q4") => Some(Bits::Q4),
            Some(other) => {
                let message = format!("weights = {other:?}: choose \"f16\", \"q8\" or \"q4\".");
                return Err(Error::invalid(message).into());
            }
        };
        let memory = match text(&spec, "memory")?.as_deref() {
            None | Some("auto") => Memory::Auto,
            Some("resident") => Memory::Resident,
            Some("low") => Memory::Low,
            Some(other) => {
                let message = format!("memory = {other:?}: choose \"auto\", \"resident\" or \"low\".");
                return Err(Error::invalid(message).into());
            }
        };
        let report = reporter(on_progress);
        let aborted = signal.clone();
        // Weights that are streamed again later are no progress of this call.
        let loading = Rc::new(Cell::new(true));
        let (while_loading, to) = (loading.clone(), report.clone());
        let on_progress: Rc<dyn Fn(Progress)> = Rc::new(move |p| {
            if while_loading.get() {
                to(p);
            }
        });
        let options_of = || ReadOptions {
            no_cache: get(&spec, "cache").is_some_and(|v| v.is_falsy()),
            signal: Some(signal.clone()),
            on_progress: Some(on_progress.clone()),
        };
        let source = Rc::new(source(&spec, options_of()).await?);
        let name = source.name().to_owned();
        let vocabulary = Rc::new(store().await.model(embedded(&spec)?, options_of()));
        let tunings = (!kept.is_undefined()).then(|| tunings(&kept));
        let options = LoadOptions { variant: text(&spec, "variant")?, precision, weights, memory, tunings };
        let load = async || -> Result<DiffusionPipeline> {
            let files = Rc::new(PageFiles::open(source.clone(), vocabulary).await?);
            let (vae, its_source) = match get(&spec, "vae") {
                Some(vae) => Some(folder(&vae, options_of()).await?).unzip(),
                None => (None, None),
            };
            let loaded = DiffusionPipeline::load(files, vae, &options, &|| aborted.aborted()).await?;
            if let Some(source) = its_source {
                source.finish().await?;
            }
            Ok(loaded)
        };
        let inner = match load().await {
            Ok(inner) => inner,
            Err(e) => {
                if matches!(e.code, Code::BadCheckpoint | Code::UnsupportedModel) {
                    // What the cache fails with then matters less than why the model was refused.
                    let _ = source.doubt().await;
                }
                return Err(e.into());
            }
        };
        source.finish().await?;
        loading.set(false);
        report(Progress {
            status: "ready",
            name,
            file: String::new(),
            loaded: 0,
            total: 0,
            progress: 100.0,
            from_cache: false,
        });
        Ok(Pipeline { inner })
    }

    /// `model` of `api.md`.
    pub fn model(&self) -> Object {
        let model = self.inner.model();
        let out = Object::new();
        set(&out, "name", model.name.as_str());
        set(&out, "kind", model.kind.as_str());
        set(&out, "inpainting", model.inpainting);
        set(&out, "defaultSize", model.default_size);
        set(&out, "parameters", model.parameters as f64);
        set(&out, "numInferenceSteps", model.num_inference_steps as f64);
        set(&out, "guidanceScale", model.guidance_scale);
        if let Some(scheduler) = model.scheduler {
            set(&out, "scheduler", scheduler);
        }
        set(
            &out,
            "f32Tensors",
            model.f32_tensors.iter().map(|n| JsValue::from(n.as_str())).collect::<Array>(),
        );
        out
    }

    /// Draws; `on_step` gets each step as an object.
    pub async fn generate(
        &self,
        options: JsValue,
        on_step: Function,
        signal: AbortSignal,
    ) -> Result<Object, JsValue> {
        if let Some(tiny) = get(&options, "tinyVae") {
            let name = text(&tiny, "source")?.unwrap_or_default();
            if self.inner.lacks_tiny(&name) {
                let reading = ReadOptions {
                    no_cache: get(&tiny, "cache").is_some_and(|v| v.is_falsy()),
                    signal: Some(signal.clone()),
                    on_progress: None,
                };
                let (files, source) = folder(&tiny, reading).await?;
                self.inner.load_tiny(files, &|| signal.aborted()).await?;
                source.finish().await?;
            }
        }
        let loras = self.loras(&options, &signal).await?;
        let embeddings = self.embeddings(&options, &signal).await?;
        let controlnets = self.controlnets(&options, &signal).await?;
        let options = GenerateOptions { loras, embeddings, controlnets, ..self.options(&options)? };
        let mut step = |s: Step| {
            on_step
                .call1(&JsValue::NULL, &step_object(s))
                .map(|_| ())
                .map_err(|e| Error::new(Code::Aborted, format!("onStep failed: {:?}", e)))
        };
        let generated = self.inner.generate(&options, &mut step, &|| signal.aborted()).await?;
        Ok(result_object(generated))
    }

    /// How the text encoder reads `{ prompt, promptSyntax, embeddings }`: `{ tokens, chunks, foreign }`.
    pub async fn tokenize(&self, options: JsValue, signal: AbortSignal) -> Result<Object, JsValue> {
        let embeddings = self.embeddings(&options, &signal).await?;
        let prompt = text(&options, "prompt")?.unwrap_or_default();
        let view = self.inner.tokenize(&prompt, syntax(&options)?, &embeddings)?;
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
        set(&out, "foreign", view.foreign);
        Ok(out)
    }

    /// The tiles in use: `{ key, text, origin }`, `origin` being "shipped", "kept" or "timed".
    pub fn tuning(&self) -> Object {
        let chosen = self.inner.tuning();
        let out = Object::new();
        set(&out, "key", chosen.key);
        set(&out, "text", chosen.text);
        let origin = match chosen.origin {
            Origin::Shipped => "shipped",
            Origin::Kept => "kept",
            Origin::Timed => "timed",
        };
        set(&out, "origin", origin);
        out
    }

    /// Chooses them anew, in at most so many milliseconds.
    pub async fn tune(&mut self, budget: f64) -> Result<(), JsValue> {
        Ok(self.inner.tune(budget).await?)
    }

    /// `MemoryReport`: GPU bytes by kind, now and at the peak, and bytes of the wasm heap.
    pub fn memory(&self) -> Object {
        let bytes = self.inner.gpu().bytes();
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
}

impl Pipeline {
    /// Textual inversion: words and keys, those of `embeddings` loaded that are not yet.
    async fn embeddings(&self, options: &JsValue, signal: &AbortSignal) -> Result<Vec<(String, String)>> {
        let mut embeddings = Vec::new();
        for spec in get(options, "embeddings").map(|l| Array::from(&l)).unwrap_or_default().iter() {
            let (key, token) = (text(&spec, "key")?.unwrap_or_default(), text(&spec, "token")?);
            let token = token.ok_or_else(|| Error::invalid("An embedding must have a token."))?;
            if !self.inner.has_embedding(&key) {
                let (file, source) = file(&spec, &key, signal).await?;
                self.inner.load_embedding(&key, &file).await?;
                source.finish().await?;
            }
            embeddings.push((token, key));
        }
        Ok(embeddings)
    }

    /// Loads the ControlNets of `controlnets` (each what [`source`] takes, with `key`, `image`, `preprocess`, `low`,
    /// `high`, `scale`, `start`, `end`) that are not loaded yet; those of earlier pictures then make room.
    async fn controlnets(&self, options: &JsValue, signal: &AbortSignal) -> Result<Vec<Control>> {
        let specs = get(options, "controlnets").map(|l| Array::from(&l).to_vec()).unwrap_or_default();
        let mut controls = Vec::new();
        for spec in &specs {
            let or = |key: &str, usual: f64| Ok::<_, Error>(number(spec, key)?.unwrap_or(usual));
            let (low, high) = thresholds(spec)?;
            let names = [("none", Preprocess::None), ("canny", Preprocess::Canny { low, high })];
            controls.push(Control {
                key: text(spec, "key")?.ok_or_else(|| Error::invalid("A ControlNet must have a source."))?,
                image: picture(spec, "image")?
                    .ok_or_else(|| Error::invalid("A ControlNet must have an image."))?,
                preprocess: choice(spec, "preprocess", &names)?.unwrap_or_default(),
                scale: or("scale", 1.0)? as f32,
                start: or("start", 0.0)?,
                end: or("end", 1.0)?,
            });
        }
        let keys: Vec<String> = controls.iter().map(|c| c.key.clone()).collect();
        for (spec, key) in specs.iter().zip(&keys) {
            if self.inner.has_controlnet(key) {
                continue;
            }
            self.inner.keep_controlnets(&keys);
            let reading = ReadOptions {
                no_cache: get(spec, "cache").is_some_and(|v| v.is_falsy()),
                signal: Some(signal.clone()),
                on_progress: None,
            };
            let (files, source) = folder(spec, reading).await?;
            self.inner.load_controlnet(key, files, &|| signal.aborted()).await?;
            source.finish().await?;
        }
        Ok(controls)
    }

    /// Loads the LoRAs of `loras` (each what [`source`] takes, with `key` and `scale`) that are not loaded yet.
    async fn loras(&self, options: &JsValue, signal: &AbortSignal) -> Result<Vec<(String, f32)>> {
        let mut loras = Vec::new();
        for spec in get(options, "loras").map(|l| Array::from(&l)).unwrap_or_default().iter() {
            let key = text(&spec, "key")?.ok_or_else(|| Error::invalid("A LoRA must have a source."))?;
            if !self.inner.has_lora(&key) {
                let (file, source) = file(&spec, &key, signal).await?;
                self.inner.load_lora(&key, &file).await?;
                source.finish().await?;
            }
            loras.push((key, number(&spec, "scale")?.unwrap_or(1.0) as f32));
        }
        Ok(loras)
    }

    fn options(&self, o: &JsValue) -> Result<GenerateOptions> {
        let model = self.inner.model();
        let size = model.default_size as f64;
        let side = |key: &str| Ok::<_, Error>(count(o, key, 16384.0)?.unwrap_or(size) as u32);
        let (width, height) = (side("width")?, side("height")?);
        let seed = match count(o, "seed", EXACT)? {
            Some(seed) => seed,
            None => (js_sys::Math::random() * 4_294_967_296.0).floor(),
        };
        let preview = match text(o, "preview")?.as_deref() {
            None | Some("fast") => Preview::Fast,
            Some("none") => Preview::None,
            Some("tiny") => Preview::Tiny,
            Some("full") => Preview::Full,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "preview = {other:?}: choose \"none\", \"fast\", \"tiny\" or \"full\"."
                )));
            }
        };
        let decode = match text(o, "output")?.as_deref() {
            None | Some("image") => true,
            Some("latent") => false,
            Some(other) => {
                return Err(Error::invalid(format!("output = {other:?}: choose \"image\" or \"latent\".")));
            }
        };
        Ok(GenerateOptions {
            prompt: text(o, "prompt")?.unwrap_or_default(),
            prompt_syntax: syntax(o)?,
            negative_prompt: text(o, "negativePrompt")?,
            width,
            height,
            num_inference_steps: count(o, "numInferenceSteps", 10000.0)?
                .map_or(model.num_inference_steps, |n| n as usize),
            guidance_scale: number(o, "guidanceScale")?.map_or(model.guidance_scale, |g| g as f32),
            guidance_rescale: number(o, "guidanceRescale")?.unwrap_or(0.0) as f32,
            guidance_interval: match numbers(o, "guidanceInterval").as_deref() {
                None => None,
                Some(&[start, end]) if 0.0 <= start && start < end && end <= 1.0 => Some([start, end]),
                Some(_) => {
                    return Err(Error::invalid(
                        "guidanceInterval must be [start, end], shares of the steps.",
                    ));
                }
            },
            scheduler: text(o, "scheduler")?,
            tuning: tuning(o)?,
            noise: noise(o)?,
            seed: seed as u64,
            num_images: count(o, "numImages", 64.0)?.unwrap_or(1.0) as usize,
            latents: floats(o, "latents")?,
            image: picture(o, "image")?,
            strength: number(o, "strength")?,
            strength_steps: strength_steps(o)?,
            mask_image: picture(o, "maskImage")?,
            mask_blur: number(o, "maskBlur")?.unwrap_or(0.0),
            invert_mask: get(o, "invertMask").is_some_and(|v| v.is_truthy()),
            masked_content: masked_content(o)?,
            inpaint_area: inpaint_area(o)?,
            outpaint: outpaint(o)?,
            hires: hires(o, [width, height])?,
            prompt_embeds: floats(o, "promptEmbeds")?,
            negative_prompt_embeds: floats(o, "negativePromptEmbeds")?,
            clip_skip: count(o, "clipSkip", 64.0)?.unwrap_or(0.0) as u32,
            embeddings: Vec::new(),
            controlnets: Vec::new(),
            guess_mode: get(o, "guessMode").is_some_and(|v| v.is_truthy()),
            loras: Vec::new(),
            preview,
            decode,
        })
    }
}

fn picture_object(p: &Picture) -> Object {
    let out = Object::new();
    set(&out, "width", p.width);
    set(&out, "height", p.height);
    set(&out, "data", Uint8ClampedArray::from(p.data.as_slice()));
    out
}

fn step_object(s: Step) -> Object {
    let out = Object::new();
    set(&out, "step", s.step as f64);
    set(&out, "total", s.total as f64);
    set(&out, "timestep", s.timestep);
    set(&out, "sigma", s.sigma);
    set(&out, "latents", Float32Array::from(s.latents.as_slice()));
    set(&out, "x0", Float32Array::from(s.x0.as_slice()));
    if let Some(p) = &s.preview {
        set(&out, "preview", picture_object(p));
    }
    out
}

fn result_object(g: Generated) -> Object {
    let out = Object::new();
    let image = |(picture, parameters): (&Picture, &String)| {
        let image = picture_object(picture);
        set(&image, "parameters", parameters.as_str());
        image
    };
    set(&out, "images", g.pictures.iter().zip(&g.parameters).map(image).collect::<Array>());
    set(&out, "latents", g.latents.iter().map(|l| Float32Array::from(l.as_slice())).collect::<Array>());
    set(&out, "seed", g.seed as f64);
    set(&out, "parameters", g.parameters.first().map_or("", String::as_str));
    set(&out, "truncated", g.truncated.iter().map(|t| JsValue::from(t.as_str())).collect::<Array>());
    let unmatched = g.unmatched.iter().map(|(key, names)| {
        let one = Object::new();
        set(&one, "source", key.as_str());
        set(&one, "keys", names.iter().map(|n| JsValue::from(n.as_str())).collect::<Array>());
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

/// `timings.step`.
fn step_counters(step: &Counters) -> Object {
    let out = Object::new();
    set(&out, "dispatches", step.dispatches as f64);
    set(&out, "submits", step.submits as f64);
    set(&out, "bytes", step.bytes as f64);
    set(&out, "created", step.created as f64);
    set(&out, "encodeMs", step.encode_ms);
    out
}

thread_local! {
    static STORE: RefCell<Option<Rc<ModelStore>>> = const { RefCell::new(None) };
}

/// The worker's one store: it counts requests in flight over all loads.
async fn store() -> Rc<ModelStore> {
    if let Some(store) = STORE.with_borrow(Clone::clone) {
        return store;
    }
    let opened = Rc::new(ModelStore::open().await);
    STORE.with_borrow_mut(|s| s.get_or_insert(opened).clone())
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
    let image =
        picture(&options, "image")?.ok_or_else(|| Error::invalid("image is missing: give a picture."))?;
    let (low, high) = thresholds(&options)?;
    let gpu = Gpu::new(&GpuOptions::default()).await?;
    Ok(picture_object(&pipeline::canny(&gpu, &image, low, high).await?))
}

/// `low` and `high` of Canny's edges.
fn thresholds(options: &JsValue) -> Result<(f64, f64)> {
    Ok((number(options, "low")?.unwrap_or(100.0), number(options, "high")?.unwrap_or(200.0)))
}

/// Names that `scheduler` takes.
#[wasm_bindgen]
pub fn schedulers() -> Vec<String> {
    samplers::names()
}
