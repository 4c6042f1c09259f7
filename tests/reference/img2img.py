"""Image to image and inpainting with the embedded model, run by diffusers in f32: expected latents.

    python tests/reference/img2img.py        # rewrites tests/reference/data/img2img.json

The picture and the mask are formulas, the same in tests/web/tests/img2img.test.mjs.
"""
import json, pathlib
import diffusers, numpy as np, torch
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
SIZE = 64


def picture():
    y, x = np.mgrid[:SIZE, :SIZE]
    return Image.fromarray(np.stack([x * 4, y * 4, (x * y) & 255], -1).astype(np.uint8))


def mask():
    y, x = np.mgrid[:SIZE, :SIZE]
    return Image.fromarray((((x >= 20) & (x < 52) & (y >= 12) & (y < 44)) * 255).astype(np.uint8))


CASES = [
    dict(strength=0.6),
    dict(strength=1.0, numInferenceSteps=3),
    dict(strength=0.6, numImages=2),
    dict(strength=0.75, scheduler="euler_a", numInferenceSteps=4),
    dict(strength=0.75, scheduler="pndm", numInferenceSteps=8),
    dict(strength=0.5, scheduler="dpmpp_2m", numInferenceSteps=6),
    dict(mask=True, strength=1.0),
    dict(mask=True, strength=0.6),
    dict(mask=True, strength=0.75, scheduler="euler_a", numInferenceSteps=4, numImages=2),
    dict(mask=True, strength=0.75, scheduler="dpmpp_2m", numInferenceSteps=4),
]
SAMPLERS = {"pndm": "PNDM", "euler_a": "EulerAncestralDiscrete", "dpmpp_2m": "DPMSolverMultistep"}


def run(case, parts):
    k = dict(prompt="a red apple", width=SIZE, height=SIZE, numInferenceSteps=5, guidanceScale=3, seed=7) | case
    cls = diffusers.StableDiffusionInpaintPipeline if k.get("mask") else diffusers.StableDiffusionImg2ImgPipeline
    pipe = cls(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    if "scheduler" in k:
        pipe.scheduler = getattr(diffusers, SAMPLERS[k["scheduler"]] + "Scheduler").from_config(parts["scheduler"].config)
    more = dict(mask_image=mask(), height=SIZE, width=SIZE) if k.get("mask") else {}
    with torch.no_grad():
        latents = pipe(prompt=k["prompt"], image=picture(), strength=k["strength"], num_inference_steps=k["numInferenceSteps"], guidance_scale=k["guidanceScale"],
                       num_images_per_prompt=k.get("numImages", 1), generator=torch.Generator("cpu").manual_seed(k["seed"]), output_type="latent", **more).images
    options = {n: v for n, v in k.items() if n != "mask"}
    return dict(mask=bool(k.get("mask")), options=options, latents=[round(float(v), 5) for v in latents.flatten()])


def main():
    diffusers.utils.logging.set_verbosity_error()
    folder = str(ROOT / "www" / "embedded")
    parts = {k: v for k, v in diffusers.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32).components.items()
             if k in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    out = [run(c, parts) for c in CASES]
    for c in out:
        v = np.array(c["latents"])
        print(c["mask"], c["options"], "std", v.std().round(3))
    lines = ",\n".join(json.dumps(c) for c in out)
    (ROOT / "tests/reference/data/img2img.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
