//! LoRAs' tags in a prompt, as A1111 reads them (`extra_networks_lora.py`): `<lora:name:te:unet>`, or `te=` and `unet=`,
//! of which the second is the first where it is left out; `lyco` means `lora`.

use crate::error::{Error, Result};
use crate::prompt::grammar;

/// A LoRA's tag in a prompt.
pub struct Tag {
    /// As it stands in the prompt.
    pub text: String,
    pub name: String,
    /// Of the text encoders and of the UNet.
    pub weights: [f32; 2],
}

/// The tags of LoRAs in a prompt, in A1111's order: those of the kind that stands first, then those of the other.
///
/// # Errors
/// `invalid-option` for a weight that is no number, and for a rank (`dyn`), which is not read here.
pub fn of(prompt: &str) -> Result<Vec<Tag>> {
    let (_, networks) = grammar::extra_networks(prompt);
    let mut networks: Vec<_> =
        networks.into_iter().filter(|n| ["lora", "lyco"].contains(&&*n.kind)).collect();
    let first = networks.first().map(|network| network.kind.clone());
    networks.sort_by_key(|network| Some(&network.kind) != first.as_ref());
    networks
        .into_iter()
        .map(|network| {
            let text = format!("<{}:{}>", network.kind, network.arguments.join(":"));
            let (named, placed) = network.named();
            let number = |weight: &str| -> Result<f32> {
                let number = if weight.trim().is_empty() { Some(1.0) } else { weight.trim().parse().ok() };
                number.filter(|weight: &f32| weight.is_finite()).ok_or_else(|| {
                    Error::invalid(format!("loras: {text} in the prompt has no number as its weight."))
                })
            };
            let find = |name: &str| named.iter().rev().find(|(n, _)| *n == name).map(|(_, value)| *value);
            if find("dyn").or(placed.get(3).copied()).is_some() {
                return Err(Error::invalid(format!(
                    "loras: {text} in the prompt asks for a part of its rank (dyn), which is not read here; take that \
                     out."
                )));
            }
            let te = find("te").or(placed.get(1).copied()).map_or(Ok(1.0), number)?;
            let unet = find("unet").or(placed.get(2).copied()).map_or(Ok(te), number)?;
            let name = placed.first().copied().unwrap_or_default().to_owned();
            Ok(Tag { name, weights: [te, unet], text })
        })
        .collect()
}
