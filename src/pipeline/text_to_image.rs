//! The loop: from a first sample to the last latents, step by step.

use super::diffusion::DiffusionPipeline;
use super::inpainting::{self, Canvas, Encoded};
use super::inside::Seen;
use super::predictor::{Predictor, Question};
use super::preview::Shown;
use super::request::{Generated, Picture, Seeds, Step, Timings};
use super::settle::{Pass, Shared, Start};
use crate::clock::now;
use crate::error::{Result, check_aborted};
use crate::samplers::NoiseSource;
use crate::samplers::{self, Ask, Levels};

/// Who follows the drawing: hears of each step, and may stop it.
pub(super) struct Listener<'a> {
    pub on_step: &'a mut dyn FnMut(Step) -> Result<()>,
    pub aborted: &'a dyn Fn() -> bool,
}

/// Draws one pass of a request.
///
/// # Errors
/// `out-of-memory` for sizes that the adapter cannot hold; `aborted`; `device-lost`; what the model's files fail with.
pub(super) async fn draw(
    pipeline: &DiffusionPipeline,
    shared: &Shared,
    pass: Pass,
    start: Start,
    listener: &mut Listener<'_>,
) -> Result<Generated> {
    let begun = now();
    let DiffusionPipeline { residence, text, decoder, encoder, model, .. } = pipeline;
    check_aborted(listener.aborted)?;
    let loras = pipeline.loras.chosen(&shared.loras);
    let guided = shared.guidance.needs_negative();
    let prompts = text.prompts(residence, loras, &shared.texts, pass.steps, guided).await?;
    let mut timings = Timings { text_encoder: now() - begun, ..Default::default() };
    let noises = NoiseSource::new(shared.seed, &shared.noise, shared.images, pass.shape, decoder.scale());
    let encoded = inpainting::encode(start, encoder, residence, model, listener.aborted).await?;
    // Before the noise is drawn: a size that cannot be is refused here.
    let mut predictor = Predictor::new(pipeline, shared, &pass, prompts, listener.aborted).await?;
    let (size, picture_len, decode) = (pass.latent_size(), pass.picture_len(), pass.decode);
    let mut reports =
        Reports { pipeline, shared, size, picture_len, listener, waiting: None, times: Vec::new() };
    let denoised = denoise(&mut predictor, pass, encoded, noises, &mut reports).await;
    timings.steps = reports.times;
    timings.step = predictor.counters();
    let truncated = predictor.into_truncated();
    let latents = denoised?;

    let mut pictures: Vec<Picture> = Vec::new();
    if decode {
        let begun = now();
        for picture in latents.chunks_exact(picture_len) {
            check_aborted(listener.aborted)?;
            pictures.push(decoder.decode(residence, picture, size).await?);
        }
        timings.vae = now() - begun;
    }
    timings.total = now() - begun;
    let seeds = |i| {
        let (seed, variation) = shared.noise.of_image(shared.seed, i);
        Seeds { seed, variation: variation.map(|(seed, _)| seed) }
    };
    Ok(Generated {
        pictures,
        latents: latents.chunks_exact(picture_len).map(<[f32]>::to_vec).collect(),
        seeds: (0..shared.images).map(seeds).collect(),
        seed: shared.seed,
        settled: shared.settings.clone(),
        truncated,
        unmatched: loras.unmatched(),
        timings,
    })
}

/// Predict, step, show; until the sampler has its last sample, NCHW of all pictures.
async fn denoise(
    predictor: &mut Predictor<'_>,
    pass: Pass,
    encoded: Encoded,
    mut noises: NoiseSource,
    reports: &mut Reports<'_, '_>,
) -> Result<Vec<f32>> {
    predictor.prepare(reports.listener.aborted).await?;
    let (levels, total) = (pass.sampler.levels.clone(), pass.total);
    let len = reports.picture_len * reports.shared.images;
    let (canvas, sample) = Canvas::begin(encoded, len, pass.noise, &mut noises, &levels, pass.begin);
    let noise = Box::new(move |z: &mut [f32], walk| noises.draw(z, walk));
    let mut sampling = pass.sampler.start(pass.begin, sample, noise);
    // The sampler asks, the loop answers its last question.
    let mut answer = None;
    let mut begun = now();
    loop {
        check_aborted(reports.listener.aborted)?;
        match sampling.resume(answer.take())? {
            Ask::Predict { step, timestep, input, cfg_plus_plus } => {
                let question = Question { step, timestep, input, cfg_plus_plus };
                let predicted = predictor.predict(question, &canvas.beside, async || reports.send().await);
                answer = Some(predicted.await?);
            }
            Ask::Step(mut done) => {
                canvas.blend(&mut done.sample, &levels, done.next);
                done.total = total;
                reports.times.push(now() - begun);
                let ended = done.step + 1 >= total && done.next.is_some();
                let sample = done.sample.clone();
                reports.add(done, &levels, predictor.take_seen()).await?;
                if ended {
                    // The rest is for another model.
                    reports.send().await?;
                    return Ok(sample);
                }
                answer = Some(sample);
                begun = now();
            }
            Ask::End(latents) => {
                reports.send().await?;
                return Ok(latents);
            }
        }
    }
}

/// Reports a step after the next one's work is submitted, so that the GPU never idles.
struct Reports<'a, 'l> {
    pipeline: &'a DiffusionPipeline,
    shared: &'a Shared,
    /// Height and width in latents.
    size: [u32; 2],
    /// Values of one picture's latents.
    picture_len: usize,
    listener: &'a mut Listener<'l>,
    waiting: Option<(Step, Shown)>,
    /// Milliseconds of each step.
    times: Vec<f64>,
}

impl Reports<'_, '_> {
    /// Takes a step to be sent later, and begins what shows it.
    async fn add(&mut self, done: samplers::Step, levels: &Levels, seen: Option<Seen>) -> Result<()> {
        let DiffusionPipeline { residence, decoder, previews, .. } = self.pipeline;
        // The next step's input has unit spread, whatever the sampler's own scale is.
        let mut view = done.sample[..self.picture_len].to_vec();
        levels.scale_to_show(&mut view, done.next.unwrap_or(0.0));
        let shown = previews.start(residence, decoder, self.shared.preview, view, self.size).await?;
        let colours = match seen.as_ref().and_then(|seen| seen.parts.as_ref()) {
            Some(parts) => Some(previews.colour(residence, decoder, parts, self.size).await?),
            None => None,
        };
        let step = Step {
            step: done.step + 1,
            total: done.total,
            timestep: done.timestep,
            sigma: done.sigma,
            preview: None,
            latents: done.sample,
            x0: done.x0,
            seen,
            colours,
        };
        // A sampler may end a step without a prediction of its own.
        self.send().await?;
        self.waiting = Some((step, shown));
        Ok(())
    }

    /// Sends the step that waits, if one does.
    async fn send(&mut self) -> Result<()> {
        let Some((mut step, shown)) = self.waiting.take() else { return Ok(()) };
        let DiffusionPipeline { residence, decoder, previews, .. } = self.pipeline;
        step.preview = previews.finish(residence, shown, self.size, decoder.scale()).await?;
        (self.listener.on_step)(step)?;
        check_aborted(self.listener.aborted)
    }
}
