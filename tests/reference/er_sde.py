"""Expected values of er_sde for tests/samplers.rs: with every schedule, in 5, 12 and 30 steps, made like ksamplers.py's.

Who computes: ComfyUI's `sample_er_sde` over noise levels, which is GPL-3.0 and so not kept here. The GitHub repository
MisterChief95/sd-forge-extra-samplers has it in a file by itself, lib_es/extra_samplers/extended_reverse_time.py at commit
5216494bb28bceeeb3898943f0b1e8e7c9441c22:

    ER_SDE=extended_reverse_time.py tests/reference/run.sh er_sde.py

Written: data/er_sde.json [config, name, steps, tuning] and data/er_sde.f32, the final samples.
"""
import functools, importlib.util, os, sys, types
import ksamplers

if "ER_SDE" not in os.environ:
    print("skipped: ER_SDE=... names no file with sample_er_sde; see the head of er_sde.py")
    sys.exit()
# Names of that program's own settings.
sys.modules["lib_es"], sys.modules["lib_es.const"] = types.ModuleType("lib_es"), types.ModuleType("lib_es.const")
sys.modules["lib_es"].const = sys.modules["lib_es.const"]
sys.modules["lib_es.const"].ER_MAX_STAGE = "er_max_stage"
spec = importlib.util.spec_from_file_location("theirs", os.environ["ER_SDE"])
theirs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(theirs)


@functools.wraps(theirs.sample_er_sde)
def er_sde(model, *args, **options):
    model.p = None  # Without settings there are three stages.
    return theirs.sample_er_sde(model, *args, **options)


ksamplers.SAMPLERS["er_sde"] = (None, {}, er_sde)
names = ["er_sde"] + [f"er_sde_{schedule}" for schedule in ksamplers.SCHEDULES]
plan = [(0, name, steps, {}) for name in names for steps in (5, 12, 30)]
plan += [(1, "er_sde", steps, {}) for steps in (5, 12, 30)] + [(0, "er_sde_normal", 12, {"s_noise": s_noise}) for s_noise in (0.0, 0.9)]
ksamplers.write("er_sde", plan)
