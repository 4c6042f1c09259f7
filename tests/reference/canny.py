"""Edges as OpenCV's Canny finds them, of pictures that `tests/canny.rs` makes again.

    python tests/reference/canny.py        # rewrites tests/reference/data/canny.json
"""
import json, pathlib
import cv2, numpy as np

OUT = pathlib.Path(__file__).parent / "data" / "canny.json"


def picture(kind: str, w: int, h: int) -> np.ndarray:
    """RGB, by whole numbers only."""
    y, x = np.mgrid[:h, :w].astype(np.int64)
    if kind == "rings":  # smooth, a colour each way
        channels = [(x * x + 3 * y * y) // 40, (2 * (x - w) ** 2 + y * y) // 60, (x * y) // 9]
    elif kind == "noise":  # blurred by sums over squares of 3x3
        z = (x * 73856093 ^ y * 19349663) & 0xFFFF
        rolled = sum(np.roll(z, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
        channels = [(rolled >> s) & 0xFF for s in (4, 6, 8)]
    elif kind == "snake":  # one weak line over the whole picture, strong in its first pixels: hysteresis goes all the way
        row = y // 8
        inside = (y % 8 < 3) & (x >= 2) & (x < w - 2)
        side = (y % 8 >= 3) & np.where(row % 2 == 0, (x >= w - 5) & (x < w - 2), (x >= 2) & (x < 5))
        grey = 100 + 30 * (inside | side) + 120 * ((y < 3) & (x >= 2) & (x < 6))
        channels = [grey, grey, grey]
    elif kind == "blocks":  # plateaus: equal gradients side by side
        channels = [(x // 5 * 37 + y // 7 * 59) % 256, (x // 6 * 91) % 256, (y // 4 * 13 + x // 11 * 201) % 256]
    return np.stack([c % 256 for c in channels], axis=-1).astype(np.uint8)


CASES = [
    ("rings", 96, 80, 100, 200), ("rings", 33, 47, 20.9, 61.5), ("noise", 64, 64, 100, 200), ("noise", 131, 70, 300, 90),
    ("snake", 160, 128, 60, 400), ("snake", 160, 128, 160, 400), ("blocks", 75, 61, 100, 200), ("blocks", 16, 16, 0, 0),
    ("blocks", 1, 40, 50, 100), ("noise", 50, 2, 50, 100), ("noise", 3, 3, 0, 255),
]


def main():
    cases = []
    for kind, w, h, low, high in CASES:
        edges = cv2.Canny(picture(kind, w, h), low, high)
        assert set(np.unique(edges)) <= {0, 255}
        print(f"{kind} {w}x{h} {low} {high}: {(edges > 0).sum()} pixels")
        cases.append(dict(kind=kind, width=w, height=h, low=low, high=high, edges=np.packbits(edges > 0).tobytes().hex()))
    OUT.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main()
