//! DeepCache's features from step to step.

use super::plans::{ShallowPlan, UnetPlan};
use crate::error::Result;
use crate::gpu::{Aside, Gpu};
use std::collections::HashMap;

/// The plan holds those of one run; where a step has several (more pictures, or texts one after
/// another), the others wait beside it.
#[derive(Default)]
pub(super) struct DeepFeatures {
    /// Picture, and place among its runs, of what the plan holds.
    held: Option<(usize, usize)>,
    aside: HashMap<(usize, usize), Aside>,
}

impl DeepFeatures {
    /// Makes the plan hold the features of a run, or room for them; false where the whole UNet is to make them: it is
    /// asked for, or there are none yet.
    pub fn bring(&mut self, gpu: &Gpu, plan: &UnetPlan, run: (usize, usize), whole: bool) -> Result<bool> {
        let Some(ShallowPlan { deep, .. }) = plan.shallow else { return Ok(false) };
        let Some(held) = self.held.replace(run) else { return Ok(false) };
        if held == run {
            return Ok(!whole);
        }
        let kept = self.aside.remove(&held);
        self.aside.insert(held, plan.executable.set_aside(gpu, deep, kept)?);
        let Some(aside) = self.aside.get(&run).filter(|_| !whole) else { return Ok(false) };
        plan.executable.take_back(gpu, deep, aside)?;
        Ok(true)
    }
}
