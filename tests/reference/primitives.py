"""The parts of drawing, on the tiny pipelines of pipelines.py, by diffusers in f32.

    python tests/reference/primitives.py          # rewrites tests/reference/data/primitives.json and .bin

For each kind of checkpoint: latents of a picture (the formula of img2img.py), the schedule of its own sampler, `add_noise`
and what the UNet predicts at five time steps, turned to noise and to x0; word maps of an attention processor (the mean of
all heads and of all layers outside the middle, brought to the latents' size by bilinear interpolation), and the first
eight channels of each block, of its hooks; and of whole drawings the predictions with and without the prompt at every
step. Values lie in the .bin, f32 or f16; the .json says where, and of which shape.
"""
import json, pathlib
import diffusers, numpy as np, torch
from PIL import Image
from pipelines import B, C, FOLDERS, NEGATIVE, case, pipeline, run

OUT = pathlib.Path(__file__).parent / "data"
SIZE = WIDTH, HEIGHT = 40, 24
PROMPT, GUIDANCE, SEED = "a red apple", 3, 11
TIMESTEPS = [999, 801, 500, 201, 21]
SEEN_AT = 500
STEPS = 7
# Those of sd2 are pipelines.py's: of few steps at a small size diffusers' own f16 lies up to 1.3e-2 away at the last one.
CASES = [
    case("sd1", None, SIZE, 6, 7.5, 1),
    case("sd1", "euler_a", SIZE, 4, 7.5, 2, **NEGATIVE),
    case("sd1", "ddim", SIZE, 5, 3, 3, guidanceInterval=[0, 0.7]),
    case("sd2", None, C, 10, 7.5, 18, **NEGATIVE),
    case("sd2", "euler", B, 25, 7.5, 19),
    case("sdxl", None, SIZE, 6, 7.5, 6),
    case("sdxl", "dpmpp_2m", SIZE, 5, 1, 7),
    case("lcm", None, SIZE, 4, 7.5, 8),
]
data = bytearray()


def put(values, dtype="<f4"):
    """Where values lie, and how."""
    values = values.detach().numpy() if torch.is_tensor(values) else np.asarray(values)
    at = len(data)
    data.extend(values.astype(dtype).tobytes())
    data.extend(bytes(-len(data) % 4))
    return dict(at=at, shape=list(values.shape), half=dtype == "<f2")


def picture():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([x * 4 & 255, y * 4 & 255, (x * y) & 255], -1).astype(np.uint8))


def conditioned(pipe):
    """How the UNet is called for the prompt: a function of latents and time step."""
    calls = []
    hook = pipe.unet.register_forward_pre_hook(lambda m, args, kwargs: calls.append(kwargs), with_kwargs=True)
    pipe(prompt=PROMPT, width=WIDTH, height=HEIGHT, num_inference_steps=2, guidance_scale=GUIDANCE, output_type="latent")
    hook.remove()
    kwargs = calls[0] | dict(return_dict=False)
    batch = kwargs["encoder_hidden_states"].shape[0]
    return lambda x, t: pipe.unet(x.repeat(batch, 1, 1, 1), t, **kwargs)[0].chunk(batch)


def turned(prediction_type, alpha, output, sample):
    """Noise and picture that an output stands for."""
    a, b = alpha**0.5, (1 - alpha) ** 0.5
    if prediction_type == "v_prediction":
        return a * output + b * sample, a * sample - b * output
    return output, (sample - b * output) / a


class Probabilities:
    """diffusers' AttnProcessor, which keeps what it gives each key: the mean of the heads, for the last of the batch."""

    def __init__(self, kept):
        self.kept = kept

    def __call__(self, attn, x, encoder_hidden_states=None, attention_mask=None, **kwargs):
        q, k, v = attn.to_q(x), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        q, k, v = map(attn.head_to_batch_dim, (q, k, v))
        probabilities = attn.get_attention_scores(q, k)
        self.kept.append(probabilities.reshape(x.shape[0], attn.heads, *probabilities.shape[1:])[-1].mean(0))
        return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(probabilities @ v)))


def word_maps(pipe, call, x):
    kept, own = [], dict(pipe.unet.attn_processors)
    watched = lambda name: ".attn2." in name and not name.startswith("mid_block")
    pipe.unet.set_attn_processor({name: Probabilities(kept) if watched(name) else p for name, p in own.items()})
    call(x, SEEN_AT)
    pipe.unet.set_attn_processor(own)
    height, width = x.shape[2:]
    maps = []
    for probabilities in kept:
        # The level's size: halves, rounded up.
        h, w = height, width
        while h * w > len(probabilities):
            h, w = (h + 1) // 2, (w + 1) // 2
        one = probabilities.T.reshape(1, -1, h, w)
        maps.append(torch.nn.functional.interpolate(one, (height, width), mode="bilinear", align_corners=False)[0])
    maps = torch.stack(maps).mean(0)
    words = len(pipe.tokenizer(PROMPT).input_ids)
    return torch.cat([maps[:words], maps[words:].sum(0, keepdim=True)])


def activations(pipe, call, x):
    unet, seen, hooks = pipe.unet, {}, []
    named = {"conv_in": unet.conv_in, **{f"down_blocks.{i}": b for i, b in enumerate(unet.down_blocks)}, "mid_block": unet.mid_block,
             **{f"up_blocks.{i}": b for i, b in enumerate(unet.up_blocks)}, "conv_out": unet.conv_out}
    for name, module in named.items():
        def keep(module, given, out, name=name):
            seen[name] = (out[0] if isinstance(out, tuple) else out)[-1]
        hooks.append(module.register_forward_hook(keep))
    call(x, SEEN_AT)
    for hook in hooks:
        hook.remove()
    return [dict(name=name, channels=seen[name].shape[0], values=put(seen[name][:8], "<f2")) for name in named]


def parts(folder, kind, options):
    pipe = pipeline(kind, options)
    alphas = diffusers.DDPMScheduler.from_config(pipe.scheduler.config).alphas_cumprod
    prediction = pipe.scheduler.config.prediction_type if "prediction_type" in pipe.scheduler.config else "epsilon"
    pixels = torch.from_numpy(np.array(picture())).permute(2, 0, 1)[None] / 127.5 - 1
    latents = pipe.vae.encode(pixels).latent_dist.mean * pipe.vae.config.scaling_factor
    noise = torch.randn(latents.shape, generator=torch.Generator("cpu").manual_seed(SEED))
    pipe.scheduler.set_timesteps(STEPS)
    times = pipe.scheduler.timesteps.tolist()
    call = conditioned(pipe)
    out = dict(folder=folder, width=WIDTH, height=HEIGHT, prompt=PROMPT, guidanceScale=GUIDANCE, seed=SEED, latents=put(latents), noise=put(noise),
               alphas=put(alphas), steps=STEPS, timesteps=times, predictions=[])
    adding = diffusers.DDPMScheduler.from_config(pipe.scheduler.config)
    for t in TIMESTEPS:
        noisy = adding.add_noise(latents, noise, torch.tensor([t]))
        each = call(noisy, t)
        guided = each[0] if len(each) == 1 else each[0] + GUIDANCE * (each[1] - each[0])
        epsilon, x0 = turned(prediction, alphas[t], guided, noisy)
        one = dict(timestep=t, noisy=put(noisy), x0=put(x0, "<f2"), noise=put(epsilon, "<f2"), cond=put(turned(prediction, alphas[t], each[-1], noisy)[0], "<f2"))
        if len(each) > 1:
            one["uncond"] = put(turned(prediction, alphas[t], each[0], noisy)[0], "<f2")
        out["predictions"].append(one)
        if t == SEEN_AT:
            out["seen"] = dict(timestep=t, noisy=one["noisy"], maps=put(word_maps(pipe, call, noisy), "<f2"), activations=activations(pipe, call, noisy))
    return out


def drawing(pipe, c):
    """Predictions of the noise at every step of a drawing."""
    steps, own = [], pipe.scheduler.config
    alphas = diffusers.DDPMScheduler.from_config(own).alphas_cumprod.numpy()
    interval, asked = c["options"].get("guidanceInterval", [0, 1]), c["options"]["numInferenceSteps"]
    prediction = own.get("prediction_type", "epsilon")

    def keep(module, args, kwargs, out):
        sample, t = args[0], float(args[1])
        # Between the training's time steps, the logarithm of the noise level.
        log_sigma = np.interp(t, np.arange(len(alphas)), np.log((1 - alphas) / alphas))
        each = turned(prediction, torch.tensor(1 / (1 + np.exp(log_sigma)), dtype=torch.float32), out[0], sample)[0].chunk(len(sample))
        n = len(steps)
        guided = len(each) > 1 and interval[0] <= n / asked and (n + 1) / asked <= interval[1]
        steps.append(dict(timestep=t, input=put(sample[:1], "<f2"), cond=put(each[-1], "<f2"), **(dict(uncond=put(each[0], "<f2")) if guided else {})))

    hook = pipe.unet.register_forward_hook(keep, with_kwargs=True)
    run(pipe, c)
    hook.remove()
    return c | dict(steps=steps)


if __name__ == "__main__":
    diffusers.utils.logging.set_verbosity_error()
    with torch.no_grad():
        kinds = [parts(folder, *FOLDERS[folder]) for folder in ("sd1", "sd2", "sdxl", "lcm")]
        drawings = []
        for folder in ("sd1", "sd2", "sdxl", "lcm"):
            pipe = pipeline(*FOLDERS[folder])
            drawings += [drawing(pipe, c) for c in CASES if c["folder"] == folder]
    lines = lambda rows: "[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]"
    (OUT / "primitives.json").write_text(f'{{"kinds": {lines(kinds)}, "drawings": {lines(drawings)}}}\n')
    (OUT / "primitives.bin").write_bytes(data)
    print(len(data), "bytes")
