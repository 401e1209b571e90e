#include "skein/merge/layer_name.h"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <vector>

#include "skein/base/concat.h"

namespace skein::merge {
namespace {

constexpr std::string_view kStackWords[] = {"layers", "layer", "h", "blocks", "block"};
constexpr std::string_view kBeforeWords[] = {
    "embed_tokens",    "wte",   "wpe",      "shared", "embeddings", "embed_in", "tok_embeddings", "word_embeddings",
    "embed_positions", "embed", "embedding"};

// mergekit's module names, and the parts of tensor names that mean them.
struct ModuleWords {
  std::string_view module;
  std::vector<std::string_view> parts;
};
const std::vector<ModuleWords>& module_words() {
  static const std::vector<ModuleWords> words = {
      {"text_decoder", {"language_model", "text_model", "lm_head"}},
      {"vision_tower", {"vision_tower", "vision_model", "visual"}},
      {"multi_modal_projector", {"multi_modal_projector", "mm_projector"}},
  };
  return words;
}

std::vector<std::string_view> parts_of(std::string_view name) {
  std::vector<std::string_view> parts;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    parts.push_back(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool holds(const auto& words, std::string_view word) {
  return std::find(std::begin(words), std::end(words), word) != std::end(words);
}

}  // namespace

std::optional<LayerName> split_layer_name(const std::string& tensor_name) {
  const auto parts = parts_of(tensor_name);
  for (std::size_t i = 1; i + 1 < parts.size(); ++i) {
    std::int64_t layer = 0;
    const auto [end, failure] = std::from_chars(parts[i].data(), parts[i].data() + parts[i].size(), layer);
    if (failure != std::errc() || end != parts[i].data() + parts[i].size() || layer < 0 || layer > 1'000'000) continue;
    if (!holds(kStackWords, parts[i - 1])) continue;
    const auto stack_end = static_cast<std::size_t>(parts[i - 1].data() + parts[i - 1].size() - tensor_name.data());
    const auto rest_begin = static_cast<std::size_t>(parts[i + 1].data() - tensor_name.data());
    return LayerName{tensor_name.substr(0, stack_end), layer, tensor_name.substr(rest_begin)};
  }
  return std::nullopt;
}

std::string join_layer_name(const std::string& stack, std::int64_t layer, const std::string& rest) {
  return concat(stack, ".", layer, ".", rest);
}

std::map<std::string, std::int64_t> layer_stacks(const std::vector<std::string>& tensor_names) {
  std::map<std::string, std::int64_t> stacks;
  for (const auto& name : tensor_names) {
    if (const auto layer = split_layer_name(name)) {
      auto& count = stacks[layer->stack];
      count = std::max(count, layer->layer + 1);
    }
  }
  return stacks;
}

bool is_before_layers(const std::string& tensor_name) {
  const auto parts = parts_of(tensor_name);
  return std::any_of(parts.begin(), parts.end(), [](std::string_view part) { return holds(kBeforeWords, part); });
}

bool belongs_to_module(const std::string& tensor_name, const std::string& module) {
  const auto parts = parts_of(tensor_name);
  if (holds(parts, module)) return true;
  for (const auto& [name, words] : module_words()) {
    if (name != module) continue;
    return std::any_of(parts.begin(), parts.end(), [&words = words](auto part) { return holds(words, part); });
  }
  return false;
}

}  // namespace skein::merge
