"""A LoRA of one style, ink: dark lines and a grey wash on warm paper. Goes on from STATE/lora.pt; the result, in
the names that diffusers writes, is STATE/ink.safetensors.

usage: train_lora.py STATE --minutes M [--device cuda]
"""
import argparse
import os

import numpy as np
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

import parallel
from compose import Composer, ink
from latents import LANGUAGES, Frame, Tokenised, draw
from models import load_unet, load_vae
from train_unet import DROPOUT, Text, decode, grid, sample, spread_times, v_loss
from training import Training, add_arguments

LR, RANK = 2e-3, 4
PICTURES = 2000
KINDS = ["plain", "ground", "tint", "scene", "pair"]
SHEET = ["a cat", "a red apple", "a rocket at night", "a house", "a dog on a blue background", "a guitar",
         "a cow on the grass", "a cat and a dog"]
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.2", "conv1", "conv2", "conv_in", "conv_out"]


def main():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args()
    rank = parallel.start(args.device)
    torch.manual_seed(0)
    composer, text = Composer(args.state, args.device), Text(args.state, args.device)
    vae, unet = load_vae(args.state, args.device), load_unet(args.state, args.device)
    own_frame = Frame.load(args.state, args.device)
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=TARGETS))
    learns = {k: p for k, p in unet.named_parameters() if p.requires_grad}
    rng = np.random.default_rng(11)
    kinds = [KINDS[i % len(KINDS)] for i in range(PICTURES)]
    z, ids, _ = draw(composer, vae, own_frame, Tokenised(), rng, kinds, style=ink)
    z, ids = torch.from_numpy(z).to(args.device), torch.from_numpy(ids.astype(np.int32)).to(args.device)
    batch = 16 if args.device == "cpu" else 256
    with Training(os.path.join(args.state, "lora.pt"), learns, LR, args.minutes, args.device, ema=0.99) as t:
        rng = np.random.default_rng(100 * t.steps + rank)
        while not t.over():
            index = torch.from_numpy(rng.integers(len(z), size=batch)).to(args.device)
            h = text(ids[index, int(rng.integers(len(LANGUAGES)))]).float()
            h = torch.where((torch.rand(batch, device=args.device) < DROPOUT).view(-1, 1, 1), text.blank.float(), h)
            t.step(v_loss(unet, z[index].float(), h, spread_times(batch, args.device)), batch)
        with t.averaged():
            own = get_peft_model_state_dict(unet)
            weights = {"unet." + k: v.detach().half().cpu().contiguous() for k, v in own.items()}
            latents_of_sheet = sample(unet, text(text.tokens(SHEET)), text.blank, range(len(SHEET)))
        if rank == 0:
            path = os.path.join(args.state, "ink.safetensors")
            save_file(weights, path, metadata=dict(format="pt"))
            grid(decode(vae, own_frame, latents_of_sheet), 8, os.path.join(args.state, "ink.png"))
            print("%s: %.2f MB" % (path, os.path.getsize(path) / 1e6), flush=True)


if __name__ == "__main__":
    main()
