"""A UNet as ONNX, for `./build.sh bench --vs-ort --unet`: unet_onnx.py FOLDER SIZE OUT, called by tests/web/bench/vs-ort.mjs.

FOLDER is a diffusers unet folder, SIZE the side of the latents. Writes unet.{f32,f16}.onnx with their weights beside them
(in files of at most 1 GiB), inputs drawn from a seed, and torch's output in f32. Attention is decomposed, as torch's
exporter writes it.
"""
import os
import sys

import numpy as np
import onnx_ir as ir
import torch
from diffusers import UNet2DConditionModel

TIMESTEP = 981.0


class Sample(torch.nn.Module):
    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, sample, timestep, encoder_hidden_states):
        return self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]


def main(folder, size, out):
    os.makedirs(out, exist_ok=True)
    torch.set_num_threads(2)
    unet = UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(size)
    # What f16 holds, so that both precisions see the same.
    draw = lambda *shape: torch.randn(*shape, generator=generator).half().float()
    sample, text = draw(1, 4, size, size), draw(1, 77, unet.config.cross_attention_dim)
    timestep = torch.tensor([TIMESTEP])
    with torch.no_grad():
        output = unet(sample, timestep, text, return_dict=False)[0]
    for name, tensor in (("sample", sample), ("text", text), ("timestep", timestep), ("output", output)):
        tensor.numpy().astype("<f4").tofile(f"{out}/{name}.bin")
    for name, dtype in (("f32", torch.float32), ("f16", torch.float16)):
        unet = unet.to(dtype)
        arguments = (sample.to(dtype), timestep, text.to(dtype))
        with torch.no_grad():
            program = torch.onnx.export(
                Sample(unet).eval(), arguments, input_names=["sample", "timestep", "encoder_hidden_states"],
                output_names=["out_sample"], opset_version=18, dynamo=True, external_data=True, verbose=False)
        ir.save(program.model, f"{out}/unet.{name}.onnx", external_data=f"unet.{name}.data", max_shard_size_bytes=1 << 30)
        del program


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
