//! Operations on one element at a time, and the mean over positions.

use super::input::spread;
use crate::error::{Error, Result};
use crate::gpu::Scalar::{self, F32, U32};
use crate::gpu::{Binding, Dispatch, Kernel, Recorder, Tensor};

/// Activation functions, by their number in `shaders/prelude.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    #[default]
    None = 0,
    /// x * sigmoid(x).
    Silu = 1,
    /// x * Phi(x), by erf.
    Gelu = 2,
    /// x * sigmoid(1.702 x), as OpenAI's CLIP has it.
    QuickGelu = 3,
    Relu = 4,
    /// 3 tanh(x / 3): AutoencoderTiny's input clamp.
    TanhClamp = 5,
    /// max(x, 0.2 x): ESRGAN's.
    LeakyRelu = 6,
}

/// What one launch of `shaders/pointwise.wgsl` does.
enum Kind {
    Activate(Activation),
    Add,
    Affine(f32, f32),
}

fn record(r: &mut Recorder, inputs: &[Tensor], out: Tensor, kind: Kind) {
    let size = out.rows() * out.c4();
    let activation = if let Kind::Activate(a) = kind { a } else { Activation::None };
    let (scale, shift) = if let Kind::Affine(scale, shift) = kind { (scale, shift) } else { (1.0, 0.0) };
    let kernel = Kernel::new(
        "pointwise",
        &[crate::gpu::shader!("pointwise.wgsl")],
        &[
            ("ADD", matches!(kind, Kind::Add) as u32),
            ("AFFINE", matches!(kind, Kind::Affine(..)) as u32),
            ("ACTIVATION", activation as u32),
        ],
    );
    r.dispatch(Dispatch {
        kernel,
        bindings: inputs.iter().map(|&t| Binding::Read(t)).chain([Binding::Write(out)]).collect(),
        params: vec![
            ("size", U32(size)),
            ("c", U32(out.c)),
            ("c4", U32(out.c4())),
            ("scale", F32(scale)),
            ("shift", F32(shift)),
        ],
        workgroups: spread(size.div_ceil(256)),
        flops: size as u64 * 4,
    });
}

/// An activation on its own. `None` returns `x`.
///
/// # Errors
/// None today.
pub fn activate(r: &mut Recorder, x: Tensor, activation: Activation) -> Result<Tensor> {
    if activation == Activation::None {
        return Ok(x);
    }
    let y = r.tensor(x.n, x.h, x.w, x.c);
    record(r, &[x], y, Kind::Activate(activation));
    Ok(y)
}

/// a + b.
///
/// # Errors
/// `unsupported-model` if the shapes differ.
pub fn add(r: &mut Recorder, a: Tensor, b: Tensor) -> Result<Tensor> {
    if (a.n, a.h, a.w, a.c) != (b.n, b.h, b.w, b.c) {
        return Err(Error::unsupported("two tensors of different shapes cannot be added"));
    }
    let y = r.tensor(a.n, a.h, a.w, a.c);
    record(r, &[a, b], y, Kind::Add);
    Ok(y)
}

/// x * scale + shift.
///
/// # Errors
/// None today.
pub fn affine(r: &mut Recorder, x: Tensor, scale: f32, shift: f32) -> Result<Tensor> {
    let y = r.tensor(x.n, x.h, x.w, x.c);
    record(r, &[x], y, Kind::Affine(scale, shift));
    Ok(y)
}

/// The mean over all positions: [n, h, w, c] -> [n, 1, 1, c].
///
/// # Errors
/// None today.
pub fn mean(r: &mut Recorder, x: Tensor) -> Result<Tensor> {
    let y = r.tensor(x.n, 1, 1, x.c);
    r.dispatch(Dispatch {
        kernel: Kernel::new("mean", &[crate::gpu::shader!("mean.wgsl")], &[]),
        bindings: vec![Binding::Read(x), Binding::Write(y)],
        params: vec![("positions", U32(x.h * x.w)), ("c4", U32(x.c4()))],
        workgroups: [x.c4(), x.n, 1],
        flops: x.rows() as u64 * x.c as u64,
    });
    Ok(y)
}

/// The mean of each square of two by two positions, torch's `AvgPool2d(2, ceil_mode=True)`: [n, h, w, c] ->
/// [n, ceil(h / 2), ceil(w / 2), c].
///
/// # Errors
/// None today.
pub fn average(r: &mut Recorder, x: Tensor) -> Result<Tensor> {
    let y = r.tensor(x.n, x.h.div_ceil(2), x.w.div_ceil(2), x.c);
    let size = y.rows() * y.c4();
    r.dispatch(Dispatch {
        kernel: Kernel::new("average", &[crate::gpu::shader!("average.wgsl")], &[]),
        bindings: vec![Binding::Read(x), Binding::Write(y)],
        params: vec![
            ("size", U32(size)),
            ("h", U32(x.h)),
            ("w", U32(x.w)),
            ("wide", U32(y.w)),
            ("c4", U32(x.c4())),
        ],
        workgroups: spread(size.div_ceil(256)),
        flops: x.rows() as u64 * x.c as u64,
    });
    Ok(y)
}

/// Adds `x` times the f32 at place `at` of `scales` to the pictures of `into` from `first` on, in place. `x` is of
/// their size, or [n, 1, 1, c], the same at every position.
///
/// # Errors
/// `unsupported-model` where the shapes do not fit.
pub fn add_scaled(
    r: &mut Recorder,
    x: Tensor,
    scales: Tensor,
    at: u32,
    into: Tensor,
    first: u32,
) -> Result<()> {
    let everywhere = (x.h, x.w) == (1, 1);
    if x.c != into.c || first + x.n > into.n || !(everywhere || (x.h, x.w) == (into.h, into.w)) {
        return Err(Error::unsupported(format!(
            "a residual of {}x{}x{} for a picture of {}x{}x{}",
            x.h, x.w, x.c, into.h, into.w, into.c
        )));
    }
    let picture = into.h * into.w * into.c4();
    let size = x.n * picture;
    r.dispatch(Dispatch {
        kernel: Kernel::new("residual", &[crate::gpu::shader!("residual.wgsl")], &[]),
        bindings: vec![Binding::Read(x), Binding::Read(scales), Binding::Write(into)],
        params: vec![
            ("size", U32(size)),
            ("picture", U32(picture)),
            ("c4", U32(into.c4())),
            ("offset", U32(first * picture)),
            ("at", U32(at)),
            ("everywhere", Scalar::flag(everywhere)),
        ],
        workgroups: spread(size.div_ceil(256)),
        flops: size as u64 * 8,
    });
    Ok(())
}

/// `x` plus `more` times the f32 at place `at` of `scales`.
///
/// # Errors
/// `unsupported-model` where the shapes differ.
pub fn plus_scaled(r: &mut Recorder, x: Tensor, more: Tensor, scales: Tensor, at: u32) -> Result<Tensor> {
    if (x.n, x.h, x.w, x.c) != (more.n, more.h, more.w, more.c) {
        return Err(Error::unsupported("two tensors of different shapes cannot be added"));
    }
    let y = r.tensor(x.n, x.h, x.w, x.c);
    let size = y.rows() * y.c4();
    r.dispatch(Dispatch {
        kernel: Kernel::new("plus_scaled", &[crate::gpu::shader!("plus_scaled.wgsl")], &[]),
        bindings: vec![Binding::Read(x), Binding::Read(more), Binding::Read(scales), Binding::Write(y)],
        params: vec![("size", U32(size)), ("at", U32(at))],
        workgroups: spread(size.div_ceil(256)),
        flops: u64::from(size) * 8,
    });
    Ok(y)
}
