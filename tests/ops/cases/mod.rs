//! Every op against a plain f64 reference over random shapes: odd sizes, 1, and what the tiles do not divide.
//!
//! Shared by the native test (`tests/ops.rs`) and the browser test (`tests/web/ops_check.rs`).
//!
//! Tolerances are relative L2 errors, derived from the arithmetic. u = 2^-11 is the worst rounding to f16.
//! - Storing the output rounds it once: u.
//! - Sums in f32 of K products add at most about K 2^-24 when signs are random.
//! - With f16 products, each product and each of the three sums of a four-wide dot rounds: at most 4 u of the
//!   terms, and independent errors add up as the terms themselves do, so 4 u of the result.
//! - With f32 storage only the f32 sums remain: K 2^-24, and 2^-22 for the functions.

use browser_diffusion::checkpoint::pack::Packer;
use browser_diffusion::checkpoint::{Bits, Layout, TensorInfo};
use browser_diffusion::gpu::choices::Class;
use browser_diffusion::gpu::{Adapted, Arithmetic, Dtype, Gpu, Options, Plan, Recorder, Tensor, Weights};
use browser_diffusion::ops::{self, Activation, Columns, Conv, Epilogue, Input, autotune};
use half::f16;
use std::rc::Rc;

const U: f64 = 1.0 / 2048.0;

/// One comparison.
pub struct Outcome {
    pub name: String,
    pub error: f64,
    pub tolerance: f64,
}

impl Outcome {
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // splitmix64 (Steele et al. 2014)
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn range(&mut self, low: u32, high: u32) -> u32 {
        low + (self.next() % (high - low + 1) as u64) as u32
    }
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.next() as usize % of.len()]
    }
    /// Values in -scale .. scale that f16 holds exactly.
    fn values(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len)
            .map(|_| f16::from_f32(((self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale).to_f32())
            .collect()
    }
}

/// A recording under test: its inputs, weights and what must come out.
struct Case {
    r: Recorder,
    random: Random,
    inputs: Vec<(Tensor, Vec<f32>)>,
    ids: Vec<(Tensor, Vec<u32>)>,
    f16: bool,
    wide: bool,
}

impl Case {
    fn new(options: &Options, seed: u64) -> Self {
        Self {
            r: Recorder::new(options),
            random: Random(seed),
            inputs: Vec::new(),
            ids: Vec::new(),
            f16: options.arithmetic == Arithmetic::F16,
            wide: options.activations == Dtype::F32,
        }
    }
    fn input(&mut self, n: u32, h: u32, w: u32, c: u32) -> (Tensor, Vec<f32>) {
        let t = self.r.input(n, h, w, c);
        let values = self.random.values((n * h * w * c) as usize, 1.0);
        self.inputs.push((t, values.clone()));
        (t, values)
    }
    fn storage(&self) -> f64 {
        if self.wide { 1.0 / (1u64 << 22) as f64 } else { U }
    }
    fn product_tolerance(&self, k: usize) -> f64 {
        let sums = k as f64 / (1u64 << 24) as f64;
        self.storage() + sums + if self.f16 && !self.wide { 4.0 * U } else { 0.0 }
    }
    /// Runs; `wanted(weights)` computes the reference from the weights as the checkpoint has them.
    async fn finish(
        mut self,
        gpu: &Gpu,
        name: String,
        y: Tensor,
        tolerance: f64,
        wanted: impl Fn(&dyn Fn(&str) -> Vec<f64>) -> Vec<f64>,
    ) -> Outcome {
        self.r.output(y);
        let plan: Plan = std::mem::replace(&mut self.r, Recorder::new(&Options::default())).finish();
        let mut error = self.run(gpu, &plan, &name, y, false, &wanted).await;
        // Where activations hold it: the same with weights that f16 does not hold.
        if self.wide && !plan.weights().is_empty() {
            error = error.max(self.run(gpu, &plan, &name, y, true, &wanted).await);
        }
        Outcome { name, error, tolerance }
    }

    /// The relative error of one run. `large`: weights too large for f16, which lie as f32.
    async fn run(
        &mut self,
        gpu: &Gpu,
        plan: &Plan,
        name: &str,
        y: Tensor,
        large: bool,
        wanted: &impl Fn(&dyn Fn(&str) -> Vec<f64>) -> Vec<f64>,
    ) -> f64 {
        let wide = plan.weights().iter().filter(|_| large).map(|w| w.name.clone()).collect();
        let weights = Weights::allocate_wide(gpu, plan.weights(), &wide);
        let mut values = Vec::new();
        for spec in plan.weights() {
            let (len, scale) = match spec.layout {
                Layout::Matrix { rows, inner, taps } | Layout::Blocks { rows, inner, taps, .. } => {
                    (rows * inner * taps, 1.7 / ((inner * taps) as f32).sqrt())
                }
                Layout::Vector { len } => (len, 1.0),
            };
            let mut v = self.random.values(len, scale);
            if large {
                v.iter_mut().for_each(|v| *v *= 1e7);
            }
            weights.upload(gpu, &spec.name, &v).unwrap();
            let read = match spec.layout {
                Layout::Blocks { rows, inner, taps, bits } if !large => {
                    dequantised(spec.layout, [rows, inner, taps], bits, &v)
                }
                _ => v.iter().map(|&x| x as f64).collect::<Vec<f64>>(),
            };
            values.push((spec.name.clone(), read));
        }
        let executable = plan.instantiate(gpu, &weights).unwrap();
        for (t, v) in &self.inputs {
            executable.write(gpu, *t, v).unwrap();
        }
        for (t, v) in &self.ids {
            executable.write_u32(gpu, *t, v).unwrap();
        }
        executable.run(gpu);
        let got = executable.read(gpu, y).await.unwrap();
        let weight = |name: &str| values.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap();
        let wanted = wanted(&weight);
        assert_eq!(got.len(), wanted.len(), "{name}");
        let (mut off, mut size) = (0.0, 0.0);
        for (g, w) in got.iter().zip(&wanted) {
            off += (*g as f64 - w).powi(2);
            size += w * w;
        }
        let error = (off / size.max(1e-30)).sqrt();
        if error.is_nan() { f64::INFINITY } else { error }
    }
}

/// What a quantised matrix's blocks say, in the checkpoint's order ([out, in, taps]): the format of
/// `checkpoint::quantise`, read bit by bit in f64.
fn dequantised(layout: Layout, [rows, inner, taps]: [usize; 3], bits: Bits, values: &[f32]) -> Vec<f64> {
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let shape = [rows, inner, taps].map(|n| n as u64).to_vec();
    let info = TensorInfo {
        name: "w".into(),
        dtype: browser_diffusion::checkpoint::Dtype::F32,
        shape,
        begin: 0,
        end: data.len() as u64,
    };
    let mut packed = Vec::new();
    let mut write = |offset: u64, bytes: &[u8]| {
        assert_eq!(offset, packed.len() as u64);
        packed.extend_from_slice(bytes);
        Ok(())
    };
    let mut packer = Packer::new(&info, layout).unwrap();
    // Cut where it fits nothing, so that blocks, rows and elements arrive in pieces.
    for piece in data.chunks(4099) {
        packer.push(piece, &mut write).unwrap();
    }
    packer.finish(&mut write).unwrap();
    assert_eq!(packed.len() as u64, layout.packed_bytes().unwrap());

    let (width, words) = match bits {
        Bits::Q8 => (8, 9),
        Bits::Q4 => (4, 5),
    };
    let inner4 = inner.next_multiple_of(4);
    let blocks_a_row = (inner4 * taps).div_ceil(32);
    let half = |at: usize| f16::from_le_bytes([packed[at], packed[at + 1]]).to_f64();
    let mut out = Vec::with_capacity(values.len());
    for row in 0..rows {
        for c in 0..inner {
            for tap in 0..taps {
                let at = tap * inner4 + c;
                let block = (row * blocks_a_row + at / 32) * words * 4;
                let bit = at % 32 * width;
                let q = packed[block + bit / 8] >> (bit % 8) & ((1u32 << width) - 1) as u8;
                let (range, least) = (half(block + words * 4 - 4), half(block + words * 4 - 2));
                let weight = least + range * q as f64 / ((1 << width) - 1) as f64;
                // Half a step, a rounding of the least value and of the range to f16.
                let off = (weight - values[out.len()] as f64).abs();
                let most = range / ((1 << width) - 1) as f64 / 2.0 + least.abs() * U + range * U;
                assert!(off <= most * 1.001, "{off} > {most}");
                out.push(weight);
            }
        }
    }
    out
}

fn wide(v: &[f32]) -> Vec<f64> {
    v.iter().map(|&x| x as f64).collect()
}

/// erf by its Taylor series (|x| < 3) and complementary continued fraction: f64 accuracy, nothing shared with
/// the shader's approximation.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 3.0 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term.abs() > 1e-17 * sum.abs() {
            n += 1.0;
            term *= -a * a / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let tail = (1..=60).rev().fold(a, |t, k| a + k as f64 / 2.0 / t);
        1.0 - (-a * a).exp() / (tail * std::f64::consts::PI.sqrt())
    };
    value * x.signum()
}

fn activation(x: f64, a: Activation) -> f64 {
    match a {
        Activation::None => x,
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::Relu => x.max(0.0),
        Activation::TanhClamp => 3.0 * (x / 3.0).tanh(),
        Activation::LeakyRelu => x.max(0.2 * x),
    }
}

const ACTIVATIONS: [Activation; 7] = [
    Activation::None,
    Activation::Silu,
    Activation::Gelu,
    Activation::QuickGelu,
    Activation::Relu,
    Activation::TanhClamp,
    Activation::LeakyRelu,
];

/// Two tensors [rows, a] and [rows, b] joined to [rows, a + b].
fn join(first: &[f64], a: usize, second: &[f64], b: usize) -> Vec<f64> {
    if b == 0 {
        return first.to_vec();
    }
    first
        .chunks(a)
        .zip(second.chunks(b))
        .flat_map(|(x, y)| x.iter().chain(y).copied().collect::<Vec<_>>())
        .collect()
}

async fn convolution(gpu: &Gpu, options: &Options, seed: u64) -> Outcome {
    convolution_of(gpu, options, seed, false).await
}

async fn convolution_of(gpu: &Gpu, options: &Options, seed: u64, large: bool) -> Outcome {
    let mut case = Case::new(options, seed);
    let random = &mut case.random;
    let n = random.range(1, 2);
    let (h, w) = (random.range(1, 13), random.range(1, 19));
    let linear = random.range(0, 2) == 0;
    let second = random.range(0, 2) == 0;
    let c = if second { random.range(1, 9) * 4 } else { random.range(1, 45) };
    let c2 = if second { random.range(1, 30) } else { 0 };
    let (c, out) = if large { (c + 40 - c % 4, random.range(32, 90)) } else { (c, random.range(1, 75)) };
    let conv = if linear {
        Conv::k1()
    } else {
        match random.range(0, 3) {
            0 => Conv::k3(),
            1 => Conv::down(),
            2 if h > 1 && w > 1 => Conv::down_asymmetric(),
            _ => Conv::up_to(2 * h - random.range(0, 1), 2 * w - random.range(0, 1)),
        }
    };
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
    let y = ops::conv2d(&mut case.r, input, "w", out, Conv { bias, ..conv }, e).unwrap();
    let k = (conv.kernel * conv.kernel) as usize;
    let name = format!(
        "conv {n}x{h}x{w}x{c}+{c2} -> {out}, kernel {} stride {} pad {:?} up {:?}, {act:?} {post:?}",
        conv.kernel, conv.stride, conv.pad, conv.upsample
    );
    let tolerance = case.product_tolerance(c_all * k);
    case.finish(gpu, name, y, tolerance, |weight| {
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

/// A matrix multiply of more rows, columns and depth than the random ones, so that every tile is used.
async fn matmul(gpu: &Gpu, options: &Options, m: u32, k: u32, n: u32) -> Outcome {
    let mut case = Case::new(options, (m * 31 + k * 7 + n) as u64);
    let (x, xs) = case.input(1, 1, m, k);
    let y = ops::linear(&mut case.r, x, "w", n, Epilogue::default()).unwrap();
    let tolerance = case.product_tolerance(k as usize);
    let xs = wide(&xs);
    case.finish(gpu, format!("linear {m}x{k}x{n}"), y, tolerance, |weight| {
        let (matrix, b) = (weight("w.weight"), weight("w.bias"));
        xs.chunks(k as usize)
            .flat_map(|row| {
                matrix
                    .chunks(k as usize)
                    .zip(&b)
                    .map(|(w, b)| row.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + b)
                    .collect::<Vec<_>>()
            })
            .collect()
    })
    .await
}

/// Matrices over one input in one product: rows of `outs`, each weight under its own name.
async fn stack(gpu: &Gpu, options: &Options, m: u32, k: u32, outs: [u32; 3]) -> Outcome {
    let mut case = Case::new(options, (m + k + outs[1]) as u64);
    let (x, xs) = case.input(1, 1, m, k);
    let names = ["a", "b", "c"];
    let parts: Vec<(&str, u32)> = names.into_iter().zip(outs).collect();
    let y = ops::linear_stack(&mut case.r, x, &parts).unwrap()[0].tensor;
    let tolerance = case.product_tolerance(k as usize);
    let xs = wide(&xs);
    case.finish(gpu, format!("stack {m}x{k}x{outs:?}"), y, tolerance, |weight| {
        let matrix: Vec<f64> = names.iter().flat_map(|n| weight(&format!("{n}.weight"))).collect();
        let b: Vec<f64> = names.iter().flat_map(|n| weight(&format!("{n}.bias"))).collect();
        let rows = xs.chunks(k as usize);
        let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
        rows.flat_map(|x| matrix.chunks(k as usize).zip(&b).map(|(w, b)| dot(x, w) + b).collect::<Vec<_>>())
            .collect()
    })
    .await
}

/// x times the rows of `w`, [n, k].
fn times(x: &[f64], w: &[f64]) -> Vec<f64> {
    w.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

/// Quantised layers that LoRAs change. `part`: the first or the last of a stack, to which a low rank is added and in
/// whose matrix's place another stands; none: a layer of its own with a low rank and GEGLU.
async fn adapted(gpu: &Gpu, options: &Options, [m, k, out, rank]: [u32; 4], part: Option<usize>) -> Outcome {
    let mut case = Case::new(options, (m + k + out + rank) as u64);
    let layers = [("a", Adapted::LowRank(rank)), ("c", Adapted::Merged)];
    let layers = layers.into_iter().map(|(name, how)| (name.to_owned(), how)).collect();
    case.r = Recorder::new(options).with_adapted(Rc::new(layers));
    let (x, xs) = case.input(1, 1, m, k);
    let y = match part {
        Some(part) => {
            let parts = [("a", out), ("b", 36), ("c", out)];
            ops::linear_stack(&mut case.r, x, &parts).unwrap()[part].tensor
        }
        None => {
            let geglu = Epilogue { geglu: true, ..Default::default() };
            ops::linear(&mut case.r, x, "a", out, geglu).unwrap()
        }
    };
    // Three products. What two of them make is independent, so that neither is larger than the sum.
    let products = 2.0 * case.product_tolerance(k as usize) + case.product_tolerance(rank as usize);
    let tolerance = if part.is_none() { 2.13 * products } else { products };
    let xs = wide(&xs);
    let name = format!("adapted {m}x{k}x{out} rank {rank}, part {part:?}");
    case.finish(gpu, name, y, tolerance, |weight| {
        let plus = |a: Vec<f64>, b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<f64>>();
        let row = |x: &[f64]| {
            if part == Some(2) {
                return plus(times(x, &weight("c.merged.weight")), &weight("c.bias"));
            }
            let narrow = times(x, &weight("a.lora_down.weight"));
            let base = plus(times(x, &weight("a.weight")), &weight("a.bias"));
            let sums = plus(base, &times(&narrow, &weight("a.lora_up.weight")));
            let (values, gates) = sums.split_at(out as usize / 2);
            match part {
                Some(_) => sums,
                None => values.iter().zip(gates).map(|(v, g)| v * activation(*g, Activation::Gelu)).collect(),
            }
        };
        xs.chunks(k as usize).flat_map(row).collect()
    })
    .await
}

/// The first half of the channels times gelu of the second.
async fn geglu(gpu: &Gpu, options: &Options, m: u32, k: u32, half: u32, bias: bool) -> Outcome {
    let mut case = Case::new(options, (m + k + half) as u64);
    let (x, xs) = case.input(1, 1, m, k);
    let e = Epilogue { geglu: true, ..Default::default() };
    let y = ops::conv2d(&mut case.r, x, "w", 2 * half, Conv { bias, ..Conv::k1() }, e).unwrap();
    // |gelu'| is at most 1.13, and both factors are off by a product's tolerance.
    let tolerance = 2.13 * case.product_tolerance(k as usize);
    let xs = wide(&xs);
    case.finish(gpu, format!("geglu {m}x{k}x{half} bias {bias}"), y, tolerance, |weight| {
        let (half, k) = (half as usize, k as usize);
        let matrix = weight("w.weight");
        let b = if bias { weight("w.bias") } else { vec![0.0; 2 * half] };
        let channel =
            |row: &[f64], n: usize| row.iter().zip(&matrix[n * k..]).map(|(x, w)| x * w).sum::<f64>() + b[n];
        let gated =
            |row: &[f64], i: usize| channel(row, i) * activation(channel(row, half + i), Activation::Gelu);
        xs.chunks(k).flat_map(|row| (0..half).map(|i| gated(row, i)).collect::<Vec<_>>()).collect()
    })
    .await
}

async fn attention(gpu: &Gpu, options: &Options, seed: u64, d: u32) -> Outcome {
    let mut case = Case::new(options, seed);
    let n = case.random.range(1, 2);
    let heads = case.random.range(1, 3);
    let causal = case.random.range(0, 2) == 0;
    let lq = case.random.range(1, 90);
    let lk = if causal { lq } else { case.random.range(1, 90) };
    let c = heads * d;
    let (q, mut qs) = case.input(n, 1, lq, c);
    let (k, mut ks) = case.input(n, 1, lk, c);
    let (v, mut vs) = case.input(n, 1, lk, c);
    let [mut q, mut k, mut v] = [q, k, v].map(Columns::from);
    if causal {
        // All three among the channels of one tensor.
        let (t, ts) = case.input(n, 1, lq, 3 * c + 4);
        [q, v, k] = [0, 1, 2].map(|i| Columns { tensor: t, from: 4 + i * c, c });
        let of = |x: Columns| {
            let rows = ts.chunks_exact(3 * c as usize + 4);
            rows.flat_map(|row| &row[x.from as usize..][..c as usize]).copied().collect()
        };
        (qs, ks, vs) = (of(q), of(k), of(v));
    }
    let y = ops::attention(&mut case.r, q, k, v, heads, causal).unwrap();
    let tolerance = case.storage() + (lk + d) as f64 / (1u64 << 24) as f64;
    let (qs, ks, vs) = (wide(&qs), wide(&ks), wide(&vs));
    case.finish(gpu, format!("attention {n}x{heads}x{lq}x{lk}x{d} causal {causal}"), y, tolerance, |_| {
        let (c, d) = (c as usize, d as usize);
        let mut out = vec![0.0; (n * lq) as usize * c];
        for i in 0..n as usize {
            for head in 0..heads as usize {
                for row in 0..lq as usize {
                    let at = (i * lq as usize + row) * c + head * d;
                    let last = if causal { row + 1 } else { lk as usize };
                    let key = |j: usize| (i * lk as usize + j) * c + head * d;
                    let scores: Vec<f64> = (0..last)
                        .map(|j| {
                            let dot: f64 = (0..d).map(|e| qs[at + e] * ks[key(j) + e]).sum();
                            (dot / (d as f64).sqrt()).exp()
                        })
                        .collect();
                    let total: f64 = scores.iter().sum();
                    for (j, s) in scores.iter().enumerate() {
                        for e in 0..d {
                            out[at + e] += s / total * vs[key(j) + e];
                        }
                    }
                }
            }
        }
        out
    })
    .await
}

async fn group_norm(gpu: &Gpu, options: &Options, seed: u64, large: bool) -> Outcome {
    let mut case = Case::new(options, seed);
    let random = &mut case.random;
    let n = random.range(1, 2);
    let (h, w) = if large { (53, 67) } else { (random.range(1, 12), random.range(2, 12)) };
    let second = random.range(0, 1) == 1;
    let groups = random.pick(&[1, 2, 4, 8, 32]);
    let per = random.range(1, if large { 40 } else { 9 });
    let c = groups * per;
    let c2 = if second && c > 4 { c - c / 8 * 4 } else { 0 };
    let act = random.pick(&[Activation::None, Activation::Silu]);
    let (x, mut xs) = case.input(n, h, w, c - c2);
    // A mean far from zero: sums of squares must not cancel.
    let shift = if large { 8.0 } else { 0.0 };
    xs.iter_mut().for_each(|v| *v = f16::from_f32(*v + shift).to_f32());
    case.inputs[0].1 = xs.clone();
    let mut input = Input::from(x);
    let mut joined = wide(&xs);
    if c2 > 0 {
        let (x2, xs2) = case.input(n, h, w, c2);
        input = Input::from((x, x2));
        joined = join(&joined, (c - c2) as usize, &wide(&xs2), c2 as usize);
    }
    let epsilon = 1e-5;
    let y = ops::group_norm(&mut case.r, input, "norm", groups, epsilon, act).unwrap();
    // One rounding of the output; f32 statistics of values up to 9 with unit spread: 81 * 2^-22 of the variance.
    let tolerance = case.storage() + 81.0 / (1u64 << 22) as f64;
    case.finish(
        gpu,
        format!("group_norm {n}x{h}x{w}x({}+{c2}) by {groups} {act:?}", c - c2),
        y,
        tolerance,
        |weight| {
            let (gamma, beta) = (weight("norm.weight"), weight("norm.bias"));
            let (c, per, positions) = (c as usize, per as usize, (h * w) as usize);
            let mut out = vec![0.0; joined.len()];
            for i in 0..n as usize {
                for g in 0..groups as usize {
                    let at: Vec<usize> = (0..positions)
                        .flat_map(|p| (0..per).map(move |ch| (i * positions + p) * c + g * per + ch))
                        .collect();
                    let mean = at.iter().map(|&j| joined[j]).sum::<f64>() / at.len() as f64;
                    let var = at.iter().map(|&j| (joined[j] - mean).powi(2)).sum::<f64>() / at.len() as f64;
                    for j in at {
                        let v = (joined[j] - mean) / (var + epsilon as f64).sqrt();
                        out[j] = activation(v * gamma[j % c] + beta[j % c], act);
                    }
                }
            }
            out
        },
    )
    .await
}

async fn layer_norm(gpu: &Gpu, options: &Options, seed: u64) -> Outcome {
    let mut case = Case::new(options, seed);
    let (rows, c) = (case.random.range(1, 200), case.random.range(2, 700));
    let (x, xs) = case.input(1, 1, rows, c);
    let y = ops::layer_norm(&mut case.r, x, "norm", 1e-5).unwrap();
    let tolerance = case.storage() + c as f64 / (1u64 << 24) as f64;
    let xs = wide(&xs);
    case.finish(gpu, format!("layer_norm {rows}x{c}"), y, tolerance, |weight| {
        let (gamma, beta) = (weight("norm.weight"), weight("norm.bias"));
        xs.chunks(c as usize)
            .flat_map(|row| {
                let mean = row.iter().sum::<f64>() / c as f64;
                let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / c as f64;
                row.iter()
                    .enumerate()
                    .map(|(i, v)| (v - mean) / (var + 1e-5).sqrt() * gamma[i] + beta[i])
                    .collect::<Vec<_>>()
            })
            .collect()
    })
    .await
}

/// A 3x3 convolution plus the 1x1 convolution of one or two other tensors.
async fn with_shortcut(gpu: &Gpu, options: &Options, seed: u64) -> Outcome {
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
    let y = ops::conv2d_with_shortcut(&mut case.r, x, "w", past, "s", out).unwrap();
    // The terms of each are as large as the other's; where a product is made apart, it is rounded once more.
    let apart = if options.weights.is_some() { case.storage() } else { 0.0 };
    let tolerance = case.product_tolerance((9 * c + c2 + c3) as usize) + apart;
    let name = format!("conv {n}x{h}x{w}x{c} and 1x1 of {c2}+{c3} -> {out}");
    case.finish(gpu, name, y, tolerance, |weight| {
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

/// Layer normalisation in the product that reads it, around a mean far from zero; with GEGLU every other time.
async fn normed(gpu: &Gpu, options: &Options, seed: u64) -> Outcome {
    let mut case = Case::new(options, seed);
    let (rows, c, out) =
        (case.random.range(1, 200), case.random.range(8, 90) * 4, case.random.range(4, 40) * 8);
    let geglu = seed.is_multiple_of(2);
    let (x, mut xs) = case.input(1, 1, rows, c);
    xs.iter_mut().for_each(|v| *v = f16::from_f32(*v + 4.0).to_f32());
    case.inputs[0].1 = xs.clone();
    let h = ops::layer_normed(&mut case.r, x, "norm", 1e-5).unwrap();
    let e = Epilogue { geglu, ..Default::default() };
    let y = ops::linear(&mut case.r, h, "w", out, e).unwrap();
    // What is normalised is rounded where products are f16. f32 sums of squares, of values up to 5 with a variance of a
    // third around a first value of theirs: 16 * 2^-23 of the variance.
    let rounded = if case.f16 && !case.wide { U } else { 0.0 };
    let tolerance = case.product_tolerance(c as usize) + rounded + 16.0 / (1u64 << 23) as f64;
    let xs = wide(&xs);
    case.finish(gpu, format!("layer_normed {rows}x{c} -> {out}, geglu {geglu}"), y, tolerance, |weight| {
        let (gamma, beta) = (weight("norm.weight"), weight("norm.bias"));
        let (matrix, bias) = (weight("w.weight"), weight("w.bias"));
        xs.chunks(c as usize)
            .flat_map(|row| {
                let mean = row.iter().sum::<f64>() / c as f64;
                let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / c as f64;
                let h: Vec<f64> = (0..c as usize)
                    .map(|i| (row[i] - mean) / (var + 1e-5).sqrt() * gamma[i] + beta[i])
                    .collect();
                let ys: Vec<f64> = matrix
                    .chunks(c as usize)
                    .zip(&bias)
                    .map(|(w, b)| w.iter().zip(&h).map(|(w, h)| w * h).sum::<f64>() + b)
                    .collect();
                match geglu {
                    false => ys,
                    true => {
                        let (values, gates) = ys.split_at(out as usize / 2);
                        values.iter().zip(gates).map(|(v, g)| v * activation(*g, Activation::Gelu)).collect()
                    }
                }
            })
            .collect()
    })
    .await
}

async fn pointwise(gpu: &Gpu, options: &Options, seed: u64) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for act in ACTIVATIONS {
        let mut case = Case::new(options, seed + act as u64);
        let (h, c) = (case.random.range(1, 40), case.random.range(1, 30));
        let x = case.r.input(2, h, 3, c);
        // As far as activations reach, both tails.
        let xs = case.random.values((2 * h * 3 * c) as usize, 20.0);
        case.inputs.push((x, xs.clone()));
        // A recorded no-op has no output of its own: add x to what comes out.
        let activated = ops::activate(&mut case.r, x, act).unwrap();
        let y = ops::add(&mut case.r, activated, x).unwrap();
        let tolerance = 2.0 * case.storage();
        let name = format!("activate and add {act:?} 2x{h}x3x{c}");
        outcomes.push(
            case.finish(gpu, name, y, tolerance, |_| {
                xs.iter().map(|&v| activation(v as f64, act) + v as f64).collect()
            })
            .await,
        );
    }
    let mut case = Case::new(options, seed);
    let (x, xs) = case.input(1, 3, 5, 3);
    let y = ops::affine(&mut case.r, x, 2.0, -1.0).unwrap();
    let tolerance = case.storage();
    outcomes.push(
        case.finish(gpu, "affine".into(), y, tolerance, |_| {
            xs.iter().map(|&v| 2.0 * v as f64 - 1.0).collect()
        })
        .await,
    );
    outcomes
}

async fn rows(gpu: &Gpu, options: &Options, seed: u64) -> Vec<Outcome> {
    let mut case = Case::new(options, seed);
    let (n, length, width, vocabulary) =
        (case.random.range(1, 3), case.random.range(1, 77), case.random.range(1, 50), 100);
    let ids = case.r.input_u32(n, length);
    let values: Vec<u32> = (0..n * length).map(|_| case.random.range(0, vocabulary - 1)).collect();
    case.ids.push((ids, values.clone()));
    let y = ops::embed(&mut case.r, ids, "t", vocabulary, "p", 77, width).unwrap();
    let tolerance = case.storage();
    let embed = case
        .finish(gpu, format!("embed {n}x{length}x{width}"), y, tolerance, |weight| {
            let (table, places) = (weight("t.weight"), weight("p.weight"));
            let width = width as usize;
            let mut out = Vec::new();
            for (i, id) in values.iter().enumerate() {
                let at = i % length as usize * width;
                out.extend((0..width).map(|c| table[*id as usize * width + c] + places[at + c]));
            }
            out
        })
        .await;

    let mut case = Case::new(options, seed + 1);
    let index = case.r.input_u32(n, 1);
    let places: Vec<u32> = (0..n).map(|_| case.random.range(0, length - 1)).collect();
    case.ids.push((index, places.clone()));
    let (x, xs) = case.input(n, 1, length, width);
    let y = ops::gather(&mut case.r, x, index).unwrap();
    let gather = case
        .finish(gpu, format!("gather {n}x{length}x{width}"), y, 0.0, |_| {
            let width = width as usize;
            let row = |i: usize| &xs[(i * length as usize + places[i] as usize) * width..][..width];
            (0..n as usize).flat_map(|i| wide(row(i))).collect()
        })
        .await;
    vec![embed, gather]
}

/// The same with candidate `i` for whatever shape.
fn with_tile(options: Options, i: usize) -> Options {
    let mut tiled = options;
    for conv in [false, true] {
        // One of every class.
        for rows in [8, 256, 1024, 4096, 4097] {
            for channels in [640, 641] {
                tiled.choices.set(Class::of(conv, rows, channels), Some(i));
            }
        }
    }
    tiled
}

/// Every op, under every way of recording that this adapter can run.
pub async fn all(gpu: &Gpu, rounds: u64) -> Vec<Outcome> {
    let mut ways = vec![
        ("f32", Options::default()),
        ("f32 stored wide", Options { activations: Dtype::F32, ..Options::default() }),
        ("q8", Options { weights: Some(Bits::Q8), ..Options::default() }),
        ("q4", Options { weights: Some(Bits::Q4), ..Options::default() }),
        (
            "q4 stored wide",
            Options { activations: Dtype::F32, weights: Some(Bits::Q4), ..Options::default() },
        ),
    ];
    if gpu.shader_f16 {
        let f16 = Options { arithmetic: Arithmetic::F16, ..Options::default() };
        ways.push(("f16", f16));
        ways.push(("q8 in f16", Options { weights: Some(Bits::Q8), ..f16 }));
    }
    let mut outcomes = Vec::new();
    for (way, options) in ways {
        let options = Options { subgroup: gpu.subgroup, ..options };
        let from = outcomes.len();
        for seed in 0..rounds * 6 {
            outcomes.push(convolution(gpu, &options, seed).await);
        }
        if options.weights.is_some() {
            for shape in [[5, 36, 40, 3], [300, 64, 200, 12]] {
                for part in [Some(0), Some(2), None] {
                    outcomes.push(adapted(gpu, &options, shape, part).await);
                }
            }
            // Of the random shapes few are wide enough to be quantised.
            for seed in 100..100 + rounds * 6 {
                outcomes.push(convolution_of(gpu, &options, seed, true).await);
            }
        }
        for seed in 0..rounds * 2 {
            outcomes.push(with_shortcut(gpu, &options, seed).await);
        }
        for (m, k, n) in [
            (1, 1, 1),
            (3, 37, 5),
            (8, 320, 64),
            (130, 75, 33),
            (64, 512, 128),
            (700, 40, 321),
            (1024, 64, 512),
        ] {
            outcomes.push(matmul(gpu, &options, m, k, n).await);
        }
        // Rows of f16 that do not end where a binding may begin, and of blocks.
        outcomes.push(stack(gpu, &options, 37, 20, [24, 4, 12]).await);
        outcomes.push(stack(gpu, &options, 70, 100, [40, 36, 64]).await);
        outcomes.push(geglu(gpu, &options, 5, 12, 4, true).await);
        outcomes.push(geglu(gpu, &options, 90, 70, 52, false).await);
        outcomes.push(geglu(gpu, &options, 300, 64, 200, true).await);
        // Every tile; how weights and activations are read does not depend on it.
        let tiles = if ["f32", "f16"].contains(&way) { autotune::candidates(&options) } else { 0 };
        for i in 0..tiles {
            let options = with_tile(options, i);
            let seed = 1000 + i as u64;
            outcomes.push(convolution(gpu, &options, seed).await);
            outcomes.push(if i % 2 == 0 {
                with_shortcut(gpu, &options, seed).await
            } else {
                normed(gpu, &options, seed).await
            });
        }
        // The other ops read no matrices.
        for seed in 0..if options.weights.is_some() { 0 } else { rounds } {
            for d in [4, 8, 12, 40, 64, 80, 96, 128, 160, 260, 512] {
                outcomes.push(attention(gpu, &options, seed * 100 + d as u64, d).await);
            }
            outcomes.push(group_norm(gpu, &options, seed, false).await);
            outcomes.push(group_norm(gpu, &options, seed + 50, false).await);
            outcomes.push(layer_norm(gpu, &options, seed).await);
            outcomes.push(normed(gpu, &options, 2 * seed).await);
            outcomes.push(normed(gpu, &options, 2 * seed + 1).await);
            outcomes.extend(pointwise(gpu, &options, seed * 10).await);
            outcomes.extend(rows(gpu, &options, seed).await);
        }
        if options.weights.is_none() {
            outcomes.push(group_norm(gpu, &options, 1000, true).await);
        }
        for outcome in &mut outcomes[from..] {
            outcome.name = format!("{way}: {}", outcome.name);
        }
    }
    outcomes
}
