"""LoRAs of every format on a linear layer and a convolution, with the weights that PEFT (for `lora_mid`: the formula) merges.

    python tests/reference/lora.py        # rewrites tests/reference/data/lora/

One file a format, named as such files are in the wild; `<format>.merged.safetensors` has the weights at scale 1.
"""
import pathlib, torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).parent / "data" / "lora"
LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "down_blocks.0.resnets.0.conv1"


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lin = torch.nn.Linear(20, 24, bias=False)
        self.conv = torch.nn.Conv2d(12, 16, 3, padding=1, bias=False)
        for p in self.parameters():
            p.data = p.data.half().float()


def flat(name): return "lora_unet_" + name.replace(".", "_")


def write(name, config, rename):
    """`rename(module, rest)`: a PEFT key's name in the file. Files but PEFT's have alpha 2."""
    model = get_peft_model(Model(), config)
    torch.manual_seed(1)
    for n, p in model.named_parameters():
        if "magnitude" in n: p.data *= 1 + 0.2 * torch.rand_like(p)
        elif p.requires_grad: p.data = torch.randn_like(p) * 0.3
    file = {}
    for key, value in model.state_dict().items():
        for module, full in (("lin", LINEAR), ("conv", CONV)):
            start = f"base_model.model.{module}."
            if key.startswith(start) and "base_layer" not in key:
                file[rename(full, key.removeprefix(start).replace(".default", ""))] = value.contiguous().clone()
    if not name.startswith("peft"):
        for module in (LINEAR, CONV): file[flat(module) + ".alpha"] = torch.tensor(2.0)
    merged = model.merge_and_unload()
    save_file(file, OUT / f"{name}.safetensors")
    save_file({LINEAR: merged.lin.weight.data.contiguous(), CONV: merged.conv.weight.data.contiguous()}, OUT / f"{name}.merged.safetensors")


def kohya(module, rest):
    rest = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight", "lora_magnitude_vector.weight": "dora_scale"}.get(rest, rest)
    return f"{flat(module)}.{rest}"


def original(module, rest):
    """The original UNet's names, of a model with one layer a block."""
    return kohya(module, rest).replace("down_blocks_0_attentions_0", "input_blocks_1_1").replace("down_blocks_0_resnets_0_conv1", "input_blocks_1_0_in_layers_2")


OUT.mkdir(parents=True, exist_ok=True)
base = Model()
save_file({LINEAR: base.lin.weight.data, CONV: base.conv.weight.data}, OUT / "base.safetensors")
common = dict(r=4, target_modules=["lin", "conv"])
write("kohya", LoraConfig(lora_alpha=2, **common), kohya)
write("peft", LoraConfig(lora_alpha=4, **common), lambda module, rest: f"unet.{module}.{rest}")
write("dora", LoraConfig(lora_alpha=2, use_dora=True, **common), kohya)
write("loha", LoHaConfig(alpha=2, **common), kohya)
write("loha_core", LoHaConfig(alpha=2, use_effective_conv2d=True, **common), kohya)
# Two whole matrices have scale 1 in LyCORIS whatever alpha is; PEFT's is alpha / r, which is made 1.
write("lokr", LoKrConfig(alpha=4, decompose_factor=4, **common), kohya)
write("lokr_parts", LoKrConfig(alpha=2, decompose_factor=4, r=1, target_modules=["lin", "conv"]), kohya)
write("original", LoraConfig(lora_alpha=2, **common), original)

torch.manual_seed(2)
up, mid, down = torch.randn(16, 4, 1, 1), torch.randn(4, 4, 3, 3), torch.randn(4, 12, 1, 1)
name = flat(CONV)
save_file({name + ".lora_up.weight": up * 0.3, name + ".lora_mid.weight": mid * 0.3, name + ".lora_down.weight": down * 0.3, name + ".alpha": torch.tensor(2.0)}, OUT / "locon.safetensors")
delta = 0.5 * 0.027 * torch.einsum("or,rskl,si->oikl", up[..., 0, 0].double(), mid.double(), down[..., 0, 0].double())
save_file({LINEAR: base.lin.weight.data, CONV: (base.conv.weight.data.double() + delta).float()}, OUT / "locon.merged.safetensors")
