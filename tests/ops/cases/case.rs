//! A recording under test: its inputs, its weights, and how far what comes out is from what must.

use browser_diffusion::checkpoint::pack::Packer;
use browser_diffusion::checkpoint::{Bits, Layout, TensorInfo};
use browser_diffusion::gpu::{
    AdaptedLayers, Arithmetic, Dispatch, Dtype, Gpu, Kernel, Options, Plan, Recorder, Tensor, WeightSpec,
    Weights,
};
use half::f16;
use std::rc::Rc;

/// The worst rounding to f16.
pub const U: f64 = 1.0 / 2048.0;

/// One comparison.
pub struct Outcome {
    pub name: String,
    pub error: f64,
    pub tolerance: f64,
    /// The kernel that does most, and into how many dispatches it was cut.
    pub cut: Option<(&'static str, usize)>,
    pub kernels: Vec<Kernel>,
}

impl Outcome {
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

pub struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        // splitmix64 (Steele et al. 2014)
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub fn range(&mut self, low: u32, high: u32) -> u32 {
        low + (self.next() % (high - low + 1) as u64) as u32
    }
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.next() as usize % of.len()]
    }
    /// Values in -scale .. scale that f16 holds exactly.
    pub fn values(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len)
            .map(|_| f16::from_f32(((self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale).to_f32())
            .collect()
    }
}

/// Where cases run.
pub struct On<'a> {
    pub gpu: &'a Gpu,
    /// Each also runs cut into several dispatches.
    pub cut: bool,
}

/// An op under test: its inputs, and what options it is recorded with.
pub struct Case {
    options: Options,
    /// Makes the tensors of the inputs.
    inputs_of: Recorder,
    /// All inputs in the order in which they were made.
    made: Vec<Tensor>,
    pub random: Random,
    pub inputs: Vec<(Tensor, Vec<f32>)>,
    ids: Vec<(Tensor, Vec<u32>)>,
    pub adapted: Rc<AdaptedLayers>,
}

/// A weight: what is uploaded, and what a kernel must read.
struct Drawn {
    name: String,
    values: Vec<f32>,
    read: Vec<f64>,
}

impl Case {
    pub fn new(options: &Options, seed: u64) -> Self {
        Self {
            options: *options,
            inputs_of: Recorder::new(options),
            made: Vec::new(),
            random: Random(seed),
            inputs: Vec::new(),
            ids: Vec::new(),
            adapted: Rc::default(),
        }
    }

    pub fn input(&mut self, n: u32, h: u32, w: u32, c: u32) -> (Tensor, Vec<f32>) {
        self.input_up_to(1.0, [n, h, w, c])
    }

    /// Of values in -scale .. scale.
    pub fn input_up_to(&mut self, scale: f32, [n, h, w, c]: [u32; 4]) -> (Tensor, Vec<f32>) {
        let t = self.inputs_of.input(n, h, w, c);
        let values = self.random.values((n * h * w * c) as usize, scale);
        self.made.push(t);
        self.inputs.push((t, values.clone()));
        (t, values)
    }

    /// So many f32.
    pub fn numbers(&mut self, count: u32) -> (Tensor, Vec<f32>) {
        let t = self.inputs_of.input_of(Dtype::F32, 1, 1, 1, count);
        let values = self.random.values(count as usize, 1.0);
        self.made.push(t);
        self.inputs.push((t, values.clone()));
        (t, values)
    }

    /// `len` indices for each of `n`.
    pub fn indices(&mut self, n: u32, len: u32, values: &[u32]) -> Tensor {
        let t = self.inputs_of.input_u32(n, len);
        self.made.push(t);
        self.ids.push((t, values.to_vec()));
        t
    }

    /// Activations are stored as f32.
    pub fn wide(&self) -> bool {
        self.options.activations == Dtype::F32
    }

    /// Products are made in f16.
    pub fn f16(&self) -> bool {
        self.options.arithmetic == Arithmetic::F16 && !self.wide()
    }

    pub fn storage(&self) -> f64 {
        if self.wide() { 1.0 / (1u64 << 22) as f64 } else { U }
    }

    pub fn product_tolerance(&self, k: usize) -> f64 {
        let sums = k as f64 / (1u64 << 24) as f64;
        self.storage() + sums + if self.f16() { 4.0 * U } else { 0.0 }
    }

    /// Runs `op`; `wanted(weights)` computes the reference from the weights as the checkpoint has them.
    pub async fn finish(
        mut self,
        on: &On<'_>,
        name: String,
        op: impl Fn(&mut Recorder) -> Tensor,
        tolerance: f64,
        wanted: impl Fn(&dyn Fn(&str) -> Vec<f64>) -> Vec<f64>,
    ) -> Outcome {
        let (plan, y) = self.record(&self.options, &op);
        let weights = self.draw(&plan, false);
        let reference = reference(&weights, &wanted);
        let mut outcome = Outcome { name, error: 0.0, tolerance, cut: None, kernels: Vec::new() };
        outcome.kernels.extend(plan.dispatches().iter().map(|d| d.kernel.clone()));
        outcome.error = self.error(on.gpu, &plan, y, &weights, &reference, false).await;
        // Where activations hold it: the same with weights that f16 does not hold.
        if self.wide() && !plan.weights().is_empty() {
            let large = self.draw(&plan, true);
            let reference = self::reference(&large, &wanted);
            outcome.error = outcome.error.max(self.error(on.gpu, &plan, y, &large, &reference, true).await);
        }
        let rowwise = plan.dispatches().iter().filter(|d| row_groups(d) > 0);
        if on.cut
            && let Some(longest) = rowwise.max_by_key(|d| d.flops)
        {
            let max_dispatch_flops = (longest.flops / 4).max(1);
            let (cut, y) = self.record(&Options { max_dispatch_flops, ..self.options }, &op);
            let name = longest.kernel.name;
            let dispatches = cut.dispatches().iter().filter(|d| d.kernel.name == name).count();
            assert!(
                dispatches as u64 >= row_groups(longest).min(3),
                "{}: {dispatches} dispatches",
                outcome.name
            );
            outcome.cut = Some((name, dispatches));
            let error = self.error(on.gpu, &cut, y, &weights, &reference, false).await;
            if error > outcome.error {
                outcome.error = error;
                outcome.name += &format!(", cut into {dispatches} dispatches");
            }
        }
        outcome
    }

    fn record(&self, options: &Options, op: &impl Fn(&mut Recorder) -> Tensor) -> (Plan, Tensor) {
        let mut r = Recorder::new(options).with_adapted(self.adapted.clone());
        for &t in &self.made {
            let again = match t.dtype {
                Dtype::U32 => r.input_u32(t.n, t.w),
                dtype => r.input_of(dtype, t.n, t.h, t.w, t.c),
            };
            assert_eq!(again, t);
        }
        let y = op(&mut r);
        r.output(y);
        (r.finish(), y)
    }

    /// `large`: values too large for f16, which lie as f32.
    fn draw(&mut self, plan: &Plan, large: bool) -> Vec<Drawn> {
        let one = |spec: &WeightSpec| {
            let (len, scale) = match spec.layout {
                Layout::Matrix { rows, inner, taps } | Layout::Blocks { rows, inner, taps, .. } => {
                    (rows * inner * taps, 1.7 / ((inner * taps) as f32).sqrt())
                }
                Layout::Vector { len } => (len, 1.0),
            };
            let mut values = self.random.values(len, scale);
            if large {
                values.iter_mut().for_each(|v| *v *= 1e7);
            }
            let read = match spec.layout {
                Layout::Blocks { rows, inner, taps, bits } if !large => {
                    dequantised(spec.layout, [rows, inner, taps], bits, &values)
                }
                _ => values.iter().map(|&x| x as f64).collect::<Vec<f64>>(),
            };
            Drawn { name: spec.name.clone(), values, read }
        };
        plan.weights().iter().map(one).collect()
    }

    /// The relative error of one run.
    async fn error(
        &self,
        gpu: &Gpu,
        plan: &Plan,
        y: Tensor,
        drawn: &[Drawn],
        wanted: &[f64],
        large: bool,
    ) -> f64 {
        let wide = plan.weights().iter().filter(|_| large).map(|w| w.name.clone()).collect();
        let weights = Weights::allocate_wide(gpu, plan.weights(), &wide);
        for Drawn { name, values, .. } in drawn {
            weights.upload(gpu, name, values).unwrap();
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
        assert_eq!(got.len(), wanted.len());
        let (mut off, mut size) = (0.0, 0.0);
        for (g, w) in got.iter().zip(wanted) {
            off += (*g as f64 - w).powi(2);
            size += w * w;
        }
        let error = (off / size.max(1e-30)).sqrt();
        if error.is_nan() { f64::INFINITY } else { error }
    }
}

fn reference(drawn: &[Drawn], wanted: &impl Fn(&dyn Fn(&str) -> Vec<f64>) -> Vec<f64>) -> Vec<f64> {
    wanted(&|name| drawn.iter().find(|w| w.name == name).map(|w| w.read.clone()).unwrap())
}

/// Workgroups one behind the other along the rows of the output; 0 for ops that are never cut.
fn row_groups(dispatch: &Dispatch) -> u64 {
    let [x, y, _] = dispatch.workgroups;
    u64::from(match dispatch.kernel.name {
        "conv" | "matmul" => y,
        "attention" | "attention_subgroup" | "map_attention" => x,
        _ => 0,
    })
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
