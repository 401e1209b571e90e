#!/usr/bin/env python3
"""Samples of every tensor that transformers makes of a GGUF file: names, row order, dequantisation, without a forward.

    .peers/transformers/bin/python tools/goldens/make_tensor_goldens.py MODELS_FOLDER [NAME ...]

Writes tests/golden/agreement/tensors_NAME.safetensors: under each parameter's Hugging Face name its elements number
(j * 2654435761) mod numel for j = 0 .. 63, f32.
"""

import pathlib
import sys

import torch
from golden_file import save_golden
from make_real_goldens import MODELS
from transformers import AutoModelForCausalLM

SAMPLES = torch.arange(64) * 2654435761


def main():
    folder = pathlib.Path(sys.argv[1])
    for name in sys.argv[2:] or MODELS:
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=f"{name}.gguf", dtype=torch.float32)
        tensors = {key: p.data.flatten()[SAMPLES % p.numel()] for key, p in model.named_parameters()}
        save_golden(f"tensors_{name}", tensors, __file__, file=f"{name}.gguf")
        print(name, len(tensors), "tensors")
        del model


if __name__ == "__main__":
    main()
