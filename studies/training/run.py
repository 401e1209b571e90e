#!/usr/bin/env python3
"""The training study: plan.toml's methods on the suite's tasks, equal steps and examples, as one table.

    OMP_NUM_THREADS=1 nice studies/training/run.py --suite SUITE --base models/smollm2.gguf --out OUT

SUITE is a folder with train/<task>.jsonl.gz and train_eval/<task>.jsonl. What is there already in OUT is not made again, so a
stopped study goes on. OUT/results.md is the table, OUT/results.json what it was made from. Speed is tokens by
seconds of the CPU, start and saving included, so that a busy machine does little to it: give one thread. Intervals: bootstrap over
examples, 95 %, each task drawn anew and the tasks' means averaged.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import struct
import subprocess
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
DRAWS = 10_000


def measured(command, note):
    """Runs a command; its standard output, its peak memory (VmHWM) in bytes and the CPU's seconds."""
    print(note, "$", *command, sep=" ", file=sys.stderr, flush=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}: failed with status {os.waitstatus_to_exitcode(status)}")
    return output, usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime


def numbers_in(path):
    """How many numbers a safetensors file holds."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            size = 1
            for length in tensor["shape"]:
                size *= length
            total += size
    return total


def weights_of(folder):
    return sum(numbers_in(path) for path in folder.glob("*.safetensors"))


def train(options, plan, name, method):
    folder, facts = options.out / name, options.out / f"{name}.train.json"
    if facts.exists():
        return json.loads(facts.read_text())
    data = [str(options.suite / "train" / f"{task}.jsonl.gz") for task in plan["tasks"]]
    command = [options.skein, "train", *method["command"], "--base", options.base, "--dtype", plan["dtype"], "--data", *data,
               "--steps", str(plan["steps"]), "--batch", str(plan["batch"]), "--seed", str(plan["seed"]), "--out", str(folder),
               "--overwrite", "--save-every", "0", "--progress", "none", "--json"]
    output, peak, seconds = measured(command, f"training {name}")
    result = json.loads(output) | {"command": method["command"], "peak_bytes": peak, "cpu_seconds": seconds,
                                   "parameters": weights_of(folder)}
    facts.write_text(json.dumps(result, indent=1))
    return result


def evaluate(options, plan, name, model):
    lines, facts = options.out / f"{name}.results.jsonl", options.out / f"{name}.eval.json"
    if not facts.exists():
        data = [str(options.suite / "train_eval" / f"{task}.jsonl") for task in plan["tasks"]]
        command = [options.skein, "eval", *model, "--dtype", plan["dtype"], "--tasks", *data, "--limit", str(plan["eval_limit"]),
                   "--method", name, "--out", str(lines), "--overwrite", "--progress", "none", "--json"]
        output, _, seconds = measured(command, f"evaluating {name}")
        facts.write_text(json.dumps(json.loads(output) | {"cpu_seconds": seconds}, indent=1))
    scores = {}
    for line in lines.read_text().splitlines():
        result = json.loads(line)
        scores.setdefault(result["task"], []).append(float(result["score"]))
    return json.loads(facts.read_text()), scores


def mean(values):
    return sum(values) / len(values)


def interval(scores):
    """Of the mean over tasks of their mean scores."""
    draw = random.Random(1)
    means = sorted(mean([mean(draw.choices(task, k=len(task))) for task in scores.values()]) for _ in range(DRAWS))
    return means[int(0.025 * DRAWS)], means[int(0.975 * DRAWS)]


def model_of(options, name, method):
    folder = str(options.out / name)
    kind = method["command"][0]
    if kind == "full":
        return ["--base", folder]
    return ["--base", options.base, "--mixture" if kind in ("mov", "molora") else "--adapter", folder]


def table(plan, results):
    tasks = plan["tasks"]
    head = ["method", "trained", "share %", "tokens/CPU-s", "peak MB", "loss", *tasks, "mean", "95 % interval"]
    rows = []
    for name, result in results.items():
        run, scores = result.get("train"), result["scores"]
        low, high = interval(scores)
        facts = ["–", "–", "–", "–", "–"] if run is None else [
            f"{run['parameters']:,}", f"{100 * run['parameters'] / results['full']['train']['parameters']:.2f}",
            f"{run['tokens'] / run['cpu_seconds']:.0f}", f"{run['peak_bytes'] / 1e6:.0f}",
            f"{run['first_loss']:.2f} → {run['last_loss']:.2f}"]
        rows.append([name, *facts, *[f"{mean(scores[task]):.2f}" for task in tasks], f"{mean([mean(scores[task]) for task in tasks]):.3f}",
                     f"{low:.3f} – {high:.3f}"])
    base = results["base"]["eval"]["tasks"]
    for what in ("chance", "majority"):
        values = {task["task"]: task[what] for task in base}
        rows.append([what, "–", "–", "–", "–", "–", *[f"{values[task]:.2f}" for task in tasks], f"{mean(list(values.values())):.3f}", "–"])
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=pathlib.Path, required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--skein", default=str(HERE.parents[1] / "build" / "skein"))
    parser.add_argument("--plan", type=pathlib.Path, default=HERE / "plan.toml")
    options = parser.parse_args()
    plan = tomllib.loads(options.plan.read_text())
    options.out.mkdir(parents=True, exist_ok=True)

    results = {}
    facts, scores = evaluate(options, plan, "base", ["--base", options.base])
    results["base"] = {"eval": facts, "scores": scores}
    for name, method in plan["methods"].items():
        run = train(options, plan, name, method)
        facts, scores = evaluate(options, plan, name, model_of(options, name, method))
        results[name] = {"train": run, "eval": facts, "scores": scores}
    minutes = sum(part["cpu_seconds"] for result in results.values() for part in (result.get("train"), result["eval"]) if part) / 60
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    text = table(plan, results) + (
        f"\n{plan['steps']} steps of {plan['batch']} examples, {plan['dtype']}, {plan['eval_limit']} evaluation examples of each task; "
        f"OMP_NUM_THREADS {threads} on {platform.machine()} with {os.cpu_count()} cores; {minutes:.1f} CPU-minutes in all.\n")
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    (options.out / "results.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
