//! How each network of a pipeline is recorded: over a small input for the names of its weights, before a byte of them is
//! read, and over the size that is drawn.

use super::acting::{ActingLllite, LlliteInputs};
use super::inside::Inside;
use super::request::Control;
use crate::error::{Error, Result};
use crate::gpu::{
    Dtype, Executable, Gpu, ImageKeys, Joined, Options, Plan, Probe, Reading, Recorder, Tensor, Weights,
};
use crate::models::controlnet::Seen;
use crate::models::unet::{self, unet_inputs};
use crate::models::{bert, clip, controlnet, lllite, t2i_adapter, taesd, text_encoder, vae};
use crate::ops::sound;
use serde_json::Value;
use std::rc::Rc;

/// A side of latents that every level of a UNet or VAE can halve, and no larger than need be.
const SMALL: u32 = 16;

/// Records what `build` builds.
///
/// # Errors
/// Those of `build`.
pub(super) fn record(options: &Options, build: impl FnOnce(&mut Recorder) -> Result<()>) -> Result<Plan> {
    let mut r = Recorder::new(options);
    build(&mut r)?;
    Ok(r.finish())
}

// ---- the UNet, and ControlNets beside it -------------------------------------------------------------------------

/// A UNet's plan that names its weights.
pub(super) fn unet_weights(config: &unet::Config, options: &Options) -> Result<Plan> {
    record(options, |r| {
        let inputs = unet_inputs(config, r, 1, SMALL, SMALL, 1);
        unet::forward(config, r, &inputs, &[]).map(|_| ())
    })
}

/// A ControlNet's plan that names its weights.
pub(super) fn controlnet_weights(config: &controlnet::Config, options: &Options) -> Result<Plan> {
    record(options, |r| {
        let side = SMALL * config.scale();
        let image = r.input(1, side, side, config.conditioning_channels);
        let cond = controlnet::cond_embedding(config, r, image)?;
        if let Some(union) = &config.union {
            let (kind, factor) = (r.input_u32(1, 1), r.input_of(Dtype::F32, 1, 1, 1, 1));
            controlnet::condition(union, r, cond, kind, (1.0, factor))?;
        }
        let inputs = unet_inputs(&config.unet, r, 1, SMALL, SMALL, 1);
        let seen = Seen::inputs(config, r, &inputs, 1);
        controlnet::forward(config, r, &inputs, &seen).map(|_| ())
    })
}

/// A T2I-Adapter's plan that names its weights.
pub(super) fn adapter_weights(config: &t2i_adapter::Config, options: &Options) -> Result<Plan> {
    record(options, |r| {
        let side = SMALL * config.downscale_factor;
        let image = t2i_adapter::input(config, r, [side, side]);
        t2i_adapter::forward(config, r, image).map(|_| ())
    })
}

/// A plan of the UNet in which a ControlNet-LLLite acts, which names the weights that it asks.
pub(super) fn unet_with_lllite(
    config: &unet::Config,
    options: &Options,
    lllite: &lllite::Config,
) -> Result<Plan> {
    record(options, |r| {
        let inputs = unet_inputs(config, r, 1, SMALL, SMALL, 1);
        LlliteInputs::new(r, 1, [SMALL, SMALL], &[lllite]);
        unet::forward(config, r, &inputs, &[]).map(|_| ())
    })
}

/// What a plan of the UNet is recorded for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnetSize {
    /// Texts at once.
    pub batch: u32,
    /// Of latents.
    pub height: u32,
    pub width: u32,
    /// Of each text.
    pub tokens: u32,
    /// It adds what ControlNets say.
    pub controlled: bool,
    /// It adds what T2I-Adapters made.
    pub adapted: bool,
    /// Keys of the ControlNet-LLLites that act in it.
    pub lllites: Vec<String>,
    /// Tokens of pictures, of each IP-Adapter.
    pub images: Vec<u32>,
    /// The branch of DeepCache: how many skips but one are computed at every step.
    pub branch: Option<u32>,
    /// What is looked at.
    pub inside: Inside,
    /// How many texts stand before the prompt's.
    pub before: u32,
}

/// A plan of the UNet, kept from picture to picture.
pub(super) struct UnetPlan {
    pub size: UnetSize,
    pub executable: Executable,
    pub inputs: unet::Inputs,
    /// What ControlNets add; empty in a plan without any.
    pub residuals: Vec<Tensor>,
    pub controls: Vec<ControlPlan>,
    /// Of T2I-Adapters.
    pub adapters: Vec<AdapterPlan>,
    pub lllites: LlliteInputs,
    /// What each of them sees; the scale and the steps do not count.
    pub shown: Vec<Option<Control>>,
    pub images: Rc<ImageKeys>,
    pub out: Tensor,
    pub shallow: Option<ShallowPlan>,
    /// What is looked at, and where it lies.
    pub probe: Probe,
}

/// The part of a UNet that DeepCache runs at every step, over a plan of all of it, with which it shares the inputs.
pub(super) struct ShallowPlan {
    pub executable: Executable,
    /// What comes from below, an output of the plan of all.
    pub deep: Tensor,
    pub out: Tensor,
}

impl UnetPlan {
    /// # Errors
    /// `out-of-memory`; `unsupported-model` for a size that the network cannot have.
    pub async fn new(
        gpu: &Gpu,
        config: &unet::Config,
        options: &Options,
        weights: &Weights,
        (size, lllites): (UnetSize, &[ActingLllite]),
    ) -> Result<Self> {
        let acting: Vec<&lllite::Config> = lllites.iter().map(|lllite| lllite.config.as_ref()).collect();
        let record = |options: &Options| {
            let mut r = Recorder::new(options).with_adapted(weights.adapted());
            let given = size.inputs(config, &acting, &mut r);
            let UnetTensors { inputs, residuals, .. } = &given;
            let images = r.images.clone();
            r.probe = size.inside.probe(size.batch, size.before);
            let (out, deep) = match size.branch {
                None => (unet::forward(config, &mut r, inputs, residuals)?, None),
                Some(branch) => {
                    let (out, deep) = unet::forward_with_deep(config, &mut r, inputs, residuals, branch)?;
                    r.output(deep);
                    (out, Some((branch, deep)))
                }
            };
            r.output(out);
            let probe = r.probe.take().unwrap_or_default();
            Ok((r.finish(), (given, images, out, deep, probe)))
        };
        let (recorded, (given, images, out, deep, probe)) = sound(gpu, options, record).await?;
        let others: Vec<Rc<Weights>> = lllites.iter().map(|lllite| lllite.weights.clone()).collect();
        let weights = Joined { own: weights, others: &others };
        let executable = recorded.instantiate(gpu, &weights)?;
        let UnetTensors { inputs, residuals, lllites } = given;
        let mut plan = UnetPlan {
            shown: vec![None; others.len()],
            size,
            executable,
            inputs,
            residuals,
            controls: Vec::new(),
            adapters: Vec::new(),
            lllites,
            images,
            out,
            shallow: None,
            probe,
        };
        if let Some(deep) = deep {
            plan.shallow = Some(plan.shallow(gpu, (config, &acting), options, &weights, deep).await?);
        }
        Ok(plan)
    }

    /// What runs, and its prediction: the shallow plan or, where that is not asked for or not there, all of it.
    pub fn running(&self, shallow: bool) -> (&Executable, Tensor) {
        match &self.shallow {
            Some(plan) if shallow => (&plan.executable, plan.out),
            _ => (&self.executable, self.out),
        }
    }

    async fn shallow(
        &self,
        gpu: &Gpu,
        (config, acting): (&unet::Config, &[&lllite::Config]),
        options: &Options,
        weights: &Joined<'_>,
        (branch, deep): (u32, Tensor),
    ) -> Result<ShallowPlan> {
        let record = |options: &Options| {
            let mut r = Recorder::new(options).with_adapted(weights.own.adapted());
            let given = self.size.inputs(config, acting, &mut r);
            let below = r.input_of(deep.dtype, deep.n, deep.h, deep.w, deep.c);
            let out = unet::shallow(config, &mut r, &given.inputs, &given.residuals, branch, below)?;
            r.output(out);
            let images = r.images.clone();
            Ok((r.finish(), (given, images, below, out)))
        };
        let (recorded, (given, images, below, out)) = sound(gpu, options, record).await?;
        let pairs = given.inputs.tensors().into_iter().zip(self.inputs.tensors());
        let pairs = pairs.chain(given.residuals.into_iter().zip(self.residuals.iter().copied()));
        let pairs = pairs.chain(given.lllites.tensors().zip(self.lllites.tensors()));
        let flat = |images: &ImageKeys| images.values().flatten().copied().collect::<Vec<_>>();
        let pairs = pairs.chain(flat(&images).into_iter().zip(flat(&self.images)));
        let shared: Vec<_> =
            pairs.chain([(below, deep)]).map(|(t, theirs)| (t, &self.executable, theirs)).collect();
        let executable = recorded.instantiate_over(gpu, weights, &shared)?;
        Ok(ShallowPlan { executable, deep, out })
    }
}

/// What a plan of the UNet is given.
struct UnetTensors {
    inputs: unet::Inputs,
    /// What ControlNets add; empty without any.
    residuals: Vec<Tensor>,
    lllites: LlliteInputs,
}

impl UnetSize {
    /// Inputs of the UNet, what T2I-Adapters made among them, what ControlNets add, and those of ControlNet-LLLites that act
    /// in it. Those of IP-Adapters are the recorder's.
    fn inputs(&self, config: &unet::Config, acting: &[&lllite::Config], r: &mut Recorder) -> UnetTensors {
        let UnetSize { batch, height, width, tokens, controlled, adapted, .. } = *self;
        let mut inputs = unet_inputs(config, r, batch, height, width, tokens);
        if adapted {
            inputs.features = unet::features(config, r, batch, [height, width]);
        }
        let residuals = match controlled {
            true => controlnet::residuals(config, r, batch, [height, width]),
            false => Vec::new(),
        };
        let looking = if self.images.is_empty() { Vec::new() } else { config.cross_attentions() };
        let mut keys = |c: u32| self.images.iter().map(|&n| r.input(batch, 1, n, 2 * c)).collect::<Vec<_>>();
        let images: ImageKeys = looking.into_iter().map(|(scope, c)| (scope, keys(c))).collect();
        r.images = Rc::new(images);
        let lllites = LlliteInputs::new(r, batch, [height, width], acting);
        UnetTensors { inputs, residuals, lllites }
    }
}

/// A ControlNet's plan, bound to the UNet's residuals.
pub(super) struct ControlPlan {
    /// The ControlNet's.
    pub key: String,
    /// The first of the UNet's texts that it adds to: in guess mode the negative prompt is left alone.
    pub first: u32,
    pub executable: Executable,
    pub inputs: unet::Inputs,
    pub seen: Seen,
    pub scales: Tensor,
    /// What each of `seen` was computed from; the scale is 1 where it does not count.
    pub shown: Vec<Option<Control>>,
}

/// A T2I-Adapter's plan, bound to the UNet's features.
pub(super) struct AdapterPlan {
    /// The T2I-Adapter's.
    pub key: String,
    /// Adds its features.
    pub executable: Executable,
    pub features: Vec<Tensor>,
    pub scale: Tensor,
    /// What the features were computed from; its scale is 1.
    pub shown: Option<Control>,
}

// ---- the VAE -----------------------------------------------------------------------------------------------------

/// Either image decoder.
pub(super) enum Vae {
    Kl(vae::Config),
    Tiny(taesd::Config),
}

impl Vae {
    /// Classes that `model_index.json` may name.
    pub const CLASSES: &[&str] = &["AutoencoderKL", "AutoencoderTiny"];

    /// Reads `vae/config.json` of one of [`Vae::CLASSES`].
    ///
    /// # Errors
    /// `unsupported-model` naming the field that is not computed here.
    pub fn from_config(class: &str, config: &Value) -> Result<Self> {
        match class {
            "AutoencoderTiny" => taesd::Config::from_config(config).map(Vae::Tiny),
            _ => vae::Config::from_config(config).map(Vae::Kl),
        }
    }

    /// Pixels to a latent, each way.
    pub fn scale(&self) -> u32 {
        match self {
            Vae::Kl(config) => config.scale(),
            Vae::Tiny(config) => 1 << config.num_decoder_blocks.len().saturating_sub(1),
        }
    }

    pub fn latent_channels(&self) -> u32 {
        match self {
            Vae::Kl(config) => config.latent_channels,
            Vae::Tiny(config) => config.latent_channels,
        }
    }

    pub fn out_channels(&self) -> u32 {
        match self {
            Vae::Kl(config) => config.out_channels,
            Vae::Tiny(config) => config.out_channels,
        }
    }

    pub fn scaling_factor(&self) -> f32 {
        match self {
            Vae::Kl(config) => config.scaling_factor,
            Vae::Tiny(config) => config.scaling_factor,
        }
    }

    /// The UNet's latents, NCHW of one picture, to the decoder's.
    pub fn unscaled(&self, latents: &[f32]) -> Vec<f32> {
        let factor = self.scaling_factor();
        let mut latents: Vec<f32> = latents.iter().map(|v| v / factor).collect();
        if let Vae::Kl(vae::Config { latents: Some(channels), .. }) = self {
            let plane = (latents.len() / channels.len()).max(1);
            for (plane, [mean, deviation]) in latents.chunks_exact_mut(plane).zip(channels) {
                plane.iter_mut().for_each(|v| *v = *v * deviation + mean);
            }
        }
        latents
    }

    /// Decodes latents that are divided by the scaling factor.
    fn decode(&self, r: &mut Recorder, latents: Tensor) -> Result<Tensor> {
        match self {
            Vae::Kl(config) => vae::decode(config, r, latents),
            Vae::Tiny(config) => taesd::decode(config, r, latents),
        }
    }
}

/// A decoder's plan that names its weights.
pub(super) fn decoder_weights(vae: &Vae, options: &Options) -> Result<Plan> {
    record_decoder(vae, options, SMALL, SMALL).map(|(plan, ..)| plan)
}

/// An image encoder's plan that names its weights.
pub(super) fn encoder_weights(config: &vae::Config, options: &Options) -> Result<Plan> {
    let side = SMALL * config.scale();
    record_encoder(config, options, side, side).map(|(plan, ..)| plan)
}

/// A plan, its input and its output.
pub(super) type Recorded = (Plan, (Tensor, Tensor));

/// The decoder's plan over latents of this height and width, its input and its output, NHWC.
pub(super) fn record_decoder(vae: &Vae, options: &Options, height: u32, width: u32) -> Result<Recorded> {
    let mut r = Recorder::new(options);
    let latents = r.input(1, height, width, vae.latent_channels());
    let out = vae.decode(&mut r, latents)?;
    r.output(out);
    Ok((r.finish(), (latents, out)))
}

/// The image encoder's plan over pixels of this height and width, its input and its output, NHWC.
pub(super) fn record_encoder(
    config: &vae::Config,
    options: &Options,
    height: u32,
    width: u32,
) -> Result<Recorded> {
    let mut r = Recorder::new(options);
    let image = r.input(1, height, width, config.in_channels);
    let out = vae::encode(config, &mut r, image)?;
    r.output(out);
    Ok((r.finish(), (image, out)))
}

/// A plan of an image decoder for one size.
pub(super) struct DecodePlan {
    /// Of latents.
    pub height: u32,
    pub width: u32,
    /// Recorded in f32 activations.
    pub wide: bool,
    pub executable: Executable,
    latents: Tensor,
    out: Tensor,
}

impl DecodePlan {
    /// What [`record_decoder`] gave, on the GPU.
    ///
    /// # Errors
    /// `out-of-memory`.
    pub fn new(gpu: &Gpu, weights: &Weights, (plan, (latents, out)): Recorded, wide: bool) -> Result<Self> {
        let executable = plan.instantiate(gpu, weights)?;
        Ok(DecodePlan { height: latents.h, width: latents.w, wide, executable, latents, out })
    }

    /// Pixels in -1..1 of latents, both NHWC; `None` if one is not finite or an activation reached the end of f16.
    pub async fn run(&self, gpu: &Gpu, latents: &[f32]) -> Result<Option<Vec<f32>>> {
        self.executable.finish_sound(gpu, self.start(gpu, latents)?).await
    }

    /// Submits a run and the copy of its pixels.
    pub fn start(&self, gpu: &Gpu, latents: &[f32]) -> Result<Reading> {
        self.executable.write(gpu, self.latents, latents)?;
        self.executable.run(gpu);
        self.executable.start_read(gpu, self.out)
    }
}

// ---- the text encoder --------------------------------------------------------------------------------------------

/// How a text encoder is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct TextRecipe {
    /// Gives the pooled embedding as well.
    pub pooled: bool,
    /// Conditions on `hidden_states[-2]` without the last norm, as SDXL does.
    pub penultimate: bool,
    /// Layers left out at the end, as diffusers' `clip_skip`.
    pub clip_skip: u32,
    /// Takes vectors of textual inversion.
    pub vectors: bool,
}

impl TextRecipe {
    /// Of the `i`-th of so many text encoders of a model, as [`TextRecipe::default`] otherwise.
    pub fn of(sdxl: bool, i: usize, count: usize) -> Self {
        Self { pooled: sdxl && i + 1 == count, penultimate: sdxl, ..Default::default() }
    }

    /// The layers that conditioning passes, of all that there are; `None` where more are left out.
    pub fn layers(&self, config: &text_encoder::Config) -> Option<u32> {
        config.num_hidden_layers().checked_sub(self.clip_skip + u32::from(self.penultimate))
    }
}

/// Inputs and outputs of a recorded text encoder.
pub(super) struct TextTensors {
    pub ids: Tensor,
    /// BERT's `token_type_ids`: all of them 0.
    pub segments: Option<Tensor>,
    /// Vectors of textual inversion, added to the tokens' own.
    pub vectors: Option<Tensor>,
    pub eos: Option<Tensor>,
    pub embeds: Tensor,
    pub pooled: Option<Tensor>,
}

/// A text encoder's plan that names its weights.
pub(super) fn text_weights(
    config: &text_encoder::Config,
    recipe: TextRecipe,
    options: &Options,
) -> Result<Plan> {
    record(options, |r| record_text(config, recipe, r, 1, 1).map(|_| ()))
}

/// Records a text encoder over [batch, tokens].
///
/// # Errors
/// `unsupported-model` for an encoder with fewer layers than are left out.
pub(super) fn record_text(
    config: &text_encoder::Config,
    recipe: TextRecipe,
    r: &mut Recorder,
    batch: u32,
    tokens: u32,
) -> Result<TextTensors> {
    let layers = config.num_hidden_layers();
    let missing = || Error::unsupported(format!("num_hidden_layers = {layers} of the text encoder"));
    let wanted = recipe.layers(config).ok_or_else(missing)?;
    let ids = r.input_u32(batch, tokens);
    let vectors = recipe.vectors.then(|| r.input(batch, 1, tokens, config.hidden_size()));
    match config {
        text_encoder::Config::Clip(config) => record_clip(config, recipe, r, (ids, vectors), wanted),
        // Each layer ends with a norm of its own.
        text_encoder::Config::Bert(config) => {
            let segments = r.input_u32(batch, tokens);
            let inputs = bert::Inputs { input_ids: ids, token_type_ids: segments, vectors };
            let embeds = bert::hidden_state(config, r, &inputs, wanted)?;
            r.output(embeds);
            Ok(TextTensors { ids, segments: Some(segments), vectors, eos: None, embeds, pooled: None })
        }
    }
}

/// SD conditions on the last hidden state after its norm, SDXL on `hidden_states[-2]`, and its second encoder gives the
/// pooled embedding as well. `clip_skip` as in diffusers: `hidden_states[-(clip_skip + 1)]` and norm, for SDXL
/// `hidden_states[-(clip_skip + 2)]`.
fn record_clip(
    config: &clip::Config,
    recipe: TextRecipe,
    r: &mut Recorder,
    (ids, vectors): (Tensor, Option<Tensor>),
    wanted: u32,
) -> Result<TextTensors> {
    let layers = if recipe.pooled { config.num_hidden_layers } else { wanted };
    let states = clip::hidden_states(config, r, ids, vectors, layers)?;
    let mut embeds = states[wanted as usize];
    if !recipe.penultimate {
        embeds = clip::final_layer_norm(config, r, embeds)?;
    }
    r.output(embeds);
    let (mut eos, mut pooled) = (None, None);
    if recipe.pooled {
        let index = r.input_u32(ids.n, 1);
        let last = clip::final_layer_norm(config, r, states[layers as usize])?;
        let row = clip::pooler_output(r, last, index)?;
        let out = clip::text_embeds(config, r, row)?;
        r.output(out);
        (eos, pooled) = (Some(index), Some(out));
    }
    Ok(TextTensors { ids, segments: None, vectors, eos, embeds, pooled })
}

// ---- ahead of the first picture ----------------------------------------------------------------------------------

/// Begins to compile what the first picture most likely needs, and gives the plans: the model's own size, guidance, a
/// prompt of one window of so many tokens. Other sizes compile the few kernels that they lack when they are drawn.
///
/// # Errors
/// `device-lost`.
pub(super) fn compile_first(
    gpu: &Gpu,
    unet: (&unet::Config, Options),
    vae: (&Vae, Options),
    text: &[(&text_encoder::Config, TextRecipe, Options)],
    tokens: u32,
) -> Result<Vec<Plan>> {
    let [h, w] = unet.0.sample_size.unwrap_or([64, 64]);
    // What is needed first begins first.
    let mut plans: Vec<_> = text
        .iter()
        .map(|(config, recipe, options)| {
            record(options, |r| record_text(config, *recipe, r, 2, tokens).map(|_| ()))
        })
        .collect();
    plans.push(record(&unet.1, |r| {
        let inputs = unet_inputs(unet.0, r, 2, h, w, tokens);
        unet::forward(unet.0, r, &inputs, &[]).map(|out| r.output(out))
    }));
    plans.push(record_decoder(vae.0, &vae.1, h, w).map(|(plan, ..)| plan));
    // A size of its own that the model cannot have is refused when it is asked for.
    let plans: Vec<Plan> = plans.into_iter().flatten().collect();
    plans.iter().try_for_each(|plan| plan.compile_ahead(gpu))?;
    Ok(plans)
}
