"""The VAE's decoder goes on alone, on latents that the UNet has denoised, so that it learns to clean up what the
UNet leaves. The encoder stays as it is, so the UNet's latents stay valid. Goes on from STATE/decoder.pt.

usage: train_decoder.py STATE --minutes M [--device cuda]
"""
import argparse
import os

import numpy as np
import torch

import parallel
from compose import Composer, caption, ink, to_model
from latents import Frame
from models import load_unet, load_vae
from train_unet import AB, Text
from train_vae import INKED, MIX, evaluate, held_out, loss_of
from training import Training, add_arguments, precision

LR = 5e-4


@torch.no_grad()
def denoised(unet, text, own_frame, rng, z, specs):
    """The UNet's guess at latents z, from noise of timesteps at which a sampler ends."""
    y, t = own_frame.to(z), torch.from_numpy(rng.integers(20, 450, size=len(z))).to(z.device)
    a = AB.to(z.device)[t].view(-1, 1, 1, 1)
    x = a.sqrt() * y + (1 - a).sqrt() * torch.randn_like(y)
    with precision(z.device):
        v = unet(x, t, text(text.tokens([caption(rng, s) for s in specs]))).sample.float()
    return own_frame.back(a.sqrt() * x - (1 - a).sqrt() * v)


def main():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args()
    rank = parallel.start(args.device)
    torch.manual_seed(rank)
    composer, text = Composer(args.state, args.device), Text(args.state, args.device)
    vae, unet = load_vae(args.state, args.device), load_unet(args.state, args.device)
    own_frame, held = Frame.load(args.state, args.device), held_out(composer)
    learns = {k: p for k, p in vae.named_parameters() if k.startswith(("decoder.", "post_quant_conv."))}
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    batch = 4 if args.device == "cpu" else 64
    with Training(os.path.join(args.state, "decoder.pt"), learns, LR, args.minutes, args.device) as t:
        rng = np.random.default_rng(500 + 100 * t.steps + rank)

        def look():
            with t.averaged():
                print("held-out PSNR %.2f dB" % evaluate(vae, held, os.path.join(args.state, "vae.png")), flush=True)

        while not t.over():
            specs, layouts = composer.draw(rng, rng.choice(MIX, size=batch))
            pictures = composer.pictures(layouts)
            inked = rng.random() < INKED
            x = to_model(ink(pictures) if inked else pictures).contiguous(memory_format=torch.channels_last)
            with torch.no_grad(), precision(args.device):
                z = vae.encode(x).latent_dist.mean.float()
            if not inked and rng.random() < 0.6:  # the UNet alone knows no ink
                z = denoised(unet, text, own_frame, rng, z, specs)
            with precision(args.device):
                y = vae.decode(z.contiguous(memory_format=torch.channels_last)).sample
            if t.step(loss_of(y.float(), x), batch):
                look()
        if rank == 0:
            look()


if __name__ == "__main__":
    main()
