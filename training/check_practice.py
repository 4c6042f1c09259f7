"""The check of what there is to practise with: does the LoRA change pictures to its style, and do pictures follow the
control's edges? Drawn by diffusers from the files as they ship, 20 steps, guidance 3.

The browser does the same at seed 1 (tests/web/tests/practice.test.mjs); what it demands is taken from here.

usage: check_practice.py FOLDER [--sets 8] [--seed 50000] [--sheet FILE.png]   FOLDER: with lora/ and controlnet/
"""
import argparse
import os

import cv2
import numpy as np
import torch
from safetensors.torch import load_file

from check import Model, sheet
from train_controlnet import Controlled, as_condition, edges, plain

FILES, MOST_BYTES = ["lora/ink.safetensors", "controlnet/diffusion_pytorch_model.safetensors"], 1e6
NEAR = 2  # pixels
# For the LoRA; and for the control: whose edges are shown, what is asked for.
PROMPTS = ["a cat", "a red apple", "a house", "a guitar", "a purple car on a yellow background", "a cow on the grass",
           "a rocket at night", "a rose"]
PAIRS = [("a heart", "a pizza"), ("an apple", "a cookie"), ("a cat", "a watermelon"), ("a house", "a red car"),
         ("a purple star", "a sunflower"), ("a fish", "a strawberry"), ("a bell", "a panda"), ("a cup", "a frog")]
# Of the mean over the sets, at least
GOALS = dict(near_more=0.25, chroma_less=0.3, ink_more=0.05)


def chroma(pictures):
    """The mean over the pixels of the largest colour's value less the least's, of 255"""
    return float((pictures.max(-1).astype(float) - pictures.min(-1)).mean() / 255)


def ink_share(pictures):
    """The share of dark pixels without colour: lines"""
    values = pictures.astype(int)
    return float(((values.max(-1) < 110) & (values.max(-1) - values.min(-1) < 40)).mean())


def near(shown, got):
    """The share of shown's edges that have one of got's within NEAR pixels. Both bool h x w"""
    around = cv2.dilate(got.astype(np.uint8), np.ones((2 * NEAR + 1, 2 * NEAR + 1), np.uint8)) > 0
    return float((around & shown).sum() / shown.sum())


def edges_of(pictures):
    return edges(torch.from_numpy(pictures).permute(0, 3, 1, 2))


@torch.no_grad()
def with_factors(unet, path):
    """The ControlNet of a Control-LoRA's file: W + up down"""
    net, file = plain(unet), load_file(path)
    own = net.state_dict()
    for name, value in file.items():
        if name in own:
            own[name].copy_(value.float())
        elif name.endswith(".up"):
            layer, down = name.removesuffix(".up"), file[name.removesuffix(".up") + ".down"].float()
            weight = own[layer + ".weight"]
            weight.add_((value.float().flatten(1) @ down.flatten(1)).reshape(weight.shape))
    return net.eval()


def check_control(model, folder, seeds):
    """-> shares of edges that are near with and without the control, pictures of the first seed by rows"""
    unet = model.unet
    net = Controlled(unet, with_factors(unet, os.path.join(folder, FILES[1])))
    whose, asked = ([pair[k] for pair in PAIRS] for k in (0, 1))
    out, rows = [], []
    for seed in seeds:
        own = range(seed, seed + len(PAIRS))
        shown = model(whose, own, 3.0)
        lines = edges_of(shown)
        condition = torch.cat([as_condition(lines, "cpu")] * 2)
        others = range(seed + 100, seed + 100 + len(PAIRS))
        without = model(asked, others, 3.0)
        model.unet = lambda x, t, h: net(x, t, h, edges=condition)
        drawn = model(asked, others, 3.0)
        model.unet = unet
        share = lambda got: np.mean([near(l.numpy(), e.numpy()) for l, e in zip(lines, edges_of(got))])
        out.append([share(drawn), share(without)])
        if not rows:
            rows = [shown, np.repeat(255 * lines.numpy().astype(np.uint8)[..., None], 3, -1), without, drawn]
    return np.array(out), rows


def check_lora(model, folder, seeds):
    """-> chroma and share of ink with and without the LoRA, pictures of the first seed by rows"""
    draw = lambda: [model(PROMPTS, range(seed, seed + len(PROMPTS)), 3.0) for seed in seeds]
    without = draw()
    model.unet.load_lora_adapter(load_file(os.path.join(folder, FILES[0])), prefix="unet")
    drawn = draw()
    figures = [[(chroma(a), ink_share(a)), (chroma(b), ink_share(b))] for a, b in zip(drawn, without)]
    return np.array(figures), [without[0], drawn[0]]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--sets", type=int, default=8)
    parser.add_argument("--seed", type=int, default=50000)
    parser.add_argument("--sheet")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("THREADS", 1)))
    model, seeds = Model(args.folder), [args.seed + 1000 * k for k in range(args.sets)]
    control, rows = check_control(model, args.folder, seeds)
    lora, more = check_lora(model, args.folder, seeds)
    if args.sheet:
        sheet(np.concatenate(rows + more), len(PAIRS), args.sheet)
    sizes = [os.path.getsize(os.path.join(args.folder, path)) for path in FILES]
    figures = dict(near_with=control[:, 0], near_without=control[:, 1], near_more=control[:, 0] - control[:, 1],
                   chroma_with=lora[:, 0, 0], chroma_without=lora[:, 1, 0],
                   chroma_less=1 - lora[:, 0, 0] / lora[:, 1, 0], ink_with=lora[:, 0, 1],
                   ink_without=lora[:, 1, 1], ink_more=lora[:, 0, 1] - lora[:, 1, 1])
    print("%d sets of 8 prompts: mean, standard deviation, least, most of the sets" % args.sets)
    for name, values in figures.items():
        print("%-16s %.3f  %.3f  %.3f  %.3f" % (name, values.mean(), values.std(ddof=1), values.min(), values.max()))
    missed = [name for name, goal in GOALS.items() if figures[name].mean() < goal]
    missed += [path for path, size in zip(FILES, sizes) if size > MOST_BYTES]
    print("bytes %s; %s" % (sizes, "missed: " + ", ".join(missed) if missed else "passed"))
    raise SystemExit(bool(missed))


if __name__ == "__main__":
    main()
