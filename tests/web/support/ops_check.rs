//! The comparisons of `tests/ops/cases` in the browser: built for wasm32 as an example, called by `ops.test.mjs`.

#[cfg(target_arch = "wasm32")]
#[path = "../../ops/cases/mod.rs"]
mod cases;

#[cfg(target_arch = "wasm32")]
mod check {
    use super::cases::{self, On};
    use browser_diffusion::gpu::{Gpu, GpuOptions};
    use wasm_bindgen::prelude::*;

    /// Every op on this browser's adapter, as `[{ name, error, tolerance }]` in JSON; without subgroups by few kernels.
    #[wasm_bindgen(js_name = checkOps)]
    pub async fn check_ops(without_subgroups: bool) -> Result<String, JsValue> {
        let gpu = Gpu::new(&GpuOptions { without_subgroups, ..Default::default() }).await?;
        let on = On { gpu: &gpu, cut: false };
        let mut outcomes = Vec::new();
        if without_subgroups {
            outcomes = cases::every_branch(&on).await;
        } else {
            for (way, options) in cases::ways(&gpu) {
                outcomes.extend(cases::of_way(&on, way, options, 1).await);
            }
        }
        let rows: Vec<_> = outcomes
            .iter()
            .map(|o| {
                let (error, passed) = (o.error, o.passed());
                serde_json::json!({ "name": o.name, "error": error, "tolerance": o.tolerance, "passed": passed })
            })
            .collect();
        Ok(serde_json::json!({ "shaderF16": gpu.shader_f16, "subgroup": gpu.subgroup, "rows": rows })
            .to_string())
    }
}
