//! A LoRA's alphas out of its header: diffusers writes PEFT's configuration of each component into the metadata
//! `lora_adapter_metadata` (`loaders/lora_base.py`) and no tensor `alpha`.

use super::header::Header;
use super::located::ReadAt;
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Of a file: nothing, where it has none.
#[derive(Debug, Default)]
pub struct Alphas(Map<String, Value>);

/// As the metadata calls the UNet and the text encoders.
const COMPONENTS: [&str; 3] = ["unet", "text_encoder", "text_encoder_2"];

impl Alphas {
    /// Of a .safetensors file whose header can be read.
    ///
    /// # Errors
    /// `bad-checkpoint` for metadata that is no JSON; what the file fails with.
    pub async fn read<R: ReadAt>(file: &R) -> Result<Alphas> {
        #[derive(serde::Deserialize)]
        struct Described {
            #[serde(rename = "__metadata__", default)]
            metadata: HashMap<String, Value>,
        }
        let head = file.read_at(0, file.size().await?.min(9) as usize).await?;
        let (Some(&first), Some(b'{')) = (head.first_chunk(), head.get(8)) else {
            return Ok(Alphas::default());
        };
        let json = file.read_at(8, Header::json_len(first)?).await?;
        let Ok(Described { metadata }) = serde_json::from_slice(&json) else { return Ok(Alphas::default()) };
        let Some(text) = metadata.get("lora_adapter_metadata").and_then(Value::as_str) else {
            return Ok(Alphas::default());
        };
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Alphas(map)),
            _ => Err(Error::bad_checkpoint(
                "the LoRA's metadata lora_adapter_metadata, which holds its alpha, is not JSON. Take another copy",
            )),
        }
    }

    /// The alpha of a module (its canonical name, without `.weight`), times what makes `alpha / rank` of PEFT's scale.
    ///
    /// # Errors
    /// `bad-checkpoint` for one that is no number; `unsupported-model` for patterns other than names.
    pub fn of(&self, component: usize, module: &str, rank: u64) -> Result<Option<f32>> {
        let Some(component) = COMPONENTS.get(component) else { return Ok(None) };
        let get = |field: &str| self.0.get(&format!("{component}.{field}"));
        let Some(mut alpha) = get("lora_alpha") else { return Ok(None) };
        for (pattern, own) in get("alpha_pattern").and_then(Value::as_object).into_iter().flatten() {
            if pattern.contains(|c: char| "^$*+?[](){}|\\".contains(c)) {
                return Err(Error::unsupported(format!(
                    "the LoRA's metadata sets alpha by the pattern {pattern:?}; names of layers are read, regular \
                     expressions are not. Choose a LoRA with alpha in its tensors"
                )));
            }
            let module = module.strip_prefix("text_model.").unwrap_or(module);
            if module == pattern || module.ends_with(&format!(".{pattern}")) {
                alpha = own;
            }
        }
        let number = alpha.as_f64().map(|a| a as f32).filter(|a| super::lora::fits(*a));
        let number = number.ok_or_else(|| {
            Error::bad_checkpoint(format!(
                "lora_alpha of {component} in the LoRA's metadata lora_adapter_metadata is {alpha}, no number"
            ))
        })?;
        let rs = get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        Ok(Some(if rs { number * (rank as f32).sqrt() } else { number }))
    }
}
