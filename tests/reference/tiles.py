"""diffusers' tiled_decode and tiled_encode over stand-ins for the networks, so that only cutting and blending counts.

    python tests/reference/tiles.py        # rewrites tests/reference/data/memory/tiles.json

The decoder doubles a picture by nearest neighbour and adds a hundred times its call's number, the encoder takes every
second value and adds the same: `tests/memory.rs` does so too.
"""
import json, pathlib
import torch
from diffusers import AutoencoderKL

calls = 0


def tagged(x):
    global calls
    calls += 1
    return x + 100.0 * calls


vae = AutoencoderKL(block_out_channels=[4, 4], norm_num_groups=2, latent_channels=1, use_quant_conv=False, use_post_quant_conv=False, sample_size=32,
                    down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2)
vae.decoder.forward = lambda z: tagged(z.repeat_interleave(2, 2).repeat_interleave(2, 3))
vae.encoder.forward = lambda x: tagged(x[:, :, ::2, ::2])
vae.tile_sample_min_size, vae.tile_latent_min_size, vae.tile_overlap_factor = 16, 8, 0.25
out = {}
with torch.no_grad():
    for name, (h, w) in {"decode": (13, 18), "encode": (26, 36)}.items():
        calls = 0
        x = torch.arange(h * w, dtype=torch.float32).reshape(1, 1, h, w)
        y = vae.tiled_decode(x).sample if name == "decode" else vae._tiled_encode(x)
        out[name] = {"input": [h, w], "output": list(y.shape[2:]), "values": y.flatten().tolist()}
path = pathlib.Path(__file__).parent / "data/memory/tiles.json"
path.write_text(json.dumps(out, separators=(",", ":")) + "\n")
