#!/usr/bin/env python3
"""Time to the first token, prefill and decoding speed and peak memory: ours beside transformers and llama.cpp.

    tools/bench/generate_vs_peers.py [--base models/smollm2.gguf] [--json]

Every program runs in a process of its own, one after the other, on the same file. The time to the first token is from
starting the process to the first byte of its output, for a prompt of five words. Prefill and decoding are measured inside
the process after loading: 512 synthetic tokens in one pass; one token at a time after a prompt of 16; medians. Run it on
a machine that does nothing else.
"""

import argparse
import json
import os
import sys

from side_by_side import (ROOT, best_first_output, median_seconds, peak_bytes, peer_python, print_table, run_json,
                          synthetic_tokens, verdict)

PROMPT = "The capital of France is"


def transformers_worker(options):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(options.threads)
    folder, file = os.path.split(os.path.abspath(options.base))
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=dtype).eval()
    with torch.inference_mode():
        if options.worker == "first_token":
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
            given = tokenizer(PROMPT, return_tensors="pt")
            out = model.generate(**given, max_new_tokens=1, do_sample=False)
            print(tokenizer.decode(out[0, -1:]), flush=True)
            return
        prompt = torch.tensor([synthetic_tokens(options.prompt_tokens)])
        prefill = median_seconds(lambda: model(prompt, logits_to_keep=1))

        step = model(prompt[:, :16], logits_to_keep=1)

        def decode():
            nonlocal step
            token = step.logits[:, -1:].argmax(-1)
            step = model(token, past_key_values=step.past_key_values, logits_to_keep=1)

        seconds = median_seconds(decode, options.new_tokens - 1)
    print(json.dumps({"prefill_tokens_per_s": options.prompt_tokens / prefill,
                      "decode_tokens_per_s": 1 / seconds, "peak_bytes": peak_bytes()}))


def llama_cpp_worker(options):
    from llama_cpp import Llama

    model = Llama(options.base, n_ctx=2048, n_batch=512, n_threads=options.threads, n_threads_batch=options.threads,
                  verbose=False)
    if options.worker == "first_token":
        print(model(PROMPT, max_tokens=1, temperature=0)["choices"][0]["text"], flush=True)
        return
    tokens = synthetic_tokens(options.prompt_tokens)

    def prefill():
        model.reset()
        model.eval(tokens)

    seconds = median_seconds(prefill)

    model.reset()
    model.eval(tokens[:16])
    decoding = median_seconds(lambda: model.eval([model.sample(temp=0)]), options.new_tokens - 1)
    print(json.dumps({"prefill_tokens_per_s": options.prompt_tokens / seconds,
                      "decode_tokens_per_s": 1 / decoding, "peak_bytes": peak_bytes()}))


def worker_command(python, worker, peer, dtype, options):
    return [python, __file__, "--worker", worker, "--peer", peer, "--dtype", dtype, "--base", options.base, "--threads",
            str(options.threads), "--prompt-tokens", str(options.prompt_tokens), "--new-tokens", str(options.new_tokens)]


def measure(options):
    results = {}
    programs = [("skein", "bf16"), ("skein", "f32"), ("llama.cpp", "as stored"), ("transformers", "bf16"),
                ("transformers", "f32")]
    for name, dtype in programs:
        print(f"measuring {name} {dtype}", file=sys.stderr, flush=True)
        if name == "skein":
            first = [options.skein, "generate", "--base", options.base, "--dtype", dtype, "--threads", str(options.threads),
                     "--prompt", PROMPT, "--max-new-tokens", "1", "--progress", "none"]
            speed = [options.bench, "--base", options.base, "--dtype", dtype, "--threads", str(options.threads),
                     "--prompt-tokens", str(options.prompt_tokens), "--new-tokens", str(options.new_tokens)]
        else:
            python = options.llama_cpp if name == "llama.cpp" else options.transformers
            first = worker_command(python, "first_token", name, dtype, options)
            speed = worker_command(python, "speed", name, dtype, options)
        seconds, peak = best_first_output(first, repeats=1 if name == "transformers" else 5)
        result = run_json(speed)
        result.update(first_token_s=seconds, first_token_peak_bytes=peak)
        results[f"{name} {dtype}"] = result
    return results


def report(results):
    columns = [("first token s", "first_token_s", "{:.3f}"), ("prefill tok/s", "prefill_tokens_per_s", "{:.0f}"),
               ("decode tok/s", "decode_tokens_per_s", "{:.1f}"), ("peak MB", "peak_bytes", "{:.0f}"),
               ("peak MB, 1 token", "first_token_peak_bytes", "{:.0f}")]
    rows = []
    for name, result in results.items():
        values = [result[key] / (1e6 if "bytes" in key else 1) for _, key, _ in columns]
        rows.append([name, *(form.format(value) for value, (_, _, form) in zip(values, columns))])
    print_table(rows, ["program", *(title for title, _, _ in columns)])
    print()
    bars = []
    for dtype in ["bf16", "f32"]:
        ours, theirs = results[f"skein {dtype}"], results[f"transformers {dtype}"]
        ratio = lambda key: ours[key] / theirs[key]
        floor = ours["floor_tokens_per_s"]
        bars += [[f"first token, {dtype}: transformers / ours", 1 / ratio("first_token_s"), "> 20", 1 / ratio("first_token_s") > 20],
                 [f"first token, {dtype}: ours / llama.cpp", ours["first_token_s"] / results["llama.cpp as stored"]["first_token_s"],
                  "< 3", ours["first_token_s"] < 3 * results["llama.cpp as stored"]["first_token_s"]],
                 [f"prefill, {dtype}: ours / transformers", ratio("prefill_tokens_per_s"), "> 1.2", ratio("prefill_tokens_per_s") > 1.2],
                 [f"decode, {dtype}: ours / transformers", ratio("decode_tokens_per_s"), "> 3", ratio("decode_tokens_per_s") > 3],
                 [f"decode, {dtype}: ours / streaming the weights ({floor:.0f} tok/s)", ours["decode_tokens_per_s"] / floor, "", True],
                 [f"peak memory, {dtype}: ours / transformers", ratio("peak_bytes"), "< 0.6", ratio("peak_bytes") < 0.6]]
    print_table([[name, f"{value:.2f}", bar, verdict(ok) if bar else ""] for name, value, bar, ok in bars],
                ["ratio", "value", "bar", "met"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=str(ROOT / "models" / "smollm2.gguf"))
    parser.add_argument("--skein", default=str(ROOT / "build" / "skein"))
    parser.add_argument("--bench", default=str(ROOT / "build" / "benchmarks" / "generate_bench"))
    parser.add_argument("--transformers", metavar="PYTHON", help="interpreter with transformers (default: .peers/transformers)")
    parser.add_argument("--llama-cpp", metavar="PYTHON", help="interpreter with llama_cpp (default: .peers/llama_cpp)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--json", action="store_true", help="the measurements as one JSON document instead of tables")
    parser.add_argument("--worker", choices=["first_token", "speed"], help=argparse.SUPPRESS)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return (llama_cpp_worker if options.peer == "llama.cpp" else transformers_worker)(options)
    options.transformers = peer_python("transformers", options.transformers)
    options.llama_cpp = peer_python("llama_cpp", options.llama_cpp)
    results = measure(options)
    print(json.dumps(results, indent=2)) if options.json else report(results)


if __name__ == "__main__":
    main()
