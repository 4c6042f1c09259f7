"""A checkpoint in one file that predicts velocity, which no tensor of SD 1.x tells: drawn by diffusers with the scheduler's
`prediction_type`, and with `rescale_betas_zero_snr` too, on the tiny random model of single_file.py.

    python tests/reference/prediction_type.py    # adds prediction.json, prediction.bin to tests/reference/data/single_file/
"""
import json
import diffusers, pipelines
from single_file import KINDS, OUT

pipelines.KINDS = KINDS
cases, data = [], bytearray()
for zero in (False, True):
    pipe = pipelines.pipeline("sd1", {})
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction", rescale_betas_zero_snr=zero)
    options = dict(prompt="a red apple", width=56, height=40, numInferenceSteps=6, guidanceScale=5, seed=1)
    latents, _ = pipelines.run(pipe, dict(options=options))
    print(f"zero SNR {zero}: latents std {latents.std():.3f}")
    cases.append(dict(zero=zero, options=options | dict(scheduler="ddim"), latents=list(latents.shape), offset=len(data)))
    data += latents.numpy().astype("<f4").tobytes()
(OUT / "prediction.json").write_text(json.dumps(cases) + "\n")
(OUT / "prediction.bin").write_bytes(data)
