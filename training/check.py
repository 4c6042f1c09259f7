"""The automatic check of a model folder: are the pictures what was asked for, do seeds give different drawings, do
steps count?

The noun (and the drawing) is what a classifier takes a picture for that was trained apart (classifier.py); the
ground's colour is the nearest of the twelve to the median of the picture's frame. Everything is drawn by diffusers
from the exported f16 files, 20 steps, with seeds not used elsewhere.

usage: check.py STATE FOLDER [--guidance 3] [--share 1] [--prompts] [--first]
  --share 0.2: every fifth prompt, for a quick look
  --prompts: only the prompts, English and Chinese (as they stand, without the page's lexicon)
  --first: the judge knows one drawing a noun, as the model in www/embedded/ does
"""
import argparse
import json
import os

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from classifier import small, trained
from compose import Spec, caption, caption_zh
from concepts import COLOURS, NOUNS, TINTS
from train_vae import evaluate, held_out
from training import precision

GOALS = dict(vae_psnr=30.0, noun_right=0.95, ground_right=0.95, nouns_with_3_drawings=0.8, twenty_steps_better=0.8,
             chinese_noun_right=0.9)


class Model:
    """A folder as the page gets it, run by diffusers."""

    def __init__(self, folder):
        load = lambda c, d: c.from_pretrained(os.path.join(folder, d), torch_dtype=torch.float32).eval()
        self.unet = load(UNet2DConditionModel, "unet").to(memory_format=torch.channels_last)
        self.vae, self.text = load(AutoencoderKL, "vae"), load(CLIPTextModel, "text_encoder")
        self.tokens = CLIPTokenizer.from_pretrained(os.path.join(folder, "tokenizer"))
        self.scheduler = DDIMScheduler.from_pretrained(os.path.join(folder, "scheduler"))
        self.shape = (self.unet.config.in_channels, self.unet.config.sample_size, self.unet.config.sample_size)

    @torch.no_grad()
    def _draw(self, prompts, seeds, guidance, steps):
        ids = self.tokens(prompts + [""] * len(prompts), padding="max_length", max_length=77, truncation=True,
                          return_tensors="pt")["input_ids"]
        self.scheduler.set_timesteps(steps)
        x = torch.stack([torch.randn(*self.shape, generator=torch.Generator().manual_seed(int(s))) for s in seeds])
        x = x * self.scheduler.init_noise_sigma
        with precision("cpu"):
            h = self.text(ids).last_hidden_state
            for t in self.scheduler.timesteps:
                c, u = self.unet(torch.cat([x, x]), t, h).sample.float().chunk(2)
                x = self.scheduler.step(u + guidance * (c - u), t, x).prev_sample.float()
            y = torch.cat([self.vae.decode(z / self.vae.config.scaling_factor).sample.float() for z in x.split(4)])
        return ((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()

    def __call__(self, prompts, seeds, guidance, steps=20):
        """-> len(prompts) x 128 x 128 x 3, uint8"""
        return np.concatenate([self._draw(prompts[i:i + 16], seeds[i:i + 16], guidance, steps)
                               for i in range(0, len(prompts), 16)])


def asked_for():
    """214 specs: every noun alone, then colours and grounds in turn."""
    grounds, order = [c for c in COLOURS if c != "white"], np.random.default_rng(2024).permutation(len(NOUNS))
    specs = [Spec(((n, None),)) for n in NOUNS]
    specs += [Spec(((NOUNS[order[i % len(NOUNS)]], TINTS[i % len(TINTS)]),)) for i in range(55)]
    return specs + [Spec(((NOUNS[order[(i + 49) % len(NOUNS)]], None),), grounds[i % len(grounds)]) for i in range(55)]


def ground_of(picture):
    frame = np.concatenate([p.reshape(-1, 3) for p in (picture[:5], picture[-5:], picture[:, :5], picture[:, -5:])])
    values = np.array(list(COLOURS.values()), np.float32)
    return list(COLOURS)[int(np.linalg.norm(values - np.median(frame, 0), axis=1).argmin())]


class Judge:
    def __init__(self, state, first):
        self.model, self.composer, self.drawings, self.accuracy = trained(state, first=first)

    def __call__(self, pictures, nouns):
        """-> nouns seen, drawings seen, margins: the asked noun's logit less the best other's"""
        with torch.no_grad():
            logits = torch.cat([self.model(x) for x in small(pictures).split(100)])
        of = self.model.nouns(logits)
        own = torch.tensor([NOUNS.index(n) for n in nouns])[:, None]
        margin = of.gather(1, own)[:, 0] - of.scatter(1, own, -torch.inf).amax(1)
        return [NOUNS[k] for k in of.argmax(1)], [self.drawings[k] for k in logits.argmax(1)], margin.numpy()


def check_prompts(model, judge, specs, guidance, chinese=False):
    """-> pictures, margins, share of nouns right, of grounds right; prints what was taken for something else"""
    rng = np.random.default_rng(0)
    prompts = [(caption_zh if chinese else caption)(rng, s, vary=False) for s in specs]
    pictures = model(prompts, range(90000, 90000 + len(specs)), guidance)
    nouns = [s.things[0][0] for s in specs]
    seen, _, margins = judge(pictures, nouns)
    grounds = [ground_of(p) for p in pictures]
    for prompt, s, noun, ground in zip(prompts, specs, seen, grounds):
        if (noun, ground) != (s.things[0][0], s.ground):
            print("  %-44s a %s on %s" % (prompt, noun, ground))
    right = lambda got, want: float(np.mean([a == b for a, b in zip(got, want)]))
    return pictures, margins, right(seen, nouns), right(grounds, [s.ground for s in specs])


def check_drawings(model, judge, nouns, guidance, seeds=8):
    """-> share of nouns of which eight seeds show at least three drawings (those rightly seen), mean number of
    drawings"""
    prompts = [caption(None, Spec(((n, None),)), vary=False) for n in nouns for _ in range(seeds)]
    pictures = model(prompts, range(70000, 70000 + len(prompts)), guidance)
    _, drawings, _ = judge(pictures, [n for n in nouns for _ in range(seeds)])
    counts = [len({d for d in drawings[i * seeds:(i + 1) * seeds] if d[0] == n}) for i, n in enumerate(nouns)]
    print("fewer than three drawings in eight seeds:", [n for n, c in zip(nouns, counts) if c < 3])
    return float(np.mean([c >= 3 for c in counts])), float(np.mean(counts)), pictures


def sheet(pictures, columns, path):
    im = Image.new("RGB", (columns * 128, -(-len(pictures) // columns) * 128), "white")
    for k, p in enumerate(pictures):
        im.paste(Image.fromarray(p), (k % columns * 128, k // columns * 128))
    im.save(path)


def check_pictures(model, judge, specs, nouns, margins, args, out):
    """The VAE, one step against twenty, seeds. margins: those of the specs at twenty steps"""
    out["vae_psnr"] = evaluate(model.vae, held_out(judge.composer), os.path.join(args.state, "vae.png"))
    model.vae.eval()
    alone = [s for s in specs if s.things[0][1] is None and s.ground == "white"]
    prompts = [caption(None, s, vary=False) for s in alone]
    once = model(prompts, range(90000, 90000 + len(alone)), args.guidance, steps=1)
    seen, _, first = judge(once, [s.things[0][0] for s in alone])
    out["one_step_noun_right"] = float(np.mean([a == s.things[0][0] for a, s in zip(seen, alone)]))
    out["margin_one_step"], out["margin_twenty_steps"] = float(first.mean()), float(margins[:len(alone)].mean())
    out["twenty_steps_better"] = float(np.mean(margins[:len(alone)] > first))
    out["nouns_with_3_drawings"], out["drawings_in_8_seeds"], seeds = check_drawings(model, judge, nouns, args.guidance)
    sheet(seeds[:96], 8, os.path.join(args.state, "eight-seeds.png"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("state")
    parser.add_argument("folder")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--prompts", action="store_true")
    parser.add_argument("--first", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("THREADS", 1)))
    judge, model, every = Judge(args.state, args.first), Model(args.folder), round(1 / args.share)
    specs, nouns = asked_for()[::every], NOUNS[::every]
    out = dict(prompts=len(specs), guidance=args.guidance, classifier_nouns=judge.accuracy[0],
               classifier_drawings=judge.accuracy[1])
    print("asked for, seen instead:")
    pictures, margins, out["noun_right"], out["ground_right"] = check_prompts(model, judge, specs, args.guidance)
    sheet(pictures[np.linspace(0, len(pictures) - 1, min(64, len(pictures))).astype(int)], 8,
          os.path.join(args.state, "contact-sheet.png"))
    if not args.prompts:
        check_pictures(model, judge, specs, nouns, margins, args, out)
    print("asked for in Chinese, seen instead:")
    out["chinese_noun_right"] = check_prompts(model, judge, specs, args.guidance, chinese=True)[2]
    out = {k: round(v, 4) for k, v in out.items()}
    print(json.dumps(out, indent=1))
    with open(os.path.join(args.state, "check.json"), "w") as f:
        json.dump(out, f, indent=1)
        f.write("\n")
    missed = ["%s %s < %s" % (k, out[k], v) for k, v in GOALS.items() if k in out and out[k] < v]
    print("passed" if not missed else "missed: " + ", ".join(missed))
    raise SystemExit(bool(missed))


if __name__ == "__main__":
    main()
