//! Prompts to conditioning: what the UNet is given of a text at each step.

use super::embedding::Embeddings;
use super::lora::ChosenLoras;
use super::part::Module;
use super::plans::{TextRecipe, TextTensors, record_text};
use super::residence::{Residence, Stage};
use super::settle::{Text, Texts};
use crate::checkpoint::{ReadAt, Table};
use crate::error::{Error, Result};
use crate::gpu::{AdaptedLayers, Executable, Gpu, Recorder, Weights};
use crate::models::text_encoder;
use crate::ops::sound;
use crate::prompt::{Chunked, FIRST_VECTOR, Piece, Syntax, Tokenizer, chunk, emphasis, grammar};
use std::cell::RefCell;
use std::rc::Rc;

/// What the UNet is given of one text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Conditioning {
    /// `encoder_hidden_states`, [tokens, cross_attention_dim].
    pub embeds: Vec<f32>,
    /// SDXL's pooled embedding; empty otherwise.
    pub pooled: Vec<f32>,
    /// The text of each token, window by window; of windows behind these there is none.
    pub words: Vec<Vec<String>>,
}

/// The last step of each text, from 1, as [`grammar::schedule`] has it.
type Schedule = Vec<(usize, Rc<Conditioning>)>;

/// What the UNet is given of one request's texts, all of one length in tokens.
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
    pub fn at(&self, step: usize) -> Vec<Rc<Conditioning>> {
        let all = self.negative.iter().chain(self.positive.iter().map(|(_, schedule)| schedule));
        all.filter_map(|schedule| grammar::entry_at(schedule, step)).cloned().collect()
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
#[derive(Clone, Debug, PartialEq)]
struct Request {
    text: String,
    syntax: Syntax,
    clip_skip: u32,
    /// Words and keys of textual inversion.
    embeddings: Vec<(String, String)>,
    /// Keys and scales of what is merged into the text encoders.
    loras: Vec<(String, f32)>,
}

/// An encoded text, kept for the next picture.
struct Kept {
    request: Request,
    conditioning: Rc<Conditioning>,
    truncated: Option<String>,
}

/// Encoded texts of the last requests, the latest last: a text encoder that is not on the GPU is not needed for them.
#[derive(Default)]
struct TextCache(RefCell<Vec<Kept>>);

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
}

/// One token as a page shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenView {
    pub text: String,
    pub id: u32,
    pub weight: f32,
    /// Its window of tokens, from 0.
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
    /// Tokens that a window has room for: 75 of CLIP's, 510 of BERT's.
    pub room: usize,
    /// Most of the prompt is in a language that the vocabulary does not hold.
    pub foreign: bool,
}

/// Windows of tokens that are encoded at a time.
const WINDOWS: usize = 8;

/// One text encoder's outputs: [window][token][channel], and [window][channel].
type Encoded = (Vec<f32>, Vec<f32>);

/// A tokenizer and the text encoder that reads its tokens.
pub(super) struct TextEncoder {
    tokenizer: Tokenizer,
    pub module: Module<text_encoder::Config>,
    kept: RefCell<Option<TextPlan>>,
}

/// A plan of a text encoder, and what it is bound to.
struct TextPlan {
    recipe: TextRecipe,
    size: [u32; 2],
    weights: Rc<Weights>,
    adapted: Rc<AdaptedLayers>,
    io: TextTensors,
    executable: Executable,
}

impl TextEncoder {
    pub fn new(tokenizer: Tokenizer, module: Module<text_encoder::Config>) -> Self {
        Self { tokenizer, module, kept: RefCell::default() }
    }

    /// Encodes windows of tokens: [window][token][channel], and the pooled embedding of the first. `table`: the
    /// vectors of textual inversion.
    async fn run(
        &self,
        residence: &Residence,
        recipe: TextRecipe,
        windows: &[Vec<Piece>],
        table: &[f32],
    ) -> Result<Encoded> {
        let config = &self.module.config;
        let width = config.hidden_size() as usize;
        let (mut embeds, mut pooled) = (Vec::new(), Vec::new());
        for group in windows.chunks(WINDOWS) {
            let mut ids: Vec<u32> = Vec::new();
            let mut eos = Vec::new();
            let mut vectors = Vec::new();
            for window in group {
                let window = self.tokenizer.window(window.iter().map(|p| p.id));
                let known = window.iter().map(|&id| if id < FIRST_VECTOR { id } else { 0 });
                let known: Vec<u32> = known.collect();
                if let text_encoder::Config::Clip(config) = config {
                    eos.push(config.eos_index(&known));
                }
                if let Some(id) = known.iter().find(|&&id| id >= config.vocab_size()) {
                    return Err(Error::bad_checkpoint(format!(
                        "the tokenizer makes token {id}, and the text encoder knows {}. They are not of \
                         one model",
                        config.vocab_size()
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
            let batch = group.len() as u32;
            let plan = self.plan(&residence.gpu, recipe, [batch, ids.len() as u32 / batch]).await?;
            let TextPlan { executable, io, .. } = &plan;
            executable.write_u32(&residence.gpu, io.ids, &ids)?;
            if let Some(t) = io.segments {
                executable.write_u32(&residence.gpu, t, &vec![0; ids.len()])?;
            }
            if let Some(t) = io.vectors {
                executable.write(&residence.gpu, t, &vectors)?;
            }
            if let Some(t) = io.eos {
                executable.write_u32(&residence.gpu, t, &eos)?;
            }
            executable.run(&residence.gpu);
            embeds.extend(executable.read(&residence.gpu, io.embeds).await?);
            if let Some(t) = io.pooled
                && pooled.is_empty()
            {
                pooled = executable.read(&residence.gpu, t).await?;
                pooled.truncate(pooled.len() / group.len());
            }
            // Where memory is low the weights leave the GPU when the text is encoded, and a plan would hold them.
            if !residence.low {
                *self.kept.borrow_mut() = Some(plan);
            }
        }
        Ok((embeds, pooled))
    }

    /// The next text is encoded with kernels as they are chosen then.
    pub fn forget_plan(&self) {
        self.kept.take();
    }

    /// The plan of the last text where it fits, or a new one. `size`: windows and tokens of each.
    async fn plan(&self, gpu: &Gpu, recipe: TextRecipe, size: [u32; 2]) -> Result<TextPlan> {
        let weights = self.module.part.weights()?;
        let adapted = weights.adapted();
        let fits = |plan: &TextPlan| {
            let same = Rc::ptr_eq(&plan.weights, &weights) && Rc::ptr_eq(&plan.adapted, &adapted);
            same && plan.recipe == recipe && plan.size == size
        };
        if let Some(plan) = self.kept.take().filter(fits) {
            return Ok(plan);
        }
        let record = |options: &_| {
            let mut r = Recorder::new(options).with_adapted(adapted.clone());
            let io = record_text(&self.module.config, recipe, &mut r, size[0], size[1])?;
            Ok((r.finish(), io))
        };
        let (plan, io) = sound(gpu, &self.module.options, record).await?;
        let executable = plan.instantiate(gpu, &*weights)?;
        Ok(TextPlan { recipe, size, weights, adapted, io, executable })
    }
}

/// The text encoders of a model: one, or SDXL's two.
pub(super) struct TextEncoders {
    pub encoders: Vec<TextEncoder>,
    pub embeddings: Embeddings,
    cache: TextCache,
    sdxl: bool,
}

impl TextEncoders {
    pub fn new(encoders: Vec<TextEncoder>, sdxl: bool) -> Self {
        Self { encoders, embeddings: Embeddings::default(), cache: TextCache::default(), sdxl }
    }

    /// Tokens of a window.
    pub fn tokens(&self) -> usize {
        self.encoders.iter().map(|e| e.tokenizer.model_max_length()).min().unwrap_or(0)
    }

    /// Channels of a token's conditioning, of all encoders together.
    pub fn channels(&self) -> usize {
        self.encoders.iter().map(|e| e.module.config.hidden_size() as usize).sum()
    }

    /// The fewest layers that conditioning passes.
    pub fn layers(&self) -> u32 {
        let recipe = |i| TextRecipe::of(self.sdxl, i, self.encoders.len());
        let layers = self.encoders.iter().enumerate().filter_map(|(i, e)| recipe(i).layers(&e.module.config));
        layers.min().unwrap_or(0)
    }

    /// Reads a textual inversion embedding and keeps it under `key`.
    ///
    /// # Errors
    /// Those of [`Embeddings::load`].
    pub async fn load_embedding<R: ReadAt>(&self, key: &str, file: &R) -> Result<()> {
        let (widths, room) = self.room();
        self.embeddings.load(key, file, &widths, room).await
    }

    /// Reads the embeddings inside a LoRA's file, and gives the word and the key of each.
    ///
    /// # Errors
    /// Those of [`Embeddings::load`].
    pub async fn load_bundled<R: ReadAt>(
        &self,
        key: &str,
        file: &R,
        table: &Table,
    ) -> Result<Vec<(String, String)>> {
        let (widths, room) = self.room();
        self.embeddings.load_bundled(key, (file, table), &widths, room).await
    }

    /// How wide each encoder's vectors are, and how many a window holds: all but the marks at both ends.
    fn room(&self) -> (Vec<u32>, u64) {
        let widths = self.encoders.iter().map(|e| e.module.config.hidden_size());
        (widths.collect(), self.tokens().saturating_sub(2) as u64)
    }

    /// Conditioning of the prompt and, where guidance needs it, of the negative prompt, for every one of `steps`.
    ///
    /// # Errors
    /// `invalid-option`, `device-lost`, `out-of-memory`.
    pub async fn prompts(
        &self,
        residence: &Residence,
        loras: ChosenLoras<'_>,
        texts: &Texts,
        steps: usize,
        guided: bool,
    ) -> Result<Prompts> {
        let parts = parts(texts);
        // Several prompts are weighed against the negative one whatever the scale.
        let guided = guided || parts.len() > 1 || parts.iter().any(|(_, weight)| *weight != 1.0);
        let mut embeddings = texts.embeddings.clone();
        embeddings.extend(loras.words(&embeddings));
        let request = |text: &str, clip_skip: u32| Request {
            text: text.to_owned(),
            syntax: texts.syntax,
            clip_skip,
            embeddings: embeddings.clone(),
            loras: loras.scales.iter().map(|a| (a.key.clone(), a.text)).collect(),
        };

        // Every text of every schedule, encoded together.
        let mut all: Vec<(Vec<(usize, Text)>, u32)> =
            parts.iter().map(|(text, _)| (scheduled(text, texts.syntax, steps), texts.clip_skip)).collect();
        if guided {
            all.push((scheduled(&texts.negative, texts.syntax, steps), texts.negative_clip_skip));
        }
        let every =
            all.iter().flat_map(|(schedule, skip)| schedule.iter().map(move |(_, text)| (text, *skip)));
        let requests = every.filter_map(|(text, skip)| match text {
            Text::Words(words) => Some(request(words, skip)),
            Text::Embeds(_) | Text::Zeros => None,
        });
        let (encoded, truncated) = self.encode_texts(residence, loras, requests.collect()).await?;
        let mut encoded = encoded.into_iter();
        let mut schedules: Vec<Schedule> = Vec::new();
        for (schedule, _) in all {
            let one = |(end, text): (usize, Text)| {
                let conditioning = match text {
                    Text::Words(_) => encoded.next()?,
                    Text::Embeds(embeds) => Rc::new(Conditioning { embeds, ..Default::default() }),
                    Text::Zeros => Rc::default(),
                };
                Some((end, conditioning))
            };
            schedules.push(schedule.into_iter().filter_map(one).collect());
        }
        let longest = schedules.iter().flatten().map(|(_, c)| c.embeds.len()).max().unwrap_or(0);
        if guided && matches!(texts.negative, Text::Zeros) {
            let pooled = schedules.iter().flatten().map(|(_, c)| c.pooled.len()).max().unwrap_or(0);
            let zeros =
                Conditioning { embeds: vec![0.0; longest], pooled: vec![0.0; pooled], ..Default::default() };
            schedules.last_mut().into_iter().flatten().for_each(|(_, c)| *c = Rc::new(zeros.clone()));
        }
        if schedules.iter().flatten().any(|(_, c)| c.embeds.len() < longest) {
            let empty = Request { syntax: Syntax::Plain, ..request("", texts.clip_skip) };
            let (empty, _) = self
                .encode_texts(residence, loras, vec![Request { embeddings: Vec::new(), ..empty }])
                .await?;
            lengthen(&mut schedules, longest, &empty[0].embeds);
        }
        let negative = if guided { schedules.pop() } else { None };
        let positive = parts.iter().map(|(_, weight)| *weight).zip(schedules).collect();
        let tokens = (longest / self.channels().max(1)) as u32;
        Ok(Prompts { negative, positive, tokens, truncated })
    }

    /// Conditioning of each text, and the end of each that did not fit into the text encoder's window; from the
    /// cache where it is there.
    async fn encode_texts(
        &self,
        residence: &Residence,
        loras: ChosenLoras<'_>,
        requests: Vec<Request>,
    ) -> Result<(Vec<Rc<Conditioning>>, Vec<String>)> {
        let mut missing: Vec<Request> = Vec::new();
        for request in &requests {
            if self.cache.get(request).is_none() && !missing.contains(request) {
                missing.push(request.clone());
            }
        }
        // Beside the cache, which may be too small for all of them.
        let mut fresh = Vec::new();
        if !missing.is_empty() {
            for (request, (conditioning, truncated)) in
                missing.iter().zip(self.encode_missing(residence, loras, &missing).await?)
            {
                let conditioning = Rc::new(conditioning);
                self.cache.put(request.clone(), conditioning.clone(), truncated.clone());
                fresh.push((conditioning, truncated));
            }
        }
        let (mut out, mut cut) = (Vec::new(), Vec::new());
        for request in &requests {
            let found = match missing.iter().position(|m| m == request) {
                Some(i) => Some(fresh[i].clone()),
                None => self.cache.get(request),
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
    async fn encode_missing(
        &self,
        residence: &Residence,
        loras: ChosenLoras<'_>,
        requests: &[Request],
    ) -> Result<Vec<(Conditioning, Option<String>)>> {
        residence.bring(Stage::Text, &|| false).await?;
        loras.merge(residence, Stage::Text).await?;
        let mut truncated = vec![None; requests.len()];
        let mut words = Vec::new();
        // Of each encoder and text: its rows, [token][channel].
        let mut parts: Vec<(Vec<Vec<f32>>, usize)> = Vec::new();
        let mut pooled: Vec<Vec<f32>> = Vec::new();
        for (i, encoder) in self.encoders.iter().enumerate() {
            let width = encoder.module.config.hidden_size() as usize;
            let mut rows = Vec::new();
            pooled.clear();
            for (request, truncated) in requests.iter().zip(&mut truncated) {
                let (embeddings, table) = self.embeddings.of_encoder(i, width, &request.embeddings)?;
                let chunked = chunk::chunked(&encoder.tokenizer, &request.text, request.syntax, &embeddings)?;
                let mut windows = chunked.chunks;
                if i == 0 {
                    let texts = windows.iter().map(|pieces| pieces.iter().map(|p| p.text.clone()).collect());
                    words.push(texts.collect::<Vec<Vec<String>>>());
                }
                let count = windows.len();
                let weighted = windows.iter().flatten().any(|p| p.weight != 1.0);
                if weighted && request.syntax == Syntax::Comfy {
                    windows.push(Vec::new());
                }
                let recipe = TextRecipe {
                    clip_skip: request.clip_skip,
                    vectors: windows.iter().flatten().any(|p| p.id >= FIRST_VECTOR),
                    ..TextRecipe::of(self.sdxl, i, self.encoders.len())
                };
                let (mut z, first) = encoder.run(residence, recipe, &windows, &table).await?;
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
        let texts = pooled.into_iter().zip(words).zip(truncated).enumerate();
        let conditioning = texts.map(|(p, ((pooled, words), truncated))| {
            // The encoders' channels beside each other.
            let tokens = parts.iter().map(|(rows, width)| rows[p].len() / width).min().unwrap_or(0);
            let mut embeds = Vec::new();
            for t in 0..tokens {
                for (rows, width) in &parts {
                    embeds.extend_from_slice(&rows[p][t * width..(t + 1) * width]);
                }
            }
            (Conditioning { embeds, pooled, words }, truncated)
        });
        Ok(conditioning.collect())
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
        let Some(encoder) = self.encoders.first() else { return Ok(PromptView::default()) };
        let width = encoder.module.config.hidden_size() as usize;
        let (embeddings, _) = self.embeddings.of_encoder(0, width, embeddings)?;
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
        let room = encoder.tokenizer.model_max_length() - 2;
        Ok(PromptView { tokens, chunks: all.chunks.len(), room, foreign: all.foreign() })
    }
}

/// The prompts between `AND`, and their weights.
fn parts(texts: &Texts) -> Vec<(Text, f32)> {
    match (&texts.prompt, texts.syntax) {
        (Text::Words(prompt), Syntax::A1111 | Syntax::Comfy) => {
            let parts = grammar::composition(&grammar::extra_networks(prompt).0);
            parts.into_iter().map(|(text, weight)| (Text::Words(text), weight as f32)).collect()
        }
        (other, _) => vec![(other.clone(), 1.0)],
    }
}

/// The last step of each text of a schedule, from 1.
fn scheduled(text: &Text, syntax: Syntax, steps: usize) -> Vec<(usize, Text)> {
    match (text, syntax) {
        (Text::Words(words), Syntax::A1111 | Syntax::Comfy) => {
            let texts = grammar::schedule(words, steps).into_iter();
            texts.map(|(end, text)| (end, Text::Words(text))).collect()
        }
        (text, _) => vec![(steps, text.clone())],
    }
}

/// One length for all: shorter ones go on with windows of an empty prompt.
fn lengthen(schedules: &mut [Schedule], length: usize, window: &[f32]) {
    for (_, conditioning) in schedules.iter_mut().flatten() {
        let missing = (length - conditioning.embeds.len()) / window.len();
        if missing > 0 {
            Rc::make_mut(conditioning).embeds.extend(window.repeat(missing));
        }
    }
}
