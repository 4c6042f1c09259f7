"""LoRAs of the kinds that PEFT does not merge, with weights in f64 by the rules of the software that made them.

    python tests/reference/lora_kinds.py        # adds to tests/reference/data/lora/, beside the files of lora.py

- dora_columns: `dora_scale` [1, n] is over the input axis (LyCORIS `modules/locon.py`,
  `apply_weight_decompose` with `wd_on_out` false; ComfyUI `weight_adapter/base.py`, `weight_decompose`).
- diff: `.diff` is added as it is (ComfyUI `lora.py`); comfy: its extraction's names, `diffusion_model.`.
- alpha_metadata, alpha_pattern, alpha_rslora: PEFT's `lora_alpha` in the header (diffusers `loaders/lora_base.py`;
  PEFT `tuners/lora/layer.py`, `update_layer`).
"""
import json, pathlib, torch
from safetensors.torch import load_file, save_file

OUT = pathlib.Path(__file__).parent / "data" / "lora"
LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "down_blocks.0.resnets.0.conv1"
ORIGINAL = {LINEAR: "input_blocks.1.1.transformer_blocks.0.attn1.to_q", CONV: "input_blocks.1.0.in_layers.2"}
base = {k: v.double() for k, v in load_file(OUT / "base.safetensors").items()}
random = torch.Generator().manual_seed(14)
draw = lambda *shape: torch.randn(*shape, generator=random) * 0.3
flat = lambda module: "lora_unet_" + module.replace(".", "_")


def write(name, file, merged, metadata=None):
    save_file({k: v.contiguous() for k, v in file.items()}, OUT / f"{name}.safetensors", metadata)
    save_file({k: merged.get(k, base[k]).float().contiguous() for k in base}, OUT / f"{name}.merged.safetensors")


def factors(rank=4):
    """(down, up) of each module, and the product."""
    made = {}
    for module, weight in base.items():
        down, up = draw(rank, *weight.shape[1:]), draw(weight.shape[0], rank, *[1] * (weight.dim() - 2))
        product = (up.double().flatten(1) @ down.double().flatten(1)).reshape(weight.shape)
        made[module] = (down, up, product)
    return made


def dora(name):
    file, merged = {}, {}
    for module, (down, up, product) in factors().items():
        changed = base[module] + 0.5 * product
        by_column = changed.transpose(0, 1).flatten(1).norm(dim=1).reshape(1, -1, *[1] * (changed.dim() - 2))
        scale = (by_column * (1 + 0.2 * torch.rand(by_column.shape, generator=random))).float()
        file |= {f"{flat(module)}.lora_down.weight": down, f"{flat(module)}.lora_up.weight": up,
                 f"{flat(module)}.alpha": torch.tensor(2.0), f"{flat(module)}.dora_scale": scale}
        merged[module] = changed * scale.double() / by_column
    write(name, file, merged)


def diff():
    changes = {module: draw(*weight.shape) for module, weight in base.items()}
    merged = {module: base[module] + change.double() for module, change in changes.items()}
    write("diff", {f"{flat(m)}.diff": c for m, c in changes.items()}, merged)
    conv = {CONV: merged[CONV]}
    write("comfy_diff", {f"diffusion_model.{ORIGINAL[CONV]}.diff": changes[CONV]}, conv)


def comfy():
    file, merged = {}, {}
    for module, (down, up, product) in factors().items():
        file |= {f"diffusion_model.{ORIGINAL[module]}.lora_down.weight": down,
                 f"diffusion_model.{ORIGINAL[module]}.lora_up.weight": up}
        merged[module] = base[module] + product
    write("comfy", file, merged)


def metadata(name, scales, config):
    file, merged = {}, {}
    for module, (down, up, product) in factors().items():
        file |= {f"unet.{module}.lora_A.weight": down, f"unet.{module}.lora_B.weight": up}
        merged[module] = base[module] + scales[module] * product
    config = json.dumps({f"unet.{k}": v for k, v in config.items()})
    write(name, file, merged, {"format": "pt", "lora_adapter_metadata": config})


dora("dora_columns")
diff()
comfy()
metadata("alpha_metadata", {LINEAR: 0.5, CONV: 0.5}, {"r": 4, "lora_alpha": 2})
metadata("alpha_pattern", {LINEAR: 2.0, CONV: 0.5}, {"r": 4, "lora_alpha": 2, "alpha_pattern": {"attn1.to_q": 8}})
metadata("alpha_rslora", {LINEAR: 1.5, CONV: 1.5}, {"r": 4, "lora_alpha": 3, "use_rslora": True})
