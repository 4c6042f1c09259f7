//! Models that are kept quantised. In the cache each of their files of weights has a packed copy in its place: what
//! quantising made of it, as it lies on the GPU.

use super::WebFiles;
use super::http::check;
use super::idb::{Database, FileRecord};
use super::open_file::{OpenFile, Purpose, hand_on};
use crate::checkpoint::ReadAt;
use crate::error::{Code, Error, Result};
use crate::store::{ModelFiles, PACKED_PIECE, PackedCopy, SingleFile};
use futures_util::stream::{self, StreamExt};
use std::cell::Cell;
use std::collections::HashMap;
use std::pin::pin;
use std::rc::Rc;

/// The checkpoint file that a model consists of, read at places.
pub struct OneFile {
    files: Rc<WebFiles>,
    path: String,
    purpose: Purpose,
}

impl OneFile {
    pub fn new(files: Rc<WebFiles>, path: &str) -> OneFile {
        OneFile { files, path: path.into(), purpose: Purpose::Load }
    }
}

impl ReadAt for OneFile {
    async fn size(&self) -> Result<u64> {
        self.files.size(&self.path).await
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.files.read_place(&self.path, offset, len, self.purpose).await
    }
}

/// The packed copy of one file of weights, in the cache.
pub struct CachedCopy {
    source: Rc<WebFiles>,
    cache: Database,
    /// The one file that the weights are a part of, if the model is no folder.
    single: Option<Rc<SingleFile<OneFile, WebFiles>>>,
    /// Of the weights, in the model.
    path: String,
    /// What the cache calls the copy.
    key: String,
    /// Bytes written so far.
    written: Cell<u64>,
}

impl CachedCopy {
    /// The copy of the weights at `path`, if `source` is kept quantised.
    pub(super) fn of(
        source: Rc<WebFiles>,
        single: Option<Rc<SingleFile<OneFile, WebFiles>>>,
        path: &str,
    ) -> Option<CachedCopy> {
        let cache = source.cache.clone().filter(|_| source.source.keeps_packed())?;
        let key = source.source.packed_key(path);
        Some(CachedCopy { source, cache, single, path: path.into(), key, written: Cell::new(0) })
    }

    /// What the cache knows of the copy while it is made.
    fn record(&self) -> FileRecord {
        FileRecord { chunk: PACKED_PIECE as u64, ..self.source.blank() }
    }

    /// Drops a copy that is no good. The weights are then fetched, and held against their hash, as at first.
    async fn forget(&self) -> Result<()> {
        self.cache.reset_file(&self.key, &self.source.blank()).await?;
        let key = self.source.source.file_key(&self.path);
        if self.single.is_none()
            && let Some(record) = self.cache.file(&key).await?
        {
            self.source.open.borrow_mut().remove(&self.path);
            self.cache.reset_file(&key, &FileRecord { total: 0, complete: false, ..record }).await?;
        }
        Ok(())
    }
}

impl PackedCopy for CachedCopy {
    async fn read(&self, mut sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let Some(record) = self.cache.file(&self.key).await?.filter(|record| record.complete) else {
            return Ok(false);
        };
        let file = self.source.open_file(&self.path, self.key.clone(), record);
        file.meter.begin();
        let file = &file;
        let ahead = stream::iter(0..file.chunks()).map(|index| self.source.stored(file, index)).buffered(2);
        let mut chunks = pin!(ahead);
        let mut buffer = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let taken = match chunk? {
                Some(chunk) => hand_on(&chunk, &mut buffer, &mut sink).await,
                None => Err(Error::bad_checkpoint("a piece is damaged or missing")),
            };
            match taken {
                Ok(()) => check(self.source.signal())?,
                Err(e) if e.code == Code::BadCheckpoint => {
                    self.forget().await?;
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        file.meter.emit("done");
        Ok(true)
    }

    /// Of a single file, what only copies are made of leaves the cache when the model has been loaded.
    async fn original(&self, sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Some((single, path)) = self.single.as_ref().zip(self.source.single_file()) else {
            return self.source.read(&self.path, sink).await;
        };
        let file = OneFile { purpose: Purpose::Copy, ..OneFile::new(self.source.clone(), path) };
        single.read_through(&file, &self.path, sink).await
    }

    async fn write(&self, piece: &[u8]) -> Result<()> {
        let at = self.written.replace(self.written.get() + piece.len() as u64);
        let record = self.record();
        if at == 0 {
            self.cache.reset_file(&self.key, &record).await?;
        }
        let chunk = self.source.pool.take(piece.len() as u32);
        chunk.copy_from(piece);
        let file = self.source.open_file(&self.path, self.key.clone(), record);
        self.source.store(&file, at / PACKED_PIECE as u64, &chunk).await
    }

    async fn finish(self) -> Result<()> {
        self.cache.complete_file(&self.key, &self.record(), self.written.get()).await?;
        if self.single.is_some() {
            return Ok(());
        }
        let key = self.source.source.file_key(&self.path);
        let borrowed = self.source.borrowed.borrow_mut().remove(&self.path);
        match borrowed {
            // The record alone, so that the next load knows of the file without a request.
            Some(record) => self.cache.reset_file(&key, &self.source.owned(record)).await,
            None => self.cache.delete_chunks(&key, |_| true).await,
        }
    }
}

impl WebFiles {
    /// Copies the borrowed files that have no packed copy, so that the model no longer needs the one that they are of;
    /// and drops what was read of a single file to make packed copies alone.
    pub(super) async fn settle(&self, cache: &Database, read_at: &HashMap<String, OpenFile>) -> Result<()> {
        for (path, record) in self.borrowed.take() {
            let from = self.source.unpacked().file_key(&path);
            let mut indices = cache.chunk_indices(&from).await?;
            if let Some(file) = read_at.get(&path).filter(|file| file.copied) {
                indices.retain(|i| file.needed.contains(i));
            }
            let to = self.source.file_key(&path);
            cache.copy_file(&from, &to, &self.owned(record), &indices).await?;
        }
        for (path, file) in read_at.iter().filter(|(_, file)| file.copied) {
            let key = self.source.file_key(path);
            if file.key == key {
                cache.delete_chunks(&key, |index| !file.needed.contains(&index)).await?;
            }
        }
        Ok(())
    }

    /// The record of a borrowed file, as one of this model's own.
    fn owned(&self, record: FileRecord) -> FileRecord {
        FileRecord { base: self.source.key(), name: self.source.kept_name(), ..record }
    }
}
