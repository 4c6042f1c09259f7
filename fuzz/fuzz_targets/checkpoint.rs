//! Any bytes as a checkpoint file: its table, its sorting, its configurations, every tensor's values. Nothing may
//! panic, hang or grow. The checkpoint room stands on its own, so it is compiled in here without the GPU's crates.
#![no_main]
#![allow(dead_code, unused_imports)]

#[path = "../../src/checkpoint/mod.rs"]
mod checkpoint;
#[path = "../../src/error.rs"]
mod error;

use checkpoint::{Table, ldm};
use libfuzzer_sys::fuzz_target;
use pollster::block_on;

fuzz_target!(|file: &[u8]| {
    let Ok(table) = block_on(Table::open(&file)) else { return };
    if let Ok(contents) = ldm::sort(&table) {
        contents.configs(Some(0.1));
    }
    for tensor in table.tensors.iter().take(64) {
        // A tensor's values are as many bytes of the file.
        if let Ok(values) = block_on(table.values(&file, tensor)) {
            assert!(values.len() <= file.len());
        }
    }
});
