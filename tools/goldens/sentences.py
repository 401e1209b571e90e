#!/usr/bin/env python3
"""A tiny BERT sentence encoder and what transformers computes with it.

    .peers/transformers/bin/python tools/goldens/sentences.py

Writes tests/golden/models/bert/ (config.json, model.safetensors, tokenizer.json, sentence_bert_config.json: random
weights, a WordPiece vocabulary trained on the texts below) and
    tests/golden/agreement/sentences.safetensors   ids.I of each text; embeddings (texts, D): mean pooling, length 1, in
                                                   float64, rounded once; error_f32 of the same in float32
    tests/golden/agreement/sentences.json          the texts
"""

import json

import torch
from golden_file import GOLDEN, save_golden, save_readable
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel

TEXTS = [
    "Answer Choices: yes, no, Instance: Is the Café open on Sundays?",
    "a",
    "",
    "Straße, naïve, Ångström and İstanbul; 東京タワー is tall. don't\tstop\nnow",
    "unknownable " + "x" * 101 + " 🙂 emoji \u200b zero\u00a0width \u0000 null",
    "What is 3+4*(5-2)? $12.50 ~ `code` [x] ^_^ — “quoted” …",
    " ".join(["the quick brown fox jumps over the lazy dog"] * 6),
]
MAX_TOKENS = 40


def make_tokenizer():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
                                        show_progress=False)
    tokenizer.train_from_iterator([t for t in TEXTS if "unknownable" not in t], trainer)
    # The trainer breaks ties by chance: the vocabulary is put in order.
    vocabulary = sorted(tokenizer.get_vocab(), key=lambda t: (not t.startswith("["), len(t), t))
    tokenizer.model = models.WordPiece({t: i for i, t in enumerate(vocabulary)}, unk_token="[UNK]")
    ids = {t: i for i, t in enumerate(vocabulary)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])])
    return tokenizer


def embed(model, ids):
    with torch.no_grad():
        hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    mean = hidden.mean(0)
    return mean / mean.norm()


def make_model(vocabulary_size):
    torch.manual_seed(5)
    config = BertConfig(vocab_size=vocabulary_size, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
                        intermediate_size=40, max_position_embeddings=MAX_TOKENS, initializer_range=0.3)
    model = BertModel(config, add_pooling_layer=False).eval()
    for name, parameter in model.named_parameters():  # biases and norms that do something
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def main():
    torch.set_num_threads(1)
    folder = GOLDEN / "models" / "bert"
    folder.mkdir(exist_ok=True)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer.get_vocab_size())
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(model.config.to_diff_dict() | {
        k: getattr(model.config, k) for k in ["hidden_act", "layer_norm_eps"]} | {"model_type": "bert"}, indent=2, sort_keys=True) + "\n")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_TOKENS, "do_lower_case": False}) + "\n")
    save_readable(dict(model.state_dict()), folder / "model.safetensors", {"format": "pt"})
    tokenizer.enable_truncation(MAX_TOKENS)
    tensors, vectors, error = {}, [], 0.0
    wide = make_model(tokenizer.get_vocab_size()).double()
    for i, text in enumerate(TEXTS):
        ids = tokenizer.encode(text).ids
        tensors[f"ids.{i}"] = torch.tensor(ids)
        vectors.append(embed(wide, ids))
        error = max(error, (embed(model, ids).double() - vectors[-1]).abs().max().item())
    tensors["embeddings"], tensors["error_f32"] = torch.stack(vectors).float(), torch.tensor([error])
    print(f"error f32 {error:.2e}; lengths {[len(tensors[f'ids.{i}']) for i in range(len(TEXTS))]}")
    save_golden("sentences", tensors, __file__)
    (GOLDEN / "agreement" / "sentences.json").write_text(json.dumps(TEXTS, indent=1) + "\n")


if __name__ == "__main__":
    main()
