//! ControlNets beside the UNet. Each is a plan of its own whose results are added, on the GPU, to tensors that the UNet's
//! plan reads; what it sees of its picture is computed once a picture, not once a step. After diffusers'
//! `StableDiffusionControlNetPipeline` and `MultiControlNetModel`.

use super::pixels::Bytes;
use super::residence::{FilesSource, Part, Place, WeightSource};
use super::text_to_image::unet_inputs;
use super::{DiffusionPipeline, GenerateOptions, Module, Picture, UnetPlan, decode, load};
use crate::checkpoint::names;
use crate::error::{Error, Result};
use crate::gpu::{Dtype, Executable, Gpu, Recorder, Tensor};
use crate::models::controlnet::{self, Config};
use crate::models::unet::Inputs;
use crate::ops;
use crate::samplers::get_timestep_embedding;
use crate::store::ModelFiles;
use std::rc::Rc;

/// What is made of a picture before a ControlNet sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Preprocess {
    /// It is one already.
    #[default]
    None,
    /// White edges on black, found at the size to draw.
    Canny { low: f64, high: f64 },
}

/// One ControlNet of a request.
#[derive(Clone, Debug)]
pub struct Control {
    /// Under which [`DiffusionPipeline::load_controlnet`] keeps it.
    pub key: String,
    /// Of any size: it is resized to the size to draw, as diffusers does.
    pub image: Picture,
    pub preprocess: Preprocess,
    /// `controlnet_conditioning_scale`.
    pub scale: f32,
    /// `control_guidance_start` and `control_guidance_end`: the share of the steps during which it acts.
    pub start: f64,
    pub end: f64,
}

/// A ControlNet and where its weights come from.
pub(super) struct LoadedControlNet {
    key: String,
    source: Box<dyn WeightSource>,
    module: Module<Config>,
}

impl LoadedControlNet {
    /// Its weights leave the GPU, to be streamed again when they are needed.
    pub fn release(&self) {
        self.module.part.release();
    }
}

/// A ControlNet's plan, bound to the UNet's residuals.
pub(super) struct ControlPlan {
    key: String,
    /// The first of the UNet's pictures that it adds to: in guess mode the one without prompt is left alone.
    first: u32,
    executable: Executable,
    pub inputs: Inputs,
    cond: Tensor,
    scales: Tensor,
    /// What `cond` was computed from.
    shown: Option<(Picture, Preprocess)>,
}

/// Canny's edges of a picture, white on black, of its size: as OpenCV's `Canny(picture, low, high)`.
///
/// # Errors
/// `invalid-option` for thresholds that are no numbers or a picture without pixels; `out-of-memory`; `device-lost`.
pub async fn canny(gpu: &Gpu, picture: &Picture, low: f64, high: f64) -> Result<Picture> {
    if !low.is_finite() || !high.is_finite() {
        return Err(Error::invalid(
            "The thresholds low and high of canny must be numbers, such as 100 and 200.",
        ));
    }
    picture.check("image")?;
    let edges = ops::canny(gpu, &picture.data, picture.width, low, high).await?;
    let white = |&edge: &bool| if edge { [255; 4] } else { [0, 0, 0, 255] };
    Ok(Picture { data: edges.iter().flat_map(white).collect(), ..*picture })
}

impl DiffusionPipeline {
    /// Whether [`load_controlnet`](Self::load_controlnet) was given this key.
    pub fn has_controlnet(&self, key: &str) -> bool {
        self.controlnets.borrow().iter().any(|c| c.key == key)
    }

    fn controlnet(&self, key: &str) -> Result<Rc<LoadedControlNet>> {
        let found = self.controlnets.borrow().iter().find(|c| c.key == key).cloned();
        found.ok_or_else(|| Error::invalid(format!("ControlNet {key} was not loaded.")))
    }

    /// Lets every ControlNet go but those of `keys`.
    pub fn keep_controlnets(&self, keys: &[String]) {
        if self.controlnets.borrow().iter().any(|c| !keys.contains(&c.key)) {
            // Its plans are bound to their weights.
            drop(self.unet_plan.take());
            self.controlnets.borrow_mut().retain(|c| keys.contains(&c.key));
        }
    }

    /// Loads a ControlNet, a diffusers folder or (as `store::SingleFile` shows it) one file, and keeps it under `key`,
    /// for `GenerateOptions::controlnets`. Its weights lie on the GPU as the UNet's do.
    ///
    /// # Errors
    /// `unsupported-model` for one of another kind of model, before its weights are fetched; `bad-checkpoint`;
    /// `out-of-memory`; `aborted`; what `files` fails with.
    pub async fn load_controlnet<F: ModelFiles + 'static>(
        &self,
        key: &str,
        files: Rc<F>,
        aborted: &dyn Fn() -> bool,
    ) -> Result<()> {
        if self.has_controlnet(key) {
            return Ok(());
        }
        let place = Place::find(files.clone(), "controlnet").await?;
        let config = Config::from_config(&place.config().await?)?;
        self.check_kind(files.name(), &config)?;
        let options = self.unet.options;
        let plan = load::record(&options, |r| {
            let side = load::SMALL * config.scale();
            let image = r.input(1, side, side, config.conditioning_channels);
            let cond = controlnet::cond_embedding(&config, r, image)?;
            let inputs = unet_inputs(&config.unet, r, 1, load::SMALL, load::SMALL, 1);
            controlnet::forward(&config, r, &inputs, cond).map(|_| ())
        })?;
        plan.check(&self.gpu.limits)?;
        let part = Part::new("controlnet", names::unet, plan.weights());
        // Where there is a file of half the size, that one: on the GPU the weights are as small anyhow.
        let source = Box::new(FilesSource { files, other: Some(place), variant: Some("fp16".to_owned()) });
        if self.low {
            part.verify(&self.gpu, source.as_ref(), aborted).await?;
        } else {
            part.fill(&self.gpu, source.as_ref(), aborted).await?;
        }
        let loaded =
            LoadedControlNet { key: key.to_owned(), source, module: Module { config, part, options } };
        self.controlnets.borrow_mut().push(Rc::new(loaded));
        self.gpu.check()
    }

    /// # Errors
    /// `unsupported-model` for a ControlNet that is not of this model's kind.
    fn check_kind(&self, name: &str, config: &Config) -> Result<()> {
        let (own, unet) = (&config.unet, &self.unet.config);
        let facts = [
            ("text", own.cross_attention_dim == unet.cross_attention_dim),
            ("layers", own.skips() == unet.skips()),
            ("additional conditions", own.text_time == unet.text_time),
            ("latents", own.in_channels == self.vae.latent_channels() && config.scale() == self.vae.scale()),
            ("colours", config.conditioning_channels == 3),
        ];
        match facts.iter().find(|(_, fits)| !fits) {
            None => Ok(()),
            Some((what, _)) => Err(Error::unsupported(format!(
                "{name} is a ControlNet for another kind of model: its {what} are not those of this {} model. Choose a \
                 ControlNet made for it.",
                self.model.kind.as_str()
            ))),
        }
    }

    /// # Errors
    /// `invalid-option` naming what is wrong with a request's ControlNets.
    pub(super) fn check_controls(&self, options: &GenerateOptions) -> Result<()> {
        for control in &options.controlnets {
            self.controlnet(&control.key)?;
            control.image.check("image of controlnets")?;
            if !control.scale.is_finite() {
                return Err(Error::invalid("scale of controlnets must be a number, such as 1."));
            }
            let (start, end) = (control.start, control.end);
            if !(0.0 <= start && start < end && end <= 1.0) {
                return Err(Error::invalid(format!(
                    "A ControlNet from start = {start} to end = {end}: choose shares of the steps from 0 to 1, the start \
                     before the end."
                )));
            }
        }
        Ok(())
    }

    /// Whether the request's ControlNets work in guess mode; one that pools its conditions asks for it.
    fn guesses(&self, options: &GenerateOptions) -> Result<bool> {
        match options.controlnets.first() {
            Some(first) => {
                Ok(options.guess_mode || self.controlnet(&first.key)?.module.config.global_pool_conditions)
            }
            None => Ok(false),
        }
    }

    /// Makes `plan`, which has residuals, ready for the request's ControlNets: their weights are on the GPU, their plans
    /// bound, their pictures seen.
    ///
    /// # Errors
    /// Those of loading; `out-of-memory`; `aborted`.
    pub(super) async fn prepare_controls(
        &self,
        plan: &mut UnetPlan,
        options: &GenerateOptions,
        guided: bool,
        aborted: &dyn Fn() -> bool,
    ) -> Result<()> {
        let guess = self.guesses(options)?;
        let first = u32::from(guess && guided);
        plan.controls.truncate(options.controlnets.len());
        for (i, control) in options.controlnets.iter().enumerate() {
            let loaded = self.controlnet(&control.key)?;
            let Module { config, part, .. } = &loaded.module;
            part.fill(&self.gpu, loaded.source.as_ref(), aborted).await?;
            if plan.controls.get(i).is_none_or(|c| c.key != control.key || c.first != first) {
                plan.controls.truncate(i);
                plan.controls.push(self.control_plan(&loaded, plan, first)?);
            }
            let own = &mut plan.controls[i];
            let shown = (control.image.clone(), control.preprocess);
            if own.shown.as_ref() != Some(&shown) {
                let picture = self.control_picture(control, options).await?;
                self.show(&loaded, &picture, own)?;
                own.shown = Some(shown);
            }
            own.executable.write(&self.gpu, own.scales, &config.scales(control.scale, guess))?;
        }
        self.gpu.check()
    }

    /// A ControlNet's plan beside `plan`.
    fn control_plan(&self, loaded: &LoadedControlNet, plan: &UnetPlan, first: u32) -> Result<ControlPlan> {
        let Module { config, part, options } = &loaded.module;
        let mut r = Recorder::new(options);
        let batch = plan.batch - first;
        let inputs = unet_inputs(&config.unet, &mut r, batch, plan.height, plan.width, plan.tokens);
        let cond = r.input(batch, plan.height, plan.width, config.unet.time_proj_dim);
        let into = controlnet::residuals(&config.unet, &mut r, plan.batch, [plan.height, plan.width]);
        let scales = r.input_of(Dtype::F32, 1, 1, 1, into.len() as u32);
        let results = controlnet::forward(config, &mut r, &inputs, cond)?;
        controlnet::add(&mut r, &results, scales, &into, first)?;
        let shared = into.iter().zip(&plan.residuals).map(|(&t, &theirs)| (t, &plan.executable, theirs));
        let shared: Vec<_> = shared.collect();
        let executable = r.finish().instantiate_over(&self.gpu, &*part.weights()?, &shared)?;
        Ok(ControlPlan { key: loaded.key.clone(), first, executable, inputs, cond, scales, shown: None })
    }

    /// The picture as the ControlNet sees it, of the size to draw.
    async fn control_picture(&self, control: &Control, options: &GenerateOptions) -> Result<Picture> {
        let sized = Bytes::of(&control.image).resized(options.width as usize, options.height as usize);
        match control.preprocess {
            Preprocess::None => Ok(sized.picture()),
            Preprocess::Canny { low, high } => canny(&self.gpu, &sized.picture(), low, high).await,
        }
    }

    /// Computes what the ControlNet sees of a picture, into its plan.
    fn show(&self, loaded: &LoadedControlNet, picture: &Picture, own: &ControlPlan) -> Result<()> {
        let Module { config, part, options } = &loaded.module;
        let mut r = Recorder::new(options);
        let image = r.input(1, picture.height, picture.width, config.conditioning_channels);
        let out = controlnet::cond_embedding(config, &mut r, image)?;
        r.output(out);
        let executable = r.finish().instantiate(&self.gpu, &*part.weights()?)?;
        let order = if config.bgr { [2, 1, 0] } else { [0, 1, 2] };
        let colours = picture.data.chunks_exact(4).flat_map(|p| order.map(|c| p[c] as f32 / 255.0));
        executable.write(&self.gpu, image, &colours.collect::<Vec<f32>>())?;
        executable.run(&self.gpu);
        executable.copy(&self.gpu, out, &own.executable, own.cond)
    }

    /// Writes the texts of `texts` that the ControlNets of `plan` see.
    pub(super) fn write_controls(
        &self,
        plan: &UnetPlan,
        texts: &[&Rc<super::text::Conditioning>],
        options: &GenerateOptions,
    ) -> Result<()> {
        for control in &plan.controls {
            let config = &self.controlnet(&control.key)?.module.config.unet;
            let seen = texts.get(control.first as usize..).unwrap_or_default();
            self.write_inputs(&control.executable, config, &control.inputs, seen, options)?;
        }
        Ok(())
    }

    /// Sets the residuals of `plan` to what the ControlNets add that act from `from` to `to`, shares of the steps, to
    /// latents of one picture, NCHW. `negative`: the plan has the negative prompt alone, at which guess mode adds nothing.
    pub(super) fn run_controls(
        &self,
        plan: &UnetPlan,
        latents: &[f32],
        timestep: f32,
        [from, to]: [f64; 2],
        options: &GenerateOptions,
        negative: bool,
    ) -> Result<()> {
        plan.executable.clear(&self.gpu, &plan.residuals)?;
        if negative && self.guesses(options)? {
            return Ok(());
        }
        for (control, asked) in plan.controls.iter().zip(&options.controlnets) {
            if from < asked.start || to > asked.end || asked.scale == 0.0 {
                continue;
            }
            let config = &self.controlnet(&control.key)?.module.config.unet;
            let repeat = control.inputs.sample.n as usize;
            let nhwc = decode::to_nhwc(latents, config.in_channels as usize);
            let (dim, flip, shift) =
                (config.time_proj_dim as usize, config.flip_sin_to_cos, config.freq_shift);
            let t_emb = get_timestep_embedding(timestep, dim, flip, shift, 1.0, 10000.0);
            control.executable.write(&self.gpu, control.inputs.sample, &nhwc.repeat(repeat))?;
            control.executable.write(&self.gpu, control.inputs.t_emb, &t_emb.repeat(repeat))?;
            control.executable.run(&self.gpu);
        }
        Ok(())
    }
}
