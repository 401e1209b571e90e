#!/usr/bin/env python3
"""Tiny models with tokenizers of their own, recipes with a tokenizer key, and what mergekit 0.1.5 makes of them.

    .peers/mergekit/bin/python tools/goldens/merge_tokenizer_goldens.py

Writes under tests/golden/merge/tokenizer/:
    models/{plain,tools,other,unigram,unigram_more}/   one-layer Llamas: plain has rows beyond its tokenizer, tools has
                                               two added tokens more, other a vocabulary of its own
    recipes/NAME.yml                           paths are relative to tests/golden/merge/tokenizer
    expected/NAME.safetensors                  mergekit's output
    expected/NAME.json                         its vocabulary (token to id) and vocabulary size
mergekit gives new tokens ids in the order of a Rust hash map, another one in every process: compare by token.
"""

import json
import os
import pathlib
import shutil
import tempfile

import torch
import yaml
from golden_file import GOLDEN, made_by, save_readable
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE, Unigram
from tokenizers.pre_tokenizers import Metaspace, Whitespace
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

ROOT = GOLDEN / "merge" / "tokenizer"
HIDDEN, INTERMEDIATE = 6, 5
ENGLISH = ["the cat sat on the mat", "then the hen ran", "a cat and a hen sat"] * 3
CODE = ["if then else end", "let x = the end", "else if x == end then"] * 3


def trained(corpus, kind, size):
    if kind == "bpe":
        tokenizer = Tokenizer(BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.train_from_iterator(corpus, BpeTrainer(vocab_size=size, special_tokens=["<unk>"], show_progress=False))
    else:
        tokenizer = Tokenizer(Unigram())
        tokenizer.pre_tokenizer = Metaspace()
        tokenizer.train_from_iterator(corpus, UnigramTrainer(vocab_size=size, special_tokens=["<unk>"], unk_token="<unk>",
                                                             show_progress=False))
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer


# name: (corpus, kind, vocabulary, added tokens, rows beyond the tokenizer, chat template)
MODELS = {
    "plain": (ENGLISH, "bpe", 34, [], 5, None),
    "tools": (ENGLISH, "bpe", 34, [AddedToken("<tool>", special=True), AddedToken("<think>", normalized=False)], 0,
              "{% for m in messages %}{{ m.content }}{% endfor %}"),
    "other": (CODE, "bpe", 30, [AddedToken("<think>", normalized=False)], 0, "{{ messages[0].content }}"),
    "unigram": (ENGLISH, "unigram", 24, [], 0, None),
    "unigram_more": (CODE, "unigram", 20, [AddedToken("<tool>", special=True)], 0, None),
}


def write_model(name, generator):
    corpus, kind, size, added, padding, template = MODELS[name]
    tokenizer = trained(corpus, kind, size)
    tokenizer.add_tokens(added)
    folder = ROOT / "models" / name
    folder.mkdir(parents=True)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<|end|>")
    if template:
        fast.chat_template = template
    fast.save_pretrained(folder)
    rows = len(fast.get_vocab()) + padding
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": rows, "hidden_size": HIDDEN,
              "intermediate_size": INTERMEDIATE, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
              "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
              "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    normal = lambda *shape: torch.randn(shape, generator=generator) * 0.02
    layer = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (HIDDEN, HIDDEN), "self_attn.v_proj": (HIDDEN, HIDDEN),
             "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (INTERMEDIATE, HIDDEN), "mlp.up_proj": (INTERMEDIATE, HIDDEN),
             "mlp.down_proj": (HIDDEN, INTERMEDIATE), "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,)}
    tensors = {f"model.layers.0.{k}.weight": normal(*shape) for k, shape in layer.items()}
    tensors |= {"model.embed_tokens.weight": normal(rows, HIDDEN), "lm_head.weight": normal(rows, HIDDEN),
                "model.norm.weight": normal(HIDDEN)}
    save_readable(dict(sorted(tensors.items())), folder / "model.safetensors", {"format": "pt", **made_by(__file__)})


def linear(*names, **more):
    weights = (0.5, 0.3, 0.2)
    return {"merge_method": "linear", "base_model": f"models/{names[0]}", "dtype": "float32",
            "models": [{"model": f"models/{n}", "parameters": {"weight": w}} for n, w in zip(names, weights)], **more}


THREE = ("plain", "tools", "other")
RECIPES = {
    "union": linear(*THREE, tokenizer_source="union"),
    "base": linear(*THREE, tokenizer_source="base"),
    "model": linear(*THREE, tokenizer_source="models/other"),
    "union_padded": linear(*THREE, tokenizer={"source": "union", "pad_to_multiple_of": 16}),
    "tokens": linear(*THREE, tokenizer={"source": "union", "tokens": {
        "<think>": {"source": "models/other", "force": True},
        "<tool>": {"source": {"kind": "model_token", "model": "models/tools", "token": "the"}},
        "<new>": {"source": {"kind": "model_token", "model": "models/plain", "token_id": 3}},
        "<blank>": {"source": {"kind": "zero"}}}}),
    "base_tokens": linear(*THREE, tokenizer={"source": "base", "tokens": {"<think>": {"source": "models/tools"}}}),
    "unigram_union": linear("unigram", "unigram_more", tokenizer_source="union"),
}


def write_recipe(name, recipe):
    text = yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=100)
    (ROOT / "recipes").mkdir(exist_ok=True)
    (ROOT / "recipes" / f"{name}.yml").write_text(text)
    with tempfile.TemporaryDirectory() as out:
        run_merge(MergeConfiguration.model_validate(yaml.safe_load(text)), out,
                  MergeOptions(num_threads=1, quiet=True, write_model_card=False))
        tensors = {k: v for shard in sorted(pathlib.Path(out).glob("*.safetensors")) for k, v in load_file(shard).items()}
        tokenizer = AutoTokenizer.from_pretrained(out)
        size = json.loads((pathlib.Path(out) / "config.json").read_text())["vocab_size"]
    save_readable(tensors, ROOT / "expected" / f"{name}.safetensors", made_by(__file__, mergekit="0.1.5"))
    vocabulary = dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
    expected = {"made_by": made_by(__file__, mergekit="0.1.5"), "vocabulary": vocabulary, "vocab_size": size}
    (ROOT / "expected" / f"{name}.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")
    print(name, size, len(vocabulary))


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    generator = torch.Generator().manual_seed(20260918)
    for name in MODELS:
        write_model(name, generator)
    os.chdir(ROOT)
    for name, recipe in RECIPES.items():
        write_recipe(name, recipe)


if __name__ == "__main__":
    main()
