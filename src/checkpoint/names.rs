//! Tensor names, from what stands in files to what today's diffusers and transformers call them.
//!
//! Each function takes a name from a diffusers folder and gives the canonical one, or `None` for what no
//! model reads. A name it does not know comes back as it is.

use std::borrow::Cow;

/// Names of a CLIP text encoder. Canonical is without the `text_model.` prefix that transformers before 5
/// writes (`embeddings.token_embedding.weight`, `encoder.layers.0.self_attn.q_proj.weight`,
/// `final_layer_norm.weight`, `text_projection.weight`). Position ids, and the image half of a whole
/// `CLIPModel`, are ignored.
pub fn clip(name: &str) -> Option<Cow<'_, str>> {
    let name = common(name)?;
    let name = name.strip_prefix("text_model.").unwrap_or(name);
    let image = ["vision_model.", "visual_projection."].iter().any(|p| name.starts_with(p));
    (!image && name != "logit_scale").then_some(Cow::Borrowed(name))
}

/// Names of BERT. Canonical is without the `bert.` prefix of models that end in a task, with `weight` and `bias` for
/// what TensorFlow's files call `gamma` and `beta`. What follows the hidden states is ignored.
pub fn bert(name: &str) -> Option<Cow<'_, str>> {
    let name = common(name)?;
    let name = name.strip_prefix("bert.").unwrap_or(name);
    if name.starts_with("pooler.") || name.starts_with("cls.") {
        return None;
    }
    let norm =
        |end, kind| name.strip_suffix(end).map(|layer| Cow::Owned(format!("{layer}.LayerNorm.{kind}")));
    norm(".LayerNorm.gamma", "weight")
        .or_else(|| norm(".LayerNorm.beta", "bias"))
        .or(Some(Cow::Borrowed(name)))
}

/// Names of a CLIP image encoder: canonical is without `vision_model.`, and a layer's name ends with `.weight` or `.bias`.
/// The text half of a whole `CLIPModel` is ignored.
pub fn clip_vision(name: &str) -> Option<Cow<'_, str>> {
    let name = common(name)?;
    let name = name.strip_prefix("vision_model.").unwrap_or(name);
    let text = ["text_model.", "text_projection."].iter().any(|p| name.starts_with(p));
    (!text && name != "logit_scale").then_some(Cow::Borrowed(match name {
        "embeddings.class_embedding" => "embeddings.class_embedding.weight",
        name => name,
    }))
}

/// Names of an IP-Adapter, as h94/IP-Adapter's files have them.
pub fn ip_adapter(name: &str) -> Option<Cow<'_, str>> {
    Some(Cow::Borrowed(name))
}

/// Names of `AutoencoderKL` and `AutoencoderTiny`. Canonical are `to_q`, `to_k`, `to_v` and `to_out.0` in
/// the attention of the middle block, which diffusers before 0.18 (and with it most of the Hub's files)
/// calls `query`, `key`, `value` and `proj_attn`.
pub fn vae(name: &str) -> Option<Cow<'_, str>> {
    let name = common(name)?;
    if name.starts_with("loss.") {
        return None;
    }
    let Some((block, rest)) = name.split_once(".mid_block.attentions.0.") else {
        return Some(Cow::Borrowed(name));
    };
    let (layer, kind) = rest.split_once('.').unwrap_or((rest, ""));
    let layer = match layer {
        "query" => "to_q",
        "key" => "to_k",
        "value" => "to_v",
        "proj_attn" => "to_out.0",
        _ => return Some(Cow::Borrowed(name)),
    };
    Some(Cow::Owned(format!("{block}.mid_block.attentions.0.{layer}.{kind}")))
}

/// Names of `UNet2DConditionModel`: diffusers has not renamed any.
pub fn unet(name: &str) -> Option<Cow<'_, str>> {
    common(name).map(Cow::Borrowed)
}

/// Names of `ControlNetModel` and `ControlNetUnionModel`. Canonical are those of a layer and `.weight` or `.bias`.
pub fn controlnet(name: &str) -> Option<Cow<'_, str>> {
    let name = common(name)?;
    let layer = |end, kind| name.strip_suffix(end).map(|layer| Cow::Owned(format!("{layer}.in_proj.{kind}")));
    Some(match name {
        "task_embedding" => Cow::Borrowed("task_embedding.weight"),
        _ => layer(".in_proj_weight", "weight")
            .or_else(|| layer(".in_proj_bias", "bias"))
            .unwrap_or(Cow::Borrowed(name)),
    })
}

/// Names of `T2IAdapter`: diffusers has not renamed any.
pub fn t2i_adapter(name: &str) -> Option<Cow<'_, str>> {
    common(name).map(Cow::Borrowed)
}

/// Names of a ControlNet-LLLite, as kohya's files have them.
pub fn lllite(name: &str) -> Option<Cow<'_, str>> {
    Some(Cow::Borrowed(name))
}

/// What no model reads: the constant position ids (integers, or floats after some conversions) and the
/// averaged copy of the weights that training scripts leave.
fn common(name: &str) -> Option<&str> {
    let ids = name == "position_ids" || name.ends_with(".position_ids");
    (!ids && !name.starts_with("model_ema.")).then_some(name)
}
