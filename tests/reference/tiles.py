"""diffusers' tiled VAE.

    python tests/reference/tiles.py        # rewrites tests/reference/data/memory/tiles.json and tiled.json

`tiles.json`: tiled_decode and tiled_encode over stand-ins for the networks, so that only cutting and blending counts. The
decoder doubles a picture by nearest neighbour and adds a hundred times its call's number, the encoder takes every second
value and adds the same: `tests/memory.rs` does so too.

`tiled.json`: image to image with the embedded model in f32, its VAE in tiles of the sides (in latents) that the engine
takes where buffers end at 14,000,000 bytes: the latents, and every fourth pixel of every fourth row as RGB in base64. Read
by tests/web/tests/decoders.test.mjs, which paints the same picture. `apart`: how far that run lies from the one without tiles,
and diffusers' own f16 run in tiles from the one in f32, as relative L2: latents, pixels.
"""
import base64, json, pathlib
import diffusers, numpy as np, torch
from diffusers import AutoencoderKL
from PIL import Image

OUT = pathlib.Path(__file__).parent / "data/memory"
calls = 0


def tagged(x):
    global calls
    calls += 1
    return x + 100.0 * calls


def write_stand_ins():
    global calls
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
    (OUT / "tiles.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


WIDTH, HEIGHT, ENCODE, DECODE = 256, 288, 32, 24
OPTIONS = dict(prompt="a red apple", width=WIDTH, height=HEIGHT, numInferenceSteps=5, guidanceScale=3, seed=7, strength=0.4)


def draw(pipe, tiles):
    """Latents, and pixels in 0..255."""
    vae, k = pipe.vae, OPTIONS
    (vae.enable_tiling if tiles else vae.disable_tiling)()
    # A tall colourful picture with an edge across every seam.
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    image = Image.fromarray(np.stack([x, y * 7 // 8, (x * y) >> 8 & 255], -1).astype(np.uint8))
    with torch.no_grad():
        vae.tile_latent_min_size, vae.tile_sample_min_size = ENCODE, 8 * ENCODE
        latents = pipe(prompt=k["prompt"], image=image, strength=k["strength"], num_inference_steps=k["numInferenceSteps"], guidance_scale=k["guidanceScale"],
                       generator=torch.Generator("cpu").manual_seed(k["seed"]), output_type="latent").images
        vae.tile_latent_min_size, vae.tile_sample_min_size = DECODE, 8 * DECODE
        pixels = vae.decode(latents / vae.config.scaling_factor).sample
    return latents.float(), ((pixels[0].float() / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0)


def write_tiled():
    diffusers.utils.logging.set_verbosity_error()
    folder = str(pathlib.Path(__file__).parents[2] / "www/embedded")
    pipe = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    latents, pixels = draw(pipe, tiles=True)
    whole = draw(pipe, tiles=False)
    # torch draws other noise in f16 than in f32; here it draws in f32 and rounds.
    randn = torch.randn
    torch.randn = lambda *a, dtype=None, **k: randn(*a, **k).to(dtype)
    half = draw(pipe.to(torch.float16), tiles=True)
    far = lambda other: [float(f"{(o - t).norm() / t.norm():.1e}") for o, t in zip(other, (latents, pixels))]
    apart = dict(untiled=far(whole), f16=far(half))
    print(apart, "pixels", pixels.mean().item(), pixels.std().item())
    seen = pixels[::4, ::4].byte().numpy().tobytes()
    out = dict(options=OPTIONS, apart=apart, latents=[round(v, 5) for v in latents.flatten().tolist()], pixels=base64.b64encode(seen).decode())
    (OUT / "tiled.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    write_stand_ins()
    write_tiled()
