"""Expected values for tests/noise.rs: k-diffusion's `BrownianTreeNoiseSampler` over torchsde's Brownian tree, with torch's CPU
generator and, as A1111 has it with "NV", with that of CUDA. data/brownian.json has every so manieth value of each draw.
"""
import json, math, pathlib
import k_diffusion.sampling as K, torch
import torchsde._brownian.brownian_interval as interval

from a1111_noise import Cuda

DATA = pathlib.Path(__file__).parent / "data"
ON_CPU = interval._randn


def on_cuda(size, dtype, device, seed):
    return Cuda(int(seed)).randn(tuple(size))


def case(rng, seed, images, shape, levels, walks):
    """One seed counted up for the pictures of a batch, or `None` images: one for all that are in the shape."""
    interval._randn = on_cuda if rng == "cuda" else ON_CPU
    levels = torch.tensor(levels, dtype=torch.float32)
    x = torch.zeros([images or 1, *shape])
    sampler = K.BrownianTreeNoiseSampler(x, levels[levels > 0].min(), levels.max(), seed=[seed + i for i in range(images)] if images else seed)
    stride = max(1, x.numel() // 24)
    draws = []
    for a, b in walks:
        z = sampler(torch.tensor(a), torch.tensor(b))
        draws.append([a, b, [float(f"{v:.9g}") for v in z.flatten()[::stride].tolist()]])
    return dict(rng=rng, seed=str(seed), images=images, shape=shape, ends=[float(levels[levels > 0].min()), float(levels.max())], stride=stride, draws=draws)


def main():
    f32 = lambda sigmas: torch.as_tensor(sigmas, dtype=torch.float32).tolist()
    karras = lambda n: f32(K.get_sigmas_karras(n, 0.0291675, 14.614642))
    steps = lambda sigmas: list(zip(sigmas, sigmas[1:-1]))
    middles = lambda sigmas: [walk for a, b in steps(sigmas) for walk in ((a, f32([math.sqrt(a * b)])[0]), (a, b))]
    eight, thirty = karras(8), karras(30)
    cases = [
        case("cpu", 0, 1, (4, 4, 4), eight, steps(eight)),
        case("cpu", 1234567890, 1, (4, 8, 8), thirty, steps(thirty)[::4] + [thirty[:1] + thirty[29:30]]),
        case("cpu", 2**32 + 7, 2, (4, 6, 5), eight, middles(eight)),
        case("cpu", 2**64 - 3, None, (2, 4, 6, 5), eight, steps(eight)[:3]),
        # From another start, towards more noise, beyond the ends, to levels that are halves, and a millionth.
        case("cpu", 5, 1, (4, 4, 4), [16.0, 0.5, 0.0], [(3.0, 1.0), (1.0, 3.0), (20.0, 2.0), (2.0, 0.1), (8.25, 4.375), (7.000002, 7.000001), (16.0, 0.5)]),
        case("cpu", 6, 1, (3, 5), [4096.0, 0.03, 0.0], [(4096.0, 157.4), (157.4, 0.7), (0.7, 0.03)]),
        case("cuda", 42, 1, (4, 4, 4), eight, middles(eight)[:6]),
        case("cuda", 2**31, 2, (4, 6, 5), thirty, steps(thirty)[10:13]),
    ]
    (DATA / "brownian.json").write_text("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main()
