//! The GPU: device and limits, kernels and their cache, recorded plans of dispatches, weights.
//!
//! A model records dispatches over virtual [`Tensor`]s with a [`Recorder`]; [`Recorder::finish`] packs them
//! by liveness into a few buffers, so the peak is known before anything is allocated; an [`Executable`] is
//! that [`Plan`] with its buffers and bind groups, replayed every step.
//!
//! Tensors are NHWC with the channels padded to a multiple of four by zeros, so that every kernel reads and
//! writes whole vectors of four. They lie as f16 (or f32 where a module asks for it); see `shaders/prelude.wgsl`.

mod adapter;
pub mod choices;
mod context;
mod device;
mod executable;
mod flat;
mod kernel;
mod packing;
mod plan;
mod reach;
mod scope;
mod stopwatch;
#[cfg(target_arch = "wasm32")]
mod web_features;
mod weights;

pub use adapter::{GpuOptions, Limits};
pub use context::{Bytes, Gpu, MemoryKind};
pub use executable::{Aside, Counters, Executable, Reading, Timing, time_all};
pub use flat::{Flat, Launch, Submit};
pub use kernel::{Kernel, Scalar, preprocess};
pub(crate) use kernel::{bare, bare_length, shader};
pub(crate) use plan::stacks;
pub use plan::{
    Adapted, AdaptedLayers, Arithmetic, Binding, BlockProbe, Dispatch, Dtype, ImageKeys, LllitePart,
    LlliteParts, MAX_DISPATCH_FLOPS, MapProbe, Options, Plan, Probe, Recorder, Tensor, Weight, WeightSpec,
};
pub(crate) use reach::most_flops;
pub use scope::Scope;
pub(crate) use weights::{ALIGN, is_wide};
pub use weights::{Held, Joined, Weights};
