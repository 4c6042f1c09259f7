//! Control-LoRAs (Stability's; the rule is ComfyUI's): a ControlNet whose way down and middle are the model's own, with a
//! product of two small matrices added to each weight. What the file has whole takes the UNet's place: what shows the
//! picture, the zero convolutions, biases. What it does not have at all is the UNet's.
//!
//! The sums are made on the GPU and kept there in f16, of a quantised model too. They are of the checkpoint's weights:
//! LoRAs that a picture asks for change the UNet alone.

use super::part::{LocalFuture, Part, WeightSource};
use super::weights::Place;
use crate::checkpoint::lora::{Adapter, Factor, Values, check};
use crate::checkpoint::{FileUnpacker, Layout, Target, TensorInfo};
use crate::error::{Code, Error, Result, check_aborted};
use crate::gpu::{Gpu, Weights};
use crate::ops;
use crate::store::ModelFiles;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// Most values of factors that wait for their other half, which in a file stands beside them.
const MOST_WAITING: usize = 1 << 28;
/// Bytes of weights that are made before the GPU is waited for: each takes some memory of its own meanwhile.
const AT_ONCE: u64 = 256 << 20;

/// A Control-LoRA's file, and the UNet whose weights it changes, which are on the GPU when these are brought.
pub(super) struct ControlLoraSource<F> {
    pub place: Place<F>,
    pub unet: Rc<Part>,
}

impl<F: ModelFiles> WeightSource for ControlLoraSource<F> {
    fn stream<'a>(
        &'a self,
        part: &'a Part,
        gpu: &'a Gpu,
        keep: bool,
        aborted: &'a dyn Fn() -> bool,
    ) -> LocalFuture<'a, Result<Option<Weights>>> {
        Box::pin(async move {
            let files = &self.place.files;
            let theirs = self.unet.layouts();
            let wide = |name: &&str| theirs.get(name).is_some_and(|(_, wide)| *wide);
            let wide = part.specs().iter().map(|s| s.name.as_str()).filter(wide);
            part.widen(wide.map(str::to_owned).collect());
            loop {
                let mut merging = Merging::begin(part, &self.unet, gpu, files.name(), keep)?;
                for file in &files.weights(self.place.folder, None).await? {
                    let mut unpacker = FileUnpacker::new(file);
                    let take = async |bytes: &[u8]| {
                        check_aborted(aborted)?;
                        unpacker.push(bytes, &mut merging)?;
                        merging.breathe().await
                    };
                    files.read(file, take).await?;
                    unpacker.finish()?;
                }
                if merging.overflowed.is_empty() {
                    return merging.finish().await;
                }
                part.widen(merging.overflowed);
            }
        })
    }
}

/// What is made: from the UNet's weights, the ControlNet's; and what sees that f16 holds them.
struct Made {
    from: Rc<Weights>,
    to: Weights,
    watch: ops::Watch,
}

/// A Control-LoRA as it is read.
struct Merging<'a> {
    part: &'a Part,
    gpu: &'a Gpu,
    /// What the file is called.
    file: &'a str,
    layouts: HashMap<&'a str, (Layout, bool)>,
    unet: HashMap<&'a str, (Layout, bool)>,
    /// `None`: all is checked and let go.
    made: Option<Made>,
    /// Weights that the file has, and whether whole.
    has: HashMap<String, bool>,
    /// Factors without their other half.
    waiting: BTreeMap<String, BTreeMap<Factor, Values>>,
    /// Of the factor that arrives.
    values: Vec<f32>,
    /// Weights that f16 does not hold.
    overflowed: Vec<String>,
    /// Bytes since the GPU was waited for.
    unfinished: u64,
}

/// Where a tensor of the file goes.
enum Dest {
    Whole(String),
    Factor { weight: String, factor: Factor, tensor: String, shape: Vec<u64> },
}

impl<'a> Merging<'a> {
    fn begin(part: &'a Part, unet: &'a Part, gpu: &'a Gpu, file: &'a str, keep: bool) -> Result<Self> {
        let made = match keep {
            false => None,
            true => {
                let (from, to) = (unet.weights()?, part.allocate(gpu));
                let watch = ops::Watch::new(gpu, &from, part.specs().len())?;
                Some(Made { from, to, watch })
            }
        };
        Ok(Merging {
            part,
            gpu,
            file,
            layouts: part.layouts(),
            unet: unet.layouts(),
            made,
            has: HashMap::new(),
            waiting: BTreeMap::new(),
            values: Vec::new(),
            overflowed: Vec::new(),
            unfinished: 0,
        })
    }

    /// Lets the GPU come up where much was given to it.
    async fn breathe(&mut self) -> Result<()> {
        if self.unfinished > AT_ONCE {
            self.unfinished = 0;
            self.gpu.idle().await?;
        }
        self.gpu.check()
    }

    /// Notes that the file has a weight, whole or in factors.
    fn note(&mut self, weight: &str, whole: bool) -> Result<()> {
        match self.has.insert(weight.to_owned(), whole) {
            Some(before) if before != whole => Err(Error::bad_checkpoint(format!(
                "{} holds {weight} both whole and in factors. Choose another copy",
                self.file
            ))),
            _ => Ok(()),
        }
    }

    fn foreign(&self, tensor: &TensorInfo) -> Error {
        Error::unsupported(format!(
            "{} is a Control-LoRA for another kind of model: its {} of {:?} does not fit this model's weight. \
             Choose a Control-LoRA made for it",
            self.file, tensor.name, tensor.shape
        ))
    }

    /// Takes a factor that is there whole, and makes its weight where the other one is there too.
    fn take(&mut self, weight: &str, factor: Factor, values: Values) -> Result<()> {
        let mut own = self.waiting.remove(weight).unwrap_or_default();
        own.insert(factor, values);
        if own.len() < 2 {
            self.waiting.insert(weight.to_owned(), own);
            let waiting = self.waiting.values().flat_map(BTreeMap::values);
            if waiting.map(|(_, values)| values.len()).sum::<usize>() > MOST_WAITING {
                return Err(Error::new(
                    Code::OutOfMemory,
                    format!(
                        "{} keeps the factors of its weights apart, so that more must be held than fits. Choose \
                         another copy",
                        self.file
                    ),
                ));
            }
            return Ok(());
        }
        let Some(sizes) = self.layouts.get(weight).map(|(layout, _)| sizes(*layout)) else { return Ok(()) };
        let adapter = Adapter::new(weight, own, sizes)?;
        self.make(weight, sizes, &adapter)
    }

    fn make(&mut self, weight: &str, sizes: [usize; 3], adapter: &Adapter) -> Result<()> {
        let Some(Made { from, to, watch }) = &self.made else { return Ok(()) };
        ops::merge_into(self.gpu, from, to, weight, adapter, watch)?;
        self.unfinished += sizes.iter().fold(2, |bytes, &size| bytes * size as u64);
        Ok(())
    }

    /// Takes from the UNet what the file does not have, and gives the weights.
    async fn finish(mut self) -> Result<Option<Weights>> {
        if let Some(weight) = self.waiting.keys().next() {
            return Err(Error::bad_checkpoint(format!(
                "{} has one of the two factors of {weight} only. Choose another copy",
                self.file
            )));
        }
        for spec in self.part.specs() {
            let name = spec.name.as_str();
            if self.has.contains_key(name) {
                continue;
            }
            match self.unet.get(name) {
                None => {
                    return Err(Error::bad_checkpoint(format!(
                        "{} lacks {name}, which no UNet has. Choose another copy",
                        self.file
                    )));
                }
                Some((Layout::Blocks { .. }, false)) => {
                    let [rows, inner, taps] = sizes(spec.layout);
                    let nothing = [
                        (Factor::Up, (vec![rows as u64, 1], vec![0.0; rows])),
                        (Factor::Down, (vec![1, inner as u64, taps as u64], vec![0.0; inner * taps])),
                    ];
                    let nothing = Adapter::new(name, nothing.into(), [rows, inner, taps])?;
                    self.make(name, [rows, inner, taps], &nothing)?;
                    self.breathe().await?;
                }
                Some(_) => {
                    if let Some(Made { from, to, .. }) = &self.made {
                        to.copy_from(self.gpu, from, name)?;
                    }
                }
            }
        }
        let Some(Made { to, watch, .. }) = self.made else { return Ok(None) };
        match watch.overflowed(self.gpu).await? {
            None => Ok(Some(to)),
            Some(name) => Err(Error::unsupported(format!(
                "with {} {name} has values that f16 does not hold. Choose another Control-LoRA",
                self.file
            ))),
        }
    }
}

/// `[rows][inner][taps]` of a weight.
fn sizes(layout: Layout) -> [usize; 3] {
    match layout {
        Layout::Matrix { rows, inner, taps } | Layout::Blocks { rows, inner, taps, .. } => {
            [rows, inner, taps]
        }
        Layout::Vector { len } => [1, len, 1],
    }
}

impl Target for Merging<'_> {
    type Dest = Dest;

    fn want(&mut self, tensor: &TensorInfo) -> Result<Option<(Layout, Dest)>> {
        let elements = tensor.elements();
        if let Some(&(layout, _)) = self.layouts.get(tensor.name.as_str()) {
            if layout.elements() != Some(elements) {
                return Err(self.foreign(tensor));
            }
            self.note(&tensor.name, true)?;
            return Ok(Some((layout, Dest::Whole(tensor.name.clone()))));
        }
        let is = |end: &str, factor| Some((tensor.name.strip_suffix(end)?, factor));
        let Some((layer, factor)) = is(".up", Factor::Up).or_else(|| is(".down", Factor::Down)) else {
            return Ok(None);
        };
        let weight = format!("{layer}.weight");
        let Some(&(layout, _)) = self.layouts.get(weight.as_str()) else { return Ok(None) };
        if !self.unet.contains_key(weight.as_str()) {
            return Ok(None);
        }
        let [rows, inner, taps] = sizes(layout).map(|size| size as u64);
        let dim = |axis: usize| tensor.shape.get(axis).copied().unwrap_or(0);
        // The rank's place.
        let (rank, other) = match factor {
            Factor::Up => (dim(1), Some(rows)),
            _ => (dim(0), inner.checked_mul(taps)),
        };
        let fits = other.and_then(|other| other.checked_mul(rank)) == Some(elements) && rank > 0;
        let len = usize::try_from(elements).ok().filter(|_| fits && (factor != Factor::Up || dim(0) == rows));
        let Some(len) = len else { return Err(self.foreign(tensor)) };
        self.note(&weight, false)?;
        let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
        Ok(Some((Layout::Vector { len }, Dest::Factor { weight, factor, tensor: name, shape })))
    }

    fn write(&mut self, dest: &Dest, offset: u64, bytes: &[u8]) -> Result<()> {
        let (weight, factor, tensor, shape) = match (dest, &self.made) {
            (Dest::Whole(name), Some(Made { to, .. })) => return to.write(self.gpu, name, offset, bytes),
            (Dest::Whole(_), None) => return Ok(()),
            (Dest::Factor { weight, factor, tensor, shape }, _) => (weight, *factor, tensor, shape),
        };
        if offset == 0 {
            self.values.clear();
        }
        self.values.extend(bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)));
        let len = shape.iter().product::<u64>() as usize;
        if self.values.len() == len.next_multiple_of(4) {
            let mut values = std::mem::take(&mut self.values);
            values.truncate(len);
            check(tensor, shape, &values)?;
            self.take(weight, factor, (shape.clone(), values))?;
        }
        Ok(())
    }

    fn wide(&self, dest: &Dest) -> bool {
        match dest {
            Dest::Whole(name) => self.layouts.get(name.as_str()).is_some_and(|&(_, wide)| wide),
            Dest::Factor { .. } => true,
        }
    }

    fn overflow(&mut self, dest: &Dest, refusal: Error) -> Result<()> {
        match dest {
            Dest::Whole(name) => self.overflowed.push(name.clone()),
            Dest::Factor { .. } => return Err(refusal),
        }
        Ok(())
    }
}
