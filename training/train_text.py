"""The CLIP text encoder, taught before the UNet begins, in English and Chinese: from its states at a caption's end
(EOS and the padding) linear heads must tell what the picture shows, and a Chinese caption's states must be its
English one's. It spares the UNet the finding out of what words mean. Of the token table only those rows learn that
many tokens share (lone bytes of UTF-8, of which Chinese is made, and what the sentence encoder behind the table did
not know); the rest is frozen, so that words which no caption has stay near their neighbours. Goes on from
STATE/text-training.pt; the result is STATE/text.pt.

usage: train_text.py STATE --minutes M [--device cuda]
"""
import argparse
import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTextModel

import parallel
from compose import KINDS, caption, caption_zh, random_spec
from concepts import COLOURS, NOUNS, SCENES
from models import DIM, EOS, LENGTH, MODEL, Tokens, text_config
from training import Training, add_arguments, precision

LR, BATCH = 1.5e-3, 48
SHARED = 20  # a row that so many tokens have means none of them
GROUNDS = list(COLOURS) + SCENES
CLASSES = dict(noun=len(NOUNS), colour=1 + len(COLOURS), ground=len(GROUNDS), second=1 + len(NOUNS), number=3)


def labels(spec):
    (noun, colour), second = spec.things[0], spec.things[-1][0] if len(spec.things) > 1 and not spec.counted else None
    return (NOUNS.index(noun), 1 + list(COLOURS).index(colour) if colour else 0, GROUNDS.index(spec.ground),
            1 + NOUNS.index(second) if second else 0, len(spec.things) - 1)


def begin(state):
    """The committed encoder, or, without one, a fresh one on the table of make_table.py."""
    if os.path.exists(os.path.join(MODEL, "text_encoder/config.json")):
        return CLIPTextModel.from_pretrained(os.path.join(MODEL, "text_encoder"), torch_dtype=torch.float32)
    model = CLIPTextModel(text_config())
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(torch.from_numpy(np.load(os.path.join(state, "table.npy"))) * 0.3)
    return model


class OwnRows(nn.Module):
    """The token table's shared rows, as parameters; hooked onto the frozen table."""

    def __init__(self, table):
        super().__init__()
        _, inverse, counts = np.unique(table.weight.detach().numpy(), axis=0, return_inverse=True, return_counts=True)
        rows = torch.from_numpy(np.flatnonzero(counts[inverse.reshape(-1)] > SHARED))
        slot = torch.full((len(table.weight),), -1)
        slot[rows] = torch.arange(len(rows))
        self.register_buffer("rows", rows)
        self.register_buffer("slot", slot)
        self.weight = nn.Parameter(torch.randn(len(rows), DIM) * table.weight.std())
        self.noise = 0.0  # words are blurred a little, so that their neighbours mean the same
        table.weight.requires_grad_(False)
        table.register_forward_hook(self._replace)

    def _replace(self, _table, inputs, out):
        slot = self.slot[inputs[0]]
        out = torch.where((slot >= 0)[..., None], self.weight[slot.clamp_min(0)], out)
        return out + self.noise * torch.randn_like(out)


def accuracy(model, heads, tokens, language, rng, device, count=400):
    """-> per head, the share that is told rightly from a caption's EOS state"""
    specs = [random_spec(rng, KINDS[i % len(KINDS)]) for i in range(count)]
    ids = tokens([language(rng, s) for s in specs]).to(device)
    with torch.no_grad():
        h = model(ids).last_hidden_state[torch.arange(count), (ids == EOS).int().argmax(1)]
    want = torch.tensor([labels(s) for s in specs], device=device)
    return {k: round(float((heads[k](h).argmax(1) == want[:, i]).float().mean()), 3) for i, k in enumerate(CLASSES)}


def main():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args()
    rank = parallel.start(args.device)
    torch.manual_seed(0)
    tokens, model = Tokens(), begin(args.state)
    own = OwnRows(model.get_input_embeddings()).to(args.device)
    model = model.to(args.device)
    heads = nn.ModuleDict({k: nn.Linear(DIM, n) for k, n in CLASSES.items()}).to(args.device)
    parameters = {n: p for m, prefix in ((model, "model."), (heads, "heads."), (own, "own."))
                  for n, p in ((prefix + k, v) for k, v in m.named_parameters()) if p.requires_grad}

    def result(t):
        with t.averaged():
            own.noise = 0.0
            rng = np.random.default_rng(99)
            for name, language in (("English", caption), ("Chinese", caption_zh)):
                print(name, "told rightly:", accuracy(model, heads, tokens, language, rng, args.device), flush=True)
            saved = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
            table = next(k for k in saved if k.endswith("token_embedding.weight"))
            saved[table][own.rows.cpu()] = own.weight.detach().cpu()
            torch.save(saved, os.path.join(args.state, "text.pt"))

    with Training(os.path.join(args.state, "text-training.pt"), parameters, LR, args.minutes, args.device) as t:
        rng = np.random.default_rng(1000 * t.steps + rank)
        while not t.over():
            specs = [random_spec(rng, KINDS[k]) for k in rng.integers(len(KINDS), size=BATCH)]
            length = LENGTH if t.here % 4 == 0 else 48
            ids = tokens([c(rng, s) for c in (caption, caption_zh) for s in specs])[:, :length].to(args.device)
            ends = (ids == EOS).int().argmax(1)
            own.noise = float(rng.random()) * 0.12
            with precision(args.device):
                h = model(ids).last_hidden_state.float()
            # one state each, the end itself or any of the padding
            share = torch.from_numpy(rng.random(len(ids))).to(args.device) * (t.here % 3 > 0)
            s = h[torch.arange(len(ids)), ends + ((length - ends) * share).long()]
            want = torch.tensor([labels(x) for x in specs] * 2, device=args.device)
            loss = sum(F.cross_entropy(heads[k](s), want[:, i]) for i, k in enumerate(CLASSES))
            # past both captions' ends the Chinese states are the English ones
            past = torch.maximum(ends[:BATCH], ends[BATCH:]).clamp_max(length - 1)
            english, chinese = (x[torch.arange(BATCH), past] for x in (h[:BATCH], h[BATCH:]))
            loss = loss + F.mse_loss(chinese, english.detach())
            if t.step(loss, len(ids)):
                result(t)
        if rank == 0:
            result(t)


if __name__ == "__main__":
    main()
