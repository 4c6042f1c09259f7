//! A file that is being read: what is known of it, which of its chunks are where, and how far the reading has come.

use super::chunk::Chunk;
use super::idb::FileRecord;
use crate::error::{Code, Error, Result};
use crate::store::Progress;
use js_sys::{Date, Promise, Uint8Array};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

/// Most bytes asked for by one request, and the size of the first one, which learns the file's length.
pub const REQUEST_BYTES: u64 = 4 << 20;
/// Least time between two progress events of a file.
const PROGRESS_MS: f64 = 100.0;

/// Bytes of a chunk of a file of `total` bytes; divides [`REQUEST_BYTES`]. Small chunks lose little when the download of
/// a small file breaks; large ones keep the number of a large file's records down.
pub fn chunk_bytes(total: u64) -> u64 {
    if total > 64 << 20 { REQUEST_BYTES } else { 512 << 10 }
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(catch, js_namespace = ["crypto", "subtle"], js_name = digest)]
    fn js_digest(algorithm: &str, data: &Uint8Array) -> Result<Promise, JsValue>;
}

/// A file whose length and version are known.
pub struct OpenFile {
    pub url: String,
    /// What the cache calls it.
    pub key: String,
    pub record: FileRecord,
    /// Whether the server answers Range requests.
    pub ranges: bool,
    /// Chunks in the cache.
    pub stored: HashSet<u64>,
    /// Chunks in memory: those of the first request, or those that were fetched ahead.
    pub ready: HashMap<u64, Rc<Chunk>>,
    /// Chunks that were read at places, and that later loads will read again.
    pub needed: HashSet<u64>,
    /// Whether other chunks were read to make a packed copy, which later loads will read in their place.
    pub copied: bool,
    pub meter: Meter,
}

/// Why bytes are read at a place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Every load reads them.
    Load,
    /// A packed copy is made of them, which later loads read instead.
    Copy,
}

impl OpenFile {
    /// Notes that `len` bytes from `offset` on have been read.
    pub fn mark(&mut self, offset: u64, len: u64, purpose: Purpose) {
        match purpose {
            Purpose::Load if len > 0 => {
                let last = (offset + len - 1) / self.record.chunk;
                self.needed.extend(offset / self.record.chunk..=last);
            }
            Purpose::Load => {}
            Purpose::Copy => self.copied = true,
        }
    }

    pub fn chunks(&self) -> u64 {
        self.record.total.div_ceil(self.record.chunk)
    }

    /// First byte of a chunk and one past its last.
    pub fn span(&self, chunk: u64) -> (u64, u64) {
        let begin = chunk * self.record.chunk;
        (begin, (begin + self.record.chunk).min(self.record.total))
    }

    /// One past the last chunk that one request from `first` on brings: it ends before a chunk that is there.
    pub fn missing_run(&self, first: u64) -> u64 {
        let most = (first + REQUEST_BYTES / self.record.chunk).min(self.chunks());
        let have = |i: &u64| self.stored.contains(i) || self.ready.contains_key(i);
        (first..most).find(have).unwrap_or(most)
    }
}

/// Copies a chunk into WebAssembly's memory, where one buffer serves a whole file, and waits for the consumer.
pub async fn hand_on(
    chunk: &Uint8Array,
    buffer: &mut Vec<u8>,
    sink: &mut impl AsyncFnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    buffer.resize(chunk.length() as usize, 0);
    chunk.copy_to(buffer);
    sink(buffer).await
}

/// SHA-256 as hex.
pub async fn sha256(bytes: &Uint8Array) -> Result<String> {
    let digest = async || JsFuture::from(js_digest("SHA-256", bytes)?).await;
    let hash = digest().await.map_err(|_| {
        let message = "this page cannot compute SHA-256: serve it over https, or from localhost";
        Error::new(Code::Integrity, message)
    })?;
    Ok(hex(&Uint8Array::new(&hash).to_vec()))
}

/// Bytes as lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Counts a file's bytes and reports them to the caller.
pub struct Meter {
    callback: Option<Rc<dyn Fn(Progress)>>,
    /// The model's name.
    name: String,
    /// The file's path in the model.
    pub file: String,
    pub from_cache: bool,
    loaded: Cell<u64>,
    total: Cell<u64>,
    /// When the last event was, in ms.
    last: Cell<f64>,
}

impl Meter {
    pub fn new(callback: Option<Rc<dyn Fn(Progress)>>, name: &str, file: &str, record: &FileRecord) -> Meter {
        Meter {
            callback,
            name: name.into(),
            file: file.into(),
            from_cache: record.complete,
            loaded: Cell::new(0),
            total: Cell::new(record.total),
            last: Cell::new(0.0),
        }
    }

    /// Reports that the file has been found, and that its bytes begin to come.
    pub fn begin(&self) {
        self.emit("initiate");
        self.emit("download");
    }

    pub fn add(&self, bytes: u64) {
        self.set(self.loaded.get() + bytes, None);
    }

    pub fn set(&self, loaded: u64, total: Option<u64>) {
        self.loaded.set(loaded);
        self.total.set(total.unwrap_or(self.total.get()));
        let now = Date::now();
        if now - self.last.get() >= PROGRESS_MS {
            self.last.set(now);
            self.emit("progress");
        }
    }

    pub fn emit(&self, status: &'static str) {
        let Some(callback) = &self.callback else { return };
        let (loaded, total) = (self.loaded.get(), self.total.get());
        let progress = match total {
            _ if status == "done" => 100.0,
            0 => 0.0,
            total => (loaded as f64 / total as f64 * 100.0).min(100.0),
        };
        let (name, file, from_cache) = (self.name.clone(), self.file.clone(), self.from_cache);
        callback(Progress { status, name, file, loaded, total, progress, from_cache });
    }
}

/// Bytes of a chunk that has not come whole. They have been counted already, and are taken off again when this is dropped.
pub struct Unfinished<'a> {
    pub meter: &'a Meter,
    pub bytes: u32,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.meter.loaded.set(self.meter.loaded.get().saturating_sub(self.bytes.into()));
    }
}
