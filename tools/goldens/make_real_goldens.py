#!/usr/bin/env python3
"""transformers' logits of real GGUF models, a subset small enough to commit.

    .peers/transformers/bin/python tools/goldens/make_real_goldens.py MODELS_FOLDER [NAME ...]

MODELS_FOLDER holds smollm2.gguf, gemma3-270m.gguf and qwen25-coder-05b.gguf (tools/fetch_models.sh). Writes
tests/golden/agreement/real_NAME.safetensors:
    ids.I (T) i64, positions.I (P) i64: whose logits are kept, columns (C) i64: of which vocabulary entries
    logits.I (P, C) f32; top_ids.I (P, 20) i64 and top_logits.I (P, 20) f32, best first
    error_f32, error_bf16 (1) f32
transformers dequantises the file to float32; logits are then computed in float64 and rounded once. error_f32 and
error_bf16 are the largest differences, over the entries kept, of transformers' own float32 and bfloat16 forwards.
"""

import gc
import pathlib
import sys

import torch
import transformers
from float64 import Widened, widen
from golden_file import save_golden
from transformers import AutoModelForCausalLM, AutoTokenizer

# Every how-manieth vocabulary entry is kept: a prime, so that no stride of the vocabulary hides behind it.
MODELS = {"smollm2": 97, "gemma3-270m": 389, "qwen25-coder-05b": 211}
PARAGRAPH = ("A weaver sits before the loom and passes the shuttle from one side to the other. Every thread of the warp is "
             "lifted or left by a rule that was written long before the cloth was begun, and yet no two cloths are alike. ")
# The last one is longer than Gemma's window of 512 tokens; of long prompts the last rows are kept.
PROMPTS = ["The", "The capital of France is", "def fibonacci(n):\n    if n < 2:\n        return n\n    return", PARAGRAPH * 14]
MAX_ROWS = 24
LONG_ROWS = 4


def prompt_ids(tokenizer, text, bos):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ([bos] if bos is not None else []) + ids


def make(folder, name):
    file = f"{name}.gguf"
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    bos = tokenizer.bos_token_id if name.startswith("gemma") else None
    prompts = [prompt_ids(tokenizer, text, bos) for text in PROMPTS]
    columns = torch.arange(0, model.config.vocab_size, MODELS[name])
    tensors, rows, single = {"columns": columns}, [], []
    for i, ids in enumerate(prompts):
        keep = torch.arange(len(ids)) if len(ids) <= MAX_ROWS else torch.arange(len(ids) - LONG_ROWS, len(ids))
        tensors[f"ids.{i}"], tensors[f"positions.{i}"] = torch.tensor(ids), keep
        rows.append(keep)
        with torch.no_grad():
            single.append(model(torch.tensor([ids]), logits_to_keep=keep).logits[0].double())
    wide = widen(model)
    half = model.bfloat16()
    error_f32 = error_bf16 = 0.0
    for i, ids in enumerate(prompts):
        with torch.no_grad(), Widened():
            truth = wide(torch.tensor([ids]), logits_to_keep=rows[i]).logits[0]
        with torch.no_grad():
            coarse = half(torch.tensor([ids]), logits_to_keep=rows[i]).logits[0].double()
        assert truth.dtype == torch.float64
        top = truth.topk(20, dim=1)
        error_f32 = max(error_f32, (single[i] - truth).abs().max().item())
        error_bf16 = max(error_bf16, (coarse - truth).abs().max().item())
        tensors[f"logits.{i}"] = truth[:, columns].float()
        tensors[f"top_ids.{i}"], tensors[f"top_logits.{i}"] = top.indices, top.values.float()
        print(name, len(ids), "tokens, next:", repr(tokenizer.decode(top.indices[-1, 0])), "std", f"{truth.std():.2f}")
    print(f"{name}: error f32 {error_f32:.2e} bf16 {error_bf16:.2e}", flush=True)
    tensors["error_f32"], tensors["error_bf16"] = torch.tensor([error_f32]), torch.tensor([error_bf16])
    save_golden(f"real_{name}", tensors, __file__, file=file)


def main():
    folder = pathlib.Path(sys.argv[1])
    for name in sys.argv[2:] or MODELS:
        make(folder, name)
        gc.collect()


if __name__ == "__main__":
    main()
