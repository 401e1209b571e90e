"""Runs transformers' own forward in double precision: the truth that float32 results are measured against.

`model.double()` is not enough: transformers casts norms, softmax and rotary angles to float32 whatever the weights are.
`Widened` turns those casts into casts to float64 while it is active.
"""

import copy
import math

import torch
from torch.overrides import TorchFunctionMode

SINGLE = torch.float32


class Widened(TorchFunctionMode):
    """Inside: every request for float32 is a request for float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.float:
            return args[0].double()
        args = tuple(torch.float64 if a is SINGLE else a for a in args)
        kwargs = {k: torch.float64 if v is SINGLE else v for k, v in kwargs.items()}
        return func(*args, **kwargs)


def widen(model):
    """A double-precision copy of a float32 model; call it inside `with Widened():`."""
    wide = copy.deepcopy(model).double()
    with Widened():
        for name, module in list(wide.named_modules()):
            if name.endswith("rotary_emb"):  # recompute the angles, which were float32
                parent, _, leaf = name.rpartition(".")
                setattr(wide.get_submodule(parent), leaf, type(module)(module.config))
            if hasattr(module, "scalar_embed_scale"):  # Gemma: sqrt(D)
                module.embed_scale = torch.tensor(math.sqrt(wide.config.hidden_size), dtype=torch.float64)
            if hasattr(module, "_relative_position_bucket"):  # T5: a rule in float32, not a computation to refine
                module._relative_position_bucket = in_single(module._relative_position_bucket)
    return wide


def in_single(function):
    def wrapped(*args, **kwargs):
        with torch._C.DisableTorchFunction():
            return function(*args, **kwargs)

    return wrapped
