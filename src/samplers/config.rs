//! `scheduler_config.json`.

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::named::Named;

/// A scheduler's configuration from a checkpoint. Each sampler reads the keys of its own
/// diffusers class, with that class's defaults, and leaves the rest alone.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    class_name: String,
    fields: Map<String, Value>,
}

/// What the UNet's output means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    Epsilon,
    Velocity,
    Sample,
    /// EDM's: minus the velocity. Checkpoints call it "epsilon", and no name here means it; see `edm.rs`.
    Preconditioned,
}

/// diffusers' names.
impl Named for Prediction {
    const NAMES: &[(&str, Prediction)] = &[
        ("epsilon", Prediction::Epsilon),
        ("v_prediction", Prediction::Velocity),
        ("sample", Prediction::Sample),
    ];
}

/// How inference timesteps are spaced among the training timesteps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spacing {
    Linspace,
    Leading,
    Trailing,
}

impl SchedulerConfig {
    /// Reads the text of `scheduler_config.json`. Python's `Infinity`, `-Infinity` and `NaN`, which
    /// diffusers writes there, are understood.
    ///
    /// Errors: `bad-checkpoint` if it is no JSON object or has no `_class_name`.
    pub fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(&quote_non_finite(text)).map_err(|e| {
            Error::bad_checkpoint(format!(
                "scheduler_config.json is not JSON ({e}); fetch the checkpoint again"
            ))
        })?;
        let Value::Object(fields) = value else {
            return Err(Error::bad_checkpoint(
                "scheduler_config.json is not a JSON object; fetch the checkpoint again",
            ));
        };
        let Some(class_name) = fields.get("_class_name").and_then(Value::as_str).map(str::to_owned) else {
            return Err(Error::bad_checkpoint(
                "scheduler_config.json names no `_class_name`; add the diffusers class that the model was made for",
            ));
        };
        Ok(Self { class_name, fields })
    }

    /// diffusers' class that the checkpoint asks for.
    pub fn class_name(&self) -> &str {
        &self.class_name
    }

    /// Whether the model has EDM's noise levels instead of a training's betas.
    pub fn is_edm(&self) -> bool {
        self.class_of_steps() != self.class_name
    }

    /// The class of the checkpoint's steps over a training's betas: itself, for a class that is not EDM's.
    pub(super) fn class_of_steps(&self) -> &str {
        match self.class_name.as_str() {
            "EDMEulerScheduler" => "EulerDiscreteScheduler",
            "EDMDPMSolverMultistepScheduler" => "DPMSolverMultistepScheduler",
            own => own,
        }
    }

    fn wrong(&self, key: &str, value: &Value, want: &str) -> Error {
        Error::unsupported(format!(
            "scheduler_config.json has `{key}` = {value}, which is not {want}; correct it"
        ))
    }

    /// The refusal of a value that this engine does not compute.
    pub(super) fn refuse(key: &str, value: impl std::fmt::Display) -> Error {
        Error::unsupported(format!(
            "scheduler_config.json has `{key}` = {value}, which is not supported; choose another `scheduler`"
        ))
    }

    pub(super) fn bool(&self, key: &str, default: bool) -> Result<bool> {
        match self.fields.get(key) {
            None => Ok(default),
            // Python's truth of None.
            Some(Value::Null) => Ok(false),
            Some(v) => v.as_bool().ok_or_else(|| self.wrong(key, v, "true or false")),
        }
    }

    /// Refuses a switch that is on.
    pub(super) fn must_be_off(&self, key: &str) -> Result<()> {
        if self.bool(key, false)? { Err(Self::refuse(key, true)) } else { Ok(()) }
    }

    pub(super) fn usize(&self, key: &str, default: usize) -> Result<usize> {
        match self.fields.get(key) {
            None => Ok(default),
            Some(v) => v
                .as_u64()
                .filter(|&v| v <= 1_000_000)
                .map(|v| v as usize)
                .ok_or_else(|| self.wrong(key, v, "a whole number from 0 to 1000000")),
        }
    }

    pub(super) fn f64(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.optional_f64(key)?.unwrap_or(default))
    }

    /// A number, or `None` where the key is missing or null.
    pub(super) fn optional_f64(&self, key: &str) -> Result<Option<f64>> {
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(s)) if s == "-Infinity" => Ok(Some(f64::NEG_INFINITY)),
            Some(Value::String(s)) if s == "Infinity" => Ok(Some(f64::INFINITY)),
            Some(v) => v.as_f64().map(Some).ok_or_else(|| self.wrong(key, v, "a number")),
        }
    }

    /// A string, `None` where the key is null, `default` where it is missing.
    pub(super) fn optional_str<'a>(&'a self, key: &str, default: Option<&'a str>) -> Result<Option<&'a str>> {
        match self.fields.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(v) => v.as_str().map(Some).ok_or_else(|| self.wrong(key, v, "a string")),
        }
    }

    pub(super) fn str<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str> {
        Ok(self.optional_str(key, Some(default))?.unwrap_or(default))
    }

    /// A list of numbers, or `None` where the key is missing or null.
    pub(super) fn optional_list(&self, key: &str) -> Result<Option<Vec<f32>>> {
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => v
                .as_array()
                .and_then(|a| a.iter().map(|x| x.as_f64().map(|x| x as f32)).collect())
                .map(Some)
                .ok_or_else(|| self.wrong(key, v, "a list of numbers")),
        }
    }

    /// Says otherwise what a checkpoint predicts, and whether its noise ends in nothing but noise.
    pub fn correct(&mut self, prediction: Option<Prediction>, zero_snr: Option<bool>) {
        if let Some(prediction) = prediction {
            self.fields.insert("prediction_type".into(), prediction.name().into());
        }
        if let Some(zero) = zero_snr {
            self.fields.insert("rescale_betas_zero_snr".into(), zero.into());
        }
    }

    pub(super) fn prediction_type(&self) -> Result<Prediction> {
        let name = self.str("prediction_type", "epsilon")?;
        let known = Prediction::NAMES.iter().find(|(own, _)| *own == name);
        known.map(|(_, value)| *value).ok_or_else(|| Self::refuse("prediction_type", name))
    }

    pub(super) fn timestep_spacing(&self, default: &str) -> Result<Spacing> {
        match self.str("timestep_spacing", default)? {
            "linspace" => Ok(Spacing::Linspace),
            "leading" => Ok(Spacing::Leading),
            "trailing" => Ok(Spacing::Trailing),
            other => Err(Self::refuse("timestep_spacing", other)),
        }
    }
}

/// Puts quotes around bare `Infinity`, `-Infinity` and `NaN`, which JSON proper does not have.
fn quote_non_finite(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"].into_iter().find(|w| !in_string && rest.starts_with(w));
        if let Some(word) = word {
            out.push('"');
            out.push_str(word);
            out.push('"');
            rest = &rest[word.len()..];
            continue;
        }
        let mut len = c.len_utf8();
        if in_string && c == '\\' {
            len += rest[len..].chars().next().map_or(0, char::len_utf8);
        } else if c == '"' {
            in_string = !in_string;
        }
        out.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    out
}
