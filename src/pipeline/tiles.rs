//! A large picture through the VAE tile by tile, the seams blended: `AutoencoderKL.tiled_decode` and
//! `tiled_encode` of diffusers, tile_overlap_factor 0.25.

use crate::error::Result;

/// A picture or latents, NHWC, one of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub h: usize,
    pub w: usize,
    pub values: Vec<f32>,
}

impl Field {
    fn channels(&self) -> usize {
        self.values.len() / (self.h * self.w).max(1)
    }

    /// The part from row `y` and column `x` on, at most `side` each way.
    fn crop(&self, y: usize, x: usize, side: usize) -> Field {
        self.part(y, x, side.min(self.h - y), side.min(self.w - x))
    }

    /// The part of `h` x `w` from row `y` and column `x` on; it must be within.
    pub fn part(&self, y: usize, x: usize, h: usize, w: usize) -> Field {
        let c = self.channels();
        let rows = self.values.chunks_exact(self.w * c).skip(y).take(h);
        Field { h, w, values: rows.flat_map(|row| &row[x * c..(x + w) * c]).copied().collect() }
    }

    /// Fades from the last `extent` rows of `above` into the first rows.
    fn blend_rows(&mut self, above: &Field, extent: usize) {
        let extent = extent.min(above.h).min(self.h);
        let row = self.w * self.channels();
        let from = above.values.chunks_exact(row).skip(above.h - extent);
        for (y, (to, from)) in self.values.chunks_exact_mut(row).zip(from).enumerate() {
            let share = y as f32 / extent as f32;
            to.iter_mut().zip(from).for_each(|(b, a)| *b = a * (1.0 - share) + *b * share);
        }
    }

    /// Fades from the last `extent` columns of `left` into the first columns.
    fn blend_columns(&mut self, left: &Field, extent: usize) {
        let extent = extent.min(left.w).min(self.w);
        let c = self.channels();
        let rows = self.values.chunks_exact_mut(self.w * c).zip(left.values.chunks_exact(left.w * c));
        for (to, from) in rows {
            let from = from.chunks_exact(c).skip(left.w - extent);
            for (x, (to, from)) in to.chunks_exact_mut(c).zip(from).enumerate() {
                let share = x as f32 / extent as f32;
                to.iter_mut().zip(from).for_each(|(b, a)| *b = a * (1.0 - share) + *b * share);
            }
        }
    }

    /// Writes `part` at row `y` and column `x`, as far as there is room.
    fn paste(&mut self, part: &Field, y: usize, x: usize) {
        let c = self.channels();
        let n = part.w.min(self.w - x) * c;
        let rows = self.values.chunks_exact_mut(self.w * c).skip(y);
        for (to, from) in rows.zip(part.values.chunks_exact(part.w * c)) {
            to[x * c..x * c + n].copy_from_slice(&from[..n]);
        }
    }
}

/// A stretch of a side that goes through a network of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub start: usize,
    /// What is kept of it, counted as `start` is.
    pub keep: std::ops::Range<usize>,
}

/// Windows of `side` (or all of `len`, if that is less) over `len`: each keeps what is `pad` away from its ends, where
/// they are not the picture's, and together they keep all, once. For a network whose result at a place depends on no
/// more than `pad` around it, they give what the whole gives.
pub fn windows(len: usize, side: usize, pad: usize) -> Vec<Window> {
    if len <= side {
        return vec![Window { start: 0, keep: 0..len }];
    }
    let mut out: Vec<Window> = Vec::new();
    loop {
        let from = out.last().map_or(0, |w| w.keep.end);
        let start = from.saturating_sub(pad).min(len - side);
        let end = if start + side == len { len } else { start + side - pad };
        out.push(Window { start, keep: from..end });
        if end == len {
            return out;
        }
    }
}

/// `run` over tiles of `input`, `tile_in` a side, each giving one of `tile_out` a side; tiles at the right and
/// the bottom may be smaller. Both sizes are multiples of four, and one is a multiple of the other.
///
/// # Errors
/// Those of `run`.
pub async fn tiled(
    input: &Field,
    tile_in: usize,
    tile_out: usize,
    mut run: impl AsyncFnMut(&Field) -> Result<Field>,
) -> Result<Field> {
    let step = tile_in / 4 * 3;
    let extent = tile_out / 4;
    let limit = tile_out - extent;
    let size = |n: usize| n * tile_out / tile_in;
    let mut out = Field { h: size(input.h), w: size(input.w), values: Vec::new() };
    let mut above: Vec<Field> = Vec::new();
    for (i, y) in (0..input.h).step_by(step).enumerate() {
        let mut row: Vec<Field> = Vec::new();
        for (j, x) in (0..input.w).step_by(step).enumerate() {
            let mut tile = run(&input.crop(y, x, tile_in)).await?;
            if let Some(above) = above.get(j) {
                tile.blend_rows(above, extent);
            }
            if let Some(left) = row.last() {
                tile.blend_columns(left, extent);
            }
            if out.values.is_empty() {
                out.values = vec![0.0; out.h * out.w * tile.channels()];
            }
            out.paste(&tile.crop(0, 0, limit), i * limit, j * limit);
            row.push(tile);
        }
        above = row;
    }
    Ok(out)
}
