#!/usr/bin/env python3
"""Tiny LoRA adapters, what PEFT folds and combines them to.

    .peers/mergekit/bin/python tools/goldens/merge_adapter_goldens.py      (after merge_goldens.py, whose f32 base it uses)

Writes under tests/golden/merge/adapters/:
    NAME/{adapter_config.json,adapter_model.safetensors}   two, three: equal ranks, other scales; patterns: other ranks and
                                              scales by module; rslora: alpha / sqrt(r); dora, bias: what Skein refuses
    folded.safetensors    "NAME|TENSOR": the f32 base's tensors that the adapter changes, after merge_and_unload
    ia3_one, ia3_two/     (IA)3 vectors; combined_ia3.safetensors: PEFT's weighted sum of them,
                          folded_ia3.safetensors as folded.safetensors
    combined.safetensors  "COMBINATION|MODULE.lora_A" and "...lora_B" of add_weighted_adapter, scale 1; random ones with
                          the masks they drew, U8: "COMBINATION|MODULE|mask.ADAPTER.SIDE" (side A, B or delta)
"""

import copy
import json
import shutil

import peft
import torch
from golden_file import GOLDEN, made_by, save_readable
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from peft.utils import merge_utils
from transformers import LlamaForCausalLM

BASE = GOLDEN / "merge" / "models" / "f32" / "base"
ROOT = GOLDEN / "merge" / "adapters"
ADAPTERS = {
    "two": dict(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]),
    "three": dict(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"]),
    "patterns": dict(r=3, lora_alpha=3, target_modules=["q_proj", "v_proj"], rank_pattern={"layers.1.self_attn.q_proj": 5},
                     alpha_pattern={"v_proj": 9}),
    "rslora": dict(r=4, lora_alpha=4, target_modules=["q_proj", "o_proj"], use_rslora=True),
    "dora": dict(r=2, lora_alpha=2, target_modules=["q_proj"], use_dora=True),
    "bias": dict(r=2, lora_alpha=2, target_modules=["q_proj"], bias="lora_only"),
}
# name: (adapters, weights, arguments). The random ones record their masks.
COMBINATIONS = {
    "cat": (("two", "three"), (0.7, -0.4), dict(combination_type="cat")),
    "cat_three": (("two", "three", "patterns"), (0.7, 0.4, 0.5), dict(combination_type="cat")),
    "linear": (("two", "three"), (0.7, -0.4), dict(combination_type="linear")),
    "svd": (("two", "three"), (0.7, 0.4), dict(combination_type="svd", svd_rank=3)),
    "svd_default_rank": (("two", "patterns"), (0.7, 0.4), dict(combination_type="svd")),
    "ties": (("two", "three"), (0.7, 0.4), dict(combination_type="ties", density=0.5)),
    "ties_frequency": (("two", "three"), (0.7, 0.4), dict(combination_type="ties", density=0.7,
                                                          majority_sign_method="frequency")),
    "ties_svd": (("two", "three"), (0.7, 0.4), dict(combination_type="ties_svd", density=0.5, svd_rank=6)),
    "magnitude_prune": (("two", "three"), (0.7, 0.4), dict(combination_type="magnitude_prune", density=0.4)),
    "magnitude_prune_svd": (("two", "three"), (0.7, 0.4), dict(combination_type="magnitude_prune_svd", density=0.4,
                                                               svd_rank=5)),
    "dare_linear": (("two", "three"), (0.7, 0.4), dict(combination_type="dare_linear", density=0.6)),
    "dare_ties": (("two", "three"), (0.7, 0.4), dict(combination_type="dare_ties", density=0.6)),
}


def base_model():
    return LlamaForCausalLM.from_pretrained(BASE, dtype=torch.float32)


def write_adapters():
    folded = {}
    before = dict(base_model().state_dict())
    for index, (name, options) in enumerate(ADAPTERS.items()):
        torch.manual_seed(100 + index)
        model = get_peft_model(base_model(), LoraConfig(task_type="CAUSAL_LM", **options))
        for key, parameter in model.named_parameters():
            if "lora_" in key or key.endswith(".bias"):  # B begins at zero otherwise
                parameter.data = torch.randn(parameter.shape) * 0.05
        save_adapter(model, name)
        if name in ("dora", "bias"):
            continue
        after = PeftModel.from_pretrained(base_model(), ROOT / name).merge_and_unload().state_dict()
        folded |= {f"{name}|{key}": value for key, value in after.items() if not torch.equal(value, before[key])}
    save_readable(folded, ROOT / "folded.safetensors", made_by(__file__, peft=peft.__version__))


def write_ia3():
    """Two sets of (IA)3 vectors, and PEFT's weighted sum of them: "MODULE" with weights 0.25 and 0.75."""
    folded = {}
    for index, name in enumerate(("ia3_one", "ia3_two")):
        torch.manual_seed(200 + index)
        model = get_peft_model(base_model(), IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj", "down_proj"],
                                                       feedforward_modules=["down_proj"]))
        for key, parameter in model.named_parameters():
            if "ia3_l" in key:
                parameter.data = 1 + torch.randn(parameter.shape) * 0.1
        save_adapter(model, name)
        before = dict(base_model().state_dict())
        after = PeftModel.from_pretrained(base_model(), ROOT / name).merge_and_unload().state_dict()
        folded |= {f"{name}|{key}": value for key, value in after.items() if not torch.equal(value, before[key])}
    save_readable(folded, ROOT / "folded_ia3.safetensors", made_by(__file__, peft=peft.__version__))
    model = PeftModel.from_pretrained(base_model(), ROOT / "ia3_one", adapter_name="ia3_one")
    model.load_adapter(ROOT / "ia3_two", adapter_name="ia3_two")
    model.add_weighted_adapter(["ia3_one", "ia3_two"], [0.25, 0.75], "combined")
    sums = {key.removeprefix("base_model.model."): module.ia3_l["combined"].data
            for key, module in model.named_modules() if hasattr(module, "ia3_l") and "combined" in module.ia3_l}
    save_readable(sums, ROOT / "combined_ia3.safetensors", made_by(__file__, peft=peft.__version__))


def save_adapter(model, name):
    model.save_pretrained(ROOT / name)
    (ROOT / name / "README.md").unlink(missing_ok=True)
    config_path = ROOT / name / "adapter_config.json"
    config = json.loads(config_path.read_text())
    config["base_model_name_or_path"] = "models/f32/base"
    for key in ("target_modules", "feedforward_modules"):  # sets: another order in every process
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    config_path.write_text(json.dumps(config, indent=2) + "\n")


def combine(name, adapters, weights, arguments):
    model = PeftModel.from_pretrained(base_model(), ROOT / adapters[0], adapter_name=adapters[0])
    for other in adapters[1:]:
        model.load_adapter(ROOT / other, adapter_name=other)
    tensors, drawn = {}, []
    bernoulli = torch.bernoulli

    def recorded(probability):
        drawn.append(bernoulli(probability))
        return drawn[-1]

    torch.manual_seed(5)
    merge_utils.torch.bernoulli = recorded
    try:
        model.add_weighted_adapter(list(adapters), list(weights), "combined", **copy.deepcopy(arguments))
    finally:
        merge_utils.torch.bernoulli = bernoulli
    for key, module in model.named_modules():
        if hasattr(module, "lora_A") and "combined" in module.lora_A:
            short = key.removeprefix("base_model.model.")
            tensors[f"{name}|{short}.lora_A"] = module.lora_A["combined"].weight.data
            tensors[f"{name}|{short}.lora_B"] = module.lora_B["combined"].weight.data
            assert module.scaling["combined"] == 1
            if drawn:  # PEFT draws for the adapters of A in order, then for those of B
                holders = [a for a in adapters if a in module.lora_A]
                for side in "AB":
                    for adapter in holders:
                        tensors[f"{name}|{short}|mask.{adapter}.{side}"] = drawn.pop(0).to(torch.uint8)
    assert not drawn
    return tensors


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    write_adapters()
    write_ia3()
    combined = {}
    for name, (adapters, weights, arguments) in COMBINATIONS.items():
        combined |= combine(name, adapters, weights, arguments)
        print(name)
    save_readable(combined, ROOT / "combined.safetensors", made_by(__file__, peft=peft.__version__))


if __name__ == "__main__":
    main()
