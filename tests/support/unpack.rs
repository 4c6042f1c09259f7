//! Reads checkpoint files as the engine does, and holds what it is handed to its promises.

use crate::cpu::cpu;
use crate::heap::{heap, heap_peak};
use browser_diffusion::checkpoint::{FileUnpacker, Layout, Target, TensorInfo};
use browser_diffusion::{Code, Error, Result};
use std::collections::BTreeMap;
use std::time::Duration;

/// Collects what the unpacker writes, and holds it to its promises.
#[derive(Default)]
pub struct Collect {
    pub layouts: BTreeMap<String, Layout>,
    pub written: BTreeMap<String, Vec<u8>>,
    pub longest: usize,
    /// Asks for f32.
    pub wide: bool,
}

impl Target for Collect {
    type Dest = String;
    fn want(&mut self, tensor: &TensorInfo) -> Result<Option<(Layout, String)>> {
        Ok(self.layouts.get(&tensor.name).map(|&layout| (layout, tensor.name.clone())))
    }
    fn write(&mut self, dest: &String, offset: u64, bytes: &[u8]) -> Result<()> {
        let all = self.written.entry(dest.clone()).or_default();
        assert_eq!(offset, all.len() as u64, "{dest}: written in order, without gaps");
        assert!(
            offset.is_multiple_of(4) && bytes.len().is_multiple_of(4) && !bytes.is_empty(),
            "{dest}: multiples of 4"
        );
        self.longest = self.longest.max(bytes.len());
        all.extend_from_slice(bytes);
        Ok(())
    }
    fn wide(&self, _: &String) -> bool {
        self.wide
    }
}

/// Reads a whole file, given in these parts.
pub fn unpack<'a>(
    parts: impl IntoIterator<Item = &'a [u8]>,
    layouts: &BTreeMap<String, Layout>,
) -> Result<Collect> {
    let mut target = Collect { layouts: layouts.clone(), ..Collect::default() };
    let mut unpacker = FileUnpacker::new("weights.safetensors");
    for part in parts {
        unpacker.push(part, &mut target)?;
    }
    unpacker.finish()?;
    Ok(target)
}

/// `bytes` is refused as a bad checkpoint, with `says` in the message; quickly, and without much memory.
pub fn refused(bytes: &[u8], says: &str) -> Error {
    let all = BTreeMap::from([("w".to_string(), Layout::Vector { len: 2 })]);
    let (begun, before) = (cpu(), heap());
    let result = unpack(bytes.chunks(64 << 10), &all);
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
    let e = result.err().unwrap_or_else(|| panic!("accepted: {head}"));
    assert_eq!(e.code, Code::BadCheckpoint, "{head}: {e}");
    assert!(e.message.contains(says), "{head}: expected {says:?} in {e}");
    assert!(cpu() - begun < Duration::from_secs(5), "{head}: took {:?}", cpu() - begun);
    let used = heap_peak().saturating_sub(before);
    // The header itself, twice where its buffer grows, and what is parsed of it.
    assert!(used < 64 * 1024 + 6 * bytes.len(), "{head}: {used} bytes for {}", bytes.len());
    e
}

/// A file of this header and so many bytes of data.
pub fn with_header(json: &str, data: usize) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes(), json.as_bytes(), &vec![0; data]].concat()
}
