//! Four families of generative models that learn points in the plane while one watches: a diffusion model, a normalising
//! flow, a GAN and a VAE, of some 35,000 parameters each, with the same features, batch and number of steps.
//!
//! `doodles` is a diffusion model of small pictures instead of points.
//!
//! A family records its operations once (`tape`, `op`); `cpu` computes them, forward and backward, and so does `gpu`.
//! `tests/train.rs` holds each operation against f64 and each family against torch.

mod adam;
pub mod cpu;
mod data;
mod diffusion;
pub mod doodles;
mod flow;
mod gan;
pub mod gemm;
pub mod gpu;
mod kernels;
mod learner;
mod model;
pub mod op;
mod tape;
mod trainer;
mod vae;

pub use data::{Data, DataSet, Score};
pub use doodles::{Doodles, PIXELS, Sample};
pub use learner::{Losses, Plan};
pub use model::Picture;
pub use tape::BATCH;
pub use trainer::{Family, STEPS, Trainer};
