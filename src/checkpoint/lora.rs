//! LoRA and its kin: whose weights a file changes, and by what. Names are those of kohya's scripts (`lora_unet_`,
//! `lora_te_`, `lora_te1_`, `lora_te2_`; after it diffusers' names of the UNet or the original ones), of diffusers and
//! of PEFT. Formulas are those of PEFT and LyCORIS:
//!
//! - LoRA, LoCon: `scale * up @ down`; with `lora_mid` (a convolution's core) `down` is `mid x down`.
//! - LoHa: `scale * (w1_a @ w1_b) * (w2_a @ w2_b)`, element by element.
//! - LoKr: `scale * kron(w1, w2)`.
//! - DoRA: the changed weight's rows, or its columns, brought to the lengths that the file has.
//! - Full differences (`.diff`, `.diff_b`, and LyCORIS' `.w_norm`, `.b_norm`): added as they are.
//! - GLoRA: `scale * (weight @ a1 @ a2 + b1 @ b2)`, or its older files' `weight @ a2 @ a1 + b2 @ b1`.
//! - OFT, BOFT (LyCORIS', kohya's): the weight's rows, or one shuffle of them after the other, turned block by block by
//!   the Cayley transforms of `oft_blocks`, then each stretched by `rescale`. Alpha times rows is their constraint.
//!
//! `scale` is `alpha / rank`, and 1 where the file has no alpha. OFT of PEFT and IA3 are refused by name.

use super::dense::{cayley, core_times, times, turned};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap};

/// What a tensor of the file is of its module's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Factor {
    Down,
    Up,
    Mid,
    Alpha,
    /// LyCORIS' `dora_scale`, of rows (`[n, 1]`) or of columns (`[1, n]`).
    Magnitude,
    /// PEFT's, always of rows.
    RowLengths,
    /// The difference itself, of a weight or of a bias.
    Full,
    /// Of a method that is not computed here; its name.
    Foreign(&'static str),
    /// LoHa's `hada_w1_a`, `hada_w1_b`, `hada_t1`, and those of the second.
    HadaA(u8),
    HadaB(u8),
    HadaT(u8),
    /// LoKr's `lokr_w1` (1) and `lokr_w2` (2), whole or in parts.
    KronW(u8),
    KronA(u8),
    KronB(u8),
    KronT,
    /// OFT's and BOFT's.
    Blocks,
    Rescale,
    /// GLoRA's `a1` and `a2`, `b1` and `b2`.
    InputPart(u8),
    OutputPart(u8),
}

/// Ends of names, after `.weight` and PEFT's `.default` are cut off. Longer ones first where one ends another.
const FACTORS: &[(&str, Factor)] = &[
    (".lora_linear_layer.down", Factor::Down),
    (".lora_linear_layer.up", Factor::Up),
    (".lora_down", Factor::Down),
    (".lora_up", Factor::Up),
    (".lora_A", Factor::Down),
    (".lora_B", Factor::Up),
    (".lora.down", Factor::Down),
    (".lora.up", Factor::Up),
    ("_lora.down", Factor::Down),
    ("_lora.up", Factor::Up),
    (".lora_mid", Factor::Mid),
    (".alpha", Factor::Alpha),
    (".dora_scale", Factor::Magnitude),
    (".lora_magnitude_vector", Factor::RowLengths),
    (".diff", Factor::Full),
    (".w_norm", Factor::Full),
    (".diff_b", Factor::Full),
    (".b_norm", Factor::Full),
    (".hada_w1_a", Factor::HadaA(1)),
    (".hada_w1_b", Factor::HadaB(1)),
    (".hada_w2_a", Factor::HadaA(2)),
    (".hada_w2_b", Factor::HadaB(2)),
    (".hada_t1", Factor::HadaT(1)),
    (".hada_t2", Factor::HadaT(2)),
    (".lokr_w1_a", Factor::KronA(1)),
    (".lokr_w1_b", Factor::KronB(1)),
    (".lokr_w2_a", Factor::KronA(2)),
    (".lokr_w2_b", Factor::KronB(2)),
    (".lokr_w1", Factor::KronW(1)),
    (".lokr_w2", Factor::KronW(2)),
    (".lokr_t2", Factor::KronT),
    (".oft_blocks", Factor::Blocks),
    (".rescale", Factor::Rescale),
    (".a1", Factor::InputPart(1)),
    (".a2", Factor::InputPart(2)),
    (".b1", Factor::OutputPart(1)),
    (".b2", Factor::OutputPart(2)),
    (".bm", Factor::Foreign("GLoRA with a core (bm)")),
    (".oft_diag", Factor::Foreign("OFT of an early LyCORIS (oft_diag)")),
    (".oft_R", Factor::Foreign("PEFT's OFT")),
    (".boft_R", Factor::Foreign("PEFT's BOFT")),
    (".boft_s", Factor::Foreign("PEFT's BOFT")),
    (".on_input", Factor::Foreign("IA3")),
    (".lora_B.bias", Factor::Foreign("LoRA with biases (lora_bias)")),
    (".lora_up.bias", Factor::Foreign("LoRA with biases (lora_bias)")),
    (".set_weight", Factor::Foreign("replaced weights (set_weight)")),
    (".reshape_weight", Factor::Foreign("reshaped weights (reshape_weight)")),
];

/// The ends of names that mean a bias.
const OF_BIAS: [&str; 2] = [".diff_b", ".b_norm"];

/// Rows that are turned together at most: the time that takes grows with the third power.
const LARGEST_BLOCK: usize = 1280;

/// Refuses a tensor of a file that is added to a model (a LoRA's factor, an embedding's vectors) and could only spoil
/// pictures: one without values, and one with values that f16 does not hold.
///
/// # Errors
/// `bad-checkpoint`, which names the tensor.
pub fn check(tensor: &str, shape: &[u64], values: &[f32]) -> Result<()> {
    if shape.contains(&0) {
        return Err(Error::bad_checkpoint(format!(
            "tensor {tensor:?} is of shape {shape:?}, without any value. The file is broken; take another copy"
        )));
    }
    match values.iter().find(|v| !fits(**v)) {
        None => Ok(()),
        Some(value) => Err(Error::bad_checkpoint(format!(
            "tensor {tensor:?} holds {value}, which is no weight. Its training has failed; choose another file"
        ))),
    }
}

/// Whether f16 holds a value. What is next to infinite in f16 counts as infinite; NaN compares false.
pub fn fits(value: f32) -> bool {
    value.abs() <= 65504.0
}

/// The names of a model's weights, as files of LoRAs write them: without dots.
pub struct Names {
    /// (component, flat name) to the canonical names of the weight and the bias, as far as there are some.
    flat: HashMap<(usize, String), [Option<String>; 2]>,
    /// Of the UNet, for the original names.
    layers_per_block: u64,
}

/// Component 0 is the UNet, 1 and 2 are the text encoders.
const PREFIXES: &[(&str, usize)] = &[
    ("lora_unet_", 0),
    ("lora_te_", 1),
    ("lora_te1_", 1),
    ("lora_te2_", 2),
    ("lycoris_", 0),
    ("diffusion_model.", 0),
    ("text_encoders.clip_l.transformer.", 1),
    ("text_encoders.clip_g.transformer.", 2),
    ("unet.", 0),
    ("text_encoder.", 1),
    ("text_encoder_2.", 2),
];

impl Names {
    /// `weights`: (component, canonical name `....weight` or `....bias`) of all that may be changed.
    pub fn new<'a>(weights: impl Iterator<Item = (usize, &'a str)>) -> Names {
        let mut flat: HashMap<_, [Option<String>; 2]> = HashMap::new();
        for (component, name) in weights {
            for (of, end) in [".weight", ".bias"].into_iter().enumerate() {
                if let Some(module) = name.strip_suffix(end) {
                    flat.entry((component, module.replace('.', "_"))).or_default()[of] =
                        Some(name.to_owned());
                }
            }
        }
        let layers = (0..16u64)
            .take_while(|l| flat.contains_key(&(0, format!("down_blocks_0_resnets_{l}_conv1"))))
            .count();
        Names { flat, layers_per_block: (layers as u64).max(1) }
    }

    /// The weight that a tensor called `key` changes, and what it is of the change; `None` if the model has no
    /// such weight, or the name is no LoRA's.
    pub fn find(&self, key: &str) -> Option<(usize, &str, Factor)> {
        let key = key.strip_suffix(".weight").unwrap_or(key);
        let key = key.strip_suffix(".default").unwrap_or(key);
        let (module, factor) = FACTORS.iter().find_map(|(end, f)| Some((key.strip_suffix(end)?, *f)))?;
        let of = usize::from(OF_BIAS.iter().any(|end| key.ends_with(end)));
        let module = module.strip_prefix("base_model.model.").unwrap_or(module);
        let (component, module) = PREFIXES
            .iter()
            .find_map(|(prefix, c)| Some((*c, module.strip_prefix(prefix)?)))
            .unwrap_or((0, module));
        let mut module = module.replace('.', "_").replace("_processor_", "_");
        if component > 0 {
            module = module.strip_prefix("text_model_").unwrap_or(&module).to_owned();
            // diffusers' older names.
            for (old, new) in
                [("_to_q", "_q_proj"), ("_to_k", "_k_proj"), ("_to_v", "_v_proj"), ("_to_out", "_out_proj")]
            {
                if let Some(start) = module.strip_suffix(old) {
                    module = format!("{start}{new}");
                }
            }
        } else {
            module = self.in_unet(module);
        }
        let name = self.flat.get(&(component, module))?[of].as_ref()?;
        Some((component, name, factor))
    }

    /// The UNet's layer that kohya's files call `module`, without a prefix.
    pub fn layer(&self, module: &str) -> Option<&str> {
        self.flat.get(&(0, self.in_unet(module.to_owned())))?[0].as_ref()?.strip_suffix(".weight")
    }

    /// diffusers' flat name for one of the UNet.
    fn in_unet(&self, module: String) -> String {
        let mut module = self.original(&module).unwrap_or(module);
        if module.ends_with("_to_out") {
            module.push_str("_0");
        }
        module
    }

    /// diffusers' flat name for one of the original UNet.
    fn original(&self, module: &str) -> Option<String> {
        for (from, to) in [
            ("time_embed_0", "time_embedding_linear_1"),
            ("time_embed_2", "time_embedding_linear_2"),
            ("label_emb_0_0", "add_embedding_linear_1"),
            ("label_emb_0_2", "add_embedding_linear_2"),
            ("input_blocks_0_0", "conv_in"),
            ("out_0", "conv_norm_out"),
            ("out_2", "conv_out"),
        ] {
            if module == from {
                return Some(to.into());
            }
        }
        let number = |s: &'_ str| -> Option<(u64, String)> {
            let (n, rest) = s.split_once('_').unwrap_or((s, ""));
            Some((n.parse::<u32>().ok()?.into(), rest.to_owned()))
        };
        let part = |layer: u64, m: u64, rest: &str| -> String {
            let resnet = match rest {
                "in_layers_0" => "norm1",
                "in_layers_2" => "conv1",
                "emb_layers_1" => "time_emb_proj",
                "out_layers_0" => "norm2",
                "out_layers_3" => "conv2",
                "skip_connection" => "conv_shortcut",
                other => other,
            };
            if m == 0 { format!("resnets_{layer}_{resnet}") } else { format!("attentions_{layer}_{rest}") }
        };
        let per = self.layers_per_block + 1;
        if let Some(rest) = module.strip_prefix("input_blocks_") {
            let (n, rest) = number(rest)?;
            let (m, rest) = number(&rest)?;
            let (block, layer) = (n.checked_sub(1)? / per, (n - 1) % per);
            return Some(match rest.as_str() {
                "op" => format!("down_blocks_{block}_downsamplers_0_conv"),
                rest => format!("down_blocks_{block}_{}", part(layer, m, rest)),
            });
        }
        if let Some(rest) = module.strip_prefix("middle_block_") {
            let (n, rest) = number(rest)?;
            return Some(format!("mid_block_{}", part(n / 2, n % 2, &rest)));
        }
        let (n, rest) = number(module.strip_prefix("output_blocks_")?)?;
        let (m, rest) = number(&rest)?;
        Some(match rest.as_str() {
            "conv" => format!("up_blocks_{}_upsamplers_0_conv", n / per),
            rest => format!("up_blocks_{}_{}", n / per, part(n % per, m, rest)),
        })
    }
}

/// A tensor of the file: shape and values, row-major.
pub type Values = (Vec<u64>, Vec<f32>);

/// Sum over the rank, `[rows][rank]` times `[rank][inner][taps]`.
#[derive(Clone, Debug, Default)]
pub struct Product {
    pub rank: usize,
    pub up: Vec<f32>,
    pub down: Vec<f32>,
}

/// How a weight `[rows][inner][taps]` changes.
#[derive(Clone, Debug)]
pub enum Change {
    Product(Product),
    /// Two products, multiplied element by element.
    Hadamard(Product, Product),
    /// `kron(w1, w2)`: `w1` is `[rows / o2][inner / i2]`, `w2` is `[o2][i2][taps]`.
    Kronecker {
        w1: Vec<f32>,
        w2: Vec<f32>,
        o2: usize,
        i2: usize,
    },
    /// As it is added.
    Full(Vec<f32>),
    /// `weight @ left @ right`, `[inner][rank]` and `[rank][inner]` of each tap, plus a product.
    Through {
        rank: usize,
        left: Vec<f32>,
        right: Vec<f32>,
        product: Product,
    },
    Turn(Turn),
}

/// OFT, or BOFT in several stages.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Rows of a block.
    pub size: usize,
    /// Each `[rows / size][size][size]`, and how far apart the rows are that lie beside each other in a block: 1 as they
    /// lie in the weight.
    pub stages: Vec<(usize, Vec<f32>)>,
    /// Of each row, after the last stage.
    pub rescale: Option<Vec<f32>>,
}

/// DoRA: what the changed weight's rows, or its columns (all weights of an input channel), are brought to.
#[derive(Clone, Debug, PartialEq)]
pub enum Magnitude {
    Rows(Vec<f32>),
    Columns(Vec<f32>),
}

/// One module's change.
#[derive(Clone, Debug)]
pub struct Adapter {
    pub change: Change,
    /// alpha / rank.
    pub scale: f32,
    pub magnitude: Option<Magnitude>,
}

impl Adapter {
    /// From the tensors of one module, whose weight is `[rows][inner][taps]`.
    ///
    /// `BadCheckpoint` where factors are missing or do not fit the weight. `name` is for messages.
    pub fn new(
        name: &str,
        tensors: BTreeMap<Factor, Values>,
        [rows, inner, taps]: [usize; 3],
    ) -> Result<Adapter> {
        let mut factors = Factors { name, tensors, rows, inner, taps };
        factors.pad_latents();
        let alpha = factors.tensors.remove(&Factor::Alpha).and_then(|(_, v)| v.first().copied());
        let magnitude = factors.magnitude()?;
        let has = |factor| factors.tensors.contains_key(&factor);
        let (change, rank) = if has(Factor::Full) {
            (Change::Full(factors.take(Factor::Full, &[rows, inner, taps], "difference")?), None)
        } else if has(Factor::Down) || has(Factor::Up) {
            factors.product()?
        } else if has(Factor::HadaA(1)) {
            factors.hadamard()?
        } else if has(Factor::Blocks) {
            (factors.turn(alpha)?, None)
        } else if has(Factor::InputPart(1)) || has(Factor::OutputPart(1)) {
            factors.through()?
        } else {
            factors.kronecker()?
        };
        if magnitude.is_some() && matches!(change, Change::Turn(_) | Change::Through { .. }) {
            let message =
                format!("{name} has DoRA's lengths beside OFT, BOFT or GLoRA, which is not computed here");
            return Err(Error::unsupported(message + ". Choose another LoRA"));
        }
        // LyCORIS: two whole matrices are taken as they are.
        let scale = match (rank, alpha) {
            (Some(rank), Some(alpha)) => alpha / rank.max(1) as f32,
            _ => 1.0,
        };
        Ok(Adapter { change, scale, magnitude })
    }
}

/// The tensors of one module, not yet used, and the weight that they must fit: `[rows][inner][taps]`.
struct Factors<'a> {
    name: &'a str,
    tensors: BTreeMap<Factor, Values>,
    rows: usize,
    inner: usize,
    taps: usize,
}

/// A change, and the rank that its alpha is divided by; two whole matrices have none.
type Ranked = (Change, Option<usize>);

impl Factors<'_> {
    fn wrong(&self, what: &str) -> Error {
        let Factors { name, rows, inner, taps, .. } = self;
        Error::bad_checkpoint(format!(
            "the LoRA's {what} of {name} is missing or does not fit this model's weight of {rows}x{inner}x{taps}. \
             Choose a LoRA that was made for this kind of model"
        ))
    }

    /// Zeros for the channels that an inpainting model's first layer has behind those of the latents (A1111's
    /// `networks.py`), where the file's has those of the latents only.
    fn pad_latents(&mut self) {
        let Factors { inner, .. } = *self;
        if !self.name.starts_with("conv_in.") || inner <= 4 {
            return;
        }
        let by_input = [Factor::Down, Factor::HadaB(1), Factor::HadaB(2), Factor::Full];
        for (_, (shape, values)) in self.tensors.iter_mut().filter(|(f, _)| by_input.contains(f)) {
            let taps: u64 = shape.iter().skip(2).product();
            if shape.get(1) != Some(&4) || taps == 0 {
                continue;
            }
            let (from, to) = (4 * taps as usize, inner * taps as usize);
            let padded = values
                .chunks(from)
                .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, to - from)));
            *values = padded.collect();
            shape[1] = inner as u64;
        }
    }

    /// A dimension of a tensor; `what` is for the message where there is none. 0, and one beyond the number of values,
    /// which an empty tensor may have, are refused, so that nothing is made of its size.
    fn dim(&self, factor: Factor, axis: usize, what: &str) -> Result<usize> {
        let dim = self.tensors.get(&factor).and_then(|(shape, values)| {
            let n = usize::try_from(*shape.get(axis)?).ok()?;
            (1..=values.len()).contains(&n).then_some(n)
        });
        dim.ok_or_else(|| self.wrong(what))
    }

    /// The values of a tensor, as many as this shape has.
    fn take(&mut self, factor: Factor, shape: &[usize], what: &str) -> Result<Vec<f32>> {
        let len = shape.iter().try_fold(1, |n: usize, &d| n.checked_mul(d));
        let values = self.tensors.remove(&factor).map(|(_, values)| values);
        values.filter(|v| Some(v.len()) == len).ok_or_else(|| self.wrong(what))
    }

    /// DoRA's lengths. `[1, n]` are those of columns, as LyCORIS and ComfyUI have it, unless only rows are n.
    fn magnitude(&mut self) -> Result<Option<Magnitude>> {
        if let Some((_, values)) = self.tensors.remove(&Factor::RowLengths) {
            let fit = values.len() == self.rows;
            return if fit { Ok(Some(Magnitude::Rows(values))) } else { Err(self.wrong("magnitude vector")) };
        }
        let Some((shape, values)) = self.tensors.remove(&Factor::Magnitude) else { return Ok(None) };
        let lies = shape.len() > 1 && shape[0] == 1 && self.rows != 1;
        let (rows, columns) = (values.len() == self.rows, values.len() == self.inner);
        match (lies, rows, columns) {
            (true, _, true) | (false, false, true) => Ok(Some(Magnitude::Columns(values))),
            (_, true, _) => Ok(Some(Magnitude::Rows(values))),
            _ => Err(self.wrong("dora_scale")),
        }
    }

    /// LoRA and LoCon.
    fn product(&mut self) -> Result<Ranked> {
        let Factors { rows, inner, taps, .. } = *self;
        let rank = self.dim(Factor::Down, 0, "lora_down")?;
        if !self.tensors.contains_key(&Factor::Mid) {
            let up = self.take(Factor::Up, &[rows, rank], "lora_up")?;
            let down = self.take(Factor::Down, &[rank, inner, taps], "lora_down")?;
            return Ok((Change::Product(Product { rank, up, down }), Some(rank)));
        }
        let outer = self.dim(Factor::Mid, 0, "lora_mid")?;
        let up = self.take(Factor::Up, &[rows, outer], "lora_up")?;
        let down = self.take(Factor::Down, &[rank, inner], "lora_down")?;
        let mid = self.take(Factor::Mid, &[outer, rank, taps], "lora_mid")?;
        let down = core_times(&mid, &down, [outer, rank, inner, taps]);
        Ok((Change::Product(Product { rank: outer, up, down }), Some(rank)))
    }

    /// LoHa.
    fn hadamard(&mut self) -> Result<Ranked> {
        let rank = self.dim(Factor::HadaB(1), 0, "hada_w1_b")?;
        let (first, second) = (self.hadamard_side(1)?, self.hadamard_side(2)?);
        Ok((Change::Hadamard(first, second), Some(rank)))
    }

    fn hadamard_side(&mut self, side: u8) -> Result<Product> {
        let Factors { rows, inner, taps, .. } = *self;
        let (a, b, core) = (Factor::HadaA(side), Factor::HadaB(side), Factor::HadaT(side));
        let rank = self.dim(b, 0, "hada_w_b")?;
        if !self.tensors.contains_key(&core) {
            let up = self.take(a, &[rows, rank], "hada_w_a")?;
            let down = self.take(b, &[rank, inner, taps], "hada_w_b")?;
            return Ok(Product { rank, up, down });
        }
        let outer = self.dim(core, 0, "hada_t")?;
        let a = self.take(a, &[outer, rows], "hada_w_a")?;
        let b = self.take(b, &[rank, inner], "hada_w_b")?;
        let core = self.take(core, &[outer, rank, taps], "hada_t")?;
        let down = core_times(&core, &b, [outer, rank, inner, taps]);
        Ok(Product { rank: outer, up: turned(&a, outer, rows), down })
    }

    /// LoKr. The second matrix' shape follows from the first's; its rank counts where it has one.
    fn kronecker(&mut self) -> Result<Ranked> {
        let (o1, i1, w1, first_rank) = self.kronecker_first()?;
        if o1 == 0 || i1 == 0 || !self.rows.is_multiple_of(o1) || !self.inner.is_multiple_of(i1) {
            return Err(self.wrong("lokr_w1"));
        }
        let (o2, i2) = (self.rows / o1, self.inner / i1);
        let (w2, second_rank) = self.kronecker_second(o2, i2)?;
        Ok((Change::Kronecker { w1, w2, o2, i2 }, second_rank.or(first_rank)))
    }

    /// The first matrix: rows, columns, values, and its rank where it is in parts.
    fn kronecker_first(&mut self) -> Result<(usize, usize, Vec<f32>, Option<usize>)> {
        if let Some((shape, values)) = self.tensors.remove(&Factor::KronW(1)) {
            return match shape[..] {
                [o, i, ..] if o.checked_mul(i) == Some(values.len() as u64) => {
                    Ok((o as usize, i as usize, values, None))
                }
                _ => Err(self.wrong("lokr_w1")),
            };
        }
        let (a, b) = (Factor::KronA(1), Factor::KronB(1));
        let rows = self.dim(a, 0, "lokr_w1")?;
        let (rank, columns) = (self.dim(b, 0, "lokr_w1")?, self.dim(b, 1, "lokr_w1")?);
        let a = self.take(a, &[rows, rank], "lokr_w1_a")?;
        let b = self.take(b, &[rank, columns], "lokr_w1_b")?;
        Ok((rows, columns, times(&a, &b, [rows, rank, columns]), Some(rank)))
    }

    /// The second matrix, `[rows][columns][taps]`, and its rank where it is in parts.
    fn kronecker_second(&mut self, rows: usize, columns: usize) -> Result<(Vec<f32>, Option<usize>)> {
        let taps = self.taps;
        if self.tensors.contains_key(&Factor::KronW(2)) {
            return Ok((self.take(Factor::KronW(2), &[rows, columns, taps], "lokr_w2")?, None));
        }
        let (a, b, core) = (Factor::KronA(2), Factor::KronB(2), Factor::KronT);
        let rank = self.dim(b, 0, "lokr_w2")?;
        if !self.tensors.contains_key(&core) {
            let a = self.take(a, &[rows, rank], "lokr_w2_a")?;
            let b = self.take(b, &[rank, columns, taps], "lokr_w2_b")?;
            return Ok((times(&a, &b, [rows, rank, columns * taps]), Some(rank)));
        }
        let outer = self.dim(core, 0, "lokr_t2")?;
        let a = turned(&self.take(a, &[outer, rows], "lokr_w2_a")?, outer, rows);
        let b = self.take(b, &[rank, columns], "lokr_w2_b")?;
        let core = self.take(core, &[outer, rank, taps], "lokr_t2")?;
        let down = core_times(&core, &b, [outer, rank, columns, taps]);
        Ok((times(&a, &down, [rows, outer, columns * taps]), Some(rank)))
    }

    /// OFT, and BOFT where the blocks have a dimension more.
    fn turn(&mut self, alpha: Option<f32>) -> Result<Change> {
        let rows = self.rows;
        let (shape, blocks) = self.tensors.remove(&Factor::Blocks).ok_or_else(|| self.wrong("oft_blocks"))?;
        let (stages, size) = match shape[..] {
            [_, size, _] => (1, size as usize),
            [stages, _, size, _] => (stages as usize, size as usize),
            _ => return Err(self.wrong("oft_blocks")),
        };
        let whole = (1..=rows).contains(&size)
            && rows.is_multiple_of(size)
            && rows.checked_mul(size).and_then(|n| n.checked_mul(stages)) == Some(blocks.len())
            && stages > 0;
        // The rows that a stage of BOFT shuffles.
        let halves = |stage: usize| (size / 2).checked_shl(stage as u32).filter(|k| *k > 0);
        let fits = |stage| halves(stage).is_some_and(|k| rows.is_multiple_of(2 * k));
        let shuffled = shape.len() == 4;
        if !whole || shuffled && (size % 2 > 0 || stages > 32 || !(0..stages).all(fits)) {
            return Err(self.wrong("oft_blocks"));
        }
        if size > LARGEST_BLOCK {
            return Err(Error::unsupported(format!(
                "the LoRA turns {} rows of {} at once; blocks of {LARGEST_BLOCK} at most are computed here. Choose one \
                 with smaller blocks",
                size, self.name
            )));
        }
        let limit = alpha.filter(|a| *a > 0.0).map_or(f64::INFINITY, |a| f64::from(a) * rows as f64);
        let turned = cayley(&blocks, size, limit, !shuffled);
        let stages = turned.chunks_exact(rows * size).enumerate();
        let apart = |stage| if shuffled { halves(stage).unwrap_or(1) } else { 1 };
        let stages = stages.map(|(stage, blocks)| (apart(stage), blocks.to_vec())).collect();
        let has = self.tensors.contains_key(&Factor::Rescale);
        let rescale = has.then(|| self.take(Factor::Rescale, &[rows], "rescale")).transpose()?;
        Ok(Change::Turn(Turn { size, stages, rescale }))
    }

    /// GLoRA. Older files have the factors the other way round (ComfyUI `weight_adapter/glora.py`).
    fn through(&mut self) -> Result<Ranked> {
        let Factors { rows, inner, taps, .. } = *self;
        let axis = |factor, axis| self.dim(factor, axis, "a1, a2, b1 or b2");
        let (a1, b1) = (Factor::InputPart(1), Factor::OutputPart(1));
        let (a2, b2) = (Factor::InputPart(2), Factor::OutputPart(2));
        let is_new = axis(a1, 0)? == inner && axis(b1, 0)? == rows;
        let (rank, [left, right, up, down]) = match is_new {
            true => (axis(a1, 1)?, [a1, a2, b1, b2]),
            false if taps == 1 => (axis(a1, 0)?, [a2, a1, b2, b1]),
            false => return Err(self.wrong("a1, a2, b1 or b2")),
        };
        let mut take = |factor, shape: &[usize]| self.take(factor, shape, "a1, a2, b1 or b2");
        let (left, right) = (take(left, &[inner, rank])?, take(right, &[rank, inner])?);
        let product = Product { rank, up: take(up, &[rows, rank])?, down: take(down, &[rank, inner, taps])? };
        Ok((Change::Through { rank, left, right, product }, Some(rank)))
    }
}
