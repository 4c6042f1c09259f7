"""The VAE's decoder alone goes on learning: on the encoder's latents with noise, and, once there is a UNet, on latents that it
has denoised, so that the decoder learns to clean up what the UNet leaves. The encoder stays as it is, so the UNet's latents
stay valid. Resumes from STATE/decoder.pt, else STATE/vae.pt.

usage: train_decoder.py STATE MINUTES
"""
import glob
import json
import math
import os
import sys
import time

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel

import parallel
from compose import Composer
from train_vae import CONFIG, KINDS, evaluate, loss_of, to_tensor
from concepts import COLOURS

LR = float(os.environ.get("LR", 6e-4))


def main():
    state, minutes = sys.argv[1], float(sys.argv[2])
    rank = parallel.start()
    comp = Composer(state)
    hrng = np.random.default_rng(12345)  # the same held-out pictures as in train_vae.py
    held = [comp.draw(hrng, KINDS[i * 7 % len(KINDS)])[1] for i in range(60)]
    held = np.stack(held + [comp.picture(hrng, None, None, c) for c in COLOURS])
    m = AutoencoderKL(**CONFIG)
    m.load_state_dict(torch.load(os.path.join(state, "vae.pt"), weights_only=True)["ema"])
    ckpt = os.path.join(state, "decoder.pt")
    saved = torch.load(ckpt, weights_only=True) if os.path.exists(ckpt) else None
    done = saved["done"] if saved else dict(steps=0, seconds=0.0)
    if saved:
        m.load_state_dict(saved["ema"], strict=False)
    m = m.to(memory_format=torch.channels_last)
    m.encoder.requires_grad_(False)
    m.quant_conv.requires_grad_(False)
    names = [k for k, p in m.named_parameters() if p.requires_grad]
    params = [p for p in m.parameters() if p.requires_grad]
    ema = [p.detach().clone() for p in params]
    opt = torch.optim.AdamW(params, LR, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    shards = sorted(glob.glob(os.path.join(state, "latents", "???.npz")))
    files = [np.load(p) for p in shards]
    z = torch.from_numpy(np.concatenate([f["z"] for f in files])).float()
    pictures = np.concatenate([f["pictures"] for f in files])
    spread = z.std((0, 2, 3)).view(1, 4, 1, 1)
    unet = None
    if os.environ.get("WITH_UNET"):
        from train_unet import AB, CONFIG as U, Captions, Data
        u = torch.load(os.path.join(state, "unet.pt"), weights_only=True)
        unet = UNet2DConditionModel(**U)
        with torch.no_grad():
            for p, e in zip(unet.parameters(), u["ema"]):
                p.copy_(e)
        unet = unet.eval().to(memory_format=torch.channels_last)
        captions, texts = Captions(state), Data(state, np.random.default_rng(0)).captions
    rng = np.random.default_rng(500 + 100 * done["steps"] + rank)
    torch.manual_seed(500 + 100 * done["steps"] + rank)

    def batch(n):
        ix = rng.integers(len(z), size=n)
        x0 = z[ix]
        if unet is not None and rng.random() < 0.7:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), sdpa_kernel([SDPBackend.MATH]):
                t = torch.from_numpy(rng.integers(20, 500, size=n))
                a = AB[t].view(-1, 1, 1, 1)
                y = (x0 - u["mean"]) / u["spread"]
                xt = a.sqrt() * y + (1 - a).sqrt() * torch.randn_like(y)
                v = unet(xt, t, captions([texts[i][0] for i in ix])).sample.float()
            return (a.sqrt() * xt - (1 - a).sqrt() * v) * u["spread"] + u["mean"], pictures[ix]
        return x0 + 0.12 * rng.random() * spread * torch.randn_like(x0), pictures[ix]

    def save():
        torch.save(dict(ema=dict(zip(names, ema)), done=done), ckpt + ".tmp")
        os.replace(ckpt + ".tmp", ckpt)

    def with_ema(f):
        now = [p.detach().clone() for p in params]
        with torch.no_grad():
            torch._foreach_copy_(params, ema)
        r = f()
        with torch.no_grad():
            torch._foreach_copy_(params, now)
        return r

    start, before, last, step, acc = time.time(), done["seconds"], time.time(), 0, []
    while True:
        p = parallel.same(time.time() - start) / (minutes * 60)
        if p > 1:
            break
        for g in opt.param_groups:
            g["lr"] = LR * min(1, (step + 1) / 40) * (0.5 * (1 + math.cos(math.pi * p)) * 0.97 + 0.03)
        if step % 2 == 0 or p > 0.8:
            zz, pic = batch(2)
        else:
            zz, pic = batch(8)
            y0, x0 = rng.integers(1, 8, 2)
            zz, pic = zz[:, :, y0:y0 + 8, x0:x0 + 8], pic[:, y0 * 8:y0 * 8 + 64, x0 * 8:x0 * 8 + 64]
        with torch.autocast("cpu", torch.bfloat16):
            y = m.decode(zz.contiguous(memory_format=torch.channels_last)).sample
        loss = loss_of(y.float(), to_tensor(pic))
        loss.backward()
        parallel.average_gradients(params)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        step += 1
        done["steps"] += 1
        done["seconds"] = before + time.time() - start
        torch._foreach_lerp_(ema, [q.detach() for q in params], 1 - min(0.995, step / (step + 9)))
        acc.append(loss.item())
        if rank == 0 and step % 50 == 0:
            print("decoder step %d %.0fs loss %.4f load %.1f" % (done["steps"], time.time() - start, np.mean(acc[-50:]),
                                                                 os.getloadavg()[0]), flush=True)
        if rank == 0 and time.time() - last > 240:
            save()
            last = time.time()
    if rank == 0:
        save()
        psnr = with_ema(lambda: evaluate(m, held, os.path.join(state, "vae.png")))
        with open(os.path.join(state, "vae.json"), "w") as f:
            json.dump(dict(psnr=round(psnr, 2), decoder_steps=done["steps"]), f)
    parallel.end()


if __name__ == "__main__":
    main()
