"""Expected values for tests/samplers.rs, from diffusers' schedulers.

Every case runs a scheduler over a picture of 16 values with a made-up network and made-up noise, both
simple formulas that the test computes too. Written:
  data/samplers.json  configs (as text), and cases [config, name or null, steps, number of timesteps]
  data/samplers.f32   per case: timesteps, init_noise_sigma, final sample, x0 of the middle and last step
  data/functions.json embeddings and guidance
"""

import importlib
import json
import math
import pathlib

import numpy as np
import torch
import diffusers
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline, rescale_noise_cfg

diffusers.logging.set_verbosity_error()
DATA = pathlib.Path(__file__).parent / "data"
VALUES = 16
CLASSES = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_karras": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "dpmpp_2m_karras": "DPMSolverMultistepScheduler",
    "lcm": "LCMScheduler",
}
ALL = list(CLASSES)


def waves(k, phase):
    """Made-up values of unit spread."""
    j = np.arange(VALUES, dtype=np.float64)
    return torch.from_numpy((math.sqrt(2) * np.sin(phase + 12.9898 * k + j * (1.7 + 0.31 * j))).astype(np.float32))


def network(x, t):
    x, t = x.double().numpy(), float(t)
    return torch.from_numpy((0.5 * x * t / (t + 1) + 0.5 * np.sin(1.5 * x + 0.01 * t)).astype(np.float32))


draws = 0


def made_up_noise(shape, **_):
    global draws
    draws += 1
    return waves(draws, 0.5).reshape(shape)


for c in {*CLASSES.values(), "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"}:
    module = importlib.import_module(getattr(diffusers, c).__module__)
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = made_up_noise


def make(config, name):
    class_name = CLASSES[name] if name else config["_class_name"]
    extra = {"use_karras_sigmas": True} if name and name.endswith("_karras") else {}
    return getattr(diffusers, class_name).from_config(dict(config), **extra)


def x0_of(scheduler, out, i, t, sample, model_output):
    if isinstance(scheduler, (diffusers.DPMSolverMultistepScheduler, diffusers.EDMDPMSolverMultistepScheduler)):
        return scheduler.model_outputs[-1]
    if isinstance(scheduler, diffusers.PNDMScheduler):  # has none: the plain formula
        a = scheduler.alphas_cumprod[t]
        if scheduler.config.prediction_type == "v_prediction":
            return a**0.5 * sample - (1 - a) ** 0.5 * model_output
        return (sample - (1 - a) ** 0.5 * model_output) / a**0.5
    return out[1]


def run(config, name, steps):
    global draws
    draws = 0
    scheduler = make(config, name)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    timesteps = scheduler.timesteps
    init = float(scheduler.init_noise_sigma)
    sample = waves(0, 0.3).reshape(1, 1, 4, 4) * torch.tensor(init, dtype=torch.float32)
    x0s = []
    for i, t in enumerate(timesteps):
        model_output = network(scheduler.scale_model_input(sample, t), t)
        out = scheduler.step(model_output, t, sample, return_dict=False)
        x0s.append(x0_of(scheduler, out, i, t, sample, model_output))
        sample = out[0]
    parts = [timesteps.float(), torch.tensor([init]), sample.flatten(), x0s[len(x0s) // 2].flatten(), x0s[-1].flatten()]
    return torch.cat([p.float() for p in parts]).numpy(), len(timesteps)


SD = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "clip_sample": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
}
STEPS = [1, 2, 5, 12, 25]
# (changes to SD, names, steps); PNDM and Euler ancestral know no "sample"
NO_SAMPLE = [n for n in ALL if n not in ("pndm", "euler_a")]
PLANS = [
    ({}, ALL, STEPS),
    ({"prediction_type": "v_prediction"}, ALL, STEPS),
    ({"prediction_type": "sample"}, NO_SAMPLE, STEPS),
    ({"timestep_spacing": "linspace"}, ALL, STEPS),
    ({"timestep_spacing": "trailing"}, ALL, STEPS),
    (
        {
            "_class_name": "DDIMScheduler",
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
            "rescale_betas_zero_snr": True,
        },
        ALL,
        STEPS,
    ),
    ({"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, ALL, [5, 12]),
    ({"set_alpha_to_one": True, "steps_offset": 0}, ALL, STEPS),
    ({"beta_schedule": "squaredcos_cap_v2"}, ALL, [5, 12]),
    ({"beta_schedule": "linear"}, ALL, [5, 12]),
    ({"trained_betas": [0.002 * (1 + i / 5) for i in range(60)], "num_train_timesteps": 60}, ALL, [1, 5, 12, 25]),
    ({"num_train_timesteps": 1100}, ALL, [12]),
    ({"clip_sample": True, "clip_sample_range": 1.5}, ALL, [5, 12]),
    ({"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.8}, ALL, [5, 12]),
    ({"skip_prk_steps": False}, ["pndm"], [4, 5, 12, 25]),
    ({"skip_prk_steps": False, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}, ["pndm"], [4, 12]),
    ({"final_sigmas_type": "sigma_min"}, ["euler", "euler_karras", "dpmpp_2m", "dpmpp_2m_karras"], [1, 5, 14, 15, 25]),
    ({"interpolation_type": "log_linear"}, ["euler", "euler_karras"], [1, 5, 25]),
    ({"timestep_type": "continuous", "prediction_type": "v_prediction"}, ["euler", "euler_karras"], [5]),
    ({"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 9.0}, ["euler", "dpmpp_2m", "dpmpp_2m_karras"], [2, 12]),
    ({"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"}, ["dpmpp_2m"], [12]),
    ({"variance_type": "fixed_small_log"}, ["ddpm"], [5]),
    ({"variance_type": "fixed_large"}, ["ddpm"], [5]),
    ({"variance_type": None}, ["ddpm"], [5]),
    ({"solver_order": 1}, ["dpmpp_2m"], [5]),
    ({"solver_order": 3}, ["dpmpp_2m"], [1, 2, 5, 12, 14, 15, 25]),
    ({"solver_type": "heun"}, ["dpmpp_2m"], [5, 25]),
    ({"solver_type": "bh2", "algorithm_type": "deis", "final_sigmas_type": "sigma_min"}, ["dpmpp_2m"], [5]),
    ({"euler_at_final": True, "lower_order_final": False, "final_sigmas_type": "sigma_min"}, ["dpmpp_2m"], [5, 25]),
    ({"lower_order_final": False, "final_sigmas_type": "sigma_min"}, ["dpmpp_2m"], [5]),
    ({"lambda_min_clipped": -5.1, "beta_schedule": "squaredcos_cap_v2"}, ["dpmpp_2m"], [5, 12]),
    ({"lambda_min_clipped": -math.inf}, ["dpmpp_2m"], [5]),
    ({"original_inference_steps": 30, "timestep_scaling": 3.0}, ["lcm"], [1, 4, 7]),
]


def functions():
    j = torch.arange(64, dtype=torch.float32)
    uncond, cond = torch.sin(j * 0.37), torch.cos(j * 0.61) * 1.5
    cfg = uncond + 7.5 * (cond - uncond)
    out = {"timestep_embedding": [], "guidance_scale_embedding": []}
    for t, dim, flip, shift, scale, period in [
        (999.0, 320, True, 0.0, 1.0, 10000),
        (1.0, 64, True, 0.0, 1.0, 10000),
        (503.25, 33, False, 1.0, 1.0, 10000),
        (77.5, 64, False, 1.0, 2.5, 500),
    ]:
        e = get_timestep_embedding(torch.tensor([t]), dim, flip, shift, scale, period)[0]
        out["timestep_embedding"].append([t, dim, flip, shift, scale, period, e.tolist()])
    for w, dim in [(7.5, 256), (0.0, 256), (-1.0, 33)]:
        e = StableDiffusionPipeline.get_guidance_scale_embedding(None, torch.tensor([w]), embedding_dim=dim)[0]
        out["guidance_scale_embedding"].append([w, dim, e.tolist()])
    out["guidance"] = {"uncond": uncond.tolist(), "cond": cond.tolist(), "cfg": cfg.tolist()}
    out["guidance"]["rescaled"] = rescale_noise_cfg(cfg[None], cond[None], 0.7)[0].tolist()
    return out


def short(values):
    """JSON numbers with the digits that f32 needs."""
    if isinstance(values, float):
        return float(f"{values:.9g}")
    if isinstance(values, list):
        return [short(v) for v in values]
    if isinstance(values, dict):
        return {k: short(v) for k, v in values.items()}
    return values


configs, cases, arrays = [], [], []


def add(config, names, steps):
    configs.append(config)
    for name in names:
        for n in steps:
            values, timesteps = run(config, name, n)
            assert np.isfinite(values).all(), (config, name, n)
            cases.append([len(configs) - 1, name, n, timesteps])
            arrays.append(values)


def main():
    for changes, names, steps in PLANS:
        add({**SD, **changes}, names, steps)
    # Nothing but the class: its own defaults.
    for class_name in sorted(set(CLASSES.values())):
        add({"_class_name": class_name}, [None], [5, 12])
        add({**SD, "_class_name": class_name}, [None], [5])
    # A class of its own, with keys of its own, under a name.
    for class_name in ["LMSDiscreteScheduler", "DDPMScheduler", "UniPCMultistepScheduler", "DPMSolverMultistepScheduler"]:
        saved = json.loads(getattr(diffusers, class_name)().to_json_string())
        add(saved, ["ddim", "euler", "dpmpp_2m_karras", "lcm"], [5])
    DATA.mkdir(exist_ok=True)
    texts = [json.dumps(c, separators=(",", ":")) for c in configs]  # as files have it, -Infinity and all
    (DATA / "samplers.json").write_text(json.dumps({"configs": texts, "cases": cases}, separators=(",", ":")) + "\n")
    np.concatenate(arrays).astype("<f4").tofile(DATA / "samplers.f32")
    (DATA / "functions.json").write_text(json.dumps(short(functions()), separators=(",", ":")) + "\n")
    print(len(cases), "cases", sum(a.size for a in arrays) * 4, "bytes")


if __name__ == "__main__":
    main()
