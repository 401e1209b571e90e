#!/usr/bin/env python3
"""transformers on the folder that `skein convert` makes of a GGUF file must equal transformers on the file itself.

    .peers/transformers/bin/python tools/goldens/check_convert.py MODELS_FOLDER [NAME ...] [--skein build/skein]

So that nothing is circular: with this, our logits may be compared on either. Every parameter is compared, then the logits
of one prompt; exit status 1 if one differs by more than the rounding of its last bit.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import torch
from make_real_goldens import MODELS
from transformers import AutoModelForCausalLM

PROMPT = torch.tensor([[504, 3575, 282, 4649, 314]])


def largest_difference(name, folder, skein):
    gguf = AutoModelForCausalLM.from_pretrained(folder, gguf_file=f"{name}.gguf", dtype=torch.float32).eval()
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([skein, "convert", folder / f"{name}.gguf", f"{out}/model", "--progress", "none"], check=True)
        converted = AutoModelForCausalLM.from_pretrained(f"{out}/model", dtype=torch.float32).eval()
        theirs, ours = dict(gguf.named_parameters()), dict(converted.named_parameters())
        if theirs.keys() != ours.keys():
            sys.exit(f"{name}: other parameters: {sorted(theirs.keys() ^ ours.keys())[:8]}")
        worst = max(((theirs[k] - ours[k]).abs().max() / theirs[k].abs().max()).item() for k in theirs)
        with torch.no_grad():
            logits = (gguf(PROMPT).logits - converted(PROMPT).logits).abs().max().item()
    print(f"{name}: {len(ours)} parameters, largest difference {worst:.1e} of the tensor's largest; of the logits {logits:.1e}")
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="*", default=list(MODELS))
    parser.add_argument("--skein", default="build/skein")
    options = parser.parse_args()
    # scale * q + minimum in one rounding or two: 64 units in the last place of the tensor's largest, as in tensors_test.cc.
    sys.exit(any(largest_difference(name, options.folder, options.skein) > 64 * 2**-24 for name in options.names))


if __name__ == "__main__":
    main()
