//! Normalisation; statistics are always f32.

use super::input::{Input, LayerNorm, spread};
use super::pointwise::Activation;
use crate::checkpoint::pack::Layout;
use crate::error::{Error, Result};
use crate::gpu::Scalar::{F32, U32};
use crate::gpu::choices::{Class, OFF_GROUP_NORM};
use crate::gpu::{Binding, Dispatch, Dtype, Kernel, Recorder, Tensor, Weight};

const GROUP_NORM: &str = crate::gpu::shader!("group_norm.wgsl");
const GROUP_NORM_STATS: &str = crate::gpu::shader!("group_norm_stats.wgsl");
const GROUP_NORM_APPLY: &str = crate::gpu::shader!("group_norm_apply.wgsl");
const LAYER_NORM: &str = crate::gpu::shader!("layer_norm.wgsl");
/// All of its text, from which choices are known to be out of date.
pub(super) const TEXTS: [&str; 4] = [GROUP_NORM, GROUP_NORM_STATS, GROUP_NORM_APPLY, LAYER_NORM];

/// The tuner's candidates for group norm: one workgroup for a bundle of groups, or slices of it in two dispatches.
const SLICED: usize = 1;
/// And for a layer norm before a product: within the product, or a dispatch of its own before it.
const BEFORE: usize = 1;
/// How many there are of either.
pub(super) const WAYS: usize = 2;

fn affine(r: &mut Recorder, name: &str, c: u32) -> Result<[Weight; 2]> {
    let layout = Layout::Vector { len: c as usize };
    Ok([r.weight(&format!("{name}.weight"), layout)?, r.weight(&format!("{name}.bias"), layout)?])
}

/// Group normalisation over [h, w, channels of a group], then `activation`.
///
/// # Errors
/// `unsupported-model` if the channels do not divide into `groups`.
pub fn group_norm(
    r: &mut Recorder,
    x: impl Into<Input>,
    name: &str,
    groups: u32,
    epsilon: f32,
    activation: Activation,
) -> Result<Tensor> {
    let x = x.into();
    x.check()?;
    let Tensor { n, h, w, .. } = x.first;
    let positions = h * w;
    let bundle = Bundle::of(positions, x.channels(), groups, activation);
    let sliced =
        Class::group_norm(positions).and_then(|class| r.options().choices.get(class)) == Some(SLICED);
    if let Some(bundle) = bundle.filter(|_| !sliced && r.options().off & OFF_GROUP_NORM == 0) {
        return bundle.norm(r, x, name, epsilon, activation);
    }
    // A slice a workgroup: enough of them to fill a GPU, each with enough to do.
    let lanes = (256 / x.c4().min(256)).max(1);
    let slices = positions.div_ceil(lanes * 16).clamp(1, 64);
    let stats = GroupStats::new(r, n, positions, positions.div_ceil(slices), x.channels(), groups)?;
    stats.gather(r, x, 0);
    stats.apply(r, x, name, epsilon, activation)
}

/// As many groups of channels as fill whole vectors, normalised by one workgroup (see `shaders/group_norm.wgsl`).
struct Bundle {
    per_group: u32,
    /// Vectors of the bundle.
    vectors: u32,
}

impl Bundle {
    /// `None` where groups do not add up to whole vectors, or the picture is so large that a workgroup of 256 threads
    /// would be long over it.
    fn of(positions: u32, channels: u32, groups: u32, activation: Activation) -> Option<Self> {
        const MOST_POSITIONS: u32 = 64 * 64;
        let per_group = channels.checked_div(groups).filter(|per| per * groups == channels)?;
        let together = [1, 2, 4].into_iter().find(|n| (n * per_group).is_multiple_of(4))?;
        let vectors = together * per_group / 4;
        let fits = groups.is_multiple_of(together) && vectors <= 256 && positions <= MOST_POSITIONS;
        (fits && matches!(activation, Activation::None | Activation::Silu))
            .then_some(Self { per_group, vectors })
    }

    fn norm(
        self,
        r: &mut Recorder,
        x: Input,
        name: &str,
        epsilon: f32,
        activation: Activation,
    ) -> Result<Tensor> {
        let Tensor { n, h, w, .. } = x.first;
        let (positions, c, c4) = (h * w, x.channels(), x.c4());
        let [gamma, beta] = affine(r, name, c)?;
        let y = r.tensor(n, h, w, c);
        r.dispatch(Dispatch {
            kernel: Kernel::new(
                "group_norm",
                &[GROUP_NORM],
                &[
                    ("SECOND", x.second.is_some() as u32),
                    ("WITH_SILU", (activation == Activation::Silu) as u32),
                ],
            ),
            bindings: vec![
                Binding::Read(x.first),
                Binding::Read(x.second.unwrap_or(x.first)),
                Binding::Weight(gamma),
                Binding::Weight(beta),
                Binding::Write(y),
            ],
            params: vec![
                ("positions", U32(positions)),
                ("c4", U32(c4)),
                ("c4_0", U32(x.first.c4())),
                ("c4_1", U32(x.second.map_or(0, |t| t.c4()))),
                ("per_group", U32(self.per_group)),
                ("vectors", U32(self.vectors)),
                ("lanes", U32(256 / self.vectors)),
                ("epsilon", F32(epsilon)),
            ],
            workgroups: [c4 / self.vectors, n, 1],
            flops: 8 * n as u64 * positions as u64 * c as u64,
        });
        Ok(y)
    }
}

/// Mean and spread of a picture's groups of channels, gathered slice by slice, so that the picture itself need never be
/// whole.
pub struct GroupStats {
    /// Pairs (mean, centred squares), counted as vectors of four f32.
    stats: Tensor,
    positions: u32,
    per_slice: u32,
    slices: u32,
    groups: u32,
}

impl GroupStats {
    /// Of `n` pictures of so many positions, gathered `per_slice` at a time.
    ///
    /// # Errors
    /// `unsupported-model` if the channels do not divide into `groups`.
    pub fn new(
        r: &mut Recorder,
        n: u32,
        positions: u32,
        per_slice: u32,
        channels: u32,
        groups: u32,
    ) -> Result<Self> {
        if groups == 0 || groups > 256 || !channels.is_multiple_of(groups) {
            return Err(Error::unsupported(format!(
                "{channels} channels do not divide into {groups} groups"
            )));
        }
        let slices = positions.div_ceil(per_slice);
        let stats = r.tensor_of(Dtype::F32, n, 1, (slices * groups).div_ceil(2), 4);
        Ok(Self { stats, positions, per_slice, slices, groups })
    }

    /// Takes `x` in: whole pictures, or, of one picture, positions from slice `first` on that fill slices (but for the
    /// picture's last).
    pub fn gather(&self, r: &mut Recorder, x: impl Into<Input>, first: u32) {
        let x = x.into();
        let Tensor { n, h, w, .. } = x.first;
        let (positions, c) = (h * w, x.channels());
        r.dispatch(Dispatch {
            kernel: Kernel::new("group_norm_stats", &[GROUP_NORM_STATS], &[]),
            bindings: vec![
                Binding::Read(x.first),
                Binding::Read(x.second.unwrap_or(x.first)),
                Binding::Write(self.stats),
            ],
            params: vec![
                ("positions", U32(positions)),
                ("per_slice", U32(self.per_slice)),
                ("slices", U32(self.slices)),
                ("c", U32(c)),
                ("c4", U32(x.c4())),
                ("c4_first", U32(x.first.c4())),
                ("groups", U32(self.groups)),
                ("first_slice", U32(first)),
            ],
            workgroups: [positions.div_ceil(self.per_slice), n, 1],
            flops: 4 * n as u64 * positions as u64 * c as u64,
        });
    }

    /// `x`, of these pictures, normalised.
    ///
    /// # Errors
    /// `unsupported-model` where a weight is used with two shapes.
    pub fn apply(
        &self,
        r: &mut Recorder,
        x: impl Into<Input>,
        name: &str,
        epsilon: f32,
        activation: Activation,
    ) -> Result<Tensor> {
        const SPAN: u32 = 16;
        let x = x.into();
        let (c, c4) = (x.channels(), x.c4());
        let [gamma, beta] = affine(r, name, c)?;
        let Tensor { n, h, w, .. } = x.first;
        let positions = h * w;
        let y = r.tensor(n, h, w, c);
        let [across, down, _] = spread((positions * c4).div_ceil(256 * SPAN));
        r.dispatch(Dispatch {
            kernel: Kernel::new("group_norm_apply", &[GROUP_NORM_APPLY], &[("SPAN", SPAN)]),
            bindings: vec![
                Binding::Read(x.first),
                Binding::Read(x.second.unwrap_or(x.first)),
                Binding::Read(self.stats),
                Binding::Weight(gamma),
                Binding::Weight(beta),
                Binding::Write(y),
            ],
            params: vec![
                ("positions", U32(positions)),
                ("per_slice", U32(self.per_slice)),
                ("slices", U32(self.slices)),
                ("c", U32(c)),
                ("c4", U32(c4)),
                ("c4_first", U32(x.first.c4())),
                ("groups", U32(self.groups)),
                ("epsilon", F32(epsilon)),
                ("activation", U32(activation as u32)),
                ("all_positions", U32(self.positions)),
            ],
            workgroups: [across, n, down],
            flops: 4 * n as u64 * positions as u64 * c as u64,
        });
        Ok(y)
    }
}

/// Layer normalisation over the channels of every row, for [`super::linear`] and [`super::linear_stack`]: these
/// normalise what they read, so that nothing is written between, unless the tuner found a dispatch of its own faster.
///
/// # Errors
/// As [`layer_norm`].
pub fn layer_normed(r: &mut Recorder, x: Tensor, name: &str, epsilon: f32) -> Result<Input> {
    let before = r.options().choices.get(Class::layer_norm(x.rows())) == Some(BEFORE);
    if before || !x.c.is_multiple_of(4) {
        return Ok(layer_norm(r, x, name, epsilon)?.into());
    }
    let [gamma, beta] = affine(r, name, x.c)?;
    Ok(Input { norm: Some(LayerNorm { gamma, beta, epsilon }), ..x.into() })
}

/// Layer normalisation over the channels of every row.
///
/// # Errors
/// `unsupported-model` where a weight is used twice with two shapes.
pub fn layer_norm(r: &mut Recorder, x: Tensor, name: &str, epsilon: f32) -> Result<Tensor> {
    let [gamma, beta] = affine(r, name, x.c)?;
    Ok(normalised(r, x, LayerNorm { gamma, beta, epsilon }))
}

/// [`layer_norm`] by itself of what [`layer_normed`] gave.
pub(super) fn normalised(r: &mut Recorder, x: Tensor, norm: LayerNorm) -> Tensor {
    let LayerNorm { gamma, beta, epsilon } = norm;
    let y = r.tensor(x.n, x.h, x.w, x.c);
    r.dispatch(Dispatch {
        kernel: Kernel::new("layer_norm", &[LAYER_NORM], &[]),
        bindings: vec![Binding::Read(x), Binding::Weight(gamma), Binding::Weight(beta), Binding::Write(y)],
        params: vec![("rows", U32(x.rows())), ("c", U32(x.c)), ("epsilon", F32(epsilon))],
        workgroups: spread(x.rows()),
        flops: 8 * x.rows() as u64 * x.c as u64,
    });
    y
}
