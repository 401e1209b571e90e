#include "skein/spec/mixture_folder.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "skein/base/check.h"
#include "skein/base/concat.h"
#include "skein/base/word_table.h"
#include "skein/io/safetensors.h"

namespace skein {
namespace {

constexpr const char* kConfigFile = "mixture.json";
constexpr const char* kWeightsFile = "mixture.safetensors";
constexpr std::int64_t kVersion = 1;
constexpr int kMaxExperts = 4096;
constexpr std::int64_t kMaxRank = 1 << 16;

constexpr WordTable<MixtureKind, 2> kKinds{{{MixtureKind::kMov, "mov"}, {MixtureKind::kMolora, "molora"}}};
constexpr WordTable<RouterInput, 3> kInputs{
    {{RouterInput::kHidden, "hidden"}, {RouterInput::kProjected, "projected"}, {RouterInput::kSentence, "sentence"}}};
constexpr WordTable<Mixes, 2> kMixes{{{Mixes::kOutputs, "outputs"}, {Mixes::kParameters, "parameters"}}};

bool is_mov_kind(const std::string& kind) {
  static const std::set<std::string> kMovKinds = {"k_proj", "v_proj", "down_proj", "k", "v", "wo"};
  return kMovKinds.contains(kind);
}

// One tensor of a module: its name's ending, its shape, and where its numbers are.
struct Part {
  std::string ending;
  Shape shape;
  std::vector<float> MixtureModule::*values;
};

std::vector<Part> parts_of(const MixtureConfig& config, const BackboneConfig& base, const SlotName& slot) {
  const std::int64_t experts = config.num_experts;
  std::vector<Part> parts;
  if (config.kind == MixtureKind::kMov) {
    parts.push_back(
        {".experts.scaling", {experts, scales_input(slot) ? slot.d_in : slot.d_out}, &MixtureModule::scaling});
  } else {
    parts.push_back({".experts.lora_A", {experts, config.rank, slot.d_in}, &MixtureModule::a});
    parts.push_back({".experts.lora_B", {experts, slot.d_out, config.rank}, &MixtureModule::b});
  }
  parts.push_back({".router.weight", {experts, router_width(config, base, slot)}, &MixtureModule::router});
  return parts;
}

Result<std::vector<std::string>> read_names(const Json& json, const char* key, const std::string& path) {
  std::vector<std::string> names;
  const auto it = json.find(key);
  if (it == json.end() || it->is_null()) return names;
  if (!it->is_array()) return Error{concat(path, ": ", key, " is no list of names")};
  for (const Json& name : *it) {
    if (!name.is_string()) return Error{concat(path, ": ", key, " is no list of names")};
    names.push_back(name.get<std::string>());
  }
  return names;
}

// A name that is not known is the file's fault here, not the command line's.
template <typename Value>
Result<Value> as_of_file(Result<Value> parsed, const std::string& path) {
  if (parsed.ok()) return parsed;
  return Error{concat(path, ": ", parsed.error().message)};
}

Result<MixtureFile> read_config(Env& env, const std::string& folder) {
  const std::string path = join_path(folder, kConfigFile);
  if (!env.exists(path)) {
    return Error{concat(folder, ": no ", kConfigFile, "; expected a folder that skein train mov or molora wrote")};
  }
  SKEIN_ASSIGN(const Json json, read_json_file(env, path));
  if (!json.is_object()) return Error{concat(path, ": not a JSON object")};
  SKEIN_ASSIGN(const std::int64_t version, json_integer(json, "format_version", std::nullopt, path));
  if (version != kVersion) {
    return Error{
        concat(path, ": format_version ", version, "; this program reads ", kVersion, "; written by a later version?")};
  }
  MixtureFile file;
  MixtureConfig& config = file.config;
  SKEIN_ASSIGN(const std::string kind, json_string(json, "kind", std::nullopt, path));
  SKEIN_ASSIGN(config.kind, as_of_file(value_in(kKinds, kind, "kind of mixture"), path));
  SKEIN_ASSIGN(const std::int64_t experts, json_integer(json, "num_experts", std::nullopt, path));
  SKEIN_ASSIGN(const std::int64_t top_k, json_integer(json, "top_k", 0, path));
  if (experts < 1 || experts > kMaxExperts || top_k < 0 || top_k > experts) {
    return Error{concat(path, ": ", experts, " experts, top_k ", top_k, "; expected 1 to ", kMaxExperts,
                        " experts and at most as many chosen")};
  }
  config.num_experts = static_cast<int>(experts);
  config.top_k = static_cast<int>(top_k);
  SKEIN_ASSIGN(config.renormalises, json_bool(json, "renormalises", false, path));
  SKEIN_ASSIGN(const std::string input, json_string(json, "router_input", std::nullopt, path));
  SKEIN_ASSIGN(config.router_input, as_of_file(parse_router_input(input), path));
  SKEIN_ASSIGN(const std::string mixes, json_string(json, "mixes", "outputs", path));
  SKEIN_ASSIGN(config.mixes, as_of_file(parse_mixes(mixes), path));
  if (config.kind == MixtureKind::kMolora) {
    SKEIN_ASSIGN(config.rank, json_integer(json, "rank", std::nullopt, path));
    SKEIN_ASSIGN(config.alpha, json_number(json, "alpha", std::nullopt, path));
    SKEIN_ASSIGN(config.target_kinds, read_names(json, "target_modules", path));
  }
  SKEIN_ASSIGN(config.experts, read_names(json, "experts", path));
  const Status checked = check_mixture_config(config);
  if (!checked.ok()) return Error{concat(path, ": ", checked.error().message)};
  SKEIN_ASSIGN(file.base_fingerprint, json_string(json, "base_fingerprint", "", path));
  SKEIN_ASSIGN(file.base_hint, json_string(json, "base", "", path));
  return file;
}

}  // namespace

std::string_view mixture_kind_name(MixtureKind kind) { return name_in(kKinds, kind); }
std::string_view router_input_name(RouterInput input) { return name_in(kInputs, input); }
std::string_view mixes_name(Mixes mixes) { return name_in(kMixes, mixes); }
Result<RouterInput> parse_router_input(std::string_view name) { return value_in(kInputs, name, "router input"); }
Result<Mixes> parse_mixes(std::string_view name) { return value_in(kMixes, name, "way to mix"); }

bool scales_input(const SlotName& slot) { return slot.kind == "down_proj" || slot.kind == "wo"; }

Status check_mixture_config(const MixtureConfig& config) {
  const auto refuse = [](auto... words) { return Error{concat(words...), ErrorKind::kUsage}; };
  if (config.num_experts < 1 || config.num_experts > kMaxExperts)
    return refuse("the number of experts is ", config.num_experts, "; expected 1 to ", kMaxExperts);
  if (config.top_k < 0 || config.top_k > config.num_experts)
    return refuse("top-k is ", config.top_k, "; expected 0 (all experts) to ", config.num_experts);
  if (!config.experts.empty() && static_cast<int>(config.experts.size()) != config.num_experts)
    return refuse(config.experts.size(), " names for ", config.num_experts, " experts");
  if (config.kind == MixtureKind::kMov) {
    if (config.mixes == Mixes::kOutputs) return {};
    return refuse("MoV has one way to mix: scaling is linear in the vectors, so outputs and parameters agree");
  }
  if (config.rank < 1 || config.rank > kMaxRank)
    return refuse("the rank is ", config.rank, "; expected 1 to ", kMaxRank);
  if (!std::isfinite(config.alpha)) return refuse("alpha is not a finite number");
  if (config.router_input == RouterInput::kProjected)
    return refuse("a MoLoRA router reads its linear's input (hidden) or the sentence, in the released code too");
  return {};
}

Result<std::vector<int>> mixture_slots(const MixtureConfig& config, const std::vector<SlotName>& slots) {
  const auto& targets = config.target_kinds;
  std::set<std::string> unmet(targets.begin(), targets.end());
  std::vector<int> found;
  std::set<std::string> kinds;
  for (std::size_t s = 0; s < slots.size(); ++s) {
    const std::string& kind = slots[s].kind;
    kinds.insert(kind);
    unmet.erase(kind);
    const bool is_target = config.kind == MixtureKind::kMov
                               ? is_mov_kind(kind)
                               : targets.empty() || std::find(targets.begin(), targets.end(), kind) != targets.end();
    if (is_target) found.push_back(static_cast<int>(s));
  }
  if (!unmet.empty()) {
    std::string known;
    for (const std::string& kind : kinds) known += (known.empty() ? "" : ", ") + kind;
    return Error{concat("target ", printable(*unmet.begin()), " is no linear of this base, which has ", known),
                 ErrorKind::kUsage};
  }
  return found;
}

std::int64_t router_width(const MixtureConfig& config, const BackboneConfig& base, const SlotName& slot) {
  switch (config.router_input) {
    case RouterInput::kSentence:
      return base.d_model;
    case RouterInput::kProjected:
      return scales_input(slot) ? slot.d_in : base.d_head;
    case RouterInput::kHidden:
      break;
  }
  // The feed-forward's vectors act on its inner activation; its router reads what the whole feed-forward reads.
  return config.kind == MixtureKind::kMov && scales_input(slot) ? base.d_model : slot.d_in;
}

std::int64_t base_parameters(const BackboneConfig& base) {
  std::int64_t total = 0;
  for (const TensorName& tensor : tensor_names(base)) total += checked_numel(tensor.shape).value();
  return total;
}

ParameterCount count_parameters(const MixtureConfig& config, const BackboneConfig& base) {
  ParameterCount count;
  count.base = base_parameters(base);
  const std::vector<SlotName> slots = slot_names(base);
  const Result<std::vector<int>> targets = mixture_slots(config, slots);
  if (!targets.ok()) return count;
  for (const int s : *targets) {
    for (const Part& part : parts_of(config, base, slots[s])) {
      const std::int64_t numel = checked_numel(part.shape).value();
      (part.values == &MixtureModule::router ? count.routers : count.experts) += numel;
    }
  }
  return count;
}

Json mixture_config_to_json(const MixtureConfig& config) {
  Json json;
  json["kind"] = mixture_kind_name(config.kind);
  json["num_experts"] = config.num_experts;
  json["top_k"] = config.top_k;
  json["renormalises"] = config.renormalises;
  json["router_input"] = router_input_name(config.router_input);
  if (config.kind == MixtureKind::kMolora) {
    json["mixes"] = mixes_name(config.mixes);
    json["rank"] = config.rank;
    json["alpha"] = config.alpha;
    json["target_modules"] = config.target_kinds.empty() ? Json() : Json(config.target_kinds);
  }
  if (!config.experts.empty()) json["experts"] = config.experts;
  return json;
}

Result<MixtureFile> read_mixture(Env& env, const std::string& folder, const BackboneConfig& base) {
  SKEIN_ASSIGN(MixtureFile mixture, read_config(env, folder));
  const std::vector<SlotName> slots = slot_names(base);
  const Result<std::vector<int>> targets = mixture_slots(mixture.config, slots);
  if (!targets.ok()) {
    return Error{concat(join_path(folder, kConfigFile), ": ", targets.error().message, "; a mixture of another base?")};
  }
  const std::string path = join_path(folder, kWeightsFile);
  SKEIN_ASSIGN(const std::unique_ptr<Checkpoint> file, open_safetensors(env, path, adapter_limits()));
  std::size_t num_tensors = 0;
  for (const int s : *targets) {
    MixtureModule module{.slot_idx = s};
    for (const Part& part : parts_of(mixture.config, base, slots[s])) {
      const std::string name = slots[s].module + part.ending;
      const TensorInfo* info = file->find(name);
      if (info == nullptr || info->shape != part.shape || !is_floating(info->dtype)) {
        return Error{concat(path, ": ",
                            info == nullptr
                                ? concat("no tensor ", name)
                                : concat(name, " is ", printable(info->stored_as), " ", to_string(info->shape)),
                            "; expected numbers of shape ", to_string(part.shape), "; a mixture of another base, or ",
                            kConfigFile, " is another mixture's")};
      }
      std::vector<float>& values = module.*part.values;
      values.resize(static_cast<std::size_t>(checked_numel(part.shape).value()));
      SKEIN_TRY(file->read(name, DType::kF32, std::as_writable_bytes(std::span(values))));
      if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); })) {
        return Error{
            concat(path, ": ", name, " holds NaN or infinite values; the training diverged or the file is damaged")};
      }
      ++num_tensors;
    }
    mixture.modules.push_back(std::move(module));
  }
  if (num_tensors != file->tensors().size()) {
    return Error{concat(path, ": ", file->tensors().size(), " tensors; ", kConfigFile, " and the base account for ",
                        num_tensors, "; ", kConfigFile, " is another mixture's")};
  }
  return mixture;
}

Status write_mixture(Env& env, const std::string& folder, const MixtureFile& mixture, const BackboneConfig& base) {
  const std::vector<SlotName> slots = slot_names(base);
  std::vector<NamedTensor> tensors;
  for (const MixtureModule& module : mixture.modules) {
    const SlotName& slot = slots[static_cast<std::size_t>(module.slot_idx)];
    for (const Part& part : parts_of(mixture.config, base, slot)) {
      const std::vector<float>& values = module.*part.values;
      SKEIN_CHECK(static_cast<std::int64_t>(values.size()) == checked_numel(part.shape).value());
      tensors.push_back({slot.module + part.ending, {DType::kF32, part.shape, std::as_bytes(std::span(values))}});
    }
  }
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  SKEIN_TRY(write_safetensors(env, join_path(folder, kWeightsFile), tensors, {{"format", "pt"}}));
  Json json = mixture_config_to_json(mixture.config);
  json["format_version"] = kVersion;
  const ParameterCount count = count_parameters(mixture.config, base);
  json["parameters"] = {{"experts", count.experts}, {"routers", count.routers}, {"share_of_base", count.share()}};
  json["base"] = mixture.base_hint;
  json["base_fingerprint"] = mixture.base_fingerprint;
  return write_text_atomically(env, join_path(folder, kConfigFile), json.dump(2) + "\n");
}

}  // namespace skein
