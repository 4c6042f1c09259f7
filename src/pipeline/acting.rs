//! What a plan of the UNet is given of the ControlNet-LLLites that act in it.

use crate::gpu::{Dtype, LlliteParts, Recorder, Tensor, Weights};
use crate::models::lllite;
use std::rc::Rc;

/// What ControlNet-LLLites see and how strongly they act, as a plan of the UNet in which they act is given it.
#[derive(Default)]
pub(super) struct LlliteInputs {
    /// Of each what its modules see.
    pub seen: Vec<Vec<Tensor>>,
    /// One f32 for each; `None` without any.
    pub scales: Option<Tensor>,
}

impl LlliteInputs {
    /// Inputs over `n` pictures' latents of `h` x `w`; from now on the recorder's layers ask the modules.
    pub fn new(r: &mut Recorder, n: u32, size: [u32; 2], lllites: &[&lllite::Config]) -> Self {
        if lllites.is_empty() {
            return Self::default();
        }
        let scales = r.input_of(Dtype::F32, 1, 1, 1, lllites.len() as u32);
        let seen: Vec<_> = lllites.iter().map(|config| config.inputs(r, n, size)).collect();
        let mut parts = LlliteParts::new();
        for (i, (config, seen)) in (0..).zip(lllites.iter().zip(&seen)) {
            config.act(i, seen, scales, &mut parts);
        }
        r.lllites = Rc::new(parts);
        Self { seen, scales: Some(scales) }
    }

    /// All of them.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor> {
        self.seen.iter().flatten().copied().chain(self.scales)
    }
}

/// A ControlNet-LLLite, whose weights are on the GPU.
#[derive(Clone)]
pub(super) struct ActingLllite {
    pub config: Rc<lllite::Config>,
    pub weights: Rc<Weights>,
}
