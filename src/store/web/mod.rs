//! A model's files in the browser: HTTP with Range requests, resumed and verified through IndexedDB.
//!
//! A file is cut into chunks. A chunk that the cache has is checked against its SHA-256; any other is asked for by Range,
//! and stored as it comes. A few requests run ahead of the consumer, and memory holds no more than they bring. Files that
//! the visitor picked go the same way, with slices in the place of requests.
//!
//! | file | what it does |
//! |---|---|
//! | `open` | finds a file: in the cache, on the server, on disk |
//! | `open_file` | a file that was found, and its progress |
//! | `fetch` | brings a file's chunks, and tries again |
//! | `packed` | models that are kept quantised |
//! | `http`, `idb`, `chunk` | one request; the database; buffers that are used again |
//! | `local` | files from disk, and single files as folders |

mod chunk;
mod fetch;
mod http;
mod idb;
mod local;
mod open;
mod open_file;
mod packed;

pub use idb::CachedModel;
pub use local::PageFiles;

use super::{ModelFiles, NoCopy, Progress, Source};
use crate::error::{Code, Error, Result};
use chunk::Pool;
use http::{Failure, Gate, REQUESTS};
use idb::{Database, FileRecord};
use open_file::{OpenFile, Purpose, hand_on, hex};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use web_sys::{AbortSignal, Blob};

/// Longest file that [`ModelFiles::bytes`] takes into memory.
const SMALL_FILE: u64 = 64 << 20;

/// The cache of all models, and the one place that counts requests in flight. One per worker.
pub struct ModelStore {
    cache: Result<Database>,
    gate: Rc<Gate>,
    pool: Rc<Pool>,
}

/// How a model is read.
#[derive(Clone, Default)]
pub struct ReadOptions {
    /// Leave the cache alone: neither read nor write it.
    pub no_cache: bool,
    /// Ends every read promptly with `Aborted`; the cache stays good to go on from.
    pub signal: Option<AbortSignal>,
    /// Gets every file's progress, about ten times a second at most.
    pub on_progress: Option<Rc<dyn Fn(Progress)>>,
}

impl ModelStore {
    /// Opens the cache. Never fails: where the browser gives the page no storage (some private windows),
    /// models are read without, and [`list`](Self::list) says why.
    pub async fn open() -> ModelStore {
        ModelStore { cache: Database::open().await, gate: Rc::new(Gate::new(REQUESTS)), pool: Rc::default() }
    }

    /// The files of one model.
    pub fn model(&self, source: Source, options: ReadOptions) -> WebFiles {
        self.files(source, None, options)
    }

    /// Files that the visitor picked, by their paths in the folder that [`Source::disk`] names.
    pub fn picked(&self, source: Source, files: HashMap<String, Blob>, options: ReadOptions) -> WebFiles {
        self.files(source, Some(files), options)
    }

    fn files(&self, source: Source, disk: Option<HashMap<String, Blob>>, options: ReadOptions) -> WebFiles {
        let ReadOptions { no_cache, signal, on_progress } = options;
        let cache = self.cache.as_ref().ok().filter(|_| !no_cache).cloned();
        WebFiles {
            cache,
            gate: self.gate.clone(),
            pool: self.pool.clone(),
            source,
            disk,
            signal,
            on_progress,
            open: RefCell::default(),
            at: RefCell::default(),
            borrowed: RefCell::default(),
        }
    }

    /// Every model of which something is stored. `Quota` if there is no storage.
    pub async fn list(&self) -> Result<Vec<CachedModel>> {
        self.cache.as_ref().map_err(Clone::clone)?.list().await
    }

    /// Frees all that is stored of a model. Nothing happens if there is none of that name.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.cache.as_ref().map_err(Clone::clone)?.delete(name).await
    }
}

/// The files of one model on the network or on the visitor's disk, and in the cache.
///
/// Errors of all its reads: `Network` (after four tries, or at once where another try cannot help), `Integrity` (wrong
/// bytes, or a file that changed on the server while it was read), `Quota`, `Aborted`. After any of them what has been
/// stored stays, and the next read goes on from there.
pub struct WebFiles {
    cache: Option<Database>,
    gate: Rc<Gate>,
    pool: Rc<Pool>,
    source: Source,
    /// The files themselves, where the visitor picked them.
    disk: Option<HashMap<String, Blob>>,
    signal: Option<AbortSignal>,
    on_progress: Option<Rc<dyn Fn(Progress)>>,
    /// Files that were found, and have not been read yet.
    open: RefCell<HashMap<String, OpenFile>>,
    /// Files that are read at places.
    at: RefCell<HashMap<String, OpenFile>>,
    /// Files of a model that is kept quantised, which are read from the cache's copy of the model with its weights as they
    /// came: their records there.
    borrowed: RefCell<HashMap<String, FileRecord>>,
}

impl WebFiles {
    /// To be called when the pipeline refused the files' content: the next load asks the server whether they have been
    /// repaired since.
    pub async fn doubt(&self) -> Result<()> {
        match &self.cache {
            Some(cache) => cache.doubt_model(&self.source.key()).await,
            None => Ok(()),
        }
    }

    /// To be called when all files that the model needs have been read: from then on it loads without any request, and
    /// [`ModelStore::list`] says that it is complete.
    pub async fn finish(&self) -> Result<()> {
        let read_at = self.at.take();
        for file in read_at.values() {
            self.verify(file).await?;
            file.meter.emit("done");
        }
        let Some(cache) = &self.cache else {
            self.at.replace(read_at);
            return Ok(());
        };
        self.settle(cache, &read_at).await?;
        self.at.replace(read_at);
        cache.complete_model(&self.source.key(), &self.source.kept_name()).await
    }

    /// Compares a file that was read at places with the SHA-256 that the server names, once the cache has all of it.
    async fn verify(&self, file: &OpenFile) -> Result<()> {
        let Some(cache) = &self.cache else { return Ok(()) };
        if file.record.complete || cache.chunk_indices(&file.key).await?.len() as u64 != file.chunks() {
            return Ok(());
        }
        if let Some(due) = &file.record.sha256 {
            let (mut hash, mut bytes) = (Sha256::new(), Vec::new());
            for index in 0..file.chunks() {
                // A damaged chunk has been deleted, and is fetched again when it is read.
                let Some(chunk) = self.stored(file, index).await? else { return Ok(()) };
                hand_on(&chunk, &mut bytes, &mut async |bytes: &[u8]| {
                    hash.update(bytes);
                    Ok(())
                })
                .await?;
            }
            self.compare(file, hash, due).await?;
        }
        cache.complete_file(&file.key, &file.record, file.record.total).await
    }

    /// Drops a file whose bytes are not those that the server names.
    async fn compare(&self, file: &OpenFile, hash: Sha256, due: &str) -> Result<()> {
        if hex(hash.finalize().as_slice()) == due {
            return Ok(());
        }
        if let Some(cache) = &self.cache {
            let gone = FileRecord { total: 0, complete: false, ..file.record.clone() };
            cache.reset_file(&file.key, &gone).await?;
        }
        let url = &file.url;
        let message =
            format!("{url} arrived damaged: its SHA-256 is not the one that the server names. Load again");
        Err(Error::new(Code::Integrity, message))
    }

    fn signal(&self) -> Option<&AbortSignal> {
        self.signal.as_ref()
    }

    /// Exactly `len` bytes of a file from `offset` on.
    async fn read_place(&self, path: &str, offset: u64, len: usize, purpose: Purpose) -> Result<Vec<u8>> {
        // Taken out while it is used: after an error it is opened anew.
        let taken = self.at.borrow_mut().remove(path);
        let mut file = match taken {
            Some(file) => file,
            None => self.open_at(path).await?,
        };
        let mut reopened = false;
        loop {
            match self.range(&mut file, offset, len).await {
                Ok(bytes) => {
                    file.mark(offset, len as u64, purpose);
                    self.at.borrow_mut().insert(path.to_string(), file);
                    return Ok(bytes);
                }
                Err(Failure::NoRanges) if !reopened => {
                    file.ranges = false;
                    reopened = true;
                }
                Err(failure) => return Err(failure.error(&self.source.url(path))),
            }
        }
    }
}

impl ModelFiles for WebFiles {
    type Packed = NoCopy;

    fn name(&self) -> &str {
        self.source.name()
    }

    async fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>> {
        if !self.exists(path).await? {
            return Ok(None);
        }
        let mut whole = Vec::new();
        self.read(path, async |bytes: &[u8]| {
            if (whole.len() + bytes.len()) as u64 > SMALL_FILE {
                return Err(Error::bad_checkpoint(format!(
                    "{path} is longer than {} MiB, so it is not what its name says",
                    SMALL_FILE >> 20
                )));
            }
            whole.extend_from_slice(bytes);
            Ok(())
        })
        .await?;
        Ok(Some(whole))
    }

    async fn exists(&self, path: &str) -> Result<bool> {
        if self.open.borrow().contains_key(path) {
            return Ok(true);
        }
        let Some(file) = self.open(path).await? else { return Ok(false) };
        self.open.borrow_mut().insert(path.to_string(), file);
        Ok(true)
    }

    fn single_file(&self) -> Option<&str> {
        self.source.file()
    }

    async fn size(&self, path: &str) -> Result<u64> {
        if let Some(file) = self.at.borrow().get(path) {
            return Ok(file.record.total);
        }
        let file = self.open_at(path).await?;
        let total = file.record.total;
        self.at.borrow_mut().insert(path.to_string(), file);
        Ok(total)
    }

    async fn read_at(&self, path: &str, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.read_place(path, offset, len, Purpose::Load).await
    }

    async fn read(&self, path: &str, mut sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<()> {
        let opened = self.open.borrow_mut().remove(path);
        let url = self.source.url(path);
        let mut file = match opened {
            Some(file) => file,
            None => self.open(path).await?.ok_or_else(|| Failure::Absent.error(&url))?,
        };
        let mut done = 0;
        let mut reopened = false;
        // Bytes come in order and once, so one running hash shows whether this is the file that the server names.
        let to_hash = |file: &OpenFile| {
            file.record.sha256.as_ref().filter(|_| !file.record.complete).map(|_| Sha256::new())
        };
        let hash = RefCell::new(to_hash(&file));
        let mut sink = async |bytes: &[u8]| {
            if let Some(hash) = &mut *hash.borrow_mut() {
                hash.update(bytes);
            }
            sink(bytes).await
        };
        loop {
            let read = match file.ranges {
                true => self.read_chunks(&mut file, &mut done, &mut sink).await,
                false => self.read_whole(&mut file, &mut done, &mut sink).await,
            };
            match read {
                Ok(()) => break,
                Err(Failure::NoRanges) if file.ranges => file.ranges = false,
                Err(Failure::Changed | Failure::NoRanges) => {
                    // The stored chunks are of a version that the server no longer has.
                    if let Some(cache) = &self.cache {
                        let gone = FileRecord { total: 0, complete: false, ..file.record.clone() };
                        cache.reset_file(&file.key, &gone).await?;
                    }
                    if done > 0 || reopened {
                        return Err(Failure::Changed.error(&url));
                    }
                    reopened = true;
                    file = self.open(path).await?.ok_or_else(|| Failure::Absent.error(&url))?;
                    hash.replace(to_hash(&file));
                }
                Err(failure) => return Err(failure.error(&url)),
            }
        }
        if let (Some(hash), Some(due)) = (hash.take(), &file.record.sha256) {
            self.compare(&file, hash, due).await?;
        }
        if let Some(cache) = self.cache.as_ref().filter(|_| !file.record.complete) {
            cache.complete_file(&file.key, &file.record, done).await?;
        }
        file.meter.set(done, Some(done));
        file.meter.emit("done");
        Ok(())
    }
}
