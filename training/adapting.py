"""What the LoRA and the control share: the frozen model that they are learnt for, pictures of its kind as latents, and
the loop."""
import os

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

import parallel
from compose import COLOURS, Composer
from latents import LANGUAGES, Frame, Tokenised, captions, encode
from models import load_unet, load_vae
from train_unet import DROPOUT, Text, spread_times, v_loss
from training import Training, add_arguments


def add_model(parser):
    add_arguments(parser)
    parser.add_argument("--model", help="a folder in diffusers' layout to learn for, as ../www/embedded, of which each "
                        "noun is one drawing; otherwise what STATE holds")


def as_first(rng, layouts):
    """The drawings where the model in www/embedded/ learnt them: in the middle, of one size, not mirrored. Changes
    the layouts."""
    near = lambda x, by: float(x + rng.uniform(-by, by))
    for l in layouts:
        n = len(l.things)
        size = 0.41 if n > 1 else 0.74 if l.ground in COLOURS else 0.69
        l.horizon = 0.0
        l.things = [(sprite, tint, near(0.5 if n == 1 else 0.27 + 0.46 * k, 0.02), near(0.5, 0.025),
                     near(size, 0.04), False) for k, (sprite, tint, *_) in enumerate(l.things)]


class Base:
    """The frozen model."""

    def __init__(self, args):
        self.state, self.device, self.rank = args.state, args.device, parallel.start(args.device)
        torch.manual_seed(0)
        self.composer, self.text = Composer(args.state, args.device), Text(args.state, args.device)
        if args.model:
            load = lambda kind, part: kind.from_pretrained(
                os.path.join(args.model, part), torch_dtype=torch.float32).eval().to(
                    args.device, memory_format=torch.channels_last)
            self.vae, self.unet = load(AutoencoderKL, "vae"), load(UNet2DConditionModel, "unet")
            self.frame = Frame(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), self.vae.config.scaling_factor))
            self.frame = self.frame.on(args.device)
            self.composer.sprites_of = {noun: all_of[:1] for noun, all_of in self.composer.sprites_of.items()}
        else:
            self.vae, self.unet = load_vae(args.state, args.device), load_unet(args.state, args.device)
            self.frame = Frame.load(args.state, args.device)
        self.first = bool(args.model)
        self.unet.requires_grad_(False)

    def pictures(self, name, seed, kinds, count, show, first=1.0):
        """Pictures of these kinds, drawn by show(rng, layouts) as uint8 n x 3 or more x h x w; channels behind the
        third are no part of the picture. first: of the model in www/embedded/, the share that is laid out as its own.
        Kept in STATE under `name`.
        -> latents, token ids n x languages x 77, what was shown, on the CPU"""
        path = os.path.join(self.state, name)
        if not os.path.exists(path) and self.rank == 0:
            torch.save(self._drawn(seed, [kinds[i % len(kinds)] for i in range(count)], show, first), path + ".tmp")
            os.replace(path + ".tmp", path)
        parallel.same(0)  # the others wait for the file
        z, ids, shown = torch.load(path, weights_only=True)
        return z.to(self.device), ids.to(self.device), shown

    def _drawn(self, seed, kinds, show, first):
        rng = np.random.default_rng(seed)
        specs, layouts = self.composer.draw(rng, kinds)
        if self.first:
            as_first(rng, layouts[:round(first * len(layouts))])
        shown = torch.cat([show(rng, layouts[k:k + 250]) for k in range(0, len(layouts), 250)])
        z = encode(self.vae, self.frame, shown[:, :3]).half().cpu()
        return z, torch.from_numpy(Tokenised()(captions(rng, specs)).astype(np.int32)), shown.cpu()

    def learn(self, path, learns, lr, minutes, model, z, ids, ema, blank=DROPOUT, **conditions):
        """Trains the parameters `learns` of `model`, called as the UNet. blank: the share of captions left out;
        conditions: what else model is called with, for pictures of these numbers. -> the training, whose running mean
        is the result"""
        batch = 16 if self.device == "cpu" else 256
        with Training(path, learns, lr, minutes, self.device, ema=ema) as t:
            rng = np.random.default_rng(100 * t.steps + self.rank)
            torch.manual_seed(100 * t.steps + self.rank)
            while not t.over():
                index = torch.from_numpy(rng.integers(len(z), size=batch)).to(self.device)
                h = self.text(ids[index, int(rng.integers(len(LANGUAGES)))]).float()
                out = (torch.rand(batch, device=self.device) < blank).view(-1, 1, 1)
                h = torch.where(out, self.text.blank.float(), h)
                more = {k: of(index) for k, of in conditions.items()}
                t.step(v_loss(model, z[index].float(), h, spread_times(batch, self.device), **more), batch)
        return t
