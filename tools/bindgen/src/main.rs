//! `bindgen MODULE.wasm FOLDER`: makes of a compiled module what a page imports, as `wasm-bindgen --target web` does.
//!
//! It stands in this workspace so that Cargo.lock holds it at the version of the `wasm-bindgen` that the module has, and
//! so that nothing else of the `wasm-bindgen-cli` package is built, which takes twice the time.

use anyhow::bail;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [module, folder] = args.as_slice() else { bail!("usage: bindgen MODULE.wasm FOLDER") };
    let mut bindgen = Bindgen::new();
    bindgen.input_path(module).web(true)?;
    // Without these its JavaScript does not know where the module is, and has no types.
    bindgen.omit_default_module_path(false).typescript(true);
    bindgen.generate(folder)
}
