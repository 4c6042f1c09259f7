//! Convolutions, and plain products over the same random shapes, with every epilogue.

use super::case::{Case, On, Outcome, Random};
use super::reference::{ACTIVATIONS, activation, join, wide};
use browser_diffusion::gpu::{Options, Recorder};
use browser_diffusion::ops::{self, Activation, Columns, Conv, Epilogue, Input};

pub async fn convolution(on: &On<'_>, options: &Options, seed: u64) -> Outcome {
    convolution_of(on, options, seed, Shape::Any).await
}

#[derive(Clone, Copy, PartialEq)]
pub enum Shape {
    Any,
    /// As many channels as are quantised.
    Large,
    /// Of Winograd's way: 3x3, stride 1, one input.
    Plain,
}

/// Height and width. Winograd's blocks are 8 by 16, and not taken where much of them lies outside.
fn side(random: &mut Random, shape: Shape) -> (u32, u32) {
    match shape {
        Shape::Plain => {
            (8 * random.range(1, 2) - random.range(0, 2), 16 * random.range(1, 2) - random.range(0, 3))
        }
        _ => (random.range(1, 13), random.range(1, 19)),
    }
}

fn gathering(random: &mut Random, shape: Shape, h: u32, w: u32) -> Conv {
    match (random.range(0, 5), shape) {
        (0..3, Shape::Plain) | (0, _) => Conv::k3(),
        (1, _) => Conv::down(),
        (2, _) if h > 1 && w > 1 => Conv::down_asymmetric(),
        (3, Shape::Any | Shape::Large) if h > 1 && w > 1 => Conv::squares(2),
        (4, Shape::Any | Shape::Large) if h > 3 && w > 3 => Conv::squares(4),
        _ => Conv::up_to(2 * h - random.range(0, 1), 2 * w - random.range(0, 1)),
    }
}

pub async fn convolution_of(on: &On<'_>, options: &Options, seed: u64, shape: Shape) -> Outcome {
    let mut case = Case::new(options, seed);
    let random = &mut case.random;
    let n = random.range(1, 2);
    let plain = shape == Shape::Plain;
    let (h, w) = side(random, shape);
    let linear = random.range(0, 2) == 0 && !plain;
    let second = random.range(0, 2) == 0 && !plain;
    let c = if second { random.range(1, 9) * 4 } else { random.range(1, 45) };
    let c2 = if second { random.range(1, 30) } else { 0 };
    let (c, out) =
        if shape == Shape::Large { (c + 40 - c % 4, random.range(32, 90)) } else { (c, random.range(1, 75)) };
    let conv = if linear { Conv::k1() } else { gathering(random, shape, h, w) };
    let bias = random.range(0, 1) == 1;
    let (act, post) = (random.pick(&ACTIVATIONS), random.pick(&[Activation::None, Activation::Relu]));
    let (with_add, with_residual) = (random.range(0, 1) == 1, random.range(0, 1) == 1);
    let (x, xs) = case.input(n, h, w, c);
    let mut input = Input::from(x);
    let mut joined = wide(&xs);
    if second {
        let (x2, xs2) = case.input(n, h, w, c2);
        input = Input::from((x, x2));
        joined = join(&joined, c as usize, &wide(&xs2), c2 as usize);
    }
    let c_all = (c + c2) as usize;
    let [bound_h, bound_w] = conv.upsample.unwrap_or([h, w]);
    let [top, left, bottom, right] = conv.pad;
    let out_h = (bound_h + top + bottom - conv.kernel) / conv.stride + 1;
    let out_w = (bound_w + left + right - conv.kernel) / conv.stride + 1;
    let f32_output = case.random.range(0, 3) == 0;
    let mut e = Epilogue { activation: act, post, f32_output, ..Default::default() };
    let (mut added, mut residual) = (Vec::new(), Vec::new());
    if with_add {
        // Behind four channels of something else.
        let (tensor, v) = case.input(n, 1, 1, 4 + out);
        e.channel_add = Some(Columns { tensor, from: 4, c: out });
        added = v.chunks(4 + out as usize).flat_map(|v| &v[4..]).copied().collect();
    }
    if with_residual {
        let (t, v) = case.input(n, out_h, out_w, out);
        e.residual = Some(t);
        residual = v;
    }
    let op = |r: &mut Recorder| ops::conv2d(r, input, "w", out, Conv { bias, ..conv }, e).unwrap();
    let k = (conv.kernel * conv.kernel) as usize;
    let name = format!(
        "conv {n}x{h}x{w}x{c}+{c2} -> {out}, kernel {} stride {} pad {:?} up {:?}, {act:?} {post:?}",
        conv.kernel, conv.stride, conv.pad, conv.upsample
    );
    let tolerance = case.product_tolerance(c_all * k);
    case.finish(on, name, op, tolerance, |weight| {
        let matrix = weight("w.weight");
        let b = if bias { weight("w.bias") } else { vec![0.0; out as usize] };
        let mut ys = Vec::new();
        for i in 0..n {
            for oy in 0..out_h {
                for ox in 0..out_w {
                    for o in 0..out as usize {
                        let mut sum = b[o];
                        for tap in 0..k {
                            let iy = (oy * conv.stride + tap as u32 / conv.kernel) as i64 - top as i64;
                            let ix = (ox * conv.stride + tap as u32 % conv.kernel) as i64 - left as i64;
                            if iy < 0 || ix < 0 || iy >= bound_h as i64 || ix >= bound_w as i64 {
                                continue;
                            }
                            // torch's nearest: floor(dst * in / out)
                            let sy = iy as u32 * h / bound_h;
                            let sx = ix as u32 * w / bound_w;
                            let at = ((i * h + sy) * w + sx) as usize * c_all;
                            for ch in 0..c_all {
                                sum += joined[at + ch] * matrix[(o * c_all + ch) * k + tap];
                            }
                        }
                        if with_add {
                            sum += added[i as usize * out as usize + o] as f64;
                        }
                        let mut v = activation(sum, act);
                        if with_residual {
                            v += residual[ys.len()] as f64;
                        }
                        ys.push(activation(v, post));
                    }
                }
            }
        }
        ys
    })
    .await
}

/// A 3x3 convolution plus the 1x1 convolution of one or two other tensors.
pub async fn with_shortcut(on: &On<'_>, options: &Options, seed: u64) -> Outcome {
    let mut case = Case::new(options, seed);
    let random = &mut case.random;
    let (n, h, w) = (random.range(1, 2), random.range(1, 13), random.range(1, 19));
    let (c, c2, out) = (random.range(1, 45), random.range(1, 9) * 4, random.range(1, 20) * 4);
    let c3 = random.range(1, 30) * (seed % 2) as u32;
    let (x, xs) = case.input(n, h, w, c);
    let (x2, xs2) = case.input(n, h, w, c2);
    let (mut past, mut joined) = (Input::from(x2), wide(&xs2));
    if c3 > 0 {
        let (x3, xs3) = case.input(n, h, w, c3);
        past = (x2, x3).into();
        joined = join(&joined, c2 as usize, &wide(&xs3), c3 as usize);
    }
    let op = |r: &mut Recorder| ops::conv2d_with_shortcut(r, x, "w", past, "s", out).unwrap();
    // The terms of each are as large as the other's; where a product is made apart, it is rounded once more.
    let apart = if options.weights.is_some() { case.storage() } else { 0.0 };
    let tolerance = case.product_tolerance((9 * c + c2 + c3) as usize) + apart;
    let name = format!("conv {n}x{h}x{w}x{c} and 1x1 of {c2}+{c3} -> {out}");
    case.finish(on, name, op, tolerance, |weight| {
        let (matrix, past, xs) = (weight("w.weight"), weight("s.weight"), wide(&xs));
        let (bias, past_bias) = (weight("w.bias"), weight("s.bias"));
        let (c, c_past) = (c as usize, (c2 + c3) as usize);
        let mut ys = Vec::new();
        for i in 0..n as i64 {
            for (oy, ox) in (0..h as i64).flat_map(|y| (0..w as i64).map(move |x| (y, x))) {
                for o in 0..out as usize {
                    let at = |y: i64, x: i64| ((i * h as i64 + y) * w as i64 + x) as usize;
                    let row = &joined[at(oy, ox) * c_past..][..c_past];
                    let mut sum = bias[o] + past_bias[o];
                    sum += row.iter().zip(&past[o * c_past..]).map(|(x, w)| x * w).sum::<f64>();
                    for tap in 0..9 {
                        let (y, x) = (oy + tap / 3 - 1, ox + tap % 3 - 1);
                        if y >= 0 && x >= 0 && y < h as i64 && x < w as i64 {
                            let pixel = &xs[at(y, x) * c..][..c];
                            let weights = |ch: usize| matrix[(o * c + ch) * 9 + tap as usize];
                            sum += pixel.iter().enumerate().map(|(ch, v)| v * weights(ch)).sum::<f64>();
                        }
                    }
                    ys.push(sum);
                }
            }
        }
        ys
    })
    .await
}
