// adapter_config.json, read and written. What each field means to PEFT: docs/formats/expert.md.
#include "skein/spec/lora_config.h"

#include <cmath>
#include <set>

#include "skein/base/concat.h"

namespace skein {
namespace {

constexpr std::int64_t kMaxRank = 1 << 16;

bool is_set(const Json& config, const char* key) {
  const auto it = config.find(key);
  if (it == config.end() || it->is_null()) return false;
  if (it->is_boolean()) return it->get<bool>();
  return !(it->is_structured() && it->empty());
}

Error refusal(const std::string& path, const std::string& key, const Json& value, const char* why) {
  return Error{concat(path, ": ", key, " is ", printable(value.dump(-1, ' ', true)), "; ", why)};
}

// Fields that change what the adapter computes. A new one of PEFT's is most likely another "use_...".
Status refuse_other_methods(const Json& config, const std::string& path) {
  struct Field {
    const char* key;
    const char* why;
  };
  static constexpr Field kFields[] = {
      {"use_dora", "DoRA rescales the base's weights; Skein attaches plain LoRA"},
      {"alora_invocation_tokens", "activated LoRA acts from an invocation text on; Skein attaches plain LoRA"},
      {"layer_replication", "the adapter belongs to a base with repeated layers; give that base and its plain adapter"},
      {"target_parameters", "raw parameters are no linears; Skein attaches to linears"},
      {"modules_to_save", "whole modules were trained beside the LoRA; an expert holds LoRA matrices only"},
      {"trainable_token_indices", "rows of the embedding were trained; an expert holds LoRA matrices only"},
      {"lora_bias", "biases on lora_B; Skein attaches matrices without bias"},
      {"velora_config", "VeLoRA; Skein attaches plain LoRA"},
      {"kasa_config", "KaSA; Skein attaches plain LoRA"},
      {"monteclora_config", "MonteCLoRA; Skein attaches plain LoRA"},
  };
  for (const Field& field : kFields) {
    if (is_set(config, field.key)) return refusal(path, field.key, config[field.key], field.why);
  }
  for (const auto& [key, value] : config.items()) {
    if (key.starts_with("use_") && key != "use_rslora" && is_set(config, key.c_str())) {
      return refusal(path, printable(key), value, "a kind of adapter that Skein does not know");
    }
  }
  SKEIN_ASSIGN(const std::string bias, json_string(config, "bias", "none", path));
  if (bias != "none")
    return refusal(path, "bias", config["bias"], "the base's biases were trained; an expert holds LoRA matrices only");
  return {};
}

// PiSSA, OLoRA, CorDA, LoRA-GA and LoftQ subtract something from the base before training: on the plain base the
// adapter is wrong.
Status refuse_changed_bases(const Json& config, const std::string& path) {
  const auto it = config.find("init_lora_weights");
  if (it == config.end() || it->is_null() || it->is_boolean()) return {};
  static const std::set<std::string> kPlain = {"gaussian", "eva", "orthogonal", "mica"};
  if (it->is_string() && kPlain.contains(it->get<std::string>())) return {};
  return refusal(path, "init_lora_weights", *it,
                 "such a start changes the base's weights, so that the adapter fits no plain base; save it converted "
                 "(PEFT: path_initial_model_for_weight_conversion)");
}

struct Names {
  std::vector<std::string> names;
  bool is_regex = false;
};

// A list of suffixes, or one string: a regular expression.
Result<Names> read_names(const Json& config, const char* key, const std::string& path) {
  Names out;
  const auto it = config.find(key);
  if (it == config.end() || it->is_null()) return out;
  if (it->is_string()) {
    out.names.push_back(it->get<std::string>());
    out.is_regex = true;
    return out;
  }
  const Error wrong{
      concat(path, ": ", key, " is ", printable(it->dump(-1, ' ', true)), "; expected a string or a list of strings")};
  if (!it->is_array()) return wrong;
  for (const Json& name : *it) {
    if (!name.is_string()) return wrong;
    out.names.push_back(name.get<std::string>());
  }
  return out;
}

template <typename T>
Result<std::vector<std::pair<std::string, T>>> read_pattern(const Json& config, const char* key,
                                                            const std::string& path) {
  std::vector<std::pair<std::string, T>> out;
  const auto it = config.find(key);
  if (it == config.end() || it->is_null()) return out;
  if (!it->is_object()) return Error{concat(path, ": ", key, " is not an object")};
  for (const auto& [pattern, value] : it->items()) {
    if (!value.is_number() || (std::is_integral_v<T> && !value.is_number_integer())) {
      return Error{concat(path, ": ", key, "[\"", printable(pattern), "\"] is ", printable(value.dump(-1, ' ', true)),
                          "; expected a number")};
    }
    out.emplace_back(pattern, value.template get<T>());
  }
  return out;
}

Status check_rank(std::int64_t rank, const std::string& path) {
  if (rank >= 1 && rank <= kMaxRank) return {};
  return Error{concat(path, ": rank ", rank, "; expected 1 to ", kMaxRank)};
}

Status read_layers(const Json& config, const std::string& path, AdapterConfig& out) {
  const auto it = config.find("layers_to_transform");
  if (it != config.end() && !it->is_null()) {
    const Json list = it->is_array() ? *it : Json::array({*it});
    for (const Json& layer : list) {
      if (!layer.is_number_integer())
        return refusal(path, "layers_to_transform", *it, "expected an integer or a list of integers");
      out.layers_to_transform.push_back(layer.get<std::int64_t>());
    }
  }
  SKEIN_ASSIGN(Names patterns, read_names(config, "layers_pattern", path));
  for (std::string& pattern : patterns.names) {
    if (!pattern.empty()) out.layers_pattern.push_back(std::move(pattern));
  }
  return {};
}

Status read_lora_fields(const Json& config, const std::string& path, AdapterConfig& out) {
  SKEIN_TRY(refuse_other_methods(config, path));
  SKEIN_TRY(refuse_changed_bases(config, path));
  SKEIN_ASSIGN(out.rank, json_integer(config, "r", 8, path));
  SKEIN_TRY(check_rank(out.rank, path));
  SKEIN_ASSIGN(out.alpha, json_number(config, "lora_alpha", 8, path));
  SKEIN_ASSIGN(out.use_rslora, json_bool(config, "use_rslora", false, path));
  SKEIN_ASSIGN(out.rank_pattern, read_pattern<std::int64_t>(config, "rank_pattern", path));
  SKEIN_ASSIGN(out.alpha_pattern, read_pattern<double>(config, "alpha_pattern", path));
  for (const auto& [pattern, rank] : out.rank_pattern) SKEIN_TRY(check_rank(rank, path));
  SKEIN_TRY(read_layers(config, path, out));
  // PEFT's defaults of the families Skein runs; no name of one family is a suffix in the other.
  if (!config.contains("target_modules") || config["target_modules"].is_null())
    out.target_modules = {"q_proj", "v_proj", "q", "v"};
  return {};
}

Status read_ia3_fields(const Json& config, const std::string& path, AdapterConfig& out) {
  if (is_set(config, "modules_to_save")) {
    return refusal(path, "modules_to_save", config["modules_to_save"], "whole modules were trained beside the vectors");
  }
  SKEIN_ASSIGN(Names feedforward, read_names(config, "feedforward_modules", path));
  out.feedforward_modules = std::move(feedforward.names);
  out.feedforward_is_regex = feedforward.is_regex;
  if (out.target_modules.empty())
    return Error{concat(path, ": target_modules is empty; expected the names PEFT writes for (IA)3")};
  return {};
}

template <typename T>
Json pattern_to_json(const std::vector<std::pair<std::string, T>>& pattern) {
  Json out = Json::object();
  for (const auto& [key, value] : pattern) out[key] = value;
  return out;
}

// 16 rather than 16.0, as PEFT's own integers are spelled.
Json number_to_json(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<std::int64_t>(value);
  return value;
}

Json names_to_json(const std::vector<std::string>& names, bool is_regex) {
  if (names.empty()) return nullptr;
  if (is_regex) return names[0];
  return names;
}

}  // namespace

Result<AdapterConfig> adapter_config_from_json(const Json& config, const std::string& path) {
  if (!config.is_object()) return Error{concat(path, ": not a JSON object; expected PEFT's adapter_config.json")};
  SKEIN_ASSIGN(const std::string type, json_string(config, "peft_type", std::nullopt, path));
  if (type != "LORA" && type != "IA3")
    return Error{concat(path, ": peft_type \"", printable(type), "\"; Skein reads LORA and IA3")};
  AdapterConfig out;
  out.kind = type == "LORA" ? AdapterKind::kLora : AdapterKind::kIa3;
  SKEIN_ASSIGN(out.base_model_name_or_path, json_string(config, "base_model_name_or_path", "", path));
  SKEIN_ASSIGN(out.task_type, json_string(config, "task_type", "", path));
  SKEIN_ASSIGN(Names targets, read_names(config, "target_modules", path));
  SKEIN_ASSIGN(Names excluded, read_names(config, "exclude_modules", path));
  out.target_modules = std::move(targets.names);
  out.target_is_regex = targets.is_regex;
  out.exclude_modules = std::move(excluded.names);
  out.exclude_is_regex = excluded.is_regex;
  if (out.target_is_regex) {
    std::string lower = out.target_modules[0];
    for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (lower == kAllLinear) {
      out.target_modules = {std::string(kAllLinear)};
      out.target_is_regex = false;
    }
  }
  SKEIN_TRY(out.kind == AdapterKind::kLora ? read_lora_fields(config, path, out) : read_ia3_fields(config, path, out));
  return out;
}

Json adapter_config_to_json(const AdapterConfig& config) {
  const bool lora = config.kind == AdapterKind::kLora;
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  Json json = {
      {"auto_mapping", nullptr},
      {"base_model_name_or_path", or_null(config.base_model_name_or_path)},
      {"peft_type", lora ? "LORA" : "IA3"},
      {"task_type", or_null(config.task_type)},
      {"revision", nullptr},
      {"inference_mode", true},
      {"fan_in_fan_out", false},
      {"modules_to_save", nullptr},
      {"exclude_modules", names_to_json(config.exclude_modules, config.exclude_is_regex)},
  };
  const bool all_linear = config.target_modules == std::vector<std::string>{std::string(kAllLinear)};
  json["target_modules"] = names_to_json(config.target_modules, config.target_is_regex || all_linear);
  if (!lora) {
    json["feedforward_modules"] = config.feedforward_modules.empty()
                                      ? Json::array()
                                      : names_to_json(config.feedforward_modules, config.feedforward_is_regex);
    json["init_ia3_weights"] = true;
    return json;
  }
  json["r"] = config.rank;
  json["lora_alpha"] = number_to_json(config.alpha);
  json["use_rslora"] = config.use_rslora;
  json["rank_pattern"] = pattern_to_json(config.rank_pattern);
  json["alpha_pattern"] = pattern_to_json(config.alpha_pattern);
  json["layers_to_transform"] = config.layers_to_transform.empty() ? Json() : Json(config.layers_to_transform);
  json["layers_pattern"] = config.layers_pattern.empty() ? Json() : Json(config.layers_pattern);
  json["lora_dropout"] = 0.0;
  json["bias"] = "none";
  json["init_lora_weights"] = true;
  json["use_dora"] = false;
  return json;
}

}  // namespace skein
