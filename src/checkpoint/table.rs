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
use super::pickle::{self, Fail};
use super::zip;
use crate::error::{Error, Result};
use half::{bf16, f16};
use std::collections::HashMap;

/// Longest pickle that is read: SD 1.5's takes 200 KB, a training checkpoint's some MB.
pub(super) const MAX_PICKLE: usize = 32 << 20;
/// First bytes of a legacy file that are parsed; doubled as long as its pickles go on.
const FIRST_GUESS: usize = 256 << 10;
/// Bytes of a read at most, beginning and ending at multiples of it, as the cache's chunks do.
const WINDOW: u64 = 4 << 20;

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

/// A tensor and where its bytes lie.
#[derive(Clone, Debug)]
pub struct Located {
    /// Its name: in a pickle the path through its dictionaries, joined by dots (`state_dict.conv.weight`,
    /// `params_ema.conv_first.weight`, `string_to_param.*`).
    pub name: String,
    pub dtype: Dtype,
    /// Row-major, outermost first.
    pub shape: Vec<u64>,
    base: Base,
    /// Bytes from the base to its first element.
    offset: u64,
    bytes: u64,
    contiguous: bool,
}

/// What an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Base {
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

    /// Where it lies among the others: tensors read in the order of this are read from front to back.
    pub fn order(&self) -> (u64, u64) {
        match self.base {
            Base::File => (0, self.offset),
            Base::Entry(header) => (header, self.offset),
        }
    }
}

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
            open_zip(file).await
        } else if is_legacy(&head) {
            open_legacy(file, size).await
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
    /// `BadCheckpoint` if it is not of a floating-point type (F16, BF16, F32, F64) or an integer type.
    pub async fn values<R: ReadAt>(&self, file: &R, tensor: &Located) -> Result<Vec<f32>> {
        let mut reader = Reader::new(file);
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
            Dtype::I64 => bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f32).collect(),
            Dtype::I32 => bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b) as f32).collect(),
            other => {
                return Err(Error::bad_checkpoint(format!(
                    "tensor {:?} is {other:?}; weights are read from F16, BF16, F32 and F64. Choose a file \
                     that is not quantised",
                    tensor.name
                )));
            }
        };
        Ok(values)
    }
}

/// Reads ranges of a file in pieces of some MiB, each piece once where they come from front to back.
pub struct Reader<'a, R> {
    file: &'a R,
    size: Option<u64>,
    start: u64,
    window: Vec<u8>,
    /// The entry whose header was read last, and where its content begins.
    entry: Option<(u64, u64)>,
}

impl<'a, R: ReadAt> Reader<'a, R> {
    pub fn new(file: &'a R) -> Self {
        Reader { file, size: None, start: 0, window: Vec::new(), entry: None }
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

/// A file of `torch.save` since 1.6: a zip archive of `data.pkl` and one stored entry for each storage.
async fn open_zip<R: ReadAt>(file: &R) -> Result<Table> {
    let entries = zip::directory(file).await?;
    let is_pickle = |e: &&zip::Entry| e.name == "data.pkl" || e.name.ends_with("/data.pkl");
    let mut pickles = entries.iter().filter(is_pickle);
    let (Some(pickle), None) = (pickles.next(), pickles.next()) else {
        return Err(Error::bad_checkpoint(
            "this archive is not one that torch.save writes: it has no data.pkl, or several. If a checkpoint \
             lies in it, unpack it first",
        ));
    };
    let prefix = pickle.name.trim_end_matches("data.pkl");
    let by_name: HashMap<&str, &zip::Entry> = entries.iter().map(|e| (e.name.as_str(), e)).collect();
    if let Some(order) = by_name.get(format!("{prefix}byteorder").as_str())
        && content(file, order, 16).await? != b"little"
    {
        return Err(Error::bad_checkpoint("it was saved on a big-endian machine, which is not read here"));
    }
    let pickled = pickle::parse(&content(file, pickle, MAX_PICKLE).await?).map_err(refusal)?;
    let mut places = Vec::new();
    for storage in &pickled.storages {
        let name = format!("{prefix}data/{}", storage.key);
        let bytes = storage_bytes(storage)?;
        places.push(
            by_name.get(name.as_str()).filter(|e| e.bytes >= bytes).map(|e| (Base::Entry(e.header), 0)),
        );
    }
    locate(pickled, &places)
}

/// The content of a small entry.
async fn content<R: ReadAt>(file: &R, entry: &zip::Entry, most: usize) -> Result<Vec<u8>> {
    if entry.bytes > most as u64 {
        return Err(Error::bad_checkpoint(format!(
            "the archive's entry {:?} has {} bytes, more than any checkpoint's",
            entry.name, entry.bytes
        )));
    }
    let header = file.read_at(entry.header, zip::LOCAL_HEADER as usize).await?;
    file.read_at(entry.header + zip::content_offset(&header)?, entry.bytes as usize).await
}

/// torch's magic number, as the first pickle of a legacy file holds it.
const MAGIC: &[u8] = &[0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];

fn is_legacy(head: &[u8]) -> bool {
    head.first() == Some(&0x80) && head.windows(MAGIC.len()).take(32).any(|w| w == MAGIC)
}

/// A file of `torch.save` before 1.6: pickles of a magic number, the protocol, the machine, the object and the
/// storages' keys; then for each key its number of elements (64 bits) and its bytes.
async fn open_legacy<R: ReadAt>(file: &R, size: u64) -> Result<Table> {
    let mut guess = FIRST_GUESS;
    let (object, keys, mut at) = loop {
        let n = size.min(guess as u64) as usize;
        match legacy_pickles(&file.read_at(0, n).await?) {
            Ok(found) => break found,
            Err(Fail::Short) if (n as u64) < size && guess < MAX_PICKLE => guess *= 4,
            Err(fail) => return Err(refusal(fail)),
        }
    };
    let by_key: HashMap<&str, usize> =
        object.storages.iter().enumerate().map(|(i, s)| (s.key.as_str(), i)).collect();
    let mut places = vec![None; object.storages.len()];
    for key in &keys {
        let Some(&i) = by_key.get(key.as_str()) else {
            return Err(Error::bad_checkpoint(format!("it has a storage {key:?} that nothing refers to")));
        };
        if places[i].is_some() {
            return Err(Error::bad_checkpoint(format!("it has two storages of the name {key:?}")));
        }
        let bytes = storage_bytes(&object.storages[i])?;
        places[i] = Some((Base::File, at + 8));
        at = bytes.checked_add(at + 8).filter(|&at| at <= size).ok_or_else(|| {
            Error::bad_checkpoint("truncated: its tensors do not fit into it. Download the file again")
        })?;
    }
    if at != size {
        return Err(Error::bad_checkpoint(format!(
            "its storages end at byte {at}, and it has {size}: their sizes are not what its pickle says"
        )));
    }
    locate(object, &places)
}

/// The object, the storages' keys, and the length of all five pickles.
fn legacy_pickles(bytes: &[u8]) -> std::result::Result<(pickle::Pickle, Vec<String>, u64), Fail> {
    let mut at = 0;
    let mut next = || {
        let pickle = pickle::parse(bytes.get(at..).unwrap_or_default())?;
        at += pickle.len;
        Ok(pickle)
    };
    next()?;
    if next()?.int != Some(1001) {
        return Err(Fail::Bad("it is of a version of torch's format that is not read here".into()));
    }
    if next()?.big_endian {
        return Err(Fail::Bad("it was saved on a big-endian machine, which is not read here".into()));
    }
    let object = next()?;
    let keys = next()?.texts;
    Ok((object, keys, at as u64))
}

fn refusal(fail: Fail) -> Error {
    Error::bad_checkpoint(match fail {
        Fail::Short => "truncated: its pickle breaks off. Download the file again".into(),
        Fail::Bad(message) => message,
    })
}

fn storage_bytes(storage: &pickle::Storage) -> Result<u64> {
    let bytes = storage.numel.checked_mul(storage.dtype.bitsize() as u64 / 8);
    bytes.ok_or_else(|| Error::bad_checkpoint(format!("its storage {:?} has no size", storage.key)))
}

/// `places`: where each storage begins, as far as the file has it.
fn locate(pickled: pickle::Pickle, places: &[Option<(Base, u64)>]) -> Result<Table> {
    let mut tensors = Vec::new();
    for (name, tensor) in pickled.tensors {
        let contiguous = tensor.contiguous();
        let storage = &pickled.storages[tensor.storage];
        let Some((base, start)) = places[tensor.storage] else {
            return Err(Error::bad_checkpoint(format!(
                "truncated: it lacks the bytes of tensor {name:?}. Download the file again"
            )));
        };
        let size = storage.dtype.bitsize() as u64 / 8;
        // The machine has shown that a contiguous tensor lies in its storage, whose bytes are counted.
        let elements: u64 = if contiguous { tensor.shape.iter().product() } else { 0 };
        tensors.push(Located {
            name,
            dtype: storage.dtype,
            base,
            offset: start + tensor.offset * size,
            bytes: elements * size,
            contiguous,
            shape: tensor.shape,
        });
    }
    Ok(Table { tensors })
}
