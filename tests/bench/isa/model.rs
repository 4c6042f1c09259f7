//! How long a dispatch takes a GPU that is not here, by the formula of the comparison with onnxruntime-web (the busiest
//! multiprocessor, level-two cache or memory, whichever is slowest), from what its compiler said of the kernel.
//! Absolute times are within 35 %; ratios within 20 % of 1 are ties.

use super::report::{Figures, Workgroup};
use super::work::Work;
use browser_diffusion::gpu::Dispatch;

/// A GPU, as far as the formula goes.
pub struct Hardware {
    /// Multiprocessors, compute units or cores, and how many instructions each issues in a cycle, one a scheduler.
    pub processors: u32,
    pub schedulers: f64,
    pub gigahertz: f64,
    /// GB/s of the level-two cache and of memory.
    pub cache: f64,
    pub memory: f64,
    /// Cycles until a load from a buffer is there.
    pub latency: f64,
    /// Its maker's compiler predicates what stands in branches, and so waits for such loads together.
    pub predicates: bool,
}

/// Of what it is possible to issue, as much is.
const REACHED: f64 = 0.9;
/// Of a dispatch, ms.
const LAUNCH: f64 = 0.006;
/// Cycles of the barriers around a filling of workgroup memory.
const BARRIERS: f64 = 60.0;
/// Cycles in which 32 lanes read, and store without and with conflicts of banks, a vector of four words each.
const READ: f64 = 2.0;
const STORE: f64 = 4.9;
const CONFLICTING: f64 = 24.0;

impl Hardware {
    /// Milliseconds of one dispatch that moves `bytes` where each is moved once.
    pub fn time(&self, dispatch: &Dispatch, bytes: u64, workgroup: Workgroup, figures: &Figures) -> f64 {
        let workgroups = dispatch.workgroups.iter().product::<u32>();
        let busiest = workgroups.div_ceil(self.processors);
        let resident = (figures.threads / workgroup.threads).max(1);
        let (batches, rest) = (busiest / resident, busiest % resident);
        let work = Work::of(dispatch, workgroup.threads);
        let (mut cycles, mut cached) = (0.0, 0.0);
        if let Some(slice) = figures.slice.filter(|_| work.slices > 0.0) {
            let warps = f64::from(workgroup.threads.div_ceil(figures.lanes.max(1)));
            let product = ["matmul", "conv"].contains(&dispatch.kernel.name);
            // Rows of a power of two meet in the same banks; padded ones do not.
            let store = if product && workgroup.memory.is_multiple_of(512) { CONFLICTING } else { STORE };
            let shared =
                (READ * slice.loaded / 16.0 + store * slice.stores) * f64::from(figures.lanes) / 32.0;
            // Of a compiler that is said to predicate, and the mean of that and Mesa's where it is not known.
            let rounds = match self.predicates {
                true => slice.predicated,
                false => (slice.rounds * slice.predicated).sqrt(),
            };
            let alone = slice.issue + rounds * self.latency + slice.fills.max(work.fills) * BARRIERS;
            let together = |workgroups: u32| {
                let warps = f64::from(workgroups) * warps;
                let busy = (warps * slice.issue / self.schedulers).max(warps * shared);
                if workgroups == 0 { 0.0 } else { busy.max(alone) }
            };
            cycles = work.slices * (f64::from(batches) * together(resident) + together(rest));
            let loads = f64::from(slice.loads) * f64::from(workgroup.threads) * f64::from(workgroups);
            let wide = dispatch.kernel.defines.contains(&("WIDE", 1));
            cached = loads * work.slices * if wide { 16.0 } else { 8.0 };
        } else if dispatch.kernel.name.contains("norm") {
            // Three times over its own rows, a load a thread at once.
            let loads = bytes as f64 / 2.0 / 8.0 / f64::from(workgroups) / f64::from(workgroup.threads);
            cycles = 3.0 * loads.ceil() * self.latency * f64::from(busiest.div_ceil(resident));
        }
        let computing = cycles / (self.gigahertz * 1e6) / REACHED;
        computing.max(cached / self.cache / 1e6).max(bytes as f64 / self.memory / 1e6) + LAUNCH
    }
}
