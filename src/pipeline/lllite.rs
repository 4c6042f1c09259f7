//! ControlNet-LLLites inside the UNet. What one sees of its picture is computed once a picture; its modules are a part of the
//! UNet's plan, in which a number for each says how strongly it acts, written again only where that changes. After
//! kohya-ss/sd-scripts and ControlNet-LLLite-ComfyUI: it acts on every text of a step, the negative prompt too, and of several
//! on one layer the next one reads what the one before made.

use super::acting::ActingLllite;
use super::controlnet::{Beside, bring_beside_unet, seen};
use super::controls::{ControlFacts, How};
use super::loaded::Loaded;
use super::part::{Module, Part, WeightSource};
use super::plans::{UnetPlan, record, unet_with_lllite};
use super::request::Control;
use super::residence::Residence;
use super::weights::Place;
use crate::checkpoint::lora::Names;
use crate::checkpoint::names;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Options, Recorder};
use crate::models::lllite::{self, Config};
use crate::ops::sound;
use crate::store::ModelFiles;
use serde_json::Value;
use std::rc::Rc;

/// A ControlNet-LLLite and where its weights come from.
pub(super) struct Lllite {
    source: Box<dyn WeightSource>,
    module: Module<Rc<Config>>,
}

/// Every ControlNet-LLLite that is loaded.
#[derive(Default)]
pub(super) struct Lllites(Loaded<Lllite>);

impl Lllites {
    pub fn has(&self, key: &str) -> bool {
        self.0.has(key)
    }

    pub fn list(&self) -> Vec<ControlFacts> {
        let facts = |(key, lllite): (String, Rc<Lllite>)| ControlFacts {
            key,
            how: How::Lllite,
            unit: Some(lllite.module.config.unit()),
            ..Default::default()
        };
        self.0.all().into_iter().map(facts).collect()
    }

    /// # Errors
    /// `invalid-option` for a key that was not loaded.
    pub fn get(&self, key: &str) -> Result<Rc<Lllite>> {
        self.0.get("ControlNet-LLLite", key)
    }

    /// Lets every ControlNet-LLLite go but those of `keys`.
    pub fn keep(&self, residence: &Residence, keys: &[String]) {
        self.0.keep_beside_unet(residence, keys);
    }

    /// Loads a ControlNet-LLLite of this `config.json` beside a UNet and its VAE, and keeps it under `key`; its weights in f16.
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
        let config = read(config, residence, &beside).map_err(|e| {
            let kind = beside.kind;
            let message = format!(
                "{} is no ControlNet-LLLite for this {kind} model: {}. Choose a ControlNet-LLLite made for it.",
                place.files.name(),
                e.message.trim_end_matches('.')
            );
            Error::new(e.code, message)
        })?;
        let part = Rc::new(Part::new("controlnet", names::lllite, &config.weights()));
        let source = place.into_source();
        bring_beside_unet(residence, &part, source.as_ref(), aborted).await?;
        let module = Module { config: Rc::new(config), part, options: in_f16(&beside) };
        self.0.add(key, Lllite { source, module });
        residence.gpu.check()
    }
}

/// How what it sees is recorded, however the UNet's matrices lie.
fn in_f16(beside: &Beside) -> Options {
    Options { weights: None, ..beside.options }
}

/// # Errors
/// `bad-checkpoint` for a file that is not whole, `unsupported-model` for one whose modules have no place in the UNet: both
/// name a tensor; `out-of-memory`.
fn read(config: &Value, residence: &Residence, beside: &Beside) -> Result<Config> {
    let names = Names::new(residence.unet.specs().iter().map(|spec| (0, spec.name.as_str())));
    let config = Config::from_config(config, &names, beside.vae.scale())?;
    let plan = unet_with_lllite(beside.unet, &beside.options, &config)?;
    config.check_asked(plan.weights())?;
    plan.check(&residence.gpu.limits)?;
    let plan = record(&in_f16(beside), |r| {
        let image = r.input(1, config.unit(), config.unit(), 3);
        lllite::see(&config, r, image).map(|_| ())
    })?;
    plan.check(&residence.gpu.limits)?;
    Ok(config)
}

impl Lllite {
    /// What acts in a plan of the UNet; its weights come to the GPU.
    ///
    /// # Errors
    /// Those of loading; `out-of-memory`; `aborted`.
    pub async fn acting(&self, gpu: &Gpu, aborted: &dyn Fn() -> bool) -> Result<ActingLllite> {
        let Module { config, part, .. } = &self.module;
        part.fill(gpu, self.source.as_ref(), aborted).await?;
        Ok(ActingLllite { config: config.clone(), weights: part.weights()? })
    }

    /// Makes the `i`-th of the ControlNet-LLLites of `plan` ready: its picture of the size to draw is seen.
    ///
    /// # Errors
    /// `out-of-memory`; `device-lost`.
    pub async fn prepare(
        &self,
        gpu: &Gpu,
        plan: &mut UnetPlan,
        (i, control, size): (usize, &Control, [u32; 2]),
    ) -> Result<()> {
        let control = Control { scale: 1.0, start: 0.0, end: 1.0, ..control.clone() };
        if plan.shown[i].as_ref() != Some(&control) {
            self.show(gpu, &control, size, (plan, i)).await?;
            plan.shown[i] = Some(control);
        }
        Ok(())
    }

    /// Computes what it sees of a picture, into the plan.
    async fn show(
        &self,
        gpu: &Gpu,
        control: &Control,
        size: [u32; 2],
        (unet, i): (&UnetPlan, usize),
    ) -> Result<()> {
        let Module { config, part, options } = &self.module;
        let picture = seen(gpu, control, size).await?;
        let record = |options: &Options| {
            let mut r = Recorder::new(options);
            let image = r.input(1, picture.height, picture.width, 3);
            let made = lllite::see(config, &mut r, image)?;
            made.iter().for_each(|&made| r.output(made));
            Ok((r.finish(), (image, made)))
        };
        let (plan, (image, made)) = sound(gpu, options, record).await?;
        let executable = plan.instantiate(gpu, &*part.weights()?)?;
        let colours = picture.data.chunks_exact(4).flat_map(|p| &p[..3]);
        let pixels: Vec<f32> = colours.map(|&v| f32::from(v) / 127.5 - 1.0).collect();
        executable.write(gpu, image, &pixels)?;
        executable.run(gpu);
        let mut places = made.iter().zip(&unet.lllites.seen[i]);
        places.try_for_each(|(&made, &to)| executable.copy(gpu, made, &unet.executable, to))
    }
}
