//! The header of a safetensors file: 8 bytes of length, then JSON that says where each tensor lies.
//!
//! The map is parsed here and not by the `safetensors` crate (whose element types are used), because that one
//! holds offsets as `usize`, which has 32 bits on wasm: no file over 4 GiB (SDXL's UNet) could be read.
//! Format: <https://github.com/huggingface/safetensors#format>.

use crate::error::{Error, Result};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Longest header that is read, as in the format's reference implementation.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Most tensors in one file (SDXL's UNet has 1,680); keeps a hostile header from filling memory.
const MAX_TENSORS: usize = 100_000;
/// Most dimensions of a tensor (a convolution's weight has 4).
const MAX_RANK: usize = 16;

/// Element types of the format.
pub use safetensors::tensor::Dtype;

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name as the file has it.
    pub name: String,
    pub dtype: Dtype,
    /// Row-major shape, outermost first; empty for a scalar.
    pub shape: Vec<u64>,
    /// First byte, counted from the end of the header.
    pub begin: u64,
    /// One past the last byte, counted from the end of the header.
    pub end: u64,
}

impl TensorInfo {
    /// Number of elements. The header's parse has shown that it fits.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// A parsed header. The tensors cover the file's data without holes or overlaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// In the order of their bytes in the file.
    pub tensors: Vec<TensorInfo>,
    /// Where the data begins in the file: 8 + the header's length.
    pub data_start: u64,
    /// Bytes of data; the file is `data_start + data_len` bytes long.
    pub data_len: u64,
}

impl Header {
    /// Length of the JSON, from the first 8 bytes of a file. `BadCheckpoint` if it cannot be one.
    pub fn json_len(first: [u8; 8]) -> Result<usize> {
        let len = u64::from_le_bytes(first);
        if !(2..=MAX_HEADER_BYTES).contains(&len) {
            let hint = match &first {
                [b'P', b'K', ..] => " (it looks like a .ckpt archive)",
                [b'<', ..] => " (it looks like a web page)",
                b"version " => " (it looks like a Git LFS pointer: the weights themselves were not uploaded)",
                _ => "",
            };
            return Err(bad(format!(
                "this is not a safetensors file{hint}: its header would be {len} bytes long. \
                 Check the address, or download the file again"
            )));
        }
        Ok(len as usize)
    }

    /// Parses the JSON that follows the first 8 bytes (all of it, [`Header::json_len`] bytes).
    /// `BadCheckpoint` for anything but tensors that lie one after the other without a gap.
    pub fn parse(json: &[u8]) -> Result<Header> {
        if json.first() != Some(&b'{') {
            return Err(bad("the safetensors header is not JSON. Download the file again".into()));
        }
        let Tensors(mut tensors) = serde_json::from_slice(json).map_err(|e| {
            bad(format!("the safetensors header cannot be read ({e}). Download the file again"))
        })?;
        tensors.sort_by_key(|t| (t.begin, t.end));
        let mut at = 0u64;
        for t in &tensors {
            let TensorInfo { name, begin, end, .. } = t;
            if *begin != at || end < begin {
                return Err(bad(format!(
                    "tensor {name:?} lies at bytes {begin}..{end} where {at} was due: tensors overlap or \
                     leave a hole. Download the file again"
                )));
            }
            let bits = t.shape.iter().try_fold(t.dtype.bitsize() as u64, |n, &d| n.checked_mul(d));
            if bits.is_none_or(|bits| bits % 8 != 0 || bits / 8 != end - begin) {
                return Err(bad(format!(
                    "tensor {name:?} has {} bytes, which its shape {:?} of {:?} does not. \
                     Download the file again",
                    end - begin,
                    t.shape,
                    t.dtype
                )));
            }
            at = *end;
        }
        Ok(Header { tensors, data_start: 8 + json.len() as u64, data_len: at })
    }
}

fn bad(message: String) -> Error {
    Error::bad_checkpoint(message)
}

/// The header's map, in its own order; refuses duplicate names, which a map type would swallow.
struct Tensors(Vec<TensorInfo>);

impl<'de> Deserialize<'de> for Tensors {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Tensors;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tensors, A::Error> {
                use serde::de::Error;
                let mut seen = std::collections::HashSet::new();
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!("{name:?} stands there twice")));
                    }
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if tensors.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
                    }
                    let Described { dtype, shape, data_offsets: (begin, end) } = map.next_value()?;
                    tensors.push(TensorInfo { name, dtype, shape: shape.0, begin, end });
                }
                Ok(Tensors(tensors))
            }
        }
        d.deserialize_map(V)
    }
}

#[derive(serde::Deserialize)]
struct Described {
    dtype: Dtype,
    shape: Shape,
    data_offsets: (u64, u64),
}

struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "a shape of at most {MAX_RANK} dimensions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(d) = seq.next_element()? {
                    if shape.len() == MAX_RANK {
                        return Err(serde::de::Error::invalid_length(MAX_RANK + 1, &self));
                    }
                    shape.push(d);
                }
                Ok(Shape(shape))
            }
        }
        d.deserialize_seq(V)
    }
}
