//! The one matrix product of training: C = A B, with A and B as they lie or turned, four rows by eight columns at a time.

/// A matrix within `data`: the element of row i and column j stands at `i * row + j * column`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub column: usize,
}

impl<'a> View<'a> {
    /// A matrix of so many columns, row by row.
    pub fn new(data: &'a [f32], columns: usize) -> Self {
        Self { data, row: columns, column: 1 }
    }

    /// The same, turned.
    pub fn turned(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }
}

/// What a product is added to.
pub enum Start<'a> {
    /// A row that stands in each row of C.
    Bias(&'a [f32]),
    /// What C holds.
    Kept,
}

/// Where A and B are copied to, in the order that the inner loop reads them. Kept from product to product.
#[derive(Default)]
pub struct Packed {
    a: Vec<f32>,
    b: Vec<f32>,
}

const ROWS: usize = 4;
const COLUMNS: usize = 8;
type Tile = [[f32; COLUMNS]; ROWS];

/// C (m x n, row by row) = start + A (m x k) B (k x n). Rows and columns beyond a whole tile are computed as zeros and
/// left out.
pub fn gemm(
    packed: &mut Packed,
    (m, k, n): (usize, usize, usize),
    a: View,
    b: View,
    start: Start,
    c: &mut [f32],
) {
    packed.b.clear();
    for first in (0..n).step_by(COLUMNS) {
        let width = COLUMNS.min(n - first);
        for at in 0..k {
            let from = at * b.row + first * b.column;
            packed.b.extend((0..width).map(|j| b.data[from + j * b.column]));
            packed.b.extend((width..COLUMNS).map(|_| 0.0));
        }
    }
    for top in (0..m).step_by(ROWS) {
        let height = ROWS.min(m - top);
        packed.a.clear();
        for at in 0..k {
            let from = top * a.row + at * a.column;
            packed.a.extend((0..height).map(|i| a.data[from + i * a.row]));
            packed.a.extend((height..ROWS).map(|_| 0.0));
        }
        for (panel, first) in packed.b.chunks_exact(COLUMNS * k).zip((0..n).step_by(COLUMNS)) {
            let tile = tile(&packed.a, panel);
            let width = COLUMNS.min(n - first);
            for (i, sums) in tile.iter().enumerate().take(height) {
                let from = (top + i) * n + first;
                let out = &mut c[from..from + width];
                match &start {
                    Start::Bias(bias) => {
                        for ((out, sum), bias) in out.iter_mut().zip(sums).zip(&bias[first..]) {
                            *out = bias + sum;
                        }
                    }
                    Start::Kept => {
                        for (out, sum) in out.iter_mut().zip(sums) {
                            *out += sum;
                        }
                    }
                }
            }
        }
    }
}

/// Sums over k of the products of four values of A and eight of B.
#[cfg(not(target_arch = "wasm32"))]
fn tile(a: &[f32], b: &[f32]) -> Tile {
    let mut sums = [[0.0; COLUMNS]; ROWS];
    for (a, b) in a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<COLUMNS>().0) {
        for (sums, a) in sums.iter_mut().zip(a) {
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
    }
    sums
}

/// The same in vectors of four: the module is built for its size, where the compiler makes none of such loops by itself.
/// Every browser with WebGPU has these vectors; of those without, Chrome from 91, Firefox from 89, Safari from 16.4.
#[cfg(target_arch = "wasm32")]
#[target_feature(enable = "simd128")]
fn tile(a: &[f32], b: &[f32]) -> Tile {
    use std::arch::wasm32::{f32x4, f32x4_add, f32x4_extract_lane, f32x4_mul, f32x4_splat};
    let mut sums = [[f32x4_splat(0.0); 2]; ROWS];
    for (a, b) in a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<COLUMNS>().0) {
        let b = [f32x4(b[0], b[1], b[2], b[3]), f32x4(b[4], b[5], b[6], b[7])];
        for (sums, &a) in sums.iter_mut().zip(a) {
            let a = f32x4_splat(a);
            sums[0] = f32x4_add(sums[0], f32x4_mul(a, b[0]));
            sums[1] = f32x4_add(sums[1], f32x4_mul(a, b[1]));
        }
    }
    sums.map(|[x, y]| {
        [
            f32x4_extract_lane::<0>(x),
            f32x4_extract_lane::<1>(x),
            f32x4_extract_lane::<2>(x),
            f32x4_extract_lane::<3>(x),
            f32x4_extract_lane::<0>(y),
            f32x4_extract_lane::<1>(y),
            f32x4_extract_lane::<2>(y),
            f32x4_extract_lane::<3>(y),
        ]
    })
}
