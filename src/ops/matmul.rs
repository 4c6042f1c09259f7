//! Matrix multiply, and convolution as implicit matrix multiply.

use super::{Activation, Input, wide};
use crate::checkpoint::pack::Layout;
use crate::checkpoint::quantise::{BLOCK, Bits};
use crate::error::{Error, Result};
use crate::gpu::{Adapted, Arithmetic, Binding, Dispatch, Dtype, Kernel, Recorder, Tensor};

/// No dispatch does more than this (an FMA counting two): 150 ms on an integrated GPU of 0.4 TFLOP/s at 40 %,
/// far below the two seconds after which Windows resets a GPU.
pub const MAX_DISPATCH_FLOPS: u64 = 24_000_000_000;

/// What happens to a sum before it is stored: `post(activation(sum + bias + channel_add) + residual)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue {
    pub activation: Activation,
    /// [n, 1, 1, out], added at every position (the time embedding); or, in [`linear`], as large as the output.
    pub channel_add: Option<Tensor>,
    /// Same shape as the output.
    pub residual: Option<Tensor>,
    pub post: Activation,
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
    let (rows, inner, taps) = (out as usize, x.channels() as usize, (conv.kernel * conv.kernel) as usize);
    let whole = Layout::Matrix { rows, inner, taps };
    let layout = match r.options().weights {
        // A model's first and last convolutions, which are narrower than a block, stay as they are.
        Some(bits) if rows.min(inner) >= BLOCK => {
            Layout::Blocks { rows, inner, taps, bits: bits_of(prefix, bits) }
        }
        _ => whole,
    };
    let bias = bias.then_some(prefix);
    match r.adapted(prefix).filter(|_| layout != whole) {
        None => product(r, x, prefix, layout, bias, conv, e),
        Some(Adapted::Merged) => product(r, x, &format!("{prefix}.merged"), whole, bias, conv, e),
        Some(Adapted::LowRank(rank)) => {
            let plus_channels = Epilogue { channel_add: e.channel_add, ..Default::default() };
            let y = product(r, x, prefix, layout, bias, conv, plus_channels)?;
            let rank = rank as usize;
            let down = Layout::Matrix { rows: rank, inner, taps };
            let d = product(r, x, &format!("{prefix}.lora_down"), down, None, conv, Epilogue::default())?;
            let up = Layout::Matrix { rows, inner: rank, taps: 1 };
            let plus_y = Epilogue { channel_add: Some(y), ..e };
            product(r, d.into(), &format!("{prefix}.lora_up"), up, None, Conv::k1(), plus_y)
        }
    }
}

/// A convolution with the matrix `{name}.weight`, lying as `layout`, and the bias `{bias}.bias`.
fn product(
    r: &mut Recorder,
    x: Input,
    name: &str,
    layout: Layout,
    bias: Option<&str>,
    conv: Conv,
    e: Epilogue,
) -> Result<Tensor> {
    x.check()?;
    let (Layout::Matrix { rows, taps, .. } | Layout::Blocks { rows, taps, .. }) = layout else {
        return Err(Error::unsupported(format!("{name} is no matrix")));
    };
    let (out, taps) = (rows as u32, taps as u32);
    let input = x.first;
    let [h, w] = conv.upsample.unwrap_or([input.h, input.w]);
    if conv.upsample.is_some() && (h.div_ceil(2) != input.h || w.div_ceil(2) != input.w) {
        return Err(Error::unsupported(format!("{name}: upsampling {}x{} to {h}x{w}", input.h, input.w)));
    }
    let [top, left, bottom, right] = conv.pad;
    let size = |len: u32, before: u32, after: u32| {
        (len + before + after).checked_sub(conv.kernel).map(|span| span / conv.stride + 1).ok_or_else(|| {
            Error::unsupported(format!("{name}: a picture of {h}x{w} is too small for this model"))
        })
    };
    let (out_h, out_w) = (size(h, top, bottom)?, size(w, left, right)?);
    let quantised = if let Layout::Blocks { bits, .. } = layout { Some(bits) } else { None };
    let weight = r.weight(format!("{name}.weight"), layout)?;
    let dtype = if e.f32_output { Dtype::F32 } else { r.options().activations };
    let y = r.tensor_of(dtype, input.n, out_h, out_w, out);

    let mut biases = weight;
    if let Some(prefix) = bias {
        biases = r.weight(format!("{prefix}.bias"), Layout::Vector { len: out as usize })?;
    }
    let is_conv = conv.kernel > 1 || conv.stride > 1 || conv.upsample.is_some();
    let everywhere = e.channel_add.is_some_and(|t| !is_conv && t.rows() == y.rows());
    if e.channel_add.is_some_and(|t| t.c != out || !everywhere && (t.n, t.rows()) != (y.n, y.n)) {
        return Err(Error::unsupported(format!("{name}: the added channels do not fit")));
    }
    if e.residual.is_some_and(|t| (t.rows(), t.c) != (y.rows(), out)) {
        return Err(Error::unsupported(format!("{name}: the residual does not fit")));
    }
    // What is not there is bound to something that is.
    let mut bindings = vec![
        Binding::Read(input),
        Binding::Read(x.second.unwrap_or(input)),
        Binding::Weight(weight),
        Binding::Weight(biases),
        Binding::Read(e.channel_add.unwrap_or(input)),
        Binding::Read(e.residual.unwrap_or(input)),
        Binding::Write(y),
    ];
    let watch = y.dtype == Dtype::F16;
    if watch {
        bindings.push(Binding::Write(r.overflow()));
    }

    let m = y.rows();
    let f16 = r.options().arithmetic == Arithmetic::F16 && wide(r) == 0;
    let tile = Tile::choose(m, out);
    let kernel = Kernel::new(
        if is_conv { "conv" } else { "matmul" },
        include_str!("../../shaders/matmul.wgsl"),
        &[
            ("WIDE", wide(r)),
            ("F32_OUTPUT", e.f32_output as u32),
            ("WATCH", watch as u32),
            ("F16_ARITHMETIC", f16 as u32),
            ("CONV", is_conv as u32),
            ("QUANTISED", quantised.is_some() as u32),
            ("Q4", (quantised == Some(Bits::Q4)) as u32),
            ("WX", Tile::WX),
            ("WY", Tile::WY),
            ("TM", tile.tm),
            ("BK4", tile.bk4),
            ("A_LOADS", tile.bk4 * tile.bm() / (Tile::WX * Tile::WY)),
            ("W_LOADS", tile.bk4 * Tile::BN / (Tile::WX * Tile::WY)),
        ],
    );
    let c4 = x.c4();
    let flops_a_row = 2 * out as u64 * x.channels() as u64 * taps as u64;
    let columns = out.div_ceil(Tile::BN);
    let rows_at_once = u32::try_from(MAX_DISPATCH_FLOPS / flops_a_row)
        .unwrap_or(u32::MAX)
        .min(65535 * tile.bm())
        .max(tile.bm())
        / tile.bm()
        * tile.bm();
    let mut m_base = 0;
    while m_base < m {
        let rows = rows_at_once.min(m - m_base);
        r.dispatch(Dispatch {
            kernel: kernel.clone(),
            bindings: bindings.clone(),
            params: vec![
                m_base + rows,
                m_base,
                out,
                taps * c4,
                c4,
                input.c4(),
                input.h,
                input.w,
                out_w,
                if everywhere { 1 } else { out_h * out_w },
                conv.stride,
                top,
                left,
                h,
                w,
                conv.kernel,
                conv.upsample.is_some() as u32,
                bias.is_some() as u32,
                e.channel_add.is_some() as u32,
                e.residual.is_some() as u32,
                e.activation as u32,
                e.post as u32,
            ],
            workgroups: [columns, rows.div_ceil(tile.bm()), 1],
            flops: flops_a_row * rows as u64,
        });
        m_base += rows;
    }
    Ok(y)
}

/// Four bits are too few for what every later layer reads or what acts on every position at once: the ways between
/// the residual blocks, attention's projections, the time embedding. They take eight; the bulk, the convolutions of
/// the blocks and the feed-forward layers, takes four.
fn bits_of(prefix: &str, bits: Bits) -> Bits {
    const EIGHT: [&str; 10] = [
        ".to_q",
        ".to_k",
        ".to_v",
        ".to_out",
        ".proj_in",
        ".proj_out",
        "conv_shortcut",
        "samplers",
        "embedding",
        "time_emb_proj",
    ];
    if EIGHT.iter().any(|part| prefix.contains(part)) { Bits::Q8 } else { bits }
}

/// How a workgroup divides the output (see `shaders/matmul.wgsl`).
struct Tile {
    /// Rows a thread.
    tm: u32,
    /// Vectors of k a slice.
    bk4: u32,
}

impl Tile {
    const WX: u32 = 8;
    const WY: u32 = 8;
    const BN: u32 = Self::WX * 4;

    fn bm(&self) -> u32 {
        self.tm * Self::WY
    }

    /// The largest tile that still leaves workgroups enough to fill a GPU.
    fn choose(m: u32, n: u32) -> Self {
        const ENOUGH: u32 = 128;
        let groups = |bm: u32| m.div_ceil(bm) * n.div_ceil(Self::BN);
        if m <= Self::WY {
            Self { tm: 1, bk4: 8 }
        } else if groups(64) >= ENOUGH {
            Self { tm: 8, bk4: 4 }
        } else {
            Self { tm: 4, bk4: 4 }
        }
    }
}
