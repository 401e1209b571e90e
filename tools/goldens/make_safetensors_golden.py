#!/usr/bin/env python3
"""Writes tests/golden/safetensors/: files by the safetensors package, with what PyTorch's conversions make of them.

usage: make_safetensors_golden.py REPOSITORY    needs torch and safetensors (made with torch 2.13.0, safetensors 0.8.0)

all_types.safetensors: a tensor per element type, named as the type. floats.safetensors: "f32" with the numbers on which
roundings differ, "f32.as_bf16" and "f32.as_f16"; "F16", "BF16", "F8_E4M3", "F8_E5M2", "F64" with every bit pattern (of
the 16-bit types: every 13th), each with ".as_f32", ".as_bf16" and ".as_f16".
"""
import pathlib
import sys

import torch
from safetensors.torch import save_file


def all_types() -> dict:
    kinds = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
        "I16": torch.int16, "I8": torch.int8, "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16,
        "U8": torch.uint8, "BOOL": torch.bool,
    }
    tensors = {name: torch.tensor([[0, 1, 2], [1, 1, 0]]).to(kind) for name, kind in kinds.items()}
    tensors["scalar"] = torch.tensor(2.5)
    tensors["empty"] = torch.zeros(0, 4)
    return tensors


def floats() -> dict:
    bits = torch.tensor([
        0, 1, 0x007FFFFF, 0x00800000,                          # zero, subnormals, the least normal number
        0x3F800000, 0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001,  # ties of bf16, and beside them
        0x3F801000, 0x3F803000, 0x3F800FFF, 0x3F801001,        # ties of f16
        0x477FE000, 0x477FEFFF, 0x477FF000, 0x47800000,        # 65504, below 65520, 65520, 65536
        0x33000000, 0x33000001, 0x33800000, 0x33C00000, 0x34200000, 0x387FC000, 0x387FE000, 0x387FF000,  # subnormal f16
        0x7F7FFFFF, 0x7F7F8000, 0x7F7F7FFF, 0x7F800000, 0x7FC00000, 0x7F800001,  # highest, infinity, NaNs
    ], dtype=torch.int64)
    bits = torch.cat([bits, bits | 0x80000000])
    random = torch.randint(0, 2**32, (500,), generator=torch.Generator().manual_seed(0))
    f32 = torch.cat([bits, random]).to(torch.uint32).view(torch.float32)
    tensors = {"f32": f32, "f32.as_bf16": f32.bfloat16(), "f32.as_f16": f32.half()}
    sixteen = torch.arange(0, 65536, 13).to(torch.uint16)
    eight = torch.arange(0, 256).to(torch.uint8)
    sources = {
        "F16": sixteen.view(torch.float16), "BF16": sixteen.view(torch.bfloat16),
        "F8_E4M3": eight.view(torch.float8_e4m3fn), "F8_E5M2": eight.view(torch.float8_e5m2),
        "F64": torch.cat([f32.double(), torch.tensor([1e-320, 1e300, -1e300, 1 + 2.0**-24, 1 + 3 * 2.0**-25])]),
    }
    for name, source in sources.items():
        tensors[name] = source.clone()
        single = source.float()
        tensors[name + ".as_f32"] = single.clone()
        tensors[name + ".as_bf16"] = single.bfloat16()
        tensors[name + ".as_f16"] = single.half()
    return tensors


def main() -> None:
    folder = pathlib.Path(sys.argv[1]) / "tests/golden/safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(all_types(), folder / "all_types.safetensors", metadata={"format": "pt", "note": "by safetensors 0.8.0"})
    save_file(floats(), folder / "floats.safetensors")


if __name__ == "__main__":
    main()
