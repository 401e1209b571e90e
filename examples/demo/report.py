#!/usr/bin/env python3
"""Prints the demo's tables from the result files that `skein eval` wrote.

usage: report.py FOLDER --trained TASK... --held-out TASK... [--markdown]
"""
import argparse
import json
import os
import pathlib
import random
import sys

DRAWS = 2000  # of each bootstrap


def read(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def interval(values, seed="demo"):
    """95 % of the means of resamples: (low, high)."""
    rng = random.Random(seed)
    means = sorted(mean(rng.choices(values, k=len(values))) for _ in range(DRAWS))
    return means[int(0.025 * DRAWS)], means[int(0.975 * DRAWS)]


class Table:
    def __init__(self, head, markdown):
        self.rows, self.markdown = [[(text, False) for text in head]], markdown
        self.bold = not markdown and sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def add(self, *cells):
        self.rows.append([cell if isinstance(cell, tuple) else (cell, False) for cell in cells])

    def print(self):
        if self.markdown:
            for i, row in enumerate(self.rows):
                print("| " + " | ".join(f"**{text}**" if bold else text for text, bold in row) + " |")
                if i == 0:
                    print("|" + "---|" * len(row))
            return
        widths = [max(len(row[c][0]) for row in self.rows) for c in range(len(self.rows[0]))]
        for i, row in enumerate(self.rows):
            cells = [text.ljust(w) if c == 0 else text.rjust(w) for c, ((text, _), w) in enumerate(zip(row, widths))]
            print("  ".join(f"\033[1m{cell}\033[0m" if bold and self.bold else cell for cell, (_, bold) in zip(cells, row)))
            if i == 0:
                print("-" * (sum(widths) + 2 * (len(widths) - 1)))


def accuracy_table(correct, tasks, data, experts, groups, markdown):
    """correct[method][task]: a list of 0 and 1."""
    columns = ["base", *experts, "merged", "oracle", "PHATGOOSE"]
    table = Table(["task", "n", "chance", "majority", *columns], markdown)

    def scores(task):
        row = {method: mean(correct[method][task]) for method in ["base", *experts, "merged"]}
        row["oracle"] = max(row[expert] for expert in experts)
        row["PHATGOOSE"] = mean(correct["phatgoose"][task])
        return row

    def add(name, n, chance, majority, row):
        best = max(value for method, value in row.items() if method != "oracle")
        cells = [(f"{row[c]:.2f}", c != "oracle" and row[c] >= best - 1e-9) for c in columns]
        table.add(name, n, chance, majority, *cells)

    for group, members in groups:
        rows = []
        for task in members:
            chance = mean(1 / len(example["choices"]) for example in data[task])
            counts = {}
            for example in data[task]:
                place = example["choices"].index(example["target"])
                counts[place] = counts.get(place, 0) + 1
            rows.append(scores(task))
            add(task, str(len(data[task])), f"{chance:.2f}", f"{max(counts.values()) / len(data[task]):.2f}", rows[-1])
        add(f"mean, {group}", "", "", "", {c: mean(row[c] for row in rows) for c in columns})
    table.print()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--trained", nargs="+", required=True)
    parser.add_argument("--held-out", nargs="+", required=True)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    experts, tasks = options.trained, options.trained + options.held_out
    groups = [("own", options.trained), ("held out", options.held_out)]
    place = {task: "eval" if task in experts else "heldout" for task in tasks}
    data = {task: read(options.folder / "tasks" / place[task] / f"{task}.jsonl") for task in tasks}
    correct = {}
    for method in ["base", *experts, "merged", "phatgoose"]:
        correct[method] = {task: [] for task in tasks}
        for line in read(options.folder / "results" / f"{method}.jsonl"):
            correct[method][line["task"]].append(int(line["correct"]))

    print("Accuracy of each method (columns) on each task (rows); in bold the best but for the oracle, which picks the best\n"
          "single expert by the answers themselves. Held-out tasks: no expert saw any line of them.\n")
    accuracy_table(correct, tasks, data, experts, groups, options.markdown)
    n = len(next(iter(data.values())))
    print(f"\nOne task's accuracy has a standard error of up to {0.5 / n ** 0.5:.3f} (n = {n}).")
    for group, members in groups:
        for other in ["base", "merged"]:
            differences = [a - b for task in members for a, b in zip(correct["phatgoose"][task], correct[other][task])]
            low, high = interval(differences)
            print(f"PHATGOOSE - {other}, {group} tasks: {mean(differences):+.3f} (95 %: {low:+.3f} to {high:+.3f}, {len(differences)} paired examples)")

    print(f"\nShare of the routing weight that goes to a task's own expert (chance: {1 / len(experts):.3f})\n")
    shares = read(options.folder / "results" / "shares.jsonl")
    table = Table(["task", "own share", "95 % interval", "leading expert", "its share"], options.markdown)
    own_all = []
    for task in tasks:
        rows = [line["shares"] for line in shares if line["task"] == task]
        means = {expert: mean(row[expert] for row in rows) for expert in experts}
        leader = max(means, key=means.get)
        if task in experts:
            own = [row[task] for row in rows]
            own_all += own
            low, high = interval(own)
            table.add(task, (f"{means[task]:.3f}", leader == task), f"{low:.3f} to {high:.3f}", leader, f"{means[leader]:.3f}")
        else:
            table.add(f"{task} (held out)", "", "", leader, f"{means[leader]:.3f}")
    low, high = interval(own_all)
    table.add("all own tasks", f"{mean(own_all):.3f}", f"{low:.3f} to {high:.3f}", "", "")
    table.print()


if __name__ == "__main__":
    main()
