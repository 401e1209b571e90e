#!/usr/bin/env python3
"""Random LoRA experts of the tiny models, written by PEFT, and PEFT's logits for each of them alone.

    .peers/transformers/bin/python tools/goldens/make_lora_goldens.py

Reads tests/golden/models/ and the token ids of tests/golden/agreement/MODEL.safetensors. Writes
    tests/golden/agreement/experts/NAME/                 as PEFT's save_pretrained does (README left out, lists sorted)
    tests/golden/agreement/lora_NAME.safetensors         logits.I, error_f32, error_bf16 as in make_tiny_models.py
"""

import json
import shutil

import torch
from float64 import Widened, widen
from golden_file import GOLDEN, save_golden
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

EXPERTS = GOLDEN / "agreement" / "experts"
LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
T5 = ["q", "k", "v", "o", "wi_0", "wi_1", "wo"]
# Different ranks, scales and targets: alpha 1 is PHATGOOSE's 1/R.
POOL = {
    "llama_0": ("llama", dict(r=2, lora_alpha=1, target_modules=LLAMA)),
    "llama_1": ("llama", dict(r=4, lora_alpha=1, target_modules=LLAMA)),
    "llama_2": ("llama", dict(r=3, lora_alpha=6, target_modules="all-linear")),
    "llama_3": ("llama", dict(r=8, lora_alpha=16, use_rslora=True, target_modules=r".*\.(self_attn|mlp)\.\w+_proj",
                              rank_pattern={"down_proj": 5, r"layers\.1\.self_attn\.k_proj": 1},
                              alpha_pattern={"self_attn.q_proj": 4})),
    "llama_4": ("llama", dict(r=4, lora_alpha=1, target_modules=["q_proj", "v_proj", "down_proj"])),
    "t5_0": ("t5_v11", dict(r=2, lora_alpha=1, target_modules=T5)),
    "t5_1": ("t5_v11", dict(r=3, lora_alpha=1, target_modules=T5)),
    "t5_2": ("t5_v11", dict(r=4, lora_alpha=8, target_modules=T5)),
}


def load_base(model, dtype=torch.float32):
    kind = AutoModelForSeq2SeqLM if model.startswith("t5") else AutoModelForCausalLM
    return kind.from_pretrained(GOLDEN / "models" / model, dtype=dtype).eval()


def inputs_of(model):
    """The token ids of the model's own golden, as arguments of transformers' forward."""
    golden = load_file(GOLDEN / "agreement" / f"{model}.safetensors")
    inputs = []
    while (i := len(inputs)) < 4:
        if f"ids.{i}" in golden:
            inputs.append({"input_ids": golden[f"ids.{i}"][None]})
        else:
            inputs.append({"input_ids": golden[f"source.{i}"][None], "decoder_input_ids": golden[f"decoder.{i}"][None]})
    return inputs


def attach(model, options, generator):
    peft_model = get_peft_model(model, LoraConfig(**options)).eval()
    peft_model.peft_config["default"].base_model_name_or_path = "tiny"
    for module in peft_model.modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            a, b, scale = module.lora_A["default"].weight, module.lora_B["default"].weight, module.scaling["default"]
            # Whatever the scale, the expert changes its linear's output by about a third.
            a.data = torch.randn(a.shape, generator=generator) / a.shape[1] ** 0.5
            b.data = 0.3 * torch.randn(b.shape, generator=generator) / (scale * b.shape[1] ** 0.5)
    return peft_model


def save_expert(peft_model, folder):
    shutil.rmtree(folder, ignore_errors=True)
    peft_model.save_pretrained(folder)
    (folder / "README.md").unlink()
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    if isinstance(config["target_modules"], list):  # a set in PEFT: in another order each time
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "adapter_model.safetensors").chmod(0o644)


def golden_of(peft_model, inputs):
    """logits in float64, rounded once, and the errors of float32 and bfloat16 (the adapter included)."""
    tensors, error_f32, error_bf16 = {}, 0.0, 0.0
    wide = widen(peft_model)
    single = []
    with torch.no_grad():
        for given in inputs:
            single.append(peft_model(**given).logits[0].double())
        half = peft_model.bfloat16()
        for i, given in enumerate(inputs):
            with Widened():
                truth = wide(**given).logits[0]
            assert truth.dtype == torch.float64
            error_f32 = max(error_f32, (single[i] - truth).abs().max().item())
            error_bf16 = max(error_bf16, (half(**given).logits[0].double() - truth).abs().max().item())
            tensors[f"logits.{i}"] = truth.float()
    tensors["error_f32"], tensors["error_bf16"] = torch.tensor([error_f32]), torch.tensor([error_bf16])
    return tensors


def main():
    torch.set_num_threads(1)
    for seed, (name, (model, options)) in enumerate(POOL.items()):
        base, inputs = load_base(model), inputs_of(model)
        with torch.no_grad():
            plain = base(**inputs[3]).logits[0]
        peft_model = attach(base, options, torch.Generator().manual_seed(100 + seed))
        save_expert(peft_model, EXPERTS / name)
        tensors = golden_of(peft_model, inputs)
        moved = (tensors["logits.3"] - plain).abs().max().item()
        print(f"{name}: moves logits by {moved:.2f}, error f32 {tensors['error_f32'].item():.2e} "
              f"bf16 {tensors['error_bf16'].item():.2e}")
        save_golden(f"lora_{name}", tensors, __file__)


if __name__ == "__main__":
    main()
