"""Captioned 128x128 pictures of the sprites, composed in batches on any device.

A Spec says what a picture shows and what its captions may say; Layout adds the seed's part: which drawing, where,
how large, mirrored or not. `Composer.pictures` renders layouts, `caption` and `caption_zh` put specs into words.
"""
import json
import os
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from concepts import COLOURS, NOUNS, SCENES, SYNONYMS, TINTS, UNCOUNTED, article, plural

SIZE = 128
HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "..", "www", "lexicon-zh.json"), encoding="utf-8") as _f:
    ZH = json.load(_f)
NUMBERS = {2: "two", 3: "three"}
GROUND_FORMS = [" on {a} background", " on {a} background", " on {0}", ", {0} background"]
KINDS = ["plain", "ground", "tint", "tintground", "scene", "pair", "count"]

# scene: colour on top and below (0..255), where they meet (share of the height), how far the top fades to white at
# the horizon, how bright the upper part is, stars. Where a thing stands: its foot, or None for anywhere.
_GROUNDS = {
    "on the grass": ((90, 180, 250), (95, 185, 80), 0.68, 0.4, 1.0, False),
    "on the beach": ((90, 180, 250), (240, 215, 150), 0.68, 0.4, 1.0, False),
    "in the snow": ((130, 190, 240), (246, 250, 255), 0.68, 0.4, 1.0, False),
    "in the sea": ((150, 210, 250), (25, 105, 190), 0.5, 0.4, 1.0, False),
    "in the sky": ((70, 155, 245), (70, 155, 245), 1.0, 0.6, 1.0, False),
    "at sunset": ((255, 130, 80), (110, 65, 70), 0.68, 0.4, 1.0, False),
    "at night": ((18, 22, 66), (20, 40, 42), 0.75, 0.4, 0.75, True),
}
ANYWHERE = {"in the sky", "in the sea"}


@dataclass(frozen=True)
class Spec:
    """things: (noun, colour or None), left to right; a noun that is counted stands there once for each."""
    things: tuple
    ground: str = "white"

    @property
    def counted(self):
        return len(self.things) > 1 and len(set(self.things)) == 1


@dataclass
class Layout:
    """One picture. Per thing: number of the sprite, tint or None, centre and size (shares of the picture),
    mirrored."""
    things: list
    ground: str
    horizon: float
    stars: list


def one_of(rng, values):
    return values[int(rng.integers(len(values)))]


def random_spec(rng, kind, noun=None):
    """kind: one of KINDS."""
    noun = noun or one_of(rng, NOUNS)
    colour, ground = None, "white"
    if kind in ("tint", "tintground") or (kind in ("scene", "count", "pair") and rng.random() < 0.25):
        colour = one_of(rng, TINTS)
    if kind in ("ground", "tintground") or (kind in ("count", "pair") and rng.random() < 0.4):
        ground = one_of(rng, [c for c in COLOURS if c not in ("white", colour)])
    if kind == "scene" or (kind in ("count", "pair") and rng.random() < 0.15):
        ground = one_of(rng, SCENES)
    if kind == "count" and noun not in UNCOUNTED:
        return Spec(((noun, colour),) * int(rng.integers(2, 4)), ground)
    if kind in ("pair", "count"):
        if rng.random() < 0.02:
            noun, second = "mouse", "guitar"
        else:
            second = one_of(rng, [n for n in NOUNS if n != noun])
        tint = one_of(rng, TINTS) if colour and rng.random() < 0.5 else None
        things = ((noun, colour), (second, tint))
        return Spec(things, ground)
    return Spec(((noun, colour),), ground)


def random_layout(rng, spec, sprites_of):
    """The seed's part of a picture. sprites_of: noun -> numbers of its sprites."""
    n, horizon = len(spec.things), float(rng.uniform(-0.06, 0.06))
    sizes = {1: (0.5, 0.94), 2: (0.36, 0.5), 3: (0.27, 0.35)}[n]
    same = one_of(rng, sprites_of[spec.things[0][0]]) if spec.counted and rng.random() < 0.6 else None
    size = rng.uniform(*sizes)
    things = []
    for k, (noun, colour) in enumerate(spec.things):
        s = float(np.clip(size * rng.uniform(0.92, 1.08), sizes[0], sizes[1]))
        free = (1 / n - s) / 2 + 0.02
        x = (k + 0.5) / n + rng.uniform(-free, free)
        if spec.ground in COLOURS or spec.ground in ANYWHERE:
            reach = max(0.0, 0.5 - s / 2) + 0.02
            y = 0.5 + rng.uniform(-reach, reach) * (1 if n == 1 else 0.6)
        else:  # it stands on the ground
            foot = rng.uniform(_GROUNDS[spec.ground][2] + horizon + 0.06, 0.99)
            y = max(foot - s / 2, s / 2 - 0.02)
        things.append((same if same is not None else one_of(rng, sprites_of[noun]), colour, float(x), float(y), s,
                       bool(rng.random() < 0.5)))
    stars = []
    if spec.ground not in COLOURS and _GROUNDS[spec.ground][5]:
        stars = [(int(rng.integers(2, SIZE - 2)), int(rng.integers(2, 0.7 * SIZE)))
                 for _ in range(int(rng.integers(8, 14)))]
    return Layout(things, spec.ground, horizon, stars)


def drawn(rng, kinds, sprites_of):
    """-> specs, layouts, one for each of kinds"""
    specs = [random_spec(rng, k) for k in kinds]
    return specs, [random_layout(rng, s, sprites_of) for s in specs]


def sprite_names(state):
    """-> for each sprite: noun, icon, family, number of the drawing"""
    with np.load(os.path.join(state, "sprites.npz")) as f:
        return [tuple(n) for n in json.loads(str(f["names"]))]


def sprites_of(state):
    """-> noun -> numbers of its sprites"""
    names = sprite_names(state)
    return {n: [i for i, name in enumerate(names) if name[0] == n] for n in NOUNS}


class Composer:
    """Holds the sprites on a device."""

    def __init__(self, state, device="cpu"):
        with np.load(os.path.join(state, "sprites.npz")) as f:
            planes = torch.from_numpy(f["planes"])
        self.names, self.sprites_of = sprite_names(state), sprites_of(state)
        self.device = device
        # Large things are drawn from the first, small ones from the second, so that nothing is sampled too coarsely.
        self.planes = [planes.to(device), (F.avg_pool2d(planes.float(), 2).round().byte()).to(device)]

    def layout(self, rng, spec):
        return random_layout(rng, spec, self.sprites_of)

    def draw(self, rng, kinds):
        return drawn(rng, kinds, self.sprites_of)

    def grounds(self, layouts):
        """-> n x 3 x SIZE x SIZE, 0..255"""
        rows = []
        for l in layouts:
            if l.ground in COLOURS:
                rows.append(COLOURS[l.ground] + COLOURS[l.ground] + (1.0, 0.0, 1.0))
            else:
                top, bottom, h, fade, bright, _ = _GROUNDS[l.ground]
                rows.append(top + bottom + (h + l.horizon if h < 1 else h, fade, bright))
        p = torch.tensor(rows, dtype=torch.float32, device=self.device)
        top, bottom = p[:, 0:3, None, None], p[:, 3:6, None, None]
        h, fade, bright = (p[:, k, None, None, None] for k in (6, 7, 8))
        y = torch.linspace(0, 1, SIZE, device=self.device).view(1, 1, SIZE, 1)
        out = torch.where(y < h, (top + (255 - top) * (y / h) * fade) * bright, bottom)
        out = out.expand(-1, -1, SIZE, SIZE).contiguous()
        plus = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
        lit = [(i, y + dy, x + dx) for i, l in enumerate(layouts) for x, y in l.stars for dx, dy in plus]
        if lit:
            i, y, x = torch.tensor(lit, device=self.device).unbind(1)
            out[i, :, y, x] = 235
        return out

    def put(self, canvas, index, things):
        """Draws one thing onto each of the pictures `index` of canvas."""
        for level, small in enumerate((False, True)):
            which = [k for k, t in enumerate(things) if (t[4] < 0.55) == small]
            if not which:
                continue
            part = [things[k] for k in which]
            rows = torch.tensor([index[k] for k in which], device=self.device)
            sprite = self.planes[level][torch.tensor([t[0] for t in part], device=self.device)].float()
            tinted = torch.tensor([t[1] is not None for t in part], device=self.device).view(-1, 1, 1, 1)
            colours = torch.where(tinted, sprite[:, 3:6], sprite[:, :3])
            source = torch.cat([colours, sprite[:, 6:7] * tinted, sprite[:, 7:]], 1)
            x, y, s, flip = (torch.tensor([float(t[k]) for t in part], device=self.device) for k in (2, 3, 4, 5))
            theta = torch.zeros(len(part), 2, 3, device=self.device)
            theta[:, 0, 0] = (1 - 2 * flip) / s
            theta[:, 0, 2] = -(2 * x - 1) * (1 - 2 * flip) / s
            theta[:, 1, 1] = 1 / s
            theta[:, 1, 2] = -(2 * y - 1) / s
            grid = F.affine_grid(theta, (len(part), 5, SIZE, SIZE), align_corners=False)
            got = F.grid_sample(source, grid, align_corners=False)
            tint = torch.tensor([COLOURS[t[1] or "white"] for t in part], dtype=torch.float32, device=self.device)
            colour = got[:, :3] + got[:, 3:4] / 255 * tint[:, :, None, None]
            canvas[rows] = colour + canvas[rows] * (1 - got[:, 4:] / 255)

    def pictures(self, layouts):
        """-> n x 3 x SIZE x SIZE, uint8"""
        canvas = self.grounds(layouts)
        for k in range(max(len(l.things) for l in layouts)):
            index = [i for i, l in enumerate(layouts) if len(l.things) > k]
            self.put(canvas, index, [layouts[i].things[k] for i in index])
        return canvas.round().clamp(0, 255).byte()

    def shaped(self, rng, layouts):
        """One thing in the outline of another, a pizza like a heart. layouts: of one thing each, on one colour.
        -> uint8 n x 4 x SIZE x SIZE: pictures, and where the outline's inside is, 0..255"""
        black, white = (torch.full((len(layouts), 3, SIZE, SIZE), v, device=self.device) for v in (0.0, 255.0))
        outlines, index = [], list(range(len(layouts)))
        for l in layouts:
            sprite = one_of(rng, self.sprites_of[one_of(rng, NOUNS)])
            outlines.append((sprite, None, *l.things[0][2:]))
        self.put(black, index, outlines)
        self.put(white, index, outlines)
        alpha = 1 - (white - black)[:, :1] / 255
        stuff = self.plain_colours([l.things[0] for l in layouts]).expand(-1, -1, SIZE, SIZE).contiguous()
        larger = [l.things[0] for l in layouts]
        self.put(stuff, index, [(*t[:4], 1.1 * t[4], t[5]) for t in larger])
        canvas = self.grounds(layouts)
        return torch.cat([canvas + (stuff - canvas) * alpha, 255 * alpha], 1).round().clamp(0, 255).byte()

    def plain_colours(self, things):
        """The mean of each drawing as it is tinted -> n x 3 x 1 x 1, 0..255"""
        means = []
        for sprite, tint, *_ in things:
            planes = self.planes[1][sprite].float()
            colour = torch.tensor(COLOURS[tint or "white"], dtype=torch.float32, device=self.device)
            rgb = planes[3:6] + planes[6:7] / 255 * colour.view(3, 1, 1) if tint else planes[:3]
            means.append(255 * rgb.sum((1, 2)) / planes[7].sum())
        return torch.stack(means)[:, :, None, None]


def ink(pictures):
    """The style of the LoRA: dark lines where colours meet, a grey wash in between, on warm paper. uint8 -> uint8"""
    x = pictures.float()
    pad = F.pad(x, (1, 1, 1, 1), mode="replicate")
    dx, dy = pad[:, :, 1:-1, 2:] - pad[:, :, 1:-1, :-2], pad[:, :, 2:, 1:-1] - pad[:, :, :-2, 1:-1]
    edge = (dx.square() + dy.square()).sqrt().amax(1, keepdim=True)
    line = F.max_pool2d((edge / 90).clamp(0, 1), 2, 1, 1)[:, :, :SIZE, :SIZE]
    luma = (x * torch.tensor([0.3, 0.59, 0.11], device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True) / 255
    paper = torch.tensor([252.0, 246.0, 232.0], device=x.device).view(1, 3, 1, 1)
    dark = torch.tensor([38.0, 34.0, 48.0], device=x.device).view(1, 3, 1, 1)
    wash = paper * (1 - 0.3 * (1 - luma))
    return (wash + (dark - wash) * line).round().clamp(0, 255).byte()


def to_model(pictures):
    """uint8 -> -1..1"""
    return pictures.float() / 127.5 - 1


def to_bytes(x):
    """-1..1, n x 3 x h x w -> n x h x w x 3 uint8, as numpy"""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def phrase(rng, thing, vary):
    noun, colour = thing
    name = one_of(rng, SYNONYMS[noun]) if vary and SYNONYMS[noun] and rng.random() < 0.12 else noun
    return f"{colour} {name}" if colour else name


def caption(rng, spec, vary=True):
    """English. Not `vary`: the plainest words ("a red apple on a blue background")."""
    if spec.counted:
        noun, colour = spec.things[0]
        words = [NUMBERS[len(spec.things)], colour, plural(noun)]
        core = " ".join(w for w in words if w)
    else:
        parts = [phrase(rng, t, vary) for t in spec.things]
        bare = vary and rng.random() < 0.25
        joint = one_of(rng, [" and ", " and ", " next to ", " with "]) if vary else " and "
        core = joint.join(p if bare else article(p) for p in parts)
        if [t[0] for t in spec.things] == ["mouse", "guitar"] and vary and rng.random() < 0.5:
            core = one_of(rng, ["mouse is playing guitar", "a mouse is playing guitar", "a mouse playing a guitar"])
    if spec.ground not in COLOURS:
        core += " " + spec.ground
    elif spec.ground != "white" or (vary and rng.random() < 0.1):
        form = one_of(rng, GROUND_FORMS) if vary else GROUND_FORMS[0]
        core += form.format(spec.ground, a=article(spec.ground))
    v = rng.random() if vary else 1.0
    if v < 0.06:
        core = "a picture of " + core
    elif v < 0.10:
        core = "an emoji of " + core
    elif v < 0.13:
        core = core[0].upper() + core[1:] + "."
    return core


def caption_zh(rng, spec, vary=True):
    """Simplified Chinese, by the patterns that the page's lexicon reads. Not `vary`: the plainest words."""
    some = lambda words: one_of(rng, words) if vary else words[0]

    def thing(t, number=None):
        noun, colour = t
        name = some(ZH["nouns"][noun]["names"])
        colour = some(ZH["colours"][colour]) if colour else ""
        of = "的" if len(colour) > 1 else ""
        count = (number or "一") + ZH["nouns"][noun]["measure"] if number or not vary or rng.random() < 0.6 else ""
        return count + colour + of + name
    if spec.counted:
        core = thing(spec.things[0], ZH["numbers"][len(spec.things) - 1])
    else:
        core = some(ZH["and"]).join(thing(t) for t in spec.things)
    if spec.ground not in COLOURS:
        before, after = (some(ZH["scenes"][spec.ground][k]) for k in ("before", "after"))
        core = core + after if vary and rng.random() < 0.3 else before + core
    elif spec.ground != "white" or (vary and rng.random() < 0.1):
        core = some(ZH["ground"]).format(thing=core, colour=some(ZH["colours"][spec.ground]))
    if vary and rng.random() < 0.1:
        core = some(ZH["picture of"]).format(core)
    return core
