#!/usr/bin/env python3
"""Do transformers and PEFT take what `skein merge` wrote?

    .peers/transformers/bin/python tools/peers/check_merged.py OUT [--base BASE] [--like EXPECTED.safetensors]

OUT is a merged model (loaded with AutoModelForCausalLM and AutoTokenizer) or a merged adapter (loaded with PEFT onto
BASE). Checks that every tensor of the files is in the model with the same values and that the model misses none, that the
tokenizer knows every id below the embedding's rows or less, that greedy generation runs, and with --like that the tensors
equal those of another file. Prints what it saw; exits with 1 at the first difference.
"""

import argparse
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def tensors_of(folder):
    return {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}


def fail(why):
    sys.exit(f"check_merged: {why}")


def load_model(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[what]:
            fail(f"{folder}: {what}: {sorted(info[what])}")
    return model


def check_model(folder):
    model = load_model(folder)
    stored, loaded = tensors_of(folder), model.state_dict()
    for name, tensor in stored.items():
        if name not in loaded or not torch.equal(loaded[name], tensor):
            fail(f"{name}: the file's values are not the model's")
    config = json.loads((folder / "config.json").read_text())
    rows = model.get_input_embeddings().weight.shape[0]
    if config["vocab_size"] != rows:
        fail(f"config.json says vocab_size {config['vocab_size']}, the embedding has {rows} rows")
    dtypes = sorted({str(t.dtype) for t in stored.values()})
    print(f"{folder}: {len(stored)} tensors {dtypes}, {model.config.num_hidden_layers} layers, {rows} rows")
    return model


def check_tokenizer(folder, model):
    if not (folder / "tokenizer_config.json").exists() and not (folder / "tokenizer.json").exists():
        print("no tokenizer")
        return torch.tensor([[1, 2, 3]])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary = tokenizer.get_vocab()
    rows = model.get_input_embeddings().weight.shape[0]
    if max(vocabulary.values()) >= rows:
        fail(f"the tokenizer has the id {max(vocabulary.values())}, the embedding {rows} rows")
    for token, identity in vocabulary.items():
        if tokenizer.convert_ids_to_tokens(identity) != token:
            fail(f"id {identity} is {tokenizer.convert_ids_to_tokens(identity)!r}, not {token!r}")
    stored = {**json.loads((folder / "tokenizer.json").read_text())} if (folder / "tokenizer.json").exists() else None
    if stored is not None:
        for entry in stored["added_tokens"]:
            if vocabulary.get(entry["content"]) != entry["id"]:
                fail(f"added token {entry['content']!r} has the id {vocabulary.get(entry['content'])}, not {entry['id']}")
            if tokenizer.encode(entry["content"], add_special_tokens=False) != [entry["id"]]:
                fail(f"added token {entry['content']!r} does not encode to its id")
    print(f"tokenizer: {len(vocabulary)} tokens; chat template: {'yes' if tokenizer.chat_template else 'no'}")
    return tokenizer("the cat", return_tensors="pt").input_ids


def check_generation(model, ids):
    out = model.eval().generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
    print(f"generates: {out[0].tolist()}")


def check_adapter(folder, base):
    from peft import PeftModel
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    stored = tensors_of(folder)
    loaded = {name.replace(".default.", "."): tensor for name, tensor in model.state_dict().items()}
    for name, tensor in stored.items():
        if name not in loaded or not torch.equal(loaded[name].to(tensor.dtype), tensor):
            fail(f"{name}: the file's values are not PEFT's")
    adapted = [name for name in loaded if ".lora_" in name]
    if sorted(adapted) != sorted(stored):
        fail(f"PEFT made matrices that the file lacks: {sorted(set(adapted) - set(stored))}")
    scales = {module.scaling["default"] for module in model.modules()
              if isinstance(getattr(module, "scaling", None), dict)}
    print(f"{folder}: {len(stored) // 2} adapted modules, scales {sorted(scales)}")
    return model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--base")
    parser.add_argument("--like", type=pathlib.Path)
    options = parser.parse_args()
    if (options.out / "adapter_config.json").exists():
        check_generation(check_adapter(options.out, options.base), torch.tensor([[1, 2, 3]]))
    else:
        model = check_model(options.out)
        check_generation(model, check_tokenizer(options.out, model))
    if options.like:
        ours, theirs = tensors_of(options.out), load_file(options.like)
        different = [name for name in theirs if name not in ours or not torch.equal(ours[name], theirs[name])]
        if different or ours.keys() != theirs.keys():
            fail(f"differs from {options.like} in {different[:5]}")
        print(f"equal to {options.like}")


if __name__ == "__main__":
    main()
