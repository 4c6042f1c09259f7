//! CLIP, UNet and the autoencoders recorded for inputs, and compared with outputs, that stand in one safetensors file.

use browser_diffusion::checkpoint::{self, Header, TensorInfo};
use browser_diffusion::gpu::{Dtype, Gpu, Options, Plan, Recorder, Tensor, Weights};
use browser_diffusion::models::{clip, controlnet, taesd, unet, vae};
use pollster::block_on;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The tensors of a case: shape and values (integers as floats, which hold them exactly).
pub struct Data(pub BTreeMap<String, (Vec<u32>, Vec<f32>)>);

impl Data {
    /// A safetensors file of f32 and i32, all of it.
    pub fn read(path: &Path) -> Data {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let len = Header::json_len(bytes[..8].try_into().unwrap()).unwrap();
        let header = Header::parse(&bytes[8..8 + len]).unwrap();
        let values = |dtype, bytes: &[u8]| match dtype {
            checkpoint::Dtype::I32 => {
                bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b) as f32).collect()
            }
            _ => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        };
        let start = header.data_start as usize;
        let tensor = |t: &TensorInfo| {
            let shape = t.shape.iter().map(|&d| d as u32).collect();
            (
                t.name.clone(),
                (shape, values(t.dtype, &bytes[start + t.begin as usize..start + t.end as usize])),
            )
        };
        Data(header.tensors.iter().map(tensor).collect())
    }
}

/// One component, recorded with the case's data as its inputs.
pub struct Part<'a> {
    pub plan: Plan,
    data: &'a Data,
    name: &'a str,
    config: &'a Value,
    inputs: Vec<(Tensor, &'a [f32])>,
    indices: Vec<(Tensor, Vec<u32>)>,
    outputs: Vec<(String, Tensor)>,
    /// Numbers that are inputs but not in the file.
    scales: Vec<(Tensor, Vec<f32>)>,
}

impl<'a> Part<'a> {
    /// `config`: diffusers' or transformers' own. The data's names begin with `name`.
    pub fn record(data: &'a Data, name: &'a str, config: &'a Value, options: &Options) -> Part<'a> {
        let r = Recorder::new(options);
        let (inputs, indices, outputs, scales) = (vec![], vec![], vec![], vec![]);
        let mut recording = Recording { data, name, r, inputs, indices, outputs, scales };
        recording.record(config);
        let Recording { r, inputs, indices, outputs, scales, .. } = recording;
        Part { plan: r.finish(), data, name, config, inputs, indices, outputs, scales }
    }

    /// Runs once; relative L2 error of each output, by its name in the data.
    pub fn errors(&self, gpu: &Gpu, weights: &Weights) -> Vec<(String, f64)> {
        let executable = self.plan.instantiate(gpu, weights).unwrap();
        for (t, values) in &self.inputs {
            executable.write(gpu, *t, values).unwrap();
        }
        for (t, values) in &self.scales {
            executable.write(gpu, *t, values).unwrap();
        }
        for (t, values) in &self.indices {
            executable.write_u32(gpu, *t, values).unwrap();
        }
        executable.run(gpu);
        let mut errors = Vec::new();
        for (output, t) in &self.outputs {
            let got = block_on(executable.read(gpu, *t)).unwrap();
            let named = if output.as_str() == "moments" {
                let (mean, std) = vae::posterior(&vae::Config::from_config(self.config).unwrap(), &got);
                vec![("mean".to_owned(), mean), ("std".to_owned(), std)]
            } else {
                vec![(output.clone(), got)]
            };
            for (output, got) in named {
                let wanted = &self.data.0[&format!("{}.{output}", self.name)].1;
                errors.push((output, relative_error(&got, wanted)));
            }
        }
        errors
    }
}

/// A component while its inputs are declared.
struct Recording<'a> {
    data: &'a Data,
    name: &'a str,
    r: Recorder,
    inputs: Vec<(Tensor, &'a [f32])>,
    indices: Vec<(Tensor, Vec<u32>)>,
    outputs: Vec<(String, Tensor)>,
    /// Numbers that are inputs but not in the file.
    scales: Vec<(Tensor, Vec<f32>)>,
}

impl<'a> Recording<'a> {
    fn tensor(&self, name: &str) -> Option<&'a (Vec<u32>, Vec<f32>)> {
        self.data.0.get(&format!("{}.{name}", self.name))
    }

    /// An input of the plan: NHWC, tokens or vectors, by the rank in the file.
    fn input(&mut self, name: &str) -> Option<Tensor> {
        let (shape, values) = self.tensor(name)?;
        let t = match shape[..] {
            [n, h, w, c] => self.r.input(n, h, w, c),
            [n, tokens, c] => self.r.input(n, 1, tokens, c),
            [n, c] => self.r.input(n, 1, 1, c),
            _ => panic!("{name} has shape {shape:?}"),
        };
        self.inputs.push((t, values));
        Some(t)
    }

    fn output(&mut self, name: &str, t: Tensor) {
        self.r.output(t);
        self.outputs.push((name.to_owned(), t));
    }

    fn unet_inputs(&mut self) -> unet::Inputs {
        let added = self.input("text_embeds").zip(self.input("time_ids"));
        unet::Inputs {
            sample: self.input("sample").unwrap(),
            t_emb: self.input("t_emb").unwrap(),
            encoder_hidden_states: self.input("encoder_hidden_states").unwrap(),
            added: added.map(|(text_embeds, time_ids)| unet::AddedCond { text_embeds, time_ids }),
            timestep_cond: self.input("timestep_cond"),
            features: Vec::new(),
        }
    }

    fn record(&mut self, config: &Value) {
        if let Some(class) = config.get("architectures") {
            let with_projection = class[0] == "CLIPTextModelWithProjection";
            let config = clip::Config::from_config(config).unwrap();
            let (shape, ids) = self.tensor("input_ids").unwrap();
            let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
            let input_ids = self.r.input_u32(shape[0], shape[1]);
            let index = self.r.input_u32(shape[0], 1);
            let places = ids.chunks(shape[1] as usize).map(|ids| config.eos_index(ids)).collect();
            self.indices = vec![(input_ids, ids), (index, places)];
            let r = &mut self.r;
            let states = clip::hidden_states(&config, r, input_ids, None, config.num_hidden_layers).unwrap();
            let last = clip::final_layer_norm(&config, r, *states.last().unwrap()).unwrap();
            let pooled = clip::pooler_output(r, last, index).unwrap();
            let pooled = match with_projection {
                true => ("text_embeds", clip::text_embeds(&config, r, pooled).unwrap()),
                false => ("pooler_output", pooled),
            };
            self.output("last_hidden_state", last);
            self.output("penultimate", states[states.len() - 2]);
            self.output(pooled.0, pooled.1);
        } else if config["_class_name"] == "UNet2DConditionModel" {
            let config = unet::Config::from_config(config).unwrap();
            let inputs = self.unet_inputs();
            let residuals: Vec<Tensor> = (0..).map_while(|i| self.input(&format!("residual_{i}"))).collect();
            let out = unet::forward(&config, &mut self.r, &inputs, &residuals).unwrap();
            self.output("out_sample", out);
        } else if config["_class_name"] == "ControlNetModel" {
            let config = controlnet::Config::from_config(config).unwrap();
            let inputs = self.unet_inputs();
            let image = self.input("image").unwrap();
            let r = &mut self.r;
            let cond = controlnet::cond_embedding(&config, r, image).unwrap();
            let results = controlnet::forward(
                &config,
                r,
                &inputs,
                &controlnet::Seen { cond: vec![cond], control_type: None },
            )
            .unwrap();
            for (mode, scale) in [("plain", 1.0), ("guess", 0.7)] {
                let r = &mut self.r;
                let Tensor { n, h, w, .. } = inputs.sample;
                let size = if config.global_pool_conditions { [1, 1] } else { [h, w] };
                let into = controlnet::residuals(&config.unet, r, n, size);
                let numbers = config.scales(scale, mode == "guess");
                let scales = r.input_of(Dtype::F32, 1, 1, 1, numbers.len() as u32);
                controlnet::add(r, &results, scales, &into, 0).unwrap();
                self.scales.push((scales, numbers));
                for (i, t) in into.into_iter().enumerate() {
                    self.output(&format!("{mode}_{i}"), t);
                }
            }
        } else if config["_class_name"] == "AutoencoderKL" {
            let config = vae::Config::from_config(config).unwrap();
            let latents = self.input("latents").unwrap();
            let decoded = vae::decode(&config, &mut self.r, latents).unwrap();
            self.output("decoded", decoded);
            if let Some(image) = self.input("image") {
                let moments = vae::encode(&config, &mut self.r, image).unwrap();
                self.output("moments", moments);
            }
        } else {
            let config = taesd::Config::from_config(config).unwrap();
            let latents = self.input("latents").unwrap();
            let decoded = taesd::decode(&config, &mut self.r, latents).unwrap();
            self.output("decoded", decoded);
        }
    }
}

/// ||a - b|| / ||b||.
pub fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let difference: f64 = a.iter().zip(b).map(|(&a, &b)| square(a as f64 - b as f64)).sum();
    (difference / b.iter().map(|&b| square(b as f64)).sum::<f64>()).sqrt()
}
