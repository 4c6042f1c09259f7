"""IP-Adapters run by diffusers on the tiny random models of pipelines.py: expected latents.

    python tests/reference/ip_adapter.py       # rewrites tests/reference/data/ip_adapter/

`nets.json`: image encoders (their configurations) and adapters, each with its tensors' names in files and shapes, and the
gain and the prefix of the names that its weights are drawn from. `cases.json`: kind of model, adapters by name with their
pictures' sizes and scale, the options of `generate`, shape and place of the expected latents in `cases.bin` (f32, NCHW). The
pictures are formulas, the same in tests/web/tests/ip-adapter.test.mjs. `plain.bin`: one of the adapters as torch.save
writes it.
"""
import contextlib, json, pathlib
import diffusers, torch
from controlnet import build as controlnet, mask, picture
from deep_cache import cached
from models import weight
from pipelines import guided_within, pipeline
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

OUT = pathlib.Path(__file__).parent / "data" / "ip_adapter"
OUT.mkdir(parents=True, exist_ok=True)


# ---- networks --------------------------------------------------------------------------------------------------------
def vision(**k):
    return dict(architectures=["CLIPVisionModelWithProjection"], model_type="clip_vision_model", hidden_size=64, intermediate_size=96, num_hidden_layers=3,
                num_attention_heads=1, num_channels=3, image_size=24, patch_size=8, hidden_act="quick_gelu", layer_norm_eps=1e-5, projection_dim=24) | k


# The first is what its shapes alone tell.
ENCODERS = {"vit": vision(), "big": vision(hidden_size=48, num_attention_heads=4, image_size=28, patch_size=7, hidden_act="gelu", projection_dim=40)}


def encoder(name):
    config = ENCODERS[name]
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**{k: v for k, v in config.items() if k != "architectures"}))
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.copy_(torch.from_numpy(weight(f"{name}.{n.removeprefix('vision_model.')}", tuple(p.shape), 1.0)))
    return model.eval()


def plain(dim, cross):
    return {"proj.weight": (4 * cross, dim), "proj.bias": (4 * cross,), "norm.weight": (cross,), "norm.bias": (cross,)}


def plus(dim, cross, hidden=48, heads=2, queries=8):
    out = {"latents": (1, queries, hidden), "proj_in.weight": (hidden, dim), "proj_in.bias": (hidden,), "proj_out.weight": (cross, hidden), "proj_out.bias": (cross,),
           "norm_out.weight": (cross,), "norm_out.bias": (cross,)}
    for i in range(4):
        norms = {f"layers.{i}.{part}.{of}": (hidden,) for part in ("0.norm1", "0.norm2", "1.0") for of in ("weight", "bias")}
        out |= norms | {f"layers.{i}.0.to_q.weight": (64 * heads, hidden), f"layers.{i}.0.to_kv.weight": (128 * heads, hidden), f"layers.{i}.0.to_out.weight": (hidden, 64 * heads),
                        f"layers.{i}.1.1.weight": (4 * hidden, hidden), f"layers.{i}.1.3.weight": (hidden, 4 * hidden)}
    return out


def full(dim, cross):
    return {"proj.0.weight": (dim, dim), "proj.0.bias": (dim,), "proj.2.weight": (cross, dim), "proj.2.bias": (cross,), "proj.3.weight": (cross,), "proj.3.bias": (cross,)}


# name: kind of model, image encoder, projection
ADAPTERS = {
    "plain": ("sd1", "vit", plain(24, 32)),
    "plus": ("sd1", "vit", plus(64, 32)),
    "full": ("sd1", "vit", full(64, 32)),
    "sdxl-plain": ("sdxl", "big", plain(40, 64)),
    "sdxl-plus": ("sdxl", "big", plus(48, 64, queries=16)),
}
GAIN = 1.5  # pictures are to be seen


def adapter(name, unet):
    """`image_proj` and `ip_adapter` of a file."""
    _, _, projection = ADAPTERS[name]
    layers, number = {}, 1
    for processor in unet.attn_processors:
        if "attn2" in processor:
            to_k = unet.get_submodule(processor.removesuffix(".processor")).to_k
            for key in "kv":
                layers[f"{number}.to_{key}_ip.weight"] = tuple(to_k.weight.shape)
            number += 2
    draw = lambda part, shapes: {n: torch.from_numpy(weight(f"{name}.{part}.{n}", s, GAIN)) for n, s in shapes.items()}
    return dict(image_proj=draw("image_proj", projection), ip_adapter=draw("ip_adapter", layers))


# ---- cases -----------------------------------------------------------------------------------------------------------
def ip(name, *sizes, scale=0.5):
    return dict(name=name, sizes=sizes or [(56, 40)], scale=scale)


TWO = [(56, 40), (33, 70)]
CASES = [
    # name, kind, IP-Adapters, options
    ("none", "sd1", [], {}),
    ("plain", "sd1", [ip("plain")], {}),
    ("plain, two pictures", "sd1", [ip("plain", *TWO)], {}),
    ("plain, scale 1.2, another picture", "sd1", [ip("plain", (300, 200), scale=1.2)], {}),
    ("plus", "sd1", [ip("plus", (200, 90))], {}),
    ("plus, two pictures", "sd1", [ip("plus", *TWO)], {}),
    ("full", "sd1", [ip("full")], {}),
    ("plain and plus", "sd1", [ip("plain", *TWO, scale=0.7), ip("plus", (33, 70), scale=0.4)], {}),
    ("without guidance", "sd1", [ip("plus", *TWO)], dict(guidanceScale=1)),
    # Texts that are the same, one after the other.
    ("guidance for some steps", "sd1", [ip("plus", *TWO)], dict(prompt="", guidanceInterval=[0, 0.7], numInferenceSteps=6)),
    ("two drawings", "sd1", [ip("plus")], dict(numImages=2)),
    ("image to image", "sd1", [ip("plain", *TWO)], dict(strength=0.75, numInferenceSteps=6)),
    ("inpainting", "sd1", [ip("plus", *TWO)], dict(strength=0.75, mask=True)),
    ("with deepCache", "sd1", [ip("plain", *TWO, scale=0.7), ip("plus", (33, 70), scale=0.4)], dict(deepCache=dict(interval=2, branch=1), numInferenceSteps=5)),
    ("with a ControlNet", "sd1", [ip("plain", *TWO)], dict(controlnet="one")),
    ("none, sdxl", "sdxl", [], {}),
    ("sdxl plain", "sdxl", [ip("sdxl-plain")], {}),
    ("sdxl plain, two pictures", "sdxl", [ip("sdxl-plain", *TWO)], {}),
    ("sdxl plus, two pictures", "sdxl", [ip("sdxl-plus", *TWO)], {}),
]
CLASSES = {"image": "StableDiffusionImg2ImgPipeline", "mask": "StableDiffusionInpaintPipeline", "control": "StableDiffusionControlNetPipeline"}


def run(kind, adapters, options):
    pipe = pipeline(kind, {})
    k = dict(prompt="a red apple", width=56, height=40, numInferenceSteps=4, guidanceScale=3, seed=5, scheduler="ddim") | options
    size = (k["width"], k["height"])
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    more = dict(prompt=k["prompt"], num_inference_steps=k["numInferenceSteps"], guidance_scale=k["guidanceScale"], num_images_per_prompt=k.get("numImages", 1),
                generator=torch.Generator("cpu").manual_seed(k["seed"]), output_type="latent", width=k["width"], height=k["height"])
    way = "control" if "controlnet" in k else "mask" if k.get("mask") else "image" if "strength" in k else None
    if way:
        parts = pipe.components | dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
        pipe = getattr(diffusers, CLASSES[way])(**parts, **(dict(controlnet=controlnet(k["controlnet"])) if way == "control" else {}))
        pipe.set_progress_bar_config(disable=True)
        more |= dict(image=picture(*size)) | (dict(strength=k["strength"]) if "strength" in k else {}) | (dict(mask_image=mask(*size)) if way == "mask" else {})
        if way == "image":
            more = {n: v for n, v in more.items() if n not in ("width", "height")}
    if adapters:
        name = ADAPTERS[adapters[0]["name"]][1]
        side = ENCODERS[name]["image_size"]
        pipe.register_modules(image_encoder=encoder(name), feature_extractor=CLIPImageProcessor(size={"shortest_edge": side}, crop_size=side))
        files = [adapter(a["name"], pipe.unet) for a in adapters]
        pipe.load_ip_adapter(files, subfolder=None, weight_name=[None] * len(files), image_encoder_folder=None)
        pipe.set_ip_adapter_scale([a["scale"] for a in adapters])
        more["ip_adapter_image"] = [[picture(*s) for s in a["sizes"]] for a in adapters]
    interval = guided_within(pipe, k["guidanceInterval"]) if "guidanceInterval" in k else contextlib.nullcontext()
    cache = cached(pipe, **k["deepCache"]) if "deepCache" in k else contextlib.nullcontext()
    with torch.no_grad(), interval, cache:
        return {n: v for n, v in k.items() if v is not None}, pipe(**more).images.float()


def main():
    diffusers.utils.logging.set_verbosity_error()
    cases, data, without = [], bytearray(), {}
    for name, kind, adapters, options in CASES:
        k, latents = run(kind, adapters, options)
        if not adapters:
            without[kind] = latents
        plain = without[kind]
        moved = f", from none {(latents - plain).norm() / plain.norm():.1e}" if latents.shape == plain.shape else ""
        print(f"{name:36} std {latents.std():.3f}{moved}", flush=True)
        cases.append(dict(name=name, kind=kind, adapters=adapters, options=k, latents=list(latents.shape), offset=len(data)))
        data += latents.numpy().astype("<f4").tobytes()
    encoders = {name: dict(config=config, tensors=[" ".join(map(str, [n.removeprefix("vision_model."), *p.shape])) for n, p in encoder(name).named_parameters()])
                for name, config in ENCODERS.items()}
    adapters = {}
    for name, (kind, its, _) in ADAPTERS.items():
        file = adapter(name, pipeline(kind, {}).unet)
        adapters[name] = dict(encoder=its, gain=GAIN, tensors=[" ".join(map(str, [f"{part}.{n}", *t.shape])) for part, tensors in file.items() for n, t in tensors.items()])
        if name == "plain":
            torch.save({part: {n: t.half() for n, t in tensors.items()} for part, tensors in file.items()}, OUT / "plain.bin")
    (OUT / "nets.json").write_text(json.dumps(dict(encoders=encoders, adapters=adapters), indent=0) + "\n")
    (OUT / "cases.json").write_text(json.dumps(cases, indent=0) + "\n")
    (OUT / "cases.bin").write_bytes(data)


if __name__ == "__main__":
    main()
