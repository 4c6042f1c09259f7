//! `./build.sh bench --isa [--json FILE] [--family NAME] [--kernel "NAME DEFINE=VALUE ..."]`: what the compilers of GPUs
//! that are not here make of the kernels that each would be given, and how long these would take. Fails where one spills.

mod code;
mod compile;
mod driver;
mod kernels;
mod model;
mod report;
mod theirs;
mod work;

use browser_diffusion::gpu::{Arithmetic, Kernel, Options, Plan, choices};
use compile::{Compilers, FAMILIES, Family};
use kernels::{Recorded, Variant};
use report::Figures;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// What is recorded for a family in one arithmetic, and what its compiler said.
struct Bench {
    family: &'static Family,
    arithmetic: Arithmetic,
    operations: Vec<Recorded>,
    plans: Vec<Recorded>,
    variants: BTreeMap<Kernel, (Variant, Figures)>,
}

impl Bench {
    fn new(
        family: &'static Family,
        arithmetic: Arithmetic,
        published: &Value,
        compilers: &Compilers,
    ) -> Self {
        let choices = choices::shipped(family.vendor, family.architecture);
        let off = choices::spilling(family.vendor);
        let mut options = Options { arithmetic, choices, off, ..Options::default() };
        let operations = kernels::operations(&options);
        let bench = Self { family, arithmetic, operations, plans: Vec::new(), variants: BTreeMap::new() };
        let mut bench = bench.with_variants(compilers, &[]);
        // What a tuner would time, by which dispatches are as long as this GPU bears.
        options.choices.note_rate(kernels::RATED_FLOPS / 1e6 / bench.rated_ms());
        bench.plans = kernels::plans(published, &options);
        bench.with_variants(compilers, &kernels::candidates(&options))
    }

    /// With what the compiler says of all kernels.
    fn with_variants(self, compilers: &Compilers, candidates: &[Recorded]) -> Self {
        let variants = kernels::variants(self.operations.iter().chain(&self.plans).chain(candidates));
        let figures = figures(compilers, self.family, &variants);
        let variants = variants.into_iter().zip(figures).map(|(v, f)| (v.kernel.clone(), (v, f))).collect();
        Self { variants, ..self }
    }

    /// Those called `wanted`, but not those that `other` has too.
    fn print(&self, wanted: &str, other: Option<&Bench>) {
        println!("\n{}, {:?} arithmetic\n{}  kernel", self.family.name, self.arithmetic, report::HEADER);
        for (kernel, (variant, figures)) in &self.variants {
            if chosen(variant, wanted) && other.is_none_or(|o| !o.variants.contains_key(kernel)) {
                let mark = if figures.fits() { ' ' } else { '!' };
                println!("{}{mark} {}", figures.line(), report::label(variant));
            }
        }
    }

    /// What spills of the kernels that the family is given, or its tuner would time.
    fn spilling(&self) -> Vec<(String, String)> {
        let wrong = self.variants.values().filter(|(_, figures)| !figures.fits());
        wrong.map(|(variant, _)| (report::label(variant), variant.plans.join(", "))).collect()
    }

    /// Of products and convolutions in tiles: fewest threads resident, most registers, most waits among the loads of a
    /// slice.
    fn products(&self) -> [u64; 3] {
        let tiled = self.variants.values().filter(|(variant, _)| {
            let tile = variant.kernel.defines.iter().any(|(name, _)| ["BK4", "BLOCKS"].contains(name));
            tile && variant.plans.iter().any(|name| !kernels::is_candidate(name))
        });
        let all = tiled
            .map(|(_, f)| [u64::from(f.threads), f.registers, u64::from(f.slice.map_or(0, |s| s.waits))]);
        all.reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1]), a[2].max(b[2])]).unwrap_or_default()
    }

    /// Milliseconds of a run of `plan`.
    fn time(&self, plan: &Plan) -> f64 {
        let of = |dispatch: &browser_diffusion::gpu::Dispatch| {
            let (variant, figures) = &self.variants[&dispatch.kernel];
            self.family.hardware.time(dispatch, plan.bytes(dispatch), variant.workgroup, figures)
        };
        plan.dispatches().iter().map(of).sum()
    }

    fn rated_ms(&self) -> f64 {
        self.operation_times().iter().find(|(name, _)| *name == kernels::RATED).map_or(f64::INFINITY, |t| t.1)
    }

    fn operation_times(&self) -> Vec<(&str, f64)> {
        self.operations.iter().map(|o| (o.name.as_str(), self.time(&o.plan))).collect()
    }

    /// Milliseconds of the operations, and of a step of Stable Diffusion 1.5 with guidance.
    fn times(&self) -> Vec<(&str, f64)> {
        let mut times = self.operation_times();
        let unet = self.plans.iter().find(|p| p.name == kernels::STEP).unwrap();
        times.push(("step", self.time(&unet.plan)));
        times
    }

    fn json(&self) -> Value {
        let kernel = |(variant, figures): &(Variant, Figures)| {
            let mut out = figures.json();
            out["kernel"] = json!(report::label(variant));
            out["plans"] = json!(variant.plans);
            out
        };
        let times = self.times().into_iter().map(|(name, ms)| {
            json!({ "name": name, "ms": ms, "before_f32_ort_f32_ort_f16_ms": theirs::of(name, self.family.name) })
        });
        json!({
            "family": self.family.name, "arithmetic": format!("{:?}", self.arithmetic),
            "kernels": self.variants.values().map(kernel).collect::<Vec<_>>(),
            "modelled": times.collect::<Vec<_>>(),
        })
    }
}

/// A row for every operation: of each family ours in f32 and f16 arithmetic, ms, ours of 144046f over ours, and
/// onnxruntime-web's in f32 and f16 over ours.
fn print_times(benches: &[[Bench; 2]]) {
    let times: Vec<[Vec<(&str, f64)>; 2]> =
        benches.iter().map(|pair| [pair[0].times(), pair[1].times()]).collect();
    println!(
        "\nModelled: ours ms (f16 arithmetic ms; then over ours: ours of 144046f, onnxruntime-web f32, f16)"
    );
    println!("| |{}\n|---|{}", heads(benches), "---|".repeat(benches.len()));
    for row in 0..times.first().map_or(0, |t| t[0].len()) {
        let cells = benches.iter().zip(&times).map(|(pair, [wide, half])| {
            let (name, ms) = wide[row];
            let over = theirs::of(name, pair[0].family.name).map(|all| all.map(|other| other / ms));
            let over =
                over.map_or(String::new(), |[before, f32, f16]| format!("; {before:.2}, {f32:.2}, {f16:.2}"));
            format!(" {ms:.3} ({:.3}{over}) |", half[row].1)
        });
        println!("| {} |{}", times[0][0][row].0, cells.collect::<String>());
    }
}

fn heads(benches: &[[Bench; 2]]) -> String {
    benches.iter().map(|pair| format!(" {} |", pair[0].family.name)).collect()
}

/// Whether a kernel is called `wanted`'s first word, and defines all of the others (NAME=VALUE).
fn chosen(variant: &Variant, wanted: &str) -> bool {
    let mut words = wanted.split_whitespace();
    words.next().is_none_or(|name| variant.kernel.name == name)
        && words.all(|word| {
            let define = word.split_once('=').and_then(|(name, v)| Some((name, v.parse().ok()?)));
            define.is_some_and(|(name, value)| {
                variant.kernel.defines.iter().rev().find(|(known, _)| *known == name).map(|d| d.1)
                    == Some(value)
            })
        })
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "--driver") {
        return match driver::compile(Path::new(&args[2]), &args[3..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let known = ["--isa", "--json", "--family", "--kernel"];
    let unknown = args.iter().find(|arg| arg.starts_with("--") && !known.contains(&arg.as_str()));
    let after = |name: &str| args.iter().position(|arg| arg == name).and_then(|i| args.get(i + 1));
    let family = after("--family");
    if unknown.is_some() || family.is_some_and(|name| !FAMILIES.iter().any(|f| f.name == name)) {
        let names: Vec<_> = FAMILIES.iter().map(|f| f.name).collect();
        eprintln!(
            "usage: ./build.sh bench --isa [--json FILE] [--family NAME] [--kernel \"NAME DEFINE=VALUE\"]"
        );
        eprintln!("families: {}", names.join(", "));
        return ExitCode::from(2);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let published = std::fs::read(root.join("tests/reference/data/models/real.json")).unwrap();
    let published: Value = serde_json::from_slice(&published).unwrap();
    let compilers = Compilers::new(&root.join(".tools/isa"));
    let wanted = after("--kernel").map_or("", |w| w.as_str());
    println!("Mesa {}", compilers.version);
    let mut benches = Vec::new();
    for family in FAMILIES.iter().filter(|f| family.is_none_or(|name| name == f.name)) {
        if !compilers.offer(family) {
            println!("{}: no compiler for it in Debian's packages today", family.name);
            continue;
        }
        let pair = [Arithmetic::F32, Arithmetic::F16].map(|a| Bench::new(family, a, &published, &compilers));
        pair[0].print(wanted, None);
        pair[1].print(wanted, Some(&pair[0]));
        benches.push(pair);
    }
    let spills = wanted.is_empty() && print_summary(&benches);
    if let Some(file) = after("--json") {
        let all: Vec<Value> = benches.iter().flatten().map(Bench::json).collect();
        std::fs::write(file, serde_json::to_vec_pretty(&all).unwrap()).unwrap();
    }
    ExitCode::from(u8::from(spills))
}

/// Times, products and spills of all families; whether any is given a kernel that spills.
fn print_summary(benches: &[[Bench; 2]]) -> bool {
    print_times(benches);
    println!(
        "\nTiles of products and convolutions: fewest resident threads, most registers, most waits among loads"
    );
    for pair in benches {
        let [threads, registers, waits] = pair[0].products();
        println!("{:10} {threads:5} {registers:5} {waits:3}", pair[0].family.name);
    }
    println!("\nWith spills or scratch");
    let spilling =
        benches.iter().flatten().flat_map(|bench| bench.spilling().into_iter().map(move |at| (bench, at)));
    let spilling: Vec<_> = spilling.collect();
    for (bench, (label, plans)) in &spilling {
        println!("{:10} {:?} {label} ({plans})", bench.family.name, bench.arithmetic);
    }
    !spilling.is_empty()
}

/// What the family's compiler says of each of `variants`.
fn figures(compilers: &Compilers, family: &Family, variants: &[Variant]) -> Vec<Figures> {
    let mut code = BTreeMap::new();
    let mut hashes = Vec::new();
    let mut add = |wgsl: &str, buffers| {
        let spirv = compile::spirv(wgsl).unwrap();
        let hash = compile::hash(&spirv);
        code.insert(hash.clone(), (spirv, buffers));
        hash
    };
    for variant in variants {
        let ways = variant.ways.iter().map(|(wgsl, share)| (add(wgsl, variant.buffers), *share));
        let ways: Vec<_> = ways.collect();
        hashes.push((add(&variant.wgsl, variant.buffers), ways));
    }
    let said = compilers.compile(family, &code);
    let mut all = Vec::new();
    for (variant, (hash, ways)) in variants.iter().zip(&hashes) {
        let read = |hash: &String| Figures::read(family, &said[hash], variant.workgroup, variant.work);
        let mut figures = read(hash);
        let slices = ways.iter().filter_map(|(way, share)| Some((read(way).slice?, *share)));
        figures.slice = report::mean(slices).or(figures.slice);
        all.push(figures);
    }
    all
}
