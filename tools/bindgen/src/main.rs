//! `bindgen MODULE.wasm FOLDER`: makes of a compiled module what a page imports, as `wasm-bindgen --target web` does.
//!
//! It stands in this workspace so that Cargo.lock holds it at the version of the `wasm-bindgen` that the module has, and
//! so that nothing else of the `wasm-bindgen-cli` package is built, which takes twice the time.

use anyhow::bail;
use std::collections::HashMap;
use std::fs;
use wasm_bindgen_cli_support::{Bindgen, Output};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [module, folder] = args.as_slice() else { bail!("usage: bindgen MODULE.wasm FOLDER") };
    let mut bindgen = Bindgen::new();
    bindgen.input_path(module).web(true)?;
    // Without these its JavaScript does not know where the module is, and has no types.
    bindgen.omit_default_module_path(false).typescript(true);
    let mut output = bindgen.generate_output()?;
    let short = shorten(&mut output);
    output.emit(folder)?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "js" || e == "ts") {
            fs::write(&path, renamed(&fs::read_to_string(&path)?, &short))?;
        }
    }
    Ok(())
}

/// Gives what wasm-bindgen names short names, since both files spell each of its 300 long ones: 6 KB gzipped of the
/// module. Long name to short.
fn shorten(output: &mut Output) -> HashMap<String, String> {
    let module = output.wasm_mut();
    let imports = module.imports.iter_mut().map(|import| &mut import.name);
    let exports = module.exports.iter_mut().map(|export| &mut export.name);
    let mut short = HashMap::new();
    for name in
        imports.chain(exports).filter(|name| name.starts_with("__wb") || name.starts_with("wasm_bindgen_"))
    {
        let next = format!("${}", short.len());
        *name = short.entry(name.clone()).or_insert(next).clone();
    }
    short
}

/// JavaScript or its types with the new names.
fn renamed(code: &str, short: &HashMap<String, String>) -> String {
    code.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '$')
        .map(|part| {
            let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '$');
            match short.get(word) {
                Some(name) => part.replacen(word, name, 1),
                None => part.to_string(),
            }
        })
        .collect()
}
