//! Operations: each checks its shapes, chooses a kernel and records a dispatch. One file a family.
//!
//! `name` is the layer's in the checkpoint, below the recorder's scope: its weights are `{name}.weight` and, where it
//! has one, `{name}.bias`.

mod attention;
pub mod autotune;
mod canny;
mod conv;
mod gather;
mod input;
mod lora;
mod matmul;
mod matrix;
mod norm;
mod pointwise;
mod probe;
mod selftest;
mod softedge;
mod tile;
mod trial;

pub use attention::attention;
pub use canny::canny;
pub use conv::Conv;
pub use gather::{embed, embed_onto, gather};
pub use input::{Columns, Input};
pub use lora::{Watch, merge, merge_into};
pub use matmul::{
    Epilogue, Rows, conv2d, conv2d_rows, conv2d_with_shortcut, linear, linear_no_bias, linear_stack,
    linear_stack_no_bias,
};
pub use norm::{GroupStats, group_norm, layer_norm, layer_normed};
pub use pointwise::{Activation, activate, add, add_scaled, affine, average, mean, plus_scaled};
pub use probe::{watch_attention, watch_block};
pub use selftest::{Precision, check, open, sound};
pub use softedge::softedge;
pub use trial::Trial;
