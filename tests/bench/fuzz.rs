//! `cargo run --profile test --example fuzz -- KIND SECONDS SEED [q8|q4]`, KIND being one of those below: real small files of
//! `tests/reference/data`, changed at random in their shapes, values, names and bytes, read and drawn with by a tiny
//! Stable Diffusion 1, in f16 or quantised. Whatever they hold, each is drawn with or refused by a typed error, and the
//! model draws on as before; none panics, hangs or takes more than 256 MiB of heap. A file that breaks this is kept, and
//! named.

#[path = "../support/heap.rs"]
mod heap;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "../support/random_weights.rs"]
mod random_weights;
#[path = "../support/tiny_model.rs"]
mod tiny_model;

use browser_diffusion::checkpoint::Bits;
use browser_diffusion::ops::Precision;
use browser_diffusion::pipeline::{
    Control, DiffusionPipeline, GenerateOptions, ImageEncoderFiles, IpAdapter, LoadOptions, Lora, Picture,
    Upscaler,
};
use browser_diffusion::store::disk::Folder;
use browser_diffusion::{Error, Result};
use heap::{heap, heap_peak};
use mutate::mutated;
use pollster::block_on;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tiny_model::{
    Bytes, ROOT, control_lora, controlnets, draw, lllite, marked, read_json, single, tensors, tiny, whole,
    written,
};

const KINDS: &str = "lora, embedding, controlnet, ip-adapter, image-encoder, vae, upscaler or checkpoint";
const MEMORY: usize = 256 << 20;
const TIME: Duration = Duration::from_secs(30);

fn load(root: &Path, weights: Option<Bits>) -> DiffusionPipeline {
    let folder = Rc::new(Folder::new(root));
    let options = LoadOptions { weights, ..Default::default() };
    block_on(DiffusionPipeline::load(folder, None, &options, &|| false)).unwrap()
}

/// The weights of a tiny image encoder.
fn encoder() -> Vec<u8> {
    written(&tensors(&read_json("ip_adapter/nets.json")["encoders"]["vit"]["tensors"], 0.9))
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
        "controlnet" => {
            let adapters = &read_json("t2i_adapter/adapters.json");
            let t2i = ["full", "light"].map(|name| written(&tensors(&adapters[name]["tensors"], 0.9)));
            let nets = controlnets();
            let small = [marked(&control_lora()), written(&lllite())];
            nets.iter().map(|parts| written(parts)).chain(small).chain(t2i).collect()
        }
        "ip-adapter" => {
            let adapters = &read_json("ip_adapter/nets.json")["adapters"];
            let of_sd1 = ["plain", "plus", "full"].iter();
            let made = of_sd1.map(|name| written(&tensors(&adapters[name]["tensors"], 0.9)));
            made.chain(files("ip_adapter", |name| name == "plain.bin")).collect()
        }
        "image-encoder" => vec![encoder()],
        "checkpoint" => vec![written(&whole())],
        "vae" => vec![written(&tensors(&read_json("single_file/models.json")["sd1"]["tensors"]["vae"], 0.6))],
        "upscaler" => files("upscaler", |name| name.starts_with("esrgan") || name.starts_with("x")),
        other => panic!("{other}: {KINDS}"),
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
        "upscaler" => {
            let upscaler = block_on(Upscaler::load(&file, Precision::Auto, &never))?;
            let picture = Picture { width: 6, height: 5, data: vec![99; 4 * 6 * 5] };
            block_on(upscaler.upscale(&picture, &mut |_, _| Ok(()), &never))?;
        }
        "vae" => {
            let (model, vae) = (single(&written(&whole()))?, single(file)?);
            let options = LoadOptions::default();
            let loaded = DiffusionPipeline::load(model, Some(vae), &options, &never);
            let model = block_on(loaded)?;
            let latents = draw(&model, GenerateOptions::default())?;
            block_on(model.decode(&latents, [32, 32], &never))?;
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
    let [target, seconds, seed, weights @ ..] = arguments.as_slice() else {
        panic!("which ({KINDS}), how many seconds, which seed");
    };
    let weights = match weights {
        [] => None,
        [bits] if bits == "q8" => Some(Bits::Q8),
        [bits] if bits == "q4" => Some(Bits::Q4),
        _ => panic!("weights are f16, or q8 or q4"),
    };
    let seed: u64 = seed.parse().unwrap();
    let end = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
    let temp = std::env::temp_dir().join(format!("browser-diffusion-fuzz-{}", std::process::id()));
    tiny(&temp);
    let kept = temp.join("attack");
    let folder = temp.join("encoder");
    std::fs::create_dir_all(&folder).unwrap();
    let config = &read_json("ip_adapter/nets.json")["encoders"]["vit"]["config"];
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("model.safetensors"), encoder()).unwrap();
    let (seeds, mut rng) = (seeds(target), SmallRng::seed_from_u64(seed));
    let mut model = load(&temp, weights);
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
            model = load(&temp, weights);
        }
    }
    assert_eq!(draw(&model, GenerateOptions::default()).unwrap(), before);
    std::fs::remove_dir_all(&temp).unwrap();
    println!(
        "{target}, seed {seed}: {count} files, {taken} drawn with, refused {codes:?}; at most {worst:?}"
    );
}
