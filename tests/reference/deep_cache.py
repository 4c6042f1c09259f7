"""Pipelines of tiny random models with DeepCache, run by its authors' package over diffusers.

    python tests/reference/deep_cache.py          # rewrites tests/reference/data/pipelines/deep_cache.json and .bin

Folders, options and layout as in pipelines.py; with `--shallow` it prints how far the latents move for DeepCache alone.
"""
import contextlib, json, sys
import diffusers
from DeepCache import DeepCacheSDHelper
import pipelines
from pipelines import A, B, FOLDERS, NEGATIVE, OUT, TALL, case, name, pipeline


def cached(pipe, interval, branch):
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=interval, cache_branch_id=branch)

    @contextlib.contextmanager
    def enabled():
        helper.enable()
        try:
            yield
        finally:
            helper.disable()

    return enabled()


# The package counts three layers a block: its branches above 0 are ours where layers_per_block is 2.
CASES = [
    case("sd1", "ddim", A, 10, 7.5, 1, deepCache=dict(interval=2, branch=0)),
    case("sd1", "euler", B, 12, 7.5, 2, deepCache=dict(interval=3, branch=1), **NEGATIVE),
    case("sd1", "dpmpp_2m", A, 9, 1, 3, deepCache=dict(interval=3, branch=3)),
    case("sd1", "euler_a", A, 5, 7.5, 4, numImages=2, deepCache=dict(interval=3, branch=2)),
    case("sd2", "ddim", TALL, 7, 7.5, 5, deepCache=dict(interval=3, branch=0)),
    case("sdxl", "ddim", A, 8, 7.5, 6, deepCache=dict(interval=2, branch=0)),
    case("sdxl", "euler", B, 6, 7.5, 7, deepCache=dict(interval=3, branch=4), **NEGATIVE),
]

if __name__ == "__main__":
    diffusers.utils.logging.set_verbosity_error()
    out, data = [], bytearray()
    for folder, (kind, options) in FOLDERS.items():
        cases = [c for c in CASES if c["folder"] == folder]
        pipe = pipeline(kind, options) if cases else None
        for c in cases:
            with cached(pipe, **c["options"]["deepCache"]):
                latents, pixels = pipelines.run(pipe, c)
            if "--shallow" in sys.argv:
                whole, _ = pipelines.run(pipe, c)
                print(f"{name(c)}  {c['options']['deepCache']}: {(whole - latents).norm() / whole.norm():.1e}", flush=True)
            out.append(c | dict(latents=list(latents.shape), pixels=list(pixels.shape), offset=len(data)))
            data += latents.numpy().astype("<f4").tobytes() + pixels.byte().numpy().tobytes()
            data += bytes(-len(data) % 4)
    (OUT / "deep_cache.json").write_text(json.dumps(out, indent=0, ensure_ascii=False) + "\n")
    (OUT / "deep_cache.bin").write_bytes(data)
