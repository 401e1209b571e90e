#include "skein/spec/tensor_names.h"

#include "skein/base/concat.h"

namespace skein {
namespace {

// One linear of a block: last component of its name, GGUF's name, sizes.
struct BlockLinear {
  const char* module;
  const char* gguf;
  std::int64_t d_out;
  std::int64_t d_in;
};

class NameList {
 public:
  explicit NameList(std::vector<TensorName>& names) : names_(names) {}
  void add(std::string name, std::string gguf, Shape shape, TensorRole role, std::int64_t permuted_heads = 0) {
    names_.push_back({std::move(name), std::move(gguf), std::move(shape), role, permuted_heads});
  }

 private:
  std::vector<TensorName>& names_;
};

std::vector<BlockLinear> decoder_attention(const BackboneConfig& c) {
  const std::int64_t q = c.num_heads * c.d_head;
  const std::int64_t kv = c.num_kv_heads * c.d_head;
  return {{"self_attn.q_proj", "attn_q", q, c.d_model},
          {"self_attn.k_proj", "attn_k", kv, c.d_model},
          {"self_attn.v_proj", "attn_v", kv, c.d_model},
          {"self_attn.o_proj", "attn_output", c.d_model, q}};
}

std::vector<BlockLinear> decoder_feed_forward(const BackboneConfig& c) {
  return {{"mlp.gate_proj", "ffn_gate", c.d_ff, c.d_model},
          {"mlp.up_proj", "ffn_up", c.d_ff, c.d_model},
          {"mlp.down_proj", "ffn_down", c.d_model, c.d_ff}};
}

void add_decoder_block(NameList& list, const BackboneConfig& c, std::int64_t layer_idx) {
  const std::string block = concat("model.layers.", layer_idx, ".");
  const std::string gguf = concat("blk.", layer_idx, ".");
  const auto norm = [&](const char* name, const char* gguf_name, std::int64_t size) {
    list.add(concat(block, name, ".weight"), concat(gguf, gguf_name, ".weight"), {size}, TensorRole::kNorm);
  };
  const auto linear = [&](const BlockLinear& part) {
    std::int64_t permuted = 0;
    if (c.family == Family::kLlama && std::string_view(part.gguf) == "attn_q") permuted = c.num_heads;
    if (c.family == Family::kLlama && std::string_view(part.gguf) == "attn_k") permuted = c.num_kv_heads;
    list.add(concat(block, part.module, ".weight"), concat(gguf, part.gguf, ".weight"), {part.d_out, part.d_in},
             TensorRole::kLinear, permuted);
  };
  const bool gemma = c.family == Family::kGemma3;
  norm("input_layernorm", "attn_norm", c.d_model);
  for (const BlockLinear& part : decoder_attention(c)) {
    const bool is_output = std::string_view(part.gguf) == "attn_output";
    if (is_output && c.qk_norm) {
      norm("self_attn.q_norm", "attn_q_norm", c.d_head);
      norm("self_attn.k_norm", "attn_k_norm", c.d_head);
    }
    linear(part);
    if (!is_output && c.qkv_bias) {
      list.add(concat(block, part.module, ".bias"), concat(gguf, part.gguf, ".bias"), {part.d_out}, TensorRole::kBias);
    }
  }
  // Gemma 3 has four norms a block; "post_attention_layernorm" is another place there.
  norm("post_attention_layernorm", gemma ? "post_attention_norm" : "ffn_norm", c.d_model);
  if (gemma) norm("pre_feedforward_layernorm", "ffn_norm", c.d_model);
  for (const BlockLinear& part : decoder_feed_forward(c)) linear(part);
  if (gemma) norm("post_feedforward_layernorm", "post_ffw_norm", c.d_model);
}

std::vector<BlockLinear> t5_attention(const BackboneConfig& c, bool cross) {
  const std::int64_t inner = c.num_heads * c.d_head;
  return {{"q", cross ? "cross_attn_q" : "attn_q", inner, c.d_model},
          {"k", cross ? "cross_attn_k" : "attn_k", inner, c.d_model},
          {"v", cross ? "cross_attn_v" : "attn_v", inner, c.d_model},
          {"o", cross ? "cross_attn_o" : "attn_o", c.d_model, inner}};
}

std::vector<BlockLinear> t5_feed_forward(const BackboneConfig& c) {
  const BlockLinear out{"wo", "ffn_down", c.d_model, c.d_ff};
  if (!c.gated_ff) return {{"wi", "ffn_up", c.d_ff, c.d_model}, out};
  return {{"wi_0", "ffn_gate", c.d_ff, c.d_model}, {"wi_1", "ffn_up", c.d_ff, c.d_model}, out};
}

void add_t5_block(NameList& list, const BackboneConfig& c, bool encoder, std::int64_t layer_idx) {
  const std::string block = concat(encoder ? "encoder" : "decoder", ".block.", layer_idx, ".layer.");
  const std::string gguf = concat(encoder ? "enc" : "dec", ".blk.", layer_idx, ".");
  const auto sublayer = [&](int place, const char* part, const std::vector<BlockLinear>& linears,
                            const char* gguf_norm) {
    list.add(concat(block, place, ".layer_norm.weight"), concat(gguf, gguf_norm, ".weight"), {c.d_model},
             TensorRole::kNorm);
    for (const BlockLinear& linear : linears) {
      list.add(concat(block, place, ".", part, ".", linear.module, ".weight"), concat(gguf, linear.gguf, ".weight"),
               {linear.d_out, linear.d_in}, TensorRole::kLinear);
    }
  };
  sublayer(0, "SelfAttention", t5_attention(c, false), "attn_norm");
  if (layer_idx == 0) {  // the first block's bias serves all blocks of its stack
    list.add(concat(block, "0.SelfAttention.relative_attention_bias.weight"), concat(gguf, "attn_rel_b.weight"),
             {c.relative_buckets, c.num_heads}, TensorRole::kRelativeBias);
  }
  if (!encoder) sublayer(1, "EncDecAttention", t5_attention(c, true), "cross_attn_norm");
  sublayer(encoder ? 1 : 2, "DenseReluDense", t5_feed_forward(c), "ffn_norm");
}

void add_t5(NameList& list, const BackboneConfig& c) {
  list.add("shared.weight", "token_embd.weight", {c.vocabulary_size, c.d_model}, TensorRole::kEmbedding);
  for (std::int64_t layer_idx = 0; layer_idx < c.num_layers; ++layer_idx) add_t5_block(list, c, true, layer_idx);
  list.add("encoder.final_layer_norm.weight", "enc.output_norm.weight", {c.d_model}, TensorRole::kNorm);
  for (std::int64_t layer_idx = 0; layer_idx < c.num_decoder_layers; ++layer_idx)
    add_t5_block(list, c, false, layer_idx);
  list.add("decoder.final_layer_norm.weight", "dec.output_norm.weight", {c.d_model}, TensorRole::kNorm);
}

void add_decoder(NameList& list, const BackboneConfig& c) {
  list.add("model.embed_tokens.weight", "token_embd.weight", {c.vocabulary_size, c.d_model}, TensorRole::kEmbedding);
  for (std::int64_t layer_idx = 0; layer_idx < c.num_layers; ++layer_idx) add_decoder_block(list, c, layer_idx);
  list.add("model.norm.weight", "output_norm.weight", {c.d_model}, TensorRole::kNorm);
}

// The number after "layers." or "block.".
int layer_of(const std::string& module, bool t5) {
  const std::string_view mark = t5 ? ".block." : ".layers.";
  return std::stoi(module.substr(module.find(mark) + mark.size()));
}

}  // namespace

std::int64_t permuted_row(std::int64_t row, std::int64_t num_rows, std::int64_t num_heads) {
  const std::int64_t d_head = num_rows / num_heads;
  const std::int64_t head_begin = row / d_head * d_head;
  const std::int64_t within = row - head_begin;
  const std::int64_t half = d_head / 2;
  return head_begin + 2 * (within % half) + within / half;
}

std::vector<TensorName> tensor_names(const BackboneConfig& config) {
  std::vector<TensorName> names;
  NameList list(names);
  config.is_encoder_decoder() ? add_t5(list, config) : add_decoder(list, config);
  if (!config.tied_embeddings) {
    list.add("lm_head.weight", "output.weight", {config.vocabulary_size, config.d_model}, TensorRole::kHead);
  }
  return names;
}

std::vector<SlotName> slot_names(const BackboneConfig& config) {
  std::vector<SlotName> slots;
  for (const TensorName& tensor : tensor_names(config)) {
    if (tensor.role != TensorRole::kLinear) continue;
    SlotName slot;
    slot.module = tensor.name.substr(0, tensor.name.size() - std::string_view(".weight").size());
    slot.d_out = tensor.shape[0];
    slot.d_in = tensor.shape[1];
    slot.layer = layer_of(slot.module, config.is_encoder_decoder());
    slot.kind = slot.module.substr(slot.module.rfind('.') + 1);
    slot.in_encoder = slot.module.starts_with("encoder.");
    slots.push_back(std::move(slot));
  }
  return slots;
}

}  // namespace skein
