//! `cargo run --profile test --example fuzz -- lora|embedding|controlnet|ip-adapter|image-encoder|checkpoint
//! SECONDS SEED`: real small files of
//! `tests/reference/data`, changed at random in their shapes, values, names and bytes, read and drawn with by a tiny
//! Stable Diffusion 1. Whatever they hold, each is drawn with or refused by a typed error, and the model draws on as
//! before; none panics, hangs or takes more than 256 MiB of heap. A file that breaks this is kept, and named.

#[path = "../support/heap.rs"]
mod heap;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "../support/random_weights.rs"]
mod random_weights;

use browser_diffusion::checkpoint::ReadAt;
use browser_diffusion::pipeline::{
    Control, DiffusionPipeline, GenerateOptions, ImageEncoderFiles, IpAdapter, LoadOptions, Lora, Output,
    Picture,
};
use browser_diffusion::store::SingleFile;
use browser_diffusion::store::disk::Folder;
use browser_diffusion::{Error, Result};
use heap::{heap, heap_peak};
use mutate::{Part, mutated, written};
use pollster::block_on;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use random_weights::drawn;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

const MEMORY: usize = 256 << 20;
const TIME: Duration = Duration::from_secs(30);
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn json(path: &str) -> Value {
    let text = std::fs::read(format!("{ROOT}/tests/reference/data/{path}")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Tensors listed as `name 32 4 3 3`, their values drawn from their names.
fn tensors(list: &Value, gain: f64) -> Vec<Part> {
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
fn tiny(root: &Path) {
    let model = &json("pipelines/models.json")["sd1"];
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

struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    async fn size(&self) -> Result<u64> {
        self.0.as_slice().size().await
    }
    async fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.0.as_slice().read_at(offset, len).await
    }
}

/// A file seen as a folder.
fn single(bytes: &[u8]) -> Result<Rc<SingleFile<Bytes, Folder>>> {
    let vocabulary = Rc::new(Folder::new(format!("{ROOT}/www/embedded")));
    block_on(SingleFile::open("file", Bytes(bytes.to_vec()), vocabulary)).map(Rc::new)
}

fn load(root: &Path) -> DiffusionPipeline {
    let folder = Rc::new(Folder::new(root));
    block_on(DiffusionPipeline::load(folder, None, &LoadOptions::default(), &|| false)).unwrap()
}

fn draw(model: &DiffusionPipeline, more: GenerateOptions) -> Result<Vec<f32>> {
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

/// The weights of a tiny image encoder.
fn encoder() -> Vec<u8> {
    written(&tensors(&json("ip_adapter/nets.json")["encoders"]["vit"]["tensors"], 0.9))
}

/// Reads an IP-Adapter and the image encoder in a folder, and draws with them.
fn attack_by_picture(
    model: &DiffusionPipeline,
    file: Vec<u8>,
    folder: &Path,
    key: &str,
    scale: f32,
) -> Result<()> {
    let files = ImageEncoderFiles { key, files: Rc::new(Folder::new(folder)) };
    let loaded = block_on(model.load_ip_adapter(key, ("file", Bytes(file)), files, &|| false));
    let drawn = loaded.and_then(|()| {
        let images = vec![Picture { width: 32, height: 32, data: vec![99; 4 * 32 * 32] }];
        let adapter = IpAdapter { key: key.into(), images, scale };
        draw(model, GenerateOptions { ip_adapters: vec![adapter], ..Default::default() })
    });
    model.keep_ip_adapters(&[]);
    drawn.map(|_| ())
}

/// The files that `target` begins from.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let files = |folder: &str, fits: fn(&str) -> bool| -> Vec<Vec<u8>> {
        let folder = format!("{ROOT}/tests/reference/data/{folder}");
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        paths.retain(|path| fits(path.file_name().unwrap().to_str().unwrap()));
        paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
    };
    let nets = || {
        let nets = json("controlnet/nets.json");
        let nets = nets
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| ["one", "two", "pooled"].contains(&name.as_str()));
        nets.map(|(_, net)| written(&tensors(&net["tensors"], 0.6))).collect()
    };
    match target {
        "lora" => {
            let own = |name: &str| name.ends_with(".safetensors") && !name.starts_with("thing");
            [files("extras", own), files("cases", own)].concat()
        }
        "embedding" => {
            let own = |name: &str| {
                name.starts_with("thing") || name.starts_with("ti-") || name.starts_with("bundle")
            };
            [files("extras", own), files("cases", own)].concat()
        }
        "controlnet" => nets(),
        "ip-adapter" => {
            let adapters = &json("ip_adapter/nets.json")["adapters"];
            let of_sd1 = ["plain", "plus", "full"].iter();
            let made = of_sd1.map(|name| written(&tensors(&adapters[name]["tensors"], 0.9)));
            made.chain(files("ip_adapter", |name| name == "plain.bin")).collect()
        }
        "image-encoder" => vec![encoder()],
        "checkpoint" => {
            let model = &json("single_file/models.json")["sd1"];
            let prefixes = [
                ("unet", "model.diffusion_model."),
                ("vae", "first_stage_model."),
                ("text_encoder", "cond_stage_model.transformer."),
            ];
            let parts = prefixes.iter().flat_map(|(component, prefix)| {
                let parts = tensors(&model["tensors"][component], 0.6).into_iter();
                parts.map(move |part| Part { name: format!("{prefix}{}", part.name), ..part })
            });
            vec![written(&parts.collect::<Vec<_>>())]
        }
        other => panic!("{other}: lora, embedding, controlnet, ip-adapter, image-encoder or checkpoint"),
    }
}

/// Reads a file as `target`, and draws with it.
fn attack(
    target: &str,
    model: &DiffusionPipeline,
    (file, folder): (&[u8], &Path),
    key: &str,
    scale: f32,
) -> Result<()> {
    let never = || false;
    match target {
        "lora" => {
            block_on(model.load_lora(key, &file))?;
            let lora = Lora { key: key.into(), name: key.into(), scale };
            draw(model, GenerateOptions { loras: vec![lora], ..Default::default() })?;
        }
        "embedding" => {
            block_on(model.load_embedding(key, &file))?;
            let embeddings = vec![("sks".to_owned(), key.to_owned())];
            draw(model, GenerateOptions { embeddings, ..Default::default() })?;
        }
        "controlnet" => {
            let loaded = single(file).and_then(|files| block_on(model.load_controlnet(key, files, &never)));
            let drawn = loaded.and_then(|()| {
                let image = Picture { width: 32, height: 32, data: vec![99; 4 * 32 * 32] };
                let control = Control { key: key.into(), image, scale, ..Default::default() };
                draw(model, GenerateOptions { controlnets: vec![control], ..Default::default() })
            });
            model.keep_controlnets(&[]);
            drawn?;
        }
        "ip-adapter" => attack_by_picture(model, file.to_vec(), folder, key, scale)?,
        "image-encoder" => {
            std::fs::write(folder.join("model.safetensors"), file).unwrap();
            let adapters = [&seeds("ip-adapter")[0], &seeds("ip-adapter")[1]];
            attack_by_picture(model, adapters[key.len() % 2].clone(), folder, key, scale)?;
        }
        _ => {
            let options = LoadOptions::default();
            let loaded = DiffusionPipeline::load(single(file)?, None, &options, &never);
            draw(&block_on(loaded)?, GenerateOptions::default())?;
        }
    }
    Ok(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, seconds, seed] = arguments.as_slice() else {
        panic!(
            "which (lora, embedding, controlnet, ip-adapter, image-encoder, checkpoint), how many seconds, which seed"
        );
    };
    let seed: u64 = seed.parse().unwrap();
    let end = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
    let temp = std::env::temp_dir().join(format!("browser-diffusion-fuzz-{}", std::process::id()));
    tiny(&temp);
    let kept = temp.join("attack");
    let folder = temp.join("encoder");
    std::fs::create_dir_all(&folder).unwrap();
    let config = &json("ip_adapter/nets.json")["encoders"]["vit"]["config"];
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("model.safetensors"), encoder()).unwrap();
    let (seeds, mut rng) = (seeds(target), SmallRng::seed_from_u64(seed));
    let mut model = load(&temp);
    let before = draw(&model, GenerateOptions::default()).unwrap();
    let (mut count, mut taken, mut worst) = (0u32, 0, (Duration::ZERO, 0));
    let mut codes: BTreeMap<&str, u32> = BTreeMap::new();
    // Untouched ones first: what they do is what is to be broken.
    let mut untouched = seeds.clone();
    while Instant::now() < end {
        let file = untouched.pop().unwrap_or_else(|| {
            let from = rng.random_range(0..seeds.len());
            mutated(&mut rng, &seeds[from])
        });
        std::fs::write(&kept, &file).unwrap();
        let scale = [1.0, 0.5, -1.0, 65504.0, 1e30][rng.random_range(0..5)];
        let (held, begun) = (heap(), Instant::now());
        let result = attack(target, &model, (&file, &folder), &count.to_string(), scale);
        worst = (worst.0.max(begun.elapsed()), worst.1.max(heap_peak().saturating_sub(held)));
        assert!(worst.0 < TIME && worst.1 < MEMORY, "{}: {worst:?}", kept.display());
        match result {
            Ok(()) => taken += 1,
            Err(Error { code, message }) => {
                assert!(!message.is_empty(), "{}", kept.display());
                *codes.entry(code.as_str()).or_default() += 1;
            }
        }
        count += 1;
        // What was loaded stays loaded.
        if count.is_multiple_of(200) {
            assert_eq!(draw(&model, GenerateOptions::default()).unwrap(), before, "{}", kept.display());
            model = load(&temp);
        }
    }
    assert_eq!(draw(&model, GenerateOptions::default()).unwrap(), before);
    std::fs::remove_dir_all(&temp).unwrap();
    println!(
        "{target}, seed {seed}: {count} files, {taken} drawn with, refused {codes:?}; at most {worst:?}"
    );
}
