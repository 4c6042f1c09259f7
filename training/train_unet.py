"""Trains the UNet on the shards of make_latents.py: v-prediction, zero terminal SNR, caption dropout, EMA, a curriculum from
white grounds to scenes and pairs. Resumes from STATE/unet.pt, else from the committed weights, else from scratch.

usage: train_unet.py STATE MINUTES
"""
import glob
import json
import math
import os
import signal
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel

import parallel
from compose import Composer
from train_text import DIM, Tokens, config

HERE = os.path.dirname(os.path.abspath(__file__))
CONFIG = dict(sample_size=16, in_channels=4, out_channels=4, block_out_channels=(64, 128, 192), layers_per_block=1,
              cross_attention_dim=DIM, attention_head_dim=4, norm_num_groups=32,
              down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
              up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"))
LR, BATCH = float(os.environ.get("LR", 1e-3)), int(os.environ.get("BATCH", 16))
SYNC, EMA = 4, 0.99  # steps between two meetings of the processes, and the EMA's keep at each
MIX = [  # pictures seen, up to -> share of each kind
    (12000, dict(plain=0.7, ground=0.2, tint=0.1)),
    (30000, dict(plain=0.42, ground=0.3, tint=0.22, scene=0.03, tintground=0.03)),
    (10**9, dict(plain=0.3, ground=0.26, tint=0.22, tintground=0.06, scene=0.1, pair=0.06)),
]
SHEET = ["a cat", "a dog", "a red apple", "a pizza", "a rocket", "a house", "a tree", "a heart", "a car", "a butterfly",
         "a mouse", "a guitar", "a robot", "a penguin", "an elephant", "a star", "a cat on a blue background",
         "a banana on a purple background", "a crown on a green background", "a frog on a pink background",
         "a blue car", "a green balloon", "a purple fish", "a pink heart", "a rocket at night", "a crab on the beach",
         "a snowman in the snow", "a cow on the grass", "mouse is playing guitar", "a cat and a dog", "a kitten",
         "a spaceship"]


def alphas_bar():
    """scaled_linear 0.00085..0.012, rescaled to zero terminal SNR."""
    b = torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000, dtype=torch.float64) ** 2
    s = torch.cumprod(1 - b, 0).sqrt()
    s = (s - s[-1]) * s[0] / (s[0] - s[-1])
    return (s ** 2).float()


AB = alphas_bar()


def text_encoder(state):
    t = CLIPTextModel(config())
    path = os.path.join(state, "text.pt")
    if os.path.exists(path):
        t.load_state_dict(torch.load(path, weights_only=True))
    else:
        t = CLIPTextModel.from_pretrained(os.path.join(HERE, "../www/embedded/text_encoder"), torch_dtype=torch.float32)
    return t.eval()


class Captions:
    """Caption -> hidden states, computed once."""

    def __init__(self, state):
        self.model, self.tokens, self.known = text_encoder(state), Tokens(), {}

    @torch.no_grad()
    def __call__(self, captions):
        new = [c for c in dict.fromkeys(captions) if c not in self.known]
        if new:
            with torch.autocast("cpu", torch.bfloat16):
                h = self.model(self.tokens(new)).last_hidden_state.to(torch.bfloat16)
            self.known.update(zip(new, h))
        return torch.stack([self.known[c] for c in captions]).float()


class Data:
    """The shards there are; new ones are picked up as they come."""

    def __init__(self, state, rng):
        self.folder, self.comp, self.rng, self.seen_files = os.path.join(state, "latents"), Composer(state), rng, set()
        self.z, self.captions, self.kinds = [], [], []
        self.refresh()

    def refresh(self):
        for path in sorted(glob.glob(os.path.join(self.folder, "???.npz"))):
            if path in self.seen_files:
                continue
            self.seen_files.add(path)
            f = np.load(path)
            crng = np.random.default_rng(int(os.path.basename(path)[:3]))
            self.z.append(torch.from_numpy(f["z"]).float())
            for spec in json.loads(str(f["specs"])):
                self.captions.append([self.comp.caption(crng, *spec, vary=v) for v in (False, True, True, True)])
            self.kinds += json.loads(str(f["kinds"]))
        self.all = torch.cat(self.z)
        k = np.array(self.kinds)
        self.of = {name: np.flatnonzero(k == name) for name in set(self.kinds)}

    def indices(self, n, seen):
        mix = next(m for upto, m in MIX if seen < upto)
        names = [k for k in mix if k in self.of]
        p = np.array([mix[k] for k in names])
        which = self.rng.choice(len(names), size=n, p=p / p.sum())
        return [int(self.rng.choice(self.of[names[w]])) for w in which]

    def caption(self, i):
        return self.captions[i][int(self.rng.integers(4)) if self.rng.random() < 0.5 else 0]


@torch.no_grad()
def sample(unet, states, blank, steps=20, guidance=3.0, seed=0, seeds=None):
    """DDIM, trailing. states n x 77 x D -> n normalised latents."""
    n = len(states)
    seeds = seeds or [seed * 1000 + i for i in range(n)]
    x = torch.stack([torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(s)) for s in seeds])
    h = torch.cat([states, blank.expand(n, -1, -1)])
    ts = (torch.arange(steps, 0, -1) * 1000 / steps).round().long() - 1
    for i, t in enumerate(ts):
        a, b = AB[t], AB[ts[i + 1]] if i + 1 < steps else torch.tensor(1.0)
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel([SDPBackend.MATH]):
            v = unet(torch.cat([x, x]).contiguous(memory_format=torch.channels_last), t, h).sample.float()
        c, u = v.chunk(2)
        v = u + guidance * (c - u)
        x0, e = a.sqrt() * x - (1 - a).sqrt() * v, (1 - a).sqrt() * x + a.sqrt() * v
        x = b.sqrt() * x0 + (1 - b).sqrt() * e
    return x


def grid(pictures, columns, path):
    rows = -(-len(pictures) // columns)
    im = Image.new("RGB", (columns * 128, rows * 128), "white")
    for k, p in enumerate(pictures):
        im.paste(Image.fromarray(p), (k % columns * 128, k // columns * 128))
    im.save(path)


@torch.no_grad()
def decode(vae, z, mean, spread):
    out = []
    for part in (z * spread + mean).split(8):
        with torch.autocast("cpu", torch.bfloat16):
            out.append(vae.decode(part).sample.float().clamp(-1, 1))
    return ((torch.cat(out) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def load_vae(state):
    from diffusers import AutoencoderKL
    from train_vae import CONFIG as V
    vae = AutoencoderKL(**V)
    vae.load_state_dict(torch.load(os.path.join(state, "vae.pt"), weights_only=True)["ema"])
    decoder = os.path.join(state, "decoder.pt")
    if os.path.exists(decoder):
        vae.load_state_dict(torch.load(decoder, weights_only=True)["ema"], strict=False)
    return vae.eval()


def main():
    state, minutes = sys.argv[1], float(sys.argv[2])
    every = float(os.environ.get("SHEET_MINUTES", 8)) * 60
    rank = parallel.start()
    ckpt, committed = os.path.join(state, "unet.pt"), os.path.join(HERE, "../www/embedded/unet")
    saved = torch.load(ckpt, weights_only=True) if os.path.exists(ckpt) else None
    torch.manual_seed(0)
    if saved:
        unet = UNet2DConditionModel(**CONFIG)
        unet.load_state_dict(saved["model"])
    elif os.path.exists(os.path.join(committed, "config.json")):
        unet = UNet2DConditionModel.from_pretrained(committed, torch_dtype=torch.float32)
    else:
        unet = UNet2DConditionModel(**CONFIG)
        with torch.no_grad():
            unet.conv_out.weight.mul_(0.1)
    unet = unet.to(memory_format=torch.channels_last).train()
    params = list(unet.parameters())
    opt = torch.optim.AdamW(params, LR, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    ema = [p.detach().clone() for p in params]
    done = dict(seen=0, steps=0, seconds=0.0)
    if saved:
        opt.load_state_dict(saved["opt"])
        ema = [e.clone(memory_format=torch.preserve_format) for e in saved["ema"]]
        done = saved["done"]
    rng = np.random.default_rng(100 * done["steps"] + rank)
    torch.manual_seed(100 * done["steps"] + rank)
    data, captions = Data(state, rng), Captions(state)
    blank = captions([""])
    if saved:
        mean, spread = saved["mean"], saved["spread"]
    elif os.path.exists(os.path.join(committed, "config.json")):  # there they are folded into the VAE
        mean, spread = torch.zeros(1, 4, 1, 1), torch.ones(1, 4, 1, 1)
    else:
        mean, spread = data.all.mean((0, 2, 3)).view(1, 4, 1, 1), data.all.std((0, 2, 3)).view(1, 4, 1, 1)
    if rank == 0:
        print("%.2fM parameters, %d latents, resumed at %s" % (sum(p.numel() for p in params) / 1e6, len(data.all), done), flush=True)

    def save():
        torch.save(dict(model=unet.state_dict(), ema=ema, opt=opt.state_dict(), done=done, mean=mean, spread=spread), ckpt + ".tmp")
        os.replace(ckpt + ".tmp", ckpt)

    def sheet():
        now = [p.detach().clone() for p in params]
        with torch.no_grad():
            for p, e in zip(params, ema):
                p.copy_(e)
        unet.eval()
        z = torch.cat([sample(unet, captions(SHEET[i:i + 16]), blank, seed=1) for i in range(0, len(SHEET), 16)])
        grid(decode(load_vae(state), z, mean, spread), 8, os.path.join(state, "sheet-%06d.png" % done["seen"]))
        unet.train()
        with torch.no_grad():
            for p, n in zip(params, now):
                p.copy_(n)

    start, before, last, sheets, step, acc = time.time(), done["seconds"], time.time(), time.time(), 0, []
    bins = torch.zeros(2, 5)
    first = done["seen"]
    stop = []  # on SIGTERM: finish this round, save, end
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    while True:
        if step % SYNC == 0:
            parallel.average_weights(params)
            torch._foreach_lerp_(ema, [q.detach() for q in params], 1 - min(EMA, (1 + done["steps"]) / (20 + done["steps"])))
            gone = parallel.same(1e9 if stop else time.time() - start)
        p = gone / (minutes * 60)
        if p > 1:
            break
        lr = LR * min(1, (step + 1) / 100) * (1 if p < 0.5 else 0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi * (p - 0.5) * 2)))
        for g in opt.param_groups:
            g["lr"] = lr
        if step % 100 == 99:
            data.refresh()
        ix = data.indices(BATCH, done["seen"])
        x0 = (data.all[ix] - mean) / spread
        x0 = x0 + 0.03 * torch.randn_like(x0)
        h = captions([data.caption(i) for i in ix])
        drop = torch.rand(BATCH) < 0.1
        h[drop] = blank
        t = ((torch.arange(BATCH) + torch.rand(BATCH)) / BATCH * 1000).long().clamp(0, 999)[torch.randperm(BATCH)]
        a, e = AB[t].view(-1, 1, 1, 1), torch.randn_like(x0)
        xt = (a.sqrt() * x0 + (1 - a).sqrt() * e).contiguous(memory_format=torch.channels_last)
        with sdpa_kernel([SDPBackend.MATH]), torch.autocast("cpu", torch.bfloat16):
            out = unet(xt, t, h).sample
        each = (out.float() - (a.sqrt() * e - (1 - a).sqrt() * x0)).square().mean((1, 2, 3))
        each.mean().backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        done["steps"] += 1
        step += 1
        done["seen"] += BATCH * parallel.WORLD
        acc.append(float(each.detach().mean()))
        for k in range(BATCH):
            bins[:, int(t[k]) // 200] += torch.tensor([float(each[k].detach()), 1.0])
        if rank == 0:
            if step % 50 == 0:
                done["seconds"] = before + time.time() - start
                print("unet step %d seen %d %.0fs loss %.4f by t %s lr %.1e %.1f pictures/s pool %d load %.1f" % (
                    done["steps"], done["seen"], gone, np.mean(acc[-100:]), [round(float(v), 3) for v in bins[0] / bins[1]],
                    lr, (done["seen"] - first) / (time.time() - start), len(data.all), os.getloadavg()[0]), flush=True)
                bins.zero_()
            if time.time() - last > 240:
                save()
                last = time.time()
            if time.time() - sheets > every:
                sheet()
                sheets = time.time()
    done["seconds"] = before + time.time() - start
    if rank == 0:
        save()
        if not stop:
            sheet()
        print("unet done", done, flush=True)
    parallel.end()


if __name__ == "__main__":
    main()
