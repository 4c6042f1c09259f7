//! Tiles chosen for this GPU: on an earlier visit, or while the weights arrive.

use crate::clock::now;
use crate::error::Result;
use crate::gpu::choices::Choices;
use crate::gpu::{Gpu, Options};
use crate::named::Named;
use crate::ops::autotune;

/// What tuning may take while a model loads, in milliseconds.
pub(super) const BUDGET: f64 = 3000.0;
/// Models whose UNet is smaller are drawn before the tuning has paid.
pub(super) const WORTH: u64 = 256 << 20;

/// Where choices come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    #[default]
    Shipped,
    /// From an earlier visit.
    Kept,
    /// Timed by this pipeline: to be kept.
    Timed,
}

impl Named for Origin {
    const NAMES: &'static [(&'static str, Self)] =
        &[("shipped", Self::Shipped), ("kept", Self::Kept), ("timed", Self::Timed)];
}

/// Choices, and under what they are kept.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub key: String,
    pub text: String,
    pub origin: Origin,
}

/// The choices of an earlier visit among `kept` (key and text of each) over those that `options` have, if they are of
/// this GPU and these kernels.
pub(super) fn kept(gpu: &Gpu, options: &Options, kept: &[(String, String)]) -> Option<Choices> {
    let key = autotune::key(gpu, options);
    let (_, text) = kept.iter().find(|(k, _)| *k == key)?;
    options.choices.with_text(text, autotune::candidates_of(options))
}

/// Whether there are classes that were not timed.
pub(super) fn unfinished(choices: &Choices) -> bool {
    !autotune::is_complete(choices, &autotune::WORKS)
}

/// Times what was not timed yet, for at most `budget` milliseconds or until `stop`.
///
/// # Errors
/// `device-lost`.
pub(super) async fn tune(
    gpu: &Gpu,
    options: &Options,
    budget: f64,
    stop: &dyn Fn() -> bool,
) -> Result<Choices> {
    let end = now() + budget;
    autotune::tune(gpu, options, &autotune::WORKS, || now() >= end || stop()).await
}
