#!/usr/bin/env python3
"""What routing costs: Skein's PHATGOOSE routing beside PEFT's Arrow, 36 random experts of rank 16 on all linears, top-2.

    tools/bench/arrow_vs_skein.py [--base models/smollm2.gguf] [--json]

Both route every token at every linear by an inner product with one vector per expert. Times are of one pass over 512
synthetic tokens and of one decoded token, each beside the same program's plain base.
"""

import argparse
import json
import os
import sys
import tempfile

from side_by_side import ROOT, median_seconds, peak_bytes, peer_python, print_table, run_json, synthetic_tokens, verdict


def write_experts(model, folder, count, rank):
    """PEFT's own files. Random B too: an expert whose B is zero has no direction to route by."""
    import torch
    from peft import LoraConfig, get_peft_model

    peft_model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=1, target_modules="all-linear"))
    paths = []
    for e in range(count):
        torch.manual_seed(e)
        for name, parameter in peft_model.named_parameters():
            if "lora_" in name:
                parameter.data.normal_(0, 0.02)
        paths.append(f"{folder}/expert_{e}")
        peft_model.save_pretrained(paths[-1])
    return peft_model.unload(), paths


def worker(options):
    import torch
    from peft import ArrowConfig
    from peft.tuners.lora.arrow import create_arrow_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(options.threads)
    folder, file = os.path.split(os.path.abspath(options.base))
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=dtype).eval()
    prompt = torch.tensor([synthetic_tokens(options.prompt_tokens)])

    def prefill_seconds(any_model):
        return median_seconds(lambda: any_model(input_ids=prompt, logits_to_keep=1), repeats=3)

    def decode_seconds(any_model):
        start = any_model(input_ids=prompt[:, :16], logits_to_keep=1)
        cache, token = start.past_key_values, start.logits[:, -1:].argmax(-1)
        step = lambda: any_model(input_ids=token, past_key_values=cache, logits_to_keep=1)
        return median_seconds(step, repeats=9)

    with torch.inference_mode():
        result = {"base_prefill_s": prefill_seconds(model), "base_decode_s": decode_seconds(model)}
    with tempfile.TemporaryDirectory() as experts:
        model, paths = write_experts(model, experts, options.experts, options.rank)
        arrow = create_arrow_model(model, paths, ArrowConfig(top_k=options.top_k, router_temperature=1.0, rng_seed=0)).eval()
        if dtype is torch.bfloat16:
            arrow = arrow.bfloat16()
    with torch.inference_mode():
        result |= {"routed_prefill_s": prefill_seconds(arrow), "routed_decode_s": decode_seconds(arrow)}
    print(json.dumps(result | {"peak_bytes": peak_bytes()}))


def measure(options):
    results = {}
    sizes = ["--base", options.base, "--threads", str(options.threads), "--prompt-tokens", str(options.prompt_tokens),
             "--experts", str(options.experts), "--rank", str(options.rank), "--top-k", str(options.top_k)]
    for dtype in ["bf16", "f32"]:
        for name, command in [("skein", [options.bench]), ("PEFT Arrow", [options.transformers, __file__, "--worker"])]:
            print(f"measuring {name} {dtype}", file=sys.stderr, flush=True)
            results[f"{name} {dtype}"] = run_json([*command, "--dtype", dtype, *sizes])
    return results


def report(results):
    rows = []
    for name, r in results.items():
        rows.append([name, f"{r['base_prefill_s']:.3f}", f"{r['routed_prefill_s']:.3f}",
                     f"{r['routed_prefill_s'] / r['base_prefill_s']:.2f}", f"{1e3 * r['base_decode_s']:.1f}",
                     f"{1e3 * r['routed_decode_s']:.1f}", f"{r['routed_decode_s'] / r['base_decode_s']:.2f}",
                     f"{r['peak_bytes'] / 1e6:.0f}"])
    print_table(rows, ["program", "base s", "routed s", "ratio", "base decode ms", "routed decode ms", "ratio", "peak MB"])
    print()
    bars = []
    for dtype in ["bf16", "f32"]:
        ours, theirs = results[f"skein {dtype}"], results[f"PEFT Arrow {dtype}"]
        ratio = ours["routed_prefill_s"] / ours["base_prefill_s"]
        bars += [[f"prefill, {dtype}: routed / base, ours", f"{ratio:.2f}", "< 2", verdict(ratio < 2)],
                 [f"prefill, {dtype}: Arrow / ours, routed", f"{theirs['routed_prefill_s'] / ours['routed_prefill_s']:.1f}", "", ""],
                 [f"decode, {dtype}: Arrow / ours, routed", f"{theirs['routed_decode_s'] / ours['routed_decode_s']:.1f}", "", ""]]
    print_table(bars, ["ratio", "value", "bar", "met"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=str(ROOT / "models" / "smollm2.gguf"))
    parser.add_argument("--bench", default=str(ROOT / "build" / "benchmarks" / "routed_prefill_bench"))
    parser.add_argument("--transformers", metavar="PYTHON", help="interpreter with PEFT (default: .peers/transformers)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--experts", type=int, default=36)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="the measurements as one JSON document instead of tables")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options)
    options.transformers = peer_python("transformers", options.transformers)
    results = measure(options)
    print(json.dumps(results, indent=2)) if options.json else report(results)


if __name__ == "__main__":
    main()
