//! A picture to start from: the VAE's encoder, and where in the schedule the loop begins.

use super::residence::Stage;
use super::tiles::{Field, tiled};
use super::{DiffusionPipeline, GenerateOptions, Picture, Vae, decode};
use crate::error::{Error, Result};
use crate::gpu::{Dtype, Options, Plan, Recorder, Tensor};
use crate::models::vae;
use crate::samplers::Generator;

/// `strength` where a request names none: diffusers' defaults of Stable Diffusion's two pipelines.
const STRENGTH: f64 = 0.8;
const INPAINT_STRENGTH: f64 = 1.0;

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

/// What the loop starts from instead of noise.
#[derive(Clone, Debug)]
pub(super) enum Start {
    /// NCHW, all pictures, as the UNet has them.
    Latents(Vec<f32>),
    /// One for each picture to draw.
    Pictures(Vec<Picture>),
}

/// The latents of a picture before they are sampled, NCHW (`DiagonalGaussianDistribution` of diffusers), times the
/// VAE's scaling factor.
pub(super) struct LatentDist {
    mean: Vec<f32>,
    /// Empty for latents that are known.
    std: Vec<f32>,
}

impl LatentDist {
    /// Latents that are known: `sample` draws nothing.
    pub fn exactly(mean: Vec<f32>) -> Self {
        LatentDist { mean, std: Vec::new() }
    }

    /// Numbers of one picture's latents.
    pub fn len(&self) -> usize {
        self.mean.len()
    }

    /// `latent_dist.sample(generator)`.
    pub fn sample(&self, generator: &mut Generator) -> Vec<f32> {
        if self.std.is_empty() {
            return self.mean.clone();
        }
        let mut noise = vec![0.0; self.mean.len()];
        generator.randn(&mut noise);
        self.mean.iter().zip(&self.std).zip(&noise).map(|((m, s), n)| m + s * n).collect()
    }
}

/// The request's strength, or the default.
pub(super) fn strength(options: &GenerateOptions) -> f64 {
    let default = if options.mask_image.is_some() { INPAINT_STRENGTH } else { STRENGTH };
    options.strength.unwrap_or(default)
}

/// Steps of the sampler's whole schedule, and the first of them that is run: diffusers' `get_timesteps`, A1111's
/// `setup_img2img_steps`. `started`: the loop starts from something other than noise and `image`.
///
/// # Errors
/// `invalid-option` for a picture of another size, for a strength outside 0..1 or one that leaves no step.
pub(super) fn schedule_steps(options: &GenerateOptions, started: bool) -> Result<(usize, usize)> {
    /// More than any schedule has, fewer than take long to compute.
    const MOST: usize = 10_000;
    let steps = options.num_inference_steps;
    if options.image.is_none() && !started {
        if options.strength.is_some() {
            return Err(Error::invalid(
                "strength says how much of image is redrawn: give image too, or leave it out.",
            ));
        }
        return Ok((steps, 0));
    }
    let pictures = [("image", options.image.as_ref()), ("maskImage", options.mask_image.as_ref())];
    for (name, picture) in pictures {
        let Some(picture) = picture else { continue };
        let expected = 4 * options.width as usize * options.height as usize;
        if (picture.width, picture.height) != (options.width, options.height)
            || picture.data.len() != expected
        {
            return Err(Error::invalid(format!(
                "{name} is {}x{}; it must be as large as the picture to draw, {}x{}.",
                picture.width, picture.height, options.width, options.height
            )));
        }
    }
    let strength = strength(options);
    if !(0.0..=1.0).contains(&strength) {
        return Err(Error::invalid(format!("strength = {strength}: choose a number from 0 to 1.")));
    }
    let (all, run) = match options.strength_steps {
        StrengthSteps::Diffusers => (steps, ((steps as f64 * strength) as usize).min(steps)),
        StrengthSteps::A1111 => (steps, ((strength.min(0.999) * steps as f64) as usize + 1).min(steps)),
        StrengthSteps::Exact if strength == 0.0 => (steps, 0),
        StrengthSteps::Exact => ((steps as f64 / strength.min(0.999)) as usize, steps),
    };
    if run == 0 || all > MOST {
        let (what, other) = if run == 0 { ("none", "more") } else { ("too many", "fewer") };
        return Err(Error::invalid(format!(
            "strength = {strength} leaves {what} of {steps} steps. Choose {other} steps or a greater strength."
        )));
    }
    Ok((all, all - run))
}

/// RGBA bytes to NHWC in -1..1, as diffusers' `VaeImageProcessor`.
pub(super) fn to_field(picture: &Picture) -> Field {
    let values = picture.data.chunks_exact(4).flat_map(|p| &p[..3]).map(|&v| 2.0 * (v as f32 / 255.0) - 1.0);
    Field { h: picture.height as usize, w: picture.width as usize, values: values.collect() }
}

impl DiffusionPipeline {
    /// The VAE's encoder over a picture, NHWC in -1..1: whole, or in tiles where that takes more than there is; and
    /// once more in f32 activations where f16 overflows.
    ///
    /// # Errors
    /// `out-of-memory`; `unsupported-model` for a VAE without encoder here, or one that overflows f32; `aborted`;
    /// what the files fail with.
    pub(super) async fn encode(&self, image: &Field, aborted: &dyn Fn() -> bool) -> Result<LatentDist> {
        self.bring(Stage::Encoder, aborted).await?;
        let Vae::Kl(module) = &self.vae else { return Err(no_encoder()) };
        let mut moments = self.encode_field(image, &module.options).await?;
        if moments.is_none() {
            let wide = Options { activations: Dtype::F32, ..module.options };
            moments = self.encode_field(image, &wide).await?;
        }
        let moments =
            moments.ok_or_else(|| Error::unsupported("The image encoder overflowed. Load another VAE."))?;
        let (mean, std) = vae::posterior(&module.config, &moments.values);
        let (channels, factor) = (module.config.latent_channels as usize, module.config.scaling_factor);
        let scaled = |v: Vec<f32>| decode::to_nchw(&v, channels).into_iter().map(|v| v * factor).collect();
        Ok(LatentDist { mean: scaled(mean), std: scaled(std) })
    }

    /// The moments of a picture's latents, or `None` where an activation overflowed.
    async fn encode_field(&self, image: &Field, options: &Options) -> Result<Option<Field>> {
        let scale = self.vae.scale() as usize;
        let mut overflowed = false;
        let mut run = async |part: &Field| {
            let (plan, input, out) = self.record_encode(part.h as u32, part.w as u32, options)?;
            let executable = plan.instantiate(&self.gpu, &*self.encoder.weights()?)?;
            executable.write(&self.gpu, input, &part.values)?;
            executable.run(&self.gpu);
            let values = executable.read_sound(&self.gpu, out).await?;
            overflowed |= values.is_none();
            let values = values.unwrap_or_else(|| vec![0.0; out.rows() as usize * out.c as usize]);
            Ok(Field { h: part.h / scale, w: part.w / scale, values })
        };
        let whole = |side: usize| {
            let (h, w) = (image.h.min(side), image.w.min(side));
            self.encode_fits(h as u32, w as u32, options)
        };
        let moments = if whole(usize::MAX)? {
            run(image).await?
        } else {
            let mut tile = 16;
            for side in decode::TILES {
                let side = side as usize;
                if side * scale < image.h.max(image.w) && whole(side * scale)? {
                    tile = side;
                    break;
                }
            }
            tiled(image, tile * scale, tile, run).await?
        };
        Ok((!overflowed).then_some(moments))
    }

    fn encode_fits(&self, height: u32, width: u32, options: &Options) -> Result<bool> {
        let plan = self.record_encode(height, width, options)?.0;
        Ok(plan.check(&self.gpu.limits).is_ok() && plan.peak_bytes() <= self.vae_budget())
    }

    /// The encoder's plan, its input and its output.
    fn record_encode(&self, height: u32, width: u32, options: &Options) -> Result<(Plan, Tensor, Tensor)> {
        let Vae::Kl(module) = &self.vae else { return Err(no_encoder()) };
        let mut r = Recorder::new(options);
        let image = r.input(1, height, width, module.config.in_channels);
        let out = vae::encode(&module.config, &mut r, image)?;
        r.output(out);
        Ok((r.finish(), image, out))
    }
}

fn no_encoder() -> Error {
    Error::unsupported(
        "This model's VAE is an AutoencoderTiny, whose encoder this engine does not run: it draws from prompts only. \
         Choose a model with an AutoencoderKL for image and maskImage.",
    )
}
