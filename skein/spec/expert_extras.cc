// What an expert's folder holds beside PEFT's two files: gates and the card.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "skein/base/concat.h"
#include "skein/io/safetensors.h"
#include "skein/spec/expert_folder.h"

namespace skein {
namespace {

constexpr const char* kGatesFolder = "gates";
constexpr std::string_view kGateEnding = ".safetensors";
constexpr std::string_view kGateKey = ".gate";
constexpr const char* kCardFile = "card.json";

std::string gate_path(const std::string& expert_folder, const std::string& kind) {
  return concat(expert_folder, "/", kGatesFolder, "/", kind, kGateEnding);
}

std::string metadata_value(const Checkpoint& file, const std::string& key) {
  for (const auto& [name, value] : file.metadata()) {
    if (name == key) return value;
  }
  return "";
}

Result<GateTensors> read_gate_tensor(const Checkpoint& file, const TensorInfo& info, int slot_idx,
                                     const SlotName& slot) {
  GateTensors gate;
  gate.slot_idx = slot_idx;
  const bool one = info.shape.size() == 1;
  const bool fits = (one && info.shape[0] == slot.d_in) ||
                    (info.shape.size() == 2 && info.shape[0] >= 1 && info.shape[1] == slot.d_in);
  if (!fits || !is_floating(info.dtype)) {
    return Error{concat(file.path(), ": tensor ", printable(info.name), " is ", printable(info.stored_as), " ",
                        to_string(info.shape), "; expected numbers of shape (", slot.d_in, ") or (g, ", slot.d_in,
                        "); a gate of another base")};
  }
  gate.num_directions = one ? 1 : info.shape[0];
  gate.directions.resize(static_cast<std::size_t>(gate.num_directions * slot.d_in));
  SKEIN_TRY(file.read(info.name, DType::kF32, std::as_writable_bytes(std::span(gate.directions))));
  if (!std::all_of(gate.directions.begin(), gate.directions.end(), [](float value) { return std::isfinite(value); })) {
    return Error{concat(file.path(), ": tensor ", printable(info.name),
                        " holds NaN or infinite values; the training diverged or the file is damaged")};
  }
  return gate;
}

}  // namespace

Result<GateFile> read_gate(Env& env, const std::string& expert_folder, const std::string& kind,
                           const std::vector<SlotName>& slots) {
  if (!is_safe_file_name(kind))
    return Error{concat("gate kind \"", printable(kind), "\" is no name of a file"), ErrorKind::kUsage};
  const std::string path = gate_path(expert_folder, kind);
  if (!env.exists(path)) {
    return Error{
        concat(expert_folder, ": no gate ", kGatesFolder, "/", kind, kGateEnding, "; train one with skein train gate")};
  }
  SKEIN_ASSIGN(const std::unique_ptr<Checkpoint> file, open_safetensors(env, path, adapter_limits()));
  std::map<std::string, int> slot_of;
  for (std::size_t slot_idx = 0; slot_idx < slots.size(); ++slot_idx) {
    slot_of.emplace(concat(slots[slot_idx].module, kGateKey), static_cast<int>(slot_idx));
  }
  GateFile gate;
  gate.kind = metadata_value(*file, "kind");
  if (gate.kind != kind) {
    return Error{concat(path, ": the metadata says kind \"", printable(gate.kind), "\"; expected ", kind,
                        "; was the file renamed?")};
  }
  const std::string steps = metadata_value(*file, "steps");
  const auto [end, fault] = std::from_chars(steps.data(), steps.data() + steps.size(), gate.steps);
  if (fault != std::errc() || end != steps.data() + steps.size() || gate.steps < 0) {
    return Error{
        concat(path, ": the metadata says steps \"", printable(steps), "\"; expected a number of training steps")};
  }
  gate.base_fingerprint = metadata_value(*file, "base_fingerprint");
  for (const TensorInfo& info : file->tensors()) {
    const auto it = slot_of.find(info.name);
    if (it == slot_of.end()) {
      return Error{concat(path, ": tensor ", printable(info.name),
                          " is no gate of a linear of the base; expected <module>.gate; a gate of another base")};
    }
    SKEIN_ASSIGN(GateTensors tensors,
                 read_gate_tensor(*file, info, it->second, slots[static_cast<std::size_t>(it->second)]));
    gate.modules.push_back(std::move(tensors));
  }
  if (gate.modules.empty()) return Error{concat(path, ": no tensor; the file is empty")};
  std::sort(gate.modules.begin(), gate.modules.end(),
            [](const auto& a, const auto& b) { return a.slot_idx < b.slot_idx; });
  return gate;
}

Status write_gate(Env& env, const std::string& expert_folder, const GateFile& gate,
                  const std::vector<SlotName>& slots) {
  SKEIN_CHECK(is_safe_file_name(gate.kind));
  std::vector<NamedTensor> tensors;
  for (const GateTensors& module : gate.modules) {
    const SlotName& slot = slots[static_cast<std::size_t>(module.slot_idx)];
    SKEIN_CHECK(static_cast<std::int64_t>(module.directions.size()) == module.num_directions * slot.d_in);
    const Shape shape = module.num_directions == 1 ? Shape{slot.d_in} : Shape{module.num_directions, slot.d_in};
    tensors.push_back(
        {concat(slot.module, kGateKey), {DType::kF32, shape, std::as_bytes(std::span(module.directions))}});
  }
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  SKEIN_TRY(env.make_folders(join_path(expert_folder, kGatesFolder)));
  return write_safetensors(env, gate_path(expert_folder, gate.kind), tensors,
                           {{"format", "pt"},
                            {"kind", gate.kind},
                            {"steps", std::to_string(gate.steps)},
                            {"base_fingerprint", gate.base_fingerprint}});
}

std::vector<std::string> gate_kinds(Env& env, const std::string& expert_folder) {
  const Result<std::vector<std::string>> names = env.list(join_path(expert_folder, kGatesFolder));
  std::vector<std::string> kinds;
  if (!names.ok()) return kinds;  // no folder of gates
  for (const std::string& name : *names) {
    if (name.size() > kGateEnding.size() && name.ends_with(kGateEnding) && is_safe_file_name(name)) {
      kinds.push_back(name.substr(0, name.size() - kGateEnding.size()));
    }
  }
  std::sort(kinds.begin(), kinds.end());
  return kinds;
}

Result<Json> read_card(Env& env, const std::string& expert_folder) {
  const std::string path = join_path(expert_folder, kCardFile);
  if (!env.exists(path)) return Json::object();
  SKEIN_ASSIGN(Json card, read_json_file(env, path));
  if (!card.is_object()) return Error{concat(path, ": not a JSON object")};
  return card;
}

Status write_card(Env& env, const std::string& expert_folder, const Json& card) {
  return write_text_atomically(env, join_path(expert_folder, kCardFile), card.dump(2) + "\n");
}

}  // namespace skein
