"""Four small generative models on two-dimensional data, in torch: what src/train does, by autograd and torch's own Adam.

    train.py                    data/train.json and data/train.f32, which tests/train.rs reads: weights, the first
                                gradients, losses of the first steps
    train.py compare NAME ...   five seeds of every family, or of these, on these data sets, the scores as lines of a
                                table

Every random number comes from one CPU generator, in the order that src/train draws them, so that both begin from the
same weights and see the same batches.
"""

import json
import math
import pathlib
import sys

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, linear, silu

DATA = pathlib.Path(__file__).parent / "data"
BATCH, WARM_UP, STEPS, POINTS = 256, 50, 2000, 2000
WIDTHS = {"diffusion": 128, "flow": 60, "gan": 88, "vae": 88}
RATES = {"diffusion": 2e-3, "flow": 1e-3, "gan": 1e-3, "vae": 2e-3}
MOST = {"flow": 1.0}  # how long a gradient may be
SIGMA = 0.1  # of a VAE's point about what its decoder says
NEAR = 0.15


def points(name):
    g = torch.Generator("cpu").manual_seed(0)
    u = torch.rand(POINTS, generator=g)
    if name == "spiral":
        s = u.sqrt()
        angle, radius = (0.5 + 3 * s) * math.pi, 0.3 + 1.6 * s
        x, part, spread = torch.stack([radius * angle.cos(), radius * angle.sin()], 1), (s * 8).floor(), 0.05
    elif name == "clusters":
        part = (u * 8).floor()
        angle = part * (math.pi / 4)
        x, spread = 1.6 * torch.stack([angle.cos(), angle.sin()], 1), 0.1
    else:
        part = (u * 2).floor()
        angle = torch.rand(POINTS, generator=g) * math.pi
        side = 1 - 2 * part
        x, spread = torch.stack([side * (angle.cos() - 0.5), side * (angle.sin() - 0.25)], 1) * 1.3, 0.08
    return x + spread * torch.randn(POINTS, 2, generator=g), part.long()


def features(x):
    """x, and sines and cosines of each coordinate at four frequencies."""
    return torch.cat([x] + [f(x * 2**k) for k in range(4) for f in (torch.sin, torch.cos)], 1)


class Net:
    """A multilayer perceptron of SiLU; weights are (in, out)."""

    def __init__(self, sizes, g):
        self.layers = []
        for a, b in zip(sizes, sizes[1:]):
            bound = 1 / math.sqrt(a)
            w, c = ((2 * torch.rand(n, generator=g) - 1) * bound for n in (a * b, b))
            self.layers.append((w.reshape(a, b).clone().requires_grad_(), c.clone().requires_grad_()))
        self.parameters = [p for layer in self.layers for p in layer]

    def __call__(self, x):
        for i, (w, b) in enumerate(self.layers):
            x = linear(x if i == 0 else silu(x), w.T, b)
        return x


class Family:
    def __init__(self, name, seed, steps=STEPS, batch=BATCH):
        self.name, self.steps, self.batch, self.step = name, steps, batch, 0
        self.g = g = torch.Generator("cpu").manual_seed(seed)
        h = WIDTHS[name]
        if name == "diffusion":
            self.nets = [Net([19, h, h, h, 2], g)]
        elif name == "flow":
            self.nets = [Net([9, h, h, 2], g) for _ in range(8)]
        elif name == "gan":
            self.nets = [Net([18, h, h, h, 2], g), Net([18, h, h, h, 1], g)]
        else:
            self.nets = [Net([18, h, h, h, 4], g), Net([18, h, h, h, 2], g)]
        groups = [[n] for n in self.nets] if name == "gan" else [self.nets]
        betas = (0.5, 0.999) if name == "gan" else (0.9, 0.999)
        self.adams = [
            torch.optim.Adam([p for n in group for p in n.parameters], lr=RATES[name], betas=betas) for group in groups
        ]

    @property
    def parameters(self):
        return [p for n in self.nets for p in n.parameters]

    def normal(self):
        return torch.randn(self.batch, 2, generator=self.g)

    def flow(self, x):
        logdet = 0
        for i, net in enumerate(self.nets):
            s, t = net(features(x[:, i % 2 : i % 2 + 1])).unbind(1)
            s = 2 * torch.tanh(s / 2)
            moved = x[:, 1 - i % 2] * s.exp() + t
            x = torch.stack([x[:, 0], moved] if i % 2 == 0 else [moved, x[:, 1]], 1)
            logdet = logdet + s
        return x, logdet

    def losses(self, data):
        """One after another, each to be followed by its own step of Adam."""
        index = (torch.rand(self.batch, generator=self.g) * len(data)).long()
        x = data[index]
        if self.name == "diffusion":
            t = torch.rand(self.batch, 1, generator=self.g)
            noise = self.normal()
            a, s = (t * (math.pi / 2)).cos(), (t * (math.pi / 2)).sin()
            v = self.nets[0](torch.cat([features(a * x + s * noise), t], 1))
            yield self.adams[0], (v - (a * noise - s * x)).square().mean()
        elif self.name == "flow":
            z, logdet = self.flow(x)
            yield self.adams[0], (0.5 * z.square().sum(1) - logdet).mean() + math.log(2 * math.pi)
        elif self.name == "vae":
            mean, logvar = self.nets[0](features(x)).split(2, 1)
            z = mean + (0.5 * logvar).exp() * self.normal()
            off = (self.nets[1](features(z)) - x).square().sum(1) / (2 * SIGMA**2)
            kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)
            yield self.adams[0], (off + kl).mean() + math.log(2 * math.pi * SIGMA**2)
        else:
            generator, critic = self.nets
            fake = generator(features(self.normal())).detach()
            logits = critic(features(torch.cat([x, fake])))
            real = torch.cat([torch.ones(self.batch, 1), torch.zeros(self.batch, 1)])
            yield self.adams[1], binary_cross_entropy_with_logits(logits, real)
            logits = critic(features(generator(features(self.normal()))))
            yield self.adams[0], binary_cross_entropy_with_logits(logits, torch.ones_like(logits))

    def train(self, data):
        decay = 0.02 + 0.98 * (1 + math.cos(math.pi * min(self.step / self.steps, 1))) / 2
        rate = RATES[self.name] * min(1, (self.step + 1) / WARM_UP) * decay
        self.step += 1
        out = []
        for adam, loss in self.losses(data):
            adam.zero_grad()
            loss.backward()
            if self.name in MOST:
                torch.nn.utils.clip_grad_norm_(self.parameters, MOST[self.name])
            for group in adam.param_groups:
                group["lr"] = rate
            adam.step()
            out.append(loss.item())
        return out[-1]

    @torch.no_grad()
    def samples(self, count, seed):
        z = torch.randn(count, 2, generator=torch.Generator("cpu").manual_seed(seed))
        if self.name == "gan":
            return self.nets[0](features(z))
        if self.name == "vae":
            return self.nets[1](features(z))
        if self.name == "flow":
            for i in reversed(range(8)):
                s, t = self.nets[i](features(z[:, i % 2 : i % 2 + 1])).unbind(1)
                moved = (z[:, 1 - i % 2] - t) * (-2 * torch.tanh(s / 2)).exp()
                z = torch.stack([z[:, 0], moved] if i % 2 == 0 else [moved, z[:, 1]], 1)
            return z
        for i in range(50, 0, -1):
            now, then = (i / 50 * math.pi / 2), ((i - 1) / 50 * math.pi / 2)
            v = self.nets[0](torch.cat([features(z), torch.full((count, 1), i / 50)], 1))
            x0, noise = math.cos(now) * z - math.sin(now) * v, math.sin(now) * z + math.cos(now) * v
            z = math.cos(then) * x0 + math.sin(then) * noise
        return z


SIDE, SEVEN = 16, 7


def drawings():
    """Four patterns, the ones of tests/train.rs."""
    x, y, i = torch.arange(SIDE), torch.arange(SIDE)[:, None], torch.arange(4)[:, None, None]
    return torch.where((x // 4 * (i + 2) + (y // 4) ** 2 * (i + 1)) % SEVEN < 3, 1.0, -1.0)


class Doodles:
    """A diffusion model of small pictures, as src/train/doodles.rs has it."""

    def __init__(self, data, seed):
        self.g = torch.Generator("cpu").manual_seed(seed)
        self.data, self.step = data, 0
        self.net = Net([SIDE * SIDE + 9, 192, 192, SIDE * SIDE], self.g)
        self.adam = torch.optim.Adam(self.net.parameters, lr=3e-3)

    def predict(self, x, t):
        waves = torch.cat([f(t * 2**k) for k in range(4) for f in (torch.sin, torch.cos)], 1)
        return self.net(torch.cat([x, t, waves], 1))

    def loss(self):
        chance = torch.rand(64, 4, generator=self.g)
        noise = torch.randn(64, SIDE * SIDE, generator=self.g)
        which, right, down = (chance[:, i] * n for i, n in ((0, len(self.data)), (1, 3), (2, 3)))
        wide = torch.nn.functional.pad(self.data, (1, 1, 1, 1), value=-1.0)
        x = torch.stack([
            wide[int(w)][2 - int(d) : 2 - int(d) + SIDE, 2 - int(r) : 2 - int(r) + SIDE].flatten()
            for w, r, d in zip(which, right, down)
        ])
        a, s = (chance[:, 3:] * (math.pi / 2)).cos(), (chance[:, 3:] * (math.pi / 2)).sin()
        return (self.predict(a * x + s * noise, chance[:, 3:]) - x).square().mean()

    def train(self):
        decay = 0.02 + 0.98 * (1 + math.cos(math.pi * min(self.step / 1000, 1))) / 2
        self.adam.param_groups[0]["lr"] = 3e-3 * min(1, (self.step + 1) / WARM_UP) * decay
        self.step += 1
        loss = self.loss()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return loss.item()

    @torch.no_grad()
    def samples(self, seed):
        z = torch.randn(8, SIDE * SIDE, generator=torch.Generator("cpu").manual_seed(seed))
        for i in range(50, 0, -1):
            now, then = (i / 50 * math.pi / 2), ((i - 1) / 50 * math.pi / 2)
            x0 = self.predict(z, torch.full((8, 1), i / 50)).clamp(-1, 1)
            z = math.cos(then) * x0 + math.sin(then) * (z - math.cos(now) * x0) / math.sin(now)
        return z


def score(samples, data, part):
    near = torch.cdist(samples, data, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    on = near.values < NEAR
    parts = int(part.max()) + 1
    counts = torch.bincount(part[near.indices[on]], minlength=parts)
    return on.float().mean().item(), int((counts * 10 * parts >= len(samples)).sum()), parts


def compare(names, seeds=range(5)):
    for name in [n for n in names if n not in WIDTHS]:
        data, part = points(name)
        for family in [f for f in WIDTHS if f in names] or WIDTHS:
            rows = []
            for seed in seeds:
                f = Family(family, seed)
                for _ in range(STEPS):
                    f.train(data)
                rows.append(score(f.samples(2000, 1), data, part))
            shares = [100 * r[0] for r in rows]
            print(f"{name} {family} on data {np.mean(shares):.1f} % of", " ".join(f"{s:.1f}" for s in shares),
                  "modes", " ".join(f"{r[1]}/{r[2]}" for r in rows), flush=True)


def reference():
    """Every sixteenth of the first gradients and each tensor's norm, losses of 100 steps (50 of those that are chaotic), samples of the
    network as it begins; points of each set, and the score of one set's points as samples of another; the same of doodles."""
    values, families, sets = [], {}, {}

    def keep(tensor):
        values.append(tensor.detach().flatten().numpy().astype("<f4"))

    data, _ = points("spiral")
    for name in WIDTHS:
        f = Family(name, 7)
        families[name] = {"parameters": sum(p.numel() for p in f.parameters)}
        keep(torch.cat([p.flatten() for p in f.parameters])[::101])
        keep(f.samples(300, 5))
        gradients = []
        for adam, loss in f.losses(data):
            moved = [p for group in adam.param_groups for p in group["params"]]
            got = torch.autograd.grad(loss, moved)
            gradients.append([g.numel() for g in got])
            for g in got:
                keep(g.norm())
                keep(g.flatten()[::16])
            for p, g in zip(moved, got):
                p.grad = g
            adam.param_groups[0]["lr"] = RATES[name] / WARM_UP
            adam.step()
        families[name]["gradients"] = gradients
        f = Family(name, 7)
        steps = 50 if name in ("flow", "gan") else 100
        losses = [f.train(data) for _ in range(steps)]
        families[name]["losses"] = losses
    for name in ("spiral", "clusters", "moons"):
        data, part = points(name)
        keep(data[::97])
        sets[name] = score(points("moons")[0][:1000], data, part)
    d = Doodles(drawings(), SEVEN)
    keep(torch.cat([p.flatten() for p in d.net.parameters])[::101])
    keep(d.samples(5)[:, ::5])
    for g in torch.autograd.grad(d.loss(), d.net.parameters):
        keep(g.norm())
        keep(g.flatten()[::16])
    d = Doodles(drawings(), SEVEN)
    doodles = [d.train() for _ in range(100)]
    np.concatenate(values).tofile(DATA / "train.f32")
    (DATA / "train.json").write_text(json.dumps({"families": families, "sets": sets, "doodles": doodles}) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["compare"]:
        compare(sys.argv[2:])
    else:
        reference()
