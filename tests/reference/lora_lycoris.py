"""LoRAs of LyCORIS' kinds on the tiny random model of pipelines.py: merged by its own modules (lycoris-lora) into the
model that diffusers then runs. Beside them embeddings inside a LoRA's file, which diffusers is given as such.

    python tests/reference/lora_lycoris.py    # adds to tests/reference/data/extras/, beside the files of extras.py

`lycoris.json`, `lycoris.bin`: as `cases.json` and `cases.bin` of extras.py. `full`: differences of weights and biases, and
of norms, which are added times the scale (ComfyUI `lora.py`; A1111 `network_full.py`, `network_norm.py`).
"""
import copy, json, pathlib, re
import torch
from diffusers import DDIMScheduler
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.norms import NormModule
from pipelines import pipeline
from safetensors.torch import load_file, save_file

OUT = pathlib.Path(__file__).parent / "data" / "extras"
LAYERS = r"(down_blocks\.0|mid_block)\..*\.(to_q|to_v|ff\.net\.2|conv1)$"
ANY = r"(mid_block\.(resnets\.0|attentions\.0\.(norm|proj_in))|conv_norm_out|conv_out|up_blocks\.1\.resnets\.0\.norm1).*"
cases, data = [], bytearray()
sd1 = pipeline("sd1", {})
# diffusers looks for the module that transformers 5 has done without.
type(sd1.text_encoder).text_model = property(lambda self: self)
random = torch.Generator().manual_seed(14)


def lora(name, make, layers, scale, spread):
    """A pipeline with what `make` gives for each layer merged at `scale`; the file is `name`.safetensors."""
    pipe, file = copy.deepcopy(sd1), {}
    start = random.get_state()
    for module, layer in pipe.unet.named_modules():
        if not hasattr(layer, "weight") or not re.match(layers, module): continue
        own = make(layer)
        if own is None: continue
        for key, value in own.named_parameters():
            if "org" in key: continue
            value.data = torch.randn(value.shape, generator=random) * spread + (1 if key == "rescale" else 0)
            value.data = value.data.half().float()
        state = {"diff": own.weight, "diff_b": own.bias} if isinstance(own, FullModule) else own.state_dict()
        for key, value in state.items():
            if value is not None: file["lora_unet_" + module.replace(".", "_") + "." + key] = value.detach().half().contiguous().clone()
        if isinstance(own, (FullModule, NormModule)):
            (weight, bias) = own.get_diff_weight(multiplier=scale) if isinstance(own, NormModule) else (own.weight * scale, None if own.bias is None else own.bias * scale)
            layer.weight.data = layer.weight.data + weight.detach()
            if bias is not None: layer.bias.data = layer.bias.data + bias.detach()
        else:
            layer.weight.data = own.get_merged_weight(multiplier=scale)[0].detach().reshape(layer.weight.shape)
    save_file(file, OUT / f"{name}.safetensors")
    random.set_state(start)
    return pipe


def case(name, pipe, **more):
    k = dict(prompt="a red apple", width=56, height=40, numInferenceSteps=4, guidanceScale=3, seed=5, scheduler="ddim") | more
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    with torch.no_grad():
        latents = pipe(k["prompt"], width=56, height=40, num_inference_steps=4, guidance_scale=3,
                       generator=torch.Generator("cpu").manual_seed(5), output_type="latent").images.float()
    cases.append(dict(name=name, kind="sd1", options=k, latents=list(latents.shape), offset=len(data)))
    data.extend(latents.numpy().astype("<f4").tobytes())
    plain = torch.frombuffer(bytes(data[:4 * latents.numel()]), dtype=torch.float32).view_as(latents)
    print(f"{name:32} std {latents.std():.3f}, from plain {(latents - plain).norm() / plain.norm():.1e}")


def merged(name, make, layers=LAYERS, scales=(1.0,), spread=0.15):
    for scale in scales:
        pipe = lora(name, make, layers, scale, spread)
        case(name if scale == 1 else f"{name} {scale}", pipe, loras=[dict(file=name, scale=scale)])


def full(layer):
    if isinstance(layer, (torch.nn.GroupNorm, torch.nn.LayerNorm)): return NormModule("x", layer)
    return FullModule("x", layer)


# Those that turn are not linear in the scale: with a scale, too.
case("plain", sd1)
merged("full", full, ANY, (1.0, 0.5), 0.1)
merged("oft", lambda layer: DiagOFTModule("x", layer, lora_dim=8, rescaled=True), scales=(1.0, 0.6), spread=0.1)
merged("boft", lambda layer: ButterflyOFTModule("x", layer, lora_dim=8), scales=(1.0, 0.6))
merged("glora", lambda layer: GLoRAModule("x", layer, lora_dim=2, alpha=1), scales=(1.0, 0.6), spread=0.3)

# A word's vectors inside a LoRA: as if they were an embedding beside it.
vectors = (torch.randn(2, sd1.text_encoder.config.hidden_size, generator=random) * 0.5).half().float()
pipe = lora("bundle", lambda layer: GLoRAModule("x", layer, lora_dim=2, alpha=1), LAYERS, 1.0, 0.3)
save_file(load_file(OUT / "bundle.safetensors") | {"bundle_emb.<thing>.string_to_param.*": vectors}, OUT / "bundle.safetensors")
pipe.load_textual_inversion(vectors, token="<thing>")
case("bundle", pipe, prompt="a red <thing> on a table", loras=[dict(file="bundle", scale=1)])

(OUT / "lycoris.json").write_text(json.dumps(cases, indent=0) + "\n")
(OUT / "lycoris.bin").write_bytes(data)
