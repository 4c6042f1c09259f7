//! The names that options take: Rust's lists are those of `www/names.js` and of the types in
//! `www/browser-diffusion.d.ts`.

use browser_diffusion::checkpoint::Bits;
use browser_diffusion::named::Named;
use browser_diffusion::ops::Precision;
use browser_diffusion::pipeline::{
    ControlMode, Enlarge, InpaintArea, MaskedContent, Memory, Output, Preprocess, Preview, StrengthSteps,
};
use browser_diffusion::prompt::Syntax;
use browser_diffusion::samplers::{Prediction, Rng};

fn names<T: Named>() -> Vec<&'static str> {
    T::NAMES.iter().map(|(name, _)| *name).collect()
}

/// Every option that takes names, and its names.
fn lists() -> [(&'static str, Vec<&'static str>); 14] {
    [
        ("preview", names::<Preview>()),
        ("output", names::<Output>()),
        ("weights", names::<Option<Bits>>()),
        ("precision", names::<Precision>()),
        ("memory", names::<Memory>()),
        ("predictionType", names::<Prediction>()),
        ("rng", names::<Rng>()),
        ("promptSyntax", names::<Syntax>()),
        ("strengthSteps", names::<StrengthSteps>()),
        ("maskedContent", names::<MaskedContent>()),
        ("inpaintArea", names::<InpaintArea>()),
        ("upscaler", names::<Enlarge>()),
        ("preprocess", names::<Preprocess>()),
        ("mode", names::<ControlMode>()),
    ]
}

fn quoted(names: &[&str], between: &str) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(between)
}

/// With `BLESS=1` the file is written.
#[test]
fn the_module_has_the_engines_names() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/www/names.js");
    let rows = lists().map(|(option, names)| format!("  {option}: [{}],\n", quoted(&names, ", ")));
    let wanted = [
        "// Generated from the enums in src by tests/names.rs; to write it anew: ",
        "BLESS=1 cargo test --test names.\n\n",
        "/** The names that options take, by option. */\n",
        "export const NAMES = Object.freeze({\n",
        &rows.concat(),
        "});\n",
    ]
    .concat();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &wanted).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(written, wanted, "www/names.js is old: BLESS=1 cargo test --test names");
}

/// Each option is declared as the union of its names, in their order; an upscaler may be an object too.
#[test]
fn the_types_say_the_same() {
    let types =
        [include_str!("../www/browser-diffusion.d.ts"), include_str!("../www/controls.d.ts")].concat();
    for (option, names) in lists() {
        let union = format!("{option}?: {}", quoted(&names, " | "));
        let ends = |rest: &str| rest.starts_with(';') || rest.starts_with(" | Upscaler;");
        let declared = types.match_indices(&union).any(|(at, _)| ends(&types[at + union.len()..]));
        assert!(declared, "www/*.d.ts should declare {union}");
    }
}
