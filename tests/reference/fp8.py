"""What torch makes of every number of eight bits: data/fp8.bin, for tests/checkpoint.rs; and a file of `torch.save` that
holds them all, single_file/fp8.pt, for tests/single_file.rs.

All values in f16's bits (int16, little-endian): for float8_e4m3fn, then float8_e5m2: the 256 as they are, then times each of
SCALES in f32 and rounded to f16, as ComfyUI scales the weights of its scaled_fp8 files.
"""
import pathlib

import torch

SCALES = [0.012345679, 1.7, 3.0517578e-05]

out = b""
for kind in (torch.float8_e4m3fn, torch.float8_e5m2):
    values = torch.arange(256, dtype=torch.uint8).view(kind)
    out += values.to(torch.float16).view(torch.int16).numpy().tobytes()
    for scale in SCALES:
        scaled = values.to(torch.float32) * torch.tensor(scale, dtype=torch.float32)
        out += scaled.to(torch.float16).view(torch.int16).numpy().tobytes()
(pathlib.Path(__file__).parent / "data/fp8.bin").write_bytes(out)
kinds = {"e4m3fn": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
numbers = {name: torch.arange(256, dtype=torch.uint8).view(kind).reshape(16, 16) for name, kind in kinds.items()}
torch.save(numbers | {"half": torch.ones(3).half()}, pathlib.Path(__file__).parent / "data/single_file/fp8.pt")
