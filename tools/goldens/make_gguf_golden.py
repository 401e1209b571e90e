#!/usr/bin/env python3
"""Writes tests/golden/gguf/quants.gguf: a tensor of every quantised type Skein reads, beside what gguf-py makes of it.

usage: make_gguf_golden.py REPOSITORY    needs numpy and gguf (made with gguf 0.19.0, numpy 2.4.6)

Tensor "Q4_K" holds random blocks; tensor "Q4_K.expected" their floats, as gguf.quants.dequantize has them. The blocks'
bits are random throughout, but for the f16 scales, which are kept finite (a quantiser never writes others).
"""
import pathlib
import sys

import gguf
import numpy as np

ROWS, COLUMNS = 3, 512
TYPES = "F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K".split()
# Where a block keeps its f16 scales: byte offsets.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def blocks(name: str, random: np.random.Generator) -> np.ndarray:
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    raw = random.integers(0, 256, (ROWS * COLUMNS // elements, size), dtype=np.uint8)
    for offset in SCALES.get(name, []):
        scale = raw[:, offset : offset + 2].view(np.uint16)
        scale[(scale & 0x7C00) == 0x7C00] ^= 0x0400  # infinity and NaN to large finite numbers
        scale[0] = 0x0003  # a subnormal
    if name in ("F16", "BF16"):
        halves = raw.view(np.uint16)
        highest = {"F16": 0x7C00, "BF16": 0x7F80}[name]
        halves[(halves & highest) == highest] ^= highest
    return raw.reshape(ROWS, -1)


def main() -> None:
    folder = pathlib.Path(sys.argv[1]) / "tests/golden/gguf"
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(folder / "quants.gguf", "llama")
    writer.add_uint8("test.uint8", 255)
    writer.add_int8("test.int8", -128)
    writer.add_uint16("test.uint16", 65535)
    writer.add_int16("test.int16", -32768)
    writer.add_uint32("test.uint32", 2**32 - 1)
    writer.add_int32("test.int32", -(2**31))
    writer.add_uint64("test.uint64", 2**64 - 1)
    writer.add_int64("test.int64", -(2**63))
    writer.add_float32("test.float32", 0.5)
    writer.add_float64("test.float64", 1e-300)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "na\u00efve \U0001f9f6")
    writer.add_array("test.strings", ["a", "", "\u00df"])
    writer.add_array("test.integers", [1, -2, 3])
    writer.add_array("test.numbers", [0.25, -1.5])
    writer.add_array("test.flags", [True, False, True])
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        raw = blocks(name, random)
        if name == "F16":
            expected = raw.view(np.float16).astype(np.float32)
        else:
            expected = gguf.quants.dequantize(raw, kind)
        assert expected.shape == (ROWS, COLUMNS) and np.isfinite(expected).all()
        writer.add_tensor(name, raw, raw_dtype=kind)
        writer.add_tensor(name + ".expected", np.ascontiguousarray(expected, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
