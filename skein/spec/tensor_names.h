// The one list of names: every tensor of every family, its shape, its GGUF twin, and which are linears where an expert
// may attach.
#pragma once

#include <string>
#include <vector>

#include "skein/base/shape.h"
#include "skein/spec/backbone_config.h"

namespace skein {

enum class TensorRole { kEmbedding, kNorm, kLinear, kBias, kHead, kRelativeBias };

struct TensorName {
  std::string name;       // Hugging Face: "model.layers.0.self_attn.q_proj.weight"
  std::string gguf_name;  // llama.cpp: "blk.0.attn_q.weight"; empty if GGUF has none
  Shape shape;            // (out, in) for linears
  TensorRole role = TensorRole::kLinear;
  // llama.cpp reorders the rows of q and k of llama models (interleaved rotary pairs): heads to undo it with, else 0.
  std::int64_t permuted_heads = 0;
};

// Where llama.cpp's converter puts row `row` of such a matrix: Hugging Face's row s Dh / 2 + i of a head becomes row
// 2 i + s (interleaved against split rotary pairs).
std::int64_t permuted_row(std::int64_t row, std::int64_t num_rows, std::int64_t num_heads);

// All tensors of a model of this config, in forward order.
std::vector<TensorName> tensor_names(const BackboneConfig& config);

// One linear where an expert may attach, in forward order. slot_idx is its place in this list.
struct SlotName {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  std::int64_t d_in = 0;
  std::int64_t d_out = 0;
  int layer = 0;     // block index within its stack
  std::string kind;  // last component: "q_proj", "wi_0"
  bool in_encoder = false;
};
// Every linear of every block; not the output head.
std::vector<SlotName> slot_names(const BackboneConfig& config);

}  // namespace skein
