//! Reading a component's `config.json`. A field that changes the computation and that we do not compute is
//! refused here, by name and value; fields that the class does not know are ignored, as diffusers does.

use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// Above any size of a real model, and small enough that products of three fit u64 with room to spare.
const LARGEST: u64 = 1 << 20;

/// The fields of one component's configuration, asked for by diffusers' names with diffusers' defaults.
/// Every error is [`Code::UnsupportedModel`](crate::error::Code) and names class, field and value.
pub struct Fields<'a> {
    class: &'static str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The fields of a diffusers configuration of `class`; another `_class_name` is refused.
    pub fn diffusers(config: &'a Value, class: &'static str) -> Result<Self> {
        let fields = Self::object(config, class)?;
        match fields.map.get("_class_name") {
            None => Ok(fields),
            Some(Value::String(name)) if name == class => Ok(fields),
            Some(other) => Err(Error::unsupported(format!(
                "config.json is of {other}, where {class} is needed. Choose a Stable Diffusion checkpoint in \
                 diffusers' layout"
            ))),
        }
    }

    /// The fields of `config`, whatever class it names.
    pub fn object(config: &'a Value, class: &'static str) -> Result<Self> {
        let map = config.as_object().ok_or_else(|| {
            Error::unsupported(format!(
                "config.json of {class} is not a JSON object. Choose a checkpoint in diffusers' layout"
            ))
        })?;
        Ok(Fields { class, map })
    }

    /// The field's value; `None` if it is absent. An explicit `null` is `Some(Value::Null)`.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field)
    }

    /// Refuses the configuration for `field`; `wanted` says what would be accepted.
    pub fn refuse(&self, field: &str, wanted: &str) -> Error {
        let value = self.get(field).unwrap_or(&Value::Null);
        Error::unsupported(format!(
            "{}: {field} = {value} is not supported, only {wanted}. Choose another checkpoint",
            self.class
        ))
    }

    /// Refuses any value but `null` (or an absent field, whose default is `None`).
    pub fn must_be_null(&self, field: &str) -> Result<()> {
        match self.get(field) {
            None | Some(Value::Null) => Ok(()),
            Some(_) => Err(self.refuse(field, "null")),
        }
    }

    /// Refuses anything but `false`, or `null`, which Python takes for it.
    pub fn must_be_false(&self, field: &str) -> Result<()> {
        if self.bool(field, false)? { Err(self.refuse(field, "false")) } else { Ok(()) }
    }

    /// Refuses any number but `only`, which is the default too.
    pub fn must_be_number(&self, field: &str, only: f64) -> Result<()> {
        match self.get(field) {
            None => Ok(()),
            Some(v) if v.as_f64() == Some(only) => Ok(()),
            Some(_) => Err(self.refuse(field, &only.to_string())),
        }
    }

    /// Refuses any text but those in `only`, whose first is the default. Returns which it is.
    pub fn one_of<'b>(&self, field: &str, only: &[&'b str]) -> Result<&'b str> {
        let found = match self.get(field) {
            None => only.first(),
            Some(v) => only.iter().find(|o| v.as_str() == Some(o)),
        };
        found.copied().ok_or_else(|| self.refuse(field, &only.join(" or ")))
    }

    /// The activation of residual blocks. diffusers lower-cases the name; both of these are x * sigmoid(x).
    pub fn act_fn_is_silu(&self) -> Result<()> {
        match self.get("act_fn").map(|v| v.as_str().map(str::to_ascii_lowercase)) {
            None => Ok(()),
            Some(Some(name)) if name == "silu" || name == "swish" => Ok(()),
            Some(_) => Err(self.refuse("act_fn", "silu")),
        }
    }

    /// `true` or `false`; `null` counts as `false`.
    pub fn bool(&self, field: &str, default: bool) -> Result<bool> {
        match self.get(field) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(v) => v.as_bool().ok_or_else(|| self.refuse(field, "true or false")),
        }
    }

    /// A finite number.
    pub fn f32(&self, field: &str, default: f32) -> Result<f32> {
        match self.get(field) {
            None => Ok(default),
            Some(v) => match v.as_f64().map(|v| v as f32) {
                Some(v) if v.is_finite() => Ok(v),
                _ => Err(self.refuse(field, "a number")),
            },
        }
    }

    /// A size: a whole number from 1 to 2^20.
    pub fn size(&self, field: &str, default: u32) -> Result<u32> {
        match self.get(field) {
            None => Ok(default),
            Some(v) => as_size(v).ok_or_else(|| self.refuse(field, SIZE)),
        }
    }

    /// `num_attention_heads`, each of a multiple of 4 of `hidden_size` channels.
    pub fn heads(&self, default: u32, hidden_size: u32) -> Result<u32> {
        let heads = self.size("num_attention_heads", default)?;
        if hidden_size.is_multiple_of(heads) && (hidden_size / heads).is_multiple_of(4) {
            return Ok(heads);
        }
        let wanted = format!("a count that cuts hidden_size = {hidden_size} into multiples of 4");
        Err(self.refuse("num_attention_heads", &wanted))
    }

    /// A size, or `None` for `null` and an absent field.
    pub fn optional_size(&self, field: &str) -> Result<Option<u32>> {
        match self.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => as_size(v).map(Some).ok_or_else(|| self.refuse(field, SIZE)),
        }
    }

    /// A list of sizes, at least one.
    pub fn sizes(&self, field: &str, default: &[u32]) -> Result<Vec<u32>> {
        let Some(value) = self.get(field) else { return Ok(default.to_vec()) };
        let sizes = value.as_array().and_then(|list| list.iter().map(as_size).collect::<Option<Vec<_>>>());
        sizes.filter(|s| !s.is_empty() && s.len() <= 16).ok_or_else(|| self.refuse(field, "a list of sizes"))
    }

    /// A list of texts.
    pub fn texts(&self, field: &str, default: &[&'a str]) -> Result<Vec<&'a str>> {
        let Some(value) = self.get(field) else { return Ok(default.to_vec()) };
        let texts = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect::<Option<_>>());
        texts.ok_or_else(|| self.refuse(field, "a list of names"))
    }

    /// One value for each of `blocks` blocks, given as one value for all of them or as a list: `read` reads
    /// one, `wanted` says what it accepts.
    pub fn per_block<T: Clone>(
        &self,
        field: &str,
        default: T,
        blocks: usize,
        wanted: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>> {
        let values = match self.get(field) {
            None => Some(vec![default; blocks]),
            Some(Value::Array(list)) if list.len() == blocks => list.iter().map(read).collect(),
            Some(Value::Array(_)) => None,
            Some(one) => read(one).map(|v| vec![v; blocks]),
        };
        values.ok_or_else(|| self.refuse(field, &format!("{wanted}, or a list of {blocks}")))
    }
}

pub const SIZE: &str = "a whole number from 1 to 2^20";

/// A whole number from 1 to 2^20.
pub fn as_size(value: &Value) -> Option<u32> {
    value.as_u64().filter(|n| (1..=LARGEST).contains(n)).map(|n| n as u32)
}
