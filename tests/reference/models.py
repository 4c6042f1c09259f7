"""Expected outputs of tiny random CLIP, UNet, ControlNet and VAE models, computed by transformers and diffusers in f32.

    python tests/reference/models.py        # rewrites tests/reference/data/models/

For each case: `<case>.json`, the components' configurations, and `<case>.safetensors`, inputs and expected outputs.
Weights are not stored: `weight` below draws them from the tensor's name, and `tests/models.rs` draws the same.
`real.json` holds the configurations of published checkpoints and a digest of their state_dict's names and shapes.
"""
import json, math, pathlib
import numpy as np, torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

OUT = pathlib.Path(__file__).parent / "data" / "models"
CLASSES = {c.__name__: c for c in (UNet2DConditionModel, ControlNetModel, AutoencoderKL, AutoencoderTiny, CLIPTextModel, CLIPTextModelWithProjection)}


# ---- weights ---------------------------------------------------------------------------------------------------------
def fnv1a(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def uniform(name: str, count: int) -> np.ndarray:
    """`count` doubles in [-1, 1): splitmix64 from the hash of the tensor's name, upper 24 bits of each output."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name.encode())) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0


def drawn(name: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    """A tensor, f32. Matrices keep `gain` of their input's spread, queries and keys `gain` * 1.4, so
    that softmax is not flat (at 2.0 the nets turn chaotic: f16 rounding alone moves their outputs by 1e-2); the
    UNet's last one is larger, for an output near unit spread; biases and norms are large enough to be missed."""
    x = uniform(name, math.prod(shape))
    if name.endswith(".bias"):
        x = x * 0.1
    elif "norm" in name:
        x = x * 0.1 + 1.0
    elif "token_embedding" in name or "position_embedding" in name:
        x = x * 0.5
    else:
        if any(p in name for p in (".to_q.", ".to_k.", ".q_proj.", ".k_proj.")):
            gain = gain * 1.4
        elif name == "conv_out.weight":
            gain = gain * 1.8
        x = x * (gain * math.sqrt(3.0 / (math.prod(shape) // shape[0])))
    return x.astype(np.float32).reshape(shape)


def weight(name: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    """`drawn`, rounded to what f16 holds exactly."""
    return drawn(name, shape, gain).astype(np.float16).astype(np.float32)


def canonical(name: str) -> str:
    """The name as `checkpoint::names` has it: CLIPTextModelWithProjection, and before transformers 5 CLIPTextModel
    too, writes `text_model.` before what lies in the encoder."""
    return name.removeprefix("text_model.")


def build(config: dict, draw=weight) -> torch.nn.Module:
    """The class that the configuration names, its parameters from `draw`, or as they come if that is None."""
    config = dict(config)
    gain = config.pop("gain")
    if "architectures" in config:
        cls = config["architectures"][0]
        model = CLASSES[cls](CLIPTextConfig(**{k: v for k, v in config.items() if k != "architectures"}))
    else:
        cls = config.pop("_class_name")
        model = CLASSES[cls](**config)
    with torch.no_grad():
        for name, p in model.named_parameters() if draw else []:
            p.copy_(torch.from_numpy(draw(canonical(name), tuple(p.shape), gain)))
    return model.eval()


# ---- configurations --------------------------------------------------------------------------------------------------
def clip(**k):
    """The text encoder of diffusers' fast tests. `gain` is ours: the scale of the drawn weights."""
    return dict(architectures=["CLIPTextModel"], vocab_size=1000, hidden_size=32, intermediate_size=37, num_hidden_layers=5,
                num_attention_heads=4, max_position_embeddings=77, hidden_act="quick_gelu", layer_norm_eps=1e-5, projection_dim=32,
                bos_token_id=0, eos_token_id=2, pad_token_id=1, gain=1.0) | k


def unet(**k):
    return dict(_class_name="UNet2DConditionModel", block_out_channels=[32, 64], layers_per_block=2, sample_size=32, in_channels=4,
                out_channels=4, down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"], up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
                cross_attention_dim=32, gain=0.9) | k


def vae(**k):
    return dict(_class_name="AutoencoderKL", block_out_channels=[32, 64], in_channels=3, out_channels=3, latent_channels=4, sample_size=32,
                down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, gain=0.9) | k


def controlnet(**k):
    return dict(_class_name="ControlNetModel", block_out_channels=[32, 64], layers_per_block=2, in_channels=4, cross_attention_dim=32,
                down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"], conditioning_embedding_out_channels=[16, 32], gain=0.9) | k


XL_CLIP = dict(hidden_act="gelu", bos_token_id=998, eos_token_id=999, pad_token_id=1)
CASES = {
    # what                  components; inputs' sizes are in `SIZES`
    "sd1": dict(text_encoder=clip(), unet=unet(), vae=vae()),
    "sd2": dict(text_encoder=clip(hidden_act="gelu", projection_dim=512, bos_token_id=998, eos_token_id=999, pad_token_id=0),
                unet=unet(attention_head_dim=[2, 4], use_linear_projection=True), vae=vae(layers_per_block=2)),
    "sdxl": dict(text_encoder=clip(**XL_CLIP), text_encoder_2=clip(**XL_CLIP, architectures=["CLIPTextModelWithProjection"], num_attention_heads=2, projection_dim=24),
                 unet=unet(attention_head_dim=[2, 4], use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
                           transformer_layers_per_block=[1, 2], projection_class_embeddings_input_dim=72, cross_attention_dim=64),
                 vae=vae(force_upcast=True, scaling_factor=0.13025)),
    "lcm": dict(unet=unet(layers_per_block=1, time_cond_proj_dim=32)),
    "inpaint": dict(unet=unet(in_channels=9)),
    # Four levels over 13x9 latents, so that every upsampler has an odd target somewhere.
    "odd": dict(unet=unet(block_out_channels=[32, 32, 64, 64], layers_per_block=[1, 2, 1, 1], attention_head_dim=4, cross_attention_dim=40,
                          down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3),
                vae=vae(block_out_channels=[16, 32, 32], norm_num_groups=8, down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
                        use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False)),
    # Depth per layer and no cross-attention in the middle, as SSD-1B and Segmind's distilled models have it.
    "distilled": dict(unet=unet(layers_per_block=2, transformer_layers_per_block=[1, [0, 2]], reverse_transformer_layers_per_block=[[2, 1, 1], 1],
                                mid_block_type="UNetMidBlock2D", only_cross_attention=[False, True], norm_num_groups=16, time_embedding_dim=96)),
    # What a ControlNet adds, and a UNet to which something is added.
    "control_sd1": dict(controlnet=controlnet(), unet=unet(layers_per_block=1, block_out_channels=[32, 32])),
    "control_sd2": dict(controlnet=controlnet(attention_head_dim=[2, 4], use_linear_projection=True, layers_per_block=1, conditioning_embedding_out_channels=[12, 16, 20],
                                              controlnet_conditioning_channel_order="bgr")),
    "control_sdxl": dict(controlnet=controlnet(num_attention_heads=[2, 4], attention_head_dim=8, use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
                                               transformer_layers_per_block=[1, 2], projection_class_embeddings_input_dim=72, cross_attention_dim=64)),
    "control_pooled": dict(controlnet=controlnet(layers_per_block=1, mid_block_type="UNetMidBlock2D", global_pool_conditions=True, conditioning_channels=4)),
    "taesd": dict(vae=dict(_class_name="AutoencoderTiny", encoder_block_out_channels=[16] * 4, decoder_block_out_channels=[16] * 4, gain=0.9)),
}
SIZES = {"odd": (13, 9), "inpaint": (10, 14), "control_sd1": (10, 6), "control_sd2": (8, 8), "control_sdxl": (8, 8), "control_pooled": (9, 7)}  # latent height and width; 16x16 otherwise


# ---- inputs and outputs ----------------------------------------------------------------------------------------------
def randn(seed: int, *shape: int) -> torch.Tensor:
    """Standard normals that f16 holds exactly."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half().float()


def nhwc(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1)


def clip_case(model, config):
    """Two prompts, one that fills all places, one that is padded."""
    bos, eos, pad = 998, 999, config["pad_token_id"]
    ids = torch.randint(3, 990, (2, 77), generator=torch.Generator().manual_seed(1))
    ids[:, 0], ids[0, 76] = bos, eos
    ids[1, 9], ids[1, 10:] = eos, pad
    out = model(input_ids=ids, output_hidden_states=True)
    pooled = {"text_embeds": out.text_embeds} if hasattr(out, "text_embeds") else {"pooler_output": out.pooler_output}
    return {"input_ids": ids.int()}, {"last_hidden_state": out.last_hidden_state, "penultimate": out.hidden_states[-2], **pooled}


def unet_case(model, config, size):
    height, width = size
    c = model.config
    t = torch.tensor([961.0, 321.0])
    sample, context = randn(2, 2, c.in_channels, height, width), randn(3, 2, 77, c.cross_attention_dim)
    inputs = {"sample": nhwc(sample), "encoder_hidden_states": context,
              "t_emb": get_timestep_embedding(t, c.block_out_channels[0], flip_sin_to_cos=True, downscale_freq_shift=0)}
    more = {}
    if isinstance(model, ControlNetModel):
        return controlnet_case(model, inputs, t, sample, context)
    if size == SIZES["control_sd1"]:
        # What is added to conv_in's output, to a layer and a downsampler of the first block, to a layer of the second, and to the middle.
        shapes = [(32, height, width)] * 2 + [(32, height // 2, width // 2)] * 3
        residuals = [randn(20 + i, 2, *shape) for i, shape in enumerate(shapes)]
        inputs |= {f"residual_{i}": nhwc(r) for i, r in enumerate(residuals)}
        more |= dict(down_block_additional_residuals=residuals[:-1], mid_block_additional_residual=residuals[-1])
    if c.get("time_cond_proj_dim"):
        more["timestep_cond"] = inputs["timestep_cond"] = randn(4, 2, c.time_cond_proj_dim)
    more |= added_cond(c, inputs)
    out = model(sample, t, context, **more).sample
    return inputs, {"out_sample": nhwc(out)}


def added_cond(c, inputs):
    """SDXL's `added_cond_kwargs`, and what it is in our inputs."""
    if not c.addition_embed_type:
        return {}
    text_embeds, time_ids = randn(5, 2, 24), torch.tensor([[128.0, 96, 0, 0, 128, 96]] * 2)
    inputs |= {"text_embeds": text_embeds, "time_ids": get_timestep_embedding(time_ids.flatten(), c.addition_time_embed_dim, flip_sin_to_cos=True, downscale_freq_shift=0).reshape(2, -1)}
    return {"added_cond_kwargs": {"text_embeds": text_embeds, "time_ids": time_ids}}


def controlnet_case(model, inputs, t, sample, context):
    """With scale 1, and in guess mode with scale 0.7: what is added to each skip, the middle's last."""
    c = model.config
    scale = 2 ** (len(c.conditioning_embedding_out_channels) - 1)
    image = torch.rand(2, c.conditioning_channels, sample.shape[2] * scale, sample.shape[3] * scale, generator=torch.Generator().manual_seed(8)).half().float()
    inputs["image"] = nhwc(image.flip(1) if c.controlnet_conditioning_channel_order == "bgr" else image)
    more = added_cond(c, inputs)
    outputs = {}
    for mode, k in dict(plain={}, guess=dict(guess_mode=True, conditioning_scale=0.7)).items():
        down, mid = model(sample, t, context, controlnet_cond=image, return_dict=False, **more, **k)
        outputs |= {f"{mode}_{i}": nhwc(x) for i, x in enumerate([*down, mid])}
    return inputs, outputs


def vae_case(model, config, size):
    height, width = size[0] // 2 + 1, size[1] // 2  # odd where the mid attention's tokens are counted
    factor = 2 ** (len(config.get("block_out_channels", [0] * 4)) - 1)
    latents = randn(6, 2, 4, height, width)
    inputs, outputs = {"latents": nhwc(latents)}, {"decoded": nhwc(model.decode(latents).sample)}
    if isinstance(model, AutoencoderKL):
        image = randn(7, 2, 3, height * factor, width * factor).clamp(-2, 2).div(2).half().float()
        posterior = model.encode(image).latent_dist
        inputs["image"] = nhwc(image)
        outputs |= {"mean": nhwc(posterior.mean), "std": nhwc(posterior.std)}
    return inputs, outputs


def run(model, config, size):
    with torch.no_grad():
        if "architectures" in config:
            return clip_case(model, config)
        return (unet_case if config["_class_name"] in ("UNet2DConditionModel", "ControlNetModel") else vae_case)(model, config, size)


def f16_storage(model):
    """Rounds what every leaf module writes to f16: the least error that any engine with f16 activations has."""
    for m in model.modules():
        if not list(m.children()):
            m.register_forward_hook(lambda _m, _i, o: o.half().float() if torch.is_tensor(o) and o.is_floating_point() else o)


# ---- published checkpoints -------------------------------------------------------------------------------------------
def real_unet(**k):
    return dict(_class_name="UNet2DConditionModel", sample_size=64, in_channels=4, out_channels=4, center_input_sample=False, flip_sin_to_cos=True,
                freq_shift=0, down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
                block_out_channels=[320, 640, 1280, 1280], layers_per_block=2, downsample_padding=1, mid_block_scale_factor=1, act_fn="silu",
                norm_num_groups=32, norm_eps=1e-5, cross_attention_dim=768, attention_head_dim=8) | k


def real_clip(cls="CLIPTextModel", **k):
    return dict(architectures=[cls], model_type="clip_text_model", vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                num_attention_heads=12, max_position_embeddings=77, hidden_act="quick_gelu", layer_norm_eps=1e-5, projection_dim=768,
                bos_token_id=0, eos_token_id=2, pad_token_id=1) | k


def real_vae(**k):
    return dict(_class_name="AutoencoderKL", sample_size=512, in_channels=3, out_channels=3, latent_channels=4, block_out_channels=[128, 256, 512, 512],
                layers_per_block=2, down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, act_fn="silu", norm_num_groups=32) | k


def real_controlnet(**k):
    return dict(_class_name="ControlNetModel", in_channels=4, flip_sin_to_cos=True, freq_shift=0, down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
                only_cross_attention=False, block_out_channels=[320, 640, 1280, 1280], layers_per_block=2, downsample_padding=1, mid_block_scale_factor=1, act_fn="silu",
                norm_num_groups=32, norm_eps=1e-5, cross_attention_dim=768, attention_head_dim=8, use_linear_projection=False, class_embed_type=None, num_class_embeds=None,
                upcast_attention=False, resnet_time_scale_shift="default", projection_class_embeddings_input_dim=None, controlnet_conditioning_channel_order="rgb",
                conditioning_embedding_out_channels=[16, 32, 96, 256]) | k


XL_UNET = dict(sample_size=128, down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], mid_block_type="UNetMidBlock2DCrossAttn",
               up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], block_out_channels=[320, 640, 1280], cross_attention_dim=2048,
               transformer_layers_per_block=[1, 2, 10], attention_head_dim=[5, 10, 20], use_linear_projection=True, addition_embed_type="text_time",
               addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816, upcast_attention=None, resnet_time_scale_shift="default")
REAL = {
    "sd15/unet": real_unet(),
    "sd15-inpainting/unet": real_unet(in_channels=9),
    "sd15/vae": real_vae(),
    "sd15/text_encoder": real_clip(),
    "sd21/unet": real_unet(sample_size=96, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True, upcast_attention=True,
                           dual_cross_attention=False, only_cross_attention=False, num_class_embeds=None),
    "sd21/text_encoder": real_clip(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, hidden_act="gelu", projection_dim=512),
    "lcm/unet": real_unet(time_cond_proj_dim=256),
    "sdxl/unet": real_unet(**XL_UNET),
    "sdxl/vae": real_vae(sample_size=1024, scaling_factor=0.13025, force_upcast=True),
    "sdxl/text_encoder_2": real_clip("CLIPTextModelWithProjection", hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
                                     hidden_act="gelu", projection_dim=1280),
    "taesd/vae": dict(_class_name="AutoencoderTiny"),
    "sd15/controlnet": real_controlnet(),
    "sd21/controlnet": real_controlnet(cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True),
    "sdxl/controlnet": real_controlnet(**{k: v for k, v in XL_UNET.items() if k not in ("sample_size", "up_block_types")}),
}


def digest(config: dict) -> dict:
    """Count and hash of the sorted `name:shape` lines of a state_dict. Only what our engine computes: a decoder has no encoder."""
    with torch.device("meta"):
        if "architectures" in config:
            cls = config["architectures"][0]
            model = CLASSES[cls](CLIPTextConfig(**{k: v for k, v in config.items() if k not in ("architectures", "model_type")}))
        else:
            cls = config["_class_name"]
            model = CLASSES[cls](**{k: v for k, v in config.items() if k != "_class_name"})
    shapes = {canonical(n): p.shape for n, p in model.named_parameters() if not (cls == "AutoencoderTiny" and n.startswith("encoder."))}
    # Rows, columns, taps: a linear layer is a 1x1 convolution.
    shape = lambda s: f"{s[0]}x{s[1]}x{math.prod(s[2:])}" if len(s) > 1 else f"{s[0]}"
    lines = sorted(f"{n}:{shape(s)}\n" for n, s in shapes.items())
    return dict(config=config, tensors=len(lines), parameters=sum(math.prod(s) for s in shapes.values()), fnv1a=f"{fnv1a(''.join(lines).encode()):016x}")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for case, components in CASES.items():
        tensors, size = {}, SIZES.get(case, (16, 16))
        for part, config in components.items():
            model = build(config)
            inputs, outputs = run(model, config, size)
            f16_storage(model)
            rounded = run(model, config, size)[1]
            for name, x in outputs.items():
                error = ((rounded[name] - x).norm() / x.norm()).item()
                print(f"{case:10} {part:15} {name:18} {str(tuple(x.shape)):20} std {x.std():.3f}  f16 storage alone: {error:.1e}")
            tensors |= {f"{part}.{n}": x.contiguous() for n, x in (inputs | outputs).items()}
        save_file(tensors, OUT / f"{case}.safetensors")
        (OUT / f"{case}.json").write_text(json.dumps(components, indent=1) + "\n")
    (OUT / "real.json").write_text(json.dumps({k: digest(c) for k, c in REAL.items()}, indent=1) + "\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
