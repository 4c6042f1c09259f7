"""Models that read Chinese with BERT, as Taiyi-Stable-Diffusion-1B-Chinese-v0.1 does: transformers' token ids, and a tiny
random pipeline of that configuration (512 tokens, nothing masked), run by diffusers in f32.

    python tests/reference/taiyi.py             # rewrites tests/reference/data/taiyi/

`vocab.txt`: a vocabulary made here; `tokens.json`: prompts and a checksum of each one's 512 ids (that of prompt.py), for
configurations of the tokenizer; `model.json`: as `models.json` of pipelines.py; `cases.json`: options of `generate` and
latents.
"""
import json, pathlib, random, shutil, tempfile
import diffusers, torch
from models import canonical, unet, vae, weight
from pipelines import TIMES, index, run, tensors
from prompt import checksum, prompts
from transformers import BertConfig, BertModel, BertTokenizer
import models

OUT = pathlib.Path(__file__).parent / "data" / "taiyi"
models.CLASSES["BertModel"] = BertModel

NOUNS = "苹果 猫 狗 老鼠 吉他 房子 火箭 山 河 花 树 月亮 太阳 星空 城市 女孩 男孩 鱼 鸟 马 龙 船 桥 雪 雨 海".split()
WORDS = "一只 一个 红色的 蓝色的 绿色的 白色的 古老的 正在 弹 吃 跑 飞 睡觉 在 上 下 里 的 和 与 夜晚 清晨 油画 水彩 水墨 风格 高清 细节 飞流直下三千尺 小桥流水人家".split()
MARKS = "， 。 ！ ？ 、 ； ： （ ） “ ” 《 》 — … , . ! ( ) [ ] : - ' \" # @ &".split()
LATIN = "cat Cat CAT painting Van Gogh style 4k 8K café naïve Straße ĲSSELMEER ＡＢＣ １２３ unaffable antidisestablishmentarianism".split()
ODD = ["[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]", "[cls]", "\u200b", "\u3000", "\u00a0", "\t", "\n", "😀", "👩\u200d🎨", "龘", "𠮷", "ガギグ", "한국", "кошка", "قطة", "\ufffd", "\0", "\u0301", "e\u0301"]


def vocabulary():
    """Marks, single characters, syllables that go on a word, and some whole words; a line each, a real file's order."""
    chinese = sorted(set("".join(NOUNS + WORDS)) | {chr(c) for c in range(0x4E00, 0x4E00 + 600)})
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()] + list("，。！？、；：（）“”《》—…éßαбגカ")
    goes_on = [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789éカ"] + ["##ing", "##able", "##s", "##果"]
    whole = "cat painting van go style un aff the of and gu itar".split()
    lines = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + letters + chinese + goes_on + whole
    return list(dict.fromkeys(lines))


def texts():
    rng = random.Random(20261128)
    out = ["", " ", "一只老鼠在弹吉他", "飞流直下三千尺，油画", "小桥流水人家，Van Gogh style。", "猫" * 509, "猫" * 510, "猫" * 511, "x" * 99, "x" * 100, "x" * 101]
    out += ODD + [p for p in prompts() if len(p) < 300][:500]
    while len(out) < 2000:
        parts = [rng.choice(rng.choice([NOUNS, WORDS, WORDS, NOUNS, MARKS, LATIN, ODD])) for _ in range(rng.choice([1, 3, 6, 12, 40]))]
        out.append("".join(p + rng.choice(["", "", "", " ", "，"]) for p in parts))
    return out


def tokenizer(vocab, config):
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "vocab.txt").write_text("\n".join(vocab) + "\n")
        pathlib.Path(folder, "tokenizer_config.json").write_text(json.dumps(config))
        return BertTokenizer.from_pretrained(folder)


# What the published folder says, and what else the class reads.
CONFIG = dict(tokenizer_class="BertTokenizer", model_max_length=512, do_lower_case=True, do_basic_tokenize=True, never_split=None, strip_accents=None,
              tokenize_chinese_chars=True, cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]")
CONFIGS = [CONFIG, CONFIG | dict(do_lower_case=False), CONFIG | dict(strip_accents=False, model_max_length=77), CONFIG | dict(tokenize_chinese_chars=False)]


def write_tokens(vocab):
    lists = []
    every = texts()
    for i, config in enumerate(CONFIGS):
        own, of = tokenizer(vocab, config), every if i == 0 else every[::7]
        ids = [own(p, padding="max_length", truncation=True, max_length=config["model_max_length"]).input_ids for p in of]
        lists.append(dict(config=config, every=1 if i == 0 else 7, checksums=[checksum(x) for x in ids]))
    (OUT / "tokens.json").write_text(json.dumps(dict(prompts=every, configs=lists), ensure_ascii=False, indent=0) + "\n")


# As in models.py, `gain` is ours.
BERT = dict(architectures=["BertModel"], model_type="bert", vocab_size=0, hidden_size=32, intermediate_size=37, num_hidden_layers=4, num_attention_heads=4,
            max_position_embeddings=512, hidden_act="gelu", layer_norm_eps=1e-12, type_vocab_size=2, pad_token_id=0, position_embedding_type="absolute", gain=1.0)
SCHEDULER = dict(_class_name="PNDMScheduler", **TIMES, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1, trained_betas=None, clip_sample=False)


def bert(config):
    model = BertModel(BertConfig(**{k: v for k, v in config.items() if k not in ("architectures", "gain")}), add_pooling_layer=False)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.from_numpy(weight(canonical(name), tuple(p.shape), config["gain"])))
    return model.eval()


def main():
    diffusers.utils.logging.set_verbosity_error()
    OUT.mkdir(parents=True, exist_ok=True)
    vocab = vocabulary()
    (OUT / "vocab.txt").write_text("\n".join(vocab) + "\n")
    write_tokens(vocab)
    parts = dict(text_encoder=BERT | dict(vocab_size=len(vocab)), unet=unet(layers_per_block=1), vae=vae())
    names = {part: tensors(c) for part, c in parts.items() if part != "text_encoder"}
    encoder = bert(parts["text_encoder"])
    names["text_encoder"] = [" ".join(map(str, [name, *p.shape])) for name, p in encoder.named_parameters()]
    model_index = index("StableDiffusionPipeline", SCHEDULER, ("BertModel",)) | dict(tokenizer=["transformers", "BertTokenizer"])
    model = dict(model_index=model_index, scheduler=SCHEDULER, components=parts, tokenizer_config=CONFIG, tensors=names)
    (OUT / "model.json").write_text(json.dumps(model, indent=0) + "\n")
    pipe = diffusers.StableDiffusionPipeline(
        text_encoder=encoder, tokenizer=tokenizer(vocab, CONFIG), unet=models.build(parts["unet"]), vae=models.build(parts["vae"]),
        scheduler=diffusers.PNDMScheduler.from_config(SCHEDULER), safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    # Of 512 places a few words fill a fiftieth: long texts are what moves a picture of random weights.
    song, blue = "一只老鼠在弹吉他，" * 40, "蓝色的猫和红色的苹果，" * 40
    base = dict(prompt=song, width=56, height=40, numInferenceSteps=3, guidanceScale=5, seed=3)
    more = [dict(), dict(prompt="飞流直下三千尺，油画", seed=4, scheduler="ddim"), dict(negativePrompt=blue, seed=5, guidanceScale=3, numImages=2)]
    cases = []
    for options in more:
        options = base | options
        latents, _ = run(pipe, dict(options=options))
        cases.append(dict(options=options, latents=[round(float(v), 5) for v in latents.flatten()]))
    ours, _ = run(pipe, dict(options=base))
    others, _ = run(pipe, dict(options=base | dict(prompt=blue)))
    print("other words move the latents by", float((ours - others).norm() / ours.norm()))
    (OUT / "cases.json").write_text(json.dumps(cases, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
