// From a YAML tree to a Recipe. Every fault names its line.
#include <algorithm>
#include <functional>

#include "skein/base/concat.h"
#include "skein/base/nearest_word.h"
#include "skein/io/yaml.h"
#include "skein/merge/recipe.h"

namespace skein::merge {
namespace {

// Keys that mergekit once had or never read, found in published recipes: harmless, so they only warn.
struct DeadKey {
  const char* key;
  const char* why;
};
constexpr DeadKey kDeadKeys[] = {
    {"residual_weight", "mergekit parses it and never uses it"},
    {"override_architecture", "Skein goes by the tensors' names, not by the architecture"},
    {"embed_slerp", "mergekit dropped it; tokens are aligned through `tokenizer`"},
    {"int8_mask", "it changed the type of a temporary of mergekit's and never the result"},
};
// Options of mergekit's commands that recipes carry by mistake.
constexpr const char* kCommandOptions[] = {
    "allow_crimes",
    "async_write",
    "clone_tensors",
    "copy_tokenizer",
    "cuda",
    "device",
    "lazy_unpickle",
    "lora_merge_cache",
    "low_cpu_memory",
    "num_threads",
    "out_shard_size",
    "quiet",
    "random_seed",
    "safe_serialization",
    "trust_remote_code",
    "verbose",
    "write_model_card",
};

class RecipeParser {
 public:
  RecipeParser(const std::string& path, Recipe& recipe) : path_(path), recipe_(recipe) {}

  Status parse(const YamlNode& root) {
    recipe_.path = path_;
    recipe_.line = root.line;
    if (!root.is_mapping()) {
      return fault(root.line, concat(yaml_description(root), " where a recipe's mapping was expected"));
    }
    SKEIN_TRY(check_keys(root, "a recipe",
                         {"merge_method", "models", "slices", "modules", "base_model", "parameters", "dtype",
                          "out_dtype", "tokenizer", "tokenizer_source", "chat_template", "name"}));
    SKEIN_TRY(word(root, "merge_method", recipe_.merge_method));
    if (recipe_.merge_method.empty()) return fault(root.line, "merge_method is missing");
    SKEIN_TRY(word(root, "name", recipe_.name));
    SKEIN_TRY(optional_model(root, "base_model", recipe_.base_model));
    SKEIN_TRY(settings(root, recipe_.parameters));
    SKEIN_TRY(dtype(root, "dtype", recipe_.dtype));
    SKEIN_TRY(dtype(root, "out_dtype", recipe_.out_dtype));
    if (const auto* node = root.find("chat_template"); node != nullptr && !node->is_null()) {
      std::string text;
      SKEIN_TRY(word(root, "chat_template", text));
      recipe_.chat_template = text;
    }
    SKEIN_TRY(tokenizer(root));
    return inputs(root);
  }

 private:
  Error fault(int line, const std::string& what) const { return Error{concat(yaml_place(path_, line), ": ", what)}; }
  void warn(int line, const std::string& what) {
    recipe_.warnings.push_back(concat(yaml_place(path_, line), ": ", what));
  }

  // True if a key has no effect here; says so.
  bool is_dead(const std::string& key, int line) {
    for (const auto& dead : kDeadKeys) {
      if (key != dead.key) continue;
      warn(line, concat(key, " has no effect: ", dead.why));
      return true;
    }
    for (const char* option : kCommandOptions) {
      if (key != option) continue;
      warn(line, concat(key, " has no effect: it is an option of mergekit's command, which no recipe sets"));
      return true;
    }
    return false;
  }

  Status check_keys(const YamlNode& mapping, const std::string& of, const std::vector<std::string>& known) {
    for (const auto& member : mapping.members) {
      if (std::find(known.begin(), known.end(), member.key) != known.end()) continue;
      if (is_dead(member.key, member.key_line)) continue;
      const auto nearest = nearest_word(member.key, known);
      return fault(member.key_line, concat("unknown key \"", printable(member.key), "\" of ", of,
                                           nearest ? concat("; did you mean ", *nearest, "?") : std::string()));
    }
    return {};
  }

  // A scalar member as text; left alone if absent or null.
  Status word(const YamlNode& mapping, const char* key, std::string& out) const {
    const auto* node = mapping.find(key);
    if (node == nullptr || node->is_null()) return {};
    if (!node->is_scalar())
      return fault(node->line, concat(key, " is ", yaml_description(*node), "; a word was expected"));
    out = node->text;
    return {};
  }

  Status dtype(const YamlNode& root, const char* key, std::optional<DType>& out) const {
    std::string text;
    SKEIN_TRY(word(root, key, text));
    if (text.empty()) return {};
    const std::string name = text.starts_with("torch.") ? text.substr(6) : text;
    if (name == "float32" || name == "float" || name == "f32" || name == "fp32") {
      out = DType::kF32;
    } else if (name == "bfloat16" || name == "bf16") {
      out = DType::kBF16;
    } else if (name == "float16" || name == "half" || name == "f16" || name == "fp16") {
      out = DType::kF16;
    } else if (name == "float64" || name == "double" || name == "f64" || name == "fp64") {
      out = DType::kF64;
    } else {
      return fault(root.find(key)->line,
                   concat(key, " \"", printable(text), "\"; float64, float32, bfloat16 or float16 was expected"));
    }
    return {};
  }

  Result<ModelRef> model_of(const YamlNode& node) const {
    if (node.is_scalar()) return parsed_model(node.text, node.line);
    if (!node.is_mapping()) return fault(node.line, concat(yaml_description(node), " where a model was expected"));
    // mergekit's spelling of a reference as an object: {model: {path, revision}, lora: {path, revision}}.
    std::string text;
    for (const auto& member : node.members) {
      if (member.key == "override_architecture") continue;
      if (member.key != "model" && member.key != "lora") {
        return fault(member.key_line,
                     concat("unknown key \"", printable(member.key), "\" of a model; model and lora were expected"));
      }
      if (member.value.is_null()) continue;
      std::string part;
      if (member.value.is_scalar()) {
        part = member.value.text;
      } else {
        std::string revision;
        SKEIN_TRY(word(member.value, "path", part));
        SKEIN_TRY(word(member.value, "revision", revision));
        if (!revision.empty()) part += "@" + revision;
      }
      text += (member.key == "lora" ? "+" : "") + part;
    }
    return parsed_model(text, node.line);
  }

  Result<ModelRef> parsed_model(const std::string& text, int line) const {
    auto ref = parse_model_ref(text);
    if (!ref.ok()) return fault(line, ref.error().message);
    ref->line = line;
    return ref;
  }

  Status optional_model(const YamlNode& mapping, const char* key, std::optional<ModelRef>& out) const {
    const auto* node = mapping.find(key);
    if (node == nullptr || node->is_null()) return {};
    SKEIN_ASSIGN(out, model_of(*node));
    return {};
  }

  Result<ModelRef> required_model(const YamlNode& mapping) const {
    const auto* node = mapping.find("model");
    if (node == nullptr || node->is_null()) return fault(mapping.line, "model is missing");
    return model_of(*node);
  }

  // ---- parameters ----

  Result<ParameterValue> scalar_value(const YamlNode& node, const std::string& name) const {
    if (const auto flag = yaml_bool(node)) return ParameterValue(*flag);
    if (const auto number = yaml_number(node)) return ParameterValue(*number);
    if (node.is_scalar()) return ParameterValue(node.text);
    return fault(node.line, concat(name, " is ", yaml_description(node),
                                   "; a value, a list of values, or a list of {filter, value} was expected"));
  }

  Result<std::vector<ParameterValue>> values_of(const YamlNode& node, const std::string& name) const {
    std::vector<ParameterValue> values;
    if (!node.is_list()) {
      SKEIN_ASSIGN(auto value, scalar_value(node, name));
      values.push_back(std::move(value));
      return values;
    }
    for (const auto& item : node.items) {
      SKEIN_ASSIGN(auto value, scalar_value(item, name));
      values.push_back(std::move(value));
    }
    return values;
  }

  Result<Setting::Case> case_of(const YamlNode& node, const std::string& name) {
    SKEIN_TRY(check_keys(node, concat("an entry of ", name), {"filter", "value"}));
    const auto* value = node.find("value");
    if (value == nullptr || value->is_null()) return fault(node.line, concat(name, ": value is missing"));
    Setting::Case one;
    SKEIN_TRY(word(node, "filter", one.filter));
    SKEIN_ASSIGN(one.values, values_of(*value, name));
    return one;
  }

  Result<Setting> setting_of(const YamlNode& node, const std::string& name) {
    Setting setting;
    setting.line = node.line;
    const auto is_case = [](const YamlNode& item) { return item.is_mapping(); };
    if (node.is_mapping()) {
      SKEIN_ASSIGN(auto one, case_of(node, name));
      setting.cases.push_back(std::move(one));
    } else if (node.is_list() && std::any_of(node.items.begin(), node.items.end(), is_case)) {
      for (const auto& item : node.items) {
        if (!item.is_mapping()) {
          // mergekit takes a bare value at the end of a list of filters for one without a filter.
          SKEIN_ASSIGN(auto values, values_of(item, name));
          setting.cases.push_back({"", std::move(values)});
          continue;
        }
        SKEIN_ASSIGN(auto one, case_of(item, name));
        setting.cases.push_back(std::move(one));
      }
    } else {
      SKEIN_ASSIGN(auto values, values_of(node, name));
      setting.cases.push_back({"", std::move(values)});
    }
    return setting;
  }

  Status settings(const YamlNode& mapping, Settings& out) {
    const auto* node = mapping.find("parameters");
    if (node == nullptr || node->is_null()) return {};
    if (!node->is_mapping()) {
      return fault(node->line, concat("parameters is ", yaml_description(*node), "; a mapping was expected"));
    }
    for (const auto& [key, key_line, value] : node->members) {
      if (is_dead(key, key_line) || value.is_null()) continue;
      SKEIN_ASSIGN(Setting setting, setting_of(value, key));
      setting.line = key_line;
      out.emplace(key, std::move(setting));
    }
    return {};
  }

  // ---- models, slices, modules ----

  Status list_of(const YamlNode& node, const char* what, const std::function<Status(const YamlNode&)>& each) const {
    if (!node.is_list() || node.items.empty()) {
      return fault(node.line, concat(what, " is ", node.is_list() ? "an empty list" : yaml_description(node),
                                     "; a list of mappings was expected"));
    }
    for (const auto& item : node.items) {
      if (!item.is_mapping()) {
        return fault(item.line, concat(what, " holds ", yaml_description(item), "; a mapping was expected"));
      }
      SKEIN_TRY(each(item));
    }
    return {};
  }

  Status models(const YamlNode& node, std::vector<InputModel>& out) {
    return list_of(node, "models", [&](const YamlNode& item) -> Status {
      SKEIN_TRY(check_keys(item, "a model", {"model", "parameters"}));
      InputModel input;
      SKEIN_ASSIGN(input.model, required_model(item));
      SKEIN_TRY(settings(item, input.parameters));
      for (const auto& other : out) {
        if (other.model == input.model) {
          return fault(item.line, concat("the model ", printable(input.model.text()), " is listed twice"));
        }
      }
      out.push_back(std::move(input));
      return {};
    });
  }

  Status layer_range(const YamlNode& item, SliceSource& source) const {
    const auto* range = item.find("layer_range");
    if (range == nullptr) return fault(item.line, "layer_range is missing");
    std::optional<long long> from, to;
    if (range->is_list() && range->items.size() == 2) {
      from = yaml_integer(range->items[0]);
      to = yaml_integer(range->items[1]);
    }
    if (!from || !to) {
      return fault(range->line, concat("layer_range is ", yaml_description(*range),
                                       "; two layers, [from, to) with the end left out, were expected"));
    }
    if (*from < 0 || *to <= *from) {
      return fault(range->line, concat("layer_range [", *from, ", ", *to,
                                       "] holds no layer; the end is left out, so [0, 1] is the first layer"));
    }
    source.from = *from;
    source.to = *to;
    return {};
  }

  Status slices(const YamlNode& node, std::vector<OutputSlice>& out) {
    return list_of(node, "slices", [&](const YamlNode& item) -> Status {
      SKEIN_TRY(check_keys(item, "a slice", {"sources", "base_model", "parameters"}));
      OutputSlice slice;
      slice.line = item.line;
      SKEIN_TRY(optional_model(item, "base_model", slice.base_model));
      SKEIN_TRY(settings(item, slice.parameters));
      const auto* sources = item.find("sources");
      if (sources == nullptr) return fault(item.line, "sources is missing");
      SKEIN_TRY(list_of(*sources, "sources", [&](const YamlNode& entry) -> Status {
        SKEIN_TRY(check_keys(entry, "a source", {"model", "layer_range", "parameters"}));
        SliceSource source;
        source.line = entry.line;
        SKEIN_ASSIGN(source.model, required_model(entry));
        SKEIN_TRY(layer_range(entry, source));
        SKEIN_TRY(settings(entry, source.parameters));
        slice.sources.push_back(std::move(source));
        return {};
      }));
      for (const auto& source : slice.sources) {
        if (source.to - source.from != slice.sources[0].to - slice.sources[0].from) {
          return fault(source.line,
                       concat("this source has ", source.to - source.from, " layers and the first of its slice ",
                              slice.sources[0].to - slice.sources[0].from, "; all need the same number"));
        }
      }
      out.push_back(std::move(slice));
      return {};
    });
  }

  Status inputs(const YamlNode& root) {
    const YamlNode* given = nullptr;
    for (const char* key : {"models", "slices", "modules"}) {
      const auto* node = root.find(key);
      if (node == nullptr || node->is_null()) continue;
      if (given != nullptr)
        return fault(node->line, "more than one of models, slices and modules; exactly one was expected");
      given = node;
      if (std::string(key) == "modules") continue;
      OutputModule module;
      module.line = node->line;
      SKEIN_TRY(std::string(key) == "models" ? models(*node, module.models) : slices(*node, module.slices));
      recipe_.modules.push_back(std::move(module));
    }
    if (given == nullptr) return fault(root.line, "none of models, slices and modules; exactly one was expected");
    if (!recipe_.modules.empty()) return {};
    if (!given->is_mapping() || given->members.empty()) {
      return fault(given->line, concat("modules is ", yaml_description(*given), "; a mapping of modules was expected"));
    }
    for (const auto& [name, line, node] : given->members) SKEIN_TRY(module(name, line, node));
    return {};
  }

  Status module(const std::string& name, int line, const YamlNode& node) {
    if (!node.is_mapping())
      return fault(line,
                   concat("the module ", printable(name), " is ", yaml_description(node), "; a mapping was expected"));
    SKEIN_TRY(check_keys(node, "a module", {"slices", "models", "parameters"}));
    OutputModule module;
    module.name = name;
    module.line = line;
    const auto *from_models = node.find("models"), *from_slices = node.find("slices");
    if ((from_models == nullptr) == (from_slices == nullptr)) {
      return fault(line, concat("the module ", printable(name), " needs either models or slices"));
    }
    SKEIN_TRY(from_models != nullptr ? models(*from_models, module.models) : slices(*from_slices, module.slices));
    SKEIN_TRY(settings(node, module.parameters));
    recipe_.modules.push_back(std::move(module));
    return {};
  }

  // ---- tokenizer ----

  Status tokenizer_from(const YamlNode& node, TokenizerRecipe& out) const {
    if (node.is_scalar() && node.text == "union") {
      out.from = TokenizerRecipe::From::kUnion;
    } else if (node.is_scalar() && node.text == "base") {
      out.from = TokenizerRecipe::From::kBase;
      if (!recipe_.base_model)
        return fault(node.line, "the tokenizer comes from \"base\", and the recipe has no base_model");
    } else {
      // "model:PATH" is the spelling of mergekit's first versions.
      YamlNode plain = node;
      if (plain.is_scalar() && plain.text.starts_with("model:")) plain.text.erase(0, 6);
      out.from = TokenizerRecipe::From::kModel;
      SKEIN_ASSIGN(out.model, model_of(plain));
    }
    return {};
  }

  Result<TokenRow> token_row(const YamlNode& node, const std::string& token) {
    TokenRow row;
    row.line = node.line;
    if (node.is_null()) return row;
    if (!node.is_mapping())
      return fault(node.line, concat("the token ", printable(token), " is ", yaml_description(node),
                                     "; {source, force} was expected"));
    SKEIN_TRY(check_keys(node, "a token", {"source", "force"}));
    if (const auto* force = node.find("force"); force != nullptr && !force->is_null()) {
      const auto flag = yaml_bool(*force);
      if (!flag)
        return fault(force->line, concat("force is ", yaml_description(*force), "; true or false was expected"));
      row.force = *flag;
    }
    const auto* source = node.find("source");
    if (source == nullptr || source->is_null()) return row;
    std::string kind;
    if (source->is_mapping()) SKEIN_TRY(word(*source, "kind", kind));
    if (kind.empty()) {
      row.kind = TokenRow::Kind::kModel;
      SKEIN_ASSIGN(row.model, model_of(*source));
    } else if (kind == "zero") {
      row.kind = TokenRow::Kind::kZero;
    } else if (kind == "model_token") {
      SKEIN_TRY(check_keys(*source, "a token's source", {"kind", "model", "token", "token_id"}));
      SKEIN_ASSIGN(row.model, required_model(*source));
      const auto *name = source->find("token"), *id = source->find("token_id");
      if ((name == nullptr) == (id == nullptr))
        return fault(source->line, "a model_token needs either token or token_id");
      if (name != nullptr) {
        row.kind = TokenRow::Kind::kToken;
        SKEIN_TRY(word(*source, "token", row.token));
      } else {
        row.kind = TokenRow::Kind::kTokenId;
        const auto number = yaml_integer(*id);
        if (!number || *number < 0)
          return fault(id->line, concat("token_id is ", yaml_description(*id), "; a number from 0 was expected"));
        row.token_id = *number;
      }
    } else {
      return fault(source->line,
                   concat("a token's source of kind \"", printable(kind), "\"; model_token or zero was expected"));
    }
    return row;
  }

  Status tokenizer(const YamlNode& root) {
    const auto *full = root.find("tokenizer"), *brief = root.find("tokenizer_source");
    if (full != nullptr && full->is_null()) full = nullptr;
    if (brief != nullptr && brief->is_null()) brief = nullptr;
    if (full != nullptr && brief != nullptr)
      return fault(brief->line, "both tokenizer and tokenizer_source; one was expected");
    if (full == nullptr && brief == nullptr) return {};
    TokenizerRecipe out;
    out.line = (full != nullptr ? full : brief)->line;
    if (brief != nullptr) {
      SKEIN_TRY(tokenizer_from(*brief, out));
      recipe_.tokenizer = std::move(out);
      return {};
    }
    if (!full->is_mapping())
      return fault(full->line, concat("tokenizer is ", yaml_description(*full), "; a mapping was expected"));
    SKEIN_TRY(check_keys(*full, "tokenizer", {"source", "tokens", "pad_to_multiple_of"}));
    if (const auto* source = full->find("source"); source != nullptr && !source->is_null())
      SKEIN_TRY(tokenizer_from(*source, out));
    if (const auto* pad = full->find("pad_to_multiple_of"); pad != nullptr && !pad->is_null()) {
      const auto number = yaml_integer(*pad);
      if (!number || *number < 1 || *number > (1 << 20)) {
        return fault(pad->line, concat("pad_to_multiple_of is ", yaml_description(*pad),
                                       "; a number from 1 to 1048576 was expected"));
      }
      out.pad_to_multiple_of = *number;
    }
    if (const auto* tokens = full->find("tokens"); tokens != nullptr && !tokens->is_null()) {
      if (!tokens->is_mapping())
        return fault(tokens->line, concat("tokens is ", yaml_description(*tokens), "; a mapping was expected"));
      for (const auto& [token, line, node] : tokens->members) {
        SKEIN_ASSIGN(TokenRow row, token_row(node, token));
        out.tokens.emplace_back(token, std::move(row));
      }
    }
    recipe_.tokenizer = std::move(out);
    return {};
  }

  const std::string& path_;
  Recipe& recipe_;
};

}  // namespace

Result<std::vector<Recipe>> parse_recipes(const std::string& text, const std::string& path) {
  SKEIN_ASSIGN(const auto documents, parse_yaml(text, path));
  if (documents.empty()) return Error{concat(path, " is empty; a merge recipe was expected")};
  std::vector<Recipe> recipes(documents.size());
  for (std::size_t i = 0; i < documents.size(); ++i) SKEIN_TRY(RecipeParser(path, recipes[i]).parse(documents[i]));
  return recipes;
}

}  // namespace skein::merge
