//! Text to image: the loop.

use super::controlnet::Control;
use super::decode::{KEEP_BOTH, to_nchw, to_nhwc};
use super::hires::Hires;
use super::image_to_image::{Start, StrengthSteps};
use super::preview::Shown;
use super::repaint::{InpaintArea, MaskedContent, Outpaint};
use super::residence::Stage;
use super::text::{Conditioning, Prompts};
use super::{DiffusionPipeline, Kind, Picture, UnetPlan, check_aborted, image_to_image, parameters, repaint};
use crate::clock::now;
use crate::error::{Code, Error, Result};
use crate::gpu::{Counters, Executable, Reading, Recorder};
use crate::models::controlnet;
use crate::models::unet::{self, AddedCond, Inputs};
use crate::prompt::Syntax;
use crate::samplers::{
    Ask, NoiseOptions, NoiseSource, Tuning, composed_guidance, get_guidance_scale_embedding,
    get_timestep_embedding, rescale_noise_cfg, scheduler,
};
use std::rc::Rc;

/// What each step shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preview {
    #[default]
    None,
    /// A linear map of the latents.
    Fast,
    /// A small decoder ([`DiffusionPipeline::load_tiny`]).
    Tiny,
    /// The image decoder.
    Full,
}

/// One request for pictures; names as in diffusers.
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    pub prompt: String,
    /// How prompt and negative prompt are read. [`Syntax::Plain`], the default, is diffusers' way.
    pub prompt_syntax: Syntax,
    /// `None` differs from "" for SDXL checkpoints with `force_zeros_for_empty_prompt`.
    pub negative_prompt: Option<String>,
    /// Pixels, multiples of the decoder's scale (8).
    pub width: u32,
    pub height: u32,
    pub num_inference_steps: usize,
    pub guidance_scale: f32,
    pub guidance_rescale: f32,
    /// Shares of the steps between which guidance acts (Kynkäänniemi et al. 2024), as ControlNets' `start` and `end`: in
    /// the others the UNet sees the prompt alone, which is half the work. `None`: all.
    pub guidance_interval: Option<[f64; 2]>,
    /// A name of `samplers::names()`; `None`: the checkpoint's own.
    pub scheduler: Option<String>,
    /// `eta`, `s_churn` and the like, for samplers that have them.
    pub tuning: Tuning,
    pub seed: u64,
    /// How noise is made of it. The default: all pictures of a batch draw from one `torch.Generator("cpu")`.
    pub noise: NoiseOptions,
    pub num_images: usize,
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
    /// LoRAs by key (see `load_lora`), and the scale of each.
    pub loras: Vec<(String, f32)>,
    pub preview: Preview,
    /// Decode to pictures, or leave the latents.
    pub decode: bool,
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

/// The pictures and what made them.
#[derive(Clone, Debug)]
pub struct Generated {
    pub pictures: Vec<Picture>,
    /// NCHW, one picture each, scaled as the UNet has them (divide by `scaling_factor` for the VAE).
    pub latents: Vec<Vec<f32>>,
    pub seed: u64,
    /// The text that A1111 writes into a PNG, of each picture.
    pub parameters: Vec<String>,
    /// Ends of prompts that did not fit into the text encoder's window.
    pub truncated: Vec<String>,
    /// Of each LoRA that has some: the tensors that belong to no weight of this model.
    pub unmatched: Vec<(String, Vec<String>)>,
    pub timings: Timings,
}

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
        if let Some(hires) = options.hires {
            return self.draw_twice(options, hires, on_step, aborted).await;
        }
        match repaint::prepare(options)? {
            None => self.draw(options, None, on_step, aborted).await,
            Some((inner, repaint)) => {
                let mut generated = self.draw(&inner, None, on_step, aborted).await?;
                let drawn = std::mem::take(&mut generated.pictures);
                generated.pictures = drawn.into_iter().map(|picture| repaint.put_back(picture)).collect();
                Ok(generated)
            }
        }
    }

    /// The loop, from noise, from `image` or from `start`.
    pub(super) async fn draw(
        &self,
        options: &GenerateOptions,
        start_from: Option<Start>,
        on_step: &mut dyn FnMut(Step) -> Result<()>,
        aborted: &dyn Fn() -> bool,
    ) -> Result<Generated> {
        let start = now();
        let mut timings = Timings::default();
        let (height, width) = self.latent_size(options)?;
        self.check_mask(options)?;
        self.check_controls(options)?;
        let (steps, begin) = image_to_image::schedule_steps(options, start_from.is_some())?;
        let tuning = Tuning { sdxl: self.model.kind == Kind::Sdxl, ..options.tuning.clone() };
        let sampler = scheduler(options.scheduler.as_deref(), &self.scheduler, steps, &tuning)?;
        if options.decode || options.preview == Preview::Full {
            self.check_decode(height, width)?;
        }
        check_aborted(aborted)?;
        self.choose_loras(&options.loras)?;

        // A model with a guidance embedding is told the scale instead of running twice.
        let embedded_guidance = self.unet.config.time_cond_proj_dim;
        let guided = options.guidance_scale > 1.0 && embedded_guidance.is_none();
        let prompts = self.prompts(options, guided).await?;
        timings.text_encoder = now() - start;

        let channels = self.vae.latent_channels() as usize;
        let picture_len = channels * (height * width) as usize;
        let shape = [channels, height as usize, width as usize];
        let mut noises =
            NoiseSource::new(options.seed, &options.noise, options.num_images, shape, self.vae.scale());
        let encoded = self.encode_inputs(options, start_from, aborted).await?;
        // Before the noise is drawn: a size that cannot be is refused here.
        self.bring(Stage::Unet, aborted).await?;
        let controlled = !options.controlnets.is_empty();
        let batch = if options.guidance_interval.is_some() { 1 } else { prompts.batch() };
        let mut plan = self.take_unet_plan(batch, height, width, prompts.tokens, controlled).await?;
        let together = plan.batch == prompts.batch();
        let result = async {
            self.prepare_controls(&mut plan, options, together && prompts.guided(), aborted).await?;
            let mut latents = vec![0f32; picture_len * options.num_images];
            if let Some(given) = &options.latents
                && given.len() != latents.len()
            {
                    return Err(Error::invalid(format!(
                        "latents has {} values; {} pictures of {channels}x{height}x{width} need {}",
                        given.len(),
                        options.num_images,
                        latents.len()
                    )));
            }
            let given = options.latents.as_deref();
            let mut canvas = None;
            let levels = sampler.levels.clone();
            // Some schedules have fewer steps than were asked for.
            let begin = begin.min(levels.timesteps().len() - 1);
            let total = levels.timesteps().len() - begin;
            if let Some(encoded) = &encoded {
                let (drawn, first) =
                    self.canvas(options, encoded, &levels, begin, given, &mut noises);
                (canvas, latents) = (Some(drawn), first);
            } else {
                match given {
                    Some(given) => latents.copy_from_slice(given),
                    None => noises.first(&mut latents),
                }
                latents.iter_mut().for_each(|v| *v *= levels.init_noise_sigma());
            }
            let mut sampling = sampler.start(begin, latents, Box::new(move |z, walk| noises.draw(z, walk)));
            // The sampler asks for predictions, and shows each step; what it is told is the answer to its last question.
            let (mut answer, mut step_start) = (None, now());
            // What the plan's inputs hold of the prompts.
            let mut written: Vec<Rc<Conditioning>> = Vec::new();
            // A step that is over is told of when the GPU has the next one's work.
            let mut over: Option<(Step, Shown)> = None;
            let mut tell = async |over: Option<(Step, Shown)>| match over {
                Some((mut step, shown)) => {
                    step.preview = self.finish_preview(shown, height, width).await?;
                    on_step(step)?;
                    check_aborted(aborted)
                }
                None => Ok(()),
            };
            let latents = loop {
                check_aborted(aborted)?;
                match sampling.resume(answer.take())? {
                    Ask::Predict { step, timestep, input, cfg_plus_plus } => {
                        let mut prediction = Vec::with_capacity(input.len());
                        let mut unguided = Vec::new();
                        // Of the steps of this run, as diffusers counts; a sampler may take more than it planned.
                        let now = step.min(total - 1) as f64;
                        let share = [now / total as f64, (now + 1.0) / total as f64];
                        let acts = options.guidance_interval.is_none_or(|[from, to]| share[0] >= from && share[1] <= to);
                        let texts = prompts.at(step);
                        // Prompts of several parts, and CFG++, are made with the negative one's prediction in any case.
                        let alone = !acts && texts.len() == 2 && !cfg_plus_plus;
                        let texts = if alone { &texts[1..] } else { &texts[..] };
                        for picture in input.chunks_exact(picture_len) {
                            let mut picture = picture.to_vec();
                            picture.extend(canvas.iter().flat_map(|c| &c.beside));
                            let scale = if acts { options.guidance_scale } else { 1.0 };
                            let scale = scale / if cfg_plus_plus { 12.5 } else { 1.0 };
                            let mut outs = Vec::new();
                            for (i, texts) in texts.chunks(plan.batch as usize).enumerate() {
                                if texts.len() != written.len() || !texts.iter().zip(&written).all(|(a, b)| Rc::ptr_eq(a, b)) {
                                    self.write_conditioning(&plan, texts, options)?;
                                    written = texts.iter().copied().cloned().collect();
                                }
                                if controlled {
                                    let negative = prompts.guided() && !alone && !together && i == 0;
                                    let latents = &picture[..picture_len];
                                    self.run_controls(&plan, latents, timestep, share, options, negative)?;
                                }
                                outs.push(self.start_prediction(&plan, &picture, timestep)?);
                            }
                            tell(over.take()).await?;
                            let (noise_pred, uncond) =
                                self.finish_prediction(&plan, outs, &prompts, options, scale).await?;
                            if noise_pred.iter().any(|v| !v.is_finite()) {
                                return Err(Error::unsupported(format!(
                                    "The UNet's prediction overflowed at step {}. Load the model with precision \"f32\".",
                                    step + 1
                                )));
                            }
                            prediction.extend(noise_pred);
                            unguided.extend(uncond);
                        }
                        if cfg_plus_plus {
                            prediction.extend(unguided);
                        }
                        answer = Some(prediction);
                    }
                    Ask::Step(mut done) => {
                        if let Some(canvas) = &canvas {
                            canvas.blend(&mut done.sample, &levels, done.next);
                        }
                        timings.steps.push(now() - step_start);

                        // Decoding takes the UNet's place where memory is low: not at every step.
                        let shown =
                            if self.low && options.preview == Preview::Full { Preview::Fast } else { options.preview };
                        // The next step's input has unit spread, whatever the sampler's own scale is.
                        let mut view = done.sample[..picture_len].to_vec();
                        levels.scale_model_input(&mut view, done.next.unwrap_or(0.0));
                        let shown = self.start_preview(shown, view, height, width).await?;
                        answer = Some(done.sample.clone());
                        let step = Step {
                            step: done.step + 1,
                            total: done.total,
                            timestep: done.timestep,
                            sigma: done.sigma,
                            preview: None,
                            latents: done.sample,
                            x0: done.x0,
                        };
                        // A sampler may end a step without a prediction of its own.
                        tell(over.replace((step, shown))).await?;
                        step_start = now();
                    }
                    Ask::End(latents) => {
                        tell(over.take()).await?;
                        break latents;
                    }
                }
            };
            Ok(latents)
        }
        .await;
        timings.step = plan.executable.counters(&self.gpu);
        *self.unet_plan.borrow_mut() = Some(plan);
        let latents = result?;

        let mut pictures = Vec::new();
        if options.decode {
            let vae_start = now();
            for picture in latents.chunks_exact(picture_len) {
                check_aborted(aborted)?;
                pictures.push(self.decode(picture, height, width).await?);
            }
            timings.vae = now() - vae_start;
        }
        timings.total = now() - start;
        Ok(Generated {
            pictures,
            latents: latents.chunks_exact(picture_len).map(<[f32]>::to_vec).collect(),
            seed: options.seed,
            parameters: (0..options.num_images)
                .map(|i| parameters::text(options, i, &self.model.name, self.scheduler.class_name()))
                .collect(),
            truncated: prompts.truncated,
            unmatched: self.unmatched(),
            timings,
        })
    }

    /// Height and width of the latents.
    pub(super) fn latent_size(&self, options: &GenerateOptions) -> Result<(u32, u32)> {
        if options.num_images == 0 {
            return Err(Error::invalid("numImages must be at least 1."));
        }
        if !options.guidance_scale.is_finite() || !options.guidance_rescale.is_finite() {
            return Err(Error::invalid("guidanceScale and guidanceRescale must be finite numbers."));
        }
        // diffusers asks for multiples of 8 whatever the decoder's scale is.
        let unit = self.vae.scale().max(8);
        let side = |name: &str, pixels: u32| {
            if pixels == 0 || !pixels.is_multiple_of(unit) {
                let near = (pixels / unit * unit).max(unit);
                return Err(Error::invalid(format!(
                    "{name} = {pixels}: choose a multiple of {unit}, such as {near}."
                )));
            }
            Ok(pixels / self.vae.scale())
        };
        Ok((side("height", options.height)?, side("width", options.width)?))
    }

    /// A plan that predicts for `batch` texts at once, or, where memory is too short for that, for one after another.
    async fn take_unet_plan(
        &self,
        batch: u32,
        height: u32,
        width: u32,
        tokens: u32,
        controlled: bool,
    ) -> Result<UnetPlan> {
        let wanted = (height, width, tokens, controlled);
        match self.unet_plan.take() {
            Some(p)
                if (p.height, p.width, p.tokens, !p.residuals.is_empty()) == wanted && p.batch == batch =>
            {
                return Ok(p);
            }
            // Free the old plan's memory before the new one's is asked for.
            other => drop(other),
        }
        if self.decode_plan.borrow().as_ref().is_some_and(|p| p.executable.bytes() > KEEP_BOTH) {
            drop(self.decode_plan.take());
        }
        let make = |batch| -> Result<UnetPlan> {
            let config = &self.unet.config;
            let weights = self.unet.part.weights()?;
            let mut r = Recorder::new(&self.unet.options).with_adapted(weights.adapted());
            let inputs = unet_inputs(config, &mut r, batch, height, width, tokens);
            let residuals = match controlled {
                true => controlnet::residuals(config, &mut r, batch, [height, width]),
                false => Vec::new(),
            };
            let out = unet::forward(config, &mut r, &inputs, &residuals)?;
            r.output(out);
            let executable = r.finish().instantiate(&self.gpu, &weights)?;
            let controls = Vec::new();
            Ok(UnetPlan { batch, height, width, tokens, executable, inputs, residuals, controls, out })
        };
        let plan = match make(batch) {
            // What the adapter cannot give is told when it is asked for.
            Ok(plan) => self.gpu.idle().await.map(|()| plan),
            Err(e) => Err(e),
        };
        match plan {
            Err(e) if e.code == Code::OutOfMemory && batch > 1 => {
                let plan = make(1)?;
                self.gpu.idle().await?;
                Ok(plan)
            }
            plan => plan,
        }
    }

    /// Writes what stays the same from step to step unless the prompt has a schedule: the negative prompt first, as
    /// diffusers orders the batch.
    fn write_conditioning(
        &self,
        plan: &UnetPlan,
        texts: &[&Rc<Conditioning>],
        options: &GenerateOptions,
    ) -> Result<()> {
        self.write_inputs(&plan.executable, &self.unet.config, &plan.inputs, texts, options)?;
        self.write_controls(plan, texts, options)
    }

    /// The same for one plan, of a UNet or a ControlNet.
    pub(super) fn write_inputs(
        &self,
        executable: &Executable,
        config: &unet::Config,
        inputs: &Inputs,
        texts: &[&Rc<Conditioning>],
        options: &GenerateOptions,
    ) -> Result<()> {
        let all = |part: fn(&Conditioning) -> &Vec<f32>| {
            texts.iter().flat_map(|c| part(c)).copied().collect::<Vec<f32>>()
        };
        executable.write(&self.gpu, inputs.encoder_hidden_states, &all(|c| &c.embeds))?;
        if let (Some(added), Some(text_time)) = (inputs.added, config.text_time) {
            executable.write(&self.gpu, added.text_embeds, &all(|c| &c.pooled))?;
            // Original size, top left of the crop, target size: the picture as it is.
            let (h, w) = (options.height as f32, options.width as f32);
            let dim = text_time.addition_time_embed_dim as usize;
            let (flip, shift) = (config.flip_sin_to_cos, config.freq_shift);
            let one: Vec<f32> = [h, w, 0.0, 0.0, h, w]
                .iter()
                .flat_map(|&v| get_timestep_embedding(v, dim, flip, shift, 1.0, 10000.0))
                .collect();
            executable.write(&self.gpu, added.time_ids, &one.repeat(texts.len()))?;
        }
        if let (Some(t), Some(dim)) = (inputs.timestep_cond, config.time_cond_proj_dim) {
            let cond = get_guidance_scale_embedding(options.guidance_scale - 1.0, dim as usize);
            executable.write(&self.gpu, t, &cond.repeat(texts.len()))?;
        }
        Ok(())
    }

    /// Submits a run of the UNet for one picture, NCHW, and the copy of what it predicts.
    fn start_prediction(&self, plan: &UnetPlan, sample: &[f32], timestep: f32) -> Result<Reading> {
        let config = &self.unet.config;
        let repeat = plan.batch as usize;
        let nhwc = to_nhwc(sample, config.in_channels as usize);
        plan.executable.write(&self.gpu, plan.inputs.sample, &nhwc.repeat(repeat))?;
        let dim = config.time_proj_dim as usize;
        let t_emb =
            get_timestep_embedding(timestep, dim, config.flip_sin_to_cos, config.freq_shift, 1.0, 10000.0);
        plan.executable.write(&self.gpu, plan.inputs.t_emb, &t_emb.repeat(repeat))?;
        plan.executable.run(&self.gpu);
        plan.executable.start_read(&self.gpu, plan.out)
    }

    /// The UNet's prediction, NCHW, with guidance of this scale, and the one without. `outs`: what was predicted for the
    /// texts, in their order; of the prompt alone there is no guidance.
    async fn finish_prediction(
        &self,
        plan: &UnetPlan,
        outs: Vec<Reading>,
        prompts: &Prompts,
        options: &GenerateOptions,
        guidance_scale: f32,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let config = &self.unet.config;
        let channels = config.out_channels as usize;
        let mut parts = Vec::new();
        for out in outs {
            let (out, _) = plan.executable.finish_read(&self.gpu, out).await?;
            parts.extend(
                out.chunks_exact(out.len() / plan.batch as usize).map(|part| to_nchw(part, channels)),
            );
        }
        let (uncond, conds) = match parts.as_slice() {
            [] => return Ok(Default::default()),
            [one] => return Ok((one.clone(), one.clone())),
            [uncond, conds @ ..] => (uncond, conds),
        };
        // A model with a guidance embedding has applied its scale already.
        let scale = if config.time_cond_proj_dim.is_some() { 1.0 } else { guidance_scale };
        let mut noise_pred = composed_guidance(uncond, conds, &prompts.weights(), scale);
        if options.guidance_rescale > 0.0 {
            rescale_noise_cfg(&mut noise_pred, &conds[0], options.guidance_rescale);
        }
        Ok((noise_pred, uncond.clone()))
    }
}

/// The inputs of a UNet's plan.
pub(super) fn unet_inputs(
    config: &unet::Config,
    r: &mut Recorder,
    batch: u32,
    height: u32,
    width: u32,
    tokens: u32,
) -> Inputs {
    Inputs {
        sample: r.input(batch, height, width, config.in_channels),
        t_emb: r.input(batch, 1, 1, config.time_proj_dim),
        encoder_hidden_states: r.input(batch, 1, tokens, config.cross_attention_dim),
        added: config.text_time.map(|t| {
            let time_ids = 6 * t.addition_time_embed_dim;
            let pooled = t.projection_class_embeddings_input_dim.saturating_sub(time_ids);
            AddedCond { text_embeds: r.input(batch, 1, 1, pooled), time_ids: r.input(batch, 1, 1, time_ids) }
        }),
        timestep_cond: config.time_cond_proj_dim.map(|c| r.input(batch, 1, 1, c)),
    }
}
