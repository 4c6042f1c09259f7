//! Bytes on their way, outside WebAssembly's memory.

use js_sys::{ArrayBuffer, Uint8Array};
use std::ops::Deref;

/// Bytes that are freed when this is dropped. Left to the garbage collector, a hundred MiB pile up while a checkpoint
/// streams: it counts objects, and hardly what lies behind them.
pub struct Chunk(Uint8Array);

impl Chunk {
    /// Takes bytes that nobody else holds, and the buffer that they lie in.
    pub fn new(bytes: Uint8Array) -> Chunk {
        Chunk(bytes)
    }

    /// `len` zeros.
    pub fn zeros(len: u32) -> Chunk {
        Chunk(Uint8Array::new_with_length(len))
    }

    /// The first `len` bytes.
    pub fn cut(self, len: u32) -> Chunk {
        if len == self.length() { self } else { Chunk(self.slice(0, len)) }
    }

    /// The whole buffer, which nothing else lies in.
    pub fn buffer(&self) -> ArrayBuffer {
        self.0.buffer()
    }
}

impl Deref for Chunk {
    type Target = Uint8Array;

    fn deref(&self) -> &Uint8Array {
        &self.0
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // Moves them to a buffer of none. A browser that cannot yet leaves them to the collector.
        let _ = self.buffer().transfer_with_length(0);
    }
}
