"""Chinese captions of the embedded model's training with the English ones of the same pictures.

    python training/make_chinese.py          # rewrites tests/web/data/chinese.json

First the 214 prompts of its check in their plainest words, then 600 of the training's, in all of their forms; the English is
always the plainest.
"""
import json
import pathlib

import numpy as np

from check import asked_for
from compose import KINDS, caption, caption_zh, random_spec

ROOT = pathlib.Path(__file__).parents[1]
rng = np.random.default_rng(7)
plain = [(caption_zh(rng, s, vary=False), caption(rng, s, vary=False)) for s in asked_for()]


def varied(spec):
    chinese, english = caption_zh(rng, spec), caption(rng, spec, vary=False)
    # A white ground goes without saying, in English always.
    return chinese, english + (" on a white background" if spec.ground == "white" and "背景" in chinese else "")


pairs = plain + [varied(random_spec(rng, KINDS[i % len(KINDS)])) for i in range(600)]
text = ",\n".join(json.dumps(pair, ensure_ascii=False) for pair in pairs)
(ROOT / "tests/web/data/chinese.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")
