//! Single-file checkpoints: which component of a diffusers folder each tensor belongs to, and what it is called
//! there. The original files are those of CompVis' and Stability's code ("LDM"), whose text encoders are CLIP's
//! or OpenCLIP's; ControlNets are those of lllyasviel's code, T2I-Adapters those of TencentARC's, ControlNet-LLLites those of kohya's. Everything that is known of those names stands in the
//! tables here; they agree with diffusers' `loaders/single_file_utils.py`.

use super::fp8;
use super::header::Dtype;
use super::kind::kind;
use super::located::Located;
use super::names;
use super::table::Table;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashSet};

/// A tensor of a component, as (a part of) a tensor of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Index into [`Table::tensors`].
    pub tensor: usize,
    /// What diffusers or transformers calls it; a text encoder's without `text_model.`.
    pub name: String,
    /// Its shape there, row-major.
    pub shape: Vec<u64>,
    /// Its bytes within the tensor of the file.
    pub begin: u64,
    pub end: u64,
    /// The file holds the matrix transposed: `[shape[1], shape[0]]`.
    pub transposed: bool,
}

/// A component's tensors: what others are scaled by, then the others, both in the order of the file.
pub type Parts = Vec<Part>;

/// What a single file holds.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// By diffusers' folder names: `unet`, `vae`, `text_encoder`, `text_encoder_2`, `controlnet` (or what is given as one).
    pub components: BTreeMap<&'static str, Parts>,
    /// Text encoders that have OpenCLIP's names, and with them its activation and padding.
    pub open_clip: HashSet<&'static str>,
    /// Index of SD 2's last attention bias, whose spread tells v-prediction, if it is there.
    pub spread: Option<usize>,
    /// SDXL checkpoints with v-prediction carry a tensor of this name; and one for zero terminal SNR.
    pub v_pred: bool,
    pub ztsnr: bool,
    /// Indices of tensors that tell EDM's noise levels.
    pub edm: Option<EdmKeys>,
    /// The ControlNet is a Control-LoRA: much of it is the model's own UNet, plus factors of differences.
    pub control_lora: bool,
    /// Tensors of the file that no component has.
    pub ignored: Vec<String>,
}

/// Tensors of SDXL checkpoints in EDM's terms; ComfyUI's `supported_models.py` and diffusers' `single_file_utils.py`
/// know them by these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdmKeys {
    /// Mean and deviation of each channel of the latents: Playground v2.5.
    Playground { mean: usize, std: usize },
    /// The largest noise level and, if the file says it, the smallest: CosXL.
    CosXl { max: usize, min: Option<usize> },
}

/// How names of a part of a file become diffusers'.
#[derive(Clone, Copy, PartialEq)]
enum Naming {
    Unet,
    ControlNet,
    Adapter,
    Lllite,
    Vae,
    Clip,
    OpenClip,
}

/// Prefixes of whole checkpoints.
const PREFIXES: &[(&str, &str, Naming)] = &[
    ("model.diffusion_model.", "unet", Naming::Unet),
    ("control_model.", "controlnet", Naming::ControlNet),
    ("first_stage_model.", "vae", Naming::Vae),
    ("cond_stage_model.transformer.", "text_encoder", Naming::Clip),
    ("cond_stage_model.model.", "text_encoder", Naming::OpenClip),
    ("conditioner.embedders.0.transformer.", "text_encoder", Naming::Clip),
    ("conditioner.embedders.1.model.", "text_encoder_2", Naming::OpenClip),
    // SDXL's refiner has this one alone.
    ("conditioner.embedders.0.model.", "text_encoder_2", Naming::OpenClip),
];

/// What every name in a ControlNet-LLLite's file begins with; the rest is a layer of the UNet that it acts in.
pub const LLLITE: &str = "lllite_unet_";

/// Files of one component without any prefix: a tensor that only it has. The first that is found counts.
const BARE: &[(&str, &str, Naming)] = &[
    ("input_hint_block.0.weight", "controlnet", Naming::ControlNet),
    ("controlnet_cond_embedding.conv_in.weight", "controlnet", Naming::ControlNet),
    ("adapter.body.0.resnets.0.block1.weight", "controlnet", Naming::Adapter),
    ("body.0.block1.weight", "controlnet", Naming::Adapter),
    ("body.0.body.0.block1.weight", "controlnet", Naming::Adapter),
    ("decoder.conv_in.weight", "vae", Naming::Vae),
    ("input_blocks.0.0.weight", "unet", Naming::Unet),
    ("time_embedding.linear_1.weight", "unet", Naming::Unet),
];

/// Begins of names that SD files have and no model reads: training's averages, the noise schedule and the loss.
const IGNORED: &[&str] = &["model_ema.", "loss.", "logvar", "lvlb_weights", CONTROL_LORA];

/// An empty tensor of this name says that a file is a Control-LoRA (github.com/Stability-AI; ComfyUI knows it by the same).
const CONTROL_LORA: &str = "lora_controlnet";

/// Begin of a name, what it becomes, and how the rest goes on. `#` stands for a number; in what it becomes,
/// `{n}` is that number, `{m}` the second, and:
/// - `{b}`, `{l}`: block and layer of input block n, where each block has `layers_per_block` layers and one
///   downsampler, and input block 0 is `conv_in`;
/// - `{u}`, `{v}`: block and layer of output block n, where each has `layers_per_block` + 1 layers;
/// - `{a}`, `{j}`: block and layer of a T2I-Adapter's body n, two of each;
/// - `{r}`: decoder level n, counted from the other end;
/// - `{h}`: layer n of a ControlNet's hint: every second is an activation, and the first is `conv_in`.
type Rule = (&'static str, &'static str, Rest);

/// Renamings of the rest of a name.
type Rest = &'static [(&'static str, &'static str)];

const AS_IT_IS: Rest = &[];

const UNET: &[Rule] = &[
    ("time_embed.0.", "time_embedding.linear_1.", AS_IT_IS),
    ("time_embed.2.", "time_embedding.linear_2.", AS_IT_IS),
    ("time_embed.cond_proj.", "time_embedding.cond_proj.", AS_IT_IS),
    ("label_emb.0.0.", "add_embedding.linear_1.", AS_IT_IS),
    ("label_emb.0.2.", "add_embedding.linear_2.", AS_IT_IS),
    ("input_blocks.0.0.", "conv_in.", AS_IT_IS),
    ("input_blocks.#.0.op.", "down_blocks.{b}.downsamplers.0.conv.", AS_IT_IS),
    ("input_blocks.#.0.", "down_blocks.{b}.resnets.{l}.", RESNET),
    ("input_blocks.#.1.", "down_blocks.{b}.attentions.{l}.", AS_IT_IS),
    ("middle_block.0.", "mid_block.resnets.0.", RESNET),
    ("middle_block.1.", "mid_block.attentions.0.", AS_IT_IS),
    ("middle_block.2.", "mid_block.resnets.1.", RESNET),
    ("output_blocks.#.1.conv.", "up_blocks.{u}.upsamplers.0.conv.", AS_IT_IS),
    ("output_blocks.#.2.conv.", "up_blocks.{u}.upsamplers.0.conv.", AS_IT_IS),
    ("output_blocks.#.0.", "up_blocks.{u}.resnets.{v}.", RESNET),
    ("output_blocks.#.1.", "up_blocks.{u}.attentions.{v}.", AS_IT_IS),
    ("out.0.", "conv_norm_out.", AS_IT_IS),
    ("out.2.", "conv_out.", AS_IT_IS),
];

/// Beside those of [`UNET`].
const CONTROL_NET: &[Rule] = &[
    ("zero_convs.#.0.", "controlnet_down_blocks.{n}.", AS_IT_IS),
    ("middle_block_out.0.", "controlnet_mid_block.", AS_IT_IS),
    ("input_hint_block.0.", "controlnet_cond_embedding.conv_in.", AS_IT_IS),
    ("input_hint_block.14.", "controlnet_cond_embedding.conv_out.", AS_IT_IS),
    ("input_hint_block.#.", "controlnet_cond_embedding.blocks.{h}.", AS_IT_IS),
];

/// Light ones have their layers in their blocks; of the others all stand in one list, the first of each block with what leads
/// into it.
const ADAPTER: &[Rule] = &[
    ("conv_in.", "adapter.conv_in.", AS_IT_IS),
    ("body.#.body.#.", "adapter.body.{n}.resnets.{m}.", AS_IT_IS),
    ("body.#.block", "adapter.body.{a}.resnets.{j}.block", AS_IT_IS),
    ("body.#.in_conv.", "adapter.body.{a}.in_conv.", AS_IT_IS),
    ("body.#.out_conv.", "adapter.body.{n}.out_conv.", AS_IT_IS),
];

const RESNET: Rest = &[
    ("in_layers.0.", "norm1."),
    ("in_layers.2.", "conv1."),
    ("emb_layers.1.", "time_emb_proj."),
    ("out_layers.0.", "norm2."),
    ("out_layers.3.", "conv2."),
    ("skip_connection.", "conv_shortcut."),
];

const VAE: &[Rule] = &[
    ("encoder.down.#.block.#.", "encoder.down_blocks.{n}.resnets.{m}.", VAE_RESNET),
    ("encoder.down.#.downsample.conv.", "encoder.down_blocks.{n}.downsamplers.0.conv.", AS_IT_IS),
    ("encoder.mid.block_1.", "encoder.mid_block.resnets.0.", VAE_RESNET),
    ("encoder.mid.attn_1.", "encoder.mid_block.attentions.0.", VAE_ATTENTION),
    ("encoder.mid.block_2.", "encoder.mid_block.resnets.1.", VAE_RESNET),
    ("encoder.norm_out.", "encoder.conv_norm_out.", AS_IT_IS),
    ("decoder.mid.block_1.", "decoder.mid_block.resnets.0.", VAE_RESNET),
    ("decoder.mid.attn_1.", "decoder.mid_block.attentions.0.", VAE_ATTENTION),
    ("decoder.mid.block_2.", "decoder.mid_block.resnets.1.", VAE_RESNET),
    ("decoder.up.#.block.#.", "decoder.up_blocks.{r}.resnets.{m}.", VAE_RESNET),
    ("decoder.up.#.upsample.conv.", "decoder.up_blocks.{r}.upsamplers.0.conv.", AS_IT_IS),
    ("decoder.norm_out.", "decoder.conv_norm_out.", AS_IT_IS),
];

const VAE_RESNET: Rest = &[("nin_shortcut.", "conv_shortcut.")];

/// LDM's own names, and today's diffusers', which some files mix in.
const VAE_ATTENTION: Rest = &[
    ("norm.", "group_norm."),
    ("q.", "to_q."),
    ("k.", "to_k."),
    ("v.", "to_v."),
    ("proj_out.", "to_out.0."),
];

const OPEN_CLIP: &[Rule] = &[
    ("positional_embedding", "embeddings.position_embedding.weight", AS_IT_IS),
    ("token_embedding.", "embeddings.token_embedding.", AS_IT_IS),
    ("transformer.resblocks.#.", "encoder.layers.{n}.", OPEN_CLIP_LAYER),
    ("ln_final.", "final_layer_norm.", AS_IT_IS),
];

const OPEN_CLIP_LAYER: Rest = &[
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
    ("attn.", "self_attn."),
];

/// OpenCLIP keeps queries, keys and values in one matrix, one below the other.
const FUSED: (&str, [&str; 3]) =
    ("self_attn.in_proj_", ["self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."]);
/// OpenCLIP multiplies by this from the right, transformers' linear layer from the left.
const TRANSPOSED: &str = "text_projection";
/// SD 2 conditions on the last but one of OpenCLIP's 24 layers; diffusers' text encoder ends there.
const SD2_LAYERS: u64 = 23;

/// A tensor's index in the table, and its name without the component's prefix.
type Named<'a> = (usize, &'a str, &'a Located);

/// What the numbers of a component's names depend on.
struct Numbers {
    /// Of a T2I-Adapter's file: layers of a block in its list, which a light one does not have.
    listed: u64,
    layers_per_block: u64,
    vae_levels: u64,
}

/// Sorts a file's tensors into components.
///
/// `UnsupportedModel` for a file that is known and not computed here (SD 3, Flux), `BadCheckpoint`
/// for one that holds nothing of Stable Diffusion.
pub fn sort(table: &Table) -> Result<Contents> {
    let root = root(table);
    let has = |name: &str| table.tensors.iter().any(|t| t.name.strip_prefix(root) == Some(name));
    refuse_unsupported(has)?;
    let edm = edm_keys(table, root)?;
    let mut contents = Contents { v_pred: has("v_pred"), ztsnr: has("ztsnr"), edm, ..Contents::default() };
    contents.control_lora = has(CONTROL_LORA);
    let by_component = by_component(table, root, &mut contents.ignored);
    if by_component.is_empty() {
        if let Some(kind) = kind(table.tensors.iter().map(|t| t.name.as_str())) {
            return Err(Error::unsupported(format!(
                "the file is {kind}. Choose a checkpoint of Stable Diffusion 1.x, 2.x or SDXL here"
            )));
        }
        return Err(Error::bad_checkpoint(
            "the file holds no Stable Diffusion model: none of its tensors has a name of one (such as \
             model.diffusion_model.input_blocks.0.0.weight). Choose a checkpoint of Stable Diffusion 1.x, 2.x or SDXL",
        ));
    }
    let sdxl = by_component.contains_key("text_encoder_2");
    for (component, (naming, tensors)) in by_component {
        // SD 2's encoder ends before the last layer, and has no projection.
        let shortened = naming == Naming::OpenClip && !sdxl;
        let mut parts = parts_of(naming, &tensors, shortened, &mut contents.ignored)?;
        if let Some(part) = parts.iter().find(|p| p.shape.contains(&0)) {
            return Err(table.tensors[part.tensor].empty());
        }
        let mut seen = HashSet::new();
        if let Some(twice) = parts.iter().find(|p| !seen.insert(p.name.as_str())) {
            return Err(Error::bad_checkpoint(format!(
                "the file holds {:?} of the {component} twice, under different names. Choose another copy",
                twice.name
            )));
        }
        if naming == Naming::OpenClip {
            contents.open_clip.insert(component);
        }
        if component == "unet" {
            contents.spread = last_attention_bias(&tensors);
        }
        // Scales first, wherever they are in the file: a weight is scaled as it arrives.
        parts.sort_by_key(|p| (!fp8::is_scale(&p.name), table.tensors[p.tensor].order(), p.begin));
        contents.components.insert(component, parts);
    }
    Ok(contents)
}

/// The prefix of the weights' names: training's checkpoints keep them under one, beside optimisers and counters.
fn root(table: &Table) -> &'static str {
    let of_a_model =
        |name: &str| ["model.", "decoder.", "control_model."].iter().any(|p| name.starts_with(p));
    let leads_to_one =
        |root: &&str| table.tensors.iter().any(|t| t.name.strip_prefix(*root).is_some_and(of_a_model));
    ["state_dict.", "module."].into_iter().find(leads_to_one).unwrap_or("")
}

/// Refuses files of models that are known and not computed here, by a tensor that only they have.
fn refuse_unsupported(has: impl Fn(&str) -> bool) -> Result<()> {
    for (name, what) in [
        ("model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", "Stable Diffusion 3"),
        ("double_blocks.0.img_attn.qkv.weight", "Flux"),
        ("difference", "a ControlNet that holds differences to its model"),
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "Flux"),
    ] {
        if has(name) {
            return Err(Error::unsupported(format!(
                "the file is {what}. This engine runs Stable Diffusion 1.x, 2.x and SDXL and whole \
                 ControlNets of theirs; choose such a checkpoint"
            )));
        }
    }
    Ok(())
}

/// The tensors that tell EDM's noise levels. Half of a pair is refused: the network has SDXL's shapes, and would draw
/// without complaint what is not its own.
fn edm_keys(table: &Table, root: &str) -> Result<Option<EdmKeys>> {
    let find = |name: &str| table.tensors.iter().position(|t| t.name.strip_prefix(root) == Some(name));
    let lacks = |has: &str, lacks: &str| {
        Error::bad_checkpoint(format!(
            "the file holds {has} and no {lacks}, so its noise levels are not known. Choose another copy"
        ))
    };
    match (find("edm_mean"), find("edm_std"), find("edm_vpred.sigma_max"), find("edm_vpred.sigma_min")) {
        (Some(mean), Some(std), ..) => Ok(Some(EdmKeys::Playground { mean, std })),
        (Some(_), None, ..) => Err(lacks("edm_mean", "edm_std")),
        (None, Some(_), ..) => Err(lacks("edm_std", "edm_mean")),
        (.., Some(max), min) => Ok(Some(EdmKeys::CosXl { max, min })),
        (.., None, Some(_)) => Err(lacks("edm_vpred.sigma_min", "edm_vpred.sigma_max")),
        _ => Ok(None),
    }
}

/// The tensors of each component, with names that lack its prefix. Names of no component go to `ignored`.
fn by_component<'a>(
    table: &'a Table,
    root: &str,
    ignored: &mut Vec<String>,
) -> BTreeMap<&'static str, (Naming, Vec<Named<'a>>)> {
    let all = || table.tensors.iter().filter_map(|t| t.name.strip_prefix(root));
    let prefixed = all().any(|name| PREFIXES.iter().any(|(p, ..)| name.starts_with(p)));
    let lllite = all().any(|name| name.starts_with(LLLITE));
    let bare = match lllite {
        true => Some(("controlnet", Naming::Lllite)),
        false => {
            let is_there = |(mark, ..): &&(&str, _, _)| all().any(|name| name == *mark);
            BARE.iter().find(is_there).map(|&(_, component, naming)| (component, naming))
        }
    };
    let bare = bare.filter(|_| !prefixed);
    let place = |name: &'a str| {
        if IGNORED.iter().any(|p| name.starts_with(p)) {
            return None;
        }
        if let Some((component, naming)) = bare {
            return Some((component, naming, name));
        }
        PREFIXES.iter().find_map(|&(p, component, naming)| Some((component, naming, name.strip_prefix(p)?)))
    };
    let mut sorted: BTreeMap<&'static str, (Naming, Vec<Named>)> = BTreeMap::new();
    for (i, tensor) in table.tensors.iter().enumerate() {
        match tensor.name.strip_prefix(root).and_then(place) {
            Some((component, naming, name)) => {
                sorted.entry(component).or_insert((naming, Vec::new())).1.push((i, name, tensor));
            }
            None => ignored.push(tensor.name.clone()),
        }
    }
    sorted
}

/// A component's tensors under diffusers' names. Those that no model reads go to `ignored`.
fn parts_of(naming: Naming, tensors: &[Named], shortened: bool, ignored: &mut Vec<String>) -> Result<Parts> {
    let numbers = Numbers::of(tensors);
    let cut_off = |name: &str| {
        let layer =
            name.strip_prefix("encoder.layers.").and_then(|rest| rest.split_once('.')?.0.parse().ok());
        shortened && (layer.is_some_and(|l: u64| l >= SD2_LAYERS) || name.starts_with(TRANSPOSED))
    };
    let mut parts = Parts::new();
    for &(index, name, tensor) in tensors {
        match rename(naming, name, &numbers).filter(|name| !cut_off(name)) {
            Some(name) => split(index, name, tensor, &mut parts)?,
            None => ignored.push(tensor.name.clone()),
        }
    }
    Ok(parts)
}

/// Index of the bias whose spread tells SD 2's models of velocity from those of noise.
fn last_attention_bias(unet: &[Named]) -> Option<usize> {
    let number = |name: &str| name.strip_prefix("output_blocks.")?.split_once('.')?.0.parse::<u64>().ok();
    let biases = unet.iter().filter(|(_, name, _)| name.ends_with(".1.transformer_blocks.0.norm1.bias"));
    biases.filter_map(|(index, name, _)| Some((number(name)?, *index))).max().map(|(_, index)| index)
}

impl Numbers {
    fn of(tensors: &[Named]) -> Numbers {
        let number = |name: &str, pattern: &str| matching(pattern, name).map(|(n, _)| n[0]);
        let of = |pattern: &'static str| tensors.iter().filter_map(move |(_, name, _)| number(name, pattern));
        // The first downsampler follows the layers of the first block; without any there is one block.
        let layers = of("input_blocks.#.0.op.").min().or_else(|| of("input_blocks.#.").max().map(|n| n + 1));
        Numbers {
            layers_per_block: layers.map_or(2, |n| n.saturating_sub(1).max(1)),
            listed: if tensors.iter().any(|(_, name, _)| *name == "body.0.body.0.block1.weight") {
                1
            } else {
                2
            },
            vae_levels: of("decoder.up.#.").max().map_or(4, |n| n + 1),
        }
    }
}

/// What a tensor is called in diffusers; `None` for one that no model reads. `name` is without its prefix. A name
/// that no rule knows stays as it is: it is diffusers' own, or the component will not ask for it.
fn rename(naming: Naming, name: &str, numbers: &Numbers) -> Option<String> {
    let rules: &[&[Rule]] = match naming {
        Naming::Unet => &[UNET],
        Naming::ControlNet => &[CONTROL_NET, UNET],
        Naming::Adapter => &[ADAPTER],
        Naming::Vae => &[VAE],
        Naming::Clip | Naming::Lllite => &[],
        Naming::OpenClip => &[OPEN_CLIP],
    };
    let renamed = rules.iter().copied().flatten().find_map(|(pattern, template, inner)| {
        let (n, rest) = matching(pattern, name)?;
        let mut out = (*template).to_owned();
        let per_block = numbers.layers_per_block + 1;
        let before = n[0].saturating_sub(1);
        for (token, value) in [
            ("{n}", n[0]),
            ("{m}", n[1]),
            ("{b}", before / per_block),
            ("{l}", before % per_block),
            ("{u}", n[0] / per_block),
            ("{v}", n[0] % per_block),
            ("{r}", (numbers.vae_levels - 1).saturating_sub(n[0])),
            ("{h}", (n[0] / 2).saturating_sub(1)),
            ("{a}", n[0] / numbers.listed),
            ("{j}", n[0] % numbers.listed),
        ] {
            if out.contains(token) {
                out = out.replace(token, &value.to_string());
            }
        }
        match inner.iter().find_map(|(from, to)| Some((to, rest.strip_prefix(from)?))) {
            Some((to, rest)) => out.extend([*to, rest]),
            None => out.push_str(rest),
        }
        Some(out)
    });
    let name = renamed.as_deref().unwrap_or(name);
    let name = match naming {
        Naming::Clip | Naming::OpenClip => names::clip(name),
        Naming::Vae => names::vae(name),
        Naming::Unet | Naming::ControlNet | Naming::Adapter | Naming::Lllite => names::unet(name),
    };
    name.filter(|n| *n != "attn_mask").map(|n| n.into_owned())
}

/// The numbers that stand for `#`, and what follows `pattern` in `name`.
fn matching<'a>(pattern: &str, name: &'a str) -> Option<([u64; 2], &'a str)> {
    let mut numbers = [0; 2];
    let mut rest = name;
    for (i, literal) in pattern.split('#').enumerate() {
        if i > 0 {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            // No layer has a number longer than this.
            *numbers.get_mut(i - 1)? = rest.get(..digits)?.parse::<u32>().ok()?.into();
            rest = rest.get(digits..)?;
        }
        rest = rest.strip_prefix(literal)?;
    }
    Some((numbers, rest))
}

/// Appends a tensor, cut where the file fuses three into one.
fn split(index: usize, name: String, tensor: &Located, parts: &mut Parts) -> Result<()> {
    let bytes = tensor.bytes();
    let whole = |name: String, shape: Vec<u64>, transposed: bool| Part {
        tensor: index,
        name,
        shape,
        begin: 0,
        end: bytes,
        transposed,
    };
    let wrong = || {
        Error::bad_checkpoint(format!(
            "tensor {:?} has shape {:?}, which it cannot have in a Stable Diffusion checkpoint. Download \
             the file again",
            tensor.name, tensor.shape
        ))
    };
    if let Some((layer, kind)) = name.split_once(FUSED.0) {
        let [rows, rest @ ..] = tensor.shape.as_slice() else { return Err(wrong()) };
        if !rows.is_multiple_of(3) || !bytes.is_multiple_of(3) {
            return Err(wrong());
        }
        let shape: Vec<u64> = [rows / 3].iter().chain(rest).copied().collect();
        for (i, to) in (0u64..).zip(FUSED.1) {
            let (begin, end) = (i * bytes / 3, (i + 1) * bytes / 3);
            parts.push(Part {
                tensor: index,
                name: format!("{layer}{to}{kind}"),
                shape: shape.clone(),
                begin,
                end,
                transposed: false,
            });
        }
        return Ok(());
    }
    if name == TRANSPOSED {
        // Held whole to be turned: 1280 x 1280 in SDXL.
        let [inner, rows] = *tensor.shape.as_slice() else { return Err(wrong()) };
        if inner > 8192 || rows > 8192 || tensor.dtype == Dtype::F4 {
            return Err(wrong());
        }
        parts.push(whole(format!("{TRANSPOSED}.weight"), vec![rows, inner], true));
        return Ok(());
    }
    // The VAE's attention is convolutions of one pixel in LDM, linear layers in diffusers.
    let shape = match *tensor.shape.as_slice() {
        [o, i, 1, 1] if name.contains(".mid_block.attentions.0.to_") => vec![o, i],
        _ => tensor.shape.clone(),
    };
    parts.push(whole(name, shape, false));
    Ok(())
}
