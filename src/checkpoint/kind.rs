//! What a file is, by the names of its tensors: for messages where it was given in a wrong place.

use std::fmt;

/// What a file is, and where it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// "a T2I-Adapter"
    pub what: &'static str,
    /// "`loras`"
    place: &'static str,
}

/// Of what is not read here at all.
const NOWHERE: &str = "";
/// The place of a whole model.
const WHOLE: &str = "`fromPretrained`";

impl Kind {
    /// Whether it is given as one of these: "`loras`".
    pub fn is_of(self, place: &str) -> bool {
        self.place == place
    }
}

/// "a VAE, which is given as `vae`": for a message after "it is".
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.place {
            NOWHERE => write!(f, "{}, which is not read here", self.what),
            place => write!(f, "{}, which is given as {place}", self.what),
        }
    }
}

/// What a file with tensors of these names is, where that is known.
pub fn kind<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<Kind> {
    /// By what a name begins with, contains and ends with. The first that any name fits.
    const KINDS: &[(&str, &str, &str, &str, &str)] = &[
        ("", "lllite_", "", "a ControlNet-LLLite", "`controlnets`"),
        ("lora_controlnet", "", "", "a Control-LoRA", "`controlnets`"),
        ("", "", ".to_k_ip.weight", "an IP-Adapter", "`ipAdapters`"),
        ("ip_adapter.", "", "", "an IP-Adapter", "`ipAdapters`"),
        ("image_proj.", "", "", "an IP-Adapter", "`ipAdapters`"),
        ("control_add_embedding.", "", "", "a ControlNet Union", "`controlnets`"),
        ("control_model.", "", "", "a ControlNet", "`controlnets`"),
        ("controlnet_cond_embedding.", "", "", "a ControlNet", "`controlnets`"),
        ("input_hint_block.", "", "", "a ControlNet", "`controlnets`"),
        ("adapter.body.", "", "", "a T2I-Adapter", "`controlnets`"),
        ("body.", "block1.weight", "", "a T2I-Adapter", "`controlnets`"),
        ("model.diffusion_model.", "", "", "a whole checkpoint", WHOLE),
        ("", ".oft_blocks", "", "an OFT", "`loras`"),
        ("", ".oft_diag", "", "an OFT", "`loras`"),
        ("", ".oft_R", "", "an OFT", "`loras`"),
        ("", ".boft_R", "", "a BOFT", "`loras`"),
        ("", ".hada_w1_a", "", "a LoHa", "`loras`"),
        ("", ".lokr_w", "", "a LoKr", "`loras`"),
        ("", ".lora_down.", "", "a LoRA", "`loras`"),
        ("", ".lora_A.", "", "a LoRA", "`loras`"),
        ("", "_lora.down.", "", "a LoRA", "`loras`"),
        ("", ".lora.down.", "", "a LoRA", "`loras`"),
        ("lora_", "", ".a1.weight", "a GLoRA", "`loras`"),
        ("lora_", "", ".w_norm", "full differences (a LoRA)", "`loras`"),
        ("", "", ".diff", "full differences (a LoRA)", "`loras`"),
        ("bundle_emb.", "", "", "embeddings of a LoRA's file", "`loras`"),
        ("string_to_param", "", "", "a textual inversion embedding", "`embeddings`"),
        ("emb_params", "", "", "a textual inversion embedding", "`embeddings`"),
        ("clip_g", "", "", "a textual inversion embedding", "`embeddings`"),
        ("", "motion_modules.", "", "a motion module (AnimateDiff)", NOWHERE),
        ("", "fuser.linear", "", "a GLIGEN", NOWHERE),
        ("320.", "", "", "a hypernetwork", NOWHERE),
        ("768.", "", "", "a hypernetwork", NOWHERE),
        ("encoder.block.", "", "", "a T5 text encoder", NOWHERE),
        ("decoder.layers.", "", "", "a small VAE (TAESD)", "`tinyVae` or `vae`"),
        ("first_stage_model.", "", "", "a VAE", "`vae`"),
        ("decoder.up", "", "", "a VAE", "`vae`"),
        ("decoder.conv_in.", "", "", "a VAE", "`vae`"),
        ("vision_model.", "", "", "a CLIP vision encoder", "`imageEncoder` of `ipAdapters`"),
        ("text_model.encoder.", "", "", "a text encoder alone", NOWHERE),
        ("down_blocks.", "", "", "a UNet alone", NOWHERE),
        ("input_blocks.", "", "", "a UNet alone", NOWHERE),
        ("params_ema.", "", "", "an upscaler", "`Upscaler`"),
        ("model.0.weight", "", "", "an upscaler", "`Upscaler`"),
        ("conv_first.", "", "", "an upscaler", "`Upscaler`"),
    ];
    let fits = |name: &str, (begin, within, end): (&str, &str, &str)| {
        name.starts_with(begin) && name.contains(within) && name.ends_with(end)
    };
    let known = KINDS
        .iter()
        .find(|(begin, within, end, ..)| names.clone().any(|name| fits(name, (begin, within, end))));
    known.map(|&(.., what, place)| Kind { what, place })
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn published_files_are_known_by_their_names() {
        for (name, what) in [
            // kohya-ss/controlnet-lllite, TencentARC/T2I-Adapter, h94/IP-Adapter, stabilityai/control-lora,
            // lllyasviel/ControlNet-v1-1, xinsir/controlnet-union-sdxl-1.0
            (
                "lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.down.0.weight",
                "a ControlNet-LLLite",
            ),
            ("body.0.block1.weight", "a T2I-Adapter"),
            ("adapter.body.0.resnets.0.block1.weight", "a T2I-Adapter"),
            ("ip_adapter.1.to_k_ip.weight", "an IP-Adapter"),
            ("image_proj.proj.weight", "an IP-Adapter"),
            ("lora_controlnet", "a Control-LoRA"),
            ("control_model.input_blocks.0.0.weight", "a ControlNet"),
            ("control_add_embedding.linear_1.weight", "a ControlNet Union"),
            ("lora_unet_mid_block_attentions_0_proj_in.oft_blocks", "an OFT"),
            ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", "a LoRA"),
            ("unet.mid_block.attentions.0.proj_in.lora_A.weight", "a LoRA"),
        ] {
            assert_eq!(kind(std::iter::once(name)).map(|k| k.what), Some(what), "{name}");
        }
        let adapter = kind(["image_proj.norm.weight"].into_iter()).map(|k| k.to_string());
        assert_eq!(adapter.as_deref(), Some("an IP-Adapter, which is given as `ipAdapters`"));
        assert_eq!(kind(["weight", "bias"].into_iter()), None);
    }
}
