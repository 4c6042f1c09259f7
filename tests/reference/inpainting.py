"""Inpainting with UNets of nine channels: tiny random models of pipelines.py, run by diffusers in f32.

    python tests/reference/inpainting.py        # rewrites tests/reference/data/inpainting.json

Picture and mask are those of pictures.py; tests/web/tests/inpainting.test.mjs draws the same.
"""
import json, pathlib
import diffusers, torch
from pictures import mask, picture
from pipelines import SAMPLERS, pipeline

CASES = [
    ("sd1-inpainting", dict()),
    ("sd1-inpainting", dict(strength=0.6, guidanceScale=1)),
    ("sd1-inpainting", dict(scheduler="euler_a", strength=0.75, numImages=2)),
    ("sd1-inpainting", dict(scheduler="dpmpp_2m", width=72, height=40, negativePrompt="blue")),
    ("sdxl-inpainting", dict()),
    ("sdxl-inpainting", dict(scheduler="ddim", strength=0.5, width=40, height=72, numImages=2)),
]


def run(kind, options, pipe):
    k = dict(prompt="a red apple", width=64, height=56, numInferenceSteps=6, guidanceScale=3, strength=1.0, seed=7) | options
    own, size = pipe.scheduler, (k["width"], k["height"])
    if "scheduler" in k:
        pipe.scheduler = getattr(diffusers, SAMPLERS[k["scheduler"]] + "Scheduler").from_config(own.config)
    with torch.no_grad():
        latents = pipe(prompt=k["prompt"], negative_prompt=k.get("negativePrompt"), image=picture(*size), mask_image=mask(*size), width=size[0], height=size[1],
                       strength=k["strength"], num_inference_steps=k["numInferenceSteps"], guidance_scale=k["guidanceScale"], num_images_per_prompt=k.get("numImages", 1),
                       generator=torch.Generator("cpu").manual_seed(k["seed"]), output_type="latent").images
    pipe.scheduler = own
    print(kind, options, "std", round(latents.std().item(), 3))
    return dict(kind=kind, options=k, latents=[round(float(v), 5) for v in latents.flatten()])


def main():
    diffusers.utils.logging.set_verbosity_error()
    pipes = {kind: pipeline(kind, {}) for kind in dict.fromkeys(kind for kind, _ in CASES)}
    lines = ",\n".join(json.dumps(run(kind, options, pipes[kind])) for kind, options in CASES)
    (pathlib.Path(__file__).parent / "data/inpainting.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
