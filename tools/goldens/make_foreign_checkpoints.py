#!/usr/bin/env python3
"""Writes tests/golden/foreign/: small files in the layouts of r-three/phatgoose and microsoft/mttl, and one hostile one.

The layouts are those of docs/formats/foreign-checkpoints.md; the values are counted up, so that a test can say where
each one must go. Made with torch 2.13.0.  usage: make_foreign_checkpoints.py OUT
"""
import collections
import pathlib
import sys

import torch

MODULES = {"encoder.block.0.layer.0.SelfAttention.q": (6, 4), "decoder.block.0.layer.2.DenseReluDense.wo": (5, 8)}  # out, in
RANK = 2


def counted(*shape, start=0.0):
    return torch.arange(start, start + torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def single_lora():
    state = collections.OrderedDict()
    for module, (d_out, d_in) in MODULES.items():
        state[f"{module}.expert_lora_a"] = counted(RANK, d_in)
        state[f"{module}.expert_lora_b"] = counted(d_out, RANK, start=100)
    return state


def mixture(num_experts):
    state = collections.OrderedDict()
    for module, (d_out, d_in) in MODULES.items():
        for i in range(num_experts):
            a, b = counted(RANK, d_in, start=1000 * i), counted(d_out, RANK, start=1000 * i + 100)
            # .t() leaves the tensor strided: the reader must follow the strides.
            state[f"{module}._addons.expert_lora.layer1__{i}"] = a.t()
            state[f"{module}._addons.expert_lora.layer2__{i}"] = b.t()
            state[f"{module}._addons.router.expert_embeddings__{i}"] = counted(d_in, start=1000 * i + 500)
    state["encoder.embed_tokens.weight"] = torch.zeros(3, 4)
    return state


def gate_in_training():
    state = collections.OrderedDict()
    for module, (d_out, d_in) in MODULES.items():
        state[f"{module}._addons.expert_lora.layer1__0"] = counted(RANK, d_in).t()
        state[f"{module}._addons.expert_lora.layer2__0"] = counted(d_out, RANK, start=100).t()
        state[f"{module}._addons.expert_lora.expert_input_gate"] = counted(d_in, start=500)
    return state


def mttl():
    state = {}
    for module, (d_out, d_in) in MODULES.items():
        state[f"{module}.lora_a"] = counted(RANK, d_in).t().contiguous().to(torch.bfloat16)
        state[f"{module}.lora_b"] = counted(d_out, RANK, start=100).t().contiguous().to(torch.bfloat16)
    return state


class Hostile:
    def __reduce__(self):
        import os
        return (os.system, ("touch /tmp/a-pickle-ran",))


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    torch.save(single_lora(), out / "phatgoose_lora.pt")
    torch.save(mixture(3), out / "phatgoose_mixture.pt")
    torch.save(gate_in_training(), out / "phatgoose_gate.pt")
    torch.save(mttl(), out / "mttl.ckpt")
    torch.save({"weight": Hostile()}, out / "hostile.pt")


if __name__ == "__main__":
    main()
