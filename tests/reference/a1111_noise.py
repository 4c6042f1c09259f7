"""Expected values for tests/noise.rs: noise as A1111 makes it for a batch, from torch's CPU generator and from Philox.

Written after A1111's rules (its `ImageRNG`): a generator of its own for each picture; a variation seed is gone towards by
slerp along the height of each column, with one seed for all pictures and the variation seed counted up; a seed of another
size is pasted in the middle of noise of the picture's size. data/a1111_noise.json has every so manieth value.
"""
import json, math, pathlib
import numpy as np, torch

DATA = pathlib.Path(__file__).parent / "data"


class Cuda:
    """torch's CUDA randn: Philox 4x32-10 in whole-array numpy, one block to a value."""

    def __init__(self, seed):
        self.key, self.calls = [seed & 0xFFFFFFFF, seed >> 32], 0

    def randn(self, shape):
        n = math.prod(shape)
        c = [np.full(n, v, np.uint64) for v in (self.calls, 0, 0, 0)]
        c[2] += np.arange(n, dtype=np.uint64)
        k, low = list(self.key), np.uint64(0xFFFFFFFF)
        for _ in range(10):
            p, q = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
            c = [(q >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]), q & low, (p >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]), p & low]
            k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
        self.calls += 1
        unit = float(np.float32(2.0**-32))
        turn = float(np.float32(2.0**-32 * 2 * math.pi))
        z = np.sqrt(-2 * np.log(c[0] * unit + unit / 2)) * np.sin(c[1] * turn + turn / 2)
        return torch.from_numpy(z.astype(np.float32).reshape(shape))


class Cpu:
    def __init__(self, seed):
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def randn(self, shape):
        return torch.randn(shape, generator=self.generator)


def slerp(share, a, b):
    cos = torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=1)
    if cos.mean() > 0.9995:
        return a * share + b * (1 - share)
    omega = torch.acos(cos.clamp(-1, 1)).unsqueeze(1)
    return ((torch.sin((1 - share) * omega) * a + torch.sin(share * omega) * b) / torch.sin(omega)).float()


def centred(small, big):
    """Pastes over the middle; a larger one is cut."""
    out = big.clone()
    (h, w), (H, W) = small.shape[1:], big.shape[1:]
    dy, dx = (H - h) // 2, (W - w) // 2
    rows = h if dy >= 0 else h + 2 * dy
    columns = w if dx >= 0 else w + 2 * dx
    y, x, sy, sx = max(dy, 0), max(dx, 0), max(-dy, 0), max(-dx, 0)
    out[:, y : y + rows, x : x + columns] = small[:, sy : sy + rows, sx : sx + columns]
    return out


def case(rng, seed, images, shape, variation=None, resize_from=None):
    make = Cuda if rng == "cuda" else Cpu
    generators = [make(seed + (0 if variation else i)) for i in range(images)]
    firsts = []
    for i, generator in enumerate(generators):
        own = generator.randn(shape)
        small = (shape[0], *resize_from) if resize_from else shape
        noise = make(seed + (0 if variation else i)).randn(small)
        if variation and variation[1]:
            noise = slerp(variation[1], noise, make(variation[0] + i).randn(small))
        firsts.append(centred(noise, own) if resize_from else noise)
    nexts = [g.randn(shape) for g in generators]
    stride = max(1, images * math.prod(shape) // 60)
    values = lambda all_: [float(f"{v:.9g}") for v in torch.stack(all_).flatten()[::stride].tolist()]
    return dict(rng=rng, seed=seed, images=images, shape=shape, variation=variation, resize_from=resize_from, stride=stride, first=values(firsts), next=values(nexts))


def main():
    cases = []
    for rng in ("cpu", "cuda"):
        cases += [
            case(rng, 0, 1, (4, 8, 8)),
            case(rng, 2**40 + 7, 3, (4, 9, 7)),
            case(rng, 5, 1, (4, 64, 64)),
            case(rng, 5, 1, (4, 8, 8), variation=(9, 0.3)),
            case(rng, 5, 2, (4, 9, 7), variation=(2**33, 1.0)),
            case(rng, 5, 2, (4, 9, 7), variation=(6, 0.0)),
            case(rng, 5, 2, (4, 9, 7), variation=(5, 0.25)),
            case(rng, 11, 2, (4, 12, 16), resize_from=(8, 8)),
            case(rng, 11, 1, (4, 8, 9), resize_from=(16, 12)),
            case(rng, 11, 1, (4, 9, 16), resize_from=(16, 9)),
            case(rng, 11, 2, (4, 12, 8), resize_from=(7, 13), variation=(3, 0.6)),
        ]
    (DATA / "a1111_noise.json").write_text("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main()
