// A PEFT LoRA folder, read with every tensor checked against the base, and written as PEFT writes it.
#include <algorithm>
#include <cmath>
#include <map>

#include "skein/base/concat.h"
#include "skein/io/safetensors.h"
#include "skein/spec/expert_folder.h"

namespace skein {
namespace {

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kWeightsFile = "adapter_model.safetensors";
constexpr std::string_view kKeyPrefix = "base_model.model.";

// Faults of many tensors told in one sentence.
class FaultList {
 public:
  void add(const std::string& fault) {
    if (++count_ > kShown) return;
    text_ += concat(text_.empty() ? "" : ", ", fault);
  }
  Status status(const std::string& where, const std::string& what, const std::string& cause) const {
    if (count_ == 0) return {};
    const std::string more = count_ > kShown ? concat(" and ", count_ - kShown, " more") : "";
    return Error{concat(where, ": ", what, " ", text_, more, "; ", cause)};
  }

 private:
  static constexpr int kShown = 6;
  int count_ = 0;
  std::string text_;
};

// "base_model.model.<module>.lora_A.weight", in older files with the adapter's name before ".weight".
struct LoraKey {
  std::string module;
  bool is_b = false;
};

std::optional<LoraKey> parse_key(const std::string& name) {
  if (!name.starts_with(kKeyPrefix)) return std::nullopt;
  for (const bool is_b : {false, true}) {
    for (const char* ending : {".weight", ".default.weight"}) {
      const std::string suffix = concat(is_b ? ".lora_B" : ".lora_A", ending);
      if (name.size() > kKeyPrefix.size() + suffix.size() && name.ends_with(suffix)) {
        return LoraKey{name.substr(kKeyPrefix.size(), name.size() - kKeyPrefix.size() - suffix.size()), is_b};
      }
    }
  }
  return std::nullopt;
}

struct Halves {
  const TensorInfo* a = nullptr;
  const TensorInfo* b = nullptr;
};

Result<std::map<std::string, Halves>> pair_halves(const Checkpoint& file) {
  std::map<std::string, Halves> by_module;
  FaultList strange;
  FaultList twice;
  for (const TensorInfo& info : file.tensors()) {
    const std::optional<LoraKey> key = parse_key(info.name);
    if (!key) {
      strange.add(printable(info.name));
      continue;
    }
    Halves& halves = by_module[key->module];
    const TensorInfo*& half = key->is_b ? halves.b : halves.a;
    if (half != nullptr) twice.add(printable(info.name));
    half = &info;
  }
  SKEIN_TRY(strange.status(file.path(), "tensors that are no lora_A or lora_B of a linear:",
                           "an expert holds base_model.model.<module>.lora_A.weight and lora_B.weight only"));
  SKEIN_TRY(twice.status(file.path(), "a second copy of one matrix:", "the file was put together from two adapters"));
  return by_module;
}

// Every adapted slot has both halves in the shapes that base and configuration ask for, and there is nothing else.
Status check_tensors(const std::string& path, const std::map<std::string, Halves>& halves,
                     const std::vector<AdaptedSlot>& adapted, const std::vector<SlotName>& slots) {
  FaultList unknown, untargeted, missing, wrong;
  std::map<std::string, bool> is_adapted;
  for (const SlotName& slot : slots) is_adapted[slot.module] = false;
  for (const AdaptedSlot& slot : adapted) is_adapted[slots[static_cast<std::size_t>(slot.slot_idx)].module] = true;
  for (const auto& [module, half] : halves) {
    const auto it = is_adapted.find(module);
    if (it == is_adapted.end()) {
      unknown.add(printable(module));
    } else if (!it->second) {
      untargeted.add(printable(module));
    }
  }
  for (const AdaptedSlot& slot : adapted) {
    const SlotName& name = slots[static_cast<std::size_t>(slot.slot_idx)];
    const auto it = halves.find(name.module);
    const Halves half = it == halves.end() ? Halves{} : it->second;
    if (half.a == nullptr) missing.add(concat(name.module, ".lora_A"));
    if (half.b == nullptr) missing.add(concat(name.module, ".lora_B"));
    const auto check = [&](const TensorInfo* info, const Shape& expected) {
      if (info == nullptr) return;
      if (info->shape != expected) {
        wrong.add(concat(printable(info->name), " ", to_string(info->shape), " instead of ", to_string(expected)));
      } else if (!is_floating(info->dtype)) {
        wrong.add(concat(printable(info->name), " of type ", printable(info->stored_as)));
      }
    };
    check(half.a, {slot.rank, name.d_in});
    check(half.b, {name.d_out, slot.rank});
  }
  SKEIN_TRY(unknown.status(path, "modules that the base does not have:", "an adapter of another base"));
  SKEIN_TRY(untargeted.status(path, "modules outside target_modules:", "adapter_config.json is another adapter's"));
  SKEIN_TRY(wrong.status(
      path, "shapes that do not fit:", "an adapter of another base, or ranks other than adapter_config.json says"));
  return missing.status(path, "missing", "the file is incomplete, or an adapter of a smaller base");
}

Result<std::vector<float>> read_floats(const Checkpoint& file, const TensorInfo& info) {
  std::vector<float> values(static_cast<std::size_t>(checked_numel(info.shape).value()));
  SKEIN_TRY(file.read(info.name, DType::kF32, std::as_writable_bytes(std::span(values))));
  return values;
}

bool all_finite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

Result<AdapterConfig> read_config(Env& env, const std::string& folder) {
  const std::string path = join_path(folder, kConfigFile);
  if (!env.exists(path)) {
    return Error{concat(folder, ": no ", kConfigFile, "; expected a PEFT adapter folder",
                        env.exists(join_path(folder, "config.json")) ? "; this is a model" : "")};
  }
  SKEIN_ASSIGN(const Json json, read_json_file(env, path));
  SKEIN_ASSIGN(AdapterConfig config, adapter_config_from_json(json, path));
  if (config.kind != AdapterKind::kLora)
    return Error{concat(path, ": peft_type IA3; expected a LoRA here")};
  return config;
}

// The weights' path; a pickle is refused with the way out.
Result<std::string> weights_path(Env& env, const std::string& folder) {
  const std::string path = join_path(folder, kWeightsFile);
  if (env.exists(path)) return path;
  if (env.exists(join_path(folder, "adapter_model.bin"))) {
    return Error{
        concat(folder,
               ": the weights are a pickle (adapter_model.bin), which can run code when read; save the adapter "
               "with safe_serialization=True (PEFT's default) first")};
  }
  return Error{concat(folder, ": no ", kWeightsFile, "; the folder is incomplete")};
}

// A config that says of `modules` what they are, module by module.
AdapterConfig spelled_out(const LoraAdapter& adapter, const std::vector<SlotName>& slots) {
  AdapterConfig config = adapter.config;
  config.use_rslora = false;
  config.target_is_regex = false;
  config.target_modules.clear();
  config.exclude_modules.clear();
  config.layers_to_transform.clear();
  config.layers_pattern.clear();
  config.rank_pattern.clear();
  config.alpha_pattern.clear();
  config.rank = adapter.modules.empty() ? config.rank : adapter.modules[0].rank;
  config.alpha = adapter.modules.empty() ? config.alpha : adapter.modules[0].scale * static_cast<double>(config.rank);
  for (const LoraTensors& module : adapter.modules) {
    const std::string& name = slots[static_cast<std::size_t>(module.slot_idx)].module;
    config.target_modules.push_back(name);
    if (module.rank != config.rank) config.rank_pattern.emplace_back(name, module.rank);
    const double alpha = module.scale * static_cast<double>(module.rank);
    if (alpha != config.alpha) config.alpha_pattern.emplace_back(name, alpha);
  }
  return config;
}

bool describes(const AdapterConfig& config, const LoraAdapter& adapter, const std::vector<SlotName>& slots) {
  const Result<std::vector<AdaptedSlot>> matched = match_slots(config, slots);
  return matched.ok() && std::equal(matched->begin(), matched->end(), adapter.modules.begin(), adapter.modules.end(),
                                    [](const AdaptedSlot& a, const LoraTensors& b) {
                                      return a.slot_idx == b.slot_idx && a.rank == b.rank && a.scale == b.scale;
                                    });
}

}  // namespace

Result<LoraAdapter> read_lora_adapter(Env& env, const std::string& folder, const std::vector<SlotName>& slots) {
  LoraAdapter adapter;
  adapter.path = folder;
  SKEIN_ASSIGN(adapter.config, read_config(env, folder));
  SKEIN_ASSIGN(const std::string path, weights_path(env, folder));
  const Result<std::vector<AdaptedSlot>> adapted = match_slots(adapter.config, slots);
  if (!adapted.ok()) return Error{concat(folder, "/", adapted.error().message)};
  SKEIN_ASSIGN(const std::unique_ptr<Checkpoint> file, open_safetensors(env, path, adapter_limits()));
  SKEIN_ASSIGN(const auto halves, pair_halves(*file));
  SKEIN_TRY(check_tensors(path, halves, *adapted, slots));
  FaultList not_finite;
  for (const AdaptedSlot& slot : *adapted) {
    const Halves& half = halves.at(slots[static_cast<std::size_t>(slot.slot_idx)].module);
    LoraTensors module{slot.slot_idx, slot.rank, slot.scale, {}, {}};
    SKEIN_ASSIGN(module.a, read_floats(*file, *half.a));
    SKEIN_ASSIGN(module.b, read_floats(*file, *half.b));
    if (!all_finite(module.a)) not_finite.add(printable(half.a->name));
    if (!all_finite(module.b)) not_finite.add(printable(half.b->name));
    adapter.modules.push_back(std::move(module));
  }
  SKEIN_TRY(not_finite.status(path, "NaN or infinite values in", "the training diverged or the file is damaged"));
  return adapter;
}

Status write_lora_adapter(Env& env, const std::string& folder, const LoraAdapter& adapter,
                          const std::vector<SlotName>& slots) {
  const AdapterConfig config = describes(adapter.config, adapter, slots) ? adapter.config : spelled_out(adapter, slots);
  std::vector<NamedTensor> tensors;
  for (const LoraTensors& module : adapter.modules) {
    const SlotName& slot = slots[static_cast<std::size_t>(module.slot_idx)];
    SKEIN_CHECK(static_cast<std::int64_t>(module.a.size()) == module.rank * slot.d_in);
    SKEIN_CHECK(static_cast<std::int64_t>(module.b.size()) == slot.d_out * module.rank);
    const std::string key = concat(kKeyPrefix, slot.module);
    tensors.push_back(
        {key + ".lora_A.weight", {DType::kF32, {module.rank, slot.d_in}, std::as_bytes(std::span(module.a))}});
    tensors.push_back(
        {key + ".lora_B.weight", {DType::kF32, {slot.d_out, module.rank}, std::as_bytes(std::span(module.b))}});
  }
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  SKEIN_TRY(write_safetensors(env, join_path(folder, kWeightsFile), tensors, {{"format", "pt"}}));
  return write_text_atomically(env, join_path(folder, kConfigFile), adapter_config_to_json(config).dump(2) + "\n");
}

}  // namespace skein
