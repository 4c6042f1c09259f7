//! One tensor's bytes, as they arrive, into the layout that the kernels read: f16, or blocks of few bits.

use super::fp8;
use super::header::{Dtype, TensorInfo};
use super::quantise::{self, Bits};
use crate::error::{Error, Result};
use half::{bf16, f16};
use std::fmt;

/// Bytes that are gathered before they go out, so that small rows make few writes.
const PIECE: usize = 1 << 20;

/// How a tensor is laid out on the GPU. All sizes are counts of elements; elements are f16 but in `Blocks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// From `[rows][inner][taps]` (a linear layer or an embedding table with `taps` 1, a convolution's
    /// OIHW with `taps` = height x width) to `[rows][taps][inner4]`, where `inner4` is `inner` rounded up
    /// to a multiple of 4 and filled with zeros.
    Matrix { rows: usize, inner: usize, taps: usize },
    /// As `Matrix`, each row `[taps][inner4]` cut into quantised blocks (see [`quantise`]).
    Blocks { rows: usize, inner: usize, taps: usize, bits: Bits },
    /// `len` elements, filled with zeros up to a multiple of 4.
    Vector { len: usize },
}

/// As packed copies name it: a change makes those of earlier visits unreadable.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Layout::Matrix { rows, inner, taps } => {
                write!(f, "Matrix {{ rows: {rows}, inner: {inner}, taps: {taps} }}")
            }
            Layout::Blocks { rows, inner, taps, bits } => {
                write!(f, "Blocks {{ rows: {rows}, inner: {inner}, taps: {taps}, bits: {bits:?} }}")
            }
            Layout::Vector { len } => write!(f, "Vector {{ len: {len} }}"),
        }
    }
}

impl Layout {
    fn dims(self) -> (u64, u64, u64) {
        match self {
            Layout::Matrix { rows, inner, taps } | Layout::Blocks { rows, inner, taps, .. } => {
                (rows as u64, inner as u64, taps as u64)
            }
            Layout::Vector { len } => (1, len as u64, 1),
        }
    }

    /// Elements in the file; `None` if that overflows.
    pub fn elements(self) -> Option<u64> {
        let (rows, inner, taps) = self.dims();
        rows.checked_mul(inner)?.checked_mul(taps)
    }

    /// Bytes on the GPU where the elements are f32, unquantised.
    pub fn wide_bytes(self) -> u64 {
        let (rows, inner, taps) = self.dims();
        inner.next_multiple_of(4).saturating_mul(taps).saturating_mul(rows).saturating_mul(4)
    }

    /// Bytes on the GPU: a multiple of 4; `None` if that overflows.
    pub fn packed_bytes(self) -> Option<u64> {
        let (rows, inner, taps) = self.dims();
        let row = inner.checked_next_multiple_of(4)?.checked_mul(taps)?;
        match self {
            Layout::Blocks { bits, .. } => {
                row.div_ceil(quantise::BLOCK as u64).checked_mul(bits.block_bytes() as u64)?.checked_mul(rows)
            }
            Layout::Matrix { .. } | Layout::Vector { .. } => row.checked_mul(rows)?.checked_mul(2),
        }
    }
}

/// Converts one tensor. Feed it the tensor's bytes in order, cut anywhere; it holds one row and at most
/// about 1 MiB of output.
pub struct Packer {
    name: String,
    dtype: Dtype,
    inner: usize,
    inner4: usize,
    taps: usize,
    /// Bytes of an element that has not arrived whole.
    partial: Vec<u8>,
    /// 16-bit halves of an element that goes out: 1, or 2 of an f32.
    halves: usize,
    /// The row so far, in the file's order; only where `taps` > 1, else elements go straight to `out`.
    row: Vec<u16>,
    /// Elements of the row so far.
    in_row: usize,
    /// Elements so far, for messages and for `finish`.
    seen: u64,
    elements: u64,
    out: Vec<u16>,
    /// Where `out` goes in the destination, in bytes.
    offset: u64,
    /// How `out` is quantised on its way.
    blocks: Option<quantise::Rows>,
    /// What the values are multiplied by: nothing, one for all of them, or one for each of the shape's rows.
    scales: Vec<f32>,
    /// A value that was too large for f16 ended the work.
    overflowed: bool,
}

impl Packer {
    /// A packer for `tensor`. `BadCheckpoint` if its shape does not hold what `layout` wants, or its
    /// element type is not a floating-point type that we read (F16, BF16, F32, F64, F8_E4M3, F8_E5M2).
    pub fn new(tensor: &TensorInfo, layout: Layout) -> Result<Packer> {
        let TensorInfo { name, dtype, shape, .. } = tensor;
        let floats = [Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64, Dtype::F8_E4M3, Dtype::F8_E5M2];
        if !floats.contains(dtype) {
            return Err(Error::bad_checkpoint(format!(
                "tensor {name:?} is {dtype:?}; weights are read from F16, BF16, F32, F64, F8_E4M3 and F8_E5M2. \
                 Choose a checkpoint that is not quantised otherwise"
            )));
        }
        let rows_fit = match layout {
            Layout::Matrix { rows, .. } | Layout::Blocks { rows, .. } => {
                // A vector is a row.
                shape.first() == Some(&(rows as u64)) || (rows, shape.len()) == (1, 1)
            }
            Layout::Vector { .. } => true,
        };
        let (Some(elements), Some(_), true) = (layout.elements(), layout.packed_bytes(), rows_fit) else {
            return Err(mismatch(tensor, layout));
        };
        if elements != tensor.elements() {
            return Err(mismatch(tensor, layout));
        }
        let (inner, taps) = match layout {
            Layout::Matrix { inner, taps, .. } | Layout::Blocks { inner, taps, .. } => (inner, taps),
            Layout::Vector { len } => (len, 1),
        };
        // A row is held in memory, so it must be one that `usize` can count.
        let fits = inner.checked_next_multiple_of(4).and_then(|n| n.checked_mul(taps)?.checked_mul(2));
        if fits.is_none() {
            return Err(mismatch(tensor, layout));
        }
        let blocks = match layout {
            Layout::Blocks { bits, .. } => {
                Some(quantise::Rows::new(bits, inner.next_multiple_of(4).saturating_mul(taps)))
            }
            Layout::Matrix { .. } | Layout::Vector { .. } => None,
        };
        Ok(Packer {
            name: name.clone(),
            dtype: *dtype,
            inner,
            inner4: inner.next_multiple_of(4),
            taps,
            partial: Vec::new(),
            halves: 1,
            row: Vec::new(),
            in_row: 0,
            seen: 0,
            elements,
            out: Vec::new(),
            offset: 0,
            blocks,
            scales: Vec::new(),
            overflowed: false,
        })
    }

    /// Elements go out as f32, unquantised: [`Layout::wide_bytes`] of them.
    pub fn wide(self) -> Packer {
        Packer { halves: 2, blocks: None, ..self }
    }

    /// Every value is multiplied, in f32, by the one number in `scales`, or by that of its row of the tensor's shape. To be
    /// called before the first byte.
    pub fn scale(&mut self, scales: Vec<f32>) {
        self.scales = scales;
    }

    /// Whether [`Packer::push`] has failed because f16 does not hold a value.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Takes the next bytes of the tensor. `write(offset, bytes)` gets packed bytes in order, without
    /// gaps; both are multiples of 4.
    ///
    /// `BadCheckpoint` for a value that is not finite, here or once it is f16, and for more bytes than the
    /// tensor has.
    pub fn push(&mut self, mut bytes: &[u8], write: &mut impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let size = self.dtype.bitsize() / 8;
        if !self.partial.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(size - self.partial.len()));
            self.partial.extend_from_slice(head);
            bytes = rest;
            if self.partial.len() < size {
                return Ok(());
            }
            let whole = std::mem::take(&mut self.partial);
            self.push_elements(&whole, write)?;
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % size);
        self.push_elements(whole, write)?;
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// Writes what is left. `BadCheckpoint` if the tensor's bytes have not all come.
    pub fn finish(mut self, write: &mut impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        if self.seen != self.elements || !self.partial.is_empty() {
            return Err(Error::bad_checkpoint(format!(
                "tensor {:?} ends after {} of its {} values. Download the file again",
                self.name, self.seen, self.elements
            )));
        }
        self.flush(write)
    }

    /// Takes whole elements.
    fn push_elements(
        &mut self,
        mut bytes: &[u8],
        write: &mut impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let size = self.dtype.bitsize() / 8;
        let per_row = self.inner * self.taps;
        if (bytes.len() / size) as u64 > self.elements - self.seen {
            return Err(Error::bad_checkpoint(format!(
                "tensor {:?} has more bytes than its shape",
                self.name
            )));
        }
        while !bytes.is_empty() {
            let straight = self.taps == 1;
            // Without padding, rows need no telling apart: most weights take this fast way.
            let room = if straight && self.inner == self.inner4 { PIECE / 2 } else { per_row - self.in_row };
            let n = room.min(bytes.len() / size).min(PIECE / 2);
            let (now, rest) = bytes.split_at(n * size);
            bytes = rest;
            let to = if straight { &mut self.out } else { &mut self.row };
            let from = to.len();
            if !self.scales.is_empty() {
                let scale = |i: usize| scale_of(&self.scales, self.seen + i as u64, self.elements);
                scaled(self.dtype, now, scale, self.halves == 2, to);
            } else if self.halves == 2 {
                widen(self.dtype, now, to);
            } else {
                convert(self.dtype, now, to);
            }
            let bad = if self.halves == 2 {
                to[from..].chunks_exact(2).position(|h| h[1] & 0x7f80 == 0x7f80)
            } else {
                first_non_finite(&to[from..])
            };
            if let Some(i) = bad {
                return Err(self.non_finite(self.seen + i as u64, &now[i * size..(i + 1) * size]));
            }
            self.seen += n as u64;
            self.in_row += n;
            if self.in_row >= per_row {
                self.in_row %= per_row;
                if !straight {
                    self.transpose_row();
                } else if self.in_row == 0 {
                    let padding = (self.inner4 - self.inner) * self.halves;
                    self.out.resize(self.out.len() + padding, 0);
                }
            }
            if self.out.len() * 2 >= PIECE {
                self.flush(write)?;
            }
        }
        Ok(())
    }

    /// `[inner][taps]` in `row` to `[taps][inner4]` at the end of `out`.
    fn transpose_row(&mut self) {
        let start = self.out.len();
        let halves = self.halves;
        self.out.resize(start + self.taps * self.inner4 * halves, 0);
        let to = &mut self.out[start..];
        for (i, taps) in self.row.chunks_exact(self.taps * halves).enumerate() {
            for (t, v) in taps.chunks_exact(halves).enumerate() {
                let at = (t * self.inner4 + i) * halves;
                to[at..at + halves].copy_from_slice(v);
            }
        }
        self.row.clear();
    }

    /// Writes `out`, but for a last odd element, whose other half is still to come, or the start of a block.
    fn flush(&mut self, write: &mut impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        if let Some(rows) = &mut self.blocks {
            let mut bytes = Vec::with_capacity(self.out.len());
            let taken = rows.take(&self.out, &mut bytes);
            self.out.drain(..taken);
            if !bytes.is_empty() {
                write(self.offset, &bytes)?;
                self.offset += bytes.len() as u64;
            }
            return Ok(());
        }
        let even = self.out.len() & !1;
        if even > 0 {
            let bytes: &[u8] = bytemuck::cast_slice(&self.out[..even]);
            write(self.offset, bytes)?;
            self.offset += bytes.len() as u64;
            self.out.drain(..even);
        }
        Ok(())
    }

    fn non_finite(&mut self, at: u64, bytes: &[u8]) -> Error {
        let value = match *bytes {
            [a] => fp8::value(self.dtype, a).into(),
            [a, b] if self.dtype == Dtype::F16 => f16::from_le_bytes([a, b]).to_f64(),
            [a, b] => bf16::from_le_bytes([a, b]).to_f64(),
            [a, b, c, d] => f32::from_le_bytes([a, b, c, d]).into(),
            [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
            _ => f64::NAN,
        };
        let value = value * f64::from(scale_of(&self.scales, at, self.elements));
        let name = &self.name;
        // f64 may hold what f32 does not.
        self.overflowed = value.is_finite() && self.halves == 1 && (value as f32).is_finite();
        Error::bad_checkpoint(if value.is_finite() {
            format!(
                "tensor {name:?} holds {value:e} (value {at}), more than f16 can. Choose a variant of this \
                 checkpoint that is made for f16 (\"fp16\", or a VAE marked \"fp16-fix\")"
            )
        } else {
            format!(
                "tensor {name:?} holds {value} (value {at}), so no picture can come of it. The file is \
                 damaged, or was saved from a broken training: download it again, or choose another"
            )
        })
    }
}

fn mismatch(tensor: &TensorInfo, layout: Layout) -> Error {
    Error::bad_checkpoint(format!(
        "tensor {:?} has shape {:?}, but the model's configuration asks for {layout}. The weights and \
         config.json are not of the same model",
        tensor.name, tensor.shape
    ))
}

/// Appends whole little-endian elements as f16 bits, rounded to nearest even.
fn convert(dtype: Dtype, bytes: &[u8], out: &mut Vec<u16>) {
    match dtype {
        Dtype::F16 => {
            let from = out.len();
            out.resize(from + bytes.len() / 2, 0);
            // Every target that we build for is little-endian, as the file is.
            bytemuck::cast_slice_mut::<u16, u8>(&mut out[from..]).copy_from_slice(bytes);
        }
        Dtype::BF16 => out.extend(bytes.as_chunks().0.iter().map(|&b| {
            let wide = bf16::from_le_bytes(b).to_f32();
            f16::from_f32(wide).to_bits()
        })),
        Dtype::F8_E4M3 | Dtype::F8_E5M2 => out.extend(bytes.iter().map(|&b| fp8::f16_bits(dtype, b))),
        Dtype::F32 => {
            out.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_f32(f32::from_le_bytes(b)).to_bits()))
        }
        _ => out.extend(bytes.as_chunks().0.iter().map(|&b| f64_to_f16(f64::from_le_bytes(b)).to_bits())),
    }
}

/// Appends whole little-endian elements as f32, low half first.
fn widen(dtype: Dtype, bytes: &[u8], out: &mut Vec<u16>) {
    let mut push = |v: f32| out.extend([v.to_bits() as u16, (v.to_bits() >> 16) as u16]);
    match dtype {
        Dtype::F16 => bytes.as_chunks().0.iter().for_each(|&b| push(f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => bytes.as_chunks().0.iter().for_each(|&b| push(bf16::from_le_bytes(b).to_f32())),
        Dtype::F8_E4M3 | Dtype::F8_E5M2 => bytes.iter().for_each(|&b| push(fp8::value(dtype, b))),
        Dtype::F32 => bytes.as_chunks().0.iter().for_each(|&b| push(f32::from_le_bytes(b))),
        _ => bytes.as_chunks().0.iter().for_each(|&b| push(f64::from_le_bytes(b) as f32)),
    }
}

/// Of the value at `at`, where each of `scales` is that of as many values as each other.
fn scale_of(scales: &[f32], at: u64, elements: u64) -> f32 {
    let each = (elements / scales.len().max(1) as u64).max(1);
    scales.get((at / each) as usize).copied().unwrap_or(1.0)
}

/// Appends whole little-endian elements times their scales, a product in f32: as that, or rounded to f16 as ComfyUI has it.
fn scaled(dtype: Dtype, bytes: &[u8], scale: impl Fn(usize) -> f32, wide: bool, out: &mut Vec<u16>) {
    let mut values = Vec::with_capacity(2 * bytes.len());
    widen(dtype, bytes, &mut values);
    for (i, &[low, high]) in values.as_chunks().0.iter().enumerate() {
        let product = f32::from_bits(u32::from(low) | u32::from(high) << 16) * scale(i);
        let bits = product.to_bits();
        if wide {
            out.extend([bits as u16, (bits >> 16) as u16]);
        } else {
            out.push(f16::from_f32(product).to_bits());
        }
    }
}

/// Rounds once, to nearest even. (`f16::from_f64` drops the low 32 bits first, and so takes what lies just
/// above a tie for the tie.) By way of f32 rounded to odd: its last bit says that there was more.
fn f64_to_f16(v: f64) -> f16 {
    let near = v as f32;
    let toward_zero = near.to_bits() - u32::from(f64::from(near).abs() > v.abs());
    let inexact = f64::from(f32::from_bits(toward_zero)) != v;
    f16::from_f32(f32::from_bits(toward_zero | u32::from(inexact)))
}

/// The first f16 whose exponent is all ones (infinity, NaN).
fn first_non_finite(halfs: &[u16]) -> Option<usize> {
    const EXPONENT: u16 = 0x7c00;
    // Without an early exit inside a block, so that the compiler makes SIMD of it.
    let bad = |block: &[u16]| block.iter().fold(false, |bad, h| bad | (h & EXPONENT == EXPONENT));
    let block = halfs.chunks(4096).position(bad)?;
    let start = block * 4096;
    Some(start + halfs[start..].iter().position(|h| h & EXPONENT == EXPONENT)?)
}
