//! SPIR-V by naga, machine code by Mesa's compilers for GPUs that are not here.

use super::driver;
use super::model::Hardware;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A family of GPUs, by one of it.
pub struct Family {
    pub name: &'static str,
    /// As browsers name it.
    pub vendor: &'static str,
    pub architecture: &'static str,
    /// Mesa's driver, the no-op kernel driver under it, and what tells both of the GPU.
    driver: &'static str,
    shim: &'static str,
    chip: (&'static str, &'static str),
    pub hardware: Hardware,
}

pub const FAMILIES: [Family; 6] = [
    Family {
        name: "RTX 3060",
        vendor: "nvidia",
        architecture: "ampere",
        driver: "nouveau",
        shim: "nouveau",
        chip: ("NOUVEAU_CHIPSET", "176"), // GA106
        hardware: Hardware {
            processors: 28,
            schedulers: 4.0,
            gigahertz: 1.78,
            cache: 1000.0,
            memory: 360.0,
            latency: 240.0,
            predicates: false,
        },
    },
    Family {
        name: "RTX 4090",
        vendor: "nvidia",
        architecture: "lovelace",
        driver: "nouveau",
        shim: "nouveau",
        chip: ("NOUVEAU_CHIPSET", "192"), // AD102
        hardware: Hardware {
            processors: 128,
            schedulers: 4.0,
            gigahertz: 2.52,
            cache: 4500.0,
            memory: 1008.0,
            latency: 270.0,
            predicates: false,
        },
    },
    Family {
        name: "M1",
        vendor: "apple",
        architecture: "common-3",
        driver: "asahi",
        shim: "asahi",
        chip: ("", ""), // the only one that the shim has
        hardware: Hardware {
            processors: 8,
            schedulers: 4.0,
            gigahertz: 1.28,
            cache: 300.0,
            memory: 68.0,
            latency: 250.0,
            predicates: false,
        },
    },
    Family {
        name: "7900 XTX",
        vendor: "amd",
        architecture: "rdna-3",
        driver: "radeon",
        shim: "amdgpu",
        chip: ("AMDGPU_GPU_ID", "navi31"),
        hardware: Hardware {
            processors: 96,
            schedulers: 2.0,
            gigahertz: 2.4,
            cache: 3000.0,
            memory: 960.0,
            latency: 350.0,
            predicates: false,
        },
    },
    Family {
        name: "RX 6800",
        vendor: "amd",
        architecture: "rdna-2",
        driver: "radeon",
        shim: "amdgpu",
        chip: ("AMDGPU_GPU_ID", "navi21"),
        hardware: Hardware {
            processors: 60,
            schedulers: 2.0,
            gigahertz: 2.1,
            cache: 2000.0,
            memory: 512.0,
            latency: 350.0,
            predicates: false,
        },
    },
    Family {
        name: "Adreno 740",
        vendor: "qualcomm",
        architecture: "adreno-7xx",
        driver: "freedreno",
        shim: "freedreno",
        chip: ("FD_GPU_ID", "740"),
        hardware: Hardware {
            processors: 6,
            schedulers: 4.0,
            gigahertz: 0.68,
            cache: 180.0,
            memory: 60.0,
            latency: 400.0,
            predicates: true,
        },
    },
];

/// WGSL to SPIR-V as wgpu has it made for a browser's page, but that constant loops carry no counter: Tint and the
/// vendors' compilers see that they end.
pub fn spirv(wgsl: &str) -> Result<Vec<u8>, String> {
    use naga::back::spv;
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| e.emit_to_string(wgsl))?;
    let all = (naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
    let info = naga::valid::Validator::new(all.0, all.1).validate(&module).map_err(|e| e.to_string())?;
    let options = spv::Options {
        lang_version: (1, 3),
        flags: spv::WriterFlags::empty(),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        ..Default::default()
    };
    let entry =
        spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: "main".to_owned() };
    let mut words = spv::write_vec(&module, &info, &options, Some(&entry)).map_err(|e| e.to_string())?;
    unroll(&mut words);
    Ok(words.iter().flat_map(|word| word.to_le_bytes()).collect())
}

/// Tells the compiler to unroll each loop that is left at a constant of at most [`UNROLLED`], as Tint and the vendors'
/// compilers do; Mesa's differ in how long a body they unroll.
fn unroll(words: &mut [u32]) {
    const UNROLLED: u32 = 8;
    // Opcodes: OpConstant, OpLoopMerge, OpULessThan, OpBranchConditional.
    const CONSTANT: u32 = 43;
    const LOOP_MERGE: u32 = 246;
    const LESS: u32 = 176;
    const BRANCH: u32 = 250;
    let mut constants = BTreeMap::new();
    let (mut at, mut open) = (5, None);
    while at < words.len() {
        let (length, opcode) = ((words[at] >> 16) as usize, words[at] & 0xffff);
        match (opcode, open) {
            (CONSTANT, _) => _ = constants.insert(words[at + 2], words[at + 3]),
            (LOOP_MERGE, _) => open = Some(at + 3),
            (LESS, Some(control)) => {
                let bound = constants.get(&words[at + 4]);
                words[control] = u32::from(bound.is_some_and(|&bound| bound <= UNROLLED));
                open = None;
            }
            // It is left, or not, by something else.
            (BRANCH, _) => open = None,
            _ => {}
        }
        at += length.max(1);
    }
}

/// The unpacked compilers, and what they said already.
pub struct Compilers {
    root: PathBuf,
    kept: PathBuf,
    /// Of Debian's package.
    pub version: String,
}

impl Compilers {
    /// Of the folder that `fetch.sh` filled.
    pub fn new(folder: &Path) -> Self {
        Self {
            root: folder.join("root/usr/lib/x86_64-linux-gnu"),
            kept: folder.join("kept"),
            version: std::fs::read_to_string(folder.join("version")).unwrap_or_default().trim().to_owned(),
        }
    }

    /// Whether Debian's packages have this family's compiler.
    pub fn offer(&self, family: &Family) -> bool {
        let files = [self.driver(family), self.shim(family), self.root.join("ld-linux-x86-64.so.2")];
        files.iter().all(|file| file.exists())
    }

    fn driver(&self, family: &Family) -> PathBuf {
        self.root.join(format!("libvulkan_{}.so", family.driver))
    }

    fn shim(&self, family: &Family) -> PathBuf {
        self.root.join(format!("lib{}_noop_drm_shim.so", family.shim))
    }

    /// What the family's compiler says of each of these, by their hash. `kernels`: SPIR-V and how many storage buffers
    /// it binds, by hash.
    pub fn compile(
        &self,
        family: &Family,
        kernels: &BTreeMap<String, (Vec<u8>, usize)>,
    ) -> BTreeMap<String, Value> {
        let out = self.kept.join(family.name.replace(' ', "-"));
        let sources = self.kept.join("spirv");
        for folder in [&out, &sources] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let json = |hash: &str| out.join(format!("{hash}.json"));
        loop {
            let mut missing = kernels.iter().filter(|(hash, _)| !json(hash).exists()).peekable();
            let Some(&(first, _)) = missing.peek() else { break };
            let files: Vec<String> = missing
                .map(|(hash, (code, buffers))| {
                    let file = sources.join(format!("{hash}.spv"));
                    std::fs::write(&file, code).unwrap();
                    format!("{}:{buffers}", file.display())
                })
                .collect();
            let said = self.run(family, &out, &files);
            if !json(first).exists() {
                // Nothing came of the first: the compiler, not the text, is at fault.
                std::fs::write(json(first), json!({ "error": said }).to_string()).unwrap();
            }
        }
        kernels.keys().map(|hash| (hash.clone(), Self::read(&json(hash)))).collect()
    }

    fn read(file: &Path) -> Value {
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    }

    /// This program again as the child that loads the compiler; what it said on its error output.
    fn run(&self, family: &Family, out: &Path, files: &[String]) -> String {
        let icd = out.join("icd.json");
        let driver = json!({
            "file_format_version": "1.0.0",
            "ICD": { "api_version": "1.3.0", "library_path": self.driver(family) },
        });
        std::fs::write(&icd, driver.to_string()).unwrap();
        let mut command = Command::new(self.root.join("ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(&self.root).arg("--preload").arg(self.shim(family));
        command.arg(std::env::current_exe().unwrap()).arg("--driver").arg(out).args(files);
        command.env("VK_DRIVER_FILES", &icd).env("VK_ICD_FILENAMES", &icd);
        command.env("VK_LOADER_LAYERS_DISABLE", "all").env("MESA_SHADER_CACHE_DISABLE", "1");
        // Subgroups of 32, as AMD's own driver for Windows has them.
        command.env("RADV_PERFTEST", "cswave32");
        // Apple's driver has no machine code among what Vulkan asks it for, and prints it.
        command.env("AGX_MESA_DEBUG", "shaders");
        if !family.chip.0.is_empty() {
            command.env(family.chip.0, family.chip.1);
        }
        let output = command.output().unwrap();
        for part in String::from_utf8_lossy(&output.stdout).split(driver::MARK).skip(1) {
            let (file, printed) = part.split_once('\n').unwrap_or((part, ""));
            let mut said = Self::read(Path::new(file));
            if said["code"].as_object().is_some_and(|code| code.is_empty()) && !printed.is_empty() {
                said["code"] = json!({ "printed": printed });
                std::fs::write(file, said.to_string()).unwrap();
            }
        }
        format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
    }
}

/// FNV-1a of a kernel.
pub fn hash(code: &[u8]) -> String {
    let hash = code.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
