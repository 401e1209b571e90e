// Layers as tensor names spell them: "model.layers.3.mlp.up_proj.weight" is layer 3 of the stack "model.layers".
// Names are all that is known of an architecture here, so that models nobody has a table for can be merged.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace skein::merge {

struct LayerName {
  std::string stack;       // "model.layers"
  std::int64_t layer = 0;  // 3
  std::string rest;        // "mlp.up_proj.weight"
};

// Nothing for a tensor outside the stacks of layers. A stack's last word is one of layers, layer, h, blocks, block.
std::optional<LayerName> split_layer_name(const std::string& tensor_name);
std::string join_layer_name(const std::string& stack, std::int64_t layer, const std::string& rest);

// Stacks of a model: name -> number of layers (the highest, plus one).
std::map<std::string, std::int64_t> layer_stacks(const std::vector<std::string>& tensor_names);

// True for what stands before the layers (embeddings of tokens and positions), false for what stands behind them.
bool is_before_layers(const std::string& tensor_name);

// Whether a tensor belongs to a module of a recipe ("text_decoder", "vision_tower", "encoder", ...), by the parts of
// its name; mergekit's names of modules are known with the words that models use for them.
bool belongs_to_module(const std::string& tensor_name, const std::string& module);

}  // namespace skein::merge
