//! Operations as WGSL: the dispatches of each, forward and backward, over the same memory as on the CPU (`cpu.rs`).

use super::cpu::LN_TAU;
use super::op::{FREQUENCIES, MOST_SCALE, Op, Tensor};
use crate::error::Result;
use crate::gpu::{Flat, Gpu, Kernel, Launch, Scalar, shader};

/// The arrays that kernels bind: values, gradients, Adam's means and squares by turns.
pub const VALUES: usize = 0;
pub const GRADS: usize = 1;
pub const MOMENTS: usize = 2;

const HEAD: &str = shader!("train.wgsl");

/// Defines of one file; a kernel is made by setting one of them.
const EACH: [&str; 10] = [
    "FEATURES",
    "FEATURES_BACK",
    "SWISH",
    "SWISH_BACK",
    "COUPLE",
    "UNCOUPLE",
    "COUPLE_BACK",
    "REPARAMETRISE",
    "REPARAMETRISE_BACK",
    "ADAM",
];
const SUMS: [&str; 5] = ["MSE", "NLL", "ELBO", "BCE", "CLIP"];
const PRODUCTS: [&str; 3] = ["FORWARD", "WEIGHTS", "INPUTS"];

type Params<'a> = &'a [(&'static str, Scalar)];

fn int(value: usize) -> Scalar {
    Scalar::U32(value as u32)
}

/// Records dispatches.
pub struct Kernels<'a> {
    pub gpu: &'a Gpu,
    pub flat: &'a Flat,
    pub launches: Vec<Launch>,
}

impl Kernels<'_> {
    fn add(
        &mut self,
        file: &'static str,
        (names, name): (&[&'static str], &str),
        params: Params,
        workgroups: [usize; 2],
    ) -> Result<()> {
        let mut defines =
            vec![("WIDE", 1), ("FOUR", 4), ("MOST", MOST_SCALE as u32), ("FREQUENCIES", FREQUENCIES as u32)];
        defines.extend(names.iter().map(|&known| (known, u32::from(known == name))));
        let kernel = Kernel::new("train", &[HEAD, file], &defines);
        let launch = self.flat.launch(self.gpu, kernel, params, workgroups.map(|count| count as u32))?;
        self.launches.push(launch);
        Ok(())
    }

    fn each(&mut self, name: &str, size: usize, params: Params) -> Result<()> {
        let params = [&[("size", int(size))], params].concat();
        self.add(shader!("train_each.wgsl"), (&EACH, name), &params, [size.div_ceil(256), 1])
    }

    fn sum(&mut self, name: &str, size: usize, params: Params) -> Result<()> {
        let params = [&[("size", int(size))], params].concat();
        self.add(shader!("train_sum.wgsl"), (&SUMS, name), &params, [1, 1])
    }

    /// `a` and `b`: where each begins, from row to row and from column to column.
    fn product(
        &mut self,
        name: &str,
        [m, k, n]: [usize; 3],
        a: [usize; 3],
        b: [usize; 3],
        c: [usize; 2],
    ) -> Result<()> {
        let params = [
            ("m", m),
            ("k", k),
            ("n", n),
            ("a", a[0]),
            ("a_row", a[1]),
            ("a_column", a[2]),
            ("b", b[0]),
            ("b_row", b[1]),
            ("b_column", b[2]),
            ("c", c[0]),
            ("bias", c[1]),
        ];
        let workgroups = [n.div_ceil(32), m.div_ceil(32)];
        let params = params.map(|(name, value)| (name, int(value)));
        self.add(shader!("train_matmul.wgsl"), (&PRODUCTS, name), &params, workgroups)
    }

    /// What computes an operation; of a loss its gradients too, which are added to what is there.
    pub fn forward(&mut self, op: &Op) -> Result<()> {
        match *op {
            Op::Features { x, first, count, time, y, .. } => {
                let time = [("timed", Scalar::flag(time.is_some())), ("time", int(time.map_or(0, |t| t.at)))];
                let params = [&features(x, first, count, y)[..], &time].concat();
                self.each("FEATURES", x.rows * count, &params)
            }
            Op::Linear { x, w, b, y, .. } => {
                let size = [x.rows, x.cols, y.cols];
                self.product("FORWARD", size, [x.at, x.cols, 1], [w.at, w.cols, 1], [y.at, b.at])
            }
            Op::Silu { x, y } => self.each("SWISH", x.len(), &[("x", int(x.at)), ("y", int(y.at))]),
            Op::Couple { x, st, keep, y } => self.each("COUPLE", x.rows, &coupling(x, st, keep, y)),
            Op::Uncouple { x, st, keep, y } => self.each("UNCOUPLE", x.rows, &coupling(x, st, keep, y)),
            Op::Reparametrise { stats, noise, z } => {
                self.each("REPARAMETRISE", z.rows, &reparametrised(stats, noise, z))
            }
            Op::Mse { .. } | Op::Nll { .. } | Op::Elbo { .. } | Op::Bce { .. } => self.loss(op),
        }
    }

    fn loss(&mut self, op: &Op) -> Result<()> {
        let mean = |x: Tensor, rows: usize, loss: Tensor, weight: f32, plus: f32| {
            let by = Scalar::F32(weight / rows as f32);
            vec![("x", int(x.at)), ("loss", int(loss.at)), ("by", by), ("plus", Scalar::F32(plus))]
        };
        match *op {
            Op::Mse { x, target, loss } => {
                let mut params = mean(x, x.len(), loss, 1.0, 0.0);
                params.push(("tensor", int(target.at)));
                self.sum("MSE", x.len(), &params)
            }
            Op::Nll { x, loss } => self.sum("NLL", x.rows, &mean(x, x.rows, loss, 1.0, LN_TAU)),
            Op::Elbo { x, target, stats, sigma, loss } => {
                let mut params = mean(x, x.rows, loss, 1.0, LN_TAU + 2.0 * sigma.ln());
                let more =
                    [("tensor", int(target.at)), ("stats", int(stats.at)), ("sigma", Scalar::F32(sigma))];
                params.extend(more);
                self.sum("ELBO", x.rows, &params)
            }
            Op::Bce { x, label, weight, loss } => {
                let mut params = mean(x, x.len(), loss, weight, 0.0);
                params.push(("label", Scalar::F32(label)));
                self.sum("BCE", x.len(), &params)
            }
            _ => Ok(()),
        }
    }

    /// What adds an operation's gradients to those of what it read; a loss has done so.
    pub fn backward(&mut self, op: &Op) -> Result<()> {
        match *op {
            Op::Features { x, first, count, y, passes: true, .. } => {
                self.each("FEATURES_BACK", x.rows * count, &features(x, first, count, y))
            }
            Op::Linear { x, w, b, y, learns, passes } => {
                if learns {
                    let size = [x.cols, x.rows, y.cols];
                    self.product("WEIGHTS", size, [x.at, 1, x.cols], [y.at, y.cols, 1], [w.at, 0])?;
                    let params = [("y", y.at), ("rows", y.rows), ("cols", y.cols), ("b", b.at)];
                    let params = params.map(|(name, value)| (name, int(value)));
                    let file = shader!("train_columns.wgsl");
                    self.add(file, (&[], ""), &params, [y.cols.div_ceil(16), 1])?;
                }
                if passes {
                    let size = [x.rows, y.cols, x.cols];
                    self.product("INPUTS", size, [y.at, y.cols, 1], [w.at, 1, w.cols], [x.at, 0])?;
                }
                Ok(())
            }
            Op::Silu { x, y } => self.each("SWISH_BACK", x.len(), &[("x", int(x.at)), ("y", int(y.at))]),
            Op::Couple { x, st, keep, y } => self.each("COUPLE_BACK", x.rows, &coupling(x, st, keep, y)),
            Op::Reparametrise { stats, noise, z } => {
                self.each("REPARAMETRISE_BACK", z.rows, &reparametrised(stats, noise, z))
            }
            _ => Ok(()),
        }
    }

    /// What shortens the gradient of a range of parameters: its factor goes to `to`.
    pub fn clip(&mut self, range: &std::ops::Range<usize>, most: f32, to: usize) -> Result<()> {
        let params = [("x", int(range.start)), ("most", Scalar::F32(most)), ("to", int(to))];
        self.sum("CLIP", range.len(), &params)
    }

    /// What moves a range of parameters. The values from `scalars` on are what `Adam::sizes` gives, and a factor of the
    /// gradient.
    pub fn adam(
        &mut self,
        range: &std::ops::Range<usize>,
        scalars: usize,
        numbers: [(&'static str, f32); 4],
    ) -> Result<()> {
        let mut params = vec![("first", int(range.start)), ("scalars", int(scalars))];
        params.extend(numbers.map(|(name, value)| (name, Scalar::F32(value))));
        self.each("ADAM", range.len(), &params)
    }
}

fn features(x: Tensor, first: usize, count: usize, y: Tensor) -> [(&'static str, Scalar); 6] {
    let params =
        [("x", x.at), ("cols", x.cols), ("first", first), ("count", count), ("y", y.at), ("width", y.cols)];
    params.map(|(name, value)| (name, int(value)))
}

fn coupling(x: Tensor, st: Tensor, keep: usize, y: Tensor) -> [(&'static str, Scalar); 4] {
    [("x", x.at), ("st", st.at), ("keep", keep), ("y", y.at)].map(|(name, value)| (name, int(value)))
}

fn reparametrised(stats: Tensor, noise: Tensor, z: Tensor) -> [(&'static str, Scalar); 3] {
    [("stats", stats.at), ("noise", noise.at), ("z", z.at)].map(|(name, value)| (name, int(value)))
}
