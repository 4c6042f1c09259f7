"""A LoRA of one style, ink: dark lines and a grey wash on warm paper. Goes on from STATE/lora.pt; the result, in
the names that diffusers writes, is STATE/ink.safetensors.

usage: train_lora.py STATE --minutes M [--model FOLDER] [--device cuda]
"""
import argparse
import os

from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from adapting import Base, add_model
from compose import ink
from train_unet import decode, grid, sample

LR, RANK = 2e-3, 7
PICTURES = 2000
KINDS = ["plain", "ground", "tint", "scene", "pair"]
SHEET = ["a cat", "a red apple", "a rocket at night", "a house", "a dog on a blue background", "a guitar",
         "a cow on the grass", "a cat and a dog"]
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.2", "conv1", "conv2", "conv_in", "conv_out"]


def main():
    parser = argparse.ArgumentParser()
    add_model(parser)
    args = parser.parse_args()
    base = Base(args)
    unet, text = base.unet, base.text
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=TARGETS))
    learns = {k: p for k, p in unet.named_parameters() if p.requires_grad}
    z, ids, _ = base.pictures("lora-pictures.pt", 11, KINDS, PICTURES,
                              lambda rng, layouts: ink(base.composer.pictures(layouts)))
    path = os.path.join(args.state, "lora.pt")
    t = base.learn(path, learns, LR, args.minutes, unet, z, ids, ema=0.99)
    with t.averaged():
        own = get_peft_model_state_dict(unet)
        weights = {"unet." + k: v.detach().half().cpu().contiguous() for k, v in own.items()}
        drawn = sample(unet, text(text.tokens(SHEET)), text.blank, range(len(SHEET)))
    if base.rank == 0:
        path = os.path.join(args.state, "ink.safetensors")
        save_file(weights, path, metadata=dict(format="pt"))
        grid(decode(base.vae, base.frame, drawn), 8, os.path.join(args.state, "ink.png"))
        print("%s: %.2f MB" % (path, os.path.getsize(path) / 1e6), flush=True)


if __name__ == "__main__":
    main()
