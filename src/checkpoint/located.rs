//! A file that can be read at any place, and where in it a tensor lies.

use super::header::Dtype;
use crate::error::{Error, Result};

/// A file that can be read at any place.
#[allow(async_fn_in_trait)] // One thread: nobody needs the futures to be `Send`.
pub trait ReadAt {
    /// Its length in bytes.
    async fn size(&self) -> Result<u64>;
    /// Exactly `len` bytes from `offset` on; an error if the file ends before.
    async fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>>;
}

impl ReadAt for &[u8] {
    async fn size(&self) -> Result<u64> {
        Ok(self.len() as u64)
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let bytes = usize::try_from(offset).ok().and_then(|at| self.get(at..)?.get(..len));
        bytes.map(<[u8]>::to_vec).ok_or_else(|| Error::bad_checkpoint("truncated. Download the file again"))
    }
}

/// A tensor and where its bytes are.
#[derive(Clone, Debug)]
pub struct Located {
    /// Its name: in a pickle the path through its dictionaries, joined by dots (`state_dict.conv.weight`,
    /// `params_ema.conv_first.weight`, `string_to_param.*`).
    pub name: String,
    pub dtype: Dtype,
    /// Row-major, outermost first.
    pub shape: Vec<u64>,
    pub(super) base: Base,
    /// Bytes from the base to its first element.
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) contiguous: bool,
}

/// What an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Base {
    File,
    /// The content of the zip entry whose local header begins here. Only that header tells where its content
    /// begins, so it is read along with the content.
    Entry(u64),
}

impl Located {
    /// Number of elements; opening the table has shown that it fits.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The refusal of one that a dimension of 0 leaves without a value.
    pub fn empty(&self) -> Error {
        Error::bad_checkpoint(format!(
            "tensor {:?} has the shape {:?}, with nothing in it. Choose another copy of the file",
            self.name, self.shape
        ))
    }

    /// A key to sort by: tensors in its order are read from front to back.
    pub fn order(&self) -> (u64, u64) {
        match self.base {
            Base::File => (0, self.offset),
            Base::Entry(header) => (header, self.offset),
        }
    }
}
