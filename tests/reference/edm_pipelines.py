"""Models of EDM's noise levels, drawn by diffusers on the tiny random SDXL models of pipelines.py and single_file.py:
Playground v2.5's scheduler, with latents of a mean and spread of their own, and CosXL's.

    python tests/reference/edm_pipelines.py    # rewrites edm.json, edm.bin in tests/reference/data/pipelines/
"""
import json, pathlib
import diffusers, numpy as np, pipelines, torch
from single_file import KINDS

DPM, EULER = "EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"
MEAN, STD = [0.25, -0.5, 0.125, 0.375], [1.25, 0.75, 1.5, 1.0]
PLAYGROUND = dict(_class_name=DPM, num_train_timesteps=1000, prediction_type="epsilon", sigma_data=0.5, sigma_max=80.0, sigma_min=0.002)
COSXL = dict(_class_name=EULER, num_train_timesteps=1000, prediction_type="v_prediction", sigma_data=1.0, sigma_max=100.0, sigma_min=0.004, sigma_schedule="exponential")
LATENTS = dict(latents_mean=MEAN, latents_std=STD, scaling_factor=0.5)
# `tensors`: what a single file holds beside SDXL's; a folder has the configurations.
MODELS = {
    "playground": dict(kind="sdxl", scheduler=PLAYGROUND, vae=LATENTS),
    "playground.safetensors": dict(kind="sdxl", scheduler=PLAYGROUND, vae=LATENTS, tensors=dict(edm_mean=[MEAN, [1, 4, 1, 1]], edm_std=[STD, [1, 4, 1, 1]])),
    "cosxl.safetensors": dict(kind="sdxl", scheduler=COSXL, vae={}, tensors={"edm_vpred.sigma_max": [[100.0], []], "edm_vpred.sigma_min": [[0.004], []]}),
}


def case(model, steps, guidance, seed, scheduler=None, size=(56, 40), **more):
    named = {"scheduler": scheduler} if scheduler else {}
    return dict(model=model, options=dict(prompt="a red apple", width=size[0], height=size[1], numInferenceSteps=steps, guidanceScale=guidance, seed=seed, **named, **more))


CASES = [
    case("playground", 10, 3, 1),
    case("playground", 18, 5, 2, "dpmpp_2m", (88, 104), negativePrompt="blurry"),
    case("playground", 6, 3, 3, "euler"),
    case("playground.safetensors", 6, 3, 4),
    case("cosxl.safetensors", 8, 5, 5),
    case("cosxl.safetensors", 12, 1, 6, "dpmpp_2m"),
]
CLASSES = {"dpmpp_2m": DPM, "euler": EULER}


def picture(width, height):
    """Smooth colours, in 0..255."""
    y, x = np.mgrid[:height, :width]
    return np.stack([127.5 + 100 * np.sin(0.2 * x + c) * np.cos(0.15 * y - c) for c in range(3)], -1).round().astype(np.uint8)


cases, data, pipes = [], bytearray(), {}
single = KINDS
for c in CASES:
    model = MODELS[c["model"]]
    if c["model"] not in pipes:
        kinds, pipelines.KINDS = pipelines.KINDS, single if "tensors" in model else pipelines.KINDS
        pipe = pipelines.pipeline(model["kind"], {})
        pipelines.KINDS = kinds
        pipe.scheduler = getattr(diffusers, model["scheduler"]["_class_name"]).from_config(model["scheduler"])
        pipe.vae.register_to_config(**model["vae"])
        pipes[c["model"]] = pipe
    pipe, k = pipes[c["model"]], c["options"]
    own = pipe.scheduler
    if "scheduler" in k:
        pipe.scheduler = getattr(diffusers, CLASSES[k["scheduler"]]).from_config(own.config)
    given = dict(prompt=k["prompt"], negative_prompt=k.get("negativePrompt"), width=k["width"], height=k["height"],
                 num_inference_steps=k["numInferenceSteps"], guidance_scale=k["guidanceScale"])
    generator = lambda: torch.Generator("cpu").manual_seed(k["seed"])
    with torch.no_grad():
        latents = pipe(**given, generator=generator(), output_type="latent").images.float()
        # The pipeline's own way from latents to a picture, which knows their mean.
        pixels = pipe(**given, generator=generator(), output_type="np").images
    pipe.scheduler = own
    pixels = (torch.from_numpy(pixels) * 255).round()
    print(c["model"], k.get("scheduler"), f"latents std {latents.std():.3f} picture mean {pixels.mean():.1f} std {pixels.std():.1f}")
    cases.append(c | dict(latents=list(latents.shape), pixels=list(pixels.shape), offset=len(data)))
    data += latents.numpy().astype("<f4").tobytes() + pixels.byte().numpy().tobytes()
    data += bytes(-len(data) % 4)

# The encoder's mean as the UNet has it: the pipelines' own from picture to latents.
image = picture(56, 40)
pipe = pipes["playground"]
with torch.no_grad():
    encoded = pipe.vae.encode(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1).latent_dist.mean
    mean, std = (torch.tensor(v).view(1, 4, 1, 1) for v in (MEAN, STD))
    encoded = (encoded - mean) * 0.5 / std
encoding = dict(width=56, height=40, latents=list(encoded.shape), offset=len(data))
data += encoded.numpy().astype("<f4").tobytes() + image.tobytes()
OUT = pathlib.Path(__file__).parent / "data" / "pipelines"
(OUT / "edm.json").write_text(json.dumps(dict(models=MODELS, cases=cases, encoding=encoding)) + "\n")
(OUT / "edm.bin").write_bytes(data)
