//! T2I-Adapters beside the UNet. What one makes of its picture is computed once a picture; a small plan adds it, on the GPU, to
//! tensors that the UNet's plan reads, again only where another one begins or ends to act. After diffusers'
//! `StableDiffusionAdapterPipeline`, `StableDiffusionXLAdapterPipeline` and `MultiAdapter`.

use super::controlnet::{Beside, bring_beside_unet, seen};
use super::controls::{ControlFacts, How};
use super::loaded::Loaded;
use super::part::{Module, Part, WeightSource};
use super::pixels::Bytes;
use super::plans::{AdapterPlan, UnetPlan, adapter_weights};
use super::request::Control;
use super::residence::Residence;
use super::weights::Place;
use crate::checkpoint::names;
use crate::error::{Error, Result};
use crate::gpu::{Dtype, Gpu, Options, Recorder, Tensor};
use crate::models::t2i_adapter::{self, Config};
use crate::models::unet;
use crate::ops::sound;
use crate::store::ModelFiles;
use serde_json::Value;
use std::rc::Rc;

/// A T2I-Adapter and where its weights come from.
pub(super) struct T2iAdapter {
    pub key: String,
    source: Box<dyn WeightSource>,
    module: Module<Config>,
}

/// Every T2I-Adapter that is loaded.
#[derive(Default)]
pub(super) struct T2iAdapters(Loaded<T2iAdapter>);

impl T2iAdapters {
    pub fn has(&self, key: &str) -> bool {
        self.0.has(key)
    }

    pub fn list(&self) -> Vec<ControlFacts> {
        let facts = |(key, adapter): (String, Rc<T2iAdapter>)| ControlFacts {
            key,
            how: How::Adapter,
            unit: Some(adapter.module.config.downscale_factor),
            ..Default::default()
        };
        self.0.all().into_iter().map(facts).collect()
    }

    /// # Errors
    /// `invalid-option` for a key that was not loaded.
    pub fn get(&self, key: &str) -> Result<Rc<T2iAdapter>> {
        self.0.get("T2I-Adapter", key)
    }

    /// Lets every T2I-Adapter go but those of `keys`.
    pub fn keep(&self, residence: &Residence, keys: &[String]) {
        self.0.keep_beside_unet(residence, keys);
    }

    /// Loads a T2I-Adapter of this `config.json` beside a UNet and its VAE, and keeps it under `key`.
    ///
    /// # Errors
    /// `unsupported-model` for one of another kind of model, before its weights are fetched; `bad-checkpoint`;
    /// `out-of-memory`; `aborted`; what the files fail with.
    pub async fn load<F: ModelFiles + 'static>(
        &self,
        residence: &Residence,
        key: &str,
        (place, config): (Place<F>, &Value),
        beside: Beside<'_>,
        aborted: &dyn Fn() -> bool,
    ) -> Result<()> {
        let config = Config::from_config(config)?;
        check(place.files.name(), &config, &beside)?;
        let plan = adapter_weights(&config, &beside.options)?;
        plan.check(&residence.gpu.limits)?;
        let part = Rc::new(Part::new("controlnet", names::t2i_adapter, plan.weights()));
        let source = place.into_source();
        bring_beside_unet(residence, &part, source.as_ref(), aborted).await?;
        let module = Module { config, part, options: beside.options };
        self.0.add(key, T2iAdapter { key: key.to_owned(), source, module });
        residence.gpu.check()
    }
}

/// # Errors
/// `unsupported-model` for a T2I-Adapter whose features have no place in the model's UNet.
fn check(name: &str, config: &Config, beside: &Beside) -> Result<()> {
    let theirs = beside.unet.features();
    let blocks = beside.unet.blocks();
    let fits = config.features(beside.vae.scale()).is_some_and(|own| {
        own.len() >= blocks && own.iter().zip(&theirs).take(blocks).all(|(own, theirs)| own == theirs)
    });
    if fits {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "{name} is a T2I-Adapter for another kind of model: its layers are not those of this {} model. Choose a \
         T2I-Adapter made for it.",
        beside.kind
    )))
}

impl T2iAdapter {
    /// Makes the `i`-th of the adapters of `plan` ready: its plan is bound, its picture of the size to draw is seen.
    ///
    /// # Errors
    /// Those of loading; `out-of-memory`; `aborted`.
    pub async fn prepare(
        &self,
        residence: &Residence,
        unet: &unet::Config,
        plan: &mut UnetPlan,
        (i, control, size): (usize, &Control, [u32; 2]),
        aborted: &dyn Fn() -> bool,
    ) -> Result<()> {
        let gpu = &residence.gpu;
        if plan.adapters.get(i).is_none_or(|own| own.key != self.key) {
            plan.adapters.truncate(i);
            self.module.part.fill(gpu, self.source.as_ref(), aborted).await?;
            plan.adapters.push(self.plan(gpu, unet, plan, size).await?);
        }
        let own = &mut plan.adapters[i];
        let shown = Control { scale: 1.0, start: 0.0, end: 1.0, ..control.clone() };
        if own.shown.as_ref() != Some(&shown) {
            self.module.part.fill(gpu, self.source.as_ref(), aborted).await?;
            self.show(gpu, &shown, size, own).await?;
            own.shown = Some(shown);
        }
        own.executable.write(gpu, own.scale, &[control.scale])
    }

    /// What adds its features to those of `plan`, for a picture of this width and height.
    async fn plan(
        &self,
        gpu: &Gpu,
        unet: &unet::Config,
        plan: &UnetPlan,
        size: [u32; 2],
    ) -> Result<AdapterPlan> {
        let Module { part, options, .. } = &self.module;
        let record = |options: &Options| {
            // Their sizes.
            let made = self.features(&mut Recorder::new(options), size)?.1;
            let mut r = Recorder::new(options);
            let own: Vec<_> = made.iter().map(|t| r.input_of(t.dtype, t.n, t.h, t.w, t.c)).collect();
            let into = unet::features(unet, &mut r, plan.size.batch, [plan.size.height, plan.size.width]);
            let scale = r.input_of(Dtype::F32, 1, 1, 1, 1);
            let places = t2i_adapter::add(&mut r, &own, scale, &into, unet.blocks())?;
            let [own, into] = [own, into].map(|list| list.into_iter().take(places).collect::<Vec<_>>());
            Ok((r.finish(), (own, into, scale)))
        };
        let (recorded, (features, into, scale)) = sound(gpu, options, record).await?;
        let theirs = plan.inputs.features.iter();
        let shared: Vec<_> =
            into.iter().zip(theirs).map(|(&t, &theirs)| (t, &plan.executable, theirs)).collect();
        let executable = recorded.instantiate_over(gpu, &*part.weights()?, &shared)?;
        Ok(AdapterPlan { key: self.key.clone(), executable, features, scale, shown: None })
    }

    /// Computes what it makes of a picture, into its plan.
    async fn show(&self, gpu: &Gpu, control: &Control, size: [u32; 2], own: &AdapterPlan) -> Result<()> {
        let Module { config, part, options } = &self.module;
        let picture = seen(gpu, control, size).await?;
        let record = |options: &Options| {
            let mut r = Recorder::new(options);
            let (image, features) = self.features(&mut r, size)?;
            features.iter().for_each(|&feature| r.output(feature));
            Ok((r.finish(), (image, features)))
        };
        let (plan, (image, features)) = sound(gpu, options, record).await?;
        let executable = plan.instantiate(gpu, &*part.weights()?)?;
        let colours: Vec<u8> = match config.in_channels {
            1 => Bytes::grey(&picture).data,
            _ => picture.data.chunks_exact(4).flat_map(|p| &p[..3]).copied().collect(),
        };
        let pixels: Vec<f32> = colours.iter().map(|&v| f32::from(v) / 255.0).collect();
        let [channels, factor] = [config.in_channels, config.downscale_factor].map(|n| n as usize);
        let squares = t2i_adapter::unshuffle(&pixels, picture.width as usize, channels, factor);
        executable.write(gpu, image, &squares)?;
        executable.run(gpu);
        let mut places = features.iter().zip(&own.features);
        places.try_for_each(|(&feature, &to)| executable.copy(gpu, feature, &own.executable, to))
    }

    /// Records what it makes of a picture of this width and height: its input and its features.
    fn features(&self, r: &mut Recorder, [width, height]: [u32; 2]) -> Result<(Tensor, Vec<Tensor>)> {
        let image = t2i_adapter::input(&self.module.config, r, [height, width]);
        Ok((image, t2i_adapter::forward(&self.module.config, r, image)?))
    }
}
