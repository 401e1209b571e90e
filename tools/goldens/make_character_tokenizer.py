#!/usr/bin/env python3
"""Writes tests/end_to_end/tiny_*/tokenizer.json: one token per ASCII character, 96 in all, for the tiny checkpoints.

usage: make_character_tokenizer.py tests/end_to_end
"""
import json
import pathlib
import sys

LEFT_OUT = "`^~"  # so that 93 characters and 3 special tokens make 96
CHARACTERS = [chr(code) for code in range(32, 127) if chr(code) not in LEFT_OUT] + ["\n"]


def special(tokens):
    return [
        {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i, token in enumerate(tokens)
    ]


def llama():
    """Byte-level BPE without merges; ids 0, 1, 2 as in the checkpoint's config."""
    tokens = ["<pad>", "<s>", "</s>"]
    spelled = {" ": "\u0120", "\n": "\u010a"}  # how byte-level BPE spells them
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special(tokens), "normalizer": None,
        "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False,
                  "vocab": {token: i for i, token in enumerate(tokens + [spelled.get(c, c) for c in CHARACTERS])}, "merges": []},
    }


def t5():
    """Unigram, one character a piece, the end token added: as T5's own, but for its size."""
    tokens = ["<pad>", "</s>", "<unk>"]
    space = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special(tokens), "normalizer": None,
        "pre_tokenizer": space,
        "post_processor": {"type": "TemplateProcessing",
                           "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
        "decoder": space,
        "model": {"type": "Unigram", "unk_id": 2, "byte_fallback": False,
                  "vocab": [[token, 0.0] for token in tokens] + [[{" ": "\u2581"}.get(c, c), -1.0] for c in CHARACTERS]},
    }


def main():
    for name, make, config in [
        ("tiny", llama, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "add_bos_token": False, "add_eos_token": False}),
        ("tiny_t5", t5, {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}),
    ]:
        folder = pathlib.Path(sys.argv[1]) / name
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_text(json.dumps(make(), ensure_ascii=False), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
