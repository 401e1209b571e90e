#!/usr/bin/env python3
"""Writes tests/golden/torch/: small files by torch.save, in the layouts that `skein convert` reads.

usage: make_torch_golden.py REPOSITORY    needs torch (made with torch 2.13.0)

state_dict.pt: what r-three/phatgoose calls best.pt, a dict of tensors; views, shared storages and every element type.
lightning.ckpt: what mttl calls a .ckpt, a dict with "state_dict" and plain values. forbidden.pt: calls os.system when
unpickled by Python. legacy.pt: the format before zip. expected.safetensors: the tensors of state_dict.pt.
"""
import collections
import os
import pathlib
import sys

import torch
from safetensors.torch import save_file


class Forbidden:
    def __reduce__(self):
        return os.system, ("true",)


def state_dict() -> dict:
    grid = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = collections.OrderedDict()
    tensors["plain"] = grid.clone()
    tensors["transposed"] = grid.t()
    tensors["slice"] = grid[1:3, ::2]
    tensors["row"] = grid[2]
    tensors["scalar"] = torch.tensor(7.5)
    tensors["empty"] = torch.zeros(0, 3)
    tensors["expanded"] = torch.tensor([[1.0], [2.0]]).expand(2, 3)
    tensors["parameter"] = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
             torch.uint8, torch.bool]
    for kind in kinds:
        tensors[str(kind).removeprefix("torch.")] = torch.tensor([0, 1, 1, 0, 1]).to(kind)
    return tensors


def main() -> None:
    folder = pathlib.Path(sys.argv[1]) / "tests/golden/torch"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = state_dict()
    torch.save(tensors, folder / "state_dict.pt")
    torch.save({
        "state_dict": {"model.lora_a": torch.tensor([[1.0, 2.0]]), "model.lora_b": torch.tensor([[3.0], [4.0]])},
        "hyper_parameters": {"lora_rank": 1, "lora_alpha": 16.0, "finetune_task_name": "sst2", "modify_modules": None,
                             "big": 2**40, "negative": -3, "flags": [True, False], "pair": (1, "a"), "triple": (1, 2, 3),
                             "single": ("x",), "nothing": (), "long": list(range(300)), "long_text": "z" * 300},
        "epoch": 3,
    }, folder / "lightning.ckpt")
    torch.save({"weight": torch.zeros(1), "trap": Forbidden()}, folder / "forbidden.pt")
    torch.save({"weight": torch.zeros(1)}, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    expected = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    save_file(expected, folder / "expected.safetensors")


if __name__ == "__main__":
    main()
