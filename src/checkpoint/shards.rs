//! The index of a checkpoint that is cut into several files (`*.safetensors.index.json`).

use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// The files that an index names, each once, in the order of their names. They lie beside the index.
///
/// `BadCheckpoint` if it is no index, names no file, or names one outside its own folder.
pub fn files(index: &[u8]) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(index).map_err(|e| {
        Error::bad_checkpoint(format!(
            "the index of the weight files cannot be read ({e}). Download it again"
        ))
    })?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    if files.is_empty() {
        return Err(Error::bad_checkpoint("the index of the weight files names no file"));
    }
    if let Some(f) = files.iter().find(|f| f.contains(['/', '\\', '?', '#']) || !f.ends_with(".safetensors"))
    {
        return Err(Error::bad_checkpoint(format!(
            "the index of the weight files names {f:?}, which is no safetensors file beside it"
        )));
    }
    Ok(files.into_iter().collect())
}
