//! `bindgen MODULE.wasm FOLDER`: makes of a compiled module what a page imports, as `wasm-bindgen --target web` does.
//!
//! It stands in this workspace so that Cargo.lock holds it at the version of the `wasm-bindgen` that the module has, and
//! so that nothing else of the `wasm-bindgen-cli` package is built, which takes twice the time.

use anyhow::bail;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [module, folder] = args.as_slice() else { bail!("usage: bindgen MODULE.wasm FOLDER") };
    Bindgen::new().input_path(module).web(true)?.typescript(true).generate(folder)
}
