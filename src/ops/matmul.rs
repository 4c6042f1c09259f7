//! Matrix multiply, and convolution as implicit matrix multiply.

use super::Activation;
use super::input::{Columns, Input};
use super::matrix::{Matrix, f16_matrix, matrix, matrix_with_shortcut};
use crate::checkpoint::quantise::Bits;
use crate::error::{Error, Result};
use crate::gpu::Scalar::{self, F32, U32};
use crate::gpu::choices::Class;
use crate::gpu::{Adapted, Arithmetic, Binding, Dispatch, Dtype, Kernel, Options, Recorder, Tensor};
use std::ops::Range;

const OPERANDS: &str = crate::gpu::shader!("matmul_operands.wgsl");
const EPILOGUE: &str = crate::gpu::shader!("matmul_epilogue.wgsl");
const LAYER_NORM: &str = crate::gpu::shader!("matmul_layer_norm.wgsl");
const SHARED: &str = crate::gpu::shader!("matmul.wgsl");
const SUBGROUP: &str = crate::gpu::shader!("matmul_subgroup.wgsl");
const SPLIT: &str = crate::gpu::shader!("matmul_split.wgsl");
/// All of its text, from which choices of tiles are known to be out of date.
pub(super) const TEXTS: [&str; 6] = [OPERANDS, EPILOGUE, LAYER_NORM, SHARED, SUBGROUP, SPLIT];

/// What happens to a sum before it is stored: `post(activation(sum + bias + channel_add) + residual)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue {
    pub activation: Activation,
    /// [n, 1, 1, out], added at every position (the time embedding); or, in [`linear`], as large as the sums.
    pub channel_add: Option<Columns>,
    /// Same shape as the output.
    pub residual: Option<Tensor>,
    pub post: Activation,
    /// GEGLU (Shazeer 2020): half as many channels, the first half times gelu of the second. No residual is added then.
    pub geglu: bool,
    /// Store f32 whatever the activations are: for a model's last layer, whose rounding guidance would multiply.
    pub f32_output: bool,
}

/// Shape of a convolution; weights are OIHW in the checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// 1 or 3.
    pub kernel: u32,
    pub stride: u32,
    /// Rows or columns of zeros: top, left, bottom, right.
    pub pad: [u32; 4],
    /// Nearest-neighbour upsampling of the input to this height and width first; twice the input's, or one less.
    pub upsample: Option<[u32; 2]>,
}

impl Conv {
    /// 1x1.
    pub fn k1() -> Self {
        Self { kernel: 1, stride: 1, pad: [0; 4], upsample: None }
    }
    /// 3x3, same size.
    pub fn k3() -> Self {
        Self { kernel: 3, stride: 1, pad: [1; 4], upsample: None }
    }
    /// 3x3, stride 2, one row of zeros all around (the UNet).
    pub fn down() -> Self {
        Self { stride: 2, ..Self::k3() }
    }
    /// 3x3, stride 2, zeros at the bottom and right only (the VAE).
    pub fn down_asymmetric() -> Self {
        Self { stride: 2, pad: [0, 0, 1, 1], ..Self::k3() }
    }
    /// 3x3 over the input upsampled to `h` x `w`.
    pub fn up_to(h: u32, w: u32) -> Self {
        Self { upsample: Some([h, w]), ..Self::k3() }
    }
}

/// y = x W^T + b over the channels; `{prefix}.weight` is [out, in] (or a 1x1 convolution's [out, in, 1, 1]).
///
/// # Errors
/// `unsupported-model` where shapes do not fit.
pub fn linear(
    r: &mut Recorder,
    x: impl Into<Input>,
    prefix: &str,
    out: u32,
    bias: bool,
    e: Epilogue,
) -> Result<Tensor> {
    conv2d(r, x, prefix, out, bias, Conv::k1(), e)
}

/// Several linear layers over the same `x`, (prefix, out) each, in one product that writes their outputs beside each
/// other. Where LoRAs change some, those have tensors of their own.
///
/// # Errors
/// `unsupported-model` where shapes do not fit, or an `out` is no multiple of 4.
pub fn linear_stack(
    r: &mut Recorder,
    x: impl Into<Input>,
    parts: &[(&str, u32)],
    bias: bool,
) -> Result<Vec<Columns>> {
    let (x, conv, e) = (x.into(), Conv::k1(), Epilogue::default());
    let w = matrix(r, parts, x.channels(), 1, bias)?;
    let tensor = product(r, x, parts.first().map_or("", |p| p.0), w, conv, e, Extent::default())?;
    let mut made = Vec::with_capacity(parts.len());
    let mut from = 0;
    for &(prefix, c) in parts {
        let own = Columns { tensor, from, c };
        made.push(match r.adapted(prefix).filter(|_| w.bits.is_some()) {
            None => own,
            Some(Adapted::LowRank(rank)) => low_rank(r, x, prefix, rank, own, conv, e)?.into(),
            // What the stack makes of this part goes unread.
            Some(Adapted::Merged) => {
                merged(r, x, prefix, Matrix { bias_from: from, rows: c, ..w }, conv, e)?.into()
            }
        });
        from += c;
    }
    Ok(made)
}

/// A convolution over [n, h, w, c], 1x1 or 3x3. Where LoRAs change a quantised one, with them.
///
/// # Errors
/// `unsupported-model` where shapes do not fit.
pub fn conv2d(
    r: &mut Recorder,
    x: impl Into<Input>,
    prefix: &str,
    out: u32,
    bias: bool,
    conv: Conv,
    e: Epilogue,
) -> Result<Tensor> {
    let x = x.into();
    let w = matrix(r, &[(prefix, out)], x.channels(), conv.kernel * conv.kernel, bias)?;
    match r.adapted(prefix).filter(|_| w.bits.is_some()) {
        None => product(r, x, prefix, w, conv, e, Extent::default()),
        Some(Adapted::Merged) => merged(r, x, prefix, w, conv, e),
        Some(Adapted::LowRank(rank)) => {
            let plus_channels = Epilogue { channel_add: e.channel_add, ..Default::default() };
            let base = product(r, x, prefix, w, conv, plus_channels, Extent::default())?;
            low_rank(r, x, prefix, rank, base.into(), conv, e)
        }
    }
}

/// As `w` does, with the matrix that LoRAs are merged into in its matrix's place.
fn merged(r: &mut Recorder, x: Input, prefix: &str, w: Matrix, conv: Conv, e: Epilogue) -> Result<Tensor> {
    let name = format!("{prefix}.merged");
    let Matrix { weight, bits, .. } =
        f16_matrix(r, &name, [w.rows, x.channels(), conv.kernel * conv.kernel])?;
    product(r, x, prefix, Matrix { weight, bits, ..w }, conv, e, Extent::default())
}

/// The LoRAs' two narrow products, added to `base`, which is what the layer's own matrix and bias make.
fn low_rank(
    r: &mut Recorder,
    x: Input,
    prefix: &str,
    rank: u32,
    base: Columns,
    conv: Conv,
    e: Epilogue,
) -> Result<Tensor> {
    let taps = conv.kernel * conv.kernel;
    let down = f16_matrix(r, &format!("{prefix}.lora_down"), [rank, x.channels(), taps])?;
    let narrow = product(r, x, prefix, down, conv, Epilogue::default(), Extent::default())?;
    let up = f16_matrix(r, &format!("{prefix}.lora_up"), [base.c, rank, 1])?;
    let plus_base = Epilogue { channel_add: Some(base), ..e };
    product(r, narrow.into(), prefix, up, Conv::k1(), plus_base, Extent::default())
}

/// The 3x3 convolution `{prefix}` of `x`, plus the 1x1 convolution `{shortcut}` of `past`, both with bias: what a residual
/// block ends with. One product where weights lie as f16.
///
/// # Errors
/// `unsupported-model` where shapes do not fit.
pub fn conv2d_with_shortcut(
    r: &mut Recorder,
    x: Tensor,
    prefix: &str,
    past: Input,
    shortcut: &str,
    out: u32,
) -> Result<Tensor> {
    if r.options().weights.is_some() || !out.is_multiple_of(4) {
        let residual = conv2d(r, past, shortcut, out, true, Conv::k1(), Epilogue::default())?;
        let plus_residual = Epilogue { residual: Some(residual), ..Default::default() };
        return conv2d(r, x, prefix, out, true, Conv::k3(), plus_residual);
    }
    past.check()?;
    if (past.first.n, past.first.h, past.first.w) != (x.n, x.h, x.w) {
        return Err(Error::unsupported(format!("{shortcut}: the input does not fit")));
    }
    let w = matrix_with_shortcut(r, (prefix, x.c), (shortcut, past.channels()), out)?;
    product(r, x.into(), prefix, w, Conv::k3(), Epilogue::default(), Extent { past: Some(past), part: None })
}

/// Rows of one picture, which need not be whole in memory.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    pub tensor: Tensor,
    /// The tensor's first row in the picture.
    pub from: u32,
    /// Rows of the picture.
    pub height: u32,
}

/// Some rows of a convolution's output, with bias: into a tensor of their own, or to their places in `into`. `x` must hold
/// all the rows that they are made of.
///
/// # Errors
/// `unsupported-model` where shapes do not fit.
pub fn conv2d_rows(
    r: &mut Recorder,
    x: Rows,
    prefix: &str,
    out: u32,
    conv: Conv,
    rows: Range<u32>,
    into: Option<Tensor>,
) -> Result<Tensor> {
    let w = matrix(r, &[(prefix, out)], x.tensor.c, conv.kernel * conv.kernel, true)?;
    product(
        r,
        x.tensor.into(),
        prefix,
        w,
        conv,
        Epilogue::default(),
        Extent { past: None, part: Some((x, rows, into)) },
    )
}

/// What a product reads and makes beside the usual.
#[derive(Default)]
struct Extent {
    /// The input of a shortcut.
    past: Option<Input>,
    /// The rows that the input holds, those to make, and where to.
    part: Option<(Rows, Range<u32>, Option<Tensor>)>,
}

/// The dispatches; `prefix` is for messages.
fn product(
    r: &mut Recorder,
    x: Input,
    prefix: &str,
    matrix: Matrix,
    conv: Conv,
    e: Epilogue,
    Extent { past, part }: Extent,
) -> Result<Tensor> {
    x.check()?;
    let Matrix { weight, bias, bias_from, bits: quantised, rows: out } = matrix;
    let input = x.first;
    let in_h = part.as_ref().map_or(input.h, |(x, ..)| x.height);
    let [h, w] = conv.upsample.unwrap_or([in_h, input.w]);
    if conv.upsample.is_some() && (h.div_ceil(2) != in_h || w.div_ceil(2) != input.w) {
        return Err(Error::unsupported(format!("{prefix}: upsampling {}x{} to {h}x{w}", input.h, input.w)));
    }
    let [top, left, bottom, right] = conv.pad;
    let size = |len: u32, before: u32, after: u32| {
        (len + before + after).checked_sub(conv.kernel).map(|span| span / conv.stride + 1).ok_or_else(|| {
            Error::unsupported(format!("{prefix}: a picture of {h}x{w} is too small for this model"))
        })
    };
    let (out_h, out_w) = (size(h, top, bottom)?, size(w, left, right)?);
    let taps = conv.kernel * conv.kernel;
    let c = x.channels();
    let dtype = if e.f32_output { Dtype::F32 } else { r.options().activations };
    if e.geglu && (!out.is_multiple_of(8) || e.residual.is_some() || e.f32_output) {
        return Err(Error::unsupported(format!(
            "{prefix}: GEGLU over {out} channels: only multiples of 8 are supported, and no residual"
        )));
    }
    let (in_from, out_from, positions, y) = match part {
        None => {
            let y = r.tensor_of(dtype, input.n, out_h, out_w, if e.geglu { out / 2 } else { out });
            (0, 0, 0..y.rows(), y)
        }
        Some((x, rows, into)) => {
            if input.n != 1
                || rows.end > out_h
                || into.is_some_and(|t| (t.h, t.w, t.c) != (out_h, out_w, out))
            {
                return Err(Error::unsupported(format!("{prefix}: these rows do not fit")));
            }
            let positions = rows.start * out_w..rows.end * out_w;
            let out_from = if into.is_some() { 0 } else { positions.start };
            let y = into.unwrap_or_else(|| r.tensor_of(dtype, 1, rows.end - rows.start, out_w, out));
            (x.from * input.w, out_from, positions, y)
        }
    };

    let is_conv = conv.kernel > 1 || conv.stride > 1 || conv.upsample.is_some();
    let everywhere = e.channel_add.is_some_and(|t| !is_conv && t.tensor.rows() == y.rows());
    let a_picture = e.channel_add.is_some_and(|t| (t.tensor.n, t.tensor.rows()) == (y.n, y.n));
    if e.channel_add.is_some_and(|t| t.c != out) || e.channel_add.is_some() && !everywhere && !a_picture {
        return Err(Error::unsupported(format!("{prefix}: the added channels do not fit")));
    }
    if e.residual.is_some_and(|t| (t.rows(), t.c) != (y.rows(), out)) {
        return Err(Error::unsupported(format!("{prefix}: the residual does not fit")));
    }
    // WebGPU's default is eight storage buffers: the norm's weights stand where what is added would.
    let added = match (x.norm, past) {
        (_, Some(past)) => [Binding::Read(past.first), Binding::Read(past.second.unwrap_or(past.first))],
        (Some(_), None)
            if is_conv || x.second.is_some() || e.channel_add.is_some() || e.residual.is_some() =>
        {
            return Err(Error::unsupported(format!(
                "{prefix}: a layer normalisation cannot be folded in here"
            )));
        }
        (Some(norm), None) => [Binding::Weight(norm.gamma), Binding::Weight(norm.beta)],
        (None, None) => [
            Binding::Read(e.channel_add.map_or(input, |columns| columns.tensor)),
            Binding::Read(e.residual.unwrap_or(input)),
        ],
    };
    // What is not there is bound to something that is.
    let mut bindings = vec![
        Binding::Read(input),
        Binding::Read(x.second.unwrap_or(input)),
        Binding::Weight(weight),
        Binding::Weight(bias.unwrap_or(weight)),
        added[0],
        added[1],
        Binding::Write(y),
    ];
    let watch = y.dtype == Dtype::F16;
    if watch {
        bindings.push(Binding::Write(r.overflow()));
    }

    let m = positions.end - positions.start;
    let f16 = r.options().arithmetic == Arithmetic::F16 && r.options().activations == Dtype::F16;
    let c4 = x.c4();
    let past_c = past.map_or(0, |past| past.channels());
    let flops_a_row = 2 * out as u64 * (c as u64 * taps as u64 + past_c as u64);
    let max_flops = r.options().max_dispatch_flops;
    // Parts of one size, so that the last fills the GPU as well as the others.
    let parts = (m as u64 * flops_a_row).div_ceil(max_flops).max(1);
    let part = (m as u64).div_ceil(parts) as u32;
    let tile = Tile::of(r.options(), is_conv, part, out, taps * c4);
    let defines = [
        ("F32_OUTPUT", e.f32_output as u32),
        ("GEGLU", e.geglu as u32),
        ("WATCH", watch as u32),
        ("F16_ARITHMETIC", f16 as u32),
        ("CONV", is_conv as u32),
        ("LAYER_NORM", x.norm.is_some() as u32),
        ("SHORTCUT", past.map_or(0, |past| 1 + past.second.is_some() as u32)),
        ("ADDED", (x.norm.is_none() && past.is_none()) as u32),
        ("QUANTISED", quantised.is_some() as u32),
        ("Q4", (quantised == Some(Bits::Q4)) as u32),
        ("SECOND", x.second.is_some() as u32),
        ("SOURCES", 1 + x.second.is_some() as u32),
        ("ACTIVATION", ((e.activation, e.post) != (Activation::None, Activation::None)) as u32),
    ];
    let kernel = Kernel::new(
        if is_conv { "conv" } else { "matmul" },
        &files(tile, x.norm.is_some()),
        &[defines.as_slice(), &tile.defines()].concat(),
    );
    let columns = out.div_ceil(tile.columns());
    let most = u32::try_from(max_flops / flops_a_row).unwrap_or(u32::MAX) / tile.rows();
    let rows_at_once = part.div_ceil(tile.rows()).min(most).clamp(1, 65535) * tile.rows();
    let mut m_base = positions.start;
    while m_base < positions.end {
        let rows = rows_at_once.min(positions.end - m_base);
        r.dispatch(Dispatch {
            kernel: kernel.clone(),
            bindings: bindings.clone(),
            params: vec![
                ("m", U32(m_base + rows)),
                ("m_base", U32(m_base)),
                ("n", U32(out)),
                ("k4", U32(taps * c4)),
                ("c4", U32(c4)),
                ("c4_0", U32(input.c4())),
                ("c4_1", U32(x.second.map_or(0, |t| t.c4()))),
                ("in_h", U32(input.h)),
                ("in_w", U32(input.w)),
                ("out_w", U32(out_w)),
                ("out_positions", U32(if everywhere { 1 } else { out_h * out_w })),
                ("stride", U32(conv.stride)),
                ("pad_top", U32(top)),
                ("pad_left", U32(left)),
                ("bound_h", U32(h)),
                ("bound_w", U32(w)),
                ("kernel", U32(conv.kernel)),
                ("upsample", Scalar::flag(conv.upsample.is_some())),
                ("has_bias", Scalar::flag(bias.is_some())),
                ("has_channel_add", Scalar::flag(e.channel_add.is_some())),
                ("has_residual", Scalar::flag(e.residual.is_some())),
                ("activation", U32(e.activation as u32)),
                ("post", U32(e.post as u32)),
                ("add_stride", U32(e.channel_add.map_or(0, |columns| columns.stride()))),
                ("add_from", U32(e.channel_add.map_or(0, |columns| columns.first()))),
                ("in_from", U32(in_from)),
                ("out_from", U32(out_from)),
                ("epsilon", F32(x.norm.map_or(0.0, |norm| norm.epsilon))),
                ("c4_2", U32(past.map_or(0, |past| past.first.c4()))),
                ("c4_3", U32(past.and_then(|past| past.second).map_or(0, |t| t.c4()))),
                ("bias_from", U32(bias_from / 4)),
            ],
            workgroups: [columns, rows.div_ceil(tile.rows()), 1],
            flops: flops_a_row * rows as u64,
        });
        m_base += rows;
    }
    Ok(y)
}

/// What the shader is put together from.
fn files(tile: Tile, layer_norm: bool) -> Vec<&'static str> {
    let mut files = vec![OPERANDS, EPILOGUE, tile.file()];
    files.extend(layer_norm.then_some(LAYER_NORM));
    files
}

/// How a workgroup divides the output (see `shaders/matmul.wgsl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tile {
    /// `sx` x `sy` subgroups of `size` lanes, each `rows` rows by four channels a lane.
    Subgroup { size: u32, rows: u32, sx: u32, sy: u32 },
    /// 8 x 8 threads through workgroup memory, each `tm` rows by `4 * tn` channels.
    Shared { tm: u32, tn: u32 },
    /// 64 threads, which share the inputs of `rows` rows by four channels among them.
    Split { rows: u32 },
}

impl Tile {
    /// Threads each way of a shared tile.
    const SIDE: u32 = 8;
    /// Threads of a workgroup that splits its inputs.
    const SPLIT: u32 = 64;

    /// Rows of a workgroup.
    fn rows(self) -> u32 {
        match self {
            Tile::Subgroup { rows, sy, .. } => rows * sy,
            Tile::Shared { tm, .. } => tm * Self::SIDE,
            Tile::Split { rows } => rows,
        }
    }

    /// Channels of a workgroup.
    fn columns(self) -> u32 {
        match self {
            Tile::Subgroup { size, sx, .. } => 4 * size * sx,
            Tile::Shared { tn, .. } => 4 * Self::SIDE * tn,
            Tile::Split { .. } => 4,
        }
    }

    /// What may be chosen for a GPU whose subgroups have so many lanes (0: no matter).
    pub(super) fn candidates(subgroup: u32) -> Vec<Tile> {
        let mut tiles: Vec<Tile> =
            [(8, 2), (8, 1), (4, 2), (4, 1), (2, 1)].map(|(tm, tn)| Tile::Shared { tm, tn }).to_vec();
        tiles.push(Tile::Split { rows: 8 });
        if let Some(wide) = 16u32.checked_div(subgroup).map(|n| n.max(1)) {
            for (rows, sx, sy) in
                [(16, wide, 4), (16, wide, 2), (16, 1, 4), (16, 1, 2), (8, wide, 4), (8, 1, 2), (8, 1, 1)]
            {
                let tile = Tile::Subgroup { size: subgroup, rows, sx, sy };
                if !tiles.contains(&tile) {
                    tiles.push(tile);
                }
            }
        }
        tiles
    }

    /// The tuned tile, or the usual one, for an output of `m` rows by `n` channels, each of `k4` vectors of input.
    pub(super) fn of(options: &Options, conv: bool, m: u32, n: u32, k4: u32) -> Self {
        let tuned = options.choices.get(Class::of(conv, m, n));
        let tuned = tuned.and_then(|i| Self::candidates(options.subgroup).get(i).copied());
        tuned.unwrap_or_else(|| Self::choose(options.subgroup, m, n, k4))
    }

    /// The largest tile that still leaves workgroups enough to fill a GPU.
    fn choose(subgroup: u32, m: u32, n: u32, k4: u32) -> Self {
        const ENOUGH: u32 = 128;
        let mut tiles = match 16u32.checked_div(subgroup).map(|n| n.max(1)) {
            Some(wide) => [(16, wide, 4), (16, 1, 2), (8, 1, 1)]
                .map(|(rows, sx, sy)| Tile::Subgroup { size: subgroup, rows, sx, sy })
                .to_vec(),
            None => [(8, 2), (8, 1), (4, 1), (2, 1)].map(|(tm, tn)| Tile::Shared { tm, tn }).to_vec(),
        };
        // Where each of the threads that share a sum has something to add. Subgroups that share their rows read less of
        // more than a few.
        if k4 >= Self::SPLIT && (subgroup == 0 || m <= 8) {
            tiles.push(Tile::Split { rows: m.next_power_of_two().min(8) });
        }
        let fills = |t: &&Tile| m.div_ceil(t.rows()) * n.div_ceil(t.columns()) >= ENOUGH;
        *tiles.iter().find(fills).unwrap_or(&tiles[tiles.len() - 1])
    }

    /// The part of the shader that has its `main`.
    fn file(self) -> &'static str {
        match self {
            Tile::Subgroup { .. } => SUBGROUP,
            Tile::Shared { .. } => SHARED,
            Tile::Split { .. } => SPLIT,
        }
    }

    /// The shader's names for it.
    fn defines(self) -> Vec<(&'static str, u32)> {
        match self {
            Tile::Subgroup { size, rows, sx, sy } => vec![
                ("SUBGROUP", size),
                ("ROWS", rows),
                ("LANES", rows.min(size)),
                ("SLOTS", rows.div_ceil(size)),
                ("SX", sx),
                ("SY", sy),
            ],
            Tile::Shared { tm, tn } => vec![
                ("SUBGROUP", 0),
                ("SPLIT", 0),
                ("WX", Self::SIDE),
                ("WY", Self::SIDE),
                ("TM", tm),
                ("TN", tn),
                ("BK4", 4),
                // A thread's part of the tiles that all of them load.
                ("A_LOADS", 4 * tm / Self::SIDE),
                ("W_LOADS", 16 * tn / Self::SIDE),
            ],
            Tile::Split { rows } => {
                vec![("SUBGROUP", 0), ("SPLIT", 1), ("WX", Self::SPLIT), ("WY", 1), ("TM", rows), ("TN", 1)]
            }
        }
    }
}
