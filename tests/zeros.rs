//! A dimension of 0 in a file that is added to a model, or is its VAE: it is refused by the tensor's name, whatever the
//! tensor is and however the model's weights are kept, and the model draws on as before.

#[path = "support/random_weights.rs"]
mod random_weights;
#[path = "support/tiny_model.rs"]
mod tiny_model;

use browser_diffusion::checkpoint::Bits;
use browser_diffusion::ops::Precision;
use browser_diffusion::pipeline::{
    Control, DiffusionPipeline, GenerateOptions, LoadOptions, Picture, Upscaler,
};
use browser_diffusion::store::disk::Folder;
use browser_diffusion::{Code, Error, Result};
use pollster::block_on;
use std::rc::Rc;
use tiny_model::{
    Part, ROOT, control_lora, controlnets, draw, lllite, marked, parts, read_json, single, tensors, tiny,
    whole, written,
};

const WEIGHTS: [Option<Bits>; 3] = [None, Some(Bits::Q8), Some(Bits::Q4)];

fn never() -> bool {
    false
}

/// The file with each dimension of some of its tensors set to 0, and the name of that tensor. Those from the front, the
/// middle and the end: convolutions, norms, attention, linear layers.
fn emptied(file: &[Part]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for at in (0..file.len()).step_by(file.len().div_ceil(9)).chain([1, file.len() - 1]) {
        for axis in 0..file[at].shape.len() {
            let mut parts = file.to_vec();
            parts[at].shape[axis] = 0;
            parts[at].data.clear();
            files.push((parts[at].name.clone(), written(&parts)));
        }
    }
    assert!(files.len() > 15);
    files
}

fn by_name(what: &str, name: &str, result: Result<()>) {
    let Err(Error { code, message }) = result else { panic!("{what}: {name} was taken") };
    assert_eq!(code, Code::BadCheckpoint, "{what}, {name}: {message}");
    assert!(
        message.contains(&format!("{name:?}")) && message.contains("Choose"),
        "{what}, {name}: {message}"
    );
}

#[test]
fn controlnets_without_values() {
    let folder = std::env::temp_dir().join(format!("browser-diffusion-zeros-{}", std::process::id()));
    tiny(&folder);
    let nets = controlnets();
    for weights in WEIGHTS {
        let options = LoadOptions { weights, ..Default::default() };
        let files = Rc::new(Folder::new(&folder));
        let model = block_on(DiffusionPipeline::load(files, None, &options, &never)).unwrap();
        let before = draw(&model, GenerateOptions::default()).unwrap();
        let added = |file: &[u8]| {
            block_on(model.load_controlnet("net", single(file)?, &never))?;
            let image = Picture { width: 32, height: 32, data: vec![99; 4 * 32 * 32] };
            let control = Control { key: "net".into(), image, scale: 1.0, ..Default::default() };
            let drawn = draw(&model, GenerateOptions { controlnets: vec![control], ..Default::default() });
            model.keep_controlnets(&[]);
            drawn.map(|latents| assert_ne!(latents, before))
        };
        for (name, file) in emptied(&nets[0]) {
            by_name("ControlNet", &name, added(&file));
        }
        for (name, file) in emptied(&control_lora()) {
            by_name("Control-LoRA", &name, added(&marked(&parts(&file).unwrap())));
        }
        for (name, file) in emptied(&lllite()) {
            by_name("ControlNet-LLLite", &name, added(&file));
        }
        // Whole, they are taken: it was the zero.
        added(&written(&lllite())).unwrap();
        added(&written(&nets[0])).unwrap();
        added(&marked(&control_lora())).unwrap();
        assert_eq!(draw(&model, GenerateOptions::default()).unwrap(), before);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn vaes_without_values() {
    let model = written(&whole());
    let vae = tensors(&read_json("single_file/models.json")["sd1"]["tensors"]["vae"], 0.6);
    for weights in WEIGHTS {
        let options = LoadOptions { weights, ..Default::default() };
        let load = |vae: &[u8]| {
            let vae = single(vae)?;
            block_on(DiffusionPipeline::load(single(&model)?, Some(vae), &options, &never)).map(drop)
        };
        for (name, file) in emptied(&vae) {
            by_name("VAE", &name, load(&file));
        }
        load(&written(&vae)).unwrap();
    }
    // The same within a whole model, and of its other parts.
    for (name, file) in emptied(&whole()) {
        let loaded = single(&file).and_then(|files| {
            block_on(DiffusionPipeline::load(files, None, &LoadOptions::default(), &never)).map(drop)
        });
        by_name("checkpoint", &name, loaded);
    }
}

#[test]
fn upscalers_without_values() {
    let file = std::fs::read(format!("{ROOT}/tests/reference/data/upscaler/esrgan-old.safetensors")).unwrap();
    let load = |file: &[u8]| block_on(Upscaler::load(&file, Precision::Auto, &never)).map(drop);
    for (name, file) in emptied(&parts(&file).unwrap()) {
        by_name("upscaler", &name, load(&file));
    }
    load(&file).unwrap();
}
