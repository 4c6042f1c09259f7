//! RRDBNet, the generator of ESRGAN (Wang et al. 2018) and Real-ESRGAN (Wang et al. 2021): pictures enlarged. All
//! that it is can be read from its tensors' names and shapes.

use crate::error::{Error, Result};
use crate::gpu::{Recorder, Tensor};
use crate::ops::{self, Activation, Conv, Epilogue, Input};
use std::collections::BTreeMap;

/// What the shapes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Pixels a side that are laid into channels before the first convolution (`pixel_unshuffle`): 1, 2 or 4.
    pub unshuffle: u32,
    /// Convolutions before which the picture is doubled.
    pub doublings: u32,
    /// Width of the trunk: 64.
    features: u32,
    /// What each layer of a dense block adds: 32.
    growth: u32,
    /// 23; Real-ESRGAN's anime model has 6.
    blocks: u32,
}

/// A weight of [`forward`] and how it comes from a tensor of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// As `forward` names it, with `.weight` or `.bias`.
    pub name: String,
    /// The file's tensor, by Real-ESRGAN's name.
    pub tensor: String,
    /// The part of its input channels; `None`: all of it, a bias.
    pub channels: Option<std::ops::Range<u32>>,
    /// What its values are multiplied by.
    pub scale: f32,
}

/// Layers of a dense block.
const LAYERS: u32 = 5;
/// Share of a block's result that is added to what came in.
const RESIDUAL: f32 = 0.2;

/// Real-ESRGAN's names for those of a file, in the file's order: BasicSR's own (in `params_ema` or `params`), ESRGAN's
/// (`RRDB_trunk.0.RDB1.conv1`, `trunk_conv`, `HRconv`), and those of its first release (`model.1.sub.0.RDB1.conv1.0`).
///
/// # Errors
/// `unsupported-model` for a name that no RRDBNet has.
pub fn canonical(names: &[&str]) -> Result<Vec<String>> {
    let bare = |name: &str| {
        ["params_ema.", "params.", "state_dict.", "module."]
            .iter()
            .fold(name.to_owned(), |n, p| n.strip_prefix(p).map_or(n.clone(), str::to_owned))
    };
    let bare: Vec<String> = names.iter().map(|n| bare(n)).collect();
    // The first release counts layers, activations and upsamplers too: the last two convolutions are conv_hr and
    // conv_last, those between them and the trunk the upsamplers'.
    let mut places: Vec<u32> =
        bare.iter().filter_map(|n| n.strip_prefix("model.")?.strip_suffix(".weight")?.parse().ok()).collect();
    places.sort_unstable();
    let after = |place: u32| -> Option<String> {
        let i = places.iter().position(|&p| p == place)?;
        Some(match places.len() - i {
            _ if i == 0 => "conv_first".into(),
            1 => "conv_last".into(),
            2 => "conv_hr".into(),
            _ => format!("conv_up{i}"),
        })
    };
    let one = |name: &String| -> Option<String> {
        let (path, kind) = name.rsplit_once('.')?;
        let parts: Vec<&str> = path.split('.').collect();
        let path = match parts[..] {
            ["model", "1", "sub", i, rdb, conv, "0"] | ["RRDB_trunk" | "body", i, rdb, conv] => {
                i.parse::<u32>().ok()?;
                format!("body.{i}.{}.{conv}", rdb.to_lowercase())
            }
            ["model", "1", "sub", _] | ["trunk_conv" | "conv_body"] => "conv_body".into(),
            ["model", place] => after(place.parse().ok()?)?,
            ["HRconv" | "conv_hr"] => "conv_hr".into(),
            [name @ ("conv_first" | "conv_last")] => name.into(),
            [name] => format!("conv_up{}", name.strip_prefix("upconv").or(name.strip_prefix("conv_up"))?),
            _ => return None,
        };
        matches!(kind, "weight" | "bias").then(|| format!("{path}.{kind}"))
    };
    let refuse = |name: &String| {
        Error::unsupported(format!(
            "It has a tensor {name:?}, as no ESRGAN's RRDBNet has. Choose an upscaler of that kind, such as \
             RealESRGAN_x4plus.pth"
        ))
    };
    bare.iter().map(|name| one(name).ok_or_else(|| refuse(name))).collect()
}

impl Config {
    /// What the tensors, by [`canonical`] names, make.
    ///
    /// # Errors
    /// `bad-checkpoint` where one is missing or of another shape, `unsupported-model` for another kind of RRDBNet.
    pub fn of(shapes: &BTreeMap<String, Vec<u64>>) -> Result<Config> {
        let shape = |name: &str| {
            shapes.get(name).ok_or_else(|| {
                Error::bad_checkpoint(format!("no ESRGAN: it lacks {name}. Download the file again"))
            })
        };
        // Sizes of a trunk: more is no model, and would overflow what is computed from it.
        let size = |name: &str, axis: usize| match shape(name)?.get(axis) {
            Some(&n) if (1..=1024).contains(&n) => Ok(n as u32),
            _ => Err(Error::bad_checkpoint(format!("{name} is {:?}, no 3x3 convolution's", shape(name)?))),
        };
        let features = size("conv_first.weight", 0)?;
        let growth = size("body.0.rdb1.conv1.weight", 0)?;
        let input = size("conv_first.weight", 1)?;
        let unshuffle = match input {
            3 => 1,
            12 => 2,
            48 => 4,
            other => {
                return Err(Error::unsupported(format!(
                    "An upscaler of {other} input channels, where RGB has 3"
                )));
            }
        };
        if size("conv_last.weight", 0)? != 3 || !features.is_multiple_of(4) || !growth.is_multiple_of(4) {
            return Err(Error::unsupported(format!(
                "An upscaler {features} wide that grows by {growth}: multiples of 4 and RGB are read"
            )));
        }
        let blocks =
            (0..).take_while(|i| shapes.contains_key(&format!("body.{i}.rdb1.conv1.weight"))).count();
        let doublings = (1..).take_while(|i| shapes.contains_key(&format!("conv_up{i}.weight"))).count();
        if blocks > 64 || doublings > 3 {
            return Err(Error::unsupported(format!(
                "An upscaler of {blocks} blocks that doubles {doublings} times"
            )));
        }
        let config =
            Config { unshuffle, doublings: doublings as u32, features, growth, blocks: blocks as u32 };
        let convs = config.convs();
        for (name, channels, out) in &convs {
            let (weight, bias) = (shape(&format!("{name}.weight"))?, shape(&format!("{name}.bias"))?);
            let due = [*out as u64, *channels as u64, 3, 3];
            if weight[..] != due || bias[..] != due[..1] {
                return Err(Error::bad_checkpoint(format!(
                    "{name} is {weight:?} and {bias:?}, where {due:?} is due"
                )));
            }
        }
        if shapes.len() != 2 * convs.len() {
            return Err(Error::unsupported(format!(
                "An upscaler of {} tensors, where an RRDBNet of its size has {}",
                shapes.len(),
                2 * convs.len()
            )));
        }
        Ok(config)
    }

    /// Pixels of the result to one of the picture, each way; 0 for a model that shrinks.
    pub fn scale(&self) -> u32 {
        (1 << self.doublings) / self.unshuffle
    }

    /// Every convolution, its input and its output channels.
    fn convs(&self) -> Vec<(String, u32, u32)> {
        let Config { features: f, growth: g, .. } = *self;
        let mut out = vec![("conv_first".to_owned(), 3 * self.unshuffle * self.unshuffle, f)];
        for (i, j, k) in self.dense_layers() {
            let width = if k == LAYERS { f } else { g };
            out.push((format!("body.{i}.rdb{j}.conv{k}"), f + (k - 1) * g, width));
        }
        let ups = (1..=self.doublings).map(|i| format!("conv_up{i}"));
        out.extend(["conv_body".to_owned()].into_iter().chain(ups).map(|name| (name, f, f)));
        out.push(("conv_hr".to_owned(), f, f));
        out.push(("conv_last".to_owned(), f, 3));
        out
    }

    /// Block, dense block in it, layer in that.
    fn dense_layers(&self) -> impl Iterator<Item = (u32, u32, u32)> {
        let blocks = self.blocks;
        (0..blocks).flat_map(|i| (1..=3).flat_map(move |j| (1..=LAYERS).map(move |k| (i, j, k))))
    }

    /// How the inputs of a dense block's layer are read: the trunk and what the layers before it made, two at a time,
    /// since a convolution reads two tensors as one; the sums go from one to the next as a residual.
    fn parts(&self, layer: u32) -> Vec<std::ops::Range<u32>> {
        let end = |inputs: u32| self.features + (inputs - 1) * self.growth;
        (0..layer)
            .step_by(2)
            .map(|i| if i == 0 { 0..end(layer.min(2)) } else { end(i)..end(layer.min(i + 2)) })
            .collect()
    }

    /// Where every weight of [`forward`] comes from. The blocks' residual scaling is multiplied into their last layers.
    pub fn pieces(&self) -> Vec<Piece> {
        let mut out = Vec::new();
        for (name, channels, _) in self.convs() {
            let place: Vec<&str> = name.split('.').collect();
            let (parts, scale) = match place[..] {
                ["body", _, rdb, conv] => {
                    let layer = conv.trim_start_matches("conv").parse().unwrap_or(1);
                    let scale = match (layer, rdb) {
                        (LAYERS, "rdb3") => RESIDUAL * RESIDUAL,
                        (LAYERS, _) => RESIDUAL,
                        _ => 1.0,
                    };
                    (self.parts(layer), scale)
                }
                _ => (std::iter::once(0..channels).collect(), 1.0),
            };
            for (i, part) in parts.into_iter().enumerate() {
                let (tensor, channels) = (format!("{name}.weight"), Some(part));
                out.push(Piece { name: format!("{name}.{i}.weight"), tensor, channels, scale });
            }
            out.push(Piece {
                name: format!("{name}.0.bias"),
                tensor: format!("{name}.bias"),
                channels: None,
                scale,
            });
        }
        out
    }
}

/// Pictures `[n, h, w, 3 * unshuffle^2]` in 0..1, unshuffled, to `[n, h * 2^doublings, w * 2^doublings, 3]`,
/// nominally in
/// 0..1.
///
/// # Errors
/// `unsupported-model` where shapes do not fit.
pub fn forward(config: &Config, r: &mut Recorder, picture: Tensor) -> Result<Tensor> {
    let conv = |r: &mut Recorder, x: Tensor, name: &str, out: u32, conv: Conv, e: Epilogue| {
        ops::conv2d(&mut r.scope(name), x, "0", out, conv, e)
    };
    let f = config.features;
    let leaky = Epilogue { activation: Activation::LeakyRelu, ..Default::default() };
    let first = conv(r, picture, "conv_first", f, Conv::k3(), Epilogue::default())?;
    let mut x = first;
    for i in 0..config.blocks {
        let r = &mut r.scope(format_args!("body.{i}"));
        let y = dense_block(config, &mut r.scope("rdb1"), x, x)?;
        let y = dense_block(config, &mut r.scope("rdb2"), y, y)?;
        // 0.2 * (y + 0.2 * layers(y)) + x
        let base = ops::affine(r, y, RESIDUAL, 0.0)?;
        let base = ops::add(r, base, x)?;
        x = dense_block(config, &mut r.scope("rdb3"), y, base)?;
    }
    let plus_first = Epilogue { residual: Some(first), ..Default::default() };
    x = conv(r, x, "conv_body", f, Conv::k3(), plus_first)?;
    for i in 1..=config.doublings {
        x = conv(r, x, &format!("conv_up{i}"), f, Conv::up_to(2 * x.h, 2 * x.w), leaky)?;
    }
    x = conv(r, x, "conv_hr", f, Conv::k3(), leaky)?;
    conv(r, x, "conv_last", 3, Conv::k3(), Epilogue { f32_output: true, ..Default::default() })
}

/// `ResidualDenseBlock`: each layer reads all before it; the last one's result and `base` are added.
fn dense_block(config: &Config, r: &mut Recorder, x: Tensor, base: Tensor) -> Result<Tensor> {
    let mut inputs = vec![x];
    for layer in 1..=LAYERS {
        let last = layer == LAYERS;
        let width = if last { config.features } else { config.growth };
        let mut sum = last.then_some(base);
        let pairs = inputs.chunks(2).enumerate();
        let count = pairs.len();
        for (i, pair) in pairs {
            let input = pair.get(1).map_or(pair[0].into(), |&second| Input::from((pair[0], second)));
            let post = if i + 1 == count && !last { Activation::LeakyRelu } else { Activation::None };
            let e = Epilogue { residual: sum, post, ..Default::default() };
            let conv = Conv { bias: i == 0, ..Conv::k3() };
            sum = Some(ops::conv2d(r, input, &format!("conv{layer}.{i}"), width, conv, e)?);
        }
        inputs.extend(sum);
    }
    Ok(inputs[LAYERS as usize])
}
