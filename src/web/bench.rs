//! What `www/bench.html` and `./build.sh bench` time: single operations, and a UNet with random weights, recorded by the
//! same code as a model's.

use super::options::{count, text};
use super::results::{set, step_counters};
use crate::error::{Error, Result};
use crate::gpu::choices::broadcasts;
use crate::gpu::{
    Arithmetic, Dispatch, Executable, Gpu, GpuOptions, Options, Plan, Recorder, Tensor, Timing, Weights,
};
use crate::models::unet;
use crate::ops::{self, Activation, Conv, Epilogue};
use js_sys::{Array, Float32Array, Object};
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// The GPU, open for measuring.
#[wasm_bindgen]
pub struct Bench {
    gpu: Rc<Gpu>,
}

#[wasm_bindgen]
impl Bench {
    /// Opens the adapter.
    pub async fn open() -> Result<Bench, JsValue> {
        Ok(Bench { gpu: Rc::new(Gpu::new(&GpuOptions::default()).await?) })
    }

    /// `{ name, vendor, architecture, shaderF16, subgroup, timestamps }`.
    pub fn adapter(&self) -> Object {
        let out = Object::new();
        set(&out, "name", self.gpu.name.as_str());
        set(&out, "vendor", self.gpu.vendor.as_str());
        set(&out, "architecture", self.gpu.architecture.as_str());
        set(&out, "shaderF16", self.gpu.shader_f16);
        set(&out, "subgroup", self.gpu.subgroup);
        set(&out, "timestamps", self.gpu.timestamps);
        out
    }

    /// Kernels that came out wrong until now, and are not used.
    pub fn wrong(&self) -> Vec<String> {
        self.gpu.wrong()
    }

    /// Records one operation of `{ op, precision }`, with its shape beside them, in NHWC, one picture:
    /// - `conv2d`: `h`, `w`, `c`, `out`, 3x3 with a bias;
    /// - `linear`: `rows`, `c`, `out`, with a bias;
    /// - `attention`: `queries`, `keys`, `c`, `heads`;
    /// - `groupNorm`: `h`, `w`, `c`, 32 groups, then SiLU;
    /// - `layerNorm`: `rows`, `c`.
    ///
    /// Weights are called `y.weight` and `y.bias`, of the checkpoint's order.
    pub async fn operation(&self, spec: JsValue) -> Result<Recording, JsValue> {
        let size = |key: &str| {
            count(&spec, key, 65536.0)?
                .map(|n| n as u32)
                .ok_or_else(|| Error::invalid(format!("{key} must be a number.")))
        };
        let record = |r: &mut Recorder| -> Result<(Vec<Tensor>, Tensor)> {
            let op = text(&spec, "op")?.unwrap_or_default();
            let c = size("c")?;
            Ok(match op.as_str() {
                "conv2d" => {
                    let x = r.input(1, size("h")?, size("w")?, c);
                    (vec![x], ops::conv2d(r, x, "y", size("out")?, Conv::k3(), Epilogue::default())?)
                }
                "linear" => {
                    let x = r.input(1, 1, size("rows")?, c);
                    (vec![x], ops::linear(r, x, "y", size("out")?, Epilogue::default())?)
                }
                "attention" => {
                    let q = r.input(1, 1, size("queries")?, c);
                    let [k, v] = [size("keys")?; 2].map(|keys| r.input(1, 1, keys, c));
                    (vec![q, k, v], ops::attention(r, q, k, v, size("heads")?, false)?)
                }
                "groupNorm" => {
                    let x = r.input(1, size("h")?, size("w")?, c);
                    (vec![x], ops::group_norm(r, x, "y", 32, 1e-5, Activation::Silu)?)
                }
                "layerNorm" => {
                    let x = r.input(1, 1, size("rows")?, c);
                    (vec![x], ops::layer_norm(r, x, "y", 1e-5)?)
                }
                _ => return Err(Error::invalid(format!("op = {op:?} is no operation."))),
            })
        };
        Ok(self.record(&spec, record).await?)
    }

    /// Records a UNet of `{ config, precision, batch, height, width }` (diffusers' `config.json` as text, latents'
    /// size, 77 tokens). Inputs: sample, sinusoidal embedding of the time step, text.
    pub async fn unet(&self, spec: JsValue) -> Result<Recording, JsValue> {
        let config = serde_json::from_str(&text(&spec, "config")?.unwrap_or_default())
            .map_err(|e| Error::invalid(format!("config is no JSON ({e}).")))?;
        let config = unet::Config::from_config(&config)?;
        let size = |key: &str, or: f64| Ok::<_, Error>(count(&spec, key, 1024.0)?.unwrap_or(or) as u32);
        let (batch, height, width) = (size("batch", 2.0)?, size("height", 64.0)?, size("width", 64.0)?);
        let record = |r: &mut Recorder| {
            let sample = r.input(batch, height, width, config.in_channels);
            let t_emb = r.input(batch, 1, 1, config.time_proj_dim);
            let tokens = r.input(batch, 1, 77, config.cross_attention_dim);
            let inputs = unet::Inputs {
                sample,
                t_emb,
                encoder_hidden_states: tokens,
                added: None,
                timestep_cond: None,
                features: Vec::new(),
            };
            let output = unet::forward(&config, r, &inputs, &[])?;
            Ok((vec![sample, t_emb, tokens], output))
        };
        Ok(self.record(&spec, record).await?)
    }
}

impl Bench {
    /// What `record` records, with kernels that this GPU computes rightly.
    async fn record(
        &self,
        spec: &JsValue,
        record: impl Fn(&mut Recorder) -> Result<(Vec<Tensor>, Tensor)>,
    ) -> Result<Recording> {
        let record = |options: &Options| {
            let mut r = Recorder::new(options);
            let (inputs, output) = record(&mut r)?;
            r.output(output);
            Ok((r.finish(), (inputs, output)))
        };
        let (plan, (inputs, output)) = ops::sound(&self.gpu, &options(&self.gpu, spec)?, record).await?;
        let weights = Weights::allocate(&self.gpu, plan.weights());
        let executable = plan.instantiate(&self.gpu, &weights)?;
        Ok(Recording { gpu: self.gpu.clone(), weights, plan, executable, inputs, output })
    }
}

/// `precision`: "f16" or "f32" arithmetic; values are stored as f16 in both.
fn options(gpu: &Gpu, spec: &JsValue) -> Result<Options> {
    let arithmetic = match text(spec, "precision")?.as_deref() {
        Some("f16") => Arithmetic::F16,
        None | Some("f32") => Arithmetic::F32,
        Some(other) => {
            return Err(Error::invalid(format!("precision = {other:?}: choose \"f16\" or \"f32\".")));
        }
    };
    let subgroup_if_tuned = !broadcasts(&gpu.vendor);
    let (subgroup, rolled) = (gpu.subgroup, gpu.software);
    Ok(Options { arithmetic, subgroup, subgroup_if_tuned, rolled, ..Options::default() })
}

/// A plan on the GPU.
#[wasm_bindgen]
pub struct Recording {
    gpu: Rc<Gpu>,
    weights: Weights,
    plan: Plan,
    executable: Executable,
    inputs: Vec<Tensor>,
    output: Tensor,
}

#[wasm_bindgen]
impl Recording {
    /// Writes input number `index`, NHWC.
    pub fn write(&self, index: usize, values: &[f32]) -> Result<(), JsValue> {
        let t =
            self.inputs.get(index).ok_or_else(|| Error::invalid(format!("There is no input {index}.")))?;
        Ok(self.executable.write(&self.gpu, *t, values)?)
    }

    /// Writes a weight in the checkpoint's order.
    pub fn upload(&self, name: &str, values: &[f32]) -> Result<(), JsValue> {
        Ok(self.weights.upload(&self.gpu, name, values)?)
    }

    /// Fills weights and inputs with random values, made on the GPU but for one megabyte.
    pub fn fill(&self) -> Result<(), JsValue> {
        self.weights.fill(&self.gpu);
        for t in &self.inputs {
            self.executable.fill(&self.gpu, *t)?;
        }
        Ok(())
    }

    /// Submits everything once.
    pub fn run(&self) {
        self.executable.run(&self.gpu);
    }

    /// Runs once and returns what each dispatch took on the GPU: `{ kernel, flops, ms }`; empty where the adapter has no
    /// timestamp queries.
    pub async fn timed(&self) -> Result<Array, JsValue> {
        let one = |t: &Timing| {
            let out = Object::new();
            set(&out, "kernel", t.kernel);
            set(&out, "flops", t.flops as f64);
            set(&out, "ms", t.nanoseconds / 1e6);
            out
        };
        Ok(self.executable.run_timed(&self.gpu).await?.iter().map(one).collect())
    }

    /// `step` of the timings that a picture comes with.
    pub fn counters(&self) -> Object {
        step_counters(&self.executable.counters(&self.gpu))
    }

    /// Waits until all that was submitted is done.
    pub async fn done(&self) -> Result<(), JsValue> {
        Ok(self.gpu.idle().await?)
    }

    /// The output, NHWC.
    pub async fn read(&self) -> Result<Float32Array, JsValue> {
        Ok(Float32Array::from(self.executable.read(&self.gpu, self.output).await?.as_slice()))
    }

    /// Every dispatch: `{ kernel, defines, params, flops, bytes, workgroups }`, as `timed` has them.
    pub fn dispatches(&self) -> Array {
        let one = |d: &Dispatch| {
            let out = Object::new();
            set(&out, "kernel", d.kernel.name);
            let defines = Object::new();
            for (name, value) in &d.kernel.defines {
                set(&defines, name, *value);
            }
            set(&out, "defines", defines);
            let params = Object::new();
            for (name, value) in &d.params {
                set(&params, name, value.word());
            }
            set(&out, "params", params);
            set(&out, "flops", d.flops as f64);
            set(&out, "bytes", self.plan.bytes(d) as f64);
            set(&out, "workgroups", d.workgroups.iter().product::<u32>());
            out
        };
        self.plan.dispatches().iter().map(one).collect()
    }

    /// Bytes held on the GPU by all that is recorded now, and at the peak.
    pub fn memory(&self) -> Object {
        let bytes = self.gpu.bytes();
        let out = Object::new();
        set(&out, "now", (bytes.weights + bytes.activations + bytes.staging) as f64);
        set(&out, "peak", bytes.peak as f64);
        out
    }
}
