//! A request settled once, against the facts of the model: every default is filled in, every unit is that of the
//! drawing, every check is done. What draws reads these types alone, and finds no option left out.

use super::controls::{self, ControlFacts};
use super::decode::Decoder;
use super::guidance::Guidance;
use super::inside::Inside;
use super::ip_adapter;
use super::looking;
use super::model::{Kind, Model};
use super::refine;
use super::repaint::{self, Repaint};
use super::request::{
    Acting, Control, DeepCache, Enlarge, GenerateOptions, Hires, IpAdapter, MaskedContent, Output, Picture,
    Preview, Settings, StrengthSteps,
};
use super::residence::Residence;
use super::tags;
use crate::error::{Code, Error, Result};
use crate::prompt::Syntax;
use crate::samplers::NoiseOptions;
use crate::samplers::{Sampler, SchedulerConfig, Tuning, labels, names, scheduler};

/// `strength` where a request names none: diffusers' defaults of Stable Diffusion's two pipelines.
const STRENGTH: f64 = 0.8;
const INPAINT_STRENGTH: f64 = 1.0;
/// Of diffusers' `StableDiffusionXLImg2ImgPipeline`, which the refiner is made for.
const REFINER_STRENGTH: f64 = 0.3;
/// InstructPix2Pix draws anew, beside the picture: diffusers' pipeline knows no strength, and this scale.
const EDIT_STRENGTH: f64 = 1.0;
/// A1111's "masked area padding", in pixels.
const MASK_PADDING: u32 = 32;

/// What a request is settled against.
pub(super) struct Facts<'a> {
    pub model: &'a Model,
    pub scheduler: &'a SchedulerConfig,
    /// The UNet takes the guidance scale as an input, instead of running for the negative prompt too.
    pub embedded_guidance: bool,
    /// A negative prompt left out is all zeros.
    pub zeros_for_no_negative: bool,
    /// Layers on the UNet's way up.
    pub unet_layers: u32,
    /// The fewest layers of a text encoder that its conditioning passes.
    pub text_layers: u32,
    /// Values of one window's embedding, tokens times channels.
    pub window: usize,
    /// Keys of what is loaded.
    pub loras: Vec<String>,
    pub controlnets: Vec<ControlFacts>,
    pub ip_adapters: Vec<String>,
    /// What says whether a size can be decoded.
    pub decoder: &'a Decoder,
    pub residence: &'a Residence,
}

/// A request that can be drawn.
pub(super) struct Settled {
    pub shared: Shared,
    pub first: Pass,
    pub start: Start,
    pub then: Then,
}

/// What all passes of a request have in common.
pub(super) struct Shared {
    pub settings: Settings,
    pub texts: Texts,
    pub guidance: Guidance,
    /// Of SDXL's refiner: for the prompt, and for the negative one.
    pub aesthetic: [f32; 2],
    /// Of an interval of at least 2.
    pub deep_cache: Option<DeepCache>,
    /// Those that are seen at once: one, or of a ControlNet Union several.
    pub controls: Vec<Vec<Control>>,
    pub adapters: Vec<Control>,
    pub lllites: Vec<Control>,
    /// ControlNets act with the prompt only.
    pub guess: bool,
    /// None with a scale of 0.
    pub ip_adapters: Vec<IpAdapter>,
    /// Key and scale of each, none of them 0.
    pub loras: Vec<Acting>,
    pub images: usize,
    pub seed: u64,
    pub noise: NoiseOptions,
    pub inside: Inside,
    pub preview: Preview,
}

/// One run of the loop.
pub(super) struct Pass {
    /// Pixels.
    pub width: u32,
    pub height: u32,
    /// Channels, height and width of one picture's latents.
    pub shape: [usize; 3],
    /// What the prompt's schedule counts by.
    pub steps: usize,
    pub sampler: Sampler,
    /// The first step that is run, and how many there are from there on.
    pub begin: usize,
    pub total: usize,
    pub noise: FirstNoise,
    pub decode: bool,
}

impl Pass {
    /// Height and width in latents.
    pub fn latent_size(&self) -> [u32; 2] {
        [self.shape[1] as u32, self.shape[2] as u32]
    }

    /// Values of one picture's latents.
    pub fn picture_len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Where the noise of the first step comes from.
#[derive(Clone)]
pub(super) enum FirstNoise {
    Seed,
    /// NCHW, all pictures, of deviation 1.
    Given(Vec<f32>),
    /// NCHW, all pictures: not noise, but the sample before the first step.
    Sample(Vec<f32>),
}

/// What the loop starts from.
pub(super) enum Start {
    Noise,
    /// One picture for all, of the size to draw.
    Picture(Picture),
    /// Picture and mask of the size to draw, and what is under the mask.
    Masked {
        image: Picture,
        mask: Picture,
        under: Under,
    },
    /// A picture for each one to draw.
    Pictures(Vec<Picture>),
    /// NCHW, of each picture.
    Latents(Vec<Vec<f32>>),
}

/// What is under the mask at the first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Under {
    /// The picture, noise added.
    Picture,
    /// Noise alone, of the picture nothing, in the whole of it: diffusers at strength 1.
    NoiseAlone,
    /// The seed's noise in place of the latents, noise added.
    Noise,
    /// Zeros in place of the latents, noise added.
    Zeros,
}

/// What is done with the pictures of the first pass.
pub(super) enum Then {
    Nothing,
    PutBack(Repaint),
    /// Hires fix: they are enlarged and drawn over.
    DrawOver(Enlarge, Pass),
}

/// What the text encoders read.
#[derive(Clone)]
pub(super) struct Texts {
    pub syntax: Syntax,
    pub prompt: Text,
    pub negative: Text,
    pub clip_skip: u32,
    /// diffusers leaves no layers out for the negative prompt, A1111 and ComfyUI do.
    pub negative_clip_skip: u32,
    /// Words of textual inversion, and their keys.
    pub embeddings: Vec<(String, String)>,
}

#[derive(Clone)]
pub(super) enum Text {
    Words(String),
    /// [tokens, channels], encoded by the caller.
    Embeds(Vec<f32>),
    /// Zeros in place of an encoding.
    Zeros,
}

/// Settles a request.
///
/// # Errors
/// `invalid-option` naming the option that cannot be; `unsupported-model` where no sampler here is the checkpoint's own; `out-of-memory` for a size that cannot be decoded.
pub(super) fn settle(options: &GenerateOptions, facts: &Facts) -> Result<Settled> {
    let [width, height] =
        [options.width, options.height].map(|side| side.unwrap_or(facts.model.default_size));
    let masked = options.mask_image.is_some() || options.outpaint.is_some();
    let strength = options.strength.unwrap_or(match (masked, facts.model.instruct_pix2pix) {
        (true, _) => INPAINT_STRENGTH,
        (_, true) => EDIT_STRENGTH,
        _ if facts.model.refiner => REFINER_STRENGTH,
        _ => STRENGTH,
    });
    let (start, controls, put_back) = start(options, [width, height], strength)?;
    let images = options.num_images.unwrap_or(1);
    if images == 0 {
        return Err(Error::invalid("numImages must be at least 1."));
    }
    let guidance = Guidance::read(options, facts.model, facts.embedded_guidance)?;
    let steps = options.num_inference_steps.unwrap_or(facts.model.num_inference_steps);
    let from_picture = !matches!(start, Start::Noise);
    let passes = Passes { options, facts, images };
    latent_size(facts.decoder, [width, height])?;
    check_mask(options, &start, facts)?;
    refine::check(options, matches!(start, Start::Noise), facts.model.refiner)?;
    controls::check(&controls, &facts.controlnets)?;
    check_sizes(&start, [width, height])?;
    let [adapters, lllites, controls] = controls::parted(controls, &facts.controlnets);
    if !from_picture && options.strength.is_some() {
        return Err(Error::invalid(
            "strength says how much of image is redrawn: give image too, or leave it out.",
        ));
    }
    let image = options.output == Output::Image;
    let decode_first = options.hires.map_or(image, |hires| hires.upscaler == Enlarge::Picture);
    let mut first = passes.pass([width, height], steps, from_picture.then_some(strength), decode_first)?;
    let then = match (options.hires, put_back) {
        (Some(hires), _) => {
            let (size, steps) = (enlarged(&hires, [width, height]), hires.steps.unwrap_or(steps));
            Then::DrawOver(hires.upscaler, passes.pass(size, steps, Some(hires.strength), image)?)
        }
        (None, Some(repaint)) => Then::PutBack(repaint),
        (None, None) => Then::Nothing,
    };
    first.noise = passes.given_noise(&first)?;
    let settings = Settings {
        width,
        height,
        num_inference_steps: steps,
        guidance_scale: guidance.scale,
        image_guidance_scale: guidance.image,
        scheduler: scheduler_name(options, facts),
        strength: from_picture.then_some(strength),
    };
    let asks_to_guess = |c: &Control| facts.controlnets.iter().any(|own| own.key == c.key && own.guesses);
    let shared = Shared {
        settings,
        texts: texts(options, facts)?,
        guidance,
        aesthetic: refine::aesthetic(options)?,
        deep_cache: deep_cache(options, facts)?,
        guess: !controls.is_empty() && (options.guess_mode || asks_to_guess(&controls[0])),
        controls: controls::seen_at_once(controls, &facts.controlnets),
        ip_adapters: ip_adapter::asked(&options.ip_adapters, &facts.ip_adapters)?,
        adapters,
        lllites,
        loras: loras(options, facts)?,
        images,
        seed: options.seed,
        noise: noise(options)?,
        inside: looking::check(options)?,
        preview: preview(options.preview, facts),
    };
    Ok(Settled { shared, first, start, then })
}

/// What the loop starts from, what ControlNets see, and what is done with the pictures afterwards.
fn start(
    options: &GenerateOptions,
    size: [u32; 2],
    strength: f64,
) -> Result<(Start, Vec<Control>, Option<Repaint>)> {
    let controls = options.controlnets.clone();
    if options.hires.is_some() {
        if options.image.is_some() || options.mask_image.is_some() {
            return Err(Error::invalid(
                "hires enlarges what is drawn from a prompt: leave image out, or hires.",
            ));
        }
        return Ok((Start::Noise, controls, None));
    }
    let padding = options.mask_padding.unwrap_or(MASK_PADDING) as usize;
    if let Some(prepared) = repaint::prepare(options, size, padding)? {
        let under = match prepared.content {
            // A1111, which knows masked content, begins with it at every strength.
            None if strength >= 1.0 => Under::NoiseAlone,
            None | Some(MaskedContent::Fill | MaskedContent::Original) => Under::Picture,
            Some(MaskedContent::Noise) => Under::Noise,
            Some(MaskedContent::Nothing) => Under::Zeros,
        };
        let start = Start::Masked { image: prepared.image, mask: prepared.mask, under };
        return Ok((start, prepared.controls, Some(prepared.repaint)));
    }
    Ok((options.image.clone().map_or(Start::Noise, Start::Picture), controls, None))
}

/// # Errors
/// `invalid-option` for a mask without a picture, for an inpainting model without a mask, and for InstructPix2Pix without
/// a picture or with a mask.
fn check_mask(options: &GenerateOptions, start: &Start, facts: &Facts) -> Result<()> {
    if options.mask_image.is_some() && options.image.is_none() {
        return Err(Error::invalid("maskImage says where to redraw image: give image too."));
    }
    if facts.model.inpainting && !matches!(start, Start::Masked { .. }) {
        return Err(Error::invalid(
            "This is an inpainting model: give image and maskImage (white where it is to draw), or load \
             the model's text-to-image sibling.",
        ));
    }
    if facts.model.instruct_pix2pix && !matches!(start, Start::Picture(_)) {
        return Err(Error::invalid(
            "This model (InstructPix2Pix) edits a picture as the prompt says: give image, and neither maskImage, \
             outpaint nor hires; or load a text-to-image model.",
        ));
    }
    Ok(())
}

/// # Errors
/// `invalid-option` for a picture or a mask of another size than what is drawn.
fn check_sizes(start: &Start, [width, height]: [u32; 2]) -> Result<()> {
    let pictures = match start {
        Start::Picture(image) => vec![("image", image)],
        Start::Masked { image, mask, .. } => vec![("image", image), ("maskImage", mask)],
        _ => Vec::new(),
    };
    for (name, picture) in pictures {
        let bytes = 4 * width as usize * height as usize;
        if (picture.width, picture.height) != (width, height) || picture.data.len() != bytes {
            return Err(Error::invalid(format!(
                "{name} is {}x{}; it must be as large as the picture to draw, {width}x{height}.",
                picture.width, picture.height
            )));
        }
    }
    Ok(())
}

fn deep_cache(options: &GenerateOptions, facts: &Facts) -> Result<Option<DeepCache>> {
    match options.deep_cache {
        Some(DeepCache { interval: 0, .. }) => {
            Err(Error::invalid("deepCache: interval must be at least 1, which is all steps."))
        }
        Some(DeepCache { branch, .. }) if branch >= facts.unet_layers => Err(Error::invalid(format!(
            "deepCache: branch = {branch}, but this model has the branches 0 to {}.",
            facts.unet_layers - 1
        ))),
        asked => Ok(asked.filter(|asked| asked.interval > 1)),
    }
}

fn noise(options: &GenerateOptions) -> Result<NoiseOptions> {
    const SIDES: std::ops::RangeInclusive<u32> = 8..=16384;
    if options.noise.resize_from.is_some_and(|(w, h)| !SIDES.contains(&w) || !SIDES.contains(&h)) {
        return Err(Error::invalid("seedResizeFrom must be [width, height] in pixels."));
    }
    Ok(options.noise.clone())
}

fn preview(asked: Preview, facts: &Facts) -> Preview {
    match asked {
        // Decoding takes the UNet's place where memory is low: not at every step.
        Preview::Full if facts.residence.low => Preview::Fast,
        Preview::Tiny if facts.decoder.is_small() => Preview::Full,
        asked => asked,
    }
}

/// Width and height of the second pass.
fn enlarged(hires: &Hires, [width, height]: [u32; 2]) -> [u32; 2] {
    let scaled = |side: u32| ((side as f64 * hires.scale / 8.0).floor() * 8.0) as u32;
    [hires.width.unwrap_or(scaled(width)), hires.height.unwrap_or(scaled(height))]
}

/// Height and width in latents of a width and a height in pixels.
///
/// # Errors
/// `invalid-option` for sides that no latents have.
pub(super) fn latent_size(decoder: &Decoder, [width, height]: [u32; 2]) -> Result<[u32; 2]> {
    // diffusers asks for multiples of 8 whatever the decoder's scale is.
    let unit = decoder.scale().max(8);
    let side = |name: &str, pixels: u32| {
        if pixels == 0 || !pixels.is_multiple_of(unit) {
            let near = (pixels / unit * unit).max(unit);
            return Err(Error::invalid(format!(
                "{name} = {pixels}: choose a multiple of {unit}, such as {near}."
            )));
        }
        Ok(pixels / decoder.scale())
    };
    Ok([side("height", height)?, side("width", width)?])
}

/// What each pass of a request is settled with.
struct Passes<'a> {
    options: &'a GenerateOptions,
    facts: &'a Facts<'a>,
    images: usize,
}

impl Passes<'_> {
    /// A pass of this size and number of steps; `strength` is that of what it starts from, `None` for noise.
    fn pass(&self, size: [u32; 2], steps: usize, strength: Option<f64>, decode: bool) -> Result<Pass> {
        let Passes { options, facts, .. } = self;
        let [height, width] = latent_size(facts.decoder, size)?;
        controls::check_size(&options.controlnets, &facts.controlnets, size)?;
        let (all, begin) = match strength {
            Some(strength) => schedule_steps(steps, strength, options.strength_steps)?,
            None => (steps, 0),
        };
        let sdxl = facts.model.kind == Kind::Sdxl;
        let tuning = Tuning { sdxl, finer: all > steps, ..options.tuning.clone() };
        let sampler = scheduler(options.scheduler.as_deref(), facts.scheduler, all, &tuning);
        let sampler = sampler.map_err(|error| match all > steps {
            true if error.code == Code::InvalidOption => Error::invalid(format!(
                "strengthSteps \"exact\" makes {all} steps of strength {}, and this scheduler has not so many. Choose \
                 one over noise levels, such as euler or dpmpp_2m_karras, or a greater strength.",
                strength.unwrap_or(1.0)
            )),
            _ => error,
        })?;
        if decode || options.preview == Preview::Full {
            facts.decoder.check(facts.residence, height, width)?;
        }
        // Some schedules have fewer steps than were asked for.
        let count = sampler.levels.timesteps().len();
        let begin = begin.min(count - 1);
        let timesteps = sampler.levels.timesteps();
        let [begin, end] = refine::steps(options, facts.scheduler, timesteps, [begin, count])?;
        Ok(Pass {
            width: size[0],
            height: size[1],
            shape: [facts.decoder.vae.latent_channels(), height, width].map(|n| n as usize),
            steps,
            sampler,
            begin,
            total: end - begin,
            noise: FirstNoise::Seed,
            decode,
        })
    }

    fn given_noise(&self, pass: &Pass) -> Result<FirstNoise> {
        let Some(given) = &self.options.latents else { return Ok(FirstNoise::Seed) };
        let needed = pass.picture_len() * self.images;
        if given.len() != needed {
            let [channels, height, width] = pass.shape;
            return Err(Error::invalid(format!(
                "latents has {} values; {} pictures of {channels}x{height}x{width} need {needed}",
                given.len(),
                self.images
            )));
        }
        Ok(match self.options.denoising_start {
            Some(_) => FirstNoise::Sample(given.clone()),
            None => FirstNoise::Given(given.clone()),
        })
    }
}

/// Steps of the sampler's whole schedule, and the first of them that is run: diffusers' `get_timesteps`, A1111's
/// `setup_img2img_steps`.
///
/// # Errors
/// `invalid-option` for a strength outside 0..1 or one that leaves no step.
fn schedule_steps(steps: usize, strength: f64, way: StrengthSteps) -> Result<(usize, usize)> {
    /// More than any schedule has, fewer than take long to compute.
    const MOST: usize = 10_000;
    if !(0.0..=1.0).contains(&strength) {
        return Err(Error::invalid(format!("strength = {strength}: choose a number from 0 to 1.")));
    }
    let (all, run) = match way {
        StrengthSteps::Diffusers => (steps, ((steps as f64 * strength) as usize).min(steps)),
        StrengthSteps::A1111 => (steps, ((strength.min(0.999) * steps as f64) as usize + 1).min(steps)),
        StrengthSteps::Exact if strength == 0.0 => (steps, 0),
        StrengthSteps::Exact => ((steps as f64 / strength.min(0.999)) as usize, steps),
    };
    if run == 0 || all > MOST {
        let (what, other) = if run == 0 { ("none", "more") } else { ("too many", "fewer") };
        return Err(Error::invalid(format!(
            "strength = {strength} leaves {what} of {steps} steps. Choose {other} steps or a greater \
             strength."
        )));
    }
    Ok((all, all - run))
}

/// The short name of the sampler that draws, with its schedule: a request may spell it as A1111 or diffusers do.
fn scheduler_name(options: &GenerateOptions, facts: &Facts) -> String {
    let Some(asked) = &options.scheduler else {
        return facts.model.scheduler.unwrap_or(facts.scheduler.class_name()).to_owned();
    };
    let meant = labels(asked);
    names().into_iter().find(|name| labels(name) == meant).unwrap_or_else(|| asked.clone())
}

fn texts(options: &GenerateOptions, facts: &Facts) -> Result<Texts> {
    let clip_skip = options.clip_skip;
    if clip_skip > facts.text_layers {
        return Err(Error::invalid(format!(
            "clipSkip = {clip_skip}: the text encoder has {} layers; choose less.",
            facts.text_layers
        )));
    }
    let embeds = |name: &str, values: &Vec<f32>| {
        if values.is_empty() || !values.len().is_multiple_of(facts.window.max(1)) {
            return Err(Error::invalid(format!(
                "{name} has {} values; this model takes {}.",
                values.len(),
                facts.window
            )));
        }
        if facts.model.kind == Kind::Sdxl {
            return Err(Error::invalid(format!("{name} alone does not condition an SDXL model.")));
        }
        Ok(Text::Embeds(values.clone()))
    };
    let prompt = match &options.prompt_embeds {
        Some(values) => embeds("promptEmbeds", values)?,
        None => Text::Words(options.prompt.clone()),
    };
    let negative = match (&options.negative_prompt_embeds, &options.negative_prompt) {
        (Some(values), _) => embeds("negativePromptEmbeds", values)?,
        (None, Some(text)) => Text::Words(text.clone()),
        (None, None) if facts.zeros_for_no_negative => Text::Zeros,
        (None, None) => Text::Words(String::new()),
    };
    Ok(Texts {
        syntax: options.prompt_syntax,
        prompt,
        negative,
        clip_skip,
        negative_clip_skip: if options.prompt_syntax == Syntax::Plain { 0 } else { clip_skip },
        embeddings: options.embeddings.clone(),
    })
}

/// Each LoRA that acts. A tag in the prompt replaces the scale; where several name one LoRA, it acts as often as it is
/// named, each time as the last says: A1111's `load_networks` gives one object, again and again, the weights.
///
/// # Errors
/// `invalid-option` for a tag without a LoRA of that name, a weight that is no number, a rank (`dyn`), and a key that
/// was not loaded.
fn loras(options: &GenerateOptions, facts: &Facts) -> Result<Vec<Acting>> {
    let tags = if options.prompt_syntax == Syntax::Plain { Vec::new() } else { tags::of(&options.prompt)? };
    if let Some(tag) = tags.iter().find(|tag| options.loras.iter().all(|lora| lora.name != tag.name)) {
        return Err(Error::invalid(format!(
            "loras has none for {} in the prompt; give {{ source }} of a file called {}, or take the tag out.",
            tag.text, tag.name
        )));
    }
    let mut acting = Vec::new();
    for lora in &options.loras {
        if !facts.loras.contains(&lora.key) || !lora.scale.is_finite() {
            return Err(Error::invalid(format!(
                "LoRA {} was not loaded, or its scale is not a number.",
                lora.key
            )));
        }
        let named: Vec<&tags::Tag> = tags.iter().filter(|tag| tag.name == lora.name).collect();
        let [text, unet] = named.last().map_or([lora.scale; 2], |tag| tag.weights);
        let one = Acting { key: lora.key.clone(), unet, text };
        acting.extend(std::iter::repeat_n(one, named.len().max(1)));
    }
    Ok(acting.into_iter().filter(|a| [a.unet, a.text] != [0.0; 2]).collect())
}
