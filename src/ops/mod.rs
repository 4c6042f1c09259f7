//! Operations: each checks its shapes, chooses a kernel and records a dispatch. One file a family.
//!
//! `prefix` names weights as the checkpoint does: `{prefix}.weight`, `{prefix}.bias`.

mod attention;
pub mod autotune;
mod canny;
mod gather;
mod input;
mod lora;
mod matmul;
mod matrix;
mod norm;
mod pointwise;
mod selftest;

pub use attention::attention;
pub use canny::canny;
pub use gather::{embed, gather};
pub use input::{Columns, Input};
pub use lora::merge;
pub use matmul::{Conv, Epilogue, Rows, conv2d, conv2d_rows, conv2d_with_shortcut, linear, linear_stack};
pub use norm::{GroupStats, group_norm, layer_norm, layer_normed};
pub use pointwise::{Activation, activate, add, add_scaled, affine, mean};
pub use selftest::{Precision, open};
