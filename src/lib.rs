//! Stable Diffusion on WebGPU: text encoder, UNet and image decoder as WGSL compute shaders, the
//! samplers, and the streaming of weights. Lower modules know nothing of higher ones.

pub mod checkpoint;
mod clock;
pub mod error;
pub mod gpu;
pub mod models;
pub mod named;
pub mod ops;
pub mod pipeline;
pub mod prompt;
pub mod samplers;
pub mod store;
pub mod train;
#[cfg(target_arch = "wasm32")]
pub mod web;

pub use error::{Code, Error, Result};
