//! What a dispatch has its threads do, from its parameters.

use browser_diffusion::gpu::Dispatch;

/// The loop over what is summed: how often a workgroup goes around, and a thread's multiply-adds each time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    pub slices: f64,
    pub multiply_adds: f64,
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
        let slices = match dispatch.kernel.name {
            "matmul" | "conv" => {
                let k4 = param("k4") + param("c4_2") + param("c4_3");
                // Workgroups that share a sum stand behind one another.
                let each = define("BK4").or(define("WX")).unwrap_or(1.0);
                (k4 / each / f64::from(dispatch.workgroups[2])).ceil()
            }
            name if name.starts_with("attention") => {
                (param("length_k") / define("KEYS").unwrap_or(16.0)).ceil()
            }
            _ => return Self::default(),
        };
        let workers = f64::from(dispatch.workgroups.iter().product::<u32>()) * f64::from(threads);
        Self { slices, multiply_adds: dispatch.flops as f64 / 2.0 / workers / slices }
    }
}
