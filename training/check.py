"""The automatic check: are the pictures what was asked for?

A small classifier is trained apart, on augmented sprites only (it never sees the model's pictures); its accuracy on
held-out augmentations is printed. Then over 200 prompts with fresh seeds go through the files in www/embedded with
diffusers' own scheduler, 20 steps; the picture's noun is the classifier's, the ground's colour the nearest of the twelve to
the frame's median.

usage: check.py STATE [GUIDANCE] [quick]
"""
import json
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel, CLIPTokenizer

from compose import Composer
from concepts import COLOURS, NOUNS, TINTS

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "../www/embedded")


class Classifier(nn.Sequential):
    def __init__(self):
        block = lambda i, o: (nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
        super().__init__(*block(3, 32), *block(32, 64), *block(64, 128), *block(128, 192), nn.Flatten(), nn.Dropout(0.2),
                         nn.Linear(192 * 16, len(NOUNS)))


def augmented(comp, rng, n):
    """Any noun on any ground, half of them tinted, moved, scaled, blurred, noisy. -> n x 3 x 64 x 64, labels"""
    x, y = np.empty((n, 64, 64, 3), np.float32), np.empty(n, np.int64)
    kinds = ["plain", "ground", "tint", "tintground", "scene"]
    for i in range(n):
        y[i] = rng.integers(len(NOUNS))
        kind = kinds[rng.integers(5)]
        spec, p = comp.draw(rng, kind, NOUNS[y[i]])
        im = Image.fromarray(p)
        c = rng.integers(-5, 6, 4)
        im = im.transform((128, 128), Image.EXTENT, (c[0], c[1], 128 + c[2], 128 + c[3]), Image.BILINEAR,
                          fillcolor=tuple(int(v) for v in p[2, 2]))
        d = int(rng.choice([20, 28, 40, 64]))
        im = im.resize((d, d), Image.BOX).resize((64, 64), Image.BICUBIC)
        x[i] = np.asarray(im, np.float32) / 127.5 - 1
        x[i] += rng.normal(0, 0.12 * rng.random(), (64, 64, 3)) + rng.normal(0, 0.05, 3)
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(y)


def train_classifier(state, steps=400, batch=64):
    path = os.path.join(state, "classifier.pt")
    model, comp = Classifier(), Composer(state)
    held = augmented(comp, np.random.default_rng(99), 1500)
    if os.path.exists(path):
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        torch.manual_seed(0)
        rng, start = np.random.default_rng(1), time.time()
        opt = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-2)
        for step in range(steps):
            for g in opt.param_groups:
                g["lr"] = 2e-3 * 0.5 * (1 + np.cos(np.pi * step / steps)) + 1e-5
            x, y = augmented(comp, rng, batch)
            loss = F.cross_entropy(model(x), y, label_smoothing=0.05)
            loss.backward()
            opt.step()
            opt.zero_grad()
            if step % 100 == 99:
                print("classifier step %d loss %.3f %.0fs" % (step + 1, loss, time.time() - start), flush=True)
                torch.save(model.state_dict(), path + ".part")
        os.replace(path + ".part", path)
    model.eval()
    with torch.no_grad():
        accuracy = float((torch.cat([model(s) for s in held[0].split(100)]).argmax(1) == held[1]).float().mean())
    print("classifier: %.1f %% on %d held-out augmentations" % (100 * accuracy, len(held[1])), flush=True)
    return model, comp, accuracy


class Shipped:
    """The files as the page gets them, run by diffusers."""

    def __init__(self):
        load = lambda c, d: c.from_pretrained(os.path.join(MODEL, d), torch_dtype=torch.float32).eval()
        self.unet = load(UNet2DConditionModel, "unet").to(memory_format=torch.channels_last)
        self.vae, self.text = load(AutoencoderKL, "vae"), load(CLIPTextModel, "text_encoder")
        self.tokens = CLIPTokenizer.from_pretrained(os.path.join(MODEL, "tokenizer"))
        self.scheduler = DDIMScheduler.from_pretrained(os.path.join(MODEL, "scheduler"))

    @torch.no_grad()
    def __call__(self, prompts, seeds, guidance=3.0, steps=20):
        n = len(prompts)
        ids = self.tokens(prompts + [""] * n, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        self.scheduler.set_timesteps(steps)
        x = torch.stack([torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(s)) for s in seeds])
        x = x * self.scheduler.init_noise_sigma
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel([SDPBackend.MATH]):
            h = self.text(ids["input_ids"]).last_hidden_state
            for t in self.scheduler.timesteps:
                v = self.unet(torch.cat([x, x]), t, h).sample.float()
                c, u = v.chunk(2)
                x = self.scheduler.step(u + guidance * (c - u), t, x).prev_sample.float()
            y = torch.cat([self.vae.decode(z / self.vae.config.scaling_factor).sample.float() for z in x.split(4)])
        return ((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def prompts():
    """(prompt, noun, colour of the noun, colour of the ground): every noun alone, then colours and grounds in turn."""
    rng = np.random.default_rng(2024)
    comp = Composer.caption
    grounds = [c for c in COLOURS if c != "white"]
    order = rng.permutation(len(NOUNS))
    out = [(n, None, "white") for n in NOUNS]
    out += [(NOUNS[order[i % len(NOUNS)]], TINTS[i % len(TINTS)], "white") for i in range(55)]
    out += [(NOUNS[order[(i + 49) % len(NOUNS)]], None, grounds[i % len(grounds)]) for i in range(55)]
    return [(comp(None, rng, n, c, g, None, vary=False), n, c, g) for n, c, g in out]


def main():
    state = sys.argv[1]
    guidance = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
    torch.set_num_threads(int(os.environ.get("THREADS", 1)))
    model, comp, accuracy = train_classifier(state)
    if "classifier" in sys.argv:
        return
    asked = prompts()
    if "quick" in sys.argv:
        asked = asked[::5]
    shipped, pictures = Shipped(), []
    for i in range(0, len(asked), 16):
        part = asked[i:i + 16]
        pictures += list(shipped([p[0] for p in part], [90000 + i + k for k in range(len(part))], guidance))
    x = np.stack([np.asarray(Image.fromarray(p).resize((64, 64), Image.BOX), np.float32) / 127.5 - 1 for p in pictures])
    with torch.no_grad():
        got = model(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()).argmax(1).tolist()
    names, values = list(COLOURS), np.array(list(COLOURS.values()), np.float32)
    rng, tally, wrong, missed = np.random.default_rng(0), {}, [], []
    tint_right = tints = 0
    for (prompt, noun, colour, ground), p, g in zip(asked, pictures, got):
        group = "colours" if colour else "grounds" if ground != "white" else "plain"
        frame = np.concatenate([p[:5].reshape(-1, 3), p[-5:].reshape(-1, 3), p[:, :5].reshape(-1, 3), p[:, -5:].reshape(-1, 3)])
        seen = names[int(np.linalg.norm(values - np.median(frame, 0), axis=1).argmin())]
        t = tally.setdefault(group, [0, 0, 0])
        t[0] += 1
        t[1] += NOUNS[g] == noun
        t[2] += seen == ground
        if NOUNS[g] != noun:
            wrong.append((prompt, NOUNS[g]))
        if seen != ground:
            missed.append((prompt, seen))
        if colour:  # which tint of the sprite, or none, is it nearest to?
            small = lambda a: a.reshape(16, 8, 16, 8, 3).mean((1, 3))
            d = {c: np.square(small(p.astype(np.float32)) - small(comp.picture(rng, noun, c, "white", jitter=0).astype(np.float32))).sum()
                 for c in TINTS}
            tints += 1
            tint_right += min(d, key=d.get) == colour
    n = len(asked)
    result = dict(prompts=n, guidance=guidance, classifier_held_out=round(accuracy, 4),
                  noun_right=round(sum(t[1] for t in tally.values()) / n, 4),
                  ground_right=round(sum(t[2] for t in tally.values()) / n, 4),
                  tint_right=round(tint_right / max(tints, 1), 4),
                  by_group={k: dict(prompts=t[0], noun=t[1], ground=t[2]) for k, t in tally.items()})
    print("confusions, asked -> seen (nouns)")
    for p, s in wrong:
        print("  %-40s %s" % (p, s))
    print("confusions, asked -> seen (grounds)")
    for p, s in missed:
        print("  %-40s %s" % (p, s))
    print(json.dumps(result, indent=1))
    with open(os.path.join(state, "check.json"), "w") as f:
        json.dump(result, f, indent=1)
    pick = np.linspace(0, n - 1, min(n, 64)).astype(int)
    sheet = Image.new("RGB", (8 * 128, -(-len(pick) // 8) * 128), "white")
    for k, i in enumerate(pick):
        sheet.paste(Image.fromarray(pictures[i]), (k % 8 * 128, k // 8 * 128))
    sheet.save(os.path.join(HERE, "contact-sheet.png"))
    with open(os.path.join(state, "contact.txt"), "w") as f:
        f.write("\n".join(asked[i][0] for i in pick) + "\n")


if __name__ == "__main__":
    main()
