//! `./build.sh bench --parity [--json FILE]`: the networks of Stable Diffusion 1.5 and SDXL base at full size, their
//! weights streamed from safetensors files, against what `tests/reference/parity.py` computed from the same files with
//! torch in f32. One network at a time is on the GPU. Fails where an output's relative L2 error is above [`LIMIT`].

#[path = "../support/model_cases.rs"]
mod model_cases;

use browser_diffusion::Result;
use browser_diffusion::checkpoint::{FileUnpacker, Layout, Target, TensorInfo, names};
use browser_diffusion::gpu::{Dtype, Gpu, Options, Plan, Weights};
use browser_diffusion::ops::{self, Precision};
use browser_diffusion::store::ModelFiles;
use browser_diffusion::store::disk::Folder;
use model_cases::{Data, Part};
use pollster::block_on;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Issue 3's, for f16 and for f32 arithmetic.
const LIMIT: f64 = 1e-2;

/// How activations of each part lie with f32 arithmetic, as in the pipeline: f32 in the text encoders and in SDXL's
/// VAE. f16 arithmetic is for activations that lie as f16.
const PARTS: [(&str, &str, Dtype); 7] = [
    ("sd15", "text_encoder", Dtype::F32),
    ("sd15", "unet", Dtype::F16),
    ("sd15", "vae", Dtype::F16),
    ("sdxl", "text_encoder", Dtype::F32),
    ("sdxl", "text_encoder_2", Dtype::F32),
    ("sdxl", "unet", Dtype::F16),
    ("sdxl", "vae", Dtype::F32),
];

/// Names in files to names of weights.
type Rename = fn(&str) -> Option<Cow<'_, str>>;

/// A file's tensors to the weights of their names.
struct Sink<'a> {
    gpu: &'a Gpu,
    weights: &'a Weights,
    rename: Rename,
}

impl Target for Sink<'_> {
    type Dest = String;

    fn want(&mut self, tensor: &TensorInfo) -> Result<Option<(Layout, String)>> {
        let name = (self.rename)(&tensor.name);
        Ok(name.and_then(|name| Some((self.weights.layout(&name)?, name.into_owned()))))
    }

    fn write(&mut self, name: &String, offset: u64, bytes: &[u8]) -> Result<()> {
        self.weights.write(self.gpu, name, offset, bytes)
    }
}

/// The weights that `plan` needs, from a component's folder.
fn load(gpu: &Gpu, plan: &Plan, model: &Path, part: &str) -> Result<Weights> {
    let weights = Weights::allocate(gpu, plan.weights());
    let (rename, stem): (Rename, &str) = match part {
        "unet" => (names::unet, "diffusion_pytorch_model"),
        "vae" => (names::vae, "diffusion_pytorch_model"),
        _ => (names::clip, "model"),
    };
    let path = format!("{part}/{stem}.safetensors");
    let mut sink = Sink { gpu, weights: &weights, rename };
    let mut unpacker = FileUnpacker::new(path.as_str());
    block_on(Folder::new(model).read(&path, async |bytes| unpacker.push(bytes, &mut sink)))?;
    unpacker.finish()?;
    Ok(weights)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--parity").collect();
    let json = match args.as_slice() {
        [] => None,
        [option, file] if option == "--json" => Some(file),
        _ => {
            eprintln!("usage: ./build.sh bench --parity [--json FILE]");
            return ExitCode::from(2);
        }
    };
    let real = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tools/real");
    let expected = real.join("parity");
    let mut rows = Vec::new();
    let mut failed = false;
    for (model, name, activations) in PARTS {
        let data = Data::read(&expected.join(format!("{model}.{name}.safetensors")));
        let folder = real.join(model);
        let config = std::fs::read(folder.join(name).join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        for (precision, called) in [(Precision::Auto, "f32"), (Precision::F16, "f16")] {
            let (gpu, options) = block_on(ops::open(precision)).unwrap();
            let activations = if precision == Precision::F16 { Dtype::F16 } else { activations };
            // The kernels that a pipeline would run here, and those of a GPU without narrow subgroups: by a GPU's text.
            for subgroup in BTreeSet::from([options.subgroup, 0]) {
                let started = Instant::now();
                let options = Options { activations, subgroup, rolled: false, ..options };
                let part = Part::record(&data, name, &config, &options);
                let weights = load(&gpu, &part.plan, &folder, name).unwrap();
                let loaded = started.elapsed().as_secs_f64();
                for (output, error) in part.errors(&gpu, &weights) {
                    let ran = started.elapsed().as_secs_f64() - loaded;
                    let above = error.is_nan() || error > LIMIT;
                    failed |= above;
                    println!(
                        "{model} {name:15} {output:18} {called} arithmetic, subgroups of {subgroup}: {error:.1e}{}  \
                         (loaded in {loaded:.0} s, ran in {ran:.0} s)",
                        if above { ", above the limit" } else { "" },
                    );
                    rows.push(json!({
                        "model": model, "part": name, "output": output, "arithmetic": called,
                        "subgroup": subgroup, "relative_l2": error, "limit": LIMIT,
                        "gpu_bytes": gpu.bytes().peak, "seconds": ran,
                    }));
                }
            }
        }
    }
    if let Some(file) = json {
        std::fs::write(file, serde_json::to_vec_pretty(&rows).unwrap()).unwrap();
    }
    ExitCode::from(u8::from(failed))
}
