//! Blocks of [`BLOCK`] weights in 8 or 4 bits each, with the block's least value and its range.
//!
//! A block is whole 32-bit words, so that a kernel reads it without looking across bytes: first the integers q,
//! lowest bits first (8 words of four at 8 bits, 4 words of eight at 4), then one word with `range` (low half) and
//! `min` (high half) as f16. A weight is `min + range * q / (2^bits - 1)`: 9 and 5 bits a weight. The range, not
//! the step, is stored, since a step of 1/255 of small weights would be below what f16 holds well.

use crate::named::Named;
use half::f16;

/// Weights in a block: along a row, over taps and input channels. A row's last block may be shorter.
pub const BLOCK: usize = 32;

/// Bits of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bits {
    Q8,
    Q4,
}

/// How a model's matrices are kept, where `None` is f16.
impl Named for Option<Bits> {
    const NAMES: &'static [(&'static str, Self)] =
        &[("f16", None), ("q8", Some(Bits::Q8)), ("q4", Some(Bits::Q4))];
}

impl Bits {
    /// The largest integer.
    pub fn levels(self) -> u32 {
        match self {
            Bits::Q8 => 255,
            Bits::Q4 => 15,
        }
    }

    /// 32-bit words of a block.
    pub fn block_words(self) -> usize {
        match self {
            Bits::Q8 => BLOCK / 4 + 1,
            Bits::Q4 => BLOCK / 8 + 1,
        }
    }

    pub fn block_bytes(self) -> usize {
        4 * self.block_words()
    }
}

/// Quantises rows of one length that arrive in pieces.
pub(super) struct Rows {
    bits: Bits,
    row: usize,
    /// Elements of the current row that are done.
    at: usize,
}

impl Rows {
    pub fn new(bits: Bits, row: usize) -> Rows {
        Rows { bits, row, at: 0 }
    }

    /// Appends every block that `halfs` (f16 bits) completes to `out`; returns how many elements that took.
    pub fn take(&mut self, halfs: &[u16], out: &mut Vec<u8>) -> usize {
        let mut taken = 0;
        loop {
            let len = BLOCK.min(self.row - self.at);
            let Some(block) = halfs.get(taken..taken + len).filter(|b| !b.is_empty()) else { return taken };
            quantise(self.bits, block, out);
            taken += len;
            self.at = (self.at + len) % self.row;
        }
    }
}

/// One block; what it lacks to [`BLOCK`] is as its least value, and never read.
fn quantise(bits: Bits, halfs: &[u16], out: &mut Vec<u8>) {
    let mut values = [0f32; BLOCK];
    for (v, &h) in values.iter_mut().zip(halfs) {
        *v = f16::from_bits(h).to_f32();
    }
    let values = &values[..halfs.len()];
    let (low, high) =
        values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
    // The difference of two f16 may fall between two f16: take the larger, so that every value is within.
    let mut range = f16::from_f32(high - low);
    if range.to_f32() < high - low {
        range = f16::from_bits(range.to_bits() + 1);
    }
    // Twice f16's largest value is the most that a block can span; then the ends are lost.
    let wide = if range.is_finite() { range.to_f32() } else { f16::MAX.to_f32() };
    let levels = bits.levels() as f32;
    let per_step = if wide > 0.0 { levels / wide } else { 0.0 };
    let per_word = match bits {
        Bits::Q8 => 4,
        Bits::Q4 => 8,
    };
    let mut words = [0u32; BLOCK / 4];
    for (i, v) in values.iter().enumerate() {
        let q = ((v - low) * per_step).round_ties_even().clamp(0.0, levels) as u32;
        words[i / per_word] |= q << (i % per_word * (32 / per_word));
    }
    for word in &words[..BLOCK / per_word] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&f16::from_f32(wide).to_le_bytes());
    out.extend_from_slice(&f16::from_f32(low).to_le_bytes());
}
