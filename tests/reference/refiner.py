"""SDXL's refiner on tiny random models of pipelines.py and single_file.py, run by diffusers in f32: the ensemble of experts (the
base ends at `denoising_end`, the refiner goes on from `denoising_start`), and image to image.

    python tests/reference/refiner.py        # rewrites tests/reference/data/refiner/

`refiner.json`: the refiner's configurations and its tensors' names and shapes. `cases.json`: options of the base, where there is
one, and of the refiner, shapes and place of the expected latents in `cases.bin` (f32, NCHW): the base's, then the refiner's.
"""
import copy, functools, json, pathlib
import diffusers, pipelines, single_file, torch
from pictures import picture

OUT = pathlib.Path(__file__).parent / "data" / "refiner"
OUT.mkdir(exist_ok=True)


def refiner_of(base, time_id, pooled):
    own = copy.deepcopy(base)
    own["model_index"] |= dict(_class_name="StableDiffusionXLImg2ImgPipeline", text_encoder=[None, None], tokenizer=[None, None],
                               requires_aesthetics_score=True, force_zeros_for_empty_prompt=False)
    own["components"].pop("text_encoder")
    own["tokenizers"].pop("tokenizer")
    width = own["components"]["text_encoder_2"]["hidden_size"]
    own["components"]["unet"] |= dict(cross_attention_dim=width, projection_class_embeddings_input_dim=pooled + 5 * time_id)
    return own


diffusers.Refiner = functools.partial(diffusers.StableDiffusionXLImg2ImgPipeline, text_encoder=None, tokenizer=None, requires_aesthetics_score=True,
                                      add_watermarker=False)
BASE = pipelines.KINDS["sdxl"]
REFINER = refiner_of(BASE, 8, 24)
SINGLE = refiner_of(single_file.KINDS["sdxl"], 256, single_file.KINDS["sdxl"]["components"]["text_encoder_2"]["projection_dim"])
COMMON = dict(prompt="a red apple", width=48, height=40, numInferenceSteps=10, guidanceScale=4, seed=7)
CASES = [
    # kind, options of both, share where one ends and the other begins, options of the refiner
    ("refiner", dict(scheduler="euler"), 0.7, dict()),
    ("refiner", dict(scheduler="ddim", numImages=2), 0.55, dict(negativePrompt="blue")),
    ("refiner", dict(scheduler="dpmpp_2m_karras"), 0.8, dict(guidanceScale=1)),
    ("refiner", dict(scheduler="euler_a"), 0.6, dict(aestheticScore=9, negativeAestheticScore=1)),
    ("refiner", dict(scheduler="ddim"), None, dict(strength=0.5)),
    ("refiner", dict(scheduler="euler", guidanceScale=1), None, dict()),
    ("single", dict(scheduler="euler"), None, dict(strength=0.4, negativePrompt="")),
]


def pipeline(kind):
    own = copy.deepcopy({"base": BASE, "refiner": REFINER, "single": SINGLE}[kind])
    if kind != "base":
        own["model_index"]["_class_name"] = "Refiner"
    pipelines.KINDS = {kind: own}
    return pipelines.pipeline(kind, {})


def draw(pipe, k, **more):
    own, (name, karras, _) = pipe.scheduler, k["scheduler"].partition("_karras")
    cls = getattr(diffusers, pipelines.SAMPLERS[name] + "Scheduler")
    pipe.scheduler = cls.from_config(own.config, **({"use_karras_sigmas": True} if karras else {}))
    names = dict(prompt="prompt", negativePrompt="negative_prompt", numInferenceSteps="num_inference_steps", guidanceScale="guidance_scale", strength="strength",
                 numImages="num_images_per_prompt", aestheticScore="aesthetic_score", negativeAestheticScore="negative_aesthetic_score",
                 denoisingStart="denoising_start", denoisingEnd="denoising_end")
    given = {theirs: k[ours] for ours, theirs in names.items() if ours in k}
    with torch.no_grad():
        latents = pipe(**given, **more, generator=torch.Generator("cpu").manual_seed(k["seed"]), output_type="latent").images.float()
    pipe.scheduler = own
    return latents


def main():
    diffusers.utils.logging.set_verbosity_error()
    base, pipes = pipeline("base"), {kind: pipeline(kind) for kind in ("refiner", "single")}
    cases, data = [], bytearray()
    for kind, both, share, own in CASES:
        first = COMMON | both | dict(denoisingEnd=share)
        second = COMMON | both | own | (dict(denoisingStart=share) if share else {})
        outs = []
        if share:
            outs.append(draw(base, first, width=first["width"], height=first["height"]))
        start = outs[0] if share else picture(second["width"], second["height"])
        outs.append(draw(pipes[kind], second, image=start))
        print(f"{kind:8} {both} {share} {own} std {[round(o.std().item(), 3) for o in outs]}")
        cases.append(dict(kind=kind, base=first if share else None, options=second, latents=list(outs[-1].shape), offset=len(data)))
        for latents in outs:
            data += latents.numpy().astype("<f4").tobytes()
    (OUT / "cases.json").write_text(json.dumps(cases, indent=0) + "\n")
    (OUT / "cases.bin").write_bytes(data)
    tensors = {part: pipelines.tensors(c) for part, c in REFINER["components"].items()}
    (OUT / "refiner.json").write_text(json.dumps(REFINER | {"tensors": {"unet": tensors["unet"]}}, indent=0) + "\n")


if __name__ == "__main__":
    main()
