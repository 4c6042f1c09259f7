//! LoRA and its kin: whose weights a file changes, and by what. Names are those of kohya's scripts (`lora_unet_`,
//! `lora_te_`, `lora_te1_`, `lora_te2_`; after it diffusers' names of the UNet or the original ones), of diffusers and
//! of PEFT. Formulas are those of PEFT and LyCORIS:
//!
//! - LoRA, LoCon: `scale * up @ down`; with `lora_mid` (a convolution's core) `down` is `mid x down`.
//! - LoHa: `scale * (w1_a @ w1_b) * (w2_a @ w2_b)`, element by element.
//! - LoKr: `scale * kron(w1, w2)`.
//! - DoRA: the changed weight's rows brought to the lengths that the file has.
//!
//! `scale` is `alpha / rank`, and 1 where the file has no alpha.

use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap};

/// What a tensor of the file is of its module's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Factor {
    Down,
    Up,
    Mid,
    Alpha,
    Magnitude,
    /// LoHa's `hada_w1_a`, `hada_w1_b`, `hada_t1`, and those of the second.
    HadaA(u8),
    HadaB(u8),
    HadaT(u8),
    /// LoKr's `lokr_w1` (1) and `lokr_w2` (2), whole or in parts.
    KronW(u8),
    KronA(u8),
    KronB(u8),
    KronT,
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
    (".lora_magnitude_vector", Factor::Magnitude),
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
];

/// The names of a model's weights, as files of LoRAs write them: without dots.
pub struct Names {
    /// (component, flat name) to the canonical name of the weight.
    flat: HashMap<(usize, String), String>,
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
    ("unet.", 0),
    ("text_encoder.", 1),
    ("text_encoder_2.", 2),
];

impl Names {
    /// `weights`: (component, canonical name `....weight`) of every matrix that may be changed.
    pub fn new<'a>(weights: impl Iterator<Item = (usize, &'a str)>) -> Names {
        let mut flat = HashMap::new();
        for (component, name) in weights {
            if let Some(module) = name.strip_suffix(".weight") {
                flat.insert((component, module.replace('.', "_")), name.to_owned());
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
            if let Some(original) = self.original(&module) {
                module = original;
            }
            if module.ends_with("_to_out") {
                module.push_str("_0");
            }
        }
        self.flat.get(&(component, module)).map(|name| (component, name.as_str(), factor))
    }

    /// diffusers' flat name for one of the original UNet.
    fn original(&self, module: &str) -> Option<String> {
        for (from, to) in [
            ("time_embed_0", "time_embedding_linear_1"),
            ("time_embed_2", "time_embedding_linear_2"),
            ("label_emb_0_0", "add_embedding_linear_1"),
            ("label_emb_0_2", "add_embedding_linear_2"),
            ("input_blocks_0_0", "conv_in"),
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
                "in_layers_2" => "conv1",
                "emb_layers_1" => "time_emb_proj",
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
}

/// One module's change.
#[derive(Clone, Debug)]
pub struct Adapter {
    pub change: Change,
    /// alpha / rank.
    pub scale: f32,
    /// DoRA: the length of each row.
    pub magnitude: Option<Vec<f32>>,
}

impl Adapter {
    /// From the tensors of one module, whose weight is `[rows][inner][taps]`.
    ///
    /// `BadCheckpoint` where factors are missing or do not fit the weight, `UnsupportedModel` for DoRA over input
    /// channels. `name` is for messages.
    pub fn new(
        name: &str,
        mut f: BTreeMap<Factor, Values>,
        [rows, inner, taps]: [usize; 3],
    ) -> Result<Adapter> {
        let wrong = |what: &str| {
            Error::bad_checkpoint(format!(
                "the LoRA's {what} of {name} is missing or does not fit this model's weight of {rows}x{inner}x{taps}. \
                 Choose a LoRA that was made for this kind of model"
            ))
        };
        let sized = |v: Option<Values>, len: usize, what: &str| -> Result<Vec<f32>> {
            v.map(|(_, values)| values).filter(|v| v.len() == len).ok_or_else(|| wrong(what))
        };
        let first = |v: Option<&Values>| v.and_then(|(shape, _)| shape.first().map(|&n| n as usize));
        let last = |v: Option<&Values>| v.and_then(|(shape, _)| shape.get(1).map(|&n| n as usize));
        let alpha = f.remove(&Factor::Alpha).and_then(|(_, v)| v.first().copied());
        let magnitude = match f.remove(&Factor::Magnitude) {
            None => None,
            Some((_, v)) if v.len() == rows => Some(v),
            Some((_, v)) if v.len() == inner => {
                return Err(Error::unsupported(format!(
                    "the LoRA has magnitudes (dora_scale) of {name}'s input channels; those of its outputs are \
                     supported. Choose a LoRA without"
                )));
            }
            Some(_) => return Err(wrong("dora_scale")),
        };
        let (change, rank) = if f.contains_key(&Factor::Down) || f.contains_key(&Factor::Up) {
            let mid = f.remove(&Factor::Mid);
            let inside = first(f.get(&Factor::Down)).ok_or_else(|| wrong("lora_down"))?;
            let rank = first(mid.as_ref()).unwrap_or(inside);
            let up = sized(f.remove(&Factor::Up), rows * rank, "lora_up")?;
            let down = match mid {
                None => sized(f.remove(&Factor::Down), rank * inner * taps, "lora_down")?,
                Some(mid) => {
                    let down = sized(f.remove(&Factor::Down), inside * inner, "lora_down")?;
                    let mid = sized(Some(mid), rank * inside * taps, "lora_mid")?;
                    core_times(&mid, &down, [rank, inside, inner, taps])
                }
            };
            (Change::Product(Product { rank, up, down }), inside)
        } else if f.contains_key(&Factor::HadaA(1)) {
            let mut both = Vec::new();
            let dim = first(f.get(&Factor::HadaB(1))).ok_or_else(|| wrong("hada_w1_b"))?;
            for i in [1, 2] {
                let rank = first(f.get(&Factor::HadaB(i))).ok_or_else(|| wrong("hada_w_b"))?;
                let a = f.remove(&Factor::HadaA(i));
                let b = f.remove(&Factor::HadaB(i));
                both.push(match f.remove(&Factor::HadaT(i)) {
                    None => Product {
                        rank,
                        up: sized(a, rows * rank, "hada_w_a")?,
                        down: sized(b, rank * inner * taps, "hada_w_b")?,
                    },
                    Some(core) => {
                        let outer = first(Some(&core)).ok_or_else(|| wrong("hada_t"))?;
                        let a = sized(a, outer * rows, "hada_w_a")?;
                        let b = sized(b, rank * inner, "hada_w_b")?;
                        let core = sized(Some(core), outer * rank * taps, "hada_t")?;
                        let down = core_times(&core, &b, [outer, rank, inner, taps]);
                        Product { rank: outer, up: turned(&a, outer, rows), down }
                    }
                });
            }
            let second = both.pop().ok_or_else(|| wrong("hada_w2"))?;
            let first = both.pop().ok_or_else(|| wrong("hada_w1"))?;
            (Change::Hadamard(first, second), dim)
        } else {
            let mut dim = None;
            // The second factor's shape follows from the first's.
            let [w1, a, b] =
                [Factor::KronW(1), Factor::KronA(1), Factor::KronB(1)].map(|name| f.remove(&name));
            let (o1, i1, w1) = match w1 {
                Some((shape, v)) => match shape[..] {
                    [o, i, ..] if (o * i) as usize == v.len() => (o as usize, i as usize, v),
                    _ => return Err(wrong("lokr_w1")),
                },
                None => {
                    let o = first(a.as_ref()).ok_or_else(|| wrong("lokr_w1"))?;
                    let i = last(b.as_ref()).ok_or_else(|| wrong("lokr_w1"))?;
                    let r = first(b.as_ref()).ok_or_else(|| wrong("lokr_w1"))?;
                    dim = Some(r);
                    let (a, b) = (sized(a, o * r, "lokr_w1_a")?, sized(b, r * i, "lokr_w1_b")?);
                    (o, i, times(&a, &b, [o, r, i]))
                }
            };
            if o1 == 0 || i1 == 0 || !rows.is_multiple_of(o1) || !inner.is_multiple_of(i1) {
                return Err(wrong("lokr_w1"));
            }
            let (o2, i2) = (rows / o1, inner / i1);
            let w2 = match f.remove(&Factor::KronW(2)) {
                w2 @ Some(_) => sized(w2, o2 * i2 * taps, "lokr_w2")?,
                None => {
                    let (a, b) = (f.remove(&Factor::KronA(2)), f.remove(&Factor::KronB(2)));
                    let r = first(b.as_ref()).ok_or_else(|| wrong("lokr_w2"))?;
                    dim = Some(r);
                    match f.remove(&Factor::KronT) {
                        None => {
                            let a = sized(a, o2 * r, "lokr_w2_a")?;
                            times(&a, &sized(b, r * i2 * taps, "lokr_w2_b")?, [o2, r, i2 * taps])
                        }
                        Some(core) => {
                            let outer = first(Some(&core)).ok_or_else(|| wrong("lokr_t2"))?;
                            let a = turned(&sized(a, outer * o2, "lokr_w2_a")?, outer, o2);
                            let b = sized(b, r * i2, "lokr_w2_b")?;
                            let core = sized(Some(core), outer * r * taps, "lokr_t2")?;
                            let down = core_times(&core, &b, [outer, r, i2, taps]);
                            times(&a, &down, [o2, outer, i2 * taps])
                        }
                    }
                }
            };
            // LyCORIS: two whole matrices are taken as they are.
            let Some(dim) = dim else {
                let change = Change::Kronecker { w1, w2, o2, i2 };
                return Ok(Adapter { change, scale: 1.0, magnitude });
            };
            (Change::Kronecker { w1, w2, o2, i2 }, dim)
        };
        Ok(Adapter { change, scale: alpha.map_or(1.0, |a| a / rank.max(1) as f32), magnitude })
    }
}

/// `[m][k]` times `[k][n]`.
fn times(a: &[f32], b: &[f32], [m, k, n]: [usize; 3]) -> Vec<f32> {
    let mut out = vec![0.0; m * n];
    for (row, a) in out.chunks_exact_mut(n.max(1)).zip(a.chunks_exact(k.max(1))) {
        for (&a, b) in a.iter().zip(b.chunks_exact(n.max(1))) {
            row.iter_mut().zip(b).for_each(|(o, b)| *o += a * b);
        }
    }
    out
}

/// `core` `[r][s][taps]` and `b` `[s][inner]` to `[r][inner][taps]`.
fn core_times(core: &[f32], b: &[f32], [r, s, inner, taps]: [usize; 4]) -> Vec<f32> {
    let mut out = vec![0.0; r * inner * taps];
    for i in 0..r {
        for j in 0..s {
            let core = &core[(i * s + j) * taps..][..taps];
            for (c, b) in b[j * inner..][..inner].iter().enumerate() {
                let to = &mut out[(i * inner + c) * taps..][..taps];
                to.iter_mut().zip(core).for_each(|(o, k)| *o += b * k);
            }
        }
    }
    out
}

/// `[n][m]` to `[m][n]`.
fn turned(a: &[f32], n: usize, m: usize) -> Vec<f32> {
    (0..n * m).map(|i| a[i % n * m + i / n]).collect()
}
