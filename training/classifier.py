"""A small classifier of drawings, trained apart on augmented compositions of one thing; it never sees the model's
pictures."""
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from compose import Composer, to_model
from concepts import NOUNS

KINDS = ["plain", "ground", "tint", "tintground", "scene"]
SIDE = 64


class Classifier(nn.Module):
    """Pictures n x 3 x SIDE x SIDE in -1..1 -> logits of drawings (composer's nouns and their numbers)."""

    def __init__(self, drawings):
        super().__init__()
        block = lambda i, o: (nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
        self.layers = nn.Sequential(*block(3, 48), *block(48, 96), *block(96, 160), *block(160, 224), nn.Flatten(),
                                    nn.Dropout(0.2), nn.Linear(224 * 16, len(drawings)))
        nouns = torch.tensor([NOUNS.index(noun) for noun, _ in drawings])
        self.register_buffer("member", torch.where(nouns[:, None] == torch.arange(len(NOUNS)), 0.0, -torch.inf))

    def forward(self, x):
        return self.layers(x)

    def nouns(self, logits):
        """Logits of drawings -> logits of nouns: of a noun's drawings any will do."""
        return (logits[:, :, None] + self.member).logsumexp(1)


def drawings_of(composer):
    """-> the different (noun, number), and for each sprite its index among them"""
    all_of = [(n[0], n[3]) for n in composer.names]
    different = list(dict.fromkeys(all_of))
    return different, [different.index(d) for d in all_of]


def augmented(composer, index_of, rng, n):
    """One thing on any ground, half of them tinted, moved, scaled, blurred, noisy. -> n x 3 x SIDE x SIDE,
    drawings"""
    specs, layouts = composer.draw(rng, rng.choice(KINDS, size=n))
    x = to_model(composer.pictures(layouts))
    theta = torch.eye(2, 3).repeat(n, 1, 1) + torch.from_numpy(rng.uniform(-0.06, 0.06, (n, 2, 3))).float()
    x = F.grid_sample(x, F.affine_grid(theta, (n, 3, SIDE, SIDE), align_corners=False), padding_mode="border",
                      align_corners=False)
    blurred = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear")
    x = torch.where(torch.from_numpy(rng.random(n) < 0.3).view(-1, 1, 1, 1), blurred, x)
    x = x + torch.randn_like(x) * torch.from_numpy(0.1 * rng.random(n)).float().view(-1, 1, 1, 1)
    x = x + torch.from_numpy(rng.normal(0, 0.05, (n, 3, 1, 1))).float()
    return x, torch.tensor([index_of[l.things[0][0]] for l in layouts])


def small(pictures):
    """n x 128 x 128 x 3 uint8, numpy -> what the classifier takes"""
    x = to_model(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    return F.avg_pool2d(x, x.shape[-1] // SIDE)


def trained(state, minutes=6.0, batch=96, first=False):
    """-> classifier, composer, drawings, its accuracies on held-out augmentations (nouns, drawings). Kept in
    STATE. first: of every noun it learns the first drawing only."""
    path, composer = os.path.join(state, "classifier-first.pt" if first else "classifier.pt"), Composer(state)
    if first:
        composer.sprites_of = {noun: sprites[:1] for noun, sprites in composer.sprites_of.items()}
    drawings, index_of = drawings_of(composer)
    torch.manual_seed(0)
    model = Classifier(drawings)
    if os.path.exists(path):
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        rng, start, step, p = np.random.default_rng(1), time.process_time(), 0, 0.0
        opt = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-2)
        while p < 1:
            for g in opt.param_groups:
                g["lr"] = 2e-3 * 0.5 * (1 + np.cos(np.pi * p)) + 1e-5
            x, y = augmented(composer, index_of, rng, batch)
            loss = F.cross_entropy(model(x), y, label_smoothing=0.05)
            loss.backward()
            opt.step()
            opt.zero_grad()
            step, p = step + 1, (time.process_time() - start) / (60 * minutes)
            if step % 100 == 0:
                print("classifier step %d loss %.3f" % (step, loss), flush=True)
        torch.save(model.state_dict(), path)
    model.eval()
    x, y = augmented(composer, index_of, np.random.default_rng(99), 1500)
    with torch.no_grad():
        logits = torch.cat([model(s) for s in x.split(100)])
    of = torch.tensor([NOUNS.index(noun) for noun, _ in drawings])
    share = lambda right: float(right.float().mean())
    right = share(model.nouns(logits).argmax(1) == of[y]), share(logits.argmax(1) == y)
    print("classifier, %d held-out augmentations: nouns %.1f %%, drawings %.1f %%" % (
        len(y), 100 * right[0], 100 * right[1]), flush=True)
    return model, composer, drawings, right
