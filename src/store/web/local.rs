//! Models from the visitor's own disk: files that were picked or dropped, read by slices.

use super::WebFiles;
use super::chunk::Chunk;
use crate::error::{Code, Error, Result};
use crate::store::{FileAt, ModelFiles, SingleFile};
use js_sys::{ArrayBuffer, Uint8Array};
use std::rc::Rc;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, File};

/// What tells this version of a file from others of its name.
pub fn tag(file: &Blob) -> Option<String> {
    let modified = file.dyn_ref::<File>()?.last_modified();
    Some(format!("{} {modified}", file.size()))
}

/// The bytes of a file from `begin` to before `end`. `path`: its name, for messages.
pub async fn slice(file: &Blob, path: &str, begin: u64, end: u64) -> Result<Chunk> {
    let failed = |_| {
        let message = format!("{path} cannot be read: was it changed or moved? Choose it again");
        Error::new(Code::Network, message)
    };
    let slice = file.slice_with_f64_and_f64(begin as f64, end as f64).map_err(failed)?;
    let buffer = JsFuture::from(slice.array_buffer()).await.map_err(failed)?;
    let bytes = Chunk::new(Uint8Array::new(&buffer.unchecked_into::<ArrayBuffer>()));
    if u64::from(bytes.length()) != end - begin {
        return Err(Error::bad_checkpoint(format!("{path} is truncated. Download it again")));
    }
    Ok(bytes)
}

/// A source as a folder, whether it is one or a single file. One type, so that what loads models is compiled once.
pub enum PageFiles {
    Folder(Rc<WebFiles>),
    /// CLIP's vocabulary comes with the page.
    Single(SingleFile<FileAt<WebFiles>, WebFiles>),
}

impl PageFiles {
    /// Reads a single file's table of tensors; a folder is left alone. `vocabulary`: the embedded model's files.
    pub async fn open(source: Rc<WebFiles>, vocabulary: Rc<WebFiles>) -> Result<PageFiles> {
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
