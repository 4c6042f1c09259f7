//! The configurations that a single file does not carry, from its tensors' names and shapes: `config.json` of each
//! component, the sampler's, and `model_index.json`. What shapes cannot tell (heads, activations, the noise schedule)
//! is what all published checkpoints of that kind have; the values agree with the Hub's folders.

use super::ldm::{Contents, EdmKeys, LLLITE, Part};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

/// SD 2's spread of that bias, above which the model predicts velocity; ComfyUI's `supported_models.py` (`SD20`).
const V_PREDICTION_SPREAD: f32 = 0.09;

/// What values of a file's tensors tell.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Standard deviation of [`Contents::spread`]'s tensor.
    pub spread: Option<f32>,
    /// Playground's `edm_mean` and `edm_std`.
    pub latents: [Vec<f32>; 2],
    /// CosXL's noise levels.
    pub sigma_max: Option<f32>,
    pub sigma_min: Option<f32>,
}

/// `_class_name` of a Control-LoRA's configuration, which no folder on the Hub has: diffusers does not know them.
pub const CONTROL_LORA: &str = "ControlLora";

/// `_class_name` of a ControlNet-LLLite's, which diffusers does not know either.
pub const CONTROL_LLLITE: &str = "ControlNetLLLite";

/// Width of the embedding of each of SDXL's time ids.
const TIME_ID: u64 = 256;

/// Names and shapes of a component.
struct Shapes<'a>(HashMap<&'a str, &'a [u64]>);

impl<'a> Shapes<'a> {
    fn new(parts: &'a [Part]) -> Self {
        Shapes(parts.iter().map(|p| (p.name.as_str(), p.shape.as_slice())).collect())
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A dimension of a tensor; 0 if there is no such tensor, which every configuration refuses by name.
    fn dim(&self, name: &str, axis: usize) -> u64 {
        self.0.get(name).and_then(|s| s.get(axis)).copied().unwrap_or(0)
    }

    /// How many of `prefix.0.`, `prefix.1.`, ... there are.
    fn count(&self, prefix: &str) -> u64 {
        let numbers =
            self.0.keys().filter_map(|n| n.strip_prefix(prefix)?.strip_prefix('.')?.split_once('.'));
        numbers.filter_map(|(n, _)| n.parse::<u32>().ok()).max().map_or(0, |n| u64::from(n) + 1).min(256)
    }
}

/// Families that differ in what the shapes do not tell.
#[derive(Clone, Copy, PartialEq)]
enum Family {
    Sd1,
    Sd2,
    Sdxl,
}

impl Contents {
    fn shapes(&self, component: &str) -> Shapes<'_> {
        Shapes::new(self.components.get(component).map(Vec::as_slice).unwrap_or_default())
    }

    fn family(&self) -> Family {
        // A UNet or ControlNet alone tells by the width of its text, as there is no encoder to be seen.
        let unet = self.shapes(if self.components.contains_key("unet") { "unet" } else { "controlnet" });
        if self.components.contains_key("text_encoder_2") || unet.has("add_embedding.linear_1.weight") {
            Family::Sdxl
        } else if self.open_clip.contains("text_encoder") || context(&unet) == 1024 {
            Family::Sd2
        } else {
            Family::Sd1
        }
    }

    /// The file's small files, by their paths in a diffusers folder. A VAE or a ControlNet that stands alone has its `config.json` at the
    /// root as well, as its own folder on the Hub does.
    pub fn configs(&self, told: &Told) -> HashMap<String, Value> {
        let mut files = HashMap::new();
        let family = self.family();
        let mut index = Map::new();
        let lcm = self.shapes("unet").has("time_embedding.cond_proj.weight");
        let v_prediction = match family {
            Family::Sd1 => false,
            // Its inpainting models predict noise.
            Family::Sd2 => {
                self.shapes("unet").dim("conv_in.weight", 1) == 4
                    && told.spread.is_some_and(|s| s > V_PREDICTION_SPREAD)
            }
            Family::Sdxl => self.v_pred,
        };
        let channels = self.shapes("unet").dim("conv_in.weight", 1);
        let refiner = self.is_refiner();
        let class = match (family, lcm, channels) {
            (Family::Sdxl, ..) if refiner => "StableDiffusionXLImg2ImgPipeline",
            (Family::Sdxl, _, 8) => "StableDiffusionXLInstructPix2PixPipeline",
            (_, _, 8) => "StableDiffusionInstructPix2PixPipeline",
            (Family::Sdxl, _, 9) => "StableDiffusionXLInpaintPipeline",
            (Family::Sdxl, ..) => "StableDiffusionXLPipeline",
            (_, true, _) => "LatentConsistencyModelPipeline",
            (_, _, 9) => "StableDiffusionInpaintPipeline",
            _ => "StableDiffusionPipeline",
        };
        index.insert("_class_name".into(), class.into());
        if refiner {
            index.insert("requires_aesthetics_score".into(), true.into());
            index.insert("force_zeros_for_empty_prompt".into(), false.into());
        }
        for (&component, parts) in &self.components {
            let shapes = Shapes::new(parts);
            let (library, class, config) = match component {
                "unet" => ("diffusers", "UNet2DConditionModel", unet(&shapes, family, v_prediction)),
                "controlnet" if shapes.has("adapter.body.0.resnets.0.block1.weight") => {
                    ("diffusers", "T2IAdapter", t2i_adapter(&shapes))
                }
                "controlnet" if parts.iter().any(|part| part.name.starts_with(LLLITE)) => {
                    ("diffusers", CONTROL_LLLITE, lllite(parts))
                }
                "controlnet" if self.control_lora => ("diffusers", CONTROL_LORA, control_lora(&shapes)),
                "controlnet" => ("diffusers", "ControlNetModel", control_net(&shapes)),
                "vae" => {
                    let mut config = vae(&shapes, family, self.alone("vae"));
                    if let Some(EdmKeys::Playground { .. }) = self.edm {
                        // Those of its folder on the Hub.
                        config["scaling_factor"] = 0.5.into();
                        let [mean, std] = &told.latents;
                        config["latents_mean"] = json!(mean);
                        config["latents_std"] = json!(std);
                    }
                    ("diffusers", "AutoencoderKL", config)
                }
                _ => {
                    let open_clip = self.open_clip.contains(component);
                    let (class, config) = text_encoder(&shapes, open_clip, component == "text_encoder_2");
                    let tokenizer = component.replace("text_encoder", "tokenizer");
                    index.insert(tokenizer.clone(), json!(["transformers", "CLIPTokenizer"]));
                    for (name, value) in tokenizer_files(open_clip) {
                        files.insert(format!("{tokenizer}/{name}"), value);
                    }
                    ("transformers", class, config)
                }
            };
            index.insert(component.into(), json!([library, class]));
            if self.alone(component) {
                files.insert("config.json".into(), config.clone());
            }
            files.insert(format!("{component}/config.json"), config);
        }
        let scheduler = match self.edm {
            Some(keys) => edm_scheduler(keys, told),
            None => scheduler(family, lcm, v_prediction, self.ztsnr),
        };
        index.insert("scheduler".into(), json!(["diffusers", scheduler["_class_name"]]));
        files.insert("scheduler/scheduler_config.json".into(), scheduler);
        files.insert("model_index.json".into(), Value::Object(index));
        files
    }

    /// SDXL's refiner has one text encoder, and one time id less.
    fn is_refiner(&self) -> bool {
        let (unet, text) = (self.shapes("unet"), self.shapes("text_encoder_2"));
        let given = unet.dim("add_embedding.linear_1.weight", 1);
        let pooled = text.dim("text_projection.weight", 0);
        !self.components.contains_key("text_encoder") && pooled > 0 && given == pooled + 5 * TIME_ID
    }

    /// Whether the file is that of one component: a ControlNet (whose older files have the whole model along), or
    /// nothing else.
    pub fn alone(&self, component: &str) -> bool {
        component == "controlnet" || self.components.len() == 1
    }
}

/// Width of the text that a UNet or ControlNet attends to.
fn context(unet: &Shapes) -> u64 {
    let keys = unet.0.iter().find(|(name, _)| name.ends_with("transformer_blocks.0.attn2.to_k.weight"));
    keys.and_then(|(_, shape)| shape.get(1)).copied().unwrap_or(0)
}

/// What UNets and ControlNets have in common.
fn down(shapes: &Shapes) -> Map<String, Value> {
    let blocks = shapes.count("down_blocks");
    let attends = |block: &str| shapes.count(&format!("{block}.attentions")) > 0;
    let names: Vec<String> = (0..blocks).map(|i| format!("down_blocks.{i}")).collect();
    let channels: Vec<u64> =
        names.iter().map(|b| shapes.dim(&format!("{b}.resnets.0.conv1.weight"), 0)).collect();
    let types: Vec<&str> =
        names.iter().map(|b| if attends(b) { "CrossAttnDownBlock2D" } else { "DownBlock2D" }).collect();
    // The middle is as deep as the last block, which in SD 1 and 2 has no transformers of its own.
    let depth = |block: &str| shapes.count(&format!("{block}.attentions.0.transformer_blocks"));
    let depths: Vec<u64> = names
        .iter()
        .enumerate()
        .map(|(i, b)| if i as u64 + 1 == blocks { depth("mid_block").max(depth(b)) } else { depth(b) })
        .map(|d| d.max(1))
        .collect();
    let mut depths = json!(depths);
    if names.iter().any(|name| uneven(&layer_depths(shapes, name))) {
        let own = names.iter().map(|name| listed(&layer_depths(shapes, name)));
        depths = own.collect();
    }
    let linear = shapes
        .0
        .iter()
        .any(|(name, shape)| name.ends_with("attentions.0.proj_in.weight") && shape.len() == 2);
    // SD 1 has 8 heads everywhere, its successors 64 channels a head. Both came with the way they project.
    let heads: Vec<u64> = channels.iter().map(|c| if linear { (c / 64).max(1) } else { 8 }).collect();
    let text_time = shapes.has("add_embedding.linear_1.weight");
    let Value::Object(mut config) = json!({
        "in_channels": shapes.dim("conv_in.weight", 1),
        "block_out_channels": channels,
        "down_block_types": types,
        "layers_per_block": shapes.count("down_blocks.0.resnets").max(1),
        "transformer_layers_per_block": depths,
        "attention_head_dim": heads,
        "cross_attention_dim": context(shapes).max(1),
        "use_linear_projection": linear,
        // Stable Diffusion 2's overflows f16.
        "upcast_attention": linear && !text_time,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "norm_num_groups": 32,
        "norm_eps": 1e-5,
    }) else {
        return Map::new();
    };
    if text_time {
        config.insert("addition_embed_type".into(), "text_time".into());
        config.insert("addition_time_embed_dim".into(), TIME_ID.into());
        let width = shapes.dim("add_embedding.linear_1.weight", 1);
        config.insert("projection_class_embeddings_input_dim".into(), width.into());
    }
    config
}

/// Transformer blocks in each layer of a block.
fn layer_depths(shapes: &Shapes, block: &str) -> Vec<u64> {
    let layers = shapes.count(&format!("{block}.attentions"));
    (0..layers).map(|l| shapes.count(&format!("{block}.attentions.{l}.transformer_blocks"))).collect()
}

fn uneven(depths: &[u64]) -> bool {
    depths.iter().any(|d| Some(d) != depths.first())
}

/// As diffusers writes them: a count where all layers are as deep, or have none.
fn listed(depths: &[u64]) -> Value {
    if uneven(depths) { json!(depths) } else { depths.first().copied().unwrap_or(1).into() }
}

/// `reverse_transformer_layers_per_block`, where the way up is not as deep as the way down (SSD-1B).
fn reverse_depths(shapes: &Shapes, down: &Value, blocks: u64) -> Option<Value> {
    let own: Vec<Vec<u64>> = (0..blocks).map(|i| layer_depths(shapes, &format!("up_blocks.{i}"))).collect();
    let mirrored = down.as_array()?.iter().rev();
    let same = own.iter().zip(mirrored).all(|(own, down)| own.is_empty() || listed(own) == *down);
    let lists = down.as_array()?.iter().any(Value::is_array);
    (lists || !same).then(|| own.iter().map(|depths| listed(depths)).collect())
}

fn unet(shapes: &Shapes, family: Family, v_prediction: bool) -> Value {
    let mut config = down(shapes);
    let blocks = shapes.count("up_blocks");
    let reverse = config.get("transformer_layers_per_block").and_then(|d| reverse_depths(shapes, d, blocks));
    if let Some(reverse) = reverse {
        config.insert("reverse_transformer_layers_per_block".into(), reverse);
    }
    let types: Vec<&str> = (0..blocks)
        .map(|i| match shapes.count(&format!("up_blocks.{i}.attentions")) {
            0 => "UpBlock2D",
            _ => "CrossAttnUpBlock2D",
        })
        .collect();
    config.insert("_class_name".into(), "UNet2DConditionModel".into());
    config.insert("up_block_types".into(), types.into());
    config.insert("out_channels".into(), shapes.dim("conv_out.weight", 0).into());
    if shapes.has("time_embedding.cond_proj.weight") {
        let width = shapes.dim("time_embedding.cond_proj.weight", 1);
        config.insert("time_cond_proj_dim".into(), width.into());
    }
    let sample_size = match family {
        Family::Sdxl => 128,
        // SD 2's models with v-prediction are those of 768 pixels.
        Family::Sd2 if v_prediction => 96,
        _ => 64,
    };
    config.insert("sample_size".into(), sample_size.into());
    let mid = match (shapes.count("mid_block.attentions"), shapes.count("mid_block.resnets")) {
        (0, 0) => Value::Null,
        (0, _) => "UNetMidBlock2D".into(),
        _ => "UNetMidBlock2DCrossAttn".into(),
    };
    config.insert("mid_block_type".into(), mid);
    Value::Object(config)
}

fn control_net(shapes: &Shapes) -> Value {
    let mut config = down(shapes);
    let stem = "controlnet_cond_embedding";
    if shapes.has("task_embedding") {
        config.insert("_class_name".into(), "ControlNetUnionModel".into());
        config.insert("num_control_type".into(), shapes.dim("task_embedding", 0).into());
        config.insert("num_trans_channel".into(), shapes.dim("task_embedding", 1).into());
        config.insert("num_proj_channel".into(), shapes.dim("spatial_ch_projs.weight", 0).into());
        config.insert("num_trans_layer".into(), shapes.count("transformer_layes").into());
        // 40 channels a head, as the one that its author published.
        config.insert("num_trans_head".into(), (shapes.dim("task_embedding", 1) / 40).max(1).into());
    } else {
        config.insert("_class_name".into(), "ControlNetModel".into());
    }
    config.insert("conditioning_channels".into(), shapes.dim(&format!("{stem}.conv_in.weight"), 1).into());
    config.insert("conditioning_embedding_out_channels".into(), hint_widths(shapes).into());
    config.insert("controlnet_conditioning_channel_order".into(), "rgb".into());
    config.insert("global_pool_conditions".into(), false.into());
    Value::Object(config)
}

/// What shows a Control-LoRA its picture; all else is its model's.
fn control_lora(shapes: &Shapes) -> Value {
    let stem = "controlnet_cond_embedding.conv_in.weight";
    json!({
        "_class_name": CONTROL_LORA,
        "conditioning_channels": shapes.dim(stem, 1),
        "conditioning_embedding_out_channels": hint_widths(shapes),
    })
}

/// Shapes of the weights of each module.
fn lllite(parts: &[Part]) -> Value {
    let mut modules: BTreeMap<&str, BTreeMap<&str, &[u64]>> = BTreeMap::new();
    for part in parts {
        let weight = part.name.strip_suffix(".weight").and_then(|name| name.split_once('.'));
        if let Some((module, layer)) = weight {
            modules.entry(module).or_default().insert(layer, &part.shape);
        }
    }
    json!({ "_class_name": CONTROL_LLLITE, "modules": modules })
}

/// Widths of the layers from pixels to latents: conv_in, then two layers a level, of which the first keeps the width.
fn hint_widths(shapes: &Shapes) -> Vec<u64> {
    let stem = "controlnet_cond_embedding";
    let levels = shapes.count(&format!("{stem}.blocks")) / 2;
    let mut widths = vec![shapes.dim(&format!("{stem}.conv_in.weight"), 0)];
    widths.extend((0..levels).map(|i| shapes.dim(&format!("{stem}.blocks.{}.weight", 2 * i + 1), 0)));
    widths
}

/// A light one has no first convolution; SDXL's sees squares of 16 pixels a side, the others of 8.
fn t2i_adapter(shapes: &Shapes) -> Value {
    let light = !shapes.has("adapter.conv_in.weight");
    let first = if light { "adapter.body.0.in_conv.weight" } else { "adapter.conv_in.weight" };
    let blocks = shapes.count("adapter.body");
    let width = |i: u64| match light {
        true => shapes.dim(&format!("adapter.body.{i}.out_conv.weight"), 0),
        false => shapes.dim(&format!("adapter.body.{i}.resnets.0.block1.weight"), 0),
    };
    let (kind, factor, in_channels) = match (light, shapes.dim(first, 1)) {
        (false, inputs @ (256 | 768)) => ("full_adapter_xl", 16, inputs / 256),
        (false, inputs) => ("full_adapter", 8, inputs / 64),
        (true, inputs) => ("light_adapter", 8, inputs / 64),
    };
    // The last of a light one is as wide as the one before.
    let channels: Vec<u64> = (0..blocks - u64::from(light && blocks > 0)).map(width).collect();
    json!({
        "_class_name": "T2IAdapter",
        "in_channels": in_channels,
        "channels": channels,
        "num_res_blocks": shapes.count("adapter.body.0.resnets"),
        "downscale_factor": factor,
        "adapter_type": kind,
    })
}

/// A VAE alone does not tell by what its model scales latents.
fn vae(shapes: &Shapes, family: Family, alone: bool) -> Value {
    let levels = shapes.count("encoder.down_blocks").max(shapes.count("decoder.up_blocks"));
    let channels: Vec<u64> = (0..levels)
        .map(|i| shapes.dim(&format!("decoder.up_blocks.{}.resnets.0.conv1.weight", levels - 1 - i), 0))
        .collect();
    let (scaling_factor, sample_size) = match family {
        Family::Sdxl => (0.13025, 1024),
        _ => (0.18215, 512),
    };
    json!({
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "in_channels": shapes.dim("encoder.conv_in.weight", 1).max(shapes.dim("decoder.conv_out.weight", 0)),
        "out_channels": shapes.dim("decoder.conv_out.weight", 0),
        "latent_channels": shapes.dim("decoder.conv_in.weight", 1),
        "block_out_channels": channels,
        "down_block_types": vec!["DownEncoderBlock2D"; levels as usize],
        "up_block_types": vec!["UpDecoderBlock2D"; levels as usize],
        "layers_per_block": shapes.count("decoder.up_blocks.0.resnets").saturating_sub(1).max(1),
        "norm_num_groups": 32,
        "sample_size": sample_size,
        "scaling_factor": (!alone).then_some(scaling_factor),
        "force_upcast": true,
        "use_quant_conv": shapes.has("quant_conv.weight"),
        "use_post_quant_conv": shapes.has("post_quant_conv.weight"),
        "mid_block_add_attention": shapes.count("decoder.mid_block.attentions") > 0,
    })
}

/// Class and configuration.
fn text_encoder(shapes: &Shapes, open_clip: bool, projects: bool) -> (&'static str, Value) {
    let hidden_size = shapes.dim("embeddings.token_embedding.weight", 1);
    let class = if projects { "CLIPTextModelWithProjection" } else { "CLIPTextModel" };
    let config = json!({
        "architectures": [class],
        "model_type": "clip_text_model",
        "vocab_size": shapes.dim("embeddings.token_embedding.weight", 0),
        "max_position_embeddings": shapes.dim("embeddings.position_embedding.weight", 0),
        "hidden_size": hidden_size,
        "intermediate_size": shapes.dim("encoder.layers.0.mlp.fc1.weight", 0),
        "num_hidden_layers": shapes.count("encoder.layers"),
        // 64 channels a head in every CLIP.
        "num_attention_heads": (hidden_size / 64).max(1),
        "hidden_act": if open_clip { "gelu" } else { "quick_gelu" },
        "layer_norm_eps": 1e-5,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "projection_dim": if projects { shapes.dim("text_projection.weight", 0) } else { 512 },
    });
    (class, config)
}

/// What stands beside CLIP's vocabulary. OpenCLIP pads with zeros, which are "!".
fn tokenizer_files(open_clip: bool) -> [(&'static str, Value); 2] {
    let (start, end) = ("<|startoftext|>", "<|endoftext|>");
    let pad = if open_clip { "!" } else { end };
    let tokens = json!({"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": pad});
    let mut config = tokens.clone();
    config["model_max_length"] = 77.into();
    config["tokenizer_class"] = "CLIPTokenizer".into();
    [("special_tokens_map.json", tokens), ("tokenizer_config.json", config)]
}

/// Playground's own on the Hub, and for CosXL what diffusers documents of `sigma_schedule`.
fn edm_scheduler(keys: EdmKeys, told: &Told) -> Value {
    // JSON has no NaN, and null would mean the default.
    let told_or = |level: Option<f32>, usual: f32| match level.unwrap_or(usual) {
        level if level.is_finite() => json!(level),
        level => json!(level.to_string()),
    };
    match keys {
        EdmKeys::Playground { .. } => json!({
            "_class_name": "EDMDPMSolverMultistepScheduler",
            "num_train_timesteps": 1000,
            "prediction_type": "epsilon",
            "sigma_data": 0.5,
            "sigma_max": 80.0,
            "sigma_min": 0.002,
        }),
        EdmKeys::CosXl { .. } => json!({
            "_class_name": "EDMEulerScheduler",
            "num_train_timesteps": 1000,
            "prediction_type": "v_prediction",
            "sigma_data": 1.0,
            "sigma_max": told_or(told.sigma_max, 120.0),
            "sigma_min": told_or(told.sigma_min, 0.002),
            "sigma_schedule": "exponential",
        }),
    }
}

/// The Hub's own of that family.
fn scheduler(family: Family, lcm: bool, v_prediction: bool, zero_snr: bool) -> Value {
    let class = match (family, lcm) {
        (_, true) => "LCMScheduler",
        (Family::Sd1, _) => "PNDMScheduler",
        (Family::Sd2, _) => "DDIMScheduler",
        (Family::Sdxl, _) => "EulerDiscreteScheduler",
    };
    let mut config = json!({
        "_class_name": class,
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": if v_prediction { "v_prediction" } else { "epsilon" },
        "clip_sample": false,
        "set_alpha_to_one": lcm,
        "steps_offset": u8::from(!lcm),
        "timestep_spacing": "leading",
    });
    match class {
        "PNDMScheduler" => config["skip_prk_steps"] = true.into(),
        "LCMScheduler" => config["original_inference_steps"] = 50.into(),
        _ => {}
    }
    if zero_snr {
        config["rescale_betas_zero_snr"] = true.into();
    }
    config
}
