//! What shows steps: colours of the latents, the model's decoder, or a small one (`AutoencoderTiny`, TAESD) of the same
//! latents.

use super::decode::Decoder;
use super::inside::Parts;
use super::part::Part;
use super::pixels::{to_nhwc, to_rgba};
use super::plans::{DecodePlan, Vae, decoder_weights, record_decoder};
use super::request::{Picture, Preview};
use super::residence::Residence;
use super::weights::{FilesSource, Place};
use crate::checkpoint::names;
use crate::error::{Error, Result};
use crate::gpu::{Dtype, Options, Reading};
use crate::models::vae;
use crate::ops::sound;
use crate::samplers::Generator;
use crate::store::ModelFiles;
use serde_json::Value;
use std::cell::RefCell;
use std::rc::Rc;

/// `scaling_factor` of SDXL's VAE.
const SDXL_SCALING_FACTOR: f32 = 0.13025;

/// Red, green and blue per latent channel, for the latents (scaled as the UNet sees them) of
/// Stable Diffusion 1.x and 2.x.
pub const SD1_FACTORS: [[f32; 3]; 4] = [
    [0.3512, 0.2297, 0.3227],
    [0.3250, 0.4974, 0.2350],
    [-0.2829, 0.1762, 0.2721],
    [-0.2120, -0.2616, -0.7177],
];

/// NCHW latents of one picture, `factors.len()` planes of `width * height`, to RGBA8 of
/// `width * height`. `bias` and the sum are in -1..1, the range of the image decoder.
///
/// # Errors
/// `invalid-option` if the length of `latents` is not planes * width * height.
pub fn latents_to_rgba(
    latents: &[f32],
    width: usize,
    height: usize,
    factors: &[[f32; 3]],
    bias: [f32; 3],
) -> Result<Vec<u8>> {
    let plane = width * height;
    if latents.len() != factors.len() * plane {
        return Err(Error::invalid(format!(
            "a preview of {width}x{height} needs {} planes of latents, not {} values in all",
            factors.len(),
            latents.len()
        )));
    }
    let mut rgba = vec![255; plane * 4];
    for (i, pixel) in rgba.chunks_exact_mut(4).enumerate() {
        let mut rgb = bias;
        for (channel, factor) in latents.chunks_exact(plane).zip(factors) {
            for (sum, f) in rgb.iter_mut().zip(factor) {
                *sum += f * channel[i];
            }
        }
        for (byte, value) in pixel.iter_mut().zip(rgb) {
            // The cast saturates, and makes NaN black.
            *byte = ((value + 1.0) * 127.5).round_ties_even() as u8;
        }
    }
    Ok(rgba)
}

/// Linear map from latents to colours in -1..1.
#[derive(Clone, Default)]
struct LatentRgb {
    factors: Vec<[f32; 3]>,
    bias: [f32; 3],
}

impl LatentRgb {
    /// `latent_rgb_factors` ([channels][3]) and `latent_rgb_bias` ([3]), in 0..1, of the VAE's configuration; Stable
    /// Diffusion 1's otherwise, where there are as many channels.
    fn from_config(config: &Value, channels: usize) -> Option<Self> {
        let row = |v: &Value| -> Option<[f32; 3]> {
            let row: Vec<f32> = v.as_array()?.iter().filter_map(|x| x.as_f64().map(|x| x as f32)).collect();
            row.try_into().ok()
        };
        let own = || {
            let rows = config.get("latent_rgb_factors")?.as_array()?.iter().map(row);
            let factors: Vec<[f32; 3]> = rows.collect::<Option<_>>()?;
            let bias = row(config.get("latent_rgb_bias")?)?;
            Some(LatentRgb {
                factors: factors.iter().map(|f| f.map(|v| 2.0 * v)).collect(),
                bias: bias.map(|v| 2.0 * v - 1.0),
            })
        };
        // Latents of a mean of their own have other colours.
        let usual = config.get("latents_mean").is_none_or(Value::is_null);
        own()
            .or_else(|| usual.then(|| LatentRgb { factors: SD1_FACTORS.to_vec(), bias: [0.0; 3] }))
            .filter(|map| map.factors.len() == channels)
    }

    /// The one that is nearest to what the decoder itself makes of latents of this size: of chance, even over two by
    /// two, since a colour is what a decoder makes of a patch and not of a point.
    async fn fit(decoder: &Decoder, residence: &Residence, [height, width]: [u32; 2]) -> Result<Self> {
        let (channels, h, w) = (decoder.vae.latent_channels() as usize, height as usize, width as usize);
        let (rows, columns) = (h.div_ceil(2), w.div_ceil(2));
        let mut drawn = vec![0.0; channels * rows * columns];
        Generator::new(0).randn(&mut drawn);
        let mut latents = Vec::with_capacity(channels * h * w);
        for plane in drawn.chunks_exact(rows * columns) {
            latents.extend((0..h * w).map(|i| plane[i / w / 2 * columns + i % w / 2]));
        }
        let picture = decoder.decode(residence, &latents, [height, width]).await?;
        let scale = decoder.scale() as usize;
        let mut sums = Normal::new(channels + 1);
        for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
            let mut colour = [0.0; 3];
            for pixel in
                (0..scale * scale).map(|i| (y * scale + i / scale) * w * scale + x * scale + i % scale)
            {
                for (sum, &value) in colour.iter_mut().zip(&picture.data[4 * pixel..]) {
                    *sum += (f64::from(value) / 127.5 - 1.0) / (scale * scale) as f64;
                }
            }
            let values = latents.iter().skip(y * w + x).step_by(h * w).map(|&v| f64::from(v));
            sums.add(&values.chain([1.0]).collect::<Vec<_>>(), colour);
        }
        let mut factors = sums.solve();
        let bias = factors.pop().unwrap_or_default();
        Ok(LatentRgb { factors, bias })
    }
}

/// Least squares: what is added up of many rows, each with three values that are wanted of it.
struct Normal {
    side: usize,
    /// `side` rows of `side` products, and of three.
    rows: Vec<Vec<f64>>,
}

impl Normal {
    fn new(side: usize) -> Self {
        let mut rows = vec![vec![0.0; side + 3]; side];
        // A little towards zero: small pictures have fewer points than channels.
        rows.iter_mut().enumerate().for_each(|(i, row)| row[i] = 1e-2);
        Self { side, rows }
    }

    fn add(&mut self, values: &[f64], wanted: [f64; 3]) {
        for (row, value) in self.rows.iter_mut().zip(values) {
            for (sum, other) in row.iter_mut().zip(values.iter().chain(&wanted)) {
                *sum += value * other;
            }
        }
    }

    /// Gauss and Jordan: the sums are positive definite, so that no pivot is zero.
    fn solve(mut self) -> Vec<[f32; 3]> {
        for at in 0..self.side {
            let pivot = self.rows[at].clone();
            for (_, row) in self.rows.iter_mut().enumerate().filter(|(i, _)| *i != at) {
                let share = row[at] / pivot[at];
                row.iter_mut().zip(&pivot).for_each(|(value, above)| *value -= share * above);
            }
        }
        let side = self.side;
        let solved = |(i, row): (usize, &Vec<f64>)| [0, 1, 2].map(|c| (row[side + c] / row[i]) as f32);
        self.rows.iter().enumerate().map(solved).collect()
    }
}

struct TinyDecoder {
    /// What it was loaded from.
    name: String,
    vae: Vae,
    part: Part,
    options: Options,
    plan: Option<DecodePlan>,
}

/// What shows a step, as far as it is.
pub(super) enum Shown {
    Done(Option<Picture>),
    /// Latents to be mapped to colours.
    Colours(Vec<f32>),
    /// Latents, and their pixels on the way from the small decoder.
    Tiny(Vec<f32>, Reading),
}

/// What shows the steps of a model.
pub(super) struct Previews {
    /// `None` until it is found out, where neither the checkpoint nor its kind says it.
    colours: RefCell<Option<LatentRgb>>,
    /// Where one was asked for.
    tiny: RefCell<Option<TinyDecoder>>,
}

impl Previews {
    /// `vae`: the configuration of the VAE whose latents, of so many channels, the model draws.
    pub fn new(vae: &Value, channels: u32) -> Self {
        let colours = LatentRgb::from_config(vae, channels as usize);
        Self { colours: RefCell::new(colours), tiny: RefCell::default() }
    }

    /// Whether a small decoder was loaded from `name`.
    pub fn has_tiny(&self, name: &str) -> bool {
        self.tiny.borrow().as_ref().is_some_and(|t| t.name == name)
    }

    /// Loads the decoder that `Preview::Tiny` shows steps with, an AutoencoderTiny in diffusers' layout. It stays on
    /// the GPU whatever `memory` is: it takes some MiB. `own`: the model's VAE; `options`: how its plans are recorded.
    ///
    /// # Errors
    /// `unsupported-model` for another kind of VAE or of latents; `bad-checkpoint`; `aborted`; what `files` fails with.
    pub async fn load_tiny<F: ModelFiles>(
        &self,
        residence: &Residence,
        files: Rc<F>,
        own: &Vae,
        options: &Options,
        aborted: &dyn Fn() -> bool,
    ) -> Result<()> {
        let place = Place::find(files.clone(), "vae").await?;
        let vae = Vae::from_config("AutoencoderTiny", &place.config().await?)?;
        let (channels, scale) = (own.latent_channels(), own.scale());
        if (vae.latent_channels(), vae.scale()) != (channels, scale) || vae.out_channels() != 3 {
            return Err(Error::unsupported(format!(
                "{} decodes latents of {} channels, {} pixels a side, where this model's have {channels} \
                 and {scale}. Choose the small decoder of this kind of model, or another preview.",
                files.name(),
                vae.latent_channels(),
                vae.scale()
            )));
        }
        let options = Options { activations: Dtype::F16, ..*options };
        let plan = decoder_weights(&vae, &options)?;
        let part = Part::new("vae", names::vae, plan.weights());
        let name = files.name().to_owned();
        let source = FilesSource { files, other: Some(place), variant: None };
        part.fill(&residence.gpu, &source, aborted).await?;
        *self.tiny.borrow_mut() = Some(TinyDecoder { name, vae, part, options, plan: None });
        Ok(())
    }

    /// Begins what shows a step, of NCHW latents of one picture. The small decoder's run is submitted and not waited for.
    ///
    /// # Errors
    /// `invalid-option` for `Preview::Tiny` without a small decoder; `out-of-memory`; `device-lost`.
    pub async fn start(
        &self,
        residence: &Residence,
        decoder: &Decoder,
        preview: Preview,
        latents: Vec<f32>,
        size: [u32; 2],
    ) -> Result<Shown> {
        // The small decoder's pixels may overflow, so it needs them too.
        if matches!(preview, Preview::Fast | Preview::Tiny) {
            self.find_colours(residence, decoder, size).await?;
        }
        Ok(match preview {
            Preview::None => Shown::Done(None),
            Preview::Fast => Shown::Colours(latents),
            Preview::Tiny => {
                // Not borrowed while it waits.
                let mut tiny = self.tiny.take().ok_or_else(|| {
                    Error::invalid("preview = \"tiny\" needs a small decoder: load one first.")
                })?;
                let reading = tiny.start(residence, &decoder.vae, &latents, size).await;
                *self.tiny.borrow_mut() = Some(tiny);
                Shown::Tiny(latents, reading?)
            }
            Preview::Full => Shown::Done(Some(decoder.decode(residence, &latents, size).await?)),
        })
    }

    /// The picture; colours of the latents where the small decoder overflows f16. `scale`: pixels to a latent.
    ///
    /// # Errors
    /// `device-lost`; `invalid-option` if the latents have another number of channels than their map to colours.
    pub async fn finish(
        &self,
        residence: &Residence,
        shown: Shown,
        [height, width]: [u32; 2],
        scale: u32,
    ) -> Result<Option<Picture>> {
        let (latents, pixels) = match shown {
            Shown::Done(picture) => return Ok(picture),
            Shown::Colours(latents) => (latents, None),
            Shown::Tiny(latents, reading) => {
                // Not borrowed while it waits.
                let tiny = self.tiny.take();
                let pixels = match tiny.as_ref().and_then(|tiny| tiny.plan.as_ref()) {
                    Some(plan) => plan.executable.finish_sound(&residence.gpu, reading).await,
                    None => Ok(None),
                };
                *self.tiny.borrow_mut() = tiny;
                (latents, pixels?)
            }
        };
        Ok(Some(match pixels {
            Some(pixels) => Picture { width: width * scale, height: height * scale, data: to_rgba(&pixels) },
            None => self.map(&latents, height, width)?,
        }))
    }

    /// Finds out what colours the decoder makes, where nothing says it.
    async fn find_colours(&self, residence: &Residence, decoder: &Decoder, size: [u32; 2]) -> Result<()> {
        if self.colours.borrow().is_none() {
            let found = LatentRgb::fit(decoder, residence, size).await?;
            *self.colours.borrow_mut() = Some(found);
        }
        Ok(())
    }

    /// What guidance was given and what it takes the picture to be, of the first picture, in colours.
    ///
    /// # Errors
    /// Those of decoding.
    pub async fn colour(
        &self,
        residence: &Residence,
        decoder: &Decoder,
        parts: &Parts,
        [height, width]: [u32; 2],
    ) -> Result<[Picture; 2]> {
        self.find_colours(residence, decoder, [height, width]).await?;
        let len = (decoder.vae.latent_channels() * height * width) as usize;
        let first = |values: &[f32]| self.map(&values[..len.min(values.len())], height, width);
        Ok([first(&parts.input)?, first(&parts.x0)?])
    }

    /// A picture of the latents' own size by a linear map of their channels: cheap enough for every step.
    fn map(&self, latents: &[f32], height: u32, width: u32) -> Result<Picture> {
        let LatentRgb { factors, bias } = self.colours.borrow().clone().unwrap_or_default();
        let data = latents_to_rgba(latents, width as usize, height as usize, &factors, bias)?;
        Ok(Picture { width, height, data })
    }
}

impl TinyDecoder {
    async fn start(
        &mut self,
        residence: &Residence,
        own: &Vae,
        latents: &[f32],
        [height, width]: [u32; 2],
    ) -> Result<Reading> {
        // A small decoder knows SDXL's latents as SDXL has them, not as Playground does.
        let latents: Vec<f32> = match own {
            Vae::Kl(vae::Config { latents: Some(_), .. }) => {
                own.unscaled(latents).iter().map(|v| v * SDXL_SCALING_FACTOR).collect()
            }
            _ => latents.to_vec(),
        };
        let values: Vec<f32> = latents.iter().map(|v| v / self.vae.scaling_factor()).collect();
        let values = to_nhwc(&values, self.vae.latent_channels() as usize);
        let plan = match &mut self.plan {
            Some(kept) if (kept.height, kept.width) == (height, width) => kept,
            other => {
                let record = |options: &Options| record_decoder(&self.vae, options, height, width);
                let recorded = sound(&residence.gpu, &self.options, record).await?;
                let weights = self.part.weights()?;
                other.insert(DecodePlan::new(&residence.gpu, &weights, recorded, false)?)
            }
        };
        plan.start(&residence.gpu, &values)
    }
}
