"""Captioned 128x128 pictures from the Fluent flat icons: one noun, centred, on white, on plain colours, in scenes."""
import io
import json
import os

import numpy as np
from PIL import Image

from concepts import COLOURS, ICON, NOUNS, NO_ARTICLE, SCENES, SYNONYMS, TINTS, article

SIZE = 128
BIG = 192  # sprites are kept at this size and scaled down


def load_icons(state):
    with open(os.path.join(state, "npm/node_modules/@iconify-json/fluent-emoji-flat/icons.json")) as f:
        return json.load(f)["icons"]


def rasterise(state):
    """Noun -> RGBA array BIG x BIG; cached in state/sprites.npz."""
    cache = os.path.join(state, "sprites.npz")
    if os.path.exists(cache):
        z = np.load(cache)
        if all(n in z.files for n in NOUNS):
            return {n: z[n] for n in NOUNS}
    import resvg_py
    icons, out = load_icons(state), {}
    for noun in NOUNS:
        svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
               f'viewBox="0 0 32 32" width="{BIG}" height="{BIG}">{icons[ICON[noun]]["body"]}</svg>')
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=BIG, height=BIG))
        out[noun] = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).copy()
    np.savez_compressed(cache, **out)
    return out


LUMA = np.array([0.3, 0.59, 0.11], np.float32)


# The colour to replace, where the most frequent one is not what one would paint.
MAIN = {"bus": (255, 176, 46), "cow": (230, 230, 230)}


def tint(sprite, colour, base=None):
    """Gives the sprite's main colour (the most frequent that is not near black) another one; the rest stays."""
    a = sprite.astype(np.float32)
    rgb, alpha = a[..., :3], a[..., 3]
    lum = rgb @ LUMA
    q = (rgb // 32).astype(int)
    key = (q[..., 0] * 64 + q[..., 1] * 8 + q[..., 2])
    ok = (alpha > 200) & (lum > 60)
    main = np.bincount(key[ok], minlength=512).argmax()
    base = np.median(rgb[ok & (key == main)], axis=0) if base is None else np.array(base, np.float32)

    def chroma(x):  # two chroma axes and how saturated
        u, v = x[..., 0] - x[..., 1], (x[..., 0] + x[..., 1]) / 2 - x[..., 2]
        return u, v
    bu, bv = chroma(base)
    u, v = chroma(rgb)
    blum, bsat = float(base @ LUMA), float(np.hypot(bu, bv))
    sat = np.hypot(u, v)
    if bsat > 40:
        cosine = (u * bu + v * bv) / (sat * bsat + 1e-3)
        hit = (cosine > 0.88) & (sat > 0.25 * bsat) & (lum > 40)
    else:
        hit = (sat < 40) & (lum > min(110.0, 0.7 * blum))
    c = np.array(colour, np.float32)
    r = (lum / max(blum, 1.0))[..., None]
    dark = c * r.clip(0.35, 1.0)
    light = c + (255 - c) * ((lum - blum) / max(255 - blum, 40.0)).clip(0, 1)[..., None] * 0.6
    new = np.where(r < 1.0, dark, light)
    out = np.where(hit[..., None], new, rgb)
    return np.concatenate([out, alpha[..., None]], -1).clip(0, 255).astype(np.uint8)


class Composer:
    """kind: plain (white ground), ground, tint, tintground, scene, pair."""

    def __init__(self, state):
        self.sprites = rasterise(state)
        self.cache = {}

    def sprite(self, noun, colour=None):
        k = (noun, colour)
        if k not in self.cache:
            a = self.sprites[noun]
            if colour:
                a = tint(a, COLOURS[colour], MAIN.get(noun))
            self.cache[k] = Image.fromarray(a, "RGBA")  # Pillow premultiplies by itself when it scales
        return self.cache[k]

    def ground(self, kind, rng):
        y = np.linspace(0, 1, SIZE, dtype=np.float32)[:, None, None]
        one = np.ones((SIZE, SIZE, 1), np.float32)

        def two(top, bottom, h):
            top, bottom = np.array(top, np.float32), np.array(bottom, np.float32)
            return np.where(y < h, top + (255 - top) * (y / h) * 0.4, bottom) * one
        if kind in COLOURS:
            return np.array(COLOURS[kind], np.float32) * one
        if kind == "on the grass":
            return two((90, 180, 250), (95, 185, 80), 0.68)
        if kind == "on the beach":
            return two((90, 180, 250), (240, 215, 150), 0.68)
        if kind == "in the snow":
            return two((130, 190, 240), (246, 250, 255), 0.68)
        if kind == "in the sea":
            return two((150, 210, 250), (25, 105, 190), 0.5)
        if kind == "in the sky":
            g = np.array((70, 155, 245), np.float32)
            return (g + (255 - g) * y * 0.6) * one
        if kind == "at sunset":
            return two((255, 130, 80), (110, 65, 70), 0.68)
        g = two((18, 22, 66), (20, 40, 42), 0.75) * np.where(y < 0.75, 0.75, 1)
        for sx, sy in ((10, 14), (30, 6), (118, 12), (98, 5), (8, 52), (122, 50), (64, 4), (121, 82), (5, 88)):
            g[sy - 1:sy + 2, sx] = g[sy, sx - 1:sx + 2] = 235
        return g

    def put(self, canvas, noun, colour, cx, cy, size):
        d = int(round(size * SIZE))
        s = np.asarray(self.sprite(noun, colour).resize((d, d), Image.BOX if d * 2 < BIG else Image.LANCZOS), np.float32)
        x, y = int(round(cx * SIZE - d / 2)), int(round(cy * SIZE - d / 2))
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + d, SIZE), min(y + d, SIZE)
        s = s[y0 - y:y1 - y, x0 - x:x1 - x]
        part = canvas[y0:y1, x0:x1]
        alpha = s[..., 3:] / 255
        part[:] = s[..., :3] * alpha + part * (1 - alpha)

    def picture(self, rng, noun=None, colour=None, ground="white", second=None, jitter=1.0):
        canvas = self.ground(ground, rng).copy()
        j = lambda a: rng.uniform(-a, a) * jitter
        if second:
            self.put(canvas, noun, colour, 0.27 + j(0.01), 0.5 + j(0.02), 0.46)
            self.put(canvas, second, None, 0.73 + j(0.01), 0.5 + j(0.02), 0.46)
        elif noun:
            scale = 0.82 if ground in COLOURS else 0.76
            self.put(canvas, noun, colour, 0.5 + j(0.025), 0.5 + j(0.025), scale * (1 + j(0.05)))
        return canvas.round().clip(0, 255).astype(np.uint8)

    def caption(self, rng, noun, colour=None, ground="white", second=None, vary=True):
        name = noun
        if vary and SYNONYMS[noun] and rng.random() < 0.12:
            name = str(rng.choice(SYNONYMS[noun]))
        core = f"{colour} {name}" if colour else name
        u = rng.random() if vary else 0.0
        core = article(core) if u < 0.75 else core
        if second:
            core += str(rng.choice([" and ", " and ", " next to ", " with "])) + article(second)
            if {noun, second} == {"mouse", "guitar"} and rng.random() < 0.5:
                core = str(rng.choice(["mouse is playing guitar", "a mouse is playing guitar", "a mouse playing a guitar"]))
        if ground in COLOURS:
            if ground != "white" or (vary and rng.random() < 0.1):
                core += str(rng.choice([" on a {} background", " on a {} background", " on {}", ", {} background"])
                            if vary else " on a {} background").format(ground)
        else:
            core += " " + ground
        v = rng.random() if vary else 1.0
        if v < 0.06:
            core = "a picture of " + core
        elif v < 0.10:
            core = "an emoji of " + core
        elif v < 0.13:
            core = core[0].upper() + core[1:] + "."
        return core.replace("on a orange", "on an orange")

    def draw(self, rng, kind, noun=None):
        """-> (spec, picture); spec = (noun, colour, ground, second)."""
        noun = noun or NOUNS[rng.integers(len(NOUNS))]
        colour = ground = second = None
        if kind in ("tint", "tintground"):
            colour = TINTS[rng.integers(len(TINTS))]
        if kind in ("ground", "tintground"):
            names = list(COLOURS)[:-1]
            ground = names[rng.integers(len(names))]
            if colour == ground:
                ground = "white"
        if kind == "scene":
            ground = SCENES[rng.integers(len(SCENES))]
        if kind == "pair":
            second = NOUNS[rng.integers(len(NOUNS))]
            if rng.random() < 0.08:
                noun, second = ("mouse", "guitar") if rng.random() < 0.8 else ("guitar", "mouse")
            if second == noun:
                second = NOUNS[(NOUNS.index(noun) + 1) % len(NOUNS)]
        spec = (noun, colour, ground or "white", second)
        return spec, self.picture(rng, *spec)
