"""Pictures as the UNet sees them: latents in the UNet's frame, and captions as tokens.

The frame: each channel less its mean, over its spread, times a weight. The weight is larger for channels that move
pixels more, so that noise drowns details before it drowns the composition, and sampling finds the composition
first.

usage: latents.py STATE --count N [--device cuda]   writes STATE/latents/NNN.npz, shard after shard
"""
import argparse
import os
import time

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from compose import KINDS, Composer, caption, caption_zh, drawn, sprites_of, to_model
from models import LATENTS, Tokens, load_vae
from training import precision

SHARD = 2000
LANGUAGES = [caption, caption, caption, caption_zh, caption_zh]  # a picture's captions: the plainest words first


class Frame:
    """mean, scale: 1 x channels x 1 x 1. to(z) = (z - mean) * scale."""

    def __init__(self, mean, scale):
        self.mean, self.scale = mean, scale

    def to(self, z):
        return (z - self.mean) * self.scale

    def back(self, y):
        return y / self.scale + self.mean

    def on(self, device):
        return Frame(self.mean.to(device), self.scale.to(device))

    @staticmethod
    def of(vae, x):
        """Measured on pictures x, n x 3 x 128 x 128 in -1..1."""
        z = vae.encode(x).latent_dist.mean
        mean, spread = z.mean((0, 2, 3), keepdim=True), z.std((0, 2, 3), keepdim=True)
        few = z[:16]
        y, moved = vae.decode(few).sample, []
        noise = torch.randn(few[:, :1].shape, generator=torch.Generator().manual_seed(0)).to(z.device)
        for c in range(LATENTS):
            other = few.clone()
            other[:, c:c + 1] += 0.5 * spread[:, c:c + 1] * noise
            moved.append((vae.decode(other).sample - y).square().mean())
        weight = torch.stack(moved) ** 0.25  # the square root of how far a channel moves the pixels
        weight = weight / weight.square().mean().sqrt()
        return Frame(mean, weight.view(1, -1, 1, 1) / spread)

    @staticmethod
    def load(state, device="cpu"):
        saved = torch.load(os.path.join(state, "frame.pt"), weights_only=True, map_location=device)
        return Frame(saved["mean"], saved["scale"])

    def save(self, state):
        torch.save(dict(mean=self.mean.cpu(), scale=self.scale.cpu()), os.path.join(state, "frame.pt"))


@torch.no_grad()
def frame(state, vae, composer):
    """Measured once for each STATE."""
    if not os.path.exists(os.path.join(state, "frame.pt")):
        rng = np.random.default_rng(4)
        x = to_model(composer.pictures(composer.draw(rng, [KINDS[i % len(KINDS)] for i in range(140)])[1]))
        f = Frame.of(vae, x)
        f.save(state)
        spread = f.to(vae.encode(x).latent_dist.mean).std((0, 2, 3))
        print("frame: spread", [round(float(s), 2) for s in spread], flush=True)
    return Frame.load(state, composer.device)


@torch.no_grad()
def encode(vae, own_frame, pictures):
    """uint8 pictures -> latents in the frame"""
    out = []
    for part in pictures.split(64):
        x = to_model(part).contiguous(memory_format=torch.channels_last)
        with precision(part.device):
            z = vae.encode(x).latent_dist.mean
        out.append(own_frame.to(z.float()))
    return torch.cat(out)


def captions(rng, specs):
    """-> for each spec, one caption of each of LANGUAGES"""
    return [[words(rng, s, vary=k > 0) for k, words in enumerate(LANGUAGES)] for s in specs]


class Tokenised:
    """Captions -> token ids (uint16), each caption once."""

    def __init__(self):
        self.tokens, self.known = Tokens(), {}

    def __call__(self, texts):
        new = [t for t in dict.fromkeys(t for row in texts for t in row) if t not in self.known]
        if new:
            self.known.update(zip(new, self.tokens(new).numpy().astype(np.uint16)))
        return np.stack([[self.known[t] for t in row] for row in texts])


def load(state, device="cpu", skip=()):
    """All shards but those in `skip` -> their names, latents, token ids, number of each one's kind"""
    folder = os.path.join(state, "latents")
    names = [n for n in sorted(os.listdir(folder)) if n.endswith(".npz") and ".tmp" not in n and n not in skip]
    if not names:
        return [], None, None, None
    files = [np.load(os.path.join(folder, n)) for n in names]
    z, ids, kinds = (np.concatenate([f[k] for f in files]) for k in ("z", "ids", "kinds"))
    return names, torch.from_numpy(z).to(device), torch.from_numpy(ids.astype(np.int32)).to(device), kinds


class Shards:
    """What shards need no device for: what they show and what their captions say. A core makes 2,000 pictures' a
    second, a GPU encodes more; so with a GPU, every core makes some."""

    def __init__(self, state):
        self.sprites_of, self.tokenised = sprites_of(state), Tokenised()

    def __getitem__(self, k):
        """-> layouts, token ids SHARD x len(LANGUAGES) x 77, numbers of kinds"""
        rng, kinds = np.random.default_rng(7000 + k), [KINDS[i % len(KINDS)] for i in range(SHARD)]
        specs, layouts = drawn(rng, kinds, self.sprites_of)
        ids = self.tokenised(captions(rng, specs))
        return layouts, ids, np.array([KINDS.index(x) for x in kinds], np.uint8)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("state")
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    composer, vae = Composer(args.state, args.device), load_vae(args.state, args.device)
    own_frame = frame(args.state, vae, composer)
    folder = os.path.join(args.state, "latents")
    os.makedirs(folder, exist_ok=True)
    path = lambda k: os.path.join(folder, "%03d.npz" % k)
    missing = [k for k in range(-(-args.count // SHARD)) if not os.path.exists(path(k))]
    shards = DataLoader(Subset(Shards(args.state), missing), batch_size=None, collate_fn=lambda shard: shard,
                        num_workers=0 if args.device == "cpu" else os.cpu_count())
    start = time.time()
    for k, (layouts, ids, kinds) in zip(missing, shards):
        z = [encode(vae, own_frame, composer.pictures(layouts[i:i + 250])).half().cpu() for i in range(0, SHARD, 250)]
        np.savez(path(k) + ".tmp.npz", z=torch.cat(z).numpy(), ids=ids, kinds=kinds)
        os.replace(path(k) + ".tmp.npz", path(k))
        print("latents %d: %.1f pictures/s" % (k, SHARD / (time.time() - start)), flush=True)
        start = time.time()


if __name__ == "__main__":
    main()
