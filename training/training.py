"""What every training here shares: the device, the weights' running mean, the optimiser, the clock, and a
checkpoint from which a second run goes on."""
import contextlib
import math
import os
import signal
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import parallel

SAVE_EVERY, LOOK_EVERY = 180, 240  # seconds
MEET_EVERY = 4  # steps after which the processes (PROCS) average their weights


def add_arguments(parser):
    parser.add_argument("state", help="the folder that holds all that is not in the repository")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--minutes", type=float, help="how long to train, this time")


@contextlib.contextmanager
def precision(device):
    """bf16 where it is safe. On the CPU flash attention took over a third of a step: plain matrix products do not."""
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        if str(device) == "cpu":
            with sdpa_kernel([SDPBackend.MATH]):
                yield
        else:
            yield


class Training:
    """Trains named parameters for `minutes`; learning rate: warm-up, constant, from `decay` of the time on down to
    3 %.

    over() asks the clock (and SIGTERM), step(loss) moves the weights, averaged() lends them the running mean. On the
    CPU the clock counts this process's own time, since cores are shared.
    """

    def __init__(self, path, parameters, lr, minutes, device, ema=0.999, warm_up=100, decay=0.6, extra=None):
        self.path, self.names, self.params = path, list(parameters), list(parameters.values())
        self.lr, self.minutes, self.ema_keep, self.warm_up, self.decay = lr, minutes, ema, warm_up, decay
        self.device, self.extra = device, extra or {}
        self.steps, self.seen, self.seconds = 0, 0, 0.0
        self.opt = torch.optim.AdamW(self.params, lr, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
        self.ema = [p.detach().clone() for p in self.params]
        if os.path.exists(path):
            self._load(torch.load(path, weights_only=True, map_location=device))
        self.clock = time.process_time if str(device) == "cpu" else time.time
        self.start = self.last_look = self.clock()
        self.last_save = time.time()
        self.before, self.first, self.here = self.seconds, self.seen, 0
        self.losses, self.stopped = [], False
        signal.signal(signal.SIGTERM, self._stop)  # finish this step, save, end

    def _stop(self, *_):
        self.stopped = True

    def _load(self, saved):
        with torch.no_grad():
            for k, p, e in zip(self.names, self.params, self.ema):
                p.copy_(saved["model"][k])
                e.copy_(saved["ema"][k])
        self.opt.load_state_dict(saved["opt"])
        self.extra = saved["extra"]
        self.steps, self.seen, self.seconds = saved["steps"], saved["seen"], saved["seconds"]

    def save(self):
        if parallel.RANK == 0:
            torch.save(dict(model=dict(zip(self.names, self.params)), ema=dict(zip(self.names, self.ema)),
                            opt=self.opt.state_dict(), extra=self.extra, steps=self.steps, seen=self.seen,
                            seconds=self.seconds), self.path + ".tmp")
            os.replace(self.path + ".tmp", self.path)
        self.last_save = time.time()

    def progress(self):
        return (self.clock() - self.start) / (60 * self.minutes)

    def over(self):
        """The processes meet here, so that they end together."""
        if self.here % MEET_EVERY == 0:
            self.gone = parallel.same(2.0 if self.stopped else self.progress())
        return self.gone >= 1

    def step(self, loss, pictures):
        """-> whether it is time for a look at what there is"""
        p = min(self.gone, 1.0)
        late = max(0.0, p - self.decay) / (1 - self.decay)
        fade = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * late))
        for g in self.opt.param_groups:
            g["lr"] = self.lr * min(1, (self.here + 1) / self.warm_up) * fade
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.opt.step()
        self.opt.zero_grad(set_to_none=True)
        self.steps += 1
        self.here += 1
        self.seen += pictures * parallel.WORLD
        self.seconds = self.before + self.clock() - self.start
        if self.here % MEET_EVERY == 0:
            parallel.average_weights(self.params)
        keep = min(self.ema_keep, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, [q.detach() for q in self.params], 1 - keep)
        self.losses.append(loss.detach())
        if parallel.RANK == 0 and self.here % 50 == 0:
            print("step %d, %d pictures, %.0f s: loss %.4f, %.1f pictures/s, load %.1f" % (
                self.steps, self.seen, self.seconds, float(torch.stack(self.losses).mean()),
                (self.seen - self.first) / (self.clock() - self.start), os.getloadavg()[0]), flush=True)
            self.losses.clear()
        if time.time() - self.last_save > SAVE_EVERY:
            self.save()
        if self.clock() - self.last_look < LOOK_EVERY:
            return False
        self.last_look = self.clock()
        return parallel.RANK == 0

    @contextlib.contextmanager
    def averaged(self):
        now = [p.detach().clone() for p in self.params]
        with torch.no_grad():
            torch._foreach_copy_(self.params, self.ema)
        yield
        with torch.no_grad():
            torch._foreach_copy_(self.params, now)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if error == (None, None, None):
            self.save()
        parallel.end()


def load_averaged(module, path, device="cpu"):
    """The running mean of a checkpoint, into those parameters of a module that it has."""
    module.load_state_dict(torch.load(path, weights_only=True, map_location=device)["ema"], strict=False)
    return module
