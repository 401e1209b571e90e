#!/usr/bin/env python3
"""Tiny random checkpoints of every family, and transformers' logits for them.

    .peers/transformers/bin/python tools/goldens/make_tiny_models.py

Writes tests/golden/models/NAME/{config.json,model.safetensors} and tests/golden/agreement/NAME.safetensors. A golden holds
    ids.I (T) i64 and logits.I (T, V) f32                      of decoder-only models
    source.I (S), decoder.I (T), logits.I (T, V)               of encoder-decoders; decoder.I begins with the start token
    error_f32, error_bf16 (1) f32
logits are computed in float64 throughout and rounded once; error_f32 and error_bf16 are the largest differences of
transformers' own float32 and bfloat16 forwards from them, the scale that tolerances are derived from.
"""

import json

import torch
from float64 import Widened, widen
from golden_file import GOLDEN, save_golden, save_readable
from transformers import (Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, T5Config, T5ForConditionalGeneration)

VOCABULARY = 96
LENGTHS = [1, 2, 7, 24]  # a single token; shorter and longer than Gemma's window of 8


def decoder_sizes(**more):
    return dict(vocab_size=VOCABULARY, hidden_size=40, intermediate_size=72, num_attention_heads=4, num_key_value_heads=2,
                max_position_embeddings=64, bos_token_id=1, eos_token_id=2, **more)


def t5_sizes(**more):
    return dict(vocab_size=VOCABULARY, d_model=32, d_kv=8, num_heads=6, d_ff=56, num_layers=2, num_decoder_layers=3,
                relative_attention_num_buckets=8, relative_attention_max_distance=20, decoder_start_token_id=0, **more)


# Epsilons are large where they can be, so that a wrong one shows.
MODELS = {
    # Two heads of queries share one of keys; an output matrix of its own.
    "llama": (LlamaForCausalLM, LlamaConfig(num_hidden_layers=3, tie_word_embeddings=False, rms_norm_eps=1e-5,
                                            rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
                                            **decoder_sizes())),
    # Llama 3.1's rotary scaling: all three of its bands occur.
    "llama31": (LlamaForCausalLM, LlamaConfig(num_hidden_layers=2, tie_word_embeddings=True, rms_norm_eps=1e-5,
                                              head_dim=16,
                                              rope_parameters={"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0,
                                                               "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                                               "original_max_position_embeddings": 32},
                                              **decoder_sizes())),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(num_hidden_layers=2, tie_word_embeddings=True, rms_norm_eps=1e-3,
                                            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
                                            **decoder_sizes())),
    # Norms of q and k; heads wider than D / H.
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(num_hidden_layers=2, tie_word_embeddings=False, rms_norm_eps=2e-3, head_dim=16,
                                            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
                                            **decoder_sizes())),
    # Layers 0-4 see 8 tokens, layer 5 all; two rotary bases, the full one with positions divided by 4.
    "gemma3": (Gemma3ForCausalLM,
               Gemma3TextConfig(num_hidden_layers=6, head_dim=16, sliding_window=8, rms_norm_eps=3e-3, query_pre_attn_scalar=24,
                                rope_parameters={"full_attention": {"rope_type": "linear", "factor": 4.0,
                                                                    "rope_theta": 50000.0},
                                                 "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}},
                                **decoder_sizes())),
    # T5 as first published: ReLU, the head is the embedding matrix, logits scaled by D^-1/2.
    "t5_v10": (T5ForConditionalGeneration, T5Config(feed_forward_proj="relu", tie_word_embeddings=True, layer_norm_epsilon=1e-3,
                                                      **t5_sizes())),
    # v1.1, LM-adapted, FLAN: gated GELU, a head of its own.
    "t5_v11": (T5ForConditionalGeneration, T5Config(feed_forward_proj="gated-gelu", tie_word_embeddings=False, **t5_sizes())),
}


def random_weights(model, tied, generator):
    """Weights under which every part matters: norms away from 1, biases away from 0, attention neither flat nor hard."""
    weights = {}
    for name, parameter in model.state_dict().items():
        draw = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            weights[name] = parameter + 0.3 * draw  # stored around 1, Gemma's around 0
        elif name.endswith("bias") or "relative_attention_bias" in name:
            weights[name] = 0.5 * draw
        elif "embed" in name or "shared" in name:
            weights[name] = draw
        else:
            weights[name] = 1.2 * draw / parameter.shape[1] ** 0.5
            if name.endswith("SelfAttention.q.weight") or name.endswith("EncDecAttention.q.weight"):
                weights[name] /= model.config.d_kv ** 0.5  # T5 does not scale its scores
    for copied in ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"] + (["lm_head.weight"] if tied else []):
        weights.pop(copied, None)
    return weights


def write_model(name, model_class, config, generator):
    folder = GOLDEN / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    tied = config.scale_decoder_outputs if name.startswith("t5") else config.tie_word_embeddings
    weights = random_weights(model_class(config), tied, generator)
    save_readable(weights, folder / "model.safetensors", {"format": "pt"})
    settings = config.to_dict()
    settings["architectures"] = [model_class.__name__]
    settings["dtype"] = "float32"
    if name.startswith("t5"):  # as the checkpoints on the hub have it; transformers 5 drops the distinction when saving
        settings["tie_word_embeddings"] = tied
        settings.pop("scale_decoder_outputs", None)
    (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    return folder


def inputs_of(name, generator):
    draw = lambda length: torch.randint(3, VOCABULARY, (1, length), generator=generator)
    if not name.startswith("t5"):
        return [{"input_ids": draw(length)} for length in LENGTHS]
    pairs = zip([1, 5, 30, 24], LENGTHS)
    start = torch.zeros(1, 1, dtype=torch.long)
    return [{"input_ids": draw(source), "decoder_input_ids": torch.cat([start, draw(target - 1)], 1)} for source, target in pairs]


def golden_of(folder, model_class, inputs):
    model = model_class.from_pretrained(folder, dtype=torch.float32).eval()
    half = model_class.from_pretrained(folder, dtype=torch.bfloat16).eval()
    if "t5_v11" in str(folder):
        assert not torch.equal(model.lm_head.weight, model.shared.weight)
    tensors, error_f32, error_bf16 = {}, 0.0, 0.0
    wide = widen(model)
    for i, given in enumerate(inputs):
        with torch.no_grad(), Widened():
            truth = wide(**given).logits[0]
        assert truth.dtype == torch.float64
        with torch.no_grad():
            error_f32 = max(error_f32, (model(**given).logits[0].double() - truth).abs().max().item())
            error_bf16 = max(error_bf16, (half(**given).logits[0].double() - truth).abs().max().item())
        if "decoder_input_ids" in given:
            tensors[f"source.{i}"] = given["input_ids"][0]
            tensors[f"decoder.{i}"] = given["decoder_input_ids"][0]
        else:
            tensors[f"ids.{i}"] = given["input_ids"][0]
        tensors[f"logits.{i}"] = truth.float()
    spread = torch.cat([tensors[f"logits.{i}"].flatten() for i in range(len(inputs))]).std().item()
    print(f"{folder.name:8} logits std {spread:6.3f}  error f32 {error_f32:.2e}  bf16 {error_bf16:.2e}")
    tensors["error_f32"] = torch.tensor([error_f32])
    tensors["error_bf16"] = torch.tensor([error_bf16])
    return tensors


def main():
    torch.set_num_threads(1)
    for seed, (name, (model_class, config)) in enumerate(MODELS.items()):
        generator = torch.Generator().manual_seed(seed)
        folder = write_model(name, model_class, config, generator)
        tensors = golden_of(folder, model_class, inputs_of(name, generator))
        save_golden(name, tensors, __file__)


if __name__ == "__main__":
    main()
