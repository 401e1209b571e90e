#!/usr/bin/env python3
"""Writes tests/golden/peft/: what PEFT makes of adapter configurations.

- match_slots.json: configurations, and of each the modules that PEFT adapted with their rank and scale.
- adapter/: a LoRA folder as PEFT saves it, with values that can be told (A and B of module i hold i and -i), so that a
  reader that mixes two modules up is found out.

Run with transformers and peft installed; the bases are tests/golden/models (make_tiny_models.py).
"""

import json
import shutil
import sys

import peft
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, T5ForConditionalGeneration

from golden_file import GOLDEN, made_by

OUT = GOLDEN / "peft"

# (base, fields of LoraConfig)
CASES = [
    ("llama", {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}),
    ("llama", {"r": 4, "lora_alpha": 6, "target_modules": ["down_proj"], "use_rslora": True}),
    ("llama", {"r": 4, "lora_alpha": 1, "target_modules": "all-linear"}),
    ("llama", {"r": 4, "target_modules": "all-linear", "exclude_modules": ["o_proj", "layers.1.mlp.up_proj"]}),
    ("llama", {"r": 4, "target_modules": r".*\.layers\.[02]\.(self_attn|mlp)\.(q|gate)_proj"}),
    ("llama", {"r": 4, "target_modules": r"layers\.0\.self_attn\.q_proj|.*k_proj"}),
    ("llama", {"r": 4, "target_modules": ["q_proj", "k_proj", "o_proj"], "exclude_modules": r".*layers\.1\..*"}),
    ("llama", {"r": 4, "target_modules": ["model.layers.1.mlp.up_proj", "layers.0.self_attn.v_proj", "rm.weight"]}),
    ("llama", {"r": 8, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj", "up_proj"],
               "rank_pattern": {"q_proj": 2, "model.layers.1.self_attn.q_proj": 3, r"layers\.\d+\.mlp\.up_proj": 5},
               "alpha_pattern": {"layers.1.self_attn.v_proj": 7, "v_proj": 2.5}}),
    ("llama", {"r": 8, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj", "o_proj"], "use_rslora": True,
               "rank_pattern": {"^model.layers.0.self_attn.q_proj": 2, "_proj": 6, "q_proj|v_proj": 3, "proj": 1}}),
    ("llama", {"r": 4, "target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]}),
    ("llama", {"r": 4, "target_modules": ["q_proj", "down_proj"], "layers_to_transform": 0, "layers_pattern": "layers"}),
    ("llama", {"r": 4, "target_modules": ["q_proj"], "layers_to_transform": [0, 7], "layers_pattern": ["blocks", "layers"]}),
    ("t5_v11", {"r": 4, "target_modules": ["q", "v"]}),
    ("t5_v11", {"r": 4, "target_modules": ["k", "wi_0", "wo"], "layers_to_transform": [1]}),
    ("t5_v11", {"r": 4, "target_modules": r"decoder.*EncDecAttention\.(k|v)|encoder\.block\.0.*"
                                          r"(SelfAttention\.o|DenseReluDense\.wi_1)",
                "rank_pattern": {"EncDecAttention.k": 2}}),
    ("t5_v10", {"r": 2, "target_modules": "all-linear"}),
]


def base_model(name):
    folder = GOLDEN / "models" / name
    model = T5ForConditionalGeneration if name.startswith("t5") else AutoModelForCausalLM
    return model.from_pretrained(folder)


def jsonable(config):
    fields = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    return json.loads(json.dumps(fields))


def adapted(model):
    found = []
    for name, module in model.base_model.model.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            found.append({"module": name, "rank": module.r["default"], "scale": module.scaling["default"]})
    return found


def main():
    cases = []
    for base, fields in CASES:
        config = LoraConfig(**fields)
        saved = jsonable(config)  # before PEFT replaces the shorthand by what it found
        model = get_peft_model(base_model(base), config)
        cases.append({"base": base, "config": saved, "adapted": adapted(model)})
    OUT.mkdir(parents=True, exist_ok=True)
    golden = {**made_by(__file__, peft=peft.__version__), "cases": cases}
    (OUT / "match_slots.json").write_text(json.dumps(golden, indent=1) + "\n")

    model = get_peft_model(base_model("llama"), LoraConfig(
        r=3, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"v_proj": 1},
        task_type="CAUSAL_LM"))
    model.peft_config["default"].base_model_name_or_path = "tiny-llama"
    with torch.no_grad():
        for i, module in enumerate(m for m in model.modules() if hasattr(m, "lora_A") and "default" in m.lora_A):
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            a.copy_(i + torch.arange(a.numel()).view_as(a) / 1024)
            b.copy_(-i - torch.arange(b.numel()).view_as(b) / 1024)
    folder = OUT / "adapter"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"].sort()  # a set: another order every time
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))


if __name__ == "__main__":
    sys.exit(main())
