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

use super::embedding::BUNDLED;
use super::part::Part;
use super::request::Acting;
use super::residence::{Residence, Stage};
use crate::checkpoint::alphas::Alphas;
use crate::checkpoint::kind::kind;
use crate::checkpoint::lora::{Adapter, Change, Factor, Names, Product, Values, check, fits};
use crate::checkpoint::{Layout, Located, ReadAt, Table};
use crate::error::{Code, Error, Result};
use crate::gpu::{Adapted, AdaptedLayers, WeightSpec, Weights};
use crate::ops;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
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
    /// Words of the embeddings in its file, and their keys.
    words: Vec<(String, String)>,
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

    /// Reads a LoRA (LoCon, LoHa, LoKr, DoRA, GLoRA, OFT, BOFT, full differences) and keeps it under `key`. `words`: of
    /// the embeddings in its file, which are read already, and their keys.
    ///
    /// # Errors
    /// `unsupported-model` if nothing at all fits this model, or for a method that is not computed here;
    /// `bad-checkpoint` for factors of the wrong shape or with values that are no numbers; `out-of-memory` for more
    /// than can be held; and whatever reading the file fails with.
    pub async fn load<R: ReadAt>(
        &self,
        residence: &Residence,
        key: &str,
        (file, table): (&R, &Table),
        words: Vec<(String, String)>,
    ) -> Result<()> {
        let layouts: HashMap<(usize, &str), Layout> = components(residence)
            .flat_map(|(c, part)| part.specs().iter().map(move |s| ((c, s.name.as_str()), s.layout)))
            .collect();
        let names = Names::new(layouts.keys().copied());
        let alphas = Alphas::read(file).await?;
        let (found, unmatched) = factors(key, file, table, &names).await?;
        if found.is_empty() && words.is_empty() {
            return Err(foreign(key, table));
        }
        let mut adapters = BTreeMap::new();
        for ((component, name), mut factors) in found {
            let [rows, inner, taps] = match layouts.get(&(component, name.as_str())) {
                Some(&(Layout::Matrix { rows, inner, taps } | Layout::Blocks { rows, inner, taps, .. })) => {
                    [rows, inner, taps]
                }
                Some(&Layout::Vector { len }) => [1, len, 1],
                None => continue,
            };
            let rank = factors.get(&Factor::Down).and_then(|(shape, _)| shape.first().copied());
            if let (Some(rank), false) = (rank, factors.contains_key(&Factor::Alpha))
                && let Some(alpha) = alphas.of(component, name.trim_end_matches(".weight"), rank)?
            {
                factors.insert(Factor::Alpha, (Vec::new(), vec![alpha]));
            }
            let adapter = Adapter::new(&name, factors, [rows, inner, taps])?;
            adapters.insert((component, name), adapter);
        }
        self.0.borrow_mut().push(LoadedLora { key: key.to_owned(), adapters, unmatched, words });
        Ok(())
    }

    /// Those of one request, by key and scale.
    pub fn chosen<'a>(&'a self, scales: &'a [Acting]) -> ChosenLoras<'a> {
        ChosenLoras { loaded: self, scales }
    }
}

/// What a file changes, by component and weight, and the names of its tensors that belong to no weight of this model.
type Found = (BTreeMap<(usize, String), BTreeMap<Factor, Values>>, Vec<String>);

/// As much as can be held beside everything else where a program has 4 GiB.
const MOST_BYTES: u64 = 2 << 30;

/// Reads what belongs to this model.
async fn factors<R: ReadAt>(key: &str, file: &R, table: &Table, names: &Names) -> Result<Found> {
    let mut found: BTreeMap<(usize, String), BTreeMap<Factor, Values>> = BTreeMap::new();
    let mut unmatched = Vec::new();
    let mut bytes = 0;
    for tensor in &table.tensors {
        if tensor.name.starts_with(BUNDLED) {
            continue;
        }
        let Some((component, name, factor)) = names.find(&tensor.name) else {
            unmatched.push(tensor.name.clone());
            continue;
        };
        if let Factor::Foreign(method) = factor {
            return Err(Error::unsupported(format!(
                "tensor {:?} of {key} is of {method}, which is not computed here: LoRA, LoCon, LoHa, LoKr, DoRA, \
                 GLoRA, LyCORIS' OFT and BOFT, and full differences are. Choose one of these",
                tensor.name
            )));
        }
        bytes += tensor.elements() * 4;
        if bytes > MOST_BYTES {
            return Err(Error::new(
                Code::OutOfMemory,
                format!(
                    "{key} changes more than {} MiB of weights, more than is held here. Choose a LoRA of a \
                         smaller rank",
                    MOST_BYTES >> 20
                ),
            ));
        }
        let own = found.entry((component, name.to_owned())).or_default();
        let values = values(file, table, tensor).await?;
        if own.insert(factor, values).is_some() {
            return Err(Error::bad_checkpoint(format!(
                "{key} has two tensors for one factor of {name}, such as {:?}. Choose another copy",
                tensor.name
            )));
        }
    }
    Ok((found, unmatched))
}

async fn values<R: ReadAt>(file: &R, table: &Table, tensor: &Located) -> Result<Values> {
    let values = table.values(file, tensor).await?;
    check(&tensor.name, &tensor.shape, &values)?;
    Ok((tensor.shape.clone(), values))
}

/// Why a file is none that changes this model.
fn foreign(key: &str, table: &Table) -> Error {
    let first = table.tensors.first().map_or("", |t| &t.name);
    let what = match kind(table.tensors.iter().map(|t| t.name.as_str())) {
        Some(kind) if kind.is_of("`loras`") => format!("It is {} for another kind of model", kind.what),
        Some(kind) => format!("It is {kind}, not a LoRA"),
        None => "It is no LoRA, or one for another kind of model".to_owned(),
    };
    Error::unsupported(format!(
        "none of the {} tensors of {key} belongs to a weight of this model (the first is {first:?}). {what}",
        table.tensors.len()
    ))
}

/// The LoRAs of one request.
#[derive(Clone, Copy)]
pub(super) struct ChosenLoras<'a> {
    loaded: &'a Loras,
    pub scales: &'a [Acting],
}

impl ChosenLoras<'_> {
    /// Of each that has some: the names of its tensors that belong to no weight of this model.
    pub fn unmatched(&self) -> Vec<(String, Vec<String>)> {
        let loras = self.loaded.0.borrow();
        let own = |key: &String| loras.iter().find(|l| l.key == *key && !l.unmatched.is_empty());
        let mut told: Vec<(String, Vec<String>)> = Vec::new();
        for Acting { key, .. } in self.scales {
            if let Some(lora) = own(key).filter(|_| told.iter().all(|(k, _)| k != key)) {
                told.push((key.clone(), lora.unmatched.clone()));
            }
        }
        told
    }

    /// Words of the embeddings in their files, and their keys, but for those that `known` has.
    pub fn words(&self, known: &[(String, String)]) -> Vec<(String, String)> {
        let loras = self.loaded.0.borrow();
        let acting = |lora: &&LoadedLora| self.scales.iter().any(|a| a.key == lora.key);
        let mut words: Vec<(String, String)> = Vec::new();
        for word in loras.iter().filter(acting).flat_map(|lora| &lora.words) {
            if known.iter().chain(&words).all(|(own, _)| *own != word.0) {
                words.push(word.clone());
            }
        }
        words
    }

    /// Gives the weights of `stage`, which are on the GPU, these LoRAs and no others.
    ///
    /// # Errors
    /// `out-of-memory` where a merge does not fit the adapter; `unsupported-model` where f16 does not hold what it
    /// gives: the weights are those of the checkpoint then.
    pub async fn merge(&self, residence: &Residence, stage: Stage) -> Result<()> {
        for (component, part) in components(residence) {
            let wanted = match stage {
                Stage::Unet => component == 0,
                Stage::Text => component > 0,
                Stage::Encoder | Stage::Vae => false,
            };
            if wanted {
                self.merge_component(residence, component, part).await?;
            }
        }
        residence.gpu.check()
    }

    async fn merge_component(&self, residence: &Residence, component: usize, part: &Part) -> Result<()> {
        let weights = part.weights()?;
        let own = |a: &Acting| (a.key.clone(), if component == 0 { a.unet } else { a.text });
        let scales: Vec<(String, f32)> = self.scales.iter().map(own).filter(|(_, s)| *s != 0.0).collect();
        if *weights.merged.borrow() == scales {
            return Ok(());
        }
        weights.restore(&residence.gpu);
        let before = weights.merged.take();
        let watch = {
            let loras = self.loaded.0.borrow();
            let mut touched: BTreeMap<&str, Touched<'_>> = BTreeMap::new();
            for (key, scale) in &scales {
                for lora in loras.iter().filter(|l| l.key == *key) {
                    for ((c, name), adapter) in &lora.adapters {
                        if *c == component {
                            touched.entry(name).or_default().push((adapter, scale * adapter.scale));
                        }
                    }
                }
            }
            // Other scales of the same LoRAs: what does not depend on them is there already.
            let rescaled = before.iter().map(|(key, _)| key).eq(scales.iter().map(|(key, _)| key));
            adapt(residence, component, &weights, touched, rescaled)
        };
        let sound = match watch {
            Ok(Some(watch)) => watch.check(&residence.gpu).await,
            Ok(None) => Ok(()),
            Err(e) => Err(e),
        };
        if let Err(e) = sound {
            // Half of a LoRA must not be taken for a model without any.
            weights.restore(&residence.gpu);
            set_adapted(residence, component, &weights, AdaptedLayers::new(), &[]);
            return Err(e);
        }
        *weights.merged.borrow_mut() = scales;
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
        Some(parts) if rank(&parts) * (rows + inner * taps) < rows * inner * taps && is_small(&parts) => {
            let rank = rank(&parts);
            let specs = vec![spec("lora_down", rank, inner, taps), spec("lora_up", rows, rank, 1)];
            (Adapted::LowRank(rank as u32), specs)
        }
        _ => (Adapted::Merged, vec![spec("merged", rows, inner, taps)]),
    }
}

/// Whether f16 surely holds every factor and every value of their product; where not, it is merged, which is watched.
fn is_small(parts: &[(&Product, f32)]) -> bool {
    let largest = |values: &[f32]| values.iter().fold(0f32, |most, v| most.max(v.abs()));
    let bound = |(p, scale): &(&Product, f32)| {
        let up = largest(&p.up) * scale.abs();
        if fits(up) { up * largest(&p.down) * p.rank as f32 } else { f32::INFINITY }
    };
    fits(parts.iter().map(bound).sum())
}

/// Brings `touched`, by weight, into `weights`, and gives what has watched the merges, if there were some. `rescaled`:
/// they are there, at other scales.
fn adapt(
    residence: &Residence,
    component: usize,
    weights: &Weights,
    touched: BTreeMap<&str, Touched<'_>>,
    rescaled: bool,
) -> Result<Option<ops::Watch>> {
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
    let watch = ops::Watch::new(gpu, weights, touched.len())?;
    let mut watched = false;
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
            _ => {
                ops::merge(gpu, weights, name, &adapters, &watch)?;
                watched = true;
            }
        }
    }
    Ok(watched.then_some(watch))
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
