//! Models from the visitor's own disk: files that were picked or dropped, read by slices, never copied whole.

use super::WebFiles;
use crate::error::{Code, Error, Result};
use crate::store::{FileAt, ModelFiles, SingleFile};
use js_sys::{ArrayBuffer, Uint8Array};
use std::collections::HashMap;
use std::rc::Rc;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::Blob;

/// Bytes of a slice.
const SLICE: u64 = 4 << 20;

/// A folder of files, or one file.
pub struct LocalFiles {
    name: String,
    files: HashMap<String, Blob>,
    single: Option<String>,
}

impl LocalFiles {
    /// `files` by their paths in the model's folder; one alone is a checkpoint file.
    pub fn new(name: String, files: HashMap<String, Blob>) -> LocalFiles {
        let single = if files.len() == 1 { files.keys().next().cloned() } else { None };
        LocalFiles { name, files, single }
    }

    fn file(&self, path: &str) -> Result<&Blob> {
        self.files.get(path).ok_or_else(|| {
            let message = format!("{} has no file {path}. Choose the whole folder of the model", self.name);
            Error::new(Code::Network, message)
        })
    }

    async fn slice(&self, path: &str, begin: u64, end: u64) -> Result<Uint8Array> {
        let failed = |_| {
            let message = format!("{path} cannot be read: was it changed or moved? Choose it again");
            Error::new(Code::Network, message)
        };
        let slice = self.file(path)?.slice_with_f64_and_f64(begin as f64, end as f64).map_err(failed)?;
        let buffer = JsFuture::from(slice.array_buffer()).await.map_err(failed)?;
        Ok(Uint8Array::new(&buffer.unchecked_into::<ArrayBuffer>()))
    }
}

impl ModelFiles for LocalFiles {
    fn name(&self) -> &str {
        &self.name
    }

    async fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match self.files.get(path) {
            Some(file) => Ok(Some(self.slice(path, 0, file.size() as u64).await?.to_vec())),
            None => Ok(None),
        }
    }

    async fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.files.contains_key(path))
    }

    fn single_file(&self) -> Option<&str> {
        self.single.as_deref()
    }

    async fn size(&self, path: &str) -> Result<u64> {
        Ok(self.file(path)?.size() as u64)
    }

    async fn read_at(&self, path: &str, offset: u64, len: usize) -> Result<Vec<u8>> {
        let bytes = self.slice(path, offset, offset.saturating_add(len as u64)).await?;
        if bytes.length() as usize != len {
            return Err(Error::bad_checkpoint(format!("{path} is truncated. Download it again")));
        }
        Ok(bytes.to_vec())
    }

    async fn read(&self, path: &str, mut sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<()> {
        let size = self.size(path).await?;
        let mut at = 0;
        while at < size {
            let end = (at + SLICE).min(size);
            let bytes = self.read_at(path, at, (end - at) as usize).await?;
            sink(&bytes).await?;
            at = end;
        }
        Ok(())
    }
}

/// What the page names as a model: an address, or files.
pub enum PageSource {
    Web(WebFiles),
    Local(LocalFiles),
}

macro_rules! either {
    ($self:ident, $files:ident => $then:expr) => {
        match $self {
            PageSource::Web($files) => $then,
            PageSource::Local($files) => $then,
        }
    };
}

impl PageSource {
    /// As [`WebFiles::doubt`].
    pub async fn doubt(&self) -> Result<()> {
        match self {
            PageSource::Web(files) => files.doubt().await,
            PageSource::Local(_) => Ok(()),
        }
    }

    /// As [`WebFiles::finish`].
    pub async fn finish(&self) -> Result<()> {
        match self {
            PageSource::Web(files) => files.finish().await,
            PageSource::Local(_) => Ok(()),
        }
    }
}

impl ModelFiles for PageSource {
    fn name(&self) -> &str {
        either!(self, f => f.name())
    }
    async fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>> {
        either!(self, f => f.bytes(path).await)
    }
    async fn exists(&self, path: &str) -> Result<bool> {
        either!(self, f => f.exists(path).await)
    }
    async fn read(&self, path: &str, sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<()> {
        either!(self, f => f.read(path, sink).await)
    }
    fn single_file(&self) -> Option<&str> {
        either!(self, f => f.single_file())
    }
    async fn size(&self, path: &str) -> Result<u64> {
        either!(self, f => f.size(path).await)
    }
    async fn read_at(&self, path: &str, offset: u64, len: usize) -> Result<Vec<u8>> {
        either!(self, f => f.read_at(path, offset, len).await)
    }
}

/// A source as a folder, whether it is one or a single file. One type, so that what loads models is compiled once.
pub enum PageFiles {
    Folder(Rc<PageSource>),
    /// CLIP's vocabulary comes with the page.
    Single(SingleFile<FileAt<PageSource>, WebFiles>),
}

impl PageFiles {
    /// Reads a single file's table of tensors; a folder is left alone. `vocabulary`: the embedded model's files.
    pub async fn open(source: Rc<PageSource>, vocabulary: Rc<WebFiles>) -> Result<PageFiles> {
        match source.single_file() {
            Some(path) => {
                let file = FileAt::new(source.clone(), path);
                Ok(PageFiles::Single(SingleFile::open(source.name(), file, vocabulary).await?))
            }
            None => Ok(PageFiles::Folder(source)),
        }
    }
}

macro_rules! folder {
    ($self:ident, $files:ident => $then:expr) => {
        match $self {
            PageFiles::Folder($files) => $then,
            PageFiles::Single($files) => $then,
        }
    };
}

impl ModelFiles for PageFiles {
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
}
