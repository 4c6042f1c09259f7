//! What is shown of a prediction's making (`inside` of `generate`, and `predict`).

use crate::gpu::Probe;
use crate::named::Named;
use crate::samplers::{Noising, composed_guidance};

/// What is asked for. With nothing of it, nothing is done for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// What goes into guidance, and what comes out.
    pub guidance: bool,
    /// How much each word is looked at, and from where.
    pub attention: bool,
    /// What each block of the network makes.
    pub activations: bool,
}

impl Inside {
    /// What is looked at in a run for so many texts: the prompt's, which `before` others stand before.
    pub(super) fn probe(self, batch: u32, before: u32) -> Option<Probe> {
        let Inside { attention, activations, .. } = self;
        let picture = if batch > before { before } else { 0 };
        (attention || activations).then(|| Probe { picture, attention, activations, ..Default::default() })
    }
}

/// What one prediction showed.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub parts: Option<Parts>,
    /// Of the first picture.
    pub attention: Option<WordMaps>,
    /// The same.
    pub activations: Vec<Block>,
}

/// What a block of the network made, for the prompt.
#[derive(Clone, Debug)]
pub struct Block {
    /// As diffusers calls it.
    pub name: String,
    /// How many there are.
    pub channels: u32,
    pub height: u32,
    pub width: u32,
    /// How long the GPU was at it, in one run for all texts, where it can tell.
    pub milliseconds: Option<f64>,
    /// The first of them, height x width each.
    pub maps: Vec<Vec<f32>>,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// The mark before the text.
    Start,
    Word,
    /// The mark after it.
    End,
    /// All that fills the window up.
    Padding,
}

impl Named for TokenKind {
    const NAMES: &'static [(&'static str, Self)] =
        &[("start", Self::Start), ("word", Self::Word), ("end", Self::End), ("padding", Self::Padding)];
}

/// How much of the network's attention each token of a prompt gets, from each latent: the mean over the heads of the
/// layers that [`watch_attention`](crate::ops::watch_attention) looks at, brought to the latents' size. At each place all
/// of them are 1.
#[derive(Clone, Debug)]
pub struct WordMaps {
    pub height: u32,
    pub width: u32,
    pub tokens: Vec<TokenMap>,
}

#[derive(Clone, Debug)]
pub struct TokenMap {
    pub kind: TokenKind,
    /// What of the prompt it stands for.
    pub text: String,
    pub map: Vec<f32>,
}

/// A prediction with guidance, and without. NCHW, all pictures; predictions are of the noise, whatever the network was
/// trained to predict.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// What the network was given: of unit spread.
    pub input: Vec<f32>,
    pub noise: Vec<f32>,
    /// The picture behind the noise, of the guided prediction.
    pub x0: Vec<f32>,
    pub cond: Vec<f32>,
    /// With the negative prompt; empty without guidance.
    pub uncond: Vec<f32>,
}

impl Parts {
    /// Adds a picture. `each`: the network's outputs, the negative prompt's first unless it is the only one; `weights`:
    /// of the prompts between `AND`; `guided`: what was made of them.
    pub(super) fn add(&mut self, input: &[f32], guided: &[f32], each: &[Vec<f32>], weights: &[f32]) {
        self.input.extend(input);
        self.noise.extend(guided);
        match each {
            [] => {}
            [one] => self.cond.extend(one),
            [uncond, cond] if *weights == [1.0] => {
                self.uncond.extend(uncond);
                self.cond.extend(cond);
            }
            [uncond, conds @ ..] => {
                self.uncond.extend(uncond);
                self.cond.extend(composed_guidance(uncond, conds, weights, 1.0));
            }
        }
    }

    /// The network's outputs turned to what they say of the noise.
    pub(super) fn turned(mut self, noising: &Noising, timestep: f32) -> Self {
        let alpha = noising.nearest_alpha(timestep);
        self.x0 = noising.x0(alpha, &self.noise, &self.input);
        for output in [&mut self.noise, &mut self.cond, &mut self.uncond] {
            *output = noising.epsilon(alpha, output, &self.input);
        }
        self
    }
}
