"""Writes small valid inputs of every fuzzed format: make_seeds.py FOLDER gives FOLDER/FORMAT/*. Fuzzers begin from them."""

import base64
import gzip
import json
import pathlib
import struct
import sys

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
OUT = pathlib.Path(sys.argv[1])
LONGEST = 16384  # as run.sh's -max_len


def seed(kind, name, content):
    data = content if isinstance(content, bytes) else content.encode()
    if len(data) > LONGEST:
        return
    (OUT / kind).mkdir(parents=True, exist_ok=True)
    (OUT / kind / name).write_bytes(data)


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


# Of the types that Skein reads: number, elements and bytes of a block.
F32 = (0, 1, 4)
BLOCKS = [F32, (1, 1, 2), (30, 1, 2), (2, 32, 18), (3, 32, 20), (6, 32, 22), (7, 32, 24), (8, 32, 34), (12, 256, 144),
          (13, 256, 176), (14, 256, 210)]


def gguf(pairs, tensors):
    """Pairs: (key, kind, packed value); tensors: (name, shape row-major, block), all zeros."""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    for key, kind, value in pairs:
        out += text(key) + struct.pack("<I", kind) + value
    offset, data = 0, b""
    for name, shape, (number, elements, size_bytes) in tensors:
        out += text(name) + struct.pack("<I", len(shape))
        out += b"".join(struct.pack("<Q", size) for size in reversed(shape)) + struct.pack("<IQ", number, offset)
        count = 1
        for size in shape:
            count *= size
        data += bytes((count // elements * size_bytes + 31) // 32 * 32)
        offset = len(data)
    return out + bytes(-len(out) % 32) + data


def words(values):
    return struct.pack("<IQ", 8, len(values)) + b"".join(text(value) for value in values)


def numbers(kind, code, values):
    return struct.pack("<IQ", kind, len(values)) + struct.pack(f"<{len(values)}{code}", *values)


def tiny_gguf(vocabulary):
    """A llama of one layer: 2 heads of 2, with a tokenizer of a few tokens."""
    tokens = ["<unk>", "<s>", "</s>", "<0x0A>", "a", "b", "ab", "\u0120a"]
    u32 = lambda value: struct.pack("<I", value)
    pairs = [("general.architecture", 8, text("llama"))]
    for key, value in (("context_length", 64), ("embedding_length", 4), ("block_count", 1), ("feed_forward_length", 4),
                       ("attention.head_count", 2), ("attention.head_count_kv", 2), ("vocab_size", len(tokens))):
        pairs.append((f"llama.{key}", 4, u32(value)))
    pairs.append(("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)))
    pairs += [("tokenizer.ggml.model", 8, text(vocabulary)), ("tokenizer.ggml.tokens", 9, words(tokens)),
              ("tokenizer.ggml.token_type", 9, numbers(5, "i", [2, 3, 3, 6, 1, 1, 1, 1])),
              ("tokenizer.ggml.bos_token_id", 4, u32(1)), ("tokenizer.ggml.eos_token_id", 4, u32(2)),
              ("tokenizer.chat_template", 8, text("{% for m in messages %}{{ bos_token + m.content }}{% endfor %}"))]
    if vocabulary == "gpt2":
        pairs += [("tokenizer.ggml.pre", 8, text("gpt-2")), ("tokenizer.ggml.merges", 9, words(["a b"]))]
    else:
        pairs.append(("tokenizer.ggml.scores", 9, numbers(6, "f", [0, 0, 0, 0, -1, -2, -3, -4])))
    tensors = [("token_embd.weight", (8, 4), F32), ("output_norm.weight", (4,), F32)]
    for name, shape in (("attn_norm", (4,)), ("attn_q", (4, 4)), ("attn_k", (4, 4)), ("attn_v", (4, 4)),
                        ("attn_output", (4, 4)), ("ffn_norm", (4,)), ("ffn_gate", (4, 4)), ("ffn_up", (4, 4)),
                        ("ffn_down", (4, 4))):
        tensors.append((f"blk.0.{name}.weight", shape, F32))
    return gguf(pairs, tensors)


for path in [*GOLDEN.glob("safetensors/*.safetensors"), *GOLDEN.glob("peft/adapter/*.safetensors")]:
    seed("safetensors", path.name, path.read_bytes())
seed("index", "two", '{"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}')
seed("index", "metadata", '{"metadata": {"total_size": 16}, "weight_map": {"a": "a.safetensors"}}')

seed("gguf", "quants", gguf([], [(f"t{block[0]}", (2, 256), block) for block in BLOCKS]))
seed("gguf", "llama", tiny_gguf("llama"))
seed("gguf", "gpt2", tiny_gguf("gpt2"))

seed("json_lines", "choices", '{"input": "a", "target": "b", "choices": ["b", "c"]}\n\n{"input": "", "target": "\\u00e9"}\n')
seed("json_lines", "messages", '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],'
     ' "id": 3, "task": "t", "template": "x", "metric": "rouge", "references": ["a"]}\n')

for path in [*GOLDEN.glob("torch/*.pt"), *GOLDEN.glob("torch/*.ckpt"), *GOLDEN.glob("foreign/*")]:
    seed("pickle", path.name, path.read_bytes())
    seed("pickle", path.name + ".pickle", path.read_bytes()[64:8192])  # the first member of the archive

seed("recipe", "ties", """merge_method: ties
base_model: b
models:
- model: a@r+l
  parameters: {density: [1, 0.5], weight: [{filter: mlp, value: 1}, 0]}
dtype: bfloat16
out_dtype: float64
""")
seed("recipe", "stages", """name: x
merge_method: passthrough
slices:
- sources:
  - {model: &m a, layer_range: [0, 2]}
---
merge_method: linear
models: [{model: x}, {model: *m}]
tokenizer: {source: union, tokens: {t: {source: {kind: zero}}}}
""")
for path in (GOLDEN / "merge/recipes").glob("*.yml"):
    seed("recipe", path.name, path.read_bytes())

def charsmap():
    """A Darts trie of the one key "T", which becomes "xy"."""
    units = [0] * 96
    units[ord("T")] = ord("T") | 1 << 8 | 1 << 10  # a leaf, at its place xor 1
    units[ord("T") ^ 1] = 0x80000000
    return base64.b64encode(struct.pack("<I96I", 4 * 96, *units) + b"xy\0").decode()


with gzip.open(GOLDEN / "tokenizer/tokenizers.jsonl.gz", "rt") as lines:
    for line in lines:
        entry = json.loads(line)
        model = entry["tokenizer"]["model"]
        # Fewer pieces, so that a fuzzer's time goes to the grammar: the pipeline is what differs between them.
        vocabulary = model.get("vocab")
        if isinstance(vocabulary, dict):
            model["vocab"] = {token: i for i, token in enumerate(list(vocabulary)[:300])}
            known = model["vocab"]
            pair = lambda merge: merge.split(" ", 1) if isinstance(merge, str) else merge
            model["merges"] = [m for m in model.get("merges", []) if len(pair(m)) == 2 and
                               all(part in known for part in [*pair(m), "".join(pair(m))])][:20]
        elif isinstance(vocabulary, list):
            model["vocab"] = vocabulary[:300]
        normalizer = entry["tokenizer"].get("normalizer") or {}
        for step in [normalizer, *normalizer.get("normalizers", [])]:
            if "precompiled_charsmap" in step:
                step["precompiled_charsmap"] = charsmap()
        size = len(model.get("vocab", []))
        added = [token for token in entry["tokenizer"].get("added_tokens") or [] if token["id"] < size]
        entry["tokenizer"]["added_tokens"] = added
        seed("tokenizer_json", entry["name"], json.dumps(entry["tokenizer"]))

seed("tokenizer_config", "llama", json.dumps({
    "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": {"content": "<s>", "special": True},
    "pad_token": None, "add_bos_token": True, "added_tokens_decoder": {"3": {"content": "<s>", "special": True}},
    "chat_template": [{"name": "default", "template": "{{ messages[0]['content'] }}"}], "extra_ids": 2}))
for path in (GOLDEN / "tokenizer/templates").glob("*.jinja"):
    seed("chat_template", path.name, path.read_bytes())
    seed("tokenizer_config", path.name, json.dumps({"chat_template": path.read_text(), "bos_token": "<s>"}))
for path in GOLDEN.glob("models/*/config.json"):
    seed("model_config", path.parent.name, path.read_bytes())
for path in [*GOLDEN.glob("peft/adapter/*.json"), *GOLDEN.glob("merge/adapters/*/adapter_config.json")]:
    seed("adapter_config", path.parent.name, path.read_bytes())
seed("adapter_config", "regex", json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": True,
     "target_modules": ".*(q|v)_proj", "rank_pattern": {"^model.layers.0": 2}, "alpha_pattern": {"v_proj": 3},
     "exclude_modules": ["k_proj"], "layers_to_transform": [0], "layers_pattern": "layers"}))
seed("adapter_config", "ia3", json.dumps({"peft_type": "IA3", "target_modules": ["k_proj", "v_proj", "down_proj"],
     "feedforward_modules": ["down_proj"]}))
seed("folders", "library", json.dumps({"format_version": 1, "base_fingerprint": "0" * 32, "base_hint": "b",
     "experts": [{"name": "e", "files": {"adapter_model.safetensors": "0" * 32}}]}))
seed("folders", "molora", json.dumps({"format_version": 1, "kind": "molora", "num_experts": 2, "rank": 2, "alpha": 4,
     "top_k": 1, "renormalises": True, "router_input": "hidden", "mixes": "outputs", "target_kinds": ["q_proj"],
     "experts": ["a", "b"], "base_fingerprint": "", "base": "b"}))
seed("folders", "mov", json.dumps({"format_version": 1, "kind": "mov", "num_experts": 2, "router_input": "sentence"}))
