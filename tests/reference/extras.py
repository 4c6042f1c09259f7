"""What is added to a model and to its prompts, run by diffusers on the tiny random models of pipelines.py: LoRAs of six
formats (merged by PEFT), textual inversion, CLIP skip, prompts of more than 77 tokens, emphasis.

    python tests/reference/extras.py       # rewrites tests/reference/data/extras/

`cases.json`: kind of model, the options of `generate` (files by name), shape and place of the expected latents in
`cases.bin` (f32, NCHW).
"""
import copy, json, pathlib
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from pipelines import END, START, pipeline
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).parent / "data" / "extras"
OUT.mkdir(parents=True, exist_ok=True)
ATTENTION = r".*\.(attn1\.to_q|attn2\.to_v|ff\.net\.2)"
CONVS = r".*(down_blocks\.0|mid_block)\..*\.(conv1|to_k)"
TEXT = r".*\.(q_proj|fc1)"


def flat(start, module): return start + module.replace(".", "_")


def lora(pipe, name, config, text, write, scale=1.0, seed=0):
    """A pipeline with one more LoRA merged at `scale`; its file is `name`.safetensors."""
    pipe, file = copy.deepcopy(pipe), {}
    for component in ("unet", "text_encoder") if text else ("unet",):
        own = copy.deepcopy(config)
        if component == "text_encoder": own.target_modules = TEXT
        model = get_peft_model(getattr(pipe, component), own)
        torch.manual_seed(seed)
        for n, p in model.named_parameters():
            if "magnitude" in n: p.data = (p.data * (1 + 0.2 * torch.rand_like(p))).half().float()
            elif p.requires_grad: p.data = (torch.randn_like(p) * (0.15 if "hada" not in n else 0.4)).half().float()
        for key, value in model.state_dict().items():
            if any(part in key for part in ("lora_", "hada_", "lokr_")):
                module, _, rest = key.removeprefix("base_model.model.").replace(".default", "").partition(next(p for p in (".lora_", ".hada_", ".lokr_") if p in key))
                rest = _[1:] + rest
                file[write(component, module, rest)] = value.half().contiguous().clone()
                if write is kohya: file[flat(START_OF[component], module) + ".alpha"] = torch.tensor(float(getattr(config, "lora_alpha", None) or config.alpha))
        for module in model.modules():
            if isinstance(getattr(module, "scaling", None), dict): module.scaling["default"] *= scale
        setattr(pipe, component, model.merge_and_unload())
    save_file(file, OUT / f"{name}.safetensors")
    return pipe


START_OF = dict(unet="lora_unet_", text_encoder="lora_te_")


def kohya(component, module, rest):
    rest = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight", "lora_magnitude_vector.weight": "dora_scale"}.get(rest, rest)
    module = module if component == "unet" or module.startswith("text_model.") else f"text_model.{module}"
    return f"{flat(START_OF[component], module)}.{rest}"


def peft(component, module, rest):
    module = module if component == "unet" or module.startswith("text_model.") else f"text_model.{module}"
    return f"{component}.{module}.{rest}"


# diffusers looks for the module that transformers 5 has done without.
type(pipeline("sd1", {}).text_encoder).text_model = property(lambda self: self)

cases, data = [], bytearray()


def case(name, kind, pipe, options, given=None, **more):
    k = dict(prompt="a red apple", width=56, height=40, numInferenceSteps=4, guidanceScale=3, seed=5, scheduler="ddim") | options
    from diffusers import DDIMScheduler
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    words = given if given is not None else dict(prompt=k["prompt"], negative_prompt=k.get("negativePrompt"))
    with torch.no_grad():
        latents = pipe(**words, width=k["width"], height=k["height"], num_inference_steps=4, guidance_scale=3,
                       generator=torch.Generator("cpu").manual_seed(5), output_type="latent", **more).images.float()
    cases.append(dict(name=name, kind=kind, options=k, latents=list(latents.shape), offset=len(data)))
    data.extend(latents.numpy().astype("<f4").tobytes())
    plain = torch.frombuffer(bytes(data[:4 * latents.numel()]), dtype=torch.float32).view_as(latents) if kind == "sd1" else latents
    print(f"{name:32} std {latents.std():.3f}, from plain {(latents - plain).norm() / plain.norm():.1e}")


sd1, sdxl = pipeline("sd1", {}), pipeline("sdxl", {})
case("plain", "sd1", sd1, {})

# ---- LoRA ------------------------------------------------------------------------------------------------------------
common = dict(r=2, target_modules=ATTENTION)
kohya_05 = lora(sd1, "kohya", LoraConfig(lora_alpha=2, **common), True, kohya, 0.5)
case("kohya 0.5", "sd1", kohya_05, dict(loras=[dict(file="kohya", scale=0.5)]))
case("kohya 0.8", "sd1", lora(sd1, "kohya", LoraConfig(lora_alpha=2, **common), True, kohya, 0.8), dict(loras=[dict(file="kohya", scale=0.8)]))
both = lora(kohya_05, "diffusers", LoraConfig(lora_alpha=2, **common), True, peft, 0.7, seed=1)
case("kohya 0.5 and diffusers 0.7", "sd1", both, dict(loras=[dict(file="kohya", scale=0.5), dict(file="diffusers", scale=0.7)]))
case("diffusers", "sd1", lora(sd1, "diffusers", LoraConfig(lora_alpha=2, **common), True, peft, seed=1), dict(loras=[dict(file="diffusers")]))
convs = dict(target_modules=CONVS)
case("locon", "sd1", lora(sd1, "locon", LoraConfig(lora_alpha=2, r=2, **convs), False, kohya), dict(loras=[dict(file="locon")]))
case("dora", "sd1", lora(sd1, "dora", LoraConfig(lora_alpha=2, use_dora=True, **common), False, kohya), dict(loras=[dict(file="dora")]))
case("loha", "sd1", lora(sd1, "loha", LoHaConfig(alpha=2, r=2, target_modules=ATTENTION), False, kohya), dict(loras=[dict(file="loha")]))
# Two whole matrices have scale 1 in LyCORIS whatever alpha is; PEFT's is alpha / r, which is made 1.
case("lokr", "sd1", lora(sd1, "lokr", LoKrConfig(alpha=8, r=8, decompose_factor=4, target_modules=ATTENTION), False, kohya), dict(loras=[dict(file="lokr")]))

# ---- textual inversion -----------------------------------------------------------------------------------------------
torch.manual_seed(3)
width = sd1.text_encoder.config.hidden_size
vectors = (torch.randn(2, width) * 0.5).half().float()
save_file({"emb_params": vectors}, OUT / "thing.safetensors")
torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "thing"}, OUT / "thing.pt")
inverted = copy.deepcopy(sd1)
inverted.load_textual_inversion(vectors, token="<thing>")
for file in ("thing.safetensors", "thing.pt"):
    case(f"textual inversion, {file}", "sd1", inverted, dict(prompt="a red <thing> on a table", embeddings=[dict(token="<thing>", file=file)]))

# ---- prompts ---------------------------------------------------------------------------------------------------------
case("clip skip 1", "sd1", sd1, dict(clipSkip=1), clip_skip=1)
case("clip skip 2, sdxl", "sdxl", sdxl, dict(clipSkip=2), clip_skip=2)

LONG = "a very long description of " + " and ".join(f"{n} red apples on {n + 1} blue tables" for n in range(3, 20))
PARTS = [("a picture of", 1), ("red", 1.3), ("apples and", 1), ("blue tables", 0.7), (LONG, 1)]


def windows(tokenizer, parts):
    """Ids and weights in windows of 77: 75 tokens between start and end, filled up with the padding token."""
    tokens = [(i, w) for text, w in parts for i in tokenizer(text, add_special_tokens=False, truncation=False).input_ids]
    start, end = tokenizer.convert_tokens_to_ids(START), tokenizer.convert_tokens_to_ids(END)
    for at in range(0, max(len(tokens), 1), 75):
        some = tokens[at:at + 75]
        pad = [(tokenizer.pad_token_id, 1)] * (75 - len(some))
        # The end comes right after the last token; with "!" as padding (SDXL's second) it is told from it.
        yield [(start, 1)] + some + [(end, 1)] + pad


def encode(tokenizer, encoder, parts, layer):
    out, pooled = [], None
    for window in windows(tokenizer, parts):
        ids, weights = torch.tensor([[i for i, _ in window]]), torch.tensor([w for _, w in window])
        result = encoder(ids, output_hidden_states=True)
        z = result.last_hidden_state if layer is None else result.hidden_states[layer]
        if pooled is None: pooled = result[0]
        mean = z.mean()
        z = z * weights[None, :, None]
        out.append(z * (mean / z.mean()))  # A1111's "Original" emphasis: the mean of the window is restored
    return torch.cat(out, 1), pooled


def sd1_embeds(pipe, parts): return encode(pipe.tokenizer, pipe.text_encoder, parts, None)[0]


def sdxl_embeds(pipe, parts):
    one, _ = encode(pipe.tokenizer, pipe.text_encoder, parts, -2)
    two, pooled = encode(pipe.tokenizer_2, pipe.text_encoder_2, parts, -2)
    return torch.cat([one, two], 2), pooled


with torch.no_grad():
    for name, parts in (("long", [(LONG, 1)]), ("long, emphasis", PARTS)):
        prompt = " ".join(text if w == 1 else f"({text}:{w})" for text, w in parts)
        options = dict(prompt=prompt, negativePrompt="", promptSyntax="a1111")
        embeds = sd1_embeds(sd1, parts)
        empty = sd1_embeds(sd1, [("", 1)]).repeat(1, embeds.shape[1] // 77, 1)
        case(f"{name}, sd1", "sd1", sd1, options, dict(prompt_embeds=embeds, negative_prompt_embeds=empty))
        embeds, pooled = sdxl_embeds(sdxl, parts)
        empty, empty_pooled = sdxl_embeds(sdxl, [("", 1)])
        case(f"{name}, sdxl", "sdxl", sdxl, options, dict(prompt_embeds=embeds, pooled_prompt_embeds=pooled,
             negative_prompt_embeds=empty.repeat(1, embeds.shape[1] // 77, 1), negative_pooled_prompt_embeds=empty_pooled))

(OUT / "cases.json").write_text(json.dumps(cases, indent=0) + "\n")
(OUT / "cases.bin").write_bytes(data)
