"""STATE -> a folder in diffusers' layout, f16. The latents' frame is folded into quant_conv and post_quant_conv
(exact), so that scaling_factor is 1; vae/config.json also gets the preview factors (latents -> RGB at 16x16). The
LoRA and the control go beside the model, if they have been trained.

usage: export.py STATE FOLDER
"""
import glob
import json
import os
import shutil
import sys

import numpy as np
import torch
from diffusers import DDIMScheduler
from safetensors.torch import save_file

from compose import KINDS, Composer, to_model
from concepts import NOUNS
from latents import Frame
from models import HERE, LATENTS, MODEL, load_text, load_unet, load_vae, text_config


def half(model, path, prefix=""):
    weights = {prefix * (not k.startswith(prefix)) + k: v.detach().to(torch.float16).contiguous()
               for k, v in model.state_dict().items() if not k.endswith("position_ids")}
    save_file(weights, path, metadata=dict(format="pt"))


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


def fold(vae, own_frame):
    """The VAE's latents become those of the UNet's frame."""
    q, p = vae.quant_conv, vae.post_quant_conv
    mean, scale = own_frame.mean.flatten(), own_frame.scale.flatten()
    q.weight[:LATENTS] *= scale.view(-1, 1, 1, 1)
    q.bias[:LATENTS] = (q.bias[:LATENTS] - mean) * scale
    q.bias[LATENTS:] += 2 * scale.log()
    p.bias += p.weight[:, :, 0, 0] @ mean
    p.weight /= scale.view(1, -1, 1, 1)


def preview_factors(vae, composer):
    """Least squares from latents to the picture at a latent's size, in 0..1 -> factors LATENTS x 3, bias 3, root
    mean square left"""
    rng = np.random.default_rng(5)
    x = to_model(composer.pictures(composer.draw(rng, [KINDS[i % len(KINDS)] for i in range(112)])[1]))
    z = torch.cat([vae.encode(part).latent_dist.mean for part in x.split(16)])
    rgb = torch.nn.functional.avg_pool2d(x, 8) / 2 + 0.5
    flat = lambda t: t.permute(0, 2, 3, 1).reshape(-1, t.shape[1])
    a = torch.cat([flat(z), torch.ones(len(flat(z)), 1)], 1)
    s = torch.linalg.lstsq(a, flat(rgb)).solution
    return s[:LATENTS], s[LATENTS], float((a @ s - flat(rgb)).square().mean().sqrt())


def write_index(out):
    with open(os.path.join(out, "model_index.json"), "w") as f:
        json.dump({"_class_name": "StableDiffusionPipeline", "feature_extractor": [None, None],
                   "image_encoder": [None, None], "requires_safety_checker": False, "safety_checker": [None, None],
                   "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
                   "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
                   "vae": ["diffusers", "AutoencoderKL"],
                   # Read by our engine, ignored by diffusers: what a request that names neither gets.
                   "default_num_inference_steps": 20, "default_guidance_scale": 3.0}, f, indent=2)
        f.write("\n")
    with open(os.path.join(out, "concepts.json"), "w") as f:
        json.dump(NOUNS, f)
        f.write("\n")
    shutil.copy(os.path.join(HERE, "NOTICE.md"), out)


@torch.no_grad()
def main():
    state, out = sys.argv[1:]
    torch.set_num_threads(1)

    def folder(name):
        path = os.path.join(out, name)
        os.makedirs(path, exist_ok=True)
        return path

    unet = load_unet(state)
    unet.save_config(folder("unet"))
    half(unet, os.path.join(out, "unet/diffusion_pytorch_model.safetensors"))
    clean(os.path.join(out, "unet/config.json"))

    vae = load_vae(state)
    fold(vae, Frame.load(state))
    factors, bias, left = preview_factors(vae, Composer(state))
    print("preview factors leave %.4f" % left)
    vae.save_config(folder("vae"))
    half(vae, os.path.join(out, "vae/diffusion_pytorch_model.safetensors"))
    rounded = lambda row: [round(float(v), 4) for v in row]
    clean(os.path.join(out, "vae/config.json"), latent_rgb_factors=[rounded(r) for r in factors],
          latent_rgb_bias=rounded(bias))

    c = text_config()
    c.architectures = ["CLIPTextModel"]
    c.save_pretrained(folder("text_encoder"))
    # the names that the Hub's files have
    half(load_text(state), os.path.join(out, "text_encoder/model.safetensors"), "text_model.")
    clean(os.path.join(out, "text_encoder/config.json"))
    shutil.copytree(os.path.join(MODEL, "tokenizer"), folder("tokenizer"), dirs_exist_ok=True)
    DDIMScheduler(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                  prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True,
                  set_alpha_to_one=True, clip_sample=False, steps_offset=1).save_config(folder("scheduler"))
    write_index(out)

    if os.path.exists(os.path.join(state, "ink.safetensors")):
        shutil.copy(os.path.join(state, "ink.safetensors"), folder("lora"))
    if os.path.exists(os.path.join(state, "controlnet")):
        shutil.copytree(os.path.join(state, "controlnet"), folder("controlnet"), dirs_exist_ok=True)
    files = [p for p in glob.glob(out + "/**", recursive=True) if os.path.isfile(p)]
    for p in files:
        os.chmod(p, 0o644)
    print("%.1f MB" % (sum(map(os.path.getsize, files)) / 1e6))


if __name__ == "__main__":
    main()
