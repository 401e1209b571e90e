#include <algorithm>
#include <map>
#include <optional>

#include "skein/base/concat.h"
#include "skein/merge/embedding_rows.h"
#include "skein/merge/output_files.h"

namespace skein::merge {
namespace {

const char* torch_name(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return "float64";
    case DType::kF32:
      return "float32";
    case DType::kF16:
      return "float16";
    default:
      return "bfloat16";
  }
}

// The type most bytes of the weights have.
DType main_dtype(const Plan& plan) {
  std::map<DType, std::uint64_t> bytes;
  for (const OutputTensor& tensor : plan.tensors) {
    if (is_floating(tensor.dtype)) bytes[tensor.dtype] += tensor.num_bytes;
  }
  const auto most =
      std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? DType::kF32 : most->first;
}

bool has(const Json& config, const char* key) { return config.is_object() && config.contains(key); }

// The part of the config that speaks of a stack of layers, and the key for their number.
struct LayerCount {
  Json* config = nullptr;
  const char* key = nullptr;
};
std::optional<LayerCount> layer_count_of(Json& config, const std::string& stack) {
  const auto among = [](Json& part, std::initializer_list<const char*> keys) -> std::optional<LayerCount> {
    for (const char* key : keys) {
      if (has(part, key)) return LayerCount{&part, key};
    }
    return std::nullopt;
  };
  if (stack.find("vision") != std::string::npos || stack.find("visual") != std::string::npos) {
    return has(config, "vision_config") ? among(config["vision_config"], {"num_hidden_layers", "depth"}) : std::nullopt;
  }
  const bool is_decoder = stack.find("decoder") != std::string::npos;
  const bool is_encoder = stack.find("encoder") != std::string::npos;
  if (is_decoder) {
    if (const auto found = among(config, {"num_decoder_layers", "decoder_layers"})) return found;
  }
  if (is_encoder) {
    if (const auto found = among(config, {"encoder_layers", "num_layers"})) return found;
  }
  if (has(config, "text_config")) {
    if (const auto found = among(config["text_config"], {"num_hidden_layers"})) return found;
  }
  return among(config, {"num_hidden_layers", "n_layer", "n_layers", "num_layers"});
}

// Of config.json, whichever part has it.
Json& text_part(Json& config, const char* key) {
  return !has(config, key) && has(config, "text_config") && has(config["text_config"], key) ? config["text_config"]
                                                                                            : config;
}

// Layers taken in another order bring their kind (full or sliding attention, ...) along.
Status reorder_layer_types(const Plan& plan, Json& config) {
  if (!has(text_part(config, "layer_types"), "layer_types")) return {};
  const OutputModule& module = plan.recipe->modules.front();
  Json types = Json::array();
  for (const OutputSlice& slice : module.slices) {
    const SliceSource& first = slice.sources.front();
    for (const auto& source : plan.sources) {
      if (!(source->ref == first.model)) continue;
      Json theirs = source->config;
      const Json& part = text_part(theirs, "layer_types");
      if (!has(part, "layer_types")) return {};
      const Json& list = part["layer_types"];
      if (!list.is_array() || first.to > static_cast<std::int64_t>(list.size())) {
        return Error{concat(source->folder, "/config.json: layer_types has no entry for layer ", first.to - 1)};
      }
      for (std::int64_t layer = first.from; layer < first.to; ++layer) types.push_back(list[layer]);
      break;
    }
  }
  text_part(config, "layer_types")["layer_types"] = std::move(types);
  return {};
}

bool has_slices(const Recipe& recipe) {
  return std::any_of(recipe.modules.begin(), recipe.modules.end(),
                     [](const OutputModule& module) { return !module.slices.empty(); });
}

}  // namespace

const Source& donor_of(const Plan& plan) {
  for (const auto& source : plan.sources) {
    if (plan.recipe->base_model && source->ref == *plan.recipe->base_model) return *source;
  }
  return *plan.sources.front();
}

Result<Json> output_config(const Plan& plan, const MergedVocabulary* vocabulary) {
  const Source& donor = donor_of(plan);
  Json config = donor.config;
  if (has_slices(*plan.recipe)) {
    for (const auto& [stack, layers] : plan.stacks) {
      const auto count = layer_count_of(config, stack);
      if (count) (*count->config)[count->key] = layers;
    }
    if (plan.recipe->modules.size() == 1) SKEIN_TRY(reorder_layer_types(plan, config));
  }
  const std::string dtype = torch_name(plan.recipe->out_dtype.value_or(main_dtype(plan)));
  // transformers 5 writes "dtype" and reads both; what the donor has is kept, so that old programs read it too.
  const char* key = has(config, "dtype") && !has(config, "torch_dtype") ? "dtype" : "torch_dtype";
  config[key] = dtype;
  if (has(config, "dtype")) config["dtype"] = dtype;
  if (has(config, "text_config")) {
    for (const char* inner : {"dtype", "torch_dtype"}) {
      if (has(config["text_config"], inner)) config["text_config"][inner] = dtype;
    }
  }

  std::int64_t num_rows = vocabulary == nullptr ? 0 : vocabulary->num_rows;
  bool has_head = false;
  for (const OutputTensor& tensor : plan.tensors) {
    if (!has_row_per_token(tensor.name) || tensor.shape.size() != 2) continue;
    const bool is_head = tensor.name.ends_with("lm_head.weight");
    has_head = has_head || is_head;
    if (!is_head) num_rows = tensor.shape[0];
  }
  if (Json& part = text_part(config, "vocab_size"); num_rows > 0 && has(part, "vocab_size")) {
    part["vocab_size"] = num_rows;
    if (&part != &config && has(config, "vocab_size")) config["vocab_size"] = num_rows;
  }
  // A head of its own that the donor did not have: a config that ties it would hide it.
  const bool donor_has_head = donor.find("lm_head.weight") != nullptr;
  if (Json& part = text_part(config, "tie_word_embeddings"); has_head && !donor_has_head) {
    part["tie_word_embeddings"] = false;
    config["tie_word_embeddings"] = false;
  }
  return config;
}

}  // namespace skein::merge
