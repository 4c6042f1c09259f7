"""ControlNet-LLLites on tiny random models: expected latents. diffusers does not know them, so hooks on its UNet's layers compute
the formula of kohya-ss/sd-scripts (`networks/control_net_lllite.py`): a layer reads x + scale * up(relu(mid(seen, relu(down(x))))).

    python tests/reference/lllite.py       # rewrites tests/reference/data/lllite/

`nets.json`: each file's tensors, their names and shapes, and the prefix of the names that its weights are drawn from; `xl.json`: a
UNet and a VAE of SDXL's kind with levels at an 8th, a 16th and a 32nd. `cases.json`: kind of model, files, options, shape and
place of the expected latents in `cases.bin` (f32, NCHW). Of several files, the next one reads what the one before made, and
each acts on both halves of the batch, as in ControlNet-LLLite-ComfyUI.
"""
import copy, json, pathlib
import diffusers, numpy as np, pipelines, t2i_adapter, torch
from controlnet import picture
from models import weight
from pix2pix import merge
from PIL import Image
from torch.nn.functional import conv2d, linear, relu

OUT = pathlib.Path(__file__).parent / "data" / "lllite"
OUT.mkdir(parents=True, exist_ok=True)
GAIN = 0.9
XL = copy.deepcopy(pipelines.KINDS["sdxl"])
XL["components"]["unet"] |= t2i_adapter.DEEP
XL["components"]["vae"] |= {k: v for k, v in pipelines.KINDS["sd2"]["components"]["vae"].items() if k in ("block_out_channels", "down_block_types", "up_block_types")}
KINDS = {**pipelines.KINDS, "xl": XL}

QKV = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_q")
BELOW = ("down_blocks", "mid_block")
# Kind of model, prefix, channels of what is seen and within, and which layers.
NETS = {
    "one": ("sd2", "", 16, 16, lambda name: name.startswith(BELOW) and name.endswith(QKV)),
    # One of three layers that read the same, what is not attention, convolutions, the way up.
    "two": ("sd2", "second.", 8, 12, lambda name: name.startswith(BELOW) and name.endswith(("attn1.to_q", "conv1", "conv2", "conv_shortcut", "proj_in", "ff.net.0.proj"))
            or name.startswith("up_blocks") and name.endswith(("attn2.to_q", "attn1.to_out.0", "ff.net.2", "proj_out"))),
    "xl-one": ("xl", "", 32, 64, lambda name: name.startswith(BELOW) and name.endswith(QKV)),
    "xl-two": ("xl", "second.", 16, 16, lambda name: name.startswith(BELOW) and name.endswith(QKV)),
    # Beside latents at half the picture's size, the one convolution that leads there.
    "sd1": ("sd1", "", 8, 8, lambda name: name.startswith(BELOW) and name.endswith(QKV)),
}
SQUARES = {2: [2], 4: [4], 8: [4, 2], 16: [4, 4], 32: [4, 4, 2]}


def net(name, size=(90, 70), **k):
    return dict(name=name, size=size, **k)


CASES = [
    ("none", "sd2", [], {}),
    ("one", "sd2", [net("one", scale=0.8)], {}),
    ("another", "sd2", [net("two", scale=0.6)], {}),
    ("two", "sd2", [net("one", scale=0.6), net("two", size=(64, 64), scale=-0.5)], {}),
    ("the same twice", "sd2", [net("one", scale=0.6), net("one", size=(64, 64), scale=0.4)], {}),
    ("start and end", "sd2", [net("one", start=0.2, end=0.7)], dict(numInferenceSteps=6)),
    ("two, start and end of each", "sd2", [net("one", end=0.5), net("two", scale=0.7, start=0.4)], dict(numInferenceSteps=6)),
    ("without guidance", "sd2", [net("one")], dict(guidanceScale=1)),
    ("two pictures", "sd2", [net("one", scale=0.7)], dict(numImages=2)),
    ("LoRA", "sd2", [net("one")], dict(lora=0.8)),
    ("beside a T2I-Adapter", "sd2", [net("full", scale=0.8), net("one", scale=0.7, start=0.2)], dict(numInferenceSteps=6)),
    ("sd1", "sd1", [net("sd1", scale=0.9)], {}),
    ("xl, none", "xl", [], {}),
    ("xl", "xl", [net("xl-one", scale=0.9)], {}),
    ("xl, two, start and end", "xl", [net("xl-one", scale=0.7, end=0.7), net("xl-two", scale=1.1, start=0.3)], dict(numInferenceSteps=6)),
]


def original(name, layers):
    """The flat name that the original code has for a UNet's layer."""
    part, *rest = name.split(".")
    if part == "mid_block":
        place, inner = dict(resnets=2 * int(rest[1]), attentions=1)[rest[0]], rest[2:]
        start = f"middle_block_{place}"
    else:
        block, what, layer, *inner = rest
        number = int(block) * (layers + 1) + int(layer) + (part == "down_blocks")
        start = f"{'input' if part == 'down_blocks' else 'output'}_blocks_{number}_{int(what == 'attentions')}"
    inner = "_".join(inner)
    return f"lllite_unet_{start}_" + dict(conv1="in_layers_2", conv2="out_layers_3", conv_shortcut="skip_connection").get(inner, inner)


def modules(name):
    """Of each layer that a file changes: its name, that of the module, and the module's shapes and sides of squares."""
    kind, _, seen, within, chosen = NETS[name]
    config = KINDS[kind]["components"]
    unet, scale = pipelines.build(config["unet"]), 2 ** (len(config["vae"]["block_out_channels"]) - 1)
    last = len(config["unet"]["block_out_channels"]) - 1
    for layer, own in unet.named_modules():
        if not chosen(layer) or not isinstance(own, (torch.nn.Linear, torch.nn.Conv2d)):
            continue
        part, number = layer.split(".")[:2]
        level = dict(down_blocks=int(number) if part == "down_blocks" else 0, mid_block=last, up_blocks=last - int(number) if part == "up_blocks" else 0)[part]
        is_conv = isinstance(own, torch.nn.Conv2d)
        width, ones = own.weight.shape[1], (1, 1) if is_conv else ()
        sides, shapes, channels = SQUARES[scale * 2**level], {}, 3
        for i, side in enumerate(sides):
            out = seen if i + 1 == len(sides) else seen // 2
            shapes[f"conditioning1.{2 * i}"] = (out, channels, side, side)
            channels = out
        shapes |= {"down.0": (within, width, *ones), "mid.0": (within, within + seen, *ones), "up.0": (width, within, *ones)}
        yield layer, original(layer, config["unet"]["layers_per_block"] if "layers_per_block" in config["unet"] else 2), shapes, sides


def tensors(name):
    for _, module, shapes, _ in modules(name):
        for layer, shape in shapes.items():
            yield f"{module}.{layer}.weight", shape
            yield f"{module}.{layer}.bias", shape[:1]


def act(unet, net, size, total, steps):
    """Hooks: before each run of the UNet the one counts it in `steps`, the others change what layers read."""
    image = np.asarray(picture(*net["size"]).resize(size, Image.LANCZOS), dtype=np.float32)
    image = torch.from_numpy(image / 127.5 - 1).permute(2, 0, 1)[None]
    prefix = NETS[net["name"]][1]

    for layer, module, shapes, sides in modules(net["name"]):
        own = {key: torch.from_numpy(weight(f"{prefix}{module}.{key}.weight", shape, GAIN)) for key, shape in shapes.items()}
        bias = {key: torch.from_numpy(weight(f"{prefix}{module}.{key}.bias", shape[:1], GAIN)) for key, shape in shapes.items()}
        seen = image
        for i, side in enumerate(sides):
            seen = conv2d(relu(seen) if i else seen, own[f"conditioning1.{2 * i}"], bias[f"conditioning1.{2 * i}"], stride=side)
        rows = seen.flatten(2).transpose(1, 2)

        def read(layer, given, rows=rows, own=own, bias=bias, net=net):
            now = steps[0] - 1
            if now / total < net.get("start", 0.0) or (now + 1) / total > net.get("end", 1.0):
                return given
            x = given[0]
            flat = x.flatten(2).transpose(1, 2) if x.dim() == 4 else x
            assert flat.shape[1] == rows.shape[1], (flat.shape, rows.shape)
            product = lambda key, x: linear(x, own[key].flatten(1), bias[key])
            within = relu(product("mid.0", torch.cat([rows.expand(len(flat), -1, -1), relu(product("down.0", flat))], 2)))
            more = product("up.0", within) * net.get("scale", 1.0)
            return (x + (more.transpose(1, 2).reshape(x.shape) if x.dim() == 4 else more), *given[1:])

        unet.get_submodule(layer).register_forward_pre_hook(read)


def run(kind, nets, options):
    k = dict(prompt="a red apple", width=96, height=64, numInferenceSteps=4, guidanceScale=3, seed=5, scheduler="ddim") | options
    pipelines.KINDS = KINDS
    pipe = pipelines.pipeline(kind, {})
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    if "lora" in k:
        merge(pipe.unet, k["lora"])
    steps = [0]

    def count(*_):
        steps[0] += 1

    pipe.unet.register_forward_pre_hook(count)
    more = {}
    # Hooks run in the order in which they came.
    for n in nets:
        if n["name"] in NETS:
            act(pipe.unet, n, (k["width"], k["height"]), k["numInferenceSteps"], steps)
            continue
        parts = {name: v for name, v in pipe.components.items() if name not in ("image_encoder", "feature_extractor", "safety_checker")}
        pipe = diffusers.StableDiffusionAdapterPipeline(**parts, adapter=t2i_adapter.build(n["name"]), safety_checker=None, feature_extractor=None, requires_safety_checker=False)
        pipe.set_progress_bar_config(disable=True)
        more = dict(image=picture(*n["size"]), adapter_conditioning_scale=n["scale"])
    with torch.no_grad():
        latents = pipe(prompt=k["prompt"], width=k["width"], height=k["height"], num_inference_steps=k["numInferenceSteps"], guidance_scale=k["guidanceScale"],
                       num_images_per_prompt=k.get("numImages", 1), generator=torch.Generator("cpu").manual_seed(k["seed"]), output_type="latent", **more).images.float()
    assert steps[0] == k["numInferenceSteps"]
    return k, latents


def main():
    diffusers.utils.logging.set_verbosity_error()
    cases, data, plain = [], bytearray(), {}
    for name, kind, nets, options in CASES:
        k, latents = run(kind, nets, options)
        base = plain.setdefault((kind, latents.shape), latents) if not nets else plain.get((kind, latents.shape))
        moved = f", from none {(latents - base).norm() / base.norm():.1e}" if base is not None else ""
        print(f"{name:28} std {latents.std():.3f}{moved}")
        cases.append(dict(name=name, kind=kind, controlnets=nets, options=k, latents=list(latents.shape), offset=len(data)))
        data += latents.numpy().astype("<f4").tobytes()
    nets = {name: dict(prefix=NETS[name][1], gain=GAIN, tensors=[" ".join(map(str, [n, *shape])) for n, shape in tensors(name)]) for name in NETS}
    components = {part: KINDS["xl"]["components"][part] for part in ("unet", "vae")}
    (OUT / "nets.json").write_text(json.dumps(nets, indent=0) + "\n")
    (OUT / "xl.json").write_text(json.dumps(dict(components=components, tensors={part: pipelines.tensors(c) for part, c in components.items()}), indent=0) + "\n")
    (OUT / "cases.json").write_text(json.dumps(cases, indent=0) + "\n")
    (OUT / "cases.bin").write_bytes(data)


if __name__ == "__main__":
    main()
