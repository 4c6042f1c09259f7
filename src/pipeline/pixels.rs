//! Pictures of eight bits a channel: enlarged, blurred, laid over each other. To the byte as Pillow does it (resizing:
//! within its fixed point), since A1111's results are Pillow's. And what networks read and write of them: floats in one
//! order or the other, enlarged as torch does it.

use super::request::{Enlarge, Picture};

/// Bytes of `c` interleaved channels, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes {
    pub w: usize,
    pub h: usize,
    pub c: usize,
    pub data: Vec<u8>,
}

/// x / 255, rounded, for x up to 255 * 255.
fn div255(x: u32) -> u32 {
    let x = x + 128;
    ((x >> 8) + x) >> 8
}

/// Of two bytes, `share` of 255 of the second.
fn mix(a: u8, b: u8, share: u8) -> u8 {
    div255(a as u32 * (255 - share as u32) + b as u32 * share as u32) as u8
}

impl Bytes {
    /// A picture's four channels.
    pub fn of(picture: &Picture) -> Bytes {
        Bytes { w: picture.width as usize, h: picture.height as usize, c: 4, data: picture.data.clone() }
    }

    /// The picture that four channels are.
    pub fn picture(self) -> Picture {
        Picture { width: self.w as u32, height: self.h as u32, data: self.data }
    }

    /// A picture's grey, as Pillow's "L": ITU-R 601-2 luma.
    pub fn grey(picture: &Picture) -> Bytes {
        let grey = |p: &[u8]| {
            ((p[0] as u32 * 19595 + p[1] as u32 * 38470 + p[2] as u32 * 7471 + 0x8000) >> 16) as u8
        };
        let data = picture.data.chunks_exact(4).map(grey).collect();
        Bytes { w: picture.width as usize, h: picture.height as usize, c: 1, data }
    }

    /// The part of `w` x `h` from column `x` and row `y` on; it must be within.
    pub fn crop(&self, x: usize, y: usize, w: usize, h: usize) -> Bytes {
        let rows = self.data.chunks_exact(self.w * self.c).skip(y).take(h);
        let data = rows.flat_map(|row| &row[x * self.c..(x + w) * self.c]).copied().collect();
        Bytes { w, h, c: self.c, data }
    }

    /// Writes `part`, which must fit, at column `x` and row `y`.
    pub fn paste(&mut self, part: &Bytes, x: usize, y: usize) {
        let rows = self.data.chunks_exact_mut(self.w * self.c).skip(y);
        for (to, from) in rows.zip(part.data.chunks_exact(part.w * part.c)) {
            to[x * part.c..][..from.len()].copy_from_slice(from);
        }
    }

    /// `over` where the mask is 255, this where it is 0, a mixture between: `Image.composite`.
    pub fn composite(&mut self, over: &Bytes, mask: &Bytes) {
        let pixels = self.data.chunks_exact_mut(self.c).zip(over.data.chunks_exact(self.c));
        for ((to, from), &share) in pixels.zip(&mask.data) {
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = mix(*to, from, share));
        }
    }

    /// Columns as rows.
    fn transposed(&self) -> Bytes {
        let mut data = Vec::with_capacity(self.data.len());
        for x in 0..self.w {
            for y in 0..self.h {
                data.extend_from_slice(&self.data[(y * self.w + x) * self.c..][..self.c]);
            }
        }
        Bytes { w: self.h, h: self.w, c: self.c, data }
    }

    /// Each row through `line`, which writes one of `w` pixels.
    fn rows(&self, w: usize, line: &dyn Fn(&[u8], &mut [u8])) -> Bytes {
        let mut data = vec![0; w * self.h * self.c];
        let rows = data.chunks_exact_mut(w * self.c).zip(self.data.chunks_exact(self.w * self.c));
        rows.for_each(|(to, from)| line(from, to));
        Bytes { w, h: self.h, c: self.c, data }
    }

    /// Lanczos of three lobes, as `Image.resize`.
    pub fn resized(&self, w: usize, h: usize) -> Bytes {
        self.resized_by(Filter::Lanczos, w, h)
    }

    /// As `Image.resize`.
    pub fn resized_by(&self, filter: Filter, w: usize, h: usize) -> Bytes {
        let axis = |picture: &Bytes, to: usize| {
            if picture.w == to {
                return picture.clone();
            }
            let windows = filter.windows(picture.w, to);
            let c = picture.c;
            picture.rows(to, &|from, to| {
                for (pixel, (start, weights)) in to.chunks_exact_mut(c).zip(&windows) {
                    for (k, out) in pixel.iter_mut().enumerate() {
                        let values = from[start * c + k..].iter().step_by(c);
                        *out = rounded(weights.iter().zip(values).map(|(w, &v)| w * v as f64).sum());
                    }
                }
            })
        };
        axis(&axis(self, w).transposed(), h).transposed()
    }

    /// A Gaussian of `sigma` pixels, cut off at 2.5 sigma, the border mirrored: A1111's mask blur (OpenCV's
    /// `GaussianBlur`, `kernel_size = 2 * int(2.5 * sigma + 0.5) + 1`).
    pub fn blurred(&self, sigma: f64) -> Bytes {
        let radius = (2.5 * sigma + 0.5) as usize;
        let weights: Vec<f64> =
            (0..=radius).map(|k| (-((k * k) as f64) / (2.0 * sigma * sigma)).exp()).collect();
        let total = 2.0 * weights.iter().sum::<f64>() - 1.0;
        let axis = |picture: &Bytes| {
            let (n, c) = (picture.w as isize, picture.c);
            // Mirrored about the first and the last pixel, as often as it takes.
            let period = (2 * (n - 1)).max(1);
            let place = |x: isize| {
                let x = x.rem_euclid(period);
                x.min(period - x).min(n - 1) as usize
            };
            picture.rows(picture.w, &|from, to| {
                for (i, out) in to.iter_mut().enumerate() {
                    let (x, k) = ((i / c) as isize, i % c);
                    let at = |x: isize| from[place(x) * c + k] as f64;
                    let mut sum = weights[0] * at(x);
                    for (d, w) in weights.iter().enumerate().skip(1) {
                        sum += w * (at(x - d as isize) + at(x + d as isize));
                    }
                    *out = rounded(sum / total);
                }
            })
        };
        axis(&axis(self).transposed()).transposed()
    }

    /// Three box blurs that come near a Gaussian, the border's pixels repeated: `ImageFilter.GaussianBlur` (Gwosdek,
    /// Grewenig, Bruhn and Weickert, "Theoretical foundations of Gaussian convolution by extended box filtering").
    fn box_blurred(&self, sigma: f32) -> Bytes {
        const PASSES: usize = 3;
        if sigma == 0.0 {
            return self.clone();
        }
        let variance = sigma * sigma / PASSES as f32;
        let length = (12.0 * variance as f64 + 1.0).sqrt() as f32;
        let whole = ((length - 1.0) / 2.0).floor();
        let fraction = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance)
            / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)));
        let radius = whole + fraction;
        let axis = |picture: &Bytes| {
            let c = picture.c;
            let reach = radius as isize;
            // The weights in 24 bits of fraction: of a pixel within reach, and of the two just outside.
            let inner = ((1u32 << 24) as f32 / (radius * 2.0 + 1.0)) as u64;
            let outer = ((1 << 24) - (2 * reach as u64 + 1) * inner) / 2;
            let line = |from: &[u8], to: &mut [u8]| {
                let last = (from.len() / c) as isize - 1;
                for k in 0..c {
                    let at = |x: isize| from[x.clamp(0, last) as usize * c + k] as u64;
                    let mut sum: u64 = (-reach..=reach).map(at).sum();
                    for x in 0..=last {
                        let edges = at(x - reach - 1) + at(x + reach + 1);
                        to[x as usize * c + k] = ((sum * inner + edges * outer + (1 << 23)) >> 24) as u8;
                        sum = sum + at(x + reach + 1) - at(x - reach);
                    }
                }
            };
            (0..PASSES).fold(picture.clone(), |p, _| p.rows(p.w, &line))
        };
        axis(&axis(self).transposed()).transposed()
    }

    /// A picture whose masked part has the colours around it: A1111's masked content "fill", the picture without that
    /// part blurred less and less, one over the other.
    pub fn filled(&self, mask: &Bytes) -> Bytes {
        const RADII: [(f32, usize); 6] = [(256.0, 1), (64.0, 1), (16.0, 2), (4.0, 4), (2.0, 2), (0.0, 1)];
        let mut kept = self.clone();
        for (pixel, &m) in kept.data.chunks_exact_mut(4).zip(&mask.data) {
            pixel[3] = 255;
            pixel.iter_mut().for_each(|v| *v = mix(*v, 0, m));
        }
        let mut out = vec![0u8; self.data.len()];
        for (radius, repeats) in RADII {
            let mut blurred = kept.box_blurred(radius);
            for p in blurred.data.chunks_exact_mut(4) {
                let alpha = p[3] as u32;
                if alpha != 0 && alpha != 255 {
                    p[..3].iter_mut().for_each(|v| *v = (255 * *v as u32 / alpha).min(255) as u8);
                }
            }
            for _ in 0..repeats {
                let pixels = out.chunks_exact_mut(4).zip(blurred.data.chunks_exact(4));
                pixels.for_each(|(to, from)| alpha_composite(to, from));
            }
        }
        out.chunks_exact_mut(4).for_each(|p| p[3] = 255);
        Bytes { data: out, ..*self }
    }
}

/// One RGBA pixel over another, in Pillow's fixed point of seven bits.
fn alpha_composite(under: &mut [u8], over: &[u8]) {
    const BITS: u32 = 7;
    let shift = |x: u32| ((x >> 8) + x) >> 8;
    let alpha = over[3] as u32;
    if alpha == 0 {
        return;
    }
    let out = alpha * 255 + under[3] as u32 * (255 - alpha);
    let share = alpha * 255 * 255 * (1 << BITS) / out;
    let rest = 255 * (1 << BITS) - share;
    for (to, &from) in under[..3].iter_mut().zip(over) {
        *to = (shift(from as u32 * share + *to as u32 * rest + (0x80 << BITS)) >> BITS) as u8;
    }
    under[3] = shift(out + 0x80) as u8;
}

fn rounded(v: f64) -> u8 {
    v.round().clamp(0.0, 255.0) as u8
}

/// Pillow's filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Of three lobes.
    Lanczos,
    /// Keys' cubic kernel, A = -0.5.
    Bicubic,
}

impl Filter {
    /// How far it reaches.
    fn reach(self) -> f64 {
        if self == Filter::Lanczos { 3.0 } else { 2.0 }
    }

    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        let sinc = |x: f64| {
            let x = x * std::f64::consts::PI;
            if x == 0.0 { 1.0 } else { x.sin() / x }
        };
        match self {
            _ if x >= self.reach() => 0.0,
            Filter::Lanczos => sinc(x) * sinc(x / self.reach()),
            Filter::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Filter::Bicubic => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        }
    }

    /// For each of `to` pixels, the first of `from` that it sees and the weights of that one and those after.
    fn windows(self, from: usize, to: usize) -> Vec<(usize, Vec<f64>)> {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let reach = self.reach() * stretch;
        (0..to)
            .map(|i| {
                let centre = (i as f64 + 0.5) * scale;
                let start = (centre - reach + 0.5).max(0.0) as usize;
                let end = ((centre + reach + 0.5) as usize).min(from);
                let weights: Vec<f64> =
                    (start..end).map(|x| self.at((x as f64 - centre + 0.5) / stretch)).collect();
                let total: f64 = weights.iter().sum();
                (start, weights.iter().map(|w| w / total).collect())
            })
            .collect()
    }
}

/// NCHW of one picture, each channel from `h` x `w` to `to_h` x `to_w`: `torch.nn.functional.interpolate` with
/// `align_corners=False` and no antialiasing.
pub(super) fn interpolate(latents: &[f32], [h, w, to_h, to_w]: [usize; 4], how: Enlarge) -> Vec<f32> {
    let (rows, columns) = (taps(h, to_h, how), taps(w, to_w, how));
    let mut out = Vec::with_capacity(latents.len() / (h * w) * to_h * to_w);
    for channel in latents.chunks_exact(h * w) {
        for row in &rows {
            for column in &columns {
                let along =
                    |y: usize| column.iter().map(|&(x, share)| share * channel[y * w + x]).sum::<f32>();
                out.push(row.iter().map(|&(y, share)| share * along(y)).sum());
            }
        }
    }
    out
}

/// For each of `to` places those of `from` that it is made of, and their shares.
fn taps(from: usize, to: usize, how: Enlarge) -> Vec<Vec<(usize, f32)>> {
    let scale = from as f64 / to as f64;
    let last = from as isize - 1;
    let at = |x: isize| x.clamp(0, last) as usize;
    // Keys' cubic kernel, A = -0.75.
    let cubic = |t: f64| {
        const A: f64 = -0.75;
        let t = t.abs();
        if t <= 1.0 {
            ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0
        } else {
            ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A
        }
    };
    (0..to)
        .map(|i| {
            let centre = (i as f64 + 0.5) * scale - 0.5;
            match how {
                Enlarge::LatentNearest => vec![(at((i as f64 * scale) as isize), 1.0)],
                Enlarge::LatentBicubic => {
                    let first = centre.floor();
                    let tap = |k: isize| (at(first as isize + k), cubic(centre - first - k as f64) as f32);
                    (-1..=2).map(tap).collect()
                }
                _ => {
                    let centre = centre.max(0.0);
                    let share = (centre - centre.floor()) as f32;
                    vec![(at(centre as isize), 1.0 - share), (at(centre as isize + 1), share)]
                }
            }
        })
        .collect()
}

/// As diffusers' `VaeImageProcessor`: -1..1 to 0..255, rounded to even.
pub(super) fn to_rgba(pixels: &[f32]) -> Vec<u8> {
    let mut data = Vec::with_capacity(pixels.len() / 3 * 4);
    for rgb in pixels.chunks_exact(3) {
        for &v in rgb {
            data.push(((v / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8);
        }
        data.push(255);
    }
    data
}

/// [c, h*w] to [h*w, c].
pub(super) fn to_nhwc(nchw: &[f32], c: usize) -> Vec<f32> {
    let positions = nchw.len() / c;
    (0..nchw.len()).map(|i| nchw[i % c * positions + i / c]).collect()
}

/// [h*w, c] to [c, h*w].
pub(super) fn to_nchw(nhwc: &[f32], c: usize) -> Vec<f32> {
    let positions = nhwc.len() / c;
    (0..nhwc.len()).map(|i| nhwc[i % positions * c + i / positions]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/data/pictures/");

    /// `picture` and `mask` of tests/reference/pictures.py.
    fn given() -> (Bytes, Bytes) {
        let (w, h) = (48, 40);
        let places = || (0..h).flat_map(|y| (0..w).map(move |x| (x, y)));
        let rgba = |(x, y): (usize, usize)| [(x * 4) as u8, (y * 4) as u8, (x * y) as u8, 255];
        let inside = |(x, y)| x >= w / 3 && x < w * 4 / 5 && y >= h / 5 && y < h * 2 / 3;
        let picture = Bytes { w, h, c: 4, data: places().flat_map(rgba).collect() };
        (picture, Bytes { w, h, c: 1, data: places().map(|p| 255 * inside(p) as u8).collect() })
    }

    #[test]
    fn is_what_pillow_and_opencv_make() {
        let index: Value =
            serde_json::from_slice(&std::fs::read(format!("{DATA}cases.json")).unwrap()).unwrap();
        let bytes = std::fs::read(format!("{DATA}pixels.bin")).unwrap();
        let (picture, mask) = given();
        for case in index["pixels"].as_array().unwrap() {
            let number = |key: &str| case[key].as_u64().unwrap() as usize;
            let name = case["name"].as_str().unwrap();
            // Resizing and OpenCV's blur have a fixed point of their own: a level here and there.
            let (got, most) = match name.split(' ').collect::<Vec<_>>()[..] {
                ["blur", sigma] => (mask.blurred(sigma.parse().unwrap()), 1),
                ["fill"] => (picture.filled(&mask), 0),
                ["fill", "soft"] => {
                    // From OpenCV's own blur, which the file begins with.
                    let data = bytes[..mask.data.len()].to_vec();
                    (picture.filled(&Bytes { data, ..mask.clone() }), 0)
                }
                ["resize", w, h] => (picture.resized(w.parse().unwrap(), h.parse().unwrap()), 1),
                ["composite"] => {
                    let mut over = picture.clone();
                    over.data.chunks_exact_mut(4).flat_map(|p| &mut p[..3]).for_each(|v| *v = 255 - *v);
                    let data = bytes[..mask.data.len()].to_vec();
                    let mut out = picture.clone();
                    out.composite(&over, &Bytes { data, ..mask.clone() });
                    (out, 0)
                }
                _ => panic!("{name}"),
            };
            assert_eq!((got.w, got.h), (number("width"), number("height")), "{name}");
            let ours: Vec<u8> =
                got.data.chunks_exact(got.c).flat_map(|p| &p[..got.c.min(3)]).copied().collect();
            let theirs = &bytes[number("offset")..][..ours.len()];
            let far: Vec<u8> =
                ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b)).filter(|d| *d > 0).collect();
            println!("{name}: {} of {} bytes differ", far.len(), ours.len());
            assert!(far.iter().all(|d| *d <= most), "{name}: by {:?}", far.iter().max());
        }
    }
}
