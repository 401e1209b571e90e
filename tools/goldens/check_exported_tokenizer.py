#!/usr/bin/env python3
"""Loads an exported tokenizer folder with transformers' AutoTokenizer and compares its ids with a golden's.

usage: check_exported_tokenizer.py FOLDER IDS.gz CORPUS.jsonl.gz     exit 1 if a line differs
"""
import gzip
import json
import sys


def read_ids(path):
    data, at, lines = gzip.open(path).read(), 0, []

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        lines.append([number() for _ in range(number())])
    return lines


def main():
    from transformers import AutoTokenizer
    folder, ids, corpus = sys.argv[1:4]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lines = [json.loads(line)["text"] for line in gzip.open(corpus, "rt", encoding="utf-8")]
    differing = 0
    for line, want in zip(lines, read_ids(ids), strict=True):
        got = tokenizer(line)["input_ids"]
        if got != want:
            differing += 1
            if differing <= 5:
                print(f"{line!r}\n  got  {got[:30]}\n  want {want[:30]}")
    print(f"{type(tokenizer).__name__}: {differing} of {len(lines)} lines differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
