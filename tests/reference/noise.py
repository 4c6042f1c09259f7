"""Expected values for tests/noise.rs, from torch's CPU generator (the AVX2 build's arithmetic, which every
x86-64 machine with AVX2 runs).

data/noise.json: per seed and length of one torch.randn a checksum of the bits, and the last value's bits;
sequences of calls on one generator; torch.rand likewise.
"""

import json
import pathlib
import random

import numpy as np
import torch

DATA = pathlib.Path(__file__).parent / "data"
LENGTHS = [1, 2, 7, 15, 16, 17, 31, 32, 33, 47, 100, 1000, 4095, 4096, 9999, 16384, 36864, 99999, 100000]
SEQUENCE = [3, 20, 5, 16, 1, 1, 33, 15, 4096, 7, 16384]


def checksum(values):
    """Sum of (index + 1) * bits modulo 2^64, and the last value's bits."""
    bits = values.numpy().view(np.uint32).astype(np.uint64)
    return [str(int((bits * np.arange(1, len(bits) + 1, dtype=np.uint64)).sum(dtype=np.uint64))), int(bits[-1])]


def generator(seed):
    return torch.Generator("cpu").manual_seed(seed)


rng = random.Random(0)
seeds = [0, 1, 42, 2**31, 2**32 - 1, 2**32, 2**32 + 5, 2**63 - 1, 2**63, 2**64 - 1]
seeds += [rng.randrange(2**bits) for bits in (8, 16, 24, 32, 40, 48, 56, 64, 64, 64)]
out = {"seeds": [str(s) for s in seeds], "lengths": LENGTHS, "sequence": SEQUENCE}
out["randn"] = [[checksum(torch.randn(n, generator=generator(s))) for n in LENGTHS] for s in seeds]
out["randn_sequence"] = []
out["rand"] = [checksum(torch.rand(1000, generator=generator(s))) for s in seeds]
for s in seeds:
    g = generator(s)
    out["randn_sequence"].append([checksum(torch.randn(n, generator=g)) for n in SEQUENCE])
DATA.mkdir(exist_ok=True)
(DATA / "noise.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
