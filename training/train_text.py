"""The CLIP text encoder, taught before the UNet begins: from its states at the caption's end (EOS and the padding) linear
heads must tell the noun, the colour, the ground, the second noun, and draw the picture at 16x16. Cheap, and it spares the
UNet's training the finding out of what words mean. Afterwards it is frozen.

usage: train_text.py STATE STEPS
"""
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from compose import Composer
from concepts import COLOURS, NOUNS, SCENES

HERE = os.path.dirname(os.path.abspath(__file__))
DIM, LENGTH, EOS = 128, 77, 49407
KINDS = ["plain"] * 4 + ["ground"] * 4 + ["tint"] * 4 + ["tintground"] * 3 + ["scene"] * 2 + ["pair"] * 2
GROUNDS = list(COLOURS) + SCENES


def config():
    return CLIPTextConfig(vocab_size=49408, hidden_size=DIM, intermediate_size=4 * DIM, num_hidden_layers=3,
                          num_attention_heads=4, max_position_embeddings=LENGTH, projection_dim=DIM,
                          hidden_act="quick_gelu", bos_token_id=49406, eos_token_id=EOS, pad_token_id=EOS)


class Tokens:
    def __init__(self):
        self.tok = CLIPTokenizer.from_pretrained(os.path.join(HERE, "../www/embedded/tokenizer"))

    def __call__(self, captions):
        return self.tok(captions, padding="max_length", max_length=LENGTH, truncation=True,
                        return_tensors="pt")["input_ids"]


def main():
    state, steps = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    comp, tokens = Composer(state), Tokens()
    model = CLIPTextModel(config())
    emb = model.get_input_embeddings()
    emb.weight.data.copy_(torch.from_numpy(np.load(os.path.join(state, "table.npy"))) * 0.3)
    emb.weight.requires_grad_(False)
    heads = torch.nn.ModuleDict(dict(noun=torch.nn.Linear(DIM, len(NOUNS)), colour=torch.nn.Linear(DIM, 1 + len(COLOURS)),
                                     ground=torch.nn.Linear(DIM, len(GROUNDS)),
                                     second=torch.nn.Linear(DIM, 1 + len(NOUNS)), picture=torch.nn.Linear(DIM, 768)))
    params = [p for p in model.parameters() if p.requires_grad] + list(heads.parameters())
    opt = torch.optim.AdamW(params, 1.5e-3, betas=(0.9, 0.98), weight_decay=1e-2)
    blur = {}

    def small(spec):
        if spec not in blur:
            a = comp.picture(rng, *spec, jitter=0.0)
            blur[spec] = a.reshape(16, 8, 16, 8, 3).mean((1, 3)).ravel() / 127.5 - 1
        return blur[spec]
    pool = [comp.draw(rng, KINDS[i % len(KINDS)])[0] for i in range(6000)]
    start, acc = time.time(), []
    for step in range(steps):
        specs = [pool[i] for i in rng.integers(len(pool), size=48)]
        ids = tokens([comp.caption(rng, *s) for s in specs])
        ends = (ids == EOS).int().argmax(1)
        length = LENGTH if step % 4 == 0 else 24
        ids = ids[:, :length]
        # words are blurred a little, so that their neighbours mean the same
        noise = float(rng.random()) * 0.12
        hook = emb.register_forward_hook(lambda _m, _i, o: o + noise * torch.randn_like(o))
        for g in opt.param_groups:
            g["lr"] = 1.5e-3 * min(1, (step + 1) / 50) * (0.5 * (1 + np.cos(np.pi * step / steps)) * 0.98 + 0.02)
        with torch.autocast("cpu", torch.bfloat16):
            h = model(ids).last_hidden_state.float()
        hook.remove()
        # one state each: the end itself or any of the padding
        at = ends + torch.from_numpy(rng.random(len(specs))).mul(length - ends).long().mul(int(step % 3 > 0))
        s = h[torch.arange(len(specs)), at]
        t = lambda f: torch.tensor([f(x) for x in specs])
        losses = dict(
            noun=F.cross_entropy(heads["noun"](s), t(lambda x: NOUNS.index(x[0]))),
            colour=F.cross_entropy(heads["colour"](s), t(lambda x: 1 + list(COLOURS).index(x[1]) if x[1] else 0)),
            ground=F.cross_entropy(heads["ground"](s), t(lambda x: GROUNDS.index(x[2]))),
            second=F.cross_entropy(heads["second"](s), t(lambda x: 1 + NOUNS.index(x[3]) if x[3] else 0)),
            picture=20 * F.mse_loss(heads["picture"](s), torch.tensor(np.stack([small(x) for x in specs]), dtype=torch.float32)))
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        acc.append([float(v) for v in losses.values()])
        if (step + 1) % 50 == 0:
            print("text step %d %.0fs " % (step + 1, time.time() - start)
                  + " ".join(f"{k} {v:.3f}" for k, v in zip(losses, np.mean(acc[-50:], 0))), flush=True)
            torch.save(model.state_dict(), os.path.join(state, "text.pt"))
    torch.save(model.state_dict(), os.path.join(state, "text.pt"))


if __name__ == "__main__":
    main()
