//! What a file is, by the names of its tensors: for messages where it was given in a wrong place.

/// What is said of a file with tensors of these names, where one is known: "a T2I-Adapter".
pub fn kind<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<&'static str> {
    /// By what a name begins with, contains and ends with. The first that any name fits.
    const KINDS: &[(&str, &str, &str, &str)] = &[
        ("", "lllite_", "", "a ControlNet-LLLite"),
        ("lora_controlnet", "", "", "a Control-LoRA"),
        ("", "", ".to_k_ip.weight", "an IP-Adapter"),
        ("ip_adapter.", "", "", "an IP-Adapter"),
        ("image_proj.", "", "", "an IP-Adapter"),
        ("control_add_embedding.", "", "", "a ControlNet Union"),
        ("control_model.", "", "", "a ControlNet"),
        ("controlnet_cond_embedding.", "", "", "a ControlNet"),
        ("input_hint_block.", "", "", "a ControlNet"),
        ("adapter.body.", "", "", "a T2I-Adapter"),
        ("body.", "block1.weight", "", "a T2I-Adapter"),
        ("model.diffusion_model.", "", "", "a whole checkpoint"),
        ("", ".oft_blocks", "", "an OFT"),
        ("", ".oft_diag", "", "an OFT"),
        ("", ".oft_R", "", "an OFT"),
        ("", ".boft_R", "", "a BOFT"),
        ("", ".hada_w1_a", "", "a LoHa"),
        ("", ".lokr_w", "", "a LoKr"),
        ("", ".lora_down.", "", "a LoRA"),
        ("", ".lora_A.", "", "a LoRA"),
        ("", "_lora.down.", "", "a LoRA"),
        ("", ".lora.down.", "", "a LoRA"),
        ("", "", ".diff", "full differences (a LoRA)"),
        ("string_to_param", "", "", "a textual inversion embedding"),
        ("emb_params", "", "", "a textual inversion embedding"),
        ("clip_g", "", "", "a textual inversion embedding"),
        ("first_stage_model.", "", "", "a VAE"),
        ("decoder.up", "", "", "a VAE"),
        ("vision_model.", "", "", "a CLIP vision encoder"),
        ("text_model.encoder.", "", "", "a text encoder"),
        ("down_blocks.", "", "", "a UNet"),
        ("params_ema.", "", "", "an upscaler"),
        ("model.0.weight", "", "", "an upscaler"),
        ("conv_first.", "", "", "an upscaler"),
    ];
    let fits = |name: &str, (begin, within, end): (&str, &str, &str)| {
        name.starts_with(begin) && name.contains(within) && name.ends_with(end)
    };
    let known = |&&(begin, within, end, _): &&(&str, &str, &str, &'static str)| {
        names.clone().any(|name| fits(name, (begin, within, end)))
    };
    KINDS.iter().find(known).map(|(.., what)| *what)
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
            assert_eq!(kind(std::iter::once(name)), Some(what), "{name}");
        }
        assert_eq!(kind(["weight", "bias"].into_iter()), None);
    }
}
