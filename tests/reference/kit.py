"""Outputs of Stable Diffusion 1.5's UNet and VAE decoder at full size, and of a small UNet of that form, computed by diffusers in
f32: what the kit for a GPU (`./build.sh kit`) compares with where there is no torch.

    python tests/reference/kit.py        # rewrites tests/reference/data/kit/; two minutes of a core, 7 GB

Weights and inputs are drawn from their names as in models.py, and so cost nothing to carry. Of the outputs, NHWC, every so many-th
value is kept, as f16.
"""
import json, pathlib
import numpy as np, torch

from models import build, nhwc, uniform

OUT = pathlib.Path(__file__).parent / "data" / "kit"
REAL = json.loads((pathlib.Path(__file__).parent / "data" / "models" / "real.json").read_text())
# models.py says why 0.9.
GAIN = 0.9
TIMESTEP = 601.0


def inputs(name, *shape):
    """NHWC, of variance 1, as NCHW or rows."""
    values = uniform(name, int(np.prod(shape))) * 3**0.5
    x = torch.from_numpy(values.astype(np.float16).astype(np.float32)).reshape(shape)
    return x.permute(0, 3, 1, 2) if len(shape) == 4 else x


def unet(model, side):
    text = inputs("kit.encoder_hidden_states", 2, 77, 768)
    return model(inputs("kit.sample", 2, side, side, 4), torch.tensor([TIMESTEP] * 2), text).sample


def vae(model, side):
    return model.decode(inputs("kit.latents", 1, side, side, 4)).sample


# Name: part and what of its configuration is another, what runs, side of the latents, of how many values one is kept.
CASES = {
    "small": ("unet", {"block_out_channels": [32, 64, 128, 128]}, unet, 8, 1),
    "unet": ("unet", {}, unet, 64, 4),
    "vae": ("vae", {}, vae, 64, 61),
}

if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for name, (part, changes, run, side, step) in CASES.items():
        model = build(REAL[f"sd15/{part}"]["config"] | {"gain": GAIN} | changes)
        with torch.no_grad():
            out = nhwc(run(model, side)).contiguous().flatten()
        print(f"{name}: {out.numel()} values, std {out.std():.3f}, most {out.abs().max():.2f}", flush=True)
        (OUT / f"{name}.f16").write_bytes(out[::step].numpy().astype("<f2").tobytes())
