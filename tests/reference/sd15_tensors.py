"""Writes tests/web/sd15-tensors.txt: name and shape of every weight of Stable Diffusion 1.5 in the Hub's spelling, as
diffusers and transformers build it from its configuration. No weight is made. Usage: sd15_tensors.py OUTPUT"""
import json
import re
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

CONFIGS = json.loads((Path(__file__).parent.parent / "web" / "sd15-configs.json").read_text())
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def hub_name(folder, name):
    """transformers 5 leaves out CLIP's prefix; the VAE's file still has the first diffusers' attention names."""
    if folder == "text_encoder" and not name.startswith("text_model."):
        return f"text_model.{name}"
    if folder == "vae":
        return re.sub(r"(mid_block\.attentions\.0\.)(to_[qkv]|to_out\.0)\.", lambda m: f"{m[1]}{OLD_ATTENTION[m[2]]}.", name)
    return name


def build(folder):
    config = {k: v for k, v in CONFIGS[f"{folder}/config.json"].items() if not k.startswith("_")}
    if folder == "text_encoder":
        return CLIPTextModel(CLIPTextConfig(**config))
    return {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[folder](**config)


with open(sys.argv[1], "w") as out, torch.device("meta"):
    for folder in ("text_encoder", "unet", "vae"):
        total = 0
        for name, tensor in build(folder).named_parameters():
            total += tensor.numel()
            print(folder, hub_name(folder, name), *tensor.shape, file=out)
        print(f"{folder}: {total:,} parameters")
