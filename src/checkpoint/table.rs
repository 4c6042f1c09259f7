//! The tensors of any checkpoint file (.safetensors, .ckpt, .pt, .pth, .bin), found by reading at places rather than
//! from the first byte to the last, and read one by one.
//!
//! ```ignore
//! let table = Table::open(&file).await?;
//! for tensor in &table.tensors {
//!     let values: Vec<f32> = table.values(&file, tensor).await?;
//! }
//! ```

use super::header::{Dtype, Header, TensorInfo};
use super::located::{Base, Located, ReadAt};
use super::{fp8, torch, zip};
use crate::error::{Error, Result};
use half::{bf16, f16};

/// Bytes of a read at most, beginning and ending at multiples of it, as the cache's chunks do.
const WINDOW: u64 = 4 << 20;

/// What is in a file.
#[derive(Clone, Debug)]
pub struct Table {
    /// In the file's own order: of their bytes (.safetensors), of the dictionary (pickles).
    pub tensors: Vec<Located>,
}

impl Table {
    /// Reads the header, or the pickle, and nothing else.
    ///
    /// `BadCheckpoint` for a file that breaks its format, lies about sizes, or (a pickle) wants to call what no
    /// weights need; nothing of a pickle is ever executed.
    pub async fn open<R: ReadAt>(file: &R) -> Result<Table> {
        let size = file.size().await?;
        let head = file.read_at(0, size.min(64) as usize).await?;
        // The length that a .safetensors file begins with may look like anything; its JSON does not.
        if head.get(8) == Some(&b'{') {
            open_safetensors(file, size, &head).await
        } else if head.starts_with(b"PK\x03\x04") {
            Ok(Table { tensors: torch::open_zip(file).await? })
        } else if torch::is_legacy(&head) {
            Ok(Table { tensors: torch::open_legacy(file, size).await? })
        } else if head.first() == Some(&0x80) {
            Err(Error::bad_checkpoint(
                "this is a pickle, but not one that torch.save writes. Choose a .safetensors file",
            ))
        } else {
            open_safetensors(file, size, &head).await
        }
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Located> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// A tensor's values, row-major. For small ones: it is held whole.
    ///
    /// `BadCheckpoint` if it is not of a floating-point type (F16, BF16, F32, F64, F8_E4M3, F8_E5M2) or an integer type.
    pub async fn values<R: ReadAt>(&self, file: &R, tensor: &Located) -> Result<Vec<f32>> {
        let mut reader = TensorReader::new(file);
        let mut bytes = Vec::new();
        reader
            .read(tensor, 0, tensor.bytes, async |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })
            .await?;
        let values = match tensor.dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
            Dtype::F8_E4M3 | Dtype::F8_E5M2 => bytes.iter().map(|&b| fp8::value(tensor.dtype, b)).collect(),
            Dtype::I64 => bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f32).collect(),
            Dtype::I32 => bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b) as f32).collect(),
            other => {
                return Err(Error::bad_checkpoint(format!(
                    "tensor {:?} is {other:?}; weights are read from F16, BF16, F32, F64, F8_E4M3 and F8_E5M2. \
                     Choose a file that is not quantised otherwise",
                    tensor.name
                )));
            }
        };
        Ok(values)
    }
}

/// Reads ranges of a file in pieces of some MiB, each piece once where they come from front to back.
pub struct TensorReader<'a, R> {
    file: &'a R,
    size: Option<u64>,
    start: u64,
    window: Vec<u8>,
    /// The entry whose header was read last, and where its content begins.
    entry: Option<(u64, u64)>,
}

impl<'a, R: ReadAt> TensorReader<'a, R> {
    pub fn new(file: &'a R) -> Self {
        TensorReader { file, size: None, start: 0, window: Vec::new(), entry: None }
    }

    /// Hands on the bytes `begin..end` of a tensor, in order.
    ///
    /// `BadCheckpoint` for a tensor that is a strided view; what the file or `sink` fails with.
    pub async fn read(
        &mut self,
        tensor: &Located,
        begin: u64,
        end: u64,
        mut sink: impl AsyncFnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        if !tensor.contiguous {
            return Err(Error::bad_checkpoint(format!(
                "tensor {:?} was saved as a transposed or strided view, which is not read here. Save it with \
                 .contiguous(), best as .safetensors",
                tensor.name
            )));
        }
        let base = match tensor.base {
            Base::File => 0,
            Base::Entry(header) => self.content(header).await?,
        };
        let mut at = base + tensor.offset + begin;
        let end = base + tensor.offset + end.min(tensor.bytes);
        while at < end {
            let bytes = self.at(at, end).await?;
            if bytes.is_empty() {
                return Err(Error::bad_checkpoint("truncated. Download the file again"));
            }
            let n = bytes.len();
            sink(bytes).await?;
            at += n as u64;
        }
        Ok(())
    }

    /// Where the content of the entry at `header` begins.
    async fn content(&mut self, header: u64) -> Result<u64> {
        if let Some((of, content)) = self.entry
            && of == header
        {
            return Ok(content);
        }
        let mut bytes = Vec::new();
        while bytes.len() < zip::LOCAL_HEADER as usize {
            let at = header + bytes.len() as u64;
            let more = self.at(at, header + zip::LOCAL_HEADER).await?;
            if more.is_empty() {
                break;
            }
            bytes.extend_from_slice(more);
        }
        let content = header + zip::content_offset(&bytes)?;
        self.entry = Some((header, content));
        Ok(content)
    }

    /// Some bytes from `at` on, up to `end` at most; none behind the end of the file.
    async fn at(&mut self, at: u64, end: u64) -> Result<&[u8]> {
        let held = self.start..self.start + self.window.len() as u64;
        if !held.contains(&at) {
            let size = match self.size {
                Some(size) => size,
                None => *self.size.insert(self.file.size().await?),
            };
            let stop = (at / WINDOW + 1).saturating_mul(WINDOW).min(size);
            if at >= stop {
                return Ok(&[]);
            }
            // The old window goes first: only one is held.
            self.window = Vec::new();
            self.window = self.file.read_at(at, (stop - at) as usize).await?;
            self.start = at;
        }
        let from = (at - self.start) as usize;
        let to = (self.window.len() as u64).min(end - self.start) as usize;
        Ok(self.window.get(from..to).unwrap_or_default())
    }
}

async fn open_safetensors<R: ReadAt>(file: &R, size: u64, head: &[u8]) -> Result<Table> {
    let Some(&first) = head.first_chunk::<8>() else {
        return Err(Error::bad_checkpoint("truncated: it has no header. Download the file again"));
    };
    let len = Header::json_len(first)?;
    if len as u64 + 8 > size {
        return Err(Error::bad_checkpoint("truncated: it ends within its header. Download the file again"));
    }
    let header = Header::parse(&file.read_at(8, len).await?)?;
    if header.data_start + header.data_len != size {
        return Err(Error::bad_checkpoint(format!(
            "truncated: {size} of {} bytes are there. Download the file again",
            header.data_start + header.data_len
        )));
    }
    let start = header.data_start;
    let locate = |t: TensorInfo| Located {
        name: t.name,
        dtype: t.dtype,
        shape: t.shape,
        base: Base::File,
        offset: start + t.begin,
        bytes: t.end - t.begin,
        contiguous: true,
    };
    Ok(Table { tensors: header.tensors.into_iter().map(locate).collect() })
}
