//! What is kept of weights that were quantised as they came: the bytes on the GPU, tensor by tensor, with a
//! header. Like a safetensors file: 64 bits with the header's length, the header as JSON, the data. The header names
//! each tensor's [`Layout`] and whether it is f32, and whoever loads it with another layout does not get it.

use super::pack::Layout;
use crate::error::{Error, Result};
use std::collections::VecDeque;

/// Counts changes of the format, and of what quantising makes of a tensor.
const VERSION: u32 = 1;

#[derive(serde::Serialize, serde::Deserialize)]
struct Header {
    version: u32,
    /// Name, layout, bytes.
    tensors: Vec<(String, String, u64)>,
}

fn layout_name(layout: Layout, wide: bool) -> String {
    if wide { format!("f32 {layout}") } else { layout.to_string() }
}

fn size(layout: Layout, wide: bool) -> u64 {
    if wide { layout.wide_bytes() } else { layout.packed_bytes().unwrap_or(u64::MAX) }
}

/// Makes the bytes: first all tensors, in order, then their packed bytes in the same order.
#[derive(Default)]
pub struct Writer {
    tensors: Vec<(String, String, u64)>,
    begun: bool,
    /// What has not been taken.
    out: Vec<u8>,
}

impl Writer {
    /// The next tensor. `wide`: as f32.
    pub fn tensor(&mut self, name: &str, layout: Layout, wide: bool) {
        self.tensors.push((name.into(), layout_name(layout, wide), size(layout, wide)));
    }

    /// The next packed bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        if !self.begun {
            self.begun = true;
            let header = Header { version: VERSION, tensors: std::mem::take(&mut self.tensors) };
            // A struct of strings and numbers has a JSON.
            let mut json = serde_json::to_vec(&header).unwrap_or_default();
            // WebGPU takes whole words.
            json.resize(json.len().next_multiple_of(4), b' ');
            self.out.extend_from_slice(&(json.len() as u64).to_le_bytes());
            self.out.extend_from_slice(&json);
        }
        self.out.extend_from_slice(bytes);
    }

    /// The next `most` bytes, once they are there; with `rest`, what is left at the end.
    pub fn take(&mut self, most: usize, rest: bool) -> Option<Vec<u8>> {
        if self.out.is_empty() || self.out.len() < most && !rest {
            return None;
        }
        let after = self.out.split_off(most.min(self.out.len()));
        Some(std::mem::replace(&mut self.out, after))
    }
}

/// Reads what a [`Writer`] has made, cut at any multiple of four bytes.
#[derive(Default)]
pub struct Reader {
    head: Vec<u8>,
    tensors: Option<VecDeque<(String, u64)>>,
    /// Bytes of the first of `tensors` that have come.
    at: u64,
    /// Tensors that were kept as f32, where f16 is expected.
    wider: Vec<String>,
}

impl Reader {
    /// Takes the next bytes. `layout` says how a tensor must be laid out, and whether as f32; `write` gets its name, an
    /// offset and the bytes from there on.
    ///
    /// # Errors
    /// `BadCheckpoint` if these are not the bytes of a `Writer` of this version and of these layouts;
    /// `UnsupportedModel` where all that differs is that some are f32 here, see [`Reader::wider`]; what `write` fails
    /// with.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        layout: impl Fn(&str) -> Option<(Layout, bool)>,
        mut write: impl FnMut(&str, u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let stale = || Error::bad_checkpoint("what was kept of these weights is of another version");
        if self.tensors.is_none() {
            let due = loop {
                let due = match self.head.first_chunk::<8>() {
                    Some(&n) => {
                        usize::try_from(u64::from_le_bytes(n)).map_err(|_| stale())?.saturating_add(8)
                    }
                    None => 8,
                };
                let (now, rest) = bytes.split_at(bytes.len().min(due - self.head.len()));
                self.head.extend_from_slice(now);
                bytes = rest;
                if self.head.len() < due {
                    return Ok(());
                }
                if due > 8 {
                    break due;
                }
                if self.head.first_chunk() == Some(&[0; 8]) {
                    return Err(stale());
                }
            };
            let json = self.head.get(8..due).unwrap_or_default();
            let header: Header = serde_json::from_slice(json).map_err(|_| stale())?;
            if header.version != VERSION {
                return Err(stale());
            }
            let mut tensors = VecDeque::with_capacity(header.tensors.len());
            for (name, lies, bytes) in header.tensors {
                let (layout, wide) = layout(&name).ok_or_else(stale)?;
                if !wide && layout_name(layout, true) == lies {
                    self.wider.push(name);
                } else if layout_name(layout, wide) != lies || size(layout, wide) != bytes {
                    return Err(stale());
                } else {
                    tensors.push_back((name, bytes));
                }
            }
            if !self.wider.is_empty() {
                return Err(Error::unsupported("tensors that were kept as f32"));
            }
            self.tensors = Some(tensors);
        }
        let tensors = self.tensors.get_or_insert_default();
        while let Some((name, size)) = tensors.front() {
            let n = (size - self.at).min(bytes.len() as u64) as usize;
            let (now, rest) = bytes.split_at(n);
            if n > 0 {
                write(name, self.at, now)?;
            }
            bytes = rest;
            self.at += n as u64;
            if self.at < *size {
                return Ok(());
            }
            self.at = 0;
            tensors.pop_front();
        }
        if bytes.is_empty() { Ok(()) } else { Err(stale()) }
    }

    /// Tensors that were kept as f32, where f16 was expected: to be asked for so.
    pub fn wider(&self) -> &[String] {
        &self.wider
    }

    /// Whether all has come.
    pub fn complete(&self) -> bool {
        self.tensors.as_ref().is_some_and(VecDeque::is_empty)
    }
}
