//! One prediction of the UNet after another: ControlNets first, then the texts of the step, then guidance.

use super::controlnet::{Asked, ControlNet};
use super::deep_cache::DeepFeatures;
use super::diffusion::DiffusionPipeline;
use super::inside::{Inside, Parts, Seen};
use super::ip_adapter::SeenPictures;
use super::lllite::Lllite;
use super::looking::{self, Level};
use super::pixels::{to_nchw, to_nhwc};
use super::plans::{UnetPlan, UnetSize};
use super::request::Control;
use super::residence::Stage;
use super::settle::{Pass, Shared};
use super::t2i_adapter::T2iAdapter;
use super::text::{Conditioning, Prompts};
use crate::error::{Code, Error, Result};
use crate::gpu::{Counters, Executable, Gpu, Probe, Reading, Tensor};
use crate::models::unet::{Config, Inputs};
use crate::samplers::{
    Noising, composed_guidance, get_guidance_scale_embedding, get_timestep_embedding, rescale_noise_cfg,
};
use std::rc::Rc;

/// What the sampler asks of the network: see `Ask::Predict`.
pub(super) struct Question {
    pub step: usize,
    pub timestep: f32,
    /// NCHW, all pictures.
    pub input: Vec<f32>,
    pub cfg_plus_plus: bool,
}

/// The UNet with a plan of one size, and ControlNets beside it.
pub(super) struct Predictor<'a> {
    pipeline: &'a DiffusionPipeline,
    shared: &'a Shared,
    prompts: Prompts,
    plan: UnetPlan,
    controls: Vec<Rc<ControlNet>>,
    adapters: Vec<Rc<T2iAdapter>>,
    /// Which of the adapters are in the plan's features.
    added: Option<Vec<bool>>,
    lllites: Vec<Rc<Lllite>>,
    /// How strongly they act by what the plan's inputs hold.
    scales: Vec<f32>,
    /// What the plan's inputs hold of the texts.
    written: Vec<Rc<Conditioning>>,
    /// How many of them are the negative prompt's.
    negatives: usize,
    /// What IP-Adapters see.
    images: Vec<SeenPictures>,
    /// Of each text whether the plan's inputs hold what is seen for the negative prompt.
    shown: Vec<bool>,
    deep: DeepFeatures,
    /// Turns predictions to what is shown of them, where that is asked for.
    noising: Option<Noising>,
    seen: Option<Seen>,
    /// Milliseconds of each block, once they are measured.
    times: Option<Vec<f64>>,
    /// Width and height in pixels.
    size: [u32; 2],
    /// Values of one picture's latents.
    picture_len: usize,
    total: usize,
}

impl<'a> Predictor<'a> {
    /// The UNet's weights come to the GPU, and a plan that predicts for all texts at once, or, where memory is too short
    /// for that, for one after another.
    ///
    /// # Errors
    /// `out-of-memory`; `aborted`; `device-lost`; what the model's files fail with.
    pub async fn new(
        pipeline: &'a DiffusionPipeline,
        shared: &'a Shared,
        pass: &Pass,
        prompts: Prompts,
        aborted: &dyn Fn() -> bool,
    ) -> Result<Self> {
        let residence = &pipeline.residence;
        // Before the UNet is there: what sees pictures is as large, and leaves again where memory is short.
        let guided = prompts.guided();
        let images = pipeline.ip_adapters.see(residence, &shared.ip_adapters, guided, aborted).await?;
        residence.bring(Stage::Unet, aborted).await?;
        pipeline.loras.chosen(&shared.loras).merge(residence, Stage::Unet).await?;
        let [height, width] = pass.latent_size();
        let before = before(&prompts, shared);
        let texts = prompts.batch() - u32::from(prompts.guided()) + before;
        let size = UnetSize {
            // Steps without guidance are then half the work.
            batch: if shared.guidance.acts_always() { texts } else { 1 },
            height,
            width,
            tokens: prompts.tokens,
            controlled: !shared.controls.is_empty(),
            adapted: !shared.adapters.is_empty(),
            lllites: shared.lllites.iter().map(|control| control.key.clone()).collect(),
            images: images.iter().map(SeenPictures::tokens).collect(),
            branch: shared.deep_cache.map(|cache| cache.branch),
            inside: Inside { guidance: false, ..shared.inside },
            before,
        };
        let controls = shared.controls.iter().filter_map(|seen| seen.first());
        let controls = controls.map(|control| pipeline.controlnets.get(&control.key));
        let adapters = shared.adapters.iter().map(|control| pipeline.adapters.get(&control.key));
        let lllites = shared.lllites.iter().map(|control| pipeline.lllites.get(&control.key));
        let lllites: Vec<Rc<Lllite>> = lllites.collect::<Result<_>>()?;
        let plan = plan_of(pipeline, size, &lllites, aborted).await?;
        plan.executable.begin_counting();
        let shows = shared.inside != Inside::default();
        Ok(Self {
            noising: shows.then(|| Noising::read(&pipeline.scheduler)).transpose()?,
            seen: None,
            times: None,
            plan,
            controls: controls.collect::<Result<_>>()?,
            adapters: adapters.collect::<Result<_>>()?,
            added: None,
            lllites,
            scales: Vec::new(),
            pipeline,
            shared,
            prompts,
            written: Vec::new(),
            negatives: 0,
            images,
            shown: Vec::new(),
            deep: DeepFeatures::default(),
            size: [pass.width, pass.height],
            picture_len: pass.picture_len(),
            total: pass.total,
        })
    }

    /// Makes the ControlNets, T2I-Adapters and ControlNet-LLLites ready: their weights are on the GPU, their plans bound, their
    /// pictures seen.
    ///
    /// # Errors
    /// Those of loading; `out-of-memory`; `aborted`.
    pub async fn prepare(&mut self, aborted: &dyn Fn() -> bool) -> Result<()> {
        let residence = &self.pipeline.residence;
        let guess = self.shared.guess;
        let first = if guess && self.together() { self.plan.size.before } else { 0 };
        let asked = Asked { size: self.size, first, guess };
        self.plan.controls.truncate(self.controls.len());
        for (i, (net, seen)) in self.controls.iter().zip(&self.shared.controls).enumerate() {
            net.prepare(residence, &mut self.plan, i, seen, asked, aborted).await?;
        }
        self.plan.adapters.truncate(self.adapters.len());
        let unet = &self.pipeline.unet.config;
        for (i, (adapter, seen)) in self.adapters.iter().zip(&self.shared.adapters).enumerate() {
            adapter.prepare(residence, unet, &mut self.plan, (i, seen, self.size), aborted).await?;
        }
        for (i, (lllite, seen)) in self.lllites.iter().zip(&self.shared.lllites).enumerate() {
            lllite.prepare(&residence.gpu, &mut self.plan, (i, seen, self.size)).await?;
        }
        residence.gpu.check()
    }

    /// The network's answer, NCHW. `beside`: channels of a UNet that takes more than latents. `submitted` is run when
    /// the GPU has work and before its results are waited for.
    ///
    /// # Errors
    /// `unsupported-model` where the prediction overflows; `device-lost`; those of `submitted`.
    pub async fn predict(
        &mut self,
        question: Question,
        beside: &[f32],
        mut submitted: impl AsyncFnMut() -> Result<()>,
    ) -> Result<Vec<f32>> {
        let Question { step, timestep, input, cfg_plus_plus } = question;
        // Of the steps of this run, as diffusers counts; a sampler may take more than it planned.
        let now = step.min(self.total - 1) as f64;
        let share = [now / self.total as f64, (now + 1.0) / self.total as f64];
        let guidance = self.shared.guidance;
        let acts = guidance.acts(share);
        self.add_features(share)?;
        self.set_scales(share)?;
        let weights = guidance.weights(acts, cfg_plus_plus);
        let mut texts = self.prompts.at(step);
        // Prompts of several parts, and CFG++, are made with the negative one's prediction in any case.
        let alone = !acts && texts.len() == 2 && !cfg_plus_plus;
        if alone {
            texts.remove(0);
        } else if self.blind() {
            texts.insert(0, texts[0].clone());
        }
        let before = if alone { 0 } else { self.plan.size.before as usize };
        let whole = self.shared.deep_cache.is_none_or(|cache| step.is_multiple_of(cache.interval as usize));
        let probed = self.noising.is_some() && self.seen.is_none();
        let moment = Moment { timestep, share, texts, before, whole, probed };
        let (mut prediction, mut unguided) = (Vec::with_capacity(input.len()), Vec::new());
        let (mut seen, mut parts) = (Seen::default(), Parts::default());
        for (picture, latents) in input.chunks_exact(self.picture_len).enumerate() {
            let (outs, probes) = self.submit(picture, latents, beside, &moment)?;
            submitted().await?;
            let each = self.finish(outs).await?;
            if let Some(probes) = probes {
                self.show(probes, &moment, &mut seen).await?;
            }
            let (noise_pred, uncond) = self.guide(&each, weights);
            if noise_pred.iter().any(|v| !v.is_finite()) {
                return Err(Error::unsupported(format!(
                    "The UNet's prediction overflowed at step {}. Load the model with precision \"f32\".",
                    step + 1
                )));
            }
            if probed {
                let seeing = usize::from(before == 2);
                parts.add(latents, &noise_pred, &each[seeing..], &self.prompts.weights());
            }
            prediction.extend(noise_pred);
            unguided.extend(uncond);
        }
        if let Some(noising) = self.noising.as_ref().filter(|_| probed) {
            seen.parts = self.shared.inside.guidance.then(|| parts.turned(noising, timestep));
            self.seen = Some(seen);
        }
        if cfg_plus_plus {
            prediction.extend(unguided);
        }
        Ok(prediction)
    }

    /// What the first prediction since the last call showed, where that was asked for.
    pub fn take_seen(&mut self) -> Option<Seen> {
        self.seen.take()
    }

    /// What the last run was made of.
    pub fn counters(&self) -> Counters {
        self.plan.executable.counters(&self.pipeline.residence.gpu)
    }

    /// Keeps the plan for the next picture; gives the ends of prompts that did not fit.
    pub fn into_truncated(self) -> Vec<String> {
        self.pipeline.residence.keep_unet_plan(self.plan);
        self.prompts.truncated
    }

    /// Whether all texts are predicted for at once.
    fn together(&self) -> bool {
        let negative = u32::from(self.prompts.guided());
        self.plan.size.batch == self.prompts.batch() - negative + self.plan.size.before
    }

    /// Whether the first prediction of a step is for the negative prompt without the picture that InstructPix2Pix edits.
    fn blind(&self) -> bool {
        self.plan.size.before == 2
    }

    /// Submits the runs for one picture's latents, NCHW, and the copies of what they predict.
    fn submit(
        &mut self,
        picture: usize,
        latents: &[f32],
        beside: &[f32],
        moment: &Moment,
    ) -> Result<(Vec<Predicted>, Option<Probes>)> {
        let gpu = &self.pipeline.residence.gpu;
        let sample = [latents, beside].concat();
        let (mut outs, mut probes) = (Vec::new(), None);
        // The run that has the prompt.
        let looked_at = if self.together() { 0 } else { moment.before };
        for (i, texts) in moment.texts.chunks(self.plan.size.batch as usize).enumerate() {
            let negatives = if self.together() { moment.before } else { usize::from(i < moment.before) };
            let negative = !self.together() && negatives > 0;
            self.write_texts(texts, negatives)?;
            self.write_images(texts.len(), negatives)?;
            self.run_controls(latents, moment, negative)?;
            let UnetPlan { executable, inputs, .. } = &self.plan;
            let blind = if i == 0 && moment.before == 2 { latents.len() } else { sample.len() };
            let config = &self.pipeline.unet.config;
            write_sample(gpu, executable, config, inputs, (&sample, blind), moment.timestep)?;
            // Without those before the prompt's, its run has still the same place.
            let features = (picture, i + self.plan.size.before as usize - moment.before);
            let shallow = self.deep.bring(gpu, &self.plan, features, moment.whole)?;
            let (executable, out) = self.plan.running(shallow);
            executable.run(gpu);
            outs.push(Predicted { reading: executable.start_read(gpu, out)?, shallow });
            if moment.probed && picture == 0 && i == looked_at {
                let Probe { maps, blocks, .. } = &self.plan.probe;
                let read = |t: Tensor| executable.start_read(gpu, t);
                probes = Some(Probes {
                    maps: maps.iter().map(|map| read(map.tensor)).collect::<Result<_>>()?,
                    blocks: blocks.iter().map(|block| read(block.tensor)).collect::<Result<_>>()?,
                });
            }
        }
        Ok((outs, probes))
    }

    /// Writes what stays the same from step to step unless the prompt has a schedule: the negative prompt first, as
    /// diffusers orders the batch.
    fn write_texts(&mut self, texts: &[Rc<Conditioning>], negatives: usize) -> Result<()> {
        let known = (self.written.len(), self.negatives) == (texts.len(), negatives);
        if known && texts.iter().zip(&self.written).all(|(a, b)| Rc::ptr_eq(a, b)) {
            return Ok(());
        }
        let Shared { guidance, aesthetic, .. } = *self.shared;
        let beside = BesideTexts { size: self.size, guidance_scale: guidance.scale, aesthetic, negatives };
        let write =
            |executable: &Executable, config: &Config, inputs: &Inputs, texts: &[Rc<Conditioning>]| {
                let gpu = &self.pipeline.residence.gpu;
                write_texts(gpu, executable, config, inputs, texts, beside)
            };
        write(&self.plan.executable, &self.pipeline.unet.config, &self.plan.inputs, texts)?;
        for (net, control) in self.controls.iter().zip(&self.plan.controls) {
            let seen = texts.get(control.first as usize..).unwrap_or_default();
            write(&control.executable, net.unet(), &control.inputs, seen)?;
        }
        self.written = texts.to_vec();
        self.negatives = negatives;
        Ok(())
    }

    /// Writes what IP-Adapters see: for the negative prompt, so many of the texts, which come first, no picture.
    fn write_images(&mut self, texts: usize, negatives: usize) -> Result<()> {
        let blank: Vec<bool> = (0..texts).map(|i| i < negatives).collect();
        if self.images.is_empty() || self.shown == blank {
            return Ok(());
        }
        let UnetPlan { executable, images, .. } = &self.plan;
        for (scope, tensors) in images.iter() {
            for (seen, &tensor) in self.images.iter().zip(tensors) {
                let values: Vec<f32> = blank.iter().flat_map(|&blank| seen.keys(scope, blank)).collect();
                executable.write(&self.pipeline.residence.gpu, tensor, &values)?;
            }
        }
        self.shown = blank;
        Ok(())
    }

    /// Sets the residuals to what the ControlNets add that act at this moment, to latents of one picture, NCHW.
    /// `negative`: the plan has the negative prompt alone, to which guess mode adds nothing.
    fn run_controls(&self, latents: &[f32], moment: &Moment, negative: bool) -> Result<()> {
        if self.controls.is_empty() {
            return Ok(());
        }
        let gpu = &self.pipeline.residence.gpu;
        self.plan.executable.clear(gpu, &self.plan.residuals)?;
        if negative && self.shared.guess {
            return Ok(());
        }
        let [from, to] = moment.share;
        for ((net, seen), control) in self.controls.iter().zip(&self.shared.controls).zip(&self.plan.controls)
        {
            let acts = |asked: &Control| from >= asked.start && to <= asked.end && asked.scale != 0.0;
            if !seen.iter().any(acts) {
                continue;
            }
            let sample = (latents, latents.len());
            write_sample(gpu, &control.executable, net.unet(), &control.inputs, sample, moment.timestep)?;
            control.executable.run(gpu);
        }
        Ok(())
    }

    /// Sets the UNet's features to the sum of those of the T2I-Adapters that act from one share of the steps to another.
    fn add_features(&mut self, [from, to]: [f64; 2]) -> Result<()> {
        let acts = |asked: &Control| from >= asked.start && to <= asked.end && asked.scale != 0.0;
        let acting: Vec<bool> = self.shared.adapters.iter().map(acts).collect();
        if self.adapters.is_empty() || self.added.as_ref() == Some(&acting) {
            return Ok(());
        }
        let gpu = &self.pipeline.residence.gpu;
        self.plan.executable.clear(gpu, &self.plan.inputs.features)?;
        let adapters = self.plan.adapters.iter().zip(&acting).filter(|(_, acts)| **acts);
        adapters.for_each(|(adapter, _)| adapter.executable.run(gpu));
        self.added = Some(acting);
        Ok(())
    }

    /// Tells the ControlNet-LLLites how strongly they act from one share of the steps to another.
    fn set_scales(&mut self, [from, to]: [f64; 2]) -> Result<()> {
        let scale = |asked: &Control| if from >= asked.start && to <= asked.end { asked.scale } else { 0.0 };
        let scales: Vec<f32> = self.shared.lllites.iter().map(scale).collect();
        if let (Some(t), true) = (self.plan.lllites.scales, self.scales != scales) {
            self.plan.executable.write(&self.pipeline.residence.gpu, t, &scales)?;
            self.scales = scales;
        }
        Ok(())
    }

    /// What was predicted for each text, in their order, NCHW.
    async fn finish(&self, outs: Vec<Predicted>) -> Result<Vec<Vec<f32>>> {
        let channels = self.pipeline.unet.config.out_channels as usize;
        let batch = self.plan.size.batch as usize;
        let mut parts = Vec::new();
        for Predicted { reading, shallow } in outs {
            let (executable, _) = self.plan.running(shallow);
            let (out, _) = executable.finish_read(&self.pipeline.residence.gpu, reading).await?;
            parts.extend(out.chunks_exact(out.len() / batch).map(|part| to_nchw(part, channels)));
        }
        Ok(parts)
    }

    /// What was looked at in the run of the prompt.
    async fn show(&mut self, probes: Probes, moment: &Moment, seen: &mut Seen) -> Result<()> {
        let UnetPlan { executable, probe, size, .. } = &self.plan;
        let gpu = &self.pipeline.residence.gpu;
        if self.times.is_none() && !probe.blocks.is_empty() {
            // Once: the same numbers again, with a clock between the blocks.
            let ends: Vec<usize> = probe.blocks.iter().map(|block| block.end).collect();
            self.times = Some(executable.run_parts(gpu, &ends).await?);
        }
        let mut levels = Vec::new();
        for (map, reading) in probe.maps.iter().zip(probes.maps) {
            let (values, _) = executable.finish_read(gpu, reading).await?;
            let Tensor { h: height, w: width, .. } = map.tensor;
            levels.push(Level { height, width, layers: map.layers, values });
        }
        for (block, reading) in probe.blocks.iter().zip(probes.blocks) {
            let (values, _) = executable.finish_read(gpu, reading).await?;
            let time = self.times.as_ref().and_then(|times| times.get(seen.activations.len()).copied());
            seen.activations.push(looking::block(block, &values, time));
        }
        let prompt = moment.texts.get(moment.before);
        if let (true, Some(prompt)) = (self.shared.inside.attention, prompt) {
            let (window, keys) = (self.pipeline.text.tokens(), self.prompts.tokens as usize);
            let size = [size.height, size.width];
            seen.attention = Some(looking::word_maps(&levels, &prompt.words, window, keys, size));
        }
        Ok(())
    }

    /// The UNet's prediction with guidance of these weights, and the one without, of those for each text; of the prompt
    /// alone there is no guidance.
    fn guide(&self, each: &[Vec<f32>], [weight, of_picture]: [f32; 2]) -> (Vec<f32>, Vec<f32>) {
        let (blind, uncond, conds) = match each {
            [] => return Default::default(),
            [one] => return (one.clone(), one.clone()),
            [blind, uncond, conds @ ..] if self.blind() => (Some(blind), uncond, conds),
            [uncond, conds @ ..] => (None, uncond, conds),
        };
        let mut noise_pred = composed_guidance(uncond, conds, &self.prompts.weights(), weight);
        if let Some(blind) = blind {
            for ((out, seeing), blind) in noise_pred.iter_mut().zip(uncond).zip(blind) {
                // What the picture adds is in it once already.
                *out += (of_picture - 1.0) * (seeing - blind);
            }
        }
        let rescale = self.shared.guidance.rescale;
        if rescale > 0.0 {
            rescale_noise_cfg(&mut noise_pred, &conds[0], rescale);
        }
        (noise_pred, blind.unwrap_or(uncond).clone())
    }
}

/// What is predicted at one step.
struct Moment {
    timestep: f32,
    /// Of the steps, before this one and after it.
    share: [f64; 2],
    texts: Vec<Rc<Conditioning>>,
    /// How many of them stand before the prompt: none; the negative one; or that twice, first without the picture that
    /// InstructPix2Pix edits.
    before: usize,
    /// The whole UNet runs.
    whole: bool,
    /// It is looked at.
    probed: bool,
}

/// What is looked at, on its way.
struct Probes {
    maps: Vec<Reading>,
    blocks: Vec<Reading>,
}

/// A prediction on its way.
struct Predicted {
    reading: Reading,
    /// It is the shallow plan's.
    shallow: bool,
}

/// The plan of the last picture where it fits, or a new one; of one text at a time where memory is short.
async fn plan_of(
    pipeline: &DiffusionPipeline,
    size: UnetSize,
    lllites: &[Rc<Lllite>],
    aborted: &dyn Fn() -> bool,
) -> Result<UnetPlan> {
    let residence = &pipeline.residence;
    match residence.take_unet_plan() {
        Some(plan) if plan.size == size => return Ok(plan),
        // Free the old plan's memory before the new one's is asked for.
        other => drop(other),
    }
    residence.make_room_for_unet();
    let mut acting = Vec::with_capacity(lllites.len());
    for lllite in lllites {
        acting.push(lllite.acting(&residence.gpu, aborted).await?);
    }
    let make = async |size| {
        let (config, options) = (&pipeline.unet.config, &pipeline.unet.options);
        UnetPlan::new(&residence.gpu, config, options, &*residence.unet.weights()?, (size, &acting)).await
    };
    let plan = match make(size.clone()).await {
        // What the adapter cannot give is reported when it is asked for.
        Ok(plan) => residence.gpu.idle().await.map(|()| plan),
        Err(e) => Err(e),
    };
    match plan {
        Err(e) if e.code == Code::OutOfMemory && size.batch > 1 => {
            let plan = make(UnetSize { batch: 1, ..size }).await?;
            residence.gpu.idle().await?;
            Ok(plan)
        }
        plan => plan,
    }
}

/// What a plan is told beside texts.
#[derive(Clone, Copy)]
struct BesideTexts {
    /// Width and height in pixels.
    size: [u32; 2],
    guidance_scale: f32,
    /// For prompts, and for the negative ones, of which so many come first.
    aesthetic: [f32; 2],
    negatives: usize,
}

/// Writes what a plan, of a UNet or a ControlNet, is given of texts.
fn write_texts(
    gpu: &Gpu,
    executable: &Executable,
    config: &Config,
    inputs: &Inputs,
    texts: &[Rc<Conditioning>],
    BesideTexts { size: [width, height], guidance_scale, aesthetic, negatives }: BesideTexts,
) -> Result<()> {
    let all = |part: fn(&Conditioning) -> &Vec<f32>| {
        texts.iter().flat_map(|c| part(c)).copied().collect::<Vec<f32>>()
    };
    executable.write(gpu, inputs.encoder_hidden_states, &all(|c| &c.embeds))?;
    if let (Some(added), Some(text_time)) = (inputs.added, config.text_time) {
        executable.write(gpu, added.text_embeds, &all(|c| &c.pooled))?;
        // Original size, top left of the crop, target size: the picture as it is. Or a score in place of the last.
        let (h, w) = (height as f32, width as f32);
        let dim = text_time.addition_time_embed_dim as usize;
        let embedded =
            |v| get_timestep_embedding(v, dim, config.flip_sin_to_cos, config.freq_shift, 1.0, 10000.0);
        let ids = |text: usize| match text_time.time_ids {
            5 => vec![h, w, 0.0, 0.0, aesthetic[usize::from(text < negatives)]],
            _ => vec![h, w, 0.0, 0.0, h, w],
        };
        let each: Vec<f32> = (0..texts.len()).flat_map(ids).flat_map(embedded).collect();
        executable.write(gpu, added.time_ids, &each)?;
    }
    if let (Some(t), Some(dim)) = (inputs.timestep_cond, config.time_cond_proj_dim) {
        let cond = get_guidance_scale_embedding(guidance_scale - 1.0, dim as usize);
        executable.write(gpu, t, &cond.repeat(texts.len()))?;
    }
    Ok(())
}

/// How many texts stand before the prompt's, where guidance acts: see [`Moment`].
fn before(prompts: &Prompts, shared: &Shared) -> u32 {
    if prompts.guided() { 1 + u32::from(shared.guidance.needs_blind()) } else { 0 }
}

/// Writes latents of one picture and what is beside them, NCHW, and the time step into every place of a plan's batch; into
/// the first place so many numbers of them, and zeros.
fn write_sample(
    gpu: &Gpu,
    executable: &Executable,
    config: &Config,
    inputs: &Inputs,
    (sample, of_first): (&[f32], usize),
    timestep: f32,
) -> Result<()> {
    let repeat = inputs.sample.n as usize;
    let channels = config.in_channels as usize;
    let mut all = to_nhwc(sample, channels).repeat(repeat);
    if of_first < sample.len() {
        let known = of_first * channels / sample.len();
        all[..sample.len()].chunks_exact_mut(channels).for_each(|pixel| pixel[known..].fill(0.0));
    }
    executable.write(gpu, inputs.sample, &all)?;
    let dim = config.time_proj_dim as usize;
    let t_emb =
        get_timestep_embedding(timestep, dim, config.flip_sin_to_cos, config.freq_shift, 1.0, 10000.0);
    executable.write(gpu, inputs.t_emb, &t_emb.repeat(repeat))
}
