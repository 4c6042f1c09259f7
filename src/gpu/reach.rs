//! How long a dispatch takes on a slow GPU: its work over what its kernel reaches there.

use super::kernel::Kernel;
use super::plan::Dispatch;

/// An integrated GPU's multiplies and adds a second: the slowest that plans are made for.
const SLOW_GPU: f64 = 0.4e12;
/// What [`super::MAX_DISPATCH_FLOPS`] counts on, in percent of a GPU's peak.
const USUAL: u64 = 40;

/// What a kernel reaches, in percent of a GPU's f32 peak: the least of the GPUs that its code was modelled for, but for
/// those whose peak is far above the slow one's. What only moves bytes does at 25 GB/s, f32 and all.
fn reach(kernel: &Kernel) -> u64 {
    let define = |name: &str| kernel.defines.iter().find(|(known, _)| *known == name).map_or(0, |(_, v)| *v);
    match kernel.name {
        // Winograd's way computes four ninths of what it counts.
        "conv" if define("BLOCKS") > 0 => 56,
        // Threads that share a sum share no operands. Tiles of 16 rows load three times as much as those of 64.
        "conv" | "matmul" if define("WY") == 1 => 10,
        "conv" | "matmul" if define("SUBGROUP") == 0 && define("TM") < 4 => 25,
        "conv" | "matmul" => USUAL,
        // The wider a head, the fewer threads fit.
        "attention" | "attention_subgroup" if define("D4") <= 12 => 25,
        "attention" | "attention_subgroup" if define("D4") <= 40 => 12,
        "attention" | "attention_subgroup" => 8,
        // A thread reads each vector of a key for itself, but all of a workgroup the same one.
        "lora" | "map_attention" => 10,
        _ => 3,
    }
}

/// The most work for a dispatch of `kernel`, where a usual one does `flops` at the most.
pub(crate) fn most_flops(flops: u64, kernel: &Kernel) -> u64 {
    (flops * reach(kernel) / USUAL).max(1)
}

impl Dispatch {
    /// Milliseconds on a GPU of 0.4 TFLOP/s.
    pub fn slow_ms(&self) -> f64 {
        self.flops as f64 * 1e5 / (SLOW_GPU * reach(&self.kernel) as f64)
    }
}
