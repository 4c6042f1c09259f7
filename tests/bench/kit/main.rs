//! `./build.sh kit DIR` packs it with `run.sh`, which runs its parts on any x86-64 Linux machine with a Vulkan driver.
//! One part at a time: `kit PART --json FILE [--seconds N] [--small]`; `kit report DIR` makes one JSON and one table of
//! all. `./build.sh bench --step` runs the part `step` here.

#[path = "../../ops/cases/mod.rs"]
#[expect(dead_code, reason = "`every_branch` is for browsers: here all of them run")]
mod cases;
mod compile;
mod device;
mod operations;
mod ops;
mod parity;
mod part;
mod plans;
mod probes;
#[path = "../../support/random_weights.rs"]
mod random_weights;
mod report;
mod step;
mod tiles;

use part::Part;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

type Run = fn(&mut Part);

const PARTS: [(&str, Run); 9] = [
    ("adapter", device::run),
    ("ops", ops::run),
    ("step", step::run),
    ("tiles", tiles::run),
    ("operations", operations::run),
    ("probes", probes::run),
    ("parity", parity::run),
    ("compile", compile::run),
    ("compile-threads", compile::run_with_threads),
];

fn usage() -> ExitCode {
    let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    eprintln!(
        "usage: kit {} [--json FILE] [--seconds N] [--small] [--side N]\n       kit report DIR",
        names.join("|")
    );
    ExitCode::from(2)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = args.first() else { return usage() };
    if name == "report" {
        return args
            .get(1)
            .map_or_else(usage, |folder| report::write(Path::new(folder), &PARTS.map(|p| p.0)));
    }
    let Some((name, run)) = PARTS.iter().find(|(known, _)| known == name) else { return usage() };
    let after = |option: &str| args.iter().position(|arg| arg == option).and_then(|i| args.get(i + 1));
    let file = after("--json").map_or_else(|| PathBuf::from("/dev/null"), PathBuf::from);
    let Ok(seconds) = after("--seconds").map_or(Ok(600), |n| n.parse()) else { return usage() };
    let Ok(side) = after("--side").map(|n| n.parse()).transpose() else { return usage() };
    let small = args.iter().any(|arg| arg == "--small");
    let mut part = Part::new(name, file, seconds, small, side);
    run(&mut part);
    ExitCode::from(u8::from(!part.end()))
}
