//! A diffusers folder on disk, for native tests and tools.

use super::ModelFiles;
use crate::error::{Code, Error, Result};
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

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
