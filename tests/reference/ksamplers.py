"""Expected values for tests/samplers.rs: every sampler with every schedule, in 5, 12 and 30 steps.

A picture of 16 values, a made-up network and made-up noise, as in samplers.py. Who computes what:
  diffusers    its classes, with the checkpoint's own schedule or their switches karras, exponential, beta; UniPC, DEIS
               and DPM++ 2S over other sigmas, which are put into the scheduler; DDPM, DDIM, LCM and TCD over other timesteps
  k-diffusion  the rest, in f64; its noise is the same made-up noise in order, for DPM++ SDE as a Brownian path; with a seed
               that of its Brownian tree
  here         what neither has: A1111's Restart in segments of k-diffusion's Heun, DDIM CFG++, iPNDM
Sigmas by name are k-diffusion's, or written here from A1111's definitions over k-diffusion's denoiser.
Written: data/ksamplers.json [config, name, steps, tuning] and data/ksamplers.f32, the final samples.
"""
import inspect, json, math, pathlib, warnings
import diffusers, numpy as np, scipy.stats, torch
import k_diffusion.sampling as K
from k_diffusion.external import DiscreteEpsDDPMDenoiser

warnings.simplefilter("ignore")
diffusers.logging.set_verbosity_error()
DATA = pathlib.Path(__file__).parent / "data"
VALUES = 16
SCHEDULES = ["karras", "exponential", "polyexponential", "sgm_uniform", "simple", "normal", "ddim_uniform", "beta", "kl_optimal", "align_your_steps"]
SWITCHES = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}
# Name, diffusers' class, what from_config is given, k-diffusion's function.
SAMPLERS = {
    "ddpm": ("DDPM", {}, None),
    "ddim": ("DDIM", {}, None),
    "ddim_cfgpp": (None, {}, None),
    "pndm": ("PNDM", {}, None),
    "euler": ("EulerDiscrete", {}, K.sample_euler),
    "euler_a": ("EulerAncestralDiscrete", {}, K.sample_euler_ancestral),
    "heun": ("HeunDiscrete", {}, K.sample_heun),
    "lms": ("LMSDiscrete", {}, K.sample_lms),
    "dpm2": ("KDPM2Discrete", {}, K.sample_dpm_2),
    "dpm2_a": ("KDPM2AncestralDiscrete", {}, K.sample_dpm_2_ancestral),
    "dpmpp_2s": ("DPMSolverSinglestep", {}, None),
    "dpmpp_2s_a": (None, {}, K.sample_dpmpp_2s_ancestral),
    "dpmpp_2m": ("DPMSolverMultistep", {}, K.sample_dpmpp_2m),
    "dpmpp_sde": ("DPMSolverSDE", {}, K.sample_dpmpp_sde),
    "dpmpp_2m_sde": ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"}, K.sample_dpmpp_2m_sde),
    "dpmpp_3m_sde": (None, {}, K.sample_dpmpp_3m_sde),
    "dpm_fast": (None, {}, K.sample_dpm_fast),
    "dpm_adaptive": (None, {}, K.sample_dpm_adaptive),
    "restart": (None, {}, None),
    "unipc": ("UniPCMultistep", {}, None),
    "deis": ("DEISMultistep", {}, None),
    "ipndm": (None, {}, None),
    "lcm": ("LCM", {}, None),
    "tcd": ("TCD", {}, None),
}
NO_SCHEDULE = ["pndm", "dpm_fast", "dpm_adaptive"]
NO_SWITCH = ["ddpm", "ddim", "euler_a", "lcm", "tcd"]
DISCARD = ["dpm2", "dpm2_a", "dpmpp_3m_sde"]
SD = {"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
      "set_alpha_to_one": False, "skip_prk_steps": True, "clip_sample": False, "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None}


def waves(k, phase):
    j = np.arange(VALUES, dtype=np.float64)
    return torch.from_numpy((math.sqrt(2) * np.sin(phase + 12.9898 * k + j * (1.7 + 0.31 * j))).astype(np.float32)).reshape(1, 1, 4, 4)


def network(x, t):
    x, t = x.double(), float(t)
    return 0.5 * x * t / (t + 1) + 0.5 * torch.sin(1.5 * x + 0.01 * t)


class Draws:
    """Made-up noise in order, under the names by which the libraries ask for it."""

    def __init__(self):
        self.count, self.path = 0, None

    def next(self, *_, **__):
        self.count += 1
        return waves(self.count, 0.5)

    def brownian(self, a, b):
        """Of a path: once to a midpoint, then for the whole step from the same level."""
        a, b = float(a), float(b)
        z = self.next()
        if self.path is None:
            self.path = (b, z)
            return z
        (middle, first), self.path = self.path, None
        return (math.sqrt(a - middle) * first + math.sqrt(middle - b) * z) / math.sqrt(a - b)


# ---- sigmas ----------------------------------------------------------------------------------------------------------
def training(config):
    class_of = diffusers.EulerDiscreteScheduler.from_config(config)
    return DiscreteEpsDDPMDenoiser(None, class_of.alphas_cumprod.double(), quantize=False)


def named(schedule, n, d):
    lo, hi, all_sigmas = float(d.sigmas[0]), float(d.sigmas[-1]), d.sigmas.tolist()
    at = lambda times: [float(d.log_sigmas[int(t)] * (1 - t % 1) + d.log_sigmas[min(math.ceil(t), 999)] * (t % 1)) for t in times]
    if schedule == "karras":
        return K.get_sigmas_karras(n, lo, hi).tolist()
    if schedule == "exponential":
        return K.get_sigmas_exponential(n, lo, hi).tolist()
    if schedule == "polyexponential":
        return K.get_sigmas_polyexponential(n, lo, hi).tolist()
    if schedule == "sgm_uniform":
        return np.exp(at(np.linspace(999, 0, n + 1)[:-1])).tolist() + [0.0]
    if schedule == "normal":
        return np.exp(at(np.linspace(999, 0, n))).tolist() + [0.0]
    if schedule == "simple":
        return [all_sigmas[-1 - int(i * len(all_sigmas) / n)] for i in range(n)] + [0.0]
    if schedule == "ddim_uniform":
        return all_sigmas[1 :: max(len(all_sigmas) // n, 1)][::-1] + [0.0]
    if schedule == "beta":
        return [lo + scipy.stats.beta.ppf(p, 0.6, 0.6) * (hi - lo) for p in 1 - np.linspace(0, 1, n)] + [0.0]
    if schedule == "kl_optimal":
        share = np.arange(n + 1) / n
        return np.tan(share * math.atan(lo) + (1 - share) * math.atan(hi)).tolist()
    table = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
    return np.exp(np.interp(np.linspace(0, 10, n), range(11), np.log(table))).tolist() + [0.0]


# ---- runs ------------------------------------------------------------------------------------------------------------
def diffusers_run(scheduler, timesteps, sample, draws, eta, plan=None):
    import importlib
    module = importlib.import_module(type(scheduler).__module__)
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = draws.next
    if isinstance(scheduler, diffusers.DPMSolverSDEScheduler) and scheduler.noise_sampler_seed is None:
        scheduler.noise_sampler = draws.brownian
    extra = {"eta": eta} if eta is not None else {}
    for i, t in enumerate(timesteps):
        if plan:
            plan(i)
        output = network(scheduler.scale_model_input(sample, t), t).float()
        sample = scheduler.step(output, t, sample, return_dict=False, **extra)[0]
    return sample


def k_model(config, d):
    velocity = config.get("prediction_type") == "v_prediction"

    def model(x, sigma):
        s = sigma.reshape(-1)[0].double()
        out = network(x / (s**2 + 1).sqrt(), d.sigma_to_t(s.reshape(1))[0])
        return out * (-s / (s**2 + 1).sqrt()) + x / (s**2 + 1) if velocity else x - s * out

    return model


def tree(x, sigmas, seed):
    sigmas = sigmas.float()
    sampler = K.BrownianTreeNoiseSampler(x.float(), sigmas[sigmas > 0].min(), sigmas.max(), seed)
    return lambda a, b: sampler(a.float(), b.float())


def k_run(name, config, d, sigmas, x, draws, tuning):
    model, f, path = k_model(config, d), SAMPLERS[name][2], draws.brownian if name == "dpmpp_sde" else draws.next
    sigmas, x, n = torch.tensor(sigmas, dtype=torch.float64), x.double(), len(sigmas) - 1
    if "seed" in tuning:
        path = tree(x, sigmas, tuning["seed"])
    options = {k: v for k, v in tuning.items() if f and k in inspect.signature(f).parameters}
    if f and "noise_sampler" in inspect.signature(f).parameters:
        options["noise_sampler"] = path
    if name in ("dpm_fast", "dpm_adaptive"):
        ends = (sigmas[sigmas > 0].min(), sigmas[0])
        return f(model, x, *ends, *([n] if name == "dpm_fast" else []), disable=True, **options)
    if name == "ipndm":
        adams = [[1], [1.5, -0.5], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
        slopes = []
        for s, to in zip(sigmas, sigmas[1:]):
            slopes = [(x - model(x, s)) / s] + slopes[:3]
            x = x + (to - s) * sum(w * slope for w, slope in zip(adams[0 if to == 0 else len(slopes) - 1], slopes))
        return x
    if name == "restart":
        segments = [sigmas]
        if n >= 20:
            length, times = (n // 4, 2) if n >= 36 else (9, 1)
            sigmas = K.get_sigmas_karras(n - length * times, float(sigmas[-2]), float(sigmas[0])).double()
            low, high = (int((sigmas - level).abs().argmin()) for level in (0.1, 2))
            again = K.get_sigmas_karras(length + 1, float(sigmas[low]), float(sigmas[high]))[:-1].double()
            segments = [sigmas[: low + 1]] + [again] * times + [sigmas[low:]]
        for before, segment in zip([None] + segments, segments):
            if before is not None and segment[0] > before[-1]:
                x = x + draws.next() * (segment[0] ** 2 - before[-1] ** 2).sqrt()
            x = K.sample_heun(model, x, segment, disable=True)
        return x
    keep, torch.randn_like = torch.randn_like, draws.next
    try:
        return f(model, x, sigmas, disable=True, **options)
    finally:
        torch.randn_like = keep


def run(config, name, steps, tuning):
    schedule = next((s for s in SCHEDULES if name.endswith("_" + s)), None)
    base = name.removesuffix(f"_{schedule}") if schedule else name
    cls, extra, k = SAMPLERS[base]
    draws, start, d, eta = Draws(), waves(0, 0.3), training(config), tuning.get("eta")
    own = schedule is None
    make = lambda **more: getattr(diffusers, cls + "Scheduler").from_config(config, **extra, **more)
    if cls and not ({"s_churn"} & set(tuning)) and not (k and eta is not None) and (own or schedule in SWITCHES and base not in NO_SWITCH):
        seed = {"noise_sampler_seed": tuning["seed"]} if "seed" in tuning else {}
        scheduler = make(**({} if own else {SWITCHES[schedule]: True}), **seed)
        scheduler.set_timesteps(steps)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        eta = eta if eta is not None else 0.0 if base == "tcd" else None
        return diffusers_run(scheduler, scheduler.timesteps, start * torch.tensor(scheduler.init_noise_sigma, dtype=torch.float32), draws, eta)
    if base in ("ddpm", "ddim", "ddim_cfgpp", "lcm", "tcd"):
        nearest = [math.floor(float(d.sigma_to_t(torch.tensor([s], dtype=torch.float64))[0]) + 0.499) for s in (named(schedule, steps, d)[:-1] if schedule else [])]
        times = [t for i, t in enumerate(nearest) if i == 0 or t != nearest[i - 1]]
        if base == "ddim_cfgpp":
            ddim = diffusers.DDIMScheduler.from_config(config)
            ddim.set_timesteps(steps)
            times = times or ddim.timesteps.tolist()
            alpha = lambda t: float(ddim.alphas_cumprod[t]) if t >= 0 else float(ddim.final_alpha_cumprod)
            x = start.double()
            for t, to in zip(times, times[1:] + [-1] if schedule else [t - 1000 // steps for t in times]):
                e = network(x, t)
                a, b = alpha(t), alpha(to)
                v = config.get("prediction_type") == "v_prediction"
                x0 = a**0.5 * x - (1 - a) ** 0.5 * e if v else (x - (1 - a) ** 0.5 * e) / a**0.5
                unguided = a**0.5 * 0.8 * e + (1 - a) ** 0.5 * x if v else 0.8 * e
                x = b**0.5 * x0 + (1 - b) ** 0.5 * unguided
            return x
        scheduler = make()
        plan = None
        if base == "ddim":
            scheduler.set_timesteps(len(times))

            class Stride:  # DDIM steps by so many training timesteps for so many steps
                def __rfloordiv__(self, _):
                    return self.now

            scheduler.num_inference_steps = stride = Stride()

            def plan(i):
                stride.now = times[i] - (times[i + 1] if i + 1 < len(times) else -1)

        else:
            scheduler.set_timesteps(timesteps=times)
        return diffusers_run(scheduler, torch.tensor(times), start, draws, 0.0 if base == "tcd" else None, plan)
    if own:
        # The noise levels of diffusers' Euler, for 3M SDE those of its DPM-Solver++.
        scheduler = getattr(diffusers, ("DPMSolverMultistep" if base in ("dpmpp_2m_sde", "dpmpp_3m_sde") else "EulerDiscrete") + "Scheduler").from_config(config)
        scheduler.set_timesteps(steps)
        sigmas = scheduler.sigmas.tolist()
        # DPM-Solver++ starts from samples whose spread is kept.
        init = (sigmas[0] ** 2 + 1) ** 0.5 if base in ("dpmpp_2m_sde", "dpmpp_3m_sde") else float(scheduler.init_noise_sigma)
        return k_run(base, config, d, sigmas, start.double() * init, draws, tuning)
    if base == "dpmpp_3m_sde" and schedule in SWITCHES:
        scheduler = diffusers.DPMSolverMultistepScheduler.from_config(config, **{SWITCHES[schedule]: True})
        scheduler.set_timesteps(steps)
        sigmas, t_of = scheduler.sigmas.tolist(), dict(zip(scheduler.sigmas.tolist(), scheduler.timesteps.tolist()))
        # diffusers rounds the timesteps of these.
        exact, d.sigma_to_t = d.sigma_to_t, lambda s: torch.tensor([t_of[float(np.float32(s[0]))]])
        return k_run(base, config, d, sigmas, start.double() * (sigmas[0] ** 2 + 1) ** 0.5, draws, tuning)
    discard = base in DISCARD
    sigmas = named(schedule, steps + discard, d)
    if discard:
        del sigmas[-2]
    if base in ("unipc", "deis", "dpmpp_2s"):
        scheduler = make()
        n = len(sigmas) - 1
        scheduler.set_timesteps(n)
        times = torch.cat([d.sigma_to_t(torch.tensor([s], dtype=torch.float64)) for s in sigmas[:-1]])
        if base == "deis":
            sigmas[-1] = max(sigmas[-1], float(d.sigmas[0]))
        scheduler.sigmas, scheduler.timesteps = torch.tensor(sigmas, dtype=torch.float32), times
        scheduler.set_begin_index(0)
        out = diffusers_run(scheduler, times, start * sigmas[0] / (sigmas[0] ** 2 + 1) ** 0.5, draws, None)
        return out * (sigmas[-1] ** 2 + 1) ** 0.5
    return k_run(base, config, d, sigmas, start.double() * sigmas[0], draws, tuning)


CONFIGS = [SD, SD | {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}]


def main():
    plan = [(0, name + suffix, steps, {}) for name in SAMPLERS for suffix in [""] + [f"_{s}" for s in SCHEDULES if name not in NO_SCHEDULE] for steps in (5, 12, 30)]
    plan += [(0, name, 40, {}) for name in ("restart", "restart_exponential")]
    plan += [(1, name, steps, {}) for name in SAMPLERS for steps in (5, 12, 30)]
    plan += [(0, name, 12, tuning) for name, tuning in [
        ("euler", {"s_churn": 4.0, "s_tmin": 0.6, "s_noise": 1.01}), ("heun_normal", {"s_churn": 20.0}), ("dpm2_normal", {"s_churn": 3.0}),
        ("euler_a_normal", {"eta": 0.5, "s_noise": 0.9}), ("dpm2_a_simple", {"eta": 0.7}), ("dpmpp_2s_a_karras", {"eta": 0.3}),
        ("dpmpp_sde_simple", {"eta": 0.5}), ("dpmpp_2m_sde_normal", {"eta": 0.4, "s_noise": 1.1}), ("dpmpp_3m_sde_simple", {"eta": 0.0}),
        ("dpm_fast", {"eta": 1.0}), ("dpm_adaptive", {"eta": 0.5}), ("ddim", {"eta": 1.0}), ("tcd", {"eta": 0.3}),
        ("dpmpp_sde", {"seed": 7}), ("dpmpp_sde_normal", {"seed": 8, "eta": 0.8}), ("dpmpp_2m_sde_simple", {"seed": 9}), ("dpmpp_3m_sde", {"seed": 2**40}),
        ("dpmpp_3m_sde_kl_optimal", {"seed": 10, "s_noise": 0.9}),
    ]]
    write("ksamplers", plan)


def write(file, plan):
    cases, values = [], []
    for c, name, steps, tuning in plan:
        out = run(CONFIGS[c], name, steps, tuning).flatten().double().numpy()
        assert out.shape == (VALUES,) and np.isfinite(out).all(), (name, steps, out)
        cases.append([c, name, steps] + ([tuning] if tuning else []))
        values.append(out)
    texts = [json.dumps(c, separators=(",", ":")) for c in CONFIGS]
    (DATA / f"{file}.json").write_text(json.dumps({"configs": texts, "cases": cases}, separators=(",", ":")) + "\n")
    np.concatenate(values).astype("<f4").tofile(DATA / f"{file}.f32")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
