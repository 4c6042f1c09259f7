//! What operations read, and how their work is laid out.

use crate::error::{Error, Result};
use crate::gpu::{Tensor, Weight};

/// One tensor, or two that are read as one along the channels (skip connections), without a copy.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    pub first: Tensor,
    pub second: Option<Tensor>,
    /// Every row goes through this before it is multiplied (see [`super::layer_normed`]).
    pub(super) norm: Option<LayerNorm>,
}

impl From<Tensor> for Input {
    fn from(first: Tensor) -> Self {
        Self { first, second: None, norm: None }
    }
}

impl From<(Tensor, Tensor)> for Input {
    fn from((first, second): (Tensor, Tensor)) -> Self {
        Self { first, second: Some(second), norm: None }
    }
}

impl Input {
    /// Channels of both.
    pub fn channels(&self) -> u32 {
        self.first.c + self.second.map_or(0, |t| t.c)
    }

    pub(super) fn c4(&self) -> u32 {
        self.channels().div_ceil(4)
    }

    /// # Errors
    /// `unsupported-model` where the two do not fit together.
    pub(super) fn check(&self) -> Result<()> {
        let Some(second) = self.second else { return Ok(()) };
        let Tensor { n, h, w, c, .. } = self.first;
        if (n, h, w) != (second.n, second.h, second.w) {
            return Err(Error::unsupported(format!(
                "tensors of {h}x{w} and {}x{} cannot be joined along the channels",
                second.h, second.w
            )));
        }
        if c % 4 != 0 {
            return Err(Error::unsupported(format!(
                "a skip connection of {c} channels: only multiples of 4 are supported"
            )));
        }
        Ok(())
    }
}

/// Some channels of every row of a tensor, read where they lie: a part of what [`super::linear_stack`] makes.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    pub tensor: Tensor,
    /// The first channel, a multiple of 4.
    pub from: u32,
    pub c: u32,
}

impl From<Tensor> for Columns {
    fn from(tensor: Tensor) -> Self {
        Self { tensor, from: 0, c: tensor.c }
    }
}

impl Columns {
    /// The `i`-th block of `c` columns.
    pub fn nth(tensor: Tensor, i: u32, c: u32) -> Self {
        Self { tensor, from: i * c, c }
    }

    /// Vectors from row to row.
    pub(super) fn stride(&self) -> u32 {
        self.tensor.c4()
    }

    /// Vectors from a row's start to these channels.
    pub(super) fn first(&self) -> u32 {
        self.from / 4
    }
}

/// A layer normalisation that the product which reads its input does on the way.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerNorm {
    pub gamma: Weight,
    pub beta: Weight,
    pub epsilon: f32,
}

/// So many workgroups in two dimensions, neither past WebGPU's limit.
pub(super) fn spread(groups: u32) -> [u32; 3] {
    const MAX: u32 = 65535;
    if groups <= MAX { [groups.max(1), 1, 1] } else { [MAX, groups.div_ceil(MAX), 1] }
}
