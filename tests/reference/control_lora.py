"""Control-LoRAs beside the tiny SDXL of pipelines.py: expected latents of the plain rule, W + up @ down of the UNet's own weights
in torch, run as diffusers' ControlNetModel, which itself knows no Control-LoRAs.

    python tests/reference/control_lora.py       # rewrites tests/reference/data/control_lora/

`nets.json`: the tensors of each file, by diffusers' names of their layers, with the prefix of the names that their values are
drawn from. `cases.json`: files, options, shape and place of the expected latents in `cases.bin` (f32, NCHW).
"""
import json, pathlib
import controlnet, diffusers, pipelines, torch
from diffusers import ControlNetModel
from models import weight
from pix2pix import merge

OUT = pathlib.Path(__file__).parent / "data" / "control_lora"
OUT.mkdir(parents=True, exist_ok=True)
GAIN = 0.7
# Prefix and rank. The second one's UNet has norms and some matrices of its own.
NETS = {"one": ("", 4), "two": ("second.", 8)}
FROM_THE_UNET = {"one": ("norm3.", "attn2.to_k."), "two": ()}
CONFIG = {k: v for k, v in controlnet.SDXL.items() if k != "gain"}
CASES = [
    ("none", [], {}),
    ("one", [dict(name="one", scale=0.9)], {}),
    ("two", [dict(name="one", scale=0.6), dict(name="two", scale=0.8, start=0.3)], {}),
    ("a LoRA over the UNet", [dict(name="one")], dict(lora=0.8)),
]


def drawn(name, shape):
    return torch.from_numpy(weight(name, tuple(shape), GAIN))


def build(name):
    """The ControlNet, and the tensors of its file."""
    prefix, rank = NETS[name]
    unet = dict(pipelines.pipeline("sdxl", {}).unet.named_parameters())
    model = ControlNetModel(**{k: v for k, v in controlnet.controlnet(**CONFIG).items() if k not in ("_class_name", "gain")})
    file = {}

    def own(key, shape):
        file[key] = list(shape)
        return drawn(prefix + key, shape)

    with torch.no_grad():
        for key, p in model.named_parameters():
            base = unet.get(key)
            if base is not None and any(part in key for part in FROM_THE_UNET[name]):
                p.copy_(base)
            elif base is None or p.dim() == 1:
                p.copy_(own(key, p.shape))
            else:
                layer = key.removesuffix(".weight")
                down = own(f"{layer}.down", (rank, *p.shape[1:]))
                up = own(f"{layer}.up", (p.shape[0], rank, *(1 for _ in p.shape[2:])))
                p.copy_(base + (up.flatten(1) @ down.flatten(1)).reshape(p.shape))
    return model.eval(), file


def base(options):
    """`pipeline` of pipelines.py, with a LoRA merged."""

    def made(kind, none):
        pipe = pipelines.pipeline(kind, none)
        if "lora" in options:
            merge(pipe.unet, options["lora"])
        return pipe

    return made


def main():
    diffusers.utils.logging.set_verbosity_error()
    controlnet.build = lambda name: build(name)[0]
    cases, data, plain = [], bytearray(), None
    for name, nets, options in CASES:
        controlnet.pipeline = base(options)
        nets = [dict(size=(56, 40)) | net for net in nets]
        k, latents = controlnet.run("sdxl", nets, options)
        plain = latents if plain is None else plain
        print(f"{name:22} std {latents.std():.3f}, from none {(latents - plain).norm() / plain.norm():.1e}")
        cases.append(dict(name=name, controlnets=nets, options=k, latents=list(latents.shape), offset=len(data)))
        data += latents.numpy().astype("<f4").tobytes()
    nets = {name: dict(prefix=prefix, gain=GAIN, tensors=[" ".join(map(str, [n, *shape])) for n, shape in build(name)[1].items()])
            for name, (prefix, _) in NETS.items()}
    (OUT / "nets.json").write_text(json.dumps(nets, indent=0) + "\n")
    (OUT / "cases.json").write_text(json.dumps(cases, indent=0) + "\n")
    (OUT / "cases.bin").write_bytes(data)


if __name__ == "__main__":
    main()
