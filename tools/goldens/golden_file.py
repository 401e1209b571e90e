"""Where goldens go, and what each says about its making."""

import json
import pathlib

import torch
import transformers
from safetensors.torch import save_file

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"


def made_by(script, **more):
    """One key only: safetensors writes several in random order, and a golden made again should be the same file."""
    facts = {"script": f"tools/goldens/{pathlib.Path(script).name}", "transformers": transformers.__version__,
             "torch": torch.__version__, **more}
    return {"made_by": json.dumps(facts)}


def save_readable(tensors, path, metadata):
    """safetensors writes files that only their owner may read; a checkout's files are for all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata=metadata)
    path.chmod(0o644)


def save_golden(name, tensors, script, **more):
    save_readable(tensors, GOLDEN / "agreement" / f"{name}.safetensors", made_by(script, **more))
