//! Packed copies: what quantising made of a file of weights, as it lies on the GPU, kept in the place of the weights.

use crate::error::Result;

/// Bytes of a piece that [`PackedCopy::write`] takes.
pub const PACKED_PIECE: usize = 4 << 20;

/// The packed copy of one file of weights: there already, or still to be made.
///
/// Its life: [`read`](Self::read) streams it. Where it is not there, [`original`](Self::original) streams the weights,
/// [`write`](Self::write) keeps what quantising makes of them, and [`finish`](Self::finish) puts it in their place.
#[allow(async_fn_in_trait)] // One thread: nobody needs the futures to be `Send`.
pub trait PackedCopy {
    /// Streams the copy, as [`ModelFiles::read`](super::ModelFiles::read) streams a file. `false` if no earlier load has
    /// finished it, if it is damaged, or if `sink` refuses it as a bad checkpoint: it must be made anew then.
    ///
    /// # Errors
    /// What else `sink` fails with; `Aborted`, `Quota`.
    async fn read(&self, sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<bool>;

    /// Streams the weights that the copy is to be made of. Later loads read the copy instead.
    ///
    /// # Errors
    /// As [`ModelFiles::read`](super::ModelFiles::read).
    async fn original(&self, sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<()>;

    /// Keeps the next piece of the copy: [`PACKED_PIECE`] bytes, the last one fewer.
    ///
    /// # Errors
    /// `Quota`.
    async fn write(&self, piece: &[u8]) -> Result<()>;

    /// All pieces have been written: later loads read the copy, and the weights need not be kept.
    ///
    /// # Errors
    /// `Quota`.
    async fn finish(self) -> Result<()>;
}

/// The packed copy in a place that keeps none: there is no value of this type.
pub enum NoCopy {}

impl PackedCopy for NoCopy {
    async fn read(&self, _sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<bool> {
        match *self {}
    }

    async fn original(&self, _sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<()> {
        match *self {}
    }

    async fn write(&self, _piece: &[u8]) -> Result<()> {
        match *self {}
    }

    async fn finish(self) -> Result<()> {
        match self {}
    }
}
