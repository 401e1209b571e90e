#!/usr/bin/env python3
"""Holds the order of the folders: each may include only its row of the table below, and torch only above the line.

usage: include_check.py REPOSITORY    exit 1 and one line per upward include
"""
import pathlib
import re
import sys

TORCH_FREE = {
    "base": "", "io": "base", "text": "base io", "spec": "base io", "dist": "base", "merge": "base io text spec dist",
}
ABOVE_THE_LINE = {
    "nn": "base io spec",
    "experts": "base io spec nn",
    "route": "base io spec nn experts",
    "infer": "base io text spec nn experts route",
    "train": "base io text spec dist nn experts route infer",
    "eval": "base io text spec dist merge nn experts route infer",
    "serve": "base io text spec merge nn experts route infer",
}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')
TORCH_HEADER = re.compile(r"^(torch|ATen|c10|caffe2)/")


def faults(root: pathlib.Path):
    rows = {folder: set(allowed.split()) | {folder} for folder, allowed in {**TORCH_FREE, **ABOVE_THE_LINE}.items()}
    for path in sorted((root / "skein").rglob("*")):
        folder = path.relative_to(root / "skein").parts[0]
        if path.suffix not in (".h", ".cc", ".cu") or folder not in rows:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = INCLUDE.match(line)
            if not found:
                continue
            header = found.group(1)
            where = f"{path.relative_to(root)}:{number}"
            if header.startswith("skein/"):
                target = header.split("/")[1]
                if target not in rows[folder]:
                    yield f"{where}: {folder}/ may not include {target}/ ({header})"
            elif TORCH_HEADER.match(header) and folder in TORCH_FREE:
                yield f"{where}: {folder}/ stands below the torch line and includes {header}"
            elif header == "mpi.h" and path.name != "mpi_comm.cc":
                yield f"{where}: only dist/mpi_comm.cc may include mpi.h"
            elif header == "torch/torch.h" and path.suffix == ".h":
                yield f"{where}: torch/torch.h has no place in a header"


def main() -> int:
    found = list(faults(pathlib.Path(sys.argv[1])))
    for fault in found:
        print(fault)
    print(f"{len(found)} include(s) against the order of the folders")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
