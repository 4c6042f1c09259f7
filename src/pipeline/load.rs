//! A model's folder to a pipeline, in four steps: read the configurations, refuse what cannot work, plan (every network
//! is recorded, and fits the adapter), stream the weights.

use super::autotune::{self, Origin};
use super::controlnet::ControlNets;
use super::decode::Decoder;
use super::diffusion::DiffusionPipeline;
use super::encode::Encoder;
use super::ip_adapter::IpAdapters;
use super::lllite::Lllites;
use super::lora::Loras;
use super::model::{Kind, Model};
use super::part::{Module, Part, WeightSource};
use super::plans::{
    TextRecipe, Vae, compile_first, decoder_weights, encoder_weights, text_weights, unet_weights,
};
use super::preview::Previews;
use super::residence::{Memory, Residence};
use super::t2i_adapter::T2iAdapters;
use super::text::{TextEncoder, TextEncoders};
use super::weights::{FilesSource, Place};
use crate::checkpoint::configs::{CONTROL_LLLITE, CONTROL_LORA};
use crate::checkpoint::{Bits, names};
use crate::error::{Error, Result, check_aborted};
use crate::gpu::choices::{Choices, OFF_F16_ATTENTION, shipped};
use crate::gpu::{Dtype, Options, Plan, WeightSpec};
use crate::models::{t2i_adapter, text_encoder, unet};
use crate::ops::{self, Precision};
use crate::prompt::{Tokenizer, TokenizerFiles};
use crate::samplers::{Prediction, SchedulerConfig, Tuning, own_name, scheduler};
use crate::store::ModelFiles;
use futures_util::future::join;
use serde_json::{Value, json};
use std::cell::Cell;
use std::rc::Rc;

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// diffusers' weight variant, such as "fp16".
    pub variant: Option<String>,
    pub precision: Precision,
    /// How the UNet's matrices are kept on the GPU; `None`: f16. Text encoders take eight bits at least, since guidance
    /// multiplies what they lose, and the VAE, small and seen at once, stays f16.
    pub weights: Option<Bits>,
    pub memory: Memory,
    /// What the UNet predicts, and whether its noise levels end at no signal, where the files do not say so.
    pub prediction: Option<Prediction>,
    pub zero_snr: Option<bool>,
    /// Choices of earlier visits (key and text, see [`DiffusionPipeline::tuning`]); where none is of this GPU, tiles are
    /// timed while the weights arrive. `None`: as shipped.
    pub tunings: Option<Vec<(String, String)>>,
}

impl DiffusionPipeline {
    /// Reads every configuration, refuses what cannot work, then streams the weights. `vae`: the VAE of these files
    /// instead of the model's own.
    ///
    /// # Errors
    /// `webgpu-unavailable`; `unsupported-model` naming class or field; `bad-checkpoint` for files that break
    /// their format or lack tensors; `out-of-memory` where the adapter is too small; `aborted`; and whatever
    /// `files` fails with.
    pub async fn load<F: ModelFiles + 'static>(
        files: Rc<F>,
        vae: Option<Rc<F>>,
        options: &LoadOptions,
        aborted: &dyn Fn() -> bool,
    ) -> Result<Self> {
        let vae = match vae {
            Some(files) => Some(Place::find(files, "vae").await?),
            None => None,
        };
        let mut configs = read(files.as_ref(), vae.as_ref()).await?;
        if configs.scheduler.is_edm() && options.zero_snr == Some(true) {
            return Err(Error::invalid(
                "rescaleBetasZeroSnr is of noise levels that a training's betas make, and this model's are EDM's: \
                 leave it out.",
            ));
        }
        configs.scheduler.correct(options.prediction, options.zero_snr);
        refuse(&configs)?;
        check_aborted(aborted)?;
        let source = Box::new(FilesSource { files, other: vae, variant: options.variant.clone() });
        let mut pipeline = plan(configs, options, source).await?;
        let timed = options.tunings.is_some();
        let (choices, origin) = stream(&pipeline, timed, aborted).await?;
        pipeline.choose(choices, origin);
        let residence = &pipeline.residence;
        let parts = residence.text.iter().chain([&residence.decoder, &residence.unet]);
        pipeline.model.f32_tensors = parts.flat_map(|part| part.wide()).collect();
        pipeline.model.f32_tensors.sort();
        Ok(pipeline)
    }
}

// ---- read --------------------------------------------------------------------------------------------------------

/// Pipeline classes whose parts and way of sampling are those of text-to-image, and whether they are SDXL's.
const CLASSES: &[(&str, bool)] = &[
    ("StableDiffusionPipeline", false),
    ("StableDiffusionImg2ImgPipeline", false),
    ("StableDiffusionInpaintPipeline", false),
    ("LatentConsistencyModelPipeline", false),
    ("StableDiffusionInstructPix2PixPipeline", false),
    ("StableDiffusionXLPipeline", true),
    ("StableDiffusionXLImg2ImgPipeline", true),
    ("StableDiffusionXLInpaintPipeline", true),
    ("StableDiffusionXLInstructPix2PixPipeline", true),
];

/// The configurations of a model.
struct Configs {
    name: String,
    /// `model_index.json`
    index: Value,
    class: &'static str,
    sdxl: bool,
    /// SDXL's refiner: one text encoder, and a score in place of a size.
    refines: bool,
    unet: unet::Config,
    vae: Vae,
    /// `vae/config.json` of the model itself, whose latents previews see; null where it has none.
    own_vae: Value,
    text: Vec<TextConfig>,
    scheduler: SchedulerConfig,
}

struct TextConfig {
    /// Its folder.
    name: &'static str,
    config: text_encoder::Config,
    tokenizer: Tokenizer,
}

/// Reads every configuration; classes and fields that are not computed here are refused by name.
async fn read<F: ModelFiles>(files: &F, other_vae: Option<&Place<F>>) -> Result<Configs> {
    let other_vae = match other_vae {
        Some(place) => Some(place.config().await?),
        None => None,
    };
    let index: Value = files.json("model_index.json").await?;
    let class = index.get("_class_name").and_then(Value::as_str).unwrap_or("");
    let Some(&(class, sdxl)) = CLASSES.iter().find(|(name, _)| *name == class) else {
        return Err(Error::unsupported(format!(
            "{} is a {class:?}. This engine runs the Stable Diffusion 1.x, 2.x and SDXL pipelines.",
            files.name()
        )));
    };
    component(files.name(), &index, "unet", &["UNet2DConditionModel"])?;
    let named = other_vae.as_ref().map(|config| json!({ "vae": [null, config.get("_class_name")] }));
    let vae_class = component(files.name(), named.as_ref().unwrap_or(&index), "vae", Vae::CLASSES)?;
    let mut unet = unet::Config::from_config(&files.json("unet/config.json").await?)?;
    let (vae, own_vae) = read_vae(files, other_vae, sdxl).await?;
    let refines = sdxl && index.get("requires_aesthetics_score").and_then(Value::as_bool) == Some(true);
    let mut encoders = Vec::new();
    if !refines {
        let classes = ["CLIPTextModel", "CLIPTextModelWithProjection", "BertModel"];
        let classes = if sdxl { &classes[..2] } else { &classes };
        component(files.name(), &index, "text_encoder", classes)?;
        encoders.push("text_encoder");
    }
    if sdxl {
        component(files.name(), &index, "text_encoder_2", &["CLIPTextModelWithProjection"])?;
        encoders.push("text_encoder_2");
    }
    if let Some(text_time) = unet.text_time.as_mut().filter(|_| refines) {
        text_time.time_ids = 5;
    }
    let mut text = Vec::new();
    for name in encoders {
        let config = text_encoder::Config::from_config(&files.json(&format!("{name}/config.json")).await?)?;
        let tokenizer = tokenizer(files, &name.replace("text_encoder", "tokenizer")).await?;
        text.push(TextConfig { name, config, tokenizer });
    }
    let scheduler = files.required("scheduler/scheduler_config.json").await?;
    Ok(Configs {
        vae: Vae::from_config(vae_class, &vae)?,
        scheduler: SchedulerConfig::from_json(&String::from_utf8_lossy(&scheduler))?,
        name: files.name().to_owned(),
        class,
        sdxl,
        refines,
        unet,
        own_vae,
        text,
        index,
    })
}

/// The configuration of the VAE, `other` where it is given, and of the model's own.
async fn read_vae<F: ModelFiles>(files: &F, other: Option<Value>, sdxl: bool) -> Result<(Value, Value)> {
    let Some(mut config) = other else {
        let own: Value = files.json("vae/config.json").await?;
        return Ok((own.clone(), own));
    };
    // A file that holds a VAE alone does not say its model's.
    if let Some(scale @ Value::Null) = config.get_mut("scaling_factor") {
        *scale = (if sdxl { 0.13025 } else { 0.18215 }).into();
    }
    // A model may lack one where another is given.
    let own = files.bytes("vae/config.json").await?;
    let own: Value = own.and_then(|own| serde_json::from_slice(&own).ok()).unwrap_or_default();
    // Its UNet's latents stay as they were trained, whatever decodes them.
    if own.get("latents_mean").is_some_and(Value::is_array)
        && !config.get("latents_mean").is_some_and(Value::is_array)
        && let Value::Object(fields) = &mut config
    {
        if fields.get("_class_name").and_then(Value::as_str) != Some("AutoencoderKL") {
            return Err(Error::unsupported(
                "this model's latents have a mean of their own (latents_mean), which small decoders do not know; \
                 leave the option vae out, or give an AutoencoderKL of SDXL",
            ));
        }
        for key in ["latents_mean", "latents_std", "scaling_factor"] {
            fields.extend(own.get(key).map(|value| (key.to_owned(), value.clone())));
        }
    }
    Ok((config, own))
}

/// The class of a part in `model_index.json`, which must be one of `classes`. `model`: what it is called.
fn component<'a>(model: &str, index: &'a Value, name: &str, classes: &[&str]) -> Result<&'a str> {
    match index.get(name).and_then(|c| c.get(1)).and_then(Value::as_str) {
        Some(class) if classes.contains(&class) => Ok(class),
        Some(class) => {
            Err(Error::unsupported(format!("{name} is a {class}; supported: {}", classes.join(", "))))
        }
        None => Err(lacking(model, index, name)),
    }
}

/// Why a model without a component cannot be drawn with, and what to do.
fn lacking(model: &str, index: &Value, name: &str) -> Error {
    let has = |part: &str| index.get(part).is_some_and(Value::is_array);
    let control = match index.pointer("/controlnet/1").and_then(Value::as_str) {
        Some(t2i_adapter::Config::CLASS) => "T2I-Adapter",
        Some(CONTROL_LORA) => "Control-LoRA",
        Some(CONTROL_LLLITE) => "ControlNet-LLLite",
        _ => "ControlNet",
    };
    let whole = "a whole checkpoint of Stable Diffusion 1.x, 2.x or SDXL";
    match name {
        "vae" => {
            let vae = match has("text_encoder_2") {
                true => "madebyollin/sdxl-vae-fp16-fix",
                false => "stabilityai/sd-vae-ft-mse",
            };
            Error::bad_checkpoint(format!("{model} has no VAE. Give one as the option vae, such as {vae}"))
        }
        "unet" if has("controlnet") => Error::unsupported(format!(
            "{model} is a {control}, not a whole model. Choose {whole}, and give this one as `controlnets`"
        )),
        "unet" if has("vae") && !has("text_encoder") => Error::unsupported(format!(
            "{model} is a VAE, not a whole model. Choose {whole}, and give this one as the option vae"
        )),
        _ => {
            Error::bad_checkpoint(format!("{model} has no {name}: the model is not complete. Choose {whole}"))
        }
    }
}

async fn tokenizer<F: ModelFiles>(files: &F, folder: &str) -> Result<Tokenizer> {
    let file = async |name: &str| files.bytes(&format!("{folder}/{name}")).await;
    let vocab = file("vocab.json").await?;
    let merges = file("merges.txt").await?;
    // Larger than both, and wanted only where one of them is missing.
    let cut = vocab.is_some() && merges.is_some();
    let vocab_text = if cut { None } else { file("vocab.txt").await? };
    let tokenizer_json = if cut || vocab_text.is_some() { None } else { file("tokenizer.json").await? };
    let tokenizer_config = file("tokenizer_config.json").await?;
    let special_tokens_map = file("special_tokens_map.json").await?;
    Tokenizer::from_files(TokenizerFiles {
        vocab: vocab.as_deref(),
        merges: merges.as_deref(),
        vocab_text: vocab_text.as_deref(),
        tokenizer_json: tokenizer_json.as_deref(),
        tokenizer_config: tokenizer_config.as_deref(),
        special_tokens_map: special_tokens_map.as_deref(),
    })
}

// ---- refuse ------------------------------------------------------------------------------------------------------

/// # Errors
/// `unsupported-model` for configurations that are not of one model, and for a sampler that is not computed here.
fn refuse(configs: &Configs) -> Result<()> {
    let Configs { unet, text, sdxl, .. } = configs;
    check_scheduler(&configs.scheduler)?;
    let width: u32 = text.iter().map(|t| t.config.hidden_size()).sum();
    if width != unet.cross_attention_dim {
        return Err(Error::unsupported(format!(
            "cross_attention_dim = {} of the UNet, where the text encoders give {width}",
            unet.cross_attention_dim
        )));
    }
    if let (Some(text_time), Some(text)) = (&unet.text_time, text.last()) {
        let ids = text_time.time_ids * text_time.addition_time_embed_dim;
        let pooled = text.config.projection_dim().unwrap_or(0);
        if ids + pooled != text_time.projection_class_embeddings_input_dim {
            return Err(Error::unsupported(format!(
                "projection_class_embeddings_input_dim = {} of the UNet, where {} gives {pooled} and {} time ids {ids} \
                 (requires_aesthetics_score of model_index.json says how many there are)",
                text_time.projection_class_embeddings_input_dim, text.name, text_time.time_ids
            )));
        }
    }
    if unet.text_time.is_some() != *sdxl {
        return Err(Error::unsupported("addition_embed_type of the UNet does not fit this pipeline class"));
    }
    for TextConfig { name, config, tokenizer } in text {
        if tokenizer.model_max_length() > config.max_position_embeddings() as usize {
            return Err(Error::unsupported(format!(
                "max_position_embeddings = {} of {name}, where its tokenizer makes {} tokens",
                config.max_position_embeddings(),
                tokenizer.model_max_length()
            )));
        }
    }
    let channels = configs.vae.latent_channels();
    if !inpaints(configs) && !edits(configs) && unet.in_channels != channels {
        return Err(Error::unsupported(format!(
            "in_channels = {} of the UNet, where the VAE has {channels} latent channels",
            unet.in_channels
        )));
    }
    Ok(())
}

/// The checkpoint's own sampler must work, or be one that a named sampler can stand in for.
fn check_scheduler(config: &SchedulerConfig) -> Result<()> {
    // One step is the least that every configuration allows.
    match scheduler(None, config, 1, &Tuning::default()) {
        Ok(_) => Ok(()),
        Err(own) => scheduler(Some("ddim"), config, 1, &Tuning::default()).map(|_| ()).map_err(|_| own),
    }
}

/// Whether the UNet takes mask and masked picture beside the latents.
fn inpaints(configs: &Configs) -> bool {
    configs.unet.in_channels == 2 * configs.vae.latent_channels() + 1
}

/// Whether the UNet takes the latents of the picture that it edits beside the latents.
fn edits(configs: &Configs) -> bool {
    configs.unet.in_channels == 2 * configs.vae.latent_channels()
}

// ---- plan --------------------------------------------------------------------------------------------------------

/// Opens the GPU and records every network, at a small size, for the weights that it names: all is checked before the
/// first byte of them. The pipeline has no weights yet.
///
/// # Errors
/// `webgpu-unavailable`; `unsupported-model`; `out-of-memory` where the adapter is too small.
async fn plan(
    configs: Configs,
    asked: &LoadOptions,
    source: Box<dyn WeightSource>,
) -> Result<DiffusionPipeline> {
    let (gpu, mut options) = ops::open(asked.precision).await?;
    options.choices = shipped(&gpu.vendor, &gpu.architecture);
    let mut origin = Origin::Shipped;
    if let Some(choices) = autotune::kept(&gpu, &options, asked.tunings.as_deref().unwrap_or_default()) {
        options.choices = choices;
        origin = Origin::Kept;
    }
    let sdxl = configs.sdxl;
    let wide = Options { activations: Dtype::F32, ..options };
    let off = if configs.unet.upcast_attention { OFF_F16_ATTENTION } else { 0 };
    let unet_options = Options { weights: asked.weights, off, ..options };
    let vae_options = match &configs.vae {
        // diffusers upcasts the VAE on this flag in SDXL's pipelines alone.
        Vae::Kl(config) if sdxl && config.force_upcast => wide,
        _ => options,
    };
    // Few tokens and one run a prompt: f32 costs nothing, and guidance multiplies what is lost here.
    let text_options = Options { weights: asked.weights.map(|_| Bits::Q8), ..wide };

    let unet_plan = unet_weights(&configs.unet, &unet_options)?;
    let vae_plan = decoder_weights(&configs.vae, &vae_options)?;
    let encoder_config = match &configs.vae {
        Vae::Kl(config) => Some(config.clone()),
        Vae::Tiny(_) => None,
    };
    let encoder_specs = match &encoder_config {
        Some(config) => encoder_weights(config, &vae_options)?.weights().to_vec(),
        None => Vec::new(),
    };
    let mut text_plans = Vec::new();
    for (i, text) in configs.text.iter().enumerate() {
        text_plans.push(text_weights(
            &text.config,
            TextRecipe::of(sdxl, i, configs.text.len()),
            &text_options,
        )?);
    }
    let all = || text_plans.iter().chain([&unet_plan, &vae_plan]);
    all().try_for_each(|plan| plan.check(&gpu.limits))?;

    let low = asked.memory.is_low(all().map(bytes).sum(), &gpu);
    let parameters = all().flat_map(Plan::weights).filter_map(|w| w.layout.elements()).sum();
    let model = model(&configs, parameters);
    let previews = Previews::new(&configs.own_vae, configs.vae.latent_channels());
    let force_zeros = configs.index.get("force_zeros_for_empty_prompt").and_then(Value::as_bool);
    let unet = Rc::new(Part::new("unet", names::unet, unet_plan.weights()));
    let encoder = Rc::new(Part::new("vae", names::vae, &encoder_specs));
    let decoder = Rc::new(Part::new("vae", names::vae, vae_plan.weights()));
    let text = configs.text.into_iter().zip(&text_plans).map(|(text, plan)| {
        let part = Rc::new(Part::new(text.name, text.config.names(), plan.weights()));
        let module = Module { config: text.config, part, options: text_options };
        TextEncoder::new(text.tokenizer, module)
    });
    let text = TextEncoders::new(text.collect(), sdxl);
    let text_parts = text.encoders.iter().map(|e| e.module.part.clone()).collect();
    Ok(DiffusionPipeline {
        model,
        residence: Residence::new(gpu, source, low, text_parts, [unet.clone(), encoder, decoder]),
        text,
        unet: Module { config: configs.unet, part: unet, options: unet_options },
        decoder: Decoder::new(configs.vae, vae_options),
        encoder: Encoder { config: encoder_config, options: vae_options },
        scheduler: configs.scheduler,
        previews,
        loras: Loras::default(),
        controlnets: ControlNets::default(),
        ip_adapters: IpAdapters::default(),
        adapters: T2iAdapters::default(),
        lllites: Lllites::default(),
        force_zeros_for_empty_prompt: force_zeros.unwrap_or(true),
        options,
        origin,
        later: Cell::default(),
    })
}

/// Of a plan's weights.
fn bytes(plan: &Plan) -> u64 {
    plan.weights().iter().map(WeightSpec::bytes).sum()
}

fn model(configs: &Configs, parameters: u64) -> Model {
    let Configs { index, sdxl, unet, vae, .. } = configs;
    let (usual_steps, usual_guidance) = match configs.class {
        "LatentConsistencyModelPipeline" => (4, 8.5),
        // An SDXL that takes guidance as an embedding has no pipeline of its own; so diffusers documents LCM-SDXL.
        _ if unet.time_cond_proj_dim.is_some() => (4, 8.0),
        _ => (if edits(configs) { 100 } else { 50 }, if *sdxl { 5.0 } else { 7.5 }),
    };
    let steps = index.get("default_num_inference_steps").and_then(Value::as_u64);
    let guidance = index.get("default_guidance_scale").and_then(Value::as_f64);
    Model {
        name: configs.name.clone(),
        kind: match (sdxl, unet.cross_attention_dim) {
            (true, _) => Kind::Sdxl,
            (false, 1024) => Kind::Sd2,
            (false, _) => Kind::Sd1,
        },
        inpainting: inpaints(configs),
        instruct_pix2pix: edits(configs),
        refiner: configs.refines,
        default_size: unet.sample_size.map_or(64, |[h, _]| h) * vae.scale(),
        latent_channels: vae.latent_channels(),
        latent_scale: vae.scale(),
        parameters,
        num_inference_steps: steps.map_or(usual_steps, |n| n as usize),
        guidance_scale: guidance.map_or(usual_guidance, |g| g as f32),
        scheduler: own_name(&configs.scheduler),
        f32_tensors: Vec::new(),
    }
}

// ---- stream ------------------------------------------------------------------------------------------------------

/// Streams the weights to the GPU; kernels are timed, where that is wanted and worth it, and compile meanwhile. Gives
/// the choice of kernels.
///
/// # Errors
/// `bad-checkpoint`; `aborted`; `device-lost`; what the files fail with.
async fn stream(
    pipeline: &DiffusionPipeline,
    timed: bool,
    aborted: &dyn Fn() -> bool,
) -> Result<(Choices, Origin)> {
    let gpu = &pipeline.residence.gpu;
    let prepare = async {
        let (mut choices, mut origin) = (pipeline.options.choices, pipeline.origin);
        // What an earlier visit did not reach is gone on with.
        if timed && pipeline.to_tune() {
            origin = Origin::Timed;
            choices = autotune::tune(gpu, &pipeline.options, autotune::BUDGET, &|| false).await?;
        }
        let plans = compile(pipeline, choices)?;
        gpu.compiled().await;
        // Natively kernels compile where they are met, and are tried there.
        if cfg!(target_arch = "wasm32") {
            for plan in &plans {
                ops::check(gpu, plan).await?;
            }
        }
        Ok((choices, origin))
    };
    let (streamed, chosen): (Result<()>, Result<_>) = join(pipeline.residence.fill(aborted), prepare).await;
    streamed?;
    gpu.check()?;
    chosen
}

/// Begins to compile what the first picture most likely needs.
fn compile(pipeline: &DiffusionPipeline, choices: Choices) -> Result<Vec<Plan>> {
    let tuned = |options: Options| Options { choices, ..options };
    let (unet, decoder) = (&pipeline.unet, &pipeline.decoder);
    let sdxl = pipeline.model.kind == Kind::Sdxl;
    let count = pipeline.text.encoders.len();
    let text = pipeline.text.encoders.iter().enumerate();
    let text = text.map(|(i, e)| (&e.module.config, TextRecipe::of(sdxl, i, count), tuned(e.module.options)));
    compile_first(
        &pipeline.residence.gpu,
        (&unet.config, tuned(unet.options)),
        (&decoder.vae, tuned(decoder.options)),
        &text.collect::<Vec<_>>(),
        pipeline.text.tokens() as u32,
    )
}
