//! A variant of a kernel on a small input, against the same in f64.

use super::attention::{Way, attention};
use super::conv::Conv;
use super::input::Input;
use super::matmul::{Epilogue, conv2d, conv2d_with_shortcut, linear};
use super::norm::{group_norm, layer_normed};
use super::pointwise::Activation;
use super::tile::Tile;
use crate::checkpoint::{Bits, Layout};
use crate::error::Result;
use crate::gpu::choices::{Class, OFF_F16_ATTENTION, OFF_GROUP_NORM};
use crate::gpu::{
    Arithmetic, Dtype, Executable, Gpu, Kernel, Options, Plan, Reading, Recorder, Tensor, Weights,
};

/// Three roundings of f16 (2^-11 each, at worst) lie between input and output, and twice that is still right;
/// wrong kernels are off by the size of the values themselves.
const TOLERANCE_F32: f64 = 6.0 / 2048.0;
/// Sums of up to 32 products in f16 add as much as four more roundings.
const TOLERANCE_F16: f64 = 14.0 / 2048.0;
const EPSILON: f32 = 1e-5;

/// A kernel on trial.
pub struct Trial {
    kernel: Kernel,
    tile: Option<Tile>,
    plan: Plan,
    inputs: Vec<Tensor>,
    y: Tensor,
    /// Of every [`STEP`]th value.
    wanted: Vec<f64>,
}

/// No tile's rows or columns are a multiple of it: all lanes are looked at.
const STEP: usize = 5;

/// A trial whose result is on its way from the GPU.
pub struct Run {
    trial: Trial,
    executable: Executable,
    /// Held until the GPU is done.
    _weights: Weights,
    reading: Reading,
}

/// Value `i` of input or weight number `k`: one that f16 holds exactly, without pattern over the tiles.
fn value(k: usize, i: usize) -> f32 {
    (((i * (17 + 6 * k)) % 61) as f32 - 30.0) / 32.0
}

/// A matrix's: one of two, which quantised blocks hold exactly as well.
fn sign(k: usize, i: usize) -> f32 {
    value(k, i).signum() / 8.0
}

/// Gates of GEGLU lie where gelu(x) is x: the longest sums, of [`Tile::Split`], are off it by up to 7.
const GATE: f32 = 16.0;

fn silu(v: f64) -> f64 {
    v / (1.0 + (-v).exp())
}

impl Trial {
    /// The trial of a kernel of which there are variants.
    ///
    /// # Errors
    /// Those of recording.
    pub fn of(kernel: &Kernel) -> Result<Option<Trial>> {
        let trial = match kernel.name {
            "conv" | "matmul" => Some(product(kernel)?),
            "group_norm" => Some(norm(kernel)?),
            name if name.starts_with("attention") => Some(attended(kernel)?),
            _ => None,
        };
        // What cannot be made small is not tried; a test sees to it that published models have none.
        Ok(trial.filter(|trial| trial.plan.dispatches().iter().any(|d| d.kernel == *kernel)))
    }

    /// The bit of [`Options::off`] that plans without this kernel have; 0: there is no other.
    pub fn off(&self) -> u32 {
        match (self.tile, self.kernel.name) {
            (Some(tile), _) => tile.bit(),
            (_, "group_norm") => OFF_GROUP_NORM,
            (_, "attention") if flag(&self.kernel, "F16_ARITHMETIC") => OFF_F16_ATTENTION,
            (_, name) if name.starts_with("attention") => Way::of_kernel(&self.kernel).bit(),
            _ => 0,
        }
    }

    pub fn name(&self) -> String {
        let name = self.kernel.name;
        match self.tile {
            Some(tile) => format!("{name} {tile}"),
            None if self.off() == OFF_F16_ATTENTION => format!("{name} in f16"),
            None if name == "attention" && self.off() > 0 => format!("{name} in smaller tiles"),
            None => name.to_owned(),
        }
    }

    /// # Errors
    /// `out-of-memory`.
    pub fn start(self, gpu: &Gpu) -> Result<Run> {
        let weights = Weights::allocate(gpu, self.plan.weights());
        let gated = flag(&self.kernel, "GEGLU");
        for spec in self.plan.weights() {
            let values: Vec<f32> = match spec.layout {
                Layout::Matrix { rows, inner, taps } | Layout::Blocks { rows, inner, taps, .. } => {
                    (0..rows * inner * taps).map(|i| sign(4, i)).collect()
                }
                Layout::Vector { len } => {
                    (0..len).map(|i| vector(gated && spec.name == "y.bias", len, i)).collect()
                }
            };
            weights.upload(gpu, &spec.name, &values)?;
        }
        let executable = self.plan.instantiate(gpu, &weights)?;
        for (k, t) in self.inputs.iter().enumerate() {
            let values: Vec<f32> = (0..(t.rows() * t.c) as usize).map(|i| value(k, i)).collect();
            executable.write(gpu, *t, &values)?;
        }
        executable.run(gpu);
        let reading = executable.start_read(gpu, self.y)?;
        Ok(Run { trial: self, executable, _weights: weights, reading })
    }
}

impl Run {
    /// The trial, if its kernel is wrong.
    ///
    /// # Errors
    /// `device-lost`.
    pub async fn finish(self, gpu: &Gpu) -> Result<Option<Trial>> {
        let Run { trial, executable, reading, .. } = self;
        let (got, _) = executable.finish_read(gpu, reading).await?;
        let (mut off, mut size) = (0.0, 0.0);
        for (g, w) in got.iter().step_by(STEP).zip(&trial.wanted) {
            off += (*g as f64 - w).powi(2);
            size += w * w;
        }
        let tolerance = if flag(&trial.kernel, "F16_ARITHMETIC") { TOLERANCE_F16 } else { TOLERANCE_F32 };
        // A NaN compares false with everything.
        let right = (off / size).sqrt() < tolerance;
        Ok((!right).then_some(trial))
    }
}

/// A bias, or a norm's weight.
fn vector(gated: bool, len: usize, i: usize) -> f32 {
    value(5, i) + if gated && i >= len / 2 { GATE } else { 0.0 }
}

fn define(kernel: &Kernel, name: &str) -> u32 {
    kernel.defines.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value)
}

fn flag(kernel: &Kernel, name: &str) -> bool {
    define(kernel, name) > 0
}

/// What this kernel is recorded with.
fn options(kernel: &Kernel) -> Options {
    Options {
        activations: if flag(kernel, "WIDE") { Dtype::F32 } else { Dtype::F16 },
        arithmetic: if flag(kernel, "F16_ARITHMETIC") { Arithmetic::F16 } else { Arithmetic::F32 },
        weights: match (flag(kernel, "QUANTISED"), flag(kernel, "Q4")) {
            (true, true) => Some(Bits::Q4),
            (true, false) => Some(Bits::Q8),
            _ => None,
        },
        subgroup: define(kernel, "SUBGROUP"),
        rolled: kernel.rolled,
        ..Options::default()
    }
}

/// Every [`STEP`]th of `len` values.
fn sampled(len: usize, of: impl FnMut(usize) -> f64) -> Vec<f64> {
    (0..len).step_by(STEP).map(of).collect()
}

/// A product or convolution with all that its kernel does, one tile and a little more each way.
fn product(kernel: &Kernel) -> Result<Trial> {
    let mut options = options(kernel);
    let has = |name| flag(kernel, name);
    let (conv, geglu, shortcuts) = (has("CONV"), has("GEGLU"), define(kernel, "SHORTCUT"));
    let tile = Tile::of_kernel(kernel);
    let [tile_rows, columns] = tile.map_or([1, 1], |tile| [tile.rows(), tile.columns()]);
    let out = (columns + 8).max(40);
    // Rows whose sums are split among threads are as many as there are.
    let split = matches!(tile, Some(Tile::Split { .. }));
    let (h, w) = match tile {
        Some(Tile::Split { .. }) => (1, tile_rows),
        // Two blocks, of which an edge lies outside.
        Some(Tile::Winograd { .. }) => (15, 15),
        _ => ((tile_rows + 7) / 7 + 1, 7),
    };
    options.choices.set(Class::of(conv, h * w, out), tile.and_then(Tile::candidate));
    options
        .choices
        .set(Class::winograd(h * w), Tile::WINOGRAD.iter().position(|&way| way == tile).or(Some(0)));
    // More of them than threads where these share a sum.
    let c = if split && !conv { [132, 128] } else { [20, 16] };
    let mut r = Recorder::new(&options);
    let mut inputs = Vec::new();
    let mut input = |r: &mut Recorder, c| {
        let t = r.input(1, h, w, c);
        inputs.push(t);
        t
    };
    let x: Input = match has("SECOND") {
        true => (input(&mut r, c[0]), input(&mut r, c[1])).into(),
        false => input(&mut r, c[0] + c[1]).into(),
    };
    let added = has("ADDED") && !geglu;
    let e = Epilogue {
        activation: if has("ACTIVATION") { Activation::Silu } else { Activation::None },
        residual: added.then(|| input(&mut r, out)),
        geglu,
        f32_output: has("F32_OUTPUT"),
        ..Epilogue::default()
    };
    let y = if shortcuts > 0 {
        let first = input(&mut r, 8);
        let past = if shortcuts > 1 { (first, input(&mut r, 8)).into() } else { first.into() };
        conv2d_with_shortcut(&mut r, x.first, "y", past, "s", out)?
    } else if has("LAYER_NORM") {
        let x = layer_normed(&mut r, x.first, "n", EPSILON)?;
        linear(&mut r, x, "y", out, e)?
    } else if conv {
        let side = define(kernel, "KERNEL");
        let (before, after) = (side / 2, side - side / 2 - 1);
        let conv = Conv { kernel: side, pad: [before, before, after, after], ..Conv::k3() };
        conv2d(&mut r, x, "y", out, conv, e)?
    } else {
        linear(&mut r, x, "y", out, e)?
    };
    r.output(y);
    let size = [h, w, out].map(|n| n as usize);
    let wanted = product_reference(kernel, &inputs, size, usize::from(added));
    Ok(Trial { kernel: kernel.clone(), tile, plan: r.finish(), inputs, y, wanted })
}

fn product_reference(kernel: &Kernel, inputs: &[Tensor], [h, w, out]: [usize; 3], added: usize) -> Vec<f64> {
    let has = |name| flag(kernel, name);
    let side = define(kernel, "KERNEL") as usize;
    let taps = side * side;
    let shortcuts = define(kernel, "SHORTCUT") as usize;
    let first = inputs.len() - shortcuts - added;
    // A row of some inputs, beside each other.
    let row = |from: usize, count: usize, position: usize| -> Vec<f64> {
        let of = |k: usize| {
            let c = inputs[k].c as usize;
            (0..c).map(move |i| f64::from(value(k, position * c + i)))
        };
        (from..from + count).flat_map(of).collect()
    };
    let normed = |mut row: Vec<f64>| {
        let n = row.len() as f64;
        let mean = row.iter().sum::<f64>() / n;
        let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        for (i, v) in row.iter_mut().enumerate() {
            let affine = f64::from(vector(false, 0, i));
            *v = (*v - mean) / (var + f64::from(EPSILON)).sqrt() * affine + affine;
        }
        row
    };
    let rows: Vec<Vec<f64>> = (0..h * w)
        .map(|p| row(0, first, p))
        .map(|row| if has("LAYER_NORM") { normed(row) } else { row })
        .collect();
    let bias = |n: usize| f64::from(vector(has("GEGLU"), out, n));
    let sum = |p: usize, n: usize| {
        let mut sum = bias(n);
        for tap in 0..taps {
            let (y, x) = (p / w + tap / side, p % w + tap % side);
            let half = side / 2;
            if (half..h + half).contains(&y) && (half..w + half).contains(&x) {
                let row = &rows[(y - half) * w + x - half];
                let weight = |c: usize| f64::from(sign(4, (n * row.len() + c) * taps + tap));
                sum += row.iter().enumerate().map(|(c, v)| v * weight(c)).sum::<f64>();
            }
        }
        if shortcuts > 0 {
            let past = row(first + added, shortcuts, p);
            let weight = |c: usize| f64::from(sign(4, n * past.len() + c));
            sum += bias(n) + past.iter().enumerate().map(|(c, v)| v * weight(c)).sum::<f64>();
        }
        if has("ACTIVATION") { silu(sum) } else { sum }
    };
    let columns = if has("GEGLU") { out / 2 } else { out };
    sampled(h * w * columns, |i| {
        let (p, n) = (i / columns, i % columns);
        let gate = if has("GEGLU") { sum(p, n + columns) } else { 1.0 };
        let residual = if added > 0 { f64::from(value(first, i)) } else { 0.0 };
        sum(p, n) * gate + residual
    })
}

/// Attention of two heads, or one as wide as two.
fn attended(kernel: &Kernel) -> Result<Trial> {
    const KEYS: u32 = 37;
    let d = 4 * define(kernel, "D4");
    let (queries, heads) = if d > 96 { (21, 1) } else { (133, 2) };
    let mut options = options(kernel);
    if let Some(class) = Class::attention(d, KEYS) {
        options.choices.set(class, Some(Way::of_kernel(kernel).candidate()));
    }
    let mut r = Recorder::new(&options);
    let inputs: Vec<Tensor> =
        [queries, KEYS, KEYS].iter().map(|&rows| r.input(1, 1, rows, heads * d)).collect();
    let y = attention(&mut r, inputs[0], inputs[1], inputs[2], heads, false)?;
    r.output(y);
    let [d, c] = [d, heads * d].map(|n| n as usize);
    let at = |k: usize, row: usize, channel: usize| f64::from(value(k, row * c + channel));
    let mut all = Vec::with_capacity(queries as usize * c);
    for row in 0..queries as usize {
        for head in 0..heads as usize {
            let score = |key: usize| {
                let dot: f64 = (head * d..(head + 1) * d).map(|i| at(0, row, i) * at(1, key, i)).sum();
                (dot / (d as f64).sqrt()).exp()
            };
            let scores: Vec<f64> = (0..KEYS as usize).map(score).collect();
            let total: f64 = scores.iter().sum();
            all.extend(
                (head * d..(head + 1) * d).map(|i| {
                    scores.iter().enumerate().map(|(key, s)| s / total * at(2, key, i)).sum::<f64>()
                }),
            );
        }
    }
    let wanted = sampled(all.len(), |i| all[i]);
    Ok(Trial { kernel: kernel.clone(), tile: None, plan: r.finish(), inputs, y, wanted })
}

/// Group normalisation over 37 positions of 24 channels in 8 groups.
fn norm(kernel: &Kernel) -> Result<Trial> {
    const POSITIONS: usize = 37;
    const GROUPS: usize = 8;
    let mut r = Recorder::new(&options(kernel));
    let second = flag(kernel, "SECOND");
    let channels: &[u32] = if second { &[12, 12] } else { &[24] };
    let inputs: Vec<Tensor> = channels.iter().map(|&c| r.input(1, 1, POSITIONS as u32, c)).collect();
    let x: Input = if second { (inputs[0], inputs[1]).into() } else { inputs[0].into() };
    let activation = if flag(kernel, "WITH_SILU") { Activation::Silu } else { Activation::None };
    let y = group_norm(&mut r, x, "n", GROUPS as u32, EPSILON, activation)?;
    r.output(y);
    let (c, own) = (24, channels[0] as usize);
    let at = |p: usize, i: usize| f64::from(value(i / own, p * own + i % own));
    let wanted = sampled(POSITIONS * c, |i| {
        let (p, channel) = (i / c, i % c);
        let group = channel / (c / GROUPS) * (c / GROUPS);
        let all = || (0..POSITIONS).flat_map(|p| (group..group + c / GROUPS).map(move |i| at(p, i)));
        let n = (POSITIONS * (c / GROUPS)) as f64;
        let mean = all().sum::<f64>() / n;
        let var = all().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let affine = f64::from(vector(false, 0, channel));
        let v = (at(p, channel) - mean) / (var + f64::from(EPSILON)).sqrt() * affine + affine;
        if activation == Activation::Silu { silu(v) } else { v }
    });
    Ok(Trial { kernel: kernel.clone(), tile: None, plan: r.finish(), inputs, y, wanted })
}
