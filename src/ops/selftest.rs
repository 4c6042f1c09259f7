//! Does this adapter compute rightly? Asked once, before anything is downloaded.

use super::attention::attention;
use super::matmul::{Epilogue, linear_no_bias};
use super::norm::group_norm;
use super::pointwise::Activation;
use crate::error::{Code, Error, Result};
use crate::gpu::{Arithmetic, Dtype, Gpu, GpuOptions, Options, Recorder, Weights};
use crate::named::Named;

/// Which arithmetic the caller wants (`precision` of `fromPretrained`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// What the self-test of this adapter allows: products in f32, on f16 values read in the fastest way that
    /// comes out right.
    #[default]
    Auto,
    /// Products in f16, sums in f32: faster on some GPUs, and half as much error again (2.5e-3 where f32 products
    /// leave 1.6e-3, on the worst network of `tests/models.rs`).
    F16,
    /// Products and sums in f32, and activations stored as f32: twice the memory, no overflow.
    F32,
}

impl Named for Precision {
    const NAMES: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("f16", Self::F16), ("f32", Self::F32)];
}

/// Opens the adapter and chooses the kernels that it computes rightly: with subgroups where they are there and right,
/// f16 products where `precision` asks for them, conversions by shader-f16 unless the feature itself is wrong. The
/// options are those of a module that needs nothing of its own.
///
/// # Errors
/// `webgpu-unavailable` where there is no adapter, where `precision` asks for what it cannot do, or where even
/// plain f32 comes out wrong.
pub async fn open(precision: Precision) -> Result<(Gpu, Options)> {
    let activations = if precision == Precision::F32 { Dtype::F32 } else { Dtype::F16 };
    let (arithmetic, tolerance) = match precision {
        Precision::F16 => (Arithmetic::F16, TOLERANCE_F16),
        Precision::Auto | Precision::F32 => (Arithmetic::F32, TOLERANCE_F32),
    };
    for without_shader_f16 in [false, true] {
        let gpu = Gpu::new(&GpuOptions { without_shader_f16, ..Default::default() }).await?;
        if arithmetic == Arithmetic::F16 && !gpu.shader_f16 {
            break;
        }
        for subgroup in [gpu.subgroup, 0] {
            let options = Options { arithmetic, subgroup, ..Options::default() };
            if error(&gpu, &options).await? < tolerance {
                return Ok((gpu, Options { activations, ..options }));
            }
            if subgroup == 0 {
                break;
            }
        }
        if !gpu.shader_f16 {
            break;
        }
    }
    Err(Error::new(
        Code::WebGpuUnavailable,
        match arithmetic {
            Arithmetic::F16 => {
                "This GPU has no f16 arithmetic that computes rightly. Use precision \"auto\" or \"f32\"."
            }
            Arithmetic::F32 => {
                "This GPU or its driver computes wrongly (the self-test failed). Update the driver, or try another \
                 browser."
            }
        },
    ))
}

/// Three roundings of f16 (2^-11 each, at worst) lie between input and output, and twice that is still right;
/// wrong kernels are off by the size of the values themselves.
const TOLERANCE_F32: f64 = 6.0 / 2048.0;
/// Products and sums of four in f16 add up to four more roundings to the matrix multiply.
pub(super) const TOLERANCE_F16: f64 = 14.0 / 2048.0;

const ROWS: usize = 37;
const CHANNELS: usize = 24;
const OUT: usize = 40;
const HEADS: usize = 5;
const GROUPS: usize = 8;

/// Relative L2 error of group norm -> matrix multiply -> attention against the same in f64.
async fn error(gpu: &Gpu, options: &Options) -> Result<f64> {
    let mut r = Recorder::new(options);
    let x = r.input(1, 1, ROWS as u32, CHANNELS as u32);
    let normed = group_norm(&mut r, x, "norm", GROUPS as u32, 1e-5, Activation::Silu)?;
    let h = linear_no_bias(&mut r, normed, "linear", OUT as u32, Epilogue::default())?;
    let y = attention(&mut r, h, h, h, HEADS as u32, false)?;
    r.output(y);
    let plan = r.finish();
    let weights = Weights::allocate(gpu, plan.weights());
    // Values that f16 holds exactly, without pattern over the tiles.
    let value = |i: usize, step: usize| (((i * step) % 61) as f32 - 30.0) / 32.0;
    let input: Vec<f32> = (0..ROWS * CHANNELS).map(|i| value(i, 17)).collect();
    let matrix: Vec<f32> = (0..OUT * CHANNELS).map(|i| value(i, 23)).collect();
    weights.upload(gpu, "norm.weight", &[1.0; CHANNELS])?;
    weights.upload(gpu, "norm.bias", &[0.0; CHANNELS])?;
    weights.upload(gpu, "linear.weight", &matrix)?;
    let executable = plan.instantiate(gpu, &weights)?;
    executable.write(gpu, x, &input)?;
    executable.run(gpu);
    let got = executable.read(gpu, y).await?;

    let wanted = reference(&input, &matrix);
    let (mut off, mut size) = (0.0, 0.0);
    for (g, w) in got.iter().zip(&wanted) {
        off += (*g as f64 - w).powi(2);
        size += w * w;
    }
    let error = (off / size).sqrt();
    // A NaN compares false with everything: make it the worst error.
    Ok(if error.is_nan() { f64::INFINITY } else { error })
}

fn reference(input: &[f32], matrix: &[f32]) -> Vec<f64> {
    let per_group = CHANNELS / GROUPS;
    let mut normed = vec![0f64; ROWS * CHANNELS];
    for g in 0..GROUPS {
        let at: Vec<usize> =
            (0..ROWS).flat_map(|r| (0..per_group).map(move |c| r * CHANNELS + g * per_group + c)).collect();
        let n = at.len() as f64;
        let mean = at.iter().map(|&i| input[i] as f64).sum::<f64>() / n;
        let var = at.iter().map(|&i| (input[i] as f64 - mean).powi(2)).sum::<f64>() / n;
        for i in at {
            let v = (input[i] as f64 - mean) / (var + 1e-5).sqrt();
            normed[i] = v / (1.0 + (-v).exp());
        }
    }
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let matrix: Vec<f64> = matrix.iter().map(|&v| v as f64).collect();
    let h: Vec<f64> = normed
        .chunks(CHANNELS)
        .flat_map(|row| matrix.chunks(CHANNELS).map(|w| dot(row, w)).collect::<Vec<_>>())
        .collect();
    let d = OUT / HEADS;
    let mut out = vec![0f64; ROWS * OUT];
    for head in 0..HEADS {
        let part = |row: usize| &h[row * OUT + head * d..][..d];
        for row in 0..ROWS {
            let scores: Vec<f64> =
                (0..ROWS).map(|k| (dot(part(row), part(k)) / (d as f64).sqrt()).exp()).collect();
            let total: f64 = scores.iter().sum();
            for (k, s) in scores.iter().enumerate() {
                for (o, v) in out[row * OUT + head * d..][..d].iter_mut().zip(part(k)) {
                    *o += s / total * v;
                }
            }
        }
    }
    out
}
