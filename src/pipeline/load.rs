//! A model's folder to modules on the GPU.

use super::residence::{FilesSource, Memory, Part, Place};
use super::text::{Recipe, TextCache};
use super::tuning::{self, Origin};
use super::{DiffusionPipeline, Kind, LatentRgb, Model, Module, TextEncoder, Vae, check_aborted};
use crate::checkpoint::{Bits, names};
use crate::error::{Error, Result};
use crate::gpu::choices::{Choices, shipped};
use crate::gpu::{Dtype, Gpu, Options, Plan, Recorder, WeightSpec};
use crate::models::{clip, taesd, unet, vae};
use crate::ops::{self, Precision};
use crate::prompt::{Tokenizer, TokenizerFiles};
use crate::samplers::{SD1_FACTORS, SchedulerConfig, Tuning, own_name, scheduler};
use crate::store::ModelFiles;
use futures_util::future::join;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// diffusers' weight variant, such as "fp16".
    pub variant: Option<String>,
    pub precision: Precision,
    /// How the UNet's matrices lie on the GPU; `None`: f16. Text encoders take eight bits at least, since guidance
    /// multiplies what they lose, and the VAE, small and seen at once, stays f16.
    pub weights: Option<Bits>,
    pub memory: Memory,
    /// Choices of earlier visits (key and text, see [`DiffusionPipeline::tuning`]); where none is of this GPU, tiles are
    /// timed while the weights arrive. `None`: as shipped.
    pub tunings: Option<Vec<(String, String)>>,
}

/// Pipeline classes whose parts and way of sampling are those of text-to-image.
const CLASSES: &[(&str, bool)] = &[
    ("StableDiffusionPipeline", false),
    ("StableDiffusionImg2ImgPipeline", false),
    ("StableDiffusionInpaintPipeline", false),
    ("LatentConsistencyModelPipeline", false),
    ("StableDiffusionXLPipeline", true),
    ("StableDiffusionXLImg2ImgPipeline", true),
    ("StableDiffusionXLInpaintPipeline", true),
];

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
        let other_vae = match &vae {
            Some(vae) => Some(vae.config().await?),
            None => None,
        };
        let source =
            Box::new(FilesSource { files: files.clone(), other: vae, variant: options.variant.clone() });
        let files = files.as_ref();
        let index: Value = files.json("model_index.json").await?;
        let class = index.get("_class_name").and_then(Value::as_str).unwrap_or("");
        let Some((_, sdxl)) = CLASSES.iter().find(|(name, _)| *name == class) else {
            return Err(Error::unsupported(format!(
                "{} is a {class:?}. This engine runs the Stable Diffusion 1.x, 2.x and SDXL pipelines.",
                files.name()
            )));
        };
        let sdxl = *sdxl;
        // Configurations: everything that can be refused is refused here.
        component(&index, "unet", &["UNet2DConditionModel"])?;
        const VAES: &[&str] = &["AutoencoderKL", "AutoencoderTiny"];
        let named = other_vae.as_ref().map(|config| json!({ "vae": [null, config.get("_class_name")] }));
        let vae_class = component(named.as_ref().unwrap_or(&index), "vae", VAES)?;
        component(&index, "text_encoder", &["CLIPTextModel", "CLIPTextModelWithProjection"])?;
        let unet_config = unet::Config::from_config(&files.json("unet/config.json").await?)?;
        // Previews see the latents as the model's own VAE has them; a model may lack one where another is given.
        let (vae_json, latent_rgb) = match other_vae {
            Some(mut config) => {
                // That of a file that holds a VAE alone: its model's.
                if let Some(scale @ Value::Null) = config.get_mut("scaling_factor") {
                    *scale = (if sdxl { 0.13025 } else { 0.18215 }).into();
                }
                let own: Value = match files.bytes("vae/config.json").await? {
                    Some(own) => serde_json::from_slice(&own).unwrap_or_default(),
                    None => Value::Null,
                };
                (config, latent_rgb(&own))
            }
            None => {
                let own: Value = files.json("vae/config.json").await?;
                let latent_rgb = latent_rgb(&own);
                (own, latent_rgb)
            }
        };
        let mut encoder_names = vec!["text_encoder"];
        if sdxl {
            component(&index, "text_encoder_2", &["CLIPTextModelWithProjection"])?;
            encoder_names.push("text_encoder_2");
        }
        let mut encoders = Vec::new();
        for name in encoder_names {
            let config = clip::Config::from_config(&files.json(&format!("{name}/config.json")).await?)?;
            let tokenizer = tokenizer(files, &name.replace("text_encoder", "tokenizer")).await?;
            encoders.push((name, config, tokenizer));
        }
        let scheduler_text = files.required("scheduler/scheduler_config.json").await?;
        let scheduler_config = SchedulerConfig::from_json(&String::from_utf8_lossy(&scheduler_text))?;
        check_scheduler(&scheduler_config)?;
        check_widths(&unet_config, &encoders, sdxl)?;
        check_aborted(aborted)?;

        let (gpu, mut usual) = ops::open(options.precision).await?;
        usual.choices = shipped(&gpu.vendor, &gpu.architecture);
        let mut chosen = Origin::Shipped;
        if let Some(choices) = tuning::kept(&gpu, &usual, options.tunings.as_deref().unwrap_or_default()) {
            usual.choices = choices;
            chosen = Origin::Kept;
        }
        let wide = Options { activations: Dtype::F32, ..usual };

        // Plans at a small size, for the weights that they name; all checked before the first byte.
        let unet_options = Options { weights: options.weights, ..usual };
        let unet_plan = record_unet(&unet_config, &unet_options)?;
        let (vae_plan, vae_options, latent_channels) = if vae_class == "AutoencoderTiny" {
            let config = taesd::Config::from_config(&vae_json)?;
            (record(&usual, |r| taesd_weights(&config, r))?, usual, config.latent_channels)
        } else {
            let config = vae::Config::from_config(&vae_json)?;
            // diffusers upcasts the VAE on this flag in SDXL's pipelines alone.
            let options = if sdxl && config.force_upcast { wide } else { usual };
            (record(&options, |r| vae_weights(&config, r))?, options, config.latent_channels)
        };
        let inpainting = unet_config.in_channels == 2 * latent_channels + 1;
        if !inpainting && unet_config.in_channels != latent_channels {
            return Err(Error::unsupported(format!(
                "in_channels = {} of the UNet, where the VAE has {latent_channels} latent channels",
                unet_config.in_channels
            )));
        }
        let mut encoder_plans = Vec::new();
        // Few tokens and one run a prompt: f32 costs nothing, and guidance multiplies what is lost here.
        let encoder_options = Options { weights: options.weights.map(|_| Bits::Q8), ..wide };
        for (i, (_, config, _)) in encoders.iter().enumerate() {
            encoder_plans
                .push(record(&encoder_options, |r| encoder_weights(config, sdxl && i == 1, sdxl, r))?);
        }
        for plan in encoder_plans.iter().chain([&unet_plan, &vae_plan]) {
            plan.check(&gpu.limits)?;
        }

        let all_specs = encoder_plans.iter().chain([&unet_plan, &vae_plan]);
        let parameters = all_specs.flat_map(|p| p.weights()).filter_map(|w| w.layout.elements()).sum();
        let bytes = |specs: &[WeightSpec]| specs.iter().map(WeightSpec::bytes).sum::<u64>();
        let all = encoder_plans.iter().chain([&unet_plan, &vae_plan]).map(|p| bytes(p.weights())).sum();
        let low = options.memory.is_low(all, &gpu);
        let mut text_encoders = Vec::new();
        for ((name, config, tokenizer), plan) in encoders.into_iter().zip(&encoder_plans) {
            let part = Part::new(name, names::clip, plan.weights());
            text_encoders
                .push(TextEncoder { tokenizer, module: Module { config, part, options: encoder_options } });
        }
        let part = Part::new("unet", names::unet, unet_plan.weights());
        let unet = Module { config: unet_config, part, options: unet_options };
        let part = Part::new("vae", names::vae, vae_plan.weights());
        let vae = if vae_class == "AutoencoderTiny" {
            let config = taesd::Config::from_config(&vae_json)?;
            Vae::Tiny(Module { config, part, options: vae_options })
        } else {
            let config = vae::Config::from_config(&vae_json)?;
            Vae::Kl(Module { config, part, options: vae_options })
        };
        let encoder = match &vae {
            Vae::Kl(m) => record(&m.options, |r| vae_encoder_weights(&m.config, r))?.weights().to_vec(),
            Vae::Tiny(_) => Vec::new(),
        };
        let encoder = Part::new("vae", names::vae, &encoder);
        let vae_part = match &vae {
            Vae::Kl(m) => &m.part,
            Vae::Tiny(m) => &m.part,
        };
        let stream = async {
            for part in [vae_part, &unet.part] {
                if low {
                    // Each is streamed again when its turn comes.
                    part.verify(&gpu, source.as_ref(), aborted).await?;
                } else {
                    part.fill(&gpu, source.as_ref(), aborted).await?;
                }
            }
            // What a picture begins with.
            for encoder in &text_encoders {
                encoder.module.part.fill(&gpu, source.as_ref(), aborted).await?;
            }
            Ok(())
        };
        // Tiles are timed and kernels compile while the weights arrive.
        let prepare = async {
            let mut choices = usual.choices;
            let unknown = options.tunings.is_some() && chosen == Origin::Shipped;
            if unknown && unet.part.bytes() >= tuning::WORTH {
                chosen = Origin::Timed;
                choices = ops::autotune::tune(&gpu, &usual, &ops::autotune::EXAMPLES, tuning::BUDGET).await?;
            }
            compile_first(&gpu, choices, &unet, &vae, &text_encoders, sdxl)?;
            gpu.compiled().await;
            Ok(choices)
        };
        let (streamed, choices): (Result<()>, Result<Choices>) = join(stream, prepare).await;
        streamed?;
        let choices = choices?;
        gpu.check()?;
        let encoder_parts = text_encoders.iter().map(|e| &e.module.part);
        let mut f32_tensors: Vec<String> =
            encoder_parts.chain([vae_part, &unet.part]).flat_map(Part::wide).collect();
        f32_tensors.sort();

        let kind = match (sdxl, unet.config.cross_attention_dim) {
            (true, _) => Kind::Sdxl,
            (false, 1024) => Kind::Sd2,
            (false, _) => Kind::Sd1,
        };
        let (usual_steps, usual_guidance) = match class {
            "LatentConsistencyModelPipeline" => (4, 8.5),
            _ => (50, if sdxl { 5.0 } else { 7.5 }),
        };
        let default_size = unet.config.sample_size.map_or(64, |[h, _]| h) * vae.scale();
        let mut pipeline = Self {
            model: Model {
                name: files.name().to_owned(),
                kind,
                inpainting,
                default_size,
                parameters,
                num_inference_steps: index
                    .get("default_num_inference_steps")
                    .and_then(Value::as_u64)
                    .map_or(usual_steps, |n| n as usize),
                guidance_scale: index
                    .get("default_guidance_scale")
                    .and_then(Value::as_f64)
                    .map_or(usual_guidance, |g| g as f32),
                scheduler: own_name(&scheduler_config),
                f32_tensors,
            },
            gpu,
            source,
            low,
            options: usual,
            chosen,
            text_encoders,
            unet,
            vae,
            encoder,
            scheduler: scheduler_config,
            latent_rgb,
            force_zeros_for_empty_prompt: index
                .get("force_zeros_for_empty_prompt")
                .and_then(Value::as_bool)
                .unwrap_or(true),
            unet_plan: RefCell::default(),
            decode_plan: RefCell::default(),
            tiny: RefCell::default(),
            text_cache: TextCache::default(),
            embeddings: RefCell::default(),
            loras: RefCell::default(),
            controlnets: RefCell::default(),
            chosen_loras: RefCell::default(),
            decode_wide: Cell::new(false),
        };
        pipeline.choose(choices, chosen);
        Ok(pipeline)
    }
}

/// The class of a part in `model_index.json`, which must be one of `classes`.
fn component<'a>(index: &'a Value, name: &str, classes: &[&str]) -> Result<&'a str> {
    let class = index.get(name).and_then(|c| c.get(1)).and_then(Value::as_str);
    match class {
        Some(class) if classes.contains(&class) => Ok(class),
        Some(class) => {
            Err(Error::unsupported(format!("{name} is a {class}; supported: {}", classes.join(", "))))
        }
        None => {
            Err(Error::bad_checkpoint(format!("model_index.json names no {name}: the model is not complete")))
        }
    }
}

/// The checkpoint's own sampler must work, or be one that a named sampler can stand in for.
fn check_scheduler(config: &SchedulerConfig) -> Result<()> {
    // One step is the least that every configuration allows.
    match scheduler(None, config, 1, &Tuning::default()) {
        Ok(_) => Ok(()),
        Err(own) => scheduler(Some("ddim"), config, 1, &Tuning::default()).map(|_| ()).map_err(|_| own),
    }
}

/// # Errors
/// `unsupported-model` where text encoders and UNet are not of one model.
fn check_widths(unet: &unet::Config, encoders: &[(&str, clip::Config, Tokenizer)], sdxl: bool) -> Result<()> {
    let width: u32 = encoders.iter().map(|(_, c, _)| c.hidden_size).sum();
    if width != unet.cross_attention_dim {
        return Err(Error::unsupported(format!(
            "cross_attention_dim = {} of the UNet, where the text encoders give {width}",
            unet.cross_attention_dim
        )));
    }
    if unet.text_time.is_some() != sdxl {
        return Err(Error::unsupported("addition_embed_type of the UNet does not fit this pipeline class"));
    }
    for (name, config, tokenizer) in encoders {
        if tokenizer.model_max_length() > config.max_position_embeddings as usize {
            return Err(Error::unsupported(format!(
                "max_position_embeddings = {} of {name}, where its tokenizer makes {} tokens",
                config.max_position_embeddings,
                tokenizer.model_max_length()
            )));
        }
    }
    Ok(())
}

async fn tokenizer<F: ModelFiles>(files: &F, folder: &str) -> Result<Tokenizer> {
    let file = async |name: &str| files.bytes(&format!("{folder}/{name}")).await;
    let vocab = file("vocab.json").await?;
    let merges = file("merges.txt").await?;
    // Larger than both, and wanted only where one of them is missing.
    let tokenizer_json =
        if vocab.is_some() && merges.is_some() { None } else { file("tokenizer.json").await? };
    let tokenizer_config = file("tokenizer_config.json").await?;
    let special_tokens_map = file("special_tokens_map.json").await?;
    Tokenizer::from_files(TokenizerFiles {
        vocab: vocab.as_deref(),
        merges: merges.as_deref(),
        tokenizer_json: tokenizer_json.as_deref(),
        tokenizer_config: tokenizer_config.as_deref(),
        special_tokens_map: special_tokens_map.as_deref(),
    })
}

/// `latent_rgb_factors` ([4][3]) and `latent_rgb_bias` ([3]), in 0..1, of the VAE's configuration; Stable
/// Diffusion 1's otherwise.
fn latent_rgb(config: &Value) -> LatentRgb {
    let row = |v: &Value| -> Option<[f32; 3]> {
        let row: Vec<f32> = v.as_array()?.iter().filter_map(|x| x.as_f64().map(|x| x as f32)).collect();
        row.try_into().ok()
    };
    let own = || {
        let factors: Vec<[f32; 3]> =
            config.get("latent_rgb_factors")?.as_array()?.iter().map(row).collect::<Option<_>>()?;
        let bias = row(config.get("latent_rgb_bias")?)?;
        Some(LatentRgb {
            factors: factors.iter().map(|f| f.map(|v| 2.0 * v)).collect(),
            bias: bias.map(|v| 2.0 * v - 1.0),
        })
    };
    own().unwrap_or_else(|| LatentRgb { factors: SD1_FACTORS.to_vec(), bias: [0.0; 3] })
}

pub(super) fn record(options: &Options, build: impl FnOnce(&mut Recorder) -> Result<()>) -> Result<Plan> {
    let mut r = Recorder::new(options);
    build(&mut r)?;
    Ok(r.finish())
}

/// Begins to compile what the first picture most likely needs: the model's own size, guidance, a prompt of one window.
/// Other sizes compile the few kernels that they lack when they are drawn.
fn compile_first(
    gpu: &Gpu,
    choices: Choices,
    unet: &Module<unet::Config>,
    vae: &Vae,
    encoders: &[TextEncoder],
    sdxl: bool,
) -> Result<()> {
    const TOKENS: u32 = 77;
    let tuned = |options: Options| Options { choices, ..options };
    let [h, w] = unet.config.sample_size.unwrap_or([64, 64]);
    let mut plans = vec![record(&tuned(unet.options), |r| {
        let inputs = super::text_to_image::unet_inputs(&unet.config, r, 2, h, w, TOKENS);
        unet::forward(&unet.config, r, &inputs, &[]).map(|out| r.output(out))
    })];
    plans.push(match vae {
        Vae::Kl(m) => record(&tuned(m.options), |r| {
            let latents = r.input(1, h, w, m.config.latent_channels);
            vae::decode(&m.config, r, latents).map(|_| ())
        }),
        Vae::Tiny(m) => record(&tuned(m.options), |r| {
            let latents = r.input(1, h, w, m.config.latent_channels);
            taesd::decode(&m.config, r, latents).map(|_| ())
        }),
    });
    for (i, TextEncoder { module, .. }) in encoders.iter().enumerate() {
        plans.push(record(&tuned(module.options), |r| {
            let recipe = Recipe { pooled: sdxl && i == 1, penultimate: sdxl, ..Default::default() };
            super::text::record(&module.config, recipe, r, 2, TOKENS).map(|_| ())
        }));
    }
    // A size of its own that the model cannot have is refused when it is asked for.
    plans.iter().flatten().try_for_each(|plan| plan.compile_ahead(gpu))
}

/// A side of latents that every level
/// A side of latents that every level of a UNet or VAE can halve, and no larger than need be.
pub(super) const SMALL: u32 = 16;

fn record_unet(config: &unet::Config, options: &Options) -> Result<Plan> {
    record(options, |r| {
        let inputs = super::text_to_image::unet_inputs(config, r, 1, SMALL, SMALL, 1);
        unet::forward(config, r, &inputs, &[]).map(|_| ())
    })
}

fn vae_weights(config: &vae::Config, r: &mut Recorder) -> Result<()> {
    let latents = r.input(1, SMALL, SMALL, config.latent_channels);
    vae::decode(config, r, latents).map(|_| ())
}

fn vae_encoder_weights(config: &vae::Config, r: &mut Recorder) -> Result<()> {
    let side = SMALL * config.scale();
    let image = r.input(1, side, side, config.in_channels);
    vae::encode(config, r, image).map(|_| ())
}

pub(super) fn taesd_weights(config: &taesd::Config, r: &mut Recorder) -> Result<()> {
    let latents = r.input(1, SMALL, SMALL, config.latent_channels);
    taesd::decode(config, r, latents).map(|_| ())
}

fn encoder_weights(config: &clip::Config, pooled: bool, sdxl: bool, r: &mut Recorder) -> Result<()> {
    let recipe = Recipe { pooled, penultimate: sdxl, ..Default::default() };
    super::text::record(config, recipe, r, 1, 1).map(|_| ())
}
