#!/usr/bin/env python3
"""Training a LoRA by PEFT and transformers: the peer that `skein bench train --peer-python PY` measures itself beside.

Rank 16 and alpha 1 on all linears, frozen base, adapter in f32, AdamW, loss on the targets only; batches padded to their longest
example, as the usual collator does. Examples are token ids, {"input": [...], "target": [...]} a line. The last line of standard
output is one JSON object.
"""

import argparse
import json
import os
import time

from side_by_side import peak_bytes


def collate(examples):
    """Right padding, labels on the targets alone."""
    import torch

    longest = max(len(e["input"]) + len(e["target"]) for e in examples)
    ids, mask, labels = (torch.full((len(examples), longest), fill) for fill in (0, 0, -100))
    for i, e in enumerate(examples):
        begin, end = len(e["input"]), len(e["input"]) + len(e["target"])
        ids[i, :end] = torch.tensor(e["input"] + e["target"])
        mask[i, :end] = 1
        labels[i, begin:end] = torch.tensor(e["target"])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def train(options):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(options.threads)
    folder, file = os.path.split(os.path.abspath(options.base))
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=dtype)
    model.config.use_cache = False
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=1, target_modules="all-linear"))  # adapter in f32
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=5e-3, weight_decay=0.0)
    examples = [json.loads(line) for line in open(options.ids)]
    tokens, losses = 0, []
    for step in range(options.warm_up + options.steps):
        if step == options.warm_up:
            started = time.perf_counter()
        taken = [examples[(step * options.batch + i) % len(examples)] for i in range(options.batch)]
        loss = model(**collate(taken)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        if step >= options.warm_up:
            tokens += sum(len(e["input"]) + len(e["target"]) - 1 for e in taken)
    seconds = time.perf_counter() - started
    print(json.dumps({"s_per_step": seconds / options.steps, "examples_per_s": options.steps * options.batch / seconds,
                      "tokens_per_s": tokens / seconds, "losses": losses, "peak_bytes": peak_bytes()}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--ids", required=True)
    parser.add_argument("--dtype", choices=["bf16", "f32"], required=True)
    for name in ("--threads", "--batch", "--steps", "--warm-up"):
        parser.add_argument(name, type=int, required=True)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
