//! Small dense matrices, row-major: what is computed of a LoRA's factors before they go to the GPU.

/// `[m][k]` times `[k][n]`.
pub(super) fn times(a: &[f32], b: &[f32], [m, k, n]: [usize; 3]) -> Vec<f32> {
    let mut out = vec![0.0; m * n];
    for (row, a) in out.chunks_exact_mut(n.max(1)).zip(a.chunks_exact(k.max(1))) {
        for (&a, b) in a.iter().zip(b.chunks_exact(n.max(1))) {
            row.iter_mut().zip(b).for_each(|(o, b)| *o += a * b);
        }
    }
    out
}

/// `core` `[r][s][taps]` and `b` `[s][inner]` to `[r][inner][taps]`.
pub(super) fn core_times(core: &[f32], b: &[f32], [r, s, inner, taps]: [usize; 4]) -> Vec<f32> {
    let mut out = vec![0.0; r * inner * taps];
    for i in 0..r {
        for j in 0..s {
            let core = &core[(i * s + j) * taps..][..taps];
            for (c, b) in b[j * inner..][..inner].iter().enumerate() {
                let to = &mut out[(i * inner + c) * taps..][..taps];
                to.iter_mut().zip(core).for_each(|(o, k)| *o += b * k);
            }
        }
    }
    out
}

/// `[n][m]` to `[m][n]`.
pub(super) fn turned(a: &[f32], n: usize, m: usize) -> Vec<f32> {
    (0..n * m).map(|i| a[i % n * m + i / n]).collect()
}

/// Of each `[size][size]` block `b` its Cayley transform `(I + q)(I - q)^-1` with `q = b - b^T`, all of them shortened
/// together where their length is more than `limit`: orthogonal matrices, as OFT and BOFT have them. With `turn`
/// transposed.
pub(super) fn cayley(blocks: &[f32], size: usize, limit: f64, turn: bool) -> Vec<f32> {
    let skew: Vec<f64> = blocks
        .chunks_exact(size * size)
        .flat_map(|b| {
            (0..size * size).map(move |i| f64::from(b[i]) - f64::from(b[i % size * size + i / size]))
        })
        .collect();
    let length = skew.iter().map(|v| v * v).sum::<f64>().sqrt() + 1e-8;
    let shorter = if length > limit { limit / length } else { 1.0 };
    // R^T = (I + q)^-1 (I - q), and R is that of -q.
    let sign = if turn { shorter } else { -shorter };
    skew.chunks_exact(size * size)
        .flat_map(|q| {
            let identity = |i: usize| f64::from(u8::from(i.is_multiple_of(size + 1)));
            let mut left: Vec<f64> = q.iter().enumerate().map(|(i, v)| identity(i) + sign * v).collect();
            let mut right: Vec<f64> = q.iter().enumerate().map(|(i, v)| identity(i) - sign * v).collect();
            solve(&mut left, &mut right, size);
            right.into_iter().map(|v| v as f32)
        })
        .collect()
}

/// `left^-1 right` into `right`, all `[n][n]`. `left` is I plus a skew matrix: its pivots are at least 1, none is sought.
fn solve(left: &mut [f64], right: &mut [f64], n: usize) {
    for pivot in 0..n {
        let (from, own) = (pivot * n..(pivot + 1) * n, left[pivot * n + pivot]);
        let (row, answer) = (left[from.clone()].to_vec(), right[from.clone()].to_vec());
        for i in pivot + 1..n {
            let factor = left[i * n + pivot] / own;
            if factor != 0.0 {
                left[i * n..][..n].iter_mut().zip(&row).skip(pivot).for_each(|(v, r)| *v -= factor * r);
                right[i * n..][..n].iter_mut().zip(&answer).for_each(|(v, r)| *v -= factor * r);
            }
        }
    }
    for pivot in (0..n).rev() {
        let own = left[pivot * n + pivot];
        let (above, rest) = right.split_at_mut(pivot * n);
        rest[..n].iter_mut().for_each(|v| *v /= own);
        for (i, row) in above.chunks_exact_mut(n).enumerate() {
            let factor = left[i * n + pivot];
            row.iter_mut().zip(&rest[..n]).for_each(|(v, r)| *v -= factor * r);
        }
    }
}
