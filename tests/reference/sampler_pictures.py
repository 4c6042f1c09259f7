"""Samplers with the embedded model, run by diffusers in f32: expected latents for tests/web/tests/samplers.test.mjs. Of the SDE
samplers the noise is that of the Brownian tree, as k-diffusion and A1111 have it.

    python tests/reference/sampler_pictures.py        # rewrites tests/reference/data/sampler_pictures.json
"""
import json, pathlib
import diffusers, torch
from diffusers.schedulers import scheduling_dpmsolver_multistep as multistep
from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

ROOT = pathlib.Path(__file__).parents[2]
KARRAS, EXPONENTIAL = {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}
# scheduler as the module is told, diffusers' class, what from_config is given, other options
CASES = [
    ("heun", "HeunDiscrete", {}, {}),
    ("Heun Karras", "HeunDiscrete", KARRAS, {}),
    ("lms", "LMSDiscrete", {}, {}),
    ("lms_karras", "LMSDiscrete", KARRAS, {}),
    ("dpm2", "KDPM2Discrete", {}, {}),
    ("DPM2 a", "KDPM2AncestralDiscrete", {}, {}),
    ("dpmpp_2s", "DPMSolverSinglestep", {}, {}),
    ("dpmpp_2m_exponential", "DPMSolverMultistep", EXPONENTIAL, {}),
    ("DPM++ 2M SDE", "DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"}, {}),
    ("dpmpp_2m_sde_karras", "DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"} | KARRAS, {"numInferenceSteps": 16}),
    ("DPM++ SDE", "DPMSolverSDE", {"noise_sampler_seed": 7}, {}),
    ("unipc", "UniPCMultistep", {}, {}),
    ("UniPCMultistepScheduler karras", "UniPCMultistep", KARRAS, {"numInferenceSteps": 4}),
    ("deis", "DEISMultistep", {}, {}),
    ("tcd", "TCD", {}, {"eta": 0.3, "numInferenceSteps": 4, "guidanceScale": 1}),
    ("ddim", "DDIM", {}, {"eta": 1}),
    ("euler_a", "EulerAncestralDiscrete", {}, {"numImages": 2, "generatorPerImage": True}),
]


def tree(scheduler, seed):
    """Instead of `randn_tensor`: k-diffusion's noise of the step that the scheduler is at."""
    sampler = None

    def draw(shape, **_):
        nonlocal sampler
        sigmas, i = scheduler.sigmas, scheduler.step_index
        sampler = sampler or BrownianTreeNoiseSampler(torch.zeros(shape), sigmas[sigmas > 0].min(), sigmas.max(), seed)
        return sampler(sigmas[i], sigmas[i + 1]) if sigmas[i + 1] > 0 else torch.zeros(shape)

    return draw


def run(pipe, name, cls, more, options):
    k = dict(prompt="a red apple", width=64, height=64, numInferenceSteps=8, guidanceScale=3, seed=7, scheduler=name) | options
    own = pipe.scheduler
    pipe.scheduler = getattr(diffusers, cls + "Scheduler").from_config(own.config, **more)
    n, in_order = k.get("numImages", 1), multistep.randn_tensor
    if more.get("algorithm_type") == "sde-dpmsolver++":
        multistep.randn_tensor = tree(pipe.scheduler, k["seed"])
    seeded = lambda i: torch.Generator("cpu").manual_seed(k["seed"] + i)
    try:
        with torch.no_grad():
            latents = pipe(prompt=k["prompt"], width=64, height=64, num_inference_steps=k["numInferenceSteps"], guidance_scale=k["guidanceScale"], eta=k.get("eta", 0.0),
                           num_images_per_prompt=n, generator=[seeded(i) for i in range(n)] if k.get("generatorPerImage") else seeded(0), output_type="latent").images
    finally:
        pipe.scheduler, multistep.randn_tensor = own, in_order
    print(name, "std", float(latents.std()))
    return dict(options=k, latents=[round(float(v), 5) for v in latents.flatten()])


def main():
    diffusers.utils.logging.set_verbosity_error()
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(str(ROOT / "www" / "embedded"), torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    lines = ",\n".join(json.dumps(run(pipe, *case)) for case in CASES)
    (ROOT / "tests/reference/data/sampler_pictures.json").write_text(f"[\n{lines}\n]\n")


main()
