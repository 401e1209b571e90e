#include "skein/merge/tensor_inputs.h"

#include <algorithm>
#include <set>

#include "skein/base/concat.h"
#include "skein/merge/layer_name.h"

namespace skein::merge {
namespace {

// One model of a slice, whichever way the recipe wrote it.
struct Part {
  int source = 0;
  bool is_base = false;
  std::int64_t from = 0;
  const Settings* own = nullptr;
};

class Layouter {
 public:
  Layouter(const Recipe& recipe, const std::vector<std::unique_ptr<Source>>& sources)
      : recipe_(recipe), sources_(sources), models_(recipe.models()) {}

  Result<InputLayout> run() {
    for (const auto& module : recipe_.modules) {
      SKEIN_TRY(module.slices.empty() ? whole_models(module) : slices(module));
    }
    for (const auto& [name, tensor] : tensors_) layout_.tensors.push_back(tensor);
    return std::move(layout_);
  }

 private:
  Error fault(int line, const std::string& what) const {
    return Error{concat(recipe_.path, ", line ", line, ": ", what)};
  }

  int source_of(const ModelRef& model) const {
    const auto found = std::find(models_.begin(), models_.end(), model);
    SKEIN_CHECK(found != models_.end());
    return static_cast<int>(found - models_.begin());
  }
  const Source& source(int index) const { return *sources_[static_cast<std::size_t>(index)]; }

  // A tensor goes to the named module whose words its name holds, else to the first; without names to the only one.
  bool in_module(const std::string& name, const OutputModule& module) const {
    if (module.name.empty() || recipe_.modules.size() == 1) return true;
    for (const auto& other : recipe_.modules) {
      if (belongs_to_module(name, other.name)) return &other == &module;
    }
    return &module == &recipe_.modules[0];
  }

  // The head of a model that shares it with its embedding stands in the embedding's name.
  static std::string name_in(const Source& source, const std::string& name) {
    if (source.find(name) != nullptr) return name;
    if (!name.ends_with("lm_head.weight")) return {};
    for (const char* ending : {"embed_tokens.weight", "wte.weight", "shared.weight"}) {
      for (const auto& candidate : source.names()) {
        if (candidate.ends_with(ending)) return candidate;
      }
    }
    return {};
  }

  void add(TensorInputs tensor, const std::vector<Part>& parts, const std::vector<std::string>& names) {
    for (std::size_t i = 0; i < parts.size(); ++i) {
      tensor.wants_base = tensor.wants_base || parts[i].is_base;
      if (names[i].empty()) {
        tensor.without.push_back(parts[i].source);
      } else {
        tensor.inputs.push_back({parts[i].source, names[i], parts[i].is_base, parts[i].own});
      }
    }
    const std::string name = tensor.name;
    tensors_.insert_or_assign(name, std::move(tensor));
  }

  // `models`: every tensor by its own name.
  Status whole_models(const OutputModule& module) {
    std::vector<Part> parts;
    bool has_base = false;
    for (const auto& input : module.models) {
      const bool is_base = recipe_.base_model && *recipe_.base_model == input.model;
      has_base = has_base || is_base;
      parts.push_back({source_of(input.model), is_base, 0, &input.parameters});
    }
    if (recipe_.base_model && !has_base) parts.push_back({source_of(*recipe_.base_model), true, 0, nullptr});

    std::set<std::string> names;
    std::map<std::string, std::int64_t> stacks;
    for (const auto& part : parts) {
      for (const auto& name : source(part.source).names()) {
        if (in_module(name, module)) names.insert(name);
      }
      SKEIN_TRY(join_stacks(part, module, stacks));
    }
    for (const auto& name : names) {
      TensorInputs tensor;
      tensor.name = name;
      tensor.module = &module.parameters;
      if (const auto layer = split_layer_name(name)) tensor.t = depth(layer->layer, stacks[layer->stack]);
      std::vector<std::string> found;
      for (const auto& part : parts) found.push_back(name_in(source(part.source), name));
      add(std::move(tensor), parts, found);
    }
    for (const auto& [stack, layers] : stacks) layout_.stacks[stack] = layers;
    return {};
  }

  static double depth(std::int64_t layer, std::int64_t num_layers) {
    return num_layers > 1 ? static_cast<double>(layer) / static_cast<double>(num_layers - 1) : 1.0;
  }

  Status join_stacks(const Part& part, const OutputModule& module, std::map<std::string, std::int64_t>& stacks) const {
    for (const auto& [stack, layers] : layer_stacks(source(part.source).names())) {
      if (!in_module(stack + ".0.", module)) continue;
      const auto [known, fresh] = stacks.emplace(stack, layers);
      if (!fresh && known->second != layers) {
        return fault(module.line, concat(source(part.source).folder, " has ", layers, " layers in ", stack,
                                         " and another model ", known->second, "; use slices to say which to merge"));
      }
    }
    return {};
  }

  // ---- slices ----

  // The one stack of layers that the slices of a module cut.
  Result<std::string> stack_of(const OutputModule& module) const {
    const Source& first = source(source_of(module.slices[0].sources[0].model));
    std::vector<std::string> stacks;
    for (const auto& [stack, layers] : layer_stacks(first.names())) {
      if (in_module(stack + ".0.", module)) stacks.push_back(stack);
    }
    if (stacks.size() == 1) return stacks[0];
    if (stacks.empty()) return fault(module.line, concat(first.folder, " has no numbered layers to slice"));
    return fault(module.line, concat(first.folder, " has several stacks of layers (", stacks[0], ", ", stacks[1],
                                     "); name the module of each under modules"));
  }

  Result<std::vector<Part>> parts_of(const OutputSlice& slice, const std::string& stack) const {
    const auto& base = slice.base_model ? slice.base_model : recipe_.base_model;
    std::vector<Part> parts;
    for (const auto& entry : slice.sources) {
      const Part part{source_of(entry.model), base && *base == entry.model, entry.from, &entry.parameters};
      const auto stacks = layer_stacks(source(part.source).names());
      const auto found = stacks.find(stack);
      if (found == stacks.end()) {
        return fault(entry.line, concat(source(part.source).folder, " has no layers named ", stack));
      }
      if (entry.to > found->second) {
        return fault(entry.line, concat("layer_range [", entry.from, ", ", entry.to, ") and ",
                                        source(part.source).folder, " has ", found->second, " layers"));
      }
      for (const auto& other : parts) {
        if (other.source == part.source) {
          return fault(entry.line, concat("the model ", printable(entry.model.text()), " stands twice in one slice"));
        }
      }
      parts.push_back(part);
    }
    return parts;
  }

  Status slices(const OutputModule& module) {
    SKEIN_ASSIGN(const std::string stack, stack_of(module));
    std::int64_t out_layer = 0;
    for (const auto& slice : module.slices) {
      SKEIN_ASSIGN(const auto parts, parts_of(slice, stack));
      const std::int64_t num_layers = slice.sources[0].to - slice.sources[0].from;
      for (std::int64_t i = 0; i < num_layers; ++i, ++out_layer) {
        slice_layer(module, slice, parts, stack, i, out_layer, depth(i, num_layers));
      }
    }
    layout_.stacks[stack] = out_layer;
    SKEIN_TRY(outside_layers(module, module.slices.front(), stack, true));
    return outside_layers(module, module.slices.back(), stack, false);
  }

  void slice_layer(const OutputModule& module, const OutputSlice& slice, const std::vector<Part>& parts,
                   const std::string& stack, std::int64_t offset, std::int64_t out_layer, double t) {
    std::set<std::string> rests;
    for (const auto& part : parts) {
      for (const auto& name : source(part.source).names()) {
        const auto layer = split_layer_name(name);
        if (layer && layer->stack == stack && layer->layer == part.from + offset) rests.insert(layer->rest);
      }
    }
    for (const auto& rest : rests) {
      TensorInputs tensor;
      tensor.name = join_layer_name(stack, out_layer, rest);
      tensor.t = t;
      tensor.slice = &slice.parameters;
      tensor.module = &module.parameters;
      std::vector<std::string> found;
      for (const auto& part : parts) {
        const std::string name = join_layer_name(stack, part.from + offset, rest);
        found.push_back(source(part.source).find(name) != nullptr ? name : std::string());
      }
      add(std::move(tensor), parts, found);
    }
  }

  // Embeddings come from the first slice's sources, final norm and head from the last one's. t = 0, as in mergekit.
  Status outside_layers(const OutputModule& module, const OutputSlice& slice, const std::string& stack, bool before) {
    SKEIN_ASSIGN(const auto parts, parts_of(slice, stack));
    std::set<std::string> names;
    for (const auto& part : parts) {
      for (const auto& name : source(part.source).names()) {
        const auto layer = split_layer_name(name);
        if (layer && layer->stack == stack) continue;
        if (in_module(name, module) && is_before_layers(name) == before) names.insert(name);
      }
    }
    for (const auto& name : names) {
      TensorInputs tensor;
      tensor.name = name;
      tensor.slice = &slice.parameters;
      tensor.module = &module.parameters;
      std::vector<std::string> found;
      for (const auto& part : parts) found.push_back(name_in(source(part.source), name));
      add(std::move(tensor), parts, found);
    }
    return {};
  }

  const Recipe& recipe_;
  const std::vector<std::unique_ptr<Source>>& sources_;
  std::vector<ModelRef> models_;
  InputLayout layout_;
  std::map<std::string, TensorInputs> tensors_;
};

}  // namespace

Result<InputLayout> lay_out_inputs(const Recipe& recipe, const std::vector<std::unique_ptr<Source>>& sources) {
  SKEIN_CHECK(sources.size() == recipe.models().size());
  return Layouter(recipe, sources).run();
}

}  // namespace skein::merge
