#!/usr/bin/env python3
"""Expert training: Skein beside PEFT, the same examples, batch, rank and type, each in a process of its own.

    tools/bench/train_vs_peft.py [--base models/smollm2.gguf] [--dtypes bf16 f32] [--json]

LoRA of rank 16 and alpha 1 on all linears, frozen base, adapter in f32, AdamW, loss on the targets only. The examples are
synthetic token ids: inputs of 20 to 200 tokens, targets of 1 to 8. PEFT pads each batch to its longest example, as the usual
collator does; Skein packs. What is compared is examples per second after a step of warm-up, and VmHWM.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time

from side_by_side import ROOT, peak_bytes, peer_python, print_table, run_json, verdict


def write_examples(path, count):
    draw = random.Random(1)
    with open(path, "w") as file:
        for _ in range(count):
            ids = lambda low, high: [draw.randrange(1000, 21000) for _ in range(draw.randint(low, high))]
            file.write(json.dumps({"input": ids(20, 200), "target": [*ids(0, 7), 2]}) + "\n")


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


def worker(options):
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
    loaded = peak_bytes()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=5e-3, weight_decay=0.0)
    examples = [json.loads(line) for line in open(options.data)]
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
    print(json.dumps({"examples_per_s": options.steps * options.batch / seconds, "tokens_per_s": tokens / seconds,
                      "losses": losses, "loaded_bytes": loaded, "peak_bytes": peak_bytes()}))


def measure(options, data):
    results = {}
    sizes = ["--base", options.base, "--data", data, "--threads", str(options.threads), "--batch", str(options.batch),
             "--steps", str(options.steps), "--warm-up", str(options.warm_up)]
    for dtype in options.dtypes:
        for name, command in [("skein", [options.bench]), ("PEFT", [options.transformers, __file__, "--worker"])]:
            print(f"measuring {name} {dtype}", file=sys.stderr, flush=True)
            results[f"{name} {dtype}"] = run_json([*command, "--dtype", dtype, *sizes])
    return results


def report(results, options):
    print(f"batch {options.batch}, {options.steps} steps after {options.warm_up} of warm-up, {options.threads} threads")
    print_table([[name, f"{r['examples_per_s']:.2f}", f"{r['tokens_per_s']:.0f}", f"{r['peak_bytes'] / 1e6:.0f}",
                  f"{r['losses'][0]:.3f}", f"{r['losses'][-1]:.3f}"] for name, r in results.items()],
                ["program", "examples/s", "tokens/s", "peak MB", "first loss", "last loss"])
    print()
    bars = []
    for dtype in options.dtypes:
        ours, theirs = results[f"skein {dtype}"], results[f"PEFT {dtype}"]
        speed, memory = ours["examples_per_s"] / theirs["examples_per_s"], ours["peak_bytes"] / theirs["peak_bytes"]
        bars += [[f"examples/s, {dtype}: ours / PEFT", f"{speed:.2f}", ">= 1.5", verdict(speed >= 1.5)],
                 [f"peak memory, {dtype}: ours / PEFT", f"{memory:.2f}", "<= 0.7", verdict(memory <= 0.7)]]
    print_table(bars, ["ratio", "value", "bar", "met"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=str(ROOT / "models" / "smollm2.gguf"))
    parser.add_argument("--bench", default=str(ROOT / "build" / "benchmarks" / "train_bench"))
    parser.add_argument("--transformers", metavar="PYTHON", help="interpreter with PEFT (default: .peers/transformers)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", choices=["bf16", "f32"], default=["bf16", "f32"])
    parser.add_argument("--json", action="store_true", help="the measurements as one JSON document instead of tables")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options)
    options.transformers = peer_python("transformers", options.transformers)
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "ids.jsonl")
        # As many examples as are read: both see the same ones in every step, up to their order.
        write_examples(data, options.batch * (options.warm_up + options.steps))
        results = measure(options, data)
    print(json.dumps(results, indent=2)) if options.json else report(results, options)


if __name__ == "__main__":
    main()
