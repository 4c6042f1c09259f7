//! Memory, and what is recorded over it: parameters first, then the tensors of every list of operations.

use super::cpu;
use super::gemm::Packed;
use super::op::{FREQUENCIES, Op, Tensor};
use crate::samplers::Twister;
use std::ops::Range;

/// Rows of every list: points that are learnt from in a step, and drawn at once.
pub const BATCH: usize = 256;

/// Hands memory out while a family is recorded. Networks come first, so that all parameters lie together.
#[derive(Default)]
pub struct Recorder {
    next: usize,
}

/// A multilayer perceptron with SiLU between its layers.
pub struct Net {
    layers: Vec<(Tensor, Tensor)>,
    /// Where its parameters are.
    pub range: Range<usize>,
}

/// What a list of operations is recorded for.
#[derive(Clone, Copy)]
pub struct Use {
    /// The network's parameters get gradients.
    pub learns: bool,
    /// What goes in gets gradients.
    pub passes: bool,
}

impl Recorder {
    pub fn tensor(&mut self, rows: usize, cols: usize) -> Tensor {
        let at = self.next;
        self.next += rows * cols;
        Tensor { at, rows, cols }
    }

    /// How many values were handed out.
    pub fn used(&self) -> usize {
        self.next
    }

    /// A network of layers of these sizes.
    pub fn net(&mut self, sizes: &[usize]) -> Net {
        let start = self.next;
        let layers = sizes.windows(2).map(|s| (self.tensor(s[0], s[1]), self.tensor(1, s[1]))).collect();
        Net { layers, range: start..self.next }
    }

    /// Records what every network begins with.
    pub fn features(
        &mut self,
        ops: &mut Vec<Op>,
        x: Tensor,
        (first, count): (usize, usize),
        time: Option<Tensor>,
        passes: bool,
    ) -> Tensor {
        let y = self.tensor(x.rows, features(count) + usize::from(time.is_some()));
        ops.push(Op::Features { x, first, count, time, y, passes });
        y
    }

    /// Records a network over features.
    pub fn network(&mut self, ops: &mut Vec<Op>, net: &Net, features: Tensor, how: Use) -> Tensor {
        let mut x = features;
        for (i, &(w, b)) in net.layers.iter().enumerate() {
            if i > 0 {
                let y = self.tensor(x.rows, x.cols);
                ops.push(Op::Silu { x, y });
                x = y;
            }
            let y = self.tensor(x.rows, w.cols);
            ops.push(Op::Linear { x, w, b, y, learns: how.learns, passes: i > 0 || how.passes });
            x = y;
        }
        x
    }

    /// Records a network of two coordinates, from its features on.
    pub fn plane(&mut self, ops: &mut Vec<Op>, net: &Net, x: Tensor, how: Use) -> Tensor {
        let features = self.features(ops, x, (0, 2), None, how.passes);
        self.network(ops, net, features, how)
    }
}

/// How many features so many coordinates have.
pub const fn features(count: usize) -> usize {
    count * (1 + 2 * FREQUENCIES)
}

/// A list that is only computed: samples, pictures.
pub struct Program {
    pub input: Tensor,
    /// The noise time of each row.
    pub time: Option<Tensor>,
    pub ops: Vec<Op>,
    pub output: Tensor,
}

impl Program {
    /// Of a network of two coordinates.
    pub fn plane(r: &mut Recorder, net: &Net) -> Self {
        let (input, mut ops) = (r.tensor(BATCH, 2), Vec::new());
        let output = r.plane(&mut ops, net, input, Use { learns: false, passes: false });
        Self { input, time: None, ops, output }
    }
}

/// A part of a step that one loss and one update end.
pub struct Stage {
    /// What `Model::batch` draws.
    pub inputs: Vec<Tensor>,
    /// Computed, without gradients.
    pub before: Vec<Op>,
    /// Computed, then gone through backward.
    pub ops: Vec<Op>,
    /// Their sum is the loss.
    pub losses: Vec<Tensor>,
    /// The parameters that are moved.
    pub learns: Range<usize>,
}

/// The memory, and what computes in it.
pub struct Tape {
    pub values: Vec<f32>,
    pub grads: Vec<f32>,
    packed: Packed,
}

impl Tape {
    /// Of what was recorded; the first so many values are those that may get gradients.
    pub fn new(recorder: &Recorder, learnt: usize) -> Self {
        Self { values: vec![0.0; recorder.next], grads: vec![0.0; learnt], packed: Packed::default() }
    }

    /// Weights as torch's `Linear` draws them: uniform, within the inverse of the square root of how many go in.
    pub fn init(&mut self, nets: &[Net], twister: &mut Twister) {
        for &(w, b) in nets.iter().flat_map(|net| &net.layers) {
            let bound = (1.0 / (w.rows as f64).sqrt()) as f32;
            for tensor in [w, b] {
                let values = &mut self.values[tensor.range()];
                twister.rand(values);
                for v in values {
                    *v = (2.0 * *v - 1.0) * bound;
                }
            }
        }
    }

    pub fn forward(&mut self, ops: &[Op]) {
        for op in ops {
            cpu::forward(op, &mut self.values, &mut self.packed);
        }
    }

    /// Computes a stage's loss and its gradients.
    pub fn learn(&mut self, stage: &Stage) -> f32 {
        self.forward(&stage.before);
        self.forward(&stage.ops);
        self.grads.fill(0.0);
        for op in stage.ops.iter().rev() {
            cpu::backward(op, &self.values, &mut self.grads, &mut self.packed);
        }
        stage.losses.iter().map(|loss| self.values[loss.at]).sum()
    }

    /// Runs a program over as many rows as there are, `BATCH` at a time. `time`: the same for all.
    pub fn run(&mut self, program: &Program, input: &[f32], time: f32) -> Vec<f32> {
        let Program { input: into, output, .. } = *program;
        let mut out = Vec::new();
        for rows in input.chunks(into.len()) {
            self.values[into.at..into.at + rows.len()].copy_from_slice(rows);
            if let Some(tensor) = program.time {
                self.values[tensor.range()].fill(time);
            }
            self.forward(&program.ops);
            let count = rows.len() / into.cols * output.cols;
            out.extend_from_slice(&self.values[output.at..output.at + count]);
        }
        out
    }
}
