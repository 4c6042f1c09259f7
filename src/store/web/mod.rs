//! A model's files in the browser: HTTP with Range requests, resumed and verified through IndexedDB.
//!
//! A file is cut into chunks. Each is either read from the cache and checked against its SHA-256, or asked
//! for by Range, stored as it comes, and handed on; a few requests run ahead of the consumer, and memory
//! holds no more than they bring. Files that the visitor picked go the same way, with slices for requests.

mod chunk;
mod http;
mod idb;
mod local;

pub use local::PageFiles;

use super::{ModelFiles, PACKED_PIECE, Progress, Source};
use crate::error::{Code, Error, Result};
use chunk::{Chunk, Pool};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use http::{Answer, Failure, Gate, Tries, check};
use idb::{Database, FileRecord};
use js_sys::{Date, Promise, Reflect, Uint8Array};
use sha2::{Digest, Sha256};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortSignal, Blob};

/// Requests in flight, over all files of all models.
const REQUESTS: usize = 4;
/// Most bytes asked for by one request, and the size of the first one, which learns the file's length.
const REQUEST_BYTES: u64 = 4 << 20;
/// Longest file that [`ModelFiles::bytes`] takes into memory.
const SMALL_FILE: u64 = 64 << 20;
/// Least time between two progress events of a file.
const PROGRESS_MS: f64 = 100.0;

/// Bytes of a chunk of a file of `total` bytes: small ones lose little when a download of a small file
/// breaks, large ones keep the number of records of a large file down. Divides [`REQUEST_BYTES`].
fn chunk_bytes(total: u64) -> u64 {
    if total > 64 << 20 { REQUEST_BYTES } else { 512 << 10 }
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(catch, js_namespace = ["crypto", "subtle"], js_name = digest)]
    fn js_digest(algorithm: &str, data: &Uint8Array) -> Result<Promise, JsValue>;
    #[wasm_bindgen(catch, js_namespace = ["navigator", "storage"], js_name = estimate)]
    fn js_estimate() -> Result<Promise, JsValue>;
}

/// The cache of all models, and the one place that counts requests in flight. One per worker.
pub struct ModelStore {
    cache: Result<Database>,
    gate: Rc<Gate>,
    pool: Rc<Pool>,
}

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
#[derive(Clone, Default)]
pub struct ReadOptions {
    /// Leave the cache alone: neither read nor write it.
    pub no_cache: bool,
    /// Ends every read promptly with `Aborted`; the cache stays good to go on from.
    pub signal: Option<AbortSignal>,
    /// Told about every file, about ten times a second at most.
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
            replaced: RefCell::default(),
            passing: Cell::new(false),
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
/// Errors of all its reads: `Network` (after four tries, but at once for what trying cannot mend),
/// `Integrity` (wrong bytes, or a file that changed on the server while it was read), `Quota`, `Aborted`.
/// After any of them, what has been stored stays, and the next read goes on from there.
pub struct WebFiles {
    cache: Option<Database>,
    gate: Rc<Gate>,
    pool: Rc<Pool>,
    source: Source,
    /// The files themselves, where the visitor picked them.
    disk: Option<HashMap<String, Blob>>,
    signal: Option<AbortSignal>,
    on_progress: Option<Rc<dyn Fn(Progress)>>,
    /// Files that have been found to exist, and not been read yet.
    open: RefCell<HashMap<String, OpenFile>>,
    /// Files that are read at places.
    at: RefCell<HashMap<String, OpenFile>>,
    /// Files that are read from the cache's copy of the model with its weights as they came, with what is known of them.
    borrowed: RefCell<HashMap<String, FileRecord>>,
    /// Weights that something else has been kept for.
    replaced: RefCell<HashSet<String>>,
    /// What is read now is kept in another form.
    passing: Cell<bool>,
}

/// A file whose length and version are known.
struct OpenFile {
    url: String,
    /// What the cache calls it.
    key: String,
    record: FileRecord,
    /// Whether the server answers Range requests.
    ranges: bool,
    /// Chunks in the cache.
    stored: HashSet<u64>,
    /// Chunks that came with the first request.
    ready: HashMap<u64, Rc<Chunk>>,
    /// Chunks that have been wanted for more than passing through.
    needed: HashSet<u64>,
    meter: Meter,
}

impl OpenFile {
    fn chunks(&self) -> u64 {
        self.record.total.div_ceil(self.record.chunk)
    }

    /// First byte of a chunk and one past its last.
    fn span(&self, chunk: u64) -> (u64, u64) {
        let begin = chunk * self.record.chunk;
        (begin, (begin + self.record.chunk).min(self.record.total))
    }

    /// The chunks from `first` on that one request brings: those missing that follow each other.
    fn missing_run(&self, first: u64) -> u64 {
        let most = (first + REQUEST_BYTES / self.record.chunk).min(self.chunks());
        let have = |i: &u64| self.stored.contains(i) || self.ready.contains_key(i);
        (first..most).find(have).unwrap_or(most)
    }
}

/// Where the next chunks come from.
enum Job {
    Ready(Rc<Chunk>),
    Stored(u64),
    /// First and one past the last.
    Fetch(u64, u64),
}

impl WebFiles {
    /// To be called when what the files say was refused: the next load asks the server whether they have been
    /// repaired.
    pub async fn doubt(&self) -> Result<()> {
        match &self.cache {
            Some(cache) => cache.doubt_model(&self.source.key()).await,
            None => Ok(()),
        }
    }

    /// To be called when all files that the model needs have been read: from then on it loads without any
    /// request, and `list` says that it is complete.
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

    /// Takes over what was borrowed and is needed further, and lets go what has passed through a single file.
    async fn settle(&self, cache: &Database, read_at: &HashMap<String, OpenFile>) -> Result<()> {
        let replaced = self.replaced.take();
        for (path, record) in self.borrowed.take() {
            let from = self.source.unpacked().file_key(&path);
            let mut indices = cache.chunk_indices(&from).await?;
            if replaced.contains(&path) {
                indices.clear();
            } else if let Some(file) = read_at.get(&path).filter(|_| !replaced.is_empty()) {
                indices.retain(|i| file.needed.contains(i));
            }
            let record = FileRecord { base: self.source.key(), name: self.source.kept_name(), ..record };
            cache.copy_file(&from, &self.source.file_key(&path), &record, &indices).await?;
        }
        for (path, file) in read_at.iter().filter(|_| !replaced.is_empty()) {
            let key = self.source.file_key(path);
            if file.key == key {
                cache.delete_chunks(&key, &file.needed).await?;
            }
        }
        Ok(())
    }

    /// Holds a file that was read at places against the SHA-256 that the server names, once all of it lies in the cache.
    async fn verify(&self, file: &OpenFile) -> Result<()> {
        let Some(cache) = &self.cache else { return Ok(()) };
        if file.record.complete || cache.chunk_indices(&file.key).await?.len() as u64 != file.chunks() {
            return Ok(());
        }
        if let Some(due) = &file.record.sha256 {
            let (mut hash, mut bytes) = (Sha256::new(), Vec::new());
            for index in 0..file.chunks() {
                // A damaged one has gone, and is fetched when it is wanted.
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

    /// Drops what was kept in the place of weights, which are then fetched and held against their hash as at first.
    async fn forget_packed(&self, cache: &Database, path: &str) -> Result<()> {
        cache.reset_file(&self.source.packed_key(path), &self.blank()).await?;
        let key = self.source.file_key(path);
        if self.source.file().is_none()
            && let Some(record) = cache.file(&key).await?
        {
            self.open.borrow_mut().remove(path);
            cache.reset_file(&key, &FileRecord { total: 0, complete: false, ..record }).await?;
        }
        Ok(())
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

    async fn get(&self, url: &str, range: Option<(u64, u64)>) -> Result<Answer, Failure> {
        if self.source.on_disk() {
            let message = format!(
                "{} is not kept in this browser, or not whole. Choose it from disk again",
                self.source.kept_name()
            );
            return Err(Error::new(Code::Network, message).into());
        }
        http::get(url, range, self.source.token(), self.signal()).await
    }

    fn signal(&self) -> Option<&AbortSignal> {
        self.signal.as_ref()
    }

    /// Finds out about a file: from the cache, or with a request for its first missing bytes.
    async fn open(&self, path: &str) -> Result<Option<OpenFile>> {
        check(self.signal())?;
        if let Some(files) = &self.disk {
            return self.open_picked(path, files.get(path)).await;
        }
        let url = self.source.url(path);
        let key = self.source.file_key(path);
        if let Some(cache) = &self.cache {
            let Some(record) = cache.file(&key).await? else {
                return match self.borrow(cache, path).await? {
                    Some(found) => Ok(found),
                    None => self.open_fresh(path, url).await,
                };
            };
            // A complete model is not asked about again, and so needs no network. An incomplete one may
            // have been repaired since.
            if record.absent && cache.model_complete(&self.source.key()).await? {
                return Ok(None);
            }
            if !record.absent && record.chunk > 0 && (record.complete || record.total > 0) {
                let mut file = self.open_file(path, key.clone(), record);
                file.stored = cache.chunk_indices(&key).await?.into_iter().collect();
                if file.record.complete {
                    file.meter.begin();
                    return Ok(Some(file));
                }
                match self.resume(&mut file).await {
                    Ok(()) => return Ok(Some(file)),
                    // Not the file that was begun, or a server that cannot go on with it: from the start.
                    Err(Failure::Changed | Failure::NoRanges | Failure::Absent) => {}
                    Err(failure) => return Err(error(failure, &url)),
                }
            }
        }
        self.open_fresh(path, url).await
    }

    /// A file of a model that is kept quantised, from the cache's copy of the same model with its weights as they came.
    async fn borrow(&self, cache: &Database, path: &str) -> Result<Option<Option<OpenFile>>> {
        let plain = self.source.unpacked();
        if !self.source.keeps_packed() || !cache.model_complete(&plain.key()).await? {
            return Ok(None);
        }
        let key = plain.file_key(path);
        let Some(record) = cache.file(&key).await?.filter(|r| r.absent || r.chunk > 0 && r.total > 0) else {
            return Ok(None);
        };
        self.borrowed.borrow_mut().insert(path.into(), record.clone());
        if record.absent {
            return Ok(Some(None));
        }
        let mut file = self.open_file(path, key, record);
        file.stored = cache.chunk_indices(&file.key).await?.into_iter().collect();
        file.meter.from_cache = true;
        file.meter.begin();
        Ok(Some(Some(file)))
    }

    /// What is known before anything has come.
    fn blank(&self) -> FileRecord {
        FileRecord {
            base: self.source.key(),
            name: self.source.kept_name(),
            chunk: REQUEST_BYTES,
            ..FileRecord::default()
        }
    }

    /// A picked file, with what the cache has of this very version.
    async fn open_picked(&self, path: &str, picked: Option<&Blob>) -> Result<Option<OpenFile>> {
        let key = self.source.file_key(path);
        let total = picked.map_or(0, |file| file.size() as u64);
        let fresh = FileRecord {
            absent: picked.is_none(),
            total,
            chunk: chunk_bytes(total),
            tag: picked.and_then(local::tag),
            ..self.blank()
        };
        let mut record = fresh.clone();
        let mut stored = HashSet::new();
        if let Some(cache) = &self.cache {
            match cache.file(&key).await?.filter(|known| known.same_version(&fresh)) {
                Some(known) => {
                    record = known;
                    stored.extend(cache.chunk_indices(&key).await?);
                }
                None => cache.reset_file(&key, &fresh).await?,
            }
        }
        if picked.is_none() {
            return Ok(None);
        }
        let mut file = self.open_file(path, key, record);
        file.stored = stored;
        file.meter.begin();
        Ok(Some(file))
    }

    fn open_file(&self, path: &str, key: String, record: FileRecord) -> OpenFile {
        let meter = Meter {
            callback: self.on_progress.clone(),
            name: self.source.name().to_string(),
            file: path.to_string(),
            from_cache: record.complete,
            total: Cell::new(record.total),
            loaded: Cell::new(0),
            last: Cell::new(0.0),
        };
        OpenFile {
            url: self.source.url(path),
            key,
            record,
            ranges: true,
            stored: HashSet::new(),
            ready: HashMap::new(),
            needed: HashSet::new(),
            meter,
        }
    }

    /// Asks for the first chunks that are missing, before any stored one is handed on: only the answer
    /// tells whether the file is still the one that was begun.
    async fn resume(&self, file: &mut OpenFile) -> Result<(), Failure> {
        file.meter.begin();
        let chunks = file.chunks();
        let first = match (0..chunks).find(|i| !file.stored.contains(i)) {
            Some(first) => first,
            // All are there, but it was never read to its end (or its reader refused it): ask for one again.
            None => chunks - 1,
        };
        file.stored.remove(&first);
        let run = file.missing_run(first);
        let fetched = self.fetch(file, first, run).await?;
        file.ready.extend((first..).zip(fetched.into_iter().map(Rc::new)));
        Ok(())
    }

    /// Learns a file's length with a first request, and begins its record in the cache.
    async fn open_fresh(&self, path: &str, url: String) -> Result<Option<OpenFile>> {
        let mut tries = Tries::new(&url, self.signal());
        let base = self.blank();
        let (record, ranges, start) = loop {
            match self.first_request(&url, &base).await {
                Ok(found) => break found,
                Err(Failure::Absent) => {
                    if let Some(cache) = &self.cache {
                        let none = FileRecord { absent: true, ..base };
                        cache.reset_file(&self.source.file_key(path), &none).await?;
                    }
                    return Ok(None);
                }
                // "Range not satisfiable" (an empty file), or a range whose place is hidden: take it whole.
                Err(Failure::Changed | Failure::NoRanges) => break (base, false, None),
                Err(failure) => tries.again(failure).await.map_err(|f| error(f, &url))?,
            }
        };
        if let Some(cache) = &self.cache {
            cache.reset_file(&self.source.file_key(path), &record).await?;
        }
        let mut file = self.open_file(path, self.source.file_key(path), record);
        file.ranges = ranges;
        file.meter.begin();
        for (index, chunk) in (0..).zip(start.unwrap_or_default()) {
            file.meter.add(chunk.length().into());
            self.store(&file, index, &chunk).await?;
            file.ready.insert(index, Rc::new(chunk));
        }
        Ok(Some(file))
    }

    /// The file's record, whether the server answers Range requests, and the file's first chunks if they
    /// came.
    async fn first_request(
        &self,
        url: &str,
        base: &FileRecord,
    ) -> Result<(FileRecord, bool, Option<Vec<Chunk>>), Failure> {
        let _pass = self.gate.enter().await;
        let mut answer = self.get(url, Some((0, REQUEST_BYTES))).await?;
        let record = |total| FileRecord {
            total,
            chunk: chunk_bytes(total),
            tag: answer.tag(),
            sha256: answer.sha256(self.source.on_hub()),
            ..base.clone()
        };
        if answer.partial() {
            let (begin, end, total) = answer.content_range().ok_or(Failure::NoRanges)?;
            if (begin, end) != (0, total.min(REQUEST_BYTES)) {
                return Err(Failure::integrity("the server sent another range than was asked for"));
            }
            let record = record(total);
            let start = self.body(&mut answer, Some(end), record.chunk).await?;
            return Ok((record, true, start));
        }
        match answer.content_length() {
            Some(total) if total > REQUEST_BYTES => Ok((record(total), false, None)),
            length => {
                // Compressed on the way, a body may be longer than its Content-Length.
                let record_of = record(0);
                let start = self.body(&mut answer, None, chunk_bytes(REQUEST_BYTES)).await?;
                let total = start.iter().flatten().map(|chunk| u64::from(chunk.length())).sum();
                match start {
                    Some(_) if length.is_some_and(|due| total < due) => {
                        Err(Failure::network("the connection ended early"))
                    }
                    Some(start) => {
                        Ok((FileRecord { total, chunk: chunk_bytes(total), ..record_of }, true, Some(start)))
                    }
                    None => Ok((FileRecord { chunk: REQUEST_BYTES, ..record_of }, false, None)),
                }
            }
        }
    }

    /// A body of `length` bytes, or of any length up to [`REQUEST_BYTES`] (`None` if it is longer), in chunks. Of one of
    /// known length that breaks off the whole chunks that have come, if any.
    async fn body(
        &self,
        answer: &mut Answer,
        length: Option<u64>,
        chunk: u64,
    ) -> Result<Option<Vec<Chunk>>, Failure> {
        let most = length.unwrap_or(REQUEST_BYTES);
        let mut chunks = Vec::new();
        let mut got = 0;
        while got < most {
            let mut next = self.pool.take(chunk.min(most - got) as u32);
            let filled = match answer.fill(&mut next, self.signal(), |_| ()).await {
                Err(Failure::Again { .. }) if length.is_some() && !chunks.is_empty() => {
                    return Ok(Some(chunks));
                }
                filled => filled?,
            };
            let whole = filled == next.length();
            if whole || length.is_none() && filled > 0 {
                got += u64::from(filled);
                chunks.push(next.cut(filled));
            }
            if !whole {
                return match length {
                    Some(_) if chunks.is_empty() => Err(Failure::network("the connection ended early")),
                    _ => Ok(Some(chunks)),
                };
            }
        }
        match (self.more(answer).await?, length) {
            (false, _) => Ok(Some(chunks)),
            (true, None) => Ok(None),
            (true, Some(_)) => Err(Failure::integrity("the server sent more than was asked for")),
        }
    }

    /// Whether the body has not ended.
    async fn more(&self, answer: &mut Answer) -> Result<bool, Failure> {
        Ok(answer.fill(&mut self.pool.take(1), self.signal(), |_| ()).await? > 0)
    }

    /// Fetches the chunks `first..end` and stores each as it is complete.
    async fn fetch(&self, file: &OpenFile, first: u64, end: u64) -> Result<Vec<Chunk>, Failure> {
        let mut chunks = Vec::new();
        if let Some(picked) = self.disk.as_ref().and_then(|files| files.get(&file.meter.file)) {
            for index in first..end {
                check(self.signal())?;
                let (begin, end) = file.span(index);
                let chunk = local::slice(picked, &file.meter.file, begin, end, &self.pool).await?;
                self.store(file, index, &chunk).await?;
                file.meter.add(end - begin);
                chunks.push(chunk);
            }
            return Ok(chunks);
        }
        let mut tries = Tries::new(&file.url, self.signal());
        loop {
            let before = chunks.len();
            match self.try_fetch(file, first, end, &mut chunks).await {
                Ok(()) => return Ok(chunks),
                Err(failure) => {
                    if chunks.len() > before {
                        tries.reset();
                    }
                    tries.again(failure).await?;
                }
            }
        }
    }

    /// One request for those of the chunks `first..end` that are not in `chunks`.
    async fn try_fetch(
        &self,
        file: &OpenFile,
        first: u64,
        end: u64,
        chunks: &mut Vec<Chunk>,
    ) -> Result<(), Failure> {
        let _pass = self.gate.enter().await;
        let mut index = first + chunks.len() as u64;
        let asked = (file.span(index).0, file.span(end - 1).1);
        let mut answer = self.get(&file.url, Some(asked)).await?;
        let Some((from, to, total)) = answer.content_range().filter(|_| answer.partial()) else {
            return Err(Failure::NoRanges);
        };
        let now = FileRecord { total, tag: answer.tag(), ..file.record.clone() };
        if !now.same_version(&file.record) {
            return Err(Failure::Changed);
        }
        if (from, to) != asked {
            return Err(Failure::integrity("the server sent another range than was asked for"));
        }
        while index < end {
            let (from, to) = file.span(index);
            let mut chunk = self.pool.take((to - from) as u32);
            let mut filled = Unfinished { meter: &file.meter, bytes: 0 };
            let came = |n: u32| {
                filled.bytes += n;
                file.meter.add(n.into());
            };
            if answer.fill(&mut chunk, self.signal(), came).await? < chunk.length() {
                return Err(Failure::network("the connection ended early"));
            }
            self.store(file, index, &chunk).await?;
            filled.bytes = 0;
            chunks.push(chunk);
            index += 1;
        }
        if self.more(&mut answer).await? {
            return Err(Failure::integrity("the server sent more than was asked for"));
        }
        Ok(())
    }

    /// Stores a chunk with its hash.
    async fn store(&self, file: &OpenFile, index: u64, chunk: &Chunk) -> Result<()> {
        let Some(cache) = &self.cache else { return Ok(()) };
        let hash = sha256(chunk).await?;
        match cache.put_chunk(&file.key, &file.record, index, chunk, &hash).await {
            Err(e) if e.code == Code::Quota => Err(with_sizes(e, &file.meter.file, file.record.total).await),
            done => done,
        }
    }

    /// Opens a file to be read at places. One of a complete model, of which only some chunks were ever wanted, is not
    /// asked about again.
    async fn open_at(&self, path: &str) -> Result<OpenFile> {
        let (url, key) = (self.source.url(path), self.source.file_key(path));
        let known = self.open.borrow_mut().remove(path);
        if known.is_none()
            && let Some(cache) = &self.cache
            && cache.model_complete(&self.source.key()).await?
            && let Some(record) = cache.file(&key).await?.filter(|r| !r.absent && r.chunk > 0 && r.total > 0)
        {
            let mut file = self.open_file(path, key.clone(), record);
            file.stored = cache.chunk_indices(&key).await?.into_iter().collect();
            file.meter.from_cache = true;
            file.meter.begin();
            return Ok(file);
        }
        let found = match known {
            Some(file) => Some(file),
            None => self.open(path).await?,
        };
        let mut file = found.ok_or_else(|| error(Failure::Absent, &url))?;
        if self.cache.is_some() {
            // What came with the first request lies in the cache too, and may be wanted again.
            file.stored.extend(file.ready.keys());
        }
        Ok(file)
    }

    /// `len` bytes from `offset` on.
    async fn range(&self, file: &mut OpenFile, offset: u64, len: usize) -> Result<Vec<u8>, Failure> {
        if !file.ranges {
            return Err(Failure::Stop(Error::new(
                Code::Network,
                format!(
                    "{}: its server sends whole files only, and one checkpoint file must be read in parts. Download it, \
                     then open it from disk",
                    file.url
                ),
            )));
        }
        let end = offset.checked_add(len as u64).filter(|&end| end <= file.record.total);
        let end = end.ok_or_else(|| {
            Failure::Stop(Error::bad_checkpoint(format!("{} is truncated. Download it again", file.url)))
        })?;
        if let (None, Some(files)) = (&self.cache, &self.disk)
            && let Some(picked) = files.get(&file.meter.file)
        {
            check(self.signal())?;
            file.meter.set(end, None);
            return Ok(local::slice(picked, &file.meter.file, offset, end, &self.pool).await?.to_vec());
        }
        let mut out = vec![0; len];
        let mut at = offset;
        while at < end {
            let index = at / file.record.chunk;
            if !self.passing.get() {
                file.needed.insert(index);
            }
            let chunk = self.chunk_at(file, index).await?;
            let (begin, stop) = file.span(index);
            let stop = stop.min(end);
            let part = chunk.subarray((at - begin) as u32, (stop - begin) as u32);
            if let Some(to) = out.get_mut((at - offset) as usize..(stop - offset) as usize) {
                part.copy_to(to);
            }
            at = stop;
        }
        Ok(out)
    }

    /// A chunk, from wherever it is. Where it must be fetched, some that follow it come along.
    async fn chunk_at(&self, file: &mut OpenFile, index: u64) -> Result<Rc<Chunk>, Failure> {
        if let Some(chunk) = file.ready.get(&index) {
            return Ok(chunk.clone());
        }
        // A reader that goes from front to back has done with what lies behind.
        file.ready.retain(|&i, _| i > index);
        if file.stored.contains(&index) {
            if let Some(chunk) = self.stored(file, index).await?.map(Rc::new) {
                file.ready.insert(index, chunk.clone());
                return Ok(chunk);
            }
            file.stored.remove(&index);
        }
        let mut runs = Vec::new();
        let mut next = index;
        let ahead = if self.disk.is_some() { 1 } else { REQUESTS };
        while runs.len() < ahead && next < file.chunks() && file.missing_run(next) > next {
            let end = file.missing_run(next);
            runs.push((next, end));
            next = end;
        }
        let shared = &*file;
        let fetched = join_all(runs.iter().map(|&(first, end)| self.fetch(shared, first, end))).await;
        for ((first, _), chunks) in runs.into_iter().zip(fetched) {
            for (i, chunk) in (first..).zip(chunks?) {
                if self.cache.is_some() {
                    file.stored.insert(i);
                }
                file.ready.insert(i, Rc::new(chunk));
            }
        }
        let chunk = file.ready.get(&index).cloned();
        chunk.ok_or_else(|| Failure::network("the connection ended early"))
    }

    /// A chunk from the cache, if it is there and whole; a damaged one is deleted.
    async fn stored(&self, file: &OpenFile, index: u64) -> Result<Option<Chunk>> {
        let Some(cache) = &self.cache else { return Ok(None) };
        check(self.signal())?;
        let Some((chunk, hash)) = cache.chunk(&file.key, index, &self.pool).await? else { return Ok(None) };
        check(self.signal())?;
        let (begin, end) = file.span(index);
        if u64::from(chunk.length()) == end - begin && sha256(&chunk).await? == hash {
            file.meter.add(chunk.length().into());
            return Ok(Some(chunk));
        }
        cache.delete_chunk(&file.key, index).await?;
        Ok(None)
    }

    async fn chunks(&self, file: &OpenFile, job: Job) -> Result<Vec<Rc<Chunk>>, Failure> {
        let chunks = match job {
            Job::Ready(chunk) => return Ok(vec![chunk]),
            Job::Stored(index) => match self.stored(file, index).await? {
                Some(chunk) => vec![chunk],
                None => self.fetch(file, index, index + 1).await?,
            },
            Job::Fetch(first, end) => self.fetch(file, first, end).await?,
        };
        Ok(chunks.into_iter().map(Rc::new).collect())
    }

    /// Hands on the file from byte `done` on, chunk by chunk from wherever each is.
    async fn read_chunks(
        &self,
        file: &mut OpenFile,
        done: &mut u64,
        sink: &mut impl AsyncFnMut(&[u8]) -> Result<()>,
    ) -> Result<(), Failure> {
        let mut jobs = Vec::new();
        let mut index = *done / file.record.chunk;
        while index < file.chunks() {
            let (job, next) = match file.ready.get(&index) {
                Some(chunk) => (Job::Ready(chunk.clone()), index + 1),
                None if file.stored.contains(&index) => (Job::Stored(index), index + 1),
                None => {
                    let end = file.missing_run(index);
                    (Job::Fetch(index, end), end)
                }
            };
            jobs.push(job);
            index = next;
        }
        // Only the jobs hold the bytes from here on, and let go of them one by one.
        file.ready.clear();
        let file = &*file;
        let mut chunks = pin!(stream::iter(jobs).map(|job| self.chunks(file, job)).buffered(REQUESTS));
        let mut buffer = Vec::new();
        while let Some(run) = chunks.next().await {
            for chunk in run? {
                hand_on(&chunk, &mut buffer, sink).await?;
                *done += u64::from(chunk.length());
                check(self.signal())?;
            }
        }
        Ok(())
    }

    /// Hands on the file from byte `done` on, from a server that sends whole files only.
    async fn read_whole(
        &self,
        file: &mut OpenFile,
        done: &mut u64,
        sink: &mut impl AsyncFnMut(&[u8]) -> Result<()>,
    ) -> Result<(), Failure> {
        let url = file.url.clone();
        let mut tries = Tries::new(&url, self.signal());
        loop {
            let before = *done;
            match self.try_read_whole(file, done, sink).await {
                Ok(()) => return Ok(()),
                Err(failure) => {
                    if *done > before {
                        tries.reset();
                    }
                    tries.again(failure).await?;
                }
            }
        }
    }

    async fn try_read_whole(
        &self,
        file: &mut OpenFile,
        done: &mut u64,
        sink: &mut impl AsyncFnMut(&[u8]) -> Result<()>,
    ) -> Result<(), Failure> {
        let _pass = self.gate.enter().await;
        let mut answer = self.get(&file.url, None).await?;
        let total = answer.content_length();
        let known = file.record.total;
        let now = FileRecord {
            total: total.filter(|_| known > 0).unwrap_or(known),
            tag: answer.tag(),
            ..file.record.clone()
        };
        if !now.same_version(&file.record) {
            return Err(Failure::Changed);
        }
        let mut buffer = Vec::new();
        let (mut index, mut got) = (0, 0);
        loop {
            let mut chunk = self.pool.take(file.record.chunk as u32);
            let mut so_far = got;
            let came = |n: u32| {
                so_far += u64::from(n);
                file.meter.set(so_far.max(*done), total);
            };
            let filled = answer.fill(&mut chunk, self.signal(), came).await?;
            got += u64::from(filled);
            let ended = filled < chunk.length();
            if ended && total.is_some_and(|due| got < due) {
                return Err(Failure::network("the connection ended early"));
            }
            // Of a second try, only what the sink has not seen.
            if filled > 0 && index * file.record.chunk >= *done {
                let chunk = chunk.cut(filled);
                if !file.stored.contains(&index) {
                    self.store(file, index, &chunk).await?;
                    file.stored.insert(index);
                }
                hand_on(&chunk, &mut buffer, sink).await?;
                *done += u64::from(filled);
            }
            index += 1;
            if ended {
                if got < *done {
                    return Err(Failure::Changed);
                }
                return Ok(());
            }
        }
    }
}

impl ModelFiles for WebFiles {
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
                    self.at.borrow_mut().insert(path.to_string(), file);
                    return Ok(bytes);
                }
                Err(Failure::NoRanges) if !reopened => {
                    file.ranges = false;
                    reopened = true;
                }
                Err(failure) => return Err(error(failure, &self.source.url(path))),
            }
        }
    }

    fn keeps_packed(&self) -> bool {
        self.cache.is_some() && self.source.keeps_packed()
    }

    async fn packed(&self, path: &str, mut sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<bool> {
        self.passing.set(true);
        let Some(cache) = &self.cache else { return Ok(false) };
        let key = self.source.packed_key(path);
        let Some(record) = cache.file(&key).await?.filter(|record| record.complete) else { return Ok(false) };
        let mut file = self.open_file(path, key, record);
        file.meter.from_cache = true;
        file.meter.begin();
        let file = &file;
        let ahead = stream::iter(0..file.chunks()).map(|index| self.stored(file, index)).buffered(2);
        let mut chunks = pin!(ahead);
        let mut buffer = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let taken = match chunk? {
                Some(chunk) => hand_on(&chunk, &mut buffer, &mut sink).await,
                None => Err(Error::bad_checkpoint("a piece is damaged or missing")),
            };
            match taken {
                Ok(()) => check(self.signal())?,
                Err(e) if e.code == Code::BadCheckpoint => {
                    self.forget_packed(cache, path).await?;
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        file.meter.emit("done");
        self.passing.set(false);
        Ok(true)
    }

    async fn keep(&self, path: &str, index: u64, bytes: &[u8]) -> Result<()> {
        let Some(cache) = &self.cache else { return Ok(()) };
        let key = self.source.packed_key(path);
        let record = FileRecord { chunk: PACKED_PIECE as u64, ..self.blank() };
        if index == 0 {
            cache.reset_file(&key, &record).await?;
        }
        let chunk = self.pool.take(bytes.len() as u32);
        chunk.copy_from(bytes);
        self.store(&self.open_file(path, key, record), index, &chunk).await
    }

    async fn kept(&self, path: &str, total: u64) -> Result<()> {
        self.passing.set(false);
        self.replaced.borrow_mut().insert(path.into());
        let Some(cache) = &self.cache else { return Ok(()) };
        let record = FileRecord { chunk: PACKED_PIECE as u64, ..self.blank() };
        cache.complete_file(&self.source.packed_key(path), &record, total).await?;
        if self.source.file().is_none() {
            cache.delete_chunks(&self.source.file_key(path), &HashSet::new()).await?;
        }
        Ok(())
    }

    async fn read(&self, path: &str, mut sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<()> {
        let opened = self.open.borrow_mut().remove(path);
        let url = self.source.url(path);
        let mut file = match opened {
            Some(file) => file,
            None => self.open(path).await?.ok_or_else(|| error(Failure::Absent, &url))?,
        };
        let mut done = 0;
        let mut reopened = false;
        // Bytes come in order and once, so one running hash tells whether the file is the one the server names.
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
                    // The stored chunks are of a file that is no more.
                    if let Some(cache) = &self.cache {
                        let gone = FileRecord { total: 0, complete: false, ..file.record.clone() };
                        cache.reset_file(&file.key, &gone).await?;
                    }
                    if done > 0 || reopened {
                        return Err(error(Failure::Changed, &url));
                    }
                    reopened = true;
                    file = self.open(path).await?.ok_or_else(|| error(Failure::Absent, &url))?;
                    hash.replace(to_hash(&file));
                }
                Err(failure) => return Err(error(failure, &url)),
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

/// Copies a chunk into wasm memory, where one buffer serves all of a file, and waits for the consumer.
async fn hand_on(
    chunk: &Uint8Array,
    buffer: &mut Vec<u8>,
    sink: &mut impl AsyncFnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    buffer.resize(chunk.length() as usize, 0);
    chunk.copy_to(buffer);
    sink(buffer).await
}

/// SHA-256 as hex.
async fn sha256(bytes: &Uint8Array) -> Result<String> {
    let digest = async || JsFuture::from(js_digest("SHA-256", bytes)?).await;
    let hash = digest().await.map_err(|_| {
        let message = "this page cannot compute SHA-256: serve it over https, or from localhost";
        Error::new(Code::Integrity, message)
    })?;
    Ok(hex(&Uint8Array::new(&hash).to_vec()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Adds to a refusal to store how much there is and how much there may be.
async fn with_sizes(e: Error, file: &str, total: u64) -> Error {
    let estimate = async || JsFuture::from(js_estimate()?).await;
    let estimate = estimate().await.unwrap_or_default();
    let mib = |key: &str| Reflect::get(&estimate, &key.into()).ok()?.as_f64().map(|n| n / 1048576.0);
    let sizes = match (mib("usage"), mib("quota")) {
        (Some(usage), Some(quota)) => format!("{usage:.1} MiB of {quota:.1} MiB are used"),
        _ => "how much is used is not known".to_string(),
    };
    let total = total as f64 / 1048576.0;
    Error::new(e.code, format!("{} ({file} has {total:.1} MiB; {sizes})", e.message))
}

/// What a failure that nothing has mended means to the caller.
fn error(failure: Failure, url: &str) -> Error {
    match failure {
        Failure::Stop(e) => e,
        Failure::Again { code, why, .. } => Error::new(code, format!("{url}: {why}. Load again")),
        Failure::Absent => Error::new(
            Code::Network,
            format!("there is no file {url}. Check the model's name, the revision and the address"),
        ),
        Failure::Changed | Failure::NoRanges => Error::new(
            Code::Integrity,
            format!("{url} has changed on the server since its download began. Load again"),
        ),
    }
}

/// Counts a file's bytes and tells the caller.
struct Meter {
    callback: Option<Rc<dyn Fn(Progress)>>,
    name: String,
    file: String,
    from_cache: bool,
    loaded: Cell<u64>,
    total: Cell<u64>,
    /// When the last event was, in ms.
    last: Cell<f64>,
}

impl Meter {
    /// The file has been found; bytes may have begun to come.
    fn begin(&self) {
        self.emit("initiate");
        self.emit("download");
    }

    fn add(&self, bytes: u64) {
        self.set(self.loaded.get() + bytes, None);
    }

    fn set(&self, loaded: u64, total: Option<u64>) {
        self.loaded.set(loaded);
        self.total.set(total.unwrap_or(self.total.get()));
        let now = Date::now();
        if now - self.last.get() >= PROGRESS_MS {
            self.last.set(now);
            self.emit("progress");
        }
    }

    fn emit(&self, status: &'static str) {
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

/// Bytes of a chunk that is not complete: they count for nothing if it never is.
struct Unfinished<'a> {
    meter: &'a Meter,
    bytes: u32,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.meter.loaded.set(self.meter.loaded.get().saturating_sub(self.bytes.into()));
    }
}
