"""Expected values for tests/samplers.rs of EDM's noise levels (Playground v2.5, CosXL), from diffusers' EDMEulerScheduler
and EDMDPMSolverMultistepScheduler, as samplers.py writes those of the other classes: data/edm.json, data/edm.f32.
"""
import json

import numpy as np

import samplers

EULER, DPM = "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"
COSXL = {"sigma_max": 120.0, "sigma_data": 1.0, "sigma_schedule": "exponential", "prediction_type": "v_prediction"}
STEPS = [2, 5, 12, 25]
PLANS = [
    (EULER, {}, [1, *STEPS]),
    (EULER, COSXL, STEPS),
    (EULER, {"prediction_type": "v_prediction", "sigma_min": 0.01, "rho": 5.0}, STEPS),
    (EULER, {"sigma_schedule": "exponential", "final_sigmas_type": "sigma_min"}, STEPS),
    (DPM, {}, [1, *STEPS]),
    (DPM, COSXL, STEPS),
    (DPM, {"solver_order": 1}, [5]),
    (DPM, {"solver_order": 3}, STEPS),
    (DPM, {"solver_type": "heun"}, STEPS),
    (DPM, {"algorithm_type": "sde-dpmsolver++"}, STEPS),
    (DPM, {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.8}, [5, 12]),
    (DPM, {"lower_order_final": False, "final_sigmas_type": "sigma_min"}, [5, 14]),
    (DPM, {"euler_at_final": True, "rho": 5.0}, [5, 25]),
]
# The same steps by their names, over the other class's configuration.
NAMED = [(DPM, COSXL, "euler", EULER), (EULER, COSXL, "dpmpp_2m", DPM), (DPM, {}, "euler", EULER)]

samplers.CLASSES |= {"euler": EULER, "dpmpp_2m": DPM}
for cls, changes, steps in PLANS:
    samplers.add({"_class_name": cls, **changes}, [None], steps)
for cls, changes, name, _ in NAMED:
    samplers.add({"_class_name": cls, **changes}, [name], [5, 12])
texts = [json.dumps(c, separators=(",", ":")) for c in samplers.configs]
(samplers.DATA / "edm.json").write_text(json.dumps({"configs": texts, "cases": samplers.cases}, separators=(",", ":")) + "\n")
np.concatenate(samplers.arrays).astype("<f4").tofile(samplers.DATA / "edm.f32")
print(len(samplers.cases), "cases")
