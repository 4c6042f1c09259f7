"""T2I-Adapters run by diffusers on tiny random models: expected latents.

    python tests/reference/t2i_adapter.py       # rewrites tests/reference/data/t2i_adapter/

`adapters.json`: each adapter's configuration, its tensors' names and shapes, and the prefix of the names that its weights are
drawn from; `deep.json`: a UNet of SDXL's kind whose middle has a feature too. `cases.json`: kind of model, adapters, options,
shape and place of the expected latents in `cases.bin` (f32, NCHW). Pictures are formulas, the same in
tests/web/tests/t2i-adapter.test.mjs.
"""
import copy, json, pathlib
import diffusers, pipelines, torch
from controlnet import picture
from diffusers import MultiAdapter, T2IAdapter
from models import weight
from pix2pix import merge

OUT = pathlib.Path(__file__).parent / "data" / "t2i_adapter"
OUT.mkdir(parents=True, exist_ok=True)
GAIN = 0.9
ADAPTERS = {
    "full": ("", dict(adapter_type="full_adapter", channels=[32, 64, 64], downscale_factor=8)),
    "grey": ("grey.", dict(adapter_type="full_adapter", channels=[32, 64, 64], downscale_factor=8, in_channels=1)),
    "light": ("", dict(adapter_type="light_adapter", channels=[32, 64], num_res_blocks=4, downscale_factor=8)),
    # Its last two are of no size that this UNet has.
    "xl": ("", dict(adapter_type="full_adapter_xl", channels=[32, 64, 64, 64], downscale_factor=8)),
    "deep": ("deep.", dict(adapter_type="full_adapter_xl", channels=[32, 64, 64, 64], downscale_factor=8)),
}
DEEP = dict(block_out_channels=[32, 64, 64], layers_per_block=1, attention_head_dim=[2, 4, 4], transformer_layers_per_block=[1, 2, 1],
            down_block_types=["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2, up_block_types=["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"])
KINDS = {**pipelines.KINDS, "deep": copy.deepcopy(pipelines.KINDS["sdxl"])}
KINDS["deep"]["components"]["unet"] |= DEEP


def net(name, size=(90, 70), **k):
    return dict(name=name, size=size, **k)


CASES = [
    ("none", "sd2", [], {}),
    ("full", "sd2", [net("full", scale=0.8)], {}),
    ("light", "sd2", [net("light")], {}),
    ("grey", "sd2", [net("grey", scale=0.9)], {}),
    ("two", "sd2", [net("full", scale=0.6), net("light", size=(64, 64), scale=1.1)], {}),
    ("without guidance", "sd2", [net("full")], dict(guidanceScale=1)),
    ("two pictures", "sd2", [net("light", scale=0.7)], dict(numImages=2)),
    ("LoRA", "sd2", [net("full")], dict(lora=0.8)),
    ("xl", "sdxl", [net("xl", scale=0.9)], {}),
    ("xl, end", "sdxl", [net("xl", end=0.6)], dict(numInferenceSteps=6)),
    ("xl, middle", "deep", [net("deep", scale=1.2)], {}),
]


def build(name):
    prefix, config = ADAPTERS[name]
    model = T2IAdapter(**config)
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.copy_(torch.from_numpy(weight(prefix + n, tuple(p.shape), GAIN)))
    return model.eval()


def run(kind, nets, options):
    k = dict(prompt="a red apple", width=72, height=88, numInferenceSteps=4, guidanceScale=3, seed=5, scheduler="ddim") | options
    pipelines.KINDS = KINDS
    pipe = pipelines.pipeline(kind, {})
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    if "lora" in k:
        merge(pipe.unet, k["lora"])
    more = {}
    if nets:
        images = [picture(*n["size"]).convert("L" if ADAPTERS[n["name"]][1].get("in_channels") == 1 else "RGB") for n in nets]
        parts = {n: v for n, v in pipe.components.items() if n not in ("image_encoder", "feature_extractor", "safety_checker")}
        adapters = [build(n["name"]) for n in nets]
        parts |= dict(adapter=MultiAdapter(adapters) if len(nets) > 1 else adapters[0])
        if "text_encoder_2" in parts:
            pipe = diffusers.StableDiffusionXLAdapterPipeline(**parts, force_zeros_for_empty_prompt=True)
            more |= dict(adapter_conditioning_factor=nets[0].get("end", 1.0))
        else:
            pipe = diffusers.StableDiffusionAdapterPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
        pipe.set_progress_bar_config(disable=True)
        scales = [n.get("scale", 1.0) for n in nets]
        more |= dict(image=images if len(nets) > 1 else images[0], adapter_conditioning_scale=scales if len(nets) > 1 else scales[0])
    with torch.no_grad():
        return k, pipe(prompt=k["prompt"], width=k["width"], height=k["height"], num_inference_steps=k["numInferenceSteps"], guidance_scale=k["guidanceScale"],
                       num_images_per_prompt=k.get("numImages", 1), generator=torch.Generator("cpu").manual_seed(k["seed"]), output_type="latent", **more).images.float()


def main():
    diffusers.utils.logging.set_verbosity_error()
    cases, data, plain = [], bytearray(), None
    for name, kind, nets, options in CASES:
        if kind != "sd2":
            options = dict(width=80, height=48) | options
        k, latents = run(kind, nets, options)
        plain = latents if plain is None else plain
        moved = f", from none {(latents - plain).norm() / plain.norm():.1e}" if latents.shape == plain.shape else ""
        print(f"{name:18} std {latents.std():.3f}{moved}")
        cases.append(dict(name=name, kind=kind, controlnets=nets, options=k, latents=list(latents.shape), offset=len(data)))
        data += latents.numpy().astype("<f4").tobytes()
    nets = {}
    for name, (prefix, config) in ADAPTERS.items():
        tensors = [" ".join(map(str, [n, *p.shape])) for n, p in build(name).named_parameters()]
        nets[name] = dict(prefix=prefix, gain=GAIN, config=dict(_class_name="T2IAdapter", **config), tensors=tensors)
    config = KINDS["deep"]["components"]["unet"]
    (OUT / "adapters.json").write_text(json.dumps(nets, indent=0) + "\n")
    (OUT / "deep.json").write_text(json.dumps(dict(config=config, tensors=pipelines.tensors(config)), indent=0) + "\n")
    (OUT / "cases.json").write_text(json.dumps(cases, indent=0) + "\n")
    (OUT / "cases.bin").write_bytes(data)


if __name__ == "__main__":
    main()
