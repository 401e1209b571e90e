#!/usr/bin/env python3
"""Makes tests/golden/tokenizer: a corpus, tiny tokenizers of each kind, and the ids that the peers give.

usage: make_tokenizer_golden.py [--models DIR] OUT

Needs tokenizers, sentencepiece, transformers, jinja2; with --models also llama-cpp-python and gguf (vocabularies of
smollm2.gguf and gemma3-270m.gguf in DIR). Everything is seeded: the same versions give the same files.

Files: corpus.jsonl.gz, one {text} per line. NAME.ids.gz: per line of the corpus the number of its ids, then the
ids, each as a base-128 integer, low bits first. tokenizers.jsonl.gz: the tiny tokenizers, per line {name, tokenizer,
config}; NAME.model: those of SentencePiece. chat.jsonl.gz: conversations and what transformers makes of them with
the templates of templates/ (which stay as they are). versions.json: what made them.
"""
import argparse
import base64
import gzip
import json
import pathlib
import random
import sys
import unicodedata

SEED = 20240607

SCRIPTS = {
    "Latin": (0x61, 0x7A), "LatinExt": (0xC0, 0x17F), "Greek": (0x3B1, 0x3C9), "Cyrillic": (0x430, 0x44F),
    "Armenian": (0x561, 0x586), "Hebrew": (0x5D0, 0x5EA), "Arabic": (0x627, 0x64A), "Syriac": (0x710, 0x72C),
    "Devanagari": (0x904, 0x94D), "Bengali": (0x985, 0x9CD), "Gurmukhi": (0xA05, 0xA4D), "Gujarati": (0xA85, 0xACD),
    "Tamil": (0xB85, 0xBCD), "Telugu": (0xC05, 0xC4D), "Kannada": (0xC85, 0xCCD), "Malayalam": (0xD05, 0xD4D),
    "Sinhala": (0xD85, 0xDCA), "Thai": (0xE01, 0xE4E), "Lao": (0xE81, 0xECD), "Tibetan": (0xF40, 0xF84),
    "Myanmar": (0x1000, 0x1049), "Georgian": (0x10D0, 0x10FA), "Hangul": (0xAC00, 0xAF00), "Ethiopic": (0x1200, 0x1248),
    "Khmer": (0x1780, 0x17D3), "Mongolian": (0x1820, 0x1842), "Hiragana": (0x3041, 0x3096), "Katakana": (0x30A1, 0x30FA),
    "Han": (0x4E00, 0x5200), "HanB": (0x20000, 0x20100), "Cherokee": (0x13A0, 0x13F4), "Deseret": (0x10400, 0x1044F),
}
DIGITS = "0123456789٠١٢٣४५६७０１２３²³¼½Ⅷ①"
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u2028", "\u0085", "\u1680", "\u180e", "\u200b", "\x0b", "\x0c", "\x1c"]
EMOJI = ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "❤️", "🇩🇪🇫🇷", "🤷🏿‍♀️", "1️⃣", "🧑🏻‍💻", "☃", "©️", "🫠"]
WORDS = ("the of and to in is was for that with it as on be at by this had not are but from or have an they which one you "
         "were her all she there would their we him been has when who will more no if out so said what up its about than "
         "into them can only other new some could time these two may then do first any my now such like our over man me "
         "even most made after also did many before must through years where much your way well down should because each "
         "just those people how too little state good very make world still own see men work long get here between both").split()
CODE = ['def f(x, y=3):\n    return x ** y % 7  # ok', "for (int i = 0; i < 100; ++i) {\n\tsum += a[i] * 0x1F;\n}",
        'SELECT * FROM t WHERE a >= 10 AND b != "x\'y";', "<div class=\"a-b\">&nbsp;{{ x }}</div>", "fn main() { println!(\"{:?}\", v[..3]); }",
        "#include <vector>\nstd::vector<std::string> v{\"a\", \"b\"};", "$ git commit -m 'it''s' && ls -la ~/.x | grep ^d",
        "\\frac{1}{2}\\sum_{i=0}^{n} x_i^2 \\leq \\epsilon", "key: value\n- item\n  - nested: [1, 2, 3]\n", "if __name__ == '__main__':\n        pass",
        "x = {'a': 1, \"b\": [None, True]}", "I'm you're we've he'll she'd it's I'M YOU'RE WE'VE don't DON'T can’t", "a.b(c)->d::e[f]<g>&h|i^j~k!",
        "0x7fab_cdef 1e-10 3.14159 1,000,000 2024-06-07T12:34:56Z 192.168.0.1", "https://example.org/a%20b?q=1&r=2#frag", "user@example.org"]
SPECIAL = ["<|im_start|>user\nhi<|im_end|>\n", "<|endoftext|>", "a<|im_end|>b", "<bos>x<eos>", "<start_of_turn>model\n", "<unused42>", "<pad> <mask>",
           "</s>", "<s>", "<unk>", "[INST]", "<|im_start", "<0x0A>", "▁x▁▁y", "Ġthe", "<extra_id_0> x <extra_id_1>"]


def corpus():
    """At least 5,000 lines, the same each time."""
    rng = random.Random(SEED)
    lines = ["", " ", "  ", "\n", "a", " a", "a ", "▁", "'", "''s", "\u0000", "\ufeffbom", "\ufffd", "\U0010ffff"]
    words = lambda n: " ".join(rng.choice(WORDS) for _ in range(n))

    def script_word(low, high):
        letters = []
        while len(letters) < rng.randint(1, 9):
            c = chr(rng.randint(low, high))
            if unicodedata.category(c) != "Cn":
                letters.append(c)
        return "".join(letters)

    for _ in range(900):  # English with cases and punctuation
        text = words(rng.randint(1, 14))
        text = rng.choice([text, text.capitalize() + rng.choice(".!?…"), text.upper(), text.title(), text.replace(" ", rng.choice([", ", " - ", "; ", "/", "_", "  "]))])
        lines.append(text)
    for _ in range(700):  # code
        lines.append(rng.choice(CODE) + rng.choice(["", "\n", "\n\n", "    ", "\t\t"]) + rng.choice(CODE))
    for low, high in SCRIPTS.values():
        for _ in range(40):
            lines.append(rng.choice([" ", "", "، ", "。", "-"]).join(script_word(low, high) for _ in range(rng.randint(1, 8))))
    for _ in range(300):  # emoji and joiners
        lines.append("".join(rng.choice(EMOJI + WORDS[:20] + [" ", "\u200d", "\ufe0f"]) for _ in range(rng.randint(1, 10))))
    for _ in range(500):  # digits
        lines.append("".join(rng.choice(DIGITS + "   ,.-+a") for _ in range(rng.randint(1, 24))))
    for _ in range(500):  # long and strange white space
        lines.append("".join(rng.choice(SPACES) * rng.randint(1, rng.choice([2, 3, 40])) + rng.choice(["", "x", "the", "7", "."]) for _ in range(rng.randint(1, 6))))
    for _ in range(250):  # control characters
        lines.append("".join(chr(rng.choice([rng.randint(0, 31), rng.randint(127, 159), rng.randint(0x200b, 0x200f), rng.randint(32, 126)])) for _ in range(rng.randint(1, 20))))
    for _ in range(350):  # any assigned characters
        text = ""
        while len(text) < 12:
            c = chr(rng.choice([rng.randint(0x20, 0x24F), rng.randint(0x250, 0x33FF), rng.randint(0x1F000, 0x1FAFF), rng.randint(0xA000, 0xD7A3)]))
            if unicodedata.category(c) not in ("Cn", "Cs"):
                text += c
        lines.append(text)
    for _ in range(200):  # combining marks, composed and not
        text = "".join(rng.choice("aeiouncsAEO") + chr(rng.choice([0x300, 0x301, 0x308, 0x327, 0x30A, 0x303])) * rng.randint(0, 2) for _ in range(8))
        lines.append(rng.choice([text, unicodedata.normalize("NFC", text)]) + " " + rng.choice(["ﬁ", "Å", "ﷺ", "㍿", "가", "각", "Ω"]))
    for _ in range(200):  # special tokens spelled out
        lines.append("".join(rng.choice(SPECIAL + [" ", words(2), "\n"]) for _ in range(rng.randint(1, 6))))
    for _ in range(300):  # everything mixed
        parts = [words(2), rng.choice(CODE), rng.choice(EMOJI), rng.choice(SPACES) * rng.randint(1, 5), "".join(rng.choice(DIGITS) for _ in range(5)), script_word(*rng.choice(list(SCRIPTS.values())))]
        rng.shuffle(parts)
        lines.append(rng.choice(["", " "]).join(parts))
    lines += ["a" * 3000, " " * 2000, "\n" * 1000, "ab" * 1500, "1" * 999, "é" * 500, "<" * 500, "=" * 700, "👍" * 300]
    assert len(lines) >= 5000, len(lines)
    return lines


def write_gzip(path, data):
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
        out.write(data)


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def write_ids(path, all_ids):
    out = bytearray()
    for ids in all_ids:
        out += varint(len(ids))
        for id in ids:
            out += varint(id)
    write_gzip(path, bytes(out))


def train_texts():
    rng = random.Random(SEED + 1)
    lines = corpus()
    return [rng.choice(lines) for _ in range(3000)] + [" ".join(rng.choice(WORDS) for _ in range(10)) for _ in range(1000)]


def tiny_tokenizers(out):
    """Trains one tokenizer of each kind; name -> encode function."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    texts = train_texts()
    made = {}
    kept = []

    def keep(name, tokenizer, config):
        text = tokenizer.to_str()
        kept.append({"name": name, "tokenizer": json.loads(text), "config": config})
        loaded = Tokenizer.from_str(text)
        made[name] = lambda lines: [e.ids for e in loaded.encode_batch(lines)]

    # GPT-2's cut, prefix space, added tokens with every flag.
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=True)
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=900, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.add_tokens([AddedToken("<mask>", lstrip=True), AddedToken("the", single_word=True), AddedToken("  ", normalized=False), AddedToken("<both>", lstrip=True, rstrip=True), "don't", "don"])
    keep("byte_level_gpt2", t, {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "bos_token": "<|im_start|>"})

    # Qwen's and Llama 3's shape: NFC, a Split by pattern, ByteLevel without its own cut; merges skipped for whole words.
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1000, special_tokens=["<|begin|>", "<|eot_id|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", t.token_to_id("<|begin|>"))])])
    keep("byte_level_split", t, {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>", "eos_token": {"content": "<|eot_id|>"}})

    # SmolLM's shape: single digits, then GPT-2's cut.
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=700, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    keep("byte_level_digits", t, {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"})

    # Llama 2's shape: Prepend and Replace, byte fallback, a beginning token.
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    few_letters = [x for x in texts if len(x) < 200 and all(0x20 <= ord(c) < 0x600 for c in x)]
    t.train_from_iterator(few_letters, trainers.BpeTrainer(vocab_size=1200, special_tokens=["<unk>", "<s>", "</s>"] + bytes_, max_token_length=12, show_progress=False))
    data = json.loads(t.to_str())  # byte tokens are plain vocabulary, as in Llama's file
    data["added_tokens"] = [a for a in data["added_tokens"] if not a["content"].startswith("<0x")]
    t = Tokenizer.from_str(json.dumps(data))
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", t.token_to_id("<s>"))])
    keep("byte_fallback_llama2", t, {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})

    # Gemma's shape: the same without a prefix, and a Split that cuts nothing.
    t2 = json.loads(t.to_str())
    t2["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    t2["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    t2["decoder"]["decoders"] = t2["decoder"]["decoders"][:3]
    t2["model"]["merges"] = [" ".join(m) for m in t2["model"]["merges"]]
    t = Tokenizer.from_str(json.dumps(t2))
    t.add_tokens([AddedToken("\n" * n, normalized=False) for n in (2, 3, 4)] + [AddedToken(" " * n, normalized=False) for n in (2, 4)])
    keep("byte_fallback_gemma", t, {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})

    # SentencePiece itself: BPE as Llama's, unigram as T5's; and the unigram as transformers writes it.
    import sentencepiece
    text = out / "train.txt"
    text.write_text("\n".join(line for line in texts if 0 < len(line) < 300 and all(0x20 <= ord(c) < 0x600 and ord(c) not in (0x85, 0xA0) for c in line)), encoding="utf-8")
    common = dict(input=str(text), minloglevel=2, num_threads=1, character_coverage=0.995, seed_sentencepiece_size=20000)
    sentencepiece.SentencePieceTrainer.train(model_prefix=str(out / "sp_bpe"), vocab_size=1300, model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True, user_defined_symbols=["<user>"], **common)
    sentencepiece.SentencePieceTrainer.train(model_prefix=str(out / "sp_unigram"), vocab_size=700, model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_name="nmt_nfkc", **common)
    from sentencepiece import sentencepiece_model_pb2
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString((out / "sp_unigram.model").read_bytes())
    # The file that is kept has a few rules of its own: the whole NFKC table (240 kB) is in unigram_t5 already.
    rules = out / "rules.tsv"
    rules.write_text("41\t61\nFB01\t66 69\n61 308\tE4\n", encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(model_prefix=str(out / "sp_unigram"), vocab_size=700, model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_tsv=str(rules), **common)
    rules.unlink()
    text.unlink()
    for name in ("sp_bpe", "sp_unigram"):
        (out / f"{name}.vocab").unlink()
        processor = sentencepiece.SentencePieceProcessor(model_file=str(out / f"{name}.model"))
        made[name] = lambda lines, p=processor: [p.encode(line) for line in lines]

    t = Tokenizer(models.Unigram([(p.piece, p.score) for p in proto.pieces], unk_id=2, byte_fallback=False))
    t.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", "always")])
    t.decoder = decoders.Metaspace("▁", "always")
    t.add_special_tokens(["<pad>", "</s>", "<unk>"] + [f"<extra_id_{i}>" for i in (1, 0)])
    t.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    keep("unigram_t5", t, {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"})
    write_gzip(out / "tokenizers.jsonl.gz", "".join(json.dumps(entry) + "\n" for entry in kept).encode())
    return made


def llama_cpp_ids(path, lines):
    """llama.cpp's ids, added and special tokens as the model says, special tokens in the text parsed."""
    import llama_cpp
    model = llama_cpp.Llama(model_path=str(path), vocab_only=True, verbose=False)
    return [model.tokenize(line.encode("utf-8"), add_bos=True, special=True) if line else model.tokenize(b"", add_bos=True, special=True) for line in lines]


CONVERSATIONS = [
    [("user", "Hi")],
    [("system", "Be brief. "), ("user", " Hello\n world "), ("assistant", "Yes?\n"), ("user", "<b>ok</b> é 日本 👩‍💻")],
    [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
    [("user", "a"), ("user", "b")],
    [("system", "S"), ("user", "")],
    [("system", "only")],
    [("user", "{{ not_code }} {% if %} \\ ' \"")],
]


def chat_cases(folder):
    """What transformers renders (or that it refuses)."""
    from transformers.utils.chat_template_utils import _compile_jinja_template
    special = {"bos_token": "<bos>", "eos_token": "<eos>"}
    for path in sorted(folder.glob("*.jinja")):
        template = _compile_jinja_template(path.read_text(encoding="utf-8"))
        for conversation in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in conversation]
            for prompt in (True, False):
                case = {"template": path.name, "messages": messages, "add_generation_prompt": prompt}
                try:
                    case["text"] = template.render(messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **special)
                except Exception as error:  # raise_exception
                    case["refused"] = str(error)
                yield case


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--models", type=pathlib.Path)
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    lines = corpus()
    write_gzip(out / "corpus.jsonl.gz", "".join(json.dumps({"text": line}) + "\n" for line in lines).encode())
    for name, encode in tiny_tokenizers(out).items():
        write_ids(out / f"{name}.ids.gz", encode(lines))
    if arguments.models:
        for name in ("smollm2", "gemma3-270m"):
            write_ids(out / f"{name}.ids.gz", llama_cpp_ids(arguments.models / f"{name}.gguf", lines))
    write_gzip(out / "chat.jsonl.gz", "".join(json.dumps(case) + "\n" for case in chat_cases(out / "templates")).encode())
    import jinja2
    import sentencepiece
    import tokenizers
    import transformers
    versions = {"python": sys.version.split()[0], "unicode": unicodedata.unidata_version, "tokenizers": tokenizers.__version__, "sentencepiece": sentencepiece.__version__, "transformers": transformers.__version__, "jinja2": jinja2.__version__}
    if arguments.models:
        import llama_cpp
        versions["llama-cpp-python"] = llama_cpp.__version__
    (out / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    main()
