#!/usr/bin/env python3
"""tests/golden/lm_eval/samples_*.jsonl: what lm-evaluation-harness writes under --log_samples for SmolLM2-135M-Instruct
on a few questions made up here: prompts, choices, log-likelihoods, accuracy.

usage: .peers/lm_eval/bin/python tools/goldens/lm_eval_samples.py MODEL
       (tools/peers/make_venvs.sh lm_eval; MODEL: skein convert models/smollm2.gguf MODEL)
"""
import json
import pathlib
import sys
import tempfile

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/lm_eval"

QUESTIONS = [
    ("Question: What is the capital of France?\nAnswer:", ["Paris", "Rome", "a river in the north"], 0),
    ("Question: How many legs has a spider?\nAnswer:", ["six", "eight", "ten"], 1),
    ("The soup was too hot, so she", ["waited a while before she tasted it.", "put on her shoes."], 0),
    ("To open the jar, he turned the lid", ["anticlockwise", "into a bird", "and the café closed – naïvely"], 0),
    ("2 + 2 =", ["4", "5", "22"], 0),
    ("Is the sentence \"The cats is asleep\" correct English? Answer yes or no.\n", ["yes", "no"], 1),
    ("A: Did it rain?\nB: Not a drop!\nSo it was", ["dry", "wet"], 0),
    ("Water boils at one hundred degrees", ["Celsius", "Fahrenheit", "Kelvin", "west"], 0),
]
GENERATED = [("The days of the week: Monday, Tuesday,", "Wednesday"), ("1, 2, 3, 4,", "5")]

CHOICE_TASK = """task: skein_choices
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{input}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
TEXT_TASK = """task: skein_texts
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{input}}"
doc_to_target: "{{target}}"
generation_kwargs: {until: ["\\n", ","], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}]
"""


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        rows = {"choices": [{"input": i, "choices": c, "label": l} for i, c, l in QUESTIONS],
                "texts": [{"input": i, "target": t} for i, t in GENERATED]}
        for name, text in [("choices", CHOICE_TASK), ("texts", TEXT_TASK)]:
            data = folder / f"{name}.jsonl"
            data.write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
            (folder / f"{name}.yaml").write_text(text.replace("DATA", str(data)))
        model = HFLM(pretrained=sys.argv[1], dtype="float32", device="cpu", batch_size=1)
        results = lm_eval.simple_evaluate(
            model, tasks=["skein_choices", "skein_texts"], task_manager=TaskManager(include_path=scratch), log_samples=True,
            bootstrap_iters=0)
        for task, samples in results["samples"].items():
            with open(OUT / f"samples_{task}.jsonl", "w", encoding="utf-8") as out:
                for sample in samples:
                    # As EvaluationTracker.save_results_samples writes them.
                    sample["arguments"] = {f"gen_args_{i}": {f"arg_{j}": v for j, v in enumerate(a)} for i, a in enumerate(sample["arguments"])}
                    sample["resps"] = [[list(r) if isinstance(r, tuple) else r for r in each] for each in sample["resps"]]
                    sample["target"] = str(sample["target"])
                    keep = ("doc_id", "target", "arguments", "resps", "filter", "acc", "acc_norm", "exact_match")
                    out.write(json.dumps({k: sample[k] for k in keep if k in sample}, ensure_ascii=False, default=str) + "\n")


if __name__ == "__main__":
    main()
