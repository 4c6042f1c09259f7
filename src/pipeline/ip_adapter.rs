//! IP-Adapters: pictures that the UNet sees beside the text. An image encoder makes features of a picture, the adapter
//! keys and values of these for every attention to the text: once a picture, before the UNet is there. They wait in
//! memory and are inputs of the UNet's plan, so that the weights that made them need not stay on the GPU. After diffusers'
//! `IPAdapterMixin` and `prepare_ip_adapter_image_embeds`.

use super::file_weights::TableSource;
use super::loaded::Loaded;
use super::part::{Module, Part, WeightSource};
use super::pixels::{Bytes, Filter};
use super::plans::record;
use super::request::{IpAdapter as Asked, Picture};
use super::residence::Residence;
use super::weights::Place;
use crate::checkpoint::kind::kind;
use crate::checkpoint::{Bits, ReadAt, names};
use crate::error::{Error, Result, check_aborted};
use crate::gpu::{Dtype, Gpu, Options, Recorder};
use crate::models::ip_adapter::{self, Config, Shapes};
use crate::models::{clip_vision, unet};
use crate::ops::sound;
use crate::store::{FileAt, ModelFiles};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Where an image encoder is: a folder (its own, or a model's with `image_encoder/`), or one file.
pub struct ImageEncoderFiles<'a, F> {
    /// Two adapters with one key have one encoder.
    pub key: &'a str,
    pub files: Rc<F>,
}

/// # Errors
/// `invalid-option` naming what is wrong with a request's IP-Adapters. Gives those that act.
pub(super) fn asked(adapters: &[Asked], loaded: &[String]) -> Result<Vec<Asked>> {
    for adapter in adapters {
        if !loaded.contains(&adapter.key) {
            return Err(Error::invalid(format!("IP-Adapter {} was not loaded.", adapter.key)));
        }
        if adapter.images.is_empty() {
            return Err(Error::invalid("An IP-Adapter must have an image: give one, or several as images."));
        }
        adapter.images.iter().try_for_each(|image| image.check("image of ipAdapters"))?;
        if !adapter.scale.is_finite() {
            return Err(Error::invalid("scale of ipAdapters must be a number, such as 1."));
        }
    }
    Ok(adapters.iter().filter(|adapter| adapter.scale != 0.0).cloned().collect())
}

/// By the attention's scope, `[token][2 * channels]`: keys, then values.
type Keys = BTreeMap<String, Vec<f32>>;

/// What one adapter of a request sees.
pub(super) struct SeenPictures {
    /// Of all its pictures.
    tokens: u32,
    pictures: Vec<Rc<Keys>>,
    /// What stands for each picture beside a negative prompt; `None` without guidance.
    blank: Option<Rc<Keys>>,
    scale: f32,
}

impl SeenPictures {
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Keys and values for the attention of this scope, the values times the scale; `blank`: beside a negative prompt.
    pub fn keys(&self, scope: &str, blank: bool) -> Vec<f32> {
        let count = self.pictures.len();
        let each: Vec<&Rc<Keys>> = match &self.blank {
            Some(own) if blank => vec![own; count],
            _ => self.pictures.iter().collect(),
        };
        let each: Vec<&Vec<f32>> = each.into_iter().filter_map(|keys| keys.get(scope)).collect();
        let tokens = (self.tokens as usize / count.max(1)).max(1);
        let mut out = Vec::with_capacity(each.iter().map(|keys| keys.len()).sum());
        for token in each.iter().flat_map(|keys| keys.chunks_exact((keys.len() / tokens).max(1))) {
            let (keys, values) = token.split_at(token.len() / 2);
            out.extend_from_slice(keys);
            out.extend(values.iter().map(|v| v * self.scale));
        }
        out
    }
}

/// An image encoder and where its weights come from.
struct ImageEncoder {
    key: String,
    source: Box<dyn WeightSource>,
    module: Module<clip_vision::Config>,
}

/// An IP-Adapter and where its weights come from.
struct IpAdapter {
    key: String,
    source: Box<dyn WeightSource>,
    module: Module<Config>,
    /// A resampler's queries.
    latents: Vec<f32>,
    encoder: Rc<ImageEncoder>,
    /// Of the last pictures, the latest last; `None` is no picture.
    seen: RefCell<Vec<(Option<Picture>, Rc<Keys>)>>,
}

/// Every IP-Adapter that is loaded.
#[derive(Default)]
pub(super) struct IpAdapters(Loaded<IpAdapter>);

impl IpAdapters {
    pub fn has(&self, key: &str) -> bool {
        self.0.has(key)
    }

    pub fn keys(&self) -> Vec<String> {
        self.0.all().into_iter().map(|(key, _)| key).collect()
    }

    /// Lets every IP-Adapter go but those of `keys`.
    pub fn keep(&self, keys: &[String]) {
        self.0.keep(keys);
    }

    /// Loads an IP-Adapter and its image encoder beside a UNet, and keeps it under `key`.
    ///
    /// # Errors
    /// `unsupported-model` for one of another kind or of another kind of model, or with another image encoder, before
    /// its weights are fetched; `bad-checkpoint`; `out-of-memory`; `aborted`; what the files fail with.
    pub async fn load<R: ReadAt + 'static, F: ModelFiles + 'static>(
        &self,
        residence: &Residence,
        key: &str,
        (name, file): (&str, R),
        encoder: ImageEncoderFiles<'_, F>,
        unet: &Module<unet::Config>,
        aborted: &dyn Fn() -> bool,
    ) -> Result<()> {
        if self.has(key) {
            return Ok(());
        }
        // As text encoders: few tokens and one run a picture.
        let bits = unet.options.weights.map(|_| Bits::Q8);
        let options = Options { activations: Dtype::F32, weights: bits, ..unet.options };
        let source = TableSource::open(name, file).await?;
        let config = read(&source, &unet.config)?;
        let latents = match source.table.get("image_proj.latents") {
            Some(tensor) if tensor.bytes() <= 1 << 24 => source.table.values(&source.file, tensor).await?,
            _ => Vec::new(),
        };
        if latents.iter().any(|v| !v.is_finite()) {
            return Err(Error::bad_checkpoint(format!(
                "tensor \"image_proj.latents\" of {name} has a value that is no number. Choose another copy"
            )));
        }
        let all = self.0.all();
        let known = all.iter().find(|(_, a)| a.encoder.key == encoder.key).map(|(_, a)| a.encoder.clone());
        let encoder = match known {
            Some(encoder) => encoder,
            None => Rc::new(ImageEncoder::load(residence, encoder, options, aborted).await?),
        };
        fits(name, &config, &encoder.module.config)?;
        let plan = record(&options, |r| ip_adapter::record(&config, &encoder.module.config, r).map(|_| ()))?;
        plan.check(&residence.gpu.limits)?;
        let part = Rc::new(Part::new("ip_adapter", names::ip_adapter, plan.weights()));
        residence.admit(&encoder.module.part, encoder.source.as_ref(), aborted).await?;
        residence.admit(&part, &source, aborted).await?;
        let module = Module { config, part, options };
        let (source, seen) = (Box::new(source), RefCell::default());
        self.0.add(key, IpAdapter { key: key.to_owned(), source, module, latents, encoder, seen });
        residence.gpu.check()
    }

    /// What the adapters of a request see; `guided`: beside a negative prompt too. Where memory is low, nothing else is on
    /// the GPU meanwhile, and nothing of this afterwards.
    ///
    /// # Errors
    /// Those of loading; `out-of-memory`; `aborted`.
    pub async fn see(
        &self,
        residence: &Residence,
        adapters: &[Asked],
        guided: bool,
        aborted: &dyn Fn() -> bool,
    ) -> Result<Vec<SeenPictures>> {
        let mut all = Vec::with_capacity(adapters.len());
        for asked in adapters {
            let adapter = self.0.get("IP-Adapter", &asked.key)?;
            let mut wanted: Vec<Option<&Picture>> = asked.images.iter().map(Some).collect();
            wanted.extend(guided.then_some(None));
            let mut keys = adapter.see(residence, &wanted, aborted).await?;
            let blank = if guided { keys.pop() } else { None };
            let tokens = adapter.module.config.tokens(&adapter.encoder.module.config);
            let tokens = tokens * keys.len() as u32;
            all.push(SeenPictures { tokens, pictures: keys, blank, scale: asked.scale });
        }
        Ok(all)
    }
}

/// What the file of an IP-Adapter is.
fn read<R: ReadAt>(source: &TableSource<R>, unet: &unet::Config) -> Result<Config> {
    let TableSource { table, name, .. } = source;
    let names = table.tensors.iter().map(|t| t.name.as_str());
    match kind(names) {
        Some(kind) if kind.is_of("`ipAdapters`") => {}
        Some(kind) => return Err(Error::unsupported(format!("{name} is {kind}, not an IP-Adapter"))),
        None => {
            return Err(Error::unsupported(format!(
                "{name} is no IP-Adapter, or one of a kind unknown here"
            )));
        }
    }
    let shapes: Shapes = table.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect();
    Config::of(&shapes, unet).map_err(|e| Error::new(e.code, format!("{name}: {}", e.message)))
}

/// # Errors
/// `unsupported-model` for another image encoder than the one that the adapter was made with.
fn fits(name: &str, adapter: &Config, encoder: &clip_vision::Config) -> Result<()> {
    let (_, width) = adapter.given(encoder);
    if width == adapter.image_dim {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "{name} reads pictures as {} numbers, and this image encoder gives {width}. Give as imageEncoder the one \
         that it was made with: of h94/IP-Adapter models/image_encoder (ViT-H) for SD 1.5 and for files whose \
         names say vit-h, sdxl_models/image_encoder (ViT-bigG) for ip-adapter_sdxl",
        adapter.image_dim
    )))
}

/// The file of an image encoder's weights, and its configuration where there is one.
async fn encoder_files<F: ModelFiles>(files: &Rc<F>) -> Result<(FileAt<F>, Option<Value>)> {
    if let Some(path) = files.single_file() {
        return Ok((FileAt::new(files.clone(), path), None));
    }
    let place = Place::find(files.clone(), "image_encoder").await?;
    let config = place.config().await?;
    let folder = if place.folder.is_empty() { String::new() } else { format!("{}/", place.folder) };
    for name in ["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"] {
        let path = format!("{folder}{name}");
        if files.exists(&path).await? {
            return Ok((FileAt::new(files.clone(), path), Some(config)));
        }
    }
    Err(Error::unsupported(format!(
        "{} has no {folder}model.safetensors. Choose the folder or the file of a CLIP image encoder",
        files.name()
    )))
}

impl ImageEncoder {
    /// Reads what the encoder is, and not its weights yet.
    async fn load<F: ModelFiles + 'static>(
        residence: &Residence,
        ImageEncoderFiles { key, files }: ImageEncoderFiles<'_, F>,
        options: Options,
        aborted: &dyn Fn() -> bool,
    ) -> Result<ImageEncoder> {
        check_aborted(aborted)?;
        let (file, config) = encoder_files(&files).await?;
        let source = TableSource::open(files.name(), file).await?;
        let config = match config {
            Some(config) => config,
            None => config_of(&source)?,
        };
        let config = clip_vision::Config::from_config(&config)?;
        let plan = record(&options, |r| {
            let inputs = clip_vision::Inputs::new(&config, r);
            let last = clip_vision::hidden_state(&config, r, &inputs, config.num_hidden_layers)?;
            let first = r.input_u32(1, 1);
            clip_vision::image_embeds(&config, r, last, first).map(|_| ())
        })?;
        plan.check(&residence.gpu.limits)?;
        let part = Rc::new(Part::new("image_encoder", names::clip_vision, plan.weights()));
        let module = Module { config, part, options };
        Ok(ImageEncoder { key: key.to_owned(), source: Box::new(source), module })
    }

    /// What adapters are given of pictures: their embeddings, or with `hidden` the last hidden state but one. `None` is
    /// pixels of zeros.
    async fn features(
        &self,
        gpu: &Gpu,
        pictures: &[Option<&Picture>],
        hidden: bool,
        aborted: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<f32>>> {
        let Module { config, part, options } = &self.module;
        let record = |options: &Options| {
            let mut r = Recorder::new(options);
            let inputs = clip_vision::Inputs::new(config, &mut r);
            let layers = config.num_hidden_layers - u32::from(hidden);
            let state = clip_vision::hidden_state(config, &mut r, &inputs, layers)?;
            let first = r.input_u32(1, 1);
            let out = if hidden { state } else { clip_vision::image_embeds(config, &mut r, state, first)? };
            r.output(out);
            Ok((r.finish(), (inputs, first, out)))
        };
        let (plan, (inputs, first, out)) = sound(gpu, options, record).await?;
        let executable = plan.instantiate(gpu, &*part.weights()?)?;
        executable.write_u32(gpu, inputs.places, &(0..config.tokens()).collect::<Vec<_>>())?;
        if !hidden {
            executable.write_u32(gpu, first, &[0])?;
        }
        let mut all = Vec::with_capacity(pictures.len());
        for picture in pictures {
            check_aborted(aborted)?;
            let size = config.image_size as usize;
            let pixels = picture.map_or_else(|| vec![0.0; 3 * size * size], |p| clip_pixels(p, size));
            executable.write(gpu, inputs.patches, &config.patches(&pixels))?;
            executable.run(gpu);
            all.push(executable.read(gpu, out).await?);
        }
        Ok(all)
    }
}

/// `config.json` of an image encoder's file.
fn config_of<R: ReadAt>(source: &TableSource<R>) -> Result<Value> {
    let shapes: BTreeMap<_, _> = (source.table.tensors.iter())
        .filter_map(|t| Some((names::clip_vision(&t.name)?.into_owned(), &t.shape)))
        .collect();
    if !shapes.contains_key("embeddings.patch_embedding.weight") {
        let what = kind(source.table.tensors.iter().map(|t| t.name.as_str()));
        let what = what.map_or_else(|| "is no CLIP image encoder".to_owned(), |kind| format!("is {kind}"));
        return Err(Error::unsupported(format!(
            "{} {what}. Give as imageEncoder the one of the IP-Adapter, such as h94/IP-Adapter's \
             models/image_encoder/model.safetensors",
            source.name
        )));
    }
    let dim = |name: &str, axis: usize| shapes.get(name).and_then(|s| s.get(axis)).copied().unwrap_or(0);
    let layers = (0..256).take_while(|i| shapes.contains_key(&format!("encoder.layers.{i}.mlp.fc1.weight")));
    Ok(clip_vision::Config::of_shapes(dim, layers.count() as u64))
}

impl IpAdapter {
    /// Of the last pictures that are kept.
    const MOST: usize = 6;

    /// Keys and values of pictures; `None` is no picture.
    async fn see(
        &self,
        residence: &Residence,
        wanted: &[Option<&Picture>],
        aborted: &dyn Fn() -> bool,
    ) -> Result<Vec<Rc<Keys>>> {
        let known = |of: &Option<&Picture>| {
            let seen = self.seen.borrow();
            seen.iter().find(|(picture, _)| picture.as_ref() == *of).map(|(_, keys)| keys.clone())
        };
        let found: Vec<_> = wanted.iter().map(known).collect();
        let new = wanted.iter().zip(&found).filter(|(_, found)| found.is_none());
        let new: Vec<Option<&Picture>> = new.map(|(of, _)| *of).collect();
        let mut made = match new.is_empty() {
            true => Vec::new(),
            false => self.make(residence, &new, aborted).await?,
        }
        .into_iter();
        let all: Vec<Rc<Keys>> =
            found.into_iter().filter_map(|found| found.or_else(|| made.next())).collect();
        let mut seen = self.seen.borrow_mut();
        for (of, keys) in wanted.iter().zip(&all) {
            seen.retain(|(picture, _)| picture.as_ref() != *of);
            seen.push((of.cloned(), keys.clone()));
        }
        let over = seen.len().saturating_sub(Self::MOST.max(wanted.len()));
        seen.drain(..over);
        Ok(all)
    }

    async fn make(
        &self,
        residence: &Residence,
        pictures: &[Option<&Picture>],
        aborted: &dyn Fn() -> bool,
    ) -> Result<Vec<Rc<Keys>>> {
        let gpu = &residence.gpu;
        let Module { config, part, options } = &self.module;
        let encoder = &self.encoder;
        residence.make_room().await?;
        let hidden = config.sees_hidden_states();
        // The embedding of no picture is zeros, and no encoder is asked for it.
        let shown = pictures.iter().filter(|picture| hidden || picture.is_some());
        let shown: Vec<Option<&Picture>> = shown.copied().collect();
        encoder.module.part.fill(gpu, encoder.source.as_ref(), aborted).await?;
        let features = encoder.features(gpu, &shown, hidden, aborted).await?;
        if residence.low {
            encoder.module.part.release();
        }
        part.fill(gpu, self.source.as_ref(), aborted).await?;
        let record = |options: &Options| {
            let mut r = Recorder::new(options);
            let recorded = ip_adapter::record(config, &encoder.module.config, &mut r)?;
            Ok((r.finish(), recorded))
        };
        let (plan, recorded) = sound(gpu, options, record).await?;
        let executable = plan.instantiate(gpu, &*part.weights()?)?;
        if let Some(latents) = recorded.latents {
            executable.write(gpu, latents, &self.latents)?;
        }
        let mut features = features.into_iter();
        let mut all = Vec::with_capacity(pictures.len());
        for picture in pictures {
            let own = if hidden || picture.is_some() { features.next() } else { None };
            let own =
                own.unwrap_or_else(|| vec![0.0; recorded.image.rows() as usize * recorded.image.c as usize]);
            executable.write(gpu, recorded.image, &own)?;
            executable.run(gpu);
            let mut keys = Keys::new();
            for (scope, tensor) in &recorded.keys {
                let values = executable.read(gpu, *tensor).await?;
                if values.iter().any(|v| !v.is_finite()) {
                    return Err(Error::unsupported(format!(
                        "What {} makes of a picture overflowed. Choose another IP-Adapter or another imageEncoder.",
                        self.key
                    )));
                }
                keys.insert(scope.clone(), values);
            }
            all.push(Rc::new(keys));
        }
        drop(executable);
        if residence.low {
            part.release();
            gpu.idle().await?;
        }
        Ok(all)
    }
}

/// `CLIPImageProcessor`: the shorter side made `size` pixels long (bicubic), the middle cut out, and each channel about 0
/// with a spread of 1. `[3][size][size]`.
fn clip_pixels(picture: &Picture, size: usize) -> Vec<f32> {
    const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
    const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];
    /// Of the longer side, as many times the shorter: no more is ever seen of it, and none of this is.
    const LONGEST: usize = 4;
    let mut picture = Bytes::of(picture);
    let (w, h) = (picture.w.min(LONGEST * picture.h), picture.h.min(LONGEST * picture.w));
    if (w, h) != (picture.w, picture.h) {
        picture = picture.crop((picture.w - w) / 2, (picture.h - h) / 2, w, h);
    }
    let (w, h) = if w <= h { (size, size * h / w) } else { (size * w / h, size) };
    let seen = picture.resized_by(Filter::Bicubic, w, h).crop((w - size) / 2, (h - size) / 2, size, size);
    let channel = |c: usize| {
        let values = seen.data.iter().skip(c).step_by(4);
        values.map(move |&v| (f32::from(v) / 255.0 - MEAN[c]) / STD[c])
    };
    (0..3).flat_map(channel).collect()
}
