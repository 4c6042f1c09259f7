"""Small RRDBNets of random weights under each of their names, and what spandrel makes of a picture with them.

    python tests/reference/upscaler.py        # rewrites tests/reference/data/upscaler/

`index.json`: for each file its scale, and shape and place in `pictures.bin` of the picture enlarged (RGB, bytes). The
picture is a formula, the same in tests/pictures.rs and tests/web/tests/pictures.test.mjs; spandrel's own code tells from the
names what network it is.
"""
import json, pathlib
import numpy as np, torch
from safetensors.torch import save_file
from spandrel import ModelLoader
from spandrel.architectures.ESRGAN.__arch.RRDB import B, RRDBNet
from pictures import picture

GROWTH = 4  # spandrel takes it for 32, as it is in all that is published: files of 20 KB need a smaller one
rrdb = B.RRDB
B.RRDB = lambda **more: rrdb(**(more | dict(gc=GROWTH)))

OUT = pathlib.Path(__file__).parent / "data/upscaler"
W, H = 21, 15  # odd: what is unshuffled is padded

# file: shuffle, doublings, blocks, width
FILES = {
    "x4plus.pth": (1, 2, 1, 8),
    "x2plus.pth": (2, 2, 1, 8),
    "esrgan-trunk.pth": (1, 2, 1, 8),
    "esrgan-old.safetensors": (1, 2, 2, 8),
    "esrgan-old-2x.pth": (1, 1, 1, 8),
}


def convs(shuffle, ups, blocks, f, g):
    yield "conv_first", 3 * shuffle**2, f
    for i in range(blocks):
        for j in (1, 2, 3):
            for k in range(1, 6):
                yield f"body.{i}.rdb{j}.conv{k}", f + (k - 1) * g, f if k == 5 else g
    yield "conv_body", f, f
    for i in range(ups):
        yield f"conv_up{i + 1}", f, f
    yield "conv_hr", f, f
    yield "conv_last", f, 3


def old(name, ups, blocks):
    """The names of ESRGAN's first release."""
    part = name.split(".")
    if part[0] == "body":
        return f"model.1.sub.{part[1]}.{part[2].upper()}.{part[3]}.0"
    place = {"conv_first": "0", "conv_body": f"1.sub.{blocks}", "conv_hr": str(2 + 3 * ups), "conv_last": str(4 + 3 * ups)}
    return f"model.{place.get(name) or 3 * int(name[7:])}"


def trunk(name):
    """The names of ESRGAN's second release."""
    part = name.split(".")
    if part[0] == "body":
        return f"RRDB_trunk.{part[1]}.{part[2].upper()}.{part[3]}"
    return {"conv_body": "trunk_conv", "conv_hr": "HRconv"}.get(name, name.replace("conv_up", "upconv"))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    index, data = [], bytearray()
    x = torch.from_numpy(np.array(picture(W, H))).permute(2, 0, 1)[None].float() / 255
    for file, (shuffle, ups, blocks, f) in FILES.items():
        state = {}
        for name, inputs, outputs in convs(shuffle, ups, blocks, f, GROWTH):
            named = old(name, ups, blocks) if "old" in file else trunk(name) if "trunk" in file else name
            bound = (3.3 / (9 * inputs)) ** 0.5
            state[f"{named}.weight"] = torch.from_numpy(rng.uniform(-bound, bound, (outputs, inputs, 3, 3))).half()
            state[f"{named}.bias"] = torch.from_numpy(rng.uniform(-0.1, 0.1, outputs) + 0.5 * (name == "conv_last")).half()
        if file.endswith(".safetensors"):
            save_file(state, OUT / file)
        else:
            # Real-ESRGAN's files wrap it; the averaged weights are the ones to use, the others may be anything.
            other = {k: torch.zeros_like(v) for k, v in state.items()} if file == "x4plus.pth" else None
            torch.save({"params": other, "params_ema": state} if other else {"params_ema": state} if "plus" in file else state, OUT / file)
        model = ModelLoader().load_from_file(OUT / file)
        assert isinstance(model.model, RRDBNet) and model.scale == 2**ups // shuffle
        with torch.no_grad():
            y = model.model.float()(x)[0, :, : H * model.scale, : W * model.scale].permute(1, 2, 0)
        clipped = float(((y < 0) | (y > 1)).float().mean())
        out = (y.clamp(0, 1) * 255).round().byte().numpy()
        print(file, (OUT / file).stat().st_size, "bytes, scale", model.scale, out.shape, "std", out.std().round(1), "clipped", round(clipped, 3))
        index.append(dict(file=file, scale=model.scale, height=out.shape[0], width=out.shape[1], offset=len(data)))
        data += out.tobytes()
    (OUT / "pictures.bin").write_bytes(data)
    (OUT / "index.json").write_text(json.dumps(dict(picture=[W, H], files=index), indent=0) + "\n")


if __name__ == "__main__":
    main()
