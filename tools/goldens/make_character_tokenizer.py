#!/usr/bin/env python3
"""Writes tests/end_to_end/tiny/tokenizer.json: one token per ASCII character, 96 in all, for the tiny checkpoints.

usage: make_character_tokenizer.py OUT.json
"""
import json
import sys

SPECIAL = ["<pad>", "<s>", "</s>"]          # ids 0, 1, 2 as in the tiny checkpoints' configs
LEFT_OUT = "`^~"                             # so that 93 characters and 3 special tokens make 96
SPELLED = {" ": "\u0120", "\n": "\u010a"}   # how byte-level BPE spells them

characters = [chr(code) for code in range(32, 127) if chr(code) not in LEFT_OUT] + ["\n"]
vocabulary = {token: i for i, token in enumerate(SPECIAL + [SPELLED.get(c, c) for c in characters])}
assert len(vocabulary) == 96

json.dump(
    {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
            for i, token in enumerate(SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary, "merges": []},
    },
    open(sys.argv[1], "w", encoding="utf-8"),
    ensure_ascii=False,
)
