"""STATE -> www/embedded in diffusers' layout, f16. The latents' mean and spread are folded into quant_conv and post_quant_conv
(exact), so that scaling_factor is 1; vae/config.json also gets the preview factors (latents -> RGB at 16x16).

usage: export.py STATE
"""
import glob
import json
import os
import sys

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file

from compose import Composer
from concepts import NOUNS
from train_text import config
from train_unet import CONFIG, text_encoder
from train_vae import CONFIG as VAE_CONFIG, KINDS, to_tensor

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../www/embedded")


def half(model, path, prefix=""):
    save_file({prefix * (not k.startswith(prefix)) + k: v.detach().to(torch.float16).contiguous() for k, v in model.state_dict().items()
               if not k.endswith("position_ids")}, path, metadata=dict(format="pt"))


def clean(path, **more):
    """No machine's paths in the configuration."""
    with open(path) as f:
        c = json.load(f)
    for k in ("_name_or_path", "transformers_version", "torch_dtype", "dtype"):
        c.pop(k, None)
    c.update(more)
    with open(path, "w") as f:
        json.dump(c, f, indent=2)
        f.write("\n")


def folder(name):
    path = os.path.join(OUT, name)
    os.makedirs(path, exist_ok=True)
    return path


@torch.no_grad()
def main():
    state = sys.argv[1]
    torch.set_num_threads(1)
    saved = torch.load(os.path.join(state, "unet.pt"), weights_only=True)
    mean, spread = saved["mean"].flatten(), saved["spread"].flatten()
    unet = UNet2DConditionModel(**CONFIG)
    for p, e in zip(unet.parameters(), saved["ema"]):
        p.copy_(e)
    unet.save_config(folder("unet"))
    half(unet, os.path.join(OUT, "unet/diffusion_pytorch_model.safetensors"))
    clean(os.path.join(OUT, "unet/config.json"))

    vae = AutoencoderKL(**VAE_CONFIG)
    decoder = os.path.join(state, "decoder.pt")  # the decoder may have gone on by itself (train_decoder.py)
    vae.load_state_dict(torch.load(os.path.join(state, "vae.pt"), weights_only=True)["ema"])
    if os.path.exists(decoder):
        vae.load_state_dict(torch.load(decoder, weights_only=True)["ema"], strict=False)
    q, p = vae.quant_conv, vae.post_quant_conv
    q.weight[:4] /= spread.view(4, 1, 1, 1)
    q.bias[:4] = (q.bias[:4] - mean) / spread
    q.bias[4:] -= 2 * spread.log()
    p.bias += p.weight[:, :, 0, 0] @ mean
    p.weight *= spread.view(1, 4, 1, 1)
    vae.save_config(folder("vae"))
    half(vae, os.path.join(OUT, "vae/diffusion_pytorch_model.safetensors"))

    comp, rng = Composer(state), np.random.default_rng(5)
    pictures = np.stack([comp.draw(rng, KINDS[i % len(KINDS)])[1] for i in range(120)])
    x = to_tensor(pictures)
    z = torch.cat([vae.encode(s).latent_dist.mean for s in x.split(20)])
    rgb = torch.nn.functional.avg_pool2d(x, 8) / 2 + 0.5
    flat = lambda t: t.permute(0, 2, 3, 1).reshape(-1, t.shape[1])
    a = torch.cat([flat(z), torch.ones(len(flat(z)), 1)], 1)
    s = torch.linalg.lstsq(a, flat(rgb)).solution
    print("preview factors leave", float((a @ s - flat(rgb)).square().mean().sqrt()), "latent mean, std",
          [round(float(v), 2) for v in (*z.mean((0, 2, 3)), *z.std((0, 2, 3)))])
    clean(os.path.join(OUT, "vae/config.json"), latent_rgb_factors=[[round(float(v), 4) for v in r] for r in s[:4]],
          latent_rgb_bias=[round(float(v), 4) for v in s[4]])

    text = text_encoder(state)
    c = config()
    c.architectures = ["CLIPTextModel"]
    c.save_pretrained(folder("text_encoder"))
    half(text, os.path.join(OUT, "text_encoder/model.safetensors"), "text_model.")  # the names the Hub's files have
    clean(os.path.join(OUT, "text_encoder/config.json"))

    DDIMScheduler(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                  prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True,
                  set_alpha_to_one=True, clip_sample=False, steps_offset=1).save_config(folder("scheduler"))
    with open(os.path.join(OUT, "model_index.json"), "w") as f:
        json.dump({"_class_name": "StableDiffusionPipeline", "feature_extractor": [None, None],
                   "image_encoder": [None, None], "requires_safety_checker": False, "safety_checker": [None, None],
                   "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
                   "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
                   "vae": ["diffusers", "AutoencoderKL"],
                   # Read by our engine, ignored by diffusers: what a request that names neither gets.
                   "default_num_inference_steps": 20, "default_guidance_scale": 3.0}, f, indent=2)
        f.write("\n")
    with open(os.path.join(OUT, "concepts.json"), "w") as f:
        json.dump(NOUNS, f)
        f.write("\n")
    files = glob.glob(OUT + "/*/*") + glob.glob(OUT + "/*.json")
    for p in files:
        os.chmod(p, 0o644)
    print("%.1f MB" % (sum(map(os.path.getsize, files)) / 1e6))


if __name__ == "__main__":
    main()
