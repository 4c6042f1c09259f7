//! What a ControlNet leaves for the UNet: means over pictures, and sums kept from dispatch to dispatch.

use super::spread;
use crate::error::{Error, Result};
use crate::gpu::Scalar::{self, U32};
use crate::gpu::{Binding, Dispatch, Kernel, Recorder, Tensor};

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

/// Adds `x` times the f32 at place `at` of `scales` to the pictures of `into` from `first` on, in place. `x` is of their
/// size, or [n, 1, 1, c], the same at every position.
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
