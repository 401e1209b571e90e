// A PEFT (IA)3 folder: one vector a module, base_model.model.<module>.ia3_l, (D_out, 1), or (1, D_in) for the modules
// whose input is scaled.
#include <algorithm>
#include <cmath>
#include <set>

#include "skein/base/check.h"
#include "skein/base/concat.h"
#include "skein/io/safetensors.h"
#include "skein/spec/expert_folder.h"

namespace skein {
namespace {

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kWeightsFile = "adapter_model.safetensors";

std::string key_of(const SlotName& slot) { return concat("base_model.model.", slot.module, ".ia3_l"); }

// The slots whose input is scaled.
Result<std::set<int>> feed_forward_slots(const AdapterConfig& config, const std::vector<SlotName>& slots) {
  std::set<int> found;
  if (config.feedforward_modules.empty()) return found;
  AdapterConfig matching;
  matching.target_modules = config.feedforward_modules;
  matching.target_is_regex = config.feedforward_is_regex;
  const Result<std::vector<AdaptedSlot>> matched = match_slots(matching, slots);
  if (!matched.ok()) return found;  // names of another family in a list that serves many
  for (const AdaptedSlot& slot : *matched) found.insert(slot.slot_idx);
  return found;
}

Result<LoraAdapter> read_ia3(Env& env, const std::string& folder, AdapterConfig config,
                             const std::vector<SlotName>& slots) {
  LoraAdapter adapter;
  adapter.path = folder;
  const Result<std::vector<AdaptedSlot>> adapted = match_slots(config, slots);
  if (!adapted.ok()) return Error{concat(folder, "/", adapted.error().message)};
  SKEIN_ASSIGN(const std::set<int> feed_forward, feed_forward_slots(config, slots));
  const std::string path = join_path(folder, kWeightsFile);
  if (!env.exists(path)) {
    return Error{
        concat(folder, ": no ", kWeightsFile,
               "; the folder is incomplete, or its weights are a pickle: save it with safe_serialization=True")};
  }
  SKEIN_ASSIGN(const std::unique_ptr<Checkpoint> file, open_safetensors(env, path, adapter_limits()));
  for (const AdaptedSlot& matched : *adapted) {
    const SlotName& slot = slots[static_cast<std::size_t>(matched.slot_idx)];
    Ia3Tensors vector{matched.slot_idx, feed_forward.contains(matched.slot_idx), {}};
    const std::int64_t width = vector.scales_input ? slot.d_in : slot.d_out;
    const Shape expected = vector.scales_input ? Shape{1, width} : Shape{width, 1};
    const TensorInfo* info = file->find(key_of(slot));
    if (info == nullptr || info->shape != expected || !is_floating(info->dtype)) {
      return Error{concat(path, ": ",
                          info == nullptr
                              ? concat("no ", key_of(slot))
                              : concat(key_of(slot), " is ", printable(info->stored_as), " ", to_string(info->shape)),
                          "; expected numbers of shape ", to_string(expected), "; an adapter of another base?")};
    }
    vector.scaling.resize(static_cast<std::size_t>(width));
    SKEIN_TRY(file->read(info->name, DType::kF32, std::as_writable_bytes(std::span(vector.scaling))));
    if (!std::all_of(vector.scaling.begin(), vector.scaling.end(), [](float value) { return std::isfinite(value); })) {
      return Error{
          concat(path, ": NaN or infinite values in ", info->name, "; the training diverged or the file is damaged")};
    }
    adapter.vectors.push_back(std::move(vector));
  }
  if (file->tensors().size() != adapter.vectors.size()) {
    return Error{concat(path, ": ", file->tensors().size(), " tensors for ", adapter.vectors.size(),
                        " target modules; adapter_config.json is another adapter's, or the adapter of another base")};
  }
  adapter.config = std::move(config);
  return adapter;
}

}  // namespace

Result<LoraAdapter> read_adapter(Env& env, const std::string& folder, const std::vector<SlotName>& slots) {
  const std::string path = join_path(folder, kConfigFile);
  if (env.exists(path)) {
    SKEIN_ASSIGN(const Json json, read_json_file(env, path));
    SKEIN_ASSIGN(AdapterConfig config, adapter_config_from_json(json, path));
    if (config.kind == AdapterKind::kIa3) return read_ia3(env, folder, std::move(config), slots);
  }
  return read_lora_adapter(env, folder, slots);
}

Status write_ia3_adapter(Env& env, const std::string& folder, const LoraAdapter& adapter,
                         const std::vector<SlotName>& slots) {
  SKEIN_CHECK(adapter.config.kind == AdapterKind::kIa3);
  std::vector<NamedTensor> tensors;
  for (const Ia3Tensors& vector : adapter.vectors) {
    const auto width = static_cast<std::int64_t>(vector.scaling.size());
    const Shape shape = vector.scales_input ? Shape{1, width} : Shape{width, 1};
    tensors.push_back({key_of(slots[static_cast<std::size_t>(vector.slot_idx)]),
                       {DType::kF32, shape, std::as_bytes(std::span(vector.scaling))}});
  }
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  SKEIN_TRY(write_safetensors(env, join_path(folder, kWeightsFile), tensors, {{"format", "pt"}}));
  return write_text_atomically(env, join_path(folder, kConfigFile),
                               adapter_config_to_json(adapter.config).dump(2) + "\n");
}

}  // namespace skein
