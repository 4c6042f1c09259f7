//! A1111's embedding cards: PNGs whose text `sd-ti-embedding` is an embedding, as JSON in base64
//! (`modules/textual_inversion/image_embedding.py`).

use super::located::ReadAt;
use super::lora::Values;
use crate::error::{Error, Result};
use serde_json::Value;

const SIGNATURE: &[u8; 8] = b"\x89PNG\r\n\x1a\n";
const KEYWORD: &[u8] = b"sd-ti-embedding\0";
/// Chunks and bytes of a text at most: 75 vectors of both encoders of SDXL are some 5 MB of JSON.
const MAX_CHUNKS: usize = 1 << 14;
const MAX_TEXT: u32 = 32 << 20;

/// The embedding's entries (its tensors' names, shapes and values), or `None` for a file that is no PNG.
///
/// # Errors
/// `bad-checkpoint` for a PNG without an embedding, and one that is damaged.
pub async fn read<R: ReadAt>(file: &R) -> Result<Option<Vec<(String, Values)>>> {
    let size = file.size().await?;
    if size < 8 || file.read_at(0, 8).await? != SIGNATURE {
        return Ok(None);
    }
    let mut at = 8;
    for _ in 0..MAX_CHUNKS {
        if at + 8 > size {
            break;
        }
        let head = file.read_at(at, 8).await?;
        let Some((&length, kind)) = head.split_first_chunk::<4>() else { break };
        let length = u32::from_be_bytes(length);
        if kind == b"tEXt" && length <= MAX_TEXT && at + 8 + u64::from(length) <= size {
            let text = file.read_at(at + 8, length as usize).await?;
            if let Some(text) = text.strip_prefix(KEYWORD) {
                return entries(text).map(Some);
            }
        }
        // Length, kind and checksum beside the content.
        at += u64::from(length) + 12;
    }
    Err(Error::bad_checkpoint(
        "it is a picture without an embedding: its text sd-ti-embedding is missing. Sites that save pictures anew drop \
         it; take the author's own file",
    ))
}

fn entries(text: &[u8]) -> Result<Vec<(String, Values)>> {
    let damaged = || {
        Error::bad_checkpoint(
            "the embedding in this picture is damaged, or not one that A1111 writes. Take another copy",
        )
    };
    let json: Value = serde_json::from_slice(&base64(text).ok_or_else(damaged)?).map_err(|_| damaged())?;
    let entries = json.get("string_to_param").and_then(Value::as_object).ok_or_else(damaged)?;
    let tensor = |(key, value): (&String, &Value)| {
        let (mut shape, mut values) = (Vec::new(), Vec::new());
        flatten(value.get("TORCHTENSOR")?, 0, &mut shape, &mut values)?;
        let whole = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d as usize));
        (whole == Some(values.len())).then(|| (format!("string_to_param.{key}"), (shape, values)))
    };
    entries.iter().map(tensor).collect::<Option<Vec<_>>>().ok_or_else(damaged)
}

/// Nested lists of numbers; `None` where lists of one depth differ in length, or hold something else.
fn flatten(value: &Value, depth: usize, shape: &mut Vec<u64>, values: &mut Vec<f32>) -> Option<()> {
    match value {
        Value::Number(n) if depth == shape.len() => values.push(n.as_f64()? as f32),
        Value::Array(items) if depth < 4 => {
            if depth == shape.len() && values.is_empty() {
                shape.push(items.len() as u64);
            }
            if shape.get(depth) != Some(&(items.len() as u64)) {
                return None;
            }
            for item in items {
                flatten(item, depth + 1, shape, values)?;
            }
        }
        _ => return None,
    }
    Some(())
}

/// The standard alphabet; line breaks are passed over, and what is left of a last byte.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut held) = (Vec::with_capacity(text.len() / 4 * 3), 0u32, 0);
    for &byte in text.iter().filter(|b| !b.is_ascii_whitespace()).take_while(|b| **b != b'=') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (bits, held) = (bits << 6 | u32::from(digit), held + 6);
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    Some(out)
}
