"""Inputs and outputs of the networks of Stable Diffusion 1.5 and SDXL base at full size, computed by diffusers and
transformers in f32 from the random weights in .tools/real, for `./build.sh bench --parity`, which writes those weights first.

    tests/reference/run.sh parity.py

Writes .tools/real/parity/<model>.<part>.safetensors, unless it is there and newer than the weights. One network at a time is
in memory; SDXL's UNet takes 10 GB.
"""
import gc, json, pathlib
import torch
from diffusers.models.embeddings import get_timestep_embedding
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from models import CLASSES, canonical, nhwc, randn

REAL = pathlib.Path(__file__).parent.parent.parent / ".tools" / "real"
OUT = REAL / "parity"


def build(folder):
    """The network in f32, with the weights of the folder: each is read and converted by itself."""
    config = json.loads((folder / "config.json").read_text())
    with torch.device("meta"):
        if "architectures" in config:
            model = CLASSES[config["architectures"][0]](CLIPTextConfig(**{k: v for k, v in config.items() if k != "architectures"}))
        else:
            model = CLASSES[config["_class_name"]](**{k: v for k, v in config.items() if k != "_class_name"})
    (path,) = folder.glob("*.safetensors")
    with safe_open(path, "pt") as file:
        weights = {canonical(name): file.get_tensor(name).float() for name in file.keys()}
    own = {canonical(name): name for name, _ in model.named_parameters()}
    assert own.keys() == weights.keys(), f"{folder}: {sorted(own.keys() ^ weights.keys())[:5]}"
    model.load_state_dict({own[name]: weights.pop(name) for name in list(weights)}, strict=False, assign=True)
    for name, buffer in model.named_buffers():  # position ids; not in the file
        if buffer.is_meta:
            module, _, last = name.rpartition(".")
            assert last == "position_ids", name
            model.get_submodule(module).register_buffer(last, torch.arange(buffer.shape[-1]).expand(buffer.shape), persistent=False)
    return model.eval()


def text(model):
    ids = torch.randint(3, 40000, (1, 77), generator=torch.Generator().manual_seed(1))
    ids[0, 0], ids[0, 12:] = 49406, 49407
    out = model(input_ids=ids, output_hidden_states=True)
    outputs = {"last_hidden_state": out.last_hidden_state, "penultimate": out.hidden_states[-2]}
    pooled = "text_embeds" if isinstance(model, CLIPTextModelWithProjection) else "pooler_output"
    outputs[pooled] = out[pooled]
    return {"input_ids": ids.int()}, outputs


def unet(model, side, batch):
    c, t = model.config, torch.tensor([601.0] * batch)
    sample, context = randn(2, batch, 4, side, side), randn(3, batch, 77, c.cross_attention_dim)
    inputs = {"sample": nhwc(sample), "encoder_hidden_states": context,
              "t_emb": get_timestep_embedding(t, c.block_out_channels[0], flip_sin_to_cos=True, downscale_freq_shift=0)}
    more = {}
    if c.addition_embed_type:
        size = float(8 * side)
        text_embeds, time_ids = randn(5, 1, 1280), torch.tensor([[size, size, 0, 0, size, size]])
        more["added_cond_kwargs"] = {"text_embeds": text_embeds, "time_ids": time_ids}
        inputs |= {"text_embeds": text_embeds, "time_ids": get_timestep_embedding(time_ids.flatten(), c.addition_time_embed_dim, flip_sin_to_cos=True, downscale_freq_shift=0).reshape(1, -1)}
    return inputs, {"out_sample": nhwc(model(sample, t, context, **more).sample)}


def decode(model, side):
    latents = randn(6, 1, 4, side, side)
    return {"latents": nhwc(latents)}, {"decoded": nhwc(model.decode(latents).sample)}


# What is computed of each network. Stable Diffusion 1.5's UNet has two pictures, as with guidance: its attention is then cut into
# several dispatches. SDXL's VAE has the weights' shapes of Stable Diffusion 1.5's.
CASES = {
    "sd15": {"text_encoder": text, "unet": lambda m: unet(m, 64, 2), "vae": lambda m: decode(m, 64)},
    "sdxl": {"text_encoder": text, "text_encoder_2": text, "unet": lambda m: unet(m, 32, 1), "vae": lambda m: decode(m, 16)},
}


def main():
    if not REAL.is_dir():
        print("no weights: ./build.sh bench --parity writes them")
        return
    OUT.mkdir(parents=True, exist_ok=True)
    for model, parts in CASES.items():
        for part, run in parts.items():
            folder, out = REAL / model / part, OUT / f"{model}.{part}.safetensors"
            (weights,) = folder.glob("*.safetensors")
            if out.exists() and out.stat().st_mtime > max(weights.stat().st_mtime, pathlib.Path(__file__).stat().st_mtime):
                continue
            with torch.no_grad():
                inputs, outputs = run(build(folder))
            gc.collect()
            for name, x in outputs.items():
                print(f"{model} {part:15} {name:18} {str(tuple(x.shape)):20} std {x.std():.3f}", flush=True)
            save_file({f"{part}.{n}": x.contiguous() for n, x in (inputs | outputs).items()}, out)


if __name__ == "__main__":
    main()
