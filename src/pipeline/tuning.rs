//! Tiles chosen for this GPU: on an earlier visit, or while the weights arrive.

use super::{DiffusionPipeline, Vae};
use crate::error::Result;
use crate::gpu::choices::{Choices, shipped};
use crate::gpu::{Gpu, Options};
use crate::ops::autotune::{self, EXAMPLES};

/// What tuning may take while a model loads, in milliseconds.
pub(super) const BUDGET: f64 = 3000.0;
/// Models whose UNet is smaller are drawn before the tuning has paid.
pub(super) const WORTH: u64 = 256 << 20;

/// Where choices come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    #[default]
    Shipped,
    /// From an earlier visit.
    Kept,
    /// Timed by this pipeline: to be kept.
    Timed,
}

/// Choices, and under what they are kept.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub key: String,
    pub text: String,
    pub origin: Origin,
}

/// The choices of an earlier visit among `kept` (key and text of each), if they are of this GPU and these kernels.
pub(super) fn kept(gpu: &Gpu, options: &Options, kept: &[(String, String)]) -> Option<Choices> {
    let key = autotune::key(gpu, options);
    let (_, text) = kept.iter().find(|(k, _)| *k == key)?;
    Choices::from_text(text, autotune::candidates(options))
}

impl DiffusionPipeline {
    /// The choices in use.
    pub fn tuning(&self) -> Chosen {
        Chosen {
            key: autotune::key(&self.gpu, &self.options),
            text: self.options.choices.to_text(),
            origin: self.chosen,
        }
    }

    /// Chooses anew, beginning with what was shipped, in at most `budget` milliseconds.
    ///
    /// # Errors
    /// `device-lost`.
    pub async fn tune(&mut self, budget: f64) -> Result<()> {
        let options = Options { choices: shipped(&self.gpu.vendor, &self.gpu.architecture), ..self.options };
        let choices = autotune::tune(&self.gpu, &options, &EXAMPLES, budget).await?;
        self.choose(choices, Origin::Timed);
        Ok(())
    }

    /// Draws with these from now on.
    pub(super) fn choose(&mut self, choices: Choices, origin: Origin) {
        self.chosen = origin;
        let vae = match &mut self.vae {
            Vae::Kl(m) => &mut m.options,
            Vae::Tiny(m) => &mut m.options,
        };
        let encoders = self.text_encoders.iter_mut().map(|e| &mut e.module.options);
        for options in [&mut self.options, &mut self.unet.options, vae].into_iter().chain(encoders) {
            options.choices = choices;
        }
        self.unet_plan.take();
        self.decode_plan.take();
    }
}
