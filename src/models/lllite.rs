//! ControlNet-LLLite (kohya-ss/sd-scripts, `networks/control_net_lllite.py`): small modules inside the UNet, each of which adds
//! to what one layer reads something that it makes of that and of a picture. What it sees of the picture knows neither time
//! nor text; what it adds is computed by [`ops::conv2d`] and the others (see [`LllitePart`]).

use crate::checkpoint::Layout;
use crate::checkpoint::configs::CONTROL_LLLITE;
use crate::checkpoint::ldm::LLLITE;
use crate::checkpoint::lora::Names;
use crate::error::{Error, Result};
use crate::gpu::{LllitePart, LlliteParts, Recorder, Tensor, WeightSpec};
use crate::ops::{self, Activation, Conv, Epilogue};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Above any size of a real file.
const LARGEST: u64 = 1 << 20;
/// And above as many pixels to a position as one has: 32.
const MOST_PIXELS: u32 = 256;

/// A file's modules, beside the UNet that they act in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    modules: Vec<Module>,
    /// Pixels to a latent, each way.
    scale: u32,
}

/// What acts on one layer.
#[derive(Clone, Debug, PartialEq)]
struct Module {
    /// In the file: "lllite_unet_middle_block_1_proj_in".
    name: String,
    /// The UNet's layer: "mid_block.attentions.0.proj_in".
    layer: String,
    /// Width of each convolution from pixels on, and the side of its squares.
    squares: Vec<(u32, u32)>,
    in_dim: u32,
    mlp_dim: u32,
}

impl Module {
    /// From the shapes of its weights.
    fn read(name: &str, shapes: &Map<String, Value>, names: &Names) -> Result<Module> {
        let shape = |layer: &str| -> Result<Vec<u32>> {
            let shape = shapes.get(layer).and_then(Value::as_array).ok_or_else(|| {
                Error::bad_checkpoint(format!("it lacks {name}.{layer}.weight. Choose another copy"))
            })?;
            let size = |v: &Value| v.as_u64().filter(|n| (1..=LARGEST).contains(n)).map(|n| n as u32);
            shape.iter().map(size).collect::<Option<_>>().ok_or_else(|| wrong(name, layer, shapes))
        };
        // Convolutions of one pixel are matrices.
        let matrix = |layer: &str| match shape(layer)?.as_slice() {
            &[rows, inner] | &[rows, inner, 1, 1] => Ok([rows, inner]),
            _ => Err(wrong(name, layer, shapes)),
        };
        let (mut squares, mut channels) = (Vec::new(), 3);
        for layer in (0..).map(|i| format!("conditioning1.{}", 2 * i)) {
            if !squares.is_empty() && !shapes.contains_key(&layer) {
                break;
            }
            match *shape(&layer)?.as_slice() {
                [out, inner, side, side_too]
                    if (inner, side) == (channels, side_too) && [2, 4].contains(&side) =>
                {
                    squares.push((out, side));
                    channels = out;
                }
                _ => return Err(wrong(name, &layer, shapes)),
            }
        }
        let ([mlp_dim, in_dim], mid, up) = (matrix("down.0")?, matrix("mid.0")?, matrix("up.0")?);
        if !channels.is_multiple_of(4) || mid != [mlp_dim, mlp_dim + channels] {
            return Err(wrong(name, "mid.0", shapes));
        }
        if up != [in_dim, mlp_dim] {
            return Err(wrong(name, "up.0", shapes));
        }
        let layer = name.strip_prefix(LLLITE).and_then(|layer| names.layer(layer)).ok_or_else(|| {
            Error::unsupported(format!(
                "{name}.down.0.weight is for a layer that this model's UNet does not have"
            ))
        })?;
        let module = Module { name: name.to_owned(), layer: layer.to_owned(), squares, in_dim, mlp_dim };
        module.side().map_or_else(|| Err(wrong(name, "conditioning1.0", shapes)), |_| Ok(module))
    }

    /// Pixels to a position of what it sees, each way.
    fn side(&self) -> Option<u32> {
        self.squares
            .iter()
            .try_fold(1u32, |all, (_, side)| all.checked_mul(*side))
            .filter(|side| *side <= MOST_PIXELS)
    }

    fn channels(&self) -> u32 {
        self.squares.last().map_or(0, |(out, _)| *out)
    }
}

fn wrong(name: &str, layer: &str, shapes: &Map<String, Value>) -> Error {
    Error::bad_checkpoint(format!(
        "{name}.{layer}.weight is of shape {}, which no ControlNet-LLLite has. Choose another copy",
        shapes.get(layer).unwrap_or(&Value::Null)
    ))
}

impl Config {
    /// Whether a `config.json` is of one.
    pub fn is_of(config: &Value) -> bool {
        config.get("_class_name").and_then(Value::as_str) == Some(CONTROL_LLLITE)
    }

    /// Reads the configuration that [`Contents::configs`](crate::checkpoint::ldm::Contents::configs) makes of a file, beside
    /// a UNet with weights of these names, of so many pixels to a latent.
    ///
    /// # Errors
    /// `bad-checkpoint` for a file without a part, or with one of another shape, which it names; `unsupported-model` for a
    /// layer that the UNet does not have.
    pub fn from_config(config: &Value, names: &Names, scale: u32) -> Result<Config> {
        let modules = config.get("modules").and_then(Value::as_object).filter(|modules| !modules.is_empty());
        let modules =
            modules.ok_or_else(|| Error::bad_checkpoint("it has no module. Choose another copy"))?;
        let read = |(name, shapes): (&String, &Value)| match shapes.as_object() {
            Some(shapes) => Module::read(name, shapes, names),
            None => Err(Error::bad_checkpoint(format!("{name} has no shapes. Choose another copy"))),
        };
        let modules: Vec<Module> = modules.iter().map(read).collect::<Result<_>>()?;
        let mut seen = HashSet::new();
        if let Some(twice) = modules.iter().find(|module| !seen.insert(&module.layer)) {
            let message = format!("it has {} twice, under different names. Choose another copy", twice.layer);
            return Err(Error::bad_checkpoint(message));
        }
        Ok(Config { modules, scale })
    }

    /// What a picture's sides are multiples of, in pixels.
    pub fn unit(&self) -> u32 {
        self.modules.iter().filter_map(Module::side).max().unwrap_or(1)
    }

    /// Its weights, in f16, by their names in the file.
    pub fn weights(&self) -> Vec<WeightSpec> {
        let mut specs = Vec::new();
        let mut add = |name: String, rows: u32, inner: u32, taps: u32| {
            let [rows, inner, taps] = [rows, inner, taps].map(|n| n as usize);
            let matrix = Layout::Matrix { rows, inner, taps };
            for (of, layout) in [("weight", matrix), ("bias", Layout::Vector { len: rows })] {
                specs.push(WeightSpec { name: format!("{name}.{of}"), layout, follows: false });
            }
        };
        for module in &self.modules {
            let Module { name, squares, in_dim, mlp_dim, .. } = module;
            let mut channels = 3;
            for (i, &(out, side)) in squares.iter().enumerate() {
                add(format!("{name}.conditioning1.{}", 2 * i), out, channels, side * side);
                channels = out;
            }
            add(format!("{name}.down.0"), *mlp_dim, *in_dim, 1);
            add(format!("{name}.mid.0"), *mlp_dim, mlp_dim + channels, 1);
            add(format!("{name}.up.0"), *in_dim, *mlp_dim, 1);
        }
        specs
    }

    /// Inputs of the sizes that [`see`]'s results have, for each of `n` pictures of latents of `h` x `w`.
    pub fn inputs(&self, r: &mut Recorder, n: u32, [h, w]: [u32; 2]) -> Vec<Tensor> {
        let input = |module: &Module| {
            let side = |len: u32| len * self.scale / module.side().unwrap_or(1);
            r.input(n, side(h), side(w), module.channels())
        };
        self.modules.iter().map(input).collect()
    }

    /// Adds its modules, as the `i`-th of those that act in a UNet, to what is added to the layers' inputs. `seen`: as
    /// [`Config::inputs`]; `scales`: f32 `[1, 1, 1, ..]`, of which the `i`-th is this one's.
    pub fn act(&self, i: u32, seen: &[Tensor], scales: Tensor, parts: &mut LlliteParts) {
        for (module, &seen) in self.modules.iter().zip(seen) {
            let Module { name, layer, in_dim, mlp_dim, .. } = module;
            let weights = format!("lllite.{i}.{name}");
            let part = LllitePart { weights, seen, in_dim: *in_dim, mlp_dim: *mlp_dim, scales, at: i };
            parts.entry(layer.clone()).or_default().push(part);
        }
    }

    /// Whether the layers of a plan with these weights, in which it is the first that acts, have asked every module.
    ///
    /// # Errors
    /// `unsupported-model`, which names a module that none has.
    pub fn check_asked(&self, weights: &[WeightSpec]) -> Result<()> {
        let asked: HashSet<&str> =
            weights.iter().filter_map(|spec| spec.name.strip_prefix("lllite.0.")).collect();
        let idle = |module: &&Module| !asked.contains(format!("{}.up.0.weight", module.name).as_str());
        match self.modules.iter().find(idle) {
            None => Ok(()),
            Some(module) => Err(Error::unsupported(format!(
                "{}.down.0.weight is for {}, which no ControlNet-LLLite changes here",
                module.name, module.layer
            ))),
        }
    }
}

/// What each module sees of a picture `[1, h, w, 3]` in -1..1, whose sides are multiples of [`Config::unit`]: `conditioning1`.
///
/// # Errors
/// `unsupported-model` for a smaller picture.
pub fn see(config: &Config, r: &mut Recorder, image: Tensor) -> Result<Vec<Tensor>> {
    let one = |module: &Module| {
        let r = &mut r.scope(&module.name);
        let mut x = image;
        for (i, &(out, side)) in module.squares.iter().enumerate() {
            let last = i + 1 == module.squares.len();
            let activation = if last { Activation::None } else { Activation::Relu };
            let e = Epilogue { activation, ..Default::default() };
            x = ops::conv2d(r, x, &format!("conditioning1.{}", 2 * i), out, Conv::squares(side), e)?;
        }
        Ok(x)
    };
    config.modules.iter().map(one).collect()
}
