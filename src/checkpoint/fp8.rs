//! Numbers of eight bits, as torch has them, and the scales that ComfyUI keeps beside them.
//!
//! - `F8_E4M3` is torch's `float8_e4m3fn`: a sign, 4 bits of exponent (bias 7), 3 of fraction; no infinity, and NaN where
//!   all bits but the sign are set.
//! - `F8_E5M2` is `float8_e5m2`: the upper half of an f16.
//!
//! Every value of both is one of f16's.

use super::header::{Dtype, TensorInfo};
use crate::error::{Error, Result};
use half::{bf16, f16};
use std::collections::HashMap;

/// f16's bits of every `F8_E4M3`.
const E4M3: [u16; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = e4m3(i as u8);
        i += 1;
    }
    table
};

const fn e4m3(bits: u8) -> u16 {
    let (sign, rest) = (((bits & 0x80) as u16) << 8, (bits & 0x7f) as u16);
    let magnitude = match rest {
        0 => 0,
        // NaN, as torch's conversion leaves it.
        0x7f => 0x7e00,
        // Subnormals, rest * 2^-9, are normal in f16, whose exponent has a bias of 15.
        1..8 => {
            let lead = rest.ilog2() as u16;
            (lead + 6) << 10 | (rest << (10 - lead)) & 0x3ff
        }
        _ => (rest << 7) + (8 << 10),
    };
    sign | magnitude
}

/// The f16 that equals a value of `F8_E4M3`, or of `F8_E5M2`.
pub(super) fn f16_bits(dtype: Dtype, bits: u8) -> u16 {
    if dtype == Dtype::F8_E4M3 { E4M3[usize::from(bits)] } else { u16::from(bits) << 8 }
}

/// The same as f32.
pub(super) fn value(dtype: Dtype, bits: u8) -> f32 {
    f16::from_bits(f16_bits(dtype, bits)).to_f32()
}

/// Ends of the names of what a `weight` is to be multiplied by: ComfyUI's of `scaled_fp8`, and its later.
const SCALES: [&str; 2] = ["scale_weight", "weight_scale"];

/// Whether a tensor is the scale of another.
pub(super) fn is_scale(name: &str) -> bool {
    weight(name).is_some()
}

/// The name of the weight whose scale is called `name`.
fn weight(name: &str) -> Option<String> {
    let stem = SCALES.iter().find_map(|end| name.strip_suffix(end))?;
    (stem.is_empty() || stem.ends_with('.')).then(|| format!("{stem}weight"))
}

/// Of a file's tensors those that are scales, by the index of the weight that each is for.
pub(super) fn scales(tensors: &[TensorInfo]) -> HashMap<usize, usize> {
    let named = tensors.iter().enumerate().filter_map(|(i, t)| Some((weight(&t.name)?, i)));
    let of: HashMap<String, usize> = named.collect();
    let weights = tensors.iter().enumerate().filter_map(|(i, t)| Some((i, *of.get(&t.name)?)));
    weights.collect()
}

/// # Errors
/// `BadCheckpoint` for a scale that is neither one number nor one for each row of its weight.
pub(super) fn check_scale(scale: &TensorInfo, weight: &TensorInfo) -> Result<()> {
    let floats = [Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64];
    let rows = weight.shape.first().copied().unwrap_or(1);
    if floats.contains(&scale.dtype) && [1, rows].contains(&scale.elements()) && scale.elements() > 0 {
        return Ok(());
    }
    Err(Error::bad_checkpoint(format!(
        "tensor {:?} is {:?} of shape {:?}; the scale of {:?} is read as one number, or one for each of its {rows} \
         rows. Choose a checkpoint in F16, or one with such scales",
        scale.name, scale.dtype, scale.shape, weight.name
    )))
}

/// The numbers of a scale, from all of its bytes.
pub(super) fn numbers(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
        _ => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
    }
}
