"""Teaches the committed text encoder Chinese for the committed UNet, which stays as it is: a Chinese caption's states
are to be those that the committed encoder gives its English caption, and English captions' states are to stay what
they are. Begins from STATE/text.pt (train_text.py), which reads both languages but for no UNet in particular; goes on
from STATE/text-zh-training.pt; the result is STATE/text-zh.pt and, with --folder, a copy of the committed model with
that encoder in it, for check.py.

From the end of both captions on, states are compared place by place: that is most of the 77 that the UNet looks at,
and by causal attention only they know the whole caption. Before it the order of words differs and the UNet's attention
knows no order, so each Chinese state is compared with the nearest of the English ones. The check's 214 Chinese prompts
are held out, by their exact words.

What no caption has is to stay what it is too: the blank caption, which guidance draws away from, and captions with any of
the table's words in them.

usage: train_text_zh.py STATE --minutes M [--device cuda] [--folder FOLDER]
"""
import argparse
import copy
import os
import shutil

import numpy as np
import torch

import parallel
from check import asked_for
from compose import KINDS, ZH, caption, caption_zh, one_of, random_spec
from export import half
from models import EOS, LENGTH, MODEL, Tokens, load_text
from train_text import OwnRows, begin
from training import Training, add_arguments, precision

LR, BATCH, STRANGERS = 1.5e-3, 48, 24
UNREAD = 0.3  # of the Chinese captions
WITHIN = 0.3  # what a state before the end counts for
# A batch is as long as its longest caption.
OF_A_LENGTH = [["plain", "tint"], ["ground", "tintground", "scene"], ["pair", "count"]]
HELD_OUT = {caption_zh(None, s, vary=False) for s in asked_for()}


# The 3,755 characters of GB 2312's first level: the common ones.
COMMON = [bytes([row, cell]).decode("gb2312") for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF)
          if (row, cell) < (0xD7, 0xFA)]


def unread(rng, text, noun):
    """The caption with words around its noun, before all or after all that mean nothing to the picture."""
    some = "".join(rng.choice(COMMON, size=int(rng.integers(1, 4))))
    where = rng.integers(4)
    if where == 0:
        return one_of(rng, ["请画", "我想要", "给我画", "请给我看", some]) + text
    if where == 1:
        return text + one_of(rng, ["，高清", "，杰作", "，最好的质量", "，" + some, some])
    name = max((n for n in ZH["nouns"][noun]["names"] if n in text), key=len)
    adjective = one_of(rng, ["可爱的", "漂亮的", "快乐的", "大大的", "大", some + "的", some + "的"])
    return text.replace(name, adjective + name, 1)


def triples(rng, count, kinds=KINDS):
    """-> captions of the same pictures: in the plainest English, in any, in Chinese (none of those held out; a share
    of them with words that nothing was said about)"""
    plain, english, chinese = [], [], []
    while len(english) < count:
        spec = random_spec(rng, kinds[int(rng.integers(len(kinds)))])
        text = caption_zh(rng, spec)
        if text not in HELD_OUT:
            plain.append(caption(rng, spec, vary=False))
            english.append(caption(rng, spec))
            chinese.append(unread(rng, text, spec.things[0][0]) if rng.random() < UNREAD else text)
    return plain, english, chinese


def strangers(rng, ids, words):
    """-> the captions with more or fewer of their tokens changed for any of `words`; the first is blank"""
    ids = ids.clone()
    inside = torch.arange(ids.shape[1]) < (ids == EOS).int().argmax(1)[:, None]
    inside[:, 0] = False
    change = inside & (torch.from_numpy(rng.random(ids.shape) < rng.random((len(ids), 1))))
    ids[change] = words[torch.from_numpy(rng.integers(len(words), size=int(change.sum())))]
    ids[0, 1:] = EOS
    return ids


def distance(states, ends, wanted, wanted_ends):
    """-> mean squared difference past both ends, and before them to the nearest that is wanted"""
    place = torch.arange(states.shape[1], device=states.device)
    after = place >= torch.maximum(ends, wanted_ends)[:, None]
    past = (states - wanted).square().mean(2)[after].mean()
    far = torch.cdist(states, wanted).square() / states.shape[2]
    far = far.masked_fill((place > wanted_ends[:, None])[:, None, :], torch.inf).amin(2)
    return past, far[~after].mean()


def nearest(states, wanted, nouns):
    """-> the share of captions whose padding is nearest to that of a caption with the same noun"""
    flat, others = (x[:, LENGTH // 2:].flatten(1) for x in (states, wanted))
    return float(np.mean([nouns[i] == nouns[k] for i, k in enumerate(torch.cdist(flat, others).argmin(1).tolist())]))


def errors(model, teacher, tokens, words, spread, device):
    """-> the differences' share of the states' variance, for fresh captions in any English and in Chinese past the end,
    and for the held-out prompts, with the share of them that are nearest to an English prompt of the same noun; then
    for captions with words in them that no caption has, and for the blank one"""
    plain, english, chinese = triples(np.random.default_rng(77), 200)
    specs = asked_for()
    check = [[c(None, s, vary=False) for s in specs] for c in (caption, caption, caption_zh)]
    out = {}
    with torch.no_grad():
        for name, texts in dict(fresh=(plain, english, chinese), check=check).items():
            p, e, z = (tokens(t).to(device) for t in texts)
            want, same, other = teacher(p).last_hidden_state, model(e).last_hidden_state, model(z).last_hidden_state
            past, _ = distance(other, (z == EOS).int().argmax(1), want, (p == EOS).int().argmax(1))
            out[name] = dict(english=float((same - teacher(e).last_hidden_state).square().mean() / spread),
                             chinese=float(past / spread))
        out["check"]["nearest"] = nearest(other, want, [s.things[0][0] for s in specs])
        ids = strangers(np.random.default_rng(78), tokens(plain), words).to(device)
        off = (model(ids).last_hidden_state - teacher(ids).last_hidden_state).square().mean((1, 2)) / spread
        out["strangers"] = dict(words=float(off[1:].mean()), blank=float(off[0]))
    return {k: {n: round(x, 4) for n, x in v.items()} for k, v in out.items()}


def write(model, own, state, folder):
    saved = copy.deepcopy(model).cpu()
    with torch.no_grad():
        saved.get_input_embeddings().weight[own.rows.cpu()] = own.weight.detach().cpu()
    torch.save(saved.state_dict(), os.path.join(state, "text-zh.pt"))
    if folder:
        shutil.copytree(MODEL, folder, dirs_exist_ok=True)
        half(saved, os.path.join(folder, "text_encoder/model.safetensors"), "text_model.")


def main():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parser.add_argument("--folder", help="where a copy of the committed model with the new encoder goes")
    args = parser.parse_args()
    parallel.start(args.device)
    torch.manual_seed(0)
    tokens, teacher = Tokens(), begin(args.state).eval().requires_grad_(False).to(args.device)
    model = load_text(args.state)
    table = model.get_input_embeddings()
    learnt = table.weight.detach().clone()
    with torch.no_grad():  # the rows that differ from the committed table's are what train_text.py taught
        table.weight.copy_(teacher.get_input_embeddings().weight)
    own = OwnRows(table)
    with torch.no_grad():
        own.weight.copy_(learnt[own.rows])
    words = torch.arange(256, len(table.weight) - 2)  # of more than a byte
    words = words[~torch.isin(words, own.rows)]
    own, model = own.to(args.device), model.to(args.device)
    parameters = {n: p for m, prefix in ((model, "model."), (own, "own."))
                  for n, p in ((prefix + k, v) for k, v in m.named_parameters()) if p.requires_grad}
    with torch.no_grad():
        states = teacher(tokens(triples(np.random.default_rng(5), 200)[0]).to(args.device)).last_hidden_state
        spread = float((states - states.mean((0, 1))).square().mean())

    def result(t):
        with t.averaged():
            print("share of the variance:", errors(model, teacher, tokens, words, spread, args.device), flush=True)
            write(model, own, args.state, args.folder)

    with Training(os.path.join(args.state, "text-zh-training.pt"), parameters, LR, args.minutes, args.device) as t:
        print("at first:", errors(model, teacher, tokens, words, spread, args.device), flush=True)
        rng = np.random.default_rng(1000 * t.steps + 1 + parallel.RANK)
        while not t.over():
            ids = tokens(sum(triples(rng, BATCH, OF_A_LENGTH[t.here % 3]), []))
            ids = torch.cat([strangers(rng, ids[:STRANGERS], words), ids])
            longest = int((ids == EOS).int().argmax(1).max())
            ids = ids[:, :LENGTH if t.here % 5 == 0 else longest + 6].to(args.device)
            ends = (ids == EOS).int().argmax(1)
            with torch.no_grad():
                odd, plain, english = teacher(ids[:-BATCH]).last_hidden_state.split([STRANGERS, BATCH, BATCH])
            with precision(args.device):
                h = model(torch.cat([ids[:STRANGERS], ids[-2 * BATCH:]])).last_hidden_state.float()
            h_odd, h_english, h_chinese = h.split([STRANGERS, BATCH, BATCH])
            past, within = distance(h_chinese, ends[-BATCH:], plain, ends[STRANGERS:STRANGERS + BATCH])
            same = (h_english - english).square().mean() + (h_odd - odd).square().mean()
            loss = (same + past + WITHIN * within) / spread
            if t.step(loss, len(h)):
                result(t)
        if parallel.RANK == 0:
            result(t)


if __name__ == "__main__":
    main()
