//! Files changed at random.

use crate::tiny_model::{Part, parts, written};
use half::{bf16, f16};
use rand::{Rng, rngs::SmallRng};

/// A file with something wrong in it.
pub fn mutated(rng: &mut SmallRng, file: &[u8]) -> Vec<u8> {
    let mut bytes = match parts(file).filter(|parts| !parts.is_empty() && rng.random_ratio(9, 10)) {
        Some(mut parts) => {
            for _ in 0..rng.random_range(1..=3) {
                change(rng, &mut parts);
            }
            written(&parts)
        }
        None => flipped(rng, file.to_vec()),
    };
    if rng.random_ratio(1, 10) {
        bytes = flipped(rng, bytes);
    }
    bytes
}

/// Some bytes changed, more often those at the front; or cut off.
fn flipped(rng: &mut SmallRng, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..rng.random_range(1..=8) {
        let end = if rng.random() { bytes.len() } else { bytes.len().min(2000) };
        if end > 0 {
            let at = rng.random_range(0..end);
            bytes[at] = rng.random();
        }
    }
    if rng.random_ratio(1, 8) {
        bytes.truncate(rng.random_range(0..=bytes.len()));
    }
    bytes
}

const ENDS: &[&str] = &[
    "lora_down.weight",
    "lora_up.weight",
    "lora_mid.weight",
    "alpha",
    "dora_scale",
    "lora_A.weight",
    "lora_B.weight",
    "lora_magnitude_vector",
    "diff",
    "diff_b",
    "w_norm",
    "b_norm",
    "hada_w1_a",
    "hada_w1_b",
    "hada_w2_a",
    "hada_w2_b",
    "hada_t1",
    "hada_t2",
    "lokr_w1",
    "lokr_w2",
    "lokr_w1_a",
    "lokr_w1_b",
    "lokr_w2_a",
    "lokr_w2_b",
    "lokr_t2",
    "oft_blocks",
    "rescale",
    "a1.weight",
    "a2.weight",
    "b1.weight",
    "b2.weight",
    "bm.weight",
    "weight",
    "bias",
    "scale_weight",
    "string_to_param.*",
];

fn change(rng: &mut SmallRng, parts: &mut Vec<Part>) {
    let at = rng.random_range(0..parts.len());
    let other = rng.random_range(0..parts.len());
    let many = parts.len() > 1;
    let part = &mut parts[at];
    match rng.random_range(0..10) {
        0 | 1 => {
            let Some(axis) = (!part.shape.is_empty()).then(|| rng.random_range(0..part.shape.len())) else {
                return;
            };
            let d = part.shape[axis];
            let sizes = [
                0,
                1,
                2,
                3,
                d.wrapping_sub(1),
                d.wrapping_add(1),
                d.wrapping_mul(2),
                d / 2,
                1 << 20,
                1 << 31,
                u64::MAX,
            ];
            part.shape[axis] = sizes[rng.random_range(0..sizes.len())];
            fit(part);
        }
        2 => {
            match rng.random_range(0..3) {
                0 => part.shape.push(1),
                1 => part.shape.reverse(),
                _ => part.shape.insert(0, 1),
            }
            fit(part);
        }
        3 => {
            let value = special(rng);
            let all = rng.random_ratio(1, 3);
            set(rng, part, value, all);
        }
        4 => part.data.iter_mut().for_each(|byte| *byte = rng.random()),
        5 if many => drop(parts.remove(at)),
        6 => {
            let module =
                part.name.rsplit_once('.').map_or("", |(module, _)| module.trim_end_matches(".lora_down"));
            part.name = format!("{module}.{}", ENDS[rng.random_range(0..ENDS.len())]);
        }
        7 => {
            let mut copy = part.clone();
            let module = copy.name.rsplit_once('.').map_or("", |(module, _)| module).to_owned();
            copy.name = format!("{module}.{}", ENDS[rng.random_range(0..ENDS.len())]);
            parts.push(copy);
        }
        8 => {
            let types = ["F16", "BF16", "F32", "F64", "I64", "U8", "F8_E4M3", "BOOL"];
            part.dtype = types[rng.random_range(0..types.len())].into();
            fit(part);
        }
        _ => {
            let (shape, data) = (parts[other].shape.clone(), parts[other].data.clone());
            (parts[at].shape, parts[at].data, parts[at].dtype) = (shape, data, parts[other].dtype.clone());
        }
    }
}

fn size(dtype: &str) -> usize {
    match dtype {
        "F64" | "I64" => 8,
        "F32" => 4,
        "F16" | "BF16" => 2,
        _ => 1,
    }
}

/// As much data as the shape has, where that is not too much to make.
fn fit(part: &mut Part) {
    let count = part.shape.iter().try_fold(size(&part.dtype) as u64, |n, d| n.checked_mul(*d));
    if let Some(count) = count.filter(|n| *n <= 8 << 20) {
        let old = std::mem::take(&mut part.data);
        part.data = old.iter().copied().cycle().take(count as usize).collect();
        part.data.resize(count as usize, 0);
    }
}

fn special(rng: &mut SmallRng) -> f32 {
    let values =
        [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 65504.0, 65520.0, 1e5, 3e38, 1e-45, -1e4];
    values[rng.random_range(0..values.len())]
}

/// One value, or all.
fn set(rng: &mut SmallRng, part: &mut Part, value: f32, all: bool) {
    let bytes = match part.dtype.as_str() {
        "F32" => value.to_le_bytes().to_vec(),
        "F16" => f16::from_f32(value).to_le_bytes().to_vec(),
        "BF16" => bf16::from_f32(value).to_le_bytes().to_vec(),
        "F64" => f64::from(value).to_le_bytes().to_vec(),
        _ => return,
    };
    let count = part.data.len() / bytes.len();
    if count > 0 {
        let one = rng.random_range(0..count);
        let mut chunks = part.data.chunks_exact_mut(bytes.len()).enumerate();
        chunks
            .by_ref()
            .filter(|(i, _)| all || *i == one)
            .for_each(|(_, chunk)| chunk.copy_from_slice(&bytes));
    }
}
