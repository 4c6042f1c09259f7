//! How a file is found: in the cache, in the cache's copy of the model with other weights, on disk, or on the server.

use super::WebFiles;
use super::fetch::FirstAnswer;
use super::http::{Failure, Tries, check};
use super::idb::{Database, FileRecord};
use super::local;
use super::open_file::{Meter, OpenFile, REQUEST_BYTES, chunk_bytes};
use crate::error::Result;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use web_sys::Blob;

impl WebFiles {
    /// Finds a file: in the cache, or by asking the server for its first missing bytes. `None` if there is none.
    pub(super) async fn open(&self, path: &str) -> Result<Option<OpenFile>> {
        check(self.signal())?;
        if let Some(files) = &self.disk {
            return self.open_picked(path, files.get(path)).await;
        }
        let url = self.source.url(path);
        let key = self.source.file_key(path);
        if let Some(cache) = &self.cache {
            let Some(record) = cache.file(&key).await? else {
                return match self.borrow(cache, path).await? {
                    Some(record) if record.absent => Ok(None),
                    Some(record) => self
                        .cached(cache, path, self.source.unpacked().file_key(path), record)
                        .await
                        .map(Some),
                    None => self.open_fresh(path, url).await,
                };
            };
            // Nothing is asked about a complete model, so that it needs no network. An incomplete one may have been
            // repaired since.
            if record.absent && cache.model_complete(&self.source.key()).await? {
                return Ok(None);
            }
            if !record.absent && record.chunk > 0 && (record.complete || record.total > 0) {
                if record.complete {
                    return self.cached(cache, path, key, record).await.map(Some);
                }
                let mut file = self.open_file(path, key.clone(), record);
                file.stored = cache.chunk_indices(&key).await?.into_iter().collect();
                match self.resume(&mut file).await {
                    Ok(()) => return Ok(Some(file)),
                    // The file has changed, or the server cannot go on with it: begin anew.
                    Err(Failure::Changed | Failure::NoRanges | Failure::Absent) => {}
                    Err(failure) => return Err(failure.error(&url)),
                }
            }
        }
        self.open_fresh(path, url).await
    }

    /// Of a file of a model that is kept quantised: its record in the cache's copy of the same model with its weights as
    /// they came, if that is complete.
    async fn borrow(&self, cache: &Database, path: &str) -> Result<Option<FileRecord>> {
        let plain = self.source.unpacked();
        if !self.source.keeps_packed() || !cache.model_complete(&plain.key()).await? {
            return Ok(None);
        }
        let record = cache.file(&plain.file_key(path)).await?;
        let record = record.filter(|r| r.absent || r.chunk > 0 && r.total > 0);
        if let Some(record) = &record {
            self.borrowed.borrow_mut().insert(path.into(), record.clone());
        }
        Ok(record)
    }

    /// A file that is read from the cache, and asked for only where a chunk is missing.
    async fn cached(
        &self,
        cache: &Database,
        path: &str,
        key: String,
        record: FileRecord,
    ) -> Result<OpenFile> {
        let mut file = self.open_file(path, key, record);
        file.stored = cache.chunk_indices(&file.key).await?.into_iter().collect();
        file.meter.from_cache = true;
        file.meter.begin();
        Ok(file)
    }

    /// The record of a file of this model of which nothing is known yet.
    pub(super) fn blank(&self) -> FileRecord {
        FileRecord {
            base: self.source.key(),
            name: self.source.kept_name(),
            chunk: REQUEST_BYTES,
            ..FileRecord::default()
        }
    }

    /// A picked file, with the chunks that the cache has of the same version.
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

    /// A file of which only `record` is known yet.
    pub(super) fn open_file(&self, path: &str, key: String, record: FileRecord) -> OpenFile {
        OpenFile {
            url: self.source.url(path),
            key,
            ranges: true,
            stored: HashSet::new(),
            ready: HashMap::new(),
            needed: HashSet::new(),
            copied: false,
            meter: Meter::new(self.on_progress.clone(), self.source.name(), path, &record),
            record,
        }
    }

    /// Asks for the first chunks that are missing before any stored one is handed on: only the answer shows whether the
    /// server still has the version that the stored ones are of.
    async fn resume(&self, file: &mut OpenFile) -> Result<(), Failure> {
        file.meter.begin();
        let chunks = file.chunks();
        let first = match (0..chunks).find(|i| !file.stored.contains(i)) {
            Some(first) => first,
            // All are there, but no load has read it to its end, or the pipeline refused it: ask for one again.
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
        let FirstAnswer { record, ranges, start } = loop {
            match self.first_request(&url, &base).await {
                Ok(found) => break found,
                Err(Failure::Absent) => {
                    if let Some(cache) = &self.cache {
                        let none = FileRecord { absent: true, ..base };
                        cache.reset_file(&self.source.file_key(path), &none).await?;
                    }
                    return Ok(None);
                }
                // "Range not satisfiable" (an empty file), or a server that hides Content-Range: take the file whole.
                Err(Failure::Changed | Failure::NoRanges) => {
                    break FirstAnswer { record: base, ranges: false, start: Vec::new() };
                }
                Err(failure) => tries.again(failure).await.map_err(|f| f.error(&url))?,
            }
        };
        if let Some(cache) = &self.cache {
            cache.reset_file(&self.source.file_key(path), &record).await?;
        }
        let mut file = self.open_file(path, self.source.file_key(path), record);
        file.ranges = ranges;
        file.meter.begin();
        for (index, chunk) in (0..).zip(start) {
            file.meter.add(chunk.length().into());
            self.store(&file, index, &chunk).await?;
            file.ready.insert(index, Rc::new(chunk));
        }
        Ok(Some(file))
    }

    /// Opens a file to be read at places. Nothing is asked about a file of a complete model, even where earlier loads
    /// never read some of its chunks.
    pub(super) async fn open_at(&self, path: &str) -> Result<OpenFile> {
        let (url, key) = (self.source.url(path), self.source.file_key(path));
        let known = self.open.borrow_mut().remove(path);
        if known.is_none()
            && self.disk.is_none()
            && let Some(cache) = &self.cache
            && cache.model_complete(&self.source.key()).await?
            && let Some(record) = cache.file(&key).await?.filter(|r| !r.absent && r.chunk > 0 && r.total > 0)
        {
            return self.cached(cache, path, key, record).await;
        }
        let found = match known {
            Some(file) => Some(file),
            None => self.open(path).await?,
        };
        let mut file = found.ok_or_else(|| Failure::Absent.error(&url))?;
        if self.cache.is_some() {
            // What came with the first request is in the cache too, and may be read again.
            file.stored.extend(file.ready.keys());
        }
        Ok(file)
    }
}
