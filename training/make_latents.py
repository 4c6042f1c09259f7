"""Pictures, their captions' states and their latents, in shards that the UNet's training picks up as they appear.

usage: make_latents.py STATE SHARDS   (1000 pictures each; the first ones are the easiest)
"""
import json
import os
import sys
import time

import numpy as np
import torch
from diffusers import AutoencoderKL

from compose import Composer
from concepts import NOUNS

SHARD = 1040
CURRICULUM = [  # shard -> kinds it cycles through, noun after noun
    ["plain"], ["ground", "ground", "ground", "tint"], ["tint", "tint", "ground", "plain"],
    ["ground", "tint", "scene", "tintground"], ["pair", "scene", "tint", "ground"],
]


def main():
    state, shards = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    comp = Composer(state)
    saved = torch.load(os.path.join(state, "vae.pt"), weights_only=True)
    from train_vae import CONFIG, to_tensor
    vae = AutoencoderKL(**CONFIG)
    vae.load_state_dict(saved["ema"])
    vae = vae.eval().to(memory_format=torch.channels_last)
    folder = os.path.join(state, "latents")
    os.makedirs(folder, exist_ok=True)
    for k in range(shards):
        path = os.path.join(folder, f"{k:03d}.npz")
        if os.path.exists(path):
            continue
        rng, start = np.random.default_rng(7000 + k), time.time()
        kinds = CURRICULUM[min(k, len(CURRICULUM) - 1)]
        specs, pictures, names = [], [], []
        for i in range(SHARD):
            kind = kinds[(i // len(NOUNS) + i) % len(kinds)]
            s, p = comp.draw(rng, kind, NOUNS[i % len(NOUNS)])
            specs.append(s)
            pictures.append(p)
            names.append(kind)
        z = []
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for i in range(0, SHARD, 16):
                z.append(vae.encode(to_tensor(np.stack(pictures[i:i + 16]))).latent_dist.mean.float().numpy())
        np.savez(path + ".tmp.npz", z=np.concatenate(z).astype(np.float16), pictures=np.stack(pictures), specs=json.dumps(specs), kinds=json.dumps(names))
        os.replace(path + ".tmp.npz", path)
        print(f"latents {k}: {SHARD / (time.time() - start):.1f} pictures/s", flush=True)


if __name__ == "__main__":
    main()
