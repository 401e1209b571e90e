#!/usr/bin/env python3
"""Loads an adapter folder that Skein wrote into PEFT and checks that nothing was lost or made up.

    check_adapter.py BASE ADAPTER

BASE is a Hugging Face model folder. Every lora_A and lora_B of the file must be in the loaded model with the same values,
the model must have no other LoRA weight, and ranks and scales are printed. Exit 3 on a difference.
"""

import argparse
import sys
import warnings

import torch
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("adapter")
    options = parser.parse_args()
    encoder_decoder = AutoConfig.from_pretrained(options.base).is_encoder_decoder
    model = (AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM).from_pretrained(options.base)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(model, options.adapter)
    differences = [str(w.message) for w in caught if "adapter keys" in str(w.message)]

    stored = load_file(f"{options.adapter}/adapter_model.safetensors")
    loaded = {name.replace(".default.", "."): value for name, value in model.state_dict().items() if ".lora_" in name}
    for name in sorted(stored.keys() | loaded.keys()):
        if name not in loaded:
            differences.append(f"{name}: in the file, not in PEFT's model")
        elif name not in stored:
            differences.append(f"{name}: in PEFT's model, not in the file")
        elif not torch.equal(stored[name], loaded[name].to(stored[name].dtype)):
            differences.append(f"{name}: other values")
    config = PeftConfig.from_pretrained(options.adapter)
    scales = sorted({(m.r["default"], m.scaling["default"]) for m in model.modules() if hasattr(m, "lora_A")})
    print(f"{len(stored)} tensors, task {config.task_type}, (rank, scale): {scales}")
    for difference in differences:
        print("DIFFERENCE", difference)
    return 3 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
