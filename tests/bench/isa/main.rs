//! `./build.sh bench --isa [--json FILE]`: what the compilers of GPUs that are not here make of our kernels.

mod code;
mod compile;
mod driver;
mod kernels;
mod report;
mod work;

use browser_diffusion::gpu::{Arithmetic, Options, choices};
use compile::{Compilers, FAMILIES, Family};
use kernels::Variant;
use report::Figures;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// Whether a kernel is called `wanted`'s first word, and defines all of the others (NAME=VALUE).
fn chosen(variant: &Variant, wanted: &str) -> bool {
    let mut words = wanted.split_whitespace();
    words.next().is_none_or(|name| variant.kernel.name == name)
        && words.all(|word| {
            let define = word.split_once('=').and_then(|(name, v)| Some((name, v.parse().ok()?)));
            define.is_some_and(|(name, value)| {
                variant.kernel.defines.iter().rev().find(|(known, _)| *known == name).map(|d| d.1) == Some(value)
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
    let after = |name: &str| args.iter().position(|arg| arg == name).and_then(|i| args.get(i + 1));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let published = std::fs::read(root.join("tests/reference/data/models/real.json")).unwrap();
    let published: Value = serde_json::from_slice(&published).unwrap();
    let compilers = Compilers::new(&root.join(".tools/isa"));
    let wanted = after("--kernel").map_or("", |w| w.as_str());
    for family in FAMILIES.iter().filter(|f| after("--family").is_none_or(|name| name == f.name)) {
        if !compilers.offer(family) {
            println!("{}: no compiler for it in Debian's packages today", family.name);
            continue;
        }
        for arithmetic in [Arithmetic::F32, Arithmetic::F16] {
            let choices = choices::shipped(family.vendor, family.architecture);
            let options = Options { arithmetic, choices, ..Options::default() };
            let mut plans = kernels::operations(&options);
            plans.extend(kernels::plans(&published, &options));
            let mut variants = kernels::variants(&plans);
            variants.retain(|variant| chosen(variant, wanted));
            println!("\n{}, {arithmetic:?} arithmetic\n{}  kernel", family.name, report::HEADER);
            for (variant, figures) in variants.iter().zip(figures(&compilers, family, &variants)) {
                println!("{}  {}", figures.line(), report::label(variant));
            }
        }
    }
    ExitCode::SUCCESS
}

/// What the family's compiler says of each of `variants`.
fn figures(compilers: &Compilers, family: &Family, variants: &[Variant]) -> Vec<Figures> {
    let mut code = BTreeMap::new();
    let mut hashes = Vec::new();
    for variant in variants {
        let spirv = compile::spirv(&variant.wgsl).unwrap();
        let hash = compile::hash(&spirv);
        hashes.push(hash.clone());
        code.insert(hash, (spirv, variant.buffers));
    }
    let said = compilers.compile(family, &code);
    let read = |(variant, hash): (&Variant, &String)| {
        Figures::read(family, &said[hash], variant.workgroup, variant.work.multiply_adds)
    };
    variants.iter().zip(&hashes).map(read).collect()
}
