"""A ControlNet that follows Canny's edges. It has the UNet's widths, which its zero convolutions need, but neither
attention nor more than one block in the middle: 2.1 M parameters. Goes on from STATE/controlnet.pt.

usage: train_controlnet.py STATE --minutes M [--device cuda]
"""
import argparse
import os

import cv2
import numpy as np
import torch
from diffusers import ControlNetModel

import parallel
from compose import Composer
from latents import LANGUAGES, Frame, Tokenised, draw
from models import CONTROLNET, load_unet, load_vae
from train_unet import DROPOUT, Text, decode, grid, sample, spread_times, v_loss
from training import Training, add_arguments

LR, PICTURES = 1e-3, 3000
KINDS = ["plain", "ground", "tint", "scene", "pair", "count"]


def edges(pictures):
    """uint8 n x 3 x h x w -> n x h x w bool: Canny of the grey picture, thresholds 100 and 200, as the engine's
    preprocessing"""
    rgb = pictures.permute(0, 2, 3, 1).cpu().numpy()
    return torch.from_numpy(np.stack([cv2.Canny(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), 100, 200) > 0 for p in rgb]))


def fresh(unet):
    """What it shares with the UNet's way down begins as there."""
    net, own = ControlNetModel(**CONTROLNET), unet.state_dict()
    shared = [k for k, v in net.state_dict().items() if k in own and own[k].shape == v.shape]
    net.load_state_dict({k: own[k] for k in shared}, strict=False)
    return net


class Controlled(torch.nn.Module):
    """The UNet with a ControlNet's additions, called as the UNet."""

    def __init__(self, unet, net):
        super().__init__()
        self.unet, self.net = unet, net

    def forward(self, x, t, states, edges):
        down, mid = self.net(x, t, states, controlnet_cond=edges, return_dict=False)
        return self.unet(x, t, states, down_block_additional_residuals=down, mid_block_additional_residual=mid)


def as_condition(edges, device):
    """0 or 1, three channels"""
    return edges.to(device).float()[:, None].expand(-1, 3, -1, -1)


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
    net = fresh(unet).to(args.device, memory_format=torch.channels_last).train()
    model = Controlled(unet, net)
    rng = np.random.default_rng(12)
    kinds = [KINDS[i % len(KINDS)] for i in range(PICTURES)]
    z, ids, pictures = draw(composer, vae, own_frame, Tokenised(), rng, kinds)
    lines = edges(pictures)
    z, ids = torch.from_numpy(z).to(args.device), torch.from_numpy(ids.astype(np.int32)).to(args.device)
    batch = 16 if args.device == "cpu" else 256
    path = os.path.join(args.state, "controlnet.pt")
    with Training(path, dict(net.named_parameters()), LR, args.minutes, args.device, ema=0.995) as t:
        rng = np.random.default_rng(100 * t.steps + rank)
        while not t.over():
            index = rng.integers(len(z), size=batch)
            h = text(ids[index, int(rng.integers(len(LANGUAGES)))]).float()
            h = torch.where((torch.rand(batch, device=args.device) < DROPOUT).view(-1, 1, 1), text.blank.float(), h)
            condition = as_condition(lines[index], args.device)
            t.step(v_loss(model, z[index].float(), h, spread_times(batch, args.device), edges=condition), batch)
        if rank == 0:  # edges of things, other things asked for
            asked = ["a cat", "a red car", "a purple fish", "an apple on a green background"] * 2
            shown = lines[:8]
            with t.averaged():
                got = sample(model, text(text.tokens(asked)), text.blank, range(8),
                             edges=as_condition(torch.cat([shown, shown]), args.device))
            rows = (255 * shown[..., None].expand(-1, -1, -1, 3).byte()).numpy()
            grid(list(rows) + list(decode(vae, own_frame, got)), 8, os.path.join(args.state, "controlnet.png"))


if __name__ == "__main__":
    main()
