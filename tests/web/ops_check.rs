//! The comparisons of `tests/cases` and a UNet's steps in the browser: built for wasm32 as an example, called by
//! `ops.test.mjs` and `step.test.mjs`.

#[cfg(target_arch = "wasm32")]
#[path = "../cases/mod.rs"]
mod cases;

#[cfg(target_arch = "wasm32")]
#[path = "../plans/mod.rs"]
mod plans;

#[cfg(target_arch = "wasm32")]
mod check {
    use super::{cases, plans};
    use browser_diffusion::gpu::{Executable, Gpu, GpuOptions, Options, Tensor, Weights};
    use wasm_bindgen::prelude::*;

    /// Every op on this browser's adapter, as `[{ name, error, tolerance }]` in JSON.
    #[wasm_bindgen(js_name = checkOps)]
    pub async fn check_ops(rounds: u32, without_subgroups: bool) -> Result<String, JsValue> {
        let gpu = Gpu::new(&GpuOptions { without_subgroups, ..Default::default() }).await?;
        let outcomes = cases::all(&gpu, rounds as u64).await;
        let rows: Vec<_> = outcomes
            .iter()
            .map(|o| serde_json::json!({ "name": o.name, "error": o.error, "tolerance": o.tolerance, "passed": o.passed() }))
            .collect();
        Ok(serde_json::json!({ "shaderF16": gpu.shader_f16, "subgroup": gpu.subgroup, "rows": rows })
            .to_string())
    }

    /// A UNet with weights of zero, to count what a step is made of.
    #[wasm_bindgen]
    pub struct Unet {
        gpu: Gpu,
        /// They go when this goes.
        _weights: Weights,
        executable: Executable,
        out: Tensor,
    }

    #[wasm_bindgen]
    impl Unet {
        /// `config`: unet/config.json; `side` x `side` latents, with guidance.
        pub async fn open(config: &str, side: u32) -> Result<Unet, JsValue> {
            let gpu = Gpu::new(&GpuOptions::default()).await?;
            let config = serde_json::from_str(config).map_err(|e| JsValue::from(e.to_string()))?;
            let (plan, out) = plans::unet(&config, &Options::default(), 2, side, side);
            let weights = Weights::allocate(&gpu, plan.weights());
            let executable = plan.instantiate(&gpu, &weights)?;
            Ok(Unet { gpu, _weights: weights, executable, out })
        }

        /// One step; its counters in JSON.
        pub async fn step(&self) -> Result<String, JsValue> {
            self.executable.run(&self.gpu);
            self.executable.read(&self.gpu, self.out).await?;
            let c = self.executable.counters(&self.gpu);
            let json = serde_json::json!({
                "dispatches": c.dispatches, "submits": c.submits, "created": c.created, "encodeMs": c.encode_ms
            });
            Ok(json.to_string())
        }
    }
}
