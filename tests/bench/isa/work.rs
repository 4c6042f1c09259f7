//! What a dispatch has its threads do, from its defines and parameters.

use browser_diffusion::gpu::Dispatch;

/// The loop over what is summed: how often a workgroup goes around, a thread's multiply-adds each time, and how often a
/// loop around it turns meanwhile (over the taps of a convolution).
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    pub slices: f64,
    pub multiply_adds: f64,
    pub outer: f64,
    /// How often workgroup memory is filled each time at least.
    pub fills: f64,
}

impl Work {
    /// Of a product, a convolution or attention; nothing of the others, which wait for memory.
    pub fn of(dispatch: &Dispatch, threads: u32) -> Self {
        let define = |name: &str| {
            let defines = dispatch.kernel.defines.iter().rev();
            defines.into_iter().find(|(known, _)| *known == name).map(|(_, value)| f64::from(*value))
        };
        let param = |name: &str| {
            let found = dispatch.params.iter().find(|(known, _)| *known == name);
            found.map_or(0.0, |(_, value)| f64::from(value.word()))
        };
        // Sixteen places of 32 tiles by 16 channels a block, over a vector.
        if let Some(blocks) = define("BLOCKS") {
            let depth = define("DEPTH").unwrap_or(1.0);
            let each = depth * 16.0 * 32.0 * 16.0 * blocks * 4.0 / f64::from(threads);
            let slices = (param("c4_0") / depth).ceil();
            return Self { slices, multiply_adds: each, outer: 1.0 / slices, fills: depth };
        }
        let multiply_adds = dispatch.flops as f64 / 2.0;
        let (slices, runs) = match dispatch.kernel.name {
            "matmul" | "conv" => {
                let k4 = multiply_adds / (param("m") - param("m_base")) / param("n") / 4.0;
                // Workgroups that share a sum stand behind one another.
                let each = define("BK4").or(define("WX")).unwrap_or(1.0);
                let taps = if dispatch.kernel.name == "conv" { 9.0 } else { 1.0 };
                let inputs = define("INPUTS").or(define("SOURCES")).unwrap_or(1.0);
                ((k4 / each / f64::from(dispatch.workgroups[2])).ceil(), taps + inputs - 1.0)
            }
            name if name.starts_with("attention") => {
                ((param("length_k") / define("KEYS").unwrap_or(16.0)).ceil(), f64::INFINITY)
            }
            _ => return Self::default(),
        };
        let workers = f64::from(dispatch.workgroups.iter().product::<u32>()) * f64::from(threads);
        Self { slices, multiply_adds: multiply_adds / workers / slices, outer: runs / slices, fills: 1.0 }
    }
}
