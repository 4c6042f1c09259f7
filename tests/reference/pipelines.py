"""Whole pipelines of tiny random models, run by diffusers: expected latents and pictures.

    python tests/reference/pipelines.py           # rewrites tests/reference/data/pipelines/

`models.json`: for each kind of checkpoint its model_index.json, configurations, and its tensors' names and shapes.
Weights are drawn from the names as in models.py; `tests/web/tiny.mjs` draws the same and writes folders.
"""
import json, pathlib
import torch
from models import build, clip, unet, vae

OUT = pathlib.Path(__file__).parent / "data" / "pipelines"

# ---- checkpoints -----------------------------------------------------------------------------------------------------
START, END = "<|startoftext|>", "<|endoftext|>"
TIMES = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def encoder(**k):
    """A text encoder that knows all of CLIP's tokens."""
    return clip(vocab_size=49408, model_type="clip_text_model", **k)


def index(cls, scheduler, encoders=("CLIPTextModel",), **more):
    names = [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")]
    parts = {"scheduler": ["diffusers", scheduler["_class_name"]], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    for (text_encoder, tokenizer), kind in zip(names, encoders):
        parts |= {text_encoder: ["transformers", kind], tokenizer: ["transformers", "CLIPTokenizer"]}
    return dict(_class_name=cls, _diffusers_version="0.42.1", **more, **dict(sorted(parts.items())))


def tokenizer(pad=END):
    """Beside vocab.json and merges.txt."""
    return {"special_tokens_map.json": dict(bos_token=START, eos_token=END, pad_token=pad, unk_token=END),
            "tokenizer_config.json": dict(tokenizer_class="CLIPTokenizer", model_max_length=77, bos_token=START, eos_token=END, pad_token=pad, unk_token=END)}


def kind(cls, scheduler, components, tokenizers, **more):
    encoders = [components[name]["architectures"][0] for name in ("text_encoder", "text_encoder_2") if name in components]
    return dict(model_index=index(cls, scheduler, encoders, **more), scheduler=scheduler, components=components, tokenizers=tokenizers)


XL_CLIP = dict(hidden_act="gelu", bos_token_id=49406, eos_token_id=49407, pad_token_id=1)
KINDS = {
    # Latents at half the picture's size, PNDM as SD 1.5 has it, CLIP's wrong eos_token_id.
    "sd1": kind("StableDiffusionPipeline",
                dict(_class_name="PNDMScheduler", **TIMES, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1, trained_betas=None, clip_sample=False),
                dict(text_encoder=encoder(), unet=unet(), vae=vae()), dict(tokenizer=tokenizer()), requires_safety_checker=False),
    # Latents at an eighth, three levels of the UNet with odd sizes between, DDIM with v-prediction, "!" as padding.
    "sd2": kind("StableDiffusionPipeline",
                dict(_class_name="DDIMScheduler", **TIMES, prediction_type="v_prediction", set_alpha_to_one=False, steps_offset=1, clip_sample=False, trained_betas=None),
                dict(text_encoder=encoder(hidden_act="gelu", projection_dim=512, bos_token_id=49406, eos_token_id=49407, pad_token_id=0),
                     unet=unet(block_out_channels=[32, 64, 64], layers_per_block=1, attention_head_dim=[2, 4, 4], use_linear_projection=True,
                               down_block_types=["CrossAttnDownBlock2D"] * 2 + ["DownBlock2D"], up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 2),
                     vae=vae(block_out_channels=[16, 16, 32, 32], norm_num_groups=8, down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)),
                dict(tokenizer=tokenizer("!")), requires_safety_checker=False),
    # Latents at a quarter, two encoders, sizes as conditions, Euler as SDXL has it.
    "sdxl": kind("StableDiffusionXLPipeline",
                 dict(_class_name="EulerDiscreteScheduler", **TIMES, prediction_type="epsilon", timestep_spacing="leading", steps_offset=1, interpolation_type="linear",
                      use_karras_sigmas=False, trained_betas=None, clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True, sample_max_value=1.0),
                 dict(text_encoder=encoder(**XL_CLIP),
                      text_encoder_2=encoder(**XL_CLIP, architectures=["CLIPTextModelWithProjection"], num_attention_heads=2, projection_dim=24),
                      unet=unet(attention_head_dim=[2, 4], use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
                                transformer_layers_per_block=[1, 2], projection_class_embeddings_input_dim=72, cross_attention_dim=64),
                      vae=vae(block_out_channels=[16, 32, 32], norm_num_groups=8, force_upcast=True, scaling_factor=0.13025,
                              down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3)),
                 dict(tokenizer=tokenizer(), tokenizer_2=tokenizer("!")), force_zeros_for_empty_prompt=True),
    # Guidance as an embedding, LCM's own scheduler.
    "lcm": kind("LatentConsistencyModelPipeline",
                dict(_class_name="LCMScheduler", **TIMES, prediction_type="epsilon", original_inference_steps=50, timestep_spacing="leading", timestep_scaling=10.0,
                     set_alpha_to_one=True, steps_offset=0, clip_sample=False, rescale_betas_zero_snr=False, trained_betas=None),
                dict(text_encoder=encoder(), unet=unet(layers_per_block=1, time_cond_proj_dim=32), vae=vae()), dict(tokenizer=tokenizer()),
                requires_safety_checker=False),
}


def tensors(config):
    """`name shape...` of each parameter, in the spelling of today's diffusers and transformers."""
    with torch.device("meta"):
        return [" ".join(map(str, [name, *p.shape])) for name, p in build(config, draw=None).named_parameters()]


def write_models():
    OUT.mkdir(parents=True, exist_ok=True)
    kinds = {name: k | {"tensors": {part: tensors(c) for part, c in k["components"].items()}} for name, k in KINDS.items()}
    (OUT / "models.json").write_text(json.dumps(kinds, indent=0) + "\n")


if __name__ == "__main__":
    write_models()
