//! Models on disk, for native tests and tools: a diffusers folder, or one checkpoint file.

use super::{ModelFiles, NoCopy, SingleFile};
use crate::checkpoint::ReadAt;
use crate::error::{Code, Error, Result};
use std::cell::RefCell;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A model's folder.
pub struct Folder {
    root: PathBuf,
    name: String,
}

impl Folder {
    /// The model that lies in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Folder {
        let root = root.into();
        Folder { name: root.display().to_string(), root }
    }

    fn failed(&self, path: &str, e: &std::io::Error) -> Error {
        Error::new(Code::Network, format!("{}/{path} cannot be read: {e}", self.name))
    }
}

impl ModelFiles for Folder {
    type Packed = NoCopy;

    fn name(&self) -> &str {
        &self.name
    }

    async fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match std::fs::read(self.root.join(path)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed(path, &e)),
        }
    }

    async fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.root.join(path).is_file())
    }

    async fn size(&self, path: &str) -> Result<u64> {
        DiskFile::open(&self.root.join(path))?.size().await
    }

    async fn read_at(&self, path: &str, offset: u64, len: usize) -> Result<Vec<u8>> {
        DiskFile::open(&self.root.join(path))?.read_at(offset, len).await
    }

    async fn read(&self, path: &str, mut sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<()> {
        let failed = |e| self.failed(path, &e);
        let mut file = std::fs::File::open(self.root.join(path)).map_err(failed)?;
        let mut chunk = vec![0; 4 << 20];
        loop {
            match file.read(&mut chunk).map_err(failed)? {
                0 => return Ok(()),
                n => sink(chunk.get(..n).unwrap_or_default()).await?,
            }
        }
    }
}

/// A file, read at any place.
pub struct DiskFile {
    file: RefCell<std::fs::File>,
    size: u64,
    name: String,
}

impl DiskFile {
    /// `Network` if it cannot be opened.
    pub fn open(path: &Path) -> Result<DiskFile> {
        let name = path.display().to_string();
        let failed = |e| Error::new(Code::Network, format!("{name} cannot be read: {e}"));
        let file = std::fs::File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Ok(DiskFile { file: RefCell::new(file), size, name })
    }
}

impl ReadAt for DiskFile {
    async fn size(&self) -> Result<u64> {
        Ok(self.size)
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let mut file = self.file.borrow_mut();
        match file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes)) {
            Ok(()) => Ok(bytes),
            Err(e) => Err(Error::new(Code::Network, format!("{} cannot be read: {e}", self.name))),
        }
    }
}

/// A checkpoint of one file, .safetensors or .ckpt. `vocabulary` is a folder with CLIP's `tokenizer/`, such as that of the
/// model that ships with the page.
pub async fn single_file(path: impl AsRef<Path>, vocabulary: Folder) -> Result<SingleFile<DiskFile, Folder>> {
    let path = path.as_ref();
    SingleFile::open(path.display().to_string(), DiskFile::open(path)?, Rc::new(vocabulary)).await
}
