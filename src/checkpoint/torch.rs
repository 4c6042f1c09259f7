//! The two file formats of `torch.save`: a pickle that describes tensors, and their bytes beside it.

use super::located::{Base, Located, ReadAt};
use super::objects::{Fail, Storage};
use super::pickle::{self, MAX_PICKLE};
use super::zip;
use crate::error::{Error, Result};
use std::collections::HashMap;

/// First bytes of a legacy file that are parsed; four times as many as long as its pickles go on.
const FIRST_GUESS: usize = 256 << 10;

/// A file of `torch.save` since 1.6: a zip archive of `data.pkl` and one stored entry for each storage.
pub(super) async fn open_zip<R: ReadAt>(file: &R) -> Result<Vec<Located>> {
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

pub(super) fn is_legacy(head: &[u8]) -> bool {
    head.first() == Some(&0x80) && head.windows(MAGIC.len()).take(32).any(|w| w == MAGIC)
}

/// A file of `torch.save` before 1.6: pickles of a magic number, the protocol, the machine, the object and the
/// storages' keys; then for each key its number of elements (64 bits) and its bytes.
pub(super) async fn open_legacy<R: ReadAt>(file: &R, size: u64) -> Result<Vec<Located>> {
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

fn storage_bytes(storage: &Storage) -> Result<u64> {
    let bytes = storage.numel.checked_mul(storage.dtype.bitsize() as u64 / 8);
    bytes.ok_or_else(|| Error::bad_checkpoint(format!("its storage {:?} has no size", storage.key)))
}

/// `places`: where each storage begins, as far as the file has it.
fn locate(pickled: pickle::Pickle, places: &[Option<(Base, u64)>]) -> Result<Vec<Located>> {
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
            dtype: tensor.dtype.unwrap_or(storage.dtype),
            base,
            offset: start + tensor.offset * size,
            bytes: elements * size,
            contiguous,
            shape: tensor.shape,
        });
    }
    Ok(tensors)
}
