//! Does this adapter compute rightly? Asked once before anything is downloaded, and of every variant of a kernel before
//! the first picture that it has a part in.

use super::norm::group_norm;
use super::pointwise::Activation;
use super::trial::Trial;
use super::{Epilogue, attention, linear_no_bias};
use crate::error::{Code, Error, Result};
use crate::gpu::choices::broadcasts;
use crate::gpu::{
    Arithmetic, Binding, Dispatch, Dtype, Gpu, GpuOptions, Kernel, Options, Plan, Recorder, Weights,
};
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
    let arithmetic = if precision == Precision::F16 { Arithmetic::F16 } else { Arithmetic::F32 };
    for without_shader_f16 in [false, true] {
        let gpu = Gpu::new(&GpuOptions { without_shader_f16, ..Default::default() }).await?;
        if arithmetic == Arithmetic::F16 && !gpu.shader_f16 {
            break;
        }
        let subgroup = if lanes_are_neighbours(&gpu).await? { gpu.subgroup } else { 0 };
        let subgroup_if_tuned = !broadcasts(&gpu.vendor);
        let rolled = gpu.software;
        let options = Options { arithmetic, subgroup, subgroup_if_tuned, rolled, ..Options::default() };
        match sound(&gpu, &options, small).await {
            Ok(_) => return Ok((gpu, Options { activations, ..options })),
            Err(e) if e.code == Code::WebGpuUnavailable => {}
            Err(e) => return Err(e),
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
            Arithmetic::F32 => WRONG,
        },
    ))
}

/// Whether subgroups are made of threads that follow one another.
async fn lanes_are_neighbours(gpu: &Gpu) -> Result<bool> {
    const THREADS: u32 = 64;
    if gpu.subgroup == 0 {
        return Ok(false);
    }
    let mut r = Recorder::new(&Options::default());
    let out = r.tensor_of(Dtype::U32, 1, 1, 1, THREADS);
    r.dispatch(Dispatch {
        kernel: Kernel::new(
            "lanes",
            &[crate::gpu::shader!("lanes.wgsl")],
            &[("SUBGROUP", gpu.subgroup), ("THREADS", THREADS)],
        ),
        bindings: vec![Binding::Write(out)],
        params: Vec::new(),
        workgroups: [1, 1, 1],
        flops: 0,
    });
    r.output(out);
    let executable = r.finish().instantiate(gpu, &Weights::allocate(gpu, &[]))?;
    executable.run(gpu);
    Ok(executable.read(gpu, out).await?.iter().all(|word| word.to_bits() == 1))
}

const WRONG: &str = "This GPU or its driver computes wrongly (the self-test failed). Update the driver, or try another \
                     browser.";

/// A plan with a kernel of each of the kinds without which nothing can be drawn.
fn small(options: &Options) -> Result<(Plan, ())> {
    let mut r = Recorder::new(options);
    let x = r.input(1, 1, 37, 24);
    let normed = group_norm(&mut r, x, "norm", 8, 1e-5, Activation::Silu)?;
    let h = linear_no_bias(&mut r, normed, "linear", 40, Epilogue::default())?;
    attention(&mut r, h, h, h, 5, false)?;
    Ok((r.finish(), ()))
}

/// What `record` records, of kernels that this GPU computes rightly and `options` do not rule out. Those that are new to
/// it are tried on small inputs first; where one comes out wrong, it is switched off from then on, and the plan recorded
/// without it.
///
/// # Errors
/// Those of `record`; `webgpu-unavailable` where no kernel is left; `device-lost`.
pub async fn sound<T>(
    gpu: &Gpu,
    options: &Options,
    record: impl Fn(&Options) -> Result<(Plan, T)>,
) -> Result<(Plan, T)> {
    loop {
        let made = record(&Options { off: options.off | gpu.off(), ..*options })?;
        if check(gpu, &made.0).await? {
            return Ok(made);
        }
    }
}

/// Tries what is new to the GPU of a plan's kernels, and switches off what is wrong; whether nothing was.
///
/// # Errors
/// `webgpu-unavailable` for a wrong kernel in whose place there is no other; `device-lost`.
pub async fn check(gpu: &Gpu, plan: &Plan) -> Result<bool> {
    let wrong = wrong(gpu, plan).await?;
    for trial in &wrong {
        let off = trial.off();
        if off & !gpu.off() == 0 {
            return Err(Error::new(Code::WebGpuUnavailable, WRONG));
        }
        gpu.switch_off(off, trial.name());
    }
    Ok(wrong.is_empty())
}

/// Of the plan's kernels that were not tried on this GPU yet, those that come out wrong.
async fn wrong(gpu: &Gpu, plan: &Plan) -> Result<Vec<Trial>> {
    let mut running = Vec::new();
    for dispatch in plan.setup().iter().chain(plan.dispatches()) {
        if gpu.is_new(&dispatch.kernel)
            && let Some(trial) = Trial::of(&dispatch.kernel)?
        {
            running.push(trial.start(gpu)?);
        }
    }
    let mut wrong = Vec::new();
    for run in running {
        if let Some(trial) = run.finish(gpu).await? {
            wrong.push(trial);
        }
    }
    Ok(wrong)
}
