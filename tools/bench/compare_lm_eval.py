#!/usr/bin/env python3
"""Rank classification side by side: lm-evaluation-harness and skein eval on the same prompts, at the same type.

usage: .peers/lm_eval/bin/python tools/bench/compare_lm_eval.py --skein build/skein --model FOLDER --tasks DATA.jsonl ...
           [--limit 100] [--dtype f32|bf16] [--batch 16] [--threads 2]
       (tools/peers/make_venvs.sh lm_eval; FOLDER: a Hugging Face folder, say of skein convert)

Prints examples per second of both (without start-up: lm-eval's model is loaded before, Skein's rate is that of a run
minus that of a run of one example), their accuracies and the largest difference of a log-likelihood.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

TASK = """task: NAME
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{input}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{choices.index(target)}}"
target_delimiter: "\\n"
metric_list: [{metric: acc}]
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--skein", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = HFLM(pretrained=options.model, dtype={"f32": "float32", "bf16": "bfloat16"}[options.dtype], device="cpu", batch_size=options.batch)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        names = []
        for path in options.tasks:
            name = "bench_" + pathlib.Path(path).stem
            lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()[: options.limit]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            (folder / f"{name}.yaml").write_text(TASK.replace("NAME", name).replace("DATA", str(folder / f"{name}.jsonl")))
            names.append((name, len(lines)))
        manager = TaskManager(include_path=scratch)

        def skein(file, limit):
            out = folder / "out.jsonl"
            start = time.perf_counter()
            subprocess.run([options.skein, "eval", "--base", options.model, "--tasks", file, "--scoring", "lm-eval", "--dtype", options.dtype,
                            "--threads", str(options.threads), "--limit", str(limit), "--out", out, "--overwrite", "--json", "--max-input", "2000",
                            "--progress", "none"], check=True, stdout=subprocess.PIPE)
            return time.perf_counter() - start, [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]

        lm_eval.simple_evaluate(model, tasks=[names[0][0]], task_manager=manager, limit=2, bootstrap_iters=0)  # warm
        print(f"{options.dtype}, {options.threads} threads, lm-eval batch {options.batch}")
        print("| task | n | lm-eval, examples/s | skein | ratio | accuracies | largest difference |\n|---|---:|---:|---:|---:|---:|---:|")
        for name, count in names:
            file = str(folder / f"{name}.jsonl")
            start = time.perf_counter()
            peer = lm_eval.simple_evaluate(model, tasks=[name], task_manager=manager, bootstrap_iters=0, log_samples=True)
            peer_seconds = time.perf_counter() - start
            idle = skein(file, 1)[0]
            seconds, lines = skein(file, 0)
            seconds = max(1e-9, seconds - idle)
            samples = sorted(peer["samples"][name], key=lambda s: s["doc_id"])
            worst = max(abs(a - b[0][0]) for line, sample in zip(lines, samples) for a, b in zip(line["scores"], sample["resps"]))
            accuracy = sum(line["correct"] for line in lines) / count
            print(f"| {name[6:]} | {count} | {count / peer_seconds:.2f} | {count / seconds:.2f} | {peer_seconds / seconds:.1f} | "
                  f"{peer['results'][name]['acc,none']:.3f}, {accuracy:.3f} | {worst:.4f} |", flush=True)


if __name__ == "__main__":
    main()
