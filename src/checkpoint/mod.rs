//! Checkpoint files: what is in them, and how their tensors become the bytes on the GPU.
//! No input or output here: bytes come in as they arrive, packed bytes go out as they are ready.
//!
//! - [`header`]: the strict parse of a safetensors header.
//! - [`names`]: tensor names in files to the names that today's diffusers and transformers use.
//! - [`pack`]: one tensor's bytes into its layout on the GPU, in f16.
//! - [`packed`]: what is kept of quantised weights.
//! - [`unpack`]: a whole file's bytes, routed tensor by tensor.
//! - `fp8`: numbers of eight bits, and their scales.
//! - [`quantise`]: f16 rows into blocks of 8 or 4 bits a weight.
//! - [`table`]: the tensors of any file, .safetensors or .ckpt, by random access. `torch` reads the formats of
//!   `torch.save` for it, with `zip` and `pickle`, which executes nothing and makes `objects`; `located` is where a
//!   tensor lies.
//! - [`ldm`]: single files in the original layout, sorted into diffusers' components.
//! - [`lora`]: whose weights a LoRA changes, and by what; [`alphas`]: its alphas where they stand in its header;
//!   `dense`: what is computed of its factors.
//! - [`card`]: textual inversion embeddings in PNGs.
//! - [`kind`]: what a file is that was given in a wrong place.
//! - [`configs`]: what a single file does not carry, from its names and shapes.
//! - [`shards`]: the index of a checkpoint cut into several files.

pub mod alphas;
pub mod card;
pub mod configs;
mod dense;
mod fp8;
pub mod header;
pub mod kind;
pub mod ldm;
mod located;
pub mod lora;
pub mod names;
mod objects;
mod opcode;
pub mod pack;
pub mod packed;
mod pickle;
pub mod quantise;
pub mod shards;
pub mod table;
mod torch;
pub mod unpack;
mod zip;

pub use header::{Dtype, Header, TensorInfo};
pub use located::{Located, ReadAt};
pub use pack::Layout;
pub use quantise::Bits;
pub use table::{Table, TensorReader};
pub use unpack::{FileUnpacker, Target};
