//! The directory of a zip archive, as far as `torch.save` uses the format: stored entries, zip64 where needed.
//! Format: PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3.

use super::located::ReadAt;
use crate::error::{Error, Result};

/// Longest directory that is read: 90 bytes an entry.
const MAX_DIRECTORY: u64 = 16 << 20;
const MAX_ENTRIES: usize = 100_000;
/// Length of a local header before its name.
pub(super) const LOCAL_HEADER: u64 = 30;

/// A stored entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub name: String,
    /// Where its local header begins; its bytes follow that header, whose length only it tells.
    pub header: u64,
    pub bytes: u64,
}

fn bad(message: impl std::fmt::Display) -> Error {
    Error::bad_checkpoint(format!("the archive {message}. Download the file again"))
}

/// Reads the directory. `BadCheckpoint` if there is none, or an entry is compressed, encrypted or reaches beyond the
/// file.
pub(super) async fn directory<R: ReadAt>(file: &R) -> Result<Vec<Entry>> {
    let size = file.size().await?;
    // The end record is the last thing, before a comment of at most 64 KiB; zip64's records stand before it.
    let tail_len = size.min(22 + 0xffff + 20 + 56);
    let tail_at = size - tail_len;
    let tail = file.read_at(tail_at, tail_len as usize).await?;
    let end = (0..tail.len().saturating_sub(21))
        .rev()
        .find(|&i| tail[i..].starts_with(b"PK\x05\x06"))
        .ok_or_else(|| bad("has no directory: it is truncated"))?;
    let mut count = u64::from(u16_at(&tail, end + 10)?);
    let mut bytes = u64::from(u32_at(&tail, end + 12)?);
    let mut start = u64::from(u32_at(&tail, end + 16)?);
    if count == 0xffff || bytes == 0xffff_ffff || start == 0xffff_ffff {
        let locator = end.checked_sub(20).filter(|&l| tail[l..].starts_with(b"PK\x06\x07"));
        let locator = locator.ok_or_else(|| bad("lacks its zip64 record"))?;
        let record = u64_at(&tail, locator + 8)?;
        let record = match record.checked_sub(tail_at) {
            Some(at) => tail.get(at as usize..).unwrap_or_default().to_vec(),
            None => file.read_at(record, 56).await?,
        };
        if !record.starts_with(b"PK\x06\x06") {
            return Err(bad("lacks its zip64 record"));
        }
        (count, bytes, start) = (u64_at(&record, 32)?, u64_at(&record, 40)?, u64_at(&record, 48)?);
    }
    if bytes > MAX_DIRECTORY || start.checked_add(bytes).is_none_or(|end| end > size) {
        return Err(bad("has a directory that cannot be its own"));
    }
    let directory = file.read_at(start, bytes as usize).await?;
    let mut entries = Vec::new();
    let mut at = 0;
    while at < directory.len() {
        if entries.len() == MAX_ENTRIES {
            return Err(bad(format!("has more than {MAX_ENTRIES} entries")));
        }
        if !directory[at..].starts_with(b"PK\x01\x02") {
            return Err(bad("has a damaged directory"));
        }
        let (flags, method) = (u16_at(&directory, at + 8)?, u16_at(&directory, at + 10)?);
        let mut stored = u64::from(u32_at(&directory, at + 20)?);
        let mut plain = u64::from(u32_at(&directory, at + 24)?);
        let name_len = usize::from(u16_at(&directory, at + 28)?);
        let extra_len = usize::from(u16_at(&directory, at + 30)?);
        let comment_len = usize::from(u16_at(&directory, at + 32)?);
        let mut header = u64::from(u32_at(&directory, at + 42)?);
        let part = |from: usize, len: usize| {
            directory.get(from..from + len).ok_or_else(|| bad("has a damaged directory"))
        };
        let name = part(at + 46, name_len)?;
        let mut extra = part(at + 46 + name_len, extra_len)?;
        at += 46 + name_len + extra_len + comment_len;
        let name = std::str::from_utf8(name).map_err(|_| bad("has a name that is no text"))?;
        // zip64: 64-bit values of those fields that are full, in this order.
        while let [a, b, c, d, rest @ ..] = extra {
            let len = usize::from(u16::from_le_bytes([*c, *d]));
            let body = rest.get(..len).ok_or_else(|| bad("has a damaged directory"))?;
            extra = rest.get(len..).unwrap_or_default();
            if u16::from_le_bytes([*a, *b]) == 1 {
                let mut values = body.as_chunks().0.iter().map(|v| u64::from_le_bytes(*v));
                for field in [&mut plain, &mut stored, &mut header] {
                    if *field == 0xffff_ffff {
                        *field = values.next().ok_or_else(|| bad("has a damaged directory"))?;
                    }
                }
            }
        }
        if name.ends_with('/') {
            continue;
        }
        if flags & 1 != 0 || method != 0 || stored != plain {
            return Err(Error::bad_checkpoint(format!(
                "the archive's entry {name:?} is compressed or encrypted, which torch never writes: unpack it \
                 first, or choose a .safetensors file"
            )));
        }
        let last = header.checked_add(LOCAL_HEADER + name_len as u64).and_then(|n| n.checked_add(plain));
        if last.is_none_or(|last| last > size) {
            return Err(bad(format!("is truncated: its entry {name:?} does not lie within it")));
        }
        entries.push(Entry { name: name.to_owned(), header, bytes: plain });
    }
    if entries.len() as u64 > count {
        return Err(bad("has more entries than it says"));
    }
    Ok(entries)
}

/// Bytes from an entry's local header to its content. `header` holds the first [`LOCAL_HEADER`] bytes.
pub(super) fn content_offset(header: &[u8]) -> Result<u64> {
    if !header.starts_with(b"PK\x03\x04") {
        return Err(bad("has an entry that does not lie where its directory says"));
    }
    Ok(LOCAL_HEADER + u64::from(u16_at(header, 26)?) + u64::from(u16_at(header, 28)?))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes.get(at..).and_then(|b| b.first_chunk()).copied().ok_or_else(|| bad("has a damaged directory"))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    field(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    field(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    field(bytes, at).map(u64::from_le_bytes)
}
