"""Files of torch.save, and the tensors of single-file checkpoints with what diffusers makes of them.

    python tests/reference/single_file.py        # rewrites tests/reference/data/single_file/

`*.pt`: small files as torch writes them, zip and legacy. `names.txt`: for each checkpoint its tensors in the original
layout and diffusers' by component, at full size: `= checkpoint part`, then sorted lines of name and shape, each as the number of
characters that it shares with the line before and the rest. `models.json`, `cases.json`, `cases.bin`: tiny random checkpoints, how
their tensors lie in an original file, and diffusers' latents and pictures, as `pipelines.py` writes them. The full-size models are made on torch's meta device from published configurations. What is original is made by inverting diffusers' own conversion
(`loaders/single_file_utils.py`), which is then run forwards over it: both must agree on every name and shape.
"""
import collections, json, pathlib
import diffusers, pipelines, torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.loaders import single_file_utils as theirs
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

OUT = pathlib.Path(__file__).parent / "data" / "single_file"


# ---- torch.save ------------------------------------------------------------------------------------------------------
def values(i, shape, dtype=torch.float32):
    n = torch.Size(shape).numel()
    return (torch.arange(n, dtype=torch.float64) * 0.25 - i).to(dtype).reshape(shape)


def write_pickles():
    base = values(5, (4, 6))
    tied = values(6, (3, 2))
    state = collections.OrderedDict([
        ("a.weight", values(0, (2, 3))), ("a.bias", values(1, (3,), torch.float16)), ("b", values(2, (2, 2), torch.bfloat16)),
        ("c", values(3, (5,), torch.float64)), ("steps", torch.tensor(7)), ("ids", torch.arange(4)), ("scalar", torch.tensor(2.5)),
        ("empty", torch.zeros(0, 3)), ("rows", base[1:3]), ("one", torch.nn.Parameter(values(4, (2, 1, 3)))), ("tied.0", tied), ("tied.1", tied)])
    module = torch.nn.Linear(2, 2)  # its state_dict carries _metadata
    with torch.no_grad():
        module.weight.copy_(values(7, (2, 2)))
        module.bias.copy_(values(8, (2,)))
    nested = {"epoch": 3, "lr": 0.1, "state_dict": state, "none": None, "flag": True, "list": [values(9, (2,)), ("x", values(10, (1,)))],
              "string_to_param": {"*": values(11, (2, 4))}, "name": "naïve", "params_ema": module.state_dict(), 5: values(12, (1,)), "big": 1 << 80,
              "callbacks": {torch.nn.Linear: {"best": float("inf")}}}
    for name, legacy in (("zip", False), ("legacy", True)):
        torch.save(nested, OUT / f"{name}.pt", _use_new_zipfile_serialization=not legacy)
        # The legacy format tells where the module's source lay on this machine.
        here = str(pathlib.Path(torch.__file__).parents[1]).encode()
        written = (OUT / f"{name}.pt").read_bytes()
        (OUT / f"{name}.pt").write_bytes(written.replace(here, b"." * len(here)))
    torch.save(nested, OUT / "protocol4.pt", pickle_protocol=4)
    torch.save({"t": base.t()}, OUT / "strided.pt")


# ---- names -----------------------------------------------------------------------------------------------------------
def meta(make):
    with torch.device("meta"):
        return {k: v for k, v in make().state_dict().items()}


UNET1 = dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
UNET2 = dict(sample_size=96, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True)
UNETXL = dict(sample_size=128, block_out_channels=[320, 640, 1280], down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
              up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], attention_head_dim=[5, 10, 20], cross_attention_dim=2048, use_linear_projection=True,
              transformer_layers_per_block=[1, 2, 10], addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816)
VAE = dict(block_out_channels=[128, 256, 512, 512], down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=2, sample_size=512)
CLIP_L = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768)
CLIP_H = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, projection_dim=512, hidden_act="gelu")
CLIP_G = dict(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280, hidden_act="gelu")


def control_config(unet):
    return {k: v for k, v in unet.items() if k in ("cross_attention_dim", "attention_head_dim", "use_linear_projection", "block_out_channels", "down_block_types",
                                                   "transformer_layers_per_block", "addition_embed_type", "addition_time_embed_dim", "projection_class_embeddings_input_dim")}


def unet_to_ldm(names, layers=2, control=False):
    """Original name of each of a UNet's (or ControlNet's) names, as CompVis' openaimodel.py numbers its blocks."""
    resnet = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    plain = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
             "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2", "controlnet_mid_block": "middle_block_out.0",
             "controlnet_cond_embedding.conv_in": "input_hint_block.0", "controlnet_cond_embedding.conv_out": "input_hint_block.14"}
    attends = {n.split(".attentions.")[0] for n in names if n.startswith("up_blocks") and ".attentions." in n}
    out = {}
    for name in names:
        stem, kind = name.rsplit(".", 1)
        p = name.split(".")
        tail = lambda i: ".".join(resnet.get(x, x) if "resnets" in p else x for x in p[i:])
        if stem in plain:
            out[name] = f"{plain[stem]}.{kind}"
        elif p[0] == "controlnet_down_blocks":
            out[name] = f"zero_convs.{p[1]}.0.{kind}"
        elif p[0] == "controlnet_cond_embedding":
            out[name] = f"input_hint_block.{2 * (int(p[2]) + 1)}.{kind}"
        elif p[0] == "mid_block":
            out[name] = f"middle_block.{1 if p[1] == 'attentions' else 2 * int(p[2])}.{tail(3)}"
        else:
            block, part, layer = int(p[1]), p[2], int(p[3])
            if p[0] == "down_blocks":
                n = 1 + block * (layers + 1) + (layers if part == "downsamplers" else layer)
                out[name] = f"input_blocks.{n}.0.op.{kind}" if part == "downsamplers" else f"input_blocks.{n}.{int(part == 'attentions')}.{tail(4)}"
            elif part == "upsamplers":
                place = 2 if f"up_blocks.{block}" in attends else 1
                out[name] = f"output_blocks.{block * (layers + 1) + layers}.{place}.conv.{kind}"
            else:
                out[name] = f"output_blocks.{block * (layers + 1) + layer}.{int(part == 'attentions')}.{tail(4)}"
    return out


def vae_to_ldm(names):
    levels = 1 + max(int(n.split(".")[2]) for n in names if n.startswith("decoder.up_blocks."))
    out = {}
    for name in names:
        n = name.replace("conv_norm_out", "norm_out")
        p = n.split(".")
        if len(p) > 2 and p[1] in ("down_blocks", "up_blocks"):
            level = int(p[2]) if p[1] == "down_blocks" else levels - 1 - int(p[2])
            side = p[1].split("_")[0]
            rest = ".".join(p[4:]).replace("conv_shortcut", "nin_shortcut")
            n = f"{p[0]}.{side}.{level}." + (f"block.{rest}" if p[3] == "resnets" else f"{side}sample.conv.{p[-1]}")
        elif len(p) > 2 and p[1] == "mid_block":
            if p[2] == "resnets":
                n = f"{p[0]}.mid.block_{int(p[3]) + 1}." + ".".join(p[4:])
            else:
                layer = ".".join(p[4:-1])
                n = f"{p[0]}.mid.attn_1." + {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}[layer] + "." + p[-1]
        out[name] = n
    return out


def text(names):
    """The Hub's spelling, which transformers 5 has shortened."""
    return {n: t for n, t in ((n if n.startswith(("text_model.", "text_projection.")) else f"text_model.{n}", t) for n, t in names.items())}


def open_clip(width, layers, projection):
    """OpenCLIP's text tower, as open_clip/model.py names it."""
    e = lambda *s: torch.empty(s, device="meta")
    out = {"positional_embedding": e(77, width), "token_embedding.weight": e(49408, width), "text_projection": e(width, projection), "logit_scale": e(),
           "ln_final.weight": e(width), "ln_final.bias": e(width)}
    for i in range(layers):
        for n, s in (("ln_1.weight", (width,)), ("ln_1.bias", (width,)), ("attn.in_proj_weight", (3 * width, width)), ("attn.in_proj_bias", (3 * width,)),
                     ("attn.out_proj.weight", (width, width)), ("attn.out_proj.bias", (width,)), ("ln_2.weight", (width,)), ("ln_2.bias", (width,)),
                     ("mlp.c_fc.weight", (4 * width, width)), ("mlp.c_fc.bias", (4 * width,)), ("mlp.c_proj.weight", (width, 4 * width)), ("mlp.c_proj.bias", (width,))):
            out[f"transformer.resblocks.{i}.{n}"] = e(*s)
    return out


def schedule():
    """Buffers of CompVis' DDPM class that its checkpoints carry."""
    names = ["betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
             "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"]
    return {n: torch.empty(1000, device="meta") for n in names}


def checkpoint(kind, unet, **more):
    """Original tensors, and diffusers' by component."""
    u = meta(lambda: UNet2DConditionModel(**unet, **more))
    v = meta(lambda: AutoencoderKL(**VAE))
    ldm_u, ldm_v = unet_to_ldm(u), vae_to_ldm(v)
    conv = lambda n, t: t[..., None, None] if ".attn_1." in n and t.ndim == 2 else t
    original = {} if kind == "sdxl" else schedule()
    original |= {f"model.diffusion_model.{ldm_u[n]}": t for n, t in u.items()}
    original |= {f"first_stage_model.{ldm_v[n]}": conv(ldm_v[n], t) for n, t in v.items()}
    parts = {"unet": u, "vae": v}
    # diffusers' own conversion, forwards.
    config = dict(layers_per_block=2, **{k: unet.get(k) for k in ("addition_embed_type", "class_embed_type")})
    forwards = {"unet": theirs.convert_ldm_unet_checkpoint(dict(original), config), "vae": theirs.convert_ldm_vae_checkpoint(dict(original), dict(VAE))}
    clip_l = lambda: text(meta(lambda: CLIPTextModel(CLIPTextConfig(**CLIP_L))))
    ids = {"text_model.embeddings.position_ids": torch.empty(1, 77, dtype=torch.int64, device="meta")}
    if kind == "sd1":
        parts["text_encoder"] = clip_l()
        original |= {f"cond_stage_model.transformer.{n}": t for n, t in (parts["text_encoder"] | ids).items()}
        forwards["text_encoder"] = theirs.convert_ldm_clip_checkpoint(original)
        forwards["text_encoder"].pop("text_model.embeddings.position_ids", None)
    elif kind == "sd2":
        config = CLIPTextConfig(**CLIP_H)
        parts["text_encoder"] = text(meta(lambda: CLIPTextModel(config)))
        original |= {f"cond_stage_model.model.{n}": t for n, t in open_clip(1024, 24, 1024).items()}
        forwards["text_encoder"] = theirs.convert_open_clip_checkpoint(type("M", (), {"config": config}), original)
    else:
        parts["text_encoder"] = clip_l()
        original |= {f"conditioner.embedders.0.transformer.{n}": t for n, t in (parts["text_encoder"] | ids).items()}
        config = CLIPTextConfig(**CLIP_G)
        parts["text_encoder_2"] = text(meta(lambda: CLIPTextModelWithProjection(config)))
        original |= {f"conditioner.embedders.1.model.{n}": t for n, t in open_clip(1280, 32, 1280).items()}
        original["denoiser.sigmas"] = torch.empty(1000, device="meta")
        prefix = "conditioner.embedders.1.model."
        forwards["text_encoder_2"] = theirs.convert_open_clip_checkpoint(type("M", (), {"config": config}), original, prefix=prefix)
    if kind == "sd1":  # as the non-pruned files have it, a few of the averages
        original |= {"model_ema.decay": torch.empty((), device="meta"), "model_ema.num_updates": torch.empty((), dtype=torch.int32, device="meta"),
                     "model_ema.diffusion_modelinput_blocks00weight": torch.empty(320, 4, 3, 3, device="meta")}
    for part, found in forwards.items():
        same(part, found, parts[part])
    return original, parts


def same(part, found, wanted):
    shapes = lambda d: {n: [s for s in t.shape] for n, t in d.items()}
    found, wanted = shapes(found), shapes(wanted)
    squeeze = lambda d: {n: [x for i, x in enumerate(s) if i < 2 or x != 1] if "mid_block.attentions" in n else s for n, s in d.items()}
    assert squeeze(found) == squeeze(wanted), (part, set(found) ^ set(wanted), [(n, found[n], wanted[n]) for n in found if n in wanted and found[n] != wanted[n]][:5])


def controlnet(unet):
    c = meta(lambda: ControlNetModel(**control_config(unet), **({"conditioning_channels": 3})))
    original = {f"control_model.{n}": c[m] for m, n in unet_to_ldm(c).items()}
    same("controlnet", theirs.convert_controlnet_checkpoint(dict(original), dict(layers_per_block=2)), c)
    return original, {"controlnet": c}


def write_names():
    inpaint = dict(UNET1, in_channels=9)
    cases = {"sd15": checkpoint("sd1", UNET1), "sd21": checkpoint("sd2", UNET2), "sdxl": checkpoint("sdxl", UNETXL), "sd15-inpainting": checkpoint("sd1", inpaint),
             "controlnet-sd15": controlnet(UNET1), "controlnet-sd21": controlnet(UNET2)}
    out = []
    for name, (original, components) in cases.items():
        for part, tensors in {"original": original, **components}.items():
            out.append(f"= {name} {part}")
            last = ""
            for line in sorted(" ".join(map(str, [n, *t.shape])) for n, t in tensors.items()):
                shared = next((i for i, (a, b) in enumerate(zip(line, last)) if a != b), min(len(line), len(last)))
                out.append(f"{shared} {line[shared:]}")
                last = line
    (OUT / "names.txt").write_text("\n".join(out) + "\n")


# ---- pictures --------------------------------------------------------------------------------------------------------
# What no shape tells is as in the published checkpoints: 32 groups, 8 heads or 64 channels a head, 256 for each of SDXL's sizes.
TEXT = dict(hidden_size=64, num_attention_heads=1, intermediate_size=96, num_hidden_layers=3, bos_token_id=49406, eos_token_id=49407)
OPEN = dict(TEXT, hidden_act="gelu", pad_token_id=0)
KINDS = {
    "sd1": pipelines.kind("StableDiffusionPipeline", dict(_class_name="PNDMScheduler", **pipelines.TIMES, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1, clip_sample=False),
                          dict(text_encoder=pipelines.encoder(**TEXT), unet=pipelines.unet(cross_attention_dim=64, attention_head_dim=8), vae=pipelines.vae(layers_per_block=2)),
                          dict(tokenizer=pipelines.tokenizer()), requires_safety_checker=False),
    "sd2": pipelines.kind("StableDiffusionPipeline", dict(_class_name="DDIMScheduler", **pipelines.TIMES, set_alpha_to_one=False, steps_offset=1, clip_sample=False),
                          dict(text_encoder=pipelines.encoder(**OPEN), vae=pipelines.vae(),
                               unet=pipelines.unet(cross_attention_dim=64, attention_head_dim=1, use_linear_projection=True, block_out_channels=[32, 64, 64], layers_per_block=1,
                                                   down_block_types=["CrossAttnDownBlock2D"] * 2 + ["DownBlock2D"], up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 2)),
                          dict(tokenizer=pipelines.tokenizer("!")), requires_safety_checker=False),
    "sdxl": pipelines.kind("StableDiffusionXLPipeline", dict(_class_name="EulerDiscreteScheduler", **pipelines.TIMES, timestep_spacing="leading", steps_offset=1),
                           dict(text_encoder=pipelines.encoder(**TEXT), vae=pipelines.vae(force_upcast=True, scaling_factor=0.13025),
                                text_encoder_2=pipelines.encoder(**OPEN, architectures=["CLIPTextModelWithProjection"], projection_dim=32),
                                unet=pipelines.unet(attention_head_dim=1, use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256, cross_attention_dim=128,
                                                    transformer_layers_per_block=[1, 2], projection_class_embeddings_input_dim=6 * 256 + 32)),
                           dict(tokenizer=pipelines.tokenizer(), tokenizer_2=pipelines.tokenizer("!")), force_zeros_for_empty_prompt=True),
}
CASES = {"sd1": dict(width=56, height=40, numInferenceSteps=6, guidanceScale=5, seed=1), "sd2": dict(width=48, height=56, numInferenceSteps=5, guidanceScale=5, seed=2),
         "sdxl": dict(width=40, height=56, numInferenceSteps=4, guidanceScale=5, seed=3, negativePrompt="blurry")}


def open_clip_to(names):
    """For each tensor of OpenCLIP: those of transformers that it fuses, and whether it is transposed."""
    out, layer = {}, {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj"}
    for name in names:
        n = name.removeprefix("text_model.")
        stem, kind = n.rsplit(".", 1)
        plain = {"embeddings.token_embedding": "token_embedding.weight", "embeddings.position_embedding": "positional_embedding", "final_layer_norm": f"ln_final.{kind}", "text_projection": "text_projection"}
        if stem in plain:
            out[plain[stem]] = ([name], stem == "text_projection")
        else:
            _, _, number, rest = stem.split(".", 3)
            block = f"transformer.resblocks.{number}."
            if rest in layer:
                out[f"{block}{layer[rest]}.{kind}"] = ([name], False)
            else:  # queries, keys, values, in this order
                out[f"{block}attn.in_proj_{kind}"] = ([n.replace(rest, f"self_attn.{x}_proj") for x in "qkv"], False)
    return out


def original(kind, tensors):
    """`[original name, component, transposed, canonical names...]` of every tensor of a whole file."""
    out = []
    for component, lines in tensors.items():
        names = [line.split(" ")[0] for line in lines]
        layers = 1 if kind == "sd2" else 2
        if component == "unet":
            rows = [("model.diffusion_model." + n, False, [m]) for m, n in unet_to_ldm(names, layers).items()]
        elif component == "vae":
            rows = [("first_stage_model." + n, False, [m]) for m, n in vae_to_ldm(names).items()]
        elif component == "text_encoder_2" or kind == "sd2":
            prefix = "conditioner.embedders.1.model." if kind == "sdxl" else "cond_stage_model.model."
            rows = [(prefix + n, turned, parts) for n, (parts, turned) in open_clip_to(names).items()]
        else:
            prefix = "conditioner.embedders.0.transformer.text_model." if kind == "sdxl" else "cond_stage_model.transformer.text_model."
            rows = [(prefix + n.removeprefix("text_model."), False, [n]) for n in names]
        out += [[name, component, turned, *parts] for name, turned, parts in rows]
    return out


def write_pictures():
    models, cases, data = {}, [], bytearray()
    pipelines.KINDS = KINDS
    for kind, k in KINDS.items():
        tensors = {part: pipelines.tensors(c) for part, c in k["components"].items()}
        models[kind] = k | dict(tensors=tensors, original=original(kind, tensors))
        case = dict(folder=kind, options=dict(prompt="a red apple", **CASES[kind]))
        latents, pixels = pipelines.run(pipelines.pipeline(kind, {}), case)
        print(f"{kind}: latents std {latents.std():.3f}, picture mean {pixels.mean():.1f} std {pixels.std():.1f}")
        assert 20 < pixels.std() and abs(pixels.mean() - 128) < 20, "a picture without contrast hides errors"
        cases.append(case | dict(latents=list(latents.shape), pixels=list(pixels.shape), offset=len(data)))
        data += latents.numpy().astype("<f4").tobytes() + pixels.byte().numpy().tobytes()
        data += bytes(-len(data) % 4)
    (OUT / "models.json").write_text(json.dumps(models, separators=(",", ":")) + "\n")
    (OUT / "cases.json").write_text(json.dumps(cases) + "\n")
    (OUT / "cases.bin").write_bytes(data)


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    diffusers.utils.logging.set_verbosity_error()
    write_pickles()
    write_names()
    write_pictures()
