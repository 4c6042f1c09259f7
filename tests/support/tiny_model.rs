//! The tiny random Stable Diffusion 1 of `pipelines.py`, its ControlNets, and files of tensors to break.
#![allow(dead_code)]

use crate::random_weights::drawn;
use browser_diffusion::Result;
use browser_diffusion::checkpoint::ReadAt;
use browser_diffusion::pipeline::{DiffusionPipeline, GenerateOptions, Output};
use browser_diffusion::store::SingleFile;
use browser_diffusion::store::disk::Folder;
use pollster::block_on;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::rc::Rc;

/// A tensor of a .safetensors file.
#[derive(Clone)]
pub struct Part {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    pub data: Vec<u8>,
}

/// What a file of that format has; `None` for another.
pub fn parts(file: &[u8]) -> Option<Vec<Part>> {
    let len = usize::try_from(u64::from_le_bytes(*file.first_chunk()?)).ok()?;
    let (header, data) = file.get(8..)?.split_at_checked(len)?;
    let header: Map<String, Value> = serde_json::from_slice(header).ok()?;
    let part = |(name, entry): (String, Value)| {
        let range = |i: usize| entry["data_offsets"][i].as_u64().map(|at| at as usize);
        Some(Part {
            dtype: entry["dtype"].as_str()?.to_owned(),
            shape: entry["shape"].as_array()?.iter().filter_map(Value::as_u64).collect(),
            data: data.get(range(0)?..range(1)?)?.to_vec(),
            name,
        })
    };
    header.into_iter().filter(|(name, _)| name != "__metadata__").map(part).collect()
}

pub fn written(parts: &[Part]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for part in parts {
        let begin = data.len();
        data.extend(&part.data);
        let entry = json!({"dtype": part.dtype, "shape": part.shape, "data_offsets": [begin, data.len()]});
        header.insert(part.name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

pub fn read_json(path: &str) -> Value {
    let text = std::fs::read(format!("{ROOT}/tests/reference/data/{path}")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Tensors listed as `name 32 4 3 3`, their values drawn from their names.
pub fn tensors(list: &Value, gain: f64) -> Vec<Part> {
    let line = |line: &Value| {
        let mut words = line.as_str().unwrap().split(' ');
        let name = words.next().unwrap().to_owned();
        let shape: Vec<u64> = words.map(|n| n.parse().unwrap()).collect();
        let count = shape.iter().product::<u64>() as usize;
        let values = drawn(&name, count, count / shape[0] as usize, gain);
        Part { name, dtype: "F16".into(), shape, data: bytemuck::cast_slice(&values).to_vec() }
    };
    list.as_array().unwrap().iter().map(line).collect()
}

/// The tiny SD 1 of `pipelines.py`, as a diffusers folder.
pub fn tiny(root: &Path) {
    let model = &read_json("pipelines/models.json")["sd1"];
    let write = |path: &str, bytes: &[u8]| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    write("model_index.json", model["model_index"].to_string().as_bytes());
    write("scheduler/scheduler_config.json", model["scheduler"].to_string().as_bytes());
    for (component, config) in model["components"].as_object().unwrap() {
        write(&format!("{component}/config.json"), config.to_string().as_bytes());
        let parts = tensors(&model["tensors"][component], config["gain"].as_f64().unwrap_or(1.0));
        let stem = if component == "text_encoder" { "model" } else { "diffusion_pytorch_model" };
        write(&format!("{component}/{stem}.safetensors"), &written(&parts));
    }
    for (name, text) in model["tokenizers"]["tokenizer"].as_object().unwrap() {
        write(&format!("tokenizer/{name}"), text.to_string().as_bytes());
    }
    for name in ["vocab.json", "merges.txt"] {
        write(
            &format!("tokenizer/{name}"),
            &std::fs::read(format!("{ROOT}/www/embedded/tokenizer/{name}")).unwrap(),
        );
    }
}

pub struct Bytes(pub Vec<u8>);

impl ReadAt for Bytes {
    async fn size(&self) -> Result<u64> {
        self.0.as_slice().size().await
    }
    async fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.0.as_slice().read_at(offset, len).await
    }
}

/// A file seen as a folder.
pub fn single(bytes: &[u8]) -> Result<Rc<SingleFile<Bytes, Folder>>> {
    let vocabulary = Rc::new(Folder::new(format!("{ROOT}/www/embedded")));
    block_on(SingleFile::open("file", Bytes(bytes.to_vec()), vocabulary)).map(Rc::new)
}

pub fn draw(model: &DiffusionPipeline, more: GenerateOptions) -> Result<Vec<f32>> {
    let options = GenerateOptions {
        prompt: "a red sks".into(),
        width: Some(32),
        height: Some(32),
        num_inference_steps: Some(1),
        guidance_scale: Some(1.0),
        seed: 7,
        output: Output::Latent,
        ..more
    };
    Ok(block_on(model.generate(&options, &mut |_| Ok(()), &|| false))?.latents.concat())
}

/// ControlNets of its kind, as files of the original code's, by their names in `controlnet.py`.
pub fn controlnets() -> Vec<Vec<Part>> {
    let nets = read_json("controlnet/nets.json");
    let known = ["one", "two", "pooled"];
    known.iter().map(|name| tensors(&nets[name]["tensors"], 0.6)).collect()
}

/// A ControlNet-LLLite of its kind.
pub fn lllite() -> Vec<Part> {
    tensors(&read_json("lllite/nets.json")["sd1"]["tensors"], 0.9)
}

/// The first of [`controlnets`] as a Control-LoRA; [`marked`], it is one.
pub fn control_lora() -> Vec<Part> {
    let factors = |part: &Part| {
        let own = part.shape.len() < 2 || part.name.starts_with("controlnet_");
        let Some(layer) = part.name.strip_suffix(".weight").filter(|_| !own) else {
            return vec![part.clone()];
        };
        let factor = |end: &str, shape: Vec<u64>| {
            let name = format!("{layer}.{end}");
            let count = shape.iter().product::<u64>() as usize;
            let data = bytemuck::cast_slice(&drawn(&name, count, count / shape[0] as usize, 0.5)).to_vec();
            Part { name, dtype: "F16".into(), shape, data }
        };
        let (mut down, mut up) = (part.shape.clone(), vec![1; part.shape.len()]);
        (down[0], up[0], up[1]) = (2, part.shape[0], 2);
        vec![factor("down", down), factor("up", up)]
    };
    controlnets()[0].iter().flat_map(factors).collect()
}

/// The file of a Control-LoRA.
pub fn marked(parts: &[Part]) -> Vec<u8> {
    let mark = Part { name: "lora_controlnet".into(), dtype: "F16".into(), shape: vec![0], data: Vec::new() };
    written(&[parts, &[mark]].concat())
}

/// A whole tiny Stable Diffusion 1 as one file's tensors.
pub fn whole() -> Vec<Part> {
    let model = &read_json("single_file/models.json")["sd1"];
    let prefixes = [
        ("unet", "model.diffusion_model."),
        ("vae", "first_stage_model."),
        ("text_encoder", "cond_stage_model.transformer."),
    ];
    let parts = prefixes.iter().flat_map(|(component, prefix)| {
        let parts = tensors(&model["tensors"][component], 0.6).into_iter();
        parts.map(move |part| Part { name: format!("{prefix}{}", part.name), ..part })
    });
    parts.collect()
}
