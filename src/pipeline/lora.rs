//! LoRAs: read once and kept, merged into the f16 weights on the GPU before a picture, and taken out again.
//!
//! A weight that is touched is first copied, on the GPU; every merge begins from that copy, so that nothing of
//! earlier scales stays behind, and the model without LoRAs is what it was, bit for bit. Bindings stay as they are:
//! no plan is made anew.

use super::DiffusionPipeline;
use super::residence::{Part, Stage};
use crate::checkpoint::lora::{Adapter, Factor, Names, Values};
use crate::checkpoint::{Layout, ReadAt, Table};
use crate::error::{Error, Result};
use crate::ops;
use std::collections::BTreeMap;

/// A LoRA as it was read.
pub(super) struct LoadedLora {
    key: String,
    /// By component (0: UNet, 1 and 2: text encoders) and name of the weight.
    adapters: BTreeMap<(usize, String), Adapter>,
    /// Tensors that belong to no weight of this model.
    unmatched: Vec<String>,
}

impl DiffusionPipeline {
    /// Whether [`load_lora`](Self::load_lora) was given this key.
    pub fn has_lora(&self, key: &str) -> bool {
        self.loras.borrow().iter().any(|l| l.key == key)
    }

    /// Reads a LoRA (LoCon, LoHa, LoKr, DoRA) and keeps it under `key` (its source's name), for
    /// `GenerateOptions::loras`. Names of tensors that belong to no weight of this model are told with each picture.
    ///
    /// # Errors
    /// `unsupported-model` if nothing at all fits this model, or its weights are quantised; `bad-checkpoint` for
    /// factors of the wrong shape; and whatever reading the file fails with.
    pub async fn load_lora<R: ReadAt>(&self, key: &str, file: &R) -> Result<()> {
        if self.has_lora(key) {
            return Ok(());
        }
        let parts = self.lora_parts();
        let matrices = || parts.iter().enumerate().flat_map(|(c, p)| p.specs().iter().map(move |s| (c, s)));
        let names = Names::new(matrices().map(|(c, s)| (c, s.name.as_str())));
        let table = Table::open(file).await?;
        let mut found: BTreeMap<(usize, String), BTreeMap<Factor, Values>> = BTreeMap::new();
        let mut unmatched = Vec::new();
        for tensor in &table.tensors {
            match names.find(&tensor.name) {
                Some((component, name, factor)) => {
                    let values = table.values(file, tensor).await?;
                    let own = found.entry((component, name.to_owned())).or_default();
                    own.insert(factor, (tensor.shape.clone(), values));
                }
                None => unmatched.push(tensor.name.clone()),
            }
        }
        if found.is_empty() {
            return Err(Error::unsupported(format!(
                "none of the {} tensors of {key} belongs to a weight of this model (the first is {:?}). It is no LoRA, \
                 or one for another kind of model",
                table.tensors.len(),
                table.tensors.first().map_or("", |t| &t.name)
            )));
        }
        let mut adapters = BTreeMap::new();
        for ((component, name), factors) in found {
            let spec = matrices().find(|(c, s)| *c == component && s.name == name).map(|(_, s)| s.layout);
            let Some(Layout::Matrix { rows, inner, taps }) = spec else {
                return Err(Error::unsupported(
                    "LoRAs are merged into f16 weights: load the model with weights \"f16\"",
                ));
            };
            let adapter = Adapter::new(&name, factors, [rows, inner, taps])?;
            adapters.insert((component, name), adapter);
        }
        self.loras.borrow_mut().push(LoadedLora { key: key.to_owned(), adapters, unmatched });
        Ok(())
    }

    /// Chooses the LoRAs of the next picture, by key and scale.
    ///
    /// # Errors
    /// `invalid-option` for a key that was not loaded, or a scale that is no number.
    pub(super) fn choose_loras(&self, loras: &[(String, f32)]) -> Result<()> {
        if let Some((key, _)) = loras.iter().find(|(key, scale)| !self.has_lora(key) || !scale.is_finite()) {
            return Err(Error::invalid(format!("LoRA {key} was not loaded, or its scale is not a number.")));
        }
        let chosen: Vec<_> = loras.iter().filter(|(_, scale)| *scale != 0.0).cloned().collect();
        if *self.chosen_loras.borrow() != chosen {
            *self.chosen_loras.borrow_mut() = chosen;
            self.text_cache.clear();
        }
        Ok(())
    }

    /// Of each chosen LoRA that has some: the names of its tensors that belong to no weight of this model.
    pub(super) fn unmatched(&self) -> Vec<(String, Vec<String>)> {
        let chosen = self.chosen_loras.borrow();
        let loras = self.loras.borrow();
        let own = |key: &String| loras.iter().find(|l| l.key == *key && !l.unmatched.is_empty());
        chosen.iter().filter_map(|(key, _)| Some((key.clone(), own(key)?.unmatched.clone()))).collect()
    }

    fn lora_parts(&self) -> Vec<&Part> {
        [&self.unet.part].into_iter().chain(self.text_encoders.iter().map(|e| &e.module.part)).collect()
    }

    /// Sees to it that the weights of `stage`, which are on the GPU, have the chosen LoRAs and no others.
    ///
    /// # Errors
    /// `out-of-memory` where a merge does not fit the adapter.
    pub(super) fn merge_loras(&self, stage: Stage) -> Result<()> {
        let chosen = self.chosen_loras.borrow();
        let loras = self.loras.borrow();
        for (component, part) in self.lora_parts().into_iter().enumerate() {
            let wanted = match stage {
                Stage::Unet => component == 0,
                Stage::Text => component > 0,
                Stage::Encoder | Stage::Vae => false,
            };
            if !wanted {
                continue;
            }
            let weights = part.weights()?;
            if *weights.merged.borrow() == *chosen {
                continue;
            }
            weights.restore(&self.gpu);
            weights.merged.borrow_mut().clear();
            let mut touched: BTreeMap<&str, Vec<(&Adapter, f32)>> = BTreeMap::new();
            for (key, scale) in chosen.iter() {
                for lora in loras.iter().filter(|l| l.key == *key) {
                    for ((c, name), adapter) in &lora.adapters {
                        if *c == component {
                            touched.entry(name).or_default().push((adapter, scale * adapter.scale));
                        }
                    }
                }
            }
            for (name, adapters) in touched {
                if let Err(e) = ops::merge(&self.gpu, &weights, name, &adapters) {
                    // Half of a LoRA must not be taken for a model without any.
                    weights.restore(&self.gpu);
                    return Err(e);
                }
            }
            weights.merged.borrow_mut().clone_from(&chosen);
        }
        Ok(())
    }
}
