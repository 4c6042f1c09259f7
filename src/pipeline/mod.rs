//! From a prompt to a picture: loading a model in diffusers' folder layout, and the loop.
//!
//! - [`load`](DiffusionPipeline::load): configurations first, so that a model which cannot work is refused
//!   before its weights are fetched; then the weights, streamed to the GPU.
//! - `text`: prompts to conditioning; `embedding`: textual inversion.
//! - `lora`: LoRAs, merged into the weights.
//! - `text_to_image`: the loop itself.
//! - `image_to_image`, `inpainting`: where it starts from a picture, and what it keeps of one.
//! - `controlnet`: what ControlNets add to the UNet's steps.
//! - `repaint`: A1111's options of inpainting, and outpainting; `pixels`: eight-bit pictures.
//! - `hires`: two passes.
//! - `decode`: latents to pixels.
//! - `preview`: what shows steps, the small decoder among it.
//! - `upscaler`: pictures enlarged by an ESRGAN, a model of its own.
//! - `residence`: which weights are on the GPU, and how they come back.
//! - `parameters`: what is written into the PNG.

mod controlnet;
mod decode;
mod embedding;
mod hires;
mod image_to_image;
mod inpainting;
mod load;
mod lora;
mod parameters;
mod pixels;
mod preview;
mod repaint;
mod residence;
mod text;
mod text_to_image;
pub mod tiles;
mod tuning;
mod upscaler;

pub use controlnet::{Control, Preprocess, canny};
pub use decode::Picture;
pub use hires::{Enlarge, Hires};
pub use image_to_image::StrengthSteps;
pub use load::LoadOptions;
pub use repaint::{InpaintArea, MaskedContent, Outpaint};
pub use residence::Memory;
pub use text::{PromptView, TokenView};
pub use text_to_image::{GenerateOptions, Generated, Preview, Step, Timings};
pub use tuning::{Chosen, Origin};
pub use upscaler::Upscaler;

use crate::error::{Code, Error, Result};
use crate::gpu::{Arithmetic, Executable, Gpu, Options, Tensor};
use crate::models::{clip, taesd, unet, vae};
use crate::prompt::Tokenizer;
use crate::samplers::SchedulerConfig;
use residence::{Part, WeightSource};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The families that differ in how they are conditioned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Stable Diffusion 1.x and its kin: CLIP ViT-L, 768 wide.
    Sd1,
    /// Stable Diffusion 2.x: OpenCLIP ViT-H, 1024 wide.
    Sd2,
    /// SDXL: two text encoders, a pooled embedding and sizes.
    Sdxl,
}

impl Kind {
    /// As `api.md` names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Sd1 => "sd1",
            Kind::Sd2 => "sd2",
            Kind::Sdxl => "sdxl",
        }
    }
}

/// What a loaded model is.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: String,
    pub kind: Kind,
    /// The UNet takes mask and masked picture as well (9 channels).
    pub inpainting: bool,
    /// Pixels of a side that it was trained on.
    pub default_size: u32,
    /// Of all modules together.
    pub parameters: u64,
    /// Steps and guidance where a request names none: `default_num_inference_steps` and
    /// `default_guidance_scale` of `model_index.json` (ours; diffusers ignores them), or those of diffusers' pipeline.
    pub num_inference_steps: usize,
    pub guidance_scale: f32,
    /// The short name of its own sampler, where it is one of ours.
    pub scheduler: Option<&'static str>,
    /// Tensors that lie as f32, since f16 does not hold all their values: component and name.
    pub f32_tensors: Vec<String>,
}

/// A module's configuration, its weights and how its plans are recorded.
struct Module<C> {
    config: C,
    part: Part,
    options: Options,
}

struct TextEncoder {
    tokenizer: Tokenizer,
    module: Module<clip::Config>,
}

/// Either decoder; pixels a latent, each way, is `scale`.
enum Vae {
    Kl(Module<vae::Config>),
    Tiny(Module<taesd::Config>),
}

impl Vae {
    fn scale(&self) -> u32 {
        match self {
            Vae::Kl(m) => m.config.scale(),
            Vae::Tiny(m) => 1 << m.config.num_decoder_blocks.len().saturating_sub(1),
        }
    }
    fn latent_channels(&self) -> u32 {
        match self {
            Vae::Kl(m) => m.config.latent_channels,
            Vae::Tiny(m) => m.config.latent_channels,
        }
    }
}

/// Linear map from latents to colours in -1..1, for previews.
struct LatentRgb {
    factors: Vec<[f32; 3]>,
    bias: [f32; 3],
}

/// A plan of the UNet for one batch and size, kept from picture to picture.
struct UnetPlan {
    batch: u32,
    height: u32,
    width: u32,
    tokens: u32,
    executable: Executable,
    inputs: unet::Inputs,
    /// What ControlNets add; empty in a plan without any.
    residuals: Vec<Tensor>,
    controls: Vec<controlnet::ControlPlan>,
    out: Tensor,
}

/// A plan of the image decoder for one size.
struct DecodePlan {
    height: u32,
    width: u32,
    /// Recorded in f32 activations.
    wide: bool,
    executable: Executable,
    latents: Tensor,
    out: Tensor,
}

/// A model on the GPU, ready to draw.
pub struct DiffusionPipeline {
    gpu: Gpu,
    source: Box<dyn WeightSource>,
    /// One stage's weights on the GPU at a time.
    low: bool,
    options: Options,
    /// Of `options.choices`.
    chosen: tuning::Origin,
    model: Model,
    text_encoders: Vec<TextEncoder>,
    unet: Module<unet::Config>,
    vae: Vae,
    /// The VAE's encoder, streamed when a picture first needs it. Empty for AutoencoderTiny.
    encoder: Part,
    scheduler: SchedulerConfig,
    latent_rgb: LatentRgb,
    /// SDXL: a negative prompt left out is all zeros.
    force_zeros_for_empty_prompt: bool,
    unet_plan: RefCell<Option<UnetPlan>>,
    decode_plan: RefCell<Option<DecodePlan>>,
    /// The decoder of previews, where one was asked for.
    tiny: RefCell<Option<preview::TinyDecoder>>,
    text_cache: text::TextCache,
    embeddings: RefCell<Vec<embedding::LoadedEmbedding>>,
    loras: RefCell<Vec<lora::LoadedLora>>,
    controlnets: RefCell<Vec<Rc<controlnet::LoadedControlNet>>>,
    /// Keys and scales of this picture's LoRAs.
    chosen_loras: RefCell<Vec<(String, f32)>>,
    /// The decoder overflowed f16 once: it runs in f32 activations from then on.
    decode_wide: Cell<bool>,
}

impl DiffusionPipeline {
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The device, for its books (`Gpu::bytes`) and its name.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// What products are computed in here.
    pub fn arithmetic(&self) -> Arithmetic {
        self.options.arithmetic
    }
}

/// How work is given up early: `signal` says whether it should be.
///
/// # Errors
/// `aborted`.
fn check_aborted(aborted: &dyn Fn() -> bool) -> Result<()> {
    if aborted() {
        return Err(Error::new(Code::Aborted, "Stopped. What was loaded or drawn before stays as it is."));
    }
    Ok(())
}
