//! Pixels to latents: the VAE's encoder.

use super::decode::TILES;
use super::pixels::to_nchw;
use super::plans::record_encoder;
use super::request::Picture;
use super::residence::{Residence, Stage};
use super::tiles::{Field, tiled};
use crate::error::{Error, Result};
use crate::gpu::{Dtype, Options};
use crate::models::vae;
use crate::ops::sound;
use crate::samplers::Generator;

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

    /// `latent_dist.mode()`, which is not times the VAE's scaling factor.
    pub fn mode(&self, scaling_factor: f32) -> Vec<f32> {
        self.mean.iter().map(|v| v / scaling_factor).collect()
    }

    /// `latent_dist.mean`.
    pub fn into_mean(self) -> Vec<f32> {
        self.mean
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

/// RGBA bytes to NHWC in -1..1, as diffusers' `VaeImageProcessor`.
pub(super) fn to_field(picture: &Picture) -> Field {
    let values = picture.data.chunks_exact(4).flat_map(|p| &p[..3]).map(|&v| 2.0 * (v as f32 / 255.0) - 1.0);
    Field { h: picture.height as usize, w: picture.width as usize, values: values.collect() }
}

/// The image encoder of a model. An AutoencoderTiny has none here.
pub(super) struct Encoder {
    pub config: Option<vae::Config>,
    pub options: Options,
}

impl Encoder {
    /// The VAE's encoder over a picture, NHWC in -1..1: whole, or in tiles where that takes more than there is; and
    /// once more in f32 activations where f16 overflows.
    ///
    /// # Errors
    /// `out-of-memory`; `unsupported-model` for a VAE without encoder here, or one that overflows f32; `aborted`;
    /// what the files fail with.
    pub async fn encode(
        &self,
        residence: &Residence,
        image: &Field,
        aborted: &dyn Fn() -> bool,
    ) -> Result<LatentDist> {
        let config = self.config.as_ref().ok_or_else(|| {
            Error::unsupported(
                "This model's VAE is an AutoencoderTiny, whose encoder this engine does not run: it draws \
                 from prompts only. Choose a model with an AutoencoderKL for image and maskImage.",
            )
        })?;
        residence.bring(Stage::Encoder, aborted).await?;
        let mut moments = encode_field(residence, config, image, &self.options).await?;
        if moments.is_none() {
            let wide = Options { activations: Dtype::F32, ..self.options };
            moments = encode_field(residence, config, image, &wide).await?;
        }
        let moments =
            moments.ok_or_else(|| Error::unsupported("The image encoder overflowed. Load another VAE."))?;
        let (mean, std) = vae::posterior(config, &moments.values);
        Ok(LatentDist { mean: scaled(config, &mean, true), std: scaled(config, &std, false) })
    }
}

/// The encoder's values, NHWC of one picture, as the UNet has them, NCHW. `shifted`: they have the latents' mean, as
/// deviations have not.
fn scaled(config: &vae::Config, values: &[f32], shifted: bool) -> Vec<f32> {
    let mut values = to_nchw(values, config.latent_channels as usize);
    if let Some(channels) = &config.latents {
        let plane = (values.len() / channels.len()).max(1);
        for (plane, [mean, deviation]) in values.chunks_exact_mut(plane).zip(channels) {
            let mean = if shifted { *mean } else { 0.0 };
            plane.iter_mut().for_each(|v| *v = (*v - mean) / deviation);
        }
    }
    values.iter_mut().for_each(|v| *v *= config.scaling_factor);
    values
}

/// The moments of a picture's latents, or `None` where an activation overflowed.
async fn encode_field(
    residence: &Residence,
    config: &vae::Config,
    image: &Field,
    options: &Options,
) -> Result<Option<Field>> {
    let (gpu, scale) = (&residence.gpu, config.scale() as usize);
    let mut overflowed = false;
    let mut run = async |part: &Field| {
        let record = |options: &Options| record_encoder(config, options, part.h as u32, part.w as u32);
        let (plan, (input, out)) = sound(gpu, options, record).await?;
        let executable = plan.instantiate(gpu, &*residence.encoder.weights()?)?;
        executable.write(gpu, input, &part.values)?;
        executable.run(gpu);
        let values = executable.read_sound(gpu, out).await?;
        overflowed |= values.is_none();
        let values = values.unwrap_or_else(|| vec![0.0; out.rows() as usize * out.c as usize]);
        Ok(Field { h: part.h / scale, w: part.w / scale, values })
    };
    let fits = |side: usize| -> Result<bool> {
        let (h, w) = (image.h.min(side), image.w.min(side));
        let plan = record_encoder(config, options, h as u32, w as u32)?.0;
        Ok(plan.check(&gpu.limits).is_ok() && plan.peak_bytes() <= residence.vae_budget())
    };
    let moments = if fits(usize::MAX)? {
        run(image).await?
    } else {
        let mut tile = 16;
        for side in TILES {
            let side = side as usize;
            if side * scale < image.h.max(image.w) && fits(side * scale)? {
                tile = side;
                break;
            }
        }
        tiled(image, tile * scale, tile, run).await?
    };
    Ok((!overflowed).then_some(moments))
}
