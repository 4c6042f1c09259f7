//! Where a model's files come from: the Hub, any server, a folder on disk, and the browser's own cache.
//!
//! - [`source`]: what the caller names, resolved to addresses and to a name in the cache.
//! - [`weights`](ModelFiles::weights): which files hold a component's weights (variant, shards).
//! - `disk` (native): a folder.
//! - `web` (wasm): HTTP with Range requests, resumed and verified through IndexedDB; files that the visitor picked.
//! - [`single_file`]: one checkpoint file of any of these, as a folder.
//! - [`PackedCopy`]: quantised weights, kept in the place of the files that they were made of.
//!
//! How a component is loaded, the same on every target:
//!
//! ```ignore
//! // In the browser; natively `let files = store::disk::Folder::new(path)`.
//! let store = ModelStore::open().await;
//! let source = Source::resolve("stabilityai/sd-turbo", &SourceOptions::default())?;
//! let files = store.model(source, ReadOptions { signal, on_progress, ..Default::default() });
//!
//! // Configurations first: a model that cannot be computed is refused before its weights are downloaded.
//! let config: UnetConfig = files.json("unet/config.json").await?;
//! let merges = files.required("tokenizer/merges.txt").await?;
//! let added = files.bytes("tokenizer/added_tokens.json").await?; // None: the model has no such file
//!
//! // Then weights, each file streamed in order. Components may be read concurrently (`join!`).
//! for path in files.weights("unet", variant).await? {
//!     let mut unpacker = FileUnpacker::new(&path);
//!     files
//!         .read(&path, async |bytes: &[u8]| {
//!             unpacker.push(bytes, &mut target)?;
//!             gpu_has_caught_up().await // optional: holds the download back
//!         })
//!         .await?;
//!     unpacker.finish()?;
//! }
//! // All that the model needs is in the cache: from now on it loads without a network.
//! files.finish().await?;
//! ```

mod packed;
pub mod single_file;
pub mod source;

#[cfg(not(target_arch = "wasm32"))]
pub mod disk;
#[cfg(target_arch = "wasm32")]
pub mod web;

pub use packed::{NoCopy, PACKED_PIECE, PackedCopy};
pub use single_file::{FileAt, SingleFile};
pub use source::{Source, SourceOptions};
#[cfg(target_arch = "wasm32")]
pub use web::{CachedModel, ModelStore, PageFiles, ReadOptions, WebFiles};

use crate::checkpoint::shards;
use crate::error::{Code, Error, Result};

/// The files of one model in diffusers' folder layout, or its one file. Paths are relative, with `/`.
#[allow(async_fn_in_trait)] // One thread: nobody needs the futures to be `Send`.
pub trait ModelFiles {
    /// [`NoCopy`] where models are not kept quantised.
    type Packed: PackedCopy;

    /// What the model is called: its Hub id, its address, its folder.
    fn name(&self) -> &str;

    /// A small file, whole; `None` if the model has none of that name.
    async fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>>;

    /// Whether the model has this file.
    async fn exists(&self, path: &str) -> Result<bool>;

    /// Streams a file: `sink` gets its bytes in order, some MiB at a time at most, and is awaited before
    /// it gets more. An error of the sink ends the read and is returned.
    async fn read(&self, path: &str, sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<()>;

    /// The path of the one checkpoint file, if this is no folder: [`SingleFile`] makes a folder of it.
    fn single_file(&self) -> Option<&str> {
        None
    }

    /// Length of a file in bytes. `Network` if there is none.
    async fn size(&self, path: &str) -> Result<u64>;

    /// Exactly `len` bytes of a file from `offset` on. Meant for reading from front to back with jumps: bytes
    /// further on may be fetched early.
    async fn read_at(&self, path: &str, offset: u64, len: usize) -> Result<Vec<u8>>;

    /// The packed copy of the weights at `path`, in the cache or to be made, if this model is kept quantised.
    fn packed_copy(&self, _path: &str) -> Option<Self::Packed> {
        None
    }

    /// A small file that must be there. `Network` if it is not.
    async fn required(&self, path: &str) -> Result<Vec<u8>> {
        self.bytes(path).await?.ok_or_else(|| {
            let message = format!(
                "{} has no file {path}. It must be a model in diffusers' folder layout; check the name, the \
                 revision and the address",
                self.name()
            );
            Error::new(Code::Network, message)
        })
    }

    /// A JSON file that must be there. `Network` if it is not, `BadCheckpoint` if it does not parse as `T`.
    async fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        let bytes = self.required(path).await?;
        serde_json::from_slice(&bytes).map_err(|e| {
            Error::bad_checkpoint(format!("{path} of {} is not the JSON that it should be: {e}", self.name()))
        })
    }

    /// The files that hold the weights of `component` (`unet`, `vae`, `text_encoder`, ...): one, or the
    /// shards of one. `variant` is diffusers' (`"fp16"`); as there, a component without that variant is
    /// read from its plain files. Without a variant the plain files are taken, else the fp16 ones. A
    /// `component` of "" means files at the root, as of a VAE alone.
    /// `Network` if there are none.
    async fn weights(&self, component: &str, variant: Option<&str>) -> Result<Vec<String>> {
        let stem = if component.starts_with("text_encoder") { "model" } else { "diffusion_pytorch_model" };
        let plain = [format!("{stem}.safetensors"), format!("{stem}.safetensors.index.json")];
        let of = |v: &str| [format!("{stem}.{v}.safetensors"), format!("{stem}.safetensors.index.{v}.json")];
        let names = match variant {
            Some(v) => [of(v), plain],
            None => [plain, of("fp16")],
        };
        let folder = if component.is_empty() { String::new() } else { format!("{component}/") };
        for name in names.as_flattened() {
            let path = format!("{folder}{name}");
            if name.ends_with(".json") {
                if let Some(index) = self.bytes(&path).await? {
                    let files = shards::files(&index)?;
                    return Ok(files.into_iter().map(|f| format!("{folder}{f}")).collect());
                }
            } else if self.exists(&path).await? {
                return Ok(vec![path]);
            }
        }
        let message = format!(
            "{} has no safetensors weights in {folder} (looked for {}). Choose a revision or a copy of the \
             model that has them",
            self.name(),
            names.as_flattened().join(", ")
        );
        Err(Error::new(Code::Network, message))
    }
}

/// How far the download of a file is: the payload of transformers.js.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// `initiate`, `download`, `progress`, `done`.
    pub status: &'static str,
    /// The model's name.
    pub name: String,
    /// The file's path in the model.
    pub file: String,
    /// Bytes so far.
    pub loaded: u64,
    /// Bytes in all; 0 while that is not known.
    pub total: u64,
    /// Percent, 0 to 100.
    pub progress: f64,
    /// Whether all of the file was in the cache when reading began.
    pub from_cache: bool,
}
