#!/usr/bin/env python3
"""skein merge on large cold files beside cp plus fsync of the same bytes: bytes moved per second.

usage: merge_vs_cp.py --skein build/skein --work FOLDER [--gigabytes 3] [--models 2] [--rounds 3] [--methods linear,task_arithmetic]

Writes models of random non-zero bf16 numbers (any bits with a middling exponent), takes them out of the page cache
before every timing, and deletes everything at the end. Moved bytes are those read plus those written. For files larger
than memory choose the size so that models x gigabytes is; the ratio is printed per round and as a median.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import time

import numpy as np

ROWS, COLUMNS = 8192, 8192  # 128 MiB of bf16 a tensor


def write_model(folder, num_bytes, seed):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 1}')
    size = ROWS * COLUMNS * 2
    count = max(1, int(num_bytes) // size)
    header, offset = {}, 0
    for index in range(count):
        header[f"model.layers.{index:03d}.mlp.up_proj.weight"] = {
            "dtype": "BF16", "shape": [ROWS, COLUMNS], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(seed)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in range(count):
            bits = rng.integers(0, 1 << 16, ROWS * COLUMNS, dtype=np.uint16)
            file.write(((bits & 0x80FF) | 0x3C00).tobytes())  # 2^-7 to 2^-5, either sign
        os.fsync(file.fileno())
    return offset


def forget(folder):
    """Takes a folder's files out of the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(command):
    start = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def copy(source, target):
    start = time.perf_counter()
    subprocess.run(["cp", str(source), str(target)], check=True)
    with open(target, "rb") as file:
        os.fsync(file.fileno())
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skein", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=3)
    parser.add_argument("--models", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", default="linear,task_arithmetic")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    work = arguments.work / "merge_vs_cp"
    shutil.rmtree(work, ignore_errors=True)
    try:
        folders = [work / f"m{index}" for index in range(arguments.models + 1)]
        size = [write_model(folder, arguments.gigabytes * 1e9, seed) for seed, folder in enumerate(folders)][0]
        for method in arguments.methods.split(","):
            base = [] if method == "linear" else [f"base_model: {folders[0]}"]
            inputs = folders[1:]
            lines = [f"merge_method: {method}", *base, "models:"]
            for folder in inputs:
                lines += [f"- model: {folder}", "  parameters: {weight: 0.5, density: 0.2}" if "ties" in method
                          else "  parameters: {weight: 0.5}"]
            recipe = work / f"{method}.yml"
            recipe.write_text("\n".join(lines) + "\n")
            num_read = len(inputs) + len(base)
            ratios = []
            for number in range(arguments.rounds):
                for folder in folders:
                    forget(folder)
                copied = 2 * size / copy(folders[0] / "model.safetensors", work / "copy")
                (work / "copy").unlink()
                for folder in folders:
                    forget(folder)
                seconds = timed([arguments.skein, "merge", str(recipe), str(work / "out"), "--progress", "none",
                                 "--threads", str(arguments.threads)])
                shutil.rmtree(work / "out")
                merged = (num_read + 1) * size / seconds
                ratios.append(merged / copied)
                print(f"{method} round {number}: merge {merged / 1e9:.2f} GB/s in {seconds:.1f} s, cp+fsync "
                      f"{copied / 1e9:.2f} GB/s, ratio {ratios[-1]:.2f}", flush=True)
            print(f"{method}: median ratio {statistics.median(ratios):.2f} of cp+fsync ({num_read} x {size / 1e9:.1f} GB read)")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
