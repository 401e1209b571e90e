"""Running ours and the peers one after the other, each in a process of its own, and printing them beside each other."""

import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def peer_python(name, given=None):
    """The interpreter of a peer's environment (tools/peers/make_venvs.sh)."""
    python = pathlib.Path(given) if given else ROOT / ".peers" / name / "bin" / "python"
    if not python.exists():
        sys.exit(f"{python} is missing: run tools/peers/make_venvs.sh {name}, or name an interpreter that has it")
    return str(python)


def run_json(command):
    """The last line of stdout, as JSON."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{result.stderr[-3000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def first_output(command):
    """Seconds from starting the process to its first byte of output, and the largest resident memory in bytes."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    first = os.read(process.stdout.fileno(), 1)
    seconds = time.perf_counter() - started
    while os.read(process.stdout.fileno(), 1 << 16):
        pass
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not first:
        sys.exit(f"{' '.join(map(str, command))} failed; run it by hand to see why")
    return seconds, usage.ru_maxrss * 1024


def best_first_output(command, repeats=3):
    """Of several starts the quickest: what is measured is the program, not what else the machine does."""
    runs = [first_output(command) for _ in range(repeats)]
    return min(seconds for seconds, _ in runs), max(peak for _, peak in runs)


def peak_bytes():
    """VmHWM of this process."""
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024


def median_seconds(work, repeats=5):
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return sorted(times)[repeats // 2]


def synthetic_tokens(count):
    """The same as benchmarks/passes.h."""
    return [(i * 7919 + 13) % 20000 + 1000 for i in range(count)]


def print_table(rows, header):
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        print("  ".join(str(cell).ljust(width) if i == 0 else str(cell).rjust(width)
                        for i, (cell, width) in enumerate(zip(row, widths))))


def verdict(ok):
    return "yes" if ok else "NO"
