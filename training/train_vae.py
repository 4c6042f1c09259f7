"""Trains the AutoencoderKL (128x128x3 <-> 16x16x12). Resumes from STATE/vae.pt, else starts from principal
components.

usage: train_vae.py STATE --minutes M [--device cuda]
"""
import argparse
import json
import os

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image

import parallel
from compose import KINDS, Composer, ink, to_bytes, to_model
from models import VAE, fresh_vae
from training import Training, add_arguments, precision

LR, KL, NOISE, INKED = 1e-3, 1e-5, 0.06, 0.06
GOAL = 30.0  # dB
MIX = ["plain"] * 3 + ["ground"] * 4 + ["tint"] * 3 + ["tintground"] * 2 + ["scene"] * 3 + ["pair"] * 2 + ["count"] * 2


def loss_of(y, x):
    """Squares for the PSNR, absolute values for sharp edges, differences of neighbours against halos."""
    d = y - x
    loss = d.abs().mean() + 5 * d.square().mean()
    for k in (2, 3):
        loss = loss + 0.3 * d.diff(dim=k).abs().mean()
    return loss + 0.5 * F.avg_pool2d(d, 8).abs().mean()


def held_out(composer):
    """72 compositions that no training draws, of every kind."""
    rng = np.random.default_rng(12345)
    return composer.pictures(composer.draw(rng, [KINDS[i % len(KINDS)] for i in range(72)])[1])


@torch.no_grad()
def evaluate(vae, pictures, path):
    """-> mean PSNR in dB; writes pictures above their reconstructions to `path`."""
    vae.eval()
    y = []
    for part in pictures.split(12):
        with precision(part.device):
            y.append(vae.decode(vae.encode(to_model(part)).latent_dist.mean).sample)
    vae.train()
    a, b = to_bytes(to_model(pictures)), to_bytes(torch.cat(y))
    psnr = -10 * np.log10(np.square(a / 255.0 - b / 255.0).mean((1, 2, 3)))
    sheet = Image.new("RGB", (14 * 128, 8 * 128))
    for k in range(56):
        for j, p in enumerate((a, b)):
            sheet.paste(Image.fromarray(p[k]), (k % 14 * 128, (k // 14 * 2 + j) * 128))
    sheet.save(path)
    return float(psnr.mean())


def crops(rng, pictures, side=64):
    """One crop of each picture, where things mostly are."""
    at = rng.integers(8, 128 - side - 7, (len(pictures), 2))
    return torch.stack([p[:, y:y + side, x:x + side] for p, (y, x) in zip(pictures, at)])


def main():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args()
    rank = parallel.start(args.device)
    composer = Composer(args.state, args.device)
    held = held_out(composer)
    path = os.path.join(args.state, "vae.pt")
    torch.manual_seed(0)
    if os.path.exists(path):
        vae = AutoencoderKL(**VAE)
    else:
        start = composer.draw(np.random.default_rng(0), [MIX[i % len(MIX)] for i in range(400)])[1]
        vae = fresh_vae(to_model(composer.pictures(start)).cpu())
    vae = vae.to(args.device, memory_format=torch.channels_last).train()
    # On the CPU crops, a quarter of a picture each, and whole pictures at the end; on a GPU whole pictures.
    small, batch = args.device == "cpu", 8 if args.device == "cpu" else 64
    with Training(path, dict(vae.named_parameters()), LR, args.minutes, args.device) as t:
        rng = np.random.default_rng(1000 * t.steps + rank)
        torch.manual_seed(1000 * t.steps + rank)

        def look():
            with t.averaged():
                psnr = evaluate(vae, held, os.path.join(args.state, "vae.png"))
            t.extra = dict(psnr=round(psnr, 2))
            line = dict(steps=t.steps, pictures=t.seen, seconds=round(t.seconds), psnr=round(psnr, 2))
            with open(os.path.join(args.state, "vae.jsonl"), "a") as f:
                f.write(json.dumps(line) + "\n")
            print("held-out PSNR %.2f dB (goal %.0f)" % (psnr, GOAL), flush=True)

        if rank == 0 and t.steps == 0:
            look()
        while not t.over():
            whole = not small or t.gone > 0.85
            count = batch // 4 if small and whole else batch
            pictures = composer.pictures(composer.draw(rng, rng.choice(MIX, size=count))[1])
            inked = torch.from_numpy(rng.random(count) < INKED).to(args.device)  # the style of the LoRA
            pictures = torch.where(inked.view(-1, 1, 1, 1), ink(pictures), pictures)
            x = to_model(pictures if whole else crops(rng, pictures)).contiguous(memory_format=torch.channels_last)
            with precision(args.device):
                posterior = vae.encode(x).latent_dist
                mean, logvar = posterior.mean.float(), posterior.logvar.float()
                # the UNet's latents will not be exact: the decoder must bear some noise
                spread = (0.5 * logvar).exp() + NOISE * rng.random() * mean.detach().std((0, 2, 3), keepdim=True)
                y = vae.decode(mean + spread * torch.randn_like(mean)).sample
            kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
            if t.step(loss_of(y.float(), x) + KL * kl, batch // 4 if small else batch):
                look()
        if rank == 0:
            look()


if __name__ == "__main__":
    main()
