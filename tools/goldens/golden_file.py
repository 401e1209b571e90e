"""Where goldens go, and what each says about its making."""

import json
import pathlib

import torch
import transformers
from safetensors.torch import save

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"


def made_by(script, **more):
    return {"script": f"tools/goldens/{pathlib.Path(script).name}", "transformers": transformers.__version__,
            "torch": torch.__version__, **more}


def save_readable(tensors, path, metadata):
    """A file for all to read, the same bytes whenever it is made again (safetensors shuffles the metadata)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = save({k: v.contiguous() for k, v in tensors.items()})
    length = int.from_bytes(data[:8], "little")
    header = json.dumps({"__metadata__": dict(sorted(metadata.items())), **json.loads(data[8:8 + length])}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length:])


def save_golden(name, tensors, script, **more):
    save_readable(tensors, GOLDEN / "agreement" / f"{name}.safetensors", made_by(script, **more))
