//! Operations as a family records them once and a backend replays them at every step. They know nothing of where they
//! run: `cpu.rs` computes them.

/// A matrix of `rows` by `cols` values, row by row, from `at` on in a tape's memory. A vector is one row.
#[derive(Clone, Copy, Debug)]
pub struct Tensor {
    pub at: usize,
    pub rows: usize,
    pub cols: usize,
}

impl Tensor {
    pub fn len(self) -> usize {
        self.rows * self.cols
    }
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
    pub fn range(self) -> std::ops::Range<usize> {
        self.at..self.at + self.len()
    }
}

/// Frequencies of `Features`: 1, 2, 4, 8.
pub const FREQUENCIES: usize = 4;
/// A coupling multiplies by no more than the exponential of this, and by no less than its inverse.
pub const MOST_SCALE: f32 = 2.0;

/// One operation. Backward, each adds to the gradients of what it read; the last one of a list is a loss, whose own
/// gradient is 1. What an operation writes stands behind what it reads.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// y = for `count` columns of x from `first` on: the values, then for each frequency their sines and their cosines;
    /// and behind these the noise time, where there is one. `passes`: x gets a gradient.
    Features { x: Tensor, first: usize, count: usize, time: Option<Tensor>, y: Tensor, passes: bool },
    /// y = x w + b. `learns`: w and b get gradients; `passes`: x does.
    Linear { x: Tensor, w: Tensor, b: Tensor, y: Tensor, learns: bool, passes: bool },
    /// y = x sigmoid(x)
    Silu { x: Tensor, y: Tensor },
    /// An affine coupling (Dinh et al. 2017). Rows of x and y are a point and the logarithm of what its volume was
    /// multiplied by so far; those of `st` are a scale s, bounded by tanh, and a shift t. The coordinate `keep` stays, the
    /// other becomes x exp(s) + t.
    Couple { x: Tensor, st: Tensor, keep: usize, y: Tensor },
    /// Its inverse: the other coordinate becomes (x - t) exp(-s). Only forward.
    Uncouple { x: Tensor, st: Tensor, keep: usize, y: Tensor },
    /// z = mean + exp(log variance / 2) noise; rows of `stats` are two means and two log variances.
    Reparametrise { stats: Tensor, noise: Tensor, z: Tensor },
    /// Mean of the squared differences.
    Mse { x: Tensor, target: Tensor, loss: Tensor },
    /// Negative log-likelihood of what `Couple` gave under a standard normal distribution, mean of rows.
    Nll { x: Tensor, loss: Tensor },
    /// Negative evidence lower bound, mean of rows: the target under a normal distribution about x whose standard deviation
    /// is `sigma`, and the divergence of `stats` from a standard normal distribution.
    Elbo { x: Tensor, target: Tensor, stats: Tensor, sigma: f32, loss: Tensor },
    /// Binary cross-entropy of logits with one label (0 or 1), mean of rows, times `weight`.
    Bce { x: Tensor, label: f32, weight: f32, loss: Tensor },
}
