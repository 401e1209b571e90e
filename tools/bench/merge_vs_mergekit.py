#!/usr/bin/env python3
"""skein merge beside mergekit: whole processes on the same files in one run, warm page cache.

usage: merge_vs_mergekit.py --skein build/skein --mergekit VENV/bin/mergekit-yaml --base FOLDER --work FOLDER
                            [--models 4] [--rounds 3] [--methods linear,task_arithmetic,ties,dare_ties] [--threads 2]

BASE is a Hugging Face folder (skein convert makes one of a GGUF file). Its stand-ins for fine-tunes are made by
make_finetunes.py and kept in the work folder. Skein is timed with and without --no-sync, since mergekit does not sync;
peak memory is the process's VmHWM. Prints a Markdown table; times are medians, mergekit's of one round less.
"""
import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent


def run(command, threads):
    """Wall seconds and peak resident bytes of a child."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{errors.decode(errors='replace')[-2000:]}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def recipe_text(method, base, tuned):
    lines = [f"merge_method: {method}"]
    if method != "linear":
        lines.append(f"base_model: {base}")
    lines.append("models:")
    for folder in tuned:
        density = ", density: 0.2" if "ties" in method or "dare" in method else ""
        lines += [f"- model: {folder}", f"  parameters: {{weight: {1 / len(tuned)}{density}}}"]
    return "\n".join(lines + ["dtype: bfloat16", ""])


def warm(folders):
    for folder in folders:
        for path in folder.glob("*.safetensors"):
            with open(path, "rb") as file:
                while file.read(1 << 24):
                    pass


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skein", required=True)
    parser.add_argument("--mergekit", required=True)
    parser.add_argument("--base", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", default="linear,task_arithmetic,ties,dare_ties")
    arguments = parser.parse_args()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    tuned = [work / f"tuned{index}" for index in range(arguments.models)]
    if not all((folder / "config.json").exists() for folder in tuned):
        subprocess.run([sys.executable, str(HERE / "make_finetunes.py"), str(arguments.base), str(work), "--count",
                        str(arguments.models)], check=True, stdout=subprocess.DEVNULL)
    warm([arguments.base, *tuned])
    out = work / "out"
    print("| method | mergekit s | skein s | skein, synced s | times | mergekit MB | skein MB |")
    print("|---|---|---|---|---|---|---|")
    for method in arguments.methods.split(","):
        recipe = work / f"{method}.yml"
        recipe.write_text(recipe_text(method, arguments.base, tuned))
        skein = [arguments.skein, "merge", str(recipe), str(out), "--progress", "none", "--threads", str(arguments.threads)]
        rows = {"mergekit": [], "skein": [], "synced": []}
        for number in range(arguments.rounds):
            commands = {"skein": [*skein, "--no-sync"], "synced": skein}
            if number + 1 < arguments.rounds or arguments.rounds == 1:
                commands["mergekit"] = [arguments.mergekit, str(recipe), str(out)]
            for name, command in commands.items():
                shutil.rmtree(out, ignore_errors=True)
                os.sync()  # one's dirty pages are not the other's time
                rows[name].append(run(command, arguments.threads))
        shutil.rmtree(out, ignore_errors=True)
        seconds = {name: statistics.median(row[0] for row in found) for name, found in rows.items()}
        peak = {name: max(row[1] for row in found) / 1e6 for name, found in rows.items()}
        print(f"| {method} | {seconds['mergekit']:.2f} | {seconds['skein']:.2f} | {seconds['synced']:.2f} | "
              f"{seconds['mergekit'] / seconds['skein']:.0f} | {peak['mergekit']:.0f} | {peak['skein']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
