//! A whole safetensors file, byte by byte as it arrives, routed tensor by tensor.

use super::fp8;
use super::header::{Dtype, Header, TensorInfo};
use super::pack::{Layout, Packer};
use crate::error::{Error, Result};

/// Where the tensors of a file go.
pub trait Target {
    /// Names a place for one tensor: a buffer, an index into a table.
    type Dest;

    /// Asked once for every tensor of a file, in the file's order, as soon as the header is read and
    /// before any data. `None` ignores the tensor; an error refuses the file.
    fn want(&mut self, tensor: &TensorInfo) -> Result<Option<(Layout, Self::Dest)>>;

    /// Packed bytes of one tensor, in order and without gaps from 0 to [`Layout::packed_bytes`]; `offset`
    /// and the length are multiples of 4.
    fn write(&mut self, dest: &Self::Dest, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Whether a tensor is wanted as f32, [`Layout::wide_bytes`] of it.
    fn wide(&self, _dest: &Self::Dest) -> bool {
        false
    }

    /// f16 does not hold a value of this tensor, as `refusal` says. `Ok` goes on without the rest of it.
    fn overflow(&mut self, _dest: &Self::Dest, refusal: Error) -> Result<()> {
        Err(refusal)
    }
}

/// Takes a file's bytes in order, cut anywhere, and writes the tensors that are wanted to a [`Target`].
/// Holds the header, one row and about 1 MiB, whatever the file's size.
///
/// ```ignore
/// let mut unpacker = FileUnpacker::new("unet/diffusion_pytorch_model.safetensors");
/// files.read(&path, async |bytes| unpacker.push(bytes, &mut target)).await?;
/// unpacker.finish()?;
/// ```
pub struct FileUnpacker<T: Target> {
    file: String,
    state: State<T::Dest>,
}

enum State<D> {
    /// Length and JSON so far.
    Header(Vec<u8>),
    Data {
        tensors: Vec<Incoming<D>>,
        /// The first of them that has not come whole.
        next: usize,
        /// File offset of the next byte.
        at: u64,
        end: u64,
    },
}

/// A tensor that is not complete: its bytes that are still to come, and what becomes of them.
struct Incoming<D> {
    left: u64,
    becomes: Becomes<D>,
}

enum Becomes<D> {
    Nothing,
    Packed(Packer, D),
    /// What another is multiplied by, and its bytes so far.
    Scale {
        weight: usize,
        dtype: Dtype,
        bytes: Vec<u8>,
    },
}

impl<T: Target> FileUnpacker<T> {
    /// `file`: its name, for error messages.
    pub fn new(file: impl Into<String>) -> Self {
        FileUnpacker { file: file.into(), state: State::Header(Vec::new()) }
    }

    /// Takes the file's next bytes. `BadCheckpoint` if the file breaks its format, a value is not finite
    /// in f16, or more bytes come than the header says; and whatever the target refuses with.
    pub fn push(&mut self, bytes: &[u8], target: &mut T) -> Result<()> {
        self.push_inner(bytes, target).map_err(|e| in_file(&self.file, e))
    }

    /// To be called after the last byte. `BadCheckpoint` if the file is truncated.
    pub fn finish(self) -> Result<()> {
        let (have, due) = match &self.state {
            State::Header(_) => (None, 0),
            State::Data { at, end, .. } if at < end => (Some(*at), *end),
            State::Data { .. } => return Ok(()),
        };
        let found = match have {
            None => "it ends within its header".to_string(),
            Some(at) => format!("{at} of {due} bytes are there"),
        };
        Err(in_file(
            &self.file,
            Error::bad_checkpoint(format!("truncated: {found}. Download the file again")),
        ))
    }

    fn push_inner(&mut self, mut bytes: &[u8], target: &mut T) -> Result<()> {
        if let State::Header(head) = &mut self.state {
            // The length first, so that no more is held than the header.
            for part in 0..2 {
                let due = match head.first_chunk::<8>() {
                    Some(&first) => 8 + Header::json_len(first)?,
                    None => 8,
                };
                let (now, rest) = bytes.split_at(bytes.len().min(due - head.len()));
                head.extend_from_slice(now);
                bytes = rest;
                if head.len() < due {
                    return Ok(());
                }
                if part == 1 {
                    break;
                }
            }
            let header = Header::parse(head.get(8..).unwrap_or_default())?;
            let tensors = incoming(&header.tensors, target)?;
            let end = header.data_start + header.data_len;
            self.state = State::Data { tensors, next: 0, at: header.data_start, end };
        }
        let State::Data { tensors, next, at, end } = &mut self.state else { return Ok(()) };
        while let Some(tensor) = tensors.get_mut(*next) {
            let n = tensor.left.min(bytes.len() as u64) as usize;
            let (now, rest) = bytes.split_at(n);
            bytes = rest;
            tensor.left -= n as u64;
            *at += n as u64;
            match &mut tensor.becomes {
                Becomes::Nothing => {}
                Becomes::Scale { bytes, .. } => bytes.extend_from_slice(now),
                Becomes::Packed(packer, dest) => {
                    match packer.push(now, &mut |offset, bytes| target.write(dest, offset, bytes)) {
                        Err(e) if packer.overflowed() => {
                            target.overflow(dest, e)?;
                            tensor.becomes = Becomes::Nothing;
                        }
                        pushed => pushed?,
                    }
                }
            }
            if tensor.left > 0 {
                return Ok(());
            }
            *next += 1;
            match std::mem::replace(&mut tensor.becomes, Becomes::Nothing) {
                Becomes::Nothing => {}
                Becomes::Packed(packer, dest) => {
                    packer.finish(&mut |offset, bytes| target.write(&dest, offset, bytes))?;
                }
                Becomes::Scale { weight, dtype, bytes } => {
                    if let Some(Incoming { becomes: Becomes::Packed(packer, _), .. }) =
                        tensors.get_mut(weight)
                    {
                        packer.scale(fp8::numbers(dtype, &bytes));
                    }
                }
            }
        }
        if !bytes.is_empty() {
            return Err(Error::bad_checkpoint(format!(
                "{} bytes or more follow the {end} that the header speaks of. Download the file again",
                bytes.len()
            )));
        }
        Ok(())
    }
}

/// What becomes of each tensor of a file.
fn incoming<T: Target>(infos: &[TensorInfo], target: &mut T) -> Result<Vec<Incoming<T::Dest>>> {
    let mut tensors = Vec::with_capacity(infos.len());
    for info in infos {
        let becomes = match target.want(info)? {
            Some((layout, dest)) => {
                let packer = Packer::new(info, layout)?;
                Becomes::Packed(if target.wide(&dest) { packer.wide() } else { packer }, dest)
            }
            None => Becomes::Nothing,
        };
        tensors.push(Incoming { left: info.end - info.begin, becomes });
    }
    for (weight, scale) in fp8::scales(infos) {
        if !matches!(tensors[weight].becomes, Becomes::Packed(..)) {
            continue;
        }
        let (of, info) = (&infos[weight], &infos[scale]);
        fp8::check_scale(info, of)?;
        if scale > weight {
            return Err(Error::bad_checkpoint(format!(
                "tensor {:?} lies behind {:?}, which it scales, and files are read from front to back. Save the file \
                 again with the safetensors library, which puts it before",
                info.name, of.name
            )));
        }
        tensors[scale].becomes = Becomes::Scale { weight, dtype: info.dtype, bytes: Vec::new() };
    }
    Ok(tensors)
}

/// Names the file in a message.
fn in_file(file: &str, e: Error) -> Error {
    Error::new(e.code, format!("{file}: {}", e.message))
}
