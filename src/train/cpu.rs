//! Operations on the CPU, in f32.

use super::gemm::{Packed, Start, View, gemm};
use super::op::{FREQUENCIES, MOST_SCALE, Op, Tensor};

/// The logarithm of 2 pi.
pub(super) const LN_TAU: f32 = 1.837_877_1;

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// What an operation reads, and what it writes behind that.
fn split(values: &mut [f32], y: Tensor) -> (&[f32], &mut [f32]) {
    let (before, after) = values.split_at_mut(y.at);
    (before, &mut after[..y.len()])
}

/// What gets gradients, and those that came.
fn split_back(grads: &mut [f32], y: Tensor) -> (&mut [f32], &[f32]) {
    let (before, after) = grads.split_at_mut(y.at);
    (before, &after[..y.len()])
}

fn mean(sum: f32, rows: usize) -> f32 {
    sum / rows as f32
}

/// Computes an operation.
pub fn forward(op: &Op, values: &mut [f32], packed: &mut Packed) {
    match *op {
        Op::Features { x, first, count, time, y, .. } => {
            let (v, out) = split(values, y);
            for (row, out) in out.chunks_exact_mut(y.cols).enumerate() {
                let from = x.at + row * x.cols + first;
                for (j, &value) in v[from..from + count].iter().enumerate() {
                    out[j] = value;
                    for k in 0..FREQUENCIES {
                        let (sin, cos) = (value * (1 << k) as f32).sin_cos();
                        out[(1 + 2 * k) * count + j] = sin;
                        out[(2 + 2 * k) * count + j] = cos;
                    }
                }
                if let Some(time) = time {
                    out[y.cols - 1] = v[time.at + row];
                }
            }
        }
        Op::Linear { x, w, b, y, .. } => {
            let (v, out) = split(values, y);
            let size = (x.rows, x.cols, y.cols);
            let (a, w) = (View::new(&v[x.range()], x.cols), View::new(&v[w.range()], w.cols));
            gemm(packed, size, a, w, Start::Bias(&v[b.range()]), out);
        }
        Op::Silu { x, y } => {
            let (v, out) = split(values, y);
            for (out, &x) in out.iter_mut().zip(&v[x.range()]) {
                *out = x * sigmoid(x);
            }
        }
        Op::Couple { x, st, keep, y } => {
            let (v, out) = split(values, y);
            for ((x, st), out) in rows(v, x).zip(rows(v, st)).zip(out.chunks_exact_mut(3)) {
                let s = bounded(st[0]);
                out.copy_from_slice(x);
                out[1 - keep] = x[1 - keep] * s.exp() + st[1];
                out[2] = x[2] + s;
            }
        }
        Op::Uncouple { x, st, keep, y } => {
            let (v, out) = split(values, y);
            for ((x, st), out) in rows(v, x).zip(rows(v, st)).zip(out.chunks_exact_mut(3)) {
                let s = bounded(st[0]);
                out.copy_from_slice(x);
                out[1 - keep] = (x[1 - keep] - st[1]) * (-s).exp();
                out[2] = x[2] - s;
            }
        }
        Op::Reparametrise { stats, noise, z } => {
            let (v, out) = split(values, z);
            for ((stats, noise), out) in rows(v, stats).zip(rows(v, noise)).zip(out.chunks_exact_mut(2)) {
                for j in 0..2 {
                    out[j] = stats[j] + (0.5 * stats[2 + j]).exp() * noise[j];
                }
            }
        }
        Op::Mse { .. } | Op::Nll { .. } | Op::Elbo { .. } | Op::Bce { .. } => loss(op, values),
    }
}

fn rows(values: &[f32], x: Tensor) -> std::slice::ChunksExact<'_, f32> {
    values[x.range()].chunks_exact(x.cols)
}

/// The scale of a coupling, of whatever size the network gives.
fn bounded(s: f32) -> f32 {
    MOST_SCALE * (s / MOST_SCALE).tanh()
}

fn loss(op: &Op, values: &mut [f32]) {
    let (loss, value) = match *op {
        Op::Mse { x, target, loss } => {
            let squares =
                values[x.range()].iter().zip(&values[target.range()]).map(|(x, t)| (x - t) * (x - t));
            (loss, mean(squares.sum(), x.len()))
        }
        Op::Nll { x, loss } => {
            let each = rows(values, x).map(|x| 0.5 * (x[0] * x[0] + x[1] * x[1]) - x[2]);
            (loss, mean(each.sum(), x.rows) + LN_TAU)
        }
        Op::Elbo { x, target, stats, sigma, loss } => {
            let off = rows(values, x).zip(rows(values, target)).map(|(x, t)| {
                ((x[0] - t[0]) * (x[0] - t[0]) + (x[1] - t[1]) * (x[1] - t[1])) / (2.0 * sigma * sigma)
            });
            let apart = rows(values, stats).map(|stats| {
                let each = |j: usize| stats[j] * stats[j] + stats[2 + j].exp() - 1.0 - stats[2 + j];
                0.5 * (each(0) + each(1))
            });
            let sum: f32 = off.zip(apart).map(|(off, apart)| off + apart).sum();
            (loss, mean(sum, x.rows) + LN_TAU + 2.0 * sigma.ln())
        }
        Op::Bce { x, label, weight, loss } => {
            let each = values[x.range()].iter().map(|&x| x.max(0.0) - x * label + (-x.abs()).exp().ln_1p());
            (loss, weight * mean(each.sum(), x.rows))
        }
        _ => return,
    };
    values[loss.at] = value;
}

/// Adds an operation's gradients to those of what it read.
pub fn backward(op: &Op, values: &[f32], grads: &mut [f32], packed: &mut Packed) {
    match *op {
        Op::Features { x, first, count, y, passes: true, .. } => {
            let (before, dy) = split_back(grads, y);
            for (row, (y, dy)) in rows(values, y).zip(dy.chunks_exact(y.cols)).enumerate() {
                for j in 0..count {
                    let mut sum = dy[j];
                    for k in 0..FREQUENCIES {
                        let (sin, cos) = ((1 + 2 * k) * count + j, (2 + 2 * k) * count + j);
                        sum += (1 << k) as f32 * (dy[sin] * y[cos] - dy[cos] * y[sin]);
                    }
                    before[x.at + row * x.cols + first + j] += sum;
                }
            }
        }
        Op::Linear { x, w, b, y, learns, passes } => {
            let (before, dy) = split_back(grads, y);
            if learns {
                let size = (x.cols, x.rows, y.cols);
                let a = View::new(&values[x.range()], x.cols).turned();
                gemm(packed, size, a, View::new(dy, y.cols), Start::Kept, &mut before[w.range()]);
                let db = &mut before[b.range()];
                for dy in dy.chunks_exact(y.cols) {
                    for (db, dy) in db.iter_mut().zip(dy) {
                        *db += dy;
                    }
                }
            }
            if passes {
                let size = (x.rows, y.cols, x.cols);
                let w = View::new(&values[w.range()], w.cols).turned();
                gemm(packed, size, View::new(dy, y.cols), w, Start::Kept, &mut before[x.range()]);
            }
        }
        Op::Silu { x, y } => {
            let (before, dy) = split_back(grads, y);
            for ((dx, dy), &x) in before[x.range()].iter_mut().zip(dy).zip(&values[x.range()]) {
                let s = sigmoid(x);
                *dx += dy * s * (1.0 + x * (1.0 - s));
            }
        }
        Op::Couple { x, st, keep, y } => {
            let (before, dy) = split_back(grads, y);
            for (row, dy) in dy.chunks_exact(3).enumerate() {
                let (x_at, st_at) = (x.at + 3 * row, st.at + 2 * row);
                let s = bounded(values[st_at]);
                let by = s.exp();
                before[x_at + keep] += dy[keep];
                before[x_at + 1 - keep] += dy[1 - keep] * by;
                before[x_at + 2] += dy[2];
                let slope = 1.0 - (s / MOST_SCALE) * (s / MOST_SCALE);
                before[st_at] += slope * (dy[2] + dy[1 - keep] * values[x_at + 1 - keep] * by);
                before[st_at + 1] += dy[1 - keep];
            }
        }
        Op::Reparametrise { stats, noise, z } => {
            let (before, dz) = split_back(grads, z);
            for (row, dz) in dz.chunks_exact(2).enumerate() {
                let at = stats.at + 4 * row;
                for j in 0..2 {
                    before[at + j] += dz[j];
                    let half = 0.5 * (0.5 * values[at + 2 + j]).exp();
                    before[at + 2 + j] += dz[j] * values[noise.at + 2 * row + j] * half;
                }
            }
        }
        _ => loss_backward(op, values, grads),
    }
}

fn loss_backward(op: &Op, values: &[f32], grads: &mut [f32]) {
    match *op {
        Op::Mse { x, target, .. } => {
            let by = 2.0 / x.len() as f32;
            let off = values[x.range()].iter().zip(&values[target.range()]);
            for (dx, (x, t)) in grads[x.range()].iter_mut().zip(off) {
                *dx += by * (x - t);
            }
        }
        Op::Nll { x, .. } => {
            let by = 1.0 / x.rows as f32;
            for (dx, x) in grads[x.range()].chunks_exact_mut(3).zip(rows(values, x)) {
                dx[0] += by * x[0];
                dx[1] += by * x[1];
                dx[2] -= by;
            }
        }
        Op::Elbo { x, target, stats, sigma, .. } => {
            let by = 1.0 / x.rows as f32;
            let off = values[x.range()].iter().zip(&values[target.range()]);
            for (dx, (x, t)) in grads[x.range()].iter_mut().zip(off) {
                *dx += by * (x - t) / (sigma * sigma);
            }
            for (d, stats) in grads[stats.range()].chunks_exact_mut(4).zip(rows(values, stats)) {
                for j in 0..2 {
                    d[j] += by * stats[j];
                    d[2 + j] += by * 0.5 * (stats[2 + j].exp() - 1.0);
                }
            }
        }
        Op::Bce { x, label, weight, .. } => {
            let by = weight / x.rows as f32;
            for (dx, &x) in grads[x.range()].iter_mut().zip(&values[x.range()]) {
                *dx += by * (sigmoid(x) - label);
            }
        }
        _ => {}
    }
}
