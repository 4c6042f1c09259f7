"""LoRAs of the kinds that PEFT does not merge, with weights in f64 by the rules of the software that made them.

    python tests/reference/lora_kinds.py        # adds to tests/reference/data/lora/, beside the files of lora.py

- dora_columns: `dora_scale` [1, n] is over the input axis (LyCORIS `modules/locon.py`,
  `apply_weight_decompose` with `wd_on_out` false; ComfyUI `weight_adapter/base.py`, `weight_decompose`).
- diff: `.diff` is added as it is (ComfyUI `lora.py`); comfy: its extraction's names, `diffusion_model.`.
- alpha_metadata, alpha_pattern, alpha_rslora: PEFT's `lora_alpha` in the header (diffusers `loaders/lora_base.py`;
  PEFT `tuners/lora/layer.py`, `update_layer`).
- oft, oft_constraint, boft, glora: merged by LyCORIS' own modules (lycoris-lora), in f32; the turning ones at the scale
  0.7 too (`_scaled`), with which BOFT is not linear.
- glora_old: the factors the other way round (ComfyUI `weight_adapter/glora.py`).
"""
import json, pathlib, torch
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.glora import GLoRAModule
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


def lycoris(name, make, scale=1.0, spread=0.3):
    """As `make` has it for a layer, with random values: merged by itself."""
    file, merged = {}, {}
    for module, weight in base.items():
        rows, inner, *taps = weight.shape
        layer = torch.nn.Conv2d(inner, rows, 3, bias=False) if taps else torch.nn.Linear(inner, rows, bias=False)
        layer.weight.data = weight.float()
        own = make(layer)
        for key, value in own.named_parameters():
            if "org" not in key: value.data = draw(*value.shape) * spread / 0.3 + (1 if key == "rescale" else 0)
        file |= {f"{flat(module)}.{key}": value.detach().clone() for key, value in own.state_dict().items()}
        merged[module] = own.get_merged_weight(multiplier=scale)[0].detach().double().reshape(weight.shape)
    write(name, file, merged)


def again(name, at, make, scale, spread):
    """The same file at a scale: another merged weight."""
    state = random.get_state()
    lycoris(name, make, spread=spread)
    random.set_state(state)
    lycoris(at, make, scale, spread)
    (OUT / f"{at}.safetensors").unlink()


oft = lambda **options: lambda layer: DiagOFTModule("x", layer, lora_dim=4, **options)
again("oft", "oft_scaled", oft(rescaled=True), 0.7, 0.3)
again("oft_constraint", "oft_constraint_scaled", oft(constraint=0.02), 0.7, 0.3)
again("boft", "boft_scaled", lambda layer: ButterflyOFTModule("x", layer, lora_dim=8, rescaled=True), 0.7, 0.2)
lycoris("glora", lambda layer: GLoRAModule("x", layer, lora_dim=4, alpha=2))
a1, a2, b1, b2 = draw(4, 20), draw(20, 4), draw(4, 20), draw(24, 4)
old = base[LINEAR] + 0.5 * (base[LINEAR] @ a2.double() @ a1.double() + b2.double() @ b1.double())
names = {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2, "alpha": torch.tensor(2.0)}
write("glora_old", {f"{flat(LINEAR)}.{key}": value for key, value in names.items()}, {LINEAR: old})
