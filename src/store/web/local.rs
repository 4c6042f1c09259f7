//! Models from the visitor's own disk: files that were picked or dropped, read by slices.

use super::WebFiles;
use super::chunk::{Bytes, Chunk, Pool};
use super::packed::{CachedCopy, OneFile};
use crate::error::{Code, Error, Result};
use crate::store::{ModelFiles, SingleFile};
use std::rc::Rc;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Blob, File};

/// Identifies this version among files of one name.
pub fn tag(file: &Blob) -> Option<String> {
    let modified = file.dyn_ref::<File>()?.last_modified();
    Some(format!("{} {modified}", file.size()))
}

/// The bytes of a file from `begin` to before `end`. `path`: its name, for messages.
pub async fn slice(file: &Blob, path: &str, begin: u64, end: u64, pool: &Rc<Pool>) -> Result<Chunk> {
    let mut chunk = pool.take((end - begin) as u32);
    let mut filled = 0;
    let mut read = async || -> Result<(), JsValue> {
        let mut bytes = Bytes::of(file.slice_with_f64_and_f64(begin as f64, end as f64)?.stream())?;
        while filled < chunk.length() {
            match bytes.read(&mut chunk, filled).await? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(())
    };
    if read().await.is_err() {
        let message = format!("{path} cannot be read: was it changed or moved? Choose it again");
        return Err(Error::new(Code::Network, message));
    }
    if filled < chunk.length() {
        return Err(Error::bad_checkpoint(format!("{path} is truncated. Download it again")));
    }
    Ok(chunk)
}

/// A model as a folder, whether it is one or a single file. One type, so that the code that loads models is compiled once.
pub enum PageFiles {
    Folder(Rc<WebFiles>),
    /// CLIP's vocabulary comes with the page.
    Single(Rc<SingleFile<OneFile, WebFiles>>, Rc<WebFiles>),
}

impl PageFiles {
    /// Reads a single file's table of tensors; a folder is left alone. `vocabulary`: the embedded model's files.
    pub async fn open(source: Rc<WebFiles>, vocabulary: Rc<WebFiles>) -> Result<PageFiles> {
        match source.single_file() {
            Some(path) => {
                let file = OneFile::new(source.clone(), path);
                let single = SingleFile::open(source.name(), file, vocabulary).await?;
                Ok(PageFiles::Single(Rc::new(single), source))
            }
            None => Ok(PageFiles::Folder(source)),
        }
    }
}

macro_rules! folder {
    ($self:ident, $files:ident => $then:expr) => {
        match $self {
            PageFiles::Folder($files) => $then,
            PageFiles::Single($files, _) => $then,
        }
    };
}

impl ModelFiles for PageFiles {
    type Packed = CachedCopy;

    fn name(&self) -> &str {
        folder!(self, f => f.name())
    }
    async fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>> {
        folder!(self, f => f.bytes(path).await)
    }
    async fn exists(&self, path: &str) -> Result<bool> {
        folder!(self, f => f.exists(path).await)
    }
    async fn read(&self, path: &str, sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<()> {
        folder!(self, f => f.read(path, sink).await)
    }
    async fn size(&self, path: &str) -> Result<u64> {
        folder!(self, f => f.size(path).await)
    }
    async fn read_at(&self, path: &str, offset: u64, len: usize) -> Result<Vec<u8>> {
        folder!(self, f => f.read_at(path, offset, len).await)
    }
    fn packed_copy(&self, path: &str) -> Option<CachedCopy> {
        match self {
            PageFiles::Folder(source) => CachedCopy::of(source.clone(), None, path),
            PageFiles::Single(single, source) => CachedCopy::of(source.clone(), Some(single.clone()), path),
        }
    }
}
