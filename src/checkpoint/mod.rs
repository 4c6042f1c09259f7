//! Checkpoint files: what is in them, and how their tensors become the bytes that lie on the GPU.
//! No input or output here: bytes come in as they arrive, packed bytes go out as they are ready.
//!
//! - [`header`]: the strict parse of a safetensors header.
//! - [`names`]: tensor names in files to the names that today's diffusers and transformers use.
//! - [`pack`]: one tensor's bytes into its layout on the GPU, in f16.
//! - [`unpack`]: a whole file's bytes, routed tensor by tensor.
//! - [`quantise`]: f16 rows into blocks of 8 or 4 bits a weight.
//! - [`shards`]: the index of a checkpoint cut into several files.

pub mod header;
pub mod names;
pub mod pack;
pub mod quantise;
pub mod shards;
pub mod unpack;

pub use header::{Dtype, Header, TensorInfo};
pub use pack::Layout;
pub use quantise::Bits;
pub use unpack::{FileUnpacker, Target};
