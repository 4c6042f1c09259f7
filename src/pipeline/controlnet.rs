//! ControlNets beside the UNet. Each is a plan of its own whose results are added, on the GPU, to tensors that the UNet's
//! plan reads; what it sees of its picture is computed once a picture, not once a step. After diffusers'
//! `StableDiffusionControlNetPipeline` and `MultiControlNetModel`.

use super::control_lora::ControlLoraSource;
use super::controls::ControlFacts;
use super::loaded::Loaded;
use super::part::{Module, Part, WeightSource};
use super::pixels::Bytes;
use super::plans::{ControlPlan, UnetPlan, Vae, controlnet_weights};
use super::request::{Control, Picture, Preprocess};
use super::residence::Residence;
use super::weights::Place;
use crate::checkpoint::names;
use crate::error::{Error, Result};
use crate::gpu::{Dtype, Gpu, Options, Recorder};
use crate::models::controlnet::{self, Config, Seen};
use crate::models::unet::{self, unet_inputs};
use crate::ops;
use crate::ops::sound;
use crate::samplers::get_timestep_embedding;
use crate::store::ModelFiles;
use serde_json::Value;
use std::rc::Rc;

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

/// Soft lines of a picture, white on black, of its size: where a colour is darker than its surroundings (XDoG).
///
/// # Errors
/// `invalid-option` for a picture without pixels; `out-of-memory`; `device-lost`.
pub async fn softedge(gpu: &Gpu, picture: &Picture) -> Result<Picture> {
    picture.check("image")?;
    let lines = ops::softedge(gpu, &picture.data, picture.width).await?;
    Ok(Picture { data: lines.iter().flat_map(|&v| [v, v, v, 255]).collect(), ..*picture })
}

/// The picture as a ControlNet or a T2I-Adapter sees it, of the size to draw.
pub(super) async fn seen(gpu: &Gpu, control: &Control, [width, height]: [u32; 2]) -> Result<Picture> {
    let sized = Bytes::of(&control.image).resized(width as usize, height as usize).picture();
    match control.preprocess {
        Preprocess::None => Ok(sized),
        Preprocess::Canny => canny(gpu, &sized, control.low, control.high).await,
        Preprocess::Softedge => softedge(gpu, &sized).await,
    }
}

/// A ControlNet and where its weights come from.
pub(super) struct ControlNet {
    pub key: String,
    source: Box<dyn WeightSource>,
    module: Module<Config>,
}

/// Every ControlNet that is loaded.
#[derive(Default)]
pub(super) struct ControlNets(Loaded<ControlNet>);

impl ControlNets {
    pub fn has(&self, key: &str) -> bool {
        self.0.has(key)
    }

    pub fn list(&self) -> Vec<ControlFacts> {
        let facts = |(key, net): (String, Rc<ControlNet>)| ControlFacts {
            key,
            guesses: net.module.config.global_pool_conditions,
            modes: net.module.config.union.as_ref().map(|union| union.num_control_type),
            ..Default::default()
        };
        self.0.all().into_iter().map(facts).collect()
    }

    /// # Errors
    /// `invalid-option` for a key that was not loaded.
    pub fn get(&self, key: &str) -> Result<Rc<ControlNet>> {
        self.0.get("ControlNet", key)
    }

    /// Lets every ControlNet go but those of `keys`.
    pub fn keep(&self, residence: &Residence, keys: &[String]) {
        self.0.keep_beside_unet(residence, keys);
    }

    /// Loads a ControlNet or a Control-LoRA of this `config.json` beside a UNet and its VAE, and keeps it under `key`. A
    /// ControlNet's weights are kept on the GPU as the UNet's are, a Control-LoRA's in f16. `kind`: what the model is called in messages.
    ///
    /// # Errors
    /// `unsupported-model` for one of another kind of model, before its weights are fetched; `bad-checkpoint`;
    /// `out-of-memory`; `aborted`; what `files` fails with.
    pub async fn load<F: ModelFiles + 'static>(
        &self,
        residence: &Residence,
        key: &str,
        (place, config): (Place<F>, &Value),
        beside: Beside<'_>,
        aborted: &dyn Fn() -> bool,
    ) -> Result<()> {
        let control_lora = controlnet::is_control_lora(config);
        let (config, options) = match control_lora {
            // What is made of weights is not quantised once more.
            true => {
                let options = Options { weights: None, ..beside.options };
                (Config::of_control_lora(config, beside.unet)?, options)
            }
            false => (Config::from_config(config)?, beside.options),
        };
        beside.check(place.files.name(), &config)?;
        let plan = controlnet_weights(&config, &options)?;
        plan.check(&residence.gpu.limits)?;
        let part = Rc::new(Part::new("controlnet", names::controlnet, plan.weights()));
        let source: Box<dyn WeightSource> = match control_lora {
            true => Box::new(ControlLoraSource { place, unet: residence.unet.clone() }),
            false => place.into_source(),
        };
        bring_beside_unet(residence, &part, source.as_ref(), aborted).await?;
        let module = Module { config, part, options };
        self.0.add(key, ControlNet { key: key.to_owned(), source, module });
        residence.gpu.check()
    }
}

/// Brings the weights of a ControlNet or a T2I-Adapter; they leave the GPU with the UNet's.
///
/// # Errors
/// `bad-checkpoint`; `out-of-memory`; `aborted`; what the files fail with.
pub(super) async fn bring_beside_unet(
    residence: &Residence,
    part: &Rc<Part>,
    source: &dyn WeightSource,
    aborted: &dyn Fn() -> bool,
) -> Result<()> {
    residence.admit(part, source, aborted).await?;
    residence.add_beside_unet(part);
    Ok(())
}

/// The model that a ControlNet is loaded for.
pub(super) struct Beside<'a> {
    pub unet: &'a unet::Config,
    /// How the UNet's plans are recorded.
    pub options: Options,
    pub vae: &'a Vae,
    pub kind: &'a str,
}

impl Beside<'_> {
    /// # Errors
    /// `unsupported-model` for a ControlNet that is not of this model's kind.
    fn check(&self, name: &str, config: &Config) -> Result<()> {
        let (own, unet, vae) = (&config.unet, self.unet, self.vae);
        let latents = own.in_channels == vae.latent_channels() && config.scale() == vae.scale();
        let facts = [
            ("text", own.cross_attention_dim == unet.cross_attention_dim),
            ("layers", own.skips() == unet.skips()),
            ("additional conditions", own.text_time == unet.text_time),
            ("latents", latents),
            ("colours", config.conditioning_channels == 3),
        ];
        match facts.iter().find(|(_, fits)| !fits) {
            None => Ok(()),
            Some((what, _)) => Err(Error::unsupported(format!(
                "{name} is a ControlNet for another kind of model: its {what} are not those of this {} \
                 model. Choose a ControlNet made for it.",
                self.kind
            ))),
        }
    }
}

impl ControlNet {
    /// The configuration of its copy of the UNet's way down.
    pub fn unet(&self) -> &unet::Config {
        &self.module.config.unet
    }

    /// Makes the `i`-th of the controls of `plan`, which has residuals, ready: this ControlNet's weights are on the GPU,
    /// its plan is bound, its pictures (several: of a ControlNet Union) of the size to draw are seen. `guess`: it leaves the first text alone where `first` is
    /// 1, and acts the less the finer the layer.
    ///
    /// # Errors
    /// Those of loading; `out-of-memory`; `aborted`.
    pub async fn prepare(
        &self,
        residence: &Residence,
        plan: &mut UnetPlan,
        i: usize,
        controls: &[Control],
        asked: Asked,
        aborted: &dyn Fn() -> bool,
    ) -> Result<()> {
        let gpu = &residence.gpu;
        self.module.part.fill(gpu, self.source.as_ref(), aborted).await?;
        let fits =
            |c: &ControlPlan| (&c.key, c.first, c.shown.len()) == (&self.key, asked.first, controls.len());
        if !plan.controls.get(i).is_some_and(fits) {
            plan.controls.truncate(i);
            plan.controls.push(self.plan(gpu, plan, asked.first, controls.len()).await?);
        }
        let own = &mut plan.controls[i];
        // Several pictures have each a scale, where they are seen; one has its own where that is added.
        let (each, all): (Vec<f32>, f32) = match controls {
            [one] => (vec![1.0], one.scale),
            several => (several.iter().map(|c| c.scale).collect(), 1.0),
        };
        for (place, (control, &scale)) in controls.iter().zip(&each).enumerate() {
            let control = Control { scale, start: 0.0, end: 1.0, ..control.clone() };
            if own.shown[place].as_ref() != Some(&control) {
                self.show(gpu, &control, asked.size, own, place).await?;
                own.shown[place] = Some(control);
            }
        }
        self.say_modes(gpu, controls, own)?;
        let scales = self.module.config.scales(all, asked.guess);
        own.executable.write(gpu, own.scales, &scales)
    }

    /// Tells a ControlNet Union what kinds of pictures there are.
    fn say_modes(&self, gpu: &Gpu, controls: &[Control], own: &ControlPlan) -> Result<()> {
        let Module { config: Config { unet, union, .. }, .. } = &self.module;
        let (Some(union), Some(control_type)) = (union, own.seen.control_type) else { return Ok(()) };
        let is_there = |kind: u32| controls.iter().any(|c| c.mode.is_some_and(|mode| mode as u32 == kind));
        let embedded = |kind: u32| {
            let (value, dim) = (f32::from(is_there(kind)), union.control_type_dim as usize);
            get_timestep_embedding(value, dim, unet.flip_sin_to_cos, unet.freq_shift, 1.0, 10000.0)
        };
        let kinds: Vec<f32> = (0..union.num_control_type).flat_map(embedded).collect();
        own.executable.write(gpu, control_type, &kinds.repeat(control_type.n as usize))
    }

    /// Its plan beside `plan`, which sees so many pictures.
    async fn plan(&self, gpu: &Gpu, plan: &UnetPlan, first: u32, pictures: usize) -> Result<ControlPlan> {
        let Module { config, part, options } = &self.module;
        let size = &plan.size;
        let record = |options: &Options| {
            let mut r = Recorder::new(options);
            let batch = size.batch - first;
            let inputs = unet_inputs(&config.unet, &mut r, batch, size.height, size.width, size.tokens);
            let seen = Seen::inputs(config, &mut r, &inputs, pictures as u32);
            let into = controlnet::residuals(&config.unet, &mut r, size.batch, [size.height, size.width]);
            let scales = r.input_of(Dtype::F32, 1, 1, 1, into.len() as u32);
            let results = controlnet::forward(config, &mut r, &inputs, &seen)?;
            controlnet::add(&mut r, &results, scales, &into, first)?;
            Ok((r.finish(), (inputs, seen, into, scales)))
        };
        let (recorded, (inputs, seen, into, scales)) = sound(gpu, options, record).await?;
        let shared = into.iter().zip(&plan.residuals).map(|(&t, &theirs)| (t, &plan.executable, theirs));
        let shared: Vec<_> = shared.collect();
        let executable = recorded.instantiate_over(gpu, &*part.weights()?, &shared)?;
        let shown = vec![None; pictures];
        Ok(ControlPlan { key: self.key.clone(), first, executable, inputs, seen, scales, shown })
    }

    /// Computes what the ControlNet sees of a picture, into its plan, at this place of its pictures.
    async fn show(
        &self,
        gpu: &Gpu,
        control: &Control,
        size: [u32; 2],
        own: &ControlPlan,
        place: usize,
    ) -> Result<()> {
        let Module { config, part, options } = &self.module;
        let picture = seen(gpu, control, size).await?;
        let record = |options: &Options| {
            let mut r = Recorder::new(options);
            let image = r.input(1, picture.height, picture.width, config.conditioning_channels);
            let cond = controlnet::cond_embedding(config, &mut r, image)?;
            let (out, own) = match &config.union {
                None => (cond, None),
                Some(union) => {
                    let (kind, factor) = (r.input_u32(1, 1), r.input_of(Dtype::F32, 1, 1, 1, 1));
                    let out = controlnet::condition(union, &mut r, cond, kind, (control.scale, factor))?;
                    (out, Some((kind, factor)))
                }
            };
            r.output(out);
            Ok((r.finish(), (image, out, own)))
        };
        let (plan, (image, out, of_union)) = sound(gpu, options, record).await?;
        let executable = plan.instantiate(gpu, &*part.weights()?)?;
        let order = if config.bgr { [2, 1, 0] } else { [0, 1, 2] };
        let colours = picture.data.chunks_exact(4).flat_map(|p| order.map(|c| p[c] as f32 / 255.0));
        executable.write(gpu, image, &colours.collect::<Vec<f32>>())?;
        if let (Some((kind, factor)), Some(mode)) = (of_union, control.mode) {
            executable.write_u32(gpu, kind, &[mode as u32])?;
            executable.write(gpu, factor, &[control.scale])?;
        }
        executable.run(gpu);
        executable.copy(gpu, out, &own.executable, own.seen.cond[place])
    }
}

/// What a request asks of all its ControlNets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Width and height of the picture, in pixels.
    pub size: [u32; 2],
    /// The first text that they act on.
    pub first: u32,
    pub guess: bool,
}
