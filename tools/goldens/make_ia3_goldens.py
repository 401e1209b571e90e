#!/usr/bin/env python3
"""Random (IA)3 adapters of the tiny models, written by PEFT, and PEFT's logits with each.

    .peers/transformers/bin/python tools/goldens/make_ia3_goldens.py

Reads and writes as make_lora_goldens.py: tests/golden/agreement/experts/ia3_NAME/ and lora_ia3_NAME.safetensors.
"""

import torch
from golden_file import save_golden
from make_lora_goldens import EXPERTS, golden_of, inputs_of, load_base, save_expert
from peft import IA3Config, get_peft_model

POOL = {
    "ia3_llama": ("llama", dict(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])),
    "ia3_t5": ("t5_v11", dict(target_modules=["k", "v", "wo"], feedforward_modules=["wo"])),
}


def main():
    torch.set_num_threads(1)
    for seed, (name, (model, options)) in enumerate(POOL.items()):
        inputs = inputs_of(model)
        peft_model = get_peft_model(load_base(model), IA3Config(**options)).eval()
        peft_model.peft_config["default"].base_model_name_or_path = "tiny"
        peft_model.peft_config["default"].feedforward_modules = sorted(options["feedforward_modules"])
        generator = torch.Generator().manual_seed(400 + seed)
        for key, parameter in peft_model.named_parameters():
            if "ia3_l" in key:
                parameter.data = 1 + 0.4 * torch.randn(parameter.shape, generator=generator)
        save_expert(peft_model, EXPERTS / name)
        tensors = golden_of(peft_model, inputs)
        print(f"{name}: error f32 {tensors['error_f32'].item():.2e} bf16 {tensors['error_bf16'].item():.2e}")
        save_golden(f"lora_{name}", tensors, __file__)


if __name__ == "__main__":
    main()
