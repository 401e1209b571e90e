#!/usr/bin/env python3
"""Stand-ins for fine-tunes of a model: its tensors plus seeded noise, a file of the same layout each.

usage: make_finetunes.py BASE_FOLDER OUT_FOLDER [--count 4] [--noise 1e-3]

The noise is normal, with a standard deviation that is a share of each tensor's own (a fine-tune's deltas are about
that small). Needs numpy only; bf16, f16 and f32 tensors are changed, others are copied.
"""
import argparse
import json
import pathlib
import shutil
import struct

import numpy as np


def read(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = file.read(length)
        return struct.pack("<Q", length) + header, json.loads(header), bytearray(file.read())


def to_f32(raw, dtype):
    if dtype == "BF16":
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, {"F16": np.float16, "F32": np.float32}[dtype]).astype(np.float32)


def from_f32(values, dtype):
    if dtype == "BF16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()
    return values.astype({"F16": np.float16, "F32": np.float32}[dtype]).tobytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--noise", type=float, default=0.05, help="standard deviation, as a share of each tensor's own")
    arguments = parser.parse_args()
    for number in range(arguments.count):
        folder = arguments.out / f"tuned{number}"
        folder.mkdir(parents=True, exist_ok=True)
        for file in arguments.base.iterdir():
            if file.suffix != ".safetensors":
                shutil.copy(file, folder)
                continue
            prefix, header, data = read(file)
            for index, (name, entry) in enumerate(sorted(header.items())):
                if name == "__metadata__" or entry["dtype"] not in ("BF16", "F16", "F32"):
                    continue
                begin, end = entry["data_offsets"]
                values = to_f32(bytes(data[begin:end]), entry["dtype"])
                rng = np.random.default_rng([number, index])
                noise = rng.standard_normal(values.size, dtype=np.float32)
                data[begin:end] = from_f32(values + noise * (arguments.noise * float(values.std())), entry["dtype"])
            (folder / file.name).write_bytes(prefix + data)
        print(folder)


if __name__ == "__main__":
    main()
