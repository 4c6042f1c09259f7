//! From a prompt to a picture. Each file imports only what is further down in this list:
//!
//! - `generate`: a request from settling to its last pass, two of them with hires fix. `primitives`: its parts, one at a
//!   time.
//! - `load`: a model's folder to a pipeline, in four steps: read, refuse, plan, stream.
//! - `text_to_image`: the loop. `predictor`: one prediction of the UNet, ControlNets and guidance with it.
//! - `diffusion`: [`DiffusionPipeline`], which owns what follows.
//! - `inpainting`: what the loop begins with, and keeps of a picture.
//! - `text`: prompts to conditioning; `embedding`: textual inversion; `lora`: LoRAs, merged into the weights.
//! - `settle`: a request with every default filled in and every check done; `guidance`, `refine`: parts of it; `tags`: LoRAs in its prompt; `repaint`:
//!   A1111's options of inpainting, and outpainting.
//! - `looking`: what was looked at while the UNet ran.
//! - `controlnet`, `t2i_adapter`, `lllite`: what ControlNets, T2I-Adapters and ControlNet-LLLites add to the UNet's steps. `ip_adapter`: pictures that
//!   it sees beside the text. `preview`: what shows steps.
//! - `encode`, `decode`: pixels to latents and back, in `tiles` where that needs too much memory.
//! - `residence`: which weights are on the GPU; `weights`, and of a file alone
//!   `file_weights`: how they come there; `part`: those of one module.
//! - `loaded`: what is beside the model, by key. `deep_cache`: features of one step for the next ones. `plans`: how each
//!   network is recorded; `acting`: what of ControlNet-LLLites is in the UNet's. `pixels`: eight-bit pictures.
//! - `request`: what a caller asks for, and what comes back; `inside`: what of it shows the network at
//!   work; `model`: what a loaded model is.
//!
//! Beside them `upscaler`, pictures enlarged by an ESRGAN, a model of its own, and `autotune`, kernels chosen for this
//! GPU.

mod acting;
mod autotune;
mod control_lora;
mod controlnet;
mod controls;
mod decode;
mod deep_cache;
mod diffusion;
mod embedding;
mod encode;
mod file_weights;
mod generate;
mod guidance;
mod inpainting;
mod inside;
mod ip_adapter;
mod lllite;
mod load;
mod loaded;
mod looking;
mod lora;
mod model;
mod part;
mod pixels;
mod plans;
mod predictor;
mod preview;
mod primitives;
mod refine;
mod repaint;
mod request;
mod residence;
mod settle;
mod t2i_adapter;
mod tags;
mod text;
mod text_to_image;
pub mod tiles;
mod upscaler;
mod weights;

pub use autotune::{Chosen, Origin};
pub use controlnet::{canny, softedge};
pub use diffusion::DiffusionPipeline;
pub use inside::{Block, Inside, Parts, Seen, TokenKind, TokenMap, WordMaps};
pub use ip_adapter::ImageEncoderFiles;
pub use load::LoadOptions;
pub use model::{Kind, Model};
pub use preview::{SD1_FACTORS, latents_to_rgba};
pub use primitives::{Prediction, Schedule};
pub use request::{
    Control, ControlMode, DeepCache, Enlarge, GenerateOptions, Generated, Hires, InpaintArea, IpAdapter,
    Lora, MaskedContent, Outpaint, Output, Picture, Preprocess, Preview, Seeds, Settings, Step,
    StrengthSteps, Timings,
};
pub use residence::Memory;
pub use text::{PromptView, TokenView};
pub use upscaler::Upscaler;
