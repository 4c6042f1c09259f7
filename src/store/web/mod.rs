//! A model's files in the browser: HTTP with Range requests, resumed and verified through IndexedDB.

use super::{ModelFiles, Progress, Source};
use crate::error::Result;
use std::rc::Rc;

/// The cache of all models, and the one place that counts requests in flight. One per worker.
pub struct ModelStore {}

/// One model in the cache.
#[derive(Clone, Debug, serde::Serialize)]
pub struct CachedModel {
    /// [`Source::name`].
    pub name: String,
    /// Bytes stored.
    pub bytes: u64,
    /// Whether all that the model needs is there.
    pub complete: bool,
}

/// How a model is read.
#[derive(Default)]
pub struct ReadOptions {
    /// Leave the cache alone: neither read nor write it.
    pub no_cache: bool,
    /// Ends every read promptly with `Aborted`; the cache stays good to go on from.
    pub signal: Option<web_sys::AbortSignal>,
    /// Told about every file, about ten times a second at most.
    pub on_progress: Option<Rc<dyn Fn(Progress)>>,
}

impl ModelStore {
    /// Opens the cache. Never fails: where the browser has no IndexedDB to give, models are read without.
    pub async fn open() -> ModelStore {
        todo!()
    }

    /// The files of one model.
    pub fn model(&self, _source: Source, _options: ReadOptions) -> WebFiles {
        todo!()
    }

    /// Every model of which something is stored.
    pub async fn list(&self) -> Result<Vec<CachedModel>> {
        todo!()
    }

    /// Frees all that is stored of a model. Nothing happens if there is none of that name.
    pub async fn delete(&self, _name: &str) -> Result<()> {
        todo!()
    }
}

/// The files of one model on the network and in the cache.
pub struct WebFiles {}

impl WebFiles {
    /// To be called when all files that the model needs have been read: from then on it loads without any
    /// request, and `list` says that it is complete.
    pub async fn finish(&self) -> Result<()> {
        todo!()
    }
}

impl ModelFiles for WebFiles {
    fn name(&self) -> &str {
        todo!()
    }
    async fn bytes(&self, _path: &str) -> Result<Option<Vec<u8>>> {
        todo!()
    }
    async fn exists(&self, _path: &str) -> Result<bool> {
        todo!()
    }
    async fn read(&self, _path: &str, _sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<()> {
        todo!()
    }
}
