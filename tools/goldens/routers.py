#!/usr/bin/env python3
"""PEFT's Arrow and GenKnowSub on a pool of tiny experts.

    .peers/transformers/bin/python tools/goldens/routers.py

Reads tests/golden/models/llama and the token ids of tests/golden/agreement/llama.safetensors. Writes
    tests/golden/agreement/experts/llama_task_I/, llama_general_I/   LoRA experts of one rank, as PEFT saves them
    tests/golden/agreement/arrow_VARIANT.safetensors   logits.I (T, V) in float64, rounded once; prototypes.MODULE (E, D_in) of
                                                       PEFT's power iteration in float32; error_f32: of the logits. Metadata:
                                                       the settings
"""

import json

import torch
from float64 import Widened, widen
from golden_file import save_golden
from make_lora_goldens import EXPERTS, attach, inputs_of, load_base, save_expert
from peft import ArrowConfig, create_arrow_model
from peft.tuners.lora.arrow import ArrowLoraLinearLayer

TARGETS = ["q_proj", "v_proj", "down_proj"]
NAMES = ["llama_task_0", "llama_task_1", "llama_task_2", "llama_general_0", "llama_general_1"]
SEED = 7
VARIANTS = {
    "k2": dict(top_k=2, router_temperature=1.5, use_gks=False),
    "k3": dict(top_k=3, router_temperature=0.7, use_gks=False),
    "gks_k2": dict(top_k=2, router_temperature=1.5, use_gks=True),
}


def make_experts():
    for i, name in enumerate(NAMES):
        options = dict(r=3, lora_alpha=6 if i % 2 else 3, target_modules=TARGETS)
        save_expert(attach(load_base("llama"), options, torch.Generator().manual_seed(300 + i)), EXPERTS / name)


def arrow_golden(variant, settings, inputs):
    paths = [str(EXPERTS / name) for name in NAMES]
    model = create_arrow_model(load_base("llama"), paths[:3], ArrowConfig(rng_seed=SEED, **settings),
                               general_adapter_paths=paths[3:] if settings["use_gks"] else None).eval()
    with torch.no_grad():
        single = [model(**given).logits[0].double() for given in inputs]
    # The prototypes stay those of float32: they are a setting of the model that is then run in float64.
    wide, tensors, error = widen(model), {}, 0.0
    for i, given in enumerate(inputs):
        with torch.no_grad(), Widened():
            truth = wide(**given).logits[0]
        assert truth.dtype == torch.float64
        error = max(error, (single[i] - truth).abs().max().item())
        tensors[f"logits.{i}"] = truth.float()
    for name, module in model.named_modules():
        if isinstance(module, ArrowLoraLinearLayer):
            tensors[f"prototypes.{name.removeprefix('base_model.model.').partition('.lora_arrow')[0]}"] = module.prototypes.float()
    print(f"{variant}: error f32 {error:.2e}")
    tensors["error_f32"] = torch.tensor([error])
    save_golden(f"arrow_{variant}", tensors, __file__, settings=json.dumps(dict(settings, rng_seed=SEED)))


def main():
    torch.set_num_threads(1)
    make_experts()
    inputs = inputs_of("llama")
    for variant, settings in VARIANTS.items():
        arrow_golden(variant, settings, inputs)


if __name__ == "__main__":
    main()
