//! What a caller asks for, and what comes back. Options are called as in `www/browser-diffusion.d.ts`, where their
//! defaults are documented.
//!
//! `None` is an option left out whose default depends on the model or on other options; `settle` fills it in, and
//! nothing behind `settle` reads these types.

use super::inside::{Inside, Seen};
use crate::error::{Error, Result};
use crate::gpu::Counters;
use crate::named::Named;
use crate::prompt::Syntax;
use crate::samplers::NoiseOptions;
use crate::samplers::Tuning;

/// RGBA, eight bits a channel, rows from the top.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    pub data: Vec<u8>,
}

impl Picture {
    /// # Errors
    /// `invalid-option`, naming the option `name`, for a picture without pixels or with another number of bytes.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let (w, h) = (self.width as usize, self.height as usize);
        if w == 0 || h == 0 || self.data.len() != 4 * w * h {
            return Err(Error::invalid(format!(
                "{name} has {} bytes; one of {w}x{h} has {}.",
                self.data.len(),
                4 * w * h
            )));
        }
        Ok(())
    }
}

/// What each step shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preview {
    #[default]
    None,
    /// A linear map of the latents.
    Fast,
    /// A small decoder (`DiffusionPipeline::load_tiny`).
    Tiny,
    /// The image decoder.
    Full,
}

impl Named for Preview {
    const NAMES: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("fast", Self::Fast), ("tiny", Self::Tiny), ("full", Self::Full)];
}

/// What is made of the last latents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    #[default]
    Image,
    /// They are left as they are.
    Latent,
}

impl Named for Output {
    const NAMES: &'static [(&'static str, Self)] = &[("image", Self::Image), ("latent", Self::Latent)];
}

/// Which steps `strength` leaves, of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StrengthSteps {
    /// diffusers: the last `int(steps * strength)` of `steps`.
    #[default]
    Diffusers,
    /// A1111: the last `int(min(strength, 0.999) * steps) + 1` of `steps`.
    A1111,
    /// A1111 with "do exactly the amount of steps the slider specifies", as its hires fix always does and ComfyUI: the
    /// last `steps` of `int(steps / min(strength, 0.999))`.
    Exact,
}

impl Named for StrengthSteps {
    const NAMES: &'static [(&'static str, Self)] =
        &[("diffusers", Self::Diffusers), ("a1111", Self::A1111), ("exact", Self::Exact)];
}

/// What is under the mask before it is redrawn: A1111's "masked content".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskedContent {
    /// The colours around, blurred.
    Fill,
    Original,
    /// The seed's noise, in the latents.
    Noise,
    /// Zeros, in the latents.
    Nothing,
}

impl Named for MaskedContent {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("fill", Self::Fill),
        ("original", Self::Original),
        ("noise", Self::Noise),
        ("nothing", Self::Nothing),
    ];
}

/// How much of the picture is drawn at the size asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InpaintArea {
    /// All of it.
    #[default]
    Whole,
    /// The smallest rectangle around the mask and `mask_padding` pixels more: cut out, enlarged to width x height, and
    /// put back. The picture may have any size, and keeps it.
    Masked,
}

impl Named for InpaintArea {
    const NAMES: &'static [(&'static str, Self)] = &[("whole", Self::Whole), ("masked", Self::Masked)];
}

/// Pixels by which a picture is extended, multiples of eight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outpaint {
    pub left: u32,
    pub right: u32,
    pub top: u32,
    pub bottom: u32,
}

/// What hires fix enlarges, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enlarge {
    /// The latents, bilinear: A1111's "Latent".
    #[default]
    Latent,
    LatentNearest,
    /// A = -0.75, as torch.
    LatentBicubic,
    /// The picture, Lanczos: decoded and encoded again.
    Picture,
}

impl Named for Enlarge {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("latent", Self::Latent),
        ("latent-nearest", Self::LatentNearest),
        ("latent-bicubic", Self::LatentBicubic),
        ("picture", Self::Picture),
    ];
}

/// The second pass of hires fix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hires {
    /// How many times as large, where width or height is left out.
    pub scale: f64,
    /// Pixels, as [`GenerateOptions::width`].
    pub width: Option<u32>,
    pub height: Option<u32>,
    pub upscaler: Enlarge,
    /// `None`: as many as the first pass. `strength_steps` says which of them are run.
    pub steps: Option<usize>,
    pub strength: f64,
}

impl Default for Hires {
    fn default() -> Self {
        Self { scale: 2.0, width: None, height: None, upscaler: Enlarge::Latent, steps: None, strength: 0.7 }
    }
}

/// What is made of a picture before a ControlNet sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preprocess {
    /// It is one already.
    #[default]
    None,
    /// White edges on black, found at the size to draw.
    Canny,
    /// Soft white lines on black, likewise.
    Softedge,
}

impl Named for Preprocess {
    const NAMES: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("canny", Self::Canny), ("softedge", Self::Softedge)];
}

/// What kind of picture a ControlNet Union is shown, by the number that its author gave it (xinsir6/ControlNetPlus);
/// `control_mode` in diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlMode {
    Openpose = 0,
    Depth = 1,
    /// HED, PiDi, TEED: soft or thick lines.
    Scribble = 2,
    /// Canny, lineart, MLSD: thin lines.
    Canny = 3,
    Normal = 4,
    Segment = 5,
    /// From here on of ProMax only.
    Tile = 6,
    /// What is to be painted anew is black.
    Repaint = 7,
}

impl Named for ControlMode {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("openpose", Self::Openpose),
        ("depth", Self::Depth),
        ("scribble", Self::Scribble),
        ("canny", Self::Canny),
        ("normal", Self::Normal),
        ("segment", Self::Segment),
        ("tile", Self::Tile),
        ("repaint", Self::Repaint),
    ];
}

/// One ControlNet of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// Under which `DiffusionPipeline::load_controlnet` keeps it.
    pub key: String,
    /// Of any size: it is resized to the size to draw, as diffusers does.
    pub image: Picture,
    pub preprocess: Preprocess,
    /// Canny's thresholds.
    pub low: f64,
    pub high: f64,
    /// For a ControlNet Union.
    pub mode: Option<ControlMode>,
    /// `controlnet_conditioning_scale`.
    pub scale: f32,
    /// `control_guidance_start` and `control_guidance_end`: the share of the steps during which it acts.
    pub start: f64,
    pub end: f64,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            key: String::new(),
            image: Picture::default(),
            preprocess: Preprocess::None,
            low: 100.0,
            high: 200.0,
            mode: None,
            scale: 1.0,
            start: 0.0,
            end: 1.0,
        }
    }
}

/// One IP-Adapter of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct IpAdapter {
    /// Under which `DiffusionPipeline::load_ip_adapter` keeps it.
    pub key: String,
    /// Of any size.
    pub images: Vec<Picture>,
    /// diffusers' `set_ip_adapter_scale`.
    pub scale: f32,
}

/// One LoRA of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lora {
    /// Under which `DiffusionPipeline::load_lora` keeps it.
    pub key: String,
    /// What `<lora:name:weight>` in the prompt calls it; such a weight replaces `scale`.
    pub name: String,
    pub scale: f32,
}

/// A LoRA that acts: under which key it is kept, and how strongly it changes the UNet and the text encoders.
#[derive(Clone, Debug, PartialEq)]
pub struct Acting {
    pub key: String,
    pub unet: f32,
    pub text: f32,
}

/// Deep features of the UNet used for several steps (DeepCache, Ma et al. 2023); names as in its authors' package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeepCache {
    /// The whole UNet runs at one of so many steps.
    pub interval: u32,
    /// How far down the other steps go: 0 is the outermost layer alone.
    pub branch: u32,
}

/// One request for pictures; names as in diffusers.
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    pub prompt: String,
    /// How prompt and negative prompt are read. [`Syntax::Plain`], the default, is diffusers' way.
    pub prompt_syntax: Syntax,
    /// `None` differs from "" for SDXL checkpoints with `force_zeros_for_empty_prompt`.
    pub negative_prompt: Option<String>,
    /// Pixels, multiples of the decoder's scale (8). `None`: the model's own.
    pub width: Option<u32>,
    pub height: Option<u32>,
    /// `None`: the model's own.
    pub num_inference_steps: Option<usize>,
    /// `None`: the model's own.
    pub guidance_scale: Option<f32>,
    pub guidance_rescale: f32,
    /// Of InstructPix2Pix: how strictly the picture that is edited is kept. `None`: 1.5.
    pub image_guidance_scale: Option<f32>,
    /// Of SDXL's refiner: how its training scored pictures such as the prompt's is to be, and such as the negative
    /// prompt's. `None`: 6 and 2.5.
    pub aesthetic_score: Option<f32>,
    pub negative_aesthetic_score: Option<f32>,
    /// The steps end where the training's time steps are so far done, a share of them, as diffusers has it.
    pub denoising_end: Option<f64>,
    /// They begin there: `latents` are then such a sample, not noise.
    pub denoising_start: Option<f64>,
    /// Shares of the steps between which guidance acts (Kynkäänniemi et al. 2024), as ControlNets' `start` and `end`: in
    /// the others the UNet sees the prompt alone, which is half the work. `None`: all.
    pub guidance_interval: Option<[f64; 2]>,
    /// `None`: the whole UNet at every step.
    pub deep_cache: Option<DeepCache>,
    /// A name of `samplers::names()`; `None`: the checkpoint's own.
    pub scheduler: Option<String>,
    /// `eta`, `s_churn` and the like, for samplers that have them.
    pub tuning: Tuning,
    pub seed: u64,
    /// How noise is made of it. The default: all pictures of a batch draw from one `torch.Generator("cpu")`.
    pub noise: NoiseOptions,
    /// `None`: 1.
    pub num_images: Option<usize>,
    /// NCHW initial noise, unscaled, instead of the seed's.
    pub latents: Option<Vec<f32>>,
    /// A picture to start from, of the size to draw (but for `outpaint` and `inpaint_area`).
    pub image: Option<Picture>,
    /// How much of it is redrawn, 0 to 1; `None`: 0.8, with a mask 1.
    pub strength: Option<f64>,
    pub strength_steps: StrengthSteps,
    /// Where it is redrawn: white. Of the same size.
    pub mask_image: Option<Picture>,
    /// Pixels of sigma of a Gaussian over the mask.
    pub mask_blur: f64,
    /// Redraw what is black instead.
    pub invert_mask: bool,
    /// `None`: the picture, or with strength 1 nothing but noise, as diffusers; with `outpaint`, `Fill`.
    pub masked_content: Option<MaskedContent>,
    pub inpaint_area: InpaintArea,
    /// Pixels around the mask, for [`InpaintArea::Masked`]. `None`: 32.
    pub mask_padding: Option<u32>,
    /// `image` is extended to the size to draw, and what is new is drawn.
    pub outpaint: Option<Outpaint>,
    /// A second pass at a larger size.
    pub hires: Option<Hires>,
    /// [tokens, cross_attention_dim] instead of the encoded prompts.
    pub prompt_embeds: Option<Vec<f32>>,
    pub negative_prompt_embeds: Option<Vec<f32>>,
    /// Layers of the text encoder left out at its end, as in diffusers: 1 is what A1111 calls clip skip 2.
    pub clip_skip: u32,
    /// Words of textual inversion and the key under which `load_embedding` keeps each.
    pub embeddings: Vec<(String, String)>,
    pub controlnets: Vec<Control>,
    /// diffusers' `guess_mode`: ControlNets act with the prompt only, and the less the finer the layer.
    pub guess_mode: bool,
    pub ip_adapters: Vec<IpAdapter>,
    pub loras: Vec<Lora>,
    /// What steps show of the network.
    pub inside: Inside,
    pub preview: Preview,
    pub output: Output,
}

/// What one step was.
#[derive(Clone, Debug)]
pub struct Step {
    /// From 1.
    pub step: usize,
    pub total: usize,
    pub timestep: f32,
    /// Noise level before the step.
    pub sigma: f32,
    /// The latents after the step, as a picture; of the first picture of the batch.
    pub preview: Option<Picture>,
    /// NCHW, after the step, all pictures.
    pub latents: Vec<f32>,
    /// NCHW, the clean latents that the sampler sees behind the noise.
    pub x0: Vec<f32>,
    /// Of the step's first prediction, where it was asked for.
    pub seen: Option<Seen>,
    /// And of the first picture what the network was given and what it takes the picture to be, in the colours of a
    /// quick preview.
    pub colours: Option<[Picture; 2]>,
}

/// Milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Timings {
    pub text_encoder: f64,
    pub steps: Vec<f64>,
    pub vae: f64,
    pub total: f64,
    /// What the UNet's last run was made of.
    pub step: Counters,
}

/// What was asked for, with every default filled in, as far as a caller cannot know it: of hires fix, the first pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub width: u32,
    pub height: u32,
    pub num_inference_steps: usize,
    pub guidance_scale: f32,
    /// Of InstructPix2Pix.
    pub image_guidance_scale: Option<f32>,
    /// The sampler's short name, with its schedule where one was asked for.
    pub scheduler: String,
    /// Where there was a picture to start from.
    pub strength: Option<f64>,
}

/// What gives one picture of a batch alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    pub seed: u64,
    /// Where a variation was asked for.
    pub variation: Option<u64>,
}

/// The pictures and what made them.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Empty with [`Output::Latent`].
    pub pictures: Vec<Picture>,
    /// NCHW, one picture each, scaled as the UNet has them (divide by `scaling_factor` for the VAE).
    pub latents: Vec<Vec<f32>>,
    /// Of each picture.
    pub seeds: Vec<Seeds>,
    pub seed: u64,
    pub settled: Settings,
    /// Ends of prompts that did not fit into the text encoder's window.
    pub truncated: Vec<String>,
    /// Of each LoRA that has some: the tensors that belong to no weight of this model.
    pub unmatched: Vec<(String, Vec<String>)>,
    pub timings: Timings,
}
