"""Renders every drawing of every noun, from the icon families below, into one file: STATE/sprites.npz.

Each sprite is cropped to what is drawn and centred in a square. It is kept as eight planes (uint8, premultiplied by
alpha), so that any colour is one multiply-add when pictures are composed:
  0-2  red, green, blue as drawn
  3-5  red, green, blue of what stays when the drawing is tinted (and its highlights)
  6    how much of the tint's colour is added
  7    alpha

usage: sprites.py STATE [FAMILY ...]   (default: all of FAMILIES)
"""
import io
import json
import os
import sys

import numpy as np
import resvg_py
from PIL import Image

from concepts import ICONS, NOUNS

SIZE = 128
# npm package @iconify-json/NAME, in the order of the file. Not openmoji: CC BY-SA asks that adaptations carry the
# same licence, and whether trained weights and what they draw are such is not settled.
FAMILIES = ["fluent-emoji-flat", "fluent-emoji", "noto", "noto-v1", "twemoji"]
LUMA = np.array([0.3, 0.59, 0.11], np.float32)
# The colour that a tint replaces, where the most frequent one is not what one would paint.
MAIN = {"bus": (255, 176, 46), "cow": (230, 230, 230)}
# Two drawings whose thumbnails differ by less (root mean square, of 255) count as one, since no one could tell
# which it is.
SAME = 22.0


def rasterise(body, view):
    """An icon's SVG body -> RGBA, SIZE x SIZE, what is drawn as large as fits."""
    big = 2 * SIZE
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
           f'viewBox="0 0 {view} {view}" width="{big}" height="{big}">{body}</svg>')
    im = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=big, height=big)))).convert("RGBA")
    im = im.crop(im.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    side = max(im.size)
    square = Image.new("RGBA", (side, side))
    square.paste(im, ((side - im.width) // 2, (side - im.height) // 2))
    return np.asarray(square.resize((SIZE, SIZE), Image.LANCZOS))


def chroma(rgb):
    return rgb[..., 0] - rgb[..., 1], (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]


def main_colour(rgb, where):
    """The most frequent colour, of 8 x 8 x 8, that is not near black."""
    q = (rgb // 32).astype(int)
    key = q[..., 0] * 64 + q[..., 1] * 8 + q[..., 2]
    return np.median(rgb[where & (key == np.bincount(key[where], minlength=512).argmax())], axis=0)


def planes(sprite, base=None):
    """RGBA -> the eight planes. What has the base colour's hue takes the tint, as dark or as light as it was."""
    rgb, alpha = sprite[..., :3].astype(np.float32), sprite[..., 3:].astype(np.float32) / 255
    luma = rgb @ LUMA
    visible = alpha[..., 0] > 0.78
    paintable = visible & (luma > 60)
    base = main_colour(rgb, paintable if paintable.any() else visible) if base is None else np.array(base, np.float32)
    (bu, bv), (u, v) = chroma(base), chroma(rgb)
    base_luma, base_saturation, saturation = float(base @ LUMA), float(np.hypot(bu, bv)), np.hypot(u, v)
    if base_saturation > 40:
        cosine = (u * bu + v * bv) / (saturation * base_saturation + 1e-3)
        painted = (cosine > 0.88) & (saturation > 0.25 * base_saturation) & (luma > 40)
    else:
        painted = (saturation < 40) & (luma > min(110.0, 0.7 * base_luma))
    ratio = luma / max(base_luma, 1.0)
    light = np.where(ratio < 1, 0, 0.6 * ((luma - base_luma) / max(255 - base_luma, 40.0)).clip(0, 1))
    paint = np.where(painted, np.where(ratio < 1, ratio.clip(0.35, 1), 1 - light), 0)[..., None]
    stays = np.where(painted[..., None], 255 * light[..., None], rgb)
    out = np.concatenate([rgb * alpha, stays * alpha, 255 * paint * alpha, 255 * alpha], -1)
    return out.round().clip(0, 255).astype(np.uint8)


def thumbnail(sprite):
    """On white, 16 x 16, for telling drawings apart."""
    rgb = sprite[..., :3].astype(np.float32) + 255.0 - sprite[..., 7:]
    return rgb.reshape(16, SIZE // 16, 16, SIZE // 16, 3).mean((1, 3))


def group(own):
    """(icon, family, planes) of one noun -> the number of the drawing that each one is, mirrored or not. Fluent's
    flat icons and those with gradients are one drawing."""
    small, numbers = [thumbnail(p) for _, _, p in own], []
    for i, (icon, family, _) in enumerate(own):
        def same(j):
            gradients = own[j][:2] == (icon, "fluent-emoji-flat") and family == "fluent-emoji"
            either = (small[j], small[j][:, ::-1])
            return gradients or min(np.sqrt(np.square(small[i] - b).mean()) for b in either) < SAME
        near = [numbers[j] for j in range(i) if same(j)]
        numbers.append(near[0] if near else max(numbers, default=-1) + 1)
    return numbers


def main():
    state, families = sys.argv[1], sys.argv[2:] or FAMILIES
    icons = {}
    for family in families:
        with open(os.path.join(state, "npm/node_modules/@iconify-json", family, "icons.json")) as f:
            icons[family] = json.load(f)
    drawn, names = [], []  # names: noun, icon, family, number of the drawing
    for noun in NOUNS:
        own = []
        for icon in ICONS[noun]:
            for family in families:
                found = icons[family]["icons"].get(icon)
                if found:
                    sprite = rasterise(found["body"], icons[family]["height"])
                    own.append((icon, family, planes(sprite, MAIN.get(noun))))
        numbers = group(own)
        drawn += [p for _, _, p in own]
        names += [(noun, icon, family, number) for (icon, family, _), number in zip(own, numbers)]
    path = os.path.join(state, "sprites.npz")
    np.savez_compressed(path + ".tmp.npz", planes=np.stack(drawn).transpose(0, 3, 1, 2), names=json.dumps(names))
    os.replace(path + ".tmp.npz", path)
    counts = [len({n[3] for n in names if n[0] == noun}) for noun in NOUNS]
    print("%d sprites of %d nouns; different drawings a noun: at least %d, %.1f on the average; fewer than 4: %s" % (
        len(names), len(NOUNS), min(counts), np.mean(counts), [n for n, c in zip(NOUNS, counts) if c < 4]), flush=True)


if __name__ == "__main__":
    main()
