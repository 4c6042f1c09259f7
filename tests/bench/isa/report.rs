//! The figures of a kernel on a family, from what its compiler said.

use super::code::{Code, Slice};
use super::compile::Family;
use super::kernels::Variant;
use super::work::Work;
use serde_json::{Value, json};

/// What the table says of a kernel on a family.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub error: Option<String>,
    /// As the driver counts them: of 255, AMD 256, Apple halves of 256, Adreno vectors of 48 and more.
    pub registers: u64,
    pub spills: u64,
    /// Bytes; Adreno: instructions that touch it.
    pub scratch: u64,
    /// Threads that are resident at once on a multiprocessor, compute unit or core.
    pub threads: u32,
    /// Threads that share an instruction.
    pub lanes: u32,
    pub instructions: u64,
    /// The driver's own estimate for a thread's way through the text; AMD: its latency, Apple: the longest pipe.
    pub cycles: f64,
    /// Of the loop that multiplies, for one slice of what it goes over.
    pub slice: Option<Slice>,
    /// Multiply-adds of a thread in a slice.
    pub multiply_adds: f64,
}

/// Of a workgroup's threads where shares of them go different ways. What is waited for, all wait for.
pub fn mean(ways: impl IntoIterator<Item = (Slice, f64)>) -> Option<Slice> {
    let share = |(mut slice, share): (Slice, f64)| {
        for part in [&mut slice.issue, &mut slice.loaded, &mut slice.stores] {
            *part *= share;
        }
        slice
    };
    ways.into_iter().map(share).reduce(|mut all, way| {
        all.issue += way.issue;
        all.loaded += way.loaded;
        all.stores += way.stores;
        all.waits = all.waits.max(way.waits);
        all.rounds = all.rounds.max(way.rounds);
        all.predicated = all.predicated.max(way.predicated);
        all
    })
}

/// What a kernel's text says of its workgroup.
#[derive(Clone, Copy, Debug)]
pub struct Workgroup {
    pub threads: u32,
    pub memory: u32,
}

impl Workgroup {
    pub fn of(module: &naga::Module) -> Self {
        let threads = module.entry_points[0].workgroup_size.iter().product();
        let mut layout = naga::proc::Layouter::default();
        layout.update(module.to_ctx()).unwrap();
        let shared = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
        Self { threads, memory: shared.map(|(_, v)| layout[v.ty].size).sum() }
    }
}

impl Figures {
    pub fn read(family: &Family, said: &Value, workgroup: Workgroup, work: Work) -> Self {
        if let Some(error) = said["error"].as_str() {
            return Self { error: Some(error.to_owned()), ..Self::default() };
        }
        let statistics = &said["statistics"];
        let number = |name: &str| statistics[name].as_f64().unwrap_or(0.0);
        let sum = |names: &[&str]| names.iter().map(|name| number(name)).sum::<f64>() as u64;
        let lanes = said["lanes"].as_u64().unwrap_or(32) as u32;
        // What of the workgroups' memory fits at once.
        let by_memory = |bytes: u32, reserved: u32| match workgroup.memory {
            0 => u32::MAX,
            memory => bytes / (memory + reserved) * workgroup.threads,
        };
        let threads = match family.vendor {
            "nvidia" => (number("Max warps/SM") as u32 * lanes).min(by_memory(100 << 10, 1 << 10)),
            "apple" => (number("Threads") as u32).min(by_memory(60 << 10, 0)),
            // Of the two SIMDs of a compute unit; the driver counts workgroup memory in.
            "amd" => number("Subgroups per SIMD") as u32 * lanes * 2,
            _ => number("Max Waves Per Core") as u32 * lanes,
        };
        let cycles = match family.vendor {
            "nvidia" => number("Static cycle count"),
            "apple" => number("ALU").max(number("FSCIB")).max(number("IC")),
            "amd" => number("Latency"),
            _ => ["Instruction Count", "Estimated cycles stalled on SS", "Estimated cycles stalled on SY"]
                .map(number)
                .iter()
                .sum(),
        };
        Self {
            error: None,
            registers: sum(&["Number of GPRs", "VGPRs", "GPRs", "Registers used"]),
            spills: sum(&["Spills to memory", "Spilled VGPRs", "Spilled SGPRs", "Spills"]),
            scratch: sum(&["SLM size", "Scratch size", "Scratch", "STP Count", "LDP Count"]),
            threads,
            lanes,
            instructions: sum(&["Instruction count", "Instructions", "Instruction Count"]),
            cycles,
            slice: Code::read(said).and_then(|code| code.slice(work.multiply_adds, work.outer)),
            multiply_adds: work.multiply_adds,
        }
    }

    /// Neither a spill nor scratch.
    pub fn fits(&self) -> bool {
        self.error.is_none() && self.spills == 0 && self.scratch == 0
    }

    /// Instructions a multiply-add, and bytes from workgroup memory for one.
    pub fn rates(&self) -> Option<(f64, f64)> {
        let slice = self.slice.filter(|slice| slice.multiply_adds > 0.0 && self.multiply_adds > 0.0)?;
        Some((slice.issue / self.multiply_adds, slice.loaded / self.multiply_adds))
    }

    pub fn line(&self) -> String {
        if let Some(error) = &self.error {
            return format!("not compiled: {error}");
        }
        let rates = match (self.rates(), self.slice) {
            (Some((issue, bytes)), Some(slice)) => {
                format!("{issue:5.2} {bytes:6.2} {:3} of {:<3}", slice.waits, slice.loads)
            }
            _ => format!("{:>5} {:>6} {:>10}", "-", "-", "-"),
        };
        let Self { registers, spills, scratch, threads, instructions, cycles, .. } = self;
        format!("{registers:4} {spills:4} {scratch:6} {threads:5} {instructions:6} {rates} {cycles:8.0}")
    }

    pub fn json(&self) -> Value {
        let rates = self.rates();
        json!({
            "error": self.error, "registers": self.registers, "spills": self.spills, "scratch": self.scratch,
            "resident_threads": self.threads, "instructions": self.instructions,
            "instructions_per_multiply_add": rates.map(|r| r.0),
            "workgroup_bytes_per_multiply_add": rates.map(|r| r.1),
            "waits_between_loads": self.slice.map(|s| s.waits), "loads": self.slice.map(|s| s.loads),
            "cycles": self.cycles,
        })
    }
}

pub const HEADER: &str = "regs spil scrtch thrds instrs i/fma  B/fma waits      cycles";

/// What tells a variant from others of its name: its defines that are not 0.
pub fn label(variant: &Variant) -> String {
    let usual =
        ["WX", "WY", "SOURCES", "WATCH", "ADDED", "CONV", "A_LOADS", "W_LOADS", "BK4", "FOUR", "ROWS"];
    let mut label = variant.kernel.name.to_owned();
    for (name, value) in &variant.kernel.defines {
        if *value != 0 && !usual.contains(name) {
            label.push(' ');
            label.push_str(name);
            if *value != 1 || ["TM", "TN", "D4"].contains(name) {
                label.push_str(&format!("={value}"));
            }
        }
    }
    label
}
