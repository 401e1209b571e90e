#!/usr/bin/env python3
"""Tiny checkpoints, recipes, and what mergekit 0.1.5 makes of them.

    tools/peers/make_venvs.sh mergekit
    .peers/mergekit/bin/python tools/goldens/merge_goldens.py

Writes under tests/golden/merge/:
    models/{bf16,f32}/{base,code,math,chat}/   Llamas of odd sizes: three fine-tunes of one base
    recipes/NAME.yml                           paths are relative to tests/golden/merge
    expected/NAME.safetensors                  mergekit's output, whatever it was split into
    masks/NAME.safetensors                     of random methods: what mergekit kept, U8 tensors "TENSOR|MODEL"
mergekit takes paths relative to the working folder, so it runs in tests/golden/merge. Its order of inputs without a
base_model comes from a set: one fixed hash seed makes the files the same whenever they are made again.
"""

import os
import sys

if os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})

import importlib.metadata
import json
import pathlib
import shutil
import tempfile

import torch
import yaml
from golden_file import GOLDEN, made_by, save_readable
from mergekit import sparsify
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge
from mergekit.options import MergeOptions
from safetensors.torch import load_file

ROOT = GOLDEN / "merge"
VOCABULARY, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, LAYERS = 51, 18, 23, 3, 1, 3  # odd on purpose
TYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
SPREAD = {"code": 3e-4, "math": 1e-3, "chat": 2e-3}  # of a fine-tune's distance from the base, whose weights have 0.02

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}


def shapes():
    kv = HIDDEN // HEADS * KV_HEADS
    result = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,),
              "lm_head.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        for name, shape in {"input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
                            "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (kv, HIDDEN),
                            "self_attn.v_proj": (kv, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
                            "mlp.gate_proj": (INTERMEDIATE, HIDDEN), "mlp.up_proj": (INTERMEDIATE, HIDDEN),
                            "mlp.down_proj": (HIDDEN, INTERMEDIATE)}.items():
            result[f"model.layers.{layer}.{name}.weight"] = shape
    return dict(sorted(result.items()))


def write_models():
    generator = torch.Generator().manual_seed(20260917)
    normal = lambda shape, spread: torch.randn(shape, generator=generator) * spread
    base = {name: normal(shape, 0.02) + (1.0 if "norm" in name else 0.0) for name, shape in shapes().items()}
    models = {"base": base}
    for model, spread in SPREAD.items():
        models[model] = {name: weight + normal(weight.shape, spread) for name, weight in base.items()}
    for type_name, dtype in TYPES.items():
        for model, tensors in models.items():
            folder = ROOT / "models" / type_name / model
            save_readable({name: weight.to(dtype) for name, weight in tensors.items()}, folder / "model.safetensors",
                          {"format": "pt", **made_by(__file__)})
            config = {**CONFIG, "torch_dtype": str(dtype).removeprefix("torch.")}
            (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def models(*listed, **common):
    """Entries of `models:`: (name, parameters), each with the common parameters too."""
    return [{"model": name, **({"parameters": {**common, **own}} if {**common, **own} else {})} for name, own in listed]


def three(**common):
    weights = common.pop("weights", (0.5, 0.3, 0.4))
    return models(*((name, {"weight": w}) for name, w in zip(("code", "math", "chat"), weights)), **common)


def gta(method, inputs, **parameters):
    recipe = {"merge_method": method, "base_model": "base", "models": inputs}
    if parameters:
        recipe["parameters"] = parameters
    return recipe


GRADIENT = [0.1, 0.9, 0.4]
BY_KIND = [{"filter": "self_attn", "value": [0, 0.5, 0.3]}, {"filter": "mlp", "value": [1, 0.5, 0.7]}, {"value": 0.45}]

# name: recipe, with models by bare name. Made in bf16; those of IN_F32 in f32 too.
RECIPES = {
    "linear": {"merge_method": "linear", "models": three()},
    "linear_raw": {"merge_method": "linear", "models": three(weights=(0.5, -0.3, 0.4)), "parameters": {"normalize": False}},
    "linear_gradient": {"merge_method": "linear", "models": models(
        ("code", {"weight": GRADIENT}), ("math", {"weight": [{"filter": "down_proj", "value": 0.7}, {"value": 0.2}]}))},
    "linear_f16": {"merge_method": "linear", "models": three(), "dtype": "float16"},
    "task_arithmetic": gta("task_arithmetic", three()),
    "task_arithmetic_lambda": gta("task_arithmetic", three(), **{"lambda": 0.6}),
    "task_arithmetic_normalize": gta("task_arithmetic", three(), normalize=True),
    "task_arithmetic_base_listed": gta("task_arithmetic", models(("base", {}), ("code", {"weight": 1.0}))),
    "task_arithmetic_out_f32": {**gta("task_arithmetic", three()), "out_dtype": "float32"},
    "task_arithmetic_in_f32": {**gta("task_arithmetic", three()), "dtype": "float32", "out_dtype": "bfloat16"},
    "ties": gta("ties", three(density=0.3)),
    "ties_plain": gta("ties", three(density=0.5), normalize=False, **{"lambda": 0.8}),
    "ties_rescale": gta("ties", three(density=0.4), rescale=True),
    "ties_int8": gta("ties", three(density=0.3), int8_mask=True),
    "ties_density_one": gta("ties", three(density=1.0)),
    "ties_tiny_density": gta("ties", three(density=0.001)),
    "ties_example": {**gta("ties", models(
        ("code", {"density": [1, 0.7, 0.1], "weight": 1.0}), ("math", {"density": 0.5, "weight": [0, 0.3, 0.7, 1]}),
        ("chat", {"density": 0.33, "weight": [{"filter": "mlp", "value": 0.5}, {"value": 0}]})),
        normalize=True, int8_mask=True)},
    # One model, weight 1, f32 arithmetic on bf16 inputs: what differs from the base is what was kept.
    "ties_one": {**gta("ties", models(("math", {"weight": 1.0, "density": 0.3})), normalize=False), "dtype": "float32"},
    "breadcrumbs_one": {**gta("breadcrumbs", models(("chat", {"weight": 1.0, "density": 0.5, "gamma": 0.1}))),
                        "dtype": "float32"},
    "dare_linear": gta("dare_linear", three(density=0.4)),
    "dare_ties": gta("dare_ties", three(density=0.4)),
    "dare_ties_density_one": gta("dare_ties", three(density=1.0)),
    "dare_linear_no_rescale": gta("dare_linear", three(density=0.4), rescale=False),
    "breadcrumbs": gta("breadcrumbs", three(density=0.6, gamma=0.05)),
    "breadcrumbs_default": gta("breadcrumbs", three(density=0.9)),
    "breadcrumbs_ties": gta("breadcrumbs_ties", three(density=0.6, gamma=0.05), normalize=True),
    "della": gta("della", three(density=0.5, epsilon=0.1)),
    "della_linear": gta("della_linear", three(density=0.5, epsilon=0.1), **{"lambda": 0.5}),
    "slerp": gta("slerp", models(("base", {}), ("code", {})), t=0.35),
    "slerp_gradient": gta("slerp", models(("base", {}), ("chat", {})), t=BY_KIND),
    "nuslerp": {"merge_method": "nuslerp", "models": models(("code", {"weight": 0.3}), ("chat", {"weight": 0.6}))},
    "nuslerp_base": gta("nuslerp", models(("code", {"weight": 0.3}), ("chat", {"weight": 0.6}))),
    "nuslerp_columns": gta("nuslerp", models(("code", {"weight": 0.3}), ("chat", {"weight": 0.6})), nuslerp_flatten=False),
    "nuslerp_rows": {"merge_method": "nuslerp", "models": models(("code", {"weight": 0.3}), ("chat", {"weight": 0.6})),
                     "parameters": {"nuslerp_flatten": False, "nuslerp_row_wise": True}},
    "nuslerp_zero_sum": {"merge_method": "nuslerp", "models": models(("code", {"weight": 0.5}), ("chat", {"weight": -0.5}))},
    "multislerp": {"merge_method": "multislerp", "models": three()},
    "multislerp_base": gta("multislerp", three(), normalize_weights=False),
    "karcher": {"merge_method": "karcher", "models": models(("code", {}), ("math", {}), ("chat", {}))},
    "karcher_one_step": {"merge_method": "karcher", "models": models(("code", {}), ("math", {}), ("chat", {})),
                         "parameters": {"max_iter": 1}},
    "model_stock": gta("model_stock", models(("code", {}), ("math", {}), ("chat", {}))),
    "model_stock_rows": gta("model_stock", models(("code", {}), ("math", {}), ("chat", {})), filter_wise=True),
    "sce": gta("sce", models(("code", {}), ("math", {}), ("chat", {}))),
    "sce_topk": gta("sce", models(("code", {}), ("math", {}), ("chat", {})), select_topk=0.5),
    "nearswap": gta("nearswap", models(("base", {}), ("math", {})), t=1e-4),
    "arcee_fusion": gta("arcee_fusion", models(("base", {}), ("math", {}))),
    "ram": gta("ram", models(("code", {}), ("math", {}), ("chat", {})), epsilon=5e-4),
    "ramplus_tl": gta("ramplus_tl", models(("code", {}), ("math", {}), ("chat", {})), epsilon=5e-4, r=0.3, alpha=0.4),
    "passthrough_scale": {"merge_method": "passthrough", "models": models(
        ("code", {"scale": [{"filter": "o_proj", "value": 0}, {"filter": "down_proj", "value": 0.5}, {"value": 1}]}))},
    "stacked": {"merge_method": "passthrough", "slices": [
        {"sources": [{"model": "code", "layer_range": [0, 2]}]}, {"sources": [{"model": "chat", "layer_range": [1, 3]}]}]},
    "slices": {"merge_method": "slerp", "base_model": "base", "parameters": {"t": [{"filter": "mlp", "value": [0.2, 0.6]},
                                                                                   {"value": 0.5}]},
               "slices": [{"sources": [{"model": "base", "layer_range": [0, 3]}, {"model": "math", "layer_range": [0, 3]}]}]},
    "slices_reordered": {"merge_method": "linear", "slices": [
        {"sources": [{"model": "code", "layer_range": [2, 3], "parameters": {"weight": 0.7}},
                     {"model": "math", "layer_range": [0, 1], "parameters": {"weight": 0.3}}]},
        {"sources": [{"model": "chat", "layer_range": [0, 2], "parameters": {"weight": [0.2, 0.8]}},
                     {"model": "math", "layer_range": [1, 3], "parameters": {"weight": 0.4}}],
         "parameters": {"normalize": False}}]},
}
IN_F32 = ["linear", "linear_gradient", "task_arithmetic_lambda", "ties", "ties_rescale", "ties_example", "dare_linear",
          "dare_ties", "breadcrumbs", "breadcrumbs_ties", "della", "slerp_gradient", "nuslerp_base", "nuslerp_columns",
          "nuslerp_rows", "multislerp", "multislerp_base", "karcher", "model_stock", "model_stock_rows", "sce_topk",
          "nearswap", "arcee_fusion", "ram", "ramplus_tl"]
NAMES = ("base", *SPREAD)


def with_paths(value, type_name):
    """The recipe with bare model names as paths."""
    if isinstance(value, dict):
        return {k: f"models/{type_name}/{v}" if k in ("model", "base_model") and v in NAMES else with_paths(v, type_name)
                for k, v in value.items()}
    return [with_paths(v, type_name) for v in value] if isinstance(value, list) else value


class MaskRecorder:
    """Remembers which elements the random methods keep, by tensor and model."""

    def __init__(self):
        self.masks, self.tensor, self.models, self.next = {}, None, [], 0
        self.bernoulli, self.merge_group = torch.bernoulli, GeneralizedTaskArithmeticMerge.merge_group

    def __enter__(self):
        recorder = self

        def merge_group(method, group, /, **parameters):
            recorder.tensor, recorder.next = group.metadata.name, 0
            recorder.models = [pathlib.Path(str(entry.id)).name for entry in group.non_base]
            return recorder.merge_group(method, group, **parameters)

        def bernoulli(probability, *args, **kwargs):
            mask = recorder.bernoulli(probability, *args, **kwargs)
            recorder.masks[f"{recorder.tensor}|{recorder.models[recorder.next]}"] = mask.to(torch.uint8)
            recorder.next += 1
            return mask

        GeneralizedTaskArithmeticMerge.merge_group = merge_group
        sparsify.torch.bernoulli = bernoulli
        return self

    def __exit__(self, *_):
        GeneralizedTaskArithmeticMerge.merge_group = self.merge_group
        sparsify.torch.bernoulli = self.bernoulli


def load_folder(folder):
    return {k: v for shard in sorted(pathlib.Path(folder).glob("*.safetensors")) for k, v in load_file(shard).items()}


def run_mergekit(text, **options):
    """The output's tensors, config and masks."""
    with tempfile.TemporaryDirectory() as out, MaskRecorder() as recorder:
        run_merge(MergeConfiguration.model_validate(yaml.safe_load(text)), out,
                  MergeOptions(random_seed=7, num_threads=1, quiet=True, copy_tokenizer=False, write_model_card=False, **options))
        return load_folder(out), json.loads((pathlib.Path(out) / "config.json").read_text()), recorder.masks


def write_recipe(name, recipe):
    text = yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=100)
    path = ROOT / "recipes" / f"{name}.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    tensors, _, masks = run_mergekit(text)
    version = {"mergekit": importlib.metadata.version("mergekit")}
    save_readable(tensors, ROOT / "expected" / f"{name}.safetensors", made_by(__file__, **version))
    if masks:
        save_readable({k: v.reshape(-1) for k, v in masks.items()}, ROOT / "masks" / f"{name}.safetensors",
                      made_by(__file__, **version))
    print(f"{name}: {len(tensors)} tensors, {next(iter(tensors.values())).dtype}, {len(masks)} masks")


def main():
    for part in ("models", "recipes", "expected", "masks"):
        shutil.rmtree(ROOT / part, ignore_errors=True)
    write_models()
    os.chdir(ROOT)
    for name, recipe in RECIPES.items():
        write_recipe(f"{name}_bf16", with_paths(recipe, "bf16"))
        if name in IN_F32:
            write_recipe(f"{name}_f32", with_paths(recipe, "f32"))


if __name__ == "__main__":
    main()
