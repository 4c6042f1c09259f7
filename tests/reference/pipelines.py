"""Whole pipelines of tiny random models, run by diffusers: expected latents and pictures.

    python tests/reference/pipelines.py           # rewrites tests/reference/data/pipelines/

`models.json`: for each kind of checkpoint its model_index.json, configurations, and its tensors' names and shapes.
Weights are drawn from the names as in models.py; `tests/web/support/tiny.mjs` draws the same and writes folders.
`cases.json`: folders, and for each case the options of `generate`, and shapes and place of the expected latents (f32,
NCHW) and pictures (u8, NHWC) in `cases.bin`. With `--models`: `models.json` alone. With `--f16 [folder ...]`: prints how
far diffusers' own f16 runs lie away.
"""
import contextlib, copy, json, pathlib, shutil, sys, tempfile
import diffusers, torch
from models import build, clip, drawn, unet, vae, weight
from transformers import CLIPTokenizer

OUT = pathlib.Path(__file__).parent / "data" / "pipelines"
TOKENIZER = pathlib.Path(__file__).parents[2] / "www" / "embedded" / "tokenizer"

# ---- checkpoints -----------------------------------------------------------------------------------------------------
START, END = "<|startoftext|>", "<|endoftext|>"
TIMES = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def encoder(**k):
    """A text encoder that knows all of CLIP's tokens."""
    return clip(vocab_size=49408, model_type="clip_text_model", **k)


def index(cls, scheduler, encoders=("CLIPTextModel",), **more):
    names = [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")]
    parts = {"scheduler": ["diffusers", scheduler["_class_name"]], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    for (text_encoder, tokenizer), kind in zip(names, encoders):
        parts |= {text_encoder: ["transformers", kind], tokenizer: ["transformers", "CLIPTokenizer"]}
    return dict(_class_name=cls, _diffusers_version="0.42.1", **more, **dict(sorted(parts.items())))


def tokenizer(pad=END):
    """Beside vocab.json and merges.txt."""
    return {"special_tokens_map.json": dict(bos_token=START, eos_token=END, pad_token=pad, unk_token=END),
            "tokenizer_config.json": dict(tokenizer_class="CLIPTokenizer", model_max_length=77, bos_token=START, eos_token=END, pad_token=pad, unk_token=END)}


def kind(cls, scheduler, components, tokenizers, **more):
    encoders = [components[name]["architectures"][0] for name in ("text_encoder", "text_encoder_2") if name in components]
    return dict(model_index=index(cls, scheduler, encoders, **more), scheduler=scheduler, components=components, tokenizers=tokenizers)


XL_CLIP = dict(hidden_act="gelu", bos_token_id=49406, eos_token_id=49407, pad_token_id=1)
KINDS = {
    # Latents at half the picture's size, PNDM as SD 1.5 has it, CLIP's wrong eos_token_id.
    "sd1": kind("StableDiffusionPipeline",
                dict(_class_name="PNDMScheduler", **TIMES, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1, trained_betas=None, clip_sample=False),
                dict(text_encoder=encoder(), unet=unet(), vae=vae()), dict(tokenizer=tokenizer()), requires_safety_checker=False),
    # Latents at an eighth, three levels of the UNet with odd sizes between, DDIM with v-prediction, "!" as padding.
    "sd2": kind("StableDiffusionPipeline",
                dict(_class_name="DDIMScheduler", **TIMES, prediction_type="v_prediction", set_alpha_to_one=False, steps_offset=1, clip_sample=False, trained_betas=None),
                dict(text_encoder=encoder(hidden_act="gelu", projection_dim=512, bos_token_id=49406, eos_token_id=49407, pad_token_id=0),
                     unet=unet(gain=0.8, block_out_channels=[32, 64, 64], layers_per_block=1, attention_head_dim=[2, 4, 4], use_linear_projection=True,
                               down_block_types=["CrossAttnDownBlock2D"] * 2 + ["DownBlock2D"], up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 2),
                     vae=vae(block_out_channels=[16, 16, 32, 32], norm_num_groups=8, down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)),
                dict(tokenizer=tokenizer("!")), requires_safety_checker=False),
    # Latents at a quarter, two encoders, sizes as conditions, Euler as SDXL has it.
    "sdxl": kind("StableDiffusionXLPipeline",
                 dict(_class_name="EulerDiscreteScheduler", **TIMES, prediction_type="epsilon", timestep_spacing="leading", steps_offset=1, interpolation_type="linear",
                      use_karras_sigmas=False, trained_betas=None, clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True, sample_max_value=1.0),
                 dict(text_encoder=encoder(**XL_CLIP),
                      text_encoder_2=encoder(**XL_CLIP, architectures=["CLIPTextModelWithProjection"], num_attention_heads=2, projection_dim=24),
                      unet=unet(attention_head_dim=[2, 4], use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
                                transformer_layers_per_block=[1, 2], projection_class_embeddings_input_dim=72, cross_attention_dim=64),
                      vae=vae(block_out_channels=[16, 32, 32], norm_num_groups=8, force_upcast=True, scaling_factor=0.13025,
                              down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3)),
                 dict(tokenizer=tokenizer(), tokenizer_2=tokenizer("!")), force_zeros_for_empty_prompt=True),
    # Guidance as an embedding, LCM's own scheduler.
    "lcm": kind("LatentConsistencyModelPipeline",
                dict(_class_name="LCMScheduler", **TIMES, prediction_type="epsilon", original_inference_steps=50, timestep_spacing="leading", timestep_scaling=10.0,
                     set_alpha_to_one=True, steps_offset=0, clip_sample=False, rescale_betas_zero_snr=False, trained_betas=None),
                dict(text_encoder=encoder(), unet=unet(layers_per_block=1, time_cond_proj_dim=32), vae=vae()), dict(tokenizer=tokenizer()),
                requires_safety_checker=False),
}
# UNets that see mask and masked picture beside the latents; run by inpainting.py.
for kind_of, cls in (("sd1", "StableDiffusionInpaintPipeline"), ("sdxl", "StableDiffusionXLInpaintPipeline")):
    own = copy.deepcopy(KINDS[kind_of])
    own["model_index"]["_class_name"] = cls
    own["components"]["unet"]["in_channels"] = 9
    KINDS[f"{kind_of}-inpainting"] = own


def tensors(config):
    """`name shape...` of each parameter, in the spelling of today's diffusers and transformers."""
    with torch.device("meta"):
        return [" ".join(map(str, [name, *p.shape])) for name, p in build(config, draw=None).named_parameters()]


def write_models():
    OUT.mkdir(parents=True, exist_ok=True)
    kinds = {name: k | {"tensors": {part: tensors(c) for part, c in k["components"].items()}} for name, k in KINDS.items()}
    (OUT / "models.json").write_text(json.dumps(kinds, indent=0) + "\n")


# ---- pipelines -------------------------------------------------------------------------------------------------------
def bfloat16_weight(name, shape, gain):
    """What a bf16 file holds, rounded to f16."""
    return torch.from_numpy(drawn(name, shape, gain)).bfloat16().half().float().numpy()


def pipeline(kind, options):
    """diffusers' pipeline of a checkpoint."""
    k = KINDS[kind]
    parts = {name: build(config, bfloat16_weight if options.get("dtype") == "bf16" else weight) for name, config in k["components"].items()}
    for name, files in k["tokenizers"].items():
        with tempfile.TemporaryDirectory() as folder:
            for file in ("vocab.json", "merges.txt"):
                shutil.copy(TOKENIZER / file, folder)
            for file, value in files.items():
                pathlib.Path(folder, file).write_text(json.dumps(value))
            parts[name] = CLIPTokenizer.from_pretrained(folder)
    parts["scheduler"] = getattr(diffusers, k["scheduler"]["_class_name"]).from_config(k["scheduler"])
    more = {x: k["model_index"][x] for x in ("requires_safety_checker", "force_zeros_for_empty_prompt") if x in k["model_index"]}
    if "requires_safety_checker" in more:
        parts |= dict(safety_checker=None, feature_extractor=None)
    pipe = getattr(diffusers, k["model_index"]["_class_name"])(**parts, **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


SAMPLERS = {"ddpm": "DDPM", "ddim": "DDIM", "pndm": "PNDM", "euler": "EulerDiscrete", "euler_a": "EulerAncestralDiscrete", "dpmpp_2m": "DPMSolverMultistep", "lcm": "LCM"}


@contextlib.contextmanager
def guided_within(pipe, interval):
    """diffusers has no interval: outside of it both halves of the UNet's batch predict what the prompt's does."""
    calls = 0

    def predicted(module, given, kwargs, out):
        nonlocal calls
        steps, calls = len(pipe.scheduler.timesteps), calls + 1
        if interval[0] <= (calls - 1) / steps and calls / steps <= interval[1]:
            return out
        return (out[0].chunk(2)[1].repeat(2, 1, 1, 1),)

    hook = pipe.unet.register_forward_hook(predicted, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def run(pipe, case):
    """Latents (NCHW) and pictures (0..255, NHWC) of a case."""
    own, k = pipe.scheduler, case["options"]
    if "scheduler" in k:
        name, karras = k["scheduler"].removesuffix("_karras"), k["scheduler"].endswith("_karras")
        cls = getattr(diffusers, SAMPLERS[name] + "Scheduler")
        pipe.scheduler = cls.from_config(own.config, **({"use_karras_sigmas": True} if karras else {}))
    names = dict(prompt="prompt", negativePrompt="negative_prompt", width="width", height="height", numInferenceSteps="num_inference_steps",
                 guidanceScale="guidance_scale", guidanceRescale="guidance_rescale", numImages="num_images_per_prompt")
    given = {theirs: k[ours] for ours, theirs in names.items() if ours in k}
    try:
        interval = guided_within(pipe, k["guidanceInterval"]) if "guidanceInterval" in k else contextlib.nullcontext()
        with torch.no_grad(), interval:
            latents = pipe(**given, generator=torch.Generator("cpu").manual_seed(k["seed"]), output_type="latent").images
            image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    finally:
        pipe.scheduler = own
    return latents.float(), ((image.float() / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1)


# ---- cases -----------------------------------------------------------------------------------------------------------
# As they lie on disk: kind and options of `writeTiny`.
FOLDERS = {
    "sd1": ("sd1", dict(oldNames=True)),
    "sd1-f32": ("sd1", dict(dtype="f32", shards=3)),
    "sd1-bf16": ("sd1", dict(dtype="bf16")),
    "sd2": ("sd2", dict(variant="fp16", shards=3)),
    "sdxl": ("sdxl", dict(variant="fp16")),
    "sdxl-old": ("sdxl", dict(oldNames=True, dtype="f32")),
    "lcm": ("lcm", dict()),
}
A, B, C = (56, 40), (24, 72), (88, 104)  # width and height
TALL, WIDE = (64, 136), (200, 72)
LONG = "a very long description of " + ", ".join(f"{n} red apples on {n + 1} blue tables" for n in range(3, 20))


def case(folder, scheduler, size, steps, guidance, seed, prompt="a red apple", **more):
    return dict(folder=folder, options=dict(prompt=prompt, width=size[0], height=size[1], numInferenceSteps=steps, guidanceScale=guidance, seed=seed,
                                            **({"scheduler": scheduler} if scheduler else {}), **more))


NEGATIVE = dict(negativePrompt="blurry, out of focus")
# Guidance 7.5 multiplies the UNet's rounding errors by ten (sqrt(7.5^2 + 6.5^2)). Where diffusers' own f16 run lies
# further than 9.7e-3 from its f32 run (PNDM of 6 steps or DDPM of 12, with v-prediction), a comparison says nothing.
CASES = [
    # folder, sampler (None: the checkpoint's own), size, steps, guidance, seed
    case("sd1", None, A, 10, 7.5, 1),
    case("sd1", "ddpm", C, 5, 1, 2),
    case("sd1", "ddpm", A, 25, 7.5, 3, **NEGATIVE),
    case("sd1", "ddim", B, 25, 7.5, 4),
    case("sd1", "ddim", A, 4, 7.5, 5, prompt=LONG, guidanceRescale=0.7),
    case("sd1", "pndm", B, 1, 0, 6),
    case("sd1", "pndm", A, 25, 7.5, 7, **NEGATIVE),
    case("sd1", "euler", A, 8, 7.5, 8, prompt=""),
    case("sd1", "euler_karras", A, 12, 1, 9, prompt="it's a 🍎!"),
    case("sd1", "euler_a", B, 20, 7.5, 10),
    case("sd1", "dpmpp_2m", A, 14, 7.5, 11, **NEGATIVE),
    case("sd1", "dpmpp_2m", B, 15, 0, 12),
    case("sd1", "dpmpp_2m_karras", A, 6, 7.5, 13),
    case("sd1", "lcm", A, 4, 1, 14),
    case("sd1", "euler_a", A, 2, 7.5, 15, numImages=2),
    case("sd1-f32", "ddim", B, 3, 7.5, 16),
    case("sd1-bf16", "euler", A, 3, 7.5, 17),
    case("sd2", None, C, 10, 7.5, 18, **NEGATIVE),
    case("sd2", "euler", B, 25, 7.5, 19),
    case("sd2", "euler_a", A, 10, 1, 20),
    case("sd2", "pndm", C, 15, 7.5, 21),
    case("sd2", "ddpm", A, 12, 1, 22),
    case("sd2", "dpmpp_2m_karras", B, 25, 7.5, 23),
    case("sd2", "dpmpp_2m", C, 8, 7.5, 24, guidanceRescale=0.5),
    case("sd2", "lcm", A, 1, 0, 25),
    case("sdxl", None, A, 10, 7.5, 26),
    case("sdxl", "ddim", B, 5, 7.5, 27, **NEGATIVE),
    case("sdxl", "dpmpp_2m_karras", C, 20, 7.5, 28, prompt=LONG),
    case("sdxl", "euler_a", A, 3, 0, 29),
    case("sdxl-old", "pndm", C, 7, 7.5, 30, negativePrompt=""),
    case("lcm", None, A, 4, 7.5, 31),
    case("lcm", None, B, 1, 0, 32),
    case("lcm", None, C, 3, 1, 33, numImages=2),
    case("lcm", "lcm", B, 25, 7.5, 2**53 - 1),
    case("sd1", "ddim", TALL, 6, 7.5, 35),
    case("sd1", "euler", WIDE, 4, 1, 36),
    case("sd2", "euler", WIDE, 8, 7.5, 37),
    case("sd2", "ddim", TALL, 10, 1, 38),
    case("sdxl", None, WIDE, 4, 7.5, 39),
    case("sdxl", "ddim", TALL, 5, 7.5, 40),
    case("sd1", "pndm", A, 7, 7.5, 41, guidanceInterval=[0, 0.7], **NEGATIVE),
    case("sd2", "euler", B, 8, 7.5, 42, guidanceInterval=[0.25, 0.75]),
    case("sdxl", "euler_a", A, 5, 7.5, 43, guidanceInterval=[0.2, 1]),
]


@contextlib.contextmanager
def noise_of_f32():
    """torch draws other noise in f16 than in f32; here it draws in f32 and rounds."""
    randn = torch.randn
    torch.randn = lambda *a, dtype=None, **k: randn(*a, **k).to(dtype)
    try:
        yield
    finally:
        torch.randn = randn


def name(case):
    k = case["options"]
    return f"{case['folder']:9} {k.get('scheduler', 'own'):16} {k['width']:3}x{k['height']:3} steps {k['numInferenceSteps']:2} guidance {k['guidanceScale']:3}"


def write_cases():
    out, data = [], bytearray()
    for folder, (kind, options) in FOLDERS.items():
        pipe = pipeline(kind, options)
        for c in (c for c in CASES if c["folder"] == folder):
            latents, pixels = run(pipe, c)
            print(f"{name(c)}  latents std {latents.std():6.3f}  picture mean {pixels.mean():5.1f} std {pixels.std():4.1f} clipped {((pixels == 0) | (pixels == 255)).float().mean():.2f}")
            assert 20 < pixels.std() and abs(pixels.mean() - 128) < 20, "a picture without contrast hides errors"
            out.append(c | dict(latents=list(latents.shape), pixels=list(pixels.shape), offset=len(data)))
            data += latents.numpy().astype("<f4").tobytes() + pixels.byte().numpy().tobytes()
            data += bytes(-len(data) % 4)
    folders = {name: dict(kind=kind, options=options) for name, (kind, options) in FOLDERS.items()}
    (OUT / "cases.json").write_text(json.dumps(dict(folders=folders, cases=out), indent=0, ensure_ascii=False) + "\n")
    (OUT / "cases.bin").write_bytes(data)


def measure_f16(folders):
    """How far diffusers' own f16 run lies from its f32 run: what a good engine may differ by. Takes minutes."""
    for folder in folders:
        pipe = pipeline(*FOLDERS[folder])
        cases = [c for c in CASES if c["folder"] == folder]
        expected = [run(pipe, c) for c in cases]
        pipe.to(torch.float16)
        for c, (latents, pixels) in zip(cases, expected):
            with noise_of_f32():
                half = run(pipe, c)
            print(f"{name(c)}  f16: latents {(half[0] - latents).norm() / latents.norm():.1e} pixels {(half[1] - pixels).abs().mean():.2f}", flush=True)


if __name__ == "__main__":
    diffusers.utils.logging.set_verbosity_error()
    if "--models" in sys.argv:
        write_models()
    elif "--f16" in sys.argv:
        measure_f16(sys.argv[2:] or FOLDERS)
    else:
        write_models()
        write_cases()
