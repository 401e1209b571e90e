#!/usr/bin/env python3
"""Is it the gates? The demo's experts under their own gates, under shuffled and random ones, and uniformly mixed.

usage: controls.py [FOLDER] [--skein PROGRAM] [--base BASE] [--seeds N] [--markdown]     (after `make demo`)

Same experts, same top-2, same questions; only the gates differ. What is left of PHATGOOSE's gain under shuffled or
random gates is what any two experts together give. Differences are paired by question; intervals are 95 % of a
bootstrap over questions, stratified by task. Everything made lies in FOLDER/controls and is made once.
"""
import argparse
import array
import json
import pathlib
import random
import shutil
import struct
import subprocess
import sys

DRAWS = 2000


def run(*words):
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def randomise_gate(path, rng):
    """Every value of the file's f32 tensors replaced by a draw from N(0, 1); the header stays."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    body = array.array("f", (rng.gauss(0, 1) for _ in range((len(raw) - 8 - length) // 4)))
    path.write_bytes(raw[: 8 + length] + body.tobytes())


def derangement(count, rng):
    """A random order in which nobody stands at their own place."""
    while True:
        order = rng.sample(range(count), count)
        if all(i != place for i, place in enumerate(order)):
            return order


def make_pool(args, names, name, change):
    """FOLDER/controls/NAME: the demo's experts, their gate files changed by change(folders)."""
    pool = args.work / name
    if (pool / "library.json").exists() and (args.work / f"{name}.done").exists():
        return pool
    shutil.rmtree(pool, ignore_errors=True)
    copies = args.work / f"{name}.experts"
    shutil.rmtree(copies, ignore_errors=True)
    folders = []
    for expert in names:
        folder = copies / expert
        shutil.copytree(args.folder / "experts" / expert, folder)
        folders.append(folder)
    change(folders)
    run(args.skein, "library", "create", pool, "--base", args.base)
    for folder in folders:
        run(args.skein, "library", "add", pool, folder)
    shutil.rmtree(copies)
    (args.work / f"{name}.done").touch()
    return pool


def shuffle(seed):
    def change(folders):
        order = derangement(len(folders), random.Random(seed))
        gates = [(folder / "gates/phatgoose.safetensors").read_bytes() for folder in folders]
        for folder, source in zip(folders, order):
            (folder / "gates/phatgoose.safetensors").write_bytes(gates[source])
    return change


def randomise(seed):
    def change(folders):
        rng = random.Random(seed)
        for folder in folders:
            randomise_gate(folder / "gates/phatgoose.safetensors", rng)
    return change


def evaluate(args, name, *options):
    """{(task, id): 0 or 1} of one method."""
    out = args.work / f"{name}.jsonl"
    if not out.exists():
        run(args.skein, "eval", "--base", args.base, "--tasks", *args.files, "--method", name, "--out", out, *options)
    with open(out, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {(row["task"], row["id"]): int(row["correct"]) for row in rows}


def task_means(values):
    """{task: mean} of {(task, id): value}."""
    by_task = {}
    for (task, _), value in values.items():
        by_task.setdefault(task, []).append(value)
    return {task: sum(v) / len(v) for task, v in by_task.items()}


def mean_of_tasks(values, tasks):
    means = task_means(values)
    return sum(means[task] for task in tasks) / len(tasks)


def interval(values, tasks, seed=0):
    """95 % of the task mean under resampling of the questions inside each task."""
    rng = random.Random(seed)
    by_task = [[value for (task, _), value in values.items() if task == wanted] for wanted in tasks]
    means = sorted(sum(sum(rng.choices(v, k=len(v))) / len(v) for v in by_task) / len(tasks) for _ in range(DRAWS))
    return means[int(0.025 * len(means))], means[int(0.975 * len(means)) - 1]


def average(results):
    return {key: sum(result[key] for result in results) / len(results) for key in results[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default="demo", type=pathlib.Path)
    parser.add_argument("--skein", default="build/skein")
    parser.add_argument("--base", default="models/smollm2.gguf")
    parser.add_argument("--seeds", type=int, default=3, help="shuffles and random draws (default 3)")
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    args.work = args.folder / "controls"
    args.work.mkdir(exist_ok=True)
    trained = sorted(path.stem for path in (args.folder / "tasks/eval").glob("*.jsonl"))
    held_out = sorted(path.stem for path in (args.folder / "tasks/heldout").glob("*.jsonl"))
    args.files = [args.folder / "tasks/eval" / f"{t}.jsonl" for t in trained]
    args.files += [args.folder / "tasks/heldout" / f"{t}.jsonl" for t in held_out]
    names = [entry["name"] for entry in json.loads((args.folder / "pool/library.json").read_text())["experts"]]

    routed = ["--router", "phatgoose", "--top-k", 2]
    own = evaluate(args, "own gates", "--library", args.folder / "pool", *routed)
    rows = [("own gates", own)]
    for kind, change in (("shuffled gates", shuffle), ("random gates", randomise)):
        results = []
        for seed in range(args.seeds):
            name = f"{kind.split()[0]}-{seed}"
            pool = make_pool(args, names, name, change(seed))
            results.append(evaluate(args, name, "--library", pool, *routed))
        rows.append((f"{kind} (mean of {args.seeds})", average(results)))
    uniform = [evaluate(args, f"uniform-{seed}", "--library", args.folder / "pool", "--router", "uniform", "--top-k", 2,
                        "--seed", seed) for seed in range(args.seeds)]
    rows.append((f"uniform top-2 (mean of {args.seeds})", average(uniform)))
    rows.append(("mean of all experts", evaluate(args, "merged", "--library", args.folder / "pool", "--router", "merged")))
    rows.append(("base", evaluate(args, "base")))

    for title, tasks in (("tasks of the experts", trained), ("held-out tasks", held_out)):
        count = sum(1 for task, _ in own if task in tasks)
        head = [f"{title} ({len(tasks)}, {count} questions)", "accuracy", "own gates minus this", "95 % interval"]
        table = [head]
        for name, values in rows:
            difference = {key: own[key] - values[key] for key in own}
            low, high = interval(difference, tasks)
            table.append([name, f"{mean_of_tasks(values, tasks):.3f}"]
                         + (["", ""] if values is own else [f"{mean_of_tasks(difference, tasks):+.3f}", f"{low:+.3f} to {high:+.3f}"]))
        if args.markdown:
            print("\n".join("| " + " | ".join(row) + " |" + ("\n|" + "---|" * len(row) if i == 0 else "") for i, row in enumerate(table)))
        else:
            widths = [max(len(row[c]) for row in table) for c in range(len(head))]
            for row in table:
                print("  ".join(cell.ljust(w) if c == 0 else cell.rjust(w) for c, (cell, w) in enumerate(zip(row, widths))))
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
