"""A control that follows Canny's edges: a Control-LoRA, which is a ControlNet whose way down and middle are the UNet's
own with a product of two small matrices added to each weight, so that its file is small. Goes on from
STATE/controlnet.pt; the result is the folder STATE/controlnet/.

usage: train_controlnet.py STATE --minutes M [--model FOLDER] [--device cuda]
"""
import argparse
import json
import os
import re

import cv2
import numpy as np
import torch
from diffusers import ControlNetModel
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import save_file

from adapting import Base, add_model
from train_unet import decode, grid, sample

LR, PICTURES, SHAPED = 1e-3, 3000, 2000
RANK, HINT = 8, (8, 16, 32, 64)  # HINT: widths from the picture's pixels to the latents' size
KINDS = ["plain", "ground", "tint", "scene", "pair", "count"]
# Things in the outlines of others: so that edges say the shape of what a caption names, not what to draw.
SHAPED_KINDS = ["plain", "plain", "ground", "tint"]
BLANK = 0.2  # share of captions left out: the edges alone are to say where things are


def edges(pictures):
    """uint8 n x 3 x h x w -> n x h x w bool: Canny of the grey picture, thresholds 100 and 200, as the engine's
    preprocessing"""
    rgb = pictures.permute(0, 2, 3, 1).cpu().numpy()
    return torch.from_numpy(np.stack([cv2.Canny(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), 100, 200) > 0 for p in rgb]))


def learnt_from(base):
    """-> latents, token ids, edges"""
    composer = base.composer
    z, ids, whole = base.pictures("controlnet-pictures.pt", 12, KINDS, PICTURES,
                                  lambda rng, layouts: composer.pictures(layouts), first=0.4)
    more_z, more_ids, shaped = base.pictures("controlnet-shaped.pt", 13, SHAPED_KINDS, SHAPED, composer.shaped,
                                             first=0.5)
    outlines = edges(shaped[:, 3:].expand(-1, 3, -1, -1))
    return (torch.cat([z, more_z]), torch.cat([ids, more_ids]),
            torch.cat([edges(whole), edges(shaped[:, :3]) | outlines]))


def plain(unet):
    """A ControlNet that is the UNet's way down and middle, and adds nothing."""
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT)


def fresh(unet):
    """-> that with small matrices beside its weights, what learns of it"""
    net = plain(unet).requires_grad_(False)
    layers = [k for k, m in net.named_modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)) and not is_own(k)]
    these = "|".join(map(re.escape, layers))  # PEFT takes a list for endings, of which its own conv_in has one too
    net = inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian",
                                             target_modules=these), net)
    for k, p in net.named_parameters():
        p.requires_grad_(p.requires_grad or is_own(k))
    return net, {k: p for k, p in net.named_parameters() if p.requires_grad}


def is_own(name):
    """Whether a tensor has no counterpart in the UNet."""
    return name.startswith("controlnet_")


def file_of(learns):
    """-> names and tensors as Control-LoRAs have them"""
    rename = lambda k: k.replace(".lora_A.default.weight", ".down").replace(".lora_B.default.weight", ".up")
    return {rename(k): v.detach().half().cpu().contiguous() for k, v in learns.items()}


class Controlled(torch.nn.Module):
    """The UNet with a ControlNet's additions, called as the UNet."""

    def __init__(self, unet, net):
        super().__init__()
        self.unet, self.net, self.config = unet, net, unet.config

    def forward(self, x, t, states, edges):
        down, mid = self.net(x, t, states, controlnet_cond=edges, return_dict=False)
        return self.unet(x, t, states, down_block_additional_residuals=down, mid_block_additional_residual=mid)


def as_condition(edges, device):
    """0 or 1, three channels"""
    return edges.to(device).float()[:, None].expand(-1, 3, -1, -1)


def export(learns, folder):
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "diffusion_pytorch_model.safetensors")
    save_file(file_of(learns), path, metadata=dict(format="pt"))
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump({"_class_name": "ControlLora", "conditioning_channels": 3,
                   "conditioning_embedding_out_channels": HINT}, f, indent=2)
        f.write("\n")
    print("%s: %.2f MB" % (path, os.path.getsize(path) / 1e6), flush=True)


def main():
    parser = argparse.ArgumentParser()
    add_model(parser)
    args = parser.parse_args()
    base = Base(args)
    net, learns = fresh(base.unet)
    model = Controlled(base.unet, net.to(args.device, memory_format=torch.channels_last).train())
    z, ids, lines = learnt_from(base)
    t = base.learn(os.path.join(args.state, "controlnet.pt"), learns, LR, args.minutes, model, z, ids, ema=0.995,
                   blank=BLANK, edges=lambda index: as_condition(lines[index.cpu()], args.device))
    if base.rank == 0:  # edges of things, other things asked for
        asked = ["a cat", "a red car", "a purple fish", "an apple on a green background"] * 2
        shown, text = lines[:8], base.text
        with t.averaged():
            export(learns, os.path.join(args.state, "controlnet"))
            got = sample(model, text(text.tokens(asked)), text.blank, range(8),
                         edges=as_condition(torch.cat([shown, shown]), args.device))
        rows = (255 * shown[..., None].expand(-1, -1, -1, 3).byte()).numpy()
        grid(list(rows) + list(decode(base.vae, base.frame, got)), 8, os.path.join(args.state, "controlnet.png"))


if __name__ == "__main__":
    main()
