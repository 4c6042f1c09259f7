//! What was looked at in a run of the network, made into what is shown.

use super::inside::{Block, Inside, TokenKind, TokenMap, WordMaps};
use super::pixels::{interpolate, to_nchw};
use super::request::{Enlarge, GenerateOptions};
use crate::error::{Error, Result};
use crate::gpu::BlockProbe;

/// # Errors
/// `invalid-option` for a request that cannot show what it asks to see.
pub(super) fn check(options: &GenerateOptions) -> Result<Inside> {
    let inside = options.inside;
    if (inside.attention || inside.activations) && options.deep_cache.is_some() {
        return Err(Error::invalid(
            "inside looks into the whole network, which deepCache does not run at every step: leave one out.",
        ));
    }
    if inside.attention && options.prompt_embeds.is_some() {
        return Err(Error::invalid("attention is shown word by word: give a prompt, not promptEmbeds."));
    }
    Ok(inside)
}

/// What a block made, of its first channels, NHWC.
pub(super) fn block(probe: &BlockProbe, values: &[f32], milliseconds: Option<f64>) -> Block {
    let [height, width, shown] = [probe.tensor.h, probe.tensor.w, probe.tensor.c];
    let planes = to_nchw(values, shown as usize);
    let maps = planes.chunks_exact(height as usize * width as usize).map(<[f32]>::to_vec).collect();
    Block { name: probe.name.clone(), channels: probe.channels, height, width, milliseconds, maps }
}

/// Attention to each key, summed over so many layers of one size.
pub(super) struct Level {
    pub height: u32,
    pub width: u32,
    pub layers: u32,
    /// [height, width, keys].
    pub values: Vec<f32>,
}

/// `words`: the text of each token, window by window, of which there may be more, all padding; `keys`: tokens and
/// marks of all windows; `size`: height and width of the maps.
pub(super) fn word_maps(
    levels: &[Level],
    words: &[Vec<String>],
    window: usize,
    keys: usize,
    [height, width]: [u32; 2],
) -> WordMaps {
    let count: usize = words.iter().map(Vec::len).sum();
    let (end, padding) = (1 + count, 2 + count);
    let mut tokens: Vec<_> = [(TokenKind::Start, "")].into();
    tokens.extend(words.iter().flatten().map(|text| (TokenKind::Word, text.as_str())));
    tokens.extend([(TokenKind::End, ""), (TokenKind::Padding, "")]);
    // The map of each key.
    let mut places = Vec::with_capacity(keys);
    let mut next = 1;
    for w in 0..keys / window.max(1) {
        let here = words.get(w).map_or(0, Vec::len).min(window.saturating_sub(2));
        places.push(0);
        places.extend(next..next + here);
        places.push(end);
        places.resize((w + 1) * window, padding);
        next += here;
    }
    let size = height as usize * width as usize;
    let mut sums = vec![0.0; tokens.len() * size];
    let layers: u32 = levels.iter().map(|level| level.layers).sum();
    for level in levels {
        let (h, w) = (level.height as usize, level.width as usize);
        let mut planes = vec![0.0; tokens.len() * h * w];
        for (at, row) in level.values.chunks_exact(keys.max(1)).enumerate() {
            for (&place, value) in places.iter().zip(row) {
                planes[place * h * w + at] += value / layers as f32;
            }
        }
        let sizes = [h, w, height as usize, width as usize];
        sums.iter_mut().zip(interpolate(&planes, sizes, Enlarge::Latent)).for_each(|(sum, v)| *sum += v);
    }
    let maps = tokens.iter().zip(sums.chunks_exact(size)).map(|(&(kind, text), map)| TokenMap {
        kind,
        text: text.to_owned(),
        map: map.to_vec(),
    });
    let padded = places.contains(&padding);
    WordMaps { height, width, tokens: maps.filter(|t| padded || t.kind != TokenKind::Padding).collect() }
}
