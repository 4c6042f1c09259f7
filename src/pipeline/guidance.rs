//! How predictions are weighed, as a request asks for it.

use super::model::Model;
use super::request::GenerateOptions;
use crate::error::{Error, Result};

/// InstructPix2Pix's, in diffusers' pipeline.
const IMAGE_GUIDANCE_SCALE: f32 = 1.5;

/// How the predictions with and without prompt are weighed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guidance {
    pub scale: f32,
    /// InstructPix2Pix's `image_guidance_scale`.
    pub image: Option<f32>,
    /// The UNet takes the scale as an input.
    pub embedded: bool,
    /// `guidance_rescale`: 0 leaves the prediction as it is.
    pub rescale: f32,
    /// Shares of the steps between which guidance acts.
    pub interval: [f64; 2],
}

impl Guidance {
    /// # Errors
    /// `invalid-option` for what is no number, and an interval that cannot be.
    pub fn read(options: &GenerateOptions, model: &Model, embedded: bool) -> Result<Self> {
        let scale = options.guidance_scale.unwrap_or(model.guidance_scale);
        if !scale.is_finite() || !options.guidance_rescale.is_finite() {
            return Err(Error::invalid("guidanceScale and guidanceRescale must be finite numbers."));
        }
        let image = options.image_guidance_scale.unwrap_or(IMAGE_GUIDANCE_SCALE);
        if !image.is_finite() {
            return Err(Error::invalid("imageGuidanceScale must be a finite number."));
        }
        let image = model.instruct_pix2pix.then_some(image);
        let interval = options.guidance_interval.unwrap_or([0.0, 1.0]);
        if !(0.0 <= interval[0] && interval[0] < interval[1] && interval[1] <= 1.0) {
            return Err(Error::invalid("guidanceInterval must be [start, end], shares of the steps."));
        }
        Ok(Guidance { scale, image, embedded, rescale: options.guidance_rescale, interval })
    }

    /// Whether there is a prediction for the negative prompt.
    pub fn needs_negative(&self) -> bool {
        self.scale > 1.0 && !self.embedded
    }

    /// Whether there is a prediction that does not see InstructPix2Pix's picture: with a scale of 1 it cancels out.
    pub fn needs_blind(&self) -> bool {
        self.image.is_some_and(|scale| scale != 1.0)
    }

    pub fn acts_always(&self) -> bool {
        self.interval == [0.0, 1.0]
    }

    /// Whether guidance acts during a step from one share of the steps to another.
    pub fn acts(&self, [from, to]: [f64; 2]) -> bool {
        from >= self.interval[0] && to <= self.interval[1]
    }

    /// By what the difference of both predictions is multiplied, and that of InstructPix2Pix's with and without picture.
    pub fn weights(&self, acts: bool, cfg_plus_plus: bool) -> [f32; 2] {
        let divisor = if cfg_plus_plus { 12.5 } else { 1.0 };
        [self.scale, self.image.unwrap_or(1.0)].map(|scale| match (self.embedded, acts) {
            // The UNet has applied its scale already.
            (true, _) => 1.0,
            (false, acts) => (if acts { scale } else { 1.0 }) / divisor,
        })
    }
}
