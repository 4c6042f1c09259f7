"""Trains the UNet on the shards of latents.py: v-prediction, zero terminal SNR, caption dropout, a running mean of
the weights. Goes on from STATE/unet.pt; new shards are picked up as they appear.

usage: train_unet.py STATE --minutes M [--device cuda]
"""
import argparse
import os
import time

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

import latents
import parallel
from compose import KINDS, to_bytes
from latents import LANGUAGES, Frame
from models import SIDE, UNET, Tokens, alphas_bar, load_text, load_vae
from training import Training, add_arguments, precision

LR = 1e-3
DROPOUT = 0.1  # of captions
CHINESE = 0.3  # share of captions
# Pictures seen, up to -> share of each kind: single things first, which is where nouns are learnt.
MIX = [(20000, dict(plain=0.55, ground=0.25, tint=0.2)),
       (10 ** 12, dict(plain=0.24, ground=0.2, tint=0.17, tintground=0.08, scene=0.13, pair=0.1, count=0.08))]
SHEET = ["a cat", "a cat", "a cat", "a cat", "a dog", "a red apple", "a pizza", "a rocket", "a house", "a tree",
         "a heart", "a car", "a butterfly", "a mouse", "a guitar", "a robot", "a penguin", "an elephant", "a star",
         "a cat on a blue background", "a banana on a purple background", "a frog on a pink background", "a blue car",
         "a green balloon", "a purple fish", "a rocket at night", "a crab on the beach", "a cow on the grass",
         "mouse is playing guitar", "a cat and a dog", "three bananas", "一只猫", "蓝色背景上的一只猫", "一个红色的苹果"]
AB = alphas_bar()


class Text:
    """Captions or token ids -> the frozen encoder's states."""

    def __init__(self, state, device):
        self.model, self.tokens, self.device = load_text(state, device), Tokens(), device
        self.blank = self(self.tokens([""]))

    @torch.no_grad()
    def __call__(self, ids):
        with precision(self.device):
            return self.model(ids.to(self.device)).last_hidden_state


class Data:
    """Latents and token ids, on the device; draws batches by the mix of kinds."""

    def __init__(self, state, device):
        self.state, self.device, self.names = state, device, []
        self.refresh()

    def refresh(self):
        names, z, ids, kinds = latents.load(self.state, self.device, self.names)
        if not names:
            return
        first = not self.names
        self.names += names
        self.z, self.ids = (z, ids) if first else (torch.cat([self.z, z]), torch.cat([self.ids, ids]))
        self.kinds = kinds if first else np.concatenate([self.kinds, kinds])
        self.of = {k: np.flatnonzero(self.kinds == i) for i, k in enumerate(KINDS)}

    def batch(self, rng, n, seen):
        """-> latents n x LATENTS x SIDE x SIDE, token ids n x 77"""
        mix = next(m for upto, m in MIX if seen < upto)
        which = rng.choice(list(mix), size=n, p=list(mix.values()))
        index = torch.from_numpy(np.array([self.of[k][rng.integers(len(self.of[k]))] for k in which])).to(self.device)
        # the plainest English caption half of the time that it is English
        english = np.where(rng.random(n) < 0.5, 0, rng.integers(1, 3, n))
        words = torch.from_numpy(np.where(rng.random(n) < CHINESE, rng.integers(3, len(LANGUAGES), n), english))
        return self.z[index].float(), self.ids[index, words.to(self.device)]


def spread_times(n, device):
    """Timesteps, one from each n-th of 0..999, shuffled."""
    t = ((torch.arange(n) + torch.rand(n)) / n * 1000).long().clamp(0, 999)
    return t[torch.randperm(n)].to(device)


def v_loss(model, z, states, t, **more):
    """Mean square of the error in v; model(x, t, states).sample predicts it."""
    a, noise = AB.to(z.device)[t].view(-1, 1, 1, 1), torch.randn_like(z)
    x = (a.sqrt() * z + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    with precision(z.device):
        out = model(x, t, states, **more).sample
    return (out.float() - (a.sqrt() * noise - (1 - a).sqrt() * z)).square().mean()


@torch.no_grad()
def sample(unet, states, blank, seeds, steps=20, guidance=3.0, **more):
    """DDIM, trailing. states n x 77 x DIM -> latents in the frame"""
    device, channels = states.device, unet.config.in_channels
    noise = lambda seed: torch.randn(channels, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    x = torch.stack([noise(s) for s in seeds]).to(device)
    h = torch.cat([states, blank.expand(len(x), -1, -1)])
    ts = (torch.arange(steps, 0, -1) * 1000 / steps).round().long() - 1
    for i, t in enumerate(ts):
        a, b = AB[t], AB[ts[i + 1]] if i + 1 < steps else torch.tensor(1.0)
        with precision(device):
            both = torch.cat([x, x]).contiguous(memory_format=torch.channels_last)
            v = unet(both, t.to(device), h, **more).sample.float()
        c, u = v.chunk(2)
        v = u + guidance * (c - u)
        x0, e = a.sqrt() * x - (1 - a).sqrt() * v, (1 - a).sqrt() * x + a.sqrt() * v
        x = b.sqrt() * x0 + (1 - b).sqrt() * e
    return x


@torch.no_grad()
def decode(vae, own_frame, z):
    """-> n x 128 x 128 x 3 uint8, as numpy"""
    out = []
    for part in own_frame.back(z).split(8):
        with precision(z.device):
            out.append(vae.decode(part.contiguous(memory_format=torch.channels_last)).sample)
    return to_bytes(torch.cat(out))


def grid(pictures, columns, path):
    rows = -(-len(pictures) // columns)
    im = Image.new("RGB", (columns * 128, rows * 128), "white")
    for k, p in enumerate(pictures):
        im.paste(Image.fromarray(p), (k % columns * 128, k // columns * 128))
    im.save(path)


def main():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parser.add_argument("--batch", type=int, help="default 16, on a GPU 512")
    parser.add_argument("--sheet-minutes", type=float, default=15, help="how often a sheet of samples is drawn")
    args = parser.parse_args()
    rank, gpu = parallel.start(args.device), args.device != "cpu"
    batch = args.batch or (512 if gpu else 16)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET)
    with torch.no_grad():
        unet.conv_out.weight.mul_(0.1)
    unet = unet.to(args.device, memory_format=torch.channels_last).train()
    data, text = Data(args.state, args.device), Text(args.state, args.device)
    vae, own_frame = load_vae(args.state, args.device), Frame.load(args.state, args.device)

    def sheet(t):
        unet.eval()
        with t.averaged():
            z = [sample(unet, text(text.tokens(SHEET[i:i + 17])), text.blank, range(i, i + len(SHEET[i:i + 17])))
                 for i in range(0, len(SHEET), 17)]
        unet.train()
        grid(decode(vae, own_frame, torch.cat(z)), 10, os.path.join(args.state, "sheet-%07d.png" % t.seen))

    path = os.path.join(args.state, "unet.pt")
    with Training(path, dict(unet.named_parameters()), LR, args.minutes, args.device) as t:
        rng = np.random.default_rng(100 * t.steps + rank)
        torch.manual_seed(100 * t.steps + rank)
        if rank == 0:
            print("%.2f M parameters, %d latents, goes on at %d pictures" % (
                sum(p.numel() for p in unet.parameters()) / 1e6, len(data.z), t.seen), flush=True)
        drawn = time.time()
        while not t.over():
            if t.here % 500 == 499:
                data.refresh()
            z, ids = data.batch(rng, batch, t.seen)
            h = text(ids).float()
            h = torch.where((torch.rand(batch, device=args.device) < DROPOUT).view(-1, 1, 1), text.blank.float(), h)
            if t.step(v_loss(unet, z, h, spread_times(batch, args.device)), batch) and (
                    time.time() - drawn > 60 * args.sheet_minutes):
                sheet(t)
                drawn = time.time()
        if rank == 0 and not t.stopped:
            sheet(t)


if __name__ == "__main__":
    main()
