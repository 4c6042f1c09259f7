//! LoRAs: read once and kept, brought into the weights on the GPU before a picture, and taken out again.
//!
//! Into f16 weights they are merged. A weight that is touched is first copied, on the GPU; every merge begins from that
//! copy, so that nothing of earlier scales stays behind, and the model without LoRAs is what it was, bit for bit.
//! Bindings stay as they are: no plan is made anew.
//!
//! Quantised weights stay as they are. LoRA and LoCon are added when the layer runs, `scale * up(down(x))`: two small
//! products more. What is no product of small matrices (LoHa, LoKr) or rescales the base (DoRA), and ranks too large to
//! save anything, are merged with the dequantised matrix into f16 beside it, for that layer alone: one way for all of
//! them, exact but for the base's own rounding, where quantising the sum once more would lose most of the change. Plans
//! are made anew when the layers or ranks are others; another scale writes the small factors only.

use super::DiffusionPipeline;
use super::residence::{Part, Stage};
use crate::checkpoint::lora::{Adapter, Change, Factor, Names, Product, Values};
use crate::checkpoint::{Layout, ReadAt, Table};
use crate::error::{Error, Result};
use crate::gpu::{Adapted, AdaptedLayers, WeightSpec, Weights};
use crate::ops;
use std::collections::BTreeMap;

/// LoRAs of one weight, each with its whole scale.
type Touched<'a> = Vec<(&'a Adapter, f32)>;

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
    /// `unsupported-model` if nothing at all fits this model; `bad-checkpoint` for factors of the wrong shape; and
    /// whatever reading the file fails with.
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
            let Some(Layout::Matrix { rows, inner, taps } | Layout::Blocks { rows, inner, taps, .. }) = spec
            else {
                return Err(Error::unsupported(format!("{key} changes {name}, which is no matrix")));
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
            let before = weights.merged.take();
            let mut touched: BTreeMap<&str, Touched<'_>> = BTreeMap::new();
            for (key, scale) in chosen.iter() {
                for lora in loras.iter().filter(|l| l.key == *key) {
                    for ((c, name), adapter) in &lora.adapters {
                        if *c == component {
                            touched.entry(name).or_default().push((adapter, scale * adapter.scale));
                        }
                    }
                }
            }
            // Other scales of the same LoRAs: what does not depend on them is there already.
            let scaled = before.iter().map(|(key, _)| key).eq(chosen.iter().map(|(key, _)| key));
            if let Err(e) = self.adapt(component, &weights, touched, scaled) {
                // Half of a LoRA must not be taken for a model without any.
                weights.restore(&self.gpu);
                self.set_adapted(component, &weights, AdaptedLayers::new(), &[]);
                return Err(e);
            }
            weights.merged.borrow_mut().clone_from(&chosen);
        }
        Ok(())
    }

    /// Brings `touched`, by weight, into `weights`. `scaled`: but for the scales they are what is there.
    fn adapt(
        &self,
        component: usize,
        weights: &Weights,
        touched: BTreeMap<&str, Touched<'_>>,
        scaled: bool,
    ) -> Result<()> {
        let mut layers = AdaptedLayers::new();
        let mut specs = Vec::new();
        for (name, adapters) in &touched {
            let Some(Layout::Blocks { rows, inner, taps, .. }) = weights.layout(name) else { continue };
            let prefix = name.trim_end_matches(".weight");
            let mut spec = |part: &str, rows, inner, taps| {
                let layout = Layout::Matrix { rows, inner, taps };
                specs.push(WeightSpec { name: format!("{prefix}.{part}.weight"), layout, follows: false });
            };
            let adapted = match low_rank(adapters) {
                Some(parts) if rank(&parts) * (rows + inner * taps) < rows * inner * taps => {
                    let rank = rank(&parts);
                    spec("lora_down", rank, inner, taps);
                    spec("lora_up", rows, rank, 1);
                    Adapted::LowRank(rank as u32)
                }
                _ => {
                    spec("merged", rows, inner, taps);
                    Adapted::Merged
                }
            };
            layers.insert(prefix.to_owned(), adapted);
        }
        let kept = layers == *weights.adapted();
        if !kept {
            self.set_adapted(component, weights, layers, &specs);
        }
        let layers = weights.adapted();
        for (name, adapters) in touched {
            let prefix = name.trim_end_matches(".weight");
            match (layers.get(prefix), low_rank(&adapters), weights.adaptation()) {
                (Some(Adapted::LowRank(_)), Some(parts), Some(beside)) => {
                    if !(kept && scaled) {
                        let down: Vec<f32> = parts.iter().flat_map(|(p, _)| &p.down).copied().collect();
                        beside.upload(&self.gpu, &format!("{prefix}.lora_down.weight"), &down)?;
                    }
                    beside.upload(&self.gpu, &format!("{prefix}.lora_up.weight"), &joined_up(&parts))?;
                }
                _ => ops::merge(&self.gpu, weights, prefix, &adapters)?,
            }
        }
        Ok(())
    }

    /// The layers of a component that plans must be recorded with from now on; those recorded before go.
    fn set_adapted(&self, component: usize, weights: &Weights, layers: AdaptedLayers, specs: &[WeightSpec]) {
        if component == 0 {
            drop(self.unet_plan.take());
        }
        weights.adapt(&self.gpu, layers, specs);
    }
}

/// The products that the LoRAs of one weight are, if they all are.
fn low_rank<'a>(adapters: &[(&'a Adapter, f32)]) -> Option<Vec<(&'a Product, f32)>> {
    let product = |(adapter, scale): &(&'a Adapter, f32)| match &adapter.change {
        Change::Product(product) if adapter.magnitude.is_none() => Some((product, *scale)),
        _ => None,
    };
    adapters.iter().map(product).collect()
}

fn rank(parts: &[(&Product, f32)]) -> usize {
    parts.iter().map(|(p, _)| p.rank).sum()
}

/// The rows of every `up` side by side, times the scales: what the stacked `down`s are multiplied by.
fn joined_up(parts: &[(&Product, f32)]) -> Vec<f32> {
    let rows = parts.first().map_or(0, |(p, _)| p.up.len() / p.rank.max(1));
    let row = |i: usize| {
        parts.iter().flat_map(move |(p, scale)| p.up[i * p.rank..][..p.rank].iter().map(move |v| v * scale))
    };
    (0..rows).flat_map(row).collect()
}
