//! What a `ModelSource` of `www/browser-diffusion.d.ts` names, opened: the Hub, any server, the cache, picked files.

use super::options::{choice, get, text};
use super::results::set;
use crate::checkpoint::Bits;
use crate::error::{Code, Error, Result};
use crate::named::Named;
use crate::store::{
    FileAt, ModelFiles, ModelStore, PageFiles, Progress, ReadOptions, Source, SourceOptions, WebFiles,
};
use js_sys::{Array, Function, Object};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use web_sys::{AbortSignal, Blob};

thread_local! {
    static STORE: RefCell<Option<Rc<ModelStore>>> = const { RefCell::new(None) };
}

/// The worker's one store: it counts requests in flight over all loads.
pub(super) async fn store() -> Rc<ModelStore> {
    if let Some(store) = STORE.with_borrow(Clone::clone) {
        return store;
    }
    let opened = Rc::new(ModelStore::open().await);
    STORE.with_borrow_mut(|s| s.get_or_insert(opened).clone())
}

/// How a download is stopped and followed.
#[derive(Clone)]
pub(super) struct Watch {
    pub signal: AbortSignal,
    pub on_progress: Option<Rc<dyn Fn(Progress)>>,
}

impl Watch {
    /// Stopped by a signal, and followed by nobody.
    pub fn silent(signal: &AbortSignal) -> Self {
        Self { signal: signal.clone(), on_progress: None }
    }

    /// How `spec` is read: `cache` says whether it is kept. What is on disk is kept a second time only where that is
    /// asked for.
    fn reading(&self, spec: &JsValue) -> ReadOptions {
        let cache = get(spec, "cache").map_or(get(spec, "files").is_none(), |v| v.is_truthy());
        ReadOptions {
            no_cache: !cache,
            signal: Some(self.signal.clone()),
            on_progress: self.on_progress.clone(),
        }
    }
}

/// Hands on transformers.js's progress payload.
pub(super) fn reporter(on_progress: Function) -> Rc<dyn Fn(Progress)> {
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

/// What a `ModelSource` names. `spec`: `{ source, revision, hub, token, embedded, weights, cache }`, and `files` where
/// the visitor picked them: `[path, File]` of each, `source` being what they are called.
pub(super) async fn source(spec: &JsValue, watch: &Watch) -> Result<Rc<WebFiles>> {
    let name = text(spec, "source")?.ok_or_else(|| Error::invalid("source must name a model."))?;
    let reading = watch.reading(spec);
    // Quantised models are kept quantised.
    let bits = choice::<Option<Bits>>(spec, "weights")?.flatten();
    let kept = |source: Source| match bits {
        Some(_) => source.kept_as(bits.name()),
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
        let single = if files.len() == 1 { files.keys().next().cloned() } else { None };
        return Ok(Rc::new(store().await.picked(kept(Source::disk(&name, single)), files, reading)));
    }
    let places = SourceOptions {
        revision: text(spec, "revision")?,
        hub: text(spec, "hub")?,
        embedded: text(spec, "embedded")?,
        token: text(spec, "token")?,
    };
    Ok(Rc::new(store().await.model(kept(Source::resolve(&name, &places)?), reading)))
}

/// A source as a folder, where it is one file with the vocabulary of the model that ships with the page.
pub(super) async fn as_folder(source: &Rc<WebFiles>, spec: &JsValue, watch: &Watch) -> Result<Rc<PageFiles>> {
    let places = SourceOptions { embedded: text(spec, "embedded")?, ..Default::default() };
    let vocabulary = store().await.model(Source::resolve("embedded", &places)?, watch.reading(spec));
    Ok(Rc::new(PageFiles::open(source.clone(), Rc::new(vocabulary)).await?))
}

/// What a `ModelSource` names, as a folder, and the source itself, to be finished when all is read.
pub(super) async fn folder(spec: &JsValue, watch: &Watch) -> Result<(Rc<PageFiles>, Rc<WebFiles>)> {
    let source = source(spec, watch).await?;
    Ok((as_folder(&source, spec, watch).await?, source))
}

/// The one file that a `ModelSource` names, and the source itself, to be finished when all is read.
pub(super) async fn file(
    spec: &JsValue,
    key: &str,
    watch: &Watch,
) -> Result<(FileAt<WebFiles>, Rc<WebFiles>)> {
    let source = source(spec, watch).await?;
    let path = source.single_file().ok_or_else(|| {
        Error::invalid(format!("{key} is no file: name the address of a .safetensors or .pt file."))
    })?;
    Ok((FileAt::new(source.clone(), path), source))
}

/// Ends reading a source: what was read stays in the cache, unless it is why `loaded` was refused.
///
/// # Errors
/// That of `loaded`; what the cache fails with.
pub(super) async fn finished<T>(source: &WebFiles, loaded: Result<T>) -> Result<T> {
    match loaded {
        Ok(loaded) => {
            source.finish().await?;
            Ok(loaded)
        }
        Err(e) => {
            if matches!(e.code, Code::BadCheckpoint | Code::UnsupportedModel) {
                // What the cache fails with then matters less than why the source was refused.
                let _ = source.doubt().await;
            }
            Err(e)
        }
    }
}
