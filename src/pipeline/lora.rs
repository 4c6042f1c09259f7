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

use super::part::Part;
use super::residence::{Residence, Stage};
use crate::checkpoint::lora::{Adapter, Change, Factor, Names, Product, Values};
use crate::checkpoint::{Layout, ReadAt, Table};
use crate::error::{Error, Result};
use crate::gpu::{Adapted, AdaptedLayers, WeightSpec, Weights};
use crate::ops;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// LoRAs of one weight, each with its whole scale.
type Touched<'a> = Vec<(&'a Adapter, f32)>;

/// A LoRA as it was read.
struct LoadedLora {
    key: String,
    /// By component (0: UNet, 1 and 2: text encoders) and name of the weight.
    adapters: BTreeMap<(usize, String), Adapter>,
    /// Tensors that belong to no weight of this model.
    unmatched: Vec<String>,
}

/// Every LoRA that was loaded.
#[derive(Default)]
pub(super) struct Loras(RefCell<Vec<LoadedLora>>);

/// The UNet's weights, then the text encoders': what LoRAs change.
fn components(residence: &Residence) -> impl Iterator<Item = (usize, &Rc<Part>)> {
    std::iter::once(&residence.unet).chain(&residence.text).enumerate()
}

impl Loras {
    pub fn has(&self, key: &str) -> bool {
        self.0.borrow().iter().any(|l| l.key == key)
    }

    pub fn keys(&self) -> Vec<String> {
        self.0.borrow().iter().map(|l| l.key.clone()).collect()
    }

    /// Reads a LoRA (LoCon, LoHa, LoKr, DoRA) and keeps it under `key`.
    ///
    /// # Errors
    /// `unsupported-model` if nothing at all fits this model; `bad-checkpoint` for factors of the wrong shape; and
    /// whatever reading the file fails with.
    pub async fn load<R: ReadAt>(&self, residence: &Residence, key: &str, file: &R) -> Result<()> {
        if self.has(key) {
            return Ok(());
        }
        let matrices =
            || components(residence).flat_map(|(c, part)| part.specs().iter().map(move |s| (c, s)));
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
                "none of the {} tensors of {key} belongs to a weight of this model (the first is {:?}). It \
                 is no LoRA, or one for another kind of model",
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
        self.0.borrow_mut().push(LoadedLora { key: key.to_owned(), adapters, unmatched });
        Ok(())
    }

    /// Those of one request, by key and scale.
    pub fn chosen<'a>(&'a self, scales: &'a [(String, f32)]) -> ChosenLoras<'a> {
        ChosenLoras { loaded: self, scales }
    }
}

/// The LoRAs of one request.
#[derive(Clone, Copy)]
pub(super) struct ChosenLoras<'a> {
    loaded: &'a Loras,
    /// Key and scale of each.
    pub scales: &'a [(String, f32)],
}

impl ChosenLoras<'_> {
    /// Of each that has some: the names of its tensors that belong to no weight of this model.
    pub fn unmatched(&self) -> Vec<(String, Vec<String>)> {
        let loras = self.loaded.0.borrow();
        let own = |key: &String| loras.iter().find(|l| l.key == *key && !l.unmatched.is_empty());
        self.scales.iter().filter_map(|(key, _)| Some((key.clone(), own(key)?.unmatched.clone()))).collect()
    }

    /// Gives the weights of `stage`, which are on the GPU, these LoRAs and no others.
    ///
    /// # Errors
    /// `out-of-memory` where a merge does not fit the adapter.
    pub fn merge(&self, residence: &Residence, stage: Stage) -> Result<()> {
        for (component, part) in components(residence) {
            let wanted = match stage {
                Stage::Unet => component == 0,
                Stage::Text => component > 0,
                Stage::Encoder | Stage::Vae => false,
            };
            if wanted {
                self.merge_component(residence, component, part)?;
            }
        }
        residence.gpu.check()
    }

    fn merge_component(&self, residence: &Residence, component: usize, part: &Part) -> Result<()> {
        let weights = part.weights()?;
        if *weights.merged.borrow() == *self.scales {
            return Ok(());
        }
        weights.restore(&residence.gpu);
        let before = weights.merged.take();
        let loras = self.loaded.0.borrow();
        let mut touched: BTreeMap<&str, Touched<'_>> = BTreeMap::new();
        for (key, scale) in self.scales {
            for lora in loras.iter().filter(|l| l.key == *key) {
                for ((c, name), adapter) in &lora.adapters {
                    if *c == component {
                        touched.entry(name).or_default().push((adapter, scale * adapter.scale));
                    }
                }
            }
        }
        // Other scales of the same LoRAs: what does not depend on them is there already.
        let rescaled = before.iter().map(|(key, _)| key).eq(self.scales.iter().map(|(key, _)| key));
        if let Err(e) = adapt(residence, component, &weights, touched, rescaled) {
            // Half of a LoRA must not be taken for a model without any.
            weights.restore(&residence.gpu);
            set_adapted(residence, component, &weights, AdaptedLayers::new(), &[]);
            return Err(e);
        }
        *weights.merged.borrow_mut() = self.scales.to_vec();
        Ok(())
    }
}

/// A layer that LoRAs change beside its quantised weights: how, and the weights that it needs.
fn beside(prefix: &str, [rows, inner, taps]: [usize; 3], adapters: &Touched) -> (Adapted, Vec<WeightSpec>) {
    let spec = |part: &str, rows, inner, taps| {
        let layout = Layout::Matrix { rows, inner, taps };
        WeightSpec { name: format!("{prefix}.{part}.weight"), layout, follows: false }
    };
    match low_rank(adapters) {
        Some(parts) if rank(&parts) * (rows + inner * taps) < rows * inner * taps => {
            let rank = rank(&parts);
            let specs = vec![spec("lora_down", rank, inner, taps), spec("lora_up", rows, rank, 1)];
            (Adapted::LowRank(rank as u32), specs)
        }
        _ => (Adapted::Merged, vec![spec("merged", rows, inner, taps)]),
    }
}

/// Brings `touched`, by weight, into `weights`. `rescaled`: they are there, at other scales.
fn adapt(
    residence: &Residence,
    component: usize,
    weights: &Weights,
    touched: BTreeMap<&str, Touched<'_>>,
    rescaled: bool,
) -> Result<()> {
    let gpu = &residence.gpu;
    let mut layers = AdaptedLayers::new();
    let mut specs = Vec::new();
    for (name, adapters) in &touched {
        let Some(Layout::Blocks { rows, inner, taps, .. }) = weights.layout(name) else { continue };
        let prefix = name.trim_end_matches(".weight");
        let (adapted, needed) = beside(prefix, [rows, inner, taps], adapters);
        layers.insert(prefix.to_owned(), adapted);
        specs.extend(needed);
    }
    let kept = layers == *weights.adapted();
    if !kept {
        set_adapted(residence, component, weights, layers, &specs);
    }
    let layers = weights.adapted();
    for (name, adapters) in touched {
        let prefix = name.trim_end_matches(".weight");
        match (layers.get(prefix), low_rank(&adapters), weights.adaptation()) {
            (Some(Adapted::LowRank(_)), Some(parts), Some(beside)) => {
                if !(kept && rescaled) {
                    let down: Vec<f32> = parts.iter().flat_map(|(p, _)| &p.down).copied().collect();
                    beside.upload(gpu, &format!("{prefix}.lora_down.weight"), &down)?;
                }
                beside.upload(gpu, &format!("{prefix}.lora_up.weight"), &joined_up(&parts))?;
            }
            _ => ops::merge(gpu, weights, prefix, &adapters)?,
        }
    }
    Ok(())
}

/// The layers of a component that plans must be recorded with from now on; those recorded before go.
fn set_adapted(
    residence: &Residence,
    component: usize,
    weights: &Weights,
    layers: AdaptedLayers,
    specs: &[WeightSpec],
) {
    if component == 0 {
        residence.drop_unet_plan();
    }
    weights.adapt(&residence.gpu, layers, specs);
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
