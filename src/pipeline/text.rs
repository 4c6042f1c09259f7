//! Prompts to conditioning: what the UNet is told at each step.

use super::residence::Stage;
use super::{DiffusionPipeline, GenerateOptions, Kind, TextEncoder};
use crate::error::{Error, Result};
use crate::gpu::{Recorder, Tensor};
use crate::models::clip;
use crate::prompt::{Chunked, Embedding, FIRST_VECTOR, Piece, Syntax, chunk, emphasis, grammar};
use std::cell::RefCell;
use std::rc::Rc;

/// What the UNet is told of one text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Conditioning {
    /// `encoder_hidden_states`, [tokens, cross_attention_dim].
    pub embeds: Vec<f32>,
    /// SDXL's pooled embedding; empty otherwise.
    pub pooled: Vec<f32>,
}

/// The last step of each text, from 1, as [`grammar::schedule`] has it.
type Schedule = Vec<(usize, Rc<Conditioning>)>;

/// What one request tells the UNet, all of one length in tokens.
pub(super) struct Prompts {
    /// `None` without guidance.
    negative: Option<Schedule>,
    /// The prompts between `AND` and their weights.
    positive: Vec<(f32, Schedule)>,
    /// Tokens of each conditioning.
    pub tokens: u32,
    /// Ends of prompts that did not fit into the text encoder's window.
    pub truncated: Vec<String>,
}

impl Prompts {
    /// How many predictions a picture takes at each step.
    pub fn batch(&self) -> u32 {
        (self.positive.len() + usize::from(self.negative.is_some())) as u32
    }

    /// The conditioning at a step (from 0), in the order of the batch: the negative prompt first.
    pub fn at(&self, step: usize) -> Vec<&Rc<Conditioning>> {
        let all = self.negative.iter().chain(self.positive.iter().map(|(_, schedule)| schedule));
        all.filter_map(|schedule| grammar::entry_at(schedule, step)).collect()
    }

    pub fn guided(&self) -> bool {
        self.negative.is_some()
    }

    /// The weight of each prompt between `AND`.
    pub fn weights(&self) -> Vec<f32> {
        self.positive.iter().map(|(weight, _)| *weight).collect()
    }
}

/// A text as it is encoded: without schedule, and with all that changes its encoding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Request {
    text: String,
    syntax: Syntax,
    clip_skip: u32,
    /// Words and keys of textual inversion.
    embeddings: Vec<(String, String)>,
}

/// An encoded text, kept for the next picture.
struct Kept {
    request: Request,
    conditioning: Rc<Conditioning>,
    truncated: Option<String>,
}

/// Encoded texts of the last requests, the latest last: a text encoder that is not on the GPU is not needed for them.
#[derive(Default)]
pub(super) struct TextCache(RefCell<Vec<Kept>>);

impl TextCache {
    /// SDXL's are 0.6 MB each.
    const MOST: usize = 32;

    fn get(&self, request: &Request) -> Option<(Rc<Conditioning>, Option<String>)> {
        let mut kept = self.0.borrow_mut();
        let at = kept.iter().position(|k| k.request == *request)?;
        let found = kept.remove(at);
        let out = (found.conditioning.clone(), found.truncated.clone());
        kept.push(found);
        Some(out)
    }

    fn put(&self, request: Request, conditioning: Rc<Conditioning>, truncated: Option<String>) {
        let mut kept = self.0.borrow_mut();
        let over = (kept.len() + 1).saturating_sub(Self::MOST);
        kept.drain(..over);
        kept.push(Kept { request, conditioning, truncated });
    }

    /// Forgets everything: the text encoders' weights were changed.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// One token as a page shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenView {
    pub text: String,
    pub id: u32,
    pub weight: f32,
    /// The window of 75 tokens that it lies in, from 0.
    pub chunk: usize,
    /// It did not fit, and the model does not read it.
    pub cut: bool,
    /// A scrap of a word that the vocabulary does not hold.
    pub unknown: bool,
}

/// A prompt as the text encoder reads it at the first step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PromptView {
    pub tokens: Vec<TokenView>,
    pub chunks: usize,
    /// Most of the prompt is in a language that CLIP's vocabulary does not hold.
    pub foreign: bool,
}

/// Inputs and outputs of a recorded text encoder.
pub(super) struct Encoder {
    ids: Tensor,
    /// Vectors of textual inversion, added to the tokens' own.
    vectors: Option<Tensor>,
    eos: Option<Tensor>,
    embeds: Tensor,
    pooled: Option<Tensor>,
}

/// How a text encoder is recorded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recipe {
    /// Gives the pooled embedding as well.
    pub pooled: bool,
    /// Conditions on `hidden_states[-2]` without the last norm, as SDXL does.
    pub penultimate: bool,
    /// Layers left out at the end, as diffusers' `clip_skip`.
    pub clip_skip: u32,
    /// Takes vectors of textual inversion.
    pub vectors: bool,
}

/// Records a text encoder over [batch, tokens]: SD conditions on the last hidden state after its norm, SDXL on
/// `hidden_states[-2]`, and its second encoder gives the pooled embedding as well. `clip_skip` as in diffusers:
/// `hidden_states[-(clip_skip + 1)]` and norm, for SDXL `hidden_states[-(clip_skip + 2)]`.
pub(super) fn record(
    config: &clip::Config,
    recipe: Recipe,
    r: &mut Recorder,
    batch: u32,
    tokens: u32,
) -> Result<Encoder> {
    let Recipe { pooled, penultimate, clip_skip, vectors } = recipe;
    let ids = r.input_u32(batch, tokens);
    let layers = config.num_hidden_layers;
    let wanted = layers.checked_sub(clip_skip + u32::from(penultimate)).ok_or_else(|| {
        Error::invalid(format!("clipSkip = {clip_skip}: the text encoder has {layers} layers; choose less."))
    })?;
    let vectors = vectors.then(|| r.input(batch, 1, tokens, config.hidden_size));
    let states = clip::hidden_states(config, r, ids, vectors, if pooled { layers } else { wanted })?;
    let missing = || Error::unsupported("num_hidden_layers = 0 of the text encoder");
    let mut eos = None;
    let mut pooled_output = None;
    let mut embeds = *states.get(wanted as usize).ok_or_else(missing)?;
    if !penultimate {
        embeds = clip::final_layer_norm(config, r, embeds)?;
    }
    r.output(embeds);
    if pooled {
        let index = r.input_u32(batch, 1);
        let last = clip::final_layer_norm(config, r, *states.last().ok_or_else(missing)?)?;
        let row = clip::pooler_output(r, last, index)?;
        let out = clip::text_embeds(config, r, row)?;
        r.output(out);
        eos = Some(index);
        pooled_output = Some(out);
    }
    Ok(Encoder { ids, vectors, eos, embeds, pooled: pooled_output })
}

/// Windows of tokens that are encoded at a time.
const WINDOWS: usize = 8;

/// One text encoder's outputs: [window][token][channel], and [window][channel].
type Encoded = (Vec<f32>, Vec<f32>);

impl DiffusionPipeline {
    /// Conditioning of the prompt and, where guidance needs it, of the negative prompt, for every step.
    ///
    /// # Errors
    /// `invalid-option`, `device-lost`, `out-of-memory`.
    pub(super) async fn prompts(&self, options: &GenerateOptions, guided: bool) -> Result<Prompts> {
        let given = |name: &str, embeds: &Vec<f32>| {
            let size = self.tokens() * self.unet.config.cross_attention_dim as usize;
            if embeds.is_empty() || !embeds.len().is_multiple_of(size) {
                return Err(Error::invalid(format!(
                    "{name} has {} values; this model takes {size}.",
                    embeds.len()
                )));
            }
            if self.unet.config.text_time.is_some() {
                return Err(Error::invalid(format!("{name} alone does not condition an SDXL model.")));
            }
            let conditioning = Rc::new(Conditioning { embeds: embeds.clone(), pooled: Vec::new() });
            Ok(vec![(options.num_inference_steps, conditioning)])
        };
        let steps = options.num_inference_steps;
        let texts = |text: &str| match options.prompt_syntax {
            Syntax::Plain => vec![(steps, text.to_owned())],
            Syntax::A1111 | Syntax::Comfy => grammar::schedule(text, steps),
        };
        let own = options.prompt_embeds.as_ref().map(|e| given("promptEmbeds", e)).transpose()?;
        let parts = match (&own, options.prompt_syntax) {
            (Some(_), _) => Vec::new(),
            (None, Syntax::Plain) => vec![(options.prompt.clone(), 1.0)],
            (None, _) => grammar::composition(&grammar::extra_networks(&options.prompt).0),
        };
        // Several prompts are weighed against the negative one whatever the scale.
        let guided = guided || parts.len() > 1 || parts.iter().any(|(_, weight)| *weight != 1.0);
        let own_negative = match &options.negative_prompt_embeds {
            Some(embeds) if guided => Some(given("negativePromptEmbeds", embeds)?),
            Some(embeds) => given("negativePromptEmbeds", embeds).map(|_| None)?,
            None => None,
        };
        let zeros = options.negative_prompt.is_none()
            && self.force_zeros_for_empty_prompt
            && self.unet.config.text_time.is_some();

        // Every text of every schedule, encoded together.
        let mut schedules: Vec<Vec<(usize, String)>> = parts.iter().map(|(text, _)| texts(text)).collect();
        let encode_negative = guided && own_negative.is_none() && !zeros;
        if encode_negative {
            schedules.push(texts(options.negative_prompt.as_deref().unwrap_or("")));
        }
        // diffusers leaves no layers out for the negative prompt, A1111 and ComfyUI do.
        let negative_skip = if options.prompt_syntax == Syntax::Plain { 0 } else { options.clip_skip };
        let positives = schedules.len() - usize::from(encode_negative);
        let requests = schedules.iter().enumerate().flat_map(|(i, schedule)| {
            schedule.iter().map(move |(_, text)| Request {
                text: text.clone(),
                syntax: options.prompt_syntax,
                clip_skip: if i < positives { options.clip_skip } else { negative_skip },
                embeddings: options.embeddings.clone(),
            })
        });
        let (encoded, truncated) = self.encode_texts(requests.collect()).await?;
        let mut encoded = encoded.into_iter();
        let mut schedules: Vec<Schedule> = schedules
            .iter()
            .map(|schedule| schedule.iter().map(|(end, _)| *end).zip(encoded.by_ref()).collect())
            .collect();
        let mut negative = own_negative.or(encode_negative.then(|| schedules.pop()).flatten());
        let mut positive: Vec<(f32, Schedule)> = match own {
            Some(own) => vec![(1.0, own)],
            None => parts.iter().map(|(_, weight)| *weight as f32).zip(schedules).collect(),
        };

        // One length for all: shorter ones go on with windows of an empty prompt.
        let longest = |schedules: &mut dyn Iterator<Item = &Schedule>| {
            schedules.flatten().map(|(_, c)| c.embeds.len()).max().unwrap_or(0)
        };
        let all = longest(&mut positive.iter().map(|(_, s)| s).chain(&negative));
        if guided && zeros && negative.is_none() {
            let pooled = positive.iter().flat_map(|(_, s)| s).map(|(_, c)| c.pooled.len()).max().unwrap_or(0);
            let none = Conditioning { embeds: vec![0.0; all], pooled: vec![0.0; pooled] };
            negative = Some(vec![(steps, Rc::new(none))]);
        }
        let every = || positive.iter().map(|(_, s)| s).chain(&negative).flatten();
        if every().any(|(_, c)| c.embeds.len() < all) {
            let empty = Request {
                text: String::new(),
                syntax: Syntax::Plain,
                clip_skip: options.clip_skip,
                embeddings: Vec::new(),
            };
            let (empty, _) = self.encode_texts(vec![empty]).await?;
            let window = &empty[0].embeds;
            for (_, conditioning) in positive.iter_mut().map(|(_, s)| s).chain(&mut negative).flatten() {
                let missing = (all - conditioning.embeds.len()) / window.len();
                if missing > 0 {
                    Rc::make_mut(conditioning).embeds.extend(window.repeat(missing));
                }
            }
        }
        let tokens = (all / self.unet.config.cross_attention_dim.max(1) as usize) as u32;
        Ok(Prompts { negative, positive, tokens, truncated })
    }

    /// Conditioning of each text, and the end of each that did not fit into the text encoder's window; from the
    /// cache where it is there.
    async fn encode_texts(&self, requests: Vec<Request>) -> Result<(Vec<Rc<Conditioning>>, Vec<String>)> {
        let mut missing: Vec<Request> = Vec::new();
        for request in &requests {
            if self.text_cache.get(request).is_none() && !missing.contains(request) {
                missing.push(request.clone());
            }
        }
        // Beside the cache, which may be too small for all of them.
        let mut fresh = Vec::new();
        if !missing.is_empty() {
            for (request, (conditioning, truncated)) in
                missing.iter().zip(self.encode_missing(&missing).await?)
            {
                let conditioning = Rc::new(conditioning);
                self.text_cache.put(request.clone(), conditioning.clone(), truncated.clone());
                fresh.push((conditioning, truncated));
            }
        }
        let (mut out, mut cut) = (Vec::new(), Vec::new());
        for request in &requests {
            let found = match missing.iter().position(|m| m == request) {
                Some(i) => Some(fresh[i].clone()),
                None => self.text_cache.get(request),
            };
            let (conditioning, truncated) =
                found.ok_or_else(|| Error::invalid("Too many texts in one prompt; shorten its schedule."))?;
            out.push(conditioning);
            cut.extend(truncated);
        }
        cut.dedup();
        Ok((out, cut))
    }

    /// Runs the text encoders over the windows of all texts.
    async fn encode_missing(&self, requests: &[Request]) -> Result<Vec<(Conditioning, Option<String>)>> {
        let sdxl = self.model.kind == Kind::Sdxl;
        self.bring(Stage::Text, &|| false).await?;
        let mut truncated = vec![None; requests.len()];
        // Of each encoder and text: its rows, [token][channel].
        let mut parts: Vec<(Vec<Vec<f32>>, usize)> = Vec::new();
        let mut pooled: Vec<Vec<f32>> = Vec::new();
        for (i, encoder) in self.text_encoders.iter().enumerate() {
            let width = encoder.module.config.hidden_size as usize;
            let mut rows = Vec::new();
            pooled.clear();
            for (request, truncated) in requests.iter().zip(&mut truncated) {
                let (embeddings, table) = self.embeddings_of(i, &request.embeddings)?;
                let chunked = chunk::chunked(&encoder.tokenizer, &request.text, request.syntax, &embeddings)?;
                let mut windows = chunked.chunks;
                let count = windows.len();
                let weighted = windows.iter().flatten().any(|p| p.weight != 1.0);
                if weighted && request.syntax == Syntax::Comfy {
                    windows.push(Vec::new());
                }
                let recipe = Recipe {
                    pooled: sdxl && i == 1,
                    penultimate: sdxl,
                    clip_skip: request.clip_skip,
                    vectors: windows.iter().flatten().any(|p| p.id >= FIRST_VECTOR),
                };
                let (mut z, first) = self.run_windows(encoder, recipe, &windows, &table).await?;
                let size = self.tokens() * width;
                let empty = z.split_off(count * size);
                for (z, pieces) in z.chunks_exact_mut(size).zip(&windows) {
                    let mut weights = vec![1.0; self.tokens()];
                    weights[1..].iter_mut().zip(pieces).for_each(|(w, p)| *w = p.weight);
                    match request.syntax {
                        Syntax::Plain => {}
                        Syntax::A1111 => emphasis::original(z, &weights),
                        Syntax::Comfy if weighted => emphasis::comfy(z, &empty, &weights),
                        Syntax::Comfy => {}
                    }
                }
                rows.push(z);
                pooled.push(first);
                if i == 0 {
                    *truncated = chunked.truncated;
                }
            }
            parts.push((rows, width));
        }
        let conditioning = pooled.into_iter().zip(truncated).enumerate().map(|(p, (pooled, truncated))| {
            // The encoders' channels beside each other.
            let tokens = parts.iter().map(|(rows, width)| rows[p].len() / width).min().unwrap_or(0);
            let mut embeds = Vec::new();
            for t in 0..tokens {
                for (rows, width) in &parts {
                    embeds.extend_from_slice(&rows[p][t * width..(t + 1) * width]);
                }
            }
            (Conditioning { embeds, pooled }, truncated)
        });
        Ok(conditioning.collect())
    }

    /// Tokens of a window.
    pub(super) fn tokens(&self) -> usize {
        self.text_encoders.iter().map(|e| e.tokenizer.model_max_length()).min().unwrap_or(0)
    }

    /// Encodes windows of tokens: [window][token][channel], and the pooled embedding of the first. `table`: the
    /// vectors of textual inversion.
    async fn run_windows(
        &self,
        encoder: &TextEncoder,
        recipe: Recipe,
        windows: &[Vec<Piece>],
        table: &[f32],
    ) -> Result<Encoded> {
        let config = &encoder.module.config;
        let width = config.hidden_size as usize;
        let (mut embeds, mut pooled) = (Vec::new(), Vec::new());
        for group in windows.chunks(WINDOWS) {
            let mut ids: Vec<u32> = Vec::new();
            let mut eos = Vec::new();
            let mut vectors = Vec::new();
            for window in group {
                let window = encoder.tokenizer.window(window.iter().map(|p| p.id));
                let known = window.iter().map(|&id| if id < FIRST_VECTOR { id } else { 0 });
                let known: Vec<u32> = known.collect();
                eos.push(config.eos_index(&known));
                if let Some(id) = known.iter().find(|&&id| id >= config.vocab_size) {
                    return Err(Error::bad_checkpoint(format!(
                        "the tokenizer makes token {id}, and the text encoder knows {}. They are not of one model",
                        config.vocab_size
                    )));
                }
                if recipe.vectors {
                    for &id in &window {
                        let at = id.checked_sub(FIRST_VECTOR).map(|v| v as usize * width);
                        match at.and_then(|at| table.get(at..at + width)) {
                            Some(vector) => vectors.extend_from_slice(vector),
                            None => vectors.resize(vectors.len() + width, 0.0),
                        }
                    }
                }
                // An id past the vocabulary reads as zeros.
                ids.extend(window);
            }
            let weights = encoder.module.part.weights()?;
            let mut r = Recorder::new(&encoder.module.options).with_adapted(weights.adapted());
            let batch = group.len() as u32;
            let io = record(config, recipe, &mut r, batch, ids.len() as u32 / batch)?;
            let executable = r.finish().instantiate(&self.gpu, &weights)?;
            executable.write_u32(&self.gpu, io.ids, &ids)?;
            if let Some(t) = io.vectors {
                executable.write(&self.gpu, t, &vectors)?;
            }
            if let Some(t) = io.eos {
                executable.write_u32(&self.gpu, t, &eos)?;
            }
            executable.run(&self.gpu);
            embeds.extend(executable.read(&self.gpu, io.embeds).await?);
            if let Some(t) = io.pooled
                && pooled.is_empty()
            {
                pooled = executable.read(&self.gpu, t).await?;
                pooled.truncate(pooled.len() / group.len());
            }
        }
        Ok((embeds, pooled))
    }

    /// The tokens of a prompt as the text encoder (of SDXL's, the first) reads them at the first step.
    ///
    /// # Errors
    /// `invalid-option` for text that the tokenizer cannot read.
    pub fn tokenize(
        &self,
        prompt: &str,
        syntax: Syntax,
        embeddings: &[(String, String)],
    ) -> Result<PromptView> {
        let Some(encoder) = self.text_encoders.first() else { return Ok(PromptView::default()) };
        let (embeddings, _) = self.embeddings_of(0, embeddings)?;
        let parts = match syntax {
            Syntax::Plain => vec![prompt.to_owned()],
            _ => grammar::composition(&grammar::extra_networks(prompt).0)
                .into_iter()
                .map(|(text, _)| text)
                .collect(),
        };
        let mut all = Chunked::default();
        for part in parts {
            let text = match syntax {
                Syntax::Plain => part,
                // At the first step of very many.
                _ => grammar::schedule(&part, 1000).swap_remove(0).1,
            };
            let chunked = chunk::chunked(&encoder.tokenizer, &text, syntax, &embeddings)?;
            all.chunks.extend(chunked.chunks);
            all.cut.extend(chunked.cut);
        }
        let view = |chunk: usize, cut: bool, piece: &Piece| TokenView {
            text: piece.text.clone(),
            id: piece.id,
            weight: piece.weight,
            chunk,
            cut,
            unknown: piece.unknown,
        };
        let read = all.chunks.iter().enumerate().flat_map(|(i, c)| c.iter().map(move |p| view(i, false, p)));
        let cut = all.cut.iter().map(|p| view(all.chunks.len(), true, p));
        let tokens = read.chain(cut).collect();
        Ok(PromptView { tokens, chunks: all.chunks.len(), foreign: all.foreign() })
    }

    /// The words of textual inversion for a text encoder, and their vectors, [vector][channel].
    fn embeddings_of(
        &self,
        encoder: usize,
        wanted: &[(String, String)],
    ) -> Result<(Vec<Embedding>, Vec<f32>)> {
        let (mut out, mut table) = (Vec::new(), Vec::new());
        let width = self.text_encoders[encoder].module.config.hidden_size as usize;
        let kept = self.embeddings.borrow();
        for (token, key) in wanted {
            let embedding = kept.iter().find(|e| e.key == *key).ok_or_else(|| {
                Error::invalid(format!("The embedding {token:?} was not loaded from {key}; load it first."))
            })?;
            // SDXL: one that has vectors for the other encoder alone is read as words by this one.
            if let Some(vectors) = &embedding.vectors[encoder] {
                out.push(Embedding {
                    token: token.clone(),
                    first: (table.len() / width) as u32,
                    vectors: (vectors.len() / width) as u32,
                });
                table.extend_from_slice(vectors);
            }
        }
        Ok((out, table))
    }
}
