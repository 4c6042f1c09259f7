"""InstructPix2Pix: UNets of eight channels over the tiny random models of pipelines.py and single_file.py, run by diffusers in f32.

    python tests/reference/pix2pix.py        # rewrites tests/reference/data/pix2pix/

`cases.json`: kind of model, options, shape and place of the expected latents in `cases.bin` (f32, NCHW). A LoRA's factors are
drawn from names as weights are; here they are merged. Picture, models and LoRA are the same in tests/web/tests/pix2pix.test.mjs.
"""
import copy, json, pathlib
import diffusers, pipelines, single_file, torch
from models import weight
from pictures import picture

OUT = pathlib.Path(__file__).parent / "data" / "pix2pix"
OUT.mkdir(exist_ok=True)
SAMPLERS = pipelines.SAMPLERS
LORA = {"mid_block.attentions.0.transformer_blocks.0.attn2.to_k": 4, "conv_in": 4}  # ranks

CASES = [
    ("sd1", dict()),
    ("sd1", dict(imageGuidanceScale=2.2, negativePrompt="blue", scheduler="euler")),
    ("sd1", dict(imageGuidanceScale=1)),
    ("sd1", dict(guidanceScale=1)),
    ("sd1", dict(scheduler="euler_a", numImages=2)),
    ("sd1", dict(lora=0.8)),
    ("sdxl", dict(scheduler="euler")),
    ("sdxl", dict(imageGuidanceScale=3, negativePrompt="blue", width=32, height=48)),
    ("single", dict(imageGuidanceScale=1.8)),
]


def pipeline(kind):
    kinds = single_file.KINDS if kind == "single" else pipelines.KINDS
    own = copy.deepcopy(kinds["sd1" if kind == "single" else kind])
    own["model_index"]["_class_name"] = f"StableDiffusion{'XL' if kind == 'sdxl' else ''}InstructPix2PixPipeline"
    own["components"]["unet"]["in_channels"] = 8
    pipelines.KINDS = {kind: own}
    try:
        return pipelines.pipeline(kind, {})
    finally:
        pipelines.KINDS = PIPELINES


def merge(unet, scale):
    for name, rank in LORA.items():
        module = unet.get_submodule(name)
        out, _, *taps = module.weight.shape
        into = 4 if name == "conv_in" else module.weight.shape[1]  # a LoRA of four channels
        down = torch.from_numpy(weight(f"lora.{name}.down", (rank, into, *taps), 1.5))
        up = torch.from_numpy(weight(f"lora.{name}.up", (out, rank, *(1 for _ in taps)), 1.5))
        with torch.no_grad():
            module.weight[:, :into] += scale * torch.einsum("or,ri...->oi...", up.reshape(out, rank), down)


def run(kind, options, pipe):
    k = dict(prompt="a red apple", width=48, height=40, numInferenceSteps=6, guidanceScale=4, scheduler="ddim", seed=7) | options
    pipe.scheduler = getattr(diffusers, SAMPLERS[k["scheduler"]] + "Scheduler").from_config(pipe.scheduler.config)
    more = {"image_guidance_scale": k["imageGuidanceScale"]} if "imageGuidanceScale" in k else {}
    with torch.no_grad():
        latents = pipe(k["prompt"], negative_prompt=k.get("negativePrompt"), image=picture(k["width"], k["height"]), num_inference_steps=k["numInferenceSteps"],
                       guidance_scale=k["guidanceScale"], num_images_per_prompt=k.get("numImages", 1), generator=torch.Generator("cpu").manual_seed(k["seed"]),
                       output_type="latent", **more, **(dict(width=k["width"], height=k["height"]) if kind == "sdxl" else {})).images
    return k, latents.float()


PIPELINES = pipelines.KINDS
if __name__ == "__main__":
    diffusers.utils.logging.set_verbosity_error()
    cases, data, first = [], bytearray(), {}
    for kind, options in CASES:
        pipe = pipeline(kind)
        if "lora" in options:
            merge(pipe.unet, options["lora"])
        k, latents = run(kind, options, pipe)
        same = first.setdefault(kind, latents)
        moved = f", from the first {(latents - same).norm() / same.norm():.1e}" if latents.shape == same.shape else ""
        print(f"{kind:6} {options} std {latents.std():.3f}{moved}")
        cases.append(dict(kind=kind, options=k, latents=list(latents.shape), offset=len(data)))
        data += latents.numpy().astype("<f4").tobytes()
    (OUT / "cases.json").write_text(json.dumps(cases, indent=0) + "\n")
    (OUT / "cases.bin").write_bytes(data)
