//! What a loaded model is.

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
    /// As `www/browser-diffusion.d.ts` names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Sd1 => "sd1",
            Kind::Sd2 => "sd2",
            Kind::Sdxl => "sdxl",
        }
    }
}

/// The facts of a loaded model.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: String,
    pub kind: Kind,
    /// The UNet takes mask and masked picture as well (9 channels).
    pub inpainting: bool,
    /// The UNet takes the latents of the picture that it edits as well (8 channels).
    pub instruct_pix2pix: bool,
    /// SDXL's refiner, which draws the last steps of a picture.
    pub refiner: bool,
    /// Pixels of a side that it was trained on.
    pub default_size: u32,
    /// Channels of latents, and pixels to one of them each way.
    pub latent_channels: u32,
    pub latent_scale: u32,
    /// Weights of all modules together.
    pub parameters: u64,
    /// Steps and guidance where a request names none: `default_num_inference_steps` and
    /// `default_guidance_scale` of `model_index.json` (ours; diffusers ignores them), or those of diffusers' pipeline.
    pub num_inference_steps: usize,
    pub guidance_scale: f32,
    /// The short name of its own sampler, where it is one of ours.
    pub scheduler: Option<&'static str>,
    /// Tensors that are kept as f32, since f16 does not hold all their values: component and name.
    pub f32_tensors: Vec<String>,
}
