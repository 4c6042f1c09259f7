//! A request from settling to its last pass. Hires fix: a picture drawn at the size that the model knows, enlarged, and
//! drawn over at the larger size. As diffusers composes it: text to image, `torch.nn.functional.interpolate` of the
//! latents (or Lanczos of the picture, which the VAE encodes again), image to image; both passes from the same seed, as
//! A1111.

use super::diffusion::DiffusionPipeline;
use super::pixels::{Bytes, interpolate};
use super::request::{Enlarge, GenerateOptions, Generated, Picture, Step};
use super::settle::{Facts, Pass, Settled, Shared, Start, Then, settle};
use super::text_to_image::{Listener, draw};
use crate::error::Result;

impl DiffusionPipeline {
    /// Draws. `on_step` sees every step; `aborted` is asked between steps.
    ///
    /// # Errors
    /// `invalid-option` naming the option; `out-of-memory` for sizes that the adapter cannot hold; `aborted`;
    /// `device-lost`. The pipeline stays usable after all but the last.
    pub async fn generate(
        &self,
        options: &GenerateOptions,
        on_step: &mut dyn FnMut(Step) -> Result<()>,
        aborted: &dyn Fn() -> bool,
    ) -> Result<Generated> {
        let Settled { shared, first, start, then } = settle(options, &self.facts())?;
        let mut listener = Listener { on_step, aborted };
        match then {
            Then::Nothing => draw(self, &shared, first, start, &mut listener).await,
            Then::PutBack(repaint) => {
                let mut generated = draw(self, &shared, first, start, &mut listener).await?;
                let drawn = std::mem::take(&mut generated.pictures);
                generated.pictures = drawn.into_iter().map(|picture| repaint.put_back(picture)).collect();
                Ok(generated)
            }
            Then::DrawOver(how, second) => {
                draw_twice(self, &shared, [first, second], how, &mut listener).await
            }
        }
    }

    /// What a request is settled against.
    pub(super) fn facts(&self) -> Facts<'_> {
        let text_time = self.unet.config.text_time.is_some();
        Facts {
            model: &self.model,
            scheduler: &self.scheduler,
            embedded_guidance: self.unet.config.time_cond_proj_dim.is_some(),
            zeros_for_no_negative: self.force_zeros_for_empty_prompt && text_time,
            // As many as skips, which come with the middle's.
            unet_layers: self.unet.config.skips().len() as u32 - 1,
            text_layers: self.text.layers(),
            window: self.text.tokens() * self.text.channels(),
            loras: self.loras.keys(),
            controlnets: [self.controlnets.list(), self.adapters.list(), self.lllites.list()].concat(),
            ip_adapters: self.ip_adapters.keys(),
            decoder: &self.decoder,
            residence: &self.residence,
        }
    }
}

/// Both passes of hires fix.
async fn draw_twice(
    pipeline: &DiffusionPipeline,
    shared: &Shared,
    [first, second]: [Pass; 2],
    how: Enlarge,
    listener: &mut Listener<'_>,
) -> Result<Generated> {
    let (from, to, size) = (first.latent_size(), second.latent_size(), [second.width, second.height]);
    let mut done = 0;
    let mut count = |mut step: Step| {
        done = step.total;
        step.total += second.total;
        (listener.on_step)(step)
    };
    let mut counted = Listener { on_step: &mut count, aborted: listener.aborted };
    let first = draw(pipeline, shared, first, Start::Noise, &mut counted).await?;
    let start = if how == Enlarge::Picture {
        let enlarged = |p: &Picture| Bytes::of(p).resized(size[0] as usize, size[1] as usize).picture();
        Start::Pictures(first.pictures.iter().map(enlarged).collect())
    } else {
        let sizes = [from[0], from[1], to[0], to[1]].map(|side| side as usize);
        Start::Latents(first.latents.iter().map(|latents| interpolate(latents, sizes, how)).collect())
    };
    let mut count = |mut step: Step| {
        step.step += done;
        step.total += done;
        (listener.on_step)(step)
    };
    let mut counted = Listener { on_step: &mut count, aborted: listener.aborted };
    let mut out = draw(pipeline, shared, second, start, &mut counted).await?;
    out.timings.text_encoder += first.timings.text_encoder;
    out.timings.steps.splice(0..0, first.timings.steps);
    out.timings.vae += first.timings.vae;
    out.timings.total += first.timings.total;
    Ok(out)
}
