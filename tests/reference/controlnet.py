"""ControlNets run by diffusers on the tiny random models of pipelines.py: expected latents.

    python tests/reference/controlnet.py       # rewrites tests/reference/data/controlnet/

`nets.json`: each ControlNet's configuration, its tensors' names and shapes, and the prefix of the names that its weights
are drawn from. `cases.json`: kind of model, ControlNets by name, the options of `generate`, shape and place of the expected
latents in `cases.bin` (f32, NCHW). The pictures are formulas, the same in tests/web/tests/controlnet.test.mjs.
"""
import json, pathlib
import cv2, diffusers, numpy as np, torch
from diffusers import ControlNetModel, ControlNetUnionModel
from models import controlnet, weight
from PIL import Image
from pipelines import pipeline

OUT = pathlib.Path(__file__).parent / "data" / "controlnet"
OUT.mkdir(parents=True, exist_ok=True)

SD1 = dict(conditioning_embedding_out_channels=[16, 32], gain=0.6)
SDXL = dict(conditioning_embedding_out_channels=[16, 16, 32], gain=0.6, attention_head_dim=[2, 4], use_linear_projection=True, addition_embed_type="text_time",
            addition_time_embed_dim=8, transformer_layers_per_block=[1, 2], projection_class_embeddings_input_dim=72, cross_attention_dim=64)
UNION = dict(_class_name="ControlNetUnionModel", num_control_type=6, num_trans_channel=32, num_trans_head=2, num_proj_channel=32)
MODES = ["openpose", "depth", "scribble", "canny", "normal", "segment", "tile", "repaint"]
NETS = {
    "one": ("", controlnet(**SD1)),
    "two": ("second.", controlnet(**SD1)),
    "pooled": ("third.", controlnet(**SD1, global_pool_conditions=True)),
    "sd2": ("", controlnet(conditioning_embedding_out_channels=[8, 12, 16, 24], gain=0.6, block_out_channels=[32, 64, 64], layers_per_block=1, attention_head_dim=[2, 4, 4],
                           use_linear_projection=True, down_block_types=["CrossAttnDownBlock2D"] * 2 + ["DownBlock2D"], controlnet_conditioning_channel_order="bgr")),
    "sdxl-one": ("", controlnet(**SDXL)),
    "sdxl-two": ("second.", controlnet(**SDXL)),
    "union": ("", controlnet(**SDXL, **UNION)),
    "promax": ("promax.", controlnet(**SDXL, **UNION | dict(num_control_type=8, num_trans_layer=2))),
}


def build(name):
    prefix, config = NETS[name]
    cls = ControlNetUnionModel if "Union" in config["_class_name"] else ControlNetModel
    model = cls(**{k: v for k, v in config.items() if k not in ("_class_name", "gain")})
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.copy_(torch.from_numpy(weight(prefix + n, tuple(p.shape), config["gain"])))
    return model.eval()


def picture(w, h):
    y, x = np.mgrid[:h, :w]
    return Image.fromarray(np.stack([(x * 4) & 255, (y * 6) & 255, (x * y) & 255], -1).astype(np.uint8))


def mask(w, h):
    y, x = np.mgrid[:h, :w]
    return Image.fromarray((((x >= w // 4) & (x < w * 3 // 4) & (y >= h // 4) & (y < h // 2)) * 255).astype(np.uint8))


def edges(image, low, high):
    return Image.fromarray(np.repeat(cv2.Canny(np.asarray(image), low, high)[..., None], 3, -1))


def net(name, size=(56, 40), **k):
    return dict(name=name, size=size, **k)


CASES = [
    # name, kind, ControlNets, options
    ("none", "sd1", [], {}),
    ("one", "sd1", [net("one", scale=0.8)], {}),
    ("two", "sd1", [net("one", scale=0.6), net("two", scale=1.1)], {}),
    ("a picture of another size", "sd1", [net("one", size=(100, 33))], {}),
    ("start and end", "sd1", [net("one", start=0.2, end=0.7)], dict(numInferenceSteps=6)),
    ("two, start and end of each", "sd1", [net("one", end=0.5), net("two", scale=0.7, start=0.4)], dict(numInferenceSteps=6)),
    ("guess mode", "sd1", [net("one", scale=0.8)], dict(guessMode=True)),
    ("guess mode, two", "sd1", [net("one", scale=0.6), net("two", scale=0.9)], dict(guessMode=True)),
    ("guess mode without guidance", "sd1", [net("one")], dict(guessMode=True, guidanceScale=1)),
    ("without guidance", "sd1", [net("two")], dict(guidanceScale=1)),
    ("global_pool_conditions", "sd1", [net("pooled")], {}),
    ("PNDM, end", "sd1", [net("one", end=0.6)], dict(scheduler=None, numInferenceSteps=5)),
    ("two pictures", "sd1", [net("one", scale=0.7)], dict(numImages=2)),
    ("canny", "sd1", [net("one", size=(90, 70), preprocess="canny", low=60, high=150)], {}),
    ("image to image", "sd1", [net("one", scale=0.7, end=0.8)], dict(strength=0.75, numInferenceSteps=6)),
    ("inpainting", "sd1", [net("one", scale=0.7), net("two", scale=0.5)], dict(strength=0.75, mask=True)),
    ("sd2, bgr", "sd2", [net("sd2", size=(88, 104))], dict(width=88, height=104)),
    ("sdxl", "sdxl", [net("sdxl-one", scale=0.9)], {}),
    *[(f"union, {mode}", "sdxl", [net("union", scale=0.8, mode=mode)], {}) for mode in MODES[:6]],
    ("union, two at once", "sdxl", [net("union", scale=0.7, mode="depth"), net("union", scale=1.2, size=(90, 70), mode="canny", preprocess="canny", low=60, high=150)], {}),
    # Of two at once diffusers adds something after their end too: its pictures are scaled by 0 then, and its results by 1.
    ("union, start and end", "sdxl", [net("union", scale=0.7, mode="segment", start=0.2, end=0.8)], {}),
    ("promax, tile", "sdxl", [net("promax", scale=0.9, mode="tile")], {}),
    ("sdxl, two in guess mode, start", "sdxl", [net("sdxl-one"), net("sdxl-two", scale=0.6, start=0.3)], dict(guessMode=True)),
]
CLASSES = {
    ("sd", "text"): "StableDiffusionControlNetPipeline", ("sd", "image"): "StableDiffusionControlNetImg2ImgPipeline",
    ("sd", "mask"): "StableDiffusionControlNetInpaintPipeline", ("xl", "text"): "StableDiffusionXLControlNetPipeline",
}


def run(kind, nets, options):
    base = pipeline(kind, {})
    k = dict(prompt="a red apple", width=56, height=40, numInferenceSteps=4, guidanceScale=3, seed=5, scheduler="ddim") | options
    size = (k["width"], k["height"])
    if k["scheduler"]:
        base.scheduler = diffusers.DDIMScheduler.from_config(base.scheduler.config)
    images = [picture(*n["size"]) for n in nets]
    # Edges are found at the size to draw.
    images = [edges(i.resize(size, Image.LANCZOS), n["low"], n["high"]) if n.get("preprocess") == "canny" else i for i, n in zip(images, nets)]
    more = dict(prompt=k["prompt"], width=k["width"], height=k["height"], num_inference_steps=k["numInferenceSteps"], guidance_scale=k["guidanceScale"],
                num_images_per_prompt=k.get("numImages", 1), generator=torch.Generator("cpu").manual_seed(k["seed"]), output_type="latent")
    pipe = base
    if nets:
        way = "mask" if k.get("mask") else "image" if "strength" in k else "text"
        models = [build(n["name"]) for n in nets]
        parts = dict(base.components, controlnet=models if len(models) > 1 else models[0])
        if kind == "sdxl":
            parts |= dict(force_zeros_for_empty_prompt=True, add_watermarker=False)
        else:
            parts |= dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
        parts.pop("image_encoder", None)
        union = "mode" in nets[0]
        if union:
            parts |= dict(controlnet=models[0])
        pipe = (diffusers.StableDiffusionXLControlNetUnionPipeline if union else getattr(diffusers, CLASSES["xl" if kind == "sdxl" else "sd", way]))(**parts)
        pipe.set_progress_bar_config(disable=True)
        each = lambda key, usual: [n.get(key, usual) for n in nets] if len(nets) > 1 else nets[0].get(key, usual)
        control = images if len(nets) > 1 else images[0]
        more |= dict(image=control) if way == "text" else dict(image=picture(*size), control_image=control, strength=k["strength"])
        if union:
            more = {k: v for k, v in more.items() if k != "image"} | dict(control_image=images, control_mode=[MODES.index(n["mode"]) for n in nets])
        more |= dict(mask_image=mask(*size)) if way == "mask" else {}
        more |= dict(controlnet_conditioning_scale=each("scale", 1.0), control_guidance_start=each("start", 0.0), control_guidance_end=each("end", 1.0),
                     guess_mode=k.get("guessMode", False))
        if union:  # its pictures are seen during the same steps
            more |= dict(control_guidance_start=nets[0].get("start", 0.0), control_guidance_end=nets[0].get("end", 1.0))
    with torch.no_grad():
        return {n: v for n, v in k.items() if v is not None}, pipe(**more).images.float()


def main():
    diffusers.utils.logging.set_verbosity_error()
    cases, data, plain = [], bytearray(), {}
    for name, kind, nets, options in CASES:
        k, latents = run(kind, nets, options)
        if name == "none":
            plain = latents
        moved = f", from none {(latents - plain).norm() / plain.norm():.1e}" if latents.shape == plain.shape else ""
        print(f"{name:32} std {latents.std():.3f}{moved}")
        cases.append(dict(name=name, kind=kind, controlnets=nets, options=k, latents=list(latents.shape), offset=len(data)))
        data += latents.numpy().astype("<f4").tobytes()
    nets = {}
    for name, (prefix, config) in NETS.items():
        tensors = [" ".join(map(str, [n, *p.shape])) for n, p in build(name).named_parameters()]
        nets[name] = dict(prefix=prefix, config=config, tensors=tensors)
    (OUT / "nets.json").write_text(json.dumps(nets, indent=0) + "\n")
    (OUT / "cases.json").write_text(json.dumps(cases, indent=0) + "\n")
    (OUT / "cases.bin").write_bytes(data)


if __name__ == "__main__":
    main()
