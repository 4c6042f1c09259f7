use super::{Scheduler, SchedulerConfig};
use crate::error::Result;

pub(super) fn make(_config: &SchedulerConfig, _num_inference_steps: usize) -> Result<Box<dyn Scheduler>> {
    todo!("not written yet")
}
