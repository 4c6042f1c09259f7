//! Matrix multiply, and convolution as implicit matrix multiply.

use super::conv::Conv;
use super::input::{Columns, Input};
use super::matrix::{Matrix, f16_matrix, matrix, matrix_with_shortcut};
use super::norm::normalised;
use super::pointwise::{Activation, plus_scaled};
use super::tile::{Tile, files};
use crate::checkpoint::Layout;
use crate::checkpoint::quantise::Bits;
use crate::error::{Error, Result};
use crate::gpu::Scalar::{self, F32, U32};
use crate::gpu::{
    Adapted, Arithmetic, Binding, Dispatch, Dtype, Kernel, LllitePart, Options, Recorder, Tensor, most_flops,
};
use std::ops::Range;

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

/// y = x W^T + b over the channels; `{name}.weight` is [out, in] (or a 1x1 convolution's [out, in, 1, 1]).
///
/// # Errors
/// `unsupported-model` where shapes do not fit.
pub fn linear(r: &mut Recorder, x: impl Into<Input>, name: &str, out: u32, e: Epilogue) -> Result<Tensor> {
    conv2d(r, x, name, out, Conv::k1(), e)
}

/// [`linear`] without b.
///
/// # Errors
/// Those of [`linear`].
pub fn linear_no_bias(
    r: &mut Recorder,
    x: impl Into<Input>,
    name: &str,
    out: u32,
    e: Epilogue,
) -> Result<Tensor> {
    conv2d(r, x, name, out, Conv { bias: false, ..Conv::k1() }, e)
}

/// Several linear layers over the same `x`, (name, out) each, in one product that writes their outputs beside each
/// other. Where LoRAs change some, those have tensors of their own.
///
/// # Errors
/// `unsupported-model` where shapes do not fit, or an `out` is no multiple of 4.
pub fn linear_stack(r: &mut Recorder, x: impl Into<Input>, parts: &[(&str, u32)]) -> Result<Vec<Columns>> {
    stack(r, x.into(), parts, Conv::k1())
}

/// [`linear_stack`] of layers without bias.
///
/// # Errors
/// Those of [`linear_stack`].
pub fn linear_stack_no_bias(
    r: &mut Recorder,
    x: impl Into<Input>,
    parts: &[(&str, u32)],
) -> Result<Vec<Columns>> {
    stack(r, x.into(), parts, Conv { bias: false, ..Conv::k1() })
}

fn stack(r: &mut Recorder, x: Input, parts: &[(&str, u32)], conv: Conv) -> Result<Vec<Columns>> {
    let e = Epilogue::default();
    let w = matrix(r, parts, x.channels(), conv)?;
    if parts.iter().any(|(name, _)| has_own_input(r, name)) {
        return apart(r, x, parts, w, conv);
    }
    let tensor = product(r, x, parts.first().map_or("", |p| p.0), w, conv, e)?;
    let mut made = Vec::with_capacity(parts.len());
    let mut from = 0;
    for &(name, c) in parts {
        let own = Columns { tensor, from, c };
        made.push(adapted_part(r, x, name, own, Matrix { bias_from: from, ..w }, conv)?);
        from += c;
    }
    Ok(made)
}

/// [`stack`] of layers that do not all read the same.
fn apart(r: &mut Recorder, x: Input, parts: &[(&str, u32)], w: Matrix, conv: Conv) -> Result<Vec<Columns>> {
    let rows: Vec<u32> = parts.iter().map(|(_, rows)| *rows).collect();
    let x = one_tensor(r, x, parts.first().map_or("", |p| p.0))?;
    let mut made = Vec::with_capacity(parts.len());
    let mut from = 0;
    for (i, &(name, c)) in parts.iter().enumerate() {
        let x = controlled(r, x.into(), name, conv)?;
        let e = Epilogue::default();
        let own = match w.part(&rows, i, x.channels()) {
            Some(part) => product(r, x, name, part, conv, e)?.into(),
            // What the stack makes of the other parts goes unread.
            None => Columns { tensor: product(r, x, name, w, conv, e)?, from, c },
        };
        made.push(adapted_part(r, x, name, own, Matrix { bias_from: from, ..w }, conv)?);
        from += c;
    }
    Ok(made)
}

/// What the layer `name`, a part of the stack `w` over a quantised matrix, is with LoRAs; `own` without.
fn adapted_part(
    r: &mut Recorder,
    x: Input,
    name: &str,
    own: Columns,
    w: Matrix,
    conv: Conv,
) -> Result<Columns> {
    let e = Epilogue::default();
    Ok(match r.adapted(name).filter(|_| w.bits.is_some()) {
        None => own,
        Some(Adapted::LowRank(rank)) => low_rank(r, x, name, rank, own, conv, e)?.into(),
        // What the stack makes of this part goes unread.
        Some(Adapted::Merged) => merged(r, x, name, Matrix { rows: own.c, ..w }, conv, e)?.into(),
    })
}

/// A convolution over [n, h, w, c], 1x1 or 3x3, or over squares of it. Where LoRAs change a quantised one, with them; where
/// ControlNet-LLLites change what it reads, of that.
///
/// # Errors
/// `unsupported-model` where shapes do not fit.
pub fn conv2d(
    r: &mut Recorder,
    x: impl Into<Input>,
    name: &str,
    out: u32,
    conv: Conv,
    e: Epilogue,
) -> Result<Tensor> {
    let x = controlled(r, x.into(), name, conv)?;
    let w = matrix(r, &[(name, out)], x.channels(), conv)?;
    match r.adapted(name).filter(|_| w.bits.is_some()) {
        None => product(r, x, name, w, conv, e),
        Some(Adapted::Merged) => merged(r, x, name, w, conv, e),
        Some(Adapted::LowRank(rank)) => {
            let plus_channels = Epilogue { channel_add: e.channel_add, ..Default::default() };
            let base = product(r, x, name, w, conv, plus_channels)?;
            low_rank(r, x, name, rank, base.into(), conv, e)
        }
    }
}

/// Whether ControlNet-LLLites change what the layer called `name` reads.
fn has_own_input(r: &Recorder, name: &str) -> bool {
    !r.lllites.is_empty() && r.lllites.contains_key(&r.path(name))
}

/// What the layer called `name` reads where it is given `x`: `x` plus, of each ControlNet-LLLite that changes it in turn,
/// `scale * up(relu(mid(seen, relu(down(x)))))`, position by position (kohya-ss/sd-scripts, `control_net_lllite.py`).
fn controlled(r: &mut Recorder, x: Input, name: &str, conv: Conv) -> Result<Input> {
    if !has_own_input(r, name) {
        return Ok(x);
    }
    let path = r.path(name);
    let parts = r.lllites.get(&path).cloned().unwrap_or_default();
    if conv.upsample.is_some() {
        return Err(Error::unsupported(format!(
            "{path} enlarges its input, which no ControlNet-LLLite changes here"
        )));
    }
    let mut x = one_tensor(r, x, name)?;
    for LllitePart { weights, seen, in_dim, mlp_dim, scales, at } in parts {
        if in_dim != x.c || (seen.n, seen.h, seen.w) != (x.n, x.h, x.w) {
            let (_, module) = weights.rsplit_once('.').unwrap_or(("", &weights));
            return Err(Error::unsupported(format!(
                "{module}.down.0.weight is for {in_dim} channels and its picture becomes {}x{}, where {path} reads {} \
                 channels of {}x{}",
                seen.w, seen.h, x.c, x.w, x.h
            )));
        }
        let more = r.apart(&weights, |r| {
            let relu = Epilogue { activation: Activation::Relu, ..Default::default() };
            let narrow = f16_linear(r, x.into(), "down.0", mlp_dim, relu)?;
            let both = f16_linear(r, (seen, narrow).into(), "mid.0", mlp_dim, relu)?;
            f16_linear(r, both.into(), "up.0", in_dim, Epilogue::default())
        })?;
        x = plus_scaled(r, x, more, scales, at)?;
    }
    Ok(x.into())
}

/// `x` as the layer called `name` reads it.
fn one_tensor(r: &mut Recorder, x: Input, name: &str) -> Result<Tensor> {
    match (x.second, x.norm) {
        (None, None) => Ok(x.first),
        (None, Some(norm)) => Ok(normalised(r, x.first, norm)),
        (Some(_), _) => Err(Error::unsupported(format!(
            "{} reads a skip connection, which no ControlNet-LLLite changes here",
            r.path(name)
        ))),
    }
}

/// [`linear`] by a matrix in f16, whatever the others lie as.
fn f16_linear(r: &mut Recorder, x: Input, name: &str, out: u32, e: Epilogue) -> Result<Tensor> {
    let w = f16_matrix(r, name, [out, x.channels(), 1])?;
    let bias = r.weight(&format!("{name}.bias"), Layout::Vector { len: out as usize })?;
    product(r, x, name, Matrix { bias: Some(bias), ..w }, Conv::k1(), e)
}

/// As `w` does, with the matrix that LoRAs are merged into in its matrix's place.
fn merged(r: &mut Recorder, x: Input, name: &str, w: Matrix, conv: Conv, e: Epilogue) -> Result<Tensor> {
    let Matrix { weight, bits, .. } =
        f16_matrix(r, &format!("{name}.merged"), [w.rows, x.channels(), conv.taps()])?;
    product(r, x, name, Matrix { weight, bits, ..w }, conv, e)
}

/// The LoRAs' two narrow products, added to `base`, which is what the layer's own matrix and bias make.
fn low_rank(
    r: &mut Recorder,
    x: Input,
    name: &str,
    rank: u32,
    base: Columns,
    conv: Conv,
    e: Epilogue,
) -> Result<Tensor> {
    let down = f16_matrix(r, &format!("{name}.lora_down"), [rank, x.channels(), conv.taps()])?;
    let narrow = product(r, x, name, down, conv, Epilogue::default())?;
    let up = f16_matrix(r, &format!("{name}.lora_up"), [base.c, rank, 1])?;
    let plus_base = Epilogue { channel_add: Some(base), ..e };
    product(r, narrow.into(), name, up, Conv::k1(), plus_base)
}

/// The 3x3 convolution `{name}` of `x`, plus the 1x1 convolution `{shortcut}` of `past`, both with bias: what a
/// residual block ends with. One product where weights lie as f16, but for large pictures in Winograd's way.
///
/// # Errors
/// `unsupported-model` where shapes do not fit.
pub fn conv2d_with_shortcut(
    r: &mut Recorder,
    x: Tensor,
    name: &str,
    past: Input,
    shortcut: &str,
    out: u32,
) -> Result<Tensor> {
    let blocks = x.n * Tile::blocks([x.h, x.w]).iter().product::<u32>();
    let shape = [x.rows(), out, blocks, x.c4()];
    // With narrow ones of small pictures too there would be over 300 dispatches in a step.
    let much = past.channels() > out || x.rows() >= 2048;
    let by_winograd = much && Tile::winograd(r.options(), shape).is_some();
    if by_winograd || r.options().weights.is_some() || !out.is_multiple_of(4) {
        let residual = conv2d(r, past, shortcut, out, Conv::k1(), Epilogue::default())?;
        let plus_residual = Epilogue { residual: Some(residual), ..Default::default() };
        return conv2d(r, x, name, out, Conv::k3(), plus_residual);
    }
    let x = controlled(r, x.into(), name, Conv::k3())?.first;
    let past = controlled(r, past, shortcut, Conv::k1())?;
    past.check()?;
    if (past.first.n, past.first.h, past.first.w) != (x.n, x.h, x.w) {
        return Err(Error::unsupported(format!("{}: the input does not fit", r.path(shortcut))));
    }
    let matrix = matrix_with_shortcut(r, (name, x.c), (shortcut, past.channels()), out)?;
    let (conv, e) = (Conv::k3(), Epilogue::default());
    Product { x: x.into(), name, matrix, conv, e, past: Some(past), part: None }.record(r)
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

/// Some rows of a convolution's output: into a tensor of their own, or to their places in `into`. `x` must hold all the
/// rows that they are made of.
///
/// # Errors
/// `unsupported-model` where shapes do not fit.
pub fn conv2d_rows(
    r: &mut Recorder,
    x: Rows,
    name: &str,
    out: u32,
    conv: Conv,
    rows: Range<u32>,
    into: Option<Tensor>,
) -> Result<Tensor> {
    let matrix = matrix(r, &[(name, out)], x.tensor.c, conv)?;
    let (e, part) = (Epilogue::default(), Some((x, rows, into)));
    Product { x: x.tensor.into(), name, matrix, conv, e, past: None, part }.record(r)
}

/// A product as it is to be recorded.
struct Product<'a> {
    x: Input,
    /// For messages.
    name: &'a str,
    matrix: Matrix,
    conv: Conv,
    e: Epilogue,
    /// The input of a shortcut.
    past: Option<Input>,
    /// The rows that the input holds, those to make, and where to.
    part: Option<(Rows, Range<u32>, Option<Tensor>)>,
}

/// Heights and widths.
struct Size {
    /// Of the input as the taps see it.
    bound: [u32; 2],
    /// Of the output, all of it.
    out: [u32; 2],
}

/// Where a product's sums go.
struct Target {
    y: Tensor,
    /// Those that are made, of all pictures' one after the other.
    positions: Range<u32>,
    /// The first position of the picture that is in the input, and in `y`.
    in_from: u32,
    out_from: u32,
}

fn product(
    r: &mut Recorder,
    x: Input,
    name: &str,
    matrix: Matrix,
    conv: Conv,
    e: Epilogue,
) -> Result<Tensor> {
    Product { x, name, matrix, conv, e, past: None, part: None }.record(r)
}

impl Product<'_> {
    /// The dispatches.
    fn record(&self, r: &mut Recorder) -> Result<Tensor> {
        self.x.check()?;
        let size = self.size(r)?;
        let target = self.target(r, &size)?;
        let bindings = self.bindings(r, target.y)?;
        let y = target.y;
        let out = self.matrix.rows;
        let past_c = self.past.map_or(0, |past| past.channels());
        let flops_a_position = 2 * u64::from(out) * u64::from(self.x.channels() * self.conv.taps() + past_c);
        let max_flops = r.options().dispatch_flops();
        // Parts of one size, so that the last fills the GPU as well as the others.
        let part = |m: u32, flops: u64, most: u64| {
            let parts = (u64::from(m) * flops).div_ceil(most).max(1);
            u64::from(m).div_ceil(parts) as u32
        };
        let m = target.positions.end - target.positions.start;
        let [down, across] = Tile::blocks(size.out);
        let blocks = y.n * down * across;
        let tile = self.tile(r.options(), [m, blocks], part(m, flops_a_position, max_flops));
        let positions = match tile {
            Tile::Winograd { .. } => 0..blocks,
            _ => target.positions.clone(),
        };
        let flops_a_row = u64::from(tile.outputs()) * flops_a_position;
        let kernel = self.kernel(r.options(), y, tile);
        let most = most_flops(max_flops, &kernel);
        let part = part(positions.end - positions.start, flops_a_row, most);
        let most = u32::try_from(most / flops_a_row).unwrap_or(u32::MAX) / tile.rows();
        let rows_at_once = part.div_ceil(tile.rows()).min(most).clamp(1, 65535) * tile.rows();
        for m_base in positions.clone().step_by(rows_at_once as usize) {
            let rows = rows_at_once.min(positions.end - m_base);
            let mut params = vec![("m", U32(m_base + rows)), ("m_base", U32(m_base))];
            params.extend(self.params(&size, &target));
            if let Tile::Winograd { .. } = tile {
                params.extend([("blocks_w", U32(across)), ("blocks", U32(down * across))]);
            }
            r.dispatch(Dispatch {
                kernel: kernel.clone(),
                bindings: bindings.clone(),
                params,
                workgroups: [out.div_ceil(tile.columns()), rows.div_ceil(tile.rows()), 1],
                flops: flops_a_row * u64::from(rows),
            });
        }
        Ok(y)
    }

    /// For `m` positions in so many blocks, `part` of them in a dispatch.
    fn tile(&self, options: &Options, [m, blocks]: [u32; 2], part: u32) -> Tile {
        let (conv, out, c4) = (self.conv, self.matrix.rows, self.x.c4());
        let plain = conv.kernel == 3 && conv.stride == 1 && conv.pad == [1; 4];
        let alone = self.x.second.is_none() && self.past.is_none() && self.part.is_none();
        let winograd = if plain && alone { Tile::winograd(options, [m, out, blocks, c4]) } else { None };
        winograd.unwrap_or_else(|| Tile::of(options, conv.gathers(), part, out, conv.taps() * c4))
    }

    fn refuse(&self, r: &Recorder, what: &str) -> Error {
        Error::unsupported(format!("{}: {what}", r.path(self.name)))
    }

    fn size(&self, r: &Recorder) -> Result<Size> {
        let conv = self.conv;
        let Tensor { h: rows, w: in_w, .. } = self.x.first;
        let in_h = self.part.as_ref().map_or(rows, |(x, ..)| x.height);
        let [h, w] = conv.upsample.unwrap_or([in_h, in_w]);
        if conv.upsample.is_some() && (h.div_ceil(2) != in_h || w.div_ceil(2) != in_w) {
            return Err(self.refuse(r, &format!("upsampling {in_h}x{in_w} to {h}x{w}")));
        }
        let out = |len: u32, before: u32, after: u32| {
            let span = (len + before + after).checked_sub(conv.kernel);
            span.map(|span| span / conv.stride + 1)
                .ok_or_else(|| self.refuse(r, &format!("a picture of {h}x{w} is too small for this model")))
        };
        let [top, left, bottom, right] = conv.pad;
        Ok(Size { bound: [h, w], out: [out(h, top, bottom)?, out(w, left, right)?] })
    }

    fn target(&self, r: &mut Recorder, size: &Size) -> Result<Target> {
        let (input, out, e) = (self.x.first, self.matrix.rows, &self.e);
        let [out_h, out_w] = size.out;
        if e.geglu && (!out.is_multiple_of(8) || e.residual.is_some() || e.f32_output) {
            let what =
                format!("GEGLU over {out} channels: only multiples of 8 are supported, and no residual");
            return Err(self.refuse(r, &what));
        }
        let dtype = if e.f32_output { Dtype::F32 } else { r.options().activations };
        let target = match &self.part {
            None => {
                let y = r.tensor_of(dtype, input.n, out_h, out_w, if e.geglu { out / 2 } else { out });
                Target { y, positions: 0..y.rows(), in_from: 0, out_from: 0 }
            }
            Some((x, rows, into)) => {
                let whole = |t: Tensor| (t.h, t.w, t.c) == (out_h, out_w, out);
                if input.n != 1 || rows.end > out_h || into.is_some_and(|t| !whole(t)) {
                    return Err(self.refuse(r, "these rows do not fit"));
                }
                let positions = rows.start * out_w..rows.end * out_w;
                let out_from = if into.is_some() { 0 } else { positions.start };
                let y = into.unwrap_or_else(|| r.tensor_of(dtype, 1, rows.end - rows.start, out_w, out));
                Target { y, positions, in_from: x.from * input.w, out_from }
            }
        };
        let y = target.y;
        let a_picture = |t: Columns| (t.tensor.n, t.tensor.rows()) == (y.n, y.n);
        if e.channel_add.is_some_and(|t| t.c != out || !(self.adds_everywhere(y) || a_picture(t))) {
            return Err(self.refuse(r, "the added channels do not fit"));
        }
        if e.residual.is_some_and(|t| (t.rows(), t.c) != (y.rows(), out)) {
            return Err(self.refuse(r, "the residual does not fit"));
        }
        Ok(target)
    }

    /// Whether channel_add is as large as the sums.
    fn adds_everywhere(&self, y: Tensor) -> bool {
        self.e.channel_add.is_some_and(|t| !self.conv.gathers() && t.tensor.rows() == y.rows())
    }

    /// In the order of `shaders/matmul_operands.wgsl`. What is not there is bound to something that is.
    fn bindings(&self, r: &mut Recorder, y: Tensor) -> Result<Vec<Binding>> {
        let (x, e, Matrix { weight, bias, .. }) = (&self.x, &self.e, self.matrix);
        let input = x.first;
        // WebGPU's default is eight storage buffers: the norm's weights stand where what is added would.
        let added = match (x.norm, self.past) {
            (_, Some(past)) => vec![Binding::Read(past.second.unwrap_or(past.first))],
            (Some(norm), None) => {
                let alone = x.second.is_none() && e.channel_add.is_none() && e.residual.is_none();
                if self.conv.gathers() || !alone {
                    return Err(self.refuse(r, "a layer normalisation cannot be folded in here"));
                }
                vec![Binding::Weight(norm.gamma), Binding::Weight(norm.beta)]
            }
            (None, None) => vec![
                Binding::Read(e.channel_add.map_or(input, |columns| columns.tensor)),
                Binding::Read(e.residual.unwrap_or(input)),
            ],
        };
        let mut bindings = vec![
            Binding::Read(input),
            Binding::Read(self.past.map(|past| past.first).or(x.second).unwrap_or(input)),
            Binding::Weight(weight),
            Binding::Weight(bias.unwrap_or(weight)),
        ];
        bindings.extend(added);
        bindings.push(Binding::Write(y));
        if y.dtype == Dtype::F16 {
            bindings.push(Binding::Write(r.overflow()));
        }
        Ok(bindings)
    }

    fn kernel(&self, options: &Options, y: Tensor, tile: Tile) -> Kernel {
        let Self { x, e, past, .. } = self;
        let f16 = options.arithmetic == Arithmetic::F16 && options.activations == Dtype::F16;
        let f16 = f16 && matches!(tile, Tile::Shared { .. });
        let gathers = self.conv.gathers();
        let activates = (e.activation, e.post) != (Activation::None, Activation::None);
        let bits = self.matrix.bits;
        let second = x.second.is_some() as u32;
        let shortcut = past.map_or(0, |past| 1 + past.second.is_some() as u32);
        let mut defines = vec![
            ("F32_OUTPUT", e.f32_output as u32),
            ("GEGLU", e.geglu as u32),
            ("WATCH", (y.dtype == Dtype::F16) as u32),
            ("F16_ARITHMETIC", f16 as u32),
            ("CONV", gathers as u32),
            ("LAYER_NORM", x.norm.is_some() as u32),
            ("KERNEL", self.conv.kernel),
            ("SHORTCUT", shortcut),
            ("ADDED", (x.norm.is_none() && past.is_none()) as u32),
            ("QUANTISED", bits.is_some() as u32),
            ("Q4", (bits == Some(Bits::Q4)) as u32),
            ("SECOND", second),
            ("INPUTS", 1 + second + shortcut),
            ("ACTIVATION", activates as u32),
        ];
        defines.extend(tile.defines());
        defines.extend(tile.slices(f16));
        if let Tile::Winograd { .. } = tile {
            // Vectors of channels at once: what fits into 32 KiB of workgroup memory.
            let wide = options.activations == Dtype::F32 || bits.is_some();
            defines.push(("DEPTH", if wide { 2 } else { 4 }));
        }
        Kernel::new(if gathers { "conv" } else { "matmul" }, &files(tile, x.norm.is_some()), &defines)
    }

    /// All that its dispatches have in common; `shaders/matmul_operands.wgsl` says what they are.
    fn params(&self, size: &Size, target: &Target) -> Vec<(&'static str, Scalar)> {
        let Self { x, conv, e, past, .. } = self;
        let [top, left, ..] = conv.pad;
        let [out_h, out_w] = size.out;
        vec![
            ("n", U32(self.matrix.rows)),
            ("k4", U32(conv.taps() * x.c4())),
            ("c4", U32(x.c4())),
            ("c4_0", U32(x.first.c4())),
            ("c4_1", U32(past.map(|past| past.first).or(x.second).map_or(0, |t| t.c4()))),
            ("c4_2", U32(past.and_then(|past| past.second).map_or(0, |t| t.c4()))),
            ("in_h", U32(x.first.h)),
            ("in_w", U32(x.first.w)),
            ("out_w", U32(out_w)),
            ("out_positions", U32(if self.adds_everywhere(target.y) { 1 } else { out_h * out_w })),
            ("stride", U32(conv.stride)),
            ("pad_top", U32(top)),
            ("pad_left", U32(left)),
            ("bound_h", U32(size.bound[0])),
            ("bound_w", U32(size.bound[1])),
            ("upsample", Scalar::flag(conv.upsample.is_some())),
            ("has_bias", Scalar::flag(self.matrix.bias.is_some())),
            ("has_channel_add", Scalar::flag(e.channel_add.is_some())),
            ("has_residual", Scalar::flag(e.residual.is_some())),
            ("activation", U32(e.activation as u32)),
            ("post", U32(e.post as u32)),
            ("add_stride", U32(e.channel_add.map_or(0, |columns| columns.stride()))),
            ("add_from", U32(e.channel_add.map_or(0, |columns| columns.first()))),
            ("in_from", U32(target.in_from)),
            ("out_from", U32(target.out_from)),
            ("epsilon", F32(x.norm.map_or(0.0, |norm| norm.epsilon))),
            ("bias_from", U32(self.matrix.bias_from / 4)),
        ]
    }
}
