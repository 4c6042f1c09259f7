//! The weights of linear layers and convolutions: one of the checkpoint's matrices, or several that read the same
//! input, stacked by rows so that one product makes what each of them would.

use super::conv::Conv;
use crate::checkpoint::Layout;
use crate::checkpoint::quantise::{BLOCK, Bits};
use crate::error::{Error, Result};
use crate::gpu::{ALIGN, Recorder, Weight};

/// A matrix to multiply by.
#[derive(Clone, Copy)]
pub(super) struct Matrix {
    pub weight: Weight,
    pub bias: Option<Weight>,
    /// The first of its biases, a multiple of 4.
    pub bias_from: u32,
    /// `None`: f16.
    pub bits: Option<Bits>,
    pub rows: u32,
}

/// The matrix `{name}.weight`, [rows, inner, taps of `conv`], and `{name}.bias` of every (name, rows) of `parts`, below
/// each other.
///
/// # Errors
/// `unsupported-model` where a weight is used in two ways, or rows that do not fill whole vectors would be stacked.
pub(super) fn matrix(r: &mut Recorder, parts: &[(&str, u32)], inner: u32, conv: Conv) -> Result<Matrix> {
    if let (Some((name, rows)), 2..) = (parts.iter().find(|(_, rows)| rows % 4 != 0), parts.len()) {
        let name = r.path(name);
        return Err(Error::unsupported(format!("{name}: {rows} channels, which are no multiple of 4")));
    }
    let (inner, taps) = (inner as usize, conv.taps() as usize);
    let narrowest = parts.iter().map(|(_, rows)| *rows as usize).min().unwrap_or(0);
    // A model's first and last convolutions, which are narrower than a block, stay as they are.
    let bits = r.options().weights.filter(|_| narrowest.min(inner) >= BLOCK);
    // All parts lie alike.
    let bits =
        bits.map(
            |bits| if parts.iter().all(|(p, _)| bits_of(&r.path(p), bits) == bits) { bits } else { Bits::Q8 },
        );
    let layout = |rows: usize| match bits {
        Some(bits) => Layout::Blocks { rows, inner, taps, bits },
        None => Layout::Matrix { rows, inner, taps },
    };
    let stack = |of: &str, layout: &dyn Fn(usize) -> Layout| {
        parts.iter().map(|(p, rows)| (format!("{p}.{of}"), layout(*rows as usize))).collect::<Vec<_>>()
    };
    let weight = r.stack(stack("weight", &layout))?;
    let bias = match conv.bias {
        true => Some(r.stack(stack("bias", &|len| Layout::Vector { len }))?),
        false => None,
    };
    Ok(Matrix { weight, bias, bias_from: 0, bits, rows: parts.iter().map(|(_, rows)| rows).sum() })
}

impl Matrix {
    /// The `i`-th of the parts, so many rows each, that [`matrix`] stacked, of so many inputs a row, to be bound alone; `None`
    /// where it may lie where no binding may begin.
    pub(super) fn part(self, rows: &[u32], i: usize, inner: u32) -> Option<Matrix> {
        let from: u32 = rows[..i].iter().sum();
        let (before, inner) = (from as usize, inner as usize);
        let layout = match self.bits {
            Some(bits) => Layout::Blocks { rows: before, inner, taps: 1, bits },
            None => Layout::Matrix { rows: before, inner, taps: 1 },
        };
        // Where f16 does not hold one of the stack's values, it lies as f32.
        let starts = [layout.packed_bytes()?, layout.wide_bytes()];
        let may = starts.iter().all(|bytes| bytes.is_multiple_of(ALIGN));
        let own = Matrix { weight: self.weight.nth(i), rows: rows[i], bias_from: from, ..self };
        may.then_some(own)
    }
}

/// The matrix `{name}.weight`, [rows, inner, taps], in f16 whatever the others lie as, without bias.
///
/// # Errors
/// `unsupported-model` where a weight is used in two ways.
pub(super) fn f16_matrix(r: &mut Recorder, name: &str, [rows, inner, taps]: [u32; 3]) -> Result<Matrix> {
    let layout = Layout::Matrix { rows: rows as usize, inner: inner as usize, taps: taps as usize };
    let weight = r.weight(&format!("{name}.weight"), layout)?;
    Ok(Matrix { weight, bias: None, bias_from: 0, bits: None, rows })
}

/// The f16 matrix of a 3x3 convolution (name, input channels) and behind it that of a 1x1 one, whose sums are added to
/// the other's; both with bias.
///
/// # Errors
/// `unsupported-model` where a weight is used in two ways.
pub(super) fn matrix_with_shortcut(
    r: &mut Recorder,
    (name, inner): (&str, u32),
    (shortcut, past): (&str, u32),
    rows: u32,
) -> Result<Matrix> {
    let layout = |inner: u32, taps| Layout::Matrix { rows: rows as usize, inner: inner as usize, taps };
    let bias = Layout::Vector { len: rows as usize };
    let weight = r.stack(vec![
        (format!("{name}.weight"), layout(inner, 9)),
        (format!("{shortcut}.weight"), layout(past, 1)),
    ])?;
    let bias = r.stack(vec![(format!("{name}.bias"), bias), (format!("{shortcut}.bias"), bias)])?;
    Ok(Matrix { weight, bias: Some(bias), bias_from: 0, bits: None, rows })
}

/// Four bits are too few for what every later layer reads or what acts on every position at once: the ways between
/// the residual blocks and from a ControlNet, attention's projections, the time embedding. They take eight; the bulk,
/// the convolutions of the blocks and the feed-forward layers, takes four.
fn bits_of(path: &str, bits: Bits) -> Bits {
    const EIGHT: [&str; 11] = [
        ".to_q",
        ".to_k",
        ".to_v",
        ".to_out",
        ".proj_in",
        ".proj_out",
        "conv_shortcut",
        "samplers",
        "embedding",
        "time_emb_proj",
        "controlnet_",
    ];
    if EIGHT.iter().any(|part| path.contains(part)) { Bits::Q8 } else { bits }
}
