//! Single-file checkpoints: files of torch.save, the original names against diffusers', and files that lie.

#[path = "support/random_weights.rs"]
mod random_weights;

use browser_diffusion::Result;
use browser_diffusion::checkpoint::configs::Told;
use browser_diffusion::checkpoint::{Dtype, Located, Table, ldm, names};
use browser_diffusion::models::{clip, controlnet, unet, vae};
use browser_diffusion::pipeline::{DiffusionPipeline, GenerateOptions, Kind, LoadOptions};
use browser_diffusion::samplers::{Prediction, SchedulerConfig};
use browser_diffusion::store::ModelFiles;
use browser_diffusion::store::disk::{Folder, single_file};
use pollster::block_on;
use random_weights::drawn;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/reference/data/single_file", name].iter().collect()
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(data(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn open(file: &[u8]) -> Result<Table> {
    block_on(Table::open(&file))
}

fn values(table: &Table, file: &[u8], tensor: &Located) -> Result<Vec<f32>> {
    block_on(table.values(&file, tensor))
}

/// `values` of tests/reference/single_file.py.
fn expected(i: usize, n: usize) -> Vec<f32> {
    (0..n).map(|k| k as f32 * 0.25 - i as f32).collect()
}

#[test]
fn torch_files() {
    for name in ["zip.pt", "legacy.pt", "protocol4.pt"] {
        let file = read(name);
        let table = open(&file).unwrap_or_else(|e| panic!("{name}: {e}"));
        let rows: Vec<f32> = expected(5, 24)[6..18].to_vec();
        let tied = expected(6, 6);
        let cases: Vec<(&str, Dtype, &[u64], Vec<f32>)> = vec![
            ("state_dict.a.weight", Dtype::F32, &[2, 3], expected(0, 6)),
            ("state_dict.a.bias", Dtype::F16, &[3], expected(1, 3)),
            ("state_dict.b", Dtype::BF16, &[2, 2], expected(2, 4)),
            ("state_dict.c", Dtype::F64, &[5], expected(3, 5)),
            ("state_dict.steps", Dtype::I64, &[], vec![7.0]),
            ("state_dict.ids", Dtype::I64, &[4], vec![0.0, 1.0, 2.0, 3.0]),
            ("state_dict.scalar", Dtype::F32, &[], vec![2.5]),
            ("state_dict.empty", Dtype::F32, &[0, 3], vec![]),
            ("state_dict.rows", Dtype::F32, &[2, 6], rows),
            ("state_dict.one", Dtype::F32, &[2, 1, 3], expected(4, 6)),
            ("state_dict.tied.0", Dtype::F32, &[3, 2], tied.clone()),
            ("state_dict.tied.1", Dtype::F32, &[3, 2], tied),
            ("list.0", Dtype::F32, &[2], expected(9, 2)),
            ("list.1.1", Dtype::F32, &[1], expected(10, 1)),
            ("string_to_param.*", Dtype::F32, &[2, 4], expected(11, 8)),
            ("params_ema.weight", Dtype::F32, &[2, 2], expected(7, 4)),
            ("params_ema.bias", Dtype::F32, &[2], expected(8, 2)),
            ("5", Dtype::F32, &[1], expected(12, 1)),
        ];
        let names: Vec<&str> = table.tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, cases.iter().map(|c| c.0).collect::<Vec<_>>(), "{name}");
        for (tensor, (path, dtype, shape, wanted)) in table.tensors.iter().zip(&cases) {
            assert_eq!((tensor.dtype, tensor.shape.as_slice()), (*dtype, *shape), "{name}: {path}");
            assert_eq!(&values(&table, &file, tensor).unwrap(), wanted, "{name}: {path}");
        }
        // Cut anywhere, a file is refused, or its tensors are all there (the comment of a zip is not theirs).
        for cut in (0..file.len()).step_by(13) {
            if let Ok(table) = open(&file[..cut]) {
                let all = table.tensors.iter().try_for_each(|t| values(&table, &file[..cut], t).map(|_| ()));
                assert!(all.is_err(), "{name} cut at {cut}");
            }
        }
    }
    // A view that is not contiguous is refused by name, when it is asked for.
    let file = read("strided.pt");
    let table = open(&file).unwrap();
    let refused = values(&table, &file, &table.tensors[0]).unwrap_err();
    assert!(refused.message.contains("\"t\"") && refused.message.contains("strided"), "{refused:?}");
}

/// Numbers of eight bits, which torch keeps in storages without a type.
#[test]
fn torch_files_of_eight_bits() {
    let file = read("fp8.pt");
    let table = open(&file).unwrap();
    // `fp8.bin`: each kind's 256 in f16's bits, and again times three scales.
    let wanted = std::fs::read(data("../fp8.bin")).unwrap();
    for (i, (name, dtype)) in [("e4m3fn", Dtype::F8_E4M3), ("e5m2", Dtype::F8_E5M2)].into_iter().enumerate() {
        let tensor = table.get(name).unwrap();
        assert_eq!((tensor.dtype, tensor.shape.as_slice()), (dtype, &[16, 16][..]), "{name}");
        let ours = values(&table, &file, tensor).unwrap();
        let theirs = &wanted[i * 2048..][..512];
        for (ours, &theirs) in ours.iter().zip(theirs.as_chunks().0) {
            let theirs = half::f16::from_le_bytes(theirs);
            assert!(
                ours.to_bits() == theirs.to_f32().to_bits() || ours.is_nan() && theirs.is_nan(),
                "{name}"
            );
        }
    }
    assert_eq!(values(&table, &file, table.get("half").unwrap()).unwrap(), [1.0; 3]);
}

/// Name and shape.
type Shapes = BTreeMap<String, Vec<u64>>;

/// `names.txt`: checkpoint, then part, to names and shapes.
fn real_files() -> BTreeMap<String, BTreeMap<String, Shapes>> {
    let text = String::from_utf8(read("names.txt")).unwrap();
    let mut files: BTreeMap<String, BTreeMap<String, Shapes>> = BTreeMap::new();
    let (mut file, mut part, mut last) = (String::new(), String::new(), String::new());
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("= ") {
            let (a, b) = title.split_once(' ').unwrap();
            (file, part, last) = (a.into(), b.into(), String::new());
            continue;
        }
        let (shared, rest) = line.split_once(' ').unwrap();
        last = format!("{}{rest}", &last[..shared.parse::<usize>().unwrap()]);
        let mut words = last.split(' ');
        let name = words.next().unwrap().to_owned();
        let shape = words.map(|w| w.parse().unwrap()).collect();
        files.entry(file.clone()).or_default().entry(part.clone()).or_default().insert(name, shape);
    }
    files
}

/// A .safetensors header of such tensors, without data: the table alone.
fn table_of(shapes: &Shapes) -> Table {
    let mut at = 0;
    let mut header = serde_json::Map::new();
    for (name, shape) in shapes {
        let bytes = 2 * shape.iter().product::<u64>();
        let entry = serde_json::json!({"dtype": "F16", "shape": shape, "data_offsets": [at, at + bytes]});
        header.insert(name.clone(), entry);
        at += bytes;
    }
    let json = serde_json::to_vec(&header).unwrap();
    let mut head = (json.len() as u64).to_le_bytes().to_vec();
    head.extend(json);
    /// The header, then zeros.
    struct Sparse(Vec<u8>, u64);
    impl browser_diffusion::checkpoint::ReadAt for Sparse {
        async fn size(&self) -> Result<u64> {
            Ok(self.1)
        }
        async fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
            Ok((offset..).take(len).map(|i| self.0.get(i as usize).copied().unwrap_or(0)).collect())
        }
    }
    let size = head.len() as u64 + at;
    block_on(Table::open(&Sparse(head, size))).unwrap()
}

/// Every tensor of the real single files is found by the name and shape that diffusers gives it, and what is left over is what
/// this list says.
#[test]
fn real_names() {
    for (file, mut parts) in real_files() {
        let original = parts.remove("original").unwrap();
        let table = table_of(&original);
        let contents = ldm::sort(&table).unwrap();
        let components: Vec<&str> = contents.components.keys().copied().collect();
        assert_eq!(components, parts.keys().map(String::as_str).collect::<Vec<_>>(), "{file}");
        for (component, wanted) in &parts {
            // As diffusers' name of today, and transformers' of before 5, are canonical here.
            let canonical = |name: &String| match component.as_str() {
                "vae" => names::vae(name).unwrap().into_owned(),
                c if c.starts_with("text_encoder") => names::clip(name).unwrap().into_owned(),
                _ => name.clone(),
            };
            let wanted: Shapes = wanted.iter().map(|(n, s)| (canonical(n), s.clone())).collect();
            let found: Shapes = contents.components[component.as_str()]
                .iter()
                .map(|p| (p.name.clone(), p.shape.clone()))
                .collect();
            for (name, shape) in &wanted {
                assert_eq!(found.get(name), Some(shape), "{file}: {component} {name}");
            }
            assert_eq!(found.len(), wanted.len(), "{file}: {component}");
            // Each is as many bytes as its shape says, within its tensor.
            for p in &contents.components[component.as_str()] {
                assert_eq!(p.end - p.begin, 2 * p.shape.iter().product::<u64>(), "{file}: {}", p.name);
                assert!(p.end <= table.tensors[p.tensor].bytes());
            }
        }
        // The noise schedule, positions, averages, and of OpenCLIP what SD 2 does not condition on.
        let documented = |name: &str| {
            let last = name.rsplit('.').next().unwrap_or(name);
            ["betas", "alphas_cumprod", "alphas_cumprod_prev"].contains(&name)
                || ["sqrt_", "log_one_", "posterior_", "model_ema."].iter().any(|p| name.starts_with(p))
                || ["position_ids", "logit_scale"].contains(&last)
                || name == "denoiser.sigmas"
                || name.starts_with("cond_stage_model.model.transformer.resblocks.23.")
                || name == "cond_stage_model.model.text_projection"
        };
        let left: BTreeSet<&str> = contents.ignored.iter().map(String::as_str).collect();
        let undocumented: Vec<_> = left.iter().filter(|n| !documented(n)).collect();
        assert!(undocumented.is_empty(), "{file}: {undocumented:?}");
        let read: BTreeSet<usize> = contents.components.values().flatten().map(|p| p.tensor).collect();
        assert_eq!(read.len() + left.len(), original.len(), "{file}: each is read, or left over");
    }
}

/// The configurations made from names and shapes are the published ones.
#[test]
fn real_configurations() {
    let text = std::fs::read(data("../models/real.json")).unwrap();
    let real: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let mut compared = 0;
    for (file, mut parts) in real_files() {
        let original = parts.remove("original").unwrap();
        let contents = ldm::sort(&table_of(&original)).unwrap();
        let configs = contents.configs(&spread(0.11));
        for component in parts.keys() {
            let model = file.strip_prefix("controlnet-").unwrap_or(&file);
            let Some(published) = real.get(format!("{model}/{component}")) else { continue };
            let (ours, theirs) = (&configs[&format!("{component}/config.json")], &published["config"]);
            match component.as_str() {
                "unet" => {
                    let [ours, theirs] = [ours, theirs].map(|c| unet::Config::from_config(c).unwrap());
                    assert_eq!(ours, theirs, "{file}");
                }
                "controlnet" => {
                    let [ours, theirs] = [ours, theirs].map(|c| controlnet::Config::from_config(c).unwrap());
                    assert_eq!(ours.conditioning_embedding_out_channels, [16, 32, 96, 256], "{file}");
                    assert_eq!(ours.unet.skips(), theirs.unet.skips(), "{file}");
                    assert_eq!(ours, theirs, "{file}");
                }
                "vae" => {
                    let [ours, theirs] = [ours, theirs].map(|c| vae::Config::from_config(c).unwrap());
                    assert_eq!(ours, theirs, "{file}");
                }
                _ => {
                    let [ours, mut theirs] = [ours, theirs].map(|c| clip::Config::from_config(c).unwrap());
                    // The wrong id of old configurations, which means the same.
                    theirs.eos_token_id = 49407;
                    assert_eq!(ours, theirs, "{file} {component}");
                }
            }
            compared += 1;
        }
        if !file.starts_with("controlnet") {
            let scheduler = &configs["scheduler/scheduler_config.json"];
            let (class, prediction, inpainting) = match file.as_str() {
                "sd21" => ("DDIMScheduler", "v_prediction", false),
                "sdxl" => ("EulerDiscreteScheduler", "epsilon", false),
                name => ("PNDMScheduler", "epsilon", name.ends_with("inpainting")),
            };
            assert_eq!(scheduler["_class_name"], class, "{file}");
            assert_eq!(scheduler["prediction_type"], prediction, "{file}");
            let pipeline = configs["model_index.json"]["_class_name"].as_str().unwrap();
            assert_eq!(pipeline.contains("Inpaint"), inpainting, "{file}");
        }
        // Where the bias spreads less, SD 2 predicts noise, at 512 pixels.
        if file == "sd21" {
            let base = contents.configs(&spread(0.05));
            assert_eq!(base["scheduler/scheduler_config.json"]["prediction_type"], "epsilon");
            assert_eq!(base["unet/config.json"]["sample_size"], 64);
        }
    }
    assert_eq!(compared, 11);
}

/// SDXL's file cut to the depths of SSD-1B, Segmind-Vega and KOALA (ComfyUI's `supported_models.py` says them) is read as
/// diffusers has those models' configurations.
#[test]
fn uneven_depths() {
    let text = std::fs::read(data("../models/real.json")).unwrap();
    let real: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let sdxl = real_files().remove("sdxl").unwrap().remove("original").unwrap();
    // Depths of input blocks 4, 5, 7, 8, of the middle (0: one residual block), and of output blocks 0 to 5.
    let models = [
        (
            [2, 2, 4, 4, 0, 4, 4, 10, 2, 1, 1],
            serde_json::json!([1, 2, 4]),
            serde_json::json!([[4, 4, 10], [2, 1, 1], 1]),
        ),
        ([1, 1, 2, 2, 0, 2, 2, 2, 1, 1, 1], serde_json::json!([1, 1, 2]), serde_json::Value::Null),
        (
            [1, 2, 3, 1, 0, 3, 2, 1, 2, 1, 1],
            serde_json::json!([1, [1, 2], [3, 1]]),
            serde_json::json!([[3, 2, 1], [2, 1, 1], 1]),
        ),
    ];
    let blocks = ["input_blocks.4", "input_blocks.5", "input_blocks.7", "input_blocks.8", "middle_block"];
    let up = (0..6).map(|i| format!("output_blocks.{i}"));
    let blocks: Vec<String> = blocks.into_iter().map(str::to_owned).chain(up).collect();
    for (depths, down, up) in models {
        let kept = |name: &str| {
            let Some(rest) = name.strip_prefix("model.diffusion_model.") else { return true };
            let of = |(block, depth): (&String, &u32)| {
                let rest = rest.strip_prefix(block.as_str())?.strip_prefix('.')?;
                if block == "middle_block" && !rest.starts_with("0.") {
                    return Some(*depth > 0);
                }
                let layer = rest.strip_prefix("1.transformer_blocks.")?.split('.').next()?;
                Some(layer.parse::<u32>().ok()? < *depth)
            };
            blocks.iter().zip(&depths).find_map(of).unwrap_or(true)
        };
        let file: Shapes =
            sdxl.iter().filter(|(name, _)| kept(name)).map(|(n, s)| (n.clone(), s.clone())).collect();
        let ours = &ldm::sort(&table_of(&file)).unwrap().configs(&Told::default())["unet/config.json"];
        let mut theirs = real["sdxl/unet"]["config"].clone();
        theirs["transformer_layers_per_block"] = down;
        theirs["reverse_transformer_layers_per_block"] = up;
        theirs["mid_block_type"] = "UNetMidBlock2D".into();
        let [ours, theirs] = [ours, &theirs].map(|c| unet::Config::from_config(c).unwrap());
        assert_eq!(ours, theirs, "{depths:?}");
    }
}

/// What the spread of SD 2's bias tells.
fn spread(deviation: f32) -> Told {
    Told { spread: Some(deviation), ..Told::default() }
}

/// SDXL's shapes with the keys of Playground v2.5 and of CosXL are those models, as diffusers' `single_file_utils.py` and
/// ComfyUI's `supported_models.py` read them; half of a pair of keys is refused by the one that is missing.
#[test]
fn edm_by_its_keys() {
    let sdxl = real_files().remove("sdxl").unwrap().remove("original").unwrap();
    let with = |root: &str, keys: &[&str]| {
        let mut file: Shapes = sdxl.iter().map(|(n, s)| (format!("{root}{n}"), s.clone())).collect();
        // As playground-v2.5-1024px-aesthetic.fp16.safetensors and cosxl.safetensors have them.
        let shape = |key: &str| if key.contains('.') { vec![] } else { vec![1, 4, 1, 1] };
        file.extend(keys.iter().map(|key| (format!("{root}{key}"), shape(key))));
        ldm::sort(&table_of(&file))
    };
    let told = Told {
        latents: [vec![-1.6574, 1.886, -1.383, 2.5155], vec![8.4927, 5.9022, 6.5498, 5.2299]],
        sigma_max: Some(90.0),
        ..Told::default()
    };
    for root in ["", "state_dict."] {
        let configs = with(root, &["edm_mean", "edm_std"]).unwrap().configs(&told);
        let (vae, scheduler) = (&configs["vae/config.json"], &configs["scheduler/scheduler_config.json"]);
        assert_eq!(vae["scaling_factor"], 0.5);
        assert_eq!(vae["latents_std"][3].as_f64().unwrap() as f32, 5.2299);
        assert!(vae::Config::from_config(vae).unwrap().latents.is_some());
        assert_eq!(scheduler["_class_name"], "EDMDPMSolverMultistepScheduler");
        for keys in [&["edm_vpred.sigma_max"][..], &["edm_vpred.sigma_max", "edm_vpred.sigma_min"]] {
            let configs = with(root, keys).unwrap().configs(&told);
            let scheduler = &configs["scheduler/scheduler_config.json"];
            assert_eq!(scheduler["_class_name"], "EDMEulerScheduler");
            assert_eq!((&scheduler["sigma_max"], &scheduler["sigma_data"]), (&90.0.into(), &1.0.into()));
        }
    }
    for (half, other) in
        [("edm_mean", "edm_std"), ("edm_std", "edm_mean"), ("edm_vpred.sigma_min", "sigma_max")]
    {
        let refused = with("", &[half]).unwrap_err();
        assert_eq!(refused.code, browser_diffusion::Code::BadCheckpoint, "{half}");
        assert!(refused.message.contains(other) && refused.message.contains("Choose"), "{refused:?}");
    }
    // A deviation that would divide by nothing, too few of them, and one that is no number.
    for deviations in [vec![1.0, 1.0, 0.0, 1.0], vec![1.0; 3], vec![f32::NAN; 4]] {
        let told = Told { latents: [vec![0.0; 4], deviations], ..Told::default() };
        let configs = with("", &["edm_mean", "edm_std"]).unwrap().configs(&told);
        let refused = vae::Config::from_config(&configs["vae/config.json"]).unwrap_err();
        assert!(refused.message.contains("latents_std"), "{refused:?}");
    }
    let told = Told { sigma_max: Some(f32::NAN), ..Told::default() };
    let configs = with("", &["edm_vpred.sigma_max"]).unwrap().configs(&told);
    let scheduler =
        SchedulerConfig::from_json(&configs["scheduler/scheduler_config.json"].to_string()).unwrap();
    let refused =
        browser_diffusion::samplers::scheduler(None, &scheduler, 5, &Default::default()).err().unwrap();
    assert!(refused.message.contains("sigma_max"), "{refused:?}");
}

/// A file that holds the UNet or the VAE of those alone, by the names that it has within them or by its own, is the same
/// network to us.
#[test]
fn parts_alone() {
    let parts = [("unet", "model.diffusion_model."), ("vae", "first_stage_model.")];
    let mut compared = 0;
    for (file, mut all) in real_files().into_iter().filter(|(file, _)| !file.starts_with("controlnet")) {
        let original = all.remove("original").unwrap();
        let whole = ldm::sort(&table_of(&original)).unwrap();
        let listed = |contents: &ldm::Contents, component: &str| -> Shapes {
            contents.components[component].iter().map(|p| (p.name.clone(), p.shape.clone())).collect()
        };
        for (component, prefix) in parts {
            let own = original.iter().filter(|(name, _)| name.starts_with(prefix));
            let own: Shapes = own.map(|(name, shape)| (name.clone(), shape.clone())).collect();
            let bare =
                own.iter().map(|(name, shape)| (name[prefix.len()..].to_owned(), shape.clone())).collect();
            for (called, shapes) in [("with its prefix", own), ("bare", bare)] {
                let alone = ldm::sort(&table_of(&shapes)).unwrap();
                assert_eq!(
                    alone.components.keys().collect::<Vec<_>>(),
                    [&component],
                    "{file}: {component} {called}"
                );
                assert_eq!(
                    listed(&alone, component),
                    listed(&whole, component),
                    "{file}: {component} {called}"
                );
                let path = format!("{component}/config.json");
                let (ours, due) = (alone.configs(&spread(0.11)), whole.configs(&spread(0.11)));
                let mut due = due[&path].clone();
                if component == "vae" {
                    // Whose it is does not show: neither its scale nor the size of its pictures.
                    due["scaling_factor"] = serde_json::Value::Null;
                    due["sample_size"] = ours[&path]["sample_size"].clone();
                }
                assert_eq!(ours[&path], due, "{file}: {component} {called}");
                assert_eq!(ours["config.json"], ours[&path], "at the root as well");
                compared += 1;
            }
        }
    }
    assert!(compared >= 16, "{compared}");
}

// ---- pictures --------------------------------------------------------------------------------------------------

/// Writes a checkpoint of `models.json` as .safetensors: what `named` names of its original names, by that.
fn write_single(path: &Path, model: &serde_json::Value, named: impl Fn(&str) -> Option<&str>) {
    let mut tensors = Vec::new();
    for row in model["original"].as_array().unwrap() {
        let words: Vec<&str> = row.as_array().unwrap().iter().filter_map(|w| w.as_str()).collect();
        let (name, component, from) = (words[0], words[1], &words[2..]);
        let Some(name) = named(name) else { continue };
        let lines = model["tensors"][component].as_array().unwrap();
        let shape_of = |name: &str| -> Vec<usize> {
            let canonical = |n: &str| n.trim_start_matches("text_model.").to_owned();
            let mut lines = lines.iter().map(|l| l.as_str().unwrap().split(' '));
            let mut line = lines.find(|l| canonical(l.clone().next().unwrap()) == canonical(name)).unwrap();
            line.next();
            line.map(|n| n.parse().unwrap()).collect()
        };
        let gain = model["components"][component]["gain"].as_f64().unwrap();
        let mut shape = shape_of(from[0]);
        let mut values: Vec<half::f16> = from
            .iter()
            .flat_map(|n| {
                let shape = shape_of(n);
                let count = shape.iter().product();
                drawn(n.trim_start_matches("text_model."), count, count / shape[0], gain)
            })
            .collect();
        shape[0] *= from.len();
        if row[2] == true {
            let (rows, columns) = (shape[0], shape[1]);
            values = (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect();
            shape = vec![columns, rows];
        }
        tensors.push((name.to_owned(), shape, values));
    }
    let views = tensors.iter().map(|(name, shape, values)| {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F16, shape.clone(), bytes);
        (name.clone(), view.unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Tiny random models in the original layout draw what diffusers draws of the same weights.
#[test]
fn pictures_of_single_files() {
    let models: serde_json::Value = serde_json::from_slice(&read("models.json")).unwrap();
    let cases: serde_json::Value = serde_json::from_slice(&read("cases.json")).unwrap();
    let expected = read("cases.bin");
    let temp = std::env::temp_dir().join(format!("browser-diffusion-single-{}", std::process::id()));
    std::fs::create_dir_all(&temp).unwrap();
    for case in cases.as_array().unwrap() {
        let kind = case["folder"].as_str().unwrap();
        let path = temp.join(format!("{kind}.safetensors"));
        write_single(&path, &models[kind], |name| Some(name));
        let vocabulary = Folder::new(concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded"));
        let files = block_on(single_file(&path, vocabulary)).unwrap();
        // What shapes cannot tell is as the checkpoint has it.
        for component in ["unet", "text_encoder"] {
            let config: serde_json::Value =
                block_on(files.json(&format!("{component}/config.json"))).unwrap();
            let wanted = &models[kind]["components"][component];
            let same = match component {
                "unet" => {
                    let [mut ours, mut theirs] =
                        [&config, wanted].map(|c| unet::Config::from_config(c).unwrap());
                    (ours.sample_size, theirs.sample_size) = (None, None);
                    // Which a file does not say, and Stable Diffusion 2.1 needs.
                    theirs.upcast_attention = kind == "sd2";
                    ours == theirs
                }
                _ => clip::Config::from_config(&config) == clip::Config::from_config(wanted),
            };
            assert!(same, "{kind} {component}: {config}\n{wanted}");
        }
        let pipeline =
            block_on(DiffusionPipeline::load(Rc::new(files), None, &LoadOptions::default(), &|| false))
                .unwrap();
        assert_eq!(pipeline.model().kind == Kind::Sdxl, kind == "sdxl");
        let o = &case["options"];
        let options = GenerateOptions {
            prompt: o["prompt"].as_str().unwrap().into(),
            negative_prompt: o["negativePrompt"].as_str().map(str::to_owned),
            width: o["width"].as_u64().map(|side| side as u32),
            height: o["height"].as_u64().map(|side| side as u32),
            num_inference_steps: o["numInferenceSteps"].as_u64().map(|n| n as usize),
            guidance_scale: o["guidanceScale"].as_f64().map(|g| g as f32),
            seed: o["seed"].as_u64().unwrap(),
            ..Default::default()
        };
        let drawn = block_on(pipeline.generate(&options, &mut |_| Ok(()), &|| false)).unwrap();

        // In two files, its VAE alone: the same picture.
        let (rest, vae) = (temp.join("rest.safetensors"), temp.join("vae.safetensors"));
        write_single(&rest, &models[kind], |name| {
            Some(name).filter(|n| !n.starts_with("first_stage_model."))
        });
        write_single(&vae, &models[kind], |name| name.strip_prefix("first_stage_model."));
        let open = |path| {
            let vocabulary = Folder::new(concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded"));
            Rc::new(block_on(single_file(path, vocabulary)).unwrap())
        };
        let load =
            |vae| block_on(DiffusionPipeline::load(open(&rest), vae, &LoadOptions::default(), &|| false));
        let lacks = load(None).err().unwrap();
        assert!(lacks.message.contains("has no VAE. Give one as the option vae"), "{}", lacks.message);
        let composed = load(Some(open(&vae))).unwrap();
        let again = block_on(composed.generate(&options, &mut |_| Ok(()), &|| false)).unwrap();
        assert_eq!(again.pictures, drawn.pictures, "{kind}");

        let count = |key: &str| -> usize {
            case[key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).product()
        };
        let at = case["offset"].as_u64().unwrap() as usize;
        let (latents, rest) = expected[at..].split_at(4 * count("latents"));
        let theirs: Vec<f64> =
            latents.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect();
        let off: f64 = drawn.latents[0].iter().zip(&theirs).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum();
        let error = (off / theirs.iter().map(|b| b * b).sum::<f64>()).sqrt();
        let picture = &drawn.pictures[0].data;
        let pixels = &rest[..count("pixels")];
        let grey: u32 = pixels
            .chunks_exact(3)
            .zip(picture.chunks_exact(4))
            .flat_map(|(theirs, ours)| theirs.iter().zip(ours).map(|(a, b)| u32::from(a.abs_diff(*b))))
            .sum();
        let grey = f64::from(grey) / pixels.len() as f64;
        println!("{kind}: latents {error:.1e}, picture {grey:.2} grey levels");
        // As tests/web/tests/pipelines.test.mjs has it: twice what diffusers' own f16 runs are off.
        assert!(error <= 1e-2 && grey <= 2.5, "{kind}: latents {error:.1e}, picture {grey:.2}");
    }
    std::fs::remove_dir_all(temp).unwrap();
}

/// What no tensor tells, an option of loading does.
#[test]
fn velocity_where_the_file_does_not_tell() {
    let models: serde_json::Value = serde_json::from_slice(&read("models.json")).unwrap();
    let cases: serde_json::Value = serde_json::from_slice(&read("prediction.json")).unwrap();
    let expected: Vec<f32> =
        read("prediction.bin").as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    let path = std::env::temp_dir().join(format!("browser-diffusion-v-{}.safetensors", std::process::id()));
    write_single(&path, &models["sd1"], |name| Some(name));
    for case in cases.as_array().unwrap() {
        let vocabulary = Folder::new(concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded"));
        let files = Rc::new(block_on(single_file(&path, vocabulary)).unwrap());
        let load = LoadOptions {
            prediction: Some(Prediction::Velocity),
            zero_snr: case["zero"].as_bool().filter(|zero| *zero),
            ..Default::default()
        };
        let pipeline = block_on(DiffusionPipeline::load(files, None, &load, &|| false)).unwrap();
        let o = &case["options"];
        let options = GenerateOptions {
            prompt: o["prompt"].as_str().unwrap().into(),
            scheduler: o["scheduler"].as_str().map(str::to_owned),
            width: Some(56),
            height: Some(40),
            num_inference_steps: Some(6),
            guidance_scale: Some(5.0),
            seed: 1,
            ..Default::default()
        };
        let drawn = block_on(pipeline.generate(&options, &mut |_| Ok(()), &|| false)).unwrap();
        let at = case["offset"].as_u64().unwrap() as usize / 4;
        let theirs = expected[at..][..drawn.latents[0].len()].iter().map(|b| f64::from(*b));
        let size: f64 = theirs.clone().map(|b| b * b).sum();
        let off: f64 = drawn.latents[0].iter().zip(theirs).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum();
        let error = (off / size).sqrt();
        println!("zero SNR {}: latents {error:.1e}", case["zero"]);
        assert!(error <= 1e-2, "{error:.1e}");
    }
    std::fs::remove_file(path).unwrap();
}
