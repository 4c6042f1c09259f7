"""Trains the AutoencoderKL (128x128x3 <-> 16x16x4). Resumes from STATE/vae.pt, else the committed weights, else scratch.

usage: train_vae.py STATE MINUTES
"""
import json
import math
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image

import parallel
from compose import Composer
from concepts import COLOURS

HERE = os.path.dirname(os.path.abspath(__file__))
CONFIG = dict(in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4,
              up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(32, 64, 128, 128), layers_per_block=1,
              latent_channels=4, norm_num_groups=16, sample_size=128, act_fn="silu", scaling_factor=1.0)
KINDS = ["plain"] * 5 + ["ground"] * 6 + ["tint"] * 4 + ["tintground"] * 2 + ["scene"] * 2 + ["pair"] * 1
LR, CROPS, KL = 8e-4, 8, 5e-5


def fresh():
    """Residual branches near zero, downsamplers as averages, upsamplers as identities: begins as a linear colour
    autoencoder, which saves the ten grey minutes of a random start."""
    m = AutoencoderKL(**CONFIG)
    with torch.no_grad():
        for mod in m.modules():
            c = type(mod).__name__
            if c == "ResnetBlock2D":
                mod.conv2.weight.mul_(0.05)
                mod.conv2.bias.zero_()
            elif c == "Attention":
                mod.to_out[0].weight.mul_(0.05)
            elif c in ("Downsample2D", "Upsample2D"):
                w = mod.conv.weight
                w.mul_(0.05)
                eye = torch.eye(w.shape[0])
                if c == "Upsample2D":
                    w[:, :, 1, 1] += eye
                else:
                    w[:, :, :2, :2] += 0.25 * eye[:, :, None, None]
                mod.conv.bias.zero_()
    return m


@torch.no_grad()
def revive(m, x):
    """A latent channel with almost no spread is replaced by what the others tell least about: green against magenta."""
    spread = m.encode(x).latent_dist.mean.std((0, 2, 3))
    print("latent spread", [round(float(s), 2) for s in spread], flush=True)
    dead = int(spread.argmin())
    if spread[dead] > 0.3 * spread.median():
        return
    feats = []
    hook = m.encoder.conv_act.register_forward_hook(lambda _m, _i, o: feats.append(o))
    z = m.encode(x).latent_dist.mean
    hook.remove()
    q, c = m.quant_conv, m.encoder.conv_out
    qw = q.weight[:, :, 0, 0].clone()
    c.weight.copy_(torch.einsum("ab,bcij->acij", qw, c.weight))
    c.bias.copy_(qw @ c.bias + q.bias)
    q.weight.copy_(torch.eye(8)[:, :, None, None])
    q.bias.zero_()
    rgb = F.avg_pool2d(x, 8)
    flat = lambda t: t.permute(0, 2, 3, 1).reshape(-1, t.shape[1]).double()
    target = flat(rgb[:, 1:2] - (rgb[:, :1] + rgb[:, 2:]) / 2)
    others = flat(z)[:, [i for i in range(4) if i != dead]]
    others = torch.cat([others, torch.ones_like(target)], 1)
    target = target - others @ torch.linalg.lstsq(others, target).solution
    target = 2.5 * (target - target.mean()) / target.std()
    f = flat(feats[0])
    f = torch.cat([f, torch.ones_like(target)], 1)
    w = torch.linalg.solve(f.T @ f + 1e-3 * len(f) * torch.eye(f.shape[1]).double(), f.T @ target)[:, 0].float()
    c.weight[dead] = 0
    c.weight[dead, :, 1, 1] = w[:-1]
    c.bias[dead] = w[-1]
    c.weight[4 + dead] = 0
    c.bias[4 + dead] = -4.0
    m.post_quant_conv.weight[:, dead] = 0.2 * torch.randn(4, 1, 1)
    print("revived channel", dead, [round(float(s), 2) for s in m.encode(x).latent_dist.mean.std((0, 2, 3))], flush=True)


def to_tensor(a):
    t = torch.from_numpy(np.ascontiguousarray(a)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return t.contiguous(memory_format=torch.channels_last)


def loss_of(y, x):
    d = y - x
    l = d.abs().mean() + d.square().mean()
    for k in (2, 3):
        l = l + 0.3 * d.diff(dim=k).abs().mean()
    for k in (4, 8):
        l = l + F.avg_pool2d(d, k).abs().mean()
    return l


@torch.no_grad()
def evaluate(m, held, path):
    m.eval()
    x = to_tensor(held)
    y, z = [], []
    for part in x.split(16):
        with torch.autocast("cpu", torch.bfloat16):
            d = m.encode(part).latent_dist
            y.append(m.decode(d.mean).sample.float().clamp(-1, 1))
            z.append(d.mean.float())
    y, z = torch.cat(y), torch.cat(z)
    psnr = -10 * torch.log10((y - x).square().mean((1, 2, 3)) / 4)
    byte = lambda t: ((t + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    a, b = byte(x), byte(y)
    sheet = Image.new("RGB", (12 * 128, 8 * 128))
    for k in range(48):
        for j, s in enumerate((a, b)):
            sheet.paste(Image.fromarray(s[k]), (k % 12 * 128, (k // 12 * 2 + j) * 128))
    sheet.save(path)
    flat = {}
    for k, (name, rgb) in enumerate(COLOURS.items()):  # the last twelve are plain fields of colour
        got = b[len(b) - len(COLOURS) + k][32:96, 32:96].reshape(-1, 3).mean(0)
        flat[name] = int(np.abs(got - np.array(rgb)).max())
    print("eval PSNR %.2f spread %s off by %s" % (psnr.mean(), [round(float(v), 2) for v in z.std((0, 2, 3))], flat),
          flush=True)
    m.train()
    return float(psnr.mean())


def main():
    state, minutes = sys.argv[1], float(sys.argv[2])
    rank = parallel.start()
    comp = Composer(state)
    hrng = np.random.default_rng(12345)
    held = [comp.draw(hrng, KINDS[i * 7 % len(KINDS)])[1] for i in range(60)]
    held = np.stack(held + [comp.picture(hrng, None, None, c) for c in COLOURS])

    ckpt, done = os.path.join(state, "vae.pt"), dict(seconds=0.0, steps=0)
    committed = os.path.join(HERE, "../www/embedded/vae")
    saved = None
    if os.path.exists(ckpt):
        saved = torch.load(ckpt, weights_only=True)
        m = AutoencoderKL(**CONFIG)
        m.load_state_dict(saved["model"])
        done = saved["done"]
    elif os.path.exists(os.path.join(committed, "config.json")):
        m = AutoencoderKL.from_pretrained(committed, torch_dtype=torch.float32)
    else:
        m = fresh()
    # each process has its own pictures and noise, all have the same weights
    torch.manual_seed(1000 * done["steps"] + rank)
    rng = np.random.default_rng(1000 * done["steps"] + rank)
    pool = np.stack([comp.draw(rng, KINDS[i % len(KINDS)])[1] for i in range(1500)])
    m = m.to(memory_format=torch.channels_last)
    opt = torch.optim.AdamW(m.parameters(), LR, betas=(0.9, 0.99), weight_decay=1e-3)
    if saved and "opt" in saved:
        opt.load_state_dict(saved["opt"])
    else:
        torch.manual_seed(0)
        revive(m, to_tensor(held[:60]))
        torch.manual_seed(rank)
    ema = {k: v.detach().clone() for k, v in (saved["ema"] if saved and "ema" in saved else m.state_dict()).items()}

    def save():
        torch.save(dict(model=m.state_dict(), ema=ema, opt=opt.state_dict(), done=done), ckpt + ".tmp")
        os.replace(ckpt + ".tmp", ckpt)

    def evaluate_ema():
        now = {k: v.clone() for k, v in m.state_dict().items()}
        m.load_state_dict(ema)
        p = evaluate(m, held, os.path.join(state, "vae.png"))
        m.load_state_dict(now)
        return p

    start, before = time.time(), done["seconds"]
    total, acc, last, step = minutes * 60, [], time.time(), 0
    while True:
        gone = parallel.same(time.time() - start)
        if gone > total:
            break
        p = gone / total
        for g in opt.param_groups:
            g["lr"] = LR * min(1, (step + 1) / 60) * (0.5 * (1 + math.cos(math.pi * p)) * 0.97 + 0.03)
        full = step % 4 == 3 or p > 0.85
        idx = rng.integers(len(pool), size=CROPS // 4 if full else CROPS)
        if full:
            a = pool[idx]
        else:
            a = []
            for i in idx:
                yx = rng.integers(0, 65, 2) if rng.random() < 0.3 else rng.integers(12, 53, 2)
                a.append(pool[i, yx[0]:yx[0] + 64, yx[1]:yx[1] + 64])
            a = np.stack(a)
        x = to_tensor(a)
        with torch.autocast("cpu", torch.bfloat16):
            d = m.encode(x).latent_dist
            mu, lv = d.mean.float(), d.logvar.float()
            noise = (0.5 * lv).exp() + 0.1 * rng.random() * mu.detach().std((0, 2, 3), keepdim=True)
            y = m.decode(mu + noise * torch.randn_like(mu)).sample
        loss = loss_of(y.float(), x)
        (loss + KL * 0.5 * (mu.square() + lv.exp() - 1 - lv).mean()).backward()
        parallel.average_gradients(list(m.parameters()))
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        keep = min(0.995, (step + 1) / (step + 10))
        with torch.no_grad():
            for k, v in m.state_dict().items():
                ema[k].lerp_(v, 1 - keep)
        step += 1
        done["steps"] += 1
        done["seconds"] = before + time.time() - start
        acc.append(loss.item())
        if rank == 0 and step % 50 == 0:
            print("vae step %d %.0fs loss %.4f %.1f pictures/s load %.1f" % (
                done["steps"], gone, np.mean(acc[-50:]), step * parallel.WORLD * CROPS / 4 / (time.time() - start), os.getloadavg()[0]),
                flush=True)
        if rank == 0 and time.time() - last > 300:
            evaluate_ema()
            save()
            last = time.time()
    if rank == 0:
        finish(evaluate_ema(), save, state, done)
    parallel.end()


def finish(psnr, save, state, done):
    save()
    with open(os.path.join(state, "vae.json"), "w") as f:
        json.dump(dict(psnr=round(psnr, 2), steps=done["steps"], minutes=round(done["seconds"] / 60, 1)), f)


if __name__ == "__main__":
    main()
