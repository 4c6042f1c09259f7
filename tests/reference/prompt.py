"""Expected values for tests/tokens.rs, from transformers' CLIPTokenizer with the tokenizer that ships with
the page (www/embedded/tokenizer).

data/prompts.json: 5,000 prompts, a checksum of each one's 77 ids, all ids of the first, and for some
folders as other checkpoints have them: their files, and checksums for some of the prompts.
"""

import json
import pathlib
import random
import shutil
import tempfile

from transformers import CLIPTokenizer

HERE = pathlib.Path(__file__).parent
DATA = HERE / "data"
TOKENIZER = HERE.parent.parent / "www" / "embedded" / "tokenizer"

WORDS = """a an the red green photo of painting portrait astronaut riding horse on mars cat dog sitting highly
detailed digital art trending artstation concept smooth sharp focus illustration by greg rutkowski cinematic lighting
4k 8k hdr unreal engine octane render volumetric fog beautiful woman man city night rain neon cyberpunk castle
mountain lake sunset watercolor oil canvas masterpiece intricate elegant bokeh isometric antidisestablishmentarianism
Pneumonoultramicroscopicsilicovolcanoconiosis supercalifragilistic xkcd qwertyuiop zzzz Ünïcödé naïve façade Straße""".split()
CONTRACTIONS = """it's don't I'm we're they've she'll he'd can't 'tis rock'n'roll O'Brien y'all'd've 's 'S 'T 'RE
it’s don’t IT'S WE'LL""".split()
MARKS = list(".,;:!?()[]{}<>|/\\'\"`~@#$%^&*-_=+") + ["...", "--", "!!!", "((", ":1.2)", "<lora:x:0.5>", "\u2014", "«", "»", "…"]
SCRIPTS = [
    "猫が宇宙で泳いでいる", "红色的苹果", "사과를 먹는 고양이", "кошка на крыше", "قطة على السطح", "חתול על הגג", "η γάτα",
    "बिल्ली छत पर", "แมวบนหลังคา", "con mèo trên mái nhà", "kočka na střeše", "ﬁ ﬂ ligatures", "ＦＵＬＬ ｗｉｄｔｈ", "ŠĐČĆŽ",
    "İstanbul ığüşöç", "ΣΊΣΥΦΟΣ", "ǅ ǈ", "Ω Ω Å Å", "ẞ ß", "①②③ ⅣⅨ ½ ¼ ²³", "٣٤٥ ४५६", "𝕳𝖊𝖑𝖑𝖔 𝟘𝟙", "𐍈𐌰", "가각 한국", "e\u0301 n\u0303 a\u030a",
    "\u0344 \u0958", "\u1e9b\u0323",
]
EMOJI = ["😀", "🍎", "👨\u200d👩\u200d👧", "👍🏽", "🇩🇪", "❤️", "🏳️\u200d🌈", "✨", "🐱\u200d👤", "☃", "⌚", "1️⃣", "🫠", "🪿"]
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2003", "\u200b", "\u2028", "\x0b", "\x0c", "\x85", "\ufeff", ""]
SPECIAL = ["<|endoftext|>", "<|startoftext|>", "<|ENDOFTEXT|>", "<|StartOfText|>", "<|endoftext", "|>", "</w>", "Ġ", "<unk>"]


def prompts():
    rng = random.Random(20261123)
    out = ["", " ", "a red apple", "A RED APPLE", "!", "!!!", "hello! world !", "\0", "a\0b", "x" * 10_000, "word " * 2_000]
    out += WORDS + CONTRACTIONS + MARKS + SCRIPTS + EMOJI + SPACES + SPECIAL
    out += ["🍎" * 100, "é" * 200, " ".join(str(i) for i in range(200)), "".join(SCRIPTS), "猫" * 74, "猫" * 75, "猫" * 76]
    out += ["cat " * n for n in range(70, 80)]
    # one character of many blocks each
    out += ["a" + chr(c) + "b" for c in range(0x20, 0x3000, 23)]
    out += [chr(c) for c in range(0x3000, 0x20000, 211) if not 0xD800 <= c < 0xE000]
    pools = [WORDS] * 8 + [CONTRACTIONS, MARKS, MARKS, SCRIPTS, EMOJI, SPECIAL]
    while len(out) < 4_998:
        text = ""
        for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 60])):
            word = rng.choice(rng.choice(pools))
            word = rng.choice([word, word, word, word.upper(), word.capitalize(), word[::-1], str(rng.randrange(10**5))])
            text += word + rng.choice([" ", " ", " ", ", ", rng.choice(SPACES)])
        out.append(text)
    while len(out) < 5_000:  # ten thousand characters of anything
        characters = [chr(rng.choice([rng.randrange(0x20, 0x7F), rng.randrange(0xA0, 0xD7FF)])) for _ in range(10_000)]
        out.append("".join(characters))
    return out


def checksum(ids):
    """FNV-1a, 32 bits, over the ids as 32-bit words."""
    h = 0x811C9DC5
    for i in ids:
        h = ((h ^ i) * 0x01000193) & 0xFFFFFFFF
    return h


def encode(tokenizer, texts):
    # as diffusers' pipelines call it
    out = []
    for text in texts:
        out.append(tokenizer(text, padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids)
    return out


def token(content, normalized):
    return {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}


def folder(files, vocabulary, texts):
    """Checksums of the ids of a tokenizer folder with these files beside the vocabulary ones."""
    with tempfile.TemporaryDirectory() as path:
        for name in vocabulary:
            shutil.copy(TOKENIZER / name, path)
        for name, value in files.items():
            pathlib.Path(path, name).write_text(json.dumps(value))
        return [checksum(i) for i in encode(CLIPTokenizer.from_pretrained(path), texts)]


def saved(files):
    """The folder that transformers itself writes after reading these files: tokenizer.json and its config."""
    with tempfile.TemporaryDirectory() as path, tempfile.TemporaryDirectory() as out:
        for name in ["vocab.json", "merges.txt"]:
            shutil.copy(TOKENIZER / name, path)
        for name, value in files.items():
            pathlib.Path(path, name).write_text(json.dumps(value))
        CLIPTokenizer.from_pretrained(path).save_pretrained(out)
        return {p.name: json.loads(p.read_text()) for p in sorted(pathlib.Path(out).glob("*.json"))}


def main():
    texts = prompts()
    assert len(texts) == 5_000 and max(map(len, texts)) == 10_000
    ids = encode(CLIPTokenizer.from_pretrained(TOKENIZER), texts)
    assert all(len(i) == 77 for i in ids)
    few = [t for t in texts if len(t) < 200][:150:3] + [t for t in texts if "!" in t or "<|" in t][:60] + SPECIAL
    start, end = "<|startoftext|>", "<|endoftext|>"
    # SD 1.5's and SD 2's own special_tokens_map.json and tokenizer_config.json
    sd1 = {
        "special_tokens_map.json": {"bos_token": token(start, True), "eos_token": token(end, True), "pad_token": end, "unk_token": token(end, True)},
        "tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": end,
                                  "bos_token": {"__type": "AddedToken", **token(start, True)}, "eos_token": {"__type": "AddedToken", **token(end, True)},
                                  "unk_token": {"__type": "AddedToken", **token(end, True)}},
    }
    sd2 = json.loads(json.dumps(sd1))
    sd2["special_tokens_map.json"]["pad_token"] = "!"
    newer = {
        "special_tokens_map.json": sd2["special_tokens_map.json"],
        "tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "!", "bos_token": start, "eos_token": end, "unk_token": end,
                                  "added_tokens_decoder": {"0": {**token("!", False), "special": True}, "49406": {**token(start, True), "special": True}, "49407": {**token(end, False), "special": True}}},
    }
    # both files, at odds: the listed tokens make transformers pass over the map
    odd = json.loads(json.dumps(newer))
    odd["tokenizer_config.json"]["pad_token"] = end
    folders = [{"files": f, "checksums": folder(f, ["vocab.json", "merges.txt"], few)} for f in (sd1, sd2, newer, odd)]
    folders += [{"files": f, "checksums": folder(f, [], few)} for f in (saved(sd1), saved(sd2))]
    for f in folders:  # the test puts the vocabulary back
        if "tokenizer.json" in f["files"]:
            f["files"]["tokenizer.json"]["model"] = {}
    data = {"prompts": texts, "checksums": [checksum(i) for i in ids], "first": ids[:10], "few": few, "folders": folders}
    DATA.mkdir(exist_ok=True)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"
    (DATA / "prompts.json").write_text(text, encoding="utf-8")


main()
